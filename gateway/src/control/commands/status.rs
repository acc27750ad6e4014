//! `tidegate status`: how the gateway that runs is, on one screen or as JSON. Asks it over the Unix
//! socket in the state folder that the configuration names.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command speaks"
)]

use std::path::Path;

use hyper::{Method, StatusCode};
use tokio::runtime::Builder;

use super::check::tell;
use super::{complain, say};
use crate::control::admin::Report;
use crate::control::admin::client::{ClientError, request, whole};
use crate::control::admin::screen::Screen;
use crate::control::config::file::load;
use crate::control::exit::Exit;

/// Largest report that is read: sixteen classes take some ten KiB.
const REPORT_BYTES_MAX: usize = 1 << 20;

/// Shows how the gateway with the configuration in this file is. A gateway that does not answer,
/// or does not run, is [`Exit::Failed`]; one that is not ready is shown, and no failure of the command.
#[must_use]
pub fn status(path: Option<&Path>, json: bool) -> Exit {
    let (config, _) = match load(path) {
        Ok(loaded) => loaded,
        Err(error) => {
            tell(&error);
            return Exit::Misconfigured;
        }
    };
    match ask(&config.gateway.state_dir) {
        Ok(told) => show(&told, json),
        Err(error) => {
            complain(format_args!("fault: {error}\n"));
            Exit::Failed
        }
    }
}

/// What the gateway said.
struct Told {
    text: String,
    report: Report,
    /// Whether the path is part of it.
    answers: bool,
}

fn ask(state_dir: &Path) -> Result<Told, ClientError> {
    let broken = |error: &dyn std::fmt::Display| ClientError::Broken(error.to_string());
    let runtime = Builder::new_current_thread().enable_all().build();
    let (code, body) = runtime.map_err(|error| broken(&error))?.block_on(async {
        let answer = request(state_dir, Method::GET, "/status", Vec::new()).await?;
        whole(answer, REPORT_BYTES_MAX).await
    })?;
    let text = String::from_utf8_lossy(&body).into_owned();
    match serde_json::from_str(&text) {
        Ok(report) => Ok(Told {
            text,
            report,
            answers: code == StatusCode::OK,
        }),
        Err(error) => Err(broken(&format_args!("{code}, {error}"))),
    }
}

fn show(told: &Told, json: bool) -> Exit {
    let (report, answers) = (&told.report, told.answers);
    if json {
        say(&told.text);
    } else {
        say(Screen { report, answers });
    }
    if answers { Exit::Done } else { Exit::Failed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn does_the_exit_code_say_that_no_gateway_runs() {
        let state = tempfile::tempdir().unwrap();
        let error = ask(state.path()).map(|told| told.text).unwrap_err();
        assert!(matches!(error, ClientError::NotRunning(_)), "{error}");
        let path = state.path().join("t.toml");
        let text = format!("[gateway]\nid = \"a\"\nstate_dir = {:?}\n", state.path());
        write(&path, &text);
        assert_eq!(status(Some(&path), false), Exit::Failed);
        assert_eq!(
            status(Some(&state.path().join("gone")), false),
            Exit::Misconfigured
        );
    }

    #[allow(clippy::disallowed_methods, reason = "a test writes its file")]
    fn write(path: &Path, text: &str) {
        std::fs::write(path, text).unwrap();
    }
}
