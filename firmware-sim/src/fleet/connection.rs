//! The door of one device: its socket and its timer. In come the unit's wishes, out go bytes; it
//! knows nothing of messages. What many devices can share, they share: a device that is not in its
//! turn holds no buffer.
#![allow(
    clippy::disallowed_methods,
    reason = "a device's door: it connects and waits"
)]

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rustix::net::sockopt::set_socket_send_buffer_size;
use tidegate_device::Tick;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::powered::Parted;
use super::stage::{Stage, count, uncount};
use super::timer::Timer;
use super::unit::{Link, Unit};
use crate::clock::Clock;
use crate::ledger::DeviceLedger;
use crate::wire::{Protocol, Writer};

/// The longest sleep: how long it takes until a stop is noticed.
const SLEEP_MAX: Duration = Duration::from_millis(500);
/// A TCP connection that is not there by then never comes: the device's own patience.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long a connection may refuse to take what was written before it is given up.
const BLOCKED_MAX: Duration = Duration::from_secs(30);
/// What the TCP stack of a small device has for one connection. Linux takes twice as much.
const SEND_BUFFER_BYTES: usize = 8 * 1024;
/// A server that sends a packet larger than this to a device is none: all it has to say is CONNACK
/// and PUBACK.
const PARTIAL_MAX: usize = 4 * 1024;

/// What all connections share.
pub(super) struct Shared {
    stage: Rc<Stage>,
    clock: Clock,
    timer: Timer,
    address: SocketAddr,
    /// The buffer of whoever is in its turn.
    scratch: Cell<Vec<u8>>,
}

/// The socket of one device.
#[derive(Default)]
struct Socket {
    stream: Option<TcpStream>,
    /// Written by the device and not yet taken by the connection.
    pending: Vec<u8>,
    pending_since: Tick,
    /// The beginning of a packet whose end did not come yet.
    partial: Vec<u8>,
    /// It counts among those that are up.
    counted_up: bool,
}

/// The life of one device, until the run is over and all is delivered, or too long over.
pub(super) async fn live(mut unit: Box<Unit>, index: u32, shared: Rc<Shared>) -> DeviceLedger {
    let mut socket = Socket::default();
    loop {
        let now = shared.clock.now();
        socket.listen(now, &mut unit, &shared.stage);
        if shared.is_done(
            unit.is_idle(&shared.stage) && socket.pending.is_empty(),
            now,
        ) {
            break;
        }
        let mut until = shared.turn(now, &mut unit, &mut socket);
        if let Wake::Dial = until {
            socket.dial(&mut unit, &shared).await;
            until = Wake::Now;
        }
        socket.count_up(unit.is_up(), &shared.stage);
        match until {
            Wake::At(tick) => socket.wait(&shared, now, tick, index).await,
            Wake::Now | Wake::Dial => tokio::task::yield_now().await,
        }
    }
    socket.say_goodbye(shared.stage.protocol);
    socket.count_up(false, &shared.stage);
    unit.finish()
}

/// When to go on.
enum Wake {
    Now,
    At(Tick),
    /// After a connection was tried.
    Dial,
}

impl Shared {
    pub(super) fn new(stage: Rc<Stage>, clock: Clock, address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            stage,
            clock,
            timer: Timer::start(clock)?,
            address,
            scratch: Cell::new(Vec::new()),
        })
    }

    /// Whether a device that has all delivered, or has not, is to go home.
    fn is_done(&self, delivered: bool, now: Tick) -> bool {
        let drain_max = match self.stage.stopped.get() {
            Some(_) => self.stage.drain_max.stopped,
            None => self.stage.drain_max.ended,
        };
        let end = self.stage.end();
        now > end && (delivered || now >= end.after(drain_max))
    }

    fn turn(&self, now: Tick, unit: &mut Unit, socket: &mut Socket) -> Wake {
        let mut out = self.scratch.take();
        out.clear();
        let turn = unit.turn(now, &self.stage, socket.pending.is_empty(), &mut out);
        match turn.link {
            Link::Cut => socket.cut(),
            Link::Keep | Link::Open => {
                if socket.write(now, &out).is_err() {
                    socket.lost(now, unit, &self.stage);
                }
            }
        }
        self.scratch.set(out);
        match turn.link {
            Link::Open => Wake::Dial,
            _ if turn.until <= now => Wake::Now,
            _ => Wake::At(turn.until),
        }
    }
}

impl Socket {
    async fn dial(&mut self, unit: &mut Unit, shared: &Shared) {
        self.cut();
        let stream = timeout(CONNECT_MAX, TcpStream::connect(shared.address)).await;
        let now = shared.clock.now();
        let Ok(Ok(stream)) = stream else {
            self.lost(now, unit, &shared.stage);
            return;
        };
        if !unit.is_flat_out() {
            // Without it a device would hide megabytes in the kernel, and readings would grow old there
            // instead of being superseded. Flat out none is, and so small a buffer would wait for the far
            // end's delayed acknowledgements.
            let _ = set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES);
        }
        // Without it an alarm would wait for the acknowledgement of the reading before it. That
        // neither can be set is no reason to stay away.
        let _ = stream.set_nodelay(true);
        self.stream = Some(stream);
        let mut out = Vec::with_capacity(64);
        unit.connect(&shared.stage, &mut out);
        if self.write(now, &out).is_err() {
            self.lost(now, unit, &shared.stage);
        }
    }

    /// Writes what is pending and then `bytes`; what the connection does not take stays pending.
    fn write(&mut self, now: Tick, bytes: &[u8]) -> io::Result<()> {
        let Some(stream) = &self.stream else {
            return Ok(());
        };
        if !self.pending.is_empty() {
            let taken = try_write(stream, &self.pending)?;
            if taken > 0 {
                self.pending_since = now;
            }
            self.pending.drain(..taken);
            if self.pending.is_empty() {
                // A device holds no buffer that it does not need.
                self.pending = Vec::new();
            } else if now.since(self.pending_since) > BLOCKED_MAX {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        let taken = if self.pending.is_empty() && !bytes.is_empty() {
            try_write(stream, bytes)?
        } else {
            0
        };
        if taken < bytes.len() {
            self.pending_since = now;
            self.pending
                .extend_from_slice(bytes.get(taken..).unwrap_or_default());
        }
        Ok(())
    }

    /// Hands the unit what came.
    fn listen(&mut self, now: Tick, unit: &mut Unit, stage: &Stage) {
        let mut buffer = [0; 2_048];
        while let Some(stream) = &self.stream {
            let read = match stream.try_read(&mut buffer) {
                Ok(0) => Err(Parted),
                Ok(length) => self.hear(now, unit, stage, buffer.get(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => Err(Parted),
            };
            if read.is_err() {
                self.lost(now, unit, stage);
            }
        }
    }

    fn hear(
        &mut self,
        now: Tick,
        unit: &mut Unit,
        stage: &Stage,
        bytes: Option<&[u8]>,
    ) -> Result<(), Parted> {
        let bytes = bytes.unwrap_or_default();
        if self.partial.is_empty() {
            let taken = unit.hear(now, stage, bytes)?;
            self.partial = bytes.get(taken..).unwrap_or_default().to_vec();
        } else {
            self.partial.extend_from_slice(bytes);
            let taken = unit.hear(now, stage, &self.partial)?;
            self.partial.drain(..taken);
        }
        if self.partial.len() > PARTIAL_MAX {
            return Err(Parted);
        }
        Ok(())
    }

    /// Until there is something to read, room to write, or `until`.
    async fn wait(&self, shared: &Shared, now: Tick, until: Tick, index: u32) {
        let until = until.min(now.after(SLEEP_MAX));
        let timer = shared.timer.wait(until, index);
        let Some(stream) = &self.stream else {
            timer.await;
            return;
        };
        let interest = if self.pending.is_empty() {
            Interest::READABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        };
        tokio::select! {
            biased;
            _ = stream.ready(interest) => {}
            () = timer => {}
        }
    }

    /// The far end ended it, or it never came.
    fn lost(&mut self, now: Tick, unit: &mut Unit, stage: &Stage) {
        count(&stage.tally.broken);
        self.cut();
        unit.disconnected(now);
    }

    /// Ends it without a word, as a cable does that is pulled.
    fn cut(&mut self) {
        if let Some(stream) = self.stream.take() {
            // Reset, not closed: thousands of closed ones would use up the local ports.
            let _ = stream.set_zero_linger();
        }
        self.pending = Vec::new();
        self.partial = Vec::new();
    }

    /// Ends it as it should be. Whoever does not take the word now, misses nothing.
    fn say_goodbye(&mut self, protocol: Protocol) {
        let Some(stream) = self.stream.take().filter(|_| self.pending.is_empty()) else {
            return;
        };
        let mut buffer = Vec::new();
        Writer {
            buffer: &mut buffer,
            protocol,
        }
        .disconnect();
        let _ = stream.try_write(&buffer);
    }

    fn count_up(&mut self, up: bool, stage: &Stage) {
        if up && !self.counted_up {
            count(&stage.tally.up);
        } else if !up && self.counted_up {
            uncount(&stage.tally.up);
        }
        self.counted_up = up;
    }
}

/// How much the connection took.
fn try_write(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.try_write(bytes) {
        Ok(taken) => Ok(taken),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(error),
    }
}
