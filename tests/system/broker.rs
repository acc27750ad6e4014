//! A real mosquitto on a loopback port of its own, with its files in a folder of its own.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::device;
use crate::wait::{SOON, run_to_end, signal, wait_until};
use crate::wire::{Connect, Version};

/// What to do where mosquitto is missing.
pub(crate) const INSTALL: &str = "mosquitto is needed: on Debian and Ubuntu, `apt-get install mosquitto \
                       mosquitto-clients` (the README's test command does it)";

/// What the broker is like.
#[derive(Clone, Debug, Default)]
pub(crate) struct BrokerOptions {
    /// Sessions and queued messages survive a clean restart.
    pub(crate) persistence: bool,
    /// User and password that every client needs.
    pub(crate) login: Option<(String, String)>,
    /// TLS on a second port, with client certificates required.
    pub(crate) tls: Option<TlsFiles>,
    /// Further lines of the broker's configuration.
    pub(crate) lines: Vec<String>,
    /// Runs in this network namespace, on all its addresses; this is the one for who watches.
    pub(crate) namespace: Option<(String, Ipv4Addr)>,
}

/// The files of a broker's TLS port (PEM).
#[derive(Clone, Debug)]
pub(crate) struct TlsFiles {
    pub(crate) client_authority: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// A running mosquitto; killed when dropped.
pub(crate) struct Broker {
    child: Option<Child>,
    folder: tempfile::TempDir,
    port: u16,
    tls_port: u16,
    login: Option<(String, String)>,
    namespace: Option<(String, Ipv4Addr)>,
}

/// How a broker is stopped.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    /// SIGTERM: connections end, what persists is written.
    Clean,
    /// SIGKILL.
    Kill,
}

impl Broker {
    /// One without persistence, password or TLS.
    pub(crate) fn start() -> Self {
        Self::with(&BrokerOptions::default())
    }

    /// One with the TCP port that nobody has.
    pub(crate) fn with(options: &BrokerOptions) -> Self {
        let mut broker = Self {
            child: None,
            folder: tempfile::tempdir().unwrap(),
            port: free_port(),
            tls_port: free_port(),
            login: options.login.clone(),
            namespace: options.namespace.clone(),
        };
        broker.configure(options);
        broker.run();
        broker
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn tls_port(&self) -> u16 {
        self.tls_port
    }

    pub(crate) fn address(&self) -> SocketAddr {
        let address = self.namespace.as_ref().map(|(_, address)| *address);
        SocketAddr::from((address.unwrap_or(Ipv4Addr::LOCALHOST), self.port))
    }

    /// Stops it; its port stays its own for [`Self::run`].
    pub(crate) fn stop(&mut self, how: Stop) {
        let mut child = self.child.take().expect("the broker runs");
        match how {
            Stop::Clean => signal(child.id(), "TERM"),
            Stop::Kill => child.kill().unwrap(),
        }
        wait_until("the broker stops", SOON, || {
            child.try_wait().unwrap().is_some()
        });
    }

    /// Starts it (again) and waits until it says yes to a client.
    pub(crate) fn run(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("mosquitto.log"))
            .unwrap();
        let mut command = Command::new("ip");
        match &self.namespace {
            Some((name, _)) => command.args(["netns", "exec", name]).arg(mosquitto()),
            None => {
                command = Command::new(mosquitto());
                &mut command
            }
        };
        let child = command
            .arg("-c")
            .arg(self.folder.path().join("mosquitto.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect(INSTALL);
        self.child = Some(child);
        wait_until("mosquitto takes connections", SOON, || self.says_yes());
    }

    fn says_yes(&mut self) -> bool {
        let ended = self.child.as_mut().unwrap().try_wait().unwrap();
        assert!(
            ended.is_none(),
            "mosquitto ended: {}",
            fs::read_to_string(self.folder.path().join("mosquitto.log")).unwrap()
        );
        let mut connect = Connect::new(Version::V311, "is-it-ready");
        connect.login.clone_from(&self.login);
        device::dial(self.address(), &connect, Duration::from_secs(2))
            .is_ok_and(|(_, connack)| connack.code == 0)
    }

    fn configure(&self, options: &BrokerOptions) {
        let folder = self.folder.path();
        // `user root` only says: stay who you are, so that the folder stays readable.
        let mut text = format!(
            "user root\nlog_dest stderr\nmax_queued_messages 0\npersistence {}\n\
             persistence_location {}/\nallow_anonymous {}\n",
            options.persistence,
            folder.display(),
            options.login.is_none(),
        );
        for line in &options.lines {
            writeln!(text, "{line}").unwrap();
        }
        if let Some((user, password)) = &options.login {
            let file = folder.join("passwords");
            File::create(&file).unwrap();
            let output = run_to_end(
                Command::new("mosquitto_passwd")
                    .arg("-b")
                    .arg(&file)
                    .args([user, password]),
                SOON,
            );
            assert!(output.status.success(), "{output:?}");
            writeln!(text, "password_file {}", file.display()).unwrap();
        }
        let bind = match self.namespace {
            Some(_) => "0.0.0.0",
            None => "127.0.0.1",
        };
        writeln!(text, "listener {} {bind}", self.port).unwrap();
        if let Some(tls) = &options.tls {
            write!(
                text,
                "listener {} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\nrequire_certificate true\n",
                self.tls_port,
                tls.client_authority.display(),
                tls.certificate.display(),
                tls.key.display(),
            )
            .unwrap();
        }
        fs::write(folder.join("mosquitto.conf"), text).unwrap();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A port that nobody listens on, below the range that the kernel gives to outgoing connections: a
/// stopped broker's port must not become a client's, and a client that connects to a closed port
/// in that range can meet itself.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + (std::process::id() * 61 + step) % 12_000;
        let port = u16::try_from(port).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Debian puts daemons where a user's `PATH` does not look.
fn mosquitto() -> PathBuf {
    let debian = PathBuf::from("/usr/sbin/mosquitto");
    if debian.exists() {
        debian
    } else {
        PathBuf::from("mosquitto")
    }
}

/// `mosquitto_pub` towards a port, ready for further arguments.
pub(crate) fn mosquitto_pub(port: u16, version: Version) -> Command {
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-V"]);
    command.arg(match version {
        Version::V311 => "mqttv311",
        Version::V5 => "mqttv5",
    });
    command
}

/// Publishes with `mosquitto_pub` and waits until it is done.
#[track_caller]
pub(crate) fn publish_with_mosquitto_pub(port: u16, version: Version, arguments: &[&str]) {
    let output = run_to_end(mosquitto_pub(port, version).args(arguments), SOON);
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "mosquitto_pub {arguments:?}: {output:?}"
    );
}
