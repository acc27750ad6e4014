//! What an operator sees of the spool and does with it: which messages are meant, messages as lines of
//! JSON, and the pages in which both go over the admin socket. The same whether a gateway answers
//! ([`routes`]) or its files do ([`files`]); [`reach`] finds out which, and the commands need not know.

pub mod files;
pub mod line;
pub mod page;
pub mod properties;
pub mod reach;
pub mod routes;
pub mod when;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::traffic::classify::Filter;
use crate::traffic::message::WallTime;
use crate::traffic::spool::Position;
use crate::traffic::spool::inspect::{SegmentSeen, Wanted};

/// Which messages are meant, as it is asked for. What is left out bounds nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Asked {
    /// Of this class.
    pub class: Option<String>,
    /// Of the dead letters, instead of what has yet to be sent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dead: bool,
    /// With a topic that one of these filters matches; none: all.
    pub topics: Vec<String>,
    /// Received then or later, in microseconds since 1970.
    pub from_micros: Option<u64>,
    /// Received before that.
    pub to_micros: Option<u64>,
}

impl Asked {
    /// Whether everything is meant, of the dead letters or of what has yet to be sent.
    #[must_use]
    pub fn is_all(&self) -> bool {
        let all = Self {
            dead: self.dead,
            ..Self::default()
        };
        *self == all
    }

    /// What is meant, from a position on.
    ///
    /// # Errors
    /// There is no such class, or a filter is none; the text names what there is.
    pub fn wanted(&self, names: &[Arc<str>], after: Option<Position>) -> Result<Wanted, String> {
        let topics = self.topics.iter().map(|text| {
            Filter::parse(text).map_err(|fault| format!("{text:?} is no topic filter: {fault}"))
        });
        if let (Some(from), Some(to)) = (self.from_micros, self.to_micros)
            && from >= to
        {
            return Err("--from must be before --to: nothing lies between".to_owned());
        }
        Ok(Wanted {
            class: self.class(names)?,
            dead: self.dead,
            topics: topics.collect::<Result<_, _>>()?,
            from: self.from_micros.map(WallTime::from_micros),
            until: self.to_micros.map(WallTime::from_micros),
            settled: false,
            after,
            count_max: usize::MAX,
        })
    }

    fn class(&self, names: &[Arc<str>]) -> Result<Option<Arc<str>>, String> {
        let Some(class) = &self.class else {
            return Ok(None);
        };
        let known = names.iter().find(|name| name.as_ref() == class);
        known.cloned().map(Some).ok_or_else(|| {
            let names = names.join(", ");
            format!("there is no class {class:?}; the classes are {names}")
        })
    }
}

/// The classes that may be asked for: those of the configuration in their order, then those of which
/// only files are left.
#[must_use]
pub fn class_names(
    configured: impl IntoIterator<Item = Arc<str>>,
    segments: &[SegmentSeen],
) -> Vec<Arc<str>> {
    let mut names: Vec<_> = configured.into_iter().collect();
    for segment in segments {
        if !names.contains(&segment.class) {
            names.push(Arc::clone(&segment.class));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_wrong_filter_told_with_what_there_is() {
        let names = ["critical", "low"].map(Arc::from);
        let asked = |class: &str, topic: &str| Asked {
            class: Some(class.to_owned()),
            topics: vec![topic.to_owned()],
            ..Asked::default()
        };
        let wanted = asked("low", "a/#").wanted(&names, None).unwrap();
        assert_eq!(wanted.class.as_deref(), Some("low"));
        let error = asked("lwo", "a/#").wanted(&names, None).unwrap_err();
        assert!(error.ends_with("the classes are critical, low"), "{error}");
        let error = asked("low", "a/#/b").wanted(&names, None).unwrap_err();
        assert!(error.contains("is no topic filter"), "{error}");
        let backwards = Asked {
            from_micros: Some(2),
            to_micros: Some(1),
            ..Asked::default()
        };
        assert!(backwards.wanted(&names, None).is_err());
    }
}
