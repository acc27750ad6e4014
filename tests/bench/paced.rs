//! The devices at light load: an open loop. Each message has a due time that does not depend on what
//! came before, and latency is counted from it, so a system that stalls cannot hide the wait of
//! those behind. One blocking thread; how late it was itself is part of the result.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::load::{accepted, invalid};
use crate::tally::latency_histogram;
use crate::wire::{self, Frame, Prepared, Protocol};
use crate::workload::{CONNECTIONS, PAYLOAD_BYTES, Stamp, Workload};

/// Messages a second that are no alarms.
pub(crate) const MESSAGES_PER_SECOND: u64 = 1_000;
/// Alarms a second.
pub(crate) const ALARMS_PER_SECOND: u64 = 10;

/// The connected devices.
pub(crate) struct Paced<'a> {
    workload: &'a Workload,
    streams: Vec<TcpStream>,
    topics: Vec<Prepared>,
    published: Vec<u64>,
    packet: Vec<u8>,
    /// How late each message left, in microseconds.
    pub(crate) lateness: Histogram<u64>,
}

impl<'a> Paced<'a> {
    /// Connects all devices.
    pub(crate) fn connect(
        address: SocketAddr,
        protocol: Protocol,
        workload: &'a Workload,
    ) -> io::Result<Self> {
        let prepare = |topic: &String| Prepared::new(topic, 1, protocol, PAYLOAD_BYTES);
        let connect = |number| connect(address, protocol, number);
        Ok(Self {
            streams: (0..CONNECTIONS).map(connect).collect::<io::Result<_>>()?,
            topics: workload.topics().iter().map(prepare).collect(),
            published: vec![0; workload.topics().len()],
            workload,
            packet: Vec::new(),
            lateness: latency_histogram(),
        })
    }

    /// Publishes for `seconds`; returns how many messages.
    pub(crate) fn publish(&mut self, seconds: u64) -> io::Result<u64> {
        let start = Instant::now() + Duration::from_millis(5);
        let schedule = schedule(seconds);
        for &(after, is_alarm) in &schedule {
            let due = start + after;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let late = Instant::now().saturating_duration_since(due);
            self.lateness.saturating_record(late.as_micros() as u64);
            self.send(is_alarm, due)?;
        }
        Ok(schedule.len() as u64)
    }

    fn send(&mut self, is_alarm: bool, due: Instant) -> io::Result<()> {
        let (topic, connection) = match self.workload.alarm() {
            Some(alarm) if is_alarm => (alarm, 0),
            _ => {
                let sent: u64 = self.published[..CONNECTIONS].iter().sum();
                let turn = (sent % CONNECTIONS as u64) as usize;
                (turn, turn)
            }
        };
        let stamp = Stamp {
            topic: topic as u32,
            sequence: self.published[topic],
            due: Some(due.saturating_duration_since(self.workload.epoch)),
        };
        // The alarm shares its connection with one other topic: odd and even keep their ids apart.
        let packet_id = ((self.published[topic] * 2 + u64::from(is_alarm)) % 65_534) as u16 + 1;
        self.published[topic] += 1;
        self.packet.clear();
        self.topics[topic].append(&mut self.packet, packet_id, |payload| stamp.write(payload));
        self.streams[connection].write_all(&self.packet)?;
        drain(&mut self.streams[connection])
    }
}

/// Connects, says CONNECT, waits for the CONNACK.
fn connect(address: SocketAddr, protocol: Protocol, number: usize) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.write_all(&wire::connect(&format!("device-{number}"), protocol))?;
    let mut bytes = [0; 1024];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut bytes[filled..])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        if let Some(frame) = Frame::first_of(&bytes[..filled]).map_err(invalid)? {
            accepted(&frame, protocol)?;
            stream.set_nonblocking(true)?;
            return Ok(stream);
        }
    }
}

/// Throws the acknowledgements away; nothing waits for them here.
fn drain(stream: &mut TcpStream) -> io::Result<()> {
    let mut bytes = [0; 1024];
    match stream.read(&mut bytes) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}

/// All due times, in order. Alarms come ten a second, each at a moment of its own inside the
/// millisecond, so that they meet the others in every phase.
fn schedule(seconds: u64) -> Vec<(Duration, bool)> {
    let others = (0..seconds * MESSAGES_PER_SECOND).map(|n| {
        (
            Duration::from_micros(n * 1_000_000 / MESSAGES_PER_SECOND),
            false,
        )
    });
    let alarms = (0..seconds * ALARMS_PER_SECOND).map(|n| {
        let phase = n.wrapping_mul(2_654_435_761) % 1_000;
        let micros = n * 1_000_000 / ALARMS_PER_SECOND + phase;
        (Duration::from_micros(micros), true)
    });
    let mut all: Vec<_> = others.chain(alarms).collect();
    all.sort_unstable();
    all
}
