//! One connection to the broker, over the library's two clients: MQTT 3.1.1 in [`v3`], MQTT 5 in
//! [`v5`]. In come acknowledgements and subscriptions, out comes what the broker says. Its rules
//! (see the library's traps in `gateway/ARCHITECTURE.md`): requests never wait, a client lives as
//! long as its connection and no longer, and a future of [`Wire::hear`] is finished or dropped with
//! the whole connection.

mod v3;
mod v5;

use std::fmt;
use std::time::Duration;

use super::intake::Publication;
use super::remote;
use crate::traffic::accept::{Protocol, SourceSettings};

/// Requests (acknowledgements, mostly) that wait inside the library. The rest waits with us.
const REQUESTS_MAX: usize = 64;
/// Largest packet that we send: SUBSCRIBE with every filter.
const OUTGOING_BYTES_MAX: usize = 256 * 1024;
/// The shortest keep-alive that both clients accept; they panic below it.
pub(super) const KEEP_ALIVE_MIN: Duration = Duration::from_secs(5);

/// What the broker said.
#[derive(Debug)]
pub(super) enum Heard {
    /// CONNACK; whether it kept our session.
    Connected {
        /// It kept the session: what was missed comes now.
        session_present: bool,
    },
    /// SUBACK: for each filter, in their order, nothing or why it was refused.
    Subscribed(Vec<Option<String>>),
    /// PUBLISH.
    Published(Publication),
    /// Our DISCONNECT is on its way.
    Goodbye,
}

/// Why a connection ended or was not made.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Password or certificates cannot be read: the operator's to mend.
    Credentials(String),
    /// The broker said no in CONNACK: the operator's to mend.
    Refused(String),
    /// Network, TLS or protocol; mends itself, or the text says what is wrong.
    Broken(String),
    /// A message so large that it cannot even be read and dropped: the operator's to mend.
    TooLarge(usize),
    /// Nothing was heard for too long.
    Silent,
    /// The broker breaks the protocol in a way that could lose messages.
    Protocol(&'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credentials(why) | Self::Broken(why) => f.write_str(why),
            Self::Refused(code) => write!(
                f,
                "the broker refuses us ({code}): check user name, password, client id and the broker's access rules"
            ),
            Self::TooLarge(bytes) => write!(
                f,
                "the broker brings a message of {bytes} bytes, too large to be read; nothing behind it gets \
                 through: raise this source's packet_max above it, use protocol = \"5\" (the broker then drops \
                 what is too large), or remove our session at the broker"
            ),
            Self::Silent => f.write_str("nothing was heard from the broker for two keep-alives"),
            Self::Protocol(what) => write!(f, "the broker breaks the protocol: {what}"),
        }
    }
}

/// The sending half: requests that never wait. `false`: no room now, try again.
#[derive(Debug)]
pub(super) enum Client {
    /// MQTT 3.1.1.
    V3(v3::Client),
    /// MQTT 5.
    V5(v5::Client),
}

impl Client {
    /// SUBSCRIBE at QoS 1 to all filters.
    pub(super) fn subscribe(&self, settings: &SourceSettings, filters: &[String]) -> bool {
        match self {
            Self::V3(client) => v3::subscribe(client, filters),
            Self::V5(client) => v5::subscribe(client, filters, settings.retained),
        }
    }

    /// PUBACK.
    pub(super) fn acknowledge(&self, packet_id: u16) -> bool {
        match self {
            Self::V3(client) => v3::acknowledge(client, packet_id),
            Self::V5(client) => v5::acknowledge(client, packet_id),
        }
    }

    /// DISCONNECT; the session stays.
    pub(super) fn disconnect(&self) -> bool {
        match self {
            Self::V3(client) => client.try_disconnect().is_ok(),
            Self::V5(client) => client.try_disconnect().is_ok(),
        }
    }
}

/// The half that does the work: it connects, reads and writes while it is polled.
pub(super) enum Wire {
    /// MQTT 3.1.1.
    V3(Box<v3::Wire>),
    /// MQTT 5.
    V5(Box<v5::Wire>),
}

impl Wire {
    /// The next things that the broker said, at most one read's worth (ten packets). Empty after
    /// something was only sent.
    ///
    /// # Errors
    /// The connection ended. The wire is of no use any more.
    pub(super) async fn hear(&mut self) -> Result<Vec<Heard>, Fault> {
        match self {
            Self::V3(wire) => v3::hear(wire).await,
            Self::V5(wire) => v5::hear(wire).await,
        }
    }
}

/// A new connection, made when it is first polled. Password and certificates are read now.
///
/// # Errors
/// Password or certificates cannot be read.
pub(super) fn open(settings: &SourceSettings, client_id: &str) -> Result<(Client, Wire), Fault> {
    let remote = &settings.remote;
    let access = remote::access(remote).map_err(Fault::Credentials)?;
    Ok(match settings.protocol {
        Protocol::V311 => {
            let (client, wire) = v3::open(settings, client_id, access);
            (Client::V3(client), Wire::V3(Box::new(wire)))
        }
        Protocol::V5 => {
            let (client, wire) = v5::open(settings, client_id, access);
            (Client::V5(client), Wire::V5(Box::new(wire)))
        }
    })
}

/// The host as the library wants it: it joins it with the port by a colon, so an IPv6 address needs
/// brackets. (With TLS the library also takes it for the certificate's name; there an address in
/// brackets fails, and a name must be used.)
fn host(settings: &SourceSettings) -> String {
    let host = &settings.remote.host;
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.clone()
    }
}

fn keep_alive(settings: &SourceSettings) -> Duration {
    let most = Duration::from_secs(u64::from(u16::MAX));
    settings.remote.keep_alive.clamp(KEEP_ALIVE_MIN, most)
}

fn connect_timeout_seconds(settings: &SourceSettings) -> u64 {
    settings.remote.connect_timeout.as_secs().max(1)
}
