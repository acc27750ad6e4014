//! `tidegate check`: the very check that a start runs, what it found, and how long the spool lasts
//! without an uplink.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command speaks"
)]

use std::path::Path;

use super::outage::{Load, Outage};
use super::{complain, say};
use crate::control::config::file::{LoadError, load};
use crate::control::config::{Config, Findings, Severity};
use crate::control::exit::Exit;

/// Checks the configuration in this file: findings to stderr, the verdict and what the spool is
/// good for to stdout.
#[must_use]
pub fn check(path: Option<&Path>, asked: Load) -> Exit {
    let loaded = load(path);
    match &loaded {
        Ok((config, warnings)) => {
            complain(warnings);
            let (origin, verdict) = (&warnings.origin, verdict(warnings));
            say(format_args!("{origin}: OK, {verdict}\n"));
            say(Outage::of(config, asked));
        }
        Err(error) => tell(error),
    }
    exit(&loaded)
}

/// Says what is wrong, on stderr.
pub(super) fn tell(error: &LoadError) {
    complain(error);
    if let LoadError::Wrong(findings) = error {
        let verdict = verdict(findings);
        complain(format_args!("{}: {verdict}\n", findings.origin));
    }
}

fn verdict(findings: &Findings) -> String {
    let starts = if findings.count(Severity::Fault) == 0 {
        ""
    } else {
        "; the gateway does not start with it"
    };
    format!("{}{starts}", findings.summary())
}

fn exit(loaded: &Result<(Config, Findings), LoadError>) -> Exit {
    match loaded {
        Ok(_) => Exit::Done,
        Err(_) => Exit::Misconfigured,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit_of(text: &[u8]) -> Exit {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.toml");
        std::io::Write::write_all(&mut tempfile_at(&path), text).unwrap();
        exit(&load(Some(&path)))
    }

    #[allow(clippy::disallowed_methods, reason = "a test writes its file")]
    fn tempfile_at(path: &Path) -> std::fs::File {
        std::fs::File::create(path).unwrap()
    }

    #[test]
    fn does_the_exit_code_tell_what_was_found() {
        let exit_at = |path: &str| exit(&load(Some(Path::new(path))));
        assert_eq!(exit(&load(None)), Exit::Done);
        assert_eq!(exit_of(b""), Exit::Done);
        assert_eq!(exit_of(b"[gateway]\nid = \"a\"\n"), Exit::Done);
        assert_eq!(exit_of(b"[gatewax]\n"), Exit::Misconfigured);
        assert_eq!(exit_of(b"[gateway\n"), Exit::Misconfigured);
        assert_eq!(exit_of(b"[gateway]\nid = \"\xff\"\n"), Exit::Misconfigured);
        assert_eq!(exit_of(&vec![b' '; (4 << 20) + 1]), Exit::Misconfigured);
        assert_eq!(exit_at("/nowhere.toml"), Exit::Misconfigured);
        assert_eq!(exit_at("/"), Exit::Misconfigured);
    }
}
