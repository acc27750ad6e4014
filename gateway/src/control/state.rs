//! The door to the state folder: makes it at a start, for the gateway's user alone, and sees that
//! it can be written to before any message is taken.

#![allow(clippy::disallowed_methods, reason = "the state folder's door")]

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Why there is no state folder: the operator's to repair.
#[derive(Debug)]
pub struct StateError {
    path: PathBuf,
    failed: &'static str,
    source: io::Error,
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            failed,
            source,
        } = self;
        write!(
            f,
            "The state folder {} {failed}: {source}; make it writable for the gateway's user, or \
             name another in `state_dir` of [gateway]",
            path.display()
        )
    }
}

impl std::error::Error for StateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Makes the folder with mode 0700 where it is not there, and writes to it once.
///
/// # Errors
/// It cannot be made, or not be written to.
pub fn prepare(path: &Path) -> Result<(), StateError> {
    let error = |failed| {
        move |source| StateError {
            path: path.to_owned(),
            failed,
            source,
        }
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(error("cannot be made"))?;
    probe(path).map_err(error("cannot be written to"))
}

fn probe(folder: &Path) -> io::Result<()> {
    let file = folder.join(format!(".probe-{}", std::process::id()));
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&file)?;
    fs::remove_file(&file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn is_the_folder_made_for_its_owner_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/state");
        prepare(&path).unwrap();
        prepare(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }

    #[test]
    fn is_a_folder_that_cannot_be_told_clearly() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        let error = prepare(&file.join("state")).unwrap_err().to_string();
        assert!(error.contains("file/state cannot be made: ") && error.contains("`state_dir`"));
        let error = prepare(Path::new("/proc/self")).unwrap_err().to_string();
        assert!(error.contains("cannot be written to"), "{error}");
    }
}
