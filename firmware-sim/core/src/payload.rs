//! How a message is written: as JSON for people and rules, or in a fixed number of bytes for links
//! that are paid by the byte. In comes a message and a buffer, out goes the part that was written;
//! nothing is allocated.

use crate::message::{Body, Message, Value};
use crate::threshold::Crossing;
use crate::tick::Tick;

/// Room that is enough for every payload, in bytes.
pub const PAYLOAD_MAX: usize = 192;
/// Length of the compact form, in bytes.
pub const COMPACT_LENGTH: usize = 40;
/// First byte of the compact form; another layout gets another number. No JSON begins with it.
const COMPACT_VERSION: u8 = 1;

/// A way to write payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `{"boot":1,"seq":7,"tick":1200000,"time":1700000000000,"value":21.530}`
    Json,
    /// [`COMPACT_LENGTH`] bytes, numbers in network order.
    Compact,
}

/// Writes `message` into `buffer`. `None` when it does not fit; [`PAYLOAD_MAX`] bytes always do.
pub fn write<'b>(message: &Message, form: Form, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let mut writer = Writer {
        rest: buffer,
        length: 0,
    };
    match form {
        Form::Json => writer.json(message)?,
        Form::Compact => writer.compact(message)?,
    }
    let Writer { rest, length } = writer;
    rest.get(..length)
}

/// Reads the compact form back; `None` for anything else.
#[must_use]
pub fn read_compact(bytes: &[u8]) -> Option<Message> {
    let bytes: &[u8; COMPACT_LENGTH] = bytes.try_into().ok()?;
    let [version, what, channel, zero, rest @ ..] = bytes;
    if (*version, *zero) != (COMPACT_VERSION, 0) {
        return None;
    }
    let (words, _) = rest.as_chunks::<4>();
    let mut words = words.iter().map(|word| u32::from_be_bytes(*word));
    let mut next = || words.next();
    let (boot, seq) = (next()?, next()?);
    let due = long(next()?, next()?);
    let wall_millis = long(next()?, next()?);
    Some(Message {
        boot,
        seq,
        channel: *channel,
        due: Tick::from_micros(due),
        wall_millis,
        body: body_of(*what, [next()?, next()?, next()?])?,
    })
}

const fn long(high: u32, low: u32) -> u64 {
    ((high as u64) << 32) | low as u64
}

const fn body_of(what: u8, [a, b, c]: [u32; 3]) -> Option<Body> {
    let value = Value(a.cast_signed());
    Some(match what {
        0 => Body::Reading(value),
        1 => Body::Alarm {
            crossing: Crossing::Raised,
            value,
        },
        2 => Body::Alarm {
            crossing: Crossing::Cleared,
            value,
        },
        3 => Body::Report {
            superseded: a,
            dropped: b,
            resent: c,
        },
        _ => return None,
    })
}

const fn words_of(body: &Body) -> (u8, [u32; 3]) {
    match *body {
        Body::Reading(value) => (0, [value.0.cast_unsigned(), 0, 0]),
        Body::Alarm { crossing, value } => {
            let what = match crossing {
                Crossing::Raised => 1,
                Crossing::Cleared => 2,
            };
            (what, [value.0.cast_unsigned(), 0, 0])
        }
        Body::Report {
            superseded,
            dropped,
            resent,
        } => (3, [superseded, dropped, resent]),
    }
}

/// A buffer that is filled from its front; `None` from any method means that it is full.
struct Writer<'b> {
    rest: &'b mut [u8],
    length: usize,
}

impl Writer<'_> {
    fn json(&mut self, message: &Message) -> Option<()> {
        self.field(b"{\"boot\":", u64::from(message.boot))?;
        self.field(b",\"seq\":", u64::from(message.seq))?;
        self.field(b",\"tick\":", message.due.micros())?;
        self.field(b",\"time\":", message.wall_millis)?;
        match message.body {
            Body::Reading(value) => self.value(value)?,
            Body::Alarm { crossing, value } => {
                self.field(b",\"channel\":", u64::from(message.channel))?;
                self.text(match crossing {
                    Crossing::Raised => b",\"state\":\"raised\"",
                    Crossing::Cleared => b",\"state\":\"cleared\"",
                })?;
                self.value(value)?;
            }
            Body::Report {
                superseded,
                dropped,
                resent,
            } => {
                self.field(b",\"superseded\":", u64::from(superseded))?;
                self.field(b",\"dropped\":", u64::from(dropped))?;
                self.field(b",\"resent\":", u64::from(resent))?;
            }
        }
        self.text(b"}")
    }

    fn compact(&mut self, message: &Message) -> Option<()> {
        let (what, words) = words_of(&message.body);
        self.text(&[COMPACT_VERSION, what, message.channel, 0])?;
        self.text(&message.boot.to_be_bytes())?;
        self.text(&message.seq.to_be_bytes())?;
        self.text(&message.due.micros().to_be_bytes())?;
        self.text(&message.wall_millis.to_be_bytes())?;
        for word in words {
            self.text(&word.to_be_bytes())?;
        }
        Some(())
    }

    fn field(&mut self, name: &[u8], number: u64) -> Option<()> {
        self.text(name)?;
        self.number(number)
    }

    /// Thousandths as a decimal number with three places.
    fn value(&mut self, Value(thousandths): Value) -> Option<()> {
        self.text(b",\"value\":")?;
        if thousandths < 0 {
            self.text(b"-")?;
        }
        let thousandths = thousandths.unsigned_abs();
        self.number(u64::from(thousandths / 1_000))?;
        let places = (thousandths % 1_000) as u16;
        let digit = |divisor: u16| b'0' + (places / divisor % 10) as u8;
        self.text(&[b'.', digit(100), digit(10), digit(1)])
    }

    fn number(&mut self, mut number: u64) -> Option<()> {
        // 20 digits are enough for 64 bits.
        let mut digits = [b'0'; 20];
        let mut count = 0;
        for place in digits.iter_mut().rev() {
            *place = b'0' + (number % 10) as u8;
            number /= 10;
            count += 1;
            if number == 0 {
                break;
            }
        }
        self.text(digits.get(digits.len() - count..)?)
    }

    fn text(&mut self, text: &[u8]) -> Option<()> {
        let end = self.length.checked_add(text.len())?;
        self.rest.get_mut(self.length..end)?.copy_from_slice(text);
        self.length = end;
        Some(())
    }
}
