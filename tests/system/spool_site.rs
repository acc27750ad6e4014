//! A site whose gateway has a spool and several lives: it is stopped or killed and started again on
//! the same state folder. Topics that start with `alarm/` are of the first class, `sure/` is
//! guaranteed too, `value/` is buffered, `low/` keeps the latest.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::broker::{Broker, BrokerOptions, Stop};
use crate::fleet::{Fleet, Plan};
use crate::gateway::{Configuration, Gateway, Ledger};
use crate::proxy::Proxy;
use crate::spool_far::Far;
use crate::wait::{SOON, wait_until};

/// What comes home may take so long without a pause, on a busy machine.
pub(crate) const HOME: Duration = Duration::from_secs(30);

/// The classes and rules of such a site.
const CLASSES: &str = r#"
[[class]]
name = "critical"
delivery = "guaranteed"
[[class]]
name = "sure"
delivery = "guaranteed"
[[class]]
name = "normal"
delivery = "buffered"
[[class]]
name = "low"
delivery = "latest"

[[rule]]
topic = "alarm/#"
class = "critical"
[[rule]]
topic = "sure/#"
class = "sure"
[[rule]]
topic = "low/#"
class = "low"
"#;

/// Ports below those that the system gives to outgoing connections: between two lives the gateway's port is
/// nobody's, and must not be given to a device that looks for it.
const PORTS: Range<u16> = 20_000..32_000;

/// A port that no other site of this process has or had: a device of an earlier one may still look for it.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let count = PORTS.len() as u32;
    let port = || {
        let next = std::process::id() * 61 + NEXT.fetch_add(1, Ordering::Relaxed);
        PORTS.start + (next % count) as u16
    };
    let mut ports = std::iter::repeat_with(port).take(PORTS.len());
    let free = ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.expect("a free port")
}

/// Dropped in this order: first the gateway, then its world.
pub(crate) struct SpoolSite {
    pub(crate) gateway: Gateway,
    pub(crate) far: Far,
    pub(crate) proxy: Proxy,
    pub(crate) broker: Broker,
    pub(crate) configuration: Configuration,
    home: tempfile::TempDir,
}

impl SpoolSite {
    /// A site with the spool as it is by default, on a broker that keeps everything over a restart.
    #[track_caller]
    pub(crate) fn new() -> Self {
        Self::with(|configuration| configuration)
    }

    /// A site whose configuration is changed.
    #[track_caller]
    pub(crate) fn with(change: impl FnOnce(Configuration) -> Configuration) -> Self {
        Self::classed(CLASSES, change)
    }

    /// A site with classes and rules of its own.
    #[track_caller]
    pub(crate) fn classed(
        classes: &str,
        change: impl FnOnce(Configuration) -> Configuration,
    ) -> Self {
        let broker = Broker::with(&BrokerOptions {
            persistence: true,
            lines: vec!["max_inflight_messages 0".to_owned()],
            ..BrokerOptions::default()
        });
        let proxy = Proxy::start(broker.address());
        let far = Far::start(broker.address());
        let configuration = Configuration::to(proxy.port())
            .listening_at(free_port())
            .uplink("retry_max = \"1s\"")
            .section(classes);
        let configuration = change(configuration);
        let home = tempfile::tempdir().unwrap();
        let gateway = Gateway::start_in(&configuration, home.path());
        Self {
            gateway,
            far,
            proxy,
            broker,
            configuration,
            home,
        }
    }

    /// Lets a fleet play against the gateway.
    #[track_caller]
    pub(crate) fn play(&self, plan: &Plan) -> Fleet {
        Fleet::start(self.port(), plan, &self.far)
    }

    /// The gateway's listener, the same in every life.
    pub(crate) fn port(&self) -> u16 {
        self.gateway.port()
    }

    /// Where the gateway keeps its spool.
    pub(crate) fn spool(&self) -> PathBuf {
        self.configuration.state_of(self.home.path()).join("spool")
    }

    /// The folder of the configuration and of the state.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// Both connections are up.
    #[track_caller]
    pub(crate) fn wait_connected(&self) {
        self.proxy.wait_for_connections(2);
    }

    /// The cloud is gone.
    #[track_caller]
    pub(crate) fn outage(&mut self) {
        self.wait_connected();
        self.broker.stop(Stop::Clean);
        self.proxy.wait_for_connections(0);
    }

    /// The cloud is back, and the far end listens.
    #[track_caller]
    pub(crate) fn recover(&mut self) {
        self.broker.run();
        self.far.subscriber.wait_subscribed();
    }

    /// Ends the gateway.
    #[track_caller]
    pub(crate) fn end(&mut self, how: Stop) {
        match how {
            Stop::Clean => drop(self.gateway.terminate()),
            Stop::Kill => self.gateway.kill(),
        }
    }

    /// Starts the gateway again where it was.
    #[track_caller]
    pub(crate) fn begin(&mut self) {
        self.gateway = Gateway::start_in(&self.configuration, self.home.path());
    }

    /// Ends the gateway and starts it again.
    #[track_caller]
    pub(crate) fn restart(&mut self, how: Stop) {
        self.end(how);
        self.begin();
    }

    /// SIGTERM, whatever it says then, and a new start.
    #[track_caller]
    pub(crate) fn restart_without_check(&mut self) {
        self.gateway.signal("TERM");
        self.gateway.wait_for_end(SOON);
        self.begin();
    }

    /// SIGTERM, exit 0, a ledger that balances; and the far end has everything by then.
    #[track_caller]
    pub(crate) fn terminate(&mut self) -> Ledger {
        let ledger = self.gateway.terminate();
        self.far.subscriber.settle();
        self.far.check();
        ledger
    }
}

/// The bytes of all files in a folder; 0 where there is none. What vanishes meanwhile counts nothing.
pub(crate) fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

/// The files in a folder whose name ends so, in the order of their names.
pub(crate) fn files_in(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(suffix))
        .collect();
    files.sort();
    files
}

/// Waits until the spool has taken at least so many bytes.
#[track_caller]
pub(crate) fn wait_for_bytes(folder: &Path, bytes: u64) {
    wait_until("the spool grows", SOON, || bytes_in(folder) >= bytes);
}

/// Whether the long forms of the tests are wanted.
pub(crate) fn whole() -> bool {
    std::env::var_os("TIDEGATE_WHOLE").is_some_and(|value| value != "0")
}

/// Says something beside the test's captured output: a figure, or why a test was left out.
pub(crate) fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "\n{what}");
}

/// What the files in a folder take on the disk, in bytes: holes do not count.
pub(crate) fn bytes_on_disk(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.blocks() * 512)
        .sum()
}
