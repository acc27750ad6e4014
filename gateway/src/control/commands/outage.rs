//! How long the spool lasts without an uplink. In come the configuration and what is asked for
//! (messages a second, bytes of each); out goes a table, a line for each class that goes to disk.
//! It is reckoned, not measured: no file is looked at.

use std::fmt;
use std::time::Duration;

use clap::Args;

use crate::control::config::Config;
use crate::control::config::spool::{SEGMENT_BYTES, about};
use crate::control::config::units::show_time;
use crate::traffic::queue::{ClassSettings, Delivery};
use crate::traffic::spool::BLOCK_BYTES_MAX;

/// The messages of a site, to reckon with.
#[derive(Args, Clone, Copy, Debug)]
pub struct Load {
    /// Messages a second; without it, 10 and 100.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: Option<u64>,
    /// Bytes of a message: payload and topic.
    #[arg(long, value_name = "N", default_value_t = 150, value_parser = clap::value_parser!(u64).range(1..=1 << 28))]
    bytes: u64,
}

/// Rates that show what a rate means, where none is asked for.
const RATES: [u64; 2] = [10, 100];

/// What a record has beside topic and payload: id, times, flags, lengths. A test holds it to what is
/// written.
const RECORD_BYTES: u64 = 40;

/// What stands around the records of a block: magic, class, sequence, version, times, checksum.
const FRAME_BYTES: u64 = 52;

/// What redb keeps of a block in its page: key and place.
const ENTRY_BYTES: u64 = 12;

/// Buffered messages are written together within this time, guaranteed ones within `commit_interval`.
const BUFFERED_INTERVAL: Duration = Duration::from_secs(5);

/// The page of a redb file. Smaller blocks share one; a larger has its own, which is a power of two.
const PAGE_BYTES: u64 = 4096;

/// What redb takes beside the pages of the blocks, in 1/1000 of them: its tree, and the pages of the
/// last commits. Measured with redb 4.4 and blocks of 230 to 65,000 bytes: 1 to 3 %.
const TREE_PERMILLE: u64 = 1050;

/// How long each class's share of the spool lasts.
pub(super) struct Outage<'a> {
    config: &'a Config,
    load: Load,
}

impl<'a> Outage<'a> {
    pub(super) fn of(config: &'a Config, load: Load) -> Self {
        Self { config, load }
    }

    fn rates(&self) -> Vec<u64> {
        self.load.rate.map_or(RATES.to_vec(), |rate| vec![rate])
    }

    /// What the class may take of the disk. One segment is left out: where something gives way, it
    /// is a whole one.
    fn share_bytes(&self, class: &ClassSettings) -> u64 {
        let whole = self.config.spool.size_bytes_max;
        let share = class.spool_bytes_max.unwrap_or(whole).min(whole);
        share.saturating_sub(SEGMENT_BYTES)
    }

    fn lasts(&self, class: &ClassSettings, rate: u64) -> Lasts {
        let interval = match class.delivery {
            Delivery::Guaranteed => self.config.spool.policy.commit_interval,
            Delivery::Buffered | Delivery::Latest => BUFFERED_INTERVAL,
        };
        let milli = disk_milli_bytes(rate, self.load.bytes, interval);
        let messages = u128::from(self.share_bytes(class)) * 1000 / u128::from(milli);
        let full = Duration::from_secs(u64::try_from(messages).unwrap_or(u64::MAX) / rate);
        match class.ttl {
            Some(ttl) if ttl < full => Lasts::Expires(ttl),
            _ => Lasts::Full(full),
        }
    }
}

/// What ends it.
enum Lasts {
    /// The share is full.
    Full(Duration),
    /// The oldest is not worth sending any more; the share never fills.
    Expires(Duration),
}

/// Thousandths of a byte of the disk that one message takes, when so many come a second and those of
/// `interval` are written together.
fn disk_milli_bytes(rate: u64, message_bytes: u64, interval: Duration) -> u64 {
    let record = message_bytes + RECORD_BYTES;
    let come = rate as u128 * interval.as_millis() / 1000;
    let fit = (BLOCK_BYTES_MAX as u64 / record).max(1);
    let records = u64::try_from(come).unwrap_or(u64::MAX).clamp(1, fit);
    let block = records * record + FRAME_BYTES + ENTRY_BYTES;
    let pages = match PAGE_BYTES / block {
        0 | 1 => block.next_power_of_two().max(PAGE_BYTES) * 1000,
        several => PAGE_BYTES * 1000 / several,
    };
    (pages / records) * TREE_PERMILLE / 1000
}

impl fmt::Display for Outage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spool = &self.config.spool;
        writeln!(
            f,
            "The spool in {} takes up to {}. Without an uplink it lasts, for messages of {} bytes (payload and topic) of one class alone:",
            spool.dir.display(),
            about(spool.size_bytes_max),
            self.load.bytes
        )?;
        let names = self.config.classes.iter().map(|class| class.name.len());
        let width = names.max().unwrap_or(0);
        for class in &self.config.classes {
            write!(f, "  {:width$}  ", class.name)?;
            if class.delivery == Delivery::Latest {
                write!(f, "in memory: the newest value of each key")?;
                if let Some(thin) = class.thin {
                    let thin = show_time(thin);
                    write!(f, "; on disk: one value of each key in {thin}")?;
                }
                writeln!(f)?;
                continue;
            }
            let all = self.rates().into_iter().map(|rate| {
                let lasts = self.lasts(class, rate);
                format!("{lasts} at {rate} a second")
            });
            writeln!(f, "{}", all.collect::<Vec<_>>().join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Lasts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(time) => write!(f, "{}", hours(*time)),
            Self::Expires(ttl) => write!(f, "{} (its ttl)", hours(*ttl)),
        }
    }
}

/// Hours, with a decimal below ten; where they are hundreds, the days too.
fn hours(time: Duration) -> String {
    let minutes = time.as_secs() / 60;
    match minutes {
        0 => "less than a minute".to_owned(),
        1..60 => format!("{minutes} min"),
        60..600 => format!("{}.{} h", minutes / 60, minutes % 60 / 6),
        600..6_000 => format!("{} h", minutes / 60),
        _ => format!("{} h ({} d)", minutes / 60, minutes / 1440),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::config::tests::parse;
    use crate::traffic::message::{Body, ClassId, DoorId, Message, Receipt, Tick};
    use crate::traffic::spool::record;

    fn said(text: &str, rate: Option<u64>, bytes: u64) -> String {
        Outage::of(&parse(text), Load { rate, bytes }).to_string()
    }

    #[test]
    fn is_a_record_as_large_as_is_reckoned() {
        let body = Body::new("plant/3/vibration", &[], &[b'x'; 133]);
        let receipt = Receipt {
            door: DoorId::NOBODY,
            token: None,
        };
        let received = Tick::from_micros(Tick::START.micros() + 2_000_000);
        let message = Message {
            expires: Tick::from_micros(Tick::START.micros() + 7 * 86_400_000_000),
            epoch: u64::MAX / 3,
            sequence: 1 << 30,
            ..Message::new(body, ClassId(1), received, receipt)
        };
        let mut bytes = Vec::new();
        record::write(&mut bytes, &message, Tick::START);
        let beside = bytes.len() as u64 - 150;
        assert!((30..=RECORD_BYTES).contains(&beside), "{beside}");
    }

    /// Pages that redb 4.4 had allocated for blocks of one size, one to a commit, until its file
    /// grew over 16 MiB.
    #[test]
    fn is_the_disk_taken_as_measured() {
        for (block, blocks, pages) in [
            (230, 32_242, 2_057),
            (2_000, 4_260, 2_172),
            (3_000, 2_013, 2_053),
            (9_500, 591, 2_383),
            (33_000, 193, 3_100),
            (65_000, 193, 3_100),
        ] {
            let message = block - RECORD_BYTES - FRAME_BYTES;
            let reckoned = disk_milli_bytes(1, message, Duration::from_secs(1)) * blocks / 1000;
            let measured = pages * PAGE_BYTES;
            let permille = reckoned * 1000 / measured;
            assert!((990..=1_100).contains(&permille), "{block}: {permille}");
        }
    }

    #[test]
    fn does_the_table_say_hours_for_each_class() {
        let text = said("", None, 150);
        for part in [
            "The spool in tidegate-state/spool takes up to 1GiB.",
            "messages of 150 bytes",
            "\n  critical  ",
            "\n  normal    ",
            " h at 100 a second\n",
            "\n  low       in memory",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        // 1008 MiB, and some 190 bytes a message, 5 % more on disk: 5.3 million seconds at one a
        // second would be 61 days, but its time to live is over first.
        assert!(said("", Some(1), 150).contains("normal    168 h (7 d) (its ttl) at 1 a second"));
        let hours_at_100 = |text: &str| {
            let line = text.lines().find(|line| line.contains("normal")).unwrap();
            line.trim_start_matches("  normal")
                .trim()
                .split(' ')
                .next()
                .unwrap()
                .parse::<f64>()
                .unwrap()
        };
        let hours = hours_at_100(&said("", Some(100), 150));
        assert!((13.0..=15.0).contains(&hours), "{hours}");
    }

    #[test]
    fn does_a_share_of_the_class_count() {
        let classes =
            "[[class]]\nname = \"normal\"\ndelivery = \"buffered\"\nspool_max = \"32MiB\"\n";
        assert!(said(classes, Some(10_000), 1000).contains("less than a minute at"));
        assert!(said(classes, Some(1), 1 << 28).contains("less than a minute at"));
        assert_eq!(hours(Duration::from_secs(5_400)), "1.5 h");
        assert_eq!(hours(Duration::from_secs(90)), "1 min");
    }
}
