//! The gateway of the demo: this very binary as a child process, so that it can be killed as a real
//! one is. A door.

#![allow(
    clippy::disallowed_methods,
    reason = "starts this binary once more, and kills it"
)]

use std::fmt;
use std::io;
use std::process::{Child, Command, Stdio};

use super::folder::{Folder, Unusable};

/// The gateway did not start.
#[derive(Debug)]
pub enum ChildError {
    /// Its log cannot be written.
    Folder(Unusable),
    /// The system does not run this binary a second time.
    Program(io::Error),
}

impl fmt::Display for ChildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(error) => error.fmt(f),
            Self::Program(error) => write!(
                f,
                "this program cannot be run as the demo's gateway: {error}; \
                 it needs to find itself (has it been moved or replaced?) and a process to be free"
            ),
        }
    }
}

/// The process; killed when this is dropped.
#[derive(Debug)]
pub struct Gateway {
    process: Child,
}

impl Gateway {
    /// Starts it with the configuration in this folder.
    ///
    /// # Errors
    /// Each says what to do. That the gateway itself finds a fault shows later; see [`Gateway::runs`].
    pub fn start(folder: &Folder) -> Result<Self, ChildError> {
        use std::os::unix::process::CommandExt;
        let program = std::env::current_exe().map_err(ChildError::Program)?;
        let log = folder.log().map_err(ChildError::Folder)?;
        let complaints = log.try_clone().map_err(ChildError::Program)?;
        let process = Command::new(program)
            .arg("run")
            .arg("-c")
            .arg(folder.configuration())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(complaints)
            // A Ctrl-C on the terminal is the demo's to hear, not the gateway's.
            .process_group(0)
            .spawn();
        Ok(Self {
            process: process.map_err(ChildError::Program)?,
        })
    }

    /// Whether it has not ended.
    pub fn runs(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }
}

impl Drop for Gateway {
    /// kill -9.
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
