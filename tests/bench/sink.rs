//! The upstream: a minimal MQTT server in a thread of its own. It answers each PUBLISH at QoS 1 with
//! a PUBACK, one write for all that one read brought, and books every message in the tally.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::tally::{Counts, Tally};
use crate::wire::{self, Frame, Malformed, Protocol};
use crate::workload::Workload;

/// Bytes read at once: far more than any system writes at once.
const READ_BYTES: usize = 256 * 1024;

/// A running sink.
pub(crate) struct Sink {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    tally: Tally,
    connections: u64,
}

impl Sink {
    /// Starts a sink on a free port of the loopback.
    pub(crate) fn start(workload: Arc<Workload>) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State {
            tally: Tally::new(workload),
            connections: 0,
        }));
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&state);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
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
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// What arrived so far, and when the last of it did.
    pub(crate) fn progress(&self) -> (Counts, Option<Instant>) {
        let state = lock(&self.state);
        (state.tally.counts, state.tally.last_arrival)
    }

    /// How many connections said CONNECT so far.
    pub(crate) fn connections(&self) -> u64 {
        lock(&self.state).connections
    }

    /// Forgets the latencies of the warm-up.
    pub(crate) fn forget_latencies(&self) {
        let tally = &mut lock(&self.state).tally;
        tally.alarms.reset();
        tally.others.reset();
    }

    /// Shows the tally to `read`.
    pub(crate) fn with_tally<T>(&self, read: impl FnOnce(&Tally) -> T) -> T {
        read(&lock(&self.state).tally)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: &TcpListener, state: &Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let state = Arc::clone(state);
        tokio::spawn(async move {
            // A connection that ends badly shows as messages that did not arrive.
            let _ = serve(stream, &state).await;
        });
    }
}

async fn serve(mut stream: TcpStream, state: &Mutex<State>) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let mut filled = 0;
    let mut answers = Vec::with_capacity(READ_BYTES / 16);
    let mut protocol = Protocol::V311;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let used = answer(&buffer[..filled], &mut protocol, state, &mut answers)
            .map_err(|Malformed| io::Error::from(io::ErrorKind::InvalidData))?;
        buffer.copy_within(used..filled, 0);
        filled -= used;
        if !answers.is_empty() {
            stream.write_all(&answers).await?;
            answers.clear();
        }
    }
}

/// Books and answers all whole packets in `bytes`; returns how many bytes they took.
fn answer(
    bytes: &[u8],
    protocol: &mut Protocol,
    state: &Mutex<State>,
    answers: &mut Vec<u8>,
) -> Result<usize, Malformed> {
    let now = Instant::now();
    let state = &mut *lock(state);
    let mut used = 0;
    while let Some(frame) = Frame::first_of(&bytes[used..])? {
        used += frame.length;
        match frame.kind() {
            wire::PUBLISH => {
                let publish = frame.publish(*protocol)?;
                let has_id = publish.has_user_property()?;
                state.tally.record(&publish, has_id, now);
                if let Some(id) = publish.packet_id {
                    wire::push_puback(answers, id);
                }
            }
            wire::CONNECT => {
                *protocol = frame.connect_protocol()?;
                state.connections += 1;
                answers.extend_from_slice(wire::connack(*protocol));
            }
            wire::SUBSCRIBE | wire::UNSUBSCRIBE => {
                wire::push_subscription_answer(answers, &frame, *protocol)?;
            }
            wire::PINGREQ => answers.extend_from_slice(&[0xd0, 0]),
            wire::DISCONNECT => {}
            _ => return Err(Malformed),
        }
    }
    Ok(used)
}
