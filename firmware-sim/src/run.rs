//! One run, from the first look at the gateway to the account: the wiring, on one page. A door.
#![allow(
    clippy::disallowed_methods,
    reason = "wires the run: runtime, clock, timers"
)]

mod ended;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tidegate_device::Tick;
use tokio::task::LocalSet;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::account::{Account, Run};
use crate::address::Address;
use crate::clock::Clock;
use crate::fleet;
use crate::fleet::stage::{DrainMax, Stage, Tally};
use crate::ledger::DeviceLedger;
use crate::limits::{self, TooFewFiles};
use crate::probe::{NoGateway, probe};
use crate::progress::Progress;
use crate::scenario::Scenario;
use crate::watch::arrivals::{Arrivals, STARTS_MAX};
use crate::watch::{FarEnd, Watch, WatchError, WatchOrder};
use crate::wire::Protocol;
use ended::sent;

pub use ended::{Ended, OwnFarEnd, Played};

/// When nothing new arrived for so long, what is missing is missing.
pub const QUIET_MAX: Duration = Duration::from_secs(3);
/// After a stop somebody sits and waits for the account: what has not arrived by then has not arrived.
const STOPPED_SETTLE_MAX: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What to run.
#[derive(Clone, Debug)]
pub struct Order {
    /// How many devices.
    pub devices: u32,
    /// The number of the first one: fleets that play beside each other must not share any, for it makes
    /// the client id.
    pub first_device: u32,
    /// What they go through.
    pub scenario: Scenario,
    /// What they speak.
    pub protocol: Protocol,
    /// The gateway.
    pub connect: Address,
    /// The far end, when what arrives is to be counted.
    pub watch: Option<Address>,
    /// Of all chance.
    pub seed: u64,
    /// From one word on how it goes to the next, a millisecond at least.
    pub progress_every: Duration,
    /// Where the far end is watched: after how long without an arrival nothing more is expected.
    pub quiet_max: Duration,
}

impl Order {
    /// The scenario, played by devices numbered from 0 that speak MQTT 5; nobody watches the far end, and how it
    /// goes is told each second.
    #[must_use]
    pub const fn new(connect: Address, devices: u32, scenario: Scenario) -> Self {
        Self {
            devices,
            first_device: 0,
            scenario,
            protocol: Protocol::V5,
            connect,
            watch: None,
            seed: 1,
            progress_every: Duration::from_secs(1),
            quiet_max: QUIET_MAX,
        }
    }
}

/// A run that did not start. All are the operator's to mend; nothing was sent.
#[derive(Debug)]
pub enum StartError {
    /// Too many devices for this system.
    Files(TooFewFiles),
    /// A name that nobody knows.
    Name(Address, io::Error),
    /// No gateway, or none for this fleet.
    Gateway(Address, NoGateway),
    /// The far end cannot be watched.
    Watch(Address, WatchError),
    /// The system gives no event loop or no timer.
    Runtime(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files(error) => write!(f, "{error}"),
            Self::Name(address, error) => {
                write!(
                    f,
                    "{address}: the name cannot be resolved ({error}); use an address"
                )
            }
            Self::Gateway(address, what) => write!(f, "no gateway at {address}: {what}"),
            Self::Watch(address, error) => write!(
                f,
                "the far end cannot be watched at {address}: {error}; start it, or leave --watch out"
            ),
            Self::Runtime(error) => {
                write!(f, "the system gives no event loop or no timer: {error}")
            }
        }
    }
}

/// Plays the order's scenario and waits for what is on its way to the far end, if it is watched. `stop` ends it
/// early; `progress` is told how it goes.
///
/// # Errors
/// When it cannot start.
pub fn play(
    order: &Order,
    stop: impl Future<Output = ()>,
    progress: impl FnMut(&Progress),
) -> Result<Account, StartError> {
    let watcher = |stage: &Stage, clock| {
        let watch = watch(order, stage, clock)?;
        Ok(watch.map_or(Watcher::Nobody, Watcher::Client))
    };
    let (running, ledgers) = play_watched(order, DrainMax::default(), watcher, stop, progress)?;
    let (run, phases) = (running.run(), running.phases());
    let arrivals = match running.watcher {
        Watcher::Client(watch) => watch.finish(),
        _ => None,
    };
    Ok(Account::new(run, &ledgers, arrivals.as_ref(), &phases))
}

/// The same with a far end of the caller's own that is told what arrives there, and who waits for it when the
/// devices are done; the order's `watch` is not used.
///
/// # Errors
/// When it cannot start.
pub fn play_to(
    order: &Order,
    own: &OwnFarEnd,
    stop: impl Future<Output = ()>,
    progress: impl FnMut(&Progress),
) -> Result<Ended, StartError> {
    let watcher = |stage: &Stage, clock| {
        own.far_end.begin(clock, no_arrivals(order, stage));
        Ok(Watcher::Owner(own.far_end.clone()))
    };
    let drain_max = DrainMax {
        ended: own.drain_max,
        stopped: own.drain_max,
    };
    let (running, ledgers) = play_watched(order, drain_max, watcher, stop, progress)?;
    Ok(Ended {
        run: running.run(),
        ledgers,
        phases: running.phases(),
        pace: running.stage.tally.pace.borrow().clone(),
        far_end: own.far_end.clone(),
    })
}

/// Until all devices are done, and a far end that the run itself watches has what was sent.
fn play_watched<'o>(
    order: &'o Order,
    drain_max: DrainMax,
    watcher: impl FnOnce(&Stage, Clock) -> Result<Watcher, StartError>,
    stop: impl Future<Output = ()>,
    mut progress: impl FnMut(&Progress),
) -> Result<(Running<'o>, Vec<DeviceLedger>), StartError> {
    limits::make_room_for(order.devices).map_err(StartError::Files)?;
    let address = resolve(&order.connect)?;
    let client_id = format!("sim-probe-{}", order.first_device);
    probe(address, order.protocol, &client_id)
        .map_err(|what| StartError::Gateway(order.connect.clone(), what))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::Runtime)?;
    let clock = Clock::start();
    let stage = Rc::new(stage(order, drain_max, clock));
    let watcher = watcher(&stage, clock)?;
    let running = Running {
        order,
        clock,
        watcher,
        memory_before: limits::memory_bytes(),
        memory_max: Cell::new(0),
        stage,
    };
    let fleet = async {
        // The ramp begins when the clock does, not when the watcher was ready.
        fleet::play(&running.stage, clock, address, order.devices).await
    };
    let ledgers = LocalSet::new().block_on(&runtime, async {
        let mut stop = std::pin::pin!(stop);
        let ledgers = running
            .until_done(fleet, stop.as_mut(), &mut progress)
            .await?;
        if let Watcher::Client(watch) = &running.watcher {
            let arrived = || watch.arrived();
            running
                .let_settle(sent(&ledgers), arrived, stop, &mut progress)
                .await;
        }
        Ok(ledgers)
    });
    let ledgers = ledgers.map_err(StartError::Runtime)?;
    Ok((running, ledgers))
}

fn stage(order: &Order, drain_max: DrainMax, clock: Clock) -> Stage {
    let wall = clock.start_wall_millis();
    Stage {
        scenario: order.scenario.clone(),
        protocol: order.protocol,
        seed: order.seed,
        first_device: order.first_device,
        drain_max,
        first_boot: first_boot(wall),
        wall_millis: wall,
        stopped: Cell::new(None),
        tally: Tally::default(),
    }
}

/// Starts of runs that are a millisecond or more apart, and less than a quarter of an hour, have
/// different numbers.
const fn first_boot(wall_millis: i64) -> u32 {
    (wall_millis as u32 % (u32::MAX / STARTS_MAX)) * STARTS_MAX
}

fn watch(order: &Order, stage: &Stage, clock: Clock) -> Result<Option<Watch>, StartError> {
    let Some(address) = &order.watch else {
        return Ok(None);
    };
    let watch_order = WatchOrder {
        address: resolve(address)?,
        protocol: order.protocol,
        client_id: format!("sim-watch-{:08x}-{}", stage.first_boot, order.first_device),
        clock,
    };
    Watch::start(watch_order, no_arrivals(order, stage))
        .map(Some)
        .map_err(|error| StartError::Watch(address.clone(), error))
}

fn no_arrivals(order: &Order, stage: &Stage) -> Arrivals {
    let mut end = Tick::ZERO;
    let ends = stage.scenario.phases().map(|phase| {
        end = end.after(phase.length);
        end
    });
    let devices = order.first_device..order.first_device.saturating_add(order.devices);
    Arrivals::new(devices, stage.first_boot, ends.collect())
}

fn resolve(address: &Address) -> Result<std::net::SocketAddr, StartError> {
    address
        .resolve()
        .map_err(|error| StartError::Name(address.clone(), error))
}

/// Who looks at the far end.
enum Watcher {
    Nobody,
    Client(Watch),
    Owner(FarEnd),
}

impl Watcher {
    fn arrived(&self) -> Option<u64> {
        match self {
            Self::Nobody => None,
            Self::Client(watch) => Some(watch.arrived()),
            Self::Owner(far_end) => Some(far_end.arrived()),
        }
    }
}

/// A run that goes on.
struct Running<'o> {
    order: &'o Order,
    clock: Clock,
    watcher: Watcher,
    memory_before: u64,
    memory_max: Cell<u64>,
    stage: Rc<Stage>,
}

impl Running<'_> {
    async fn until_done(
        &self,
        fleet: impl Future<Output = io::Result<Vec<DeviceLedger>>>,
        mut stop: Pin<&mut impl Future<Output = ()>>,
        progress: &mut impl FnMut(&Progress),
    ) -> io::Result<Vec<DeviceLedger>> {
        let mut fleet = std::pin::pin!(fleet);
        let mut tells = self.tells();
        loop {
            tokio::select! {
                ledgers = &mut fleet => return ledgers,
                () = &mut stop, if self.stage.stopped.get().is_none() => {
                    self.stage.stopped.set(Some(self.clock.now()));
                }
                _ = tells.tick() => {
                    self.memory_max.set(self.memory_max.get().max(limits::memory_bytes()));
                    progress(&self.progress(false));
                }
            }
        }
    }

    fn progress(&self, delivered: bool) -> Progress {
        let now = self.clock.now();
        let tally = &self.stage.tally;
        let (_, phase, _) = self.stage.scenario.at(now);
        Progress {
            since_start: now.since(Tick::ZERO),
            phase: if delivered {
                "waiting for arrivals"
            } else if now >= self.stage.end() {
                "waiting for answers"
            } else {
                phase.name
            },
            devices: self.order.devices,
            up: tally.up.get(),
            sent: tally.sent.get(),
            resent: tally.resent.get(),
            answered: tally.answered.get(),
            unanswered: tally.asked.get().saturating_sub(tally.answered.get()),
            arrived: self.watcher.arrived(),
        }
    }

    /// Waits for what is on its way to the far end.
    async fn let_settle(
        &self,
        sent: u64,
        arrived: impl Fn() -> u64,
        mut stop: Pin<&mut impl Future<Output = ()>>,
        progress: &mut impl FnMut(&Progress),
    ) {
        let settle_max = match self.stage.stopped.get() {
            Some(_) => STOPPED_SETTLE_MAX,
            None => Duration::MAX,
        };
        let begun = self.clock.now();
        let mut seen = (arrived(), begun);
        let (mut looks, mut tells) = (interval(LOOK_EVERY), self.tells());
        while seen.0 < sent
            && self.clock.now().since(seen.1) < self.order.quiet_max
            && self.clock.now().since(begun) < settle_max
        {
            tokio::select! {
                _ = looks.tick() => {}
                _ = tells.tick() => progress(&self.progress(true)),
                // After a stop it is done already, and must not be asked again.
                () = &mut stop, if self.stage.stopped.get().is_none() => return,
            }
            if arrived() > seen.0 {
                seen = (arrived(), self.clock.now());
            }
        }
    }

    /// When to tell how it goes.
    fn tells(&self) -> Interval {
        let every = self.order.progress_every.max(Duration::from_millis(1));
        let mut tells = interval(every);
        tells.set_missed_tick_behavior(MissedTickBehavior::Skip);
        tells
    }

    fn run(&self) -> Run {
        let end = self.stage.end();
        let seconds = end.since(Tick::ZERO).as_secs_f64();
        let tally = &self.stage.tally;
        let memory = self.memory_max.get().saturating_sub(self.memory_before);
        Run {
            devices: self.order.devices,
            protocol: self.order.protocol.name(),
            seed: self.order.seed,
            topics_per_channel: self.order.scenario.fleet.topics_per_channel,
            seconds,
            stopped: self.stage.stopped.get().is_some(),
            sent_per_second: tally.sent.get() as f64 / seconds.max(0.001),
            connections_refused: tally.refused.get(),
            connections_broken: tally.broken.get(),
            memory_per_device_bytes: memory / u64::from(self.order.devices.max(1)),
        }
    }

    fn phases(&self) -> Vec<&'static str> {
        let phases = self.stage.scenario.phases();
        phases.map(|phase| phase.name).collect()
    }
}
