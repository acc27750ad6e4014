//! Fleets of firmware-sim beside a test: real firmware that never gives up, and an account of every message
//! at the end. A test asks while it goes on how much was answered, and says when to make nothing new.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use firmware_sim::Kind;
use firmware_sim::account::{Account, KindAccount};
use firmware_sim::progress::Progress;
use firmware_sim::run::{Ended, Order, OwnFarEnd, Played, play_to};
use firmware_sim::scenario::Scenario;
use firmware_sim::watch::FarEnd;
use firmware_sim::wire::Protocol;
use tokio::sync::oneshot;

use crate::spool_far::Far;
use crate::wait::wait_until;

/// From one look at how it goes to the next.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// What waits may take so long until it is delivered, once nothing new is made: the test may hold it on purpose,
/// and a device waits for 10 s at
/// most between two tries to connect.
const DRAIN_MAX: Duration = Duration::from_secs(120);
/// What comes home may take so long without a pause, on a busy machine.
const QUIET_MAX: Duration = Duration::from_secs(30);
/// The same where much is superseded on the way and never comes.
const SUPERSEDED_QUIET_MAX: Duration = Duration::from_secs(5);
/// Longer than any test: it is the test that ends a fleet.
const SECONDS: u32 = 86_400;

/// What a fleet does.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    devices: u32,
    /// Lines of the scenario's `[fleet]`.
    fleet: String,
    phase: String,
    /// How many messages there will be, if there is an end.
    goal: Option<u64>,
    protocol: Option<Protocol>,
}

impl Plan {
    /// Four devices with topics below this one that send readings of 200 bytes with QoS 1 as fast as they are
    /// answered, 28 unanswered at most each.
    pub(crate) fn to(topic: &str) -> Self {
        let plan = Self {
            devices: 4,
            fleet: String::new(),
            phase: "kind = \"flat-out\"".to_owned(),
            goal: None,
            protocol: None,
        };
        plan.with(&format!("topic = \"{topic}\""))
            .with("channels = 1\nreadings_qos = 1\nwindow = 28")
            .with(&format!("report_seconds = {SECONDS}"))
            .payload_bytes(200)
    }

    /// So many devices.
    pub(crate) fn devices(mut self, count: u32) -> Self {
        self.devices = count;
        self
    }

    /// One more line of `[fleet]`; the last of a key counts.
    pub(crate) fn with(mut self, line: &str) -> Self {
        writeln!(self.fleet, "{line}").unwrap();
        self
    }

    /// The least size of a payload.
    pub(crate) fn payload_bytes(self, bytes: usize) -> Self {
        self.with(&format!("payload_bytes_min = {bytes}"))
    }

    /// So many messages of each device and then no more.
    pub(crate) fn messages(mut self, count: u32) -> Self {
        write!(self.phase, "\nreadings = {count}").unwrap();
        self.goal = Some(u64::from(count));
        self
    }

    /// So many messages of each device a second, as far as they are answered: a reading that waits gives way
    /// to the next.
    pub(crate) fn per_second(mut self, count: u32) -> Self {
        self.phase = format!("kind = \"steady\"\nreadings_per_second = {count}");
        self.with("alarms_per_minute = 0")
    }

    /// So many alarms a minute of each device, beside its readings.
    pub(crate) fn alarms_per_minute(self, count: u32) -> Self {
        self.with(&format!("alarms_per_minute = {count}"))
    }

    /// What the devices speak. Without it, every other fleet of a far end speaks 3.1.1.
    pub(crate) fn speaking(mut self, protocol: Protocol) -> Self {
        self.protocol = Some(protocol);
        self
    }

    /// What `firmware-sim` reads. A key that is given twice counts as it was given last.
    fn scenario(&self) -> Scenario {
        let mut keys: Vec<(&str, &str)> = Vec::new();
        for line in self.fleet.lines() {
            let (key, value) = line.split_once(" = ").expect("a key and its value");
            keys.retain(|(other, _)| *other != key);
            keys.push((key, value));
        }
        let lines = keys.iter().map(|(key, value)| format!("{key} = {value}\n"));
        let text = format!(
            "[fleet]\n{}[[phase]]\n{}\nseconds = {SECONDS}\n",
            lines.collect::<String>(),
            self.phase
        );
        Scenario::read(&text).unwrap_or_else(|faults| panic!("{faults}\n{text}"))
    }
}

/// A fleet that plays.
pub(crate) struct Fleet {
    goal: Option<u64>,
    far_end: FarEnd,
    seen: Arc<Mutex<Option<Progress>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<Ended, String>>>,
    ended: Option<Ended>,
}

impl Fleet {
    /// Lets devices play against the gateway at this port, which has to be there, and the far end expect
    /// them.
    #[track_caller]
    pub(crate) fn start(port: u16, plan: &Plan, far: &Far) -> Self {
        let (fleets, first_device, far_end) = far.expect(plan.devices);
        let protocol = [Protocol::V5, Protocol::V311][fleets % 2];
        let plan = Plan {
            protocol: plan.protocol.or(Some(protocol)),
            ..plan.clone()
        };
        Self::numbered(port, &plan, first_device, far_end)
    }

    /// The same with devices numbered from `first_device` on, and who tells the far end what arrives is the
    /// test's affair.
    #[track_caller]
    pub(crate) fn numbered(port: u16, plan: &Plan, first_device: u32, far_end: FarEnd) -> Self {
        let address = format!("127.0.0.1:{port}").parse().unwrap();
        let order = Order {
            first_device,
            protocol: plan.protocol.unwrap_or(Protocol::V5),
            progress_every: LOOK_EVERY,
            ..Order::new(address, plan.devices, plan.scenario())
        };
        let own = OwnFarEnd {
            far_end: far_end.clone(),
            drain_max: DRAIN_MAX,
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let seen = Arc::new(Mutex::new(None));
        let shared = Arc::clone(&seen);
        let thread = thread::spawn(move || {
            let stopped = async { drop(stopped.await) };
            let progress = |progress: &Progress| *shared.lock().unwrap() = Some(*progress);
            play_to(&order, &own, stopped, progress).map_err(|error| error.to_string())
        });
        Self {
            goal: plan.goal.map(|goal| goal * u64::from(plan.devices)),
            far_end,
            seen,
            stop: Some(stop),
            thread: Some(thread),
            ended: None,
        }
    }

    fn seen<T>(&self, read: impl FnOnce(&Progress) -> T) -> Option<T> {
        self.seen.lock().unwrap().as_ref().map(read)
    }

    /// How many messages were sent.
    pub(crate) fn sent(&self) -> u64 {
        self.seen(|progress| progress.sent).unwrap_or(0)
    }

    /// How many messages are answered.
    pub(crate) fn answered(&self) -> u64 {
        self.seen(|progress| progress.answered).unwrap_or(0)
    }

    /// How many were sent and are not answered.
    pub(crate) fn unanswered(&self) -> u64 {
        self.seen(|progress| progress.unanswered).unwrap_or(0)
    }

    /// How many different messages arrived so far.
    pub(crate) fn arrived(&self) -> u64 {
        self.far_end.arrived()
    }

    /// Whether all its devices are gone, or never came.
    fn is_done(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until so many are answered.
    #[track_caller]
    pub(crate) fn wait_answered(&mut self, count: u64, deadline: Duration) {
        let what = format!("{count} messages are answered");
        wait_until(&what, deadline, || {
            self.answered() >= count || self.is_done()
        });
        if self.answered() < count {
            self.end();
            panic!(
                "the fleet ended with {} answers of {count}",
                self.answered()
            );
        }
    }

    /// Waits until so many more are answered.
    #[track_caller]
    pub(crate) fn wait_more_answered(&mut self, count: u64, deadline: Duration) {
        self.wait_answered(self.answered() + count, deadline);
    }

    /// From now on it makes nothing new; what is unanswered is still brought.
    pub(crate) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Waits until everything is made and answered, and the devices are gone; those without an end make
    /// nothing new.
    #[track_caller]
    pub(crate) fn wait_all_answered(&mut self, deadline: Duration) {
        if let Some(goal) = self.goal {
            self.wait_answered(goal, deadline);
        }
        self.stop();
        wait_until("everything is answered", deadline, || self.is_done());
        let unanswered = self.end().unanswered();
        assert_eq!(unanswered, 0, "some are never answered");
    }

    /// What it came to, when its devices are gone.
    #[track_caller]
    fn end(&mut self) -> &Ended {
        if let Some(thread) = self.thread.take() {
            let ended = thread.join().expect("the fleet broke");
            self.ended = Some(ended.unwrap_or_else(|error| panic!("{error}")));
        }
        self.ended.as_ref().unwrap()
    }

    #[track_caller]
    fn settle(mut self, quiet_max: Duration) -> Played {
        self.stop();
        self.end();
        let ended = self.ended.take().unwrap();
        ended.settle(Duration::MAX, quiet_max)
    }

    /// Its account of what arrived by now. Ends it, if it goes on.
    #[track_caller]
    pub(crate) fn finish(self) -> Played {
        self.settle(Duration::ZERO)
    }

    /// Waits until everything is answered and has arrived but for what was superseded on the way, and gives the
    /// account.
    #[track_caller]
    pub(crate) fn finish_superseded(mut self, deadline: Duration) -> Account {
        self.wait_all_answered(deadline);
        let account = self.settle(SUPERSEDED_QUIET_MAX).account;
        nothing_strange_arrived(&account);
        account
    }

    /// Waits until everything is answered and has arrived, and gives the account.
    #[track_caller]
    pub(crate) fn finish_at_home(mut self, deadline: Duration) -> Account {
        self.wait_all_answered(deadline);
        let account = self.settle(QUIET_MAX).account;
        nothing_strange_arrived(&account);
        everything_arrived(&account);
        account
    }

    /// The same where nothing may arrive behind a later one of its device.
    #[track_caller]
    pub(crate) fn finish_in_order(self, deadline: Duration) -> Account {
        let account = self.finish_at_home(deadline);
        let overtaken = total_far(&account, |far| far.out_of_order);
        assert_eq!(overtaken, 0, "out of order: {account}");
        account
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.stop();
        if self.thread.is_some() && self.is_done() && !thread::panicking() {
            self.end();
        }
    }
}

/// Waits until each of the fleets has messages without answer, and none of them got one for this long.
#[track_caller]
pub(crate) fn wait_held(fleets: &[&Fleet], quiet: Duration, deadline: Duration) {
    let answered = || fleets.iter().map(|fleet| fleet.answered()).sum::<u64>();
    let mut seen = (0, Instant::now());
    wait_until("nothing more is answered", deadline, || {
        let waits = |fleet: &&Fleet| fleet.unanswered() > 0 && !fleet.is_done();
        if answered() != seen.0 || !fleets.iter().all(waits) {
            seen = (answered(), Instant::now());
        }
        seen.1.elapsed() >= quiet
    });
}

/// Only what was sent arrived.
#[track_caller]
fn nothing_strange_arrived(account: &Account) {
    assert_eq!(account.strangers, Some(0), "{account}");
    for kind in Kind::ALL {
        let of = account.of(kind);
        let arrived = of.far_end.as_ref().unwrap().arrived;
        assert!(arrived <= of.sent, "{}: {account}", kind.name());
    }
}

/// Held against what the fleet's own ledgers say, message for message: none was refused, and none is missing.
#[track_caller]
fn everything_arrived(account: &Account) {
    assert!(account.total(|kind| kind.acknowledged) > 0, "nothing sent");
    for kind in Kind::ALL {
        let KindAccount {
            sent,
            refused,
            far_end,
            ..
        } = account.of(kind);
        let name = kind.name();
        assert_eq!(*refused, 0, "{name}: one was refused");
        let far_end = far_end.as_ref().unwrap();
        assert_eq!(
            far_end.missing, 0,
            "{name}: acknowledged and missing: {account}"
        );
        assert_eq!(far_end.arrived, *sent, "{name}: {account}");
    }
}

/// A figure of the far end, of all kinds together.
pub(crate) fn total_far(
    account: &Account,
    figure: impl Fn(&firmware_sim::account::FarEnd) -> u64,
) -> u64 {
    account.total(|kind| kind.far_end.as_ref().map_or(0, &figure))
}
