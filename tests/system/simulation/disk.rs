//! The simulated disk: obeys the relay in order and some time later, keeps what is committed, and breaks
//! in all the ways that its dice allow: slow, full, failing, a read that brings nothing, a segment that
//! gives way or is damaged. What is settled is kept with the next commit or after a second: a crash
//! forgets the last of it, and everything that was not committed.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

use tidegate::traffic::message::{ClassId, Message, MessageId, Tick};
use tidegate::traffic::queue::{ClassSettings, Delivery};
use tidegate::traffic::settle::Outcome;
use tidegate::traffic::spool::{
    Block, DiskHealth, Position, Ranges, SpoolCommand, SpoolReport, Unwritten, dead_log, record,
};

use super::{Dice, identity_of};

/// For so long a settled record may come back.
const KEPT_AFTER: Duration = Duration::from_secs(1);
/// A class that keeps its order waits no longer for a read: what is older may be overtaken then.
const PATIENCE: Duration = Duration::from_secs(2);

pub struct Disk {
    classes: Vec<ClassState>,
    delay_micros: u64,
    trouble_permille: u64,
    /// How bad it gets: 0 gives way only, 1 is slow and full too, 2 fails and loses reads, 3 is damaged.
    worst: u64,
    commands: VecDeque<(Tick, SpoolCommand)>,
    reports: VecDeque<(Tick, SpoolReport)>,
    records: BTreeMap<Position, Record>,
    /// Settled, but not kept so.
    unkept: BTreeMap<Position, (Tick, Record)>,
    /// Segments of which a block was not written.
    refused: HashSet<u32>,
    slow_until: Tick,
    full_until: Tick,
    failing_until: Tick,
    failing: bool,
    /// The relay knows that.
    told_failing: bool,
    told: bool,
    loses_reads: bool,
    life_began: Tick,
    /// When something was last not written, and when something was last gone.
    pub unwritten_at: Option<Tick>,
    pub gone_at: Option<Tick>,
    gone: Vec<String>,
    pub appended: u64,
    /// Identities of what was ever committed, of what is gone, and of dead letters that were ever
    /// committed.
    pub committed: HashSet<String>,
    pub buried: HashSet<String>,
    pub evicted: HashSet<String>,
    pub damaged: HashSet<String>,
}

struct ClassState {
    /// Dead letters stand here.
    dead: bool,
    evictable: bool,
    asked: Option<Tick>,
    barren: bool,
    scanned: bool,
    /// What the relay was told of earlier starts.
    found: u64,
}

struct Record {
    message: Message,
    identity: String,
    /// Nobody knows it yet.
    damaged: bool,
}

impl Disk {
    pub fn new(dice: &mut Dice, classes: &[ClassSettings]) -> Self {
        let log = |evictable, dead| ClassState {
            dead,
            evictable,
            asked: None,
            barren: false,
            scanned: false,
            found: 0,
        };
        let own = classes.iter().map(|class| class.delivery);
        let state = own.map(|own| log(own != Delivery::Guaranteed, false));
        let delay_most = [30_000, 30_000, 1_000_000][dice.below(3) as usize];
        Self {
            classes: state
                .chain(classes.iter().map(|_| log(true, true)))
                .collect(),
            delay_micros: 1 + dice.below(delay_most),
            trouble_permille: dice.below(30),
            worst: dice.below(4),
            commands: VecDeque::new(),
            reports: VecDeque::new(),
            records: BTreeMap::new(),
            unkept: BTreeMap::new(),
            refused: HashSet::new(),
            slow_until: Tick::ZERO,
            full_until: Tick::ZERO,
            failing_until: Tick::ZERO,
            failing: false,
            told_failing: false,
            told: false,
            loses_reads: false,
            life_began: Tick::ZERO,
            unwritten_at: None,
            gone_at: None,
            gone: Vec::new(),
            appended: 0,
            committed: HashSet::new(),
            buried: HashSet::new(),
            evicted: HashSet::new(),
            damaged: HashSet::new(),
        }
    }

    /// From now on nothing breaks any more.
    pub fn heal(&mut self) {
        self.trouble_permille = 0;
        self.loses_reads = false;
        self.delay_micros = self.delay_micros.min(10_000);
        self.heal_for_now();
    }

    /// What breaks now is mended.
    pub fn heal_for_now(&mut self) {
        for until in [
            &mut self.slow_until,
            &mut self.full_until,
            &mut self.failing_until,
        ] {
            *until = Tick::ZERO;
        }
    }

    /// Whether it took everything of late, and nothing of what it has was gone in this life.
    pub fn was_well(&self, now: Tick) -> bool {
        if !self.told {
            return false;
        }
        let refused = self.unwritten_at;
        let of_late = refused.is_some_and(|at| now.since(at) < Duration::from_secs(7));
        !self.failing && !self.told_failing && !of_late && self.gone_at.is_none()
    }

    /// Whether nothing unsettled stands there, and nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.commands.is_empty()
    }

    /// Where dead letters of a class stand.
    pub fn dead_letters(&self, class: ClassId) -> Vec<Position> {
        let log = dead_log(class, self.classes.len() / 2);
        let records = self.records.iter();
        let dead = records.filter(|(_, record)| record.message.class == log);
        dead.map(|(at, _)| *at).collect()
    }

    /// Unsettled records of a class.
    pub fn count(&self, class: ClassId) -> u64 {
        let records = self.records.values();
        records.filter(|r| r.message.class == class).count() as u64
    }

    /// What the relay was told that earlier starts left of a class.
    pub fn found(&self, class: ClassId) -> u64 {
        self.classes[class.index()].found
    }

    /// Identities of all unsettled records, dead letters included.
    pub fn identities(&self) -> HashSet<&str> {
        let records = self.records.values();
        records.map(|record| record.identity.as_str()).collect()
    }

    /// Whether the disk keeps a class waiting that keeps its order, for so long that what is live goes.
    pub fn is_overtaken(&self, class: ClassId, now: Tick) -> bool {
        let state = &self.classes[class.index()];
        let since = match state.scanned {
            true => state.asked,
            false => Some(self.life_began),
        };
        let late = since.is_some_and(|since| now.since(since) >= PATIENCE);
        self.told_failing || state.barren || late
    }

    pub fn knows_all(&self, class: ClassId) -> bool {
        self.classes[class.index()].scanned
    }

    pub fn trouble(&mut self, dice: &mut Dice, now: Tick) {
        if !dice.permille(self.trouble_permille) {
            return;
        }
        let until = now.after(Duration::from_micros(dice.below(5_000_000)));
        match dice.below(self.worst * 2 + 1) {
            0 => self.give_way(None, now),
            1 => self.slow_until = until,
            2 => self.full_until = until,
            3 => self.failing_until = until,
            4 => self.loses_reads = dice.permille(500),
            _ if dice.permille(200) => self.damage(dice, now),
            _ => {}
        }
    }

    /// Takes a command.
    pub fn command(&mut self, command: SpoolCommand, dice: &mut Dice, now: Tick) {
        if let SpoolCommand::Read { class, .. } = &command {
            self.classes[class.index()].asked = Some(now);
        }
        let at = self.some_time_later(self.commands.back().map(|(at, _)| *at), dice, now);
        self.commands.push_back((at, command));
    }

    /// Does what is due; gives what the relay is told now.
    pub fn step(&mut self, dice: &mut Dice, now: Tick) -> Vec<SpoolReport> {
        self.follow_health(dice, now);
        while self.commands.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, command)) = self.commands.pop_front() {
                self.obey(command, dice, now);
            }
        }
        if !self.failing {
            self.unkept.retain(|_, (at, _)| now.since(*at) < KEPT_AFTER);
        }
        let mut told = Vec::new();
        while self.reports.front().is_some_and(|(at, _)| *at <= now) {
            told.extend(self.reports.pop_front().map(|(_, report)| report));
        }
        told.iter().for_each(|report| self.note(report));
        told
    }

    /// What lost its place since the last call.
    pub fn take_gone(&mut self) -> Vec<String> {
        std::mem::take(&mut self.gone)
    }

    /// The relay hears this now.
    fn note(&mut self, report: &SpoolReport) {
        match report {
            SpoolReport::Found { class, ranges } => {
                let counts = ranges.iter().map(|range| range.end.since(range.start));
                self.classes[class.index()].found += counts.sum::<u64>();
            }
            SpoolReport::Scanned { class } => self.classes[class.index()].scanned = true,
            SpoolReport::Records {
                class, looked_at, ..
            } => {
                let class = &mut self.classes[class.index()];
                class.asked = None;
                class.barren = looked_at.is_empty();
            }
            SpoolReport::Health(health) => {
                self.told = true;
                self.told_failing = matches!(health, DiskHealth::Failing(_));
            }
            _ => {}
        }
    }

    fn obey(&mut self, command: SpoolCommand, dice: &mut Dice, now: Tick) {
        match command {
            SpoolCommand::Append(block) => self.append(block, dice, now),
            SpoolCommand::Settle(positions) => {
                for position in positions {
                    if let Some(record) = self.records.remove(&position) {
                        self.unkept.insert(position, (now, record));
                    }
                }
            }
            SpoolCommand::Read {
                class,
                from,
                until,
                bytes_max,
            } => {
                let report = if self.failing || self.loses_reads && dice.permille(500) {
                    SpoolReport::Records {
                        class,
                        looked_at: from..from,
                        messages: Vec::new(),
                    }
                } else {
                    self.read(class, from..until, bytes_max)
                };
                self.report(report, dice, now);
            }
            SpoolCommand::KeepSettled if !self.failing => self.unkept.clear(),
            SpoolCommand::KeepSettled | SpoolCommand::Keep(_) | SpoolCommand::Ask { .. } => {}
        }
    }

    fn append(&mut self, block: Block, dice: &mut Dice, now: Tick) {
        let (class, positions) = (block.class, block.positions());
        let full = now < self.full_until;
        let refused = self.refused.contains(&positions.start.segment());
        if full && !refused && self.classes[class.index()].evictable && dice.permille(500) {
            self.give_way(Some(class), now);
        } else if self.failing || full || refused {
            self.refused.insert(positions.start.segment());
            self.unwritten_at = Some(now);
            let why = match self.failing {
                true => Unwritten::Failing,
                false => Unwritten::Full,
            };
            let report = SpoolReport::Unwritten {
                class,
                positions,
                why,
            };
            return self.report(report, dice, now);
        }
        self.keep(block);
        self.unkept.clear();
        self.report(SpoolReport::Safe { class, positions }, dice, now);
    }

    fn keep(&mut self, block: Block) {
        let mut rest = &block.records[..];
        for index in 0..block.count {
            let at = block.first.plus(index);
            let (message, bytes) = record::read(rest, block.class, at, block.opened).unwrap();
            rest = &rest[bytes..];
            let identity = identity_of(message.body.payload());
            match self.classes[block.class.index()].dead {
                true => self.buried.insert(identity.clone()),
                false => self.committed.insert(identity.clone()),
            };
            let record = Record {
                message,
                identity,
                damaged: false,
            };
            self.appended += 1;
            assert!(self.records.insert(at, record).is_none(), "{at:?} twice");
        }
        assert!(rest.is_empty(), "more than was counted");
    }

    fn read(&mut self, class: ClassId, wanted: Range<Position>, bytes_max: u64) -> SpoolReport {
        let (mut messages, mut bytes, mut end) = (Vec::new(), 0, wanted.end);
        let mut bad = Vec::new();
        for (at, record) in self.records.range(wanted.clone()) {
            if record.message.class != class {
                continue;
            }
            if record.damaged {
                bad.push(*at);
                continue;
            }
            bytes += record.message.memory_bytes();
            if bytes > bytes_max && !messages.is_empty() {
                end = *at;
                break;
            }
            messages.push(record.message.clone());
        }
        bad.iter().for_each(|at| drop(self.records.remove(at)));
        SpoolReport::Records {
            class,
            looked_at: wanted.start..end,
            messages,
        }
    }

    /// The oldest segment of a class that may goes.
    fn give_way(&mut self, class: Option<ClassId>, now: Tick) {
        let mut records = self.records.iter();
        let oldest = records.find(|(_, record)| {
            let own = record.message.class;
            self.classes[own.index()].evictable && class.is_none_or(|class| class == own)
        });
        let Some(segment) = oldest.map(|(at, _)| at.segment()) else {
            return;
        };
        let (class, positions, identities) = self.remove(segment);
        self.evicted.extend(identities);
        self.tell_gone(class, positions, Outcome::Evicted, now);
    }

    fn damage(&mut self, dice: &mut Dice, now: Tick) {
        let segments: Vec<_> = self.records.keys().map(|at| at.segment()).collect();
        if segments.is_empty() {
            return;
        }
        let segment = segments[dice.below(segments.len() as u64) as usize];
        if dice.permille(500) {
            let (class, positions, identities) = self.remove(segment);
            self.damaged.extend(identities);
            return self.tell_gone(class, positions, Outcome::Damaged, now);
        }
        self.gone_at = Some(now);
        for (_, record) in self.records.range_mut(whole(segment)) {
            record.damaged |= dice.permille(300);
            if record.damaged {
                self.damaged.insert(record.identity.clone());
            }
        }
    }

    fn remove(&mut self, segment: u32) -> (ClassId, Range<Position>, Vec<String>) {
        let there: Vec<_> = self
            .records
            .range(whole(segment))
            .map(|(at, _)| *at)
            .collect();
        let there = there
            .into_iter()
            .map(|at| (at, self.records.remove(&at).unwrap()));
        let there: Vec<_> = there.collect();
        self.unkept.retain(|at, _| at.segment() != segment);
        let positions = there[0].0..there[there.len() - 1].0.plus(1);
        let class = there[0].1.message.class;
        let identities = there.into_iter().map(|(_, record)| record.identity);
        let identities: Vec<_> = identities.collect();
        self.gone.extend(identities.iter().cloned());
        (class, positions, identities)
    }

    fn tell_gone(
        &mut self,
        class: ClassId,
        positions: Range<Position>,
        outcome: Outcome,
        now: Tick,
    ) {
        self.gone_at = Some(now);
        let report = SpoolReport::Gone {
            class,
            positions,
            outcome,
        };
        let at = self.reports.back().map_or(now, |(at, _)| now.max(*at));
        self.reports.push_back((at, report));
    }

    fn follow_health(&mut self, dice: &mut Dice, now: Tick) {
        let failing = now < self.failing_until;
        if failing != self.failing {
            self.failing = failing;
            let health = match failing {
                true => DiskHealth::Failing("the simulated disk fails".into()),
                false => DiskHealth::Well,
            };
            self.report(SpoolReport::Health(health), dice, now);
        }
    }

    fn report(&mut self, report: SpoolReport, dice: &mut Dice, now: Tick) {
        let at = self.some_time_later(self.reports.back().map(|(at, _)| *at), dice, now);
        self.reports.push_back((at, report));
    }

    fn some_time_later(&self, last: Option<Tick>, dice: &mut Dice, now: Tick) -> Tick {
        let at = now.after(Duration::from_micros(dice.below(self.delay_micros)));
        at.max(self.slow_until.min(now.after(Duration::from_secs(5))))
            .max(last.unwrap_or(Tick::ZERO))
    }

    /// The gateway is gone, and the writer with it. Gives the ids of what is settled and comes back.
    pub fn crash(&mut self) -> Vec<MessageId> {
        let commands = std::mem::take(&mut self.commands);
        let mut settled = Vec::new();
        for (_, command) in commands {
            if let SpoolCommand::Settle(positions) = command {
                let records = positions.iter().filter_map(|at| self.records.get(at));
                settled.extend(records.map(|record| record.message.id()));
            }
        }
        for (at, (_, record)) in std::mem::take(&mut self.unkept) {
            settled.push(record.message.id());
            self.records.insert(at, record);
        }
        // A dead letter that was safe before what it was before was settled.
        let mut once = HashSet::new();
        let ids = self.records.values().map(|record| record.message.id());
        settled.extend(ids.filter(|id| !once.insert(*id)));
        self.reports.clear();
        settled
    }

    /// The writer ends as it should: everything is obeyed and kept.
    pub fn close(&mut self, dice: &mut Dice, now: Tick) {
        while let Some((_, command)) = self.commands.pop_front() {
            self.obey(command, dice, now);
        }
        if !self.failing {
            self.unkept.clear();
        }
    }

    /// A new start: tells what it finds. Gives the number of the next segment.
    pub fn open(&mut self, dice: &mut Dice, now: Tick) -> u32 {
        self.life_began = now;
        (self.told, self.told_failing) = (false, false);
        self.unwritten_at = None;
        self.gone_at = None;
        self.refused.clear();
        for class in &mut self.classes {
            (class.asked, class.barren, class.scanned, class.found) = (None, false, false, 0);
        }
        self.failing = now < self.failing_until;
        let health = match self.failing {
            true => DiskHealth::Failing("the simulated disk fails".into()),
            false => DiskHealth::Well,
        };
        self.report(SpoolReport::Health(health), dice, now);
        for index in 0..self.classes.len() as u8 {
            let class = ClassId(index);
            for ranges in self.unsettled(class) {
                self.report(
                    SpoolReport::Found {
                        class,
                        ranges: ranges.clone(),
                    },
                    dice,
                    now,
                );
                if self.worst == 3 && dice.permille(100) {
                    self.lose_one(class, &ranges, dice, now);
                }
            }
            self.report(SpoolReport::Scanned { class }, dice, now);
        }
        let last = self.records.last_key_value();
        last.map_or(1, |(at, _)| at.segment() + 1)
    }

    /// Of a segment that was just told, something cannot be carved out.
    fn lose_one(&mut self, class: ClassId, ranges: &[Range<Position>], dice: &mut Dice, now: Tick) {
        let at = ranges[dice.below(ranges.len() as u64) as usize].start;
        if let Some(record) = self.records.remove(&at) {
            self.gone_at = Some(now);
            self.damaged.insert(record.identity);
            let report = SpoolReport::Gone {
                class,
                positions: at..at.plus(1),
                outcome: Outcome::Damaged,
            };
            self.report(report, dice, now);
        }
    }

    /// The ranges of a class, segment by segment.
    fn unsettled(&self, class: ClassId) -> Vec<Vec<Range<Position>>> {
        let mut segments: BTreeMap<u32, Ranges> = BTreeMap::new();
        for (at, record) in &self.records {
            if record.message.class == class {
                segments.entry(at.segment()).or_default().insert_one(*at);
            }
        }
        let segments = segments.into_values();
        segments.map(|ranges| ranges.iter().collect()).collect()
    }

    /// Ids and identities of all unsettled records.
    pub fn ids(&self) -> impl Iterator<Item = (MessageId, &str)> {
        let records = self.records.values();
        records.map(|record| (record.message.id(), record.identity.as_str()))
    }
}

fn whole(segment: u32) -> Range<Position> {
    Position::new(segment, 0)..Position::new(segment + 1, 0)
}
