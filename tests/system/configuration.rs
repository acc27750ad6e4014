//! What the operator wrote: a fault never starts and is named, all faults at once; what the README
//! shows works.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::gateway::{Configuration, Gateway, tidegate};
use crate::wait::{SOON, code, run_to_end};

const WRONG: &str = r##"
[gateway]
id = "box"
memroy_max = "64MiB"

[listener]
bind = "127.0.0.1:0"
connections_max = "many"

[[uplink]]
url = "http://cloud.example"

[[class]]
name = "critical"
delivery = "guaranteed"
ttl = "7 fortnights"

[[rule]]
topic = "a/#/b"
class = "critical"

[[rule]]
topic = "b"
class = "critcal"

[[rule]]
topic = "c"
when = "payload.rms >"
class = "critical"
"##;

/// Runs `tidegate` to its end; gives what it said, on both streams, and its exit code.
#[track_caller]
fn tidegate_says(arguments: &[&str]) -> (String, i32) {
    let Output {
        status,
        stdout,
        stderr,
    } = run_to_end(tidegate().args(arguments), SOON);
    let said = [stdout, stderr].concat();
    (String::from_utf8(said).unwrap(), code(status))
}

#[test]
fn does_a_wrong_configuration_never_start_and_name_every_fault() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wrong.toml");
    fs::write(&file, WRONG).unwrap();
    for command in ["check", "run"] {
        let (said, code) = tidegate_says(&[command, "-c", file.to_str().unwrap()]);
        assert_eq!(code, 2, "{said}");
        #[rustfmt::skip]
        let faults = [
            "memroy_max", "memory_max", "many", "http", "7 fortnights", "a/#/b", "critcal",
            "payload.rms >", "wrong.toml",
        ];
        for fault in faults {
            assert!(
                said.contains(fault),
                "{command} does not name {fault}:\n{said}"
            );
        }
        // Each with its line.
        for number in [4, 8, 11, 16, 19, 24, 28] {
            let named = [format!("wrong.toml:{number}"), format!("line {number}")]
                .iter()
                .any(|place| said.contains(place));
            assert!(named, "{command} does not name line {number}:\n{said}");
        }
    }
}

#[test]
fn is_a_bind_beyond_loopback_without_anonymous_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("open.toml");
    let text = "[listener]\nbind = \"0.0.0.0:1883\"\n[[uplink]]\nurl = \"mqtt://127.0.0.1:1\"\n";
    fs::write(&file, text).unwrap();
    let (said, code) = tidegate_says(&["check", "-c", file.to_str().unwrap()]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("anonymous"), "{said}");
}

#[test]
fn is_a_file_that_is_not_there_named() {
    for command in ["check", "run"] {
        let (said, code) = tidegate_says(&[command, "-c", "/nowhere/tidegate.toml"]);
        assert_ne!(code, 0);
        assert!(said.contains("/nowhere/tidegate.toml"), "{said}");
    }
}

#[test]
fn does_a_port_in_use_end_the_start_with_a_clear_line() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let configuration = Configuration::on_port(port);
    let mut gateway = Gateway::spawn(&configuration);
    let status = gateway.wait_for_end(SOON);
    assert!(!status.success(), "{status}");
    assert_ne!(code(status), 101, "it ends with an error, not a panic");
    gateway.wait_for_line(&format!("127.0.0.1:{port}"), SOON);
}

/// The repository's folder of configurations.
fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")
}

#[test]
fn do_the_shipped_configurations_pass_the_check() {
    let mut files: Vec<_> = fs::read_dir(shipped().join("examples"))
        .expect("config/examples")
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .collect();
    assert!(files.len() >= 3, "three worked sites: {files:?}");
    files.push(shipped().join("tidegate.toml"));
    for file in files {
        let (said, code) = tidegate_says(&["check", "-c", file.to_str().unwrap()]);
        assert_eq!(code, 0, "{}: {said}", file.display());
    }
}

#[test]
fn does_explain_say_which_class_a_message_gets() {
    let folder = tempfile::tempdir().unwrap();
    let configuration = Configuration::to(1).rule("alarm/#", "critical");
    let file = configuration.write(folder.path());
    let file = file.to_str().unwrap();
    for (topic, class) in [("alarm/a", "critical"), ("value/a", "normal")] {
        let (said, code) = tidegate_says(&["explain", "-c", file, topic, "{}"]);
        assert_eq!(code, 0, "{said}");
        assert!(said.contains(class), "{said}");
    }
}
