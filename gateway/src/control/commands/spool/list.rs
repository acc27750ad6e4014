//! `tidegate spool ls`.

use std::fmt::Write as _;

use serde::Serialize;

use super::super::say;
use super::progress::Progress;
use super::{Done, Stop, count, json_line};
use crate::control::config::units::show_size;
use crate::control::exit::Exit;
use crate::control::spool::Asked;
use crate::control::spool::page::{Aside, Search, Segment, Segments};
use crate::control::spool::reach::Reach;

/// One class in the list.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Class {
    class: String,
    segments: u64,
    messages: u64,
    bytes: u64,
    oldest: Option<String>,
    newest: Option<String>,
    /// Segments whose head cannot be read, or has not been yet.
    unread: u64,
}

pub(super) fn list(asked: &Asked, reach: &mut Reach, json: bool) -> Done {
    let mut listed = reach.segments()?;
    if let Some(class) = &asked.class {
        if !listed.classes.contains(class) {
            let names = listed.classes.join(", ");
            let text = format!("there is no class {class:?}; the classes are {names}");
            return Err(Stop::Wrong(text));
        }
        listed.classes.retain(|name| name == class);
        listed.segments.retain(|segment| segment.class == *class);
    }
    if !asked.topics.is_empty() || asked.from_micros.is_some() || asked.to_micros.is_some() {
        return matching(asked, &listed, reach, json);
    }
    let sums = |dead| {
        let of_log: Vec<_> = listed
            .segments
            .iter()
            .filter(|own| own.dead == dead)
            .collect();
        let sums = listed.classes.iter().map(|name| sum(name, &of_log));
        sums.collect::<Vec<_>>()
    };
    let (classes, mut dead) = (sums(false), sums(true));
    dead.retain(|class| class.segments > 0);
    listed
        .segments
        .retain(|segment| segment.dead || !asked.dead);
    if json {
        let value = serde_json::json!({
            "classes": classes,
            "dead_letters": dead,
            "segments": listed.segments,
            "set_aside": listed.aside,
            "running": reach.is_running(),
            "paused": listed.paused,
            "paused_classes": listed.paused_classes,
        });
        say(json_line(&value));
    } else {
        say(table(&classes, &dead, &listed, reach.is_running()));
    }
    Ok(Exit::Done)
}

/// What a filter matches, counted class by class.
fn matching(asked: &Asked, listed: &Segments, reach: &mut Reach, json: bool) -> Done {
    let mut progress = Progress::start();
    let mut counts = Vec::new();
    let mut text = String::new();
    for class in &listed.classes {
        let mut search = Search {
            asked: Asked {
                class: Some(class.clone()),
                ..asked.clone()
            },
            dry_run: true,
            ..Search::default()
        };
        let mut messages = 0;
        loop {
            let page = reach.purge(&search)?;
            messages += page.meant;
            progress.tell(|| format!("class {class}: {messages} so far"));
            search.next = page.next;
            if search.next.is_none() {
                break;
            }
        }
        let _ = writeln!(text, "{class:<16} {} match", count(messages, "message"));
        counts.push(serde_json::json!({"class": class, "messages": messages}));
    }
    drop(progress);
    if json {
        say(json_line(&serde_json::json!({ "matching": counts })));
    } else {
        say(text);
    }
    Ok(Exit::Done)
}

fn sum(name: &str, segments: &[&Segment]) -> Class {
    let mut class = Class {
        class: name.to_owned(),
        ..Class::default()
    };
    for segment in segments.iter().filter(|segment| segment.class == name) {
        class.segments += 1;
        class.bytes += segment.bytes;
        match segment.messages {
            Some(messages) => class.messages += messages,
            None => class.unread += 1,
        }
        // RFC 3339 in UTC sorts as text.
        let times = [&class.oldest, &segment.oldest].into_iter().flatten();
        class.oldest = times.min().cloned();
        class.newest = class.newest.max(segment.newest.clone());
    }
    class
}

fn table(classes: &[Class], dead: &[Class], listed: &Segments, running: bool) -> String {
    let mut out = String::new();
    row(
        &mut out,
        "class",
        "segments",
        "messages",
        "bytes",
        ("oldest", "newest"),
    );
    let mut all = 0;
    for class in classes {
        all += class.messages;
        row(
            &mut out,
            &class.class,
            &class.segments.to_string(),
            &class.messages.to_string(),
            &short(class.bytes),
            (or_dash(&class.oldest), or_dash(&class.newest)),
        );
    }
    for class in dead {
        row(
            &mut out,
            &dead_name(&class.class),
            &class.segments.to_string(),
            &class.messages.to_string(),
            &short(class.bytes),
            (or_dash(&class.oldest), or_dash(&class.newest)),
        );
    }
    if !listed.segments.is_empty() {
        out.push('\n');
        row(
            &mut out,
            "segment",
            "number",
            "messages",
            "bytes",
            ("oldest", "newest"),
        );
    }
    for segment in &listed.segments {
        let messages = segment.messages.map(|count| count.to_string());
        let name = match segment.dead {
            true => dead_name(&segment.class),
            false => segment.class.clone(),
        };
        row(
            &mut out,
            &name,
            &segment.segment.to_string(),
            messages.as_deref().unwrap_or("?"),
            &short(segment.bytes),
            (or_dash(&segment.oldest), or_dash(&segment.newest)),
        );
    }
    let unread: u64 = classes.iter().chain(dead).map(|class| class.unread).sum();
    if unread > 0 {
        let _ = writeln!(
            out,
            "\n{} cannot be read, or not yet (\"?\"): `tidegate spool verify` says more",
            count(unread, "segment")
        );
    }
    out.push_str(&dead_letters(dead));
    out.push_str(&set_aside(&listed.aside));
    let _ = writeln!(out, "\n{}", state(all, listed, running));
    out
}

fn dead_name(class: &str) -> String {
    format!("{class} (dead)")
}

fn dead_letters(dead: &[Class]) -> String {
    match dead.iter().map(|class| class.messages).sum() {
        0 => String::new(),
        letters => format!(
            "\n{}, refused by the upstream for good: `tidegate spool peek --dead` shows them, `replay --again` tries them now, and the gateway does once an hour\n",
            count(letters, "dead letter")
        ),
    }
}

fn set_aside(files: &[Aside]) -> String {
    if files.is_empty() {
        return String::new();
    }
    let all = count(files.len() as u64, "damaged file");
    let mut out = format!(
        "\n{all} set aside; what could be read is back in the spool, the rest is counted as damaged. Check the medium (kernel log, SMART), and remove them from the folder when you have seen them:\n"
    );
    for Aside { file, bytes } in files {
        let _ = writeln!(out, "  {file:<44} {}", short(*bytes));
    }
    out
}

fn state(all: u64, listed: &Segments, running: bool) -> String {
    let on_disk = match all {
        0 => "The spool is empty".to_owned(),
        all => format!("{} on disk", count(all, "message")),
    };
    let paused = listed.paused_classes.join(", ");
    match (running, listed.paused, listed.paused_classes.is_empty()) {
        (false, ..) => format!("{on_disk}; no gateway runs."),
        (true, Some(true), _) => {
            format!("{on_disk}; the replay is PAUSED: `tidegate spool resume` lets it go on.")
        }
        (true, _, false) => format!(
            "{on_disk}; the replay of {paused} is PAUSED: `tidegate spool resume` lets it go on."
        ),
        (true, ..) => {
            format!("{on_disk}; what the upstream has not acknowledged counts as on disk.")
        }
    }
}

fn row(
    out: &mut String,
    class: &str,
    number: &str,
    messages: &str,
    bytes: &str,
    (oldest, newest): (&str, &str),
) {
    let _ = writeln!(
        out,
        "{class:<16} {number:>8} {messages:>10} {bytes:>9}  {oldest:<20}  {newest}"
    );
}

fn or_dash(time: &Option<String>) -> &str {
    time.as_deref().unwrap_or("-")
}

/// A size that fits a column: whole KiB.
fn short(bytes: u64) -> String {
    match bytes {
        0..1024 => show_size(bytes),
        1024..10_485_760 => format!("{}KiB", bytes >> 10),
        _ => format!("{}MiB", bytes >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn does_a_class_span_its_segments() {
        let segment = |class: &str, messages, oldest: Option<&str>| Segment {
            segment: 1,
            class: class.to_owned(),
            dead: false,
            bytes: 100,
            messages,
            oldest: oldest.map(str::to_owned),
            newest: oldest.map(str::to_owned),
        };
        let segments = [
            segment("a", Some(3), Some("2026-01-02T00:00:00Z")),
            segment("a", Some(4), Some("2026-01-01T00:00:00Z")),
            segment("a", None, None),
            segment("b", Some(9), None),
        ];
        let class = sum("a", &segments.iter().collect::<Vec<_>>());
        assert_eq!((class.segments, class.messages, class.bytes), (3, 7, 300));
        assert_eq!(class.oldest.as_deref(), Some("2026-01-01T00:00:00Z"));
        assert_eq!(class.newest.as_deref(), Some("2026-01-02T00:00:00Z"));
        assert_eq!(class.unread, 1);
    }
}
