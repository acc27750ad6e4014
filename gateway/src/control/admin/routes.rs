//! What the admin interface answers: `/livez`, `/readyz`, `/metrics`, `/status`. All of them only
//! read. What changes anything is merged in by whoever owns it, for the Unix socket alone: see
//! [`http`](super::http).

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;

use super::health::{self, Answer, Health};
use super::question::Question;
use super::{Report, VERSION, metrics, process};
use crate::traffic::status::Status;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What the routes need.
#[derive(Debug)]
struct Known {
    gateway: String,
    question: Arc<Question>,
}

/// The routes that only read, for the gateway with this id.
pub fn reading(gateway: String, question: Arc<Question>) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .with_state(Arc::new(Known { gateway, question }))
}

/// An answer in JSON, one line.
#[must_use]
pub fn json(code: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(mut body) => {
            body.push(b'\n');
            (code, [(header::CONTENT_TYPE, JSON)], body).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

impl Known {
    /// What the path says, and what follows from it.
    async fn look(&self) -> (Option<Arc<Status>>, Health) {
        let status = self.question.ask().await;
        let answer = status.as_deref().map_or(Answer::Silent, Answer::Status);
        let moment = self.question.moment();
        let health = health::judge(answer, moment.wall, moment.stopping);
        (status, health)
    }
}

/// Alive: the path answers. Whatever else is wrong, a restart would not mend it.
async fn livez(State(known): State<Arc<Known>>) -> Response {
    match known.question.ask().await {
        Some(_) => "ok\n".into_response(),
        None => {
            let text = "the path does not answer\n";
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

async fn readyz(State(known): State<Arc<Known>>) -> Response {
    let (_, health) = known.look().await;
    json(code(health.ready), &health)
}

/// Without the path there are no numbers; that the scrape fails is Prometheus' own alarm.
async fn metrics(State(known): State<Arc<Known>>) -> Response {
    let (Some(status), health) = known.look().await else {
        let text = "the path does not answer\n";
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    };
    let text = metrics::text(status, process::read(), health.ready);
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

/// With a path that is silent: 503, and the rest of what is known.
async fn status(State(known): State<Arc<Known>>) -> Response {
    let (status, health) = known.look().await;
    let code = code(status.is_some());
    let report = Report {
        gateway: known.gateway.clone(),
        version: VERSION.to_owned(),
        uptime_seconds: known.question.moment().uptime.as_secs(),
        process: process::read(),
        health,
        path: status.map(Arc::unwrap_or_clone).unwrap_or_default(),
    };
    json(code, &report)
}

const fn code(well: bool) -> StatusCode {
    if well {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}
