//! Which class a message belongs to. The operator's rules are ordered and the first that matches
//! decides. In comes a topic and a payload; out goes a [`Verdict`]. It runs in the door's own task
//! with rules shared by all, holds no message, and never fails: a payload that a condition cannot
//! read does not match, and is counted.

mod bounds;
mod condition;
mod explain;
mod fate;
mod filter;
mod reading;
mod remembered;
mod thinning;
mod trie;
mod verdict;
mod vocabulary;

pub use explain::{Ending, Explanation, Found, Key, Step, explain};
pub use fate::Fate;
pub use filter::{Filter, FilterFault, Mismatch, TopicFault, check_topic};
pub use reading::Pointer;
pub use verdict::{Classifier, RULES_MAX, RuleFault, Rules};

use std::sync::Arc;
use std::time::Duration;

use super::message::ClassId;

/// One rule as the operator configured it; valid by construction (see the configuration's checks).
#[derive(Clone, Debug)]
pub struct RuleSettings {
    /// Its name in logs and in `explain`; by default `rule N`, counted from 1.
    pub name: Arc<str>,
    /// Topic filters (MQTT 5, 4.7); one that matches is enough.
    pub filters: Vec<String>,
    /// A CEL condition over `payload` (parsed JSON, at most 16 KiB; its numbers are doubles) and
    /// `topic`, if any.
    pub when: Option<String>,
    /// The class it gives.
    pub class: ClassId,
    /// Where in the payload the key stands (RFC 6901 JSON pointer); `None`: the topic is the key.
    /// It takes the topic's place: two topics of a class that carry the same key there supersede
    /// each other. At most 256 bytes; text, number or truth value, all as text.
    pub key: Option<String>,
    /// Time to live that this rule gives, before the class's.
    pub ttl: Option<Duration>,
}

/// What the rules say of one message.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The class.
    pub class: ClassId,
    /// The key, where it is not the topic.
    pub key: Option<Arc<str>>,
    /// Time to live: the rule's, else the class's, if either has one.
    pub ttl: Option<Duration>,
    /// The rule that decided, by its place; `None`: the default class.
    pub rule: Option<u16>,
}
