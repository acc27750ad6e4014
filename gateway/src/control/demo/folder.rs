//! The demo's folder: the gateway's configuration, its state and its log, gone at the end. A door.

#![allow(
    clippy::disallowed_methods,
    reason = "a folder of its own below the system's folder for temporary files"
)]

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Every folder's name begins so.
const NAME: &str = "tidegate-demo-";
/// A gateway that still runs may make a file while its folder is removed.
const REMOVE_TRIES: u32 = 10;
/// Folders of earlier demos that were killed may be in the way of a name.
const NAMES_MAX: u32 = 100;
/// Lines of the log that are shown when the gateway did not start.
const TAIL_LINES: usize = 6;

/// The folder cannot be made or written to.
#[derive(Debug)]
pub struct Unusable {
    path: PathBuf,
    why: io::Error,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the demo needs a folder for a minute, and {} cannot be written: {}; name one that can be \
             with TMPDIR, as in `TMPDIR=$HOME tidegate demo`",
            self.path.display(),
            self.why
        )
    }
}

/// The folder. It is removed when this is dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes it, for this user alone.
    ///
    /// # Errors
    /// The system refuses; the text says what to do.
    pub fn make() -> Result<Self, Unusable> {
        let above = std::env::temp_dir();
        let process = std::process::id();
        for n in 0..NAMES_MAX {
            let path = above.join(format!("{NAME}{process}-{n}"));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {}
                Err(why) => return Err(Unusable { path, why }),
            }
        }
        let why = io::ErrorKind::AlreadyExists.into();
        Err(Unusable { path: above, why })
    }

    /// The gateway's configuration file.
    #[must_use]
    pub fn configuration(&self) -> PathBuf {
        self.path.join("tidegate.toml")
    }

    /// The gateway's state folder.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.path.join("state")
    }

    /// Writes the configuration: the defaults, and what is the demo's own.
    ///
    /// # Errors
    /// The disk takes nothing.
    pub fn write_configuration(
        &self,
        gateway: SocketAddr,
        cloud: SocketAddr,
    ) -> Result<(), Unusable> {
        let text = configuration(&self.state_dir(), gateway, cloud);
        let path = self.configuration();
        fs::write(&path, text).map_err(|why| Unusable { path, why })
    }

    /// A file for what the gateway says, appended to over its starts.
    ///
    /// # Errors
    /// The disk takes nothing.
    pub fn log(&self) -> Result<File, Unusable> {
        let path = self.log_path();
        let file = File::options().create(true).append(true).open(&path);
        file.map_err(|why| Unusable { path, why })
    }

    /// What the gateway said last.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = fs::read(self.log_path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        let from = lines.len().saturating_sub(TAIL_LINES);
        lines.get(from..).unwrap_or_default().join("\n")
    }

    fn log_path(&self) -> PathBuf {
        self.path.join("log")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed now is left to whoever cleans temporary files.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes the folder of a demo that was killed, from within its gateway; nothing that is not called as
/// such a folder.
pub fn remove_orphan(configuration: &Path) {
    let folder = configuration.parent();
    let folder = folder.filter(|folder| {
        let name = folder.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with(NAME)
    });
    let Some(folder) = folder else { return };
    let _ = (0..REMOVE_TRIES).find(|_| fs::remove_dir_all(folder).is_ok());
}

fn configuration(state_dir: &Path, gateway: SocketAddr, cloud: SocketAddr) -> String {
    let state_dir = state_dir.display().to_string();
    format!(
        r##"# What `tidegate demo` runs: the defaults, three rules, and addresses of its own.
[gateway]
id = "demo"
state_dir = {state_dir:?}

[listener]
bind = "{gateway}"

[[uplink]]
url = "mqtt://{cloud}"
retry_max = "1s" # the uplink is away for seconds here, not for days

[[rule]]
topic = "+/+/alarm"
class = "critical"

[[rule]]
topic = "+/+/report"
class = "normal"

[[rule]]
topic = "plant/#"
class = "low"

[admin]
enabled = false # the Unix socket in state_dir suffices
"##
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::config::file::load;

    #[test]
    fn is_the_configuration_one_that_starts() {
        let folder = Folder::make().unwrap();
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        folder
            .write_configuration(address(20_000), address(20_001))
            .unwrap();
        let loaded = load(Some(&folder.configuration()));
        let (config, findings) = loaded.unwrap();
        assert!(findings.list.is_empty(), "{findings}");
        assert_eq!(config.gateway.state_dir, folder.state_dir());
    }

    #[test]
    fn is_an_orphan_removed_and_nothing_else() {
        let folder = Folder::make().unwrap();
        fs::write(folder.configuration(), "").unwrap();
        fs::create_dir_all(folder.state_dir().join("spool")).unwrap();
        let strange = folder.state_dir().join("tidegate.toml");
        remove_orphan(&strange);
        assert!(folder.state_dir().is_dir(), "no demo's folder is called so");
        remove_orphan(&folder.configuration());
        assert!(!folder.path.exists());
        // Once more it does no harm.
        remove_orphan(&folder.configuration());
    }

    #[test]
    fn is_the_folder_gone_at_the_end() {
        let (one, other) = (Folder::make().unwrap(), Folder::make().unwrap());
        let path = one.path.clone();
        assert!(path.is_dir() && path != other.path);
        drop(one);
        assert!(!path.exists());
    }
}
