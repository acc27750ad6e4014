//! The door that asks the path how it is, for everybody who wants to know. However many ask, the
//! path is asked at most a hundred times a second and by one at a time; whoever waited gets an
//! answer that was made after it asked. A path that does not answer in a second is not alive.

#![allow(
    clippy::disallowed_methods,
    reason = "waits for the path's answer, for a bounded time"
)]

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, oneshot, watch};
use tokio::time::{sleep_until, timeout};

use crate::clock::Clock;
use crate::traffic::lanes::Phase;
use crate::traffic::message::{Tick, WallTime};
use crate::traffic::status::{Ask, Status};

/// The path's turns take milliseconds at most; one that needs a second helps nobody any more.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Answers take the path microseconds; at this pace the most eager client costs it no thousandth.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// Who asks the path. Shared by all who serve.
#[derive(Debug)]
pub struct Question {
    ask: Ask,
    clock: Clock,
    phase: watch::Receiver<Phase>,
    last: Mutex<Option<Told>>,
    answer_max: Duration,
}

#[derive(Clone, Debug)]
struct Told {
    asked: Tick,
    status: Arc<Status>,
}

/// The moment of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Since the start.
    pub uptime: Duration,
    /// By the wall clock.
    pub wall: WallTime,
    /// Whether the gateway was asked to end.
    pub stopping: bool,
}

impl Question {
    /// Asks over this channel.
    #[must_use]
    pub fn new(ask: Ask, clock: Clock, phase: watch::Receiver<Phase>) -> Self {
        Self {
            ask,
            clock,
            phase,
            last: Mutex::default(),
            answer_max: ANSWER_MAX,
        }
    }

    /// Asks, and waits a second at most; `None`: the path does not answer.
    pub async fn ask(&self) -> Option<Arc<Status>> {
        let began = self.clock.now();
        timeout(self.answer_max, self.ask_in_turn(began))
            .await
            .ok()?
    }

    /// What else is known, now.
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment {
            uptime: self.clock.now().since(Tick::START),
            wall: self.clock.wall(),
            stopping: *self.phase.borrow() >= Phase::Drain,
        }
    }

    async fn ask_in_turn(&self, began: Tick) -> Option<Arc<Status>> {
        let mut last = self.last.lock().await;
        if let Some(told) = &*last {
            if told.asked >= began {
                return Some(Arc::clone(&told.status));
            }
            let next = self.clock.instant(told.asked.after(ASK_EVERY));
            sleep_until(next.into()).await;
        }
        let asked = self.clock.now();
        let (tell, told) = oneshot::channel();
        self.ask.send(tell).await.ok()?;
        let status = Arc::new(told.await.ok()?);
        *last = Some(Told {
            asked,
            status: Arc::clone(&status),
        });
        Some(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::status::{channel, sample};

    const SOON: Duration = Duration::from_millis(200);

    fn question(ask: Ask) -> Arc<Question> {
        let (_, phase) = watch::channel(Phase::Run);
        let mut question = Question::new(ask, Clock::start(), phase);
        question.answer_max = SOON;
        Arc::new(question)
    }

    #[tokio::test]
    async fn is_a_path_that_is_gone_or_stuck_seen() {
        let (ask, asked) = channel();
        let asks = question(ask);
        for _ in 0..10 {
            assert!(asks.ask().await.is_none());
        }
        drop(asked);
        assert!(asks.ask().await.is_none());
    }

    #[tokio::test]
    async fn does_an_eager_client_ask_the_path_faster_than_it_may() {
        let (ask, mut asked) = channel();
        let asks = question(ask);
        tokio::spawn(async move {
            while let Some(tell) = asked.recv().await {
                let _ = tell.send(sample());
            }
        });
        let began = asks.clock.now();
        for _ in 0..11 {
            assert!(asks.ask().await.is_some());
        }
        assert!(asks.clock.now().since(began) >= ASK_EVERY * 10);
    }

    #[tokio::test]
    async fn do_a_thousand_who_ask_cost_the_path_little() {
        let (ask, mut asked) = channel();
        let mut asks = question(ask);
        Arc::get_mut(&mut asks).unwrap().answer_max = Duration::from_secs(20);
        let path = tokio::spawn(async move {
            let mut times = 0_u64;
            while let Some(tell) = asked.recv().await {
                times += 1;
                let _ = tell.send(Status {
                    senders: times,
                    ..sample()
                });
            }
            times
        });
        let first = asks.ask().await.unwrap();
        let askers: Vec<_> = (0..1_000)
            .map(|_| {
                let asks = Arc::clone(&asks);
                tokio::spawn(async move { asks.ask().await.unwrap() })
            })
            .collect();
        for asker in askers {
            // No answer from before the question.
            assert!(asker.await.unwrap().senders > first.senders);
        }
        drop(asks);
        assert!(path.await.unwrap() < 100);
    }
}
