//! The spool of a gateway that does not run: looked at without changing anything, or purged. What is purged
//! is counted in the ledger that the gateway left, so that it balances at the next start.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::class_names;
use super::page::{Aside, Check, Messages, Purged, Search, Segment, Segments};
use crate::clock::Clock;
use crate::control::config::Config;
use crate::control::state::{self, StateError, StateFolder};
use crate::traffic::settle::{Outcome, kept};
use crate::traffic::spool::files::Files as Folder;
use crate::traffic::spool::inspect::{Answer, Page, Question, SegmentSeen};
use crate::traffic::spool::store::Store;
use crate::traffic::spool::{DiskHealth, Position, SpoolReport};

/// Why the files say nothing.
#[derive(Debug)]
pub enum FilesError {
    /// What is asked for is wrong; the text says what there is.
    Asked(String),
    /// The state folder cannot be used, or a gateway has started on it.
    State(StateError),
    /// The folder cannot be read.
    Folder(PathBuf, io::Error),
    /// The disk does not do what it should; the text says what to do.
    Disk(String),
}

impl fmt::Display for FilesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked(text) | Self::Disk(text) => f.write_str(text),
            Self::State(error) => error.fmt(f),
            Self::Folder(path, error) => write!(
                f,
                "the spool's folder {} cannot be read: {error}; run this command as the gateway's user, or name its configuration with -c",
                path.display()
            ),
        }
    }
}

impl std::error::Error for FilesError {}

/// The files of a spool.
pub struct Files {
    store: Store,
    clock: Clock,
    gateway: String,
    classes: Vec<Arc<str>>,
    /// Messages that were purged, by the class that they count as; dead letters have ended, and count as
    /// none.
    purged: BTreeMap<usize, u64>,
    /// Held while something is changed.
    _folder: Option<StateFolder>,
}

impl Files {
    /// The files, to be looked at.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn to_look(config: &Config) -> Result<Self, FilesError> {
        let (clock, settings) = (Clock::start(), config.spool.clone());
        let folder = Box::new(Folder::new(settings.dir.clone()));
        let store = Store::look(folder, settings, clock.moment());
        Self::new(config, store, clock, None)
    }

    /// The files, to be purged: no gateway starts on them meanwhile. Nothing is done to a spool with a
    /// damaged segment, which would be mended, with a loss that nobody is told of.
    ///
    /// # Errors
    /// There is no spool, a gateway runs on it, a segment is damaged, or the folder cannot be used.
    pub fn to_purge(config: &Config) -> Result<Self, FilesError> {
        // Looking makes no folder.
        let segments = Self::to_look(config)?.seen()?;
        if let Some(damaged) = segments.iter().find(|segment| segment.content.is_none()) {
            return Err(FilesError::Disk(format!(
                "segment {} of class {} is damaged, and nothing was changed; start the gateway once, which carves out what it can and counts the rest, and purge then",
                damaged.number, damaged.class
            )));
        }
        let folder = state::prepare(&config.gateway.state_dir).map_err(FilesError::State)?;
        let (clock, settings) = (Clock::start(), config.spool.clone());
        let disk = Box::new(Folder::new(settings.dir.clone()));
        let store = Store::open(disk, settings);
        let mut files = Self::new(config, store, clock, Some(folder))?;
        while files.store.scan(clock.moment()) {}
        files.well()?;
        Ok(files)
    }

    fn new(
        config: &Config,
        store: io::Result<Store>,
        clock: Clock,
        folder: Option<StateFolder>,
    ) -> Result<Self, FilesError> {
        let classes = config.spool.classes.iter();
        Ok(Self {
            store: store.map_err(|error| FilesError::Folder(config.spool.dir.clone(), error))?,
            clock,
            gateway: config.gateway.id.clone(),
            classes: classes.map(|class| Arc::clone(&class.name)).collect(),
            purged: BTreeMap::new(),
            _folder: folder,
        })
    }

    /// The segments.
    ///
    /// # Errors
    /// The disk fails.
    pub fn segments(&mut self) -> Result<Segments, FilesError> {
        let seen = self.seen()?;
        let names = class_names(self.classes.iter().cloned(), &seen);
        Ok(Segments {
            classes: names.iter().map(ToString::to_string).collect(),
            segments: seen.iter().map(Segment::from).collect(),
            aside: self.aside()?,
            ..Segments::default()
        })
    }

    /// A page of messages.
    ///
    /// # Errors
    /// What is asked for is wrong, or the disk fails.
    pub fn messages(&mut self, search: &Search) -> Result<Messages, FilesError> {
        let page = self.page(search)?;
        Ok(Messages::new(&page, &self.gateway))
    }

    /// Checks a segment.
    ///
    /// # Errors
    /// The disk fails.
    pub fn check(&mut self, segment: u32) -> Result<Check, FilesError> {
        match self.answer(&Question::Verify(segment)) {
            Answer::Verified(verified) => Ok(Check::from(verified)),
            other => Err(no_answer(&other)),
        }
    }

    /// Purges a page of messages. Nothing is gone before [`Files::keep`].
    ///
    /// # Errors
    /// What is asked for is wrong, or the disk fails.
    pub fn purge(&mut self, search: &Search) -> Result<Purged, FilesError> {
        let page = self.page(search)?;
        if search.dry_run {
            return Ok(Purged::new(&page, 0));
        }
        for seen in &page.messages {
            *self.purged.entry(seen.message.class.index()).or_default() += 1;
        }
        let positions: Vec<_> = page.messages.iter().map(|seen| seen.position).collect();
        self.store.settle(&positions);
        Ok(Purged::new(&page, positions.len() as u64))
    }

    /// Keeps what was purged, and counts it.
    ///
    /// # Errors
    /// The disk fails: some of it may still be there.
    pub fn keep(mut self) -> Result<(), FilesError> {
        self.count();
        self.well()?;
        self.store.commit(self.clock.moment());
        self.well()
    }

    fn count(&mut self) {
        let ledger = self.store.kept_ledger();
        let Some(mut accounts) = ledger.and_then(|content| kept::read(&content)) else {
            return;
        };
        for (class, count) in &self.purged {
            let name = self.classes.get(*class);
            let account = accounts
                .iter_mut()
                .find(|account| Some(&account.class) == name);
            if let Some(account) = account {
                account.ended[Outcome::Purged as usize] += count;
            }
        }
        self.store.keep_ledger(&kept::write(&accounts));
    }

    /// An error if the store has come to know of one.
    fn well(&mut self) -> Result<(), FilesError> {
        for report in self.store.take_reports() {
            if let SpoolReport::Health(DiskHealth::Failing(why)) = report {
                return Err(FilesError::Disk(why.to_string()));
            }
        }
        Ok(())
    }

    fn seen(&mut self) -> Result<Vec<SegmentSeen>, FilesError> {
        match self.answer(&Question::Segments) {
            Answer::Segments(seen) => Ok(seen),
            other => Err(no_answer(&other)),
        }
    }

    fn aside(&mut self) -> Result<Vec<Aside>, FilesError> {
        match self.answer(&Question::Aside) {
            Answer::Aside(files) => Ok(files.into_iter().map(Aside::from).collect()),
            other => Err(no_answer(&other)),
        }
    }

    fn page(&mut self, search: &Search) -> Result<Page, FilesError> {
        let seen = self.seen()?;
        let names = class_names(self.classes.iter().cloned(), &seen);
        let wanted = search.asked.wanted(&names, search.next.map(Position::from));
        let mut wanted = wanted.map_err(FilesError::Asked)?;
        if search.count_max > 0 {
            wanted.count_max = search.count_max;
        }
        match self.answer(&Question::Messages(wanted)) {
            Answer::Messages(page) => Ok(page),
            other => Err(no_answer(&other)),
        }
    }

    fn answer(&mut self, question: &Question) -> Answer {
        self.store.answer(question, self.clock.moment())
    }
}

fn no_answer(answer: &Answer) -> FilesError {
    let why = match answer {
        Answer::Failed(why) => why,
        _ => "the answer is to another question",
    };
    FilesError::Disk(format!(
        "the disk gives no answer: {why}; look into the kernel log"
    ))
}
