//! The crash harness: the real binary is killed with SIGKILL at random moments under full load, its
//! uplink up, down and flapping, while a fleet of real firmware brings again what was not acknowledged. Is an
//! acknowledged guaranteed message ever missing at the far end, does each have its own id, are repeats
//! bounded, and does the ledger balance?
//!
//! `TIDEGATE_KILLS` says how often it is killed (12 unless said), `TIDEGATE_KILL_SEED` repeats the
//! choices of a run that failed. The whole run:
//!
//!     TIDEGATE_KILLS=200 tests/run crash::

use std::net::TcpListener;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::broker::Stop;
use crate::fleet::Fleet;
use crate::gateway::{Gateway, Ledger};
use crate::simulation::Dice;
use crate::spool_far::FLEET;
use crate::spool_load::{Load, Sender};
use crate::spool_site::{HOME, SpoolSite, say};
use crate::wait::wait_until;
use firmware_sim::run::Played;
use firmware_sim::{Kind, names};

/// Devices of the fleet; half of them are of each guaranteed class.
const DEVICES: u32 = 16;
/// As fast as they are answered, with alarms of their own: 32 unacknowledged each, and more in the
/// firmware's store than any gateway takes. Longer than any run; the test ends it.
const SCENARIO: &str = r#"
[fleet]
channels = 1
readings_qos = 1
window = 28
payload_bytes_min = 200
readings_per_second = 500
alarms_per_minute = 600
report_seconds = 1
[[phase]]
kind = "steady"
seconds = 86400
"#;
/// Ports below those that the system gives to outgoing connections: between two lives the gateway's port is
/// nobody's, and must not be given to a device that looks for it.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// A device waits for 10 s at most between two tries.
const CONNECTED_MAX: Duration = Duration::from_secs(30);
/// What is settled is kept within this time (a second), on a machine that has other things to do too.
const SETTLED_WITHIN: Duration = Duration::from_millis(1_500);
/// A PUBACK takes so long from the broker to the gateway at most.
const ON_THE_WAY: Duration = Duration::from_millis(50);
/// The longest life.
const LIFE_MS_MAX: u64 = 3_000;

/// How the uplink is during one life.
#[derive(Clone, Copy, Debug)]
enum Uplink {
    Up,
    Down,
    Flapping,
}

struct Crash {
    site: SpoolSite,
    fleet: Option<Fleet>,
    /// What is not guaranteed, beside the fleet.
    load: Load,
    dice: Dice,
    broker_runs: bool,
    /// When this life began.
    born: Instant,
    kills: u32,
    cuts: usize,
    /// Messages that arrived in the last moments before kills and cuts: these may come once more.
    settled_just_before: usize,
}

#[test]
fn is_nothing_guaranteed_lost_however_often_it_is_killed() {
    let number = |name: &str| {
        let value = std::env::var(name).ok();
        value.map(|value| {
            value
                .parse::<u64>()
                .unwrap_or_else(|_| panic!("{name}: a number"))
        })
    };
    let kills = number("TIDEGATE_KILLS").unwrap_or(12);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("TIDEGATE_KILL_SEED").unwrap_or(now.as_micros() as u64);
    let run = std::panic::AssertUnwindSafe(|| {
        let mut crash = Crash::new(seed);
        while u64::from(crash.kills) < kills {
            crash.live_and_die();
        }
        crash.check();
    });
    if let Err(panic) = std::panic::catch_unwind(run) {
        say(&format!(
            "crash harness failed: TIDEGATE_KILL_SEED={seed} TIDEGATE_KILLS={kills}"
        ));
        std::panic::resume_unwind(panic);
    }
}

impl Crash {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::seeded(seed);
        let port = free_port(&mut dice);
        let site = SpoolSite::with(|configuration| {
            let configuration = configuration.listening_at(port);
            (0..DEVICES).fold(configuration, |configuration, device| {
                let topic = format!("plant/{}/#", names::device(device));
                configuration.rule(&topic, ["critical", "sure"][device as usize % 2])
            })
        });
        site.proxy.forget();
        let fleet = Fleet::start(port, DEVICES, SCENARIO, site.far.tally().fleet.clone());
        let others = ["value/0", "low/0"].map(|topic| Sender::to(topic).each_second(500));
        let load = Load::start(port, &others);
        Self {
            site,
            fleet: Some(fleet),
            load,
            dice,
            broker_runs: true,
            born: Instant::now(),
            kills: 0,
            cuts: 0,
            settled_just_before: 0,
        }
    }

    /// One life under one kind of uplink; its end, and perhaps some ends in the middle of a start.
    fn live_and_die(&mut self) {
        let uplink = [Uplink::Up, Uplink::Down, Uplink::Flapping][self.dice.below(3) as usize];
        self.set(uplink);
        let end = Instant::now() + Duration::from_millis(20 + self.dice.below(LIFE_MS_MAX));
        while Instant::now() < end {
            if matches!(uplink, Uplink::Flapping) {
                self.flap();
            }
            let pause = Duration::from_millis(20 + self.dice.below(200));
            sleep(pause.min(end.saturating_duration_since(Instant::now())));
        }
        if self.dice.permille(150) {
            self.stop();
        } else {
            self.kill();
        }
        while self.dice.permille(200) {
            self.kill_in_the_start();
        }
        self.born = Instant::now();
        self.site.begin();
        self.load.go_to(self.site.port());
    }

    fn set(&mut self, uplink: Uplink) {
        match uplink {
            Uplink::Up => self.bring_back(),
            Uplink::Down if self.dice.permille(500) => self.stop_broker(),
            Uplink::Down => self.site.proxy.go_away(),
            Uplink::Flapping => return,
        }
        self.cut_now();
    }

    /// PUBACKs on their way to the gateway are lost with a connection.
    fn cut_now(&mut self) {
        self.cuts += 1;
        self.note_settled(ON_THE_WAY);
    }

    fn bring_back(&mut self) {
        if !self.broker_runs {
            self.site.broker.run();
            self.broker_runs = true;
        }
        self.site.proxy.come_back();
    }

    fn stop_broker(&mut self) {
        if self.broker_runs {
            self.site.broker.stop(Stop::Clean);
            self.broker_runs = false;
        }
    }

    fn flap(&mut self) {
        self.cut_now();
        match self.dice.below(10) {
            0 => self.stop_broker(),
            1..=3 => self.site.proxy.cut(),
            4..=5 => self.site.proxy.go_away(),
            _ => self.bring_back(),
        }
    }

    fn kill(&mut self) {
        self.site.gateway.kill();
        self.load.go_to(0);
        self.kills += 1;
        // What an earlier life settled and did not keep has come again in this one.
        self.note_settled(SETTLED_WITHIN.min(self.born.elapsed()));
    }

    fn note_settled(&mut self, within: Duration) {
        let tally = self.site.far.tally();
        self.settled_just_before += tally.within(within, Instant::now());
    }

    /// A clean end in between, for its ledger.
    fn stop(&mut self) {
        self.load.go_to(0);
        self.site.gateway.terminate();
    }

    fn kill_in_the_start(&mut self) {
        self.site.gateway = Gateway::spawn_in(&self.site.configuration, self.site.home());
        self.born = Instant::now();
        sleep(Duration::from_millis(self.dice.below(60)));
        self.kill();
    }

    /// Everything heals, everything comes home, and is held against what the devices know.
    fn check(&mut self) {
        self.bring_back();
        let fleet = self.fleet.take().unwrap();
        let played = fleet.finish(CONNECTED_MAX);
        every_acknowledged_message_arrived(&played);
        self.load.wait_all_answered(HOME);
        let ledger = self.end();
        for class in ["critical", "sure"] {
            for counter in ["on_disk", "in_memory"] {
                assert_eq!(ledger.count(class, counter), 0, "{class} {ledger:?}");
            }
        }
        self.site.far.check();
        self.repeats_are_bounded(&played);
        self.the_ledger_is_exact_again(&ledger);
    }

    /// What the next start takes in is in its books, one for one.
    fn the_ledger_is_exact_again(&mut self, before: &Ledger) {
        const COUNT: u32 = 1_000;
        self.site.begin();
        let senders = ["alarm/x", "sure/x"].map(|topic| Sender::to(topic).count(COUNT));
        let load = Load::numbered(self.site.port(), 10, &senders);
        load.wait_all_answered(HOME);
        self.site.far.wait_for_all(&load, &[10, 11], HOME);
        let after = self.site.terminate();
        for class in ["critical", "sure"] {
            for counter in ["received", "delivered"] {
                let more = after.count(class, counter) - before.count(class, counter);
                assert_eq!(more, u64::from(COUNT), "{counter} of {class}");
            }
            assert_eq!(after.found(class), before.found(class), "{class}");
        }
    }

    /// The gateway ends when nothing has come for two seconds.
    fn end(&mut self) -> Ledger {
        let mut seen = (0, Instant::now());
        wait_until("all is home", 10 * HOME, || {
            let count = self.site.far.tally().at.len();
            if count != seen.0 {
                seen = (count, Instant::now());
            }
            seen.1.elapsed() > Duration::from_secs(2)
        });
        let ledger = self.site.gateway.terminate();
        self.site.far.subscriber.settle();
        ledger
    }

    fn repeats_are_bounded(&self, played: &Played) {
        let tally = self.site.far.tally();
        let bound = self.settled_just_before + self.site.proxy.broken_off();
        let repeats = tally.repeats.len();
        say(&format!(
            "crash harness: {} kills, {} cuts, {} messages made, {} acknowledged, {} arrivals, {} repeats \
             under one id (at most {bound}: {} in flight at an end, {} settled just before one), {} lives left their mark",
            self.kills,
            self.cuts,
            played.account.total(|kind| kind.sent),
            played.account.total(|kind| kind.acknowledged),
            tally.at.len(),
            repeats,
            self.site.proxy.broken_off(),
            self.settled_just_before,
            tally.epochs().len(),
        ));
        assert!(repeats <= bound, "{repeats} repeats, at most {bound}");
        let guaranteed = tally
            .overtaken
            .iter()
            .filter(|(stream, _)| *stream >= FLEET);
        let overtaken: Vec<_> = guaranteed.take(10).collect();
        assert!(overtaken.is_empty(), "out of order: {overtaken:?}");
        let broken = played.account.run.connections_broken;
        assert!(broken > 0, "the devices never came back");
    }
}

/// Held against what the fleet's own ledgers say, message for message.
#[track_caller]
fn every_acknowledged_message_arrived(played: &Played) {
    let account = &played.account;
    assert!(account.alarm.acknowledged > 0, "no alarm was acknowledged");
    for kind in Kind::ALL {
        let of = account.of(kind);
        let name = kind.name();
        assert_eq!(of.refused, 0, "{name}: one was refused");
        assert_eq!(of.unanswered, 0, "{name}: some were never answered");
        let missing = of.far_end.as_ref().unwrap().missing;
        assert_eq!(missing, 0, "{name}: acknowledged and missing: {account}");
    }
}

fn free_port(dice: &mut Dice) -> u16 {
    let first = std::process::id() as u16 ^ dice.below(1 << 16) as u16;
    let count = PORTS.len() as u16;
    let mut ports = (0..count).map(|n| PORTS.start + (first % count + n) % count);
    let free = ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.expect("a free port")
}
