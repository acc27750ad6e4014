//! The account for people: a table that fits in 80 columns.

use std::fmt;

use tidegate_device::Kind;

use super::{Account, FarEnd, KindAccount, Latency};

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head(f)?;
        self.devices(f)?;
        if self.alarm.far_end.is_some() {
            self.far_end(f)?;
            self.phases(f)?;
        }
        self.verdict(f)
    }
}

impl Account {
    fn head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let run = &self.run;
        let stopped = if run.stopped { ", stopped early" } else { "" };
        writeln!(
            f,
            "{} devices, MQTT {}, seed {}, {:.1} s{stopped}; {} messages/s; {} of memory each",
            grouped(u64::from(run.devices)),
            run.protocol,
            run.seed,
            run.seconds,
            grouped(run.sent_per_second as u64),
            kibibytes(run.memory_per_device_bytes),
        )?;
        writeln!(
            f,
            "connections: {} broken, {} refused",
            grouped(run.connections_broken),
            grouped(run.connections_refused)
        )?;
        writeln!(
            f,
            "\n{:<26}{:>16}{:>16}{:>16}",
            "", "alarms", "reports", "readings"
        )
    }

    fn devices(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.row(f, "made", |kind| kind.made)?;
        self.row(f, "  dropped, queue full", |kind| kind.dropped)?;
        self.row(f, "  superseded in the device", |kind| kind.superseded)?;
        self.row(f, "  left in its memory", |kind| kind.left)?;
        self.row(f, "  sent", |kind| kind.sent)?;
        self.row(f, "resent", |kind| kind.resent)?;
        self.row(f, "acknowledged", |kind| kind.acknowledged)?;
        self.row(f, "refused", |kind| kind.refused)?;
        self.row(f, "unanswered", |kind| kind.unanswered)
    }

    fn far_end(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "at the far end")?;
        self.far_row(f, "  arrived", |far| grouped(far.arrived))?;
        self.far_row(f, "  missing", |far| grouped(far.missing))?;
        self.far_row(f, "  duplicate", |far| grouped(far.duplicate))?;
        self.far_row(f, "  out of order", |far| grouped(far.out_of_order))?;
        self.far_row(f, "  final values missing", |far| {
            grouped(far.final_values_missing)
        })?;
        writeln!(f, "from due to arrival")?;
        self.far_row(f, "  p50", |far| time(far.latency.p50_us))?;
        self.far_row(f, "  p99", |far| time(far.latency.p99_us))?;
        self.far_row(f, "  p99.9", |far| time(far.latency.p999_us))?;
        self.far_row(f, "  max", |far| time(far.latency.max_us))
    }

    fn phases(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{:<26}{:>12}{:>12}{:>12}{:>12}",
            "alarms of each phase", "arrived", "p50", "p99", "max"
        )?;
        for phase in &self.phases {
            let Latency {
                p50_us,
                p99_us,
                max_us,
                ..
            } = phase.alarm_latency;
            writeln!(
                f,
                "  {:<24}{:>12}{:>12}{:>12}{:>12}",
                phase.kind,
                grouped(phase.alarms_arrived),
                time(p50_us),
                time(p99_us),
                time(max_us),
            )?;
        }
        Ok(())
    }

    fn verdict(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.alarms_lost {
            Some(lost) => write!(f, "\nalarms lost: {}", grouped(lost)),
            None => f.write_str("\nalarms lost: unknown; --watch URL counts at the far end"),
        }
    }

    fn row(
        &self,
        f: &mut fmt::Formatter<'_>,
        name: &str,
        value: impl Fn(&KindAccount) -> u64,
    ) -> fmt::Result {
        self.cells(f, name, |kind| grouped(value(kind)))
    }

    fn far_row(
        &self,
        f: &mut fmt::Formatter<'_>,
        name: &str,
        value: impl Fn(&FarEnd) -> String,
    ) -> fmt::Result {
        self.cells(f, name, |kind| {
            kind.far_end.as_ref().map_or_else(String::new, &value)
        })
    }

    fn cells(
        &self,
        f: &mut fmt::Formatter<'_>,
        name: &str,
        value: impl Fn(&KindAccount) -> String,
    ) -> fmt::Result {
        write!(f, "{name:<26}")?;
        for kind in Kind::ALL {
            write!(f, "{:>16}", value(self.of(kind)))?;
        }
        writeln!(f)
    }
}

/// 1234567 as 1,234,567.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn time(micros: u64) -> String {
    match micros {
        0..10_000 => format!("{micros} us"),
        10_000..10_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.1} s", micros as f64 / 1e6),
    }
}

fn kibibytes(bytes: u64) -> String {
    format!("{:.1} KiB", bytes as f64 / 1_024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_numbers_readable() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (12_345_678, "12,345,678"),
        ] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(time(9_999), "9999 us");
        assert_eq!(time(60_200_000), "60.2 s");
    }
}
