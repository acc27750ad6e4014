//! The start of a connection: its first packet, what is agreed with the client, and the CONNACK.
//! User name and password are read and not looked at: every client is anonymous.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tracing::{debug, warn};

use super::Shared;
use super::buffer::ReadBuffer;
use crate::traffic::accept::decode::{Connect, ConnectFault, Fault, Will, connect, frame, reason};
use crate::traffic::accept::encode::{self, Announcement, Voice};
use crate::traffic::accept::{ListenerSettings, Protocol};

/// What is read of a first packet at once; a longer one is rare.
const GREETING_BYTES: usize = 4 * 1024;

/// Longest client id in bytes. MQTT demands 23 (3.1.1, 3.1.3.1); clouds take up to 256.
const CLIENT_ID_BYTES_MAX: usize = 1024;
/// How much of a client id appears in logs, in characters.
const LABEL_CHARS: usize = 64;

/// What was agreed with a client.
#[derive(Debug)]
pub(super) struct Agreement {
    /// The client id, given by the gateway where the client had none.
    pub(super) id: String,
    /// Whether the gateway gave it.
    assigned: bool,
    /// How the client is called in logs.
    pub(super) label: Arc<str>,
    pub(super) voice: Voice,
    pub(super) clean: bool,
    pub(super) will: Option<Will>,
    /// Keep-alive interval; `None`: none.
    pub(super) keep_alive: Option<Duration>,
    server_keep_alive: Option<u16>,
    /// How long the session is kept.
    pub(super) session_expiry: Duration,
    lowered_expiry: Option<u32>,
}

/// Reads the first packet; says no to it where no is to be said. `None`: there is no connection.
pub(super) async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    buffer: &mut ReadBuffer,
    peer: SocketAddr,
    shared: &Shared,
) -> Option<Agreement> {
    let first = tokio::time::timeout(
        shared.patience.connect,
        first_packet(stream, buffer, &shared.settings),
    );
    let refusal = match first.await {
        Ok(Ok(None)) => {
            debug!("{peer} went away before it sent CONNECT");
            return None;
        }
        Ok(Ok(Some(len))) => match agree(buffer, peer, &shared.settings) {
            Ok(agreement) => {
                buffer.take(len);
                return Some(agreement);
            }
            Err(refusal) => refusal,
        },
        Ok(Err(fault)) => ConnectFault {
            answer: None,
            fault,
        },
        Err(_) => {
            warn!(
                "{peer} sent no CONNECT within {} s and was closed; see what connects to this port",
                shared.patience.connect.as_secs()
            );
            return None;
        }
    };
    let fault = refusal.fault;
    warn!("{peer} {} and was closed; {}", fault.what, fault.remedy());
    if let Some(protocol) = refusal.answer {
        refuse(stream, protocol, fault.reason, shared).await;
    }
    None
}

/// The length of the first packet once it is whole; `None`: the stream ended.
async fn first_packet<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut ReadBuffer,
    settings: &ListenerSettings,
) -> Result<Option<usize>, Fault> {
    loop {
        let unread = buffer.unread();
        if unread.first().is_some_and(|&first| first != 0x10) {
            return Err(Fault::protocol(
                "sent something other than an MQTT CONNECT first",
            ));
        }
        if let Some(frame) = frame(unread, settings.packet_bytes_max)?
            && frame.body(unread).is_some()
        {
            return Ok(Some(frame.total_len));
        }
        let read =
            std::future::poll_fn(|cx| buffer.poll_read(stream, true, GREETING_BYTES, cx)).await;
        if !matches!(read, Ok(1..)) {
            return Ok(None);
        }
    }
}

/// Says a refusing CONNACK and closes, with bounded patience.
pub(super) async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    protocol: Protocol,
    reason: u8,
    shared: &Shared,
) {
    let mut out = Vec::new();
    encode::refuse(&mut out, protocol, reason);
    part(stream, &out, shared.patience.linger).await;
}

/// Writes the last bytes, says that no more will come, and waits a moment for the client to close:
/// a socket that is closed with unread bytes resets, and the client would never see the reason.
pub(super) async fn part<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    last: &[u8],
    patience: Duration,
) {
    /// What a client may still send before it is cut off.
    const UNHEARD_BYTES_MAX: usize = 256 * 1024;
    let parting = async {
        stream.write_all(last).await?;
        stream.shutdown().await?;
        let mut unheard = [0; 512];
        let mut total = 0;
        while total < UNHEARD_BYTES_MAX {
            let mut room = tokio::io::ReadBuf::new(&mut unheard);
            std::future::poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut room)).await?;
            match room.filled().len() {
                0 => break,
                read => total += read,
            }
        }
        std::io::Result::Ok(())
    };
    // Whatever happens here, the connection is closed: its client sees that much.
    let _ = tokio::time::timeout(patience, parting).await;
}

fn agree(
    buffer: &ReadBuffer,
    peer: SocketAddr,
    settings: &ListenerSettings,
) -> Result<Agreement, ConnectFault> {
    let unread = buffer.unread();
    let silent = |fault| ConnectFault {
        answer: None,
        fault,
    };
    let frame = frame(unread, settings.packet_bytes_max).map_err(silent)?;
    let (first, body) = frame
        .and_then(|frame| frame.body(unread).map(|body| (frame.first, body)))
        .ok_or(silent(Fault::malformed("sent half a packet")))?;
    let connect = connect(first, body)?;
    check(&connect, settings).map_err(|fault| ConnectFault {
        answer: Some(connect.protocol),
        fault,
    })?;
    Ok(terms(connect, peer, settings))
}

fn check(connect: &Connect<'_>, settings: &ListenerSettings) -> Result<(), Fault> {
    if connect.authentication {
        return Err(Fault::new(
            reason::BAD_AUTHENTICATION_METHOD,
            "asked for enhanced authentication, which is not offered",
        ));
    }
    let id = connect.client_id;
    if id.is_empty() && connect.protocol == Protocol::V311 && !connect.clean {
        return Err(Fault::new(
            reason::CLIENT_ID_INVALID,
            "asked for a kept session without a client id",
        ));
    }
    if id.len() > CLIENT_ID_BYTES_MAX {
        return Err(Fault::new(
            reason::CLIENT_ID_INVALID,
            "sent a client id of more than 1024 bytes",
        ));
    }
    match &connect.will {
        Some(will) => check_topic(&will.topic, settings),
        None => Ok(()),
    }
}

/// The listener's limits for topics.
#[inline]
pub(super) fn check_topic(topic: &str, settings: &ListenerSettings) -> Result<(), Fault> {
    let levels = 1 + topic.bytes().filter(|&byte| byte == b'/').count();
    if topic.len() > settings.topic_bytes_max || levels > settings.topic_levels_max {
        return Err(Fault::new(
            reason::TOPIC_INVALID,
            "sent a topic longer or deeper than the listener takes",
        ));
    }
    Ok(())
}

fn terms(connect: Connect<'_>, peer: SocketAddr, settings: &ListenerSettings) -> Agreement {
    let assigned = connect.client_id.is_empty();
    let id = if assigned {
        assigned_id()
    } else {
        connect.client_id.to_owned()
    };
    let (keep_alive, server_keep_alive) = keep_alive(&connect, settings.keep_alive_max);
    let asked = Duration::from_secs(u64::from(connect.session_expiry_seconds));
    let session_expiry = asked.min(settings.session_expiry_max);
    let lowered = session_expiry < asked && connect.protocol == Protocol::V5;
    Agreement {
        label: label(&id, peer),
        id,
        assigned,
        voice: Voice {
            protocol: connect.protocol,
            packet_bytes_max: connect.packet_bytes_max,
            problem_info: connect.problem_info,
        },
        clean: connect.clean,
        will: connect.will,
        keep_alive,
        server_keep_alive,
        session_expiry,
        lowered_expiry: lowered.then(|| seconds(session_expiry)),
    }
}

/// The interval that binds, and the one to announce where it is not the client's. 3.1.1 cannot be
/// told: there a longer one is held to the maximum, and none stays none.
fn keep_alive(connect: &Connect<'_>, max: Duration) -> (Option<Duration>, Option<u16>) {
    let asked = Duration::from_secs(u64::from(connect.keep_alive));
    match (connect.protocol, connect.keep_alive) {
        (Protocol::V311, 0) => (None, None),
        (_, 1..) if asked <= max => (Some(asked), None),
        (Protocol::V311, _) => (Some(max), None),
        (Protocol::V5, _) => {
            let told = u16::try_from(max.as_secs()).unwrap_or(u16::MAX).max(1);
            (Some(Duration::from_secs(u64::from(told))), Some(told))
        }
    }
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

/// A client id that nobody else can guess or already has.
fn assigned_id() -> String {
    let mut random = [0; 16];
    // Without the system's randomness ids could collide, and a collision takes a connection over.
    // It fails on no supported system after boot; a time-free fallback would be no better.
    if getrandom::fill(&mut random).is_err() {
        warn!(
            "the system gives no randomness, so client ids given to anonymous devices may collide"
        );
    }
    format!("tidegate-{:032x}", u128::from_le_bytes(random))
}

fn label(id: &str, peer: SocketAddr) -> Arc<str> {
    let id: String = id
        .chars()
        .take(LABEL_CHARS)
        .flat_map(char::escape_debug)
        .collect();
    Arc::from(format!("client {id} ({peer})"))
}

/// Appends the CONNACK. False: it does not fit the client's Maximum Packet Size.
pub(super) fn welcome(
    out: &mut Vec<u8>,
    agreement: &Agreement,
    session_present: bool,
    settings: &ListenerSettings,
) -> bool {
    let announcement = Announcement {
        session_present,
        session_expiry_seconds: agreement.lowered_expiry,
        receive_max: settings.receive_max,
        packet_bytes_max: settings.packet_bytes_max,
        topic_alias_max: settings.topic_alias_max,
        keep_alive: agreement.server_keep_alive,
        client_id: agreement.assigned.then_some(agreement.id.as_str()),
    };
    encode::welcome(out, agreement.voice, &announcement)
}
