//! `tidegate explain`: what the rules say of a message that nobody has to send. Standard input is
//! read when the payload is "-".

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command speaks"
)]

use std::io::{self, Read};
use std::path::Path;

use super::check::tell;
use super::{complain, say};
use crate::control::config::file::load;
use crate::control::exit::Exit;
use crate::traffic::classify;

/// Longest payload taken from standard input: as the largest packet that a listener may take.
const PAYLOAD_BYTES_MAX: u64 = 256 << 20;

/// Explains what happens to a message with this topic and payload.
#[must_use]
pub fn explain(path: Option<&Path>, topic: &str, payload: Option<&str>) -> Exit {
    let (config, _) = match load(path) {
        Ok(loaded) => loaded,
        Err(error) => {
            tell(&error);
            return Exit::Misconfigured;
        }
    };
    let payload = match bytes(payload) {
        Ok(payload) => payload,
        Err(error) => {
            complain(format_args!(
                "fault: the payload cannot be read from standard input: {error}\n"
            ));
            return Exit::Failed;
        }
    };
    match classify::explain(&config.compiled, &config.classes, topic, payload.as_deref()) {
        Ok(explanation) => {
            say(explanation);
            Exit::Done
        }
        Err(fault) => {
            complain(format_args!("fault: {topic:?} is no topic: {fault}\n"));
            Exit::Misconfigured
        }
    }
}

fn bytes(payload: Option<&str>) -> io::Result<Option<Vec<u8>>> {
    match payload {
        Some("-") => {
            let mut bytes = Vec::new();
            io::stdin()
                .lock()
                .take(PAYLOAD_BYTES_MAX)
                .read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        }
        Some(text) => Ok(Some(text.as_bytes().to_vec())),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_what_no_device_publishes_to_refused() {
        for bad in ["", "a/#", "+", "a\0"] {
            assert_eq!(explain(None, bad, None), Exit::Misconfigured);
        }
        assert_eq!(explain(None, "a/b", Some("{}")), Exit::Done);
    }
}
