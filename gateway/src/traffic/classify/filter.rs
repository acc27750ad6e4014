//! Topic filters as an operator writes them: what makes one valid (MQTT 5, 4.7), and at which level
//! it parts from a topic. In comes text; out goes a [`Filter`] or the fault. Which of many filters
//! match a topic is asked of the [`trie`](super::trie), never of a list of these.

use std::fmt;

/// Longest filter or topic in bytes: an MQTT string has a two-byte length (MQTT 5, 1.5.4).
pub(super) const TOPIC_BYTES_MAX: usize = 65_535;

/// Most levels of a filter. It bounds the depth of the trie; a site that names its sensors by more
/// than this many levels is not known, the deepest in use have about twenty.
pub(super) const FILTER_LEVELS_MAX: usize = 128;

/// A valid topic filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(Box<str>);

/// Why a topic filter is not valid. The operator's fault; the text says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterFault {
    /// It is empty (MQTT-4.7.3-1).
    Empty,
    /// It contains the character U+0000 (MQTT-4.7.3-2).
    Nul,
    /// It is longer than an MQTT string can be (MQTT-4.7.3-3).
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// It has more than [`FILTER_LEVELS_MAX`] levels.
    TooDeep {
        /// How many it has.
        levels: usize,
    },
    /// `#` stands before the last level (MQTT-4.7.1-1).
    HashNotLast {
        /// The level, counted from 1.
        level: usize,
    },
    /// `#` or `+` is only a part of a level (MQTT-4.7.1-1, MQTT-4.7.1-2).
    PartOfLevel {
        /// The wildcard.
        wildcard: char,
        /// The level, counted from 1.
        level: usize,
        /// What stands there.
        text: Box<str>,
    },
    /// A shared subscription (MQTT 5, 4.8.2), which means nothing in a rule.
    Shared {
        /// The filter inside it, where there is one.
        filter: Option<Box<str>>,
    },
}

/// Why a topic name is not valid (MQTT 5, 4.7.3 and 3.3.2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicFault {
    /// It is empty.
    Empty,
    /// It contains the character U+0000.
    Nul,
    /// It contains a wildcard, which only filters may.
    Wildcard(char),
    /// It is longer than an MQTT string can be.
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
}

/// Where a filter and a topic part. Levels are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// A level differs.
    Level {
        /// Which.
        level: usize,
        /// What the filter wants there.
        filter: Box<str>,
        /// What the topic has there.
        topic: Box<str>,
    },
    /// The topic ends before this level of the filter.
    TopicEnds {
        /// Which.
        level: usize,
        /// What the filter wants there.
        filter: Box<str>,
    },
    /// The filter ends before this level of the topic.
    FilterEnds {
        /// Which.
        level: usize,
        /// What the topic has there.
        topic: Box<str>,
    },
    /// The filter starts with a wildcard and the topic with `$` (MQTT-4.7.2-1).
    Dollar,
}

impl Filter {
    /// Checks a topic filter.
    ///
    /// # Errors
    /// The first fault, see [`FilterFault`].
    pub fn parse(text: &str) -> Result<Self, FilterFault> {
        check_whole(text)?;
        let levels = text.split('/').count();
        for (at, level) in text.split('/').enumerate() {
            check_level(level, at + 1, levels)?;
        }
        Ok(Self(text.into()))
    }

    /// The filter as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where this filter parts from a topic; `None`: it matches. Level by level, for people: the
    /// path of a message asks the trie.
    #[must_use]
    pub fn mismatch(&self, topic: &str) -> Option<Mismatch> {
        if topic.starts_with('$') && self.0.starts_with(['+', '#']) {
            return Some(Mismatch::Dollar);
        }
        let mut topic = topic.split('/');
        let mut level = 0;
        for wanted in self.0.split('/') {
            level += 1;
            if wanted == "#" {
                return None;
            }
            let found = topic.next();
            if found.is_none_or(|found| wanted != "+" && wanted != found) {
                return Some(Mismatch::at(level, wanted, found));
            }
        }
        topic.next().map(|rest| Mismatch::FilterEnds {
            level: level + 1,
            topic: rest.into(),
        })
    }
}

/// Checks a topic name.
///
/// # Errors
/// The first fault, see [`TopicFault`].
pub fn check_topic(topic: &str) -> Result<(), TopicFault> {
    if topic.is_empty() {
        return Err(TopicFault::Empty);
    }
    if topic.len() > TOPIC_BYTES_MAX {
        return Err(TopicFault::TooLong { bytes: topic.len() });
    }
    match topic.chars().find(|c| matches!(c, '\0' | '+' | '#')) {
        Some('\0') => Err(TopicFault::Nul),
        Some(wildcard) => Err(TopicFault::Wildcard(wildcard)),
        None => Ok(()),
    }
}

fn check_whole(text: &str) -> Result<(), FilterFault> {
    if text.is_empty() {
        return Err(FilterFault::Empty);
    }
    if text.len() > TOPIC_BYTES_MAX {
        return Err(FilterFault::TooLong { bytes: text.len() });
    }
    if text.contains('\0') {
        return Err(FilterFault::Nul);
    }
    let levels = text.split('/').count();
    if levels > FILTER_LEVELS_MAX {
        return Err(FilterFault::TooDeep { levels });
    }
    if let Some(shared) = text.strip_prefix("$share/") {
        return Err(FilterFault::Shared {
            filter: shared.split_once('/').map(|(_, filter)| filter.into()),
        });
    }
    Ok(())
}

fn check_level(text: &str, level: usize, levels: usize) -> Result<(), FilterFault> {
    let Some(wildcard) = text.chars().find(|c| matches!(c, '+' | '#')) else {
        return Ok(());
    };
    if text.len() > 1 {
        return Err(FilterFault::PartOfLevel {
            wildcard,
            level,
            text: text.into(),
        });
    }
    if wildcard == '#' && level < levels {
        return Err(FilterFault::HashNotLast { level });
    }
    Ok(())
}

impl Mismatch {
    fn at(level: usize, filter: &str, topic: Option<&str>) -> Self {
        let filter = filter.into();
        match topic {
            Some(topic) => Self::Level {
                level,
                filter,
                topic: topic.into(),
            },
            None => Self::TopicEnds { level, filter },
        }
    }
}

impl fmt::Display for FilterFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the topic filter is empty; write `#` for every topic"),
            Self::Nul => write!(
                f,
                "the topic filter contains the character U+0000, which no topic may"
            ),
            Self::TooLong { bytes } => write!(
                f,
                "the topic filter has {bytes} bytes; MQTT allows {TOPIC_BYTES_MAX}"
            ),
            Self::TooDeep { levels } => write!(
                f,
                "the topic filter has {levels} levels; at most {FILTER_LEVELS_MAX} are taken; write `#` for the last ones"
            ),
            Self::HashNotLast { level } => write!(
                f,
                "`#` stands at level {level} but may only be the last one; write `+` for one level of any name"
            ),
            Self::PartOfLevel {
                wildcard,
                level,
                text,
            } => write!(
                f,
                "`{wildcard}` must be a whole level, but level {level} is `{text}`; write `{wildcard}` alone between the slashes"
            ),
            Self::Shared { filter } => {
                write!(
                    f,
                    "`$share/` is for subscriptions; a rule sees the topic that was published"
                )?;
                match filter {
                    Some(filter) => write!(f, "; write `{filter}`"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl fmt::Display for TopicFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the topic is empty; MQTT wants at least one character"),
            Self::Nul => write!(
                f,
                "the topic contains the character U+0000, which no topic may"
            ),
            Self::Wildcard(wildcard) => write!(
                f,
                "the topic contains `{wildcard}`, which only filters may; give the topic as a device publishes it"
            ),
            Self::TooLong { bytes } => {
                write!(
                    f,
                    "the topic has {bytes} bytes; MQTT allows {TOPIC_BYTES_MAX}"
                )
            }
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Level {
                level,
                filter,
                topic,
            } => write!(f, "level {level} is `{topic}`, the filter wants `{filter}`"),
            Self::TopicEnds { level, filter } => write!(
                f,
                "the topic ends before level {level}, where the filter wants `{filter}`"
            ),
            Self::FilterEnds { level, topic } => write!(
                f,
                "the filter ends before level {level}, where the topic has `{topic}`"
            ),
            Self::Dollar => write!(
                f,
                "a filter that starts with a wildcard never matches a topic that starts with `$` (MQTT 5, 4.7.2)"
            ),
        }
    }
}

impl std::error::Error for FilterFault {}
impl std::error::Error for TopicFault {}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> FilterFault {
        Filter::parse(text).unwrap_err()
    }

    #[test]
    fn which_filters_of_the_standard_are_valid() {
        for text in [
            "#",
            "+",
            "/",
            "/+",
            "+/+",
            "+/tennis/#",
            "sport/+/player1",
            "sport/#",
            "$SYS/#",
            "a//b",
            " ",
            "sport/tennis/player1/#",
            "$share",
            "ä/ö",
        ] {
            assert!(Filter::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn which_filters_of_the_standard_are_not_valid() {
        assert_eq!(fault(""), FilterFault::Empty);
        assert_eq!(fault("a\0b"), FilterFault::Nul);
        assert_eq!(
            fault("sport/tennis/#/ranking"),
            FilterFault::HashNotLast { level: 3 }
        );
        for (text, wildcard, level) in [
            ("sport/tennis#", '#', 2),
            ("sport+", '+', 1),
            ("a/+b/c", '+', 2),
            ("##", '#', 1),
            ("+#", '+', 1),
        ] {
            let FilterFault::PartOfLevel {
                wildcard: found,
                level: at,
                ..
            } = fault(text)
            else {
                panic!("{text}: {}", fault(text));
            };
            assert_eq!((found, at), (wildcard, level), "{text}");
        }
    }

    #[test]
    fn how_long_and_how_deep_a_filter_may_be() {
        assert!(Filter::parse(&"a".repeat(65_535)).is_ok());
        assert_eq!(
            fault(&"a".repeat(65_536)),
            FilterFault::TooLong { bytes: 65_536 }
        );
        assert!(Filter::parse(&vec!["a"; FILTER_LEVELS_MAX].join("/")).is_ok());
        assert_eq!(
            fault(&vec!["a"; FILTER_LEVELS_MAX + 1].join("/")),
            FilterFault::TooDeep {
                levels: FILTER_LEVELS_MAX + 1
            }
        );
    }

    #[test]
    fn a_shared_subscription_says_what_to_write_instead() {
        let said = fault("$share/group/plant/#").to_string();
        assert!(said.contains("write `plant/#`"), "{said}");
        assert!(matches!(fault("$share/group"), FilterFault::Shared { .. }));
    }

    #[test]
    fn at_which_level_a_filter_parts_from_a_topic() {
        let said = |filter: &str, topic: &str| {
            Filter::parse(filter)
                .unwrap()
                .mismatch(topic)
                .map(|why| why.to_string())
        };
        assert_eq!(said("a/+/c", "a/b/c"), None);
        assert_eq!(said("a/b/#", "a/b"), None);
        assert_eq!(
            said("a/+/alarm", "a/b/rms").unwrap(),
            "level 3 is `rms`, the filter wants `alarm`"
        );
        assert!(said("a/+/c", "a/b").unwrap().contains("before level 3"));
        assert!(said("a/+", "a/b/c").unwrap().contains("before level 3"));
        assert!(said("#", "$SYS/uptime").unwrap().contains("4.7.2"));
    }

    #[test]
    fn which_topics_are_valid() {
        assert_eq!(check_topic("a/b"), Ok(()));
        assert_eq!(check_topic("/"), Ok(()));
        assert_eq!(check_topic(""), Err(TopicFault::Empty));
        assert_eq!(check_topic("a\0"), Err(TopicFault::Nul));
        assert_eq!(check_topic("a/+"), Err(TopicFault::Wildcard('+')));
        assert_eq!(check_topic("a/b#"), Err(TopicFault::Wildcard('#')));
        assert_eq!(
            check_topic(&"a".repeat(65_536)),
            Err(TopicFault::TooLong { bytes: 65_536 })
        );
    }
}
