//! The door that owns the relay: takes batches, events and timers from channels, calls the relay, and
//! passes on what it says. It never waits for another door: a sender whose channel is full is closed,
//! and what an upstream door cannot take yet stays in the relay.

#![allow(
    clippy::disallowed_methods,
    reason = "the relay's door: it sleeps until the relay's next deadline"
)]

mod rest;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;

use super::lanes::{
    Batch, DoorEvent, Lane, Lanes, Notice, Phase, REST_LANE_BATCHES, REST_LANE_BYTES_MAX,
    URGENT_LANE_BATCHES, URGENT_LANE_BYTES_MAX,
};
use super::message::{DoorId, Tick};
use super::relay::{BRAKE_MAX, Relay};
use super::send::{Link, LinkCommand, LinkEvent};
use super::spool::request::{Requested, SpoolRequest};
use super::spool::{SpoolCommand, SpoolReport};
use super::status::Asked;
use crate::clock::Clock;
use rest::Rest;

/// Events of one kind that are taken between two turns: large enough that a turn's work is shared by
/// many messages, small enough that the other kinds are soon looked at again.
const EVENTS_PER_TURN: usize = 64;
/// Batches of the rest between two turns: 1 MiB at most, so that an alarm waits a few milliseconds.
const REST_PER_TURN: usize = 16;
/// Connections that may come and go unseen.
const DOOR_EVENTS: usize = 256;
/// Events of both upstream connections that may wait.
const LINK_EVENTS: usize = 256;
/// Commands that an upstream door may have waiting.
const LINK_COMMANDS: usize = 16;
/// How often the ledger goes to the log.
const LEDGER_EVERY: Duration = Duration::from_secs(3600);
/// How often the upstream doors are told to hurry, while an alarm waits.
const HURRY_EVERY: Duration = Duration::from_secs(1);

/// How long the writer may take at the end to write what waits: a slow card's few syncs.
const WRITE_MAX: Duration = Duration::from_secs(5);

/// The channels to and from the spool's writer.
#[derive(Debug)]
pub struct Disk {
    /// What it must do.
    pub commands: mpsc::Sender<SpoolCommand>,
    /// What came of it.
    pub reports: mpsc::Receiver<SpoolReport>,
    /// What the operator wants of it.
    pub requested: Requested,
}

/// The ends of the channels that the doors hold.
#[derive(Debug)]
pub struct Ends {
    /// For the doors in.
    pub lanes: Lanes,
    /// For the upstream doors.
    pub events: mpsc::Sender<LinkEvent>,
    /// Commands for the urgent and the bulk connection.
    pub commands: [mpsc::Receiver<LinkCommand>; 2],
}

/// The relay's task, before it runs.
#[derive(Debug)]
pub struct Drive {
    relay: Relay,
    clock: Clock,
    urgent: mpsc::Receiver<Batch>,
    rest: Rest,
    doors: mpsc::Receiver<DoorEvent>,
    events: mpsc::Receiver<LinkEvent>,
    commands: [mpsc::Sender<LinkCommand>; 2],
    disk: Disk,
    asked: Asked,
    notices: Vec<Option<(DoorId, mpsc::Sender<Vec<Notice>>)>>,
    hurried: Tick,
    ledger_told: Tick,
    /// Acknowledged messages that could not be sent before the end.
    lost: u64,
}

impl Drive {
    /// The task and the ends of its channels.
    #[must_use]
    pub fn new(relay: Relay, disk: Disk, asked: Asked, clock: Clock) -> (Self, Ends) {
        let (urgent_in, urgent) = Lane::new(URGENT_LANE_BATCHES, URGENT_LANE_BYTES_MAX);
        let (rest_in, rest) = Lane::new(REST_LANE_BATCHES, REST_LANE_BYTES_MAX);
        let (doors_in, doors) = mpsc::channel(DOOR_EVENTS);
        let (events_in, events) = mpsc::channel(LINK_EVENTS);
        let (urgent_link, urgent_commands) = mpsc::channel(LINK_COMMANDS);
        let (bulk_link, bulk_commands) = mpsc::channel(LINK_COMMANDS);
        let drive = Self {
            relay,
            clock,
            urgent,
            rest: Rest::new(rest),
            doors,
            events,
            commands: [urgent_link, bulk_link],
            disk,
            asked,
            notices: Vec::new(),
            hurried: Tick::ZERO,
            ledger_told: clock.now(),
            lost: 0,
        };
        let lanes = Lanes {
            urgent: urgent_in,
            rest: rest_in,
            doors: doors_in,
        };
        let ends = Ends {
            lanes,
            events: events_in,
            commands: [urgent_commands, bulk_commands],
        };
        (drive, ends)
    }

    /// Runs until the phase is [`Phase::Drain`] and everything is sent or `drain_max` is over. Then
    /// nothing is sent any more; [`Drive::end`] is to follow.
    pub async fn run(&mut self, mut phase: watch::Receiver<Phase>, drain_max: Duration) {
        let timer = sleep_until(self.clock.instant(Tick::ZERO).into());
        tokio::pin!(timer);
        let (mut events, mut urgent, mut reports) = (Vec::new(), Vec::new(), Vec::new());
        let (mut drained_at, mut stop_at) = (Tick::NEVER, Tick::NEVER);
        loop {
            let now = self.clock.now();
            for event in events.drain(..) {
                self.relay.link_event(event, now);
            }
            for report in reports.drain(..) {
                self.relay.spool_report(report, now);
            }
            for batch in urgent.drain(..) {
                self.relay.arrive(batch, now);
            }
            let more = self.take_rest(now);
            self.relay.turn(now, self.clock.wall());
            self.flush(now);
            if drained_at == Tick::NEVER && *phase.borrow_and_update() >= Phase::Drain {
                drained_at = now.after(drain_max);
                self.relay.drain();
            }
            let drained = drained_at != Tick::NEVER && (now >= drained_at || self.is_done());
            if drained && stop_at == Tick::NEVER {
                stop_at = now.after(WRITE_MAX);
                self.relay.stop();
                continue;
            }
            if now >= stop_at || (stop_at != Tick::NEVER && self.relay.is_written()) {
                break;
            }
            if more {
                tokio::task::yield_now().await;
            }
            let end = if stop_at == Tick::NEVER {
                drained_at
            } else {
                stop_at
            };
            let deadline = self.deadline(now, more).min(end);
            let at = self
                .clock
                .instant(deadline.min(now.after(LEDGER_EVERY)))
                .into();
            if timer.deadline() != at {
                timer.as_mut().reset(at);
            }
            for _ in 0..EVENTS_PER_TURN {
                let Ok(event) = self.doors.try_recv() else {
                    break;
                };
                self.door_event(event);
            }
            // A channel that is closed and empty is always ready, and would never let time pass.
            // Whatever is busiest, each turn looks at everything: no flood of one kind hides another.
            for _ in 0..EVENTS_PER_TURN {
                let Ok(answer) = self.asked.try_recv() else {
                    break;
                };
                drop(answer.send(self.relay.status()));
            }
            if let Ok(request) = self.disk.requested.try_recv() {
                self.obey(request);
            }
            let links = !(self.events.is_closed() && self.events.is_empty());
            let disk = !(self.disk.reports.is_closed() && self.disk.reports.is_empty());
            let lane = !(self.urgent.is_closed() && self.urgent.is_empty());
            tokio::select! {
                biased;
                _ = self.events.recv_many(&mut events, EVENTS_PER_TURN), if links => {}
                _ = self.urgent.recv_many(&mut urgent, EVENTS_PER_TURN), if lane && self.relay.takes_urgent(now) => {}
                _ = self.disk.reports.recv_many(&mut reports, EVENTS_PER_TURN), if disk => {}
                Some(event) = self.doors.recv() => self.door_event(event),
                Some(request) = self.disk.requested.recv() => self.obey(request),
                Some(answer) = self.asked.recv() => drop(answer.send(self.relay.status())),
                () = self.rest.come() => {}
                Ok(()) = phase.changed() => {}
                () = &mut timer => {}
            }
            fill(&mut self.events, &mut events);
            fill(&mut self.disk.reports, &mut reports);
            if self.relay.takes_urgent(now) {
                fill(&mut self.urgent, &mut urgent);
            }
        }
        self.lost = self.relay.finish();
        self.flush(self.clock.now());
        for commands in &self.commands {
            // A door that cannot take it sees the channel close instead.
            let _ = commands.try_send(LinkCommand::Shutdown);
        }
    }

    /// The end: counts what the doors in still bring, until all of them are closed. Gives the number
    /// of acknowledged messages that could not be sent.
    pub async fn end(mut self) -> u64 {
        self.doors.close();
        // The upstream's doors end, and wait for nobody who no longer listens.
        drop((self.commands, self.events));
        loop {
            tokio::select! {
                Some(batch) = self.urgent.recv() => self.lost += self.relay.turn_away(batch),
                Some(batch) = self.rest.recv() => self.lost += self.relay.turn_away(batch),
                // Nobody is let in any more.
                Some(event) = self.doors.recv() => drop(event),
                else => break,
            }
        }
        self.relay.keep_ledger();
        // Reports are not read any more: the writer must not wait for that.
        drop(self.disk.reports);
        while let Some(command) = self.relay.take_spool_command() {
            if self.disk.commands.send(command).await.is_err() {
                break;
            }
        }
        tell_ledger(&self.relay);
        self.lost
    }

    /// Takes batches of the rest as far as they are let in; says whether more could be taken now.
    fn take_rest(&mut self, now: Tick) -> bool {
        for _ in 0..REST_PER_TURN {
            let Some(batch) = self.rest.next(|batch| self.relay.takes_rest(batch, now)) else {
                return false;
            };
            self.relay.arrive(batch, now);
        }
        true
    }

    /// The operator's wishes for the spool.
    fn obey(&mut self, request: SpoolRequest) {
        match request {
            SpoolRequest::Pause(class, paused, answer) => {
                let _ = answer.send(self.relay.pause_replay(class, paused));
            }
            SpoolRequest::Again(class, positions, answer) => {
                let _ = answer.send(self.relay.try_again(class, &positions));
            }
            SpoolRequest::Purge(class, positions, answer) => {
                let _ = answer.send(self.relay.purge(class, &positions));
            }
        }
    }

    fn door_event(&mut self, event: DoorEvent) {
        match event {
            DoorEvent::Open {
                notices,
                client,
                site,
                id,
            } => {
                let door = self.relay.open(client, site);
                let index = door.index as usize;
                if self.notices.len() <= index {
                    self.notices.resize_with(index + 1, || None);
                }
                self.notices[index] = Some((door, notices));
                if id.send(door).is_err() {
                    self.relay.close(door);
                }
            }
            DoorEvent::Withdraw { door, at } => self.relay.withdraw(door, at),
            DoorEvent::Close(door) => self.forget(door),
        }
    }

    /// Hands over what the relay has for others, as far as they take it without waiting.
    fn flush(&mut self, now: Tick) {
        for (door, notices) in self.relay.take_notices() {
            let sender = self
                .notices
                .get(door.index as usize)
                .and_then(Option::as_ref);
            let Some((id, sender)) = sender else { continue };
            if *id == door && sender.try_send(notices).is_err() {
                self.close(door, "it does not take its answers");
            }
        }
        for link in Link::BOTH {
            let commands = &self.commands[link as usize];
            if commands.capacity() == 0 {
                continue;
            }
            if let Some(command) = self.relay.take_command(link) {
                // Only the relay sends here, so that the room is still there; a door that ended
                // needs no command.
                let _ = commands.try_send(command);
            }
        }
        while let Ok(room) = self.disk.commands.try_reserve() {
            let Some(command) = self.relay.take_spool_command() else {
                break;
            };
            room.send(command);
        }
        if self.relay.hurries() && now.since(self.hurried) >= HURRY_EVERY {
            self.hurried = now;
            for commands in &self.commands {
                let _ = commands.try_send(LinkCommand::Hurry);
            }
        }
        if now.since(self.ledger_told) >= LEDGER_EVERY {
            self.ledger_told = now;
            self.relay.keep_ledger();
            tell_ledger(&self.relay);
        }
    }

    fn close(&mut self, door: DoorId, why: &str) {
        let client = self.relay.client(door).map_or("?", Arc::as_ref);
        tracing::warn!("the connection of {client:?} is given up: {why}");
        self.forget(door);
    }

    fn forget(&mut self, door: DoorId) {
        self.relay.close(door);
        if let Some(entry) = self.notices.get_mut(door.index as usize) {
            entry.take_if(|(id, _)| *id == door);
        }
    }

    fn deadline(&self, now: Tick, more: bool) -> Tick {
        if more {
            return now;
        }
        // Past, it is not the brake that keeps the batch but what is held, and that ends with an event.
        let brakes = self.rest.aside_since().map(|at| at.after(BRAKE_MAX));
        let brake = brakes.filter(|at| *at > now).min();
        self.relay.deadline(now).min(brake.unwrap_or(Tick::NEVER))
    }

    fn is_done(&self) -> bool {
        self.relay.is_idle() && self.rest.is_empty() && self.urgent.is_empty()
    }
}

/// Takes what stands ready, up to a turn's worth.
fn fill<T>(from: &mut mpsc::Receiver<T>, turn: &mut Vec<T>) {
    while turn.len() < EVENTS_PER_TURN
        && let Ok(one) = from.try_recv()
    {
        turn.push(one);
    }
}

fn tell_ledger(relay: &Relay) {
    let waiting = relay.waiting();
    for (account, waiting) in relay.ledger().accounts().iter().zip(waiting) {
        tracing::info!(target: "tidegate::account", "{}", account.line(waiting));
    }
    let unreadable = relay.unreadable();
    if unreadable > 0 {
        tracing::info!(target: "tidegate::account", "conditions could not read {unreadable} payloads; those did not match");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Mutex;

    use super::*;
    use crate::traffic::message::{ClassId, sample};
    use crate::traffic::queue::pressure::PressureSettings;
    use crate::traffic::queue::{ClassSettings, Delivery};
    use crate::traffic::relay::RelaySettings;
    use crate::traffic::send::tests::uplink;
    use crate::traffic::spool::{SpoolPolicy, request};
    use crate::traffic::status;

    fn relay() -> Relay {
        Relay::new(&RelaySettings {
            gateway: "box".into(),
            epoch: 1,
            memory_bytes_max: 1 << 20,
            memory_pressure: PressureSettings::MEMORY,
            classes: vec![ClassSettings::new(
                "critical",
                Delivery::Guaranteed,
                1 << 20,
            )],
            uplink: uplink(),
            spool: SpoolPolicy::default(),
            next_segment: 1,
        })
    }

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn does_the_ledger_go_to_the_log_once_an_hour() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .finish();
        let disk = Disk {
            commands: mpsc::channel(1).0,
            reports: mpsc::channel(1).1,
            requested: request::channel().1,
        };
        let (mut drive, _ends) = Drive::new(relay(), disk, status::channel().1, Clock::start());
        let mut message = sample("t", b"x");
        message.class = ClassId::FIRST;
        drive.relay.arrive(
            Batch {
                door: message.receipt.door,
                at: Tick::ZERO,
                messages: vec![message],
                unreadable: 0,
                forgotten: 0,
                room: None,
            },
            Tick::ZERO,
        );
        let start = drive.ledger_told;
        let mut told = |seconds| {
            drive.flush(start.after(Duration::from_secs(seconds)));
            let lines = std::mem::take(&mut *log.0.lock().unwrap());
            let lines = String::from_utf8(lines).unwrap();
            lines.matches("ledger class=critical received=1").count()
        };
        tracing::subscriber::with_default(subscriber, || {
            let times = [0, 3599, 3600, 3601, 7199, 7200];
            assert_eq!(times.map(&mut told), [0, 0, 1, 0, 0, 1]);
        });
    }
}
