//! What the spool costs: beside a plain append and SQLite at the same batch size, at steady rates with the
//! uplink away, and at replay.
//!
//! `cargo bench -p tidegate --bench spool [FOLDER]`
//!
//! FOLDER is on the disk to be measured (the build's folder). Rounds of the three are interleaved, each
//! in another order, since a disk's speed changes under one's hands: only the ratios within a round mean
//! something, their median is given. All three encode the same records and sync each batch. Bytes
//! written are the kernel's count (`write_bytes` of /proc/self/io: whole pages of files, without the file
//! system's own journal). The steady rates go through the gateway's commit rules, with the time made up.

#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock and has files of its own"
)]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rustix::time::{ClockId, clock_gettime};
use tidegate::clock::Clock;
use tidegate::traffic::message::{Body, ClassId, DoorId, Message, Receipt, Tick};
use tidegate::traffic::spool::append::Appending;
use tidegate::traffic::spool::files::Files;
use tidegate::traffic::spool::replay::READ_AHEAD_BYTES;
use tidegate::traffic::spool::store::{Figures, Store};
use tidegate::traffic::spool::{
    Block, Position, SpoolClass, SpoolPolicy, SpoolReport, SpoolSettings, record,
};

const ROUNDS: usize = 9;
const MESSAGES: usize = 64 * 1024;
const PAYLOAD_BYTES: usize = 200;
const REPLAYED: usize = 256 * 1024;
const CLASS: ClassId = ClassId(0);
/// How long replay goes on between two commits of what is settled, in reads: some 100,000 messages
/// a second, and a commit each second.
const READS_PER_COMMIT: usize = 50;
const YEAR_SECONDS: f64 = 365.25 * 86_400.0;
/// What a common SD card of 32 to 64 GB is sold to endure.
const CARD_BYTES: f64 = 100e12;

fn main() {
    let folder = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let folder = folder.map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let folder = folder.join("spool-bench");
    for batch in [256, 1024] {
        beside(&folder, batch);
    }
    for (name, interval) in [
        ("guaranteed", Duration::from_millis(100)),
        ("buffered", Duration::from_secs(5)),
    ] {
        for (rate, seconds) in [(1, 600), (100, 60), (10_000, 10)] {
            steady(&folder, name, interval, rate, seconds);
        }
    }
    replay(&folder);
    let _ = fs::remove_dir_all(&folder);
}

/// What one round took.
#[derive(Clone, Copy, Default)]
struct Took {
    seconds: f64,
    cpu_seconds: f64,
    written_bytes: u64,
    syncs: u64,
}

fn measured(act: impl FnOnce() -> u64) -> Took {
    let (written, cpu, start) = (written_bytes(), cpu_seconds(), Instant::now());
    let syncs = act();
    Took {
        seconds: start.elapsed().as_secs_f64(),
        cpu_seconds: cpu_seconds() - cpu,
        written_bytes: written_bytes() - written,
        syncs,
    }
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn written_bytes() -> u64 {
    let counts = fs::read_to_string("/proc/self/io").expect("Linux counts");
    let line = counts
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).expect("a number")
}

fn beside(folder: &Path, batch: usize) {
    let ways: [(&str, Way); 3] = [("append", append), ("spool", spool), ("SQLite", sqlite)];
    let mut took = [const { Vec::new() }; 3];
    for round in 0..ROUNDS {
        for turn in 0..ways.len() {
            let which = (round + turn) % ways.len();
            let folder = fresh(folder);
            took[which].push(measured(ways[which].1(&folder, batch)));
        }
    }
    println!(
        "\n{batch} messages a commit, {PAYLOAD_BYTES} bytes of payload, {ROUNDS} rounds of {MESSAGES}"
    );
    println!(
        "             to append (least-most)   msg/s     us CPU/msg   syncs/commit   bytes/byte"
    );
    for (which, (name, _)) in ways.iter().enumerate() {
        let pairs = took[which].iter().zip(&took[0]);
        let ratios = sorted(pairs.map(|(own, append)| append.seconds / own.seconds));
        let of = |what: fn(&Took) -> f64| median(&sorted(took[which].iter().map(what)));
        println!(
            "{name:10}   {:6.2} ({:.2}-{:.2})      {:9.0}   {:8.2}   {:12.2}   {:12.2}",
            median(&ratios),
            ratios[0],
            ratios[ratios.len() - 1],
            MESSAGES as f64 / of(|took| took.seconds),
            1e6 * of(|took| took.cpu_seconds) / MESSAGES as f64,
            of(|took| took.syncs as f64) / (MESSAGES / batch) as f64,
            of(|took| took.written_bytes as f64) / (MESSAGES * PAYLOAD_BYTES) as f64,
        );
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

fn fresh(folder: &Path) -> PathBuf {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).expect("a folder to measure in");
    folder.to_owned()
}

fn message(number: usize, received: Tick) -> Message {
    let mut payload =
        format!(r#"{{"device":"pump-17","seq":{number},"rms":3.25,"noise":""#).into_bytes();
    let mut noise = number as u64;
    while payload.len() < PAYLOAD_BYTES - 2 {
        noise = noise
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        payload.push(b'a' + (noise >> 59) as u8 % 26);
    }
    payload.extend_from_slice(b"\"}");
    let receipt = Receipt {
        door: DoorId::NOBODY,
        token: None,
    };
    let body = Body::new("plant/line4/pump17/vibration", b"", &payload);
    Message {
        epoch: 0x0123_4567_89AB_CDEF,
        sequence: number as u64,
        ..Message::new(body, CLASS, received, receipt)
    }
}

/// A round that is about to begin: its files are made. Gives its syncs.
type Round = Box<dyn FnOnce() -> u64>;
/// Makes a round's files in a folder, for so many messages a commit.
type Way = fn(&Path, usize) -> Round;

fn append(folder: &Path, batch: usize) -> Round {
    let file = File::create(folder.join("plain")).expect("a file");
    Box::new(move || append_all(file, batch))
}

fn append_all(mut file: File, batch: usize) -> u64 {
    let now = Clock::start().now();
    let mut records = Vec::new();
    let mut syncs = 0;
    for number in 0..MESSAGES {
        record::write(&mut records, &message(number, now), now);
        if (number + 1) % batch == 0 {
            file.write_all(&records).expect("room");
            file.sync_data().expect("a disk");
            records.clear();
            syncs += 1;
        }
    }
    syncs
}

fn sqlite(folder: &Path, batch: usize) -> Round {
    let base = Connection::open(folder.join("lite")).expect("a database");
    base.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE records (number INTEGER PRIMARY KEY, record BLOB NOT NULL);",
    )
    .expect("a table");
    Box::new(move || insert_all(base, batch))
}

fn insert_all(mut base: Connection, batch: usize) -> u64 {
    let now = Clock::start().now();
    let mut record = Vec::new();
    for first in (0..MESSAGES).step_by(batch) {
        let transaction = base.transaction().expect("a transaction");
        {
            let mut insert = transaction
                .prepare_cached("INSERT INTO records VALUES (?1, ?2)")
                .expect("a statement");
            for number in first..first + batch {
                record.clear();
                record::write(&mut record, &message(number, now), now);
                insert.execute((number as i64, &record)).expect("room");
            }
        }
        transaction.commit().expect("a disk");
    }
    // Those of its checkpoints are not counted.
    (MESSAGES / batch) as u64
}

/// The spool's store with the relay's rules before it.
struct Spooling {
    store: Store,
    clock: Clock,
    appending: Appending,
    next_segment: u32,
}

impl Spooling {
    fn open(folder: &Path, interval: Duration) -> Self {
        let settings = SpoolSettings {
            dir: folder.to_owned(),
            size_bytes_max: 4 << 30,
            disk_free_bytes_min: 0,
            policy: SpoolPolicy::default(),
            classes: vec![SpoolClass {
                name: "critical".into(),
                evictable: false,
                bytes_max: None,
            }],
            default_class: CLASS,
        };
        let disk = Box::new(Files::new(folder.to_owned()));
        let store = Store::open(disk, settings).expect("a spool");
        Self {
            next_segment: store.next_segment(),
            store,
            clock: Clock::start(),
            appending: Appending::new(CLASS, interval),
        }
    }

    /// Gives whether a block went to the store.
    fn write(&mut self, mut message: Message, now: Tick) -> bool {
        let full = self.appending.overflows(&message) && self.close();
        self.appending
            .write(&mut message, now, &mut self.next_segment);
        full
    }

    fn close(&mut self) -> bool {
        match self.appending.close() {
            Some((block, _)) => {
                self.append(block);
                true
            }
            _ => false,
        }
    }

    fn append(&mut self, block: Block) {
        self.store.append(block, self.clock.moment());
    }

    fn commit(&mut self) {
        self.store.commit(self.clock.moment());
        for report in self.store.take_reports() {
            let SpoolReport::Safe { positions, .. } = report else {
                panic!("the disk fails: {report:?}");
            };
            self.appending.safe(&positions);
        }
    }
}

fn spool(folder: &Path, batch: usize) -> Round {
    let mut spooling = Spooling::open(folder, Duration::from_secs(60));
    // The first commit makes the ballast, once in the life of a spool.
    let now = spooling.clock.now();
    spooling.write(message(0, now), now);
    spooling.close();
    spooling.commit();
    Box::new(move || spool_all(spooling, batch))
}

fn spool_all(mut spooling: Spooling, batch: usize) -> u64 {
    let before = spooling.store.figures().syncs;
    let now = spooling.clock.now();
    for number in 0..MESSAGES {
        spooling.write(message(number, now), now);
        if (number + 1) % batch == 0 {
            spooling.close();
            spooling.commit();
        }
    }
    spooling.store.figures().syncs - before
}

/// The uplink is away; messages come at a steady rate.
fn steady(folder: &Path, name: &str, interval: Duration, rate: u64, seconds: u64) {
    let mut spooling = Spooling::open(&fresh(folder), interval);
    let start = spooling.clock.now();
    // The first commit makes the file.
    spooling.write(message(0, start), start);
    spooling.close();
    spooling.commit();
    let before = spooling.store.figures();
    let took = measured(|| {
        for number in 1..=rate * seconds {
            let now = start.after(Duration::from_micros(number * 1_000_000 / rate));
            if spooling.appending.due() <= now && spooling.close() {
                spooling.commit();
            }
            if spooling.write(message(number as usize, now), now) {
                spooling.commit();
            }
        }
        0
    });
    let figures = spooling.store.figures();
    let of = |count: fn(&Figures) -> u64| (count(&figures) - count(&before)) as f64;
    let messages = (rate * seconds) as f64;
    let a_second = took.written_bytes as f64 / seconds as f64;
    println!(
        "{name:10} {rate:6} msg/s offline: {:7.2} commits/s, {:7.2} syncs/s, {:6.2} bytes written for each of payload (redb: {:.2}), {:9.0} B/s, {:6.2} us CPU/msg: 100 TB in {:.1} years",
        of(|figures| figures.commits) / seconds as f64,
        of(|figures| figures.syncs) / seconds as f64,
        took.written_bytes as f64 / messages / PAYLOAD_BYTES as f64,
        of(|figures| figures.written_bytes) / messages / PAYLOAD_BYTES as f64,
        a_second,
        1e6 * took.cpu_seconds / messages,
        CARD_BYTES / a_second / YEAR_SECONDS,
    );
}

fn replay(folder: &Path) {
    let mut all = Vec::new();
    for _ in 0..ROUNDS {
        let folder = fresh(folder);
        let mut spooling = Spooling::open(&folder, Duration::from_secs(60));
        let now = spooling.clock.now();
        for number in 0..REPLAYED {
            if spooling.write(message(number, now), now) {
                spooling.commit();
            }
        }
        spooling.close();
        spooling.commit();
        drop(spooling);
        let mut spooling = Spooling::open(&folder, Duration::from_secs(60));
        while spooling.store.scan(spooling.clock.moment()) {}
        spooling.store.take_reports();
        let mut replayed = 0;
        let took = measured(|| {
            replayed = read_all(&mut spooling);
            spooling.store.figures().syncs
        });
        assert_eq!(replayed, REPLAYED);
        all.push(took);
    }
    let cpu = sorted(
        all.iter()
            .map(|took| 1e6 * took.cpu_seconds / REPLAYED as f64),
    );
    let seconds = sorted(all.iter().map(|took| took.seconds));
    println!(
        "\nreplay to a sink that costs nothing: {:.2} us CPU/msg ({:.2}-{:.2}), {:.0} msg/s, {} syncs for {REPLAYED}",
        median(&cpu),
        cpu[0],
        cpu[cpu.len() - 1],
        REPLAYED as f64 / median(&seconds),
        all[0].syncs
    );
}

/// Reads as the relay does, and settles at once.
fn read_all(spooling: &mut Spooling) -> usize {
    let until = Position::new(spooling.next_segment, 0);
    let (mut from, mut replayed, mut reads) = (Position::FIRST, 0, 0);
    while from < until {
        let now = spooling.clock.moment();
        spooling
            .store
            .read(CLASS, from, until, READ_AHEAD_BYTES / 2, now);
        let report = spooling.store.take_reports().pop();
        let Some(SpoolReport::Records {
            looked_at,
            messages,
            ..
        }) = report
        else {
            panic!("the disk fails: {report:?}");
        };
        let settled: Vec<_> = messages
            .iter()
            .filter_map(|message| message.spooled)
            .collect();
        replayed += messages.len();
        spooling.store.settle(&settled);
        reads += 1;
        if spooling.store.has_drained() || reads % READS_PER_COMMIT == 0 {
            spooling.commit();
        }
        from = looked_at.end;
    }
    replayed
}
