//! One system in one case: sink, link, system and fleet are started, played, taken down.

use std::io;
use std::time::{Duration, Instant};

use firmware_sim::Kind;
use firmware_sim::run::{Ended, Order, Played, QUIET_MAX, play_to};
use firmware_sim::watch::FarEnd;

use crate::backlog::Backlog;
use crate::beside::{Beside, FLOOD_TOPICS};
use crate::cases::Case;
use crate::figures::{
    Figures, Large, Latency, LinkUse, link_bytes_per_second, memory_growth_mib, pressure_changes,
};
use crate::gauges::Gauges;
use crate::link::{Link, retransmissions};
use crate::options::Options;
use crate::process::usage_of;
use crate::sink::{self, Sink};
use crate::systems::{Running, Setup, System};
use crate::wire::{Malformed, Publish};

/// A reading of 1 MiB has a link of 256 kbit/s for itself for 33 s.
const LARGE_TAKES: Duration = Duration::from_secs(40);

/// The rules that a user would write; a flood has one more, before them.
const RULES: [(&str, &str); 3] = [
    ("+/+/alarm", "critical"),
    ("+/+/report", "normal"),
    ("#", "low"),
];
/// The same where readings are to be kept while the uplink is away.
const RULES_KEPT: [(&str, &str); 3] = [
    ("+/+/alarm", "critical"),
    ("+/+/report", "normal"),
    ("#", "normal"),
];
/// A segment of full size with its frame.
const SEGMENT_BYTES: f64 = 1_514.0;

/// What the sink books.
#[derive(Default)]
pub(crate) struct Book {
    /// Of the fleets that play or played.
    pub(crate) far_ends: Vec<FarEnd>,
}

impl sink::Book for Book {
    fn record(&mut self, publish: &Publish<'_>, _now: Instant) -> Result<(), Malformed> {
        for far_end in &self.far_ends {
            far_end.note(publish.topic, publish.payload);
        }
        Ok(())
    }
}

/// Plays an order to its end; nobody stops it.
pub(crate) fn play(order: &Order, far_end: &FarEnd) -> io::Result<Ended> {
    let own = far_end.clone().into();
    play_to(order, &own, std::future::pending(), |_| {})
        .map_err(|error| io::Error::other(error.to_string()))
}

/// Runs a system through a case.
pub(crate) fn run(case: &Case, system: System, options: &Options) -> io::Result<Figures> {
    let folder = tempfile::tempdir()?;
    let link = case.link_kbit.map(Link::make).transpose()?;
    let at = match link {
        Some(_) => Link::sink(),
        None => ([127, 0, 0, 1], 0).into(),
    };
    let sink = Sink::start(at, Book::default(), case.uplink_per_second)?;
    let setup = Setup {
        upstream: sink.address,
        link: link.as_ref(),
        rules: &rules(case),
        folder: folder.path(),
    };
    let running = Running::start(system, &options.gateway, &setup, || sink.connections() > 0)?;
    let mut run = Run {
        case,
        options,
        sink,
        running,
        link: link.as_ref(),
    };
    let figures = run.measure();
    if options.log && system == System::Tidegate {
        eprint!("{}", std::fs::read_to_string(&run.running.log)?);
    }
    figures.map_err(|error| match run.running.process.check_alive() {
        Ok(()) => error,
        Err(ended) => ended,
    })
}

fn rules(case: &Case) -> Vec<(&'static str, &'static str)> {
    let flood = case.flood.map(|class| (FLOOD_TOPICS, class));
    let usual = match case.backlog {
        Some(_) => RULES_KEPT,
        None => RULES,
    };
    flood.into_iter().chain(usual).collect()
}

struct Run<'a> {
    case: &'a Case,
    options: &'a Options,
    sink: Sink<Book>,
    running: Running,
    link: Option<&'a Link>,
}

impl Run<'_> {
    fn measure(&mut self) -> io::Result<Figures> {
        let order = self.order()?;
        let backlog = self.case.backlog;
        let backlog = backlog
            .map(|messages| Backlog::make(&order, messages, &self.sink))
            .transpose()?;
        // A second connection may follow the first.
        std::thread::sleep(Duration::from_secs(1));
        let load = self.case.scenario.length();
        let process = self.running.process.id();
        let connections = self.sink.connections();
        let sent_again = retransmissions(process);
        let before = usage_of(process)?;
        let gauges = self.gauges()?;
        let flood = self.case.flood.map(|_| Beside::flood(&order, load));
        let camera = self
            .case
            .large
            .then(|| Beside::camera(&order, load, self.far_end()));
        let (flood, camera) = (flood.transpose()?, camera.transpose()?);
        let far_end = self.far_end();
        let played = self.settle(play(&order, &far_end)?);

        let drain_max = Duration::from_secs(self.options.drain_seconds);
        let drained = backlog.map(|backlog| backlog.wait(drain_max));
        let flood = flood.map(Beside::finish).transpose()?;
        let flood = flood.map(|ended| ended.settle(Duration::ZERO, Duration::ZERO).account);
        let flood_sent = flood.map(|account| account.total(|kind| kind.sent));
        let camera = camera.map(Beside::finish).transpose()?;
        let large = camera.map(|ended| Large::of(&self.settle(ended).account));
        let usage = usage_of(process)?;
        let looks = gauges.finish();
        let sent_again = retransmissions(process)
            .zip(sent_again)
            .map(|(now, before)| now - before);
        let (changes, steady) = pressure_changes(&looks, load);
        let readings = &played.account.reading;
        let far_readings = readings.far_end.as_ref();
        let sent = readings.sent + played.account.alarm.sent + played.account.report.sent;
        let large_sent = large.as_ref().map_or(0, |large| large.sent);
        let all_sent = sent + flood_sent.unwrap_or(0) + large_sent;
        Ok(Figures {
            alarms: Latency::of(Kind::Alarm, &played, &far_end),
            readings: Latency::of(Kind::Reading, &played, &far_end),
            topics: self.case.topics(),
            final_values_missing: far_readings
                .map(|far| far.final_values_missing)
                .filter(|_| self.case.readings_are_latest()),
            superseded_in_devices: readings.superseded,
            answered: played.pace.answered.reading.clone(),
            unanswered: readings.unanswered,
            late: played.pace.late.clone(),
            sent_per_second: sent as f64 / load.as_secs_f64(),
            peak_mib: usage.memory_peak_kib as f64 / 1024.0,
            memory_growth_mib: memory_growth_mib(&looks),
            cpu_us: (usage.cpu - before.cpu).as_secs_f64() * 1e6 / all_sent.max(1) as f64,
            pressure_changes: changes,
            pressure_changes_steady: steady,
            rounds: (self.case.scenario.phases().count() as f64 / 2.0).max(1.0),
            unaccounted: looks.last().and_then(|look| Some(look.page?.unaccounted)),
            reconnects: self.sink.connections() - connections,
            link: self.link.and_then(|link| {
                let capacity = f64::from(link.kbit) * 1_000.0 / 8.0;
                let seconds = looks.last()?.at.as_secs_f64();
                let wasted = sent_again? as f64 * SEGMENT_BYTES / seconds;
                let useful = link_bytes_per_second(&looks, load)? - wasted;
                Some(LinkUse {
                    useful_percent: 100.0 * useful / capacity,
                    retransmissions: sent_again?,
                })
            }),
            large,
            backlog: drained,
            flood_sent,
        })
    }

    /// One more far end, that the sink tells what arrives.
    fn far_end(&self) -> FarEnd {
        let far_end = FarEnd::default();
        self.sink
            .with_book(|book| book.far_ends.push(far_end.clone()));
        far_end
    }

    /// Waits for what is on its way.
    fn settle(&self, ended: Ended) -> Played {
        let quiet_max = match self.case.large {
            true => LARGE_TAKES,
            false => QUIET_MAX,
        };
        ended.settle(self.case.settle_max, quiet_max)
    }

    fn order(&self) -> io::Result<Order> {
        let connect = self.running.address.to_string();
        let connect = connect.parse().map_err(io::Error::other)?;
        let scenario = self.case.scenario.clone();
        Ok(Order::new(connect, self.case.devices, scenario))
    }

    fn gauges(&self) -> io::Result<Gauges> {
        let bytes = self.link.map(Link::counter);
        Gauges::start(self.running.process.id(), self.running.admin, move || {
            bytes.as_ref().and_then(|bytes| bytes.read())
        })
    }
}
