//! The devices, flat out: the workload's connections in one thread, each publishing as fast as it is
//! acknowledged (QoS 1, a window of unacknowledged messages) or as fast as TCP takes it (QoS 0).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::wire::{self, Frame, Malformed, Prepared, Protocol};
use crate::workload::{PAYLOAD_BYTES, Stamp, Workload};

/// Messages that a connection writes at once at QoS 0: 64 KiB or so.
const QOS0_BATCH: u64 = 500;

/// Longest time without the answer that a device waits for.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// How the devices publish.
#[derive(Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) protocol: Protocol,
    pub(crate) qos: u8,
    /// Unacknowledged messages of one connection (QoS 1).
    pub(crate) window: u16,
}

/// What was published.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) messages: u64,
    /// Messages that the system refused with a reason (MQTT 5).
    pub(crate) refused: u64,
}

/// The connected devices, waiting for orders.
pub(crate) struct Load {
    orders: mpsc::Sender<Order>,
    results: mpsc::Receiver<io::Result<Sent>>,
}

struct Order {
    messages: u64,
    give_up: Instant,
}

impl Load {
    /// Connects all devices.
    pub(crate) fn connect(
        address: SocketAddr,
        manner: Manner,
        workload: &Arc<Workload>,
    ) -> io::Result<Self> {
        let (orders, orders_in) = mpsc::channel::<Order>();
        let (results_out, results) = mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let mut devices = runtime.block_on(in_time(
            Instant::now(),
            connect_all(address, manner, workload),
        ))?;
        std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || {
                for order in orders_in {
                    let sent = runtime.block_on(in_time(order.give_up, obey(&mut devices, &order)));
                    if results_out.send(sent).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self { orders, results })
    }

    /// Publishes so many messages in all and waits until they are acknowledged; gives up at
    /// `give_up`, and says how many went out.
    pub(crate) fn publish(&self, messages: u64, give_up: Instant) -> io::Result<Sent> {
        self.orders
            .send(Order { messages, give_up })
            .map_err(|_| io::ErrorKind::BrokenPipe)?;
        self.results.recv().map_err(|_| io::ErrorKind::BrokenPipe)?
    }
}

/// Ends what still waits ten seconds after `give_up`: a system that stopped to answer.
async fn in_time<T>(give_up: Instant, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let deadline = (give_up + ANSWER_MAX).into();
    tokio::time::timeout_at(deadline, work)
        .await
        .unwrap_or_else(|_| Err(io::Error::other("it stopped answering the devices")))
}

async fn connect_all(
    address: SocketAddr,
    manner: Manner,
    workload: &Workload,
) -> io::Result<Vec<Device>> {
    let mut devices = Vec::with_capacity(workload.connections());
    for number in 0..workload.connections() {
        devices.push(Device::connect(address, manner, workload, number).await?);
    }
    Ok(devices)
}

async fn obey(devices: &mut Vec<Device>, order: &Order) -> io::Result<Sent> {
    let mut tasks = JoinSet::new();
    let give_up = order.give_up;
    let connections = devices.len() as u64;
    for (number, mut device) in (0..).zip(devices.drain(..)) {
        let share = share_of(order.messages, number, connections);
        tasks.spawn(async move {
            let sent = device.publish(share, give_up).await;
            (device, sent)
        });
    }
    let mut total = Sent::default();
    while let Some(joined) = tasks.join_next().await {
        let (device, sent) = joined.map_err(io::Error::other)?;
        let sent = sent?;
        total.messages += sent.messages;
        total.refused += sent.refused;
        devices.push(device);
    }
    devices.sort_by_key(|device| device.number);
    Ok(total)
}

fn share_of(messages: u64, connection: u64, connections: u64) -> u64 {
    messages * (connection + 1) / connections - messages * connection / connections
}

/// One connection.
struct Device {
    number: usize,
    stream: TcpStream,
    manner: Manner,
    /// The packets of this device's topics, by turns.
    topics: Vec<(u32, Prepared)>,
    /// Messages sent in all; with the number of topics it gives topic and sequence.
    published: u64,
    acknowledged: u64,
    refused: u64,
    out: Vec<u8>,
    buffer: Vec<u8>,
    filled: usize,
}

impl Device {
    async fn connect(
        address: SocketAddr,
        mut manner: Manner,
        workload: &Workload,
        number: usize,
    ) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let receive_max = handshake(&mut stream, manner.protocol, number).await?;
        manner.window = manner.window.min(receive_max);
        let prepare = |topic: usize| {
            let name = &workload.topics()[topic];
            let packet = Prepared::new(name, manner.qos, manner.protocol, PAYLOAD_BYTES);
            (topic as u32, packet)
        };
        Ok(Self {
            number,
            stream,
            manner,
            topics: workload.topics_of(number).map(prepare).collect(),
            published: 0,
            acknowledged: 0,
            refused: 0,
            out: Vec::new(),
            buffer: vec![0; 16 * 1024],
            filled: 0,
        })
    }

    async fn publish(&mut self, messages: u64, give_up: Instant) -> io::Result<Sent> {
        let (start, refused) = (self.published, self.refused);
        let mut goal = start + messages;
        while self.published < goal || self.unacknowledged() > 0 {
            if Instant::now() > give_up {
                goal = self.published;
                if self.unacknowledged() > 0 {
                    break;
                }
            }
            self.fill(goal);
            if !self.out.is_empty() {
                self.stream.write_all(&self.out).await?;
                self.out.clear();
            }
            if self.manner.qos > 0 {
                self.read_acknowledgements().await?;
            }
        }
        Ok(Sent {
            messages: self.published - start,
            refused: self.refused - refused,
        })
    }

    fn unacknowledged(&self) -> u64 {
        match self.manner.qos {
            0 => 0,
            _ => self.published - self.acknowledged,
        }
    }

    /// Appends what the window takes.
    fn fill(&mut self, goal: u64) {
        let batch = match self.manner.qos {
            0 => QOS0_BATCH,
            _ => u64::from(self.manner.window) - self.unacknowledged(),
        };
        for _ in 0..batch.min(goal - self.published) {
            let topics = self.topics.len() as u64;
            let (topic, packet) = &self.topics[(self.published % topics) as usize];
            let stamp = Stamp {
                topic: *topic,
                sequence: self.published / topics,
                due: None,
            };
            let packet_id = (self.published % 65_535) as u16 + 1;
            packet.append(&mut self.out, packet_id, |payload| stamp.write(payload));
            self.published += 1;
        }
    }

    async fn read_acknowledgements(&mut self) -> io::Result<()> {
        let read = self.stream.read(&mut self.buffer[self.filled..]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.filled += read;
        let used = self.count_acknowledgements().map_err(invalid)?;
        self.buffer.copy_within(used..self.filled, 0);
        self.filled -= used;
        Ok(())
    }

    fn count_acknowledgements(&mut self) -> Result<usize, Malformed> {
        let mut used = 0;
        while let Some(frame) = Frame::first_of(&self.buffer[used..self.filled])? {
            used += frame.length;
            if frame.kind() != wire::PUBACK {
                return Err(Malformed);
            }
            let (_, reason) = frame.puback()?;
            self.refused += u64::from(reason >= 0x80);
            self.acknowledged += 1;
        }
        if self.acknowledged > self.published {
            return Err(Malformed);
        }
        Ok(used)
    }
}

/// Says CONNECT and waits for the CONNACK; returns its Receive Maximum.
async fn handshake(stream: &mut TcpStream, protocol: Protocol, number: usize) -> io::Result<u16> {
    let client_id = format!("device-{number}");
    stream
        .write_all(&wire::connect(&client_id, protocol))
        .await?;
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(frame) = Frame::first_of(&bytes).map_err(invalid)? {
            return accepted(&frame, protocol);
        }
    }
}

/// The Receive Maximum of a CONNACK that says yes.
pub(crate) fn accepted(frame: &Frame<'_>, protocol: Protocol) -> io::Result<u16> {
    match frame.connack(protocol).map_err(invalid)? {
        (0, receive_max) if frame.kind() == wire::CONNACK => Ok(receive_max),
        (reason, _) => Err(io::Error::other(format!(
            "the connection was refused with reason {reason:#04x}"
        ))),
    }
}

pub(crate) fn invalid(Malformed: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what came back is not MQTT")
}
