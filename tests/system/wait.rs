//! Waiting for a condition, with a deadline and a sentence that says what did not happen. Nothing
//! in these tests sleeps in the hope that something has happened by then.

use std::process::{Command, ExitStatus, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::broker::INSTALL;

/// Long enough for anything that should happen soon, on a busy machine with two cores.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not before `deadline` is over; `what` says what was waited for.
#[track_caller]
pub(crate) fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, deadline, || condition().then_some(()));
}

/// Waits until `look` finds something, and gives it.
///
/// # Panics
/// When it finds nothing before `deadline` is over.
#[track_caller]
pub(crate) fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            start.elapsed() < deadline,
            "waited {deadline:?} in vain: {what}"
        );
        sleep(Duration::from_millis(3));
    }
}

/// Runs a program to its end.
///
/// # Panics
/// When it does not end before `deadline` is over; it is killed then.
#[track_caller]
pub(crate) fn run_to_end(command: &mut Command, deadline: Duration) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}; {INSTALL}"));
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > deadline {
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            panic!("{command:?} does not end within {deadline:?}: {output:?}");
        }
        sleep(Duration::from_millis(3));
    }
    child.wait_with_output().unwrap()
}

/// The exit code, when the program ended by itself.
#[track_caller]
pub(crate) fn code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| panic!("ended by a signal: {status}"))
}

/// Sends a signal (`TERM`, `INT`) to a process that a test started.
pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("sh")
        .args(["-c", &format!("kill -{name} {pid}")])
        .status()
        .unwrap();
    assert!(status.success(), "kill -{name} {pid}: {status}");
}
