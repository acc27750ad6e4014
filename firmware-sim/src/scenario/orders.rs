//! What a phase asks of one device at one time. In come phase, device and time, out come orders;
//! the same go in, the same come out, so that a run repeats.

use std::time::Duration;

use tidegate_device::chance::Chance;

use super::{Act, Phase};

/// Spreads a share, a cycle and a skew over the fleet: three rows of chance for each device.
const SHARE_ROW: u64 = 0x51_4A_2E;
const CYCLE_ROW: u64 = 0xC7_C1_E5;
const SKEW_ROW: u64 = 0x5E_3B_91;

/// What is asked of a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Orders {
    /// From one sample of a channel to the next.
    pub period: Duration,
    /// Alarms a minute.
    pub alarms_per_minute: f64,
    /// How many readings it makes as fast as its connection takes them, and not by its timer; by its timer
    /// without it.
    pub flat_out: Option<u64>,
    /// Whether its network lets anything through.
    pub network: bool,
    /// Whether it has power.
    pub power: bool,
    /// How often its power came back in this phase so far.
    pub power_ons: u64,
    /// When it came back last, after the phase began; zero when it never went.
    pub powered_at: Duration,
    /// What its wall clock is wrong by, in milliseconds.
    pub skew_millis: i64,
    /// For how long from now these orders stand; the phase's end is another matter.
    pub stand_for: Duration,
}

/// A device, as far as orders go.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Its number in the fleet, from 0.
    pub index: u32,
    /// The run's seed.
    pub seed: u64,
}

/// What `phase` asks of `member`, so long after the phase began.
#[must_use]
pub fn orders(phase: &Phase, member: Member, elapsed: Duration) -> Orders {
    let calm = Orders {
        period: phase.period(1.0),
        alarms_per_minute: phase.alarms_per_minute,
        flat_out: None,
        network: true,
        power: true,
        power_ons: 0,
        powered_at: Duration::ZERO,
        skew_millis: 0,
        stand_for: Duration::MAX,
    };
    match phase.act {
        Act::Burst { factor } => Orders {
            period: phase.period(factor),
            ..calm
        },
        Act::Mad { devices, factor } if member.index < devices => Orders {
            period: phase.period(factor),
            ..calm
        },
        Act::AlarmStorm {
            share,
            alarms_per_minute,
        } if member.is_in(share) => Orders {
            alarms_per_minute,
            ..calm
        },
        Act::Flapping { share, up, down } if member.is_in(share) => {
            flapping(calm, member.into_cycle(elapsed, up + down), up, down)
        }
        Act::Rebooting { share, every, off } if member.is_in(share) => {
            let offset = member.offset(every + off);
            rebooting(calm, elapsed, offset, every, off)
        }
        Act::ClockSkew { share, skew } if member.is_in(share) => Orders {
            skew_millis: member.skew_millis(skew),
            ..calm
        },
        Act::FlatOut { readings_max } => Orders {
            alarms_per_minute: 0.0,
            flat_out: Some(readings_max),
            ..calm
        },
        Act::AllAtOnce { off } => {
            let power = elapsed >= off;
            Orders {
                power,
                power_ons: u64::from(power),
                powered_at: off,
                stand_for: off
                    .checked_sub(elapsed)
                    .filter(|_| !power)
                    .unwrap_or(Duration::MAX),
                ..calm
            }
        }
        _ => calm,
    }
}

fn flapping(calm: Orders, into_cycle: Duration, up: Duration, down: Duration) -> Orders {
    let network = into_cycle < up;
    let end = if network { up } else { up + down };
    Orders {
        network,
        stand_for: end.saturating_sub(into_cycle),
        ..calm
    }
}

/// Power goes away at `offset`, and again each `every` after it came back.
fn rebooting(
    calm: Orders,
    elapsed: Duration,
    offset: Duration,
    every: Duration,
    off: Duration,
) -> Orders {
    let cycle = every + off;
    let Some(since_first) = elapsed.checked_sub(offset) else {
        return Orders {
            stand_for: offset.saturating_sub(elapsed),
            ..calm
        };
    };
    let cycles = since_first.as_micros() / cycle.as_micros().max(1);
    let into_cycle = remainder(since_first, cycle);
    let power = into_cycle >= off;
    let end = if power { cycle } else { off };
    Orders {
        power,
        power_ons: u64::try_from(cycles).unwrap_or(u64::MAX) + u64::from(power),
        powered_at: elapsed.saturating_sub(into_cycle) + off,
        stand_for: end.saturating_sub(into_cycle),
        ..calm
    }
}

impl Member {
    /// Whether the device belongs to this share of the fleet; the same devices in each phase.
    fn is_in(self, share: f64) -> bool {
        let part = self.row(SHARE_ROW) >> 11;
        (part as f64) < share * (1u64 << 53) as f64
    }

    /// A part of `cycle`, so that not all do the same at once.
    fn offset(self, cycle: Duration) -> Duration {
        remainder(Duration::from_micros(self.row(CYCLE_ROW)), cycle)
    }

    fn into_cycle(self, elapsed: Duration, cycle: Duration) -> Duration {
        remainder(elapsed + self.offset(cycle), cycle)
    }

    fn skew_millis(self, skew: Duration) -> i64 {
        let skew = i64::try_from(skew.as_millis()).unwrap_or(i64::MAX / 4);
        let width = skew.unsigned_abs() * 2;
        let drawn = Chance::new(self.row(SKEW_ROW)).up_to(width);
        i64::try_from(drawn).unwrap_or(0) - skew
    }

    fn row(self, row: u64) -> u64 {
        Chance::new(self.seed ^ row ^ (u64::from(self.index) << 24)).draw()
    }
}

fn remainder(duration: Duration, cycle: Duration) -> Duration {
    let rest = duration.as_micros() % cycle.as_micros().max(1);
    Duration::from_micros(u64::try_from(rest).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn phase(act: Act) -> Phase {
        Phase {
            name: "test",
            length: Duration::from_secs(100),
            readings_per_second: 2.0,
            alarms_per_minute: 1.0,
            act,
        }
    }

    fn fleet() -> impl Iterator<Item = Member> {
        (0..1_000).map(|index| Member { index, seed: 3 })
    }

    /// What each device is asked at each tenth of a second, for as long as `orders` stand.
    fn over_time(phase: &Phase, member: Member) -> Vec<Orders> {
        (0..1_000)
            .map(|tenth| orders(phase, member, Duration::from_millis(tenth * 100)))
            .collect()
    }

    #[test]
    fn does_a_flapping_share_flap_and_the_rest_stay() {
        let phase = phase(Act::Flapping {
            share: 0.25,
            up: Duration::from_secs(3),
            down: Duration::from_secs(1),
        });
        let flapping: Vec<_> = fleet()
            .map(|member| over_time(&phase, member))
            .filter(|orders| orders.iter().any(|o| !o.network))
            .collect();
        assert!((200..300).contains(&flapping.len()), "{}", flapping.len());
        for orders in &flapping {
            let up = orders.iter().filter(|o| o.network).count();
            assert!(
                (740..=760).contains(&up),
                "three quarters of the time: {up}"
            );
        }
        let up_first = flapping.iter().filter(|orders| orders[0].network).count();
        assert!(up_first < flapping.len(), "not all at the same time");
    }

    #[test]
    fn does_power_come_back_as_often_as_it_went() {
        let phase = phase(Act::Rebooting {
            share: 1.0,
            every: Duration::from_secs(9),
            off: Duration::from_secs(1),
        });
        for member in fleet() {
            let orders = over_time(&phase, member);
            let returns = orders
                .windows(2)
                .filter(|w| !w[0].power && w[1].power)
                .count();
            let counted = orders.last().unwrap().power_ons - orders[0].power_ons;
            assert_eq!(returns as u64, counted);
            assert!((9..=10).contains(&returns), "{returns}");
            let off = orders.iter().filter(|o| !o.power).count();
            assert!((90..=110).contains(&off), "a tenth of the time: {off}");
        }
    }

    #[test]
    fn do_orders_stand_as_long_as_they_say() {
        for act in [
            Act::Flapping {
                share: 1.0,
                up: Duration::from_millis(1_500),
                down: Duration::from_millis(700),
            },
            Act::Rebooting {
                share: 1.0,
                every: Duration::from_millis(2_100),
                off: Duration::from_millis(333),
            },
            Act::AllAtOnce {
                off: Duration::from_millis(2_500),
            },
        ] {
            let phase = phase(act);
            for member in fleet().take(50) {
                for start in (0..20_000).step_by(177).map(Duration::from_millis) {
                    let now = orders(&phase, member, start);
                    let same = |o: Orders| (o.power, o.network, o.power_ons);
                    if now.stand_for == Duration::MAX {
                        continue;
                    }
                    let last = start + now.stand_for - Duration::from_micros(1);
                    assert_eq!(
                        same(orders(&phase, member, last)),
                        same(now),
                        "{act:?} {start:?}"
                    );
                    let next = orders(&phase, member, start + now.stand_for);
                    assert_ne!(same(next), same(now), "{act:?} {start:?}");
                }
            }
        }
    }

    #[test]
    fn is_only_the_mad_device_mad() {
        let phase = phase(Act::Mad {
            devices: 1,
            factor: 100.0,
        });
        let periods: Vec<_> = fleet()
            .map(|m| orders(&phase, m, Duration::ZERO).period)
            .collect();
        assert_eq!(periods[0], Duration::from_millis(5));
        assert!(
            periods[1..]
                .iter()
                .all(|&p| p == Duration::from_millis(500))
        );
    }
}
