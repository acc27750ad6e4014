//! One run of one system: sink, system and devices are started, warmed up, measured, taken down.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::load::{Load, Manner, Sent};
use crate::paced::Paced;
use crate::process::{SyscallCounter, own_cpu};
use crate::sink::Sink;
use crate::systems::{Running, Setup, System};
use crate::tally::{Counts, Tally, latency_histogram};
use crate::workload::Workload;

/// Longest time that devices publish in one run; then less is sent, and the figures still hold.
const PUBLISH_MAX: Duration = Duration::from_secs(60);
/// Without an arrival for so long, what has not arrived never will: longer than the gateway waits
/// before it sends again.
const SILENCE_MAX: Duration = Duration::from_secs(8);
/// The same where nobody promised an arrival (QoS 0).
const SILENCE_QOS0: Duration = Duration::from_secs(1);
/// Seconds of light load before it is measured.
const WARM_UP_SECONDS: u64 = 1;

/// What the devices do.
#[derive(Clone, Copy)]
pub(crate) enum Traffic {
    /// As fast as they may: `warm_up` messages first, then those that count.
    Flat {
        manner: Manner,
        warm_up: u64,
        messages: u64,
    },
    /// The open loop of light load.
    Light { manner: Manner, seconds: u64 },
}

impl Traffic {
    fn qos(self) -> u8 {
        match self {
            Self::Flat { manner, .. } | Self::Light { manner, .. } => manner.qos,
        }
    }
}

/// One system in one run.
pub(crate) struct Plan<'a> {
    pub(crate) system: System,
    /// The gateway's program.
    pub(crate) gateway: &'a Path,
    pub(crate) setup: Setup,
    pub(crate) traffic: Traffic,
    pub(crate) workload: Arc<Workload>,
    /// Count system calls; the time of such a run is not used.
    pub(crate) count_syscalls: bool,
}

/// The figures of one run.
pub(crate) struct Measurement {
    pub(crate) sent: u64,
    /// Messages refused with a reason (MQTT 5).
    pub(crate) refused: u64,
    /// Of the whole run, the warm-up included.
    pub(crate) total: Counts,
    /// Sent in the whole run.
    pub(crate) total_sent: u64,
    /// Different messages that arrived while it was measured.
    pub(crate) arrived: u64,
    /// From the first publish to the last arrival.
    pub(crate) elapsed: Duration,
    pub(crate) cpu: Duration,
    /// CPU of devices and sink.
    pub(crate) own_cpu: Duration,
    pub(crate) switches: u64,
    pub(crate) memory_peak_kib: u64,
    pub(crate) memory_kib: u64,
    pub(crate) syscalls: Option<u64>,
    pub(crate) alarms: Histogram<u64>,
    pub(crate) others: Histogram<u64>,
    /// How late the devices themselves were at light load.
    pub(crate) lateness: Histogram<u64>,
}

impl Measurement {
    /// Messages that never arrived.
    pub(crate) fn lost(&self) -> u64 {
        self.total_sent.saturating_sub(self.total.arrived)
    }
}

impl Plan<'_> {
    /// Runs it.
    pub(crate) fn run(&self) -> io::Result<Measurement> {
        let folder = tempfile::tempdir()?;
        let tally = Tally::new(Arc::clone(&self.workload));
        let sink = Sink::start(([127, 0, 0, 1], 0).into(), tally, None)?;
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
        let address = self.system.address;
        let workload = Arc::clone(&self.plan.workload);
        match self.plan.traffic {
            Traffic::Flat {
                manner,
                warm_up,
                messages,
            } => {
                let load = Load::connect(address, manner, &workload)?;
                let publish = |messages| load.publish(messages, Instant::now() + PUBLISH_MAX);
                let before = publish(warm_up)?;
                self.wait_for(before.messages);
                self.measure_while(before.messages, || publish(messages))
            }
            Traffic::Light { manner, seconds } => {
                let mut devices = Paced::connect(address, manner.protocol, &workload)?;
                let before = devices.publish(WARM_UP_SECONDS)?;
                self.wait_for(before);
                devices.lateness.reset();
                let mut measured = self.measure_while(before, || {
                    let messages = devices.publish(seconds)?;
                    Ok(Sent {
                        messages,
                        refused: 0,
                    })
                })?;
                measured.lateness = devices.lateness.clone();
                Ok(measured)
            }
        }
    }

    /// Measures what the system uses from the first message that `publish` sends until the last
    /// arrived. `before` were sent earlier.
    fn measure_while(
        &mut self,
        before: u64,
        publish: impl FnOnce() -> io::Result<Sent>,
    ) -> io::Result<Measurement> {
        let process = &self.system.process;
        let counter = self
            .plan
            .count_syscalls
            .then(|| SyscallCounter::attach(process.id(), self.folder));
        self.sink.with_book(Tally::forget_latencies);
        let counts_before = self.sink.with_book(|tally| tally.counts);
        let own_before = own_cpu()?;
        let usage_before = process.usage()?;
        let start = Instant::now();

        let sent = publish()?;
        self.wait_for(before + sent.messages);

        let usage = process.usage()?;
        let own = own_cpu()?;
        let syscalls = counter.flatten().and_then(SyscallCounter::finish);
        let (total, last_arrival) = self
            .sink
            .with_book(|tally| (tally.counts, tally.last_arrival));
        let (alarms, others) = self
            .sink
            .with_book(|tally| (tally.alarms.clone(), tally.others.clone()));
        Ok(Measurement {
            sent: sent.messages,
            refused: sent.refused,
            total,
            total_sent: before + sent.messages,
            arrived: total.arrived - counts_before.arrived,
            elapsed: last_arrival
                .map_or(Duration::ZERO, |last| last.saturating_duration_since(start)),
            cpu: usage.cpu - usage_before.cpu,
            own_cpu: own - own_before,
            switches: usage.switches.saturating_sub(usage_before.switches),
            memory_peak_kib: usage.memory_peak_kib,
            memory_kib: usage.memory_kib,
            syscalls,
            alarms,
            others,
            lateness: latency_histogram(),
        })
    }

    /// Waits until so many different messages arrived, or none for a long time.
    fn wait_for(&self, messages: u64) {
        let silence_max = match self.plan.traffic.qos() {
            0 => SILENCE_QOS0,
            _ => SILENCE_MAX,
        };
        let mut arrived = 0;
        let mut since = Instant::now();
        loop {
            let counts = self.sink.with_book(|tally| tally.counts);
            if counts.arrived >= messages {
                return;
            }
            if counts.arrived > arrived {
                arrived = counts.arrived;
                since = Instant::now();
            }
            if since.elapsed() > silence_max {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
