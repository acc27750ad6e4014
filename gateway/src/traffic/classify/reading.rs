//! A payload as rules read it: JSON, parsed at most once for a message however many rules ask, and
//! only when one asks. In come bytes that a device chose; out comes a value, a key, or why not.
//! Nothing here panics, and nothing takes longer than [`PAYLOAD_BYTES_MAX`] allows.

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde_json::Value as Json;

/// Largest payload that conditions and keys read, in bytes. What a sensor says fits; a larger one
/// would hold the connection's task up for longer than a message may cost.
pub(super) const PAYLOAD_BYTES_MAX: usize = 16 * 1024;

/// Longest key in bytes. Keys are kept for as long as a class's newest values are, so an unbounded
/// one would let a device fill memory with names.
pub(super) const KEY_BYTES_MAX: usize = 256;

/// Longest JSON pointer in bytes, far beyond what names a field.
pub(super) const POINTER_BYTES_MAX: usize = 512;

/// Why a payload could not be read. It is counted, and the rule goes on without it.
#[derive(Clone, Debug)]
pub(super) enum Unreadable {
    /// Larger than [`PAYLOAD_BYTES_MAX`].
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not JSON (nor UTF-8, nor nested at most 128 levels deep).
    NotJson(Arc<serde_json::Error>),
    /// The condition could not be evaluated: a field is missing, or of another type.
    Evaluation(Arc<cel::ExecutionError>),
    /// The condition came to something other than true or false.
    NotBool(String),
    /// Nothing stands where the key should be.
    NoKey,
    /// What stands where the key should be is null, a list or an object.
    KeyNotScalar,
    /// The key is longer than [`KEY_BYTES_MAX`].
    KeyTooLong {
        /// Its length.
        bytes: usize,
    },
}

/// One message's payload, parsed when the first rule asks.
#[derive(Debug)]
pub(super) struct Payload<'m> {
    bytes: &'m [u8],
    json: OnceLock<Result<Json, Unreadable>>,
}

impl<'m> Payload<'m> {
    /// A payload that nobody has asked about.
    #[must_use]
    pub(super) const fn new(bytes: &'m [u8]) -> Self {
        Self {
            bytes,
            json: OnceLock::new(),
        }
    }

    /// What it says.
    ///
    /// # Errors
    /// When it is too large or not JSON.
    pub(super) fn json(&self) -> Result<&Json, Unreadable> {
        self.json
            .get_or_init(|| parse(self.bytes))
            .as_ref()
            .map_err(Clone::clone)
    }
}

fn parse(payload: &[u8]) -> Result<Json, Unreadable> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(Unreadable::TooLarge {
            bytes: payload.len(),
        });
    }
    serde_json::from_slice(payload).map_err(|why| Unreadable::NotJson(Arc::new(why)))
}

/// A JSON pointer (RFC 6901) to where a key or a number stands.
#[derive(Clone, Debug)]
pub struct Pointer(Box<str>);

impl Pointer {
    /// Checks a pointer.
    ///
    /// # Errors
    /// What is wrong with it and what to write, as a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > POINTER_BYTES_MAX {
            return Err(format!(
                "the key's pointer has {} bytes; at most {POINTER_BYTES_MAX} are taken",
                text.len()
            ));
        }
        if !text.is_empty() && !text.starts_with('/') {
            return Err(format!(
                "the key `{text}` is not a JSON pointer; write `/{}`",
                text.replace('.', "/")
            ));
        }
        let escapes_hold = text
            .split('~')
            .skip(1)
            .all(|rest| rest.starts_with(['0', '1']));
        if !escapes_hold {
            return Err(format!(
                "in the key `{text}`, `~` stands alone; a JSON pointer writes `~0` for it, and `~1` for `/`"
            ));
        }
        Ok(Self(text.into()))
    }

    /// The pointer as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number that stands there in a payload of at most 16 KiB, if one does.
    #[must_use]
    pub fn number(&self, payload: &[u8]) -> Option<f64> {
        parse(payload).ok()?.pointer(&self.0)?.as_f64()
    }

    /// The key: a string as it is, a number or truth value as JSON writes it.
    ///
    /// # Errors
    /// When the payload cannot be read, nothing stands there, or nothing that can be a key.
    pub(super) fn key(&self, payload: &Payload<'_>) -> Result<Arc<str>, Unreadable> {
        match payload.json()?.pointer(&self.0).ok_or(Unreadable::NoKey)? {
            Json::String(text) => bounded(text),
            Json::Number(number) => bounded(&number.to_string()),
            Json::Bool(truth) => bounded(if *truth { "true" } else { "false" }),
            Json::Null | Json::Array(_) | Json::Object(_) => Err(Unreadable::KeyNotScalar),
        }
    }
}

fn bounded(key: &str) -> Result<Arc<str>, Unreadable> {
    if key.len() > KEY_BYTES_MAX {
        return Err(Unreadable::KeyTooLong { bytes: key.len() });
    }
    Ok(key.into())
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes } => write!(
                f,
                "the payload has {bytes} bytes; rules read at most {PAYLOAD_BYTES_MAX}"
            ),
            Self::NotJson(why) => write!(f, "the payload is not JSON: {why}"),
            Self::Evaluation(why) => write_evaluation(f, why),
            Self::NotBool(what) => {
                write!(f, "the condition comes to {what}, not to true or false")
            }
            Self::NoKey => write!(f, "nothing stands in the payload where the key should be"),
            Self::KeyNotScalar => write!(
                f,
                "the key must be a string, a number, true or false; the payload has null, a list or an object there"
            ),
            Self::KeyTooLong { bytes } => {
                write!(
                    f,
                    "the key has {bytes} bytes; at most {KEY_BYTES_MAX} are taken"
                )
            }
        }
    }
}

fn write_evaluation(f: &mut fmt::Formatter<'_>, why: &cel::ExecutionError) -> fmt::Result {
    use cel::ExecutionError as E;
    match why {
        E::NoSuchKey(name) => write!(
            f,
            "the payload has no `{name}` (ask `has(...)` first where it may be missing)"
        ),
        E::NoSuchOverload(_)
        | E::UnsupportedBinaryOperator(..)
        | E::ValuesNotComparable(..)
        | E::UnexpectedType { .. } => write!(
            f,
            "{} (numbers in JSON are doubles: calculate with 2.0, not with 2)",
            short(&why.to_string())
        ),
        _ => write!(f, "{}", short(&why.to_string())),
    }
}

/// The beginning of a text that may repeat a whole payload.
fn short(text: &str) -> String {
    const CHARACTERS: usize = 200;
    match text.char_indices().nth(CHARACTERS) {
        Some((at, _)) => format!("{}...", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(pointer: &str, payload: &str) -> Result<Arc<str>, Unreadable> {
        Pointer::parse(pointer)
            .unwrap()
            .key(&Payload::new(payload.as_bytes()))
    }

    #[test]
    fn which_values_can_be_a_key() {
        assert_eq!(&*key("/id", r#"{"id":"pump 7"}"#).unwrap(), "pump 7");
        assert_eq!(&*key("/id", r#"{"id":12}"#).unwrap(), "12");
        assert_eq!(&*key("/id", r#"{"id":1.5}"#).unwrap(), "1.5");
        assert_eq!(&*key("/id", r#"{"id":true}"#).unwrap(), "true");
        assert_eq!(&*key("/a/1/b", r#"{"a":[0,{"b":"x"}]}"#).unwrap(), "x");
        assert_eq!(&*key("", "\"whole\"").unwrap(), "whole");
        assert_eq!(&*key("/a~1b", r#"{"a/b":"x"}"#).unwrap(), "x");
        for payload in [r#"{"id":null}"#, r#"{"id":[1]}"#, r#"{"id":{}}"#] {
            assert!(matches!(key("/id", payload), Err(Unreadable::KeyNotScalar)));
        }
        assert!(matches!(key("/id", "{}"), Err(Unreadable::NoKey)));
        assert!(matches!(key("/id", "7"), Err(Unreadable::NoKey)));
    }

    #[test]
    fn how_long_a_key_may_be() {
        let payload = |n: usize| format!("\"{}\"", "k".repeat(n));
        assert!(key("", &payload(KEY_BYTES_MAX)).is_ok());
        assert!(matches!(
            key("", &payload(KEY_BYTES_MAX + 1)),
            Err(Unreadable::KeyTooLong { .. })
        ));
    }

    #[test]
    fn what_is_said_of_a_pointer_that_is_none() {
        assert!(
            Pointer::parse("id.part")
                .unwrap_err()
                .contains("`/id/part`")
        );
        assert!(Pointer::parse("/a~b").is_err());
        assert!(Pointer::parse("/a~").is_err());
        assert!(Pointer::parse(&"/a".repeat(POINTER_BYTES_MAX)).is_err());
    }

    #[test]
    fn does_deep_nesting_end_as_unreadable() {
        let deep = "[".repeat(PAYLOAD_BYTES_MAX);
        assert!(matches!(
            parse(deep.as_bytes()),
            Err(Unreadable::NotJson(_))
        ));
        let larger = vec![b'1'; PAYLOAD_BYTES_MAX + 1];
        assert!(matches!(parse(&larger), Err(Unreadable::TooLarge { .. })));
    }
}
