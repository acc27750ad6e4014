//! One of a source's two connections: makes it, keeps it, makes it anew. One task does all of it,
//! so that acknowledgements leave from where the library is polled. The library's future is pinned
//! for the life of a link and only ever dropped with the link whole: half a poll would lose frames.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep_until;

use super::intake::{Dropped, Intake, Publication, Share};
use super::link::{self, Client, Fault, Heard, Wire};
use super::outbox::Outbox;
use super::receipts::Receipts;
use super::retry::Backoff;
use super::{RETRY_MAX, UNANSWERED_MAX, WAITING_BYTES_MAX};
use crate::clock::Clock;
use crate::traffic::accept::SourceSettings;
use crate::traffic::classify::Rules;
use crate::traffic::lanes::{Batch, DoorEvent, Lanes, Notice, Phase};
use crate::traffic::message::{DoorId, Message, Tick};

/// Batches of notices that may wait for us. The relay answers at most [`UNANSWERED_MAX`] messages of
/// this link; the rest is for late answers to messages of earlier ones.
const NOTICES_MAX: usize = 4 * UNANSWERED_MAX;
/// How long saying goodbye may take: it only spares the broker a time-out.
const FAREWELL_MAX: Duration = Duration::from_secs(1);
/// The longest sleep; it exists because timers do not reach "never".
const SLEEP_MAX: Duration = Duration::from_secs(3600);

/// Why a link ended.
enum End {
    /// The gateway stops.
    Stop,
    /// The relay closed the door, or is gone.
    DoorClosed,
    /// Messages were held for too long: the broker is to bring them again.
    Held,
    /// What went wrong.
    Fault(Fault),
}

/// One connection and all that it remembers.
pub(super) struct Connection {
    settings: Arc<SourceSettings>,
    name: Arc<str>,
    client_id: String,
    intake: Intake,
    lanes: Lanes,
    clock: Clock,
    phase: watch::Receiver<Phase>,
    door: DoorId,
    notices: mpsc::Receiver<Vec<Notice>>,
    receipts: Receipts,
    outbox: Outbox,
    backoff: Backoff,
    /// Since when the relay holds messages of ours.
    held_since: Option<Tick>,
    /// When this link's CONNACK came; `None` until then.
    up_since: Option<Tick>,
    heard_at: Tick,
    /// SUBACK granted all filters in this process's life.
    subscribed: bool,
    /// No link of this process was up before this one.
    first_link: bool,
    last_fault: Option<Fault>,
    dropped: u64,
}

impl Connection {
    /// Registers the connection with the relay; `None`: the relay is gone.
    pub(super) async fn open(
        settings: Arc<SourceSettings>,
        share: Share,
        rules: Arc<Rules>,
        lanes: Lanes,
        clock: Clock,
        phase: watch::Receiver<Phase>,
    ) -> Option<Self> {
        let name: Arc<str> = format!("{}, {} connection", settings.name, share.word()).into();
        let (door, notices) = open_door(&lanes, &name).await?;
        Some(Self {
            client_id: format!("{}-{}", settings.client_id, share.word()),
            intake: Intake::new(Arc::clone(&settings), share, rules),
            settings,
            name,
            lanes,
            clock,
            phase,
            door,
            notices,
            receipts: Receipts::default(),
            outbox: Outbox::default(),
            backoff: Backoff::new(RETRY_MAX, seed()),
            held_since: None,
            up_since: None,
            heard_at: Tick::ZERO,
            subscribed: false,
            first_link: true,
            last_fault: None,
            dropped: 0,
        })
    }

    /// Link after link, until the gateway stops.
    pub(super) async fn run(mut self) {
        loop {
            match self.link().await {
                End::Stop => break,
                End::DoorClosed => {
                    let Some((door, notices)) = open_door(&self.lanes, &self.name).await else {
                        return;
                    };
                    (self.door, self.notices) = (door, notices);
                    self.forget();
                }
                End::Held => {
                    tracing::info!(
                        "{}: messages were held for {:?}; connecting again, so that the broker brings them again",
                        self.name,
                        self.settings.hold_max
                    );
                    self.let_go().await;
                }
                End::Fault(fault) => {
                    self.report(fault);
                    self.let_go().await;
                    let wait = self.backoff.wait();
                    self.idle(self.clock.now().after(wait), Phase::Drain).await;
                }
            }
        }
        // A relay that is gone needs no farewell.
        let _ = self.lanes.doors.send(DoorEvent::Close(self.door)).await;
    }

    async fn link(&mut self) -> End {
        if self.phase_now() != Phase::Run {
            self.idle(Tick::NEVER, Phase::Stop).await;
            return End::Stop;
        }
        let (client, wire) = match link::open(&self.settings, &self.client_id) {
            Ok(halves) => halves,
            Err(fault) => return End::Fault(fault),
        };
        let (say, mut heard) = mpsc::channel(1);
        let talk = talk(wire, say);
        tokio::pin!(talk);
        self.heard_at = self.clock.now();
        let end = self.serve(&client, talk.as_mut(), &mut heard).await;
        if matches!(end, End::Stop) && self.up_since.is_some() {
            self.farewell(&client, talk, &mut heard).await;
        }
        if let Some(up_since) = self.up_since {
            self.first_link = false;
            self.backoff.ended(self.clock.now().since(up_since));
        }
        end
    }

    async fn serve(
        &mut self,
        client: &Client,
        mut talk: Pin<&mut impl Future<Output = Fault>>,
        heard: &mut mpsc::Receiver<Vec<Heard>>,
    ) -> End {
        let lanes = self.lanes.clone();
        loop {
            self.acknowledge(client);
            if self.phase_now() == Phase::Stop {
                return End::Stop;
            }
            let now = self.clock.now();
            let room = self.has_room();
            if !room {
                // While we do not listen, silence says nothing.
                self.heard_at = now;
            }
            if let Some(end) = self.overdue(now) {
                return end;
            }
            let deadline = self.clock.instant(self.deadline(now));
            let flows = self.held_since.is_none();
            tokio::select! {
                fault = &mut talk => return End::Fault(fault),
                Some(said) = heard.recv(), if room => {
                    if let Err(fault) = self.hear(said, client) {
                        return End::Fault(fault);
                    }
                }
                notices = self.notices.recv() => match notices {
                    Some(notices) => self.obey(&notices),
                    None => return End::DoorClosed,
                },
                permit = lanes.urgent.reserve(), if flows && !self.outbox.urgent.is_empty() => {
                    let (Ok(permit), Some(messages)) = (permit, self.outbox.urgent.pop()) else {
                        return End::DoorClosed;
                    };
                    permit.send(batch(self.door, self.clock.now(), messages, &mut self.intake));
                }
                permit = lanes.rest.reserve(), if flows && !self.outbox.rest.is_empty() => {
                    let (Ok(permit), Some(messages)) = (permit, self.outbox.rest.pop()) else {
                        return End::DoorClosed;
                    };
                    permit.send(batch(self.door, self.clock.now(), messages, &mut self.intake));
                }
                _ = self.phase.changed() => {}
                () = sleep_until(deadline.into()) => {}
            }
        }
    }

    fn hear(&mut self, said: Vec<Heard>, client: &Client) -> Result<(), Fault> {
        self.heard_at = self.clock.now();
        for heard in said {
            match heard {
                Heard::Connected { session_present } => self.connected(session_present, client)?,
                Heard::Subscribed(answers) => self.granted(&answers),
                Heard::Published(publication) => self.published(&publication),
                Heard::Goodbye => {}
            }
        }
        if self.receipts.ready_count() > usize::from(u16::MAX) {
            return Err(Fault::Protocol("it uses a packet identifier twice"));
        }
        Ok(())
    }

    fn connected(&mut self, session_present: bool, client: &Client) -> Result<(), Fault> {
        let remote = &self.settings.remote;
        if session_present {
            tracing::info!(
                "{}: connected to {}:{}; the broker kept our session, what was missed comes now",
                self.name,
                remote.host,
                remote.port
            );
        } else if self.first_link {
            tracing::info!(
                "{}: connected to {}:{}, with a new session",
                self.name,
                remote.host,
                remote.port
            );
        } else {
            tracing::warn!(
                "{}: connected to {}:{}, but the broker lost our session: what was published while we were \
                 away does not come; let it keep sessions (mosquitto: `persistence true`)",
                self.name,
                remote.host,
                remote.port
            );
        }
        self.up_since = Some(self.heard_at);
        self.last_fault = None;
        // In MQTT 3.1.1 each SUBSCRIBE brings the retained messages again (3.8.4), so it is said
        // only when it must be: the session holds the subscriptions, `topics` may have changed
        // since the last start.
        self.subscribed &= session_present;
        if self.subscribed || client.subscribe(&self.settings, &self.settings.topics) {
            Ok(())
        } else {
            Err(Fault::Broken(
                "one of `topics` is not a topic filter".into(),
            ))
        }
    }

    fn granted(&mut self, answers: &[Option<String>]) {
        self.subscribed = answers.len() == self.settings.topics.len();
        for (filter, answer) in self.settings.topics.iter().zip(answers) {
            if let Some(reason) = answer {
                self.subscribed = false;
                tracing::error!(
                    "{}: the broker refuses the subscription to {filter:?} ({reason}): allow it to the client \
                     id {:?}, or take it out of `topics`",
                    self.name,
                    self.client_id
                );
            }
        }
    }

    fn published(&mut self, publication: &Publication) {
        // After a restart with other rules a topic may have changed hands, and the copy that the
        // other connection once dropped is not coming back. So a resend is taken by whoever gets it.
        let taken = self
            .intake
            .message(publication, self.door, self.first_link, self.heard_at);
        match taken {
            // Neither taken nor acknowledged: the broker keeps it for the next start.
            Ok(_) if self.phase_now() != Phase::Run => {}
            Ok(mut message) => {
                message.receipt.token = publication.packet_id.map(|id| self.receipts.ask(id));
                self.outbox.push(message);
            }
            Err(dropped) => {
                self.note(&dropped, publication);
                if let Some(id) = publication.packet_id {
                    self.receipts.settle(id);
                }
            }
        }
    }

    fn note(&mut self, dropped: &Dropped, publication: &Publication) {
        let topic =
            String::from_utf8_lossy(publication.topic.get(..128).unwrap_or(&publication.topic));
        match dropped {
            Dropped::NotOurs | Dropped::Retained => {
                tracing::trace!("{}: {topic:?} is left out: {dropped}", self.name);
            }
            Dropped::Topic(_) => {
                self.dropped += 1;
                tracing::warn!(
                    "{}: a message on {topic:?} was dropped: {dropped} ({} so far)",
                    self.name,
                    self.dropped
                );
            }
            Dropped::TooLarge(_) => {
                self.dropped += 1;
                tracing::error!(
                    "{}: a message on {topic:?} was lost: {dropped}, more than this source's packet_max \
                     ({} bytes); raise it, or use protocol = \"5\" ({} so far)",
                    self.name,
                    self.settings.packet_bytes_max,
                    self.dropped
                );
            }
        }
    }

    fn obey(&mut self, notices: &[Notice]) {
        for notice in notices {
            match *notice {
                // A refusal too: MQTT gives a subscriber no way to say it to a broker.
                Notice::Answer { token, .. } => self.receipts.answer(token),
                Notice::Held => {
                    self.held_since.get_or_insert_with(|| self.clock.now());
                }
                Notice::Released => self.held_since = None,
            }
        }
    }

    fn acknowledge(&mut self, client: &Client) {
        while let Some(packet_id) = self.receipts.ready() {
            if !client.acknowledge(packet_id) {
                return;
            }
            self.receipts.acknowledged();
        }
    }

    fn has_room(&self) -> bool {
        self.receipts.waiting_count() < UNANSWERED_MAX && self.outbox.bytes() < WAITING_BYTES_MAX
    }

    fn held_until(&self) -> Tick {
        let until = |since: Tick| since.after(self.settings.hold_max);
        self.held_since.map_or(Tick::NEVER, until)
    }

    fn silent_at(&self) -> Tick {
        let remote = &self.settings.remote;
        self.heard_at
            .after(2 * remote.keep_alive.max(link::KEEP_ALIVE_MIN) + remote.connect_timeout)
    }

    fn overdue(&self, now: Tick) -> Option<End> {
        if now >= self.held_until() && self.phase_now() == Phase::Run {
            Some(End::Held)
        } else if now >= self.silent_at() {
            Some(End::Fault(Fault::Silent))
        } else {
            None
        }
    }

    fn deadline(&self, now: Tick) -> Tick {
        let held_until = match self.phase_now() {
            Phase::Run => self.held_until(),
            _ => Tick::NEVER,
        };
        held_until.min(self.silent_at()).min(now.after(SLEEP_MAX))
    }

    fn phase_now(&self) -> Phase {
        // Without the one who says so there is nobody left to serve.
        if self.phase.has_changed().is_err() {
            return Phase::Stop;
        }
        *self.phase.borrow()
    }

    fn report(&mut self, fault: Fault) {
        let remote = &self.settings.remote;
        let what = match self.up_since {
            Some(_) => "lost the connection to",
            None => "cannot connect to",
        };
        let line = format!(
            "{}: {what} {}:{}: {fault}",
            self.name, remote.host, remote.port
        );
        if self.last_fault.as_ref() == Some(&fault) {
            tracing::debug!("{line}");
        } else if matches!(
            fault,
            Fault::Credentials(_) | Fault::Refused(_) | Fault::TooLarge(_)
        ) {
            tracing::error!(
                "{line}; trying again at least every {} s",
                RETRY_MAX.as_secs()
            );
        } else {
            tracing::warn!(
                "{line}; trying again at least every {} s",
                RETRY_MAX.as_secs()
            );
        }
        self.last_fault = Some(fault);
    }

    /// The link is gone: the relay gives back what it holds, the broker brings the rest again.
    async fn let_go(&mut self) {
        self.forget();
        // A relay that is gone holds nothing; the next link notices.
        let _ = self.lanes.doors.send(DoorEvent::Withdraw(self.door)).await;
    }

    fn forget(&mut self) {
        self.receipts.forget();
        self.outbox.forget();
        self.held_since = None;
        self.up_since = None;
    }

    /// Waits until then, or until the gateway is in this phase.
    async fn idle(&mut self, until: Tick, phase: Phase) {
        loop {
            let now = self.clock.now();
            if now >= until || self.phase_now() >= phase {
                return;
            }
            let wake = self.clock.instant(until.min(now.after(SLEEP_MAX)));
            tokio::select! {
                notices = self.notices.recv() => match notices {
                    Some(notices) => self.obey(&notices),
                    None => return,
                },
                _ = self.phase.changed() => {}
                () = sleep_until(wake.into()) => {}
            }
        }
    }

    /// Sends the last acknowledgements, then DISCONNECT.
    async fn farewell(
        &mut self,
        client: &Client,
        mut talk: Pin<&mut impl Future<Output = Fault>>,
        heard: &mut mpsc::Receiver<Vec<Heard>>,
    ) {
        while let Ok(notices) = self.notices.try_recv() {
            self.obey(&notices);
        }
        let deadline = self.clock.instant(self.clock.now().after(FAREWELL_MAX));
        let mut said = false;
        loop {
            self.acknowledge(client);
            said = said || (self.receipts.ready().is_none() && client.disconnect());
            tokio::select! {
                _ = &mut talk => return,
                Some(more) = heard.recv() => {
                    if more.iter().any(|heard| matches!(heard, Heard::Goodbye)) {
                        return;
                    }
                }
                () = sleep_until(deadline.into()) => return,
            }
        }
    }
}

/// Polls the library for the life of a link, and passes on what it says. While nobody takes it, it
/// does not poll: that is how reading pauses.
async fn talk(mut wire: Wire, say: mpsc::Sender<Vec<Heard>>) -> Fault {
    loop {
        match wire.hear().await {
            // The other end lives in the same task, as long as this future.
            Ok(heard) => drop(say.send(heard).await),
            Err(fault) => return fault,
        }
    }
}

async fn open_door(
    lanes: &Lanes,
    name: &Arc<str>,
) -> Option<(DoorId, mpsc::Receiver<Vec<Notice>>)> {
    let (notices, receiver) = mpsc::channel(NOTICES_MAX);
    let (id, answer) = oneshot::channel();
    let open = DoorEvent::Open {
        notices,
        client: Arc::clone(name),
        site: true,
        id,
    };
    lanes.doors.send(open).await.ok()?;
    Some((answer.await.ok()?, receiver))
}

fn batch(door: DoorId, at: Tick, messages: Vec<Message>, intake: &mut Intake) -> Batch {
    Batch {
        door,
        at,
        messages,
        unreadable: intake.take_unreadable(),
    }
}

/// Jitter that differs between gateways; without a source of randomness it does not, and all else
/// works.
fn seed() -> u64 {
    getrandom::u64().unwrap_or(1)
}
