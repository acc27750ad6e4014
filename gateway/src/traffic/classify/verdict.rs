//! The rules, compiled, and a door's own view of them with its memory of topics.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::condition::{Condition, Language, Scope};
use super::filter::Filter;
use super::reading::{Payload, Pointer};
use super::remembered::{Budget, Known, Topics};
use super::trie::Trie;
use super::{RuleSettings, Verdict};
use crate::traffic::message::ClassId;
use crate::traffic::queue::{ClassSettings, Delivery};

/// Most rules: a generous bound on what a topic's list of rules can take.
pub const RULES_MAX: usize = 10_000;

/// The compiled rules, shared by all doors.
#[derive(Debug)]
pub struct Rules {
    rules: Box<[Rule]>,
    /// What the rules give, once more and in a row: all that most messages need of them.
    outcomes: Box<[Outcome]>,
    default: Outcome,
    trie: Trie,
    language: Language,
    budget: Arc<Budget>,
}

/// One rule, compiled.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: Arc<str>,
    pub(super) filters: Box<[Filter]>,
    pub(super) when: Option<Condition>,
    pub(super) key: Option<Pointer>,
    pub(super) outcome: Outcome,
}

/// What a rule gives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    pub(super) class: ClassId,
    pub(super) ttl: Option<Duration>,
    /// Whether the class is guaranteed.
    guaranteed: bool,
    /// Whether the rule says where the key stands.
    keyed: bool,
}

/// Why a rule does not compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFault {
    /// Which rule, by its place.
    pub rule: usize,
    /// What is wrong and what to do.
    pub reason: String,
}

impl fmt::Display for RuleFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {}: {}", self.rule + 1, self.reason)
    }
}

impl std::error::Error for RuleFault {}

impl Rules {
    /// Compiles the rules. `topics_bytes_max` bounds what all doors together remember of topics, in
    /// bytes; 0 is allowed and means that every message's topic is looked up.
    ///
    /// # Errors
    /// All faults of all rules, in the rules' order.
    pub fn compile(
        rules: &[RuleSettings],
        classes: &[ClassSettings],
        default_class: ClassId,
        topics_bytes_max: u64,
    ) -> Result<Self, Vec<RuleFault>> {
        let language = Language::default();
        let mut faults = Vec::new();
        if rules.len() > RULES_MAX {
            faults.push(RuleFault {
                rule: RULES_MAX,
                reason: format!("at most {RULES_MAX} rules are taken; join filters into one rule"),
            });
        }
        let compiled: Box<[Rule]> = rules
            .iter()
            .take(RULES_MAX)
            .enumerate()
            .map(|(rule, settings)| {
                Rule::compile(settings, classes, &language, &mut |reason| {
                    faults.push(RuleFault { rule, reason });
                })
            })
            .collect();
        if !faults.is_empty() {
            faults.sort_by_key(|fault| fault.rule);
            return Err(faults);
        }
        Ok(Self {
            trie: trie(&compiled),
            outcomes: compiled.iter().map(|rule| rule.outcome).collect(),
            rules: compiled,
            default: Outcome::new(default_class, None, classes),
            language,
            budget: Arc::new(Budget::new(topics_bytes_max)),
        })
    }

    /// Whether any rule could give this topic a guaranteed class. A `when` counts as true and as
    /// false: a rule with one can decide, and so can those behind it. Looks the topic up each time;
    /// where messages pass, ask [`Classifier::guaranteed_can_reach`], which remembers.
    #[must_use]
    pub fn guaranteed_can_reach(&self, topic: &str) -> bool {
        self.look_up(topic).guaranteed
    }

    /// What the rules say of a topic before any payload is read.
    pub(super) fn look_up(&self, topic: &str) -> Known {
        let mut conditioned = Vec::new();
        let mut guaranteed = false;
        let mut otherwise = None;
        for place in self.trie.matches(topic) {
            let Some(rule) = self.rule(place) else {
                continue;
            };
            guaranteed |= rule.outcome.guaranteed;
            if rule.when.is_none() {
                otherwise = Some(place);
                break;
            }
            conditioned.push(place);
        }
        Known {
            conditioned: (!conditioned.is_empty()).then(|| Arc::new(conditioned.into())),
            otherwise,
            guaranteed: guaranteed || (otherwise.is_none() && self.default.guaranteed),
        }
    }

    /// The verdict on a message whose payload a rule may have to read. Says too whether one could
    /// not.
    fn decide(&self, known: &Known, topic: &str, payload: &[u8]) -> (Verdict, bool) {
        let payload = Payload::new(payload);
        let scope = Scope::new(topic, &payload);
        let (decided, mut unreadable) = self.first_that_holds(known, &scope);
        let mut verdict = self.verdict(decided);
        if let Some(pointer) = self.key(decided) {
            let key = pointer.key(&payload);
            unreadable |= key.is_err();
            verdict.key = key.ok();
        }
        (verdict, unreadable)
    }

    /// The first rule whose condition holds, else the one without.
    fn first_that_holds(&self, known: &Known, scope: &Scope<'_>) -> (Option<u16>, bool) {
        let mut unreadable = false;
        for &place in known.conditioned.iter().flat_map(|places| places.iter()) {
            let Some(when) = self.rule(place).and_then(|rule| rule.when.as_ref()) else {
                continue;
            };
            match when.holds(&self.language, scope) {
                Ok(true) => return (Some(place), unreadable),
                Ok(false) => {}
                Err(_) => unreadable = true,
            }
        }
        (known.otherwise, unreadable)
    }

    fn verdict(&self, decided: Option<u16>) -> Verdict {
        let outcome = self.outcome(decided);
        Verdict {
            class: outcome.class,
            key: None,
            ttl: outcome.ttl,
            rule: decided,
        }
    }

    /// What the rule at this place gives, or the default class.
    pub(super) fn outcome(&self, place: Option<u16>) -> &Outcome {
        place
            .and_then(|place| self.outcomes.get(usize::from(place)))
            .unwrap_or(&self.default)
    }

    fn key(&self, place: Option<u16>) -> Option<&Pointer> {
        self.rule(place?)?.key.as_ref()
    }

    fn rule(&self, place: u16) -> Option<&Rule> {
        self.rules.get(usize::from(place))
    }

    /// The rules with their places, the first one first.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (u16, &Rule)> {
        (0u16..).zip(&self.rules)
    }

    pub(super) const fn language(&self) -> &Language {
        &self.language
    }
}

impl Rule {
    fn compile(
        settings: &RuleSettings,
        classes: &[ClassSettings],
        language: &Language,
        fault: &mut dyn FnMut(String),
    ) -> Self {
        if settings.filters.is_empty() {
            fault("it has no topic filter; write `#` for every topic".to_owned());
        }
        let filters = settings.filters.iter().filter_map(|text| {
            Filter::parse(text)
                .map_err(|why| fault(format!("topic `{}`: {why}", text.escape_debug())))
                .ok()
        });
        let filters = filters.collect();
        let when = settings
            .when
            .as_deref()
            .map(|text| Condition::compile(text, language));
        let key = settings.key.as_deref().map(Pointer::parse);
        Self {
            name: Arc::clone(&settings.name),
            filters,
            when: when.and_then(|when| when.map_err(&mut *fault).ok()),
            key: key.and_then(|key| key.map_err(fault).ok()),
            outcome: Outcome {
                keyed: settings.key.is_some(),
                ..Outcome::new(settings.class, settings.ttl, classes)
            },
        }
    }
}

impl Outcome {
    fn new(class: ClassId, ttl: Option<Duration>, classes: &[ClassSettings]) -> Self {
        let settings = classes.get(class.index());
        Self {
            class,
            ttl: ttl.or_else(|| settings?.ttl),
            guaranteed: settings.is_some_and(|s| s.delivery == Delivery::Guaranteed),
            keyed: false,
        }
    }
}

fn trie(rules: &[Rule]) -> Trie {
    let mut trie = Trie::default();
    for (place, rule) in (0u16..).zip(rules) {
        for filter in &rule.filters {
            trie.insert(filter, place);
        }
    }
    trie
}

/// A door's view of the rules. It remembers what they say of the topics that come through this
/// door, within the bound that all doors share, and gives the memory back when it is dropped.
#[derive(Debug)]
pub struct Classifier {
    rules: Arc<Rules>,
    topics: Topics,
    unreadable: u32,
}

impl Classifier {
    /// A view that remembers nothing yet.
    #[must_use]
    pub fn new(rules: Arc<Rules>) -> Self {
        Self {
            topics: Topics::new(Arc::clone(&rules.budget), rules.look_up("")),
            rules,
            unreadable: 0,
        }
    }

    /// What the rules say of this message.
    pub fn classify(&mut self, topic: &str, payload: &[u8]) -> Verdict {
        let known = self.topics.recall(topic, &self.rules);
        if known.conditioned.is_none() && !self.rules.outcome(known.otherwise).keyed {
            return self.rules.verdict(known.otherwise);
        }
        let (verdict, unreadable) = self.rules.decide(known, topic, payload);
        self.unreadable = self.unreadable.saturating_add(u32::from(unreadable));
        verdict
    }

    /// Like [`Rules::guaranteed_can_reach`], from what is remembered of the topic.
    pub fn guaranteed_can_reach(&mut self, topic: &str) -> bool {
        self.topics.recall(topic, &self.rules).guaranteed
    }

    /// Payloads that a condition or a key could not read since the last call; a payload counts once
    /// however many rules asked.
    pub fn take_unreadable(&mut self) -> u32 {
        std::mem::take(&mut self.unreadable)
    }

    /// Topics that were forgotten for want of memory since the last call. They are looked up again when
    /// they come again.
    pub fn take_forgotten(&mut self) -> u32 {
        self.topics.take_forgotten()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The three classes of the embedded defaults, in short.
    pub(in super::super) fn classes() -> Vec<ClassSettings> {
        let class = |name, delivery, ttl: Option<u64>| ClassSettings {
            ttl: ttl.map(Duration::from_secs),
            ..ClassSettings::new(name, delivery, 8 << 20)
        };
        vec![
            class("critical", Delivery::Guaranteed, None),
            class("normal", Delivery::Buffered, Some(7 * 86_400)),
            class("low", Delivery::Latest, None),
        ]
    }

    /// A rule on topics alone; its name says its class.
    pub(in super::super) fn rule(filters: &[&str], class: u8) -> RuleSettings {
        RuleSettings {
            name: "".into(),
            filters: filters.iter().map(ToString::to_string).collect(),
            when: None,
            class: ClassId(class),
            key: None,
            ttl: None,
        }
    }

    /// Compiles them, named by place, with `normal` as the default class and plenty to remember.
    pub(in super::super) fn rules_with(rules: &[RuleSettings]) -> Rules {
        compile(rules, 1 << 20).unwrap()
    }

    fn compile(rules: &[RuleSettings], topics_bytes_max: u64) -> Result<Rules, Vec<RuleFault>> {
        let mut rules = rules.to_vec();
        for (place, rule) in rules.iter_mut().enumerate() {
            rule.name = format!("rule {}", place + 1).into();
        }
        Rules::compile(&rules, &classes(), ClassId(1), topics_bytes_max)
    }

    fn when(filters: &[&str], when: &str, class: u8) -> RuleSettings {
        RuleSettings {
            when: Some(when.into()),
            ..rule(filters, class)
        }
    }

    fn classifier(rules: &[RuleSettings]) -> Classifier {
        Classifier::new(Arc::new(rules_with(rules)))
    }

    #[test]
    fn does_the_first_rule_that_matches_decide() {
        let mut door = classifier(&[rule(&["a/#"], 2), rule(&["a/b"], 0), rule(&["#"], 255)]);
        let verdict = door.classify("a/b", b"");
        assert_eq!((verdict.class, verdict.rule), (ClassId(2), Some(0)));
        assert_eq!(door.classify("b", b"").class, ClassId::DISCARD);
        let verdict = door.classify("$SYS/x", b"");
        assert_eq!((verdict.class, verdict.rule), (ClassId(1), None));
    }

    #[test]
    fn whose_time_to_live_counts() {
        let own = RuleSettings {
            ttl: Some(Duration::from_secs(5)),
            ..rule(&["own"], 1)
        };
        let mut door = classifier(&[own, rule(&["never"], 0)]);
        assert_eq!(door.classify("own", b"").ttl, Some(Duration::from_secs(5)));
        assert_eq!(door.classify("never", b"").ttl, None);
        assert_eq!(
            door.classify("x", b"").ttl,
            Some(Duration::from_secs(7 * 86_400))
        );
    }

    #[test]
    fn does_a_condition_decide_each_message_anew() {
        let mut door = classifier(&[
            when(&["v/+"], "payload.rms > 7.1", 0),
            when(&["v/+"], "topic.endsWith('9')", 1),
            rule(&["v/#"], 2),
        ]);
        for _ in 0..2 {
            assert_eq!(door.classify("v/1", br#"{"rms":8}"#).rule, Some(0));
            assert_eq!(door.classify("v/1", br#"{"rms":7}"#).rule, Some(2));
            assert_eq!(door.classify("v/9", br#"{"rms":7}"#).rule, Some(1));
        }
        assert_eq!(door.take_unreadable(), 0);
    }

    #[test]
    fn is_an_unreadable_payload_counted_once_and_passed_on() {
        let mut door = classifier(&[
            when(&["v"], "payload.a > 1.0", 0),
            when(&["v"], "payload.b > 1.0", 0),
            when(&["v"], "topic == 'v' && payload.c", 0),
            rule(&["#"], 2),
        ]);
        assert_eq!(door.classify("v", b"\xff\xfe").rule, Some(3));
        assert_eq!(door.take_unreadable(), 1);
        assert_eq!(door.classify("v", br#"{"b":2}"#).rule, Some(1));
        assert_eq!(door.take_unreadable(), 1);
        let large = vec![b' '; super::super::reading::PAYLOAD_BYTES_MAX + 1];
        assert_eq!(door.classify("v", &large).rule, Some(3));
        assert_eq!(door.take_unreadable(), 1);
        assert_eq!(door.classify("w", b"\xff").rule, Some(3));
        assert_eq!(door.take_unreadable(), 0, "no condition asked");
    }

    #[test]
    fn what_the_key_of_a_message_is() {
        let mut door = classifier(&[RuleSettings {
            key: Some("/id".into()),
            ..rule(&["k/#"], 2)
        }]);
        assert_eq!(
            door.classify("k/1", br#"{"id":7}"#).key.as_deref(),
            Some("7")
        );
        assert_eq!(door.classify("other", br#"{"id":7}"#).key, None);
        assert_eq!(door.take_unreadable(), 0);
        assert_eq!(door.classify("k/1", b"7").key, None);
        assert_eq!(door.take_unreadable(), 1);
    }

    #[test]
    fn which_topics_a_guaranteed_class_can_reach() {
        let mut door = classifier(&[
            rule(&["gone/#"], 255),
            when(&["maybe/#", "gone/x"], "payload.x", 0),
            rule(&["maybe/not"], 2),
            rule(&["sure/#"], 0),
            when(&["low/#"], "payload.x", 2),
            rule(&["low/alarm"], 0),
            rule(&["low/plain"], 2),
        ]);
        for (topic, expected) in [
            ("gone/x", false),
            ("maybe/1", true),
            ("maybe/not", true),
            ("sure", true),
            ("low/alarm", true),
            ("low/plain", false),
            ("low/x", false),
            ("unknown", false),
        ] {
            assert_eq!(door.rules.guaranteed_can_reach(topic), expected, "{topic}");
            assert_eq!(door.guaranteed_can_reach(topic), expected, "{topic}");
        }
        let all = Rules::compile(&[], &classes(), ClassId::FIRST, 0).unwrap();
        assert!(all.guaranteed_can_reach("unknown"), "the default class");
    }

    #[test]
    fn are_all_faults_of_all_rules_told() {
        let faults = compile(
            &[
                rule(&["a/#/b", "ok", ""], 0),
                rule(&["ok"], 0),
                when(&["ok"], "payload.x >", 0),
                RuleSettings {
                    key: Some("id".into()),
                    ..when(&[], "rms > 1", 0)
                },
            ],
            0,
        )
        .unwrap_err();
        let places: Vec<_> = faults.iter().map(|fault| fault.rule).collect();
        assert_eq!(places, [0, 0, 2, 3, 3, 3]);
        assert!(faults[0].to_string().starts_with("rule 1: topic `a/#/b`:"));
    }

    #[test]
    fn do_all_doors_together_stay_within_the_bound() {
        let bytes_max = 64 * 1024;
        let rules = Arc::new(compile(&[when(&["a/#"], "payload.x", 0)], bytes_max).unwrap());
        let mut doors: Vec<_> = (0..4)
            .map(|_| Classifier::new(Arc::clone(&rules)))
            .collect();
        for n in 0..20_000 {
            for (at, door) in doors.iter_mut().enumerate() {
                let topic = format!("a/{at}/{n}");
                assert_eq!(door.classify(&topic, b"{}").class, ClassId(1));
            }
        }
        let held: u64 = doors.iter().map(|door| door.topics.held_bytes()).sum();
        assert_eq!(held + rules.budget.left_bytes(), bytes_max);
        assert!(held > bytes_max / 4, "{held} bytes remembered");
        let forgotten = doors.iter_mut().map(Classifier::take_forgotten);
        let remembered: usize = 80_000 - forgotten.map(|n| n as usize).sum::<usize>();
        assert!(
            remembered as u64 * 50 < bytes_max,
            "{remembered} remembered"
        );
        assert!(remembered > 0);
        drop(doors);
        assert_eq!(rules.budget.left_bytes(), bytes_max, "given back");
    }

    #[test]
    fn is_a_topic_in_use_kept_while_others_are_forgotten() {
        let rules = Arc::new(compile(&[when(&["in use"], "payload.x", 0)], 64 * 1024).unwrap());
        let mut door = Classifier::new(Arc::clone(&rules));
        let mut in_use = move |passing: &str| {
            door.classify(passing, b"");
            let known = door.topics.recall("in use", &rules);
            Arc::clone(known.conditioned.as_ref().unwrap())
        };
        let mut kept = in_use("passing");
        let mut anew = 0;
        for n in 0..20_000 {
            let known = in_use(&format!("passing/{n}"));
            anew += u32::from(!Arc::ptr_eq(&kept, &known));
            kept = known;
        }
        assert!(anew < 3, "looked up {anew} times");
    }

    #[test]
    fn does_a_door_without_memory_still_say_the_same() {
        let rules = Arc::new(compile(&[rule(&["a/+"], 0), rule(&["#"], 2)], 0).unwrap());
        let mut door = Classifier::new(rules);
        for _ in 0..3 {
            assert_eq!(door.classify("a/b", b"").class, ClassId(0));
            assert_eq!(door.classify("b", b"").class, ClassId(2));
        }
        assert_eq!(door.topics.held_bytes(), 0);
    }

    #[test]
    fn how_many_rules_are_taken() {
        let one = rule(&["a"], 0);
        assert!(compile(&vec![one.clone(); RULES_MAX], 0).is_ok());
        let faults = compile(&vec![one; RULES_MAX + 1], 0).unwrap_err();
        assert!(faults[0].reason.contains("10000"), "{}", faults[0]);
    }
}
