//! What happens to a message of a class: in good times, under pressure, without an uplink, and when
//! the disk is full too. Made from the class's settings, as sentences for the operator.

use super::explain::{bytes, time};
use crate::traffic::queue::{ClassSettings, Delivery, WhenFull};
use crate::traffic::spool::Order;

/// What happens to a message of a class, in sentences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// While the uplink takes what comes.
    pub calm: String,
    /// While more comes than the uplink takes, or the class's memory is full.
    pub pressure: String,
    /// While there is no uplink.
    pub offline: String,
    /// When its share of the disk is full, or the disk fails.
    pub disk_full: String,
}

impl Fate {
    pub(super) fn of(class: &ClassSettings) -> Self {
        match class.delivery {
            Delivery::Guaranteed => Self::guaranteed(class),
            Delivery::Buffered => Self::buffered(class),
            Delivery::Latest => Self::latest(class).thinned(class),
        }
    }

    fn guaranteed(class: &ClassSettings) -> Self {
        let home = coming_home(class);
        Self {
            calm: "sent in its turn; acknowledged to its sender when the upstream has acknowledged it; the disk is not touched".into(),
            pressure: "waits in its turn; when it is late (`spool_after`) it is written to the spool, and acknowledged to its sender when the upstream has it or the disk keeps it, whichever is first".into(),
            offline: format!("written to the spool when it is late, and acknowledged to its sender when the disk keeps it (`commit_interval`); neither crash nor power cut takes what is acknowledged; {home}"),
            disk_full: format!("when {}, it is held unacknowledged and its sender paused (at QoS 0, which nobody could bring again, it is refused and counted); while the uplink is there, it goes on live, acknowledged when the upstream has it", share(class)),
        }
    }

    fn buffered(class: &ClassSettings) -> Self {
        let (memory, home) = (memory(class), coming_home(class));
        Self {
            calm: "acknowledged when admitted to memory; sent in its turn; the disk is not touched"
                .into(),
            pressure: format!(
                "waits in memory; when the class has filled its {memory}, it overflows to the spool; what memory and disk have no room for is shed and counted: {}",
                dropped(class)
            ),
            offline: format!(
                "goes to the spool within 5 s; a crash takes what is not written yet; {home}"
            ),
            disk_full: format!(
                "when {}, its oldest is evicted and counted; while the disk fails, it waits in memory alone, and what finds no room is shed and counted: {}",
                share(class),
                dropped(class)
            ),
        }
    }

    fn latest(class: &ClassSettings) -> Self {
        let memory = memory(class);
        Self {
            calm: "acknowledged when admitted to memory; every value is sent in its turn".into(),
            pressure: format!(
                "{}: only the newest value of each key stays, in the place of the oldest, the older is superseded and counted; what goes out says how many it stands for (`properties = \"full\"`); when the keys alone fill its {memory}, a message is shed and counted: {}; all values are sent again {} after the uplink can take them",
                begins(class),
                dropped(class),
                time(class.pressure.stay),
            ),
            offline: "the newest value of each key waits in memory until the uplink is back, the older is superseded and counted; a clean stop keeps it in the spool until the next start, a crash takes it".into(),
            disk_full: "nothing changes for it, but that a clean stop may have no room to keep it; what gives way is counted".into(),
        }
    }

    pub(super) fn discard() -> Self {
        let gone = "acknowledged to its sender, counted as shed, gone";
        Self {
            calm: gone.into(),
            pressure: gone.into(),
            offline: gone.into(),
            disk_full: gone.into(),
        }
    }
}

/// When pressure begins.
fn begins(class: &ClassSettings) -> String {
    let (memory, percent) = (memory(class), class.pressure.full_on_permille as f64 / 10.0);
    let age = time(class.pressure.age_on);
    format!(
        "when {percent} % of its {memory} are full, or what goes next has waited {age}, or the gateway's memory is short"
    )
}

/// What gives way when there is no room.
fn dropped(class: &ClassSettings) -> &'static str {
    match class.when_full {
        WhenFull::DropOldest => "the oldest",
        WhenFull::DropNewest => "what comes, and its sender is told where MQTT 5 can",
    }
}

fn memory(class: &ClassSettings) -> String {
    format!("{} of memory", bytes(class.queue_bytes_max))
}

/// What is full when the class has no more room on disk.
fn share(class: &ClassSettings) -> String {
    let whole = "the spool is full and no lower class is left to give way";
    match class.spool_bytes_max {
        Some(share) => format!("its {} of the spool are full, or {whole}", bytes(share)),
        None => whole.to_owned(),
    }
}

/// How it leaves when the uplink is back.
pub(super) fn coming_home(class: &ClassSettings) -> String {
    let order = match class.order {
        Order::Strict => "in the order of receipt, before what is new",
        Order::LiveFirst => "behind what is new, which leaves it a share (`backlog_share`)",
    };
    match &class.replay_topic {
        Some(topic) => format!("when the uplink is back, it is sent {order}, as {topic}"),
        None => format!("when the uplink is back, it is sent {order}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::verdict::tests::classes;
    use super::*;

    #[test]
    fn is_what_the_class_says_of_the_disk_told() {
        let [mut critical, mut normal, low] = <[_; 3]>::try_from(classes()).unwrap();
        critical.order = Order::Strict;
        let fate = Fate::of(&critical);
        assert!(
            fate.offline
                .ends_with("in the order of receipt, before what is new")
        );
        assert!(
            fate.disk_full
                .contains("no lower class is left to give way, it is held")
        );
        normal.replay_topic = Some("old/{topic}".to_owned());
        normal.spool_bytes_max = Some(64 << 20);
        let fate = Fate::of(&normal);
        assert!(
            fate.pressure
                .contains("its 8 MiB of memory, it overflows to the spool")
        );
        assert!(fate.offline.ends_with("(`backlog_share`), as old/{topic}"));
        assert!(
            fate.disk_full
                .starts_with("when its 64 MiB of the spool are full, or the spool is full")
        );
        let fate = Fate::of(&low);
        assert!(fate.offline.contains("a clean stop keeps it") && !fate.pressure.contains("spool"));
    }

    #[test]
    fn are_the_thresholds_and_what_gives_way_told() {
        let [_, mut normal, mut low] = <[_; 3]>::try_from(classes()).unwrap();
        low.pressure.full_on_permille = 405;
        low.pressure.age_on = std::time::Duration::from_millis(1500);
        low.pressure.stay = std::time::Duration::from_secs(60);
        let fate = Fate::of(&low);
        assert!(
            fate.pressure
                .starts_with("when 40.5 % of its 8 MiB of memory are full, or what goes next has waited 1500 ms, or the gateway's memory is short: only the newest")
        );
        assert!(fate.pressure.contains("shed and counted: the oldest"));
        assert!(
            fate.pressure
                .ends_with("1 min after the uplink can take them")
        );
        normal.when_full = WhenFull::DropNewest;
        let fate = Fate::of(&normal);
        assert!(
            fate.pressure
                .contains("counted: what comes, and its sender is told")
        );
    }
}
