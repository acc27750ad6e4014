//! What the configuration must keep: all faults at once, each with its place and a hint; defaults
//! that equal the file; examples that are right; and never a panic.

use super::*;

/// A machine with what a test needs.
pub(crate) struct Bench;

impl Surroundings for Bench {
    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "HOSTNAME" => Some("edge-1".to_owned()),
            "EMPTY" => Some(String::new()),
            "MQTT_PASSWORD" => Some("secret".to_owned()),
            _ => None,
        }
    }

    fn readable(&self, path: &std::path::Path) -> Result<(), String> {
        if path.starts_with("/missing") {
            return Err("there is no such file".to_owned());
        }
        Ok(())
    }
}

/// The configuration in a text that has no fault.
pub(crate) fn parse(text: &str) -> Config {
    match read(text, "t.toml", &Bench) {
        Ok((config, _)) => config,
        Err(findings) => panic!("{findings}"),
    }
}
