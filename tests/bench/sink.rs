//! The upstream: a minimal MQTT server in a thread of its own. It answers each PUBLISH at QoS 1 with
//! a PUBACK and books every message. Either as fast as it can, one write for all that one read
//! brought; or so many messages a second, over all connections together, each served in its turn.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

use crate::wire::{self, Frame, Malformed, Protocol, Publish};

/// Bytes read at once: far more than any system writes at once.
const READ_BYTES: usize = 256 * 1024;
/// The largest packet that is read.
const PACKET_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What a slow upstream may make up for when its thread woke late; timers tick each millisecond.
const CATCH_UP_MAX: Duration = Duration::from_millis(10);

/// Books what arrives.
pub(crate) trait Book: Send + 'static {
    /// One PUBLISH, read at `now`.
    fn record(&mut self, publish: &Publish<'_>, now: Instant) -> Result<(), Malformed>;
}

/// A running sink.
pub(crate) struct Sink<B> {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State<B>>>,
    open: watch::Sender<bool>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct State<B> {
    book: B,
    connections: u64,
}

/// What the connections of a sink share.
struct Shared<B> {
    state: Arc<Mutex<State<B>>>,
    rate: Option<Rate>,
    open: watch::Receiver<bool>,
}

impl<B: Book> Sink<B> {
    /// Starts a sink at this address, that takes so many messages a second, or all.
    pub(crate) fn start(at: SocketAddr, book: B, per_second: Option<u32>) -> io::Result<Self> {
        let listener = StdListener::bind(at)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State {
            book,
            connections: 0,
        }));
        let (open, is_open) = watch::channel(true);
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::new(Shared {
            state: Arc::clone(&state),
            rate: per_second.map(Rate::new),
            open: is_open,
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("sink".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let listener = TcpListener::from_std(listener).expect("inside a runtime");
                    tokio::select! {
                        () = accept(&listener, &shared) => {}
                        _ = stopped => {}
                    }
                });
            })?;
        Ok(Self {
            address,
            state,
            open,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// How many connections said CONNECT so far.
    pub(crate) fn connections(&self) -> u64 {
        lock(&self.state).connections
    }

    /// Ends all connections and takes no more, or takes them again.
    pub(crate) fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }

    /// Shows the book to `read`.
    pub(crate) fn with_book<T>(&self, read: impl FnOnce(&mut B) -> T) -> T {
        read(&mut lock(&self.state).book)
    }
}

impl<B> Drop for Sink<B> {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<B>(state: &Mutex<State<B>>) -> MutexGuard<'_, State<B>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept<B: Book>(listener: &TcpListener, shared: &Arc<Shared<B>>) {
    while let Ok((stream, _)) = listener.accept().await {
        if !*shared.open.borrow() {
            continue;
        }
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            let mut open = shared.open.clone();
            tokio::select! {
                // A connection that ends badly shows as messages that did not arrive.
                _ = serve(stream, &shared) => {}
                _ = open.wait_for(|open| !open) => {}
            }
        });
    }
}

async fn serve<B: Book>(stream: TcpStream, shared: &Shared<B>) -> io::Result<()> {
    let mut line = Line {
        stream,
        buffer: vec![0; READ_BYTES],
        filled: 0,
        answers: Vec::with_capacity(READ_BYTES / 16),
        protocol: Protocol::V311,
    };
    while line.read().await? {
        match &shared.rate {
            None => line.answer(&shared.state, u64::MAX).await?,
            Some(rate) => {
                line.answer(&shared.state, 0).await?;
                while line.holds_a_packet()? {
                    rate.take().await;
                    line.answer(&shared.state, 1).await?;
                }
            }
        }
    }
    Ok(())
}

/// One connection.
struct Line {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    answers: Vec<u8>,
    protocol: Protocol,
}

impl Line {
    /// Waits for more; false at the end.
    async fn read(&mut self) -> io::Result<bool> {
        if self.filled == self.buffer.len() {
            if self.filled >= PACKET_BYTES_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.buffer.resize(self.filled * 2, 0);
        }
        let read = self.stream.read(&mut self.buffer[self.filled..]).await?;
        self.filled += read;
        Ok(read > 0)
    }

    fn holds_a_packet(&self) -> io::Result<bool> {
        let frame = Frame::first_of(&self.buffer[..self.filled]).map_err(invalid)?;
        Ok(frame.is_some())
    }

    /// Books and answers all whole packets up to the first PUBLISH that is one more than
    /// `publishes_max`.
    async fn answer<B: Book>(
        &mut self,
        state: &Mutex<State<B>>,
        publishes_max: u64,
    ) -> io::Result<()> {
        let used = self.take(state, publishes_max).map_err(invalid)?;
        self.buffer.copy_within(used..self.filled, 0);
        self.filled -= used;
        if !self.answers.is_empty() {
            self.stream.write_all(&self.answers).await?;
            self.answers.clear();
        }
        Ok(())
    }

    /// The same without the socket; returns how many bytes the packets took.
    fn take<B: Book>(
        &mut self,
        state: &Mutex<State<B>>,
        mut publishes_max: u64,
    ) -> Result<usize, Malformed> {
        let now = Instant::now();
        let state = &mut *lock(state);
        let answers = &mut self.answers;
        let bytes = &self.buffer[..self.filled];
        let mut used = 0;
        while let Some(frame) = Frame::first_of(&bytes[used..])? {
            match frame.kind() {
                wire::PUBLISH if publishes_max == 0 => break,
                wire::PUBLISH => {
                    publishes_max -= 1;
                    let publish = frame.publish(self.protocol)?;
                    state.book.record(&publish, now)?;
                    if let Some(id) = publish.packet_id {
                        wire::push_puback(answers, id);
                    }
                }
                wire::CONNECT => {
                    self.protocol = frame.connect_protocol()?;
                    state.connections += 1;
                    answers.extend_from_slice(wire::connack(self.protocol));
                }
                wire::SUBSCRIBE | wire::UNSUBSCRIBE => {
                    wire::push_subscription_answer(answers, &frame, self.protocol)?;
                }
                wire::PINGREQ => answers.extend_from_slice(&[0xd0, 0]),
                wire::DISCONNECT => {}
                _ => return Err(Malformed),
            }
            used += frame.length;
        }
        Ok(used)
    }
}

fn invalid(Malformed: Malformed) -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// A token bucket that all connections draw from, in the order in which they asked.
struct Rate {
    interval: Duration,
    next: tokio::sync::Mutex<Instant>,
}

impl Rate {
    fn new(per_second: u32) -> Self {
        Self {
            interval: Duration::from_secs(1) / per_second.max(1),
            next: tokio::sync::Mutex::new(Instant::now()),
        }
    }

    /// Waits for a token.
    async fn take(&self) {
        // Tokio's mutex is fair: nobody overtakes.
        let mut next = self.next.lock().await;
        let now = Instant::now();
        if let Some(earliest) = now.checked_sub(CATCH_UP_MAX) {
            *next = (*next).max(earliest);
        }
        if *next > now {
            tokio::time::sleep_until((*next).into()).await;
        }
        *next += self.interval;
    }
}
