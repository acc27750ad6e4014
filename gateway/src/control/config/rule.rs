//! The tables `[[rule]]`.

use std::sync::Arc;

use super::class::{Classes, DISCARD, TTL};
use super::finding::Span;
use super::reader::{Reading, Section, known_names, quoted};
use super::tree::Table;
use crate::traffic::classify::{Filter, RuleSettings};
use crate::traffic::message::ClassId;
use crate::traffic::queue::Delivery;

/// A rule and where its parts stand.
pub(super) struct Rule {
    pub(super) settings: RuleSettings,
    pub(super) header: Option<Span>,
    pub(super) topic: Option<Span>,
    pub(super) when: Option<Span>,
    pub(super) class: Option<Span>,
}

/// The rule that stands at this place, counted from 1.
pub(super) fn read(
    reading: &mut Reading<'_>,
    table: Option<Table<'_>>,
    number: usize,
    classes: &Classes,
) -> Rule {
    let mut section = Section::open(reading, "[[rule]]", table);
    let rule = Rule {
        settings: settings(&mut section, number, classes),
        header: section.header(),
        topic: section.at("topic"),
        when: section.at("when"),
        class: section.at("class"),
    };
    section.done();
    rule
}

fn settings(s: &mut Section<'_, '_, '_>, number: usize, classes: &Classes) -> RuleSettings {
    let name = s.text("name");
    let name = name.map_or_else(|| format!("rule {number}"), |name| name.value);
    let settings = RuleSettings {
        name: Arc::from(name),
        filters: filters(s),
        when: s.text("when").map(|when| when.value),
        class: class(s, classes),
        key: key(s),
        ttl: s.optional_time("ttl", &TTL),
    };
    warn_of_idle_keys(s, &settings, classes);
    settings
}

/// The filters; a stand-in where the file's are faulty, so that the rest can still be checked.
fn filters(s: &mut Section<'_, '_, '_>) -> Vec<String> {
    let written = s.has("topic");
    let Some(filters) = s.texts("topic") else {
        if !written {
            let what = "a rule without `topic`".to_owned();
            s.fault(
                "topic",
                what,
                "write topic = \"plant/#\"; \"#\" for every topic",
            );
        }
        return vec!["#".to_owned()];
    };
    let mut good = Vec::with_capacity(filters.len());
    for filter in filters {
        match Filter::parse(&filter.value) {
            Ok(_) => good.push(filter.value),
            Err(fault) => {
                let what = format!("`topic`: {} is no topic filter", quoted(&filter.value));
                s.fault_at(&filter.at, what, fault.to_string());
            }
        }
    }
    if good.is_empty() {
        good.push("#".to_owned());
    }
    good
}

fn class(s: &mut Section<'_, '_, '_>, classes: &Classes) -> ClassId {
    let written = s.has("class");
    match s.text("class") {
        Some(name) => match class_named(&name.value, classes) {
            Ok(class) => return class,
            Err((what, hint)) => s.fault("class", what, hint),
        },
        None if !written => {
            let what = "a rule without `class`".to_owned();
            s.fault("class", what, "write the name of a class, or \"discard\"");
        }
        None => {}
    }
    ClassId::FIRST
}

fn class_named(name: &str, classes: &Classes) -> Result<ClassId, (String, String)> {
    if name == DISCARD {
        return Ok(ClassId::DISCARD);
    }
    let mut names = classes.names();
    names.push(DISCARD);
    let unknown = || {
        (
            format!("no class is called {}", quoted(name)),
            known_names(name, &names),
        )
    };
    let place = classes.find(name).ok_or_else(unknown)?;
    u8::try_from(place).map(ClassId).map_err(|_| unknown())
}

fn key(s: &mut Section<'_, '_, '_>) -> Option<String> {
    let key = s.text("key")?.value;
    if is_json_pointer(&key) {
        return Some(key);
    }
    let what = format!("`key`: {} is no JSON pointer", quoted(&key));
    let hint = "it starts with '/', such as \"/sensor/id\"; '~' is written ~0, '/' in a name ~1 (RFC 6901)";
    s.fault("key", what, hint);
    None
}

/// RFC 6901, section 3; the empty pointer (the whole payload) is no key.
fn is_json_pointer(text: &str) -> bool {
    text.starts_with('/')
        && text
            .split('~')
            .skip(1)
            .all(|after| after.starts_with(['0', '1']))
}

fn warn_of_idle_keys(s: &mut Section<'_, '_, '_>, settings: &RuleSettings, classes: &Classes) {
    if settings.class == ClassId::DISCARD {
        for key in ["key", "ttl"] {
            if s.has(key) {
                let what = format!("`{key}` has no effect: the rule discards");
                s.warn(key, what, "take it out");
            }
        }
        return;
    }
    let delivery = classes.settings.get(settings.class.index());
    let delivery = delivery.map(|class| class.delivery);
    if settings.key.is_some() && delivery != Some(Delivery::Latest) {
        let what = "`key` has no effect: only a `latest` class keeps one value for each key";
        s.warn(
            "key",
            what.to_owned(),
            "take it out, or choose another class",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_json_pointer_known() {
        for good in ["/a", "/", "/a/b~0c", "/a~1b"] {
            assert!(is_json_pointer(good), "{good}");
        }
        for bad in ["a", "a/b", "/a~", "/a~2", "$.a"] {
            assert!(!is_json_pointer(bad), "{bad}");
        }
    }
}
