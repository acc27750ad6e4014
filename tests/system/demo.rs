//! Does `tidegate demo` tell the truth, and leave nothing behind? The whole story in its shortest
//! form, ended early, and on a machine that does not let it start.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::gateway::tidegate;
use crate::wait::{code, run_to_end, signal, wait_until};

/// The shortest story, and what a busy machine takes to start, settle and end.
const STORY_MAX: Duration = Duration::from_secs(75);

/// The promise for alarms in the overload act; a build without optimization on a shared machine gets more, and
/// far less than readings wait there.
const OVERLOAD_WORST_US: u64 = if cfg!(debug_assertions) {
    500_000
} else {
    50_000
};

/// The demo, with a folder for temporary files of its own.
fn demo(arguments: &[&str], folder: &Path) -> Command {
    let mut command = tidegate();
    command.arg("demo").args(arguments).env("TMPDIR", folder);
    command
}

/// Gateways that were started with a file in this folder and still run, by their numbers.
fn gateways_of(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let mut processes: Vec<_> = fs::read_dir("/proc").unwrap().flatten().collect();
    processes.retain(|process| {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(folder)
    });
    let names = processes.iter().map(|process| process.file_name());
    names
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

#[track_caller]
fn nothing_left(folder: &Path) {
    assert_eq!(fs::read_dir(folder).unwrap().count(), 0, "the folder");
    assert!(gateways_of(folder).is_empty(), "gateways");
}

#[test]
fn is_no_alarm_lost_in_the_whole_story() {
    let folder = tempfile::tempdir().unwrap();
    let ended = run_to_end(
        &mut demo(&["--seconds", "20", "--json"], folder.path()),
        STORY_MAX,
    );
    let complaint = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(code(ended.status), 0, "{complaint}");
    let account: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(account["alarms_lost"], 0);
    assert_eq!(account["balanced"], true);
    assert_eq!(account["interrupted"], false);
    assert_eq!(account["readings"]["far_end"]["final_values_missing"], 0);
    let acts = account["acts"].as_array().unwrap();
    assert_eq!(acts.len(), 5);
    for act in acts {
        assert!(act["alarms"].as_u64().unwrap() > 0, "{act}");
    }
    // The story was played: readings gave way, and alarms waited for the uplink over a kill -9.
    let readings = &account["ledger"][2];
    assert!(readings["ended"]["superseded"].as_u64().unwrap() > 1_000);
    assert!(
        acts[2]["worst_us"].as_u64().unwrap() > 2_000_000,
        "{acts:?}"
    );
    let [worst, late] = ["worst_us", "machine_late_us"].map(|name| acts[1][name].as_u64().unwrap());
    assert!(
        worst.saturating_sub(late) < OVERLOAD_WORST_US,
        "in overload: {acts:?}"
    );
    assert!(account["ledger"][0]["found"].as_i64().unwrap() > 0);
    nothing_left(folder.path());
}

#[test]
fn is_the_account_printed_when_it_is_ended_early() {
    let folder = tempfile::tempdir().unwrap();
    let child = demo(&["--seconds", "60"], folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the demo starts a gateway", STORY_MAX, || {
        gateways_of(folder.path()).len() == 1
    });
    // Long enough that something was sent, whatever the machine does; ended earlier it says so.
    std::thread::sleep(Duration::from_secs(5));
    signal(child.id(), "INT");
    let ended = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&ended.stdout);
    assert_eq!(code(ended.status), 130, "{text}");
    assert!(text.contains("1 of 5: calm"), "{text}");
    assert!(text.contains("ended early"), "{text}");
    assert!(text.contains("balances in every class"), "{text}");
    assert!(text.ends_with("alarms lost: 0\n"), "{text}");
    nothing_left(folder.path());
}

#[test]
fn does_a_demo_that_is_killed_leave_no_gateway_and_no_folder() {
    killed_when("its gateway has a spool", |folder| {
        let mut folders = fs::read_dir(folder).unwrap().flatten();
        folders.any(|made| made.path().join("state/spool").is_dir())
    });
}

#[test]
fn does_a_demo_that_is_killed_between_two_gateways_leave_no_folder() {
    let mut first = Vec::new();
    killed_when("its gateway is killed", move |folder| {
        let gateways = gateways_of(folder);
        if first.is_empty() {
            first.clone_from(&gateways);
        }
        !first.is_empty() && gateways.iter().all(|gateway| !first.contains(gateway))
    });
}

#[track_caller]
fn killed_when(what: &str, mut when: impl FnMut(&Path) -> bool) {
    let folder = tempfile::tempdir().unwrap();
    let mut child = demo(&["--json", "--seconds", "20"], folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until(what, STORY_MAX, || when(folder.path()));
    signal(child.id(), "KILL");
    child.wait().unwrap();
    wait_until("nothing is left", STORY_MAX, || {
        gateways_of(folder.path()).is_empty() && fs::read_dir(folder.path()).unwrap().count() == 0
    });
}

#[test]
fn is_a_folder_that_takes_nothing_told_at_once_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere");
    let ended = run_to_end(&mut demo(&[], &nowhere), Duration::from_secs(10));
    let complaint = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(code(ended.status), 1, "{complaint}");
    assert!(complaint.contains("nowhere"), "{complaint}");
    assert!(complaint.contains("TMPDIR"), "{complaint}");
    nothing_left(folder.path());
}

#[test]
fn is_a_length_out_of_range_a_wrong_command_line() {
    for seconds in ["19", "601", "long"] {
        let mut command = tidegate();
        command.args(["demo", "--seconds", seconds]);
        let ended = run_to_end(&mut command, Duration::from_secs(10));
        assert_eq!(code(ended.status), 2, "{seconds}");
    }
}
