//! The ledger: for each class what was received, what became of it, and whether the two sides
//! balance. Counters are plain fields; the relay owns them. `received` is counted when a message
//! comes in, never derived from the rest.
//!
//! The accounts go on over restarts: they are kept on disk at a clean stop, and now and then before. What
//! stands on disk at a start and is not what the kept accounts say, after a kill, is *found*.

use std::sync::Arc;

use super::super::message::ClassId;
use super::Outcome;

/// One class's account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The class's name.
    pub class: Arc<str>,
    /// Messages on disk at a start that the accounts did not know, less those that they knew and that
    /// were not there: 0 but after a kill.
    pub found: i64,
    /// Messages that came in.
    pub received: u64,
    /// Messages made here: summaries, and dead letters that are tried again.
    pub made_here: u64,
    /// Messages that ended, by outcome, in the order of [`Outcome::ALL`].
    pub ended: [u64; Outcome::COUNT],
}

/// What of a class has not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Messages in memory, counted where they are.
    pub in_memory: u64,
    /// What they take, in bytes.
    pub bytes: u64,
    /// Messages on disk that are not in memory.
    pub on_disk: u64,
}

/// All accounts: one for each class, and the built-in class `discard` last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    accounts: Vec<Account>,
}

impl Ledger {
    /// An empty ledger for these classes, in their order; `discard` is added.
    #[must_use]
    pub fn new(classes: impl IntoIterator<Item = Arc<str>>) -> Self {
        let accounts = classes
            .into_iter()
            .chain([Arc::from("discard")])
            .map(|class| Account {
                class,
                found: 0,
                received: 0,
                made_here: 0,
                ended: [0; Outcome::COUNT],
            })
            .collect();
        Self { accounts }
    }

    fn account(&mut self, class: ClassId) -> &mut Account {
        let last = self.accounts.len() - 1;
        &mut self.accounts[class.index().min(last)]
    }

    /// Counts a message in.
    pub fn receive(&mut self, class: ClassId) {
        self.account(class).received += 1;
    }

    /// Counts a message that was made here: a summary, or a dead letter that is tried again.
    pub fn make(&mut self, class: ClassId) {
        self.account(class).made_here += 1;
    }

    /// Goes on with the accounts that an earlier start kept, as far as their classes are still there.
    /// What waited then is expected on disk: until it is found there it counts as missing.
    pub fn restore(&mut self, kept: &[Account]) {
        for account in &mut self.accounts {
            let Some(kept) = kept.iter().find(|kept| kept.class == account.class) else {
                continue;
            };
            *account = kept.clone();
            account.found -= kept.waiting().unwrap_or_default().cast_signed();
        }
    }

    /// Counts messages that an earlier start left on disk.
    pub fn carry(&mut self, class: ClassId, count: u64) {
        self.account(class).found += count.cast_signed();
    }

    /// Counts the end of several messages.
    pub fn end_many(&mut self, class: ClassId, outcome: Outcome, count: u64) {
        self.account(class).ended[outcome as usize] += count;
    }

    /// Counts a message's end.
    pub fn end(&mut self, class: ClassId, outcome: Outcome) {
        self.account(class).ended[outcome as usize] += 1;
    }

    /// Whether every account balances: what came in either ended or is where `waiting` counted it,
    /// class by class.
    #[must_use]
    pub fn balances(&self, waiting: &[Waiting]) -> bool {
        self.accounts.len() == waiting.len()
            && self.accounts.iter().zip(waiting).all(|(account, waiting)| {
                account.waiting() == Some(waiting.in_memory + waiting.on_disk)
            })
    }

    /// The accounts: classes in their order, then `discard`.
    #[must_use]
    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }
}

impl Account {
    /// Messages that ended with `outcome`.
    #[must_use]
    pub const fn ended(&self, outcome: Outcome) -> u64 {
        self.ended[outcome as usize]
    }

    /// The account as one line of `name=value` pairs, for the log.
    #[must_use]
    pub fn line(&self, waiting: Waiting) -> String {
        let mut line = format!(
            "ledger class={} received={} made_here={} found={}",
            self.class, self.received, self.made_here, self.found
        );
        for outcome in Outcome::ALL {
            let word = outcome.word().replace(' ', "_");
            line.push_str(&format!(" {word}={}", self.ended(outcome)));
        }
        line.push_str(&format!(
            " in_memory={} on_disk={}",
            waiting.in_memory, waiting.on_disk
        ));
        line
    }

    /// What `in_memory + on_disk` must be for the account to balance; `None` when more ended than
    /// came in, which never happens.
    #[must_use]
    pub fn waiting(&self) -> Option<u64> {
        let came = self.received.saturating_add(self.made_here);
        let came = came.checked_add_signed(self.found)?;
        came.checked_sub(self.ended.iter().sum())
    }
}
