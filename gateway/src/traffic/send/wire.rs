//! Serves one connection that is up, until it ends: writes what the relay hands over, reads
//! acknowledgements, keeps it alive. Neither direction waits for the other. In come commands and
//! bytes, out go bytes and events; it opens nothing and decides nothing about the next connection.

#![allow(
    clippy::disallowed_methods,
    reason = "a door: it waits for keep-alives"
)]

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep_until, timeout};

use super::answers::{self, Broken, End};
use super::dial::{Dialed, Stream};
use super::outbox::Outbox;
use super::pairing::Ending;
use super::pulse::{Beat, Pulse};
use super::socket::SendBuffer;
use super::throat::Throat;
use super::{Ack, Link, LinkCommand, LinkEvent, reason};
use crate::clock::Clock;
use crate::traffic::accept::Protocol;
use crate::traffic::message::Tick;

/// Room for one read: 4,096 PUBACKs.
const READ_BYTES: usize = 16 * 1024;
/// Time for what waits and DISCONNECT to leave at shutdown.
pub(super) const FAREWELL_MAX: Duration = Duration::from_secs(1);
/// Never, as far as a timer goes: the connection with no keep-alive looks up once an hour.
const LOOK_UP_AFTER: Duration = Duration::from_secs(3600);

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The relay said [`LinkCommand::Shutdown`], or is gone.
    Shutdown,
    /// The relay said [`LinkCommand::Reconnect`].
    Overdue,
    /// The upstream closed it without a word.
    Closed,
    /// The upstream said DISCONNECT.
    Disconnected(u8, Option<String>),
    /// The upstream sent something that it must not send.
    Broken(Broken),
    /// Nothing came although a PINGREQ asked for it.
    Silent(Duration),
    /// The socket failed.
    Failed(io::Error),
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Shutdown => f.write_str("the gateway stops"),
            Self::Overdue => f.write_str("acknowledgements are overdue"),
            Self::Closed => f.write_str("the upstream closed it"),
            Self::Disconnected(code, text) => {
                write!(f, "the upstream ended it: {}", reason::disconnected(*code))?;
                match text {
                    Some(text) => write!(f, "; it says: {}", reason::shown(text)),
                    None => Ok(()),
                }
            }
            Self::Broken(what) => write!(f, "the upstream sent {what}"),
            Self::Silent(time) => write!(
                f,
                "nothing came from the upstream for {time:?}, not even a PINGRESP"
            ),
            Self::Failed(error) if error.kind() == io::ErrorKind::TimedOut => {
                f.write_str("the network no longer takes what is sent")
            }
            Self::Failed(error) => write!(f, "the connection broke ({error})"),
        }
    }
}

impl Ended {
    /// What it means for the pair of connections.
    pub(super) fn ending(&self) -> Ending {
        match self {
            Self::Closed => Ending::ClosedByPeer(None),
            Self::Disconnected(reason, _) => Ending::ClosedByPeer(Some(*reason)),
            Self::Failed(error) if was_cut(error) => Ending::ClosedByPeer(None),
            _ => Ending::Other,
        }
    }

    /// Whether the upstream ended it, rather than we or the network between.
    pub(super) fn is_by_peer(&self) -> bool {
        match self {
            Self::Closed | Self::Disconnected(..) | Self::Broken(_) => true,
            Self::Failed(error) => was_cut(error),
            Self::Shutdown | Self::Overdue | Self::Silent(_) => false,
        }
    }

    /// The reason code of the upstream's DISCONNECT.
    pub(super) const fn reason(&self) -> Option<u8> {
        match self {
            Self::Disconnected(reason, _) => Some(*reason),
            _ => None,
        }
    }
}

/// The peer's own doing, as TCP and TLS report it.
fn was_cut(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// What a connection is called in events.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    pub(super) link: Link,
    pub(super) attempt: u64,
    pub(super) protocol: Protocol,
}

/// Serves a connection until it ends.
pub(super) async fn serve(
    dialed: Dialed,
    keep_alive: Duration,
    name: Name,
    commands: &mut mpsc::Receiver<LinkCommand>,
    events: &mpsc::Sender<LinkEvent>,
    clock: Clock,
) -> Ended {
    let (reader, writer) = split(dialed.stream);
    let throat = Throat::new(dialed.connected_in, dialed.answered_in);
    dialed.send_buffer.resize(throat.bytes());
    let wire = Wire {
        name,
        events,
        clock,
        writer,
        outbox: Outbox::default(),
        throat,
        send_buffer: dialed.send_buffer,
        told_bytes: 0,
        received: dialed.received,
        pulse: Pulse::new(keep_alive, clock.now()),
        keep_alive,
    };
    wire.run(reader, commands).await
}

struct Wire<'a> {
    name: Name,
    events: &'a mpsc::Sender<LinkEvent>,
    clock: Clock,
    writer: WriteHalf<Box<dyn Stream>>,
    outbox: Outbox,
    throat: Throat,
    send_buffer: SendBuffer,
    /// The last total of [`LinkEvent::Written`].
    told_bytes: u64,
    received: BytesMut,
    pulse: Pulse,
    keep_alive: Duration,
}

impl Wire<'_> {
    /// Runs until the end; a shutdown, however it is noticed, is said to the upstream.
    async fn run(
        mut self,
        reader: ReadHalf<Box<dyn Stream>>,
        commands: &mut mpsc::Receiver<LinkCommand>,
    ) -> Ended {
        match self.exchange(reader, commands).await {
            Err(Ended::Shutdown) => self.say_goodbye().await,
            Err(ended) => ended,
        }
    }

    async fn exchange(
        &mut self,
        mut reader: ReadHalf<Box<dyn Stream>>,
        commands: &mut mpsc::Receiver<LinkCommand>,
    ) -> Result<Infallible, Ended> {
        let mut timer = std::pin::pin!(sleep_until(self.timer_end(self.clock.now())));
        self.take_received().await?;
        loop {
            self.received.reserve(READ_BYTES);
            tokio::select! {
                read = reader.read_buf(&mut self.received) => self.read(read).await?,
                written = poll_fn(|context| {
                    self.outbox.poll_write(Pin::new(&mut self.writer), context)
                }), if self.outbox.is_busy() => self.written(written).await?,
                // Whatever waits to be written: an end must be heard. What may be written is bounded
                // by the relay's window, which has every packet until it is acknowledged.
                command = commands.recv() => self.obey(command, commands)?,
                () = timer.as_mut() => self.beat(timer.as_mut())?,
            }
        }
    }

    async fn read(&mut self, read: io::Result<usize>) -> Result<(), Ended> {
        match read {
            Ok(0) => Err(Ended::Closed),
            Ok(_) => {
                self.pulse.received(self.clock.now());
                self.take_received().await
            }
            Err(error) => Err(Ended::Failed(error)),
        }
    }

    /// Takes all whole packets. What was acknowledged before an end is told before it.
    async fn take_received(&mut self) -> Result<(), Ended> {
        // The shortest PUBACK has four bytes.
        let mut acks = Vec::with_capacity(self.received.len() / 4);
        let walk = answers::walk(&self.received, self.name.protocol, &mut acks);
        self.received.advance(walk.used.min(self.received.len()));
        if !acks.is_empty() {
            self.tell_acks(acks).await?;
        }
        match walk.end {
            None => Ok(()),
            Some(End::Disconnect { reason, text }) => Err(Ended::Disconnected(reason, text)),
            Some(End::Broken(broken)) => Err(Ended::Broken(broken)),
        }
    }

    async fn tell_acks(&self, acks: Vec<Ack>) -> Result<(), Ended> {
        let Name { link, attempt, .. } = self.name;
        self.tell(LinkEvent::Acks {
            link,
            attempt,
            acks,
        })
        .await
    }

    async fn written(&mut self, written: io::Result<()>) -> Result<(), Ended> {
        written.map_err(Ended::Failed)?;
        self.pulse.sent(self.clock.now(), self.outbox.ping_waits());
        let (Name { link, attempt, .. }, total) = (self.name, self.outbox.total());
        let (more, now) = (self.outbox.is_busy(), self.clock.now());
        if let Some(bytes) = self.throat.took(total, more, now) {
            self.send_buffer.resize(bytes);
        }
        if total == self.told_bytes {
            return Ok(());
        }
        self.told_bytes = total;
        self.tell(LinkEvent::Written {
            link,
            attempt,
            total,
        })
        .await
    }

    async fn tell(&self, event: LinkEvent) -> Result<(), Ended> {
        self.events.send(event).await.map_err(|_| Ended::Shutdown)
    }

    /// Takes the command and those behind it, so that what waits goes out with one write.
    fn obey(
        &mut self,
        first: Option<LinkCommand>,
        commands: &mut mpsc::Receiver<LinkCommand>,
    ) -> Result<(), Ended> {
        let mut next = Some(first.unwrap_or(LinkCommand::Shutdown));
        while let Some(command) = next {
            match command {
                LinkCommand::Write { attempt, packets } if attempt == self.name.attempt => {
                    self.outbox.push(packets);
                }
                LinkCommand::Reconnect { attempt } if attempt == self.name.attempt => {
                    return Err(Ended::Overdue);
                }
                LinkCommand::Shutdown => return Err(Ended::Shutdown),
                LinkCommand::Write { .. } | LinkCommand::Reconnect { .. } | LinkCommand::Hurry => {}
            }
            next = commands.try_recv().ok();
        }
        Ok(())
    }

    fn beat(&mut self, timer: Pin<&mut Sleep>) -> Result<(), Ended> {
        let now = self.clock.now();
        match self.pulse.beat(now) {
            Beat::Dead => {
                return Err(Ended::Silent(self.keep_alive + self.keep_alive / 2));
            }
            Beat::Ping => self.outbox.push_ping(),
            Beat::Wait(_) => {}
        }
        timer.reset(self.timer_end(now));
        Ok(())
    }

    /// When to look at the keep-alive next. What is sent and received in between moves it away, and
    /// then the look finds nothing to do. With a PINGREQ queued the look comes soon, since the time
    /// for its answer begins when it leaves.
    fn timer_end(&self, now: Tick) -> tokio::time::Instant {
        let mut pulse = self.pulse;
        let look = match pulse.beat(now) {
            Beat::Wait(until) => until,
            Beat::Ping | Beat::Dead => now,
        };
        self.clock
            .instant(look.min(now.after(LOOK_UP_AFTER)))
            .into()
    }

    /// Lets out what waits, says DISCONNECT (3.14) and closes; bounded.
    async fn say_goodbye(mut self) -> Ended {
        // Reason 0 is left out, and 3.1.1 has none: the same two bytes for both.
        self.outbox.push(vec![0xE0, 0]);
        let leave = async {
            while self.outbox.is_busy() {
                poll_fn(|context| self.outbox.poll_write(Pin::new(&mut self.writer), context))
                    .await?;
            }
            self.writer.shutdown().await
        };
        // The peer learns the end in any case; what it acknowledged before has been told.
        let _ = timeout(FAREWELL_MAX, leave).await;
        Ended::Shutdown
    }
}
