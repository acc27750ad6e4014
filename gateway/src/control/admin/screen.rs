//! One screen that an operator can read: a [`Report`] as text. No colours, 100 columns, the worst
//! news first.

use std::fmt::{self, Display, Formatter};

use super::Report;
use super::health::{NOTHING, Remark};
use crate::traffic::settle::Outcome;
use crate::traffic::status::{ClassStatus, Level, LinkStatus, SpoolStatus, outcome_name};

/// The text of a report. `answers`: whether the path answered, so that its part is known.
#[derive(Clone, Copy, Debug)]
pub struct Screen<'a> {
    /// What to show.
    pub report: &'a Report,
    /// Whether `report.path` is known.
    pub answers: bool,
}

impl Display for Screen<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let report = self.report;
        let ready = if report.health.ready {
            "ready"
        } else {
            "NOT READY"
        };
        writeln!(
            f,
            "{}: {ready}, up {}, tidegate {}, {} in RAM, {:.1} s of CPU",
            report.gateway,
            Span(report.uptime_seconds),
            report.version,
            Bytes(report.process.resident_bytes),
            report.process.cpu_seconds,
        )?;
        remarks(f, "!", &report.health.reasons)?;
        remarks(f, "-", &report.health.notes)?;
        if !self.answers {
            return Ok(());
        }
        writeln!(f)?;
        uplink(f, report)?;
        writeln!(f)?;
        classes(f, &report.path.classes)?;
        writeln!(f)?;
        spool(f, &report.path.spool)
    }
}

fn remarks(f: &mut Formatter<'_>, mark: &str, remarks: &[Remark]) -> fmt::Result {
    for Remark { what, why, remedy } in remarks {
        writeln!(f, "  {mark} {what}: {why}")?;
        if remedy != NOTHING {
            writeln!(f, "    to do: {remedy}")?;
        }
    }
    Ok(())
}

fn uplink(f: &mut Formatter<'_>, report: &Report) -> fmt::Result {
    for link in &report.path.links {
        writeln!(f, "uplink   {:<8} {}", link.name, Line(link))?;
    }
    writeln!(f, "senders  {}", report.path.senders)?;
    let memory = &report.path.memory;
    let level = match memory.level {
        Level::Calm => "calm",
        Level::Coalescing => "SHORT: `latest` classes coalesce",
        Level::Shedding => "FULL: the lowest class gives way",
    };
    let (bytes, bytes_max) = (Bytes(memory.bytes), Bytes(memory.bytes_max));
    writeln!(f, "memory   {bytes} of {bytes_max}, {level}")
}

/// A connection that is up, or what is known of one that is not.
struct Line<'a>(&'a LinkStatus);

impl Display for Line<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let link = self.0;
        if !link.up {
            return write!(f, "away, {} connections so far", link.attempts);
        }
        write!(
            f,
            "up, {} in flight ({} of {})",
            link.in_flight,
            Bytes(link.in_flight_bytes),
            Bytes(link.window_bytes)
        )?;
        if let Some(micros) = link.ack_micros {
            write!(f, ", acknowledged in {:.1} ms", micros as f64 / 1e3)?;
        }
        write!(f, ", connection {}", link.attempts)
    }
}

const HEAD: [&str; 8] = [
    "class",
    "delivery",
    "received",
    "delivered",
    "waiting",
    "held",
    "on disk",
    "pressure",
];

fn classes(f: &mut Formatter<'_>, classes: &[ClassStatus]) -> fmt::Result {
    let [class, delivery, numbers @ .., pressure] = HEAD;
    write!(f, "{class:<16} {delivery:<10}")?;
    for head in numbers {
        write!(f, " {head:>11}")?;
    }
    writeln!(f, "  {pressure}")?;
    classes.iter().try_for_each(|class| row(f, class))
}

fn row(f: &mut Formatter<'_>, class: &ClassStatus) -> fmt::Result {
    write!(f, "{:<16} {:<10}", class.name, class.delivery)?;
    let delivered = class.ended.count(Outcome::Delivered);
    let numbers = [
        class.received,
        delivered,
        class.waiting,
        class.held,
        class.on_disk,
    ];
    for number in numbers {
        write!(f, " {number:>11}")?;
    }
    let level = match class.level {
        Level::Calm => "calm",
        Level::Coalescing => "COALESCING",
        Level::Shedding => "SHEDDING",
    };
    writeln!(f, "  {level}")?;
    others(f, class)
}

/// The other ends, where there are any: most classes have none.
fn others(f: &mut Formatter<'_>, class: &ClassStatus) -> fmt::Result {
    let others = Outcome::ALL
        .into_iter()
        .filter(|outcome| *outcome != Outcome::Delivered)
        .map(|outcome| (outcome_name(outcome), class.ended.count(outcome)))
        .filter(|(_, count)| *count > 0);
    let others = others.map(|(name, count)| format!("{count} {}", name.replace('_', " ")));
    let dead = class.dead_letters_on_disk;
    let kept = (dead > 0).then(|| format!("{dead} dead letters on disk"));
    let paused = class.replay_paused.then(|| "replay PAUSED".to_owned());
    let words: Vec<_> = others.chain(kept).chain(paused).collect();
    if words.is_empty() {
        return Ok(());
    }
    writeln!(f, "{:<16} {}", "", words.join(", "))
}

fn spool(f: &mut Formatter<'_>, spool: &SpoolStatus) -> fmt::Result {
    let state = match (&spool.failing, spool.scanned) {
        (Some(_), _) => "FAILING",
        (None, false) => "well, still being looked through",
        (None, true) => "well",
    };
    let (used, max) = (Bytes(spool.file_bytes), Bytes(spool.size_bytes_max));
    write!(
        f,
        "spool    {state}, {used} of {max} in {} segments",
        spool.segments
    )?;
    if let Some(free) = spool.free_bytes {
        write!(f, ", {} free on the disk", Bytes(free))?;
    }
    if spool.aside > 0 {
        write!(f, "; {} damaged files set aside", spool.aside)?;
    }
    writeln!(
        f,
        "\n         {} written in {} syncs, {} not yet safe",
        Bytes(spool.bytes_written),
        spool.syncs,
        Bytes(spool.unwritten_bytes)
    )?;
    let replay = match (spool.paused, spool.replaying) {
        (true, _) => "PAUSED",
        (false, true) => "under way",
        (false, false) => "idle",
    };
    writeln!(f, "replay   {replay}, {} messages sent", spool.replayed)
}

/// Bytes for people.
struct Bytes(u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        match units.into_iter().find(|(shift, _)| self.0 >> shift > 0) {
            Some((shift, unit)) => {
                let whole = self.0 as f64 / (1_u64 << shift) as f64;
                write!(f, "{whole:.1} {unit}")
            }
            None => write!(f, "{} B", self.0),
        }
    }
}

/// Seconds for people: the two largest units.
struct Span(u64);

impl Display for Span {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (minutes, seconds) = (self.0 / 60, self.0 % 60);
        let (hours, days) = (minutes / 60, minutes / 60 / 24);
        match (days, hours, minutes) {
            (0, 0, 0) => write!(f, "{seconds} s"),
            (0, 0, _) => write!(f, "{minutes} min {seconds} s"),
            (0, _, _) => write!(f, "{hours} h {} min", minutes % 60),
            _ => write!(f, "{days} d {} h", hours % 24),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::admin::health::{Answer, RELEASED, judge};
    use crate::traffic::message::WallTime;
    use crate::traffic::status::sample;

    fn report(wall: WallTime) -> Report {
        Report {
            gateway: "box-7".to_owned(),
            version: "1.2.3".to_owned(),
            uptime_seconds: 3 * 86_400 + 4 * 3_600,
            health: judge(Answer::Status(&sample()), wall, false),
            path: sample(),
            ..Report::default()
        }
    }

    fn show(report: &Report) -> String {
        let answers = true;
        Screen { report, answers }.to_string()
    }

    #[test]
    fn is_everything_on_one_screen() {
        let text = show(&report(RELEASED));
        assert!(text.lines().count() <= 24, "{text}");
        for shown in [
            "box-7: ready, up 3 d 4 h",
            "uplink   urgent   up, 8 in flight (2.0 KiB of 64.0 KiB), acknowledged in 45.3 ms",
            "uplink   bulk     away",
            "memory   48.0 MiB of 64.0 MiB, SHORT",
            "40 superseded, 3 dead letters",
            "COALESCING",
            "spool    well, 48.0 MiB of 1.0 GiB in 3 segments, 5.0 GiB free on the disk",
            "replay   under way, 4321 messages sent",
        ] {
            assert!(text.contains(shown), "{shown:?} is not in\n{text}");
        }
        let row = text
            .lines()
            .find(|line| line.starts_with("critical"))
            .unwrap();
        let words: Vec<_> = row.split_whitespace().collect();
        let expected = [
            "critical",
            "guaranteed",
            "1000",
            "900",
            "30",
            "12",
            "7",
            "COALESCING",
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn do_the_reasons_stand_at_the_top() {
        let text = show(&report(WallTime::default()));
        let mut lines = text.lines();
        assert!(lines.next().unwrap().contains("NOT READY"));
        assert!(
            lines
                .next()
                .unwrap()
                .starts_with("  ! the clock is wrong: ")
        );
    }

    #[test]
    fn is_nothing_made_up_for_a_path_that_is_silent() {
        let report = Report::default();
        let answers = false;
        let text = Screen {
            report: &report,
            answers,
        }
        .to_string();
        assert!(!text.contains("uplink") && !text.contains("spool"));
    }

    #[test]
    fn are_sizes_and_times_read_with_ease() {
        let bytes = [0, 1_023, 1_024, 1_536, 5 << 30].map(|n| Bytes(n).to_string());
        assert_eq!(bytes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 GiB"]);
        let spans = [59, 61, 3_660, 90_000].map(|n| Span(n).to_string());
        assert_eq!(spans, ["59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
    }
}
