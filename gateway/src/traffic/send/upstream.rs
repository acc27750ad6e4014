//! The door to the upstream: keeps one or two connections for ever. In come commands of the relay,
//! out go its events; what it never does is to tie an acknowledgement to a message, or to keep a
//! message: both are the window's. `dial` makes a connection, `wire`
//! serves it, `backoff` says when to try again, `pairing` whether
//! the upstream stands two.

#![allow(
    clippy::disallowed_methods,
    reason = "a door: it waits between tries and draws the jitter"
)]

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};
use tracing::{debug, info, warn};

use super::backoff::Backoff;
use super::dial::{Dialed, dial};
use super::no_connection::DialError;
use super::pairing::{OneOnly, Pairing, REST};
use super::wire::{self, Ended, FAREWELL_MAX, Name};
use super::{Link, LinkCommand, LinkEvent, UplinkSettings};
use crate::clock::Clock;
use crate::traffic::accept::Protocol;
use crate::traffic::message::Tick;

/// After how long the same fault is said again: an outage of days must not fill the log.
const REPEAT_AFTER: Duration = Duration::from_secs(600);

/// Keeps the upstream's connections until [`LinkCommand::Shutdown`] or the end of the relay:
/// the bulk one, and with `urgent_commands` the urgent one beside it. Retries for ever. Each link
/// gets exactly one [`LinkEvent::Down`] for each [`LinkEvent::Up`], attempts only grow, and between
/// the two every event carries that connection's attempt.
///
/// An upstream that does not stand two connections gets one: the urgent link then stays down, and
/// is tried again every ten minutes.
pub async fn run_pair(
    settings: Arc<UplinkSettings>,
    urgent_commands: Option<mpsc::Receiver<LinkCommand>>,
    bulk_commands: mpsc::Receiver<LinkCommand>,
    events: mpsc::Sender<LinkEvent>,
    clock: Clock,
) {
    let pairing = Arc::new(Mutex::new(Pairing::new(settings.protocol)));
    let paired = urgent_commands.is_some();
    let line = |link| Keeper {
        who: Who::new(&settings, link, paired),
        backoff: Backoff::new(settings.retry_max, seed(clock, link)),
        settings: settings.clone(),
        link,
        events: events.clone(),
        clock,
        pairing: pairing.clone(),
        attempt: 0,
        hurried: false,
        told: None,
    };
    let bulk = line(Link::Bulk).run(bulk_commands);
    match urgent_commands {
        Some(commands) => {
            tokio::join!(line(Link::Urgent).run(commands), bulk);
        }
        None => bulk.await,
    }
}

/// Differs between gateways that start in one moment; a box without entropy has its clock.
fn seed(clock: Clock, link: Link) -> u64 {
    getrandom::u64().unwrap_or_else(|_| clock.wall().micros() ^ link as u64)
}

/// What a link is called in the log.
struct Who {
    host: String,
    port: u16,
    connection: &'static str,
}

impl Who {
    fn new(settings: &UplinkSettings, link: Link, paired: bool) -> Self {
        Self {
            host: settings.remote.host.clone(),
            port: settings.remote.port,
            connection: match (paired, link) {
                (false, _) => "",
                (true, Link::Urgent) => " (urgent connection)",
                (true, Link::Bulk) => " (bulk connection)",
            },
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uplink {}:{}{}", self.host, self.port, self.connection)
    }
}

/// Keeps one link.
struct Keeper {
    who: Who,
    settings: Arc<UplinkSettings>,
    link: Link,
    events: mpsc::Sender<LinkEvent>,
    clock: Clock,
    pairing: Arc<Mutex<Pairing>>,
    backoff: Backoff,
    attempt: u64,
    /// A message of the first class asked for haste while a try was under way.
    hurried: bool,
    /// The last fault that was said, when, and how often it came since.
    told: Option<(String, Tick, u32)>,
}

/// The gateway stops.
struct Stop;

impl Keeper {
    async fn run(mut self, mut commands: mpsc::Receiver<LinkCommand>) {
        loop {
            let Ok(until) = self.one_connection(&mut commands).await else {
                return;
            };
            let Ok(()) = self.wait(until, &mut commands).await else {
                return;
            };
        }
    }

    /// One connection from its try to its end; gives the time of the next try.
    async fn one_connection(
        &mut self,
        commands: &mut mpsc::Receiver<LinkCommand>,
    ) -> Result<Tick, Stop> {
        if let Some(until) = self.rest() {
            return Ok(until);
        }
        self.attempt += 1;
        match self.dial(commands).await? {
            Ok(dialed) => self.serve(dialed, commands).await,
            Err(error) => Ok(self.failed(&error)),
        }
    }

    /// Connects, and listens to the relay meanwhile.
    async fn dial(
        &mut self,
        commands: &mut mpsc::Receiver<LinkCommand>,
    ) -> Result<Result<Dialed, DialError>, Stop> {
        let settings = self.settings.clone();
        let mut dialing = std::pin::pin!(dial(&settings, self.link, self.attempt, self.clock));
        loop {
            tokio::select! {
                result = dialing.as_mut() => return Ok(result),
                command = commands.recv() => match command {
                    None | Some(LinkCommand::Shutdown) => return Err(Stop),
                    Some(LinkCommand::Hurry) => self.hurried = true,
                    Some(LinkCommand::Write { .. } | LinkCommand::Reconnect { .. }) => {}
                },
            }
        }
    }

    async fn serve(
        &mut self,
        dialed: Dialed,
        commands: &mut mpsc::Receiver<LinkCommand>,
    ) -> Result<Tick, Stop> {
        let (link, attempt, since) = (self.link, self.attempt, self.clock.now());
        let limits = dialed.welcome.limits;
        let asked_keep_alive = self.settings.remote.keep_alive;
        let keep_alive = dialed.welcome.keep_alive.unwrap_or(asked_keep_alive);
        self.say_up(&dialed);
        let one_only = self.pairing().up(link, dialed.asked, since);
        self.say_one_only(one_only);
        self.tell(LinkEvent::Up {
            link,
            attempt,
            limits,
        })
        .await?;
        let name = Name {
            link,
            attempt,
            protocol: self.settings.protocol,
        };
        let ended = wire::serve(dialed, keep_alive, name, commands, &self.events, self.clock).await;
        self.ended(&ended, since).await
    }

    /// Tells that a connection ended, and why; gives the time of the next try.
    async fn ended(&mut self, ended: &Ended, since: Tick) -> Result<Tick, Stop> {
        let (link, attempt, reason) = (self.link, self.attempt, ended.reason());
        let now = self.clock.now();
        let one_only = self.pairing().down(link, ended.ending(), now);
        let down = self.tell(LinkEvent::Down {
            link,
            attempt,
            reason,
            by_peer: ended.is_by_peer(),
        });
        if matches!(ended, Ended::Shutdown) {
            // A relay that stops may have stopped listening, too.
            let _ = timeout(FAREWELL_MAX, down).await;
            info!("{}: connection closed, the gateway stops.", self.who);
            return Err(Stop);
        }
        down.await?;
        self.backoff.ended(now.since(since));
        let wait = self.backoff.wait();
        let until = self.rest().unwrap_or(now.after(wait));
        warn!(
            "{}: connection lost, {ended}; next try in {}.",
            self.who,
            Seconds(until.since(now))
        );
        self.say_one_only(one_only);
        Ok(until)
    }

    /// A try came to nothing; gives the time of the next.
    fn failed(&mut self, error: &DialError) -> Tick {
        let now = self.clock.now();
        let one_only = self.pairing().failed(self.link, error.ending(), now);
        let wait = match error.is_lasting() {
            true => self.backoff.long_wait(),
            false => self.backoff.wait(),
        };
        let until = self.rest().unwrap_or(now.after(wait));
        self.say_failed(error, until.since(now), now);
        self.say_one_only(one_only);
        until
    }

    /// Waits, unless a message of the first class cannot. The urgent link's rest is not shortened:
    /// the bulk one carries that message.
    async fn wait(
        &mut self,
        until: Tick,
        commands: &mut mpsc::Receiver<LinkCommand>,
    ) -> Result<(), Stop> {
        let may_hurry = self.rest().is_none();
        let mut until = until;
        if std::mem::take(&mut self.hurried) && may_hurry {
            until = self.backoff.hurry(self.clock.now(), until);
        }
        loop {
            tokio::select! {
                () = sleep_until(self.clock.instant(until).into()) => return Ok(()),
                command = commands.recv() => match command {
                    None | Some(LinkCommand::Shutdown) => return Err(Stop),
                    Some(LinkCommand::Hurry) if may_hurry => {
                        until = self.backoff.hurry(self.clock.now(), until);
                    }
                    Some(_) => {}
                },
            }
        }
    }

    fn rest(&self) -> Option<Tick> {
        self.pairing().rest(self.link, self.clock.now())
    }

    /// Never held over an await; a link that panicked leaves it sound.
    fn pairing(&self) -> MutexGuard<'_, Pairing> {
        self.pairing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn tell(&self, event: LinkEvent) -> Result<(), Stop> {
        self.events.send(event).await.map_err(|_| Stop)
    }

    fn say_up(&mut self, dialed: &Dialed) {
        self.told = None;
        let protocol = match self.settings.protocol {
            Protocol::V311 => "MQTT 3.1.1",
            Protocol::V5 => "MQTT 5",
        };
        info!(
            "{}: connected to {} with {protocol}, {}{}.",
            self.who,
            dialed.address,
            dialed.tls.unwrap_or("no TLS"),
            announced(dialed)
        );
    }

    /// The same fault again is for the curious, until it has lasted.
    fn say_failed(&mut self, error: &DialError, wait: Duration, now: Tick) {
        let (who, wait) = (&self.who, Seconds(wait));
        let key = error.key();
        match &mut self.told {
            Some((told, at, times)) if *told == key && now.since(*at) < REPEAT_AFTER => {
                *times += 1;
                debug!("{who}: still no connection, {error}; next try in {wait}.");
            }
            Some((told, at, times)) if *told == key => {
                warn!(
                    "{who}: still no connection after {times} more tries, {error}; next try in {wait}."
                );
                (*at, *times) = (now, 0);
            }
            _ => {
                warn!("{who}: no connection, {error}; next try in {wait}.");
                self.told = Some((key, now, 0));
            }
        }
    }

    fn say_one_only(&self, one_only: Option<OneOnly>) {
        if let Some(why) = one_only {
            warn!(
                "uplink {}:{}: one connection carries everything, since the upstream does not stand two: {why}. The second is tried again in {}; set `connections = 1` to keep to one.",
                self.who.host,
                self.who.port,
                Seconds(REST)
            );
        }
    }
}

/// What CONNACK said beyond the protocol's defaults.
fn announced(dialed: &Dialed) -> String {
    let limits = dialed.welcome.limits;
    let mut words = String::new();
    let mut add = |is_limit: bool, limit: String| {
        if is_limit {
            words.push_str(if words.is_empty() {
                "; it takes "
            } else {
                ", "
            });
            words.push_str(&limit);
        }
    };
    add(
        limits.receive_max < u16::MAX,
        format!("{} unacknowledged messages", limits.receive_max),
    );
    add(
        limits.packet_bytes_max < u32::MAX,
        format!("packets of {} bytes", limits.packet_bytes_max),
    );
    add(!limits.retain, "no retained messages".to_owned());
    if let Some(keep_alive) = dialed.welcome.keep_alive {
        add(true, format!("a keep-alive of {}", Seconds(keep_alive)));
    }
    words
}

/// A time as a person reads it.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            0..60 => write!(f, "{:.1} s", self.0.as_secs_f64()),
            seconds => write!(f, "{} min", seconds.div_ceil(60)),
        }
    }
}

#[cfg(test)]
mod tests;
