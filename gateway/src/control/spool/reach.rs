//! Where the commands get their answers: from the gateway that runs, over the Unix socket in its state
//! folder; or, when none runs, from the files.

#![allow(
    clippy::disallowed_methods,
    reason = "a runtime for the requests of one command"
)]

use std::fmt;
use std::path::{Path, PathBuf};

use hyper::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};

use super::files::{Files, FilesError};
use super::page::{
    Again, Check, CheckWhat, Fault, Messages, Purged, Replay, ReplayWhat, Search, Segments,
};
use crate::control::admin::client::{ClientError, is_answered, request, whole};
use crate::control::config::Config;
use crate::control::state;

/// The largest page that is read: a message has 256 MiB at most, and JSON makes six bytes of one where it
/// is hardest to write.
const PAGE_BYTES_MAX: usize = 2 << 30;

/// Why there is no answer.
#[derive(Debug)]
pub enum ReachError {
    /// What is asked for is wrong; the text says what there is.
    Asked(String),
    /// The gateway runs and gives no answer.
    Gateway(ClientError),
    /// The gateway says why not.
    Refused(String),
    /// The files give none.
    Files(FilesError),
    /// A gateway runs, or starts or stops just now, and does not listen yet or any more.
    Between(PathBuf),
    /// A gateway has started while the files were read.
    Started,
    /// There is no state folder.
    Nothing(PathBuf),
    /// Only a gateway that runs can do it.
    NotRunning(PathBuf),
}

impl fmt::Display for ReachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked(text) | Self::Refused(text) => f.write_str(text),
            Self::Gateway(error) => error.fmt(f),
            Self::Files(error) => error.fmt(f),
            Self::Between(path) => write!(
                f,
                "the gateway on {} is starting or stopping, and does not answer; try again in a moment",
                path.display()
            ),
            Self::Started => write!(
                f,
                "a gateway has started meanwhile, and the files are its own again; run the command once more"
            ),
            Self::Nothing(path) => write!(
                f,
                "there is no spool: no gateway has run on the folder {}; name the gateway's configuration with -c",
                path.display()
            ),
            Self::NotRunning(path) => write!(
                f,
                "no gateway runs on {}, so there is nothing that sends and could be steered; start it: it sends its backlog by itself",
                path.display()
            ),
        }
    }
}

impl std::error::Error for ReachError {}

impl From<FilesError> for ReachError {
    fn from(error: FilesError) -> Self {
        match error {
            FilesError::Asked(text) => Self::Asked(text),
            other => Self::Files(other),
        }
    }
}

/// A spool within reach.
pub struct Reach {
    state_dir: PathBuf,
    way: Way,
}

enum Way {
    Gateway(Runtime),
    Files(Box<Files>),
}

impl Reach {
    /// Finds the spool of the gateway with this configuration. `changes`: it will be purged.
    ///
    /// # Errors
    /// There is none, or it cannot be had just now.
    pub fn to(config: &Config, changes: bool) -> Result<Self, ReachError> {
        let state_dir = config.gateway.state_dir.clone();
        let way = if is_answered(&state_dir).map_err(ReachError::Gateway)? {
            let runtime = Builder::new_current_thread().enable_all().build();
            let broken = |error: std::io::Error| ClientError::Broken(error.to_string());
            Way::Gateway(runtime.map_err(|error| ReachError::Gateway(broken(error)))?)
        } else {
            let taken = state::is_taken(&state_dir);
            if taken.map_err(|error| ReachError::Files(FilesError::State(error)))? {
                return Err(ReachError::Between(state_dir));
            }
            Way::Files(Box::new(files(config, changes)?))
        };
        Ok(Self { state_dir, way })
    }

    /// Whether a gateway answers.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        matches!(self.way, Way::Gateway(_))
    }

    /// The segments.
    ///
    /// # Errors
    /// There is no answer.
    pub fn segments(&mut self) -> Result<Segments, ReachError> {
        match &mut self.way {
            Way::Gateway(runtime) => ask(runtime, &self.state_dir, "/spool/segments", &()),
            Way::Files(files) => still(&self.state_dir, files.segments()),
        }
    }

    /// A page of messages.
    ///
    /// # Errors
    /// What is asked for is wrong, or there is no answer.
    pub fn messages(&mut self, search: &Search) -> Result<Messages, ReachError> {
        match &mut self.way {
            Way::Gateway(runtime) => ask(runtime, &self.state_dir, "/spool/messages", search),
            Way::Files(files) => still(&self.state_dir, files.messages(search)),
        }
    }

    /// Checks a segment.
    ///
    /// # Errors
    /// There is no answer.
    pub fn check(&mut self, segment: u32) -> Result<Check, ReachError> {
        match &mut self.way {
            Way::Gateway(runtime) => {
                let what = CheckWhat { segment };
                ask(runtime, &self.state_dir, "/spool/check", &what)
            }
            Way::Files(files) => still(&self.state_dir, files.check(segment)),
        }
    }

    /// Purges a page of messages, or counts them.
    ///
    /// # Errors
    /// What is asked for is wrong, or there is no answer.
    pub fn purge(&mut self, search: &Search) -> Result<Purged, ReachError> {
        match &mut self.way {
            Way::Gateway(runtime) => ask(runtime, &self.state_dir, "/spool/purge", search),
            Way::Files(files) => still(&self.state_dir, files.purge(search)),
        }
    }

    /// Makes what was purged last; a gateway has done so already.
    ///
    /// # Errors
    /// The disk fails.
    pub fn keep(self) -> Result<(), ReachError> {
        match self.way {
            Way::Gateway(_) => Ok(()),
            Way::Files(files) => Ok(files.keep()?),
        }
    }

    /// Stops the replay or lets it go on.
    ///
    /// # Errors
    /// No gateway runs, or there is no answer.
    pub fn replay(&mut self, what: &ReplayWhat) -> Result<Replay, ReachError> {
        match &mut self.way {
            Way::Gateway(runtime) => ask(runtime, &self.state_dir, "/spool/replay", what),
            Way::Files(_) => Err(ReachError::NotRunning(self.state_dir.clone())),
        }
    }

    /// Lets a page of dead letters be tried again, or counts them.
    ///
    /// # Errors
    /// What is asked for is wrong, no gateway runs, or there is no answer.
    pub fn again(&mut self, search: &Search) -> Result<Again, ReachError> {
        match &mut self.way {
            Way::Gateway(runtime) => ask(runtime, &self.state_dir, "/spool/again", search),
            Way::Files(_) => Err(ReachError::NotRunning(self.state_dir.clone())),
        }
    }
}

fn files(config: &Config, changes: bool) -> Result<Files, ReachError> {
    let files = match changes {
        true => Files::to_purge(config),
        false => Files::to_look(config),
    };
    files.map_err(|error| match error {
        FilesError::Folder(_, error) if error.kind() == std::io::ErrorKind::NotFound => {
            ReachError::Nothing(config.gateway.state_dir.clone())
        }
        other => ReachError::from(other),
    })
}

/// What was read of files that are still nobody's. A gateway that starts is not kept waiting, so that
/// what was read then means nothing.
fn still<T>(state_dir: &Path, read: Result<T, FilesError>) -> Result<T, ReachError> {
    match is_answered(state_dir) {
        Ok(false) => Ok(read?),
        _ => Err(ReachError::Started),
    }
}

fn ask<T: DeserializeOwned>(
    runtime: &Runtime,
    state_dir: &Path,
    path: &str,
    question: &impl Serialize,
) -> Result<T, ReachError> {
    let broken = |error: &dyn fmt::Display| ClientError::Broken(error.to_string());
    let body = serde_json::to_vec(question).unwrap_or_default();
    let answer = runtime.block_on(async {
        let answer = request(state_dir, Method::POST, path, body).await?;
        whole(answer, PAGE_BYTES_MAX).await
    });
    let (code, body) = answer.map_err(ReachError::Gateway)?;
    let fault = |body: &[u8]| serde_json::from_slice::<Fault>(body).map(|fault| fault.error);
    match code {
        StatusCode::OK => {
            serde_json::from_slice(&body).map_err(|error| ReachError::Gateway(broken(&error)))
        }
        StatusCode::NOT_FOUND => Err(ReachError::Refused(
            "the gateway that runs is older than this command, and knows nothing of it; restart it"
                .to_owned(),
        )),
        code => Err(match fault(&body) {
            Ok(text) if code == StatusCode::BAD_REQUEST => ReachError::Asked(text),
            Ok(text) => ReachError::Refused(text),
            Err(_) => ReachError::Gateway(broken(&code)),
        }),
    }
}
