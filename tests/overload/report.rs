//! The figures as plain text: a table for each case, a column for each system, and each promise beside
//! what was measured. Nothing here measures.

use crate::Ran;
use crate::cases::{Case, Target};
use crate::figures::{Figures, Latency, ms};
use crate::options::CaseName;
use crate::systems::System;

/// Devices that are later than this (p99) say more about the machine than about the system.
const LATE_MAX_MS: f64 = 5.0;

/// A row of the table: what it is, and what a run says to it.
type Row = (&'static str, fn(&Figures) -> Option<String>);

const ROWS: [Row; 28] = [
    ("alarms due", |f| Some(f.alarms.due.to_string())),
    ("  not arrived", |f| Some(f.alarms.lost().to_string())),
    ("  ms from due: p50", |f| of_due(&f.alarms, 0.5)),
    ("    p99", |f| of_due(&f.alarms, 0.99)),
    ("    p99.9", |f| of_due(&f.alarms, 0.999)),
    ("    max", |f| of_due(&f.alarms, 1.0)),
    ("readings due", |f| Some(f.readings.due.to_string())),
    ("  superseded in the device", |f| {
        Some(f.superseded_in_devices.to_string())
    }),
    ("  arrived", |f| Some(f.readings.arrived.len().to_string())),
    ("  age at arrival, ms: p50", |f| {
        f.readings.of_arrived_ms(0.5).map(number)
    }),
    ("    p99", |f| f.readings.of_arrived_ms(0.99).map(number)),
    ("final values missing", |f| {
        Some(format!("{} of {}", f.final_values_missing?, f.topics))
    }),
    ("device waited for a reading, ms: p50", |f| answered(f, 0.5)),
    ("    p99", |f| answered(f, 0.99)),
    ("    longest", |f| {
        answered(f, 1.0).map(|_| number(f.held_back_ms()))
    }),
    ("CPU of a message sent, us", |f| Some(number(f.cpu_us))),
    ("peak of memory, MiB", |f| Some(number(f.peak_mib))),
    ("  growth while it ran, MiB", |f| {
        f.memory_growth_mib.map(number)
    }),
    ("changes of pressure", |f| {
        f.pressure_changes.map(|count| count.to_string())
    }),
    ("  once it is steady", |f| {
        f.pressure_changes_steady.map(|count| count.to_string())
    }),
    ("not accounted for", |f| f.unaccounted.map(number)),
    ("connections that ended", |f| Some(f.reconnects.to_string())),
    ("link used usefully, %", |f| {
        Some(number(f.link.as_ref()?.useful_percent))
    }),
    ("  segments sent again", |f| {
        Some(f.link.as_ref()?.retransmissions.to_string())
    }),
    ("readings of 1 MiB arrived", |f| {
        let large = f.large.as_ref()?;
        Some(format!("{} of {}", large.arrived, large.sent))
    }),
    ("backlog arrived", |f| {
        let backlog = f.backlog.as_ref()?;
        Some(format!("{} of {}", backlog.arrived, backlog.spooled))
    }),
    ("  the whole takes, s", |f| whole_takes(f).map(number)),
    ("flood, messages sent", |f| {
        f.flood_sent.map(|count| count.to_string())
    }),
];

/// Prints a case; false when something was lost that was promised, or did not run.
pub(crate) fn print(case: &Case, ran: &[Ran]) -> bool {
    let phases: Vec<_> = case.scenario.phases().take(2).map(|p| p.name).collect();
    println!(
        "\n== {} ==\n{} devices, {:.0} s ({})\n",
        case.label,
        case.devices,
        case.scenario.length().as_secs_f64(),
        phases.join(", "),
    );
    print_table(ran);
    println!();
    let gateway = ran.iter().find(|ran| ran.system == System::Tidegate);
    if let Some(Ok(figures)) = gateway.map(|ran| &ran.figures) {
        for target in &case.targets {
            print_target(target, figures);
        }
        print_lateness(figures);
    }
    let mut well = true;
    for ran in ran {
        well &= print_faults(case, ran);
    }
    well
}

fn print_table(ran: &[Ran]) {
    print!("{:<38}", "");
    for ran in ran {
        print!("{:>18}", ran.system.name());
    }
    println!();
    let figures: Vec<_> = ran.iter().map(|ran| ran.figures.as_ref().ok()).collect();
    for (what, say) in ROWS {
        let said: Vec<_> = figures
            .iter()
            .map(|figures| figures.and_then(say))
            .collect();
        if said.iter().all(Option::is_none) {
            continue;
        }
        print!("{what:<38}");
        for said in said {
            print!("{:>18}", said.as_deref().unwrap_or("-"));
        }
        println!();
    }
}

fn print_target(target: &Target, figures: &Figures) {
    let verdict = match (target.figure)(figures) {
        None => "not measured".to_owned(),
        Some(figure) if figure <= target.at_most => format!("{}  met", number(figure)),
        Some(figure) => format!("{}  NOT MET", number(figure)),
    };
    println!(
        "target: {}: at most {}: {verdict}",
        target.what, target.at_most
    );
}

/// Says how late the fleet was itself.
fn print_lateness(figures: &Figures) {
    let at = |quantile| ms(figures.late.value_at_quantile(quantile));
    println!(
        "note: {:.0} messages/s were sent; the fleet itself was late by {} ms (p50), {} (p99), {} (max)",
        figures.sent_per_second,
        number(at(0.5)),
        number(at(0.99)),
        number(ms(figures.late.max())),
    );
    if at(0.99) > LATE_MAX_MS {
        println!("note: this machine was too busy to judge latency");
    }
}

/// Only of what was promised: a bridge promises no final values, and alarms only within its queue.
fn print_faults(case: &Case, ran: &Ran) -> bool {
    let name = ran.system.name();
    let figures = match &ran.figures {
        Ok(figures) => figures,
        Err(error) => {
            println!("FAULT: {name}: did not run: {error}");
            return false;
        }
    };
    let lost = figures.alarms.lost();
    let missing = figures.final_values_missing.unwrap_or(0);
    let kind = match ran.system {
        System::Tidegate => "FAULT",
        _ => "note",
    };
    if lost > 0 {
        println!(
            "{kind}: {name}: {lost} of {} alarms did not arrive in time; {} of them were acknowledged",
            figures.alarms.due, figures.alarms.acknowledged_lost
        );
    }
    if missing > 0 && case.readings_are_latest() {
        println!(
            "{kind}: {name}: the final values of {missing} of {} topics did not arrive",
            figures.topics
        );
    }
    ran.system != System::Tidegate || (lost == 0 && missing == 0)
}

/// Topics, and the gateway's CPU of a message, where this is what the case asks.
pub(crate) fn cpu_by_topics(case: &Case, ran: &[Ran]) -> Option<(u64, f64)> {
    let gateway = ran.iter().find(|ran| ran.system == System::Tidegate)?;
    let figures = gateway.figures.as_ref().ok()?;
    (case.name == CaseName::Topics).then_some((figures.topics, figures.cpu_us))
}

/// How the CPU of a message grows with the topics.
pub(crate) fn print_growth(growth: &[(u64, f64)]) {
    let (Some((_, least)), Some((topics, most))) = (growth.first(), growth.last()) else {
        return;
    };
    println!("\n== CPU of a message, by topics ==\n");
    for (topics, cpu_us) in growth {
        println!("{topics:>10} topics {:>10} us", number(*cpu_us));
    }
    let times = most / least;
    let verdict = if times <= 3.0 { "met" } else { "NOT MET" };
    println!(
        "target: {topics} topics cost at most 3 times what the fewest do: {times:.2}  {verdict}"
    );
}

fn of_due(latency: &Latency, quantile: f64) -> Option<String> {
    latency.of_due_ms(quantile).map(number)
}

fn answered(figures: &Figures, quantile: f64) -> Option<String> {
    let answered = &figures.answered;
    (!answered.is_empty()).then(|| number(ms(answered.value_at_quantile(quantile))))
}

/// By its own rate so far; what is drained has taken what it took.
fn whole_takes(figures: &Figures) -> Option<f64> {
    let backlog = figures.backlog.as_ref()?;
    (backlog.arrived > 0)
        .then(|| backlog.took.as_secs_f64() * backlog.spooled as f64 / backlog.arrived as f64)
}

/// As many digits as mean something.
fn number(number: f64) -> String {
    match number {
        number if number.is_infinite() => "never".to_owned(),
        number if number == 0.0 || number >= 100.0 => format!("{number:.0}"),
        number if number.abs() >= 10.0 => format!("{number:.1}"),
        number => format!("{number:.2}"),
    }
}
