//! The door to what the system knows of this process: processor time, memory, start. Files below
//! `/proc`, which no disk stands behind. What cannot be read is 0: it is shown, nothing relies on it.

#![allow(clippy::disallowed_methods, reason = "the door to /proc")]

use std::fs;

use serde::{Deserialize, Serialize};

/// Ticks a second in `/proc/*/stat`: USER_HZ, which Linux fixes for programs on every platform we
/// build for, whatever the kernel's own rate.
const USER_HZ: f64 = 100.0;

/// What this process takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// Processor time of all its threads, user and system, in seconds.
    pub cpu_seconds: f64,
    /// Memory that it has in RAM, in bytes.
    pub resident_bytes: u64,
    /// When it started, in seconds since 1970, by the wall clock as it is set now.
    pub start_seconds: f64,
}

/// Reads it now.
#[must_use]
pub fn read() -> Process {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let stat = text("/proc/self/stat");
    let boot = labelled(&text("/proc/stat"), "btime");
    let start = ticks(&stat, START).map(|ticks| boot.unwrap_or_default() as f64 + ticks / USER_HZ);
    let cpu = |field| ticks(&stat, field).unwrap_or_default();
    Process {
        cpu_seconds: (cpu(USER) + cpu(SYSTEM)) / USER_HZ,
        resident_bytes: labelled(&text("/proc/self/status"), "VmRSS:").unwrap_or_default() << 10,
        start_seconds: start.filter(|_| boot.is_some()).unwrap_or_default(),
    }
}

/// Places in `/proc/self/stat` behind the name's closing parenthesis (proc(5): utime is field 14).
const USER: usize = 14 - 3;
const SYSTEM: usize = 15 - 3;
const START: usize = 22 - 3;

/// A number of `/proc/self/stat`. The program's name may hold blanks and parentheses itself.
fn ticks(stat: &str, field: usize) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(field)?.parse().ok()
}

/// The number behind a label at the start of a line.
fn labelled(text: &str, label: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn does_a_name_with_parentheses_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 1 1 0 -1 0 0 0 0 0 250 50 0 0 20 0 9 0 777 1 2";
        assert_eq!(ticks(stat, USER), Some(250.0));
        assert_eq!(ticks(stat, SYSTEM), Some(50.0));
        assert_eq!(ticks(stat, START), Some(777.0));
        assert_eq!(ticks("", USER), None);
        assert_eq!(
            labelled("VmSize: 9 kB\nVmRSS:\t 12 kB\n", "VmRSS:"),
            Some(12)
        );
    }

    #[test]
    fn is_this_process_as_it_should_be() {
        let mut work = 0_u64;
        while read().cpu_seconds == 0.0 {
            work = (0..1_000_000).fold(work, |sum: u64, n| std::hint::black_box(sum ^ n));
        }
        let process = read();
        assert!((1 << 20..1 << 33).contains(&process.resident_bytes));
        let now = Clock::start().wall().micros() as f64 / 1e6;
        assert!((0.0..7_200.0).contains(&(now - process.start_seconds)));
    }
}
