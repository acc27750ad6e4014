//! The keys of a `[[class]]` that say what a `latest` class sends less of: `every`, `thin` and `summary`.

use std::time::Duration;

use super::nearest::nearest;
use super::reader::{Range, Section, quoted};
use super::template;
use crate::traffic::classify::Pointer;
use crate::traffic::queue::summary::{Figure, SummarySettings};
use crate::traffic::queue::{ClassSettings, Delivery};

const PERIOD: Range<Duration> = Range {
    default: Duration::from_secs(60),
    least: Duration::from_secs(1),
    most: Duration::from_secs(86_400),
    why: "one value for each key in this time; leave it out for all values",
};

/// The topic of summaries where the file does not say it.
const SUMMARY_TOPIC: &str = "{topic}/summary";

/// Reads them into the settings of a class.
pub(super) fn read(s: &mut Section<'_, '_, '_>, class: &mut ClassSettings, gateway: &str) {
    class.every = s.optional_time("every", &PERIOD);
    class.thin = s.optional_time("thin", &PERIOD);
    class.summary = summary(s, gateway);
    if class.delivery == Delivery::Latest {
        contradictions(s, class);
        return;
    }
    for key in ["every", "thin", "summary", "summary_of", "summary_topic"] {
        if s.has(key) {
            let what = format!("`{key}` in a class that is not `latest`");
            let hint = "only a `latest` class gives values up by key; take it out, or write delivery = \"latest\"";
            s.fault(key, what, hint);
        }
    }
}

fn summary(s: &mut Section<'_, '_, '_>, gateway: &str) -> Option<SummarySettings> {
    let value = value(s);
    let of = figures(s);
    let topic = topic(s, gateway);
    for key in ["summary_of", "summary_topic"] {
        if s.has(key) && !s.has("summary") {
            let what = format!("`{key}` without `summary`");
            let hint = "write where the number stands, such as summary = \"/rms\", or take it out";
            s.fault(key, what, hint);
        }
    }
    Some(SummarySettings {
        value: value?,
        of,
        topic,
    })
}

fn value(s: &mut Section<'_, '_, '_>) -> Option<Pointer> {
    let text = s.text("summary")?.value;
    match Pointer::parse(&text) {
        Ok(pointer) => Some(pointer),
        Err(_) => {
            let what = format!("`summary`: {} is no JSON pointer", quoted(&text));
            let hint = "it says where the number stands and starts with '/', such as \"/rms\"; '~' is written ~0, '/' in a name ~1 (RFC 6901)";
            s.fault("summary", what, hint);
            None
        }
    }
}

fn figures(s: &mut Section<'_, '_, '_>) -> Vec<Figure> {
    let Some(words) = s.texts("summary_of") else {
        return Figure::ALL.map(|(_, figure)| figure).to_vec();
    };
    let mut figures = Vec::new();
    for word in words {
        if let Some((_, figure)) = Figure::ALL.iter().find(|(name, _)| *name == word.value) {
            figures.push(*figure);
            continue;
        }
        let what = format!("`summary_of` cannot be {}", quoted(&word.value));
        let near = nearest(&word.value, Figure::ALL.map(|(name, _)| name));
        let meant = near.map_or(String::new(), |name| format!("; did you mean \"{name}\"?"));
        let hint = format!("write \"min\", \"max\", \"mean\" or \"count\"{meant}");
        s.fault_at(&word.at, what, hint);
    }
    figures
}

fn topic(s: &mut Section<'_, '_, '_>, gateway: &str) -> String {
    let written = template::read(s, "summary_topic");
    let topic = written.unwrap_or_else(|| SUMMARY_TOPIC.to_owned());
    if topic == template::TOPIC {
        let what = "`summary_topic` is the topic of the values".to_owned();
        let hint = "who reads them would take a summary for a value; write another, such as \"{topic}/summary\"";
        s.fault("summary_topic", what, hint);
    }
    topic.replace("{gateway}", gateway)
}

/// Times that hold against each other.
fn contradictions(s: &mut Section<'_, '_, '_>, class: &ClassSettings) {
    if let (Some(every), Some(ttl)) = (class.every, class.ttl)
        && every >= ttl
    {
        let what = "`every` is not shorter than `ttl`".to_owned();
        let hint = "what waits for the end of its period has expired by then; make `every` shorter or `ttl` longer";
        s.fault("every", what, hint);
    }
    if let (Some(every), Some(thin)) = (class.every, class.thin)
        && thin < every
    {
        let what = "`thin` is shorter than `every`".to_owned();
        let hint =
            "an outage would leave more values than good times send; make it as long or longer";
        s.fault("thin", what, hint);
    }
    if let (Some(thin), Some(ttl)) = (class.thin, class.ttl)
        && thin >= ttl
    {
        let what = "`thin` is not shorter than `ttl`".to_owned();
        let hint = "of each key one value at most would still be worth sending; make `thin` shorter or `ttl` longer";
        s.fault("thin", what, hint);
    }
}
