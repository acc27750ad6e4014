//! A real mosquitto on a loopback port of its own, with its file in a folder of its own.
#![allow(
    clippy::disallowed_methods,
    reason = "starts a broker, and waits until it listens"
)]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A running mosquitto; killed when dropped.
pub(crate) struct Broker {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Broker {
    /// One that queues without limit, so that what is missing is not its doing.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let file = folder.path().join("mosquitto.conf");
        let text = format!(
            "user root\nlog_dest none\npersistence false\nmax_queued_messages 0\n\
             max_inflight_messages 0\nset_tcp_nodelay true\nallow_anonymous true\n\
             listener {port} 127.0.0.1\n"
        );
        std::fs::write(&file, text).unwrap();
        // Debian puts daemons where a user's path does not look.
        let debian = Path::new("/usr/sbin/mosquitto");
        let program = if debian.exists() {
            debian
        } else {
            Path::new("mosquitto")
        };
        let child = Command::new(program)
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is needed: `tests/run` installs it");
        let broker = Self {
            child,
            port,
            _folder: folder,
        };
        broker.wait_until_it_listens();
        broker
    }

    /// HOST:PORT.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn wait_until_it_listens(&self) {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < deadline, "mosquitto never listens");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nobody listens on, below the range that the kernel gives to outgoing connections.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + (std::process::id() * 67 + step) % 12_000;
        let port = u16::try_from(port).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
