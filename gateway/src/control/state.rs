//! The door to the state folder: makes it at a start, for the gateway's user alone, sees that it can
//! be written to before any message is taken, and keeps a second gateway out of it.

#![allow(clippy::disallowed_methods, reason = "the state folder's door")]

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file whose lock says that a gateway runs on the folder. The system lets go of it when the
/// process ends, however it ends.
const LOCK: &str = "lock";

/// Why there is no state folder: the operator's to repair.
#[derive(Debug)]
pub enum StateError {
    /// It cannot be made, or not be written to.
    Unusable {
        /// The folder.
        path: PathBuf,
        /// What failed.
        failed: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Another gateway runs on it.
    Taken(PathBuf),
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable {
                path,
                failed,
                source,
            } => write!(
                f,
                "The state folder {} {failed}: {source}; make it writable for the gateway's user, or \
                 name another in `state_dir` of [gateway]",
                path.display()
            ),
            Self::Taken(path) => write!(
                f,
                "Another gateway runs on the state folder {}; stop it, or give this one a folder of \
                 its own with `state_dir` of [gateway]",
                path.display()
            ),
        }
    }
}

impl std::error::Error for StateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unusable { source, .. } => Some(source),
            Self::Taken(_) => None,
        }
    }
}

/// The folder is this process's until this is dropped.
#[derive(Debug)]
pub struct StateFolder {
    _lock: File,
}

/// Makes the folder with mode 0700 where it is not there, writes to it once, and takes it.
///
/// # Errors
/// It cannot be made, or not be written to, or another gateway runs on it.
pub fn prepare(path: &Path) -> Result<StateFolder, StateError> {
    let error = |failed| {
        move |source| StateError::Unusable {
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
    probe(path).map_err(error("cannot be written to"))?;
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path.join(LOCK))
        .map_err(error("cannot be written to"))?;
    match lock.try_lock() {
        Ok(()) => Ok(StateFolder { _lock: lock }),
        Err(TryLockError::WouldBlock) => Err(StateError::Taken(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(error("cannot be locked")(source)),
    }
}

/// Whether a gateway runs on a folder. One that starts at the same moment is not disturbed for longer
/// than the question takes.
///
/// # Errors
/// The system does not say.
pub fn is_taken(path: &Path) -> Result<bool, StateError> {
    let error = |source| StateError::Unusable {
        path: path.to_owned(),
        failed: "cannot be read",
        source,
    };
    let lock = match File::open(path.join(LOCK)) {
        Ok(lock) => lock,
        Err(found) if found.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(found) => return Err(error(found)),
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(found)) => Err(error(found)),
    }
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
        drop(prepare(&path).unwrap());
        prepare(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "the lock alone");
    }

    #[test]
    fn is_a_second_gateway_kept_out() {
        let folder = tempfile::tempdir().unwrap();
        let first = prepare(folder.path()).unwrap();
        let error = prepare(folder.path()).unwrap_err().to_string();
        assert!(error.starts_with("Another gateway runs on the state folder"));
        drop(first);
        prepare(folder.path()).unwrap();
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
