//! How far a command has come, on standard error: at a terminal a line that is written over, elsewhere a line
//! every ten seconds.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use super::super::complain;
use crate::clock::Clock;
use crate::traffic::message::Tick;

/// What is over before needs no word.
const FIRST_AFTER: Duration = Duration::from_secs(1);
/// A terminal is written to so often.
const TERMINAL_EVERY: Duration = Duration::from_millis(200);
/// A file or a pipe so often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// One command's progress.
pub(super) struct Progress {
    clock: Clock,
    terminal: bool,
    next: Tick,
    told: bool,
}

impl Progress {
    pub(super) fn start() -> Self {
        let clock = Clock::start();
        let terminal = stderr().is_terminal();
        let first = if terminal { FIRST_AFTER } else { LINE_EVERY };
        Self {
            next: clock.now().after(first),
            clock,
            terminal,
            told: false,
        }
    }

    /// Tells how far it is, when it is time.
    pub(super) fn tell(&mut self, how_far: impl FnOnce() -> String) {
        let now = self.clock.now();
        if now < self.next {
            return;
        }
        self.told = true;
        if self.terminal {
            self.next = now.after(TERMINAL_EVERY);
            complain(format_args!("\r\x1b[K{}", how_far()));
        } else {
            self.next = now.after(LINE_EVERY);
            complain(format_args!("{}\n", how_far()));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal && self.told {
            complain("\r\x1b[K");
        }
    }
}
