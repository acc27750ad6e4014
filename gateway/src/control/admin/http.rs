//! The door of the admin interface: listens on loopback and on the Unix socket, and serves both
//! until the gateway stops. It keeps clients within bounds, so that a slow or hostile one costs a
//! place and no more: connections, heads, bodies and times all have a limit, and each server its own
//! places.
//!
//! What it answers is [`routes`](super::routes)'; it knows no route itself.

#![allow(
    clippy::disallowed_methods,
    reason = "listens, and gives clients a bounded time"
)]

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::SOCKET_NAME;
use crate::traffic::lanes::Phase;

/// Connections of one server at a time: a Prometheus, a probe and a few people, with room. The
/// next one waits in the kernel's queue.
const CONNECTIONS_MAX: usize = 16;
/// Connections that the kernel keeps while all places are taken; more are refused.
const QUEUE_MAX: i32 = 16;
/// A head is sent at once; who is silent for longer does not need its place.
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);
/// A request's head, in bytes; also how much of an answer waits for its reader.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// A request's body, in bytes: what changes anything is told in a few words.
const BODY_BYTES_MAX: usize = 64 << 10;
/// How long to wait when the system gives no more files: others close theirs.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);
/// The longest path of a Unix socket (unix(7): 108 bytes, the last one is NUL).
const PATH_BYTES_MAX: usize = 107;
/// For the socket's owner alone.
const MODE: u32 = 0o600;

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// From a connection, or from the last answer, to a whole head.
    head: Duration,
    /// From a request's head to that of its answer.
    request: Duration,
    /// A whole connection, however much of the answers is read; `None`: as long as it likes.
    connection: Option<Duration>,
}

/// On loopback anybody may connect: an answer needs a second at most, and a client that stops
/// reading gives its place back within a minute.
const ANYBODY: Patience = Patience {
    head: HEAD_TIME_MAX,
    request: Duration::from_secs(10),
    connection: Some(Duration::from_secs(60)),
};
/// On the Unix socket the gateway's own user does, who may read an export for hours. What takes long
/// begins its answer at once and goes on in the body.
const OWNER: Patience = Patience {
    head: HEAD_TIME_MAX,
    request: Duration::from_secs(60),
    connection: None,
};

/// Why the admin interface cannot listen: all of them the operator's to repair.
#[derive(Debug)]
pub enum AdminError {
    /// Another program listens there.
    PortInUse(SocketAddr),
    /// Ports below 1024 are for privileged programs.
    NotPermitted(SocketAddr),
    /// The machine has no such address.
    NoSuchAddress(SocketAddr),
    /// The system refuses for another reason.
    Listen(SocketAddr, io::Error),
    /// The Unix socket's path does not fit into the system's 107 bytes.
    PathTooLong(PathBuf),
    /// Something that is no socket has its name; it is left alone.
    NotASocket(PathBuf),
    /// The Unix socket cannot be made.
    Socket(PathBuf, io::Error),
}

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortInUse(at) => write!(
                f,
                "the admin interface cannot listen on {at}: another program does; stop it, or set another `bind` in [admin]"
            ),
            Self::NotPermitted(at) => write!(
                f,
                "the admin interface may not listen on {at}; set a `bind` in [admin] with a port above 1023"
            ),
            Self::NoSuchAddress(at) => write!(
                f,
                "the admin interface cannot listen on {at}: this machine has no such address; check `bind` in [admin]"
            ),
            Self::Listen(at, cause) => write!(
                f,
                "the admin interface cannot listen on {at}: {cause}; check `bind` in [admin]"
            ),
            Self::PathTooLong(path) => write!(
                f,
                "the path of the admin socket, {}, has {} bytes, and the system takes {PATH_BYTES_MAX}; set a shorter `state_dir` in [gateway]",
                path.display(),
                path.as_os_str().len()
            ),
            Self::NotASocket(path) => write!(
                f,
                "{} is in the way of the admin socket and is no socket; move it elsewhere",
                path.display()
            ),
            Self::Socket(path, cause) => write!(
                f,
                "the admin socket {} cannot be made: {cause}; see that the gateway's user may write to `state_dir` of [gateway], and that its file system has sockets",
                path.display()
            ),
        }
    }
}

impl std::error::Error for AdminError {}

/// Both servers, before they serve.
#[derive(Debug)]
pub struct Admin {
    loopback: Option<TcpListener>,
    owner: UnixListener,
    path: PathBuf,
}

impl Admin {
    /// Listens, inside a tokio runtime: on `bind`, if there is one, and on the socket in the state
    /// folder. A socket that a dead gateway left there is removed: the folder must be locked by this
    /// process, so that it can be nobody else's.
    ///
    /// # Errors
    /// Each says what the operator can do.
    pub fn bind(bind: Option<SocketAddr>, state_dir: &Path) -> Result<Self, AdminError> {
        let loopback = bind.map(listen).transpose()?;
        let path = state_dir.join(SOCKET_NAME);
        let owner = listen_unix(&path)?;
        Ok(Self {
            loopback,
            owner,
            path,
        })
    }

    /// Where it listens on TCP.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.loopback.as_ref()?.local_addr().ok()
    }

    /// Serves `reading` on both, and `changing` on the Unix socket alone, until [`Phase::Stop`]: who
    /// watches a drain sees its end. Then connections are dropped, whatever they wait for.
    pub async fn serve(self, reading: Router, changing: Router, mut phase: watch::Receiver<Phase>) {
        let owner = reading.clone().merge(changing);
        let loopback = async {
            match &self.loopback {
                Some(socket) => welcome(socket, reading, ANYBODY).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = phase.wait_for(|phase| *phase >= Phase::Stop) => {}
            () = loopback => {}
            () = welcome(&self.owner, owner, OWNER) => {}
        }
        // Left behind, it would be taken for a gateway that died; the next start removes it then.
        let _ = fs::remove_file(&self.path);
    }
}

fn listen(bind: SocketAddr) -> Result<TcpListener, AdminError> {
    let open = || {
        let socket = Socket::new(Domain::for_address(bind), Type::STREAM, None)?;
        // A restarted gateway listens at once, though connections of the last run linger in TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&bind.into())?;
        socket.listen(QUEUE_MAX)?;
        TcpListener::from_std(socket.into())
    };
    open().map_err(|cause: io::Error| match cause.kind() {
        io::ErrorKind::AddrInUse => AdminError::PortInUse(bind),
        io::ErrorKind::PermissionDenied => AdminError::NotPermitted(bind),
        io::ErrorKind::AddrNotAvailable => AdminError::NoSuchAddress(bind),
        _ => AdminError::Listen(bind, cause),
    })
}

/// Nobody can connect before the mode is set: the socket listens only then.
fn listen_unix(path: &Path) -> Result<UnixListener, AdminError> {
    if path.as_os_str().len() > PATH_BYTES_MAX {
        return Err(AdminError::PathTooLong(path.to_owned()));
    }
    remove_stale(path)?;
    let open = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(path)?)?;
        fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
        socket.listen(QUEUE_MAX)?;
        UnixListener::from_std(StdUnixListener::from(socket))
    };
    open().map_err(|cause| AdminError::Socket(path.to_owned(), cause))
}

fn remove_stale(path: &Path) -> Result<(), AdminError> {
    let failed = |cause| AdminError::Socket(path.to_owned(), cause);
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path).map_err(failed),
        Ok(_) => Err(AdminError::NotASocket(path.to_owned())),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(failed(cause)),
    }
}

/// A socket that clients come in by.
trait Entrance {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Entrance for TcpListener {
    type Stream = TcpStream;
    async fn next(&self) -> io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }
}

impl Entrance for UnixListener {
    type Stream = UnixStream;
    async fn next(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

/// Takes clients in while there are places. Dropped, it drops them all.
async fn welcome(entrance: &impl Entrance, routes: Router, patience: Patience) {
    let routes = routes.layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut clients = JoinSet::new();
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        while clients.try_join_next().is_some() {}
        match entrance.next().await {
            Ok(stream) => {
                clients.spawn(converse(stream, routes.clone(), patience, place));
            }
            Err(error) => {
                tracing::debug!("the admin interface cannot take a connection: {error}");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// Serves one client. How its connection ends is its own affair.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    routes: Router,
    patience: Patience,
    place: OwnedSemaphorePermit,
) {
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = routes.call(request);
        async move {
            let late = || StatusCode::GATEWAY_TIMEOUT.into_response();
            let answer = timeout(patience.request, answer).await;
            answer.unwrap_or_else(|_| Ok(late()))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    match patience.connection {
        Some(max) => drop(timeout(max, connection).await),
        None => drop(connection.await),
    }
    drop(place);
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
