//! The story as lines: a screen that is drawn again and again, or one line for each second where
//! there is no terminal. In come figures and a size, out comes text; it touches nothing.

use super::figures::{ActFigures, Figures};
use super::story::{ACTS, Act, CLOUD_RATE, DEVICES, Story};
use super::written::{grouped, latency, size, time};
use crate::traffic::settle::Outcome;
use crate::traffic::status::{ClassStatus, Level};

/// The least size that the screen needs.
pub const COLUMNS_MIN: usize = 80;
/// The same, in lines.
pub const LINES_MIN: usize = 24;
/// Wider lines are harder to read.
const COLUMNS_MAX: usize = 100;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    Plain,
    /// What to read first.
    Strong,
    /// What may be passed over.
    Faint,
    /// Something gives way, as it should.
    Warm,
    /// What must not be.
    Bad,
    /// What should be.
    Good,
}

/// A line of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// How it looks.
    pub tone: Tone,
    /// What it says; no control characters.
    pub text: String,
}

/// The whole screen: at most `height` lines of at most `width` columns.
#[must_use]
pub fn screen(figures: &Figures, width: usize, height: usize) -> Vec<Line> {
    let width = width.min(COLUMNS_MAX);
    let mut page = Page {
        lines: Vec::with_capacity(LINES_MIN),
    };
    head(&mut page, figures, width);
    page.blank();
    way(&mut page, figures);
    page.blank();
    classes(&mut page, figures);
    page.blank();
    acts(&mut page, figures);
    page.blank();
    ledger(&mut page, figures);
    page.say(
        Tone::Faint,
        " Ctrl-C ends it at once and prints the account",
    );
    let clipped = page.lines.into_iter().take(height).map(|mut line| {
        line.text = line.text.chars().take(width).collect();
        line
    });
    clipped.collect()
}

/// One line for one second.
#[must_use]
pub fn line(figures: &Figures) -> String {
    let now = figures.act_figures(figures.act);
    let (waiting, on_disk, level) = here(figures);
    let gateway = match figures.gateway.runs {
        true => format!(
            "waiting {}, on disk {}, {}",
            grouped(waiting),
            grouped(on_disk),
            level_word(level)
        ),
        false => "the gateway is dead".to_owned(),
    };
    let cloud = match figures.cloud.is_on {
        true => format!("{}/s taken", grouped(figures.taken_per_second)),
        false => "cloud away".to_owned(),
    };
    format!(
        "{:>5}  {}/s sent, {cloud}; {gateway}; alarms of this act: {}",
        time(figures.since_start),
        grouped(figures.sent_per_second),
        worst(now),
    )
}

/// What is said when an act begins.
#[must_use]
pub fn announcement(act: usize) -> String {
    let Some(Act {
        name, what, look, ..
    }) = ACTS.get(act)
    else {
        return String::new();
    };
    let (number, acts) = (act + 1, ACTS.len());
    format!("{number} of {acts}: {name}: {what}\n       {look}")
}

struct Page {
    lines: Vec<Line>,
}

impl Page {
    fn say(&mut self, tone: Tone, text: impl Into<String>) {
        let text = text.into();
        self.lines.push(Line { tone, text });
    }

    fn blank(&mut self) {
        self.say(Tone::Plain, "");
    }
}

fn head(page: &mut Page, figures: &Figures, width: usize) {
    let act = ACTS.get(figures.act);
    let name = act.map_or("", |act| act.name);
    let clock = format!(
        "{} of {} ",
        time(figures.since_start.min(figures.length)),
        time(figures.length)
    );
    let title = format!(
        " tidegate demo    {} of {}: {name}",
        figures.act + 1,
        ACTS.len()
    );
    let room = width.saturating_sub(title.len());
    page.say(Tone::Strong, format!("{title}{clock:>room$}"));
    page.say(Tone::Faint, bar(figures, width));
    if figures.is_ending {
        page.say(
            Tone::Plain,
            " The story is over; what is on its way may still arrive.",
        );
        page.blank();
        return;
    }
    let what = act.map_or("", |act| act.what);
    page.say(Tone::Plain, format!(" What happens: {what}"));
    page.say(Tone::Plain, format!(" {}", act.map_or("", |act| act.look)));
}

/// How far it is, with a mark where an act begins.
fn bar(figures: &Figures, width: usize) -> String {
    let story = Story::of(figures.length);
    let inner = width.saturating_sub(2).max(1);
    let place = |at: std::time::Duration| {
        let part = at.as_secs_f64() / figures.length.as_secs_f64().max(0.001);
        (part.min(1.0) * inner as f64) as usize
    };
    let marks: Vec<_> = (1..ACTS.len())
        .map(|act| place(story.begin_of(act)))
        .collect();
    let done = place(figures.since_start);
    let cell = |column| match column {
        _ if marks.contains(&column) => '|',
        _ if column < done => '=',
        _ => '.',
    };
    std::iter::once(' ').chain((0..inner).map(cell)).collect()
}

/// Fleet, gateway and cloud, side by side.
fn way(page: &mut Page, figures: &Figures) {
    let sends = format!("send {}/s", grouped(figures.sent_per_second));
    let connected = format!("{} of {DEVICES} connected", figures.fleet.up);
    let gateway = &figures.gateway;
    let process = gateway.report.as_ref().map(|report| &report.process);
    let state = match (gateway.runs, process) {
        (false, _) => "KILLED".to_owned(),
        (true, None) => "starts".to_owned(),
        (true, Some(process)) => format!("runs, {}", size(process.resident_bytes)),
    };
    let (takes, limit) = match figures.cloud.is_on {
        true => (
            format!("takes {}/s", grouped(figures.taken_per_second)),
            format!("no more than {}/s", grouped(CLOUD_RATE)),
        ),
        false => ("AWAY".to_owned(), "nobody listens there".to_owned()),
    };
    let (first, second) = match (gateway.runs, figures.cloud.is_on) {
        (true, true) => ("-->", "-->"),
        (true, false) => ("-->", " X "),
        (false, _) => (" X ", " X "),
    };
    page.say(
        Tone::Strong,
        format!(
            " {:<26}     {:<20}     {}",
            "the devices", "the gateway", "the cloud"
        ),
    );
    let tone = if gateway.runs && figures.cloud.is_on {
        Tone::Plain
    } else {
        Tone::Warm
    };
    page.say(
        tone,
        format!(" {sends:<26} {first} {state:<20} {second} {takes}"),
    );
    let disk = gateway.report.as_ref().map_or_else(String::new, |report| {
        format!("{} on disk", size(report.path.spool.file_bytes))
    });
    page.say(
        Tone::Plain,
        format!(" {connected:<26}     {disk:<20}     {limit}"),
    );
}

fn classes(page: &mut Page, figures: &Figures) {
    page.say(
        Tone::Strong,
        format!(
            " {:<9}{:<10} {:>9} {:>9} {:>9} {:>8} {:>8}  {}",
            "class", "of", "received", "delivered", "gave way", "waiting", "on disk", "pressure"
        ),
    );
    let known = classes_of(figures);
    for (index, of) in ["alarms", "reports", "readings"].into_iter().enumerate() {
        match known.get(index) {
            Some(class) => page.say(tone_of(class.level), class_row(class, of)),
            None => page.say(Tone::Faint, format!(" {:<9}{of:<10}", "?")),
        }
    }
}

fn class_row(class: &ClassStatus, of: &str) -> String {
    format!(
        " {:<9}{of:<10} {:>9} {:>9} {:>9} {:>8} {:>8}  {}",
        class.name,
        grouped(taken_in(class)),
        grouped(class.ended.count(Outcome::Delivered)),
        grouped(gave_way(class)),
        grouped(class.in_memory),
        grouped(class.on_disk),
        level_word(class.level),
    )
}

fn acts(page: &mut Page, figures: &Figures) {
    page.say(
        Tone::Strong,
        " alarms, by the act in which they were due: from due to the cloud",
    );
    for (index, act) in ACTS.iter().enumerate() {
        let mark = if index == figures.act { '>' } else { ' ' };
        let arrived = figures.act_figures(index);
        let text = match arrived.alarms {
            0 => format!(" {mark} {} {:<22}", index + 1, act.name),
            alarms => format!(
                " {mark} {} {:<22}{:>8} arrived, slowest in {:>9}{}",
                index + 1,
                act.name,
                grouped(alarms),
                latency(arrived.worst_micros),
                if act.is_uplink_away {
                    "  no uplink"
                } else {
                    ""
                },
            ),
        };
        let tone = if index == figures.act {
            Tone::Plain
        } else {
            Tone::Faint
        };
        page.say(tone, text);
    }
}

fn ledger(page: &mut Page, figures: &Figures) {
    let known = classes_of(figures);
    if known.is_empty() {
        page.say(Tone::Plain, " ledger  the gateway does not say");
        return;
    }
    let sum = |count: fn(&ClassStatus) -> u64| grouped(known.iter().map(count).sum());
    let balances = known.iter().all(|class| class.unaccounted() == 0);
    let (tone, verdict) = if balances {
        (Tone::Good, "ledger balances")
    } else {
        (Tone::Bad, "LEDGER OUT OF BALANCE")
    };
    let text = format!(
        " {verdict}: {} = {} delivered + {} gave way + {} here",
        sum(taken_in),
        sum(|class| class.ended.count(Outcome::Delivered)),
        sum(gave_way),
        sum(|class| class.in_memory + class.on_disk),
    );
    page.say(tone, text);
}

fn classes_of(figures: &Figures) -> &[ClassStatus] {
    let report = figures.gateway.report.as_ref();
    report.map_or(&[], |report| &report.path.classes)
}

/// What waits in memory, what is on disk, and the worst pressure, of all classes.
fn here(figures: &Figures) -> (u64, u64, Level) {
    let classes = classes_of(figures);
    let rank = |level: &Level| *level as u8;
    (
        classes.iter().map(|class| class.in_memory).sum(),
        classes.iter().map(|class| class.on_disk).sum(),
        classes
            .iter()
            .map(|class| class.level)
            .max_by_key(rank)
            .unwrap_or_default(),
    )
}

/// With what a killed start left on disk: it is delivered too.
const fn taken_in(class: &ClassStatus) -> u64 {
    class.received.saturating_add_signed(class.found)
}

/// All that ended without being delivered.
fn gave_way(class: &ClassStatus) -> u64 {
    let ended: u64 = class.ended.0.iter().sum();
    ended.saturating_sub(class.ended.count(Outcome::Delivered))
}

const fn level_word(level: Level) -> &'static str {
    match level {
        Level::Calm => "calm",
        Level::Coalescing => "coalescing",
        Level::Shedding => "shedding",
    }
}

const fn tone_of(level: Level) -> Tone {
    match level {
        Level::Calm => Tone::Plain,
        Level::Coalescing | Level::Shedding => Tone::Warm,
    }
}

fn worst(arrived: ActFigures) -> String {
    match arrived.alarms {
        0 => "none yet".to_owned(),
        alarms => format!(
            "{}, slowest {}",
            grouped(alarms),
            latency(arrived.worst_micros)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::admin::Report;
    use crate::control::demo::figures::{CloudFigures, FleetFigures, GatewayFigures};
    use crate::traffic::status::Ended;
    use std::time::Duration;

    /// Everything that is shown, with numbers as large as the longest story makes them.
    fn full(act: usize, runs: bool, is_on: bool) -> Figures {
        let class = |name: &str, many, level| ClassStatus {
            name: name.to_owned(),
            received: many * 17,
            ended: Ended([many * 6, many * 10, 0, 0, 0, 0, 0, 0, 0, 0]),
            in_memory: many,
            on_disk: 0,
            level,
            ..ClassStatus::default()
        };
        let mut report = Box::new(Report::default());
        report.process.resident_bytes = 123 << 20;
        report.path.classes = vec![
            class("critical", 1_000, Level::Calm),
            class("normal", 500, Level::Calm),
            class("low", 98_000, Level::Coalescing),
            ClassStatus {
                name: "discard".to_owned(),
                ..ClassStatus::default()
            },
        ];
        Figures {
            since_start: Duration::from_secs(345),
            length: Duration::from_secs(600),
            act,
            is_ending: false,
            fleet: FleetFigures {
                up: 50,
                sent: 3_500_000,
                ..FleetFigures::default()
            },
            sent_per_second: 10_123,
            gateway: GatewayFigures {
                runs,
                report: Some(report),
            },
            cloud: CloudFigures {
                is_on,
                fault: None,
                taken: 3_000_000,
                acts: vec![
                    ActFigures {
                        alarms: 12_345,
                        worst_micros: 250_000_000
                    };
                    5
                ],
            },
            taken_per_second: 1_002,
        }
    }

    #[test]
    fn does_the_screen_fit_every_terminal_that_is_large_enough() {
        for (columns, lines) in [(80, 24), (100, 30), (200, 60)] {
            for act in 0..ACTS.len() {
                for (runs, is_on) in [(true, true), (true, false), (false, false)] {
                    let whole = screen(&full(act, runs, is_on), columns, 1_000);
                    assert!(whole.len() < lines, "{} lines", whole.len());
                    // Nothing is cut off: clipped to a little more it is the same.
                    let wider = screen(&full(act, runs, is_on), columns + 40, 1_000);
                    for (line, wide) in whole.iter().zip(&wider).skip(2) {
                        assert!(line.text.chars().count() <= columns);
                        assert_eq!(line.text, wide.text);
                    }
                }
            }
        }
    }

    #[test]
    fn is_a_terminal_that_shrinks_meanwhile_not_overrun() {
        let cut = screen(&full(1, true, true), 20, 5);
        assert_eq!(cut.len(), 5);
        assert!(cut.iter().all(|line| line.text.chars().count() <= 20));
    }

    #[test]
    fn does_a_screen_without_any_figures_stand() {
        let empty = screen(&Figures::default(), 80, 24);
        assert!(empty.len() > 10);
        assert!(empty.iter().all(|line| line.text.is_ascii()));
        assert!(!line(&Figures::default()).is_empty());
    }

    #[test]
    fn is_a_ledger_that_does_not_balance_shown_in_red() {
        let mut figures = full(4, true, true);
        let tone_of_ledger = |figures: &Figures| {
            let lines = screen(figures, 80, 24);
            let found = lines
                .into_iter()
                .find(|line| line.text.to_lowercase().contains("ledger"));
            found.map(|line| line.tone)
        };
        assert_eq!(tone_of_ledger(&figures), Some(Tone::Good));
        figures.gateway.report.as_mut().unwrap().path.classes[0].received += 1;
        assert_eq!(tone_of_ledger(&figures), Some(Tone::Bad));
    }

    #[test]
    fn is_what_a_killed_start_left_among_what_was_received() {
        let mut figures = full(4, true, true);
        let critical = &mut figures.gateway.report.as_mut().unwrap().path.classes[0];
        (critical.received, critical.found) = (462, 105);
        let lines = screen(&figures, 80, 24);
        let row = lines
            .iter()
            .find(|line| line.text.starts_with(" critical"))
            .unwrap();
        assert!(row.text.contains(" 567 "), "{}", row.text);
    }

    #[test]
    fn is_what_is_away_or_killed_said_loudly() {
        let told = |runs, is_on| {
            let lines = screen(&full(3, runs, is_on), 80, 24);
            lines
                .into_iter()
                .map(|line| line.text + "\n")
                .collect::<String>()
        };
        assert!(told(false, false).contains("KILLED"));
        assert!(told(true, false).contains("AWAY"));
        assert!(!told(true, true).contains("AWAY"));
        assert!(line(&full(3, false, false)).contains("dead"));
    }
}
