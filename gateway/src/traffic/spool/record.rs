//! One message as it stands in a block: bincode, its times counted from the block's opening, so that
//! they hold over restarts. A frame with version and checksum stands around the block; nothing here
//! is ever read without it.

use bincode::config::{Configuration, Limit};
use bincode::{BorrowDecode, Encode};

use super::super::message::{Body, ClassId, DoorId, Message, QoS, Receipt, Tick};
use super::Position;

/// Bytes that one record may claim while it is read: the largest MQTT packet (MQTT 5, 1.5.5), and
/// something for the rest. Without a limit damaged bytes could ask for any amount of memory.
const RECORD_BYTES_MAX: usize = 257 * 1024 * 1024;

const CONFIG: Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    Limit<RECORD_BYTES_MAX>,
> = bincode::config::standard().with_limit::<RECORD_BYTES_MAX>();

/// Version 1 of what is kept of a message.
#[derive(Encode, BorrowDecode)]
struct Record<'a> {
    epoch: u64,
    sequence: u64,
    qos: u8,
    retain: bool,
    /// Microseconds from the block's opening; negative: before it.
    received: i64,
    expires: Option<i64>,
    publisher_expires: Option<i64>,
    stands_for: u32,
    key: Option<&'a str>,
    topic: &'a str,
    properties: &'a [u8],
    payload: &'a [u8],
}

/// The bytes are no record of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRecord;

/// Appends a message's record; `opened` is when its block was opened.
pub fn write(out: &mut Vec<u8>, message: &Message, opened: Tick) {
    let from_opened = |tick: Tick| tick.micros().cast_signed() - opened.micros().cast_signed();
    let end = |tick: Tick| (tick != Tick::NEVER).then(|| from_opened(tick));
    let record = Record {
        epoch: message.epoch,
        sequence: message.sequence,
        qos: message.qos as u8,
        retain: message.retain,
        received: from_opened(message.received),
        expires: end(message.expires),
        publisher_expires: end(message.publisher_expires),
        stands_for: message.stands_for,
        key: message.key.as_deref(),
        topic: message.body.topic(),
        properties: message.body.properties(),
        payload: message.body.payload(),
    };
    // Writing to memory fails for nothing but a record beyond the limit, which no packet can make.
    let _ = bincode::encode_into_std_write(record, out, CONFIG);
}

/// Reads the record at the front of `bytes`: its message, and how many bytes it took.
///
/// # Errors
/// There is none.
pub fn read(
    bytes: &[u8],
    class: ClassId,
    at: Position,
    opened: Tick,
) -> Result<(Message, usize), NoRecord> {
    let (record, taken): (Record<'_>, usize) =
        bincode::borrow_decode_from_slice(bytes, CONFIG).map_err(|_| NoRecord)?;
    let tick = |micros: i64| Tick::from_micros(opened.micros().saturating_add_signed(micros));
    let end = |micros: Option<i64>| micros.map_or(Tick::NEVER, tick);
    let body = Body::new(record.topic, record.properties, record.payload);
    let receipt = Receipt {
        door: DoorId::NOBODY,
        token: None,
    };
    let message = Message {
        key: record.key.map(Into::into),
        qos: match record.qos {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            2 => QoS::ExactlyOnce,
            _ => return Err(NoRecord),
        },
        retain: record.retain,
        expires: end(record.expires),
        publisher_expires: end(record.publisher_expires),
        stands_for: record.stands_for,
        epoch: record.epoch,
        sequence: record.sequence,
        spooled: Some(at),
        replayed: true,
        ..Message::new(body, class, tick(record.received), receipt)
    };
    Ok((message, taken))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::message::sample;

    #[test]
    fn does_a_record_give_back_its_message() {
        let opened = Tick::START;
        let mut message = sample("plant/7/ü", b"\x00\xff payload");
        message.body = Body::new("plant/7/ü", b"\x01\x01", b"\x00\xff payload");
        message.key = Some("pump".into());
        message.qos = QoS::ExactlyOnce;
        message.retain = true;
        message.received = Tick::from_micros(opened.micros() - 5_000_000);
        message.expires = Tick::from_micros(opened.micros() + 7);
        message.stands_for = 3;
        (message.epoch, message.sequence) = (u64::MAX, 77);
        let mut bytes = Vec::new();
        write(&mut bytes, &message, opened);
        let at = Position::new(3, 9);
        let (read, taken) = read(&bytes, message.class, at, opened).unwrap();
        assert_eq!(taken, bytes.len());
        message.spooled = Some(at);
        message.replayed = true;
        message.receipt.door = DoorId::NOBODY;
        assert_eq!(format!("{read:?}"), format!("{message:?}"));
    }
}
