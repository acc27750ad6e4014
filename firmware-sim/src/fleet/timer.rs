//! One timer for all devices, to a tenth of a millisecond: a thread that sleeps and wakes. The runtime's
//! own timer ticks each millisecond, and a device that wakes so late is later than most gateways answer:
//! its lateness would count as theirs. In come the times at which devices want to go on, out go their
//! wake-ups. A door.
#![allow(
    clippy::disallowed_methods,
    reason = "the timer's own thread sleeps, and nobody waits for it"
)]

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread::{Builder, sleep};
use std::time::Duration;

use tidegate_device::Tick;

use crate::clock::Clock;

/// From one wake-up to the next: what is due in between goes together, or a fleet of thousands would
/// wake for each message.
const BETWEEN: Duration = Duration::from_micros(100);

/// A device that waits, by the time and its number: none waits twice.
type Key = (Tick, u32);

/// The timer; its thread ends with it.
#[derive(Debug)]
pub(super) struct Timer {
    clock: Clock,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Somebody is due before all others, or it ends.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    devices: BTreeMap<Key, Waker>,
    ended: bool,
}

impl Timer {
    /// A timer that counts as this clock does.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(clock: Clock) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let timer = Self {
            clock,
            shared: Arc::clone(&shared),
        };
        let thread = Builder::new().name("fleet-timer".to_owned());
        thread.spawn(move || shared.run(clock))?;
        Ok(timer)
    }

    /// Waits until a time, for the device with this number.
    pub(super) async fn wait(&self, until: Tick, index: u32) {
        let key = (until, index);
        let _place = Place(self, key);
        poll_fn(|context| {
            if self.clock.now() >= until {
                return Poll::Ready(());
            }
            self.shared.add(key, context.waker());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, key: Key, waker: &Waker) {
        let mut waiting = self.lock();
        waiting.devices.insert(key, waker.clone());
        if waiting.devices.first_key_value().map(|(first, _)| *first) == Some(key) {
            self.changed.notify_one();
        }
    }

    /// Wakes whoever is due, until it is ended.
    fn run(&self, clock: Clock) {
        let mut waiting = self.lock();
        while !waiting.ended {
            let now = clock.now();
            let due = waiting.take_due(now);
            if !due.is_empty() {
                drop(waiting);
                due.into_values().for_each(Waker::wake);
                sleep(BETWEEN);
                waiting = self.lock();
                continue;
            }
            let first = waiting.devices.keys().next();
            // Without anybody who waits an hour is as good as for ever.
            let wait = first.map_or(Duration::from_secs(3_600), |(tick, _)| tick.since(now));
            let woken = self.changed.wait_timeout(waiting, wait);
            (waiting, _) = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Waiting {
    fn take_due(&mut self, now: Tick) -> BTreeMap<Key, Waker> {
        let later = (now.after(Duration::from_micros(1)), 0);
        let later = self.devices.split_off(&later);
        std::mem::replace(&mut self.devices, later)
    }
}

/// A place among those who wait, left when the wait ends in whatever way.
struct Place<'t>(&'t Timer, Key);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.shared.lock().devices.remove(&self.1);
    }
}
