//! What was sent with QoS 1 and is not acknowledged yet, in the order of sending. After a broken
//! link it goes once more in that same order, before anything new (MQTT 5, 4.4). In go messages and
//! packet ids, out come resends; it holds a fixed number.

use heapless::Deque;

use crate::message::Message;
use crate::tick::Tick;

/// Messages without acknowledgement that a device has room for: 2 KiB of its memory.
pub(crate) const IN_FLIGHT_MAX: usize = 32;

/// The window.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    window: Deque<Sent, IN_FLIGHT_MAX>,
    /// How many of the window, counted from its front, are on the present link.
    on_link: usize,
    last_packet_id: u16,
}

/// One message of the window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) packet_id: u16,
    pub(crate) at: Tick,
    pub(crate) message: Message,
}

impl Flight {
    /// Whether there is room for one more, in a window of `window_max`.
    pub(crate) fn has_room(&self, window_max: usize) -> bool {
        self.window.len() < window_max.min(IN_FLIGHT_MAX)
    }

    /// Takes `message` in; gives its packet id, or `None` without room.
    pub(crate) fn take_off(&mut self, now: Tick, message: Message) -> Option<u16> {
        let packet_id = self.free_packet_id();
        let sent = Sent {
            packet_id,
            at: now,
            message,
        };
        self.window.push_back(sent).ok()?;
        self.on_link += 1;
        Some(packet_id)
    }

    /// The next message that has to go over this link once more; none when the far end's window of
    /// `window_max` is full of earlier ones.
    pub(crate) fn resend(&mut self, now: Tick, window_max: usize) -> Option<Sent> {
        if self.on_link >= window_max {
            return None;
        }
        let sent = self.window.iter_mut().nth(self.on_link)?;
        sent.at = now;
        self.on_link += 1;
        Some(*sent)
    }

    /// Whether everything in the window went over this link.
    pub(crate) fn all_on_link(&self) -> bool {
        self.on_link == self.window.len()
    }

    /// The far end answered for this packet id. Gives its message; `None` when there is none on this
    /// link.
    pub(crate) fn answered(&mut self, packet_id: u16) -> Option<Message> {
        let place = self.window.iter().position(|s| s.packet_id == packet_id)?;
        if place >= self.on_link {
            return None;
        }
        self.on_link -= 1;
        if place == 0 {
            // Whoever answers in order, which is nearly everybody, makes nothing move.
            return self.window.pop_front().map(|sent| sent.message);
        }
        let mut found = None;
        for _ in 0..self.window.len() {
            let sent = self.window.pop_front()?;
            if sent.packet_id == packet_id {
                found = Some(sent.message);
            } else {
                // Cannot be full: one was taken out just now.
                let _ = self.window.push_back(sent);
            }
        }
        found
    }

    /// The link is gone: everything goes again.
    pub(crate) const fn link_lost(&mut self) {
        self.on_link = 0;
    }

    /// When the message that waits longest on this link was sent.
    pub(crate) fn oldest(&self) -> Option<Tick> {
        let on_link = self.window.iter().take(self.on_link);
        on_link.map(|sent| sent.at).min()
    }

    /// What is not acknowledged.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Message> {
        self.window.iter().map(|sent| &sent.message)
    }

    /// Not zero (MQTT 5, 2.2.1) and not in use.
    fn free_packet_id(&mut self) -> u16 {
        loop {
            self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
            let id = self.last_packet_id;
            if self.window.iter().all(|sent| sent.packet_id != id) {
                return id;
            }
        }
    }
}
