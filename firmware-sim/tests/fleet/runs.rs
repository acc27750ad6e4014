//! Fleets that run: whether every message is accounted for.
#![allow(clippy::disallowed_methods, reason = "sends a signal with kill(1)")]

use std::io::{BufRead, BufReader};
use std::process::Command;
use std::time::Duration;

use firmware_sim::run::{Order, play_to};
use firmware_sim::scenario::Scenario;
use firmware_sim::watch::FarEnd;
use serde_json::Value;

use crate::broker::Broker;
use crate::command::{Said, end, firmware_sim, number, run, scenario, start};

const KINDS: [&str; 3] = ["alarm", "report", "reading"];

const CALM: &str = "
[fleet]
readings_per_second = 10
alarms_per_minute = 60
connect_per_second = 100
report_seconds = 1
[[phase]]
kind = \"steady\"
seconds = 2
[[phase]]
kind = \"burst\"
seconds = 1
factor = 3
";

const TROUBLE: &str = "
[fleet]
readings_per_second = 10
alarms_per_minute = 120
readings_qos = 1
report_seconds = 1
[[phase]]
kind = \"flapping\"
seconds = 1.5
share = 0.7
up_seconds = 0.5
down_seconds = 0.2
[[phase]]
kind = \"rebooting\"
seconds = 1.5
share = 0.7
every_seconds = 0.5
off_seconds = 0.2
[[phase]]
kind = \"all-at-once\"
seconds = 1
off_seconds = 0.3
[[phase]]
kind = \"mad\"
seconds = 0.5
factor = 50
[[phase]]
kind = \"clock-skew\"
seconds = 1
";

/// Runs a scenario with the far end watched; gives what was said.
fn watched(text: &str, broker: &Broker, more: &[&str]) -> Said {
    let file = scenario(text);
    let (path, address) = (file.path().to_str().unwrap(), broker.address());
    let mut arguments = vec!["run", "--json", "--scenario", path, "--connect", &address];
    arguments.extend(["--watch", &address]);
    arguments.extend(more);
    run(&arguments)
}

#[track_caller]
fn assert_balanced(account: &Value) {
    for kind in KINDS {
        let of = |name: &str| number(account, &format!("/{kind}/{name}"));
        let ends = of("dropped") + of("superseded") + of("left") + of("sent");
        assert_eq!(of("made"), ends, "{kind}: {account:#}");
        if of("acknowledged") > 0 {
            let answers = of("acknowledged") + of("refused") + of("unanswered");
            assert_eq!(of("sent"), answers, "{kind}: {account:#}");
        }
    }
}

fn is_everything_there_once(protocol: &str, payload: &str) {
    let broker = Broker::start();
    let text = CALM.replacen("[fleet]", &format!("[fleet]\npayload = \"{payload}\""), 1);
    let said = watched(&text, &broker, &["--devices", "40", "--protocol", protocol]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let account = said.account();
    assert_balanced(&account);
    for kind in KINDS {
        let of = |name: &str| number(&account, &format!("/{kind}/{name}"));
        assert!(of("sent") > 0, "{kind}: {account:#}");
        assert_eq!(of("far_end/arrived"), of("sent"), "{kind}: {account:#}");
        for name in [
            "missing",
            "duplicate",
            "out_of_order",
            "final_values_missing",
        ] {
            assert_eq!(
                of(&format!("far_end/{name}")),
                0,
                "{kind} {name}: {account:#}"
            );
        }
        assert!(of("far_end/latency/max_us") > 0, "{kind}");
    }
    assert_eq!(account["run"]["protocol"], protocol);
    assert_eq!(number(&account, "/alarms_lost"), 0);
    assert_eq!(number(&account, "/strangers"), 0);
}

#[test]
fn is_everything_there_once_over_3_1_1() {
    is_everything_there_once("3.1.1", "json");
}

#[test]
fn is_everything_there_once_over_5() {
    is_everything_there_once("5", "compact");
}

#[test]
fn is_no_alarm_lost_whatever_happens_to_devices_and_network() {
    for protocol in ["3.1.1", "5"] {
        let broker = Broker::start();
        let said = watched(
            TROUBLE,
            &broker,
            &["--devices", "40", "--protocol", protocol],
        );
        assert_eq!(said.code, Some(0), "{said:?}");
        let account = said.account();
        assert_balanced(&account);
        assert_eq!(number(&account, "/alarms_lost"), 0, "{account:#}");
        assert_eq!(
            number(&account, "/reading/far_end/missing"),
            0,
            "{account:#}"
        );
        assert_eq!(
            number(&account, "/reading/far_end/final_values_missing"),
            0,
            "{account:#}"
        );
        assert!(
            number(&account, "/reading/superseded") > 0,
            "links were away: {account:#}"
        );
        assert!(
            number(&account, "/reading/left") > 0,
            "power was away: {account:#}"
        );
        assert_eq!(account["phases"].as_array().unwrap().len(), 5);
    }
}

#[test]
fn does_the_same_seed_make_the_same_messages() {
    let broker = Broker::start();
    let made = |seed: &str| {
        let said = watched(TROUBLE, &broker, &["--devices", "20", "--seed", seed]);
        let account = said.account();
        KINDS.map(|kind| number(&account, &format!("/{kind}/made")))
    };
    let first = made("7");
    assert_eq!(first, made("7"));
    assert_ne!(first, made("8"));
}

#[test]
fn does_an_acknowledged_alarm_that_never_arrives_end_with_1() {
    let (near, far) = (Broker::start(), Broker::start());
    let file = scenario(CALM);
    let said = run(&[
        "run",
        "--json",
        "--devices",
        "5",
        "--scenario",
        file.path().to_str().unwrap(),
        "--connect",
        &near.address(),
        "--watch",
        &format!("mqtt://{}", far.address()),
    ]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let account = said.account();
    let acknowledged = number(&account, "/alarm/acknowledged");
    assert!(acknowledged > 0);
    assert_eq!(number(&account, "/alarms_lost"), acknowledged);
}

#[test]
fn does_ctrl_c_still_print_the_account() {
    let broker = Broker::start();
    let mut child = start(&mut firmware_sim(&[
        "run",
        "--devices",
        "10",
        "--seconds",
        "600",
        "--connect",
        &broker.address(),
        "--watch",
        &broker.address(),
    ]));
    // The first line of progress says that it runs.
    let mut progress = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    progress.read_line(&mut line).unwrap();
    assert!(line.contains("steady"), "{line}");
    let kill = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut progress, &mut rest).unwrap();
    child.stderr = Some(start(&mut Command::new("true")).stderr.take().unwrap());
    let said = end(child);
    assert_eq!(said.code, Some(0), "{said:?} {rest}");
    assert!(
        said.out.contains("stopped early") && said.out.contains("alarms lost: 0"),
        "{said:?}"
    );
    assert!(rest.contains("stopping"), "{rest}");
}

#[test]
fn does_a_device_take_at_most_16_kib() {
    let broker = Broker::start();
    let text = "[fleet]\nconnect_per_second = 1000\n[[phase]]\nkind = \"steady\"\nseconds = 4\n";
    // What mosquitto, started by a test, may hold by default: 1,024 files.
    let said = watched(text, &broker, &["--devices", "900"]);
    let account = said.account();
    let memory = number(&account, "/run/memory_per_device_bytes");
    assert!(
        (1_000..=16 * 1_024).contains(&memory),
        "{memory} bytes: {account:#}"
    );
}

/// Beside a phase of the same length by the timer, nothing is superseded, and there is far more.
#[test]
fn does_a_fleet_flat_out_send_what_the_gateway_takes_and_supersede_nothing() {
    for (protocol, payload, qos) in [("3.1.1", "json", 1), ("5", "compact", 0)] {
        let broker = Broker::start();
        let text = format!(
            "[fleet]\npayload = \"{payload}\"\nreadings_qos = {qos}\nwindow = 20\npayload_bytes_min = 200\n\
             [[phase]]\nkind = \"flat-out\"\nseconds = 0.5\n[[phase]]\nkind = \"steady\"\nseconds = 0.5\n"
        );
        let said = watched(&text, &broker, &["--devices", "3", "--protocol", protocol]);
        assert_eq!(said.code, Some(0), "{said:?}");
        let account = said.account();
        assert_balanced(&account);
        let of = |name: &str| number(&account, &format!("/reading/{name}"));
        assert!(of("sent") > 100, "by the timer it would be 12: {account:#}");
        assert_eq!(of("superseded"), 0, "{account:#}");
        assert_eq!(of("far_end/arrived"), of("sent"), "{account:#}");
        assert_eq!(of("far_end/out_of_order"), 0, "{account:#}");
        assert_eq!(number(&account, "/strangers"), 0, "{account:#}");
    }
}

/// A far end of the caller's own that is told nothing: all that was acknowledged is missing, on every
/// topic, and the fleet knows how long its devices waited.
#[test]
fn is_what_an_own_far_end_never_saw_missing_on_every_topic() {
    let broker = Broker::start();
    let text = "[fleet]\nchannels = 2\ntopics_per_channel = 3\nreadings_per_second = 20\n\
                readings_qos = 1\nalarms_per_minute = 600\nreport_seconds = 1\n\
                [[phase]]\nkind = \"steady\"\nseconds = 1.5\n";
    let address = broker.address().parse().unwrap();
    let order = Order::new(address, 2, Scenario::read(text).unwrap());
    let own = FarEnd::default().into();
    let ended = play_to(&order, &own, std::future::pending(), |_| {}).unwrap();
    let played = ended.settle(Duration::ZERO, Duration::ZERO);
    let alarms = &played.account.alarm;
    assert!(alarms.acknowledged > 0, "{alarms:?}");
    assert_eq!(played.account.alarms_lost, Some(alarms.acknowledged));
    assert_eq!(played.pace.answered.alarm.len(), alarms.acknowledged);
    assert!(played.pace.late.len() >= 2 * 20);
    let readings = played.account.reading.far_end.as_ref().unwrap();
    assert_eq!(readings.final_values_missing, 2 * 2 * 3);
}

/// Two processes, one gateway: neither takes the other's client ids away, nor counts its messages.
#[test]
fn do_fleets_side_by_side_each_account_for_their_own() {
    const DEVICES: u64 = 20;
    const READINGS: u64 = 50;
    let broker = Broker::start();
    let text = format!(
        "[fleet]\nchannels = 3\nreadings_qos = 1\nreport_seconds = 60\n\
         [[phase]]\nkind = \"flat-out\"\nseconds = 1\nreadings = {READINGS}\n\
         [[phase]]\nkind = \"steady\"\nseconds = 3\nreadings_per_second = 10\n"
    );
    let play = |first: &str| {
        let devices = DEVICES.to_string();
        watched(
            &text,
            &broker,
            &["--devices", &devices, "--first-device", first],
        )
    };
    let [said, other] = std::thread::scope(|scope| {
        let other = scope.spawn(|| play("20"));
        [play("0"), other.join().unwrap()]
    });
    let accounts = [said, other].map(|said| said.account());
    for account in &accounts {
        assert_balanced(account);
        let of = |path: &str| number(account, path);
        let sent = of("/reading/sent");
        assert!(sent > DEVICES * READINGS, "{account:#}");
        for path in ["/reading/acknowledged", "/reading/far_end/arrived"] {
            assert_eq!(of(path), sent, "{path}: {account:#}");
        }
        assert_eq!(of("/run/connections_broken"), 0, "{account:#}");
    }
    let strangers = accounts
        .each_ref()
        .map(|account| number(account, "/strangers"));
    assert!(strangers.iter().sum::<u64>() > 0, "they did not meet");
}

#[test]
fn does_a_device_that_made_its_readings_rest() {
    let broker = Broker::start();
    let text = "[fleet]\nchannels = 3\nreadings_qos = 1\n[[phase]]\nkind = \"flat-out\"\nseconds = 1\n\
                readings = 50\n[[phase]]\nkind = \"flat-out\"\nseconds = 0.5\nreadings = 7\n";
    let account = watched(text, &broker, &["--devices", "10"]).account();
    for path in ["/reading/made", "/reading/far_end/arrived"] {
        assert_eq!(number(&account, path), 10 * 57, "{path}: {account:#}");
    }
}
