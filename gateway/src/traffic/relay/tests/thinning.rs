//! The relay with a `latest` class that is thinned: what leaves, what goes to the disk, and does the sum
//! hold?

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::traffic::classify::Pointer;
use crate::traffic::queue::summary::{Figure, SummarySettings};
use crate::traffic::send::PropertiesPolicy;

const LOW: u8 = NORMAL;
/// In milliseconds.
const PERIOD: u64 = 2_000;

/// What the far end got.
#[derive(Clone, Debug)]
struct Home {
    at: Tick,
    key: String,
    number: u64,
    /// The count, of a summary.
    sums_up: Option<u64>,
    stands_for: u64,
    replayed: bool,
}

/// A site with one thinned class.
struct Site {
    world: World,
    disk: Disk,
    disk_works: bool,
    sent: Vec<Published>,
    home: Vec<Home>,
    number: u64,
}

impl Site {
    fn new(change: impl Fn(&mut ClassSettings)) -> Self {
        let change = |class: &mut ClassSettings| {
            if &*class.name == "normal" {
                class.delivery = Delivery::Latest;
                change(class);
            }
        };
        let full = |uplink: &mut UplinkSettings| uplink.properties = PropertiesPolicy::Full;
        let (world, disk) = World::with_disk_and(full, change);
        Self {
            world,
            disk,
            disk_works: true,
            sent: Vec::new(),
            home: Vec::new(),
            number: 0,
        }
    }

    fn value(&mut self, key: &str) {
        self.number += 1;
        self.say(key, &format!("{{\"key\":\"{key}\",\"n\":{}}}", self.number));
    }

    fn say(&mut self, key: &str, payload: &str) {
        let mut message = sample(key, payload.as_bytes());
        message.class = ClassId(LOW);
        message.received = self.world.now;
        message.receipt.door = self.world.sender;
        let batch = Batch {
            door: self.world.sender,
            at: self.world.now,
            messages: vec![message],
            unreadable: 0,
            forgotten: 0,
            room: None,
        };
        self.world.relay.arrive(batch, self.world.now);
    }

    /// Time passes in steps of a tenth of a second; the upstream answers each time.
    fn wait(&mut self, millis: u64) {
        for _ in 0..millis / 100 {
            self.world.wait(Duration::from_millis(100));
            self.turn();
            self.answer();
        }
    }

    fn turn(&mut self) {
        let mut sent = self.world.turn();
        while let Some(command) = self.world.relay.take_spool_command() {
            let reports = match command {
                SpoolCommand::Append(block) if !self.disk_works => vec![SpoolReport::Unwritten {
                    class: block.class,
                    positions: block.positions(),
                    why: Unwritten::Full,
                }],
                command => self.disk.obey(command),
            };
            for report in reports {
                self.world.report(report);
            }
            sent.extend(self.world.turn());
        }
        self.sent.extend(sent);
    }

    fn answer(&mut self) {
        for published in std::mem::take(&mut self.sent) {
            self.world.answer(&published, 0);
            self.home.push(home(&published, self.world.now));
        }
    }

    fn down(&mut self) {
        self.sent.clear();
        self.world.down(Link::Bulk, false);
    }

    fn up(&mut self) {
        self.world.up(Link::Bulk);
        self.turn();
        self.answer();
    }

    fn values(&self) -> impl Iterator<Item = &Home> {
        self.home.iter().filter(|home| home.sums_up.is_none())
    }

    fn summaries(&self) -> impl Iterator<Item = u64> {
        self.home.iter().filter_map(|home| home.sums_up)
    }

    fn account(&self) -> Account {
        self.world.relay.ledger().accounts()[usize::from(LOW)].clone()
    }

    fn status(&self) -> crate::traffic::status::ClassStatus {
        self.world.relay.status().classes[usize::from(LOW)].clone()
    }
}

fn home(published: &Published, at: Tick) -> Home {
    let json: serde_json::Value = serde_json::from_str(&published.payload).unwrap();
    let properties = String::from_utf8_lossy(&published.properties).into_owned();
    let count = properties.split("tidegate-count").nth(1).map(|rest| {
        let digits = rest.trim_start_matches(|c: char| !c.is_ascii_digit());
        let end = digits.find(|c: char| !c.is_ascii_digit());
        digits[..end.unwrap_or(digits.len())].parse().unwrap()
    });
    Home {
        at,
        key: json["key"].as_str().unwrap_or_default().to_owned(),
        number: json["n"].as_u64().unwrap_or_default(),
        sums_up: json["count"].as_u64(),
        stands_for: count.unwrap_or(1),
        replayed: properties.contains("tidegate-replayed"),
    }
}

fn summed_up(class: &mut ClassSettings) {
    class.summary = Some(SummarySettings {
        value: Pointer::parse("/n").unwrap(),
        of: Figure::ALL.map(|(_, figure)| figure).to_vec(),
        topic: "{topic}/summary".to_owned(),
    });
}

const EVERY: Option<Duration> = Some(Duration::from_millis(PERIOD));

#[test]
fn does_one_value_in_a_period_leave_in_good_times_and_the_last_one_in_the_end() {
    let mut site = Site::new(|class| class.every = EVERY);
    site.up();
    for _ in 0..45 {
        site.value("a");
        site.wait(100);
    }
    assert_eq!(site.status().parked, 1);
    let ahead = site.world.relay.deadline(site.world.now);
    assert!(ahead <= site.world.now.after(Duration::from_millis(PERIOD)));
    site.wait(3_000);
    let sent: Vec<_> = site
        .values()
        .map(|home| (home.number, home.stands_for))
        .collect();
    assert_eq!(sent, [(1, 1), (20, 19), (40, 20), (45, 5)]);
    let at: Vec<_> = site.values().map(|home| home.at).collect();
    let apart = |two: &[Tick]| two[1].since(two[0]) >= Duration::from_millis(PERIOD);
    assert!(at.windows(2).all(apart), "{at:?}");
    let account = site.account();
    assert_eq!(account.ended(Outcome::Superseded), 41);
    assert_eq!(
        site.status().pressure_changes,
        0,
        "waiting by rule is no pressure"
    );
    assert!(site.world.relay.is_idle());
}

#[test]
fn does_a_stop_let_the_newest_go_before_its_period_ends() {
    let mut site = Site::new(|class| class.every = EVERY);
    site.up();
    site.value("a");
    site.wait(100);
    site.value("a");
    site.wait(100);
    assert_eq!(site.home.len(), 1);
    site.world.relay.drain();
    site.wait(100);
    assert_eq!(site.home.len(), 2);
    assert!(site.world.relay.is_idle());
}

#[test]
fn do_values_that_wait_for_their_period_not_fill_the_class() {
    let mut site = Site::new(|class| class.every = Some(Duration::from_secs(3_600)));
    site.up();
    for _ in 0..2 {
        for key in 0..1_500 {
            site.value(&format!("{key} {:200}", ""));
            if key % 10 == 0 {
                site.wait(100);
            }
        }
    }
    let status = site.status();
    assert!(
        status.queue_bytes <= status.queue_bytes_max * 6 / 10,
        "{status:?}"
    );
    assert!(status.ended.count(Outcome::Shed) > 0);
    site.value("new");
    site.wait(100);
    assert_eq!(site.home.last().unwrap().key, "new");
}

/// They cannot give way for what is more urgent.
#[test]
fn do_values_that_wait_for_their_period_not_fill_the_memory_whatever_the_number_of_classes() {
    let change = |class: &mut ClassSettings| {
        if &*class.name != "critical" {
            class.delivery = Delivery::Latest;
            class.every = Some(Duration::from_secs(3_600));
            (class.queue_bytes_max, class.client_bytes_max) = (4 << 20, 4 << 20);
        }
    };
    let (mut world, _) = World::with_disk_and(|_| {}, change);
    world.up(Link::Bulk);
    let payload = "x".repeat(2_000);
    for _ in 0..2 {
        for key in 0..2_000 {
            world.arrive_on([SURE, NORMAL][key % 2], &format!("t/{key}"), &payload);
            if key % 10 == 0 {
                world.wait(Duration::from_millis(100));
                for published in world.turn() {
                    world.answer(&published, 0);
                }
            }
        }
    }
    let memory = world.relay.memory_bytes_max;
    let bytes = world.relay.queues().bytes();
    assert!(
        bytes > memory * 4 / 10 && bytes <= memory * 6 / 10,
        "{bytes}"
    );
    assert!(world.ended(SURE, Outcome::Shed) > 0);
}

#[test]
fn does_an_outage_leave_one_value_a_period_on_disk_and_the_newest_in_memory() {
    let mut site = Site::new(|class| {
        class.thin = EVERY;
        summed_up(class);
    });
    for _ in 0..100 {
        site.value("a");
        site.value("b");
        site.wait(100);
    }
    site.wait(6_000);
    // What came before the outage was one waits in the queue, then gives way; five periods in all.
    assert_eq!(site.world.counts(LOW), (2, 2 * (5 + 4)));
    site.up();
    site.wait(2_000);
    for key in ["a", "b"] {
        let of_key: Vec<_> = site.values().filter(|home| home.key == key).collect();
        let live: Vec<_> = of_key.iter().filter(|home| !home.replayed).collect();
        assert_eq!(live.len(), 1);
        let parity = u64::from(key == "a");
        assert_eq!(live[0].number, 200 - parity, "the newest goes live");
        let curve: Vec<_> = of_key.iter().filter(|home| home.replayed).collect();
        let numbers: Vec<_> = curve.iter().map(|home| home.number).collect();
        assert_eq!(numbers, [2, 42, 82, 122, 162].map(|number| number - parity));
        let stand: u64 = of_key.iter().map(|home| home.stands_for).sum();
        assert_eq!(stand, 100);
    }
    let account = site.account();
    let superseded = account.ended(Outcome::Superseded);
    assert_eq!(superseded, 200 - 12);
    assert_eq!(site.summaries().sum::<u64>(), superseded);
    assert_eq!(account.made_here, site.summaries().count() as u64);
    assert!(site.world.relay.is_idle() && site.disk.records.is_empty());
}

#[test]
fn is_what_the_disk_does_not_take_superseded_after_all() {
    let mut site = Site::new(|class| class.thin = EVERY);
    site.disk_works = false;
    for _ in 0..100 {
        site.value("a");
        site.wait(100);
    }
    site.wait(6_000);
    assert_eq!(site.world.counts(LOW), (1, 0));
    assert_eq!(site.account().ended(Outcome::Superseded), 99);
    site.up();
    assert_eq!(site.home.len(), 1);
    assert_eq!((site.home[0].number, site.home[0].stands_for), (100, 100));
}

#[test]
fn does_a_summary_leave_with_the_value_that_stands_for_the_others() {
    let mut site = Site::new(summed_up);
    site.up();
    site.value("a");
    site.wait(100);
    assert_eq!(site.account().made_here, 0, "nothing was superseded");
    site.down();
    site.value("a");
    site.value("b");
    site.wait(3_000);
    for _ in 0..10 {
        site.value("a");
    }
    site.say("a", "{\"n\":\"none\"}");
    site.say("a", "{\"key\":\"a\",\"n\":77}");
    site.up();
    site.wait(1_000);
    assert_eq!(site.account().made_here, 1);
    let summary: Vec<_> = site.summaries().collect();
    assert_eq!(summary, [11]);
    let values: Vec<_> = site
        .values()
        .map(|home| (&*home.key, home.stands_for))
        .collect();
    assert_eq!(values, [("a", 1), ("a", 13), ("b", 1)]);
    assert_eq!(site.status().summary_unreadable, 1);
    let account = site.account();
    assert_eq!(account.ended(Outcome::Superseded), 12);
    assert_eq!(account.ended(Outcome::Delivered), 4);
}

#[test]
fn is_all_that_waits_on_disk_after_a_stop() {
    let mut site = Site::new(|class| {
        class.thin = EVERY;
        summed_up(class);
    });
    for _ in 0..50 {
        site.value("a");
        site.wait(100);
    }
    site.world.relay.drain();
    site.world.relay.stop();
    site.turn();
    assert!(site.world.relay.is_written());
    assert_eq!(site.world.relay.finish(), 0);
    let account = site.account();
    // Three of the curve and the newest; a summary before each but the first.
    assert_eq!(site.world.counts(LOW), (0, 4 + 3));
    assert_eq!((account.made_here, account.received), (3, 50));
    assert_eq!(site.disk.records.len(), 7);
}

#[derive(Clone, Debug)]
enum Step {
    Value(u8),
    NoNumber(u8),
    Wait(u64),
    Send,
    Up,
    Down,
    Disk(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (0..4_u8).prop_map(Step::Value),
        1 => (0..4_u8).prop_map(Step::NoNumber),
        6 => (1..20_u64).prop_map(|tenths| Step::Wait(tenths * 100)),
        2 => Just(Step::Send),
        1 => Just(Step::Up),
        1 => Just(Step::Down),
        1 => any::<bool>().prop_map(Step::Disk),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever happens to link and disk: the newest value of each key arrives, each value is delivered
    /// or stood for by one that is, each superseded one is summed up or counted, and the ledger balances
    /// (which the relay checks after each step).
    #[test]
    fn is_every_value_delivered_or_stood_for_and_the_last_one_always_delivered(
        every in any::<bool>(), thin in any::<bool>(), steps in prop::collection::vec(step(), 1..200)
    ) {
        let mut site = Site::new(|class| {
            class.every = EVERY.filter(|_| every);
            class.thin = EVERY.filter(|_| thin);
            summed_up(class);
        });
        let (mut newest, mut unreadable, mut up) = (BTreeMap::new(), 0, false);
        let mut disk_failed = false;
        for step in steps {
            match step {
                Step::Value(key) => {
                    site.value(&key.to_string());
                    newest.insert(key.to_string(), site.number);
                }
                Step::NoNumber(key) => {
                    site.number += 1;
                    site.say(&key.to_string(), &format!("{{\"key\":\"{key}\",\"x\":{}}}", site.number));
                    newest.insert(key.to_string(), 0);
                    unreadable += 1;
                }
                Step::Wait(millis) => site.wait(millis),
                Step::Send => site.turn(),
                Step::Up if !up => {
                    site.up();
                    up = true;
                }
                Step::Down if up => {
                    site.down();
                    up = false;
                }
                Step::Disk(works) => {
                    site.disk_works = works;
                    disk_failed |= !works;
                }
                Step::Up | Step::Down => {}
            }
        }
        site.disk_works = true;
        if !up {
            site.up();
        }
        site.wait(30_000);
        let account = site.account();
        prop_assert!(site.world.relay.is_idle() && site.world.relay.waiting()[usize::from(LOW)].on_disk == 0);
        prop_assert_eq!(account.received, site.number);
        let superseded = account.ended(Outcome::Superseded);
        prop_assert_eq!(account.received, superseded + site.values().count() as u64);
        prop_assert_eq!(account.received + account.made_here, superseded + account.ended(Outcome::Delivered));
        let stand: u64 = site.values().map(|home| home.stands_for).sum();
        prop_assert!(stand == account.received || disk_failed && stand < account.received);
        let status = site.status();
        prop_assert!(status.summary_unreadable <= unreadable);
        prop_assert_eq!(
            site.summaries().sum::<u64>() + status.summary_unreadable + status.summary_forgotten,
            superseded
        );
        for (key, number) in newest {
            let live = site.values().filter(|home| home.key == key && !home.replayed);
            prop_assert_eq!(live.last().map(|home| home.number), Some(number));
        }
        let distinct: HashSet<_> = site.values().filter(|home| home.number > 0).map(|home| home.number).collect();
        prop_assert_eq!(distinct.len(), site.values().filter(|home| home.number > 0).count());
    }
}
