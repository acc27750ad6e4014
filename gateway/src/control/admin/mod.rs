//! The admin interface: what an operator, a probe and Prometheus ask a gateway that runs. Two
//! servers with the same routes: one on loopback, which only reads, and one on a Unix socket in the
//! state folder, for the gateway's user alone, which may also change things.
//!
//! [`http`] listens and keeps clients within bounds; [`question`] asks the path how it is;
//! [`routes`] answers; [`health`], [`metrics`] and [`screen`] are what is made of the answer.
//! [`client`] is the command line's end of the Unix socket; [`supervisor`] tells systemd, unasked.

pub mod client;
pub mod health;
pub mod http;
pub mod metrics;
pub mod process;
pub mod question;
pub mod routes;
pub mod screen;
pub mod supervisor;

use serde::{Deserialize, Serialize};

use crate::traffic::status::Status;
use health::Health;
use process::Process;

/// The name of the Unix socket in the state folder.
pub const SOCKET_NAME: &str = "tidegate.sock";

/// This build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The answer of `/status`: everything that is known, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The gateway's id.
    pub gateway: String,
    /// Its version.
    pub version: String,
    /// Seconds since its start.
    pub uptime_seconds: u64,
    /// What the process takes.
    pub process: Process,
    /// Whether it can do what it promises.
    pub health: Health,
    /// What the path says of itself.
    pub path: Status,
}
