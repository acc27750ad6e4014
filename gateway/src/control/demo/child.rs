//! The gateway of the demo: this very binary as a child process, so that it can be killed as a real
//! one is. It ends with the demo, however that ends: its standard input is a pipe that only the demo holds. One
//! byte in it says when to begin. A door.

#![allow(
    clippy::disallowed_methods,
    reason = "starts this binary once more, and kills it, or itself when nobody is left to do so"
)]

use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use super::folder::{self, Folder, Unusable};

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
    /// Has it ready with the configuration in this folder, to [`Gateway::begin`].
    ///
    /// # Errors
    /// Each says what to do.
    pub fn ready(folder: &Folder) -> Result<Self, ChildError> {
        use std::os::unix::process::CommandExt;
        let program = std::env::current_exe().map_err(ChildError::Program)?;
        let log = folder.log().map_err(ChildError::Folder)?;
        let complaints = log.try_clone().map_err(ChildError::Program)?;
        let process = Command::new(program)
            .arg("demo")
            .arg("--gateway")
            .arg(folder.configuration())
            .env("NO_COLOR", "1")
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(complaints)
            // A Ctrl-C on the terminal is the demo's to hear, not the gateway's.
            .process_group(0)
            .spawn();
        Ok(Self {
            process: process.map_err(ChildError::Program)?,
        })
    }

    /// Lets it begin. That the gateway itself finds a fault shows later; see [`Gateway::runs`].
    pub fn begin(&mut self) {
        // A process that is gone hears nothing, which shows later too.
        if let Some(pipe) = &mut self.process.stdin {
            let _ = pipe.write_all(&[1]);
        }
    }

    /// Whether it has not ended.
    pub fn runs(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }
}

/// The child's side: waits until it may begin, and ends this process when the demo is gone, kill -9 included,
/// and removes the demo's folder, which holds `configuration`. Without a demo that holds the pipe it is gone at
/// once.
///
/// # Errors
/// The system gives no thread.
pub fn end_with_demo(configuration: PathBuf) -> io::Result<()> {
    let is_over = || !matches!(io::stdin().lock().read(&mut [0]), Ok(1));
    if is_over() {
        end(&configuration);
    }
    let thread = thread::Builder::new().name("demo-watch".to_owned());
    let watch = thread.spawn(move || {
        // The demo writes nothing more: what comes is the end.
        let _ = is_over();
        end(&configuration);
    });
    watch.map(drop)
}

fn end(configuration: &Path) -> ! {
    folder::remove_orphan(configuration);
    std::process::exit(1);
}

impl Drop for Gateway {
    /// kill -9.
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
