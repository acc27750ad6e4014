//! What the Unix socket answers about the spool while the gateway runs: `/spool/segments`,
//! `/spool/messages`, `/spool/check`, `/spool/purge`, `/spool/replay`, `/spool/again`. The writer is asked what stands on
//! the disk; the relay, which knows where each message is, is asked to change it. Every answer is
//! a page: one that takes long is many short ones.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use super::page::{
    Again, Aside, Check, CheckWhat, Fault, Messages, Purged, Replay, ReplayWhat, Search, Segment,
    Segments,
};
use super::{Asked, class_names};
use crate::control::admin::question::Question as Path;
use crate::control::admin::routes::json;
use crate::traffic::message::ClassId;
use crate::traffic::spool::inspect::{Answer, Page, Question, SegmentSeen};
use crate::traffic::spool::request::{Requests, SpoolRequest};
use crate::traffic::spool::{Position, SpoolCommand, class_of_log};

/// What the routes need.
#[derive(Debug)]
pub struct Desk {
    /// The gateway's id.
    pub gateway: String,
    /// The names of its classes.
    pub classes: Vec<Arc<str>>,
    /// To the writer. Weak: the writer ends when the relay has no more for it.
    pub writer: mpsc::WeakSender<SpoolCommand>,
    /// To the relay.
    pub requests: Requests,
    /// How the path is.
    pub path: Arc<Path>,
}

/// The routes, for the Unix socket alone: payloads are nobody else's business.
pub fn changing(desk: Desk) -> Router {
    Router::new()
        .route("/spool/segments", post(segments))
        .route("/spool/messages", post(messages))
        .route("/spool/check", post(check))
        .route("/spool/purge", post(purge))
        .route("/spool/replay", post(replay))
        .route("/spool/again", post(again))
        .with_state(Arc::new(desk))
}

/// A page, or why there is none.
type Told<T> = Result<T, (StatusCode, String)>;

async fn segments(State(desk): State<Arc<Desk>>) -> Response {
    respond(desk.segments().await)
}

async fn messages(State(desk): State<Arc<Desk>>, body: Bytes) -> Response {
    let page = async {
        let page = desk.find(&read(&body)?).await?;
        Ok(Messages::new(&page, &desk.gateway))
    };
    respond(page.await)
}

async fn check(State(desk): State<Arc<Desk>>, body: Bytes) -> Response {
    let page = async {
        let CheckWhat { segment } = read(&body)?;
        match desk.ask(Question::Verify(segment)).await? {
            Answer::Verified(verified) => Ok(Check::from(verified)),
            other => Err(no_answer(other)),
        }
    };
    respond(page.await)
}

async fn purge(State(desk): State<Arc<Desk>>, body: Bytes) -> Response {
    let page = async {
        let search: Search = read(&body)?;
        let page = desk.find(&search).await?;
        let mut purged = 0;
        if !search.dry_run {
            for (class, positions) in by_class(&page) {
                purged += desk.purge(class, positions).await?;
            }
        }
        Ok(Purged::new(&page, purged))
    };
    respond(page.await)
}

async fn replay(State(desk): State<Arc<Desk>>, body: Bytes) -> Response {
    let page = async {
        let what = read(&body)?;
        desk.replay(what).await
    };
    respond(page.await)
}

async fn again(State(desk): State<Arc<Desk>>, body: Bytes) -> Response {
    let page = async {
        let mut search: Search = read(&body)?;
        search.asked.dead = true;
        let page = desk.find(&search).await?;
        let mut again = 0;
        if !search.dry_run {
            for (log, positions) in by_class(&page) {
                again += desk.again(log, positions).await?;
            }
        }
        Ok(Again::new(&page, again))
    };
    respond(page.await)
}

impl Desk {
    async fn segments(&self) -> Told<Segments> {
        let seen = self.seen().await?;
        let aside = match self.ask(Question::Aside).await? {
            Answer::Aside(files) => files.into_iter().map(Aside::from).collect(),
            other => return Err(no_answer(other)),
        };
        let status = self.path.ask().await;
        let names = class_names(self.classes.iter().cloned(), &seen);
        let classes = status.iter().flat_map(|status| &status.classes);
        let paused = classes.filter(|class| class.replay_paused);
        Ok(Segments {
            aside,
            paused_classes: paused.map(|class| class.name.clone()).collect(),
            classes: names.iter().map(ToString::to_string).collect(),
            segments: seen.iter().map(Segment::from).collect(),
            paused: status.map(|status| status.spool.paused),
        })
    }

    async fn seen(&self) -> Told<Vec<SegmentSeen>> {
        match self.ask(Question::Segments).await? {
            Answer::Segments(seen) => Ok(seen),
            other => Err(no_answer(other)),
        }
    }

    async fn find(&self, search: &Search) -> Told<Page> {
        let names = self.names(&search.asked).await?;
        let wanted = search.asked.wanted(&names, search.next.map(Position::from));
        let mut wanted = wanted.map_err(|error| (StatusCode::BAD_REQUEST, error))?;
        if search.count_max > 0 {
            wanted.count_max = search.count_max;
        }
        match self.ask(Question::Messages(wanted)).await? {
            Answer::Messages(page) => Ok(page),
            other => Err(no_answer(other)),
        }
    }

    /// The classes that there are. Files are looked through only for one that is not configured.
    async fn names(&self, asked: &Asked) -> Told<Vec<Arc<str>>> {
        let configured = |class: &String| self.classes.iter().any(|name| **name == **class);
        if asked.class.as_ref().is_none_or(configured) {
            return Ok(self.classes.clone());
        }
        let seen = self.seen().await?;
        Ok(class_names(self.classes.iter().cloned(), &seen))
    }

    async fn ask(&self, question: Question) -> Told<Answer> {
        let writer = self.writer.upgrade().ok_or(()).map_err(silent)?;
        let (answer, answered) = oneshot::channel();
        let command = SpoolCommand::Ask { question, answer };
        writer.send(command).await.map_err(silent)?;
        drop(writer);
        answered.await.map_err(silent)
    }

    async fn purge(&self, class: ClassId, positions: Vec<Position>) -> Told<u64> {
        let (answer, answered) = oneshot::channel();
        let request = SpoolRequest::Purge(class, positions, answer);
        self.requests.send(request).await.map_err(silent)?;
        answered.await.map_err(silent)
    }

    async fn again(&self, log: ClassId, positions: Vec<Position>) -> Told<u64> {
        let (answer, answered) = oneshot::channel();
        let (class, _) = class_of_log(log, self.classes.len());
        let request = SpoolRequest::Again(class, positions, answer);
        self.requests.send(request).await.map_err(silent)?;
        answered.await.map_err(silent)
    }

    fn class(&self, name: &str) -> Told<ClassId> {
        let place = self.classes.iter().position(|class| **class == *name);
        let id = place.and_then(|place| u8::try_from(place).ok());
        id.map(ClassId).ok_or_else(|| {
            let names = self.classes.join(", ");
            let error = format!("there is no class {name:?}; the classes are {names}");
            (StatusCode::BAD_REQUEST, error)
        })
    }

    async fn replay(&self, what: ReplayWhat) -> Told<Replay> {
        let class = what.class.as_deref();
        let id = class.map(|class| self.class(class)).transpose()?;
        let status = self.path.ask().await.ok_or(()).map_err(silent)?;
        let meant = |name: &str| class.is_none_or(|class| class == name);
        let classes = status.classes.iter().filter(|class| meant(&class.name));
        let mut replay = Replay {
            was_paused: classes.clone().any(|class| class.replay_paused),
            backlog: classes.map(|class| class.backlog).sum(),
            uplink_up: status.is_uplink_up(),
        };
        if !what.dry_run {
            let (answer, answered) = oneshot::channel();
            let request = SpoolRequest::Pause(id, what.paused, answer);
            self.requests.send(request).await.map_err(silent)?;
            replay.was_paused = answered.await.map_err(silent)?;
        }
        Ok(replay)
    }
}

fn respond<T: Serialize>(told: Told<T>) -> Response {
    match told {
        Ok(page) => json(StatusCode::OK, &page),
        Err((code, error)) => json(code, &Fault { error }),
    }
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Told<T> {
    let body: &[u8] = if body.is_empty() { b"{}" } else { body };
    let unread = |error| format!("the question cannot be read: {error}");
    serde_json::from_slice(body).map_err(|error| (StatusCode::BAD_REQUEST, unread(error)))
}

fn silent<T>(_: T) -> (StatusCode, String) {
    let text = "the gateway is stopping, or its disk does not answer; see its log";
    (StatusCode::SERVICE_UNAVAILABLE, text.to_owned())
}

fn no_answer(answer: Answer) -> (StatusCode, String) {
    match answer {
        Answer::Failed(why) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the disk gives no answer: {why}; see `tidegate status`"),
        ),
        other => silent(other),
    }
}

/// The positions of a page's messages by the class that they count as.
fn by_class(page: &Page) -> Vec<(ClassId, Vec<Position>)> {
    let mut by_class: Vec<(ClassId, Vec<Position>)> = Vec::new();
    for seen in &page.messages {
        let class = seen.message.class;
        match by_class.iter_mut().find(|(known, _)| *known == class) {
            Some((_, positions)) => positions.push(seen.position),
            None => by_class.push((class, vec![seen.position])),
        }
    }
    by_class
}
