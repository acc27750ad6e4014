//! The ledger as it is kept on disk: JSON, so that an operator can read it, each class by name and each
//! outcome by name, so that another version or another configuration can go on with it.

use serde::{Deserialize, Serialize};

use super::super::status::Ended;
use super::ledger::Account;

/// The file.
#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    classes: Vec<KeptAccount>,
}

#[derive(Serialize, Deserialize)]
struct KeptAccount {
    class: String,
    received: u64,
    made_here: u64,
    found: i64,
    ended: Ended,
}

/// The version that is written; another is not read.
const VERSION: u32 = 1;

/// The accounts as a file's content.
#[must_use]
pub fn write(accounts: &[Account]) -> Vec<u8> {
    let classes = accounts.iter().map(|account| KeptAccount {
        class: account.class.to_string(),
        received: account.received,
        made_here: account.made_here,
        found: account.found,
        ended: Ended(account.ended),
    });
    let kept = Kept {
        version: VERSION,
        classes: classes.collect(),
    };
    // It holds numbers and names: there is nothing that could fail.
    serde_json::to_vec_pretty(&kept).unwrap_or_default()
}

/// The accounts in a file's content; `None` when it is no ledger of this version.
#[must_use]
pub fn read(content: &[u8]) -> Option<Vec<Account>> {
    let kept: Kept = serde_json::from_slice(content).ok()?;
    let account = |kept: KeptAccount| Account {
        class: kept.class.into(),
        found: kept.found,
        received: kept.received,
        made_here: kept.made_here,
        ended: kept.ended.0,
    };
    let accounts = kept.classes.into_iter().map(account);
    (kept.version == VERSION).then(|| accounts.collect())
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::super::ledger::{Ledger, Waiting};
    use super::*;
    use crate::traffic::message::ClassId;

    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(["critical".into(), "normal".into()]);
        for _ in 0..10 {
            ledger.receive(ClassId(1));
        }
        ledger.end(ClassId(1), Outcome::Delivered);
        ledger
    }

    fn waiting(on_disk: u64) -> [Waiting; 3] {
        let normal = Waiting {
            on_disk,
            ..Waiting::default()
        };
        [Waiting::default(), normal, Waiting::default()]
    }

    #[test]
    fn does_the_ledger_go_on_after_a_clean_stop() {
        let bytes = write(ledger().accounts());
        let accounts = read(&bytes).unwrap();
        let mut next = Ledger::new(["normal".into(), "new".into()]);
        next.restore(&accounts);
        next.carry(ClassId(0), 9);
        let account = &next.accounts()[0];
        assert_eq!((account.found, account.received), (0, 10));
        let there = Waiting {
            on_disk: 9,
            ..Waiting::default()
        };
        assert!(next.balances(&[there, Waiting::default(), Waiting::default()]));
    }

    #[test]
    fn does_a_kill_show_as_what_was_found_or_was_missing() {
        let bytes = write(ledger().accounts());
        let accounts = read(&bytes).unwrap();
        for (there, found) in [(5, -4), (12, 3)] {
            let mut next = Ledger::new(["critical".into(), "normal".into()]);
            next.restore(&accounts);
            assert!(next.balances(&waiting(0)), "nothing is found yet");
            next.carry(ClassId(1), there);
            assert_eq!(next.accounts()[1].found, found);
            assert!(next.balances(&waiting(there)));
        }
    }

    #[test]
    fn is_a_file_that_is_no_ledger_left() {
        let bytes = write(ledger().accounts());
        for cut in [0, 1, bytes.len() - 1] {
            assert!(read(&bytes[..cut]).is_none());
        }
        let other = String::from_utf8(bytes)
            .unwrap()
            .replace("\"version\": 1", "\"version\": 2");
        assert!(read(other.as_bytes()).is_none());
    }
}
