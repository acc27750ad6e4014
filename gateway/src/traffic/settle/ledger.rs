//! The ledger: for each class what was received, what became of it, and whether the two sides
//! balance. Counters are plain fields; the relay owns them. `received` is counted when a message
//! comes in, never derived from the rest.

use std::sync::Arc;

use super::Outcome;

/// One class's account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The class's name.
    pub class: Arc<str>,
    /// Messages that came in.
    pub received: u64,
    /// Messages made here: summaries and reports.
    pub made_here: u64,
    /// Messages that ended, by outcome, in the order of [`Outcome::ALL`].
    pub ended: [u64; Outcome::COUNT],
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
                received: 0,
                made_here: 0,
                ended: [0; Outcome::COUNT],
            })
            .collect();
        Self { accounts }
    }

    fn account(&mut self, class: super::super::message::ClassId) -> &mut Account {
        let last = self.accounts.len() - 1;
        &mut self.accounts[class.index().min(last)]
    }

    /// Counts a message in.
    pub fn receive(&mut self, class: super::super::message::ClassId) {
        self.account(class).received += 1;
    }

    /// Counts a message's end.
    pub fn end(&mut self, class: super::super::message::ClassId, outcome: Outcome) {
        self.account(class).ended[outcome as usize] += 1;
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

    /// What `in_memory + on_disk` must be for the account to balance; `None` when more ended than
    /// came in, which never happens.
    #[must_use]
    pub fn waiting(&self) -> Option<u64> {
        (self.received + self.made_here).checked_sub(self.ended.iter().sum())
    }
}
