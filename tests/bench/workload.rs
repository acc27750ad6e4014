//! What is published: the topics, who publishes on which, and the stamp in each payload by which
//! the sink knows topic, place and time of every message. Pure; both ends share one.

use std::time::{Duration, Instant};

/// Bytes of payload of every message.
pub(crate) const PAYLOAD_BYTES: usize = 100;
/// Connections that publish, but for a flood.
pub(crate) const CONNECTIONS: usize = 20;

/// The topics of one run. A topic's number is its place here; the last one may be the alarm.
pub(crate) struct Workload {
    topics: Vec<String>,
    connections: usize,
    alarm: bool,
    /// Due times are counted from here.
    pub(crate) epoch: Instant,
}

impl Workload {
    /// One topic for each connection.
    pub(crate) fn telemetry() -> Self {
        Self::of(CONNECTIONS, |n| format!("site/{n:06}/telemetry"), false)
    }

    /// So many connections, with one topic each.
    pub(crate) fn devices(connections: usize) -> Self {
        let mut workload = Self::of(connections, |n| format!("site/{n:06}/telemetry"), false);
        workload.connections = connections;
        workload
    }

    /// One topic for each connection, and one alarm beside them.
    pub(crate) fn telemetry_and_alarm() -> Self {
        let mut workload = Self::telemetry();
        workload.topics.push("site/1/alarm".to_owned());
        workload.alarm = true;
        workload
    }

    /// `count` topics, spread over 1,000 plants: of equal length however many there are, so that
    /// only their number differs.
    pub(crate) fn plants(count: usize) -> Self {
        Self::of(
            count,
            |n| format!("plant/{:04}/device/{n:06}", n % 1000),
            false,
        )
    }

    /// One connection that publishes on eight topics.
    pub(crate) fn flood() -> Self {
        let mut workload = Self::of(8, |n| format!("flood/mad/{n}"), false);
        workload.connections = 1;
        workload
    }

    fn of(count: usize, name: impl Fn(usize) -> String, alarm: bool) -> Self {
        Self {
            topics: (0..count).map(name).collect(),
            connections: CONNECTIONS,
            alarm,
            epoch: Instant::now(),
        }
    }

    /// All topics, the alarm last.
    pub(crate) fn topics(&self) -> &[String] {
        &self.topics
    }

    /// The numbers of the topics that a connection publishes on (never the alarm's).
    pub(crate) fn topics_of(&self, connection: usize) -> std::ops::Range<usize> {
        let count = self.topics.len() - usize::from(self.alarm);
        connection * count / self.connections..(connection + 1) * count / self.connections
    }

    /// How many connections publish.
    pub(crate) fn connections(&self) -> usize {
        self.connections
    }

    /// The number of the alarm topic.
    pub(crate) fn alarm(&self) -> Option<usize> {
        self.alarm.then(|| self.topics.len() - 1)
    }
}

/// What a payload says of its message.
#[derive(Clone, Copy)]
pub(crate) struct Stamp {
    /// Number of the topic.
    pub(crate) topic: u32,
    /// Place among the messages of that topic, from 0.
    pub(crate) sequence: u64,
    /// When it was due, since the epoch; `None` when nobody asks for its latency.
    pub(crate) due: Option<Duration>,
}

impl Stamp {
    const BYTES: usize = 20;

    /// Writes the stamp to the front of a payload.
    pub(crate) fn write(self, payload: &mut [u8]) {
        let due = self.due.map_or(u64::MAX, |due| due.as_nanos() as u64);
        payload[..4].copy_from_slice(&self.topic.to_be_bytes());
        payload[4..12].copy_from_slice(&self.sequence.to_be_bytes());
        payload[12..Self::BYTES].copy_from_slice(&due.to_be_bytes());
    }

    /// Reads the stamp of a payload that is whole.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        if payload.len() != PAYLOAD_BYTES {
            return None;
        }
        let due = u64::from_be_bytes(payload[12..Self::BYTES].try_into().ok()?);
        Some(Self {
            topic: u32::from_be_bytes(payload[..4].try_into().ok()?),
            sequence: u64::from_be_bytes(payload[4..12].try_into().ok()?),
            due: (due != u64::MAX).then(|| Duration::from_nanos(due)),
        })
    }
}
