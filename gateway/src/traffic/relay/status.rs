//! What the path says of itself when it is asked.

use super::super::message::ClassId;
use super::super::send::Link;
use super::super::status::{ClassStatus, LinkStatus, SpoolStatus, Status};
use super::Relay;

impl Relay {
    /// The path at this moment.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            classes: self.class_statuses(),
            links: self
                .outbound
                .links()
                .map(|link| self.link_status(link))
                .collect(),
            senders: self.senders.count(),
            spool: self.spool_status(),
            unreadable: self.unreadable,
            setbacks: self.setbacks.total(),
            forgotten_topics: self.forgotten,
        }
    }

    fn class_statuses(&self) -> Vec<ClassStatus> {
        let deliveries = self.classes.iter().map(|class| Some(class.delivery));
        let accounts = self.ledger.accounts().iter().zip(self.waiting());
        let accounts = accounts.zip(deliveries.chain([None]));
        let mut classes: Vec<_> = accounts
            .map(|((account, waiting), delivery)| ClassStatus {
                in_memory: waiting.in_memory,
                in_memory_bytes: waiting.bytes,
                on_disk: waiting.on_disk,
                ..ClassStatus::new(account, delivery)
            })
            .collect();
        for (class, queue) in classes.iter_mut().zip(self.queues.iter()) {
            class.queue_bytes = queue.bytes();
            class.queue_bytes_max = queue.settings().queue_bytes_max;
            class.waiting = queue.waiting() as u64;
            class.held = queue.held() as u64;
            class.pressure_changes = queue.pressure_changes();
            class.level = queue.level().into();
        }
        classes
    }

    fn link_status(&self, link: Link) -> LinkStatus {
        let (up, attempts, window) = self.outbound.link(link);
        let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).ok();
        LinkStatus {
            name: match link {
                Link::Urgent => "urgent".into(),
                Link::Bulk => "bulk".into(),
            },
            up,
            window_bytes: window.size(),
            in_flight: window.count() as u64,
            in_flight_bytes: window.bytes(),
            ack_micros: window.smoothed().and_then(micros),
            attempts,
        }
    }

    fn spool_status(&self) -> SpoolStatus {
        let waits = |class: ClassId| self.spool.waiting(class) as u64 + self.spool.on_disk(class);
        let backlog: u64 = self.class_ids().map(waits).sum();
        let paused = self.schedule.is_paused();
        SpoolStatus {
            backlog,
            paused,
            replaying: backlog > 0 && !paused && self.outbound.any_up(),
            ..self.spool.status()
        }
    }
}
