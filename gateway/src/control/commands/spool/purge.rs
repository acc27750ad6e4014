//! `tidegate spool purge`.

use super::super::say;
use super::messages::{NOTHING, warn};
use super::progress::Progress;
use super::{Done, count, json_line};
use crate::control::exit::Exit;
use crate::control::spool::Asked;
use crate::control::spool::page::{Purged, Search};
use crate::control::spool::reach::Reach;

pub(super) fn purge(asked: &Asked, mut reach: Reach, dry_run: bool, json: bool) -> Done {
    let mut search = Search {
        asked: asked.clone(),
        dry_run,
        ..Search::default()
    };
    let mut progress = Progress::start();
    let mut all = Purged::default();
    loop {
        let page = reach.purge(&search)?;
        all.meant += page.meant;
        all.purged += page.purged;
        all.unreadable += page.unreadable;
        progress.tell(|| format!("{} so far", count(all.meant, "message")));
        search.next = page.next;
        if search.next.is_none() {
            break;
        }
    }
    drop(progress);
    if all.purged > 0 {
        reach.keep()?;
    }
    if json {
        let value = serde_json::json!({
            "dry_run": dry_run,
            "matching": all.meant,
            "purged": all.purged,
            "unreadable": all.unreadable,
        });
        say(json_line(&value));
    } else {
        say(told(&all, dry_run));
        warn(all.unreadable);
    }
    Ok(Exit::Done)
}

fn told(all: &Purged, dry_run: bool) -> String {
    let meant = count(all.meant, "message");
    if all.meant == 0 {
        return NOTHING.to_owned();
    }
    if dry_run {
        return format!("{meant} would be purged; nothing was changed.\n");
    }
    let rest = match all.meant - all.purged.min(all.meant) {
        0 => String::new(),
        rest => format!(
            "; {rest} more were on their way to the upstream, or had just ended, and are not"
        ),
    };
    format!(
        "{} purged for good, and counted in the ledger{rest}.\n",
        count(all.purged, "message")
    )
}
