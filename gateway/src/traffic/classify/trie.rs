//! All rules' topic filters as one tree of levels, so that a topic's rules are found without looking
//! at the others: a walk visits at most the branches that match so far. In come filters with the
//! place of their rule; out go the places of the rules that match a topic, in rule order.

use std::collections::HashMap;

use super::filter::Filter;

/// The tree. A branch for each level name, one for `+`, and the rules that end here.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    names: HashMap<Box<str>, usize>,
    plus: Option<usize>,
    /// Rules with a filter that ends at this level.
    here: Vec<u16>,
    /// Rules with a filter that goes on with `#`: they match here and everywhere below
    /// (MQTT 5, 4.7.1.2: the number sign includes the parent level).
    below: Vec<u16>,
}

const ROOT: usize = 0;

impl Default for Trie {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
        }
    }
}

impl Trie {
    /// Adds a filter of the rule at this place.
    pub(super) fn insert(&mut self, filter: &Filter, rule: u16) {
        let mut at = ROOT;
        for level in filter.as_str().split('/') {
            if level == "#" {
                self.nodes[at].below.push(rule);
                return;
            }
            at = self.branch(at, level);
        }
        self.nodes[at].here.push(rule);
    }

    fn branch(&mut self, at: usize, level: &str) -> usize {
        let fresh = self.nodes.len();
        let node = &mut self.nodes[at];
        let next = match level {
            "+" => *node.plus.get_or_insert(fresh),
            name => *node.names.entry(name.into()).or_insert(fresh),
        };
        if next == fresh {
            self.nodes.push(Node::default());
        }
        next
    }

    /// The rules with a filter that matches this topic, each once, the first rule first.
    #[must_use]
    pub(super) fn matches(&self, topic: &str) -> Vec<u16> {
        let mut rules = Vec::new();
        let mut open = vec![(ROOT, Some(topic))];
        while let Some((at, rest)) = open.pop() {
            // A filter that starts with a wildcard does not match a topic that starts with `$`
            // (MQTT-4.7.2-1).
            let wildcards = at != ROOT || !topic.starts_with('$');
            let node = &self.nodes[at];
            if wildcards {
                rules.extend_from_slice(&node.below);
            }
            let Some(rest) = rest else {
                rules.extend_from_slice(&node.here);
                continue;
            };
            let (level, rest) = match rest.split_once('/') {
                Some((level, rest)) => (level, Some(rest)),
                None => (rest, None),
            };
            open.extend(node.names.get(level).map(|&next| (next, rest)));
            open.extend(node.plus.filter(|_| wildcards).map(|next| (next, rest)));
        }
        rules.sort_unstable();
        rules.dedup();
        rules
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trie(filters: &[String]) -> Trie {
        let mut trie = Trie::default();
        for (rule, filter) in filters.iter().enumerate() {
            trie.insert(
                &Filter::parse(filter).unwrap(),
                u16::try_from(rule).unwrap(),
            );
        }
        trie
    }

    fn rules_of(filters: &[&str], topic: &str) -> Vec<u16> {
        trie(&filters.iter().map(ToString::to_string).collect::<Vec<_>>()).matches(topic)
    }

    /// The text of MQTT 5, 4.7, word for word: recursive, on lists of levels.
    fn stands_in_the_standard(filter: &str, topic: &str) -> bool {
        fn levels(filter: &[&str], topic: &[&str]) -> bool {
            match (filter, topic) {
                // "represents the parent and any number of child levels"
                (["#"], _) => true,
                ([], []) => true,
                // "matches only one topic level"
                (["+", filter @ ..], [_, topic @ ..]) => levels(filter, topic),
                ([name, filter @ ..], [same, topic @ ..]) => name == same && levels(filter, topic),
                _ => false,
            }
        }
        // "MUST NOT match Topic Filters starting with a wildcard character with Topic Names
        // beginning with a $ character"
        let hidden = topic.starts_with('$') && (filter.starts_with('#') || filter.starts_with('+'));
        !hidden
            && levels(
                &filter.split('/').collect::<Vec<_>>(),
                &topic.split('/').collect::<Vec<_>>(),
            )
    }

    #[test]
    fn do_the_examples_of_the_standard_hold() {
        for (filter, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/ranking",
                true,
            ),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/score/wimbledon",
                true,
            ),
            ("sport/#", "sport", true),
            ("#", "a", true),
            ("#", "/", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/monitor/Clients", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/monitor/Clients", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("a/+", "a/$b", true),
            ("ACCOUNTS", "Accounts", false),
        ] {
            assert_eq!(
                !rules_of(&[filter], topic).is_empty(),
                expected,
                "{filter} {topic}"
            );
        }
    }

    #[test]
    fn does_a_rule_come_once_and_in_its_place() {
        let mut trie = Trie::default();
        for (filter, rule) in [("#", 7), ("a/+", 2), ("a/b", 2), ("+/b", 0), ("a/#", 7)] {
            trie.insert(&Filter::parse(filter).unwrap(), rule);
        }
        assert_eq!(trie.matches("a/b"), [0, 2, 7]);
    }

    #[test]
    fn does_a_deep_topic_end_the_walk_where_the_rules_end() {
        let deep = "a/".repeat(30_000);
        assert_eq!(rules_of(&["a/a", "a/#", "+/+/+"], &deep), [1]);
    }

    /// Few names, so that filters and topics meet; empty levels and `$` among them.
    fn level() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => Just("a".to_owned()),
            4 => Just("b".to_owned()),
            1 => Just(String::new()),
            1 => Just("$a".to_owned()),
            1 => Just("ä".to_owned()),
        ]
    }

    fn topic() -> impl Strategy<Value = String> {
        proptest::collection::vec(level(), 1..6)
            .prop_map(|levels| levels.join("/"))
            .prop_filter("not empty", |topic| !topic.is_empty())
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![3 => level(), 1 => Just("+".to_owned())];
        (proptest::collection::vec(level, 0..6), any::<bool>())
            .prop_map(|(mut levels, hash)| {
                if hash || levels.is_empty() {
                    levels.push("#".to_owned());
                }
                levels.join("/")
            })
            .prop_filter("not empty", |filter| !filter.is_empty())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn does_the_trie_say_what_the_standard_says(
            filters in proptest::collection::vec(filter(), 1..24), topic in topic()
        ) {
            let expected: Vec<u16> = (0u16..)
                .zip(&filters)
                .filter(|(_, filter)| stands_in_the_standard(filter, &topic))
                .map(|(rule, _)| rule)
                .collect();
            prop_assert_eq!(trie(&filters).matches(&topic), expected);
        }

        #[test]
        fn does_the_level_by_level_answer_agree(filter in filter(), topic in topic()) {
            let parsed = Filter::parse(&filter).unwrap();
            prop_assert_eq!(
                parsed.mismatch(&topic).is_none(),
                stands_in_the_standard(&filter, &topic)
            );
        }

        /// rumqttc's matcher parts from the standard in three places, left out here: it lets no
        /// filter at all match a topic that starts with `$` (4.7.2 hides such topics from a
        /// leading wildcard only), it panics when the topic's first character has more than one
        /// byte, and it takes a topic's level `#` (which no valid topic has) for a mismatch.
        #[test]
        fn does_the_trie_agree_with_rumqttc(
            filters in proptest::collection::vec(filter(), 1..24), topic in topic()
        ) {
            prop_assume!(topic.as_bytes()[0].is_ascii() && !topic.starts_with('$'));
            let expected: Vec<u16> = (0u16..)
                .zip(&filters)
                .filter(|(_, filter)| rumqttc::matches(&topic, filter))
                .map(|(rule, _)| rule)
                .collect();
            prop_assert_eq!(trie(&filters).matches(&topic), expected);
        }
    }
}
