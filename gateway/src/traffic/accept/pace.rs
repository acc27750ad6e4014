//! How fast a client is read: never faster than `client_rate_max`, and at a share of its own rate while
//! the relay says so. In come the moments of its messages, out goes whether the next may be taken.
//! Nothing is dropped: what is not read waits with the client. Pure.

use std::time::Duration;

use crate::traffic::message::Tick;
use crate::traffic::schedule::bucket::Bucket;

/// The client's rate is what came in this time at least; sensors send once in a second or more often
/// where slowing them matters.
const MEASURED: Duration = Duration::from_secs(1);
/// So long all is read of a client whose patience may end: more than what a socket's buffer holds.
const HURRY: Duration = Duration::from_secs(1);
/// A message in the buckets' tokens, so that a share of a slow client's rate is more than none.
const MESSAGE: u64 = 1000;

/// The pace of one client.
#[derive(Debug)]
pub(super) struct Pace {
    rate_max: Option<Bucket>,
    slowed: Option<Slowed>,
    /// When something was last waited for, and nothing more stood unread.
    caught_up_at: Tick,
    /// How long the client may be slowed without that; see [`Pace::is_open`].
    patience: Option<Duration>,
    /// Messages since then, and the last whole measurement, in tokens a second.
    count: u64,
    since: Tick,
    rate: Option<u64>,
}

#[derive(Debug)]
struct Slowed {
    permille: u32,
    /// Made when the client's rate is known.
    bucket: Option<Bucket>,
}

impl Pace {
    /// Of a client that was not heard yet.
    pub(super) fn new(rate_max: Option<u32>, keep_alive: Option<Duration>, now: Tick) -> Self {
        let bucket = |rate| Bucket::new(u64::from(rate) * MESSAGE, now);
        Self {
            rate_max: rate_max.map(bucket),
            slowed: None,
            caught_up_at: now,
            patience: keep_alive.map(|interval| interval / 4),
            count: 0,
            since: now,
            rate: None,
        }
    }

    /// Reads at this share of the client's rate from now on.
    pub(super) fn slow(&mut self, permille: u32, now: Tick) {
        match self.slowed {
            // What was counted while slowed is not the client's rate.
            Some(_) => (self.count, self.since) = (0, now),
            // Its patience begins now.
            None => self.caught_up_at = now,
        }
        let bucket = self.rate.map(|rate| share(rate, permille, now));
        self.slowed = (permille < 1000).then_some(Slowed { permille, bucket });
    }

    /// A message was taken. One of the first class pays for no share.
    pub(super) fn took(&mut self, first_class: bool, now: Tick) {
        if let Some(bucket) = &mut self.rate_max {
            bucket.take(MESSAGE);
        }
        self.measure(now);
        let bucket = self.slowed.as_mut().and_then(|s| s.bucket.as_mut());
        if let Some(bucket) = bucket.filter(|_| !first_class) {
            bucket.take(MESSAGE);
        }
    }

    /// All that the client has sent was read.
    pub(super) const fn caught_up(&mut self, now: Tick) {
        self.caught_up_at = now;
    }

    /// Whether anything is paced.
    pub(super) const fn is_paced(&self) -> bool {
        self.rate_max.is_some() || self.slowed.is_some()
    }

    /// Whether the next message may be taken. A client that heeds no back-pressure has its PINGREQ
    /// behind what is not read: so after a quarter of its keep-alive all is read that waits. Only
    /// `client_rate_max` binds it then.
    pub(super) fn is_open(&mut self, now: Tick) -> bool {
        let hurry = self.hurries_at() <= now;
        if hurry && now.since(self.hurries_at()) >= HURRY {
            self.caught_up_at = now;
        }
        let share = self.slowed.as_mut().and_then(|s| s.bucket.as_mut());
        let share_open = hurry || share.is_none_or(|bucket| bucket.open(now));
        share_open && self.rate_max.as_mut().is_none_or(|b| b.open(now))
    }

    /// When it may be taken, as far as time decides.
    pub(super) fn opens_at(&self) -> Tick {
        let opens = |bucket: Option<&Bucket>| bucket.map_or(Tick::ZERO, Bucket::opens_at);
        let share = self.slowed.as_ref().and_then(|s| s.bucket.as_ref());
        let share = opens(share).min(self.hurries_at());
        share.max(opens(self.rate_max.as_ref()))
    }

    fn hurries_at(&self) -> Tick {
        let after = |patience| self.caught_up_at.after(patience);
        self.patience.map_or(Tick::NEVER, after)
    }

    fn measure(&mut self, now: Tick) {
        if self.slowed.as_ref().is_some_and(|s| s.bucket.is_some()) {
            return;
        }
        self.count += MESSAGE;
        let time = now.since(self.since);
        if time < MEASURED {
            return;
        }
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        let rate = self.count.saturating_mul(1_000_000) / micros;
        self.rate = Some(rate);
        (self.count, self.since) = (0, now);
        if let Some(slowed) = &mut self.slowed {
            slowed.bucket = Some(share(rate, slowed.permille, now));
        }
    }
}

fn share(rate: u64, permille: u32, now: Tick) -> Bucket {
    Bucket::new(rate.saturating_mul(u64::from(permille)) / 1000, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(at: u64) -> Tick {
        Tick::from_micros(at * 1000)
    }

    /// Takes what comes at the full rate and is let; gives how many.
    fn taken(pace: &mut Pace, from: u64, to: u64, each: u64) -> u64 {
        let mut count = 0;
        for now in (from..to).step_by(usize::try_from(each).unwrap()).map(ms) {
            if pace.is_open(now) {
                pace.took(false, now);
                count += 1;
            }
        }
        count
    }

    #[test]
    fn is_a_client_never_read_faster_than_its_limit() {
        let mut pace = Pace::new(Some(10), None, ms(0));
        let count = taken(&mut pace, 0, 10_000, 1);
        assert!((100..=102).contains(&count), "{count}");
        let mut free = Pace::new(None, None, ms(0));
        assert_eq!(taken(&mut free, 0, 10_000, 1), 10_000);
        assert!(!free.is_paced());
    }

    #[test]
    fn is_a_slowed_client_read_at_a_share_of_its_own_rate_and_then_at_all_of_it() {
        let mut pace = Pace::new(None, None, ms(0));
        assert_eq!(taken(&mut pace, 0, 5000, 10), 500);
        pace.slow(250, ms(5000));
        let count = taken(&mut pace, 5000, 15_000, 1);
        assert!(
            (230..=270).contains(&count),
            "{count} and not a quarter of 1000"
        );
        pace.slow(1000, ms(15_000));
        assert_eq!(taken(&mut pace, 15_000, 20_000, 10), 500);
        pace.slow(500, ms(20_000));
        let count = taken(&mut pace, 20_000, 30_000, 1);
        assert!((470..=530).contains(&count), "{count} and not half of 1000");
    }

    #[test]
    fn is_a_client_of_less_than_one_a_second_slowed_and_not_stopped() {
        let mut pace = Pace::new(None, None, ms(0));
        assert_eq!(taken(&mut pace, 0, 100_000, 4000), 25);
        pace.slow(500, ms(100_000));
        let count = taken(&mut pace, 100_000, 200_000, 10);
        assert!((10..=15).contains(&count), "{count} and not half of 25");
    }

    #[test]
    fn does_an_alarm_pay_for_no_share() {
        let mut pace = Pace::new(None, None, ms(0));
        taken(&mut pace, 0, 2000, 10);
        pace.slow(10, ms(2000));
        for _ in 0..1000 {
            assert!(pace.is_open(ms(2000)));
            pace.took(true, ms(2000));
        }
        pace.took(false, ms(2000));
        taken(&mut pace, 2000, 2100, 1);
        assert!(!pace.is_open(ms(2100)));
    }

    #[test]
    fn is_all_read_that_waits_within_a_quarter_of_the_keep_alive() {
        let mut pace = Pace::new(None, Some(Duration::from_secs(20)), ms(0));
        taken(&mut pace, 0, 2000, 10);
        pace.caught_up(ms(2000));
        pace.slow(10, ms(2000));
        taken(&mut pace, 2000, 6999, 10);
        assert!(!pace.is_open(ms(6990)));
        assert!(pace.opens_at() <= ms(7000));
        assert_eq!(taken(&mut pace, 7000, 7100, 1), 100);
        pace.caught_up(ms(7100));
        assert!(!pace.is_open(ms(7100)));
    }
}
