//! The senders as the relay knows them: who there is, what each must be told next, and how much of it
//! is held. Ids carry a generation, so that what is meant for
//! one that is gone never reaches another.

use std::sync::Arc;

use super::lanes::{Answer, Notice};
use super::message::{ClassId, DoorId, Receipt, Tick};

/// All senders.
#[derive(Debug, Default)]
pub struct Senders {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Those with notices to fetch.
    told: Vec<u32>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    sender: Option<Sender>,
}

#[derive(Debug)]
struct Sender {
    client: Arc<str>,
    site: bool,
    notices: Vec<Notice>,
    held: usize,
    /// What was put into a lane before this was withdrawn.
    withdrawn: Option<Tick>,
    /// The class of its last message below the first class, or the first.
    class: ClassId,
    /// The share of its rate, in 1/1000, at which it is read, as it was told.
    slowed_permille: u32,
}

impl Senders {
    /// A new sender; `site` speaks for many devices and has no share of its own.
    pub fn open(&mut self, client: Arc<str>, site: bool) -> DoorId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let slot = &mut self.slots[index as usize];
        slot.sender = Some(Sender {
            client,
            site,
            notices: Vec::new(),
            held: 0,
            withdrawn: None,
            class: ClassId::FIRST,
            slowed_permille: 1000,
        });
        DoorId {
            index,
            generation: slot.generation,
        }
    }

    /// Forgets a sender.
    pub fn close(&mut self, id: DoorId) {
        if self.get(id).is_none() {
            return;
        }
        let slot = &mut self.slots[id.index as usize];
        slot.sender = None;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.index);
    }

    /// Answers a message, if its sender waits for that and is still there.
    pub fn answer(&mut self, receipt: &mut Receipt, answer: Answer) {
        if let Some(token) = receipt.token.take() {
            self.tell(receipt.door, Notice::Answer { token, answer });
        }
    }

    /// Notes that a sender takes back what it put into a lane before `now`.
    pub fn withdraw(&mut self, id: DoorId, now: Tick) {
        if let Some(sender) = self.get_mut(id) {
            sender.withdrawn = Some(now);
        }
    }

    /// Whether its sender took back what it put into a lane at `at`. A new connection of it puts nothing
    /// there in the same microsecond.
    #[must_use]
    pub fn is_withdrawn(&self, id: DoorId, at: Tick) -> bool {
        let withdrawn = self.get(id).and_then(|sender| sender.withdrawn);
        withdrawn.is_some_and(|until| at <= until)
    }

    /// Notes the class of a sender's last message.
    pub fn note(&mut self, id: DoorId, class: ClassId) {
        if class == ClassId::FIRST {
            return;
        }
        if let Some(sender) = self.get_mut(id) {
            sender.class = class;
        }
    }

    /// Tells devices at what share of their rate, in 1/1000, they are read, by the class that they
    /// send. Alarms say nothing of that: a device that sends none else is not slowed.
    pub fn slow(&mut self, share_permille: impl Fn(ClassId) -> u32) {
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            let generation = slot.generation;
            let Some(sender) = slot.sender.as_mut().filter(|sender| !sender.site) else {
                continue;
            };
            let permille = match sender.class {
                ClassId::FIRST => 1000,
                class => share_permille(class),
            };
            if std::mem::replace(&mut sender.slowed_permille, permille) != permille {
                let index = u32::try_from(index).unwrap_or(u32::MAX);
                let id = DoorId { index, generation };
                self.tell(id, Notice::Slowed { permille });
            }
        }
    }

    /// Counts a message as held; the first one stops its sender.
    pub fn hold(&mut self, id: DoorId) {
        let Some(sender) = self.get_mut(id) else {
            return;
        };
        sender.held += 1;
        if sender.held == 1 {
            self.tell(id, Notice::Held);
        }
    }

    /// Counts a message as held no more; the last one lets its sender go on.
    pub fn unhold(&mut self, id: DoorId) {
        let Some(sender) = self.get_mut(id) else {
            return;
        };
        sender.held = sender.held.saturating_sub(1);
        if sender.held == 0 {
            self.tell(id, Notice::Released);
        }
    }

    /// Gives a message back: its sender brings it again.
    pub fn give_back(&mut self, receipt: &mut Receipt) {
        if let Some(token) = receipt.token.take() {
            self.tell(receipt.door, Notice::Returned { token });
        }
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> u64 {
        (self.slots.len() - self.free.len()) as u64
    }

    /// Whether a sender speaks for a whole site.
    #[must_use]
    pub fn is_site(&self, id: DoorId) -> bool {
        self.get(id).is_some_and(|sender| sender.site)
    }

    /// How a sender is called.
    #[must_use]
    pub fn client(&self, id: DoorId) -> Option<&Arc<str>> {
        self.get(id).map(|sender| &sender.client)
    }

    /// Everything that has to be told, by sender.
    pub fn take_notices(&mut self) -> Vec<(DoorId, Vec<Notice>)> {
        let told = std::mem::take(&mut self.told);
        let mut all = Vec::with_capacity(told.len());
        for index in &told {
            let slot = &mut self.slots[*index as usize];
            let generation = slot.generation;
            if let Some(sender) = slot.sender.as_mut().filter(|s| !s.notices.is_empty()) {
                let id = DoorId {
                    index: *index,
                    generation,
                };
                all.push((id, std::mem::take(&mut sender.notices)));
            }
        }
        self.told = told;
        self.told.clear();
        all
    }

    fn tell(&mut self, id: DoorId, notice: Notice) {
        let Some(sender) = self.get_mut(id) else {
            return;
        };
        let first = sender.notices.is_empty();
        sender.notices.push(notice);
        if first {
            self.told.push(id.index);
        }
    }

    fn get(&self, id: DoorId) -> Option<&Sender> {
        let slot = self.slots.get(id.index as usize)?;
        slot.sender
            .as_ref()
            .filter(|_| slot.generation == id.generation)
    }

    fn get_mut(&mut self, id: DoorId) -> Option<&mut Sender> {
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.sender
            .as_mut()
            .filter(|_| slot.generation == id.generation)
    }
}
