//! The rules, compiled, and a door's own view of them with its memory of topics.

use std::sync::Arc;

use super::{RuleSettings, Verdict};
use crate::traffic::message::ClassId;
use crate::traffic::queue::ClassSettings;

/// The compiled rules, shared by all doors.
#[derive(Debug)]
pub struct Rules {
    default_class: ClassId,
}

/// Why a rule does not compile.
#[derive(Debug)]
pub struct RuleFault {
    /// Which rule, by its place.
    pub rule: usize,
    /// What is wrong and what to do.
    pub reason: String,
}

impl Rules {
    /// Compiles the rules. `topics_bytes_max` bounds what all doors together remember of topics.
    ///
    /// # Errors
    /// Every rule that does not compile.
    pub fn compile(
        _rules: &[RuleSettings],
        _classes: &[ClassSettings],
        default_class: ClassId,
        _topics_bytes_max: u64,
    ) -> Result<Self, Vec<RuleFault>> {
        Ok(Self { default_class })
    }

    /// Whether any rule could give this topic a guaranteed class (a `when` counts as true).
    #[must_use]
    pub fn guaranteed_can_reach(&self, _topic: &str) -> bool {
        self.default_class == ClassId::FIRST
    }
}

/// A door's view of the rules.
#[derive(Debug)]
pub struct Classifier {
    rules: Arc<Rules>,
    unreadable: u32,
}

impl Classifier {
    /// A view that remembers nothing yet.
    #[must_use]
    pub fn new(rules: Arc<Rules>) -> Self {
        Self {
            rules,
            unreadable: 0,
        }
    }

    /// What the rules say of this message.
    pub fn classify(&mut self, topic: &str, _payload: &[u8]) -> Verdict {
        Verdict {
            topic: Arc::from(topic),
            class: self.rules.default_class,
            key: None,
            ttl: None,
            rule: None,
        }
    }

    /// Payloads that a condition could not read since the last call.
    pub fn take_unreadable(&mut self) -> u32 {
        std::mem::take(&mut self.unreadable)
    }
}
