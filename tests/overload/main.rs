//! The overload benchmark: what happens to alarms and to the latest values when there is far more than
//! the uplink takes. The gateway beside mosquitto's bridge, and beside two of them, by turns.
//! `cargo bench --bench overload` runs all of it; README.md says what the figures mean.
//!
//! ```text
//!   fleet of firmware-sim -> the system, a process of its own -> (slow link) -> slow sink -> far end
//! ```
//!
//! - [`options`] what was asked for; [`cases`] what is played and what is promised
//! - [`run`] one system in one case; [`systems`] how each starts; [`link`] a slow link in namespaces
//! - [`beside`] has devices that publish beside the fleet; [`backlog`] fills the spool first
//! - [`gauges`] looks at the system once a second; [`figures`] what all came to; [`report`] the tables
//! - from the benchmark of forwarding: `machine`, `process`, `sink`, `wire`

#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark reads clocks, opens sockets and starts processes; it is no part of the gateway"
)]

mod backlog;
mod beside;
mod cases;
mod figures;
mod gauges;
mod link;
mod options;
mod report;
mod run;
mod systems;

#[path = "../bench/machine.rs"]
mod machine;
#[allow(dead_code, reason = "the benchmark of forwarding uses the rest")]
#[path = "../bench/process.rs"]
mod process;
#[path = "../bench/sink.rs"]
mod sink;
#[allow(dead_code, reason = "the benchmark of forwarding uses the rest")]
#[path = "../bench/wire.rs"]
mod wire;

use std::process::ExitCode;

use clap::Parser;

use figures::Figures;
use options::Options;
use systems::System;

/// What became of one system in one case.
struct Ran {
    system: System,
    figures: Result<Figures, String>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if !options.bench {
        println!("This measures, it does not test: cargo bench --bench overload [-- --quick]");
        return ExitCode::SUCCESS;
    }
    link::remove_leftovers();
    machine::print(&options.gateway);
    let mut well = true;
    let mut growth = Vec::new();
    for case in cases::cases(&options) {
        let systems = options.systems_of(case.name).into_iter();
        let ran: Vec<_> = systems
            .filter(|system| case.suits(*system))
            .map(|system| {
                eprintln!("{}: {}", case.label, system.name());
                let figures = run::run(&case, system, &options);
                let figures = figures.map_err(|error| error.to_string());
                Ran { system, figures }
            })
            .collect();
        well &= report::print(&case, &ran);
        growth.extend(report::cpu_by_topics(&case, &ran));
    }
    report::print_growth(&growth);
    if well {
        println!("\nNo alarm was lost, and no final value that was promised.");
        ExitCode::SUCCESS
    } else {
        println!("\nSomething was lost that was promised, or did not run: see FAULT above.");
        ExitCode::FAILURE
    }
}
