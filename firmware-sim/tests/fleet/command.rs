//! Runs the binary and reads what it says.
#![allow(
    clippy::disallowed_methods,
    reason = "runs the binary, and kills it when it takes too long"
)]

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// No run of these tests takes longer, on a machine that is busy with other things too.
const TOO_LONG: Duration = Duration::from_secs(120);

/// What a run said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// The account that `--json` prints.
    #[track_caller]
    pub(crate) fn account(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The binary with these arguments, ready to be started.
pub(crate) fn firmware_sim(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_firmware-sim"));
    command.args(arguments);
    command
}

/// Starts it.
pub(crate) fn start(command: &mut Command) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs it to its end.
pub(crate) fn run(arguments: &[&str]) -> Said {
    end(start(&mut firmware_sim(arguments)))
}

/// Waits for its end. Its output is short: no pipe fills up.
pub(crate) fn end(mut child: Child) -> Said {
    let deadline = Instant::now() + TOO_LONG;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let (mut out, mut err) = (String::new(), String::new());
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut out)
        .unwrap();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut err)
        .unwrap();
    Said {
        code: status.code(),
        out,
        err,
    }
}

/// A scenario in a file.
pub(crate) fn scenario(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

/// A number of the account.
#[track_caller]
pub(crate) fn number(account: &Value, path: &str) -> u64 {
    let value = account.pointer(path).and_then(Value::as_u64);
    value.unwrap_or_else(|| panic!("no number at {path}: {account:#}"))
}
