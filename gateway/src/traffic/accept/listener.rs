//! The listener: an embedded MQTT 3.1.1 and 5 server, so that devices connect straight to the
//! gateway. One task for each client: from accept over CONNECT to the end of its session, which may
//! outlive many connections. In come publishes; out go classified messages to the relay and, when
//! the relay has answered, acknowledgements. It delivers nothing to clients, keeps no retained
//! messages, and acknowledges nothing on its own word.
//!
//! - `greet`: the first packet, and what is agreed
//! - `connection`: the loop of a connected client; `intake`: its packets; `buffer`, `lane`: in, on
//! - `leave`: the end, the will, the parked session; `registry`: who sits where

#![allow(
    clippy::disallowed_methods,
    reason = "a door: it opens the listening socket, starts a task for each client, and waits for their clocks"
)]

mod buffer;
mod connection;
mod crowd;
mod greet;
mod intake;
mod lane;
mod leave;
mod registry;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use super::ListenerSettings;
use super::decode::{Fault, reason};
use super::session::Session;
use crate::clock::Clock;
use crate::traffic::classify::Rules;
use crate::traffic::lanes::{DoorEvent, Lanes, Phase};
use buffer::ReadBuffer;
use connection::{Connection, Ending};
use crowd::Crowd;
use greet::{Agreement, greet, welcome};
use registry::{Kept, Left, Registry};

/// Newcomers beyond `connections_max` that are told so at one time; more are closed without a word.
const REFUSALS_MAX: usize = 32;
/// Connections that the system completes ahead of us: a fleet that comes back at once.
const ACCEPT_BACKLOG: u32 = 1024;
/// The first pause after the system refused to accept, doubled up to [`ACCEPT_PAUSE_MAX`].
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// The longest: a file descriptor that was freed is used within a second.
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// From the first byte of a packet to its last, so that a client which stops in the middle does not
/// keep its place and up to `packet_max` of memory, whatever its keep-alive. The default largest
/// packet, 2 MiB, comes in this time over 56 kbit/s, a slow field radio; alarms of some hundred
/// bytes come over anything.
const PACKET_TIME_MAX: Duration = Duration::from_secs(300);
/// Once TCP's probes have begun, one goes out this often: slower than a slow radio's round trip.
const PROBE_INTERVAL: Duration = Duration::from_secs(15);
/// Probes in a row without an answer that end the connection, so after two minutes: a radio may
/// change its cell.
const PROBES_MAX: u32 = 8;

/// Why there is no listener.
#[derive(Debug)]
pub enum ListenerError {
    /// Somebody else listens there. The operator stops it, or gives another `listener.bind`.
    PortInUse(SocketAddr),
    /// The port is reserved. The operator grants the capability, or takes one above 1023.
    NotPermitted(SocketAddr),
    /// The address is none of this machine's. The operator corrects `listener.bind`.
    NoSuchAddress(SocketAddr),
    /// The system refuses for another reason.
    Other(SocketAddr, io::Error),
}

impl std::fmt::Display for ListenerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PortInUse(at) => write!(
                f,
                "cannot listen on {at}: the port is in use; stop what listens there (perhaps \
                 another broker or gateway), or give another listener.bind"
            ),
            Self::NotPermitted(at) => write!(
                f,
                "cannot listen on {at}: not permitted; choose a port above 1023 in listener.bind, \
                 or grant the capability to bind lower ones"
            ),
            Self::NoSuchAddress(at) => write!(
                f,
                "cannot listen on {at}: this machine has no such address; correct listener.bind"
            ),
            Self::Other(at, cause) => {
                write!(f, "cannot listen on {at}: {cause}; check listener.bind")
            }
        }
    }
}

impl std::error::Error for ListenerError {}

/// How long the listener waits for clients that do not act.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// From accept to a whole CONNECT.
    connect: Duration,
    /// From the first byte of any later packet to its last.
    packet: Duration,
    /// For a client that reads none of its answers.
    write: Duration,
    /// For a client to close after it was told why.
    linger: Duration,
    /// From the last packet until a grown buffer is given back.
    idle: Duration,
}

/// A CONNECT is one packet: 10 s suffice on any link that carries MQTT, and a port scanner holds a
/// connection no longer.
const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(10),
    packet: PACKET_TIME_MAX,
    write: Duration::from_secs(10),
    linger: Duration::from_millis(500),
    idle: Duration::from_secs(1),
};

/// What all connections share.
struct Shared {
    settings: ListenerSettings,
    patience: Patience,
    rules: Arc<Rules>,
    lanes: Lanes,
    clock: Clock,
    phase: watch::Receiver<Phase>,
    registry: Registry,
    crowd: Arc<Crowd>,
}

/// The listening socket, before it serves.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    local: SocketAddr,
    settings: ListenerSettings,
}

impl Listener {
    /// Binds the address, inside a tokio runtime. Port 0 takes any free one; see
    /// [`Listener::local_addr`].
    ///
    /// # Errors
    /// Each says what the operator can do.
    pub fn bind(settings: &ListenerSettings) -> Result<Self, ListenerError> {
        let bind = settings.bind;
        let socket = listen(bind).map_err(|cause| match cause.kind() {
            io::ErrorKind::AddrInUse => ListenerError::PortInUse(bind),
            io::ErrorKind::PermissionDenied => ListenerError::NotPermitted(bind),
            io::ErrorKind::AddrNotAvailable => ListenerError::NoSuchAddress(bind),
            _ => ListenerError::Other(bind, cause),
        })?;
        Ok(Self {
            local: socket.local_addr().unwrap_or(bind),
            socket,
            settings: settings.clone(),
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Serves devices. Stops accepting at [`Phase::Drain`]; returns at [`Phase::Stop`], when every
    /// connection has been closed.
    pub async fn serve(
        self,
        rules: Arc<Rules>,
        lanes: Lanes,
        clock: Clock,
        phase: watch::Receiver<Phase>,
    ) {
        let registry = Registry::new(self.settings.sessions_max);
        let shared = Arc::new(Shared {
            settings: self.settings,
            patience: PATIENCE,
            rules,
            lanes,
            clock,
            phase: phase.clone(),
            registry,
            crowd: Arc::default(),
        });
        let mut tasks = JoinSet::new();
        let porter = Porter::new(Arc::clone(&shared));
        {
            let mut phase = phase.clone();
            tokio::select! {
                biased;
                _ = phase.wait_for(|phase| *phase >= Phase::Drain) => {}
                () = porter.accept(&self.socket, &mut tasks) => {}
            }
        }
        drop(self.socket);
        while let Some(ended) = tasks.join_next().await {
            report(ended);
        }
    }
}

fn listen(bind: SocketAddr) -> io::Result<TcpListener> {
    let socket = match bind {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A restarted gateway binds at once, though connections of the last run linger in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(bind)?;
    socket.listen(ACCEPT_BACKLOG)
}

/// Lets TCP find out whether a quiet peer is still there: a 3.1.1 client without keep-alive that lost
/// its power would hold its place for ever. Not before the longest keep-alive: who keeps one costs no
/// probe, and MQTT judges it first. The kernel takes whole seconds, at most 32767.
fn probe_after(stream: &TcpStream, keep_alive_max: Duration) {
    let quiet = Duration::from_secs(keep_alive_max.as_secs().clamp(1, 32_767));
    let probes = TcpKeepalive::new()
        .with_time(quiet)
        .with_interval(PROBE_INTERVAL)
        .with_retries(PROBES_MAX);
    if let Err(cause) = SockRef::from(stream).set_tcp_keepalive(&probes) {
        debug!("a connection goes without TCP keep-alive: {cause}");
    }
}

/// A panic costs one client its connection; it is a defect, so a person is needed.
fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(cause) = ended
        && cause.is_panic()
    {
        error!("a connection's task failed and its client was closed; please report this: {cause}");
    }
}

/// Lets clients in, as many as there are places.
struct Porter {
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    /// Whether it was said that all places are taken.
    full: AtomicBool,
}

impl Porter {
    fn new(shared: Arc<Shared>) -> Self {
        let places = shared.settings.connections_max.min(Semaphore::MAX_PERMITS);
        Self {
            shared,
            places: Arc::new(Semaphore::new(places)),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            full: AtomicBool::new(false),
        }
    }

    async fn accept(&self, socket: &TcpListener, tasks: &mut JoinSet<()>) {
        let mut pause = Duration::ZERO;
        loop {
            tokio::select! {
                Some(ended) = tasks.join_next() => report(ended),
                accepted = socket.accept() => match accepted {
                    Ok((stream, peer)) => {
                        pause = Duration::ZERO;
                        // Acknowledgements are small and wait for nothing; without it they are
                        // late, not wrong.
                        let _ = stream.set_nodelay(true);
                        probe_after(&stream, self.shared.settings.keep_alive_max);
                        self.admit(stream, peer, tasks);
                    }
                    Err(cause) => pause = self.back_off(pause, &cause).await,
                },
            }
        }
    }

    /// Out of file descriptors, most likely: trying on at once would only spin.
    async fn back_off(&self, pause: Duration, cause: &io::Error) -> Duration {
        if pause.is_zero() {
            warn!(
                "cannot accept a connection: {cause}; others go on; raise the limit of open files \
                 or lower listener.connections_max"
            );
        }
        let pause = (pause * 2).clamp(ACCEPT_PAUSE, ACCEPT_PAUSE_MAX);
        tokio::time::sleep(pause).await;
        pause
    }

    fn admit<S>(&self, stream: S, peer: SocketAddr, tasks: &mut JoinSet<()>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            if self.full.swap(false, Ordering::Relaxed) {
                info!("there are free connections again");
            }
            tasks.spawn(attend(stream, peer, shared, place));
            return;
        }
        if !self.full.swap(true, Ordering::Relaxed) {
            warn!(
                "all {} connections are taken, so {peer} and others are refused; raise \
                 listener.connections_max or see who connects",
                shared.settings.connections_max
            );
        }
        if let Ok(place) = Arc::clone(&self.refusals).try_acquire_owned() {
            tasks.spawn(turn_away(stream, peer, shared, place));
        }
    }
}

/// Reads the CONNECT of one client too many and refuses it with 0x97, "an administrative limit has
/// been exceeded" (MQTT 5, 2.4); 3.1.1: code 3, server unavailable.
async fn turn_away<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    peer: SocketAddr,
    shared: Arc<Shared>,
    place: OwnedSemaphorePermit,
) {
    let mut buffer = ReadBuffer::default();
    let greeting = greet(&mut stream, &mut buffer, peer, &shared);
    if let Some(Some(agreement)) = shared.until_stop(greeting).await {
        let protocol = agreement.voice.protocol;
        greet::refuse(&mut stream, protocol, reason::QUOTA_EXCEEDED, &shared).await;
    }
    drop(place);
}

/// The life of one client's connection, and of its session until a newer connection takes it.
async fn attend<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    peer: SocketAddr,
    shared: Arc<Shared>,
    place: OwnedSemaphorePermit,
) {
    let mut buffer = ReadBuffer::default();
    // Start and end are boxed: they are short, and a thousand idle connections keep only what the
    // time between needs.
    let greeting = Box::pin(greet(&mut stream, &mut buffer, peer, &shared));
    let Some(Some(mut agreement)) = shared.until_stop(greeting).await else {
        return;
    };
    let claim = shared.registry.claim(&agreement.id);
    // At a shutdown whoever has the seat leaves it at once.
    let Some(mut seated) = claim.sit().await else {
        // A newer connection of this client id: DISCONNECT's reason for it is not CONNACK's.
        let protocol = agreement.voice.protocol;
        let refusing = greet::refuse(&mut stream, protocol, reason::SERVER_UNAVAILABLE, &shared);
        Box::pin(refusing).await;
        return;
    };
    let resuming = shared.resume(&agreement, &mut seated);
    let Some(Some((mut kept, session_present))) = shared.until_stop(resuming).await else {
        let unsent = std::mem::take(&mut seated.unsent);
        unsent.hand_over(&shared.lanes, shared.clock).await;
        shared.registry.vacate(&claim);
        return;
    };
    let unsent = std::mem::take(&mut seated.unsent);
    kept.session.connect();
    debug!("{} connected", agreement.label);
    let mut will = agreement.will.take();
    let newer = claim.superseded();
    let mut connection = Box::new(Connection::new(
        stream,
        Arc::clone(&shared),
        &agreement,
        (kept, unsent),
        buffer,
        newer,
    ));
    let ending = if welcome(
        &mut connection.out,
        &agreement,
        session_present,
        &shared.settings,
    ) {
        connection.run().await
    } else {
        will = None;
        Ending::Fault(Fault::new(
            reason::PACKET_TOO_LARGE,
            "takes no packet as large as its CONNACK",
        ))
    };
    Box::pin(leave::leave(
        connection,
        ending,
        will,
        (claim, seated),
        place,
    ))
    .await;
}

impl Shared {
    /// The kept session, unless the client wants a new one; whether it is the kept one. Taking it
    /// up in time cancels a will that waits. What is unsent stays in the seat. `None`: the relay is
    /// gone.
    async fn resume(&self, agreement: &Agreement, left: &mut Left) -> Option<(Kept, bool)> {
        match left.kept.take() {
            Some(mut kept) if !agreement.clean => {
                kept.will = None;
                return Some((kept, true));
            }
            Some(mut kept) => {
                self.publish_last(&mut kept, &mut left.unsent);
                self.close(kept).await;
            }
            None => {}
        }
        Some((self.open(agreement).await?, false))
    }

    /// Registers a new sender with the relay.
    async fn open(&self, agreement: &Agreement) -> Option<Kept> {
        // Notices come in batches of at least one answer, so this holds all that can be unanswered
        // (see `Connection::is_full`), and Held and Released.
        let capacity = 2 * usize::from(self.settings.receive_max) + 4;
        let (to_door, notices) = mpsc::channel(capacity);
        let (to_us, door) = oneshot::channel();
        let event = DoorEvent::Open {
            notices: to_door,
            client: Arc::clone(&agreement.label),
            site: false,
            id: to_us,
        };
        self.lanes.doors.send(event).await.ok()?;
        Some(Kept {
            session: Session::default(),
            notices,
            door: door.await.ok()?,
            held: false,
            slowed_permille: 1000,
            will: None,
        })
    }
}

#[cfg(test)]
mod tests;
