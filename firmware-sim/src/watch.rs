//! The watcher at the far end: a door with a thread of its own, so that a fleet that is busy does not
//! falsify what it measures. It subscribes to everything, acknowledges, and keeps [`Arrivals`]. A
//! connection that breaks is made again, with the session kept.
#![allow(
    clippy::disallowed_methods,
    reason = "the watcher's door: a thread, a socket, a pause"
)]

pub mod arrivals;
mod far_end;

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::sockopt::set_tcp_quickack;
use tidegate_device::Tick;

use crate::clock::Clock;
use crate::wire::{Connect, Packet, Protocol, Publish, Writer, connack_meaning, first_packet};
use arrivals::Arrivals;

pub use far_end::FarEnd;

/// How long to wait for the first subscription, and for bytes before looking up.
const ANSWER_MAX: Duration = Duration::from_secs(5);
const LOOK_UP_EVERY: Duration = Duration::from_millis(50);
/// Between two tries to connect again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
const KEEP_ALIVE_SECONDS: u16 = 60;
const PING_EVERY: Duration = Duration::from_secs(20);
const READ_BYTES: usize = 256 * 1024;
/// The largest message of others that is read past; a server that sends more is left.
const PACKET_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The running watcher.
#[derive(Debug)]
pub struct Watch {
    thread: JoinHandle<Arrivals>,
    shared: Arc<Shared>,
}

/// Where to watch.
#[derive(Clone, Debug)]
pub struct WatchOrder {
    /// The far end.
    pub address: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// Differs between runs.
    pub client_id: String,
    /// What time it is.
    pub clock: Clock,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    arrived: AtomicU64,
}

/// The far end cannot be watched. The operator's part: start it, or name the right one.
#[derive(Debug)]
pub enum WatchError {
    /// TCP or the read failed.
    Io(io::Error),
    /// CONNACK or SUBACK said no, with this code.
    Refused(u8),
    /// What came is no MQTT.
    NotMqtt,
}

impl fmt::Display for WatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Refused(code) => write!(f, "refused with {code}: {}", connack_meaning(*code)),
            Self::NotMqtt => f.write_str("what answers there does not speak MQTT"),
        }
    }
}

impl From<io::Error> for WatchError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Watch {
    /// Subscribes and starts to watch. When it comes back, the subscription stands.
    ///
    /// # Errors
    /// When the far end is not there, or refuses.
    pub fn start(order: WatchOrder, arrivals: Arrivals) -> Result<Self, WatchError> {
        let mut line = Line::subscribe(&order)?;
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || {
                let mut arrivals = arrivals;
                while !for_thread.stop.load(Ordering::Relaxed) {
                    if line.take(&order, &mut arrivals, &for_thread).is_err() {
                        line = resubscribe(&order, &for_thread).unwrap_or(line);
                    }
                }
                forget_session(&order);
                arrivals
            })?;
        Ok(Self { thread, shared })
    }

    /// How many different messages of the run arrived so far.
    #[must_use]
    pub fn arrived(&self) -> u64 {
        self.shared.arrived.load(Ordering::Relaxed)
    }

    /// Stops watching. `None` when the watcher's thread had a defect; its panic is on the terminal.
    #[must_use]
    pub fn finish(self) -> Option<Arrivals> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().ok()
    }
}

/// Tries until it stands; `None` when the watch was stopped meanwhile.
fn resubscribe(order: &WatchOrder, shared: &Shared) -> Option<Line> {
    while !shared.stop.load(Ordering::Relaxed) {
        if let Ok(line) = Line::subscribe(order) {
            return Some(line);
        }
        thread::sleep(RECONNECT_PAUSE);
    }
    None
}

/// Has the far end forget the session, which would go on to collect messages there. When that fails
/// a broker's own expiry is left to do it.
fn forget_session(order: &WatchOrder) {
    if let Ok(mut line) = Line::connect(order, true) {
        line.writer().disconnect();
        let _ = line.answer();
    }
}

/// One connection to the far end.
struct Line {
    stream: TcpStream,
    protocol: Protocol,
    buffer: Vec<u8>,
    /// What of the buffer holds bytes that are not taken yet.
    filled: usize,
    answers: Vec<u8>,
    pinged: Tick,
}

impl Line {
    fn subscribe(order: &WatchOrder) -> Result<Self, WatchError> {
        let mut line = Self::connect(order, false)?;
        line.writer().subscribe("#");
        line.answer()?;
        line.wait_for_yes()?;
        line.stream.set_read_timeout(Some(LOOK_UP_EVERY))?;
        Ok(line)
    }

    fn connect(order: &WatchOrder, clean: bool) -> Result<Self, WatchError> {
        let stream = TcpStream::connect_timeout(&order.address, ANSWER_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        let mut line = Self {
            stream,
            protocol: order.protocol,
            buffer: vec![0; READ_BYTES],
            filled: 0,
            answers: Vec::new(),
            pinged: order.clock.now(),
        };
        line.writer().connect(&Connect {
            client_id: &order.client_id,
            keep_alive_seconds: KEEP_ALIVE_SECONDS,
            clean,
        });
        line.answer()?;
        line.wait_for_yes()?;
        Ok(line)
    }

    /// Waits for CONNACK or SUBACK, and takes it out of the buffer. Messages of a kept session that
    /// come before it stay there for later.
    fn wait_for_yes(&mut self) -> Result<(), WatchError> {
        let mut at = 0;
        loop {
            let rest = self.buffer.get(at..self.filled).unwrap_or_default();
            let packet = first_packet(rest, self.protocol).map_err(|_| WatchError::NotMqtt)?;
            let Some((packet, length)) = packet else {
                self.fill()?;
                continue;
            };
            match packet {
                Packet::Connack { code: 0, .. } | Packet::Suback(0..0x80) => {
                    self.buffer.copy_within(at + length..self.filled, at);
                    self.filled -= length;
                    return Ok(());
                }
                Packet::Connack { code, .. } | Packet::Suback(code) => {
                    return Err(WatchError::Refused(code));
                }
                _ => at += length,
            }
        }
    }

    /// Takes what is there, or waits a moment for it.
    fn take(
        &mut self,
        order: &WatchOrder,
        arrivals: &mut Arrivals,
        shared: &Shared,
    ) -> Result<(), WatchError> {
        let now = order.clock.now();
        let mut taken = 0;
        while let Some(rest) = self.buffer.get(taken..self.filled) {
            let packet = first_packet(rest, self.protocol).map_err(|_| WatchError::NotMqtt)?;
            let Some((packet, length)) = packet else {
                break;
            };
            match packet {
                Packet::Publish(publish) => {
                    note(&publish, now, arrivals, shared);
                    answer(&publish, self.protocol, &mut self.answers);
                }
                Packet::Disconnect => return Err(WatchError::NotMqtt),
                _ => {}
            }
            taken += length;
        }
        self.buffer.copy_within(taken..self.filled, 0);
        self.filled -= taken;
        self.keep_alive(now);
        self.answer()?;
        match self.fill() {
            Err(WatchError::Io(error)) if is_only_quiet(&error) => Ok(()),
            other => other,
        }
    }

    fn keep_alive(&mut self, now: Tick) {
        if now.since(self.pinged) >= PING_EVERY {
            self.pinged = now;
            self.writer().pingreq();
        }
    }

    fn fill(&mut self) -> Result<(), WatchError> {
        if self.filled == self.buffer.len() {
            if self.filled >= PACKET_BYTES_MAX {
                return Err(WatchError::NotMqtt);
            }
            self.buffer.resize(self.filled * 2, 0);
        }
        let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
        match self.stream.read(room)? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            length => {
                // Acknowledged at once: a broker with Nagle's algorithm on would hold the next message
                // back until then, 40 ms that are not the gateway's. It lasts until the next read.
                let _ = set_tcp_quickack(&self.stream, true);
                self.filled += length;
                Ok(())
            }
        }
    }

    fn answer(&mut self) -> io::Result<()> {
        if !self.answers.is_empty() {
            self.stream.write_all(&self.answers)?;
            self.answers.clear();
        }
        Ok(())
    }

    const fn writer(&mut self) -> Writer<'_> {
        Writer {
            buffer: &mut self.answers,
            protocol: self.protocol,
        }
    }
}

fn note(publish: &Publish<'_>, now: Tick, arrivals: &mut Arrivals, shared: &Shared) {
    if arrivals.arrived(publish.topic, publish.payload, now) {
        shared.arrived.fetch_add(1, Ordering::Relaxed);
    }
}

fn answer(publish: &Publish<'_>, protocol: Protocol, answers: &mut Vec<u8>) {
    if let Some(id) = publish.packet_id {
        let mut writer = Writer {
            buffer: answers,
            protocol,
        };
        writer.puback(id);
    }
}

/// Nothing came in the time that a read may take.
fn is_only_quiet(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}
