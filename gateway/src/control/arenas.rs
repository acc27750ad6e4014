//! One pool of memory for all threads. glibc's malloc gives each thread a pool of its own, up to eight for
//! each core; what is free in one is of no use to the others, and messages are made in one thread and
//! freed in another. Measured in a flood with the uplink away, 500 devices, a `memory_max` of 64 MiB:
//! resident beside it 35 to 50 MiB with two threads, 66 to 159 with eight, and 24 to 32 with one pool
//! whatever the threads. Threads wait for each other more often: flat out 0.43 system calls a message and
//! not 0.28, with CPU a message within 5 % (the benchmark's case `mqtt5`, two cores).
//!
//! malloc reads how many pools there are when the process begins, so the gateway begins again: the same
//! program, arguments and process id, before it has read or opened anything.

#![allow(
    clippy::disallowed_methods,
    reason = "a door: replaces this program by itself, once"
)]

use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What glibc reads. Other allocators do not know it, and nothing changes for them.
const ARENAS: &str = "MALLOC_ARENA_MAX";
/// Says that this was done: a secure start (file capabilities) may take the other away.
const BEGUN: &str = "TIDEGATE_ARENAS_SET";

/// Begins again with one pool, unless that was done or the operator has said how many. Comes back
/// without doing it when it need not, or cannot.
///
/// # Errors
/// The system does not run this program again: memory is used as it comes.
pub fn use_one() -> io::Result<()> {
    if env::var_os(ARENAS).is_some() || env::var_os(BEGUN).is_some() {
        return Ok(());
    }
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_default();
    let again = Command::new(env::current_exe()?)
        .arg0(name)
        .args(arguments)
        .env(ARENAS, "1")
        .env(BEGUN, "1")
        .exec();
    Err(again)
}
