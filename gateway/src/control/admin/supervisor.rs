//! The door to the service manager (systemd's notify protocol, sd_notify(3)): says when the gateway
//! has started, how it is, that it is alive, and that it stops. Its watchdog is fed only while the
//! path answers: a gateway that is stuck is started again.

#![allow(
    clippy::disallowed_methods,
    reason = "waits between two words to the service manager, and finds out where it listens"
)]

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::health::{Answer, Health, judge};
use super::question::Question;
use crate::traffic::lanes::Phase;
use crate::traffic::status::Status;

/// How often the text of `systemctl status` is made anew.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Until the path answers for the first time, so that what waits for the gateway waits no longer.
const START_EVERY: Duration = Duration::from_millis(100);

/// Tells the service manager until the gateway stops. Returns at once where none asks for it.
pub async fn run(question: Arc<Question>, phase: watch::Receiver<Phase>) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let every = every(sd_notify::watchdog_enabled());
    tell(question, phase, every, |words| {
        // It may block while the service manager is busy. One that does not listen is no fault.
        drop(spawn_blocking(move || {
            let words: Vec<_> = words.iter().map(|word| NotifyState::Custom(word)).collect();
            sd_notify::notify(&words)
        }));
    })
    .await;
}

/// A watchdog is fed at twice its pace, as sd_watchdog_enabled(3) recommends.
fn every(watchdog: Option<Duration>) -> Duration {
    watchdog.map_or(TELL_EVERY, |interval| TELL_EVERY.min(interval / 2))
}

async fn tell(
    question: Arc<Question>,
    mut phase: watch::Receiver<Phase>,
    every: Duration,
    mut send: impl FnMut(Vec<String>),
) {
    let (mut started, mut stopping) = (false, false);
    loop {
        let mut words = Vec::new();
        let now = *phase.borrow_and_update();
        if now >= Phase::Stop {
            return;
        }
        if now >= Phase::Drain && !stopping {
            stopping = true;
            words.push(NotifyState::Stopping.to_string());
        }
        let answer = question.ask().await;
        if answer.is_some() {
            if !started {
                started = true;
                words.push(NotifyState::Ready.to_string());
            }
            words.push(NotifyState::Watchdog.to_string());
        }
        let moment = question.moment();
        let status = answer.as_deref();
        let asked = status.map_or(Answer::Silent, Answer::Status);
        let line = line(&judge(asked, moment.wall, moment.stopping), status);
        words.push(NotifyState::Status(&line).to_string());
        send(words);
        let wait = if started { every } else { START_EVERY };
        if let Ok(Err(_)) = timeout(wait, phase.changed()).await {
            return;
        }
    }
}

/// One line for `systemctl status`.
fn line(health: &Health, status: Option<&Status>) -> String {
    let ready = match health.reasons.first() {
        None => "ready".to_owned(),
        Some(reason) => format!("NOT READY: {}", reason.what),
    };
    let Some(status) = status else { return ready };
    let uplink = if status.is_uplink_up() { "up" } else { "away" };
    let sum = |count: fn(&_) -> u64| status.classes.iter().map(count).sum::<u64>();
    format!(
        "{ready}; uplink {uplink}; {} messages in memory, {} on disk",
        sum(|class| class.in_memory),
        sum(|class| class.on_disk)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::traffic::status::{channel, sample};
    use tokio::sync::mpsc;

    const DEADLINE: Duration = Duration::from_secs(30);

    /// Tells a service manager that the test plays; gives what it hears.
    fn told(answers: usize) -> (watch::Sender<Phase>, mpsc::UnboundedReceiver<Vec<String>>) {
        let (ask, mut asked) = channel();
        tokio::spawn(async move {
            for _ in 0..answers {
                let tell = asked.recv().await.unwrap();
                let _ = tell.send(sample());
            }
            std::future::pending::<()>().await;
        });
        let (phase, watched) = watch::channel(Phase::Run);
        let question = Question::new(ask, Clock::start(), watched.clone());
        let (hear, heard) = mpsc::unbounded_channel();
        let every = Duration::from_millis(5);
        tokio::spawn(tell(Arc::new(question), watched, every, move |words| {
            let _ = hear.send(words);
        }));
        (phase, heard)
    }

    #[tokio::test]
    async fn does_it_say_that_it_started_lives_and_stops() {
        let (phase, mut heard) = told(usize::MAX);
        let status = "STATUS=ready; uplink up; 100 messages in memory, 14 on disk";
        let first = timeout(DEADLINE, heard.recv()).await.unwrap().unwrap();
        assert_eq!(first, ["READY=1", "WATCHDOG=1", status]);
        let next = timeout(DEADLINE, heard.recv()).await.unwrap().unwrap();
        assert_eq!(next, ["WATCHDOG=1", status]);
        phase.send_replace(Phase::Drain);
        let stops = async {
            while heard.recv().await.unwrap()[0] != "STOPPING=1" {}
            phase.send_replace(Phase::Stop);
            while heard.recv().await.is_some() {}
        };
        timeout(DEADLINE, stops).await.unwrap();
    }

    #[tokio::test]
    async fn is_the_watchdog_of_a_stuck_path_left_hungry() {
        let (_phase, mut heard) = told(1);
        let first = timeout(DEADLINE, heard.recv()).await.unwrap().unwrap();
        assert!(first.contains(&"WATCHDOG=1".to_owned()));
        let next = timeout(DEADLINE, heard.recv()).await.unwrap().unwrap();
        assert_eq!(next, ["STATUS=NOT READY: the gateway does not answer"]);
    }

    #[test]
    fn how_often_is_the_watchdog_fed() {
        assert_eq!(every(None), TELL_EVERY);
        assert_eq!(every(Some(Duration::from_secs(6))), Duration::from_secs(3));
        assert_eq!(every(Some(Duration::from_secs(60))), TELL_EVERY);
    }
}
