//! The story as data: five acts, what the fleet does in each, and what is done to the uplink and to
//! the gateway. In comes a length, out come the fleet's scenario and the cues.

use std::fmt::Write;
use std::time::Duration;

/// Devices of the fleet. With [`CHANNELS`] it makes 200 topics of readings.
pub const DEVICES: u32 = 50;
/// Channels of each device.
pub const CHANNELS: u32 = 4;
/// What the cloud takes, in messages a second. Ten times as many are no burden for a small box, so
/// that the story shows the gateway and not the machine.
pub const CLOUD_RATE: u64 = 1_000;
/// Calm: 2 readings a second on each topic are 400.
const READINGS_PER_SECOND: u32 = 2;
/// Overload: ten times what the cloud takes.
const BURST_FACTOR: u32 = 25;
/// Of each device: 20 alarms a second together.
const ALARMS_PER_MINUTE: u32 = 24;

/// After an act's beginning, so that what was due in the act before has arrived when the uplink goes.
const UPLINK_GOES_AFTER: Duration = Duration::from_millis(500);
/// From kill -9 to the new start: a service manager's pause.
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// One act.
#[derive(Debug, PartialEq, Eq)]
pub struct Act {
    /// Its name.
    pub name: &'static str,
    /// What happens, for who watches.
    pub what: &'static str,
    /// What to look at.
    pub look: &'static str,
    /// Its part of the story, in sixtieths.
    share: u32,
    /// Times that the fleet samples faster.
    factor: u32,
    /// Whether the uplink is away in it.
    pub is_uplink_away: bool,
}

/// The acts, in their order.
pub const ACTS: [Act; 5] = [
    Act {
        name: "calm",
        what: "the cloud takes more than comes",
        look: "Everything passes at once: no queue, nothing gives way, no disk is touched.",
        share: 10,
        factor: 1,
        is_uplink_away: false,
    },
    Act {
        name: "ten-fold overload",
        what: "ten times what the cloud takes",
        look: "Older readings give way to newer ones of their topic; alarms pass at once.",
        share: 15,
        factor: BURST_FACTOR,
        is_uplink_away: false,
    },
    Act {
        name: "the uplink gone",
        what: "the cloud cannot be reached",
        look: "Alarms go to disk, then are acknowledged; readings stay at their latest value.",
        share: 15,
        factor: 1,
        is_uplink_away: true,
    },
    Act {
        name: "kill -9 and restart",
        what: "the gateway is killed, the uplink still gone",
        look: "What was acknowledged is on disk and survives; devices bring the rest again.",
        share: 8,
        factor: 1,
        is_uplink_away: true,
    },
    Act {
        name: "back again, replay",
        what: "the uplink is back, and the disk is emptied",
        look: "The backlog goes out, new alarms right away, and calm returns by itself.",
        share: 12,
        factor: 1,
        is_uplink_away: false,
    },
];

/// What is done to the gateway's world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cue {
    /// The cloud is switched off.
    CloudOff,
    /// kill -9.
    Kill,
    /// The gateway is started again.
    Start,
    /// The cloud is switched on.
    CloudOn,
}

/// The story in a certain length.
#[derive(Clone, Copy, Debug)]
pub struct Story {
    length: Duration,
}

impl Story {
    /// The story in so long.
    #[must_use]
    pub const fn of(length: Duration) -> Self {
        Self { length }
    }

    /// From the first act's beginning to the last one's end.
    #[must_use]
    pub const fn length(&self) -> Duration {
        self.length
    }

    /// The index of the act at this time; the last one after the end.
    #[must_use]
    pub fn act_at(&self, since_start: Duration) -> usize {
        let mut begun = (0..ACTS.len()).filter(|&act| self.begin_of(act) <= since_start);
        begun.next_back().unwrap_or_default()
    }

    /// When an act begins; the end for one that there is not.
    #[must_use]
    pub fn begin_of(&self, act: usize) -> Duration {
        let before: u32 = ACTS.iter().take(act).map(|act| act.share).sum();
        self.length * before / 60
    }

    /// What is done when, in this order.
    #[must_use]
    pub fn cues(&self) -> [(Duration, Cue); 4] {
        [
            (self.begin_of(2) + UPLINK_GOES_AFTER, Cue::CloudOff),
            (self.begin_of(3), Cue::Kill),
            (self.begin_of(3) + RESTART_PAUSE, Cue::Start),
            (self.begin_of(4), Cue::CloudOn),
        ]
    }

    /// What the fleet plays, as a scenario's text.
    #[must_use]
    pub fn scenario(&self) -> String {
        let mut text = format!(
            "[fleet]\nchannels = {CHANNELS}\nreport_seconds = 5\n\
             readings_per_second = {READINGS_PER_SECOND}\nalarms_per_minute = {ALARMS_PER_MINUTE}\n"
        );
        for (index, act) in ACTS.iter().enumerate() {
            let length = self.begin_of(index + 1) - self.begin_of(index);
            let kind = match act.factor {
                1 => "kind = \"steady\"".to_owned(),
                factor => format!("kind = \"burst\"\nfactor = {factor}"),
            };
            let seconds = length.as_secs_f64();
            // Writing to a String cannot fail.
            let _ = write!(text, "\n[[phase]]\n{kind}\nseconds = {seconds:.3}\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use firmware_sim::scenario::Scenario;

    #[test]
    fn does_the_fleet_play_the_same_acts() {
        for seconds in [20, 60, 600] {
            let story = Story::of(Duration::from_secs(seconds));
            let scenario = Scenario::read(&story.scenario()).unwrap();
            let lengths: Vec<_> = scenario.phases().map(|phase| phase.length).collect();
            assert_eq!(lengths.len(), ACTS.len());
            for (index, length) in lengths.iter().enumerate() {
                let ours = story.begin_of(index + 1) - story.begin_of(index);
                assert!(ours.abs_diff(*length) < Duration::from_millis(2));
            }
            assert!(scenario.length().abs_diff(story.length()) < Duration::from_millis(10));
        }
    }

    #[test]
    fn is_overload_ten_times_what_the_cloud_takes_and_calm_less_than_half() {
        let calm = u64::from(DEVICES * CHANNELS * READINGS_PER_SECOND);
        assert!(calm * 2 < CLOUD_RATE);
        assert_eq!(calm * u64::from(BURST_FACTOR), 10 * CLOUD_RATE);
    }

    #[test]
    fn is_every_cue_inside_its_act_even_in_the_shortest_story() {
        let story = Story::of(Duration::from_secs(20));
        let cues = story.cues();
        assert!(cues.is_sorted_by_key(|(at, _)| *at));
        let acts = cues.map(|(at, _)| story.act_at(at));
        assert_eq!(acts, [2, 3, 3, 4]);
        for (at, cue) in cues {
            let act = story.act_at(at);
            let left = story.begin_of(act + 1) - at;
            assert!(left >= Duration::from_secs(2), "{cue:?}: {left:?}");
            let away = ACTS[act].is_uplink_away;
            assert_eq!(away, cue != Cue::CloudOn, "{cue:?}");
        }
    }

    #[test]
    fn does_the_last_act_go_on_after_the_end() {
        let story = Story::of(Duration::from_secs(60));
        assert_eq!(story.act_at(Duration::ZERO), 0);
        assert_eq!(story.act_at(Duration::from_millis(9_999)), 0);
        assert_eq!(story.act_at(Duration::from_secs(10)), 1);
        assert_eq!(story.act_at(Duration::from_secs(99)), 4);
    }
}
