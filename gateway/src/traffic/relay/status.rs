//! What the path says of itself when it is asked.

use super::super::message::ClassId;
use super::super::send::Link;
use super::super::status::{ClassStatus, LinkStatus, MemoryStatus, SpoolStatus, Status};
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
            memory: self.memory_status(),
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
        for (class, id) in classes.iter_mut().zip(self.class_ids()) {
            class.parked = self.thinning.parked(id);
            class.periods_forgotten = self.thinning.forgotten_periods(id);
            (class.summary_unreadable, class.summary_forgotten) = self.thinning.unsummarised(id);
        }
        for (class, queue) in classes.iter_mut().zip(self.queues.iter()) {
            class.queue_bytes = queue.bytes();
            class.queue_bytes_max = queue.settings().queue_bytes_max;
            class.waiting = queue.waiting() as u64;
            class.held = queue.held() as u64;
            class.keys_forgotten = queue.keys_forgotten();
            class.pressure_entered = queue.pressure_entered();
            class.pressure_changes = class.pressure_entered.iter().sum();
            class.level = queue.level().into();
        }
        for (class, id) in classes.iter_mut().zip(self.class_ids()) {
            class.backlog = self.spool.waiting(id) as u64 + self.spool.on_disk(id);
            class.replay_paused = self.schedule.is_paused(id);
            class.dead_letters_on_disk = self.spool.dead_letters(id);
            class.dead_letters_lost = self.spool.dead[id.index()].lost;
        }
        classes
    }

    fn memory_status(&self) -> MemoryStatus {
        let pressure = self.queues.pressure();
        MemoryStatus {
            bytes: self.queues.bytes() + self.queues.index_bytes(),
            bytes_max: self.memory_bytes_max,
            level: pressure.level().into(),
            pressure_entered: pressure.entered(),
        }
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
        let paused = |class: &ClassId| self.schedule.is_paused(*class);
        let goes_on = self.class_ids().filter(|class| !paused(class));
        let replays = goes_on.map(waits).sum::<u64>() > 0;
        let paused = self.class_ids().all(|class| paused(&class));
        SpoolStatus {
            backlog,
            paused,
            replaying: replays && self.outbound.any_up(),
            ..self.spool.status()
        }
    }
}
