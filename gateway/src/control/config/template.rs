//! The upstream's topics: texts in which `{topic}` and `{gateway}` stand for something.

use super::nearest::nearest;
use super::reader::{Section, quoted};

/// The device's topic as it is.
pub(super) const TOPIC: &str = "{topic}";

/// What an upstream topic may hold between braces.
const PLACEHOLDERS: [&str; 2] = ["topic", "gateway"];

/// The template under this key, if there is one.
pub(super) fn read(s: &mut Section<'_, '_, '_>, key: &'static str) -> Option<String> {
    let topic = s.text(key)?.value;
    if topic.contains(['+', '#', '\0']) {
        let what = format!("`{key}`: {} cannot be published to", quoted(&topic));
        s.fault(key, what, "a topic has no wildcards (+, #)");
    }
    for name in placeholders(&topic) {
        if !PLACEHOLDERS.contains(&name) {
            let stands = quoted(&format!("{{{name}}}"));
            let what = format!("`{key}`: {stands} stands for nothing");
            let meant = nearest(name, PLACEHOLDERS).unwrap_or("topic} or {gateway");
            s.fault(key, what, format!("write {{{meant}}}"));
        }
    }
    if !topic.contains(TOPIC) {
        let what = format!("`{key}` does not hold {{topic}}: all messages go to one topic");
        s.warn(key, what, "such as \"site/{gateway}/{topic}\"");
    }
    Some(topic)
}

/// The names between braces; an open brace counts as a name.
fn placeholders(topic: &str) -> impl Iterator<Item = &str> {
    topic
        .split('{')
        .skip(1)
        .map(|after| after.split('}').next().unwrap_or(after))
}
