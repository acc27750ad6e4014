//! The figures of all rounds as plain text: tables, and each promise beside what was measured.
//! Nothing here measures or decides to stop.

use hdrhistogram::Histogram;

use crate::cases::{Case, Target, Variant};
use crate::measure::{Measurement, latency_histogram};
use crate::systems::System;

/// What became of one variant.
#[derive(Default)]
pub(crate) struct Runs {
    /// One for each round that went well.
    pub(crate) rounds: Vec<Measurement>,
    /// The run that counted system calls.
    pub(crate) counted: Option<Measurement>,
    /// Why a run failed.
    pub(crate) failure: Option<String>,
}

impl Runs {
    fn of(&self, figure: impl Fn(&Measurement) -> f64) -> Vec<f64> {
        self.rounds.iter().map(figure).collect()
    }

    fn sum(&self, figure: impl Fn(&Measurement) -> u64) -> u64 {
        self.rounds.iter().chain(&self.counted).map(figure).sum()
    }

    fn pooled(&self, figure: impl Fn(&Measurement) -> &Histogram<u64>) -> Histogram<u64> {
        let mut pool = latency_histogram();
        for run in &self.rounds {
            pool.add(figure(run)).expect("equal bounds");
        }
        pool
    }
}

/// Prints a case; returns whether what was promised to arrive, in order, did.
pub(crate) fn print(case: &Case, runs: &[Runs]) -> bool {
    println!("\n== {} ==", case.title);
    println!();
    print_costs(case, runs);
    if case.variants.iter().any(|variant| !variant.is_flat()) {
        println!();
        print_latencies(case, runs);
    }
    println!();
    print_above_floor(case, runs);
    for target in &case.targets {
        print_target(case, runs, target);
    }
    let mut well = true;
    for (variant, runs) in case.variants.iter().zip(runs) {
        well &= print_faults(variant, runs);
    }
    well
}

fn print_costs(case: &Case, runs: &[Runs]) {
    println!(
        "{:<38} {:>6} {:>13} {:>9} {:>8} {:>8} {:>8} {:>9} {:>9} {:>8} {:>7} {:>7}",
        "",
        "CPU",
        "CPU",
        "messages",
        "arrived",
        "peak",
        "resident",
        "switches",
        "syscalls",
        "bench",
        "dupli-",
        "over-"
    );
    println!(
        "{:<38} {:>6} {:>13} {:>9} {:>8} {:>8} {:>8} {:>9} {:>9} {:>8} {:>7} {:>7}",
        "",
        "us/msg",
        "lowest-most",
        "per s",
        "%",
        "MiB",
        "MiB",
        "per msg",
        "per msg",
        "us/msg",
        "cates",
        "taken"
    );
    for (variant, runs) in case.variants.iter().zip(runs) {
        if runs.rounds.is_empty() {
            println!("{:<38} not measured", variant.label);
        } else {
            print_cost(variant, runs);
        }
    }
}

fn print_cost(variant: &Variant, runs: &Runs) {
    let cpu = runs.of(cpu_us);
    let syscalls = runs
        .counted
        .as_ref()
        .and_then(|run| Some(run.syscalls? as f64 / run.arrived.max(1) as f64))
        .map_or_else(|| "-".to_owned(), |number| format!("{number:.3}"));
    println!(
        "{:<38} {:>6.2} {:>13} {:>9.0} {:>8.2} {:>8.1} {:>8.1} {:>9.4} {:>9} {:>8.2} {:>7} {:>7}",
        variant.label,
        median(&cpu),
        format!("{:.2}-{:.2}", lowest(&cpu), highest(&cpu)),
        median(&runs.of(|run| run.arrived as f64 / run.elapsed.as_secs_f64().max(1e-9))),
        median(&runs.of(|run| 100.0 * run.arrived as f64 / run.sent.max(1) as f64)),
        highest(&runs.of(|run| run.memory_peak_kib as f64 / 1024.0)),
        highest(&runs.of(|run| run.memory_kib as f64 / 1024.0)),
        median(&runs.of(|run| per_message(run, run.switches as f64))),
        syscalls,
        median(&runs.of(|run| per_message(run, run.own_cpu.as_secs_f64() * 1e6))),
        runs.sum(|run| run.duplicates),
        runs.sum(|run| run.overtaken),
    );
}

fn print_latencies(case: &Case, runs: &[Runs]) {
    println!(
        "{:<38} {:<22} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "latency in ms, all rounds together", "", "count", "p50", "p99", "p99.9", "max"
    );
    let measured = case.variants.iter().zip(runs);
    for (variant, runs) in measured.filter(|(_, runs)| !runs.rounds.is_empty()) {
        for (what, pool) in [
            ("alarms", runs.pooled(|run| &run.alarms)),
            ("others", runs.pooled(|run| &run.others)),
            ("(the devices were late)", runs.pooled(|run| &run.lateness)),
        ] {
            let at = |quantile| pool.value_at_quantile(quantile) as f64 / 1e3;
            println!(
                "{:<38} {:<22} {:>8} {:>8.3} {:>8.3} {:>8.3} {:>8.3}",
                variant.label,
                what,
                pool.len(),
                at(0.5),
                at(0.99),
                at(0.999),
                pool.max() as f64 / 1e3,
            );
        }
    }
}

/// How far above a forwarder without logic the gateway is.
fn print_above_floor(case: &Case, runs: &[Runs]) {
    let (Some(gateway), Some(floor)) = (
        find(case, runs, System::Tidegate.name()),
        find(case, runs, System::Floor.name()),
    ) else {
        return;
    };
    let above = pairs(gateway, floor, |gateway, floor| {
        cpu_us(gateway) - cpu_us(floor)
    });
    let times = pairs(gateway, floor, |gateway, floor| {
        cpu_us(gateway) / cpu_us(floor)
    });
    println!(
        "above the floor: {:.2} us a message, {:.1} times the floor",
        median(&above),
        median(&times),
    );
}

fn print_target(case: &Case, runs: &[Runs], target: &Target) {
    let gateway = System::Tidegate.name();
    let (what, figure, limit) = match target {
        Target::Cpu { of, to, at_most } => (
            format!("CPU per message, {of} to {to}"),
            find(case, runs, of)
                .zip(find(case, runs, to))
                .map(|(of, to)| median(&pairs(of, to, |of, to| cpu_us(of) / cpu_us(to)))),
            *at_most,
        ),
        Target::PeakMemory { at_most_mib } => (
            "peak memory, MiB, most of all rounds".to_owned(),
            find(case, runs, gateway)
                .map(|runs| highest(&runs.of(|run| run.memory_peak_kib as f64 / 1024.0))),
            *at_most_mib,
        ),
        Target::Memory { at_most_mib } => (
            "resident memory, MiB, most of all rounds".to_owned(),
            find(case, runs, gateway)
                .map(|runs| highest(&runs.of(|run| run.memory_kib as f64 / 1024.0))),
            *at_most_mib,
        ),
        Target::AlarmLatency { at_most_ms } => (
            "alarms, p99 in ms, all rounds together".to_owned(),
            find(case, runs, gateway).map(|runs| {
                let alarms = runs.pooled(|run| &run.alarms);
                alarms.value_at_quantile(0.99) as f64 / 1e3
            }),
            *at_most_ms,
        ),
        Target::MessageIds => (
            "messages without an id".to_owned(),
            find(case, runs, gateway).map(|runs| {
                let arrivals = runs.sum(|run| run.arrived + run.duplicates);
                (arrivals - runs.sum(|run| run.with_id)) as f64
            }),
            0.0,
        ),
    };
    let verdict = match figure {
        None => "not measured".to_owned(),
        Some(figure) if figure <= limit => format!("{figure:.3}  met"),
        Some(figure) => format!("{figure:.3}  NOT met"),
    };
    println!("target: {what}: at most {limit}: {verdict}");
    if let (Target::AlarmLatency { at_most_ms }, Some(runs)) = (target, find(case, runs, gateway)) {
        print_own_lateness(runs, *at_most_ms);
    }
}

/// Warns when the devices were so late themselves that the machine was measured, not the gateway.
fn print_own_lateness(runs: &Runs, limit_ms: f64) {
    let late_ms = runs.pooled(|run| &run.lateness).value_at_quantile(0.99) as f64 / 1e3;
    if late_ms > limit_ms / 3.0 {
        println!(
            "note: the devices themselves were late by {late_ms:.3} ms (p99): \
             this machine was too busy to judge latency"
        );
    }
}

/// Says what went wrong; false when a promise was broken or a run failed.
fn print_faults(variant: &Variant, runs: &Runs) -> bool {
    let label = variant.label;
    let lost = runs.sum(Measurement::lost);
    let refused = runs.sum(|run| run.refused);
    let overtaken = runs.sum(|run| run.overtaken);
    let foreign = runs.sum(|run| run.foreign);
    let mut well = true;
    let mut say = |is_fault: bool, line: String| {
        well &= !is_fault;
        println!(
            "{}: {label}: {line}",
            if is_fault { "FAULT" } else { "note" }
        );
    };
    // The peer's faults are its own.
    let is_ours = variant.system != System::Mosquitto;
    if let Some(failure) = &runs.failure {
        say(true, format!("did not run: {failure}"));
    }
    if lost > 0 {
        let is_fault = is_ours && variant.promises_arrival();
        say(
            is_fault,
            format!(
                "{lost} messages did not arrive, of {}",
                runs.sum(|run| run.sent)
            ),
        );
    }
    if refused > 0 {
        say(is_ours, format!("{refused} messages were refused"));
    }
    if overtaken > 0 {
        say(
            is_ours,
            format!("{overtaken} messages arrived after a later one of their topic"),
        );
    }
    if foreign > 0 {
        say(
            is_ours,
            format!("{foreign} messages arrived that nobody published on their topic"),
        );
    }
    well
}

fn find<'a>(case: &Case, runs: &'a [Runs], label: &str) -> Option<&'a Runs> {
    let place = case.variants.iter().position(|v| v.label == label)?;
    runs.get(place).filter(|runs| !runs.rounds.is_empty())
}

/// A figure for each round in which both ran.
fn pairs(a: &Runs, b: &Runs, figure: impl Fn(&Measurement, &Measurement) -> f64) -> Vec<f64> {
    let rounds = a.rounds.iter().zip(&b.rounds);
    rounds.map(|(a, b)| figure(a, b)).collect()
}

fn cpu_us(run: &Measurement) -> f64 {
    per_message(run, run.cpu.as_secs_f64() * 1e6)
}

fn per_message(run: &Measurement, figure: f64) -> f64 {
    figure / run.arrived.max(1) as f64
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

fn lowest(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(f64::INFINITY, f64::min)
}

fn highest(figures: &[f64]) -> f64 {
    figures.iter().copied().fold(0.0, f64::max)
}
