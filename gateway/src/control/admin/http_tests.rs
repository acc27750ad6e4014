//! The servers on real sockets, beside a path that the test plays.

use std::os::unix::net::UnixListener as StdListener;

use axum::body::Bytes;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;
use crate::clock::Clock;
use crate::control::admin::question::Question;
use crate::control::admin::{Report, client, routes};
use crate::traffic::status::{Asked, Status, channel, sample};

/// Longer than anything takes here that goes well.
const DEADLINE: Duration = Duration::from_secs(30);

struct Site {
    state: tempfile::TempDir,
    addr: SocketAddr,
    path: watch::Sender<Status>,
    phase: watch::Sender<Phase>,
    served: JoinHandle<()>,
}

/// Both servers, and a path that says what the test wants it to say.
fn site() -> Site {
    let (ask, asked) = channel();
    let (path, says) = watch::channel(sample());
    tokio::spawn(answer(asked, says));
    open(ask, path)
}

fn open(ask: crate::traffic::status::Ask, path: watch::Sender<Status>) -> Site {
    let state = tempfile::tempdir().unwrap();
    let admin = Admin::bind(Some("127.0.0.1:0".parse().unwrap()), state.path()).unwrap();
    let addr = admin.local_addr().unwrap();
    let (phase, watched) = watch::channel(Phase::Run);
    let question = Arc::new(Question::new(ask, Clock::start(), watched.clone()));
    let reading = routes::reading("box-7".to_owned(), question);
    let changing = Router::new().route("/spool/pause", post(async |body: Bytes| body));
    let served = tokio::spawn(admin.serve(reading, changing, watched));
    Site {
        state,
        addr,
        path,
        phase,
        served,
    }
}

async fn answer(mut asked: Asked, says: watch::Receiver<Status>) {
    while let Some(tell) = asked.recv().await {
        let status = says.borrow().clone();
        let _ = tell.send(status);
    }
}

/// What a server sends back until it closes, for bytes as they are.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> String {
    let mut answer = Vec::new();
    let whole = async {
        // A server that refuses a request need not have read it.
        let _ = stream.write_all(bytes).await;
        let _ = stream.read_to_end(&mut answer).await;
    };
    timeout(DEADLINE, whole).await.expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

fn request(method: &str, path: &str, body: usize) -> Vec<u8> {
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {body}\r\n\r\n"
    )
    .into_bytes();
    request.resize(request.len() + body, b'x');
    request
}

impl Site {
    async fn tcp(&self, bytes: &[u8]) -> String {
        exchange(TcpStream::connect(self.addr).await.unwrap(), bytes).await
    }

    async fn unix(&self, bytes: &[u8]) -> String {
        let path = self.state.path().join(SOCKET_NAME);
        exchange(UnixStream::connect(path).await.unwrap(), bytes).await
    }

    /// Status line and body of an answer, the same on both sockets.
    async fn get(&self, path: &str) -> (String, String) {
        let parts = |answer: String| {
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            (head.lines().next().unwrap().to_owned(), body.to_owned())
        };
        let request = request("GET", path, 0);
        let (tcp, unix) = tokio::join!(self.tcp(&request), self.unix(&request));
        let (tcp, unix) = (parts(tcp), parts(unix));
        assert_eq!(tcp.0, unix.0);
        tcp
    }
}

#[tokio::test]
async fn is_everything_answered_on_both_sockets() {
    let site = site();
    assert_eq!(
        site.get("/livez").await,
        ("HTTP/1.1 200 OK".into(), "ok\n".into())
    );
    let (line, body) = site.get("/readyz").await;
    assert_eq!(line, "HTTP/1.1 200 OK");
    let health: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&health["ready"], &health["reasons"]),
        (&true.into(), &serde_json::json!([]))
    );
    let (line, body) = site.get("/metrics").await;
    assert_eq!(line, "HTTP/1.1 200 OK");
    assert!(
        body.contains("\ntidegate_received_total{class=\"critical\"} 1000\n"),
        "{body}"
    );
    assert!(body.ends_with("# EOF\n"));
    let (line, body) = site.get("/status").await;
    assert_eq!(line, "HTTP/1.1 200 OK");
    let report: Report = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (report.gateway.as_str(), &report.path),
        ("box-7", &sample())
    );
    assert!(site.get("/other").await.0.contains("404"));
}

#[tokio::test]
async fn does_readyz_follow_the_path() {
    let site = site();
    site.path
        .send_modify(|path| path.spool.failing = Some("/var is full".to_owned()));
    let (line, body) = site.get("/readyz").await;
    assert!(
        line.contains("503") && body.contains("/var is full"),
        "{line} {body}"
    );
    assert!(site.get("/livez").await.0.contains("200"));
    site.path.send_modify(|path| path.spool.failing = None);
    assert!(site.get("/readyz").await.0.contains("200"));
    site.phase.send_replace(Phase::Drain);
    let (line, body) = site.get("/readyz").await;
    assert!(
        line.contains("503") && body.contains("is stopping"),
        "{line} {body}"
    );
}

#[tokio::test]
async fn is_a_path_that_is_stuck_not_alive() {
    let (ask, asked) = channel();
    let site = open(ask, watch::channel(Status::default()).0);
    for path in ["/livez", "/readyz", "/metrics", "/status"] {
        assert!(site.get(path).await.0.contains("503"), "{path}");
    }
    drop(asked);
    assert!(site.get("/livez").await.0.contains("503"));
}

#[tokio::test]
async fn can_anything_be_changed_over_tcp() {
    let site = site();
    let change = request("POST", "/spool/pause", 3);
    assert!(site.tcp(&change).await.starts_with("HTTP/1.1 404"));
    assert!(site.unix(&change).await.starts_with("HTTP/1.1 200"));
    for path in ["/livez", "/readyz", "/metrics", "/status"] {
        let answer = site.tcp(&request("POST", path, 3)).await;
        assert!(answer.starts_with("HTTP/1.1 405"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn are_large_heads_and_bodies_refused() {
    let site = site();
    let head = format!(
        "GET /livez HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "x".repeat(1 << 20)
    );
    let answer = site.tcp(head.as_bytes()).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
    let body = request("POST", "/spool/pause", BODY_BYTES_MAX + 1);
    assert!(site.unix(&body).await.starts_with("HTTP/1.1 413"));
    assert!(
        site.unix(&request("POST", "/spool/pause", BODY_BYTES_MAX))
            .await
            .starts_with("HTTP/1.1 200")
    );
    let noise: Vec<u8> = (0..=255).cycle().take(4_096).collect();
    site.tcp(&noise).await;
    assert!(site.get("/livez").await.0.contains("200"));
}

#[tokio::test]
async fn is_the_socket_for_its_owner_alone_and_gone_at_the_end() {
    let site = site();
    let path = site.state.path().join(SOCKET_NAME);
    let found = fs::symlink_metadata(&path).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    // A client that waits for nothing must not keep the gateway from stopping.
    let _idle = UnixStream::connect(&path).await.unwrap();
    site.phase.send_replace(Phase::Stop);
    timeout(DEADLINE, site.served).await.unwrap().unwrap();
    assert!(fs::symlink_metadata(&path).is_err());
}

#[tokio::test]
async fn is_a_dead_gateways_socket_replaced_and_nothing_else() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join(SOCKET_NAME);
    drop(StdListener::bind(&path).unwrap());
    drop(Admin::bind(None, state.path()).unwrap());
    assert!(fs::symlink_metadata(&path).is_ok());
    drop(Admin::bind(None, state.path()).unwrap());
    fs::remove_file(&path).unwrap();
    fs::write(&path, "somebody's").unwrap();
    let error = Admin::bind(None, state.path()).unwrap_err().to_string();
    assert!(error.contains("is no socket"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's");
}

#[tokio::test]
async fn does_each_place_that_cannot_be_taken_say_what_to_do() {
    let state = tempfile::tempdir().unwrap();
    let error =
        |bind: Option<SocketAddr>, state: &Path| Admin::bind(bind, state).unwrap_err().to_string();
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = other.local_addr().unwrap();
    let text = error(Some(taken), state.path());
    assert!(text.contains(&taken.to_string()) && text.contains("another `bind` in [admin]"));
    let text = error(Some("192.0.2.1:9180".parse().unwrap()), state.path());
    assert!(text.contains("no such address"), "{text}");
    let long = state.path().join("x".repeat(120));
    assert!(error(None, &long).contains("a shorter `state_dir`"));
    let gone = state.path().join("gone");
    assert!(error(None, &gone).contains("cannot be made"));
    // The longest that fits does.
    let spare = PATH_BYTES_MAX - SOCKET_NAME.len() - 2 - state.path().as_os_str().len();
    let fits = state.path().join("y".repeat(spare));
    fs::create_dir(&fits).unwrap();
    Admin::bind(None, &fits).unwrap();
}

/// A server with little patience, on TCP, with a route that never answers and one that has much to say.
async fn impatient(patience: Patience) -> SocketAddr {
    let routes = Router::new()
        .route("/well", get(async || "well"))
        .route("/never", get(async || std::future::pending::<()>().await))
        .route("/much", get(async || "x".repeat(64 << 20)));
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    tokio::spawn(async move { welcome(&socket, routes, patience).await });
    addr
}

const SHORT: Duration = Duration::from_millis(100);
const IMPATIENT: Patience = Patience {
    head: DEADLINE,
    request: DEADLINE,
    connection: Some(DEADLINE),
};

/// Takes every place with clients that send this and then nothing, and asks as the next one.
async fn beside_idlers(patience: Patience, sent: &str) -> String {
    let addr = impatient(patience).await;
    let mut idlers = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut idler = TcpStream::connect(addr).await.unwrap();
        idler.write_all(sent.as_bytes()).await.unwrap();
        idlers.push(idler);
    }
    let client = TcpStream::connect(addr).await.unwrap();
    exchange(client, &request("GET", "/well", 0)).await
}

#[tokio::test]
async fn do_silent_clients_keep_others_out() {
    let patience = Patience {
        head: SHORT,
        ..IMPATIENT
    };
    for sent in ["", "GET /well HT", "GET /well HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let answer = beside_idlers(patience, sent).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{sent:?}: {answer}");
    }
}

#[tokio::test]
async fn do_clients_that_never_read_keep_others_out() {
    let patience = Patience {
        connection: Some(SHORT),
        ..IMPATIENT
    };
    let answer = beside_idlers(patience, "GET /much HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn does_an_answer_that_never_comes_end() {
    let addr = impatient(Patience {
        request: SHORT,
        ..IMPATIENT
    })
    .await;
    let client = TcpStream::connect(addr).await.unwrap();
    let answer = exchange(client, &request("GET", "/never", 0)).await;
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
}

/// Who fills all places of one server must not lock the operator out of the other.
#[tokio::test]
async fn does_a_full_loopback_lock_the_operator_out() {
    let site = site();
    let mut idlers = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        idlers.push(TcpStream::connect(site.addr).await.unwrap());
    }
    let answer = site.unix(&request("GET", "/livez", 0)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn does_the_client_read_what_the_server_says() {
    let site = site();
    let ask = |path| client::request(site.state.path(), hyper::Method::GET, path, Vec::new());
    let answer = ask("/status").await.unwrap();
    let (code, body) = client::whole(answer, 1 << 20).await.unwrap();
    assert_eq!(code, StatusCode::OK);
    let report: Report = serde_json::from_slice(&body).unwrap();
    assert_eq!(report.path, sample());
    let answer = ask("/metrics").await.unwrap();
    assert!(client::whole(answer, 100).await.is_err());
    let body = b"{}".to_vec();
    let answer = client::request(site.state.path(), hyper::Method::POST, "/spool/pause", body);
    let (_, body) = client::whole(answer.await.unwrap(), 100).await.unwrap();
    assert_eq!(body, "{}");
}

#[tokio::test]
async fn is_a_gateway_that_does_not_run_told_as_such() {
    let state = tempfile::tempdir().unwrap();
    let ask = || client::request(state.path(), hyper::Method::GET, "/status", Vec::new());
    let error = ask().await.unwrap_err();
    assert!(
        error.to_string().contains("no gateway runs here"),
        "{error}"
    );
    // As a killed one leaves it.
    drop(StdListener::bind(state.path().join(SOCKET_NAME)).unwrap());
    let error = ask().await.unwrap_err();
    assert!(
        error.to_string().contains("no gateway runs here"),
        "{error}"
    );
}
