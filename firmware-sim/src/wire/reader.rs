//! Reads packets from the front of a buffer. In come bytes, out go borrowed packets; a length that
//! cannot be is [`Malformed`], never a panic.

use super::Protocol;

/// What the peer sent is not MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A packet that a server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// The answer to CONNECT (MQTT 5, 3.2).
    Connack {
        /// The session was still known.
        session_present: bool,
        /// 0 is yes.
        code: u8,
        /// Unacknowledged messages that the server takes.
        receive_max: u16,
    },
    /// A message (MQTT 5, 3.3).
    Publish(Publish<'a>),
    /// The answer to a message (MQTT 5, 3.4).
    Puback {
        /// Which one.
        packet_id: u16,
        /// Below 0x80 is yes.
        reason: u8,
    },
    /// The answer to SUBSCRIBE, with the first filter's reason; below 0x80 is yes.
    Suback(u8),
    /// The answer to PINGREQ.
    Pingresp,
    /// MQTT 5's word at parting.
    Disconnect,
    /// Anything else; nothing here waits for it.
    Other,
}

/// The parts of a PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Topic name.
    pub topic: &'a [u8],
    /// Of QoS 1 and 2.
    pub packet_id: Option<u16>,
    /// What is said.
    pub payload: &'a [u8],
}

/// The first packet in `bytes` and its length; `None` while it is not there whole.
///
/// # Errors
/// [`Malformed`] when no MQTT server would send this.
pub fn first_packet(
    bytes: &[u8],
    protocol: Protocol,
) -> Result<Option<(Packet<'_>, usize)>, Malformed> {
    let Some((&first, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let Some((remaining, digits)) = variable_integer(rest)? else {
        return Ok(None);
    };
    let Some(body) = rest.get(digits..digits + remaining) else {
        return Ok(None);
    };
    let packet = packet(first, Reader(body), protocol)?;
    Ok(Some((packet, 1 + digits + remaining)))
}

fn packet(first: u8, mut body: Reader<'_>, protocol: Protocol) -> Result<Packet<'_>, Malformed> {
    Ok(match first >> 4 {
        2 => connack(body, protocol)?,
        3 => Packet::Publish(publish(first, body, protocol)?),
        4 => Packet::Puback {
            packet_id: body.u16()?,
            reason: body.0.first().copied().unwrap_or(0),
        },
        9 => Packet::Suback(body.0.last().copied().ok_or(Malformed)?),
        13 => Packet::Pingresp,
        14 => Packet::Disconnect,
        _ => Packet::Other,
    })
}

fn connack(mut body: Reader<'_>, protocol: Protocol) -> Result<Packet<'_>, Malformed> {
    let [flags, code] = body.u16()?.to_be_bytes();
    let receive_max = match protocol {
        Protocol::V5 if !body.0.is_empty() => body.receive_max()?,
        _ => u16::MAX,
    };
    Ok(Packet::Connack {
        session_present: flags & 1 == 1,
        code,
        receive_max,
    })
}

fn publish(first: u8, mut body: Reader<'_>, protocol: Protocol) -> Result<Publish<'_>, Malformed> {
    let topic = body.text()?;
    let packet_id = match (first >> 1) & 3 {
        0 => None,
        _ => Some(body.u16()?),
    };
    if protocol == Protocol::V5 {
        body.properties()?;
    }
    Ok(Publish {
        topic,
        packet_id,
        payload: body.0,
    })
}

/// What is left to read of a body.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        let (&byte, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(byte)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes([self.u8()?, self.u8()?]))
    }

    fn text(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    fn properties(&mut self) -> Result<Self, Malformed> {
        let (length, digits) = variable_integer(self.0)?.ok_or(Malformed)?;
        self.take(digits)?;
        self.take(length).map(Reader)
    }

    /// Receive Maximum among the properties of a CONNACK (MQTT 5, 3.2.2.3.3).
    fn receive_max(&mut self) -> Result<u16, Malformed> {
        let mut properties = self.properties()?;
        let mut receive_max = u16::MAX;
        while !properties.0.is_empty() {
            let id = properties.u8()?;
            if id == 0x21 {
                receive_max = properties.u16()?;
            } else {
                properties.skip(id)?;
            }
        }
        // 0 would be a protocol error, and a device that never sends again.
        Ok(receive_max.max(1))
    }

    /// Skips the value of a property (MQTT 5, table 2-4).
    fn skip(&mut self, id: u8) -> Result<(), Malformed> {
        match id {
            0x24 | 0x25 | 0x28 | 0x29 | 0x2A => self.take(1)?,
            0x13 | 0x22 => self.take(2)?,
            0x11 | 0x27 => self.take(4)?,
            0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => self.text()?,
            0x26 => {
                self.text()?;
                self.text()?
            }
            _ => return Err(Malformed),
        };
        Ok(())
    }
}

/// A variable byte integer (MQTT 5, 1.5.5) and how many bytes it took; `None` while it is not whole.
fn variable_integer(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() < 4 {
        Ok(None)
    } else {
        Err(Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn is_the_receive_maximum_found_among_other_properties() {
        let connack = [0x20, 12, 1, 0, 9, 0x22, 0, 5, 0x21, 0, 7, 0x24, 1, 0x25, 1];
        // Nine bytes of properties are what stands there: 3 + 3 + 2 and one byte of the next.
        assert_eq!(first_packet(&connack, Protocol::V5), Err(Malformed));
        let connack = [0x20, 11, 1, 0, 8, 0x22, 0, 5, 0x21, 0, 7, 0x24, 1];
        let (packet, length) = first_packet(&connack, Protocol::V5).unwrap().unwrap();
        let expected = Packet::Connack {
            session_present: true,
            code: 0,
            receive_max: 7,
        };
        assert_eq!((packet, length), (expected, connack.len()));
    }

    #[test]
    fn is_a_packet_that_is_not_whole_waited_for() {
        let puback = [0x40, 2, 0, 9];
        for length in 0..puback.len() {
            assert_eq!(first_packet(&puback[..length], Protocol::V311), Ok(None));
        }
    }

    proptest! {
        #[test]
        fn does_nothing_that_a_server_sends_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = first_packet(&bytes, Protocol::V311);
            let _ = first_packet(&bytes, Protocol::V5);
        }
    }
}
