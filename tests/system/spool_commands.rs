//! The operator looks into the spool and steers it, while the gateway runs and when it does not: what is
//! listed, exported, purged and checked is what was acknowledged, and the ledger knows of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::broker::free_port;
use crate::device::Device;
use crate::gateway::{Configuration, Gateway, tidegate};
use crate::proxy::Proxy;
use crate::site::Site;
use crate::subscriber::Subscriber;
use crate::wait::{SOON, code, run_to_end, wait_until};
use crate::wire::Version;

/// A gateway whose uplink is away, in a folder that outlives it.
struct Outage {
    folder: tempfile::TempDir,
    configuration: Configuration,
    gateway: Gateway,
}

impl Outage {
    #[track_caller]
    fn begin(uplink_port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let configuration = Site::configuration(uplink_port).uplink("retry_max = \"1s\"");
        let gateway = Gateway::start_in(&configuration, folder.path());
        Self {
            folder,
            configuration,
            gateway,
        }
    }

    /// Alarms that the disk has, each with its number as its payload.
    #[track_caller]
    fn alarms(&self, topic: &str, count: usize) {
        let mut device = Device::new(self.gateway.port(), Version::V5, topic);
        for number in 0..count {
            device.publish(topic, format!("{topic} {number}"), 1);
        }
        device.wait_all_answered(SOON);
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("tidegate.toml")
    }

    fn spool(&self, arguments: &[&str]) -> Said {
        spool(&self.file(), arguments)
    }

    fn start_again(&mut self) {
        self.gateway = Gateway::start_in(&self.configuration, self.folder.path());
    }

    fn segments(&self) -> Vec<PathBuf> {
        let spool = self
            .configuration
            .state_of(self.folder.path())
            .join("spool");
        let files = fs::read_dir(spool)
            .unwrap()
            .map(|file| file.unwrap().path());
        files
            .filter(|path| path.extension().is_some_and(|end| end == "redb"))
            .collect()
    }
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    out: String,
    pub(crate) err: String,
}

/// `tidegate spool` with these arguments, on the configuration in this file.
pub(crate) fn spool(file: &Path, arguments: &[&str]) -> Said {
    let mut command = tidegate();
    command.arg("spool").args(arguments).arg("-c").arg(file);
    let Output {
        status,
        stdout,
        stderr,
    } = run_to_end(&mut command, SOON);
    Said {
        code: code(status),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

impl Said {
    #[track_caller]
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    #[track_caller]
    pub(crate) fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.done()).unwrap()
    }

    #[track_caller]
    pub(crate) fn payloads(self) -> Vec<String> {
        let text = self.done();
        let lines = text.lines().map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["payload"].as_str().unwrap().to_owned()
        });
        lines.collect()
    }
}

/// Exported lines without their times, which another reading of the clocks may round otherwise.
fn timeless(lines: &str) -> Vec<serde_json::Value> {
    let lines = lines.lines().map(|line| {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        let received = line.as_object_mut().unwrap().remove("received");
        assert!(received.unwrap().as_str().unwrap().ends_with('Z'));
        line
    });
    lines.collect()
}

fn numbered(topic: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("{topic} {number}"))
        .collect()
}

#[test]
fn is_the_spool_seen_the_same_while_the_gateway_runs_and_when_it_does_not() {
    let mut outage = Outage::begin(free_port());
    outage.alarms("alarm/a", 30);
    outage.alarms("alarm/b", 20);
    let look = |outage: &Outage| {
        let listed = outage.spool(&["ls", "--json"]).json();
        assert_eq!(listed["classes"][0]["class"], "critical");
        assert_eq!(listed["classes"][0]["messages"], 50);
        assert!(listed["classes"][0]["oldest"].is_string());
        let table = outage.spool(&["ls"]).done();
        assert!(table.contains("50 messages on disk"), "{table}");
        let matching = outage.spool(&["ls", "--topic", "+/b", "--json"]).json();
        assert_eq!(matching["matching"][0]["messages"], 20);
        let peeked = outage.spool(&["peek", "-n", "3", "--json"]).payloads();
        assert_eq!(peeked, numbered("alarm/a", 3));
        let shown = outage.spool(&["peek", "-n", "1"]).done();
        assert!(shown.contains("critical  alarm/a") && shown.contains("alarm/a 0"));
        let all = outage.spool(&["export"]).done();
        assert_eq!(all.lines().count(), 50);
        let some = [
            "export", "--topic", "alarm/b", "--from", "1h", "--class", "critical",
        ];
        assert_eq!(outage.spool(&some).payloads(), numbered("alarm/b", 20));
        let none = outage.spool(&["export", "--to", "1h"]);
        assert!(
            none.err.contains("Nothing in the spool matches"),
            "{none:?}"
        );
        assert_eq!(none.done(), "");
        let verified = outage.spool(&["verify"]).done();
        assert!(verified.contains("every checksum holds"), "{verified}");
        all
    };
    let running = look(&outage);
    let file = outage.folder.path().join("export.jsonl");
    let to_file = ["export", "-o", file.to_str().unwrap()];
    outage.spool(&to_file).done();
    assert_eq!(
        timeless(&fs::read_to_string(&file).unwrap()),
        timeless(&running)
    );
    let again = outage.spool(&to_file);
    assert!(again.code == 1 && again.err.contains("is there already"));
    outage.gateway.terminate();
    assert_eq!(timeless(&look(&outage)), timeless(&running), "ids too");
    let paused = outage.spool(&["pause"]);
    assert_eq!(paused.code, 1);
    assert!(paused.err.contains("no gateway runs on"), "{paused:?}");
}

#[test]
fn is_what_is_asked_wrongly_told_and_nothing_changed() {
    let mut outage = Outage::begin(free_port());
    outage.alarms("alarm/a", 3);
    for _ in 0..2 {
        for (arguments, told) in [
            (
                &["ls", "--class", "crit"][..],
                "the classes are critical, normal, low",
            ),
            (
                &["peek", "--class", "crit"],
                "the classes are critical, normal, low",
            ),
            (&["export", "--topic", "a/#/b"], "`#` stands at level 2"),
            (&["purge", "--from", "noon"], "is no time; write one like"),
            (
                &["purge", "--from", "1h", "--to", "2h"],
                "nothing lies between",
            ),
            (&["purge"], "say --all if that is meant"),
            (
                &["verify", "--class", "crit"],
                "the classes are critical, normal, low",
            ),
        ] {
            let said = outage.spool(arguments);
            assert!(said.code == 2 && said.err.contains(told), "{said:?}");
            assert_eq!(said.out, "");
        }
        let none = outage.spool(&["purge", "--topic", "nobody/#"]);
        assert!(none.out.contains("nothing was changed"), "{none:?}");
        assert_eq!(outage.spool(&["export"]).payloads().len(), 3);
        if outage.gateway.runs() {
            outage.gateway.terminate();
        }
    }
    let elsewhere = outage.folder.path().join("other.toml");
    let text = fs::read_to_string(outage.file()).unwrap();
    fs::write(&elsewhere, text.replace("/state\"", "/nowhere\"")).unwrap();
    for arguments in [&["ls"][..], &["purge", "--all"], &["resume"]] {
        let said = spool(&elsewhere, arguments);
        assert!(
            said.code == 1 && said.err.contains("there is no spool"),
            "{said:?}"
        );
    }
    assert!(!outage.folder.path().join("nowhere").exists());
}

#[test]
fn is_what_is_purged_counted_and_never_sent() {
    let broker = crate::broker::Broker::start();
    let proxy = Proxy::start(broker.address());
    let far = Subscriber::start(broker.address());
    proxy.go_away();
    let mut outage = Outage::begin(proxy.port());
    outage.alarms("alarm/a", 40);
    outage.alarms("alarm/b", 10);
    outage.alarms("value/c", 5);
    wait_until("values are on disk", SOON, || {
        outage.spool(&["ls", "--json"]).json()["classes"][1]["messages"] == 5
    });
    let dry = outage
        .spool(&["purge", "--topic", "alarm/a", "--dry-run", "--json"])
        .json();
    assert_eq!((&dry["matching"], &dry["purged"]), (&40.into(), &0.into()));
    let real = outage
        .spool(&["purge", "--topic", "alarm/a", "--json"])
        .json();
    assert_eq!(real["purged"], 40);
    let said = outage.spool(&["purge", "--topic", "alarm/a"]).done();
    assert!(said.contains("nothing was changed"), "{said}");
    let ledger = outage.gateway.terminate();
    assert_eq!(ledger.count("critical", "purged"), 40);
    assert_eq!(ledger.count("critical", "on_disk"), 10);
    // On the files of a gateway that does not run.
    let dry = outage
        .spool(&["purge", "--class", "normal", "--dry-run"])
        .done();
    assert!(dry.contains("5 messages would be purged"), "{dry}");
    let real = outage.spool(&["purge", "--class", "normal"]).done();
    assert!(real.contains("5 messages purged for good"), "{real}");
    assert_eq!(
        outage.spool(&["export"]).payloads(),
        numbered("alarm/b", 10)
    );
    proxy.come_back();
    outage.start_again();
    far.wait_for_count("alarm/b", 10, SOON);
    let ledger = outage.gateway.terminate();
    far.settle();
    assert_eq!(far.count(""), 10, "what is purged is never sent");
    for (class, purged) in [("critical", 40), ("normal", 5)] {
        assert_eq!(ledger.count(class, "purged"), purged);
        assert_eq!(
            (ledger.found(class), ledger.count(class, "on_disk")),
            (0, 0)
        );
    }
    let empty = outage.spool(&["ls"]).done();
    assert!(empty.contains("The spool is empty"), "{empty}");
}

#[test]
fn does_a_paused_replay_wait_while_live_messages_go_on() {
    let broker = crate::broker::Broker::start();
    let proxy = Proxy::start(broker.address());
    let far = Subscriber::start(broker.address());
    let mut outage = Outage::begin(free_port());
    outage.alarms("alarm/a", 25);
    outage.gateway.terminate();
    outage.configuration = Site::configuration(proxy.port()).uplink("retry_max = \"1s\"");
    proxy.go_away();
    outage.start_again();
    let would = outage.spool(&["pause", "--dry-run"]).done();
    assert!(
        would.contains("would be paused; 25 messages to replay"),
        "{would}"
    );
    assert_eq!(
        outage.spool(&["pause", "--json"]).json()["was_paused"],
        false
    );
    let listed = outage.spool(&["ls"]).done();
    assert!(listed.contains("the replay is PAUSED"), "{listed}");
    proxy.come_back();
    proxy.wait_for_connections(2);
    outage.alarms("alarm/live", 5);
    far.wait_for_count("alarm/live", 5, SOON);
    assert_eq!(far.count("alarm/a"), 0, "paused");
    let goes_on = outage.spool(&["replay"]).done();
    assert!(
        goes_on.contains("was paused, and goes on. 25 messages"),
        "{goes_on}"
    );
    far.wait_for_count("alarm/a", 25, SOON);
    let not = outage.spool(&["resume"]).done();
    assert!(not.contains("was not paused"), "{not}");
    let ledger = outage.gateway.terminate();
    assert_eq!(ledger.count("critical", "delivered"), 30);
}

#[test]
fn is_a_flipped_byte_found_and_nothing_changed_by_looking() {
    let mut outage = Outage::begin(free_port());
    outage.alarms("alarm/a", 200);
    outage.gateway.terminate();
    let [segment] = &outage.segments()[..] else {
        panic!("one segment")
    };
    let mut bytes = fs::read(segment).unwrap();
    let needle = b"alarm/a 77";
    let at = bytes.windows(needle.len()).rposition(|part| part == needle);
    bytes[at.unwrap()] ^= 1;
    fs::write(segment, &bytes).unwrap();
    let said = outage.spool(&["verify"]);
    assert_eq!(said.code, 1, "{said:?}");
    let name = segment.file_name().unwrap().to_str().unwrap();
    assert!(
        said.out.contains("DAMAGED") && said.out.contains(name),
        "{said:?}"
    );
    let exported = outage.spool(&["export"]);
    assert!(exported.err.contains("could not be read"), "{exported:?}");
    assert!(exported.payloads().len() < 200);
    assert_eq!(fs::read(segment).unwrap(), bytes, "looking changes nothing");
    // The database panics over its second page; the operator reads of damage, and not of that.
    let mut worse = bytes.clone();
    worse[4096] = 0xff;
    fs::write(segment, &worse).unwrap();
    let said = outage.spool(&["verify"]);
    assert!(said.code == 1 && said.out.contains("DAMAGED"), "{said:?}");
    assert_eq!(said.err, "");
    let purge = outage.spool(&["purge", "--all"]);
    let told = "is damaged, and nothing was changed; start the gateway once";
    assert!(purge.code == 1 && purge.err.contains(told), "{purge:?}");
    fs::write(segment, &bytes).unwrap();
    // The same of a gateway that runs.
    outage.start_again();
    let said = outage.spool(&["verify", "--json"]);
    assert!(
        said.code == 1 && said.out.contains("\"sound\":false"),
        "{said:?}"
    );
}
