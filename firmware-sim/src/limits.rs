//! The door to what the system allows this process, and what it takes: file descriptors, memory.
#![allow(clippy::disallowed_methods, reason = "reads /proc/self/statm")]

use std::fmt;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors beside the devices': standard streams, the event loop, the watcher, the probe.
const OTHER_FILES: u64 = 32;

/// The system cannot hold so many devices. The operator's part: fewer, or a higher limit.
#[derive(Debug, PartialEq, Eq)]
pub struct TooFewFiles {
    /// What was asked for.
    pub devices: u32,
    /// What this process may have at most.
    pub files_max: u64,
}

impl fmt::Display for TooFewFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { devices, files_max } = self;
        let possible = files_max.saturating_sub(OTHER_FILES);
        write!(
            f,
            "{devices} devices need {} file descriptors, and the system allows this process {files_max}: \
             use --devices {possible} or fewer, or raise the hard limit (`ulimit -Hn`, LimitNOFILE)",
            u64::from(*devices) + OTHER_FILES
        )
    }
}

/// Makes room for so many connections: raises the soft limit as far as the hard one allows.
///
/// # Errors
/// When the hard limit is too low.
pub fn make_room_for(devices: u32) -> Result<(), TooFewFiles> {
    let wanted = u64::from(devices) + OTHER_FILES;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= wanted);
    let too_few = |limit: Option<u64>| TooFewFiles {
        devices,
        files_max: limit.unwrap_or(u64::MAX),
    };
    if enough(current) {
        return Ok(());
    }
    if !enough(maximum) {
        return Err(too_few(maximum));
    }
    let raised = Rlimit {
        current: Some(wanted),
        maximum,
    };
    setrlimit(Resource::Nofile, raised).map_err(|_| too_few(current))
}

/// Bytes of memory that the process has now; 0 where the system does not say.
#[must_use]
pub fn memory_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0u64) * rustix::param::page_size() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_fleet_that_no_system_holds_refused_with_what_to_do() {
        let error = make_room_for(u32::MAX).unwrap_err().to_string();
        assert!(
            error.contains("--devices") && error.contains("ulimit"),
            "{error}"
        );
        assert_eq!(make_room_for(1), Ok(()));
    }

    #[test]
    fn is_the_memory_known() {
        assert!(memory_bytes() > 100_000);
    }
}
