//! `tidegate spool peek` and `tidegate spool export`: messages, a page at a time, so that memory does not
//! depend on the backlog.

#![allow(clippy::disallowed_methods, reason = "the file that an export goes to")]

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::super::{complain, say};
use super::progress::Progress;
use super::{Done, Stop, count, json_line};
use crate::control::exit::Exit;
use crate::control::spool::Asked;
use crate::control::spool::line::Line;
use crate::control::spool::page::{Messages, Search};
use crate::control::spool::reach::Reach;

/// Characters of a payload that are shown; bytes, where it is no text.
const PAYLOAD_SHOWN_MAX: usize = 60;

/// Said when a filter matches nothing: no fault.
pub(super) const NOTHING: &str = "Nothing in the spool matches; nothing was changed.\n";

pub(super) fn peek(asked: &Asked, reach: &mut Reach, count_max: u64, json: bool) -> Done {
    let classes = match &asked.class {
        Some(class) => vec![class.clone()],
        None => reach.segments()?.classes,
    };
    let (mut shown, mut unreadable) = (0, 0);
    for class in classes {
        let mut left = count_max;
        let asked = Asked {
            class: Some(class),
            ..asked.clone()
        };
        let mut search = Search {
            asked,
            ..Search::default()
        };
        while left > 0 {
            search.count_max = usize::try_from(left).unwrap_or(usize::MAX);
            let page = reach.messages(&search)?;
            for line in &page.messages {
                say(if json { json_line(line) } else { show(line) });
            }
            let messages = page.messages.len() as u64;
            left = left.saturating_sub(messages);
            shown += messages;
            unreadable += page.unreadable;
            search.next = page.next;
            if search.next.is_none() {
                break;
            }
        }
    }
    if shown == 0 {
        complain(NOTHING);
    }
    warn(unreadable);
    Ok(Exit::Done)
}

/// Says that some could not be read.
pub(super) fn warn(unreadable: u64) {
    if unreadable > 0 {
        complain(format_args!(
            "{} could not be read and are not among these; `tidegate spool verify` names the segments\n",
            count(unreadable, "message")
        ));
    }
}

pub(super) fn export(
    asked: &Asked,
    reach: &mut Reach,
    output: Option<&Path>,
    dry_run: bool,
) -> Done {
    let mut search = Search {
        asked: asked.clone(),
        ..Search::default()
    };
    // A wrong class is told before a file is made.
    let mut page = reach.messages(&search)?;
    let mut out = match dry_run {
        true => Box::new(io::sink()) as Box<dyn Write>,
        false => open(output)?,
    };
    let mut progress = Progress::start();
    let (mut messages, mut unreadable) = (0, 0);
    loop {
        write(&mut out, &page, output)?;
        messages += page.messages.len() as u64;
        unreadable += page.unreadable;
        progress.tell(|| format!("{} exported", count(messages, "message")));
        search.next = page.next;
        if search.next.is_none() {
            break;
        }
        page = reach.messages(&search)?;
    }
    out.flush().map_err(|error| unwritten(&error, output))?;
    drop(progress);
    match (messages, dry_run, output) {
        (0, _, _) => complain(NOTHING),
        (_, true, _) => complain(format_args!(
            "{} would be exported; nothing was written\n",
            count(messages, "message")
        )),
        (_, false, Some(path)) => complain(format_args!(
            "{} exported to {}\n",
            count(messages, "message"),
            path.display()
        )),
        (_, false, None) => {}
    }
    warn(unreadable);
    Ok(Exit::Done)
}

fn open(output: Option<&Path>) -> Result<Box<dyn Write>, Stop> {
    let Some(path) = output else {
        return Ok(Box::new(BufWriter::new(io::stdout().lock())));
    };
    // Payloads are for whoever exports them alone.
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match file {
        Ok(file) => Ok(Box::new(BufWriter::new(file))),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Stop::Failed(format!(
            "{} is there already and is left alone; name another file",
            path.display()
        ))),
        Err(error) => Err(unwritten(&error, output)),
    }
}

fn write(out: &mut dyn Write, page: &Messages, output: Option<&Path>) -> Result<(), Stop> {
    for line in &page.messages {
        let text = json_line(line);
        out.write_all(text.as_bytes())
            .map_err(|error| unwritten(&error, output))?;
    }
    Ok(())
}

fn unwritten(error: &io::Error, output: Option<&Path>) -> Stop {
    match output {
        // A reader that has gone away (`| head`) is no fault.
        None if error.kind() == io::ErrorKind::BrokenPipe => Stop::Unread,
        None => Stop::Failed(format!("standard output cannot be written to: {error}")),
        Some(path) => Stop::Failed(format!(
            "{} cannot be written to: {error}; what is there is not whole",
            path.display()
        )),
    }
}

/// A message for people, on two lines.
fn show(line: &Line) -> String {
    let payload = line.payload_bytes();
    format!(
        "{}  {}  {}  {} B  {}\n    {}\n",
        line.received,
        line.class,
        plain(&line.topic),
        payload.len(),
        plain(&line.id),
        cut(&payload)
    )
}

/// What a terminal shows as it is: a topic or payload must not steer it.
fn plain(text: &str) -> String {
    let plain = |character: char| character != '\\' && character.is_control();
    let mut out = String::new();
    for character in text.chars() {
        match plain(character) {
            true => out.extend(character.escape_default()),
            false => out.push(character),
        }
    }
    out
}

fn cut(payload: &[u8]) -> String {
    if let Ok(text) = str::from_utf8(payload) {
        let shown: String = text.chars().take(PAYLOAD_SHOWN_MAX).collect();
        let more = if shown.len() < text.len() { "..." } else { "" };
        return format!("{}{more}", plain(&shown));
    }
    let mut out = "hex ".to_owned();
    for byte in payload.iter().take(PAYLOAD_SHOWN_MAX / 2) {
        let _ = write!(out, "{byte:02x}");
    }
    if payload.len() > PAYLOAD_SHOWN_MAX / 2 {
        out.push_str("...");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn does_a_payload_leave_the_terminal_alone() {
        assert_eq!(cut("21.5 °C".as_bytes()), "21.5 °C");
        assert_eq!(cut(b"a\x1b[2Jb\n"), r"a\u{1b}[2Jb\n");
        assert_eq!(cut(b"\xff\x00\x1b"), "hex ff001b");
        let long = cut(&[b'x'; 200]);
        assert_eq!((long.len(), &long[60..]), (63, "..."));
        assert!(cut(&[0xff; 200]).ends_with("ff..."));
    }
}
