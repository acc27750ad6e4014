//! One run of one system: sink, system and devices are started, warmed up, measured, taken down.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use firmware_sim::Kind;
use firmware_sim::run::{Played, play_to};
use hdrhistogram::Histogram;

use crate::process::{SyscallCounter, own_cpu};
use crate::sink::Sink;
use crate::systems::{Running, Setup, System};
use crate::tally::Tally;
use crate::traffic::Traffic;

/// Longest wait for what is on its way; what comes later has not arrived.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// Without an arrival for so long, what has not arrived never will: longer than the gateway waits
/// before it sends again.
const SILENCE_MAX: Duration = Duration::from_secs(8);
/// The same where nobody promised an arrival (QoS 0).
const SILENCE_QOS0: Duration = Duration::from_secs(1);

/// One system in one run.
pub(crate) struct Plan<'a> {
    pub(crate) system: System,
    /// The gateway's program.
    pub(crate) gateway: &'a Path,
    pub(crate) setup: Setup,
    pub(crate) traffic: Traffic,
    /// Count system calls; the time of such a run is not used.
    pub(crate) count_syscalls: bool,
}

/// The figures of one run, without its warm-up.
pub(crate) struct Measurement {
    pub(crate) sent: u64,
    /// Messages refused with a reason (MQTT 5).
    pub(crate) refused: u64,
    /// Different messages that arrived.
    pub(crate) arrived: u64,
    /// Messages that had arrived before.
    pub(crate) duplicates: u64,
    /// Messages that arrived after a later one of their device, for the first time.
    pub(crate) overtaken: u64,
    /// What nobody published.
    pub(crate) foreign: u64,
    /// Arrivals with a user property, repeats included.
    pub(crate) with_id: u64,
    /// From the devices' connecting, which takes 20 ms, to the last arrival.
    pub(crate) elapsed: Duration,
    pub(crate) cpu: Duration,
    /// CPU of devices and sink.
    pub(crate) own_cpu: Duration,
    pub(crate) switches: u64,
    pub(crate) memory_peak_kib: u64,
    pub(crate) memory_kib: u64,
    pub(crate) syscalls: Option<u64>,
    /// From due to arrival.
    pub(crate) alarms: Histogram<u64>,
    /// The same of readings.
    pub(crate) others: Histogram<u64>,
    /// How late the devices themselves were at light load.
    pub(crate) lateness: Histogram<u64>,
}

impl Measurement {
    /// Messages that never arrived.
    pub(crate) fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.arrived)
    }
}

impl Plan<'_> {
    /// Runs it.
    pub(crate) fn run(&self) -> io::Result<Measurement> {
        let folder = tempfile::tempdir()?;
        let sink = Sink::start(([127, 0, 0, 1], 0).into(), Tally::default(), None)?;
        let system = Running::start(self.system, self.gateway, self.setup, &sink, folder.path())?;
        let mut run = Run {
            system,
            sink,
            folder: folder.path(),
            plan: self,
        };
        run.measure()
            .map_err(|error| match run.system.process.check_alive() {
                Ok(()) => error,
                Err(ended) => ended,
            })
    }
}

struct Run<'a> {
    system: Running,
    sink: Sink<Tally>,
    folder: &'a Path,
    plan: &'a Plan<'a>,
}

impl Run<'_> {
    fn measure(&mut self) -> io::Result<Measurement> {
        let traffic = &self.plan.traffic;
        let before = self.play(traffic.warm_up)?;
        if before.account.total(|kind| kind.sent) < u64::from(traffic.topics) {
            return Err(io::Error::other(
                "it was too slow to meet every topic in its warm-up",
            ));
        }
        let process = &self.system.process;
        let counter = self
            .plan
            .count_syscalls
            .then(|| SyscallCounter::attach(process.id(), self.folder));
        let own_before = own_cpu()?;
        let usage_before = process.usage()?;
        let start = Instant::now();

        let played = self.play(traffic.length)?;

        let usage = process.usage()?;
        let own = own_cpu()?;
        let syscalls = counter.flatten().and_then(SyscallCounter::finish);
        let of = |figure: fn(&firmware_sim::account::FarEnd) -> u64| far_ends(&played, figure);
        let (with_id, last_arrival, far_end) = self
            .sink
            .with_book(|tally| (tally.with_id, tally.last_arrival, tally.far_end.clone()));
        let latency = |kind| far_end.with(|seen| seen.map(|seen| seen.of(kind).latency.clone()));
        Ok(Measurement {
            sent: played.account.total(|kind| kind.sent),
            refused: played.account.total(|kind| kind.refused),
            arrived: of(|far_end| far_end.arrived),
            duplicates: of(|far_end| far_end.duplicate),
            overtaken: of(|far_end| far_end.out_of_order),
            foreign: played.account.strangers.unwrap_or(0),
            with_id,
            elapsed: last_arrival
                .map_or(Duration::ZERO, |last| last.saturating_duration_since(start)),
            cpu: usage.cpu - usage_before.cpu,
            own_cpu: own - own_before,
            switches: usage.switches.saturating_sub(usage_before.switches),
            memory_peak_kib: usage.memory_peak_kib,
            memory_kib: usage.memory_kib,
            syscalls,
            alarms: latency(Kind::Alarm).unwrap_or_else(latency_histogram),
            others: latency(Kind::Reading).unwrap_or_else(latency_histogram),
            lateness: played.pace.late,
        })
    }

    /// Lets the fleet play, and waits until all of it arrived, or nothing more does.
    fn play(&self, length: Duration) -> io::Result<Played> {
        let traffic = &self.plan.traffic;
        let tally = Tally::default();
        let quiet_max = match traffic.is_acknowledged() {
            true => SILENCE_MAX,
            false => SILENCE_QOS0,
        };
        let own = tally.far_end.clone().into();
        let order = traffic.order(self.system.address, length)?;
        self.sink.with_book(|book| *book = tally);
        let ended = play_to(&order, &own, std::future::pending(), |_| {})
            .map_err(|error| io::Error::other(error.to_string()))?;
        Ok(ended.settle(SETTLE_MAX, quiet_max))
    }
}

/// A figure of the far end, of all kinds together.
fn far_ends(played: &Played, figure: fn(&firmware_sim::account::FarEnd) -> u64) -> u64 {
    let kinds = Kind::ALL.into_iter();
    kinds
        .filter_map(|kind| played.account.of(kind).far_end.as_ref())
        .map(figure)
        .sum()
}

/// Microseconds, up to the ten minutes that the fleet's own histograms hold, three digits.
pub(crate) fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are valid")
}
