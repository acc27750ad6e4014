//! The client gone mad: one connection that publishes as fast as it is let, beside the fleet. It is none of
//! the fleet's devices: their firmware has room for 28 unacknowledged messages, and what a gateway must bear
//! is a client that fills all of its `receive_max`. In comes an address, out comes how many it sent; it
//! keeps no account of what arrives.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::wire::{self, Frame, Prepared, Protocol, accepted, invalid};

/// What it publishes on.
pub(crate) const TOPICS: &str = "flood/#";
/// How many topics it goes round.
const TOPIC_COUNT: u64 = 8;
/// Bytes of payload.
const PAYLOAD_BYTES: usize = 100;
/// What the gateway's default `receive_max` allows.
const WINDOW: u64 = 256;
/// Messages that it writes at once at QoS 0: 64 KiB or so.
const QOS0_BATCH: u64 = 500;
/// A system that takes nothing or answers nothing for so long has stopped.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A flood that goes on.
pub(crate) struct Flood(JoinHandle<io::Result<u64>>);

impl Flood {
    /// Begins one: QoS 0, as fast as TCP takes it, or in a guaranteed class QoS 1, as fast as it is
    /// acknowledged.
    pub(crate) fn start(address: SocketAddr, class: &str, length: Duration) -> io::Result<Self> {
        let mut client = Client::connect(address, u8::from(class == "critical"))?;
        std::thread::Builder::new()
            .name("flood".to_owned())
            .spawn(move || client.flood(length))
            .map(Self)
    }

    /// Waits for its end; how many it sent. A flood that is not answered has sent what nobody knows.
    pub(crate) fn finish(self) -> Option<u64> {
        self.0.join().ok()?.ok()
    }
}

struct Client {
    stream: TcpStream,
    qos: u8,
    window: u64,
    topics: Vec<Prepared>,
    sent: u64,
    acknowledged: u64,
    /// Read and not yet understood.
    received: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr, qos: u8) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        let prepare = |number| {
            let topic = format!("flood/mad/{number}");
            Prepared::new(&topic, qos, Protocol::V5, PAYLOAD_BYTES)
        };
        let mut client = Self {
            stream,
            qos,
            window: WINDOW,
            topics: (0..TOPIC_COUNT).map(prepare).collect(),
            sent: 0,
            acknowledged: 0,
            received: Vec::new(),
        };
        client
            .stream
            .write_all(&wire::connect("flood", Protocol::V5))?;
        client.window = client.connack()?.min(WINDOW);
        Ok(client)
    }

    /// Waits for the CONNACK; gives its Receive Maximum.
    fn connack(&mut self) -> io::Result<u64> {
        loop {
            if let Some(frame) = Frame::first_of(&self.received).map_err(invalid)? {
                let receive_max = accepted(&frame, Protocol::V5)?;
                let length = frame.length;
                self.received.drain(..length);
                return Ok(receive_max.into());
            }
            self.read()?;
        }
    }

    fn flood(&mut self, length: Duration) -> io::Result<u64> {
        let end = Instant::now() + length;
        let mut out = Vec::new();
        while Instant::now() < end {
            self.fill(&mut out);
            self.stream.write_all(&out)?;
            out.clear();
            if self.qos > 0 {
                self.read()?;
                self.count_acknowledgements()?;
            }
        }
        Ok(self.sent)
    }

    fn fill(&mut self, out: &mut Vec<u8>) {
        let batch = match self.qos {
            0 => QOS0_BATCH,
            _ => self.window - (self.sent - self.acknowledged),
        };
        for _ in 0..batch {
            let packet_id = (self.sent % 65_535) as u16 + 1;
            let topic = &self.topics[(self.sent % TOPIC_COUNT) as usize];
            topic.append(out, packet_id, |_| {});
            self.sent += 1;
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4_096];
        let read = self.stream.read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.received.extend_from_slice(&buffer[..read]);
        Ok(())
    }

    fn count_acknowledgements(&mut self) -> io::Result<()> {
        let mut used = 0;
        while let Some(frame) = Frame::first_of(&self.received[used..]).map_err(invalid)? {
            used += frame.length;
            if frame.kind() == wire::PUBACK {
                self.acknowledged += 1;
            }
        }
        self.received.drain(..used);
        if self.acknowledged > self.sent {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(())
    }
}
