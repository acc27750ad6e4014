//! The end of a connection, and what outlives it: the reason is said and logged, the will is
//! published or waits, what the lanes had no room for goes on, the session is parked until its client
//! comes back, expires, or must make room. A client that comes back never waits for a lane: it takes
//! over what is still unsent.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tracing::{debug, info, warn};

use super::Shared;
use super::connection::{Connection, Ending};
use super::greet::part;
use super::intake::{expires, publisher_expires};
use super::lane::{LaneEnds, Unsent};
use super::registry::{Claim, Kept, Left, Parking, Seated};
use crate::traffic::accept::decode::{Will, reason};
use crate::traffic::accept::encode;
use crate::traffic::classify::Classifier;
use crate::traffic::lanes::{DoorEvent, Notice, Phase};
use crate::traffic::message::{Body, DoorId, Message, Receipt, Tick};

impl Ending {
    /// The reason code for DISCONNECT; `None`: there is nobody to tell.
    const fn reason(self) -> Option<(u8, &'static str)> {
        match self {
            Self::Gone | Self::Disconnected { .. } | Self::Deaf => None,
            Self::Fault(fault) => Some((fault.reason, fault.what)),
            Self::Silent => Some((reason::KEEP_ALIVE_TIMEOUT, "")),
            // No code names it; this one's sense, no whole packet in time, is the nearest.
            Self::Unfinished => Some((
                reason::KEEP_ALIVE_TIMEOUT,
                "a packet was begun and not finished in time",
            )),
            Self::TakenOver => Some((reason::TAKEN_OVER, "")),
            Self::HeldTooLong | Self::Returned => Some((
                reason::QUOTA_EXCEEDED,
                "no room for its messages; bring them again later",
            )),
            Self::DoorClosed | Self::Stop => Some((reason::SHUTTING_DOWN, "")),
        }
    }

    /// Whether the will is published: not after a DISCONNECT that says so, not when the gateway
    /// closed for reasons of its own, and not when it may have driven a live client away since
    /// nothing of it was heard (`unheard`), its PINGREQ neither.
    const fn fires_will(self, unheard: bool) -> bool {
        match self {
            Self::Gone | Self::TakenOver => !unheard,
            Self::Fault(_) | Self::Silent | Self::Unfinished | Self::Deaf => true,
            Self::Disconnected { will } => will,
            Self::HeldTooLong | Self::Returned | Self::DoorClosed | Self::Stop => false,
        }
    }

    fn log(self, label: &str, shared: &Shared) {
        match self {
            Self::Gone => debug!("{label} closed its connection without DISCONNECT"),
            Self::Disconnected { .. } => debug!("{label} disconnected"),
            Self::Fault(fault) => {
                warn!("{label} {} and was closed; {}", fault.what, fault.remedy());
            }
            Self::Silent => info!(
                "{label} was not heard for one and a half keep-alive intervals and was closed; \
                 see whether the device is up and in reach"
            ),
            Self::Unfinished => warn!(
                "{label} began a packet and did not finish it within {} s and was closed; see \
                 whether its link is too slow for what it sends, or check its MQTT library",
                shared.patience.packet.as_secs()
            ),
            Self::Deaf => warn!(
                "{label} has read none of its answers for {} s and was closed; \
                 check the device's MQTT library",
                shared.patience.write.as_secs()
            ),
            Self::TakenOver => {
                debug!("{label} was taken over by a new connection of its client id")
            }
            Self::HeldTooLong => warn!(
                "{label} was closed because its messages were held for {} s; it will bring them \
                 again; see why the uplink is slow or gone",
                shared.settings.hold_max.as_secs()
            ),
            Self::Returned => info!(
                "{label} was closed so that it brings again what was given back while it connected"
            ),
            Self::DoorClosed => warn!("{label} was closed because the relay no longer hears it"),
            Self::Stop => debug!("{label} was closed for shutdown"),
        }
    }
}

/// Ends a connection: says why, publishes what must be, and keeps the session where it outlives
/// the connection. Returns when the session has ended or was left to a newer connection. The
/// connection's place is free once the client is gone and all that it sent is in the lanes: it bounds
/// what may wait for them.
pub(super) async fn leave<S: AsyncRead + AsyncWrite + Unpin>(
    connection: Box<Connection<S>>,
    ending: Ending,
    will: Option<Will>,
    seat: (Claim, Seated),
    place: OwnedSemaphorePermit,
) {
    let will = will.filter(|_| ending.fires_will(connection.is_unheard()));
    let Connection {
        mut stream,
        shared,
        label,
        voice,
        kept,
        mut out,
        lanes,
        session_expiry,
        ..
    } = *connection;
    ending.log(&label, &shared);
    if let Some((reason, text)) = ending.reason() {
        encode::disconnect(&mut out, voice, reason, text);
    }
    let place = Arc::new(place);
    let parting_place = Arc::clone(&place);
    let parting = async {
        if !matches!(ending, Ending::Gone | Ending::Deaf) {
            part(&mut stream, &out, shared.patience.linger).await;
        }
        drop((stream, parting_place));
    };
    let afterlife = Afterlife {
        shared: &shared,
        label: &label,
        kept,
        lanes,
        place: Some(place),
        session_expiry,
    };
    tokio::join!(parting, afterlife.live(ending, will, seat));
}

struct Afterlife<'a> {
    shared: &'a Shared,
    label: &'a str,
    kept: Kept,
    lanes: LaneEnds,
    /// Kept while something is unsent.
    place: Option<Arc<OwnedSemaphorePermit>>,
    session_expiry: Duration,
}

impl Afterlife<'_> {
    async fn live(
        mut self,
        ending: Ending,
        will: Option<Will>,
        (claim, mut seated): (Claim, Seated),
    ) {
        if ending == Ending::HeldTooLong {
            for token in self.lanes.drop_tracked() {
                // Its connection has ended anyway.
                let _ = self.kept.session.returned(token);
            }
            self.withdraw().await;
        }
        self.kept.session.park();
        self.take_will(will);
        let over = ending == Ending::DoorClosed
            || ending == Ending::Stop
            || self.session_expiry.is_zero()
            || self.park(&claim).await == Parked::Ended;
        if over {
            self.finish(&claim).await;
            seated.unsent = self.lanes.unsent;
            self.shared.close(self.kept).await;
            self.shared.registry.vacate(&claim);
        } else {
            *seated = Left {
                kept: Some(self.kept),
                unsent: self.lanes.unsent,
            };
        }
    }

    /// Hands over what is unsent, unless a newer connection does. At a shutdown too: the relay takes
    /// nothing on by then, and counts what comes.
    async fn finish(&mut self, claim: &Claim) {
        let Self { kept, lanes, .. } = self;
        if !self.shared.is_stopped() {
            self.shared.publish_last(kept, &mut lanes.unsent);
        }
        let may_leave = self.may_leave();
        let lanes = &mut self.lanes;
        tokio::select! {
            biased;
            () = claim.superseded(), if may_leave => {}
            // A relay that is gone takes nothing more.
            _ = lanes.finish() => {}
        }
    }

    /// Whether a newer connection may take over what is unsent. It reads nothing while that is more
    /// than a connection may have, yet each one's end can add a will; so at twice as much it waits.
    fn may_leave(&self) -> bool {
        self.lanes.untracked_bytes() < 2 * self.shared.settings.connection_bytes_max
    }

    /// What the relay holds of this session goes back to the sender; the relay names each.
    async fn withdraw(&mut self) {
        let event = DoorEvent::Withdraw {
            door: self.kept.door,
            at: self.shared.clock.now(),
        };
        // A relay that is gone holds nothing.
        let _ = self.shared.lanes.doors.send(event).await;
    }

    /// A will waits for its delay or the end of the session, whichever is first (MQTT 5, 3.1.3.2.2).
    fn take_will(&mut self, will: Option<Will>) {
        let Some(will) = will else { return };
        let delay = Duration::from_secs(u64::from(will.delay_seconds)).min(self.session_expiry);
        if delay.is_zero() {
            let Self { kept, lanes, .. } = self;
            self.shared.publish_will(kept.door, will, &mut lanes.unsent);
        } else {
            self.kept.will = Some((will, self.shared.clock.now().after(delay)));
        }
    }

    async fn park(&mut self, claim: &Claim) -> Parked {
        let mut parking = self.shared.registry.park();
        let parked = self.wait(claim, &mut parking).await;
        self.shared.registry.unpark(&parking);
        parked
    }

    /// Waits for the client, hearing the relay's answers for it and handing over what is unsent.
    async fn wait(&mut self, claim: &Claim, parking: &mut Parking) -> Parked {
        let clock = self.shared.clock;
        let expires = clock.now().after(self.session_expiry);
        loop {
            let will_at = self.kept.will.as_ref().map_or(Tick::NEVER, |(_, at)| *at);
            let next = clock.instant(will_at.min(expires));
            let unsent = !self.lanes.unsent.is_empty();
            self.place.take_if(|_| !unsent);
            tokio::select! {
                biased;
                () = self.shared.stop() => return Parked::Ended,
                () = claim.superseded(), if self.may_leave() => return Parked::Claimed,
                _ = &mut parking.evicted => {
                    debug!("{}: its session made room for a younger one", self.label);
                    return Parked::Ended;
                }
                notices = self.kept.notices.recv() => match notices {
                    Some(notices) => self.hear(notices),
                    None => return Parked::Ended,
                },
                sent = self.lanes.finish(), if unsent => if sent.is_err() {
                    return Parked::Ended;
                },
                () = tokio::time::sleep_until(next.into()) => {
                    if expires <= clock.now() {
                        return Parked::Ended;
                    }
                    if let Some((will, _)) = self.kept.will.take() {
                        let Self { kept, lanes, .. } = self;
                        self.shared.publish_will(kept.door, will, &mut lanes.unsent);
                    }
                }
            }
        }
    }

    fn hear(&mut self, notices: Vec<Notice>) {
        for notice in notices {
            match notice {
                Notice::Answer { token, answer } => {
                    // Kept for the client's resend.
                    let _ = self.kept.session.answer(token, answer);
                }
                Notice::Returned { token } => {
                    // Nobody is connected who could wait for it.
                    let _ = self.kept.session.returned(token);
                }
                Notice::Held => self.kept.held = true,
                Notice::Released => self.kept.held = false,
                Notice::Slowed { permille } => self.kept.slowed_permille = permille,
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Parked {
    /// A newer connection takes the session, or ends it.
    Claimed,
    /// The session is over.
    Ended,
}

impl Shared {
    /// Before the end of a session a will that still waits is published (MQTT 5, 3.1.2.5).
    pub(super) fn publish_last(&self, kept: &mut Kept, unsent: &mut Unsent) {
        if let Some((will, _)) = kept.will.take() {
            self.publish_will(kept.door, will, unsent);
        }
    }

    /// The end of a session.
    pub(super) async fn close(&self, kept: Kept) {
        // A relay that is gone has closed the door itself.
        let _ = self.lanes.doors.send(DoorEvent::Close(kept.door)).await;
    }

    /// A will is an ordinary message for which nobody waits.
    fn publish_will(&self, door: DoorId, will: Will, unsent: &mut Unsent) {
        let mut classifier = Classifier::new(Arc::clone(&self.rules));
        let now = self.clock.now();
        let verdict = classifier.classify(&will.topic, &will.payload);
        let publisher = publisher_expires(now, will.expiry_seconds);
        let expires = expires(now, &verdict, publisher);
        let body = Body::new(&will.topic, &will.properties, &will.payload);
        let receipt = Receipt { door, token: None };
        let message = Message {
            key: verdict.key,
            qos: will.qos,
            retain: will.retain,
            expires,
            publisher_expires: publisher,
            ..Message::new(body, verdict.class, now, receipt)
        };
        unsent.push(message);
        unsent.unreadable += classifier.take_unreadable();
    }

    /// Runs this unless the gateway stops first.
    pub(super) async fn until_stop<T>(&self, what: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.stop() => None,
            done = what => Some(done),
        }
    }

    /// Ready when the gateway stops. Its sender gone counts as that.
    async fn stop(&self) {
        let _ = self
            .phase
            .clone()
            .wait_for(|phase| *phase >= Phase::Stop)
            .await;
    }

    fn is_stopped(&self) -> bool {
        *self.phase.borrow() >= Phase::Stop
    }
}
