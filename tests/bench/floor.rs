//! The floor: a forwarder without any logic, in a process of its own. It reads PUBLISH, forwards it
//! at QoS 1 under another packet id, and hands each PUBACK back to the sender: both hops, batched,
//! one thread, nothing parsed that need not be. What a gateway costs above it is what it does.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::wire::{self, Frame, Malformed, Protocol, accepted, invalid};

/// Unacknowledged messages at which the devices are no longer read: with one more read from each
/// (20 x 500 messages) packet ids still suffice.
const IN_FLIGHT_MAX: usize = 30_000;
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// Runs until killed.
pub(crate) fn run(listen: SocketAddr, upstream: SocketAddr, protocol: Protocol) -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?
        .block_on(forward(listen, upstream, protocol))
}

/// What the tasks share; they all run on one thread.
struct Shared {
    book: Mutex<Book>,
    /// There is something to send upstream.
    upstream: Notify,
    /// There is room again.
    room: Notify,
}

struct Book {
    /// Packets for the upstream.
    out: Vec<u8>,
    /// Who waits for a packet id, and what it calls the message; index: packet id.
    owners: Vec<Option<Owner>>,
    next: u16,
    in_flight: usize,
}

struct Owner {
    sender: Option<(Arc<Sender>, u16)>,
}

/// A device's way back.
#[derive(Default)]
struct Sender {
    acknowledgements: Mutex<Vec<u8>>,
    wake: Notify,
}

async fn forward(listen: SocketAddr, upstream: SocketAddr, protocol: Protocol) -> io::Result<()> {
    let mut stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    stream.write_all(&wire::connect("floor", protocol)).await?;
    let shared = Arc::new(Shared {
        book: Mutex::new(Book {
            out: Vec::new(),
            owners: (0..=u16::MAX).map(|_| None).collect(),
            next: 1,
            in_flight: 0,
        }),
        upstream: Notify::new(),
        room: Notify::new(),
    });
    let (read, write) = stream.into_split();
    let listener = TcpListener::bind(listen).await?;
    tokio::select! {
        ended = read_upstream(read, &shared, protocol) => ended,
        ended = write_upstream(write, &shared) => ended,
        ended = accept(&listener, &shared) => ended,
    }
}

async fn accept(listener: &TcpListener, shared: &Arc<Shared>) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let sender = Arc::new(Sender::default());
        let (read, write) = stream.into_split();
        tokio::spawn(acknowledge(write, Arc::clone(&sender)));
        tokio::spawn(read_device(read, sender, Arc::clone(shared)));
    }
}

async fn read_device(
    mut stream: OwnedReadHalf,
    sender: Arc<Sender>,
    shared: Arc<Shared>,
) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let mut filled = 0;
    let mut protocol = Protocol::V311;
    loop {
        while lock(&shared.book).in_flight > IN_FLIGHT_MAX {
            shared.room.notified().await;
        }
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let used = take_in(&buffer[..filled], &mut protocol, &sender, &shared).map_err(invalid)?;
        buffer.copy_within(used..filled, 0);
        filled -= used;
        shared.upstream.notify_one();
    }
}

fn take_in(
    bytes: &[u8],
    protocol: &mut Protocol,
    sender: &Arc<Sender>,
    shared: &Shared,
) -> Result<usize, Malformed> {
    let mut used = 0;
    let book = &mut *lock(&shared.book);
    while let Some(frame) = Frame::first_of(&bytes[used..])? {
        let whole = &bytes[used..used + frame.length];
        used += frame.length;
        match frame.kind() {
            wire::PUBLISH => book.push(&frame, whole, sender)?,
            wire::CONNECT => {
                *protocol = frame.connect_protocol()?;
                lock(&sender.acknowledgements).extend_from_slice(wire::connack(*protocol));
                sender.wake.notify_one();
            }
            _ => {}
        }
    }
    Ok(used)
}

impl Book {
    /// Copies a PUBLISH to the upstream's packets, at QoS 1 and with a packet id of its own.
    fn push(
        &mut self,
        frame: &Frame<'_>,
        whole: &[u8],
        sender: &Arc<Sender>,
    ) -> Result<(), Malformed> {
        let topic_end = 2 + usize::from(u16::from_be_bytes(
            frame
                .body
                .get(..2)
                .ok_or(Malformed)?
                .try_into()
                .unwrap_or([0; 2]),
        ));
        let id = self.next;
        self.next = self.next.checked_add(1).unwrap_or(1);
        let header = whole.len() - frame.body.len();
        let (topic, rest) = frame.body.split_at_checked(topic_end).ok_or(Malformed)?;
        if frame.first & 0x06 == 0 {
            wire::push_header(&mut self.out, wire::PUBLISH | 0x02, frame.body.len() + 2);
            self.out.extend_from_slice(topic);
            self.out.extend_from_slice(&id.to_be_bytes());
            self.out.extend_from_slice(rest);
            self.owners[usize::from(id)] = Some(Owner { sender: None });
        } else {
            let &[high, low, ..] = rest else {
                return Err(Malformed);
            };
            let at = self.out.len() + header + topic_end;
            self.out.extend_from_slice(whole);
            self.out[at..at + 2].copy_from_slice(&id.to_be_bytes());
            let theirs = u16::from_be_bytes([high, low]);
            self.owners[usize::from(id)] = Some(Owner {
                sender: Some((Arc::clone(sender), theirs)),
            });
        }
        self.in_flight += 1;
        Ok(())
    }
}

async fn write_upstream(mut stream: OwnedWriteHalf, shared: &Shared) -> io::Result<()> {
    let mut packets = Vec::new();
    loop {
        shared.upstream.notified().await;
        std::mem::swap(&mut packets, &mut lock(&shared.book).out);
        stream.write_all(&packets).await?;
        packets.clear();
    }
}

async fn read_upstream(
    mut stream: OwnedReadHalf,
    shared: &Shared,
    protocol: Protocol,
) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let used = hand_back(&buffer[..filled], shared, protocol)?;
        buffer.copy_within(used..filled, 0);
        filled -= used;
        shared.room.notify_waiters();
    }
}

fn hand_back(bytes: &[u8], shared: &Shared, protocol: Protocol) -> io::Result<usize> {
    let mut used = 0;
    let book = &mut *lock(&shared.book);
    while let Some(frame) = Frame::first_of(&bytes[used..]).map_err(invalid)? {
        used += frame.length;
        if frame.kind() == wire::CONNACK {
            accepted(&frame, protocol)?;
            continue;
        }
        let (id, _) = frame.puback().map_err(invalid)?;
        let Some(owner) = book.owners[usize::from(id)].take() else {
            continue;
        };
        book.in_flight -= 1;
        if let Some((sender, theirs)) = owner.sender {
            wire::push_puback(&mut lock(&sender.acknowledgements), theirs);
            sender.wake.notify_one();
        }
    }
    Ok(used)
}

async fn acknowledge(mut stream: OwnedWriteHalf, sender: Arc<Sender>) -> io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        sender.wake.notified().await;
        std::mem::swap(&mut bytes, &mut lock(&sender.acknowledgements));
        stream.write_all(&bytes).await?;
        bytes.clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
