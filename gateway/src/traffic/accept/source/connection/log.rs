//! What a connection tells the operator.

use super::{Connection, RETRY_MAX};
use crate::traffic::accept::source::intake::{Dropped, Publication};
use crate::traffic::accept::source::link::Fault;

/// As much of a topic as a line shows.
const SHOWN_BYTES_MAX: usize = 128;

impl Connection {
    pub(super) fn tell_connected(&self, session_present: bool) {
        let remote = &self.settings.remote;
        if session_present {
            tracing::info!(
                "{}: connected to {}:{}; the broker kept our session, what was missed comes now",
                self.name,
                remote.host,
                remote.port
            );
        } else if self.first_link {
            tracing::info!(
                "{}: connected to {}:{}, with a new session",
                self.name,
                remote.host,
                remote.port
            );
        } else {
            tracing::warn!(
                "{}: connected to {}:{}, but the broker lost our session: what was published while we were \
                 away does not come; let it keep sessions (mosquitto: `persistence true`)",
                self.name,
                remote.host,
                remote.port
            );
        }
    }

    pub(super) fn tell_refused(&self, filter: &str, reason: &str) {
        tracing::error!(
            "{}: the broker refuses the subscription to {filter:?} ({reason}): allow it to the client id \
             {:?}, or take it out of `topics`",
            self.name,
            self.client_id
        );
    }

    pub(super) fn tell_dropped(&mut self, dropped: &Dropped, publication: &Publication) {
        let topic = String::from_utf8_lossy(
            publication
                .topic
                .get(..SHOWN_BYTES_MAX)
                .unwrap_or(&publication.topic),
        );
        match dropped {
            Dropped::NotOurs | Dropped::Retained => {
                tracing::trace!("{}: {topic:?} is left out: {dropped}", self.name);
            }
            Dropped::Topic(_) => {
                self.dropped += 1;
                tracing::warn!(
                    "{}: a message on {topic:?} was dropped: {dropped} ({} so far)",
                    self.name,
                    self.dropped
                );
            }
            Dropped::TooLarge(_) => {
                self.dropped += 1;
                tracing::error!(
                    "{}: a message on {topic:?} was lost: {dropped}, more than this source's packet_max \
                     ({} bytes); raise it, or use protocol = \"5\" ({} so far)",
                    self.name,
                    self.settings.packet_bytes_max,
                    self.dropped
                );
            }
        }
    }

    pub(super) fn report(&mut self, fault: Fault) {
        let remote = &self.settings.remote;
        let what = match self.up_since {
            Some(_) => "lost the connection to",
            None => "cannot connect to",
        };
        let line = format!(
            "{}: {what} {}:{}: {fault}",
            self.name, remote.host, remote.port
        );
        if self.last_fault.as_ref() == Some(&fault) {
            tracing::debug!("{line}");
        } else if fault.needs_a_person() {
            tracing::error!(
                "{line}; trying again at least every {} s",
                RETRY_MAX.as_secs()
            );
        } else {
            tracing::warn!(
                "{line}; trying again at least every {} s",
                RETRY_MAX.as_secs()
            );
        }
        self.last_fault = Some(fault);
    }
}
