//! Whole connections in memory: devices on one side, a relay that answers as told on the other.

#![allow(
    clippy::disallowed_methods,
    reason = "the relay, the devices and the clients of a test are tasks too"
)]

mod devices;
mod floods;
mod fuzz;
mod limits;
mod sessions;
mod wills;

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::traffic::accept::SubscribePolicy;
use crate::traffic::lanes::{Answer, Batch, Lane, Notice, REST_LANE_BYTES_MAX};
use crate::traffic::message::{ClassId, DoorId, Message};

const DEADLINE: Duration = Duration::from_secs(10);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what)
        .await
        .expect("it did not happen in time")
}

fn settings() -> ListenerSettings {
    ListenerSettings {
        bind: "127.0.0.1:0".parse().unwrap(),
        subscribe: SubscribePolicy::Refuse,
        connections_max: 100,
        sessions_max: 10,
        session_expiry_max: Duration::from_secs(3600),
        packet_bytes_max: 64 * 1024,
        receive_max: 4,
        connection_bytes_max: 1024 * 1024,
        topic_alias_max: 8,
        keep_alive_max: Duration::from_secs(600),
        client_rate_max: None,
        hold_max: Duration::from_millis(200),
        topic_bytes_max: 64,
        topic_levels_max: 8,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Open(DoorId),
    Withdraw(DoorId),
    Close(DoorId),
}

type Notices = Arc<Mutex<Vec<mpsc::Sender<Vec<Notice>>>>>;

/// A gateway of a listener's tasks and a relay in the test's hand.
struct Site {
    porter: Porter,
    tasks: JoinSet<()>,
    phase: watch::Sender<Phase>,
    urgent: mpsc::Receiver<Batch>,
    rest: mpsc::Receiver<Batch>,
    doors: mpsc::UnboundedReceiver<Told>,
    notices: Notices,
    unread: VecDeque<Message>,
}

impl Site {
    fn new() -> Self {
        Self::with(settings(), |_| {})
    }

    fn with(settings: ListenerSettings, patience: impl FnOnce(&mut Patience)) -> Self {
        Self::with_class(settings, patience, ClassId(1))
    }

    fn with_class(
        settings: ListenerSettings,
        change: impl FnOnce(&mut Patience),
        class: ClassId,
    ) -> Self {
        let mut patience = PATIENCE;
        change(&mut patience);
        let (urgent_in, urgent) = Lane::new(4, REST_LANE_BYTES_MAX);
        let (rest_in, rest) = Lane::new(4, REST_LANE_BYTES_MAX);
        let (doors_in, doors_out) = mpsc::channel(16);
        let (told, doors) = mpsc::unbounded_channel();
        let notices = Notices::default();
        tokio::spawn(register(doors_out, told, Arc::clone(&notices)));
        let (phase, phases) = watch::channel(Phase::Run);
        let registry = Registry::new(settings.sessions_max);
        let rules = Rules::compile(&[], &[], class, 1 << 20).unwrap();
        let shared = Shared {
            settings,
            patience,
            rules: Arc::new(rules),
            lanes: Lanes {
                urgent: urgent_in,
                rest: rest_in,
                doors: doors_in,
            },
            clock: Clock::start(),
            phase: phases,
            registry,
            crowd: Arc::default(),
        };
        Self {
            porter: Porter::new(Arc::new(shared)),
            tasks: JoinSet::new(),
            phase,
            urgent,
            rest,
            doors,
            notices,
            unread: VecDeque::new(),
        }
    }

    /// A device's end of a new connection whose pipe holds this many bytes.
    fn plug(&mut self, pipe: usize) -> Device {
        let (ours, theirs) = tokio::io::duplex(pipe);
        let peer = "192.0.2.1:5000".parse().unwrap();
        self.porter.admit(theirs, peer, &mut self.tasks);
        Device(ours)
    }

    /// A device whose CONNECT was welcomed with this CONNACK.
    async fn device(&mut self, connect: &[u8], connack: &[u8]) -> Device {
        let mut device = self.plug(64 * 1024);
        device.send(connect).await;
        device.expect(connack).await;
        device
    }

    async fn message(&mut self) -> Message {
        while self.unread.is_empty() {
            let batch = soon(self.rest.recv()).await.unwrap();
            self.unread.extend(batch.messages);
        }
        self.unread.pop_front().unwrap()
    }

    /// Fills the lane of the rest.
    fn block_rest(&self) {
        while let Ok(permit) = self.porter.shared.lanes.rest.try_reserve(0) {
            let batch = Batch {
                door: DoorId {
                    index: 0,
                    generation: 0,
                },
                at: crate::traffic::message::Tick::ZERO,
                messages: Vec::new(),
                unreadable: 0,
                forgotten: 0,
                room: None,
            };
            permit.put(batch, None);
        }
    }

    fn silent(&mut self) -> bool {
        self.unread.is_empty() && self.rest.try_recv().is_err() && self.urgent.try_recv().is_err()
    }

    async fn notify(&self, door: DoorId, notices: Vec<Notice>) {
        let channel = self.notices.lock().unwrap()[door.index as usize].clone();
        channel.send(notices).await.unwrap();
    }

    async fn answer(&self, message: &Message, answer: Answer) {
        let token = message.receipt.token.expect("somebody waits");
        let notices = vec![Notice::Answer { token, answer }];
        self.notify(message.receipt.door, notices).await;
    }

    async fn accept(&self, message: &Message) {
        self.answer(message, Answer::Accepted).await;
    }

    async fn told(&mut self) -> Told {
        soon(self.doors.recv()).await.unwrap()
    }

    /// Waits until no session is left.
    async fn empty(&mut self) {
        while soon(self.tasks.join_next()).await.is_some() {}
        assert_eq!(self.porter.shared.registry.seats(), 0);
        assert_eq!(
            self.porter.places.available_permits(),
            settings().connections_max
        );
    }
}

/// The relay's table of doors.
async fn register(
    mut doors: mpsc::Receiver<DoorEvent>,
    told: mpsc::UnboundedSender<Told>,
    table: Notices,
) {
    while let Some(event) = doors.recv().await {
        let event = match event {
            DoorEvent::Open { notices, id, .. } => {
                let mut table = table.lock().unwrap();
                let index = u32::try_from(table.len()).unwrap();
                table.push(notices);
                let door = DoorId {
                    index,
                    generation: 0,
                };
                let _ = id.send(door);
                Told::Open(door)
            }
            DoorEvent::Withdraw { door, .. } => Told::Withdraw(door),
            DoorEvent::Close(door) => Told::Close(door),
        };
        let _ = told.send(event);
    }
}

struct Device(DuplexStream);

impl Device {
    async fn send(&mut self, bytes: &[u8]) {
        soon(self.0.write_all(bytes)).await.unwrap();
    }

    async fn expect(&mut self, bytes: &[u8]) {
        let mut read = vec![0; bytes.len()];
        soon(self.0.read_exact(&mut read))
            .await
            .expect("closed instead of an answer");
        assert_eq!(read, bytes);
    }

    /// Whatever still comes before the end.
    async fn rest(&mut self) -> Vec<u8> {
        let mut read = Vec::new();
        soon(self.0.read_to_end(&mut read)).await.unwrap();
        read
    }

    /// An MQTT 5 DISCONNECT with this reason, then the end.
    async fn expect_disconnect(&mut self, reason: u8) {
        let rest = self.rest().await;
        assert_eq!(rest.first().copied(), Some(0xE0), "{rest:?}");
        assert_eq!(rest.get(2).copied(), Some(reason), "{rest:?}");
    }

    async fn expect_end(&mut self) {
        assert_eq!(self.rest().await, Vec::<u8>::new());
    }

    async fn ping(&mut self) {
        self.send(&[0xC0, 0]).await;
        self.expect(&[0xD0, 0]).await;
    }
}

fn packed(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut bytes = vec![first];
    let mut len = body.len();
    while len > 0x7F {
        bytes.push((len & 0x7F) as u8 | 0x80);
        len >>= 7;
    }
    bytes.push(len as u8);
    bytes.extend_from_slice(&body);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    let len = u16::try_from(text.len()).unwrap();
    [&len.to_be_bytes()[..], text.as_bytes()].concat()
}

fn connect_311(id: &str, clean: bool, keep_alive: u8) -> Vec<u8> {
    let flags = if clean { 2 } else { 0 };
    packed(
        0x10,
        &[b"\0\x04MQTT\x04", &[flags, 0, keep_alive], &text(id)],
    )
}

fn connect_5(id: &str, clean: bool, properties: &[u8]) -> Vec<u8> {
    let flags = if clean { 2 } else { 0 };
    let len = [u8::try_from(properties.len()).unwrap()];
    packed(
        0x10,
        &[
            b"\0\x04MQTT\x05",
            &[flags, 0, 60],
            &len,
            properties,
            &text(id),
        ],
    )
}

/// First byte: 0x30 and flags.
fn publish_311(first: u8, id: u16, topic: &str, payload: &str) -> Vec<u8> {
    let id = id.to_be_bytes();
    let id = if first & 0x06 == 0 { &[][..] } else { &id[..] };
    packed(first, &[&text(topic), id, payload.as_bytes()])
}

fn publish_5(first: u8, id: u16, topic: &str, properties: &[u8], payload: &str) -> Vec<u8> {
    let id = id.to_be_bytes();
    let id = if first & 0x06 == 0 { &[][..] } else { &id[..] };
    let len = [u8::try_from(properties.len()).unwrap()];
    packed(
        first,
        &[&text(topic), id, &len, properties, payload.as_bytes()],
    )
}

const WELCOME: &[u8] = &[0x20, 2, 0, 0];
const WELCOME_BACK: &[u8] = &[0x20, 2, 1, 0];

/// The CONNACK of these settings: Receive Maximum 4, Maximum Packet Size 64 KiB, 8 topic aliases.
fn welcome_5(present: u8) -> Vec<u8> {
    let properties = b"\x21\0\x04\x27\0\x01\0\0\x22\0\x08";
    packed(0x20, &[&[present, 0, 11], properties])
}

fn puback(id: u8) -> [u8; 4] {
    [0x40, 2, 0, id]
}

fn expiry(seconds: u32) -> Vec<u8> {
    [&[0x11][..], &seconds.to_be_bytes()].concat()
}
