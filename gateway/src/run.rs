//! The wiring, on one page: relay, doors in, doors out; then wait, drain, stop.

#![allow(
    clippy::disallowed_methods,
    reason = "the wiring starts every task and gives doors a time to close"
)]

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::control::admin::http::{Admin, AdminError};
use crate::control::admin::question::Question;
use crate::control::admin::{routes, supervisor};
use crate::control::config::Config;
use crate::control::logging::ACCOUNT;
use crate::control::shutdown::Shutdown;
use crate::control::spool::routes::{self as spool_routes, Desk};
use crate::traffic::accept::listener::{Listener, ListenerError};
use crate::traffic::accept::source;
use crate::traffic::drive::{Disk, Drive};
use crate::traffic::lanes::Phase;
use crate::traffic::relay::{Relay, RelaySettings};
use crate::traffic::send::upstream;
use crate::traffic::settle::kept;
use crate::traffic::spool::request;
use crate::traffic::spool::writer::{self, SpoolError};
use crate::traffic::status;

/// How long doors may take to close their connections after the drain.
const STOP_MAX: Duration = Duration::from_secs(3);

/// Why the gateway could not go on.
#[derive(Debug)]
pub enum RunError {
    /// There is no listener; the text says what to do.
    Listener(ListenerError),
    /// There is no spool; the text says what to do.
    Spool(SpoolError),
    /// There is no admin interface; the text says what to do.
    Admin(AdminError),
    /// The system gives no random numbers, which message ids need.
    Random(getrandom::Error),
    /// A part of the gateway ended that never should: a fault of the program. The log has the
    /// panic; whoever supervises the process starts it again.
    Broken,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listener(error) => error.fmt(f),
            Self::Admin(error) => error.fmt(f),
            Self::Spool(error) => error.fmt(f),
            Self::Broken => write!(
                f,
                "a part of the gateway broke (the message above says where); please report it"
            ),
            Self::Random(error) => write!(
                f,
                "the system gives no random numbers, which message ids need: {error}"
            ),
        }
    }
}

/// Runs the gateway until it is asked to end; then nothing new is accepted, what waits is sent for
/// at most `drain_max`, and what is left goes back to its senders.
///
/// # Errors
/// It cannot start.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), RunError> {
    let clock = Clock::start();
    let listener = match &config.listener {
        Some(settings) => Some(Listener::bind(settings).map_err(RunError::Listener)?),
        None => None,
    };
    let admin = Admin::bind(config.admin.bind, &config.gateway.state_dir);
    let admin = admin.map_err(RunError::Admin)?;
    let policy = config.spool.policy.clone();
    let classes = config.spool.classes.iter();
    let class_names = classes.map(|class| Arc::clone(&class.name)).collect();
    let writer = writer::start(config.spool, clock).map_err(RunError::Spool)?;
    let (requests, requested) = request::channel();
    let desk_writer = writer.commands.downgrade();
    let disk = Disk {
        commands: writer.commands,
        reports: writer.reports,
        requested,
    };
    let (ask, asked) = status::channel();
    let mut relay = Relay::new(&RelaySettings {
        gateway: config.gateway.id.clone(),
        epoch: getrandom::u64().map_err(RunError::Random)?,
        memory_bytes_max: config.gateway.memory_bytes_max,
        memory_pressure: config.gateway.memory_pressure,
        classes: config.classes,
        uplink: config.uplink.clone(),
        spool: policy,
        next_segment: writer.next_segment,
    });
    if let Some(content) = writer.ledger {
        restore(&mut relay, &content);
    }
    let (mut drive, ends) = Drive::new(relay, disk, asked, clock);
    let (phase, watch_phase) = watch::channel(Phase::Run);
    let rules = config.compiled;
    let question = Arc::new(Question::new(ask, clock, watch_phase.clone()));
    let reading = routes::reading(config.gateway.id.clone(), Arc::clone(&question));
    let changing = spool_routes::changing(Desk {
        gateway: config.gateway.id.clone(),
        classes: class_names,
        writer: desk_writer,
        requests,
        path: Arc::clone(&question),
    });
    let [urgent, bulk] = ends.commands;

    let mut doors = Doors::default();
    let uplink = Arc::new(config.uplink);
    let urgent = (uplink.connections > 1).then_some(urgent);
    doors.open(upstream::run_pair(uplink, urgent, bulk, ends.events, clock));
    for settings in config.sources {
        let (rules, lanes) = (Arc::clone(&rules), ends.lanes.clone());
        let phase = watch_phase.clone();
        doors.open(source::run(Arc::new(settings), rules, lanes, clock, phase));
    }
    if let Some(listener) = listener {
        tracing::info!(target: ACCOUNT, "listening on {}", listener.local_addr());
        let (lanes, phase) = (ends.lanes.clone(), watch_phase.clone());
        doors.open(listener.serve(rules, lanes, clock, phase));
    }
    if let Some(address) = admin.local_addr() {
        tracing::info!(target: ACCOUNT, "telling how it is at http://{address}");
    }
    doors.open(admin.serve(reading, changing, watch_phase.clone()));
    doors.open(supervisor::run(question, watch_phase.clone()));
    // The relay's end waits until nobody has lanes.
    drop(ends.lanes);
    let mut relay = Doors::default();
    let drain_max = config.gateway.drain_max;
    let (drained, is_drained) = oneshot::channel();
    relay.open(async move {
        drive.run(watch_phase, drain_max).await;
        let _ = drained.send(());
        tell_unsent(drive.end().await);
    });

    tokio::select! {
        () = shutdown.first() => {}
        () = relay.failed() => return Err(RunError::Broken),
        () = doors.failed() => return Err(RunError::Broken),
    }
    tracing::info!(target: ACCOUNT, "Stopping: nothing new is accepted; sending what waits, for at most {drain_max:?}");
    phase.send_replace(Phase::Drain);
    // An error means that the relay broke, which its end below tells.
    let _ = is_drained.await;
    phase.send_replace(Phase::Stop);
    if timeout(STOP_MAX, doors.closed()).await.is_err() {
        tracing::info!(target: ACCOUNT, "Some connections did not close in {STOP_MAX:?}; they are dropped");
        doors.0.shutdown().await;
    }
    // With the doors closed nothing more can come: its ledger is the last word.
    if !relay.closed().await {
        return Err(RunError::Broken);
    }
    if timeout(STOP_MAX, writer.ended).await.is_err() {
        tracing::error!(target: ACCOUNT, "The disk does not answer: what was to be written last may not be there at the next start");
    }
    tracing::info!(target: ACCOUNT, "Stopped");
    Ok(())
}

/// Goes on with the ledger that an earlier start kept.
fn restore(relay: &mut Relay, content: &[u8]) {
    match kept::read(content) {
        Some(accounts) => relay.restore(&accounts),
        None => tracing::warn!(
            target: ACCOUNT,
            "The ledger of earlier starts cannot be read; the accounts begin anew"
        ),
    }
}

fn tell_unsent(lost: u64) {
    if lost > 0 {
        tracing::error!(
            target: ACCOUNT,
            "{lost} messages that had been acknowledged to their senders could not be sent before the end; they are counted as shed"
        );
    }
}

/// Tasks that end with the gateway.
#[derive(Default)]
struct Doors(JoinSet<()>);

impl Doors {
    fn open(&mut self, door: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(door);
    }

    /// Waits for one that breaks; those that end are well.
    async fn failed(&mut self) {
        while let Some(ended) = self.0.join_next().await {
            if ended.is_err() {
                return;
            }
        }
        std::future::pending().await
    }

    /// Waits for all; whether they ended well.
    async fn closed(&mut self) -> bool {
        let mut well = true;
        while let Some(ended) = self.0.join_next().await {
            well &= ended.is_ok();
        }
        well
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the run waits for ends when a part of it breaks, and not when one has ended well.
    #[tokio::test]
    async fn does_a_part_that_breaks_end_the_run_and_one_that_ends_not() {
        let mut doors = Doors::default();
        doors.open(async {});
        doors.open(std::future::pending());
        let waited = timeout(Duration::from_millis(100), doors.failed()).await;
        assert!(waited.is_err(), "one ended well");
        doors.open(async { panic!("a defect") });
        let waited = timeout(Duration::from_secs(10), doors.failed()).await;
        assert!(waited.is_ok(), "one broke");
    }

    #[tokio::test]
    async fn is_a_part_that_breaks_at_the_end_told() {
        let mut doors = Doors::default();
        doors.open(async {});
        assert!(doors.closed().await);
        doors.open(async { panic!("a defect") });
        doors.open(async {});
        assert!(!doors.closed().await);
    }
}
