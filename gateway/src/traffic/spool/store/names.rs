//! The names of the spool's files: `<class>.<number, 8 hex digits>.redb` for a segment,
//! `<class>.<number>.dead.redb` for one of dead letters, the same with
//! `.damaged` for one that was set aside and `.mending` for one that is being made of what was carved
//! out of it.

use std::fmt;
use std::sync::Arc;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A segment.
    Segment,
    /// A damaged segment, kept for whoever wants to look.
    Aside,
    /// A segment that is being mended.
    Mending,
}

/// A file's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) class: Arc<str>,
    pub(super) segment: u32,
    /// It holds the class's dead letters.
    pub(super) dead: bool,
    pub(super) what: What,
}

/// Disk space that is given up when there is none, so that what is settled can be kept.
pub(super) const BALLAST: &str = "ballast";
/// The ledger, and the one that is about to take its place.
pub(super) const LEDGER: &str = "ledger.json";
pub(super) const LEDGER_NEW: &str = "ledger.json.new";
/// Written to see whether the disk is well.
pub(super) const PROBE: &str = "probe";

impl Name {
    pub(super) fn segment(class: Arc<str>, segment: u32, dead: bool) -> Self {
        Self {
            class,
            segment,
            dead,
            what: What::Segment,
        }
    }

    pub(super) fn with(&self, what: What) -> Self {
        Self {
            what,
            ..self.clone()
        }
    }

    /// Reads a name of ours.
    pub(super) fn read(name: &str) -> Option<Self> {
        let (class, rest) = name.split_once('.')?;
        let (number, rest) = rest.split_once('.')?;
        let (dead, rest) = match rest.strip_prefix("dead.") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let what = match rest {
            "redb" => What::Segment,
            "redb.damaged" => What::Aside,
            "redb.mending" => What::Mending,
            _ => return None,
        };
        let of_class = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let ours = (1..=32).contains(&class.len())
            && class.bytes().all(of_class)
            && number.len() == 8
            && number.bytes().all(hex);
        let segment = u32::from_str_radix(number, 16).ok()?;
        (ours && segment > 0).then(|| Self {
            class: class.into(),
            segment,
            dead,
            what,
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { class, segment, .. } = self;
        let dead = if self.dead { ".dead" } else { "" };
        let end = match self.what {
            What::Segment => "",
            What::Aside => ".damaged",
            What::Mending => ".mending",
        };
        write!(f, "{class}.{segment:08x}{dead}.redb{end}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_only_our_names_ours() {
        for name in [
            "low.0000002a.redb",
            "a_B-9.ffffffff.redb.damaged",
            "x.00000001.redb.mending",
            "x.00000001.dead.redb",
            "dead.00000001.dead.redb.damaged",
        ] {
            assert_eq!(Name::read(name).unwrap().to_string(), name);
        }
        for name in [
            "low.0000002a.redb.bak",
            "low.2a.redb",
            "low.0000002a.dead",
            "low.0000002a.dead.dead.redb",
            "low.0000002A.redb",
            "low.00000000.redb",
            ".0000002a.redb",
            "lö.0000002a.redb",
            "ballast",
            "low.+000002a.redb",
        ] {
            assert_eq!(Name::read(name), None, "{name}");
        }
    }
}
