//! `tidegate explain`: what the rules would do with a message, rule by rule, before it comes. In
//! come the compiled rules, the classes, a topic and perhaps a payload; out goes an [`Explanation`],
//! a value that prints as a readable walk. It takes its own way through the rules, filter by
//! filter, so that it can say why one does not match; a test holds it to the
//! [`Classifier`](super::Classifier)'s verdicts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::condition::{Condition, Scope};
use super::fate::Fate;
use super::filter::{Filter, Mismatch, TopicFault, check_topic};
use super::reading::Payload;
use super::verdict::{Rule, Rules};
use crate::traffic::message::ClassId;
use crate::traffic::queue::ClassSettings;

/// What the rules say of one topic and payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The topic.
    pub topic: Arc<str>,
    /// The rules in order, up to the one that decides.
    pub steps: Vec<Step>,
    /// How it can end: one way when everything is known; without a payload, one more for each
    /// condition that would have to read it.
    pub endings: Vec<Ending>,
}

/// One rule on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its place.
    pub rule: u16,
    /// Its name.
    pub name: Arc<str>,
    /// What was found.
    pub found: Found,
}

/// Whether a rule matches, and why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It matches and decides.
    Decides {
        /// The filter that matches.
        filter: String,
        /// Its condition, which holds, if it has one.
        condition: Option<String>,
    },
    /// None of its filters matches: each with the place where it parts from the topic.
    OtherTopic(Vec<(String, Mismatch)>),
    /// The topic matches, the condition does not hold.
    False {
        /// The filter that matches.
        filter: String,
        /// The condition.
        condition: String,
    },
    /// The topic matches, the condition cannot read the payload: it does not match and is counted.
    Unreadable {
        /// The filter that matches.
        filter: String,
        /// The condition.
        condition: String,
        /// Why.
        why: String,
    },
    /// The topic matches, the condition would have to read a payload and none was given.
    NotEvaluated {
        /// The filter that matches.
        filter: String,
        /// The condition.
        condition: String,
    },
}

/// What becomes of the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The rule that decides, by name; `None`: no rule matches, the default class.
    pub rule: Option<Arc<str>>,
    /// Whether that hangs on this rule's condition, which was not evaluated.
    pub if_holds: bool,
    /// The class's name.
    pub class: Arc<str>,
    /// Whether it is the first class.
    pub first: bool,
    /// What its newest value is kept by.
    pub key: Key,
    /// How long it is worth sending; `None`: for ever (unless its publisher says otherwise).
    pub ttl: Option<Duration>,
    /// What happens to it.
    pub fate: Fate,
}

/// The key of a message, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// The topic: the rule names no other.
    Topic,
    /// What the payload has where the rule points.
    Value {
        /// The JSON pointer.
        pointer: String,
        /// What stands there.
        key: Arc<str>,
    },
    /// The topic, because the payload has no key there; it is counted as unreadable.
    Unreadable {
        /// The JSON pointer.
        pointer: String,
        /// Why.
        why: String,
    },
    /// What the payload will have there; none was given.
    NotGiven {
        /// The JSON pointer.
        pointer: String,
    },
}

/// Explains what the rules do with a topic and, where one is given, a payload. `classes` are those
/// that the rules were compiled with.
///
/// # Errors
/// When the topic is none that a device could publish.
pub fn explain(
    rules: &Rules,
    classes: &[ClassSettings],
    topic: &str,
    payload: Option<&[u8]>,
) -> Result<Explanation, TopicFault> {
    check_topic(topic)?;
    let given = payload.is_some();
    let payload = Payload::new(payload.unwrap_or_default());
    let walk = Walk {
        rules,
        classes,
        topic,
        payload: &payload,
        given,
    };
    Ok(walk.through())
}

struct Walk<'a> {
    rules: &'a Rules,
    classes: &'a [ClassSettings],
    topic: &'a str,
    payload: &'a Payload<'a>,
    given: bool,
}

impl Walk<'_> {
    fn through(&self) -> Explanation {
        let mut explanation = Explanation {
            topic: self.topic.into(),
            steps: Vec::new(),
            endings: Vec::new(),
        };
        for (place, rule) in self.rules.in_order() {
            let found = self.rule(rule);
            let decides = matches!(found, Found::Decides { .. });
            let maybe = matches!(found, Found::NotEvaluated { .. });
            explanation.steps.push(Step {
                rule: place,
                name: Arc::clone(&rule.name),
                found,
            });
            if decides || maybe {
                let ending = self.ending(Some((place, rule)), maybe);
                explanation.endings.push(ending);
            }
            if decides {
                return explanation;
            }
        }
        explanation.endings.push(self.ending(None, false));
        explanation
    }

    fn rule(&self, rule: &Rule) -> Found {
        let mut mismatches = Vec::new();
        for filter in &rule.filters {
            match filter.mismatch(self.topic) {
                None => return self.condition(filter, rule.when.as_ref()),
                Some(mismatch) => mismatches.push((filter.as_str().to_owned(), mismatch)),
            }
        }
        Found::OtherTopic(mismatches)
    }

    fn condition(&self, filter: &Filter, when: Option<&Condition>) -> Found {
        let filter = filter.as_str().to_owned();
        let Some(when) = when else {
            return Found::Decides {
                filter,
                condition: None,
            };
        };
        let condition = when.as_str().to_owned();
        if when.reads_payload() && !self.given {
            return Found::NotEvaluated { filter, condition };
        }
        match when.holds(self.rules.language(), &Scope::new(self.topic, self.payload)) {
            Ok(true) => Found::Decides {
                filter,
                condition: Some(condition),
            },
            Ok(false) => Found::False { filter, condition },
            Err(why) => Found::Unreadable {
                filter,
                condition,
                why: why.to_string(),
            },
        }
    }

    fn ending(&self, decided: Option<(u16, &Rule)>, if_holds: bool) -> Ending {
        let outcome = self.rules.outcome(decided.map(|(place, _)| place));
        let settings = self.classes.get(outcome.class.index());
        Ending {
            rule: decided.map(|(_, rule)| Arc::clone(&rule.name)),
            if_holds,
            class: settings.map_or_else(|| "discard".into(), |class| Arc::clone(&class.name)),
            first: outcome.class == ClassId::FIRST,
            key: decided.map_or(Key::Topic, |(_, rule)| self.key(rule)),
            ttl: outcome.ttl,
            fate: settings.map_or_else(Fate::discard, Fate::of),
        }
    }

    fn key(&self, rule: &Rule) -> Key {
        let Some(at) = &rule.key else {
            return Key::Topic;
        };
        let pointer = at.as_str().to_owned();
        if !self.given {
            return Key::NotGiven { pointer };
        }
        match at.key(self.payload) {
            Ok(key) => Key::Value { pointer, key },
            Err(why) => Key::Unreadable {
                pointer,
                why: why.to_string(),
            },
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "topic {}", self.topic)?;
        for step in &self.steps {
            write!(f, "{step}")?;
        }
        let sure = self.endings.len() == 1;
        for ending in &self.endings {
            writeln!(f)?;
            match (&ending.rule, ending.if_holds) {
                (Some(rule), true) => writeln!(f, "if the condition of {rule} holds")?,
                (Some(rule), false) if sure => writeln!(f, "decided by {rule}")?,
                (Some(rule), false) => writeln!(f, "otherwise, decided by {rule}")?,
                (None, _) if sure => writeln!(f, "no rule matches: the default class")?,
                (None, _) => writeln!(f, "otherwise no rule matches: the default class")?,
            }
            write!(f, "{ending}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {}: ", self.name)?;
        match &self.found {
            Found::Decides { filter, condition } => {
                write!(f, "matches `{filter}`")?;
                if let Some(condition) = condition {
                    write!(f, ", and `{condition}` holds")?;
                }
                writeln!(f)
            }
            Found::OtherTopic(filters) => {
                writeln!(f, "no match")?;
                filters
                    .iter()
                    .try_for_each(|(filter, why)| writeln!(f, "    `{filter}`: {why}"))
            }
            Found::False { filter, condition } => {
                writeln!(f, "matches `{filter}`, but `{condition}` is false")
            }
            Found::Unreadable {
                filter,
                condition,
                why,
            } => writeln!(
                f,
                "matches `{filter}`, but `{condition}` cannot be told and is counted as unreadable: {why}"
            ),
            Found::NotEvaluated { filter, condition } => writeln!(
                f,
                "matches `{filter}`; `{condition}` was not evaluated since no payload was given"
            ),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = if self.first {
            " (the first class: before every other)"
        } else {
            ""
        };
        writeln!(f, "  class      {}{first}", self.class)?;
        writeln!(f, "  key        {}", self.key)?;
        match self.ttl {
            Some(ttl) => writeln!(f, "  expires    {} after it came", time(ttl))?,
            None => writeln!(f, "  expires    never, unless its publisher says so")?,
        }
        writeln!(f, "  calm       {}", self.fate.calm)?;
        writeln!(f, "  pressure   {}", self.fate.pressure)?;
        writeln!(f, "  no uplink  {}", self.fate.offline)?;
        writeln!(f, "  full disk  {}", self.fate.disk_full)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Topic => write!(f, "the topic"),
            Self::Value { pointer, key } => write!(f, "`{key}`, from `{pointer}` of the payload"),
            Self::Unreadable { pointer, why } => write!(
                f,
                "the topic, and counted as unreadable: `{pointer}` gives no key: {why}"
            ),
            Self::NotGiven { pointer } => {
                write!(f, "what the payload has at `{pointer}`; none was given")
            }
        }
    }
}

/// Bytes in the largest unit that divides them.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    whole(bytes, &UNITS).unwrap_or_else(|| format!("{bytes} bytes"))
}

/// A time in the largest unit that divides it.
pub(super) fn time(time: Duration) -> String {
    const UNITS: [(&str, u64); 5] = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("min", 60_000),
        ("s", 1000),
        ("ms", 1),
    ];
    u64::try_from(time.as_millis())
        .ok()
        .and_then(|millis| whole(millis, &UNITS))
        .unwrap_or_else(|| format!("{time:?}"))
}

fn whole(amount: u64, units: &[(&str, u64)]) -> Option<String> {
    units
        .iter()
        .find(|(_, unit)| amount >= *unit && amount.is_multiple_of(*unit))
        .map(|(name, unit)| format!("{} {name}", amount / unit))
}

#[cfg(test)]
mod tests {
    use super::super::Classifier;
    use super::super::verdict::tests::{classes, rule, rules_with};
    use super::*;

    fn site() -> Rules {
        rules_with(&[
            rule(&["+/+/alarm", "+/fire/#"], 0),
            RuleText::when(rule(&["plant/+/vibration"], 0), "payload.rms > 7.1"),
            RuleText::key(rule(&["plant/+/telemetry"], 2), "/tag"),
            rule(&["debug/#"], 255),
            rule(&["plant/#"], 2),
        ])
    }

    /// Small helpers to write rules down in a row.
    struct RuleText;
    impl RuleText {
        fn when(mut rule: super::super::RuleSettings, when: &str) -> super::super::RuleSettings {
            rule.when = Some(when.into());
            rule
        }
        fn key(mut rule: super::super::RuleSettings, key: &str) -> super::super::RuleSettings {
            rule.key = Some(key.into());
            rule
        }
    }

    fn said(topic: &str, payload: Option<&str>) -> Explanation {
        explain(&site(), &classes(), topic, payload.map(str::as_bytes)).unwrap()
    }

    #[test]
    fn which_rule_decided_and_why_the_others_did_not() {
        let explanation = said("plant/7/vibration", Some(r#"{"rms":3}"#));
        assert_eq!(explanation.steps.len(), 5);
        let text = explanation.to_string();
        for part in [
            "`+/+/alarm`: level 3 is `vibration`, the filter wants `alarm`",
            "`+/fire/#`: level 2 is `7`, the filter wants `fire`",
            "rule 2: matches `plant/+/vibration`, but `payload.rms > 7.1` is false",
            "rule 5: matches `plant/#`",
            "decided by rule 5",
            "class      low",
            "superseded and counted",
        ] {
            assert!(text.contains(part), "{part} in:\n{text}");
        }
    }

    #[test]
    fn what_is_said_of_a_condition_that_cannot_be_read() {
        let text = said("plant/7/vibration", Some("{}")).to_string();
        assert!(
            text.contains("counted as unreadable: the payload has no `rms`"),
            "{text}"
        );
        let text = said("plant/7/vibration", Some("7.5 mm/s")).to_string();
        assert!(text.contains("not JSON"), "{text}");
    }

    #[test]
    fn what_is_said_without_a_payload() {
        let explanation = said("plant/7/vibration", None);
        let classes: Vec<_> = explanation.endings.iter().map(|e| &*e.class).collect();
        assert_eq!(classes, ["critical", "low"]);
        let text = explanation.to_string();
        assert!(text.contains("if the condition of rule 2 holds"), "{text}");
        assert!(text.contains("otherwise, decided by rule 5"), "{text}");
    }

    #[test]
    fn what_the_key_is() {
        let key = |payload| said("plant/7/telemetry", payload).endings.remove(0).key;
        assert!(matches!(key(Some(r#"{"tag":"t1"}"#)), Key::Value { key, .. } if &*key == "t1"));
        assert!(matches!(key(Some("{}")), Key::Unreadable { .. }));
        assert!(matches!(key(None), Key::NotGiven { .. }));
        assert_eq!(said("plant/7/rms", None).endings[0].key, Key::Topic);
    }

    #[test]
    fn what_happens_when_no_rule_matches_and_when_it_is_discarded() {
        let text = said("office/1", None).to_string();
        assert!(
            text.contains("no rule matches: the default class"),
            "{text}"
        );
        assert!(
            text.contains("class      normal") && text.contains("expires    7 d"),
            "{text}"
        );
        assert!(
            text.contains("8 MiB of memory, it overflows to the spool"),
            "{text}"
        );
        let text = said("debug/1", None).to_string();
        assert!(text.contains("class      discard"), "{text}");
        assert!(text.contains("counted as shed, gone"), "{text}");
        let text = said("a/b/alarm", None).to_string();
        assert!(
            text.contains("before every other") && text.contains("its sender paused"),
            "{text}"
        );
    }

    #[test]
    fn which_topics_are_not_explained() {
        for topic in ["", "a/+", "#", "a\0"] {
            assert!(
                explain(&site(), &classes(), topic, None).is_err(),
                "{topic:?}"
            );
        }
    }

    #[test]
    fn does_the_explanation_say_what_the_classifier_does() {
        let rules = Arc::new(site());
        let mut classifier = Classifier::new(Arc::clone(&rules));
        for topic in [
            "a/b/alarm",
            "x/fire",
            "plant/1/vibration",
            "plant/1/telemetry",
            "debug/x",
            "plant",
            "$SYS/x",
            "q",
        ] {
            for payload in ["", "{}", r#"{"rms":8,"tag":7}"#, r#"{"rms":1}"#, "text"] {
                let verdict = classifier.classify(topic, payload.as_bytes());
                let explanation =
                    explain(&rules, &classes(), topic, Some(payload.as_bytes())).unwrap();
                let [ending] = explanation.endings.as_slice() else {
                    panic!("{explanation}");
                };
                let class = classes()
                    .get(verdict.class.index())
                    .map_or_else(|| "discard".into(), |c| c.name.clone());
                assert_eq!(ending.class, class, "{topic} {payload}");
                assert_eq!(ending.ttl, verdict.ttl);
                let key = match &ending.key {
                    Key::Value { key, .. } => Some(key.clone()),
                    _ => None,
                };
                assert_eq!(key, verdict.key, "{topic} {payload}");
            }
        }
    }
}
