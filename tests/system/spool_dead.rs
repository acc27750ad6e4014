//! What the far end refuses for good is not lost: it is on disk before its sender is told, it is there after
//! a kill, the operator sees it, and it comes home when the far end takes it.

use std::path::PathBuf;

use crate::broker::Broker;
use crate::device::Device;
use crate::gateway::{Configuration, Gateway};
use crate::proxy::{Proxy, Sent};
use crate::site::Site;
use crate::spool_commands::{Said, spool};
use crate::subscriber::Subscriber;
use crate::wait::{SOON, wait_until};
use crate::wire::Version;

/// A gateway whose far end refuses every payload that starts with `bad`.
struct Picky {
    gateway: Gateway,
    configuration: Configuration,
    folder: tempfile::TempDir,
    far: Subscriber,
    proxy: Proxy,
    _broker: Broker,
}

impl Picky {
    #[track_caller]
    fn start() -> Self {
        let broker = Broker::start();
        let proxy = Proxy::start(broker.address());
        let far = Subscriber::start(broker.address());
        let bad = |sent: &Sent| sent.publish.payload.starts_with(b"bad");
        proxy.reject(Some(Box::new(bad)));
        let folder = tempfile::tempdir().unwrap();
        let configuration = Site::configuration(proxy.port()).uplink("retry_max = \"1s\"");
        Self {
            gateway: Gateway::start_in(&configuration, folder.path()),
            configuration,
            folder,
            far,
            proxy,
            _broker: broker,
        }
    }

    /// Alarms, each refused or not; gives the reasons that their sender was given.
    #[track_caller]
    fn alarms(&self, payloads: &[&str]) -> Vec<u8> {
        let mut device = Device::new(self.gateway.port(), Version::V5, "alarms");
        let ids = payloads
            .iter()
            .map(|text| device.publish("alarm/a", *text, 1));
        let ids: Vec<_> = ids.collect();
        device.wait_all_answered(SOON);
        let reasons = ids.into_iter().filter_map(|id| device.reason(id));
        reasons.collect()
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

    /// The ids under which a payload was sent.
    fn ids(&self, payload: &str) -> Vec<String> {
        let sent = self.proxy.sent().into_iter();
        let own = sent.filter(|sent| sent.publish.text() == payload);
        own.map(|sent| sent.publish.id().unwrap().to_owned())
            .collect()
    }

    /// Dead letters that are listed.
    fn dead_letters(&self) -> u64 {
        let listed = self.spool(&["ls", "--json"]).json();
        let dead = listed["dead_letters"].as_array().unwrap();
        dead.iter()
            .map(|class| class["messages"].as_u64().unwrap())
            .sum()
    }
}

#[test]
fn is_what_the_far_end_refuses_on_disk_after_a_kill_and_home_when_it_takes_it() {
    let mut picky = Picky::start();
    let reasons = picky.alarms(&["good 1", "bad 1", "bad 2", "good 2"]);
    assert!(reasons[1] >= 0x80 && reasons[2] >= 0x80, "{reasons:?}");
    assert_eq!((reasons[0], reasons[3]), (0, 0));
    // Its sender has been told, so that it is on disk.
    picky.gateway.kill();
    let listed = picky.spool(&["ls"]).done();
    assert!(listed.contains("critical (dead)"), "{listed}");
    assert!(listed.contains("2 dead letters, refused"), "{listed}");
    picky.start_again();
    picky.proxy.wait_for_connections(2);
    wait_until("the dead letters are listed", SOON, || {
        picky.dead_letters() == 2
    });
    let peeked = picky.spool(&["peek", "--dead", "--json"]).payloads();
    assert_eq!(peeked, ["bad 1", "bad 2"]);
    assert_eq!(picky.spool(&["export"]).payloads(), [""; 0]);
    let verified = picky.spool(&["verify", "--dead"]).done();
    assert!(verified.contains("1 segment checked"), "{verified}");
    // Refused once more: it stays.
    let again = picky.spool(&["replay", "--again", "--json"]).json();
    assert_eq!(
        (&again["matching"], &again["again"]),
        (&2.into(), &2.into())
    );
    picky
        .gateway
        .wait_for_line("2 dead letters were tried again; the upstream took 0", SOON);
    assert_eq!(picky.dead_letters(), 2);
    // The far end is mended.
    picky.proxy.reject(None);
    let would = picky.spool(&["replay", "--again", "--dry-run"]).done();
    assert!(
        would.contains("2 dead letters would be tried again"),
        "{would}"
    );
    let none = ["replay", "--again", "--topic", "alarm/b"];
    assert!(
        picky
            .spool(&none)
            .done()
            .contains("Nothing in the spool matches")
    );
    let again = picky
        .spool(&["replay", "--again", "--topic", "alarm/+"])
        .done();
    assert!(
        again.contains("2 dead letters to be tried again now"),
        "{again}"
    );
    picky.far.wait_for_count("alarm/a", 4, SOON);
    wait_until("they are gone from the disk", SOON, || {
        picky.dead_letters() == 0
    });
    for payload in ["bad 1", "bad 2"] {
        let ids = picky.ids(payload);
        assert!(
            ids.len() == 3 && ids.iter().all(|id| *id == ids[0]),
            "{ids:?}"
        );
    }
    let ledger = picky.gateway.terminate();
    // The killed life's account, of two delivered and two refused, is in it if it was kept before the kill.
    let before = ledger.count("critical", "received");
    assert!([0, 4].contains(&before), "{ledger:?}");
    assert_eq!(ledger.count("critical", "made_here"), 4);
    assert_eq!(ledger.count("critical", "delivered"), 2 + before / 2);
    // It was kept when these two were on their way to the dead letters, and misses them.
    let missing = u64::try_from(-ledger.found("critical")).unwrap();
    assert!([0, before / 2].contains(&missing), "{ledger:?}");
    let dead_letters = 2 + before / 2 - missing;
    assert_eq!(ledger.count("critical", "dead_letters"), dead_letters);
    assert_eq!(ledger.count("critical", "on_disk"), 0);
}

#[test]
fn are_dead_letters_purged_while_the_gateway_runs_and_when_it_does_not() {
    let mut picky = Picky::start();
    picky.alarms(&["bad 1", "bad 2", "bad 3"]);
    let all = picky.spool(&["purge", "--dead"]);
    assert!(all.code == 2 && all.err.contains("--all"), "{all:?}");
    let none = picky.spool(&["purge", "--all", "--json"]).json();
    assert_eq!(none["purged"], 0, "nothing waits to be sent");
    let peeked = picky.spool(&["peek", "--dead", "--json"]).done();
    let third: serde_json::Value = serde_json::from_str(peeked.lines().nth(2).unwrap()).unwrap();
    let from = third["received"].as_str().unwrap();
    let purged = picky.spool(&["purge", "--dead", "--from", from, "--json"]);
    let purged = purged.json()["purged"].as_u64().unwrap();
    assert!((1..=3).contains(&purged), "{purged}");
    let ledger = picky.gateway.terminate();
    assert_eq!(ledger.count("critical", "dead_letters"), 3);
    assert_eq!(ledger.count("critical", "purged"), 0, "they had ended");
    let rest = picky.spool(&["purge", "--dead", "--all", "--json"]).json();
    assert_eq!(rest["purged"].as_u64().unwrap() + purged, 3);
    assert_eq!(picky.dead_letters(), 0);
    picky.start_again();
    let ledger = picky.gateway.terminate();
    assert_eq!(
        (ledger.count("critical", "purged"), ledger.found("critical")),
        (0, 0)
    );
}

#[test]
fn is_the_replay_of_one_class_paused_and_the_others_go_on() {
    let broker = Broker::start();
    let proxy = Proxy::start(broker.address());
    let far = Subscriber::start(broker.address());
    proxy.go_away();
    let folder = tempfile::tempdir().unwrap();
    let configuration = Site::configuration(proxy.port()).uplink("retry_max = \"1s\"");
    let mut gateway = Gateway::start_in(&configuration, folder.path());
    let mut device = Device::new(gateway.port(), Version::V5, "d");
    for number in 0..10 {
        device.publish("alarm/a", format!("{number}"), 1);
        device.publish("value/a", format!("{number}"), 1);
    }
    device.wait_all_answered(SOON);
    gateway.terminate();
    let mut gateway = Gateway::start_in(&configuration, folder.path());
    let spool = |arguments: &[&str]| spool(&folder.path().join("tidegate.toml"), arguments);
    let wrong = spool(&["pause", "--class", "critcal"]);
    assert!(
        wrong.code == 2 && wrong.err.contains("the classes are"),
        "{wrong:?}"
    );
    let paused = spool(&["pause", "--class", "critical"]).done();
    assert!(
        paused.contains("The replay of class critical is paused"),
        "{paused}"
    );
    let listed = spool(&["ls"]).done();
    assert!(
        listed.contains("the replay of critical is PAUSED"),
        "{listed}"
    );
    proxy.come_back();
    far.wait_for_count("value/a", 10, SOON);
    assert_eq!(far.count("alarm/a"), 0, "paused");
    spool(&["resume", "--class", "critical"]).done();
    far.wait_for_count("alarm/a", 10, SOON);
    gateway.terminate();
}
