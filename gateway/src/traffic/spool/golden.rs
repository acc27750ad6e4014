//! What version 1 of the spool wrote, byte for byte, in `golden/`: whoever changes what is kept sees it here,
//! and what is on disks out there must still be read. A new version gets files of its own; these stay.

use super::frame::{Frame, Kind};
use super::head::Head;
use super::moment::{BootId, Stamp};
use super::{Position, record};
use crate::traffic::message::{Body, ClassId, DoorId, Message, QoS, Tick, WallTime, sample};

const BLOCK: &str = include_str!("golden/block-1.hex");
const HEAD: &str = include_str!("golden/head-1.hex");
const CLASS: &str = "critical";
const SEGMENT: u32 = 0x0102_0304;

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.split_ascii_whitespace().collect();
    let digits = digits.concat();
    (0..digits.len() / 2)
        .map(|n| u8::from_str_radix(&digits[2 * n..2 * n + 2], 16).unwrap())
        .collect()
}

/// As a golden file has it.
fn hex_of(bytes: &[u8]) -> String {
    let lines = bytes.chunks(32).map(|line| {
        let digits: String = line.iter().map(|byte| format!("{byte:02x}")).collect();
        digits + "\n"
    });
    lines.collect()
}

fn stamp() -> Stamp {
    Stamp {
        boot: BootId(*b"a boot has 16 of"),
        boottime_micros: 0x0807_0605_0403_0201,
        wall: WallTime::from_micros(1_790_000_000_000_000),
    }
}

/// One with all that a record can have, and one with as little as it can.
fn messages() -> [Message; 2] {
    let micros = |from_opened: i64| {
        let opened = Tick::START.micros();
        Tick::from_micros(opened.saturating_add_signed(from_opened))
    };
    let mut full = sample("plant/7/ü", b"");
    full.body = Body::new("plant/7/ü", b"\x01\x01", b"\x00\xff payload");
    full.key = Some("pump".into());
    (full.qos, full.retain) = (QoS::ExactlyOnce, true);
    full.received = micros(-5_000_000);
    (full.expires, full.publisher_expires) = (micros(7), micros(3_600_000_000));
    (full.stands_for, full.epoch, full.sequence) = (300, u64::MAX, 70_000);
    let mut bare = sample("t", b"");
    (bare.received, bare.stands_for, bare.epoch, bare.sequence) = (Tick::START, 1, 1, 1);
    [full, bare].map(|message| Message {
        class: ClassId::FIRST,
        replayed: true,
        ..message
    })
}

fn head() -> Head {
    let at = |index| Position::new(SEGMENT, index);
    let mut head = Head {
        generation: 3,
        oldest: WallTime::from_micros(1_780_000_000_000_000),
        newest: WallTime::from_micros(1_790_000_000_000_001),
        ..Head::default()
    };
    head.written.insert(at(10)..at(100_000));
    head.unsettled.insert(at(50)..at(60));
    head.unsettled.insert(at(70_000)..at(100_000));
    head.stamp(stamp());
    head
}

#[test]
fn is_a_block_written_and_read_as_version_1_has_it() {
    let mut body = Vec::new();
    for message in messages() {
        record::write(&mut body, &message, Tick::START);
    }
    let frame = Frame {
        kind: Kind::Block,
        class: CLASS,
        segment: SEGMENT,
        number: 5,
        count: 2,
        stamp: stamp(),
        body: &body,
    };
    assert_eq!(hex_of(&frame.to_bytes()), BLOCK);

    let golden = bytes_of(BLOCK);
    let (read, taken) = Frame::read(&golden).unwrap();
    assert_eq!((read, taken), (frame, golden.len()));
    let mut rest = read.body;
    for (index, mut message) in (5..).zip(messages()) {
        let at = Position::new(SEGMENT, index);
        let (read, taken) = record::read(rest, ClassId::FIRST, at, Tick::START).unwrap();
        message.spooled = Some(at);
        message.receipt.door = DoorId::NOBODY;
        assert_eq!(format!("{read:?}"), format!("{message:?}"));
        rest = &rest[taken..];
    }
    assert!(rest.is_empty());
}

#[test]
fn is_a_head_written_and_read_as_version_1_has_it() {
    let head = head();
    assert_eq!(hex_of(&head.to_bytes(CLASS, SEGMENT, stamp())), HEAD);
    let golden = bytes_of(HEAD);
    let (frame, taken) = Frame::read(&golden).unwrap();
    assert_eq!(taken, golden.len());
    assert_eq!(Head::from_frame(&frame, SEGMENT), Some(head));
}
