//! Why a try to connect came to nothing, in words for the operator, and what it means for the next
//! try. In comes what [`dial`](super::dial) met, out go a sentence and a judgement. Pure.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::pairing::Ending;
use super::secret::SecretError;
use super::tls::TlsError;

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum DialError {
    /// The password cannot be read.
    Secret(SecretError),
    /// Certificates or keys cannot be used.
    Tls(TlsError),
    /// The settings make no CONNECT packet, or the host is no name for TLS.
    Settings(String),
    /// The name has no address.
    NoAddress(Option<io::Error>),
    /// This step failed at this address.
    Network(Step, SocketAddr, io::Error),
    /// TLS was refused, by either side.
    Handshake(String),
    /// The time was up at this step.
    TooLate(Step, Option<SocketAddr>, Duration),
    /// The upstream closed the connection instead of answering, over TLS or not.
    Closed(SocketAddr, bool),
    /// CONNACK said no.
    Refused(u8, String),
    /// The upstream takes no QoS 1.
    NoQos1,
    /// What answers does not speak MQTT.
    NotMqtt(SocketAddr),
}

/// How far a try came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Files,
    Name,
    Tcp,
    Tls,
    Connack,
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
            Self::Settings(what) | Self::Handshake(what) => f.write_str(what),
            Self::NoAddress(Some(error)) => write!(
                f,
                "its name cannot be resolved ({error}): check the name in `url` and this box's DNS"
            ),
            Self::NoAddress(None) => f.write_str("its name has no address"),
            Self::Network(step, address, error) => network(f, *step, *address, error),
            Self::TooLate(Step::Files, _, time) => write!(
                f,
                "its certificates and secrets could not be read within {time:?}: does their disk hang?"
            ),
            Self::TooLate(Step::Name, _, time) => {
                write!(f, "its name was not resolved within {time:?}: is the network up?")
            }
            Self::TooLate(Step::Tcp, address, time) => write!(
                f,
                "{}no answer within {time:?}: is the network up, does a firewall drop the port?",
                At(*address)
            ),
            Self::TooLate(Step::Tls, address, time) => write!(
                f,
                "{}it accepted the connection and did not finish TLS within {time:?}",
                At(*address)
            ),
            Self::TooLate(Step::Connack, address, time) => write!(
                f,
                "{}it accepted the connection and sent no CONNACK within {time:?}: is this an MQTT port, does it want TLS (mqtts://)?",
                At(*address)
            ),
            Self::Closed(address, false) => write!(
                f,
                "{}it closed the connection instead of a CONNACK: is this an MQTT port, does it want TLS (mqtts://), may this client connect?",
                At(Some(*address))
            ),
            Self::Closed(address, true) => write!(
                f,
                "{}it closed the connection instead of a CONNACK: may this client connect with its client id and certificate?",
                At(Some(*address))
            ),
            Self::Refused(_, why) => write!(f, "it refused: {why}"),
            Self::NoQos1 => f.write_str(
                "it takes no QoS 1, so it cannot acknowledge what it gets: use an upstream that does",
            ),
            Self::NotMqtt(address) => write!(
                f,
                "{}what answers does not speak MQTT: check host and port in `url`",
                At(Some(*address))
            ),
        }
    }
}

fn network(
    f: &mut fmt::Formatter<'_>,
    step: Step,
    address: SocketAddr,
    error: &io::Error,
) -> fmt::Result {
    let at = At(Some(address));
    match (step, error.kind()) {
        (Step::Tcp, io::ErrorKind::ConnectionRefused) => {
            write!(f, "{at}nothing listens there (connection refused)")
        }
        (Step::Tcp, _) => write!(f, "{at}cannot connect ({error})"),
        (Step::Tls, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => write!(
            f,
            "{at}it closed the connection during the TLS handshake: is this the port for mqtts://?"
        ),
        (Step::Tls, _) => write!(f, "{at}TLS failed ({error})"),
        _ => write!(f, "{at}the connection broke before CONNACK ({error})"),
    }
}

/// An address as the beginning of a sentence.
struct At(Option<SocketAddr>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |address| write!(f, "at {address}: "))
    }
}

impl DialError {
    /// What it means for the pair of connections.
    pub(super) const fn ending(&self) -> Ending {
        match self {
            Self::Refused(code, _) => Ending::Refused(*code),
            Self::Closed(..) => Ending::ClosedByPeer(None),
            _ => Ending::Other,
        }
    }

    /// Whether it will hardly change before somebody changes a setting.
    pub(super) const fn is_lasting(&self) -> bool {
        matches!(self, Self::NoQos1)
    }

    /// The fault without the address, which changes from try to try: what a repeat is known by.
    pub(super) fn key(&self) -> String {
        match self {
            Self::Network(step, _, error) => format!("{step:?} {:?}", error.kind()),
            Self::TooLate(step, ..) => format!("{step:?} too late"),
            Self::Closed(..) => "closed".to_owned(),
            Self::NotMqtt(_) => "not MQTT".to_owned(),
            other => other.to_string(),
        }
    }

    /// Whether another address is worth a try now. What an upstream answered is an answer; the next
    /// try begins with the next address all the same.
    pub(super) const fn is_worth_another(&self) -> bool {
        matches!(
            self,
            Self::TooLate(..) | Self::Network(Step::Tcp | Step::Tls, ..)
        )
    }
}
