//! The case `outage`: the uplink is away and every message is of a guaranteed class, so that each
//! acknowledgement stands for a synced commit. CPU of the gateway for each acknowledged message, with few
//! devices and with many. The gateway alone: nobody else it stands beside acknowledges so.

use std::io;
use std::time::Duration;

use firmware_sim::account::Account;
use firmware_sim::run::play;
use firmware_sim::wire::Protocol;

use crate::options::Options;
use crate::sink::Sink;
use crate::systems::{Rules, Running, Setup, System};
use crate::tally::Tally;
use crate::traffic::{DEVICES, Pace, Traffic};

/// Many devices, beside the usual number.
const MANY_DEVICES: u32 = 500;
/// What the gateway promises where the devices keep it busy: many do. The usual number waits for the next
/// commit most of the time, with what one window each holds, and the commit's own cost is shared by few.
const CPU_MAX_US: f64 = 3.0;
/// `memory_max` by default, and what it promises to take beside it at most.
const PEAK_MAX_MIB: f64 = 64.0 + 32.0;
/// Of each warm-up: with the uplink there, and away for longer than the gateway waits before it says so.
const WARM_UP: Duration = Duration::from_millis(500);
const UNTIL_AWAY: Duration = Duration::from_secs(3);

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
    for devices in [DEVICES, MANY_DEVICES] {
        match rounds(options, devices) {
            Ok(runs) => print(devices, &runs),
            Err(error) => {
                println!("FAULT  {devices} connections: {error}");
                well = false;
            }
        }
    }
    well
}

fn rounds(options: &Options, devices: u32) -> io::Result<Vec<Outage>> {
    (1..=options.rounds)
        .map(|round| {
            eprintln!("Outage: round {round}: {devices} connections");
            once(options, devices)
        })
        .collect()
}

fn once(options: &Options, devices: u32) -> io::Result<Outage> {
    let folder = tempfile::tempdir()?;
    let sink = Sink::start(([127, 0, 0, 1], 0).into(), Tally::default(), None)?;
    let setup = Setup {
        protocol: Protocol::V5,
        bridge_qos: 1,
        rules: Rules::Guaranteed,
    };
    let running = Running::start(
        System::Tidegate,
        &options.gateway,
        setup,
        &sink,
        folder.path(),
    )?;
    let traffic = Traffic {
        protocol: setup.protocol,
        pace: Pace::Acknowledged {
            window: options.window,
        },
        devices,
        topics: devices,
        warm_up: WARM_UP,
        length: Duration::from_secs_f64(options.flat_seconds),
    };
    let publish = |length| publish(&traffic, &running, length);
    publish(traffic.warm_up)?;
    sink.set_open(false);
    std::thread::sleep(UNTIL_AWAY);
    publish(traffic.warm_up)?;

    let arrived = || sink.with_book(|tally| tally.with_id);
    let arrived_before = arrived();
    let before = running.process.usage()?;
    let account = publish(traffic.length)?;
    let after = running.process.usage()?;
    if arrived() != arrived_before {
        return Err(io::Error::other(
            "messages arrived though the sink was closed",
        ));
    }
    Ok(Outage {
        acknowledged: account.total(|kind| kind.acknowledged),
        elapsed: Duration::from_secs_f64(account.run.seconds),
        cpu: after.cpu - before.cpu,
        switches: after.switches.saturating_sub(before.switches),
        peak_kib: after.memory_peak_kib,
    })
}

/// Lets the devices publish for so long, and waits until all of it is acknowledged with success.
fn publish(traffic: &Traffic, running: &Running, length: Duration) -> io::Result<Account> {
    let order = traffic.order(running.address, length)?;
    let account = play(&order, std::future::pending(), |_| {})
        .map_err(|error| io::Error::other(error.to_string()))?;
    let sent = account.total(|kind| kind.sent);
    let (taken, refused) = (
        account.total(|kind| kind.acknowledged),
        account.total(|kind| kind.refused),
    );
    if taken < sent || refused > 0 {
        return Err(io::Error::other(format!(
            "of {sent} messages {taken} were acknowledged, {refused} of them refused"
        )));
    }
    Ok(account)
}

fn print(devices: u32, runs: &[Outage]) {
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
        format!("tidegate, {devices} connections"),
        format!("({:.2}-{:.2})", all[0], all[runs.len() - 1]),
        median(&|run| run.acknowledged as f64 / run.elapsed.as_secs_f64()),
        median(&|run| each(run, run.switches as f64)),
    );
    if devices == MANY_DEVICES {
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
