//! The benchmark: the gateway beside mosquitto's bridge and beside a forwarder without logic, in one
//! run, by turns. `cargo bench --bench forward` runs all of it; README.md says what the figures mean.
//!
//! ```text
//!   fleet of firmware-sim -> the system, a process of its own -> sink -> tally
//! ```
//!
//! - [`options`] what was asked for; [`cases`] what is compared and what is promised; [`outage`] the case
//!   without an uplink
//! - [`measure`] one run of one system; [`process`] its figures in `/proc`; [`systems`] how each starts;
//!   [`machine`] what all depend on
//! - [`traffic`] what the fleet does; [`sink`] and [`tally`] receive
//! - [`floor`] the forwarder without logic; [`wire`] its codec and the sink's; [`report`] the tables

#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark reads clocks, opens sockets and starts processes; it is no part of the gateway"
)]

mod cases;
mod floor;
mod machine;
mod measure;
mod options;
mod outage;
mod process;
mod report;
#[allow(dead_code, reason = "the overload benchmark uses the rest")]
mod sink;
mod systems;
mod tally;
mod traffic;
#[allow(dead_code, reason = "the overload benchmark uses the rest")]
mod wire;

use std::process::ExitCode;

use clap::Parser;

use cases::{Case, Variant, cases};
use measure::Measurement;
use options::{CaseName, Options};
use report::Runs;
use systems::System;
use wire::Protocol;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("floor") {
        return be_the_floor();
    }
    let options = Options::parse().settled();
    if !options.bench {
        println!("This measures, it does not test: cargo bench --bench forward [-- --quick]");
        return ExitCode::SUCCESS;
    }
    print_machine(&options);
    let mut well = true;
    for case in cases(&options) {
        let runs = run(&case, &options);
        well &= report::print(&case, &runs);
    }
    if options.has_case(CaseName::Outage) && options.has_system(System::Tidegate) {
        well &= outage::run(&options);
    }
    if well {
        println!("\nNothing was lost or overtaken that was promised.");
        ExitCode::SUCCESS
    } else {
        println!("\nSome runs failed, or messages were lost or overtaken: see FAULT above.");
        ExitCode::FAILURE
    }
}

/// Runs all rounds of a case, the systems by turns, and then one run of each that counts system
/// calls. What failed once is not tried again.
fn run(case: &Case, options: &Options) -> Vec<Runs> {
    let mut all: Vec<Runs> = case.variants.iter().map(|_| Runs::default()).collect();
    for round in 1..=options.rounds {
        for (variant, runs) in case.variants.iter().zip(&mut all) {
            eprintln!("{:?}: round {round}: {}", case.name, variant.label);
            let measured = attempt(variant, runs, options, false);
            runs.rounds.extend(measured);
        }
    }
    for (variant, runs) in case.variants.iter().zip(&mut all) {
        eprintln!("{:?}: counting system calls: {}", case.name, variant.label);
        runs.counted = attempt(variant, runs, options, true);
    }
    all
}

fn attempt(
    variant: &Variant,
    runs: &mut Runs,
    options: &Options,
    count_syscalls: bool,
) -> Option<Measurement> {
    if runs.failure.is_some() {
        return None;
    }
    let measured = variant.plan(options, count_syscalls).run();
    measured
        .map_err(|error| runs.failure = Some(error.to_string()))
        .ok()
}

fn print_machine(options: &Options) {
    machine::print(&options.gateway);
    println!(
        "run         {} rounds, {} connections, window {}, {} bytes of payload, {} s flat out, {} s of light load",
        options.rounds,
        traffic::DEVICES,
        options.window,
        traffic::PAYLOAD_BYTES,
        options.flat_seconds,
        options.seconds,
    );
}

/// `floor LISTEN UPSTREAM PROTOCOL`: how [`systems`] starts this program as the floor.
fn be_the_floor() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(2).collect();
    let [listen, upstream, protocol] = arguments.as_slice() else {
        return ExitCode::FAILURE;
    };
    let protocol = match protocol.as_str() {
        "5" => Protocol::V5,
        _ => Protocol::V311,
    };
    let (Ok(listen), Ok(upstream)) = (listen.parse(), upstream.parse()) else {
        return ExitCode::FAILURE;
    };
    match floor::run(listen, upstream, protocol) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
