//! The door to the disk: the spool's one writer, a thread of its own. In come [`SpoolCommand`]s, out go
//! [`SpoolReport`]s. It takes all commands that wait, keeps what they bring in one commit for each segment, answers,
//! and only then reads. When its commands end it keeps what waits, and ends.

#![allow(
    clippy::disallowed_methods,
    reason = "the door that owns the spool's thread"
)]

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::files::Files;
use super::segment::COMMIT_BYTES_MAX;
use super::store::{Figures, Store};
use super::{DiskHealth, SpoolCommand, SpoolReport, SpoolSettings};
use crate::clock::Clock;
use crate::traffic::message::Tick;

/// Commands on their way. Blocks are at most 64 KiB, but for one of a large message.
const COMMANDS_MAX: usize = 64;
/// Reports on their way.
const REPORTS_MAX: usize = 256;
/// How long what is settled waits for a commit.
const KEEP_SETTLED: Duration = Duration::from_secs(1);
/// How often a failing disk is tried.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The writer, from outside.
#[derive(Debug)]
pub struct Writer {
    /// What it is told. When this is dropped, it ends.
    pub commands: mpsc::Sender<SpoolCommand>,
    /// What it says.
    pub reports: mpsc::Receiver<SpoolReport>,
    /// The number of the first new segment.
    pub next_segment: u32,
    /// The ledger that was kept last.
    pub ledger: Option<Vec<u8>>,
    /// Ends when everything is kept and closed.
    pub ended: oneshot::Receiver<()>,
}

/// Why there is no spool: the operator's to repair.
#[derive(Debug)]
pub struct SpoolError {
    folder: PathBuf,
    source: io::Error,
}

impl fmt::Display for SpoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the spool's folder {} cannot be used: {}; give it to the gateway's user",
            self.folder.display(),
            self.source
        )
    }
}

impl std::error::Error for SpoolError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Starts the writer. Takes the time to list a folder: what is in it is told later.
///
/// # Errors
/// The folder cannot be made or listed, or there is no thread to be had.
pub fn start(settings: SpoolSettings, clock: Clock) -> Result<Writer, SpoolError> {
    let folder = settings.dir.clone();
    let error = |source| SpoolError {
        folder: folder.clone(),
        source,
    };
    let disk = Box::new(Files::new(settings.dir.clone()));
    let store = Store::open(disk, settings).map_err(error)?;
    let (next_segment, ledger) = (store.next_segment(), store.kept_ledger());
    let (commands, commands_in) = mpsc::channel(COMMANDS_MAX);
    let (reports_out, reports) = mpsc::channel(REPORTS_MAX);
    let (end, ended) = oneshot::channel();
    // The thread's own, for a receive that ends in time.
    let timer = runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(error)?;
    let writing = Writing {
        store,
        clock,
        timer,
        commands: commands_in,
        reports: reports_out,
        keep_at: Tick::NEVER,
        try_at: Tick::NEVER,
        told: Figures::default(),
    };
    thread::Builder::new()
        .name("spool".into())
        .spawn(move || {
            writing.run();
            let _ = end.send(());
        })
        .map_err(error)?;
    Ok(Writer {
        commands,
        reports,
        next_segment,
        ledger,
        ended,
    })
}

struct Writing {
    store: Store,
    clock: Clock,
    timer: runtime::Runtime,
    commands: mpsc::Receiver<SpoolCommand>,
    reports: mpsc::Sender<SpoolReport>,
    /// When what is settled is kept.
    keep_at: Tick,
    /// When a failing disk is tried.
    try_at: Tick,
    /// The counts that were told last.
    told: Figures,
}

impl Writing {
    fn run(mut self) {
        let well = SpoolReport::Health(DiskHealth::Well);
        let _ = self.reports.blocking_send(well);
        // At the end nobody listens any more, and the last commands have yet to come.
        while self.round() {
            self.tell();
        }
        // Whatever is settled is kept at the end.
        self.store.commit(self.clock.moment());
    }

    /// One round; gives whether there may be another.
    fn round(&mut self) -> bool {
        let mut open = true;
        let (mut bytes, mut commits) = (0, false);
        let mut reads = Vec::new();
        let mut command = self.first();
        loop {
            match command {
                Ok(SpoolCommand::Append(block)) => {
                    bytes += block.records.len();
                    commits = true;
                    self.store.append(block, self.clock.moment());
                }
                Ok(SpoolCommand::Settle(positions)) => self.store.settle(&positions),
                Ok(SpoolCommand::KeepSettled) => commits = true,
                Ok(SpoolCommand::Keep(content)) => self.store.keep_ledger(&content),
                Ok(later @ (SpoolCommand::Read { .. } | SpoolCommand::Ask { .. })) => {
                    reads.push(later);
                }
                Err(Idle::Ended) => {
                    open = false;
                    break;
                }
                Err(Idle::Nothing) => break,
            }
            if bytes >= COMMIT_BYTES_MAX {
                break;
            }
            command = self.commands.try_recv().map_err(|_| Idle::Nothing);
        }
        self.keep(commits);
        for read in reads {
            self.read(read);
        }
        self.store.scan(self.clock.moment());
        open
    }

    /// The next command, as long as there is nothing else to do.
    fn first(&mut self) -> Result<SpoolCommand, Idle> {
        let now = self.clock.now();
        let due = self.keep_at.min(self.try_at);
        if self.store.is_scanning() || due <= now {
            return self.commands.try_recv().map_err(|error| match error {
                mpsc::error::TryRecvError::Empty => Idle::Nothing,
                mpsc::error::TryRecvError::Disconnected => Idle::Ended,
            });
        }
        if due == Tick::NEVER {
            return self.commands.blocking_recv().ok_or(Idle::Ended);
        }
        let wait = due.since(now);
        let next = async { timeout(wait, self.commands.recv()).await };
        match self.timer.block_on(next) {
            Ok(command) => command.ok_or(Idle::Ended),
            Err(_) => Err(Idle::Nothing),
        }
    }

    /// Commits what waits, when it is time, or at once.
    fn keep(&mut self, at_once: bool) {
        let now = self.clock.now();
        if self.store.is_failing() {
            self.keep_at = Tick::NEVER;
            if self.try_at <= now {
                self.store.recover(self.clock.moment());
                self.try_at = now.after(TRY_AGAIN);
            }
        } else if at_once || self.keep_at <= now || self.store.has_drained() {
            let (began, commits) = (self.clock.now(), self.store.commits());
            self.store.commit(self.clock.moment());
            if self.store.commits() > commits {
                let took = self.clock.now().since(began).as_micros();
                self.store.took(u64::try_from(took).unwrap_or(u64::MAX));
            }
        }
        let now = self.clock.now();
        self.try_at = match self.store.is_failing() {
            true => self.try_at.min(now.after(TRY_AGAIN)),
            false => Tick::NEVER,
        };
        self.keep_at = match self.store.has_unkept() && !self.store.is_failing() {
            true => self.keep_at.min(now.after(KEEP_SETTLED)),
            false => Tick::NEVER,
        };
        if self.keep_at <= now {
            self.keep_at = now.after(KEEP_SETTLED);
        }
    }

    fn read(&mut self, command: SpoolCommand) {
        let now = self.clock.moment();
        match command {
            SpoolCommand::Read {
                class,
                from,
                until,
                bytes_max,
            } => self.store.read(class, from, until, bytes_max, now),
            SpoolCommand::Ask { question, answer } => {
                // Who asked may have gone.
                let _ = answer.send(self.store.answer(&question, now));
            }
            SpoolCommand::Append(_)
            | SpoolCommand::Settle(_)
            | SpoolCommand::KeepSettled
            | SpoolCommand::Keep(_) => {}
        }
    }

    fn tell(&mut self) {
        let mut reports = self.store.take_reports();
        let figures = self.store.figures();
        if figures != self.told {
            self.told = figures;
            reports.push(SpoolReport::Figures(figures));
        }
        let mut reports = reports.into_iter();
        // Stops where nobody listens.
        reports.all(|report| self.reports.blocking_send(report).is_ok());
    }
}

/// Why there is no command.
enum Idle {
    /// There is none yet.
    Nothing,
    /// There will be none.
    Ended,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::message::{ClassId, sample};
    use crate::traffic::spool::{Block, Position, SpoolClass, SpoolPolicy, record};

    fn settings(dir: PathBuf) -> SpoolSettings {
        SpoolSettings {
            dir,
            size_bytes_max: 64 * 1024 * 1024,
            disk_free_bytes_min: 0,
            policy: SpoolPolicy::default(),
            classes: vec![SpoolClass {
                name: "critical".into(),
                evictable: false,
                bytes_max: None,
            }],
            default_class: ClassId::FIRST,
        }
    }

    fn block(first: Position, clock: Clock) -> Block {
        let opened = clock.now();
        let mut message = sample("t", b"payload");
        message.received = opened;
        let mut records = Vec::new();
        record::write(&mut records, &message, opened);
        Block {
            class: ClassId::FIRST,
            first,
            count: 1,
            opened,
            records,
        }
    }

    async fn next(writer: &mut Writer) -> SpoolReport {
        let patience = Duration::from_secs(20);
        timeout(patience, writer.reports.recv())
            .await
            .unwrap()
            .unwrap()
    }

    /// The next report that is not about the start.
    async fn answer(writer: &mut Writer) -> SpoolReport {
        loop {
            match next(writer).await {
                SpoolReport::Health(DiskHealth::Well)
                | SpoolReport::Figures(_)
                | SpoolReport::Scanned { .. } => {}
                report => return report,
            }
        }
    }

    #[tokio::test]
    async fn does_the_writer_keep_what_it_is_told_and_give_it_back_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::start();
        let mut writer = start(settings(folder.path().join("spool")), clock).unwrap();
        let first = Position::new(writer.next_segment, 0);
        let command = SpoolCommand::Append(block(first, clock));
        writer.commands.send(command).await.unwrap();
        let report = answer(&mut writer).await;
        assert!(matches!(report, SpoolReport::Safe { .. }), "{report:?}");
        // What is settled at the very end is kept too.
        let second = SpoolCommand::Append(block(first.plus(1), clock));
        writer.commands.send(second).await.unwrap();
        writer
            .commands
            .send(SpoolCommand::Settle(vec![first]))
            .await
            .unwrap();
        drop(writer.commands);
        while writer.reports.recv().await.is_some() {}
        timeout(Duration::from_secs(20), writer.ended)
            .await
            .unwrap()
            .unwrap();

        let clock = Clock::start();
        let mut writer = start(settings(folder.path().join("spool")), clock).unwrap();
        assert_eq!(writer.next_segment, first.segment() + 1);
        let found = answer(&mut writer).await;
        let SpoolReport::Found { ranges, .. } = found else {
            panic!("{found:?}");
        };
        assert_eq!(ranges, [first.plus(1)..first.plus(2)]);
        let read = SpoolCommand::Read {
            class: ClassId::FIRST,
            from: first,
            until: first.plus(9),
            bytes_max: 1000,
        };
        writer.commands.send(read).await.unwrap();
        let report = answer(&mut writer).await;
        let SpoolReport::Records { messages, .. } = report else {
            panic!("{report:?}");
        };
        assert_eq!(messages[0].body.payload(), b"payload");
        assert!(messages[0].received <= clock.now());
        // Settled and nothing else: the file goes within a second, without another command.
        let settle = SpoolCommand::Settle(vec![first.plus(1)]);
        writer.commands.send(settle).await.unwrap();
        let (ask, asked) = oneshot::channel();
        let question = super::super::inspect::Question::Segments;
        let command = SpoolCommand::Ask {
            question,
            answer: ask,
        };
        writer.commands.send(command).await.unwrap();
        let answer = timeout(Duration::from_secs(20), asked).await.unwrap();
        assert!(format!("{answer:?}").contains("Segments([])"), "{answer:?}");
    }

    /// The ledger comes last of all.
    #[tokio::test]
    async fn are_the_last_commands_obeyed_when_nobody_listens_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::start();
        let writer = start(settings(folder.path().to_owned()), clock).unwrap();
        drop(writer.reports);
        let (ask, asked) = oneshot::channel();
        let first = Position::new(writer.next_segment, 0);
        let question = super::super::inspect::Question::Segments;
        for command in [
            SpoolCommand::Append(block(first, clock)),
            SpoolCommand::Ask {
                question,
                answer: ask,
            },
        ] {
            writer.commands.send(command).await.unwrap();
        }
        let patience = Duration::from_secs(20);
        timeout(patience, asked).await.unwrap().unwrap();
        // The round in which that was answered had something to tell.
        let ends = timeout(Duration::from_millis(100), writer.commands.closed());
        assert!(ends.await.is_err(), "it ends before its commands do");
        let keep = SpoolCommand::Keep(b"the last word".to_vec());
        writer.commands.send(keep).await.unwrap();
        drop(writer.commands);
        timeout(patience, writer.ended).await.unwrap().unwrap();
        let writer = start(settings(folder.path().to_owned()), clock).unwrap();
        assert_eq!(writer.ledger.as_deref(), Some(&b"the last word"[..]));
    }

    /// The spool as a kill now would leave it: what the next start finds in it.
    async fn found_after_a_kill(dir: &std::path::Path) -> Vec<std::ops::Range<Position>> {
        let folder = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(dir).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
        }
        let settings = settings(folder.path().to_owned());
        let mut writer = start(settings, Clock::start()).unwrap();
        match answer(&mut writer).await {
            SpoolReport::Found { ranges, .. } => ranges,
            report => panic!("{report:?}"),
        }
    }

    #[tokio::test]
    async fn is_what_is_settled_kept_at_once_when_that_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::start();
        let mut writer = start(settings(folder.path().to_owned()), clock).unwrap();
        let first = Position::new(writer.next_segment, 0);
        for at in [first, first.plus(1)] {
            let command = SpoolCommand::Append(block(at, clock));
            writer.commands.send(command).await.unwrap();
            let report = answer(&mut writer).await;
            assert!(matches!(report, SpoolReport::Safe { .. }), "{report:?}");
        }
        let (ask, asked) = oneshot::channel();
        for command in [
            SpoolCommand::Settle(vec![first]),
            SpoolCommand::KeepSettled,
            SpoolCommand::Ask {
                question: super::super::inspect::Question::Segments,
                answer: ask,
            },
        ] {
            writer.commands.send(command).await.unwrap();
        }
        timeout(Duration::from_secs(20), asked)
            .await
            .unwrap()
            .unwrap();
        let found = found_after_a_kill(folder.path()).await;
        assert_eq!(found, [first.plus(1)..first.plus(2)]);
    }

    #[test]
    fn is_a_folder_that_cannot_be_used_told_clearly() {
        let folder = tempfile::tempdir().unwrap();
        let error = start(settings(folder.path().join("a/b")), Clock::start()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("a/b cannot be used: ") && text.contains("gateway's user"),
            "{text}"
        );
    }
}
