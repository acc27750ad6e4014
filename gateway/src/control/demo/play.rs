//! The conductor: starts cloud, gateway and fleet, gives the cues, asks the gateway how it is, and
//! adds up what came of it. In come a story and somebody who watches, out comes the account. A door.

#![allow(
    clippy::disallowed_methods,
    reason = "it conducts: an event loop, a pause between two looks, signals"
)]

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use firmware_sim::Tick as FleetTick;
use firmware_sim::account::{Account as FleetAccount, Run};
use firmware_sim::clock::Clock;
use firmware_sim::ledger::DeviceLedger;
use firmware_sim::limits::{self, TooFewFiles};
use firmware_sim::scenario::Scenario;
use firmware_sim::watch::arrivals::Arrivals;
use hyper::Method;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

use super::account::Account;
use super::child::{ChildError, Gateway};
use super::cloud::{Cloud, CloudError};
use super::figures::{Figures, GatewayFigures, Meter};
use super::fleet::{FIRST_BOOT, Fleet};
use super::folder::{Folder, Unusable};
use super::ports::{NoPorts, two_free};
use super::story::{Cue, DEVICES, Story};
use crate::control::admin::Report;
use crate::control::admin::client::{request, whole};

/// Between two looks at everything; cues are given in time.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A gateway that says nothing for so long is shown as it was.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// The largest answer: three classes take 3 KiB.
const REPORT_BYTES_MAX: usize = 1 << 20;
/// A start takes a tenth of a second, on a loaded machine more.
const READY_MAX: Duration = Duration::from_secs(20);
/// After the last act, for what is on its way to the cloud.
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// Why there is no account.
#[derive(Debug)]
pub enum PlayError {
    /// No folder.
    Folder(Unusable),
    /// No ports.
    Ports(NoPorts),
    /// Too few file descriptors.
    Files(TooFewFiles),
    /// No cloud.
    Cloud(CloudError),
    /// The cloud did not come back, for this reason.
    CloudGone(String),
    /// No gateway process.
    Child(ChildError),
    /// The gateway ended by itself, with these last words.
    Ended(String),
    /// The gateway does not come up, with these last words.
    Silent(String),
    /// The system gives no event loop, no signals or no thread.
    System(io::Error),
    /// It was ended before anything was sent.
    TooEarly,
    /// A part of the demo broke: a defect, whose panic is on the terminal.
    Broken,
}

impl fmt::Display for PlayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(error) => error.fmt(f),
            Self::Ports(error) => error.fmt(f),
            Self::Files(error) => error.fmt(f),
            Self::Cloud(error) => error.fmt(f),
            Self::CloudGone(why) => write!(f, "{why}; there is no account"),
            Self::Child(error) => error.fmt(f),
            Self::Ended(words) => write!(
                f,
                "the demo's gateway ended; mend what it says and start the demo again. Its last words:\n{words}"
            ),
            Self::Silent(words) => write!(
                f,
                "the demo's gateway did not come up in {READY_MAX:?}; is the machine very busy? Its last words:\n{words}"
            ),
            Self::System(error) => write!(
                f,
                "the system gives the demo no thread ({error}); raise `ulimit -u`"
            ),
            Self::TooEarly => f.write_str("ended before anything was sent: there is no account"),
            Self::Broken => f.write_str(
                "a part of the demo broke (the message above says where); please report it",
            ),
        }
    }
}

/// Plays the story; `show` is told how it goes, ten times a second.
///
/// # Errors
/// It cannot start, or its gateway ends by itself. Each says what to do.
pub fn play(story: Story, show: impl FnMut(&Figures)) -> Result<Account, PlayError> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(PlayError::System)?;
    runtime.block_on(async {
        let mut stop = std::pin::pin!(stop_signal().map_err(PlayError::System)?);
        let mut house = House::open(story, show)?;
        house.until_ready(stop.as_mut()).await?;
        house.play(stop).await
    })
}

/// The first signal that asks for the end. Without the last one a terminal that is closed would leave
/// a gateway behind.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// Everything that is conducted. The gateway is dropped before its folder.
struct House<S> {
    story: Story,
    show: S,
    cues: VecDeque<(Duration, Cue)>,
    gateway: Option<Gateway>,
    /// What begins after the kill.
    next: Option<Gateway>,
    report: Option<Box<Report>>,
    cloud: Cloud,
    gateway_at: SocketAddr,
    clock: Clock,
    sent: Meter,
    taken: Meter,
    folder: Folder,
}

impl<S: FnMut(&Figures)> House<S> {
    /// Folder, cloud and gateway.
    fn open(story: Story, show: S) -> Result<Self, PlayError> {
        limits::make_room_for(DEVICES).map_err(PlayError::Files)?;
        let folder = Folder::make().map_err(PlayError::Folder)?;
        let [gateway_at, cloud_at] = two_free(std::process::id()).map_err(PlayError::Ports)?;
        let written = folder.write_configuration(gateway_at, cloud_at);
        written.map_err(PlayError::Folder)?;
        let cloud = Cloud::start(cloud_at).map_err(PlayError::Cloud)?;
        let mut gateway = Gateway::ready(&folder).map_err(PlayError::Child)?;
        gateway.begin();
        Ok(Self {
            story,
            show,
            cues: story.cues().into(),
            gateway: Some(gateway),
            next: None,
            report: None,
            cloud,
            gateway_at,
            clock: Clock::start(),
            sent: Meter::default(),
            taken: Meter::default(),
            folder,
        })
    }

    /// Waits until the gateway answers and its uplink is up.
    async fn until_ready(
        &mut self,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), PlayError> {
        while self.since_start() < READY_MAX {
            self.look().await?;
            let report = self.report.as_ref();
            if report.is_some_and(|report| report.path.is_uplink_up()) {
                return Ok(());
            }
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = &mut stop => return Err(PlayError::TooEarly),
            }
        }
        Err(PlayError::Silent(self.folder.log_tail()))
    }

    async fn play(
        mut self,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<Account, PlayError> {
        let scenario = Scenario::read(&self.story.scenario()).map_err(|_| PlayError::Broken)?;
        self.clock = Clock::start();
        self.cloud.count(arrivals(&scenario), self.clock);
        let fleet = Fleet::start(scenario.clone(), self.clock, self.gateway_at);
        let fleet = fleet.map_err(PlayError::System)?;
        let mut stopped = None;
        while !fleet.is_done() {
            if stopped.is_none() {
                self.give_cues()?;
            }
            self.look().await?;
            self.tell(&fleet);
            tokio::select! {
                () = sleep(self.until_next_look()) => {}
                () = &mut stop, if stopped.is_none() => {
                    stopped = Some(self.since_start());
                    fleet.stop();
                }
            }
        }
        if stopped.is_none() {
            self.let_settle(&fleet, stop).await?;
        }
        let ended = stopped.unwrap_or(self.story.length());
        self.finish(fleet, &scenario, ended, stopped.is_some())
            .await
    }

    fn give_cues(&mut self) -> Result<(), PlayError> {
        let now = self.since_start();
        while let Some((_, cue)) = self.cues.pop_front_if(|(at, _)| *at <= now) {
            match cue {
                Cue::CloudOff => self.cloud.switch(false),
                Cue::CloudOn => self.cloud.switch(true),
                Cue::Kill => {
                    // It is there before the other ends: whatever happens to the demo, somebody clears away.
                    let next = Gateway::ready(&self.folder).map_err(PlayError::Child)?;
                    self.next = Some(next);
                    self.gateway = None;
                    self.report = None;
                }
                Cue::Start => {
                    self.gateway = self.next.take();
                    if let Some(gateway) = &mut self.gateway {
                        gateway.begin();
                    }
                }
            }
        }
        Ok(())
    }

    fn until_next_look(&self) -> Duration {
        let now = self.since_start();
        let cue = self
            .cues
            .front()
            .map_or(LOOK_EVERY, |(at, _)| at.saturating_sub(now));
        cue.min(LOOK_EVERY)
    }

    /// Asks the gateway how it is, if there is one. Without a cloud the story has no end.
    async fn look(&mut self) -> Result<(), PlayError> {
        if let Some(why) = self.cloud.figures().fault {
            return Err(PlayError::CloudGone(why));
        }
        let Some(gateway) = &mut self.gateway else {
            return Ok(());
        };
        if !gateway.runs() {
            return Err(PlayError::Ended(self.folder.log_tail()));
        }
        if let Some(report) = self.ask().await {
            self.report = Some(report);
        }
        Ok(())
    }

    async fn ask(&self) -> Option<Box<Report>> {
        let folder = self.folder.state_dir();
        let asked = async {
            let answer = request(&folder, Method::GET, "/status", Vec::new()).await;
            whole(answer.ok()?, REPORT_BYTES_MAX).await.ok()
        };
        let (_, body) = timeout(ANSWER_MAX, asked).await.ok()??;
        serde_json::from_slice(&body).ok()
    }

    fn tell(&mut self, fleet: &Fleet) {
        let now = self.since_start();
        let (fleet, cloud) = (fleet.figures(), self.cloud.figures());
        let figures = Figures {
            since_start: now,
            length: self.story.length(),
            act: self.story.act_at(now),
            is_ending: now > self.story.length(),
            fleet,
            sent_per_second: self.sent.note(now, fleet.sent),
            gateway: GatewayFigures {
                runs: self.gateway.is_some(),
                report: self.report.clone(),
            },
            taken_per_second: self.taken.note(now, cloud.taken),
            cloud,
        };
        (self.show)(&figures);
    }

    /// Waits until the gateway has nothing left.
    async fn let_settle(
        &mut self,
        fleet: &Fleet,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), PlayError> {
        let until = self.since_start() + SETTLE_MAX;
        while self.since_start() < until {
            self.report = None;
            self.look().await?;
            self.tell(fleet);
            if self.report.as_ref().is_some_and(|report| is_empty(report)) {
                return Ok(());
            }
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = &mut stop => return Ok(()),
            }
        }
        Ok(())
    }

    async fn finish(
        self,
        fleet: Fleet,
        scenario: &Scenario,
        ended: Duration,
        stopped: bool,
    ) -> Result<Account, PlayError> {
        let (ledgers, figures) = fleet.end().ok_or(PlayError::Broken)?;
        let last = match &self.gateway {
            Some(_) => self.ask().await,
            None => None,
        };
        // What the gateway had in flight at that moment may be in the cloud by now: it counts as arrived.
        drop(self.gateway);
        let arrivals = self.cloud.end().ok_or(PlayError::Broken)?;
        let run = run(&ledgers, ended, stopped);
        let names: Vec<_> = scenario.phases().map(|phase| phase.name).collect();
        let account = FleetAccount::new(run, &ledgers, Some(&arrivals), &names);
        Ok(Account::new(
            account,
            last.map(|report| report.path),
            figures.late_micros,
        ))
    }

    fn since_start(&self) -> Duration {
        self.clock.now().since(FleetTick::ZERO)
    }
}

fn is_empty(report: &Report) -> bool {
    let mut classes = report.path.classes.iter();
    classes.all(|class| class.in_memory + class.on_disk == 0)
}

fn arrivals(scenario: &Scenario) -> Arrivals {
    let mut end = FleetTick::ZERO;
    let ends = scenario.phases().map(|phase| {
        end = end.after(phase.length);
        end
    });
    Arrivals::new(0..DEVICES, FIRST_BOOT, ends.collect())
}

fn run(ledgers: &[DeviceLedger], ended: Duration, stopped: bool) -> Run {
    let kinds = ledgers.iter().map(|ledger| &ledger.counts);
    let sent: u64 = kinds
        .map(|of| of.alarm.sent + of.report.sent + of.reading.sent)
        .sum();
    let seconds = ended.as_secs_f64();
    Run {
        devices: DEVICES,
        protocol: "5",
        seed: 1,
        topics_per_channel: 1,
        seconds,
        stopped,
        sent_per_second: sent as f64 / seconds.max(0.001),
        connections_refused: 0,
        connections_broken: 0,
        memory_per_device_bytes: 0,
    }
}
