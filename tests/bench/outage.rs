//! The case `outage`: the uplink is away and every message is of a guaranteed class, so that each
//! acknowledgement stands for a synced commit. CPU of the gateway for each acknowledged message, with few
//! devices and with many. The gateway alone: nobody else it stands beside acknowledges so.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::load::{Load, Manner};
use crate::options::Options;
use crate::sink::Sink;
use crate::systems::{Rules, Running, Setup, System};
use crate::tally::Tally;
use crate::wire::Protocol;
use crate::workload::{CONNECTIONS, Workload};

/// Many devices, beside the usual number.
const MANY_CONNECTIONS: usize = 500;
/// What the gateway promises with the usual number.
const CPU_MAX_US: f64 = 3.0;
/// `memory_max` by default, and what it promises to take beside it at most.
const PEAK_MAX_MIB: f64 = 64.0 + 32.0;
/// What the gateway commits ten times a second is all that the devices may leave unacknowledged: so many
/// full windows are published at most, and a tenth of it to warm up, there and away.
const WINDOWS_MAX: u64 = 200;
/// Longer than the gateway waits before it calls the uplink away.
const UNTIL_AWAY: Duration = Duration::from_secs(3);
/// Longest time that devices publish in one run.
const PUBLISH_MAX: Duration = Duration::from_secs(60);

/// The figures of one run.
struct Outage {
    acknowledged: u64,
    elapsed: Duration,
    cpu: Duration,
    switches: u64,
    peak_kib: u64,
}

/// Runs and prints the case; gives whether everything was acknowledged, and nothing by the sink.
pub(crate) fn run(options: &Options) -> bool {
    println!(
        "\n== All guaranteed with the uplink away: QoS 1, MQTT 5, acknowledged after a synced commit ==\n"
    );
    println!(
        "{:<38} {:>8} {:>13} {:>13} {:>9} {:>9}",
        "", "CPU us", "(lowest-", "acknowledged", "switches", "peak MiB"
    );
    println!(
        "{:<38} {:>8} {:>13} {:>13} {:>9} {:>9}",
        "", "per ack", "highest)", "a second", "per ack", ""
    );
    let mut well = true;
    for connections in [CONNECTIONS, MANY_CONNECTIONS] {
        match rounds(options, connections) {
            Ok(runs) => print(connections, &runs),
            Err(error) => {
                println!("FAULT  {connections} connections: {error}");
                well = false;
            }
        }
    }
    well
}

fn rounds(options: &Options, connections: usize) -> io::Result<Vec<Outage>> {
    (1..=options.rounds)
        .map(|round| {
            eprintln!("Outage: round {round}: {connections} connections");
            once(options, connections)
        })
        .collect()
}

fn once(options: &Options, connections: usize) -> io::Result<Outage> {
    let folder = tempfile::tempdir()?;
    let workload = Arc::new(Workload::devices(connections));
    let sink = Sink::start(
        ([127, 0, 0, 1], 0).into(),
        Tally::new(Arc::clone(&workload)),
        None,
    )?;
    let setup = Setup {
        protocol: Protocol::V5,
        bridge_qos: 1,
        rules: Rules::Guaranteed,
    };
    let gateway = &options.gateway;
    let running = Running::start(System::Tidegate, gateway, setup, &sink, folder.path())?;
    let manner = Manner {
        protocol: Protocol::V5,
        qos: 1,
        window: options.window,
    };
    let load = Load::connect(running.address, manner, &workload)?;
    let windows = connections as u64 * u64::from(options.window) * WINDOWS_MAX;
    let messages = options.messages.min(windows);
    publish(&load, messages / 10)?;
    sink.set_open(false);
    std::thread::sleep(UNTIL_AWAY);
    publish(&load, messages / 10)?;

    let arrived = || sink.with_book(|tally| tally.counts.arrived);
    let arrived_before = arrived();
    let before = running.process.usage()?;
    let start = Instant::now();
    publish(&load, messages)?;
    let elapsed = start.elapsed();
    let after = running.process.usage()?;
    if arrived() != arrived_before {
        return Err(io::Error::other(
            "messages arrived though the sink was closed",
        ));
    }
    Ok(Outage {
        acknowledged: messages,
        elapsed,
        cpu: after.cpu - before.cpu,
        switches: after.switches.saturating_sub(before.switches),
        peak_kib: after.memory_peak_kib,
    })
}

/// Publishes so many and waits until all are acknowledged with success.
fn publish(load: &Load, messages: u64) -> io::Result<()> {
    let give_up = Instant::now() + PUBLISH_MAX;
    let sent = load.publish(messages, give_up)?;
    if sent.messages < messages || Instant::now() >= give_up {
        return Err(io::Error::other(format!(
            "not all of {messages} messages were acknowledged in {PUBLISH_MAX:?}"
        )));
    }
    if sent.refused > 0 {
        let refused = sent.refused;
        return Err(io::Error::other(format!("{refused} messages were refused")));
    }
    Ok(())
}

fn print(connections: usize, runs: &[Outage]) {
    let sorted = |figure: &dyn Fn(&Outage) -> f64| {
        let mut figures: Vec<_> = runs.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures
    };
    let median = |figure: &dyn Fn(&Outage) -> f64| sorted(figure)[runs.len() / 2];
    let each = |run: &Outage, total: f64| total / run.acknowledged as f64;
    let cpu_us = |run: &Outage| each(run, run.cpu.as_secs_f64() * 1e6);
    let (all, cpu) = (sorted(&cpu_us), median(&cpu_us));
    let peak = sorted(&|run| run.peak_kib as f64 / 1024.0)[runs.len() - 1];
    println!(
        "{:<38} {cpu:>8.2} {:>13} {:>13.0} {:>9.3} {peak:>9.1}",
        format!("tidegate, {connections} connections"),
        format!("({:.2}-{:.2})", all[0], all[runs.len() - 1]),
        median(&|run| run.acknowledged as f64 / run.elapsed.as_secs_f64()),
        median(&|run| each(run, run.switches as f64)),
    );
    if connections == CONNECTIONS {
        verdict("CPU for each acknowledged message, us", cpu, CPU_MAX_US);
    }
    verdict("peak of resident memory, MiB", peak, PEAK_MAX_MIB);
}

fn verdict(what: &str, figure: f64, at_most: f64) {
    let word = if figure <= at_most {
        "reached"
    } else {
        "MISSED"
    };
    println!("  {what}: {figure:.2}, to reach: at most {at_most} - {word}");
}
