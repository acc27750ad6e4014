//! The door to a broker that the site already has. In comes what the broker brings on two
//! persistent sessions, each with a task of its own; out go classified messages in the lanes, and
//! an acknowledgement for each once the relay has answered. A topic belongs to the urgent connection
//! when a rule for a guaranteed class can reach it, else to the other; the other's copy is
//! acknowledged and dropped, uncounted.
//!
//! It never acknowledges what was not answered, and keeps nothing across a broken connection: the
//! broker has everything that was not acknowledged, and brings it again.

#![allow(
    clippy::disallowed_methods,
    reason = "a door: one task for each connection to a broker, with its time-outs"
)]

mod connection;
mod intake;
mod link;
mod outbox;
mod properties;
mod receipts;
mod remote;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use self::connection::Connection;
use self::intake::Share;
use super::SourceSettings;
use crate::clock::Clock;
use crate::traffic::classify::Rules;
use crate::traffic::lanes::{Lanes, Phase};

/// Messages of one connection that the relay has not answered, before reading pauses. Four times
/// the Receive Maximum that we announce in MQTT 5, since brokers overshoot it; in MQTT 3.1.1, where
/// only the broker's own window binds, this is the bound.
pub const UNANSWERED_MAX: usize = 1024;
/// Bytes of one connection that wait for room in the lanes, before reading pauses; one read's worth
/// of packets may come on top.
pub const WAITING_BYTES_MAX: u64 = 1024 * 1024;
/// The longest wait between two tries to connect: the broker is on the site, so it is not harmed.
pub const RETRY_MAX: Duration = Duration::from_secs(30);

/// Keeps both connections to one broker until [`Phase::Stop`] or until the relay is gone. What goes
/// wrong is said in the log and tried again for ever. Cancel safe: dropping it closes both sockets,
/// and the broker keeps what was not acknowledged.
///
/// # Panics
/// A connection's task did: a defect, with which the source cannot go on.
pub async fn run(
    settings: Arc<SourceSettings>,
    rules: Arc<Rules>,
    lanes: Lanes,
    clock: Clock,
    phase: watch::Receiver<Phase>,
) {
    let Some(settings) = without_shared_filters(settings) else {
        return;
    };
    let mut both = JoinSet::new();
    for share in Share::BOTH {
        let (settings, rules) = (Arc::clone(&settings), Arc::clone(&rules));
        let connection =
            Connection::open(settings, share, rules, lanes.clone(), clock, phase.clone());
        both.spawn(async {
            if let Some(connection) = connection.await {
                connection.run().await;
            }
        });
    }
    end(both, &settings.name).await;
}

/// Waits for both. A panic of one goes on in the caller, who ends the run: with half of its
/// connections a source would look well and bring half of its topics.
async fn end(mut both: JoinSet<()>, name: &str) {
    while let Some(ended) = both.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            tracing::error!(
                "{name}: a connection's task failed, so the gateway ends; please report this: {error}"
            );
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

/// A shared subscription gives each message to one of our two connections only, and it may be the
/// one that drops it. So such filters are not subscribed to.
fn without_shared_filters(settings: Arc<SourceSettings>) -> Option<Arc<SourceSettings>> {
    let is_shared = |filter: &String| filter.starts_with("$share/");
    if !settings.topics.iter().any(is_shared) {
        return Some(settings);
    }
    tracing::error!(
        "{}: shared subscriptions ($share/...) would lose messages between our two connections and are \
         left out: name the plain filter in `topics`",
        settings.name
    );
    let mut settings = SourceSettings::clone(&settings);
    settings.topics.retain(|filter| !is_shared(filter));
    (!settings.topics.is_empty()).then(|| Arc::new(settings))
}
