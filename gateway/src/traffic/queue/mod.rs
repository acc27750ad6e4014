//! The bounded queues, one for each class, inside one memory budget. In comes a classified
//! message; out goes an `Admission`, and later the message itself when the
//! scheduler picks its class. What a class may lose is its [`Delivery`].

pub mod bounded;
pub mod budget;
pub mod class;
pub mod clients;
pub mod coalesce;
pub mod held;
pub mod pressure;
pub mod row;
pub mod spared;
pub mod summary;
pub mod thin;

use std::sync::Arc;
use std::time::Duration;

use super::spool::Order;
use pressure::PressureSettings;
use summary::SummarySettings;

/// What a class promises its senders, and so what it may lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Acknowledged when safe; when there is no room it is held and its sender paused.
    Guaranteed,
    /// Acknowledged when admitted; when there is no room the oldest gives way.
    Buffered,
    /// Acknowledged when admitted; under pressure only the newest value of each key stays.
    Latest,
}

/// What gives way in a class that may lose something, when it is full or a client has its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// What waits for longest: fresh data is worth more.
    DropOldest,
    /// What comes: it is refused, and its sender told where MQTT 5 can.
    DropNewest,
}

/// A class as the operator configured it.
#[derive(Clone, Debug)]
pub struct ClassSettings {
    /// Its name, unique, as in rules and logs.
    pub name: Arc<str>,
    /// What it promises.
    pub delivery: Delivery,
    /// Its share of the link against the other classes below the first; at least 1.
    pub weight: u32,
    /// How long a message of it is worth sending; `None`: for ever.
    pub ttl: Option<Duration>,
    /// The most memory that its queue takes, in bytes.
    pub queue_bytes_max: u64,
    /// The most of that which one client may hold, in bytes.
    pub client_bytes_max: u64,
    /// What gives way when there is no more room. Says nothing of a guaranteed class.
    pub when_full: WhenFull,
    /// When it is under pressure.
    pub pressure: PressureSettings,
    /// The most of the disk that it takes, in bytes; `None`: as much as there is.
    pub spool_bytes_max: Option<u64>,
    /// Whether its backlog or what is live goes first.
    pub order: Order,
    /// The upstream topic of what is replayed; `None`: the uplink's.
    pub replay_topic: Option<String>,
    /// Send as QoS 0 what arrived as QoS 0.
    pub keep_qos0: bool,
    /// A `latest` class sends at most one value for each key in this time; `None`: all that it can.
    pub every: Option<Duration>,
    /// Of what a `latest` class supersedes under pressure, one value for each key in this time goes to
    /// the spool; `None`: none.
    pub thin: Option<Duration>,
    /// What a `latest` class says of superseded values; `None`: nothing.
    pub summary: Option<SummarySettings>,
    /// The share of their rate, in 1/1000, at which devices of this class are read while it is under
    /// pressure; 1000: all of it.
    pub throttle_permille: u32,
}

impl ClassSettings {
    /// A class of which nothing else is said: a queue of so many bytes, of which one client may hold a
    /// quarter; an order as its delivery wants it.
    #[must_use]
    pub fn new(name: &str, delivery: Delivery, queue_bytes_max: u64) -> Self {
        Self {
            name: Arc::from(name),
            delivery,
            weight: 1,
            ttl: None,
            queue_bytes_max,
            client_bytes_max: queue_bytes_max / 4,
            when_full: WhenFull::DropOldest,
            pressure: PressureSettings::CLASS,
            spool_bytes_max: None,
            order: match delivery {
                // What is guaranteed keeps its order; of the rest fresh data does not wait behind days
                // of backlog.
                Delivery::Guaranteed => Order::Strict,
                Delivery::Buffered | Delivery::Latest => Order::LiveFirst,
            },
            replay_topic: None,
            keep_qos0: false,
            every: None,
            thin: None,
            summary: None,
            throttle_permille: 1000,
        }
    }
}
