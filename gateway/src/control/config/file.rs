//! The configuration's door to the machine: reads the file, the environment and the host name, and
//! sees whether the files that the configuration names can be read and how large the disk is. It
//! writes nothing.

#![allow(
    clippy::disallowed_methods,
    reason = "the configuration's door: file and environment are read here"
)]

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::{Config, Findings, Surroundings};

/// Largest configuration file: ten thousand rules take less.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The name of the configuration that needs no file.
pub const EMBEDDED: &str = "embedded defaults";

/// Why there is no configuration.
#[derive(Debug)]
pub enum LoadError {
    /// The file cannot be read: the operator's to repair.
    Unreadable(String),
    /// It can, and it is wrong: all faults.
    Wrong(Findings),
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable(reason) => writeln!(f, "fault: {reason}"),
            Self::Wrong(findings) => findings.fmt(f),
        }
    }
}

/// Reads the configuration in this file; without one, the embedded defaults. With the `Config` come
/// the warnings.
///
/// # Errors
/// The file cannot be read, or holds faults.
pub fn load(path: Option<&Path>) -> Result<(Config, Findings), LoadError> {
    let (text, origin) = match path {
        None => (String::new(), EMBEDDED.to_owned()),
        Some(path) => (text_of(path)?, path.display().to_string()),
    };
    super::read(&text, &origin, &Machine).map_err(LoadError::Wrong)
}

fn text_of(path: &Path) -> Result<String, LoadError> {
    let unreadable = |reason: &dyn std::fmt::Display| {
        let path = path.display();
        LoadError::Unreadable(format!("the configuration {path} cannot be read: {reason}"))
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(unreadable(&"it is larger than 4MiB"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|b| **b == b'\n').count() + 1;
        unreadable(&format_args!("line {line} is not UTF-8"))
    })
}

/// The machine that the gateway runs on.
#[derive(Clone, Copy, Debug)]
pub struct Machine;

impl Surroundings for Machine {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name)
            .ok()
            .or_else(|| (name == "HOSTNAME").then(host_name).flatten())
    }

    fn readable(&self, path: &Path) -> Result<(), String> {
        let mut first = [0];
        File::open(path)
            .and_then(|mut file| file.read(&mut first))
            .map(drop)
            .map_err(|error| reason(&error))
    }

    fn disk_bytes(&self, folder: &Path) -> Option<u64> {
        let folder = std::path::absolute(folder).ok()?;
        let disk = folder
            .ancestors()
            .find_map(|above| rustix::fs::statvfs(above).ok())?;
        disk.f_blocks.checked_mul(disk.f_frsize)
    }
}

/// The kernel's host name: shells know HOSTNAME but do not export it.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// The system's words without its number.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_disk_of_a_folder_known_that_is_not_made_yet() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Machine.disk_bytes(folder.path());
        assert!(disk.is_some_and(|bytes| bytes > 0), "{disk:?}");
        assert_eq!(Machine.disk_bytes(&folder.path().join("a/b")), disk);
        assert!(Machine.disk_bytes(Path::new("not-made/yet")).is_some());
    }
}
