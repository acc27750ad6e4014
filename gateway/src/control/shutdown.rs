//! Signals: the first SIGTERM or SIGINT asks for a drain, the second for an end at once. Comes in:
//! signals; goes out: a number that everybody can watch. It ends nothing itself.

#![allow(
    clippy::disallowed_methods,
    reason = "the signals' door: a task of its own waits for them"
)]

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How often the gateway was asked to end. Copies see the same.
#[derive(Clone, Debug)]
pub struct Shutdown {
    asked: watch::Receiver<u32>,
}

/// Asks for the end without a signal.
#[derive(Debug)]
pub struct Asker {
    asked: watch::Sender<u32>,
}

impl Shutdown {
    /// Listens to SIGTERM and SIGINT from now on. Needs a runtime.
    ///
    /// # Errors
    /// The system refuses to tell of signals.
    pub fn on_signals() -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (asker, shutdown) = Self::by_hand();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                asker.ask();
            }
        });
        Ok(shutdown)
    }

    /// A shutdown that is asked for by hand: for tests and for parts that run without signals.
    #[must_use]
    pub fn by_hand() -> (Asker, Self) {
        let (sender, asked) = watch::channel(0);
        (Asker { asked: sender }, Self { asked })
    }

    /// Waits until the gateway is asked to end; at once when it was already.
    pub async fn first(&self) {
        self.times(1).await;
    }

    /// Waits until it is asked again, which means: at once.
    pub async fn second(&self) {
        self.times(2).await;
    }

    /// Whether the gateway was asked to end.
    #[must_use]
    pub fn asked(&self) -> bool {
        *self.asked.borrow() > 0
    }

    /// An asker that is gone never asks.
    async fn times(&self, times: u32) {
        let mut asked = self.asked.clone();
        if asked.wait_for(|asked| *asked >= times).await.is_err() {
            std::future::pending().await
        }
    }
}

impl Asker {
    /// Asks once more.
    pub fn ask(&self) {
        self.asked
            .send_modify(|asked| *asked = asked.saturating_add(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn done(future: impl Future<Output = ()>) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        pin!(future).poll(&mut context) == Poll::Ready(())
    }

    #[test]
    fn does_the_second_wish_end_what_the_first_only_drains() {
        let (asker, shutdown) = Shutdown::by_hand();
        let copy = shutdown.clone();
        assert!(!done(shutdown.first()) && !copy.asked());
        asker.ask();
        assert!(done(shutdown.first()) && done(copy.first()) && copy.asked());
        assert!(!done(copy.second()));
        asker.ask();
        assert!(done(copy.second()));
    }

    #[test]
    fn does_an_asker_that_is_gone_end_nothing() {
        let (asker, shutdown) = Shutdown::by_hand();
        drop(asker);
        assert!(!done(shutdown.first()));
    }
}
