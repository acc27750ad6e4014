//! The crash harness: the real binary is killed with SIGKILL at random moments under full load, its
//! uplink up, down and flapping, while fleets of real firmware bring again what was not acknowledged. Is an
//! acknowledged guaranteed message ever missing at the far end, does each have its own id, are repeats
//! bounded, and does the ledger balance?
//!
//! `TIDEGATE_KILLS` says how often it is killed (12 unless said), `TIDEGATE_KILL_SEED` repeats the
//! choices of a run that failed. The whole run:
//!
//!     TIDEGATE_KILLS=200 tests/run crash::

use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::broker::Stop;
use crate::fleet::{Fleet, Plan};
use crate::gateway::{Gateway, Ledger};
use crate::simulation::Dice;
use crate::spool_site::{HOME, SpoolSite, say};
use crate::wait::wait_until;
use firmware_sim::account::{Account, KindAccount};

/// Devices of each guaranteed class: each has up to 32 messages unanswered, and the next ones ready.
const DEVICES: u32 = 24;
/// What is unanswered in the end is answered in this time: a device waits for 10 s at most between two tries to
/// connect.
const ANSWERED_MAX: Duration = Duration::from_secs(60);
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
    /// Of both guaranteed classes.
    fleets: Vec<Fleet>,
    /// What is not guaranteed.
    lesser: [Fleet; 2],
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
        let dice = Dice::seeded(seed);
        let site = SpoolSite::new();
        site.proxy.forget();
        let guaranteed = |topic| {
            let plan = Plan::to(topic).devices(DEVICES).with("report_seconds = 1");
            site.play(&plan.per_second(500).alarms_per_minute(600))
        };
        let lesser = |topic| site.play(&Plan::to(topic).per_second(150));
        Self {
            fleets: vec![guaranteed("alarm"), guaranteed("sure")],
            lesser: [lesser("value"), lesser("low")],
            site,
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
        for fleet in self.fleets.iter_mut().chain(&mut self.lesser) {
            fleet.wait_all_answered(ANSWERED_MAX);
        }
        let accounts: Vec<_> = self
            .fleets
            .drain(..)
            .map(|fleet| fleet.finish_in_order(ANSWERED_MAX))
            .collect();
        for account in &accounts {
            assert!(account.alarm.acknowledged > 0, "no alarm was acknowledged");
        }
        let ledger = self.end();
        for class in ["critical", "sure"] {
            for counter in ["on_disk", "in_memory"] {
                assert_eq!(ledger.count(class, counter), 0, "{class} {ledger:?}");
            }
        }
        self.site.far.check();
        self.repeats_are_bounded(&accounts);
        self.the_ledger_is_exact_again(&ledger);
    }

    /// What the next start takes in is in its books, one for one.
    fn the_ledger_is_exact_again(&mut self, before: &Ledger) {
        const COUNT: u64 = 1_000;
        self.site.begin();
        let plan = |topic| Plan::to(topic).devices(10).messages(100);
        let fleets = ["alarm/x", "sure/x"].map(|topic| self.site.play(&plan(topic)));
        for fleet in fleets {
            fleet.finish_at_home(HOME);
        }
        let after = self.site.terminate();
        for class in ["critical", "sure"] {
            for counter in ["received", "delivered"] {
                let more = after.count(class, counter) - before.count(class, counter);
                assert_eq!(more, COUNT, "{counter} of {class}");
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

    fn repeats_are_bounded(&self, accounts: &[Account]) {
        let tally = self.site.far.tally();
        let bound = self.settled_just_before + self.site.proxy.broken_off();
        let repeats = tally.repeats.len();
        let total = |figure: fn(&KindAccount) -> u64| {
            let accounts = accounts.iter();
            accounts.map(|account| account.total(figure)).sum::<u64>()
        };
        say(&format!(
            "crash harness: {} kills, {} cuts, {} messages made, {} acknowledged, {} arrivals, {} repeats \
             under one id (at most {bound}: {} in flight at an end, {} settled just before one), {} lives left their mark",
            self.kills,
            self.cuts,
            total(|kind| kind.sent),
            total(|kind| kind.acknowledged),
            tally.at.len(),
            repeats,
            self.site.proxy.broken_off(),
            self.settled_just_before,
            tally.epochs().len(),
        ));
        assert!(repeats <= bound, "{repeats} repeats, at most {bound}");
        for account in accounts {
            let broken = account.run.connections_broken;
            assert!(broken > 0, "the devices never came back");
        }
    }
}
