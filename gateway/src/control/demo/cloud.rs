//! The demo's cloud: the gateway's own MQTT front end in a thread of this process, with a rate and an
//! off switch. In come orders and messages, out go acknowledgements and counts, and at the end
//! everything that arrived. A door.

#![allow(
    clippy::disallowed_methods,
    reason = "a thread with a listening socket, so that a busy screen does not falsify what it measures"
)]

mod intake;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use firmware_sim::clock::Clock as FleetClock;
use firmware_sim::watch::arrivals::Arrivals;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::task;
use tokio::time::{sleep, timeout};

use super::figures::{ActFigures, CloudFigures};
use super::story::CLOUD_RATE;
use crate::clock::Clock;
use crate::traffic::accept::listener::{Listener, ListenerError};
use crate::traffic::accept::{ListenerSettings, SubscribePolicy};
use crate::traffic::classify::Rules;
use crate::traffic::lanes::{
    Batch, DoorEvent, Lane, Lanes, Phase, REST_LANE_BATCHES, REST_LANE_BYTES_MAX,
    URGENT_LANE_BATCHES,
};
use crate::traffic::message::{ClassId, Tick};
use intake::Intake;

/// Orders that may wait: one at a time is given.
const ORDERS_MAX: usize = 8;
/// How often counts are told, and the time of an idle look.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// How long connections may take to close when it is switched off.
const OFF_MAX: Duration = Duration::from_secs(1);
/// How long the port may be somebody else's when it is switched on again.
const ON_TRIES: u32 = 40;
const ON_PAUSE: Duration = Duration::from_millis(50);

/// Why there is no cloud.
#[derive(Debug)]
pub enum CloudError {
    /// Its port; the text says what to do.
    Listener(ListenerError),
    /// The system gives no thread or no event loop.
    System(io::Error),
}

impl fmt::Display for CloudError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listener(ListenerError::PortInUse(at)) => write!(
                f,
                "the demo's cloud cannot listen on {at}: somebody took the port meanwhile; start the demo again"
            ),
            Self::Listener(error) => write!(f, "the demo's cloud: {error}"),
            Self::System(error) => write!(
                f,
                "the system gives the demo's cloud no thread ({error}); raise `ulimit -u`"
            ),
        }
    }
}

/// The cloud's thread.
#[derive(Debug)]
pub struct Cloud {
    thread: JoinHandle<Option<Arrivals>>,
    orders: mpsc::Sender<Order>,
    figures: watch::Receiver<CloudFigures>,
}

/// What it is told to do.
#[derive(Debug)]
enum Order {
    /// Count what arrives from now on, by this clock.
    Count(Box<Arrivals>, FleetClock),
    On,
    Off,
    End,
}

impl Cloud {
    /// Starts it, switched on. When this comes back, it listens.
    ///
    /// # Errors
    /// Each says what to do.
    pub fn start(address: SocketAddr) -> Result<Self, CloudError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(CloudError::System)?;
        let open = {
            let _inside = runtime.enter();
            Open::at(address).map_err(CloudError::Listener)?
        };
        let (orders, ordered) = mpsc::channel(ORDERS_MAX);
        let (tell, figures) = watch::channel(CloudFigures {
            is_on: true,
            ..CloudFigures::default()
        });
        let life = Life {
            address,
            open: Some(open),
            count: None,
            taken: 0,
            fault: None,
            tell,
        };
        let thread = thread::Builder::new().name("demo-cloud".to_owned());
        let thread = thread.spawn(move || runtime.block_on(life.live(ordered)));
        Ok(Self {
            thread: thread.map_err(CloudError::System)?,
            orders,
            figures,
        })
    }

    /// From now on what arrives is counted, by the fleet's clock.
    pub fn count(&self, arrivals: Arrivals, clock: FleetClock) {
        self.order(Order::Count(Box::new(arrivals), clock));
    }

    /// Switches it on or off: connections end, and nobody listens.
    pub fn switch(&self, on: bool) {
        self.order(if on { Order::On } else { Order::Off });
    }

    /// How it is.
    #[must_use]
    pub fn figures(&self) -> CloudFigures {
        self.figures.borrow().clone()
    }

    /// Ends it and gives what arrived; `None` when nothing was counted.
    #[must_use]
    pub fn end(self) -> Option<Arrivals> {
        self.order(Order::End);
        self.thread.join().ok().flatten()
    }

    /// A cloud that takes no order has ended, which its figures show.
    fn order(&self, order: Order) {
        let _ = self.orders.try_send(order);
    }
}

/// What the thread has.
struct Life {
    address: SocketAddr,
    open: Option<Open>,
    count: Option<(Box<Arrivals>, FleetClock)>,
    taken: u64,
    fault: Option<String>,
    tell: watch::Sender<CloudFigures>,
}

impl Life {
    async fn live(mut self, mut ordered: mpsc::Receiver<Order>) -> Option<Arrivals> {
        loop {
            let order = match &mut self.open {
                Some(open) => tokio::select! {
                    biased;
                    order = ordered.recv() => order,
                    () = open.hear() => {
                        self.take();
                        continue;
                    }
                },
                None => ordered.recv().await,
            };
            match order {
                Some(Order::Count(arrivals, clock)) => self.count = Some((arrivals, clock)),
                Some(Order::Off) => self.off().await,
                Some(Order::On) => self.on().await,
                Some(Order::End) | None => break,
            }
            self.tell();
        }
        self.off().await;
        self.count.map(|(arrivals, _)| *arrivals)
    }

    fn take(&mut self) {
        let Some(open) = &mut self.open else { return };
        while let Some(message) = open.intake.take(open.clock.now()) {
            self.taken += 1;
            if let Some((arrivals, clock)) = &mut self.count {
                let body = &message.body;
                arrivals.arrived(body.topic_bytes(), body.payload(), clock.now());
            }
        }
        if open.clock.now() >= open.tell_at {
            open.tell_at = open.clock.now().after(TELL_EVERY);
            self.tell();
        }
    }

    async fn off(&mut self) {
        if let Some(open) = self.open.take() {
            open.close().await;
        }
    }

    async fn on(&mut self) {
        let mut tries = 0;
        while self.open.is_none() {
            match Open::at(self.address) {
                Ok(open) => self.open = Some(open),
                Err(_) if tries < ON_TRIES => {
                    tries += 1;
                    sleep(ON_PAUSE).await;
                }
                Err(error) => {
                    self.fault = Some(CloudError::Listener(error).to_string());
                    return;
                }
            }
        }
    }

    fn tell(&self) {
        let acts = self.count.as_ref().map(|(arrivals, _)| {
            let acts = arrivals.phases.iter().map(|latency| ActFigures {
                alarms: latency.len(),
                worst_micros: latency.max(),
            });
            acts.collect()
        });
        self.tell.send_replace(CloudFigures {
            is_on: self.open.is_some(),
            fault: self.fault.clone(),
            taken: self.taken,
            acts: acts.unwrap_or_default(),
        });
    }
}

/// The cloud while it is switched on.
struct Open {
    phase: watch::Sender<Phase>,
    serving: task::JoinHandle<()>,
    urgent: mpsc::Receiver<Batch>,
    rest: mpsc::Receiver<Batch>,
    doors: mpsc::Receiver<DoorEvent>,
    intake: Intake,
    clock: Clock,
    tell_at: Tick,
}

impl Open {
    fn at(address: SocketAddr) -> Result<Self, ListenerError> {
        let listener = Listener::bind(&settings(address))?;
        let (urgent_lane, urgent) = Lane::new(URGENT_LANE_BATCHES, REST_LANE_BYTES_MAX);
        let (rest_lane, rest) = Lane::new(REST_LANE_BATCHES, REST_LANE_BYTES_MAX);
        let (doors_in, doors) = mpsc::channel(ORDERS_MAX);
        let lanes = Lanes {
            urgent: urgent_lane,
            rest: rest_lane,
            doors: doors_in,
        };
        let clock = Clock::start();
        let (phase, phases) = watch::channel(Phase::Run);
        // Without rules there is nothing that could be wrong with them.
        let rules = Rules::compile(&[], &[], ClassId(1), 0)
            .map_err(|_| ListenerError::Other(address, io::ErrorKind::InvalidInput.into()))?;
        let serving = task::spawn(listener.serve(Arc::new(rules), lanes, clock, phases));
        Ok(Self {
            phase,
            serving,
            urgent,
            rest,
            doors,
            intake: Intake::new(CLOUD_RATE, clock.now()),
            clock,
            tell_at: Tick::ZERO,
        })
    }

    /// Waits for something to do: a connection, a batch, or time for the next message.
    async fn hear(&mut self) {
        let look_in = match self.intake.opens_at() {
            Some(at) => at.since(self.clock.now()).min(TELL_EVERY),
            None => TELL_EVERY,
        };
        tokio::select! {
            biased;
            Some(event) = self.doors.recv() => self.intake.note(event),
            Some(batch) = self.urgent.recv() => self.intake.put(batch),
            Some(batch) = self.rest.recv() => self.intake.put(batch),
            () = sleep(look_in) => {}
        }
    }

    async fn close(self) {
        let Self { phase, serving, .. } = self;
        phase.send_replace(Phase::Stop);
        let stop = serving.abort_handle();
        if timeout(OFF_MAX, serving).await.is_err() {
            stop.abort();
        }
    }
}

/// As a cloud has it: 100 messages in flight for each connection.
fn settings(bind: SocketAddr) -> ListenerSettings {
    ListenerSettings {
        bind,
        subscribe: SubscribePolicy::Refuse,
        connections_max: 16,
        sessions_max: 16,
        session_expiry_max: Duration::ZERO,
        packet_bytes_max: 128 * 1024,
        receive_max: 100,
        connection_bytes_max: 1024 * 1024,
        topic_alias_max: 0,
        keep_alive_max: Duration::from_secs(1_200),
        hold_max: Duration::from_secs(30),
        topic_bytes_max: 256,
        topic_levels_max: 8,
        client_rate_max: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::demo::ports::two_free;
    use std::net::TcpListener;
    use std::time::Instant;

    #[test]
    fn is_a_port_that_was_taken_meanwhile_told() {
        let [at, _] = two_free(7_001).unwrap();
        let cloud = Cloud::start(at).unwrap();
        let wait = |what: &str, is_so: fn(&CloudFigures) -> bool| {
            let deadline = Instant::now() + Duration::from_secs(20);
            while !is_so(&cloud.figures()) {
                assert!(Instant::now() < deadline, "never {what}");
                thread::sleep(Duration::from_millis(10));
            }
        };
        cloud.switch(false);
        wait("off", |figures| !figures.is_on);
        cloud.switch(true);
        wait("on again", |figures| figures.is_on);
        assert_eq!(cloud.figures().fault, None);
        cloud.switch(false);
        wait("off", |figures| !figures.is_on);
        let _taken = TcpListener::bind(at).unwrap();
        cloud.switch(true);
        wait("told", |figures| figures.fault.is_some());
        let fault = cloud.figures().fault.unwrap();
        assert!(fault.contains(&at.to_string()), "{fault}");
    }
}
