//! One connection to the broker: what to say goes in, what the broker says comes out. Packets of
//! MQTT 3.1.1 are made and read in [`v3`], of MQTT 5 in [`v5`], both on rumqttc's codecs. Reading
//! and writing are independent: while reading pauses, acknowledgements and pings still leave. It
//! keeps nothing across a broken connection, and everything here may be dropped at any time.

mod stream;
mod v3;
mod v5;

use std::fmt;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use self::stream::Stream;
use super::intake::Publication;
use super::remote;
use crate::traffic::accept::{Protocol, RetainedPolicy, SourceSettings};
use crate::traffic::send::RemoteSettings;

/// One read at most. Four times this at most waits unread in our memory, or one packet.
const READ_BYTES: usize = 16 * 1024;
/// Acknowledgements that wait for a broker which does not read; no more are made meanwhile.
const WRITE_BYTES_MAX: usize = 64 * 1024;
/// Packet identifier of SUBSCRIBE, the only packet of ours that has one.
const SUBSCRIBE_ID: u16 = 1;

/// What the broker said.
#[derive(Debug)]
pub(super) enum Heard {
    /// SUBACK: for each filter, in their order, nothing or why it was refused.
    Subscribed(Vec<Option<String>>),
    /// PUBLISH.
    Published(Publication),
    /// Anything else: it lives.
    Alive,
}

/// A packet, or where it went wrong.
type Decoded = Result<Packet, Incomplete>;

/// A packet that the broker sent.
#[allow(
    clippy::large_enum_variant,
    reason = "a box for each PUBLISH would cost more"
)]
enum Packet {
    Connack {
        session_present: bool,
        /// What it asks for instead of our keep-alive (MQTT 5, 3.2.2.3.14).
        keep_alive: Option<Duration>,
    },
    Heard(Heard),
}

/// Why there is no packet.
enum Incomplete {
    /// The rest is still to come.
    Short,
    /// It is larger than we take.
    TooLarge,
    /// The broker ends the connection, or breaks the protocol.
    Fault(Fault),
}

/// Why a connection ended or was not made.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Password or certificates cannot be read: the operator's to mend.
    Credentials(String),
    /// The broker said no in CONNACK: the operator's to mend.
    Refused(String),
    /// Network or TLS; mends itself, or the text says what is wrong.
    Broken(String),
    /// Nothing was heard for too long.
    Silent,
    /// The broker breaks the protocol.
    Protocol(String),
}

impl Fault {
    /// Whether a person is needed.
    pub(super) const fn needs_a_person(&self) -> bool {
        matches!(self, Self::Credentials(_) | Self::Refused(_))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credentials(why) | Self::Broken(why) => f.write_str(why),
            Self::Refused(code) => write!(
                f,
                "the broker refuses us ({code}): check user name, password, client id and its access rules"
            ),
            Self::Silent => f.write_str("nothing was heard for one and a half keep-alives"),
            Self::Protocol(what) => write!(f, "the broker breaks the protocol: {what}"),
        }
    }
}

/// A connection that is up.
pub(super) struct Link {
    protocol: Protocol,
    packet_bytes_max: u32,
    remote: RemoteSettings,
    reader: ReadHalf<Box<dyn Stream>>,
    writer: WriteHalf<Box<dyn Stream>>,
    input: BytesMut,
    output: BytesMut,
    unflushed: bool,
    /// Bytes of a packet too large that are still to be thrown away.
    skip: usize,
    /// The broker kept our session.
    pub(super) session_present: bool,
    /// How often we must say something.
    pub(super) keep_alive: Duration,
}

impl Link {
    /// Connects; password and certificates are read now. Waits as long as it takes.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(super) async fn connect(settings: &SourceSettings, client_id: &str) -> Result<Self, Fault> {
        let access = remote::access(&settings.remote).map_err(Fault::Credentials)?;
        let stream = stream::dial(&settings.remote, access.tls).await?;
        let (reader, writer) = tokio::io::split(stream);
        let mut link = Self {
            protocol: settings.protocol,
            packet_bytes_max: settings.packet_bytes_max,
            remote: settings.remote.clone(),
            reader,
            writer,
            input: BytesMut::new(),
            output: match settings.protocol {
                Protocol::V311 => v3::connect(settings, client_id, access.login),
                Protocol::V5 => v5::connect(settings, client_id, access.login),
            },
            unflushed: true,
            skip: 0,
            session_present: false,
            keep_alive: keep_alive(settings),
        };
        link.greet().await?;
        Ok(link)
    }

    async fn greet(&mut self) -> Result<(), Fault> {
        loop {
            match self.decode() {
                Ok(Packet::Connack {
                    session_present,
                    keep_alive,
                }) => {
                    self.session_present = session_present;
                    let asked = keep_alive.filter(|time| !time.is_zero());
                    self.keep_alive = asked.unwrap_or(self.keep_alive);
                    return Ok(());
                }
                Err(Incomplete::Short) => self.step(true).await?,
                Err(Incomplete::Fault(fault)) => return Err(fault),
                Ok(_) | Err(Incomplete::TooLarge) => {
                    return Err(Fault::Protocol("it begins without CONNACK".into()));
                }
            }
        }
    }

    /// Says SUBSCRIBE at QoS 1 to all filters.
    pub(super) fn subscribe(&mut self, filters: &[String], retained: RetainedPolicy) {
        let packet = match self.protocol {
            Protocol::V311 => v3::subscribe(filters),
            Protocol::V5 => v5::subscribe(filters, retained),
        };
        self.output.extend_from_slice(&packet);
    }

    /// Says PUBACK (3.1.1 and 5, 3.4; in MQTT 5 without a reason it means success). `false`: no
    /// room now, try again after the next step.
    pub(super) fn acknowledge(&mut self, packet_id: u16) -> bool {
        let [high, low] = packet_id.to_be_bytes();
        let room = self.output.len() < WRITE_BYTES_MAX;
        if room {
            self.output.extend_from_slice(&[0x40, 2, high, low]);
        }
        room
    }

    /// Says PINGREQ (3.12).
    pub(super) fn ping(&mut self) {
        self.output.extend_from_slice(&[0xC0, 0]);
    }

    /// Says DISCONNECT (3.14) and waits until everything is written. The session stays.
    pub(super) async fn goodbye(&mut self) -> Result<(), Fault> {
        self.output.extend_from_slice(&[0xE0, 0]);
        while self.wants_to_write() {
            self.step(false).await?;
        }
        Ok(())
    }

    /// Moves some bytes: out what was said, and in, if `read`, what the broker says. Cancel safe.
    ///
    /// # Errors
    /// The connection broke.
    pub(super) async fn step(&mut self, read: bool) -> Result<(), Fault> {
        let writes = self.wants_to_write();
        let Self {
            remote,
            reader,
            writer,
            input,
            output,
            unflushed,
            ..
        } = self;
        input.reserve(if read { READ_BYTES } else { 0 });
        tokio::select! {
            count = reader.read_buf(input), if read => match count {
                Ok(0) => Err(Fault::Broken("the broker closed the connection".into())),
                Ok(_) => Ok(()),
                // With TLS 1.3 this is where the broker's verdict on our certificate comes.
                Err(error) => Err(stream::broken(remote, &error)),
            },
            written = write(writer, output, unflushed), if writes => {
                written.map_err(|error| stream::broken(remote, &error))
            }
            // Nothing to read for now and nothing to write.
            else => std::future::pending().await,
        }
    }

    fn wants_to_write(&self) -> bool {
        self.unflushed || !self.output.is_empty()
    }

    /// What the broker said next, as far as it was read.
    ///
    /// # Errors
    /// The broker ends the connection, or breaks the protocol.
    pub(super) fn next(&mut self) -> Result<Option<Heard>, Fault> {
        match self.decode() {
            Ok(Packet::Heard(heard)) => Ok(Some(heard)),
            Ok(Packet::Connack { .. }) => Err(Fault::Protocol("it says CONNACK again".into())),
            Err(Incomplete::Short) => Ok(None),
            Err(Incomplete::TooLarge) => self.too_large(),
            Err(Incomplete::Fault(fault)) => Err(fault),
        }
    }

    fn decode(&mut self) -> Decoded {
        let skipped = self.skip.min(self.input.len());
        self.input.advance(skipped);
        self.skip -= skipped;
        if self.input.is_empty() {
            return Err(Incomplete::Short);
        }
        match self.protocol {
            Protocol::V311 => v3::decode(&mut self.input, self.packet_bytes_max),
            Protocol::V5 => v5::decode(&mut self.input, self.packet_bytes_max),
        }
    }

    /// A PUBLISH too large to be taken. Not acknowledged it would be brought again for ever, with
    /// everything behind it; so its head is read and its payload thrown away as it comes.
    fn too_large(&mut self) -> Result<Option<Heard>, Fault> {
        let Some((publication, bytes)) = head(&self.input)? else {
            return Ok(None);
        };
        self.skip = bytes;
        Ok(Some(Heard::Published(publication)))
    }
}

/// Whole seconds, as MQTT has it (3.1.2.10). Zero would mean that nobody notices a dead peer.
fn keep_alive(settings: &SourceSettings) -> Duration {
    let seconds = settings.remote.keep_alive.as_secs();
    Duration::from_secs(seconds.clamp(1, u16::MAX.into()))
}

async fn write(
    writer: &mut WriteHalf<Box<dyn Stream>>,
    output: &mut BytesMut,
    unflushed: &mut bool,
) -> std::io::Result<()> {
    if output.is_empty() {
        writer.flush().await?;
        *unflushed = false;
    } else {
        writer.write_buf(output).await?;
        *unflushed = true;
    }
    Ok(())
}

/// A PUBLISH without its payload, from the first bytes of its packet, and the size of the packet;
/// `None`: more bytes are needed.
fn head(input: &[u8]) -> Result<Option<(Publication, usize)>, Fault> {
    let Some((&first, rest)) = input.split_first() else {
        return Ok(None);
    };
    if first >> 4 != 3 {
        return Err(Fault::Protocol(
            "it sends a packet larger than any that is no PUBLISH may be".into(),
        ));
    }
    let Some(length_bytes) = rest.iter().take(4).position(|byte| byte & 0x80 == 0) else {
        return Ok(None);
    };
    let (length, rest) = rest.split_at(length_bytes + 1);
    let fold = |sum, byte: &u8| (sum << 7) | usize::from(byte & 0x7F);
    let packet_bytes = 1 + length.len() + length.iter().rev().fold(0, fold);
    let Some((topic, rest)) = short(rest).and_then(|(n, rest)| rest.split_at_checked(n.into()))
    else {
        return Ok(None);
    };
    let packet_id = match (first >> 1 & 3, short(rest)) {
        (0, _) => None,
        (_, Some((id, _))) => Some(id),
        (_, None) => return Ok(None),
    };
    let publication = Publication {
        topic: Bytes::copy_from_slice(topic),
        payload: Bytes::new(),
        properties: None,
        packet_id,
        dup: first & 8 != 0,
        retain: first & 1 != 0,
        packet_bytes,
    };
    Ok(Some((publication, packet_bytes)))
}

fn short(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (short, rest) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*short), rest))
}

fn qos2() -> Fault {
    Fault::Protocol("it delivers at QoS 2 what we subscribed to at 1".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_head_of_a_large_publish_read_from_any_part_of_it() {
        let packet = b"\x3b\x80\x80\x04\x00\x03a/bxyz";
        for end in 0..11 {
            assert!(head(&packet[..end]).unwrap().is_none(), "{end}");
        }
        let (publication, bytes) = head(packet).unwrap().unwrap();
        assert_eq!(bytes, 4 + (4 << 14));
        assert_eq!(publication.topic.as_ref(), b"a/b");
        assert_eq!(publication.packet_id, Some(u16::from_be_bytes(*b"xy")));
        assert!(publication.dup && publication.retain);
        assert!(head(b"\x90\xff\xff\xff\x7f").is_err());
    }
}
