//! The door through which a command talks to the gateway that runs: one request over the Unix socket
//! in its state folder.

#![allow(
    clippy::disallowed_methods,
    reason = "connects to the gateway's socket, and waits for a bounded time"
)]

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::SOCKET_NAME;

/// From a request to the head of its answer: longer than the gateway gives itself.
const ANSWER_MAX: Duration = Duration::from_secs(65);
/// The gateway accepts at once, or all its places are taken.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody listens: the gateway does not run, or has another state folder.
    NotRunning(PathBuf),
    /// The socket belongs to another user.
    NotPermitted(PathBuf),
    /// It runs and does not answer.
    Silent(PathBuf),
    /// The connection broke, or what came is no answer.
    Broken(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning(path) => write!(
                f,
                "no gateway runs here: nobody answers at {}; start it, or name its configuration with -c",
                path.display()
            ),
            Self::NotPermitted(path) => write!(
                f,
                "{} is for the gateway's own user; run this command as that user, or as root",
                path.display()
            ),
            Self::Silent(path) => write!(
                f,
                "the gateway at {} runs, but does not answer; see its log",
                path.display()
            ),
            Self::Broken(why) => write!(f, "the gateway gave no answer that can be read: {why}"),
        }
    }
}

impl std::error::Error for ClientError {}

/// Sends one request to the gateway with this state folder. Whatever it answers is the caller's to
/// read, with [`whole`] or piece by piece.
///
/// # Errors
/// There is no answer.
pub async fn request(
    state_dir: &Path,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<Response<Incoming>, ClientError> {
    let socket = state_dir.join(SOCKET_NAME);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "tidegate")
        .body(Full::new(Bytes::from(body)))
        .map_err(broken)?;
    let stream = connect(&socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // It ends when the answer has been read or dropped.
    tokio::spawn(connection);
    match timeout(ANSWER_MAX, sender.send_request(request)).await {
        Ok(answer) => answer.map_err(broken),
        Err(_) => Err(ClientError::Silent(socket)),
    }
}

/// An answer's status and its whole body, at most `bytes_max`.
///
/// # Errors
/// It is larger, or breaks off.
pub async fn whole(
    answer: Response<Incoming>,
    bytes_max: usize,
) -> Result<(StatusCode, Bytes), ClientError> {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), bytes_max).collect();
    match timeout(ANSWER_MAX, body).await {
        Ok(Ok(body)) => Ok((status, body.to_bytes())),
        Ok(Err(error)) => Err(broken(error)),
        Err(_) => Err(broken("it breaks off")),
    }
}

/// Whether anybody listens at the socket in this state folder.
///
/// # Errors
/// Nobody can say: it belongs to another user, or the system refuses.
pub fn is_answered(state_dir: &Path) -> Result<bool, ClientError> {
    let socket = state_dir.join(SOCKET_NAME);
    match std::os::unix::net::UnixStream::connect(&socket) {
        Ok(_) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(false),
            io::ErrorKind::PermissionDenied => Err(ClientError::NotPermitted(socket)),
            _ => Err(broken(format_args!("{}: {error}", socket.display()))),
        },
    }
}

async fn connect(socket: &Path) -> Result<UnixStream, ClientError> {
    let path = || socket.to_owned();
    match timeout(CONNECT_MAX, UnixStream::connect(socket)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning(path())
            }
            io::ErrorKind::PermissionDenied => ClientError::NotPermitted(path()),
            io::ErrorKind::WouldBlock => ClientError::Silent(path()),
            _ => broken(format_args!("{}: {error}", socket.display())),
        }),
        Err(_) => Err(ClientError::Silent(path())),
    }
}

fn broken(why: impl fmt::Display) -> ClientError {
    ClientError::Broken(why.to_string())
}
