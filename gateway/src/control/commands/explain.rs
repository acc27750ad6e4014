//! `tidegate explain`: what the rules say of a message that nobody has to send. Standard input is
//! read when the payload is "-".

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command speaks"
)]

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::check::tell;
use crate::control::config::Config;
use crate::control::config::file::load;
use crate::control::exit::Exit;
use crate::traffic::classify::Classifier;
use crate::traffic::message::ClassId;

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
    if let Some(reason) = no_topic(topic) {
        eprintln!("fault: {topic:?} is no topic: {reason}");
        return Exit::Misconfigured;
    }
    match bytes(payload) {
        Ok(payload) => {
            println!("{}", explanation(&config, topic, payload.as_deref()));
            Exit::Done
        }
        Err(error) => {
            eprintln!("the payload cannot be read from standard input: {error}");
            Exit::Failed
        }
    }
}

/// Why a device could not publish to this.
fn no_topic(topic: &str) -> Option<&'static str> {
    if topic.is_empty() {
        return Some("it is empty");
    }
    if topic.contains(['+', '#']) {
        return Some("+ and # are for filters; write one topic that a device publishes to");
    }
    (topic.contains('\0') || topic.len() > 65_535)
        .then_some("1 to 65535 bytes, without NUL, as in MQTT")
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

fn explanation(config: &Config, topic: &str, payload: Option<&[u8]>) -> String {
    let mut classifier = Classifier::new(Arc::clone(&config.compiled));
    let verdict = classifier.classify(topic, payload.unwrap_or_default());
    let class = match config.classes.get(verdict.class.index()) {
        Some(class) => &*class.name,
        None if verdict.class == ClassId::DISCARD => "discard",
        None => "unknown",
    };
    let rule = verdict
        .rule
        .and_then(|rule| config.rules.get(usize::from(rule)))
        .map_or("no rule matches: the default class", |rule| &*rule.name);
    format!("{topic}: class {class} ({rule})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_what_no_device_publishes_to_refused() {
        assert_eq!(no_topic("plant/a b/$x"), None);
        for bad in ["", "a/#", "+", "a\0"] {
            assert!(no_topic(bad).is_some(), "{bad:?}");
            assert_eq!(explain(None, bad, None), Exit::Misconfigured);
        }
        assert_eq!(explain(None, "a/b", Some("{}")), Exit::Done);
    }
}
