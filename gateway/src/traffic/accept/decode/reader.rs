//! Fields of a packet: a cursor that never reads past its slice, and the walk over MQTT 5
//! properties that checks type, place and repetition of each.

use super::Fault;

/// A cursor over the rest of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(Fault::malformed("sent a packet that ends inside a field"))?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(Fault::malformed("sent a packet that ends inside a field"))?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub(super) fn byte(&mut self) -> Result<u8, Fault> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub(super) fn two(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn four(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_be_bytes)
    }

    /// A packet identifier: never 0 (MQTT 5, 2.2.1).
    #[inline]
    pub(super) fn packet_id(&mut self) -> Result<u16, Fault> {
        match self.two()? {
            0 => Err(Fault::malformed("sent packet identifier 0")),
            id => Ok(id),
        }
    }

    /// A variable byte integer, in as few bytes as it needs (MQTT 5, 1.5.5).
    #[inline]
    pub(super) fn variable(&mut self) -> Result<u32, Fault> {
        let mut value = 0;
        for place in 0..4 {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7F) << (7 * place);
            if byte & 0x80 == 0 {
                if byte == 0 && place > 0 {
                    break;
                }
                return Ok(value);
            }
        }
        Err(Fault::malformed("sent a badly encoded property length"))
    }

    /// Binary data with its length before it.
    #[inline]
    pub(super) fn binary(&mut self) -> Result<&'a [u8], Fault> {
        let len = self.two()?;
        self.take(usize::from(len))
    }

    /// A string: UTF-8 without U+0000 (MQTT 5, 1.5.4).
    #[inline]
    pub(super) fn string(&mut self) -> Result<&'a str, Fault> {
        let text = std::str::from_utf8(self.binary()?)
            .map_err(|_| Fault::malformed("sent a string that is not UTF-8"))?;
        if text.as_bytes().contains(&0) {
            return Err(Fault::malformed("sent a string with the character U+0000"));
        }
        Ok(text)
    }

    /// The properties: their length, then so many bytes (MQTT 5, 2.2.2).
    #[inline]
    pub(super) fn properties(&mut self) -> Result<&'a [u8], Fault> {
        let len = self.variable()?;
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }
}

/// Property identifiers (MQTT 5, 2.2.2.2).
pub(super) mod id {
    pub(in super::super) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(in super::super) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(in super::super) const CONTENT_TYPE: u8 = 0x03;
    pub(in super::super) const RESPONSE_TOPIC: u8 = 0x08;
    pub(in super::super) const CORRELATION_DATA: u8 = 0x09;
    pub(in super::super) const SUBSCRIPTION_ID: u8 = 0x0B;
    pub(in super::super) const SESSION_EXPIRY: u8 = 0x11;
    pub(in super::super) const AUTH_METHOD: u8 = 0x15;
    pub(in super::super) const AUTH_DATA: u8 = 0x16;
    pub(in super::super) const REQUEST_PROBLEM_INFO: u8 = 0x17;
    pub(in super::super) const WILL_DELAY: u8 = 0x18;
    pub(in super::super) const REQUEST_RESPONSE_INFO: u8 = 0x19;
    pub(in super::super) const REASON_STRING: u8 = 0x1F;
    pub(in super::super) const RECEIVE_MAX: u8 = 0x21;
    pub(in super::super) const TOPIC_ALIAS_MAX: u8 = 0x22;
    pub(in super::super) const TOPIC_ALIAS: u8 = 0x23;
    pub(in super::super) const USER: u8 = 0x26;
    pub(in super::super) const PACKET_MAX: u8 = 0x27;
}

/// One property: its identifier and, where it is a number, its value. Strings and binary data are
/// checked and stay in `wire`.
pub(super) struct Property<'a> {
    pub(super) id: u8,
    pub(super) number: u32,
    /// As sent, identifier included.
    pub(super) wire: &'a [u8],
}

/// The set of properties that a packet may carry.
pub(super) const fn allow<const N: usize>(ids: [u8; N]) -> u64 {
    let mut set = 0;
    let mut place = 0;
    while place < N {
        set |= 1 << ids[place];
        place += 1;
    }
    set
}

/// A walk over properties: each allowed here, none twice but the user's, each whole.
pub(super) struct Properties<'a> {
    reader: Reader<'a>,
    allowed: u64,
}

impl<'a> Properties<'a> {
    pub(super) const fn new(bytes: &'a [u8], allowed: u64) -> Self {
        Self {
            reader: Reader::new(bytes),
            allowed,
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<Property<'a>>, Fault> {
        let whole = self.reader.rest();
        if whole.is_empty() {
            return Ok(None);
        }
        let id = self.reader.byte()?;
        self.check_place(id)?;
        let number = self.value(id)?;
        let len = whole.len() - self.reader.rest().len();
        Ok(Some(Property {
            id,
            number,
            wire: whole.get(..len).unwrap_or_default(),
        }))
    }

    fn check_place(&mut self, id: u8) -> Result<(), Fault> {
        let bit = 1u64.checked_shl(u32::from(id)).unwrap_or(0);
        if self.allowed & bit == 0 {
            return Err(Fault::protocol(
                "sent a property twice, or one that has no place in this packet",
            ));
        }
        if id != self::id::USER {
            self.allowed &= !bit;
        }
        Ok(())
    }

    fn value(&mut self, id: u8) -> Result<u32, Fault> {
        let reader = &mut self.reader;
        match id {
            id::PAYLOAD_FORMAT | id::REQUEST_PROBLEM_INFO | id::REQUEST_RESPONSE_INFO => {
                match reader.byte()? {
                    value @ (0 | 1) => Ok(u32::from(value)),
                    _ => Err(Fault::protocol(
                        "sent a flag property that is neither 0 nor 1",
                    )),
                }
            }
            id::RECEIVE_MAX | id::TOPIC_ALIAS_MAX | id::TOPIC_ALIAS => reader.two().map(u32::from),
            id::MESSAGE_EXPIRY | id::SESSION_EXPIRY | id::WILL_DELAY | id::PACKET_MAX => {
                reader.four()
            }
            id::SUBSCRIPTION_ID => reader.variable(),
            id::CORRELATION_DATA | id::AUTH_DATA => reader.binary().map(|_| 0),
            id::RESPONSE_TOPIC => super::publish::topic_name(reader.string()?).map(|()| 0),
            id::USER => {
                reader.string()?;
                reader.string().map(|_| 0)
            }
            _ => reader.string().map(|_| 0),
        }
    }
}
