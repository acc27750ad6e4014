//! The real `tidegate` binary: its configuration, its process, what it says, and its final ledger.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::wait::{SOON, signal, wait_for, wait_until};

/// The binary under test.
pub(crate) fn tidegate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.env("NO_COLOR", "1").env_remove("RUST_LOG");
    command
}

/// A configuration file in the making: the lines of its sections, then whole further sections.
#[derive(Clone, Debug)]
pub(crate) struct Configuration {
    gateway: String,
    listener: String,
    uplink: String,
    sections: String,
    state_dir: Option<PathBuf>,
}

impl Configuration {
    /// A listener on a port that the system gives, and an uplink in the clear to a port of this
    /// machine.
    pub(crate) fn to(uplink_port: u16) -> Self {
        Self::to_url(&format!("mqtt://127.0.0.1:{uplink_port}"))
    }

    /// A listener on this port, which an uplink does not matter to.
    pub(crate) fn on_port(port: u16) -> Self {
        let mut configuration = Self::to(1);
        configuration.listener = format!("[listener]\nbind = \"127.0.0.1:{port}\"\n");
        configuration
    }

    /// A listener that has the same port in every life.
    pub(crate) fn listening_at(mut self, port: u16) -> Self {
        self.listener = format!("[listener]\nbind = \"127.0.0.1:{port}\"\n");
        self
    }

    /// The same for any uplink.
    pub(crate) fn to_url(url: &str) -> Self {
        Self {
            gateway: "[gateway]\nid = \"box\"\n".to_owned(),
            listener: "[listener]\nbind = \"127.0.0.1:0\"\n".to_owned(),
            uplink: format!("[[uplink]]\nurl = \"{url}\"\n"),
            sections: String::new(),
            state_dir: None,
        }
    }

    /// A line of `[gateway]`.
    pub(crate) fn gateway(mut self, line: &str) -> Self {
        writeln!(self.gateway, "{line}").unwrap();
        self
    }

    /// A line of `[listener]`.
    pub(crate) fn listener(mut self, line: &str) -> Self {
        writeln!(self.listener, "{line}").unwrap();
        self
    }

    /// A line of `[[uplink]]`.
    pub(crate) fn uplink(mut self, line: &str) -> Self {
        writeln!(self.uplink, "{line}").unwrap();
        self
    }

    /// A whole section.
    pub(crate) fn section(mut self, text: &str) -> Self {
        writeln!(self.sections, "{text}").unwrap();
        self
    }

    /// A rule.
    pub(crate) fn rule(self, topic: &str, class: &str) -> Self {
        self.section(&format!(
            "[[rule]]\ntopic = \"{topic}\"\nclass = \"{class}\""
        ))
    }

    /// A source: a broker on a port of this machine, with further lines.
    pub(crate) fn source(self, port: u16, topics: &str, lines: &str) -> Self {
        self.source_at(&format!("mqtt://127.0.0.1:{port}"), topics, lines)
    }

    /// The same for any source.
    pub(crate) fn source_at(self, url: &str, topics: &str, lines: &str) -> Self {
        self.section(&format!(
            "[[source]]\nurl = \"{url}\"\ntopics = [{topics}]\n{lines}"
        ))
    }

    /// Keeps the gateway's state here, not beside the file.
    pub(crate) fn state_dir(mut self, folder: &Path) -> Self {
        self.state_dir = Some(folder.to_owned());
        self
    }

    /// Where the gateway keeps its state when its file lies in this folder.
    pub(crate) fn state_of(&self, folder: &Path) -> PathBuf {
        let named = self.state_dir.clone();
        named.unwrap_or_else(|| folder.join("state"))
    }

    /// A disk that has no room: all of it but a page is to stay free.
    pub(crate) fn no_room_on_disk(self) -> Self {
        let folder = std::env::temp_dir();
        let mut df = Command::new("df");
        let df = df.args(["--output=size", "-B1"]).arg(folder);
        let text = String::from_utf8(df.output().unwrap().stdout).unwrap();
        let bytes: u64 = text.lines().nth(1).unwrap().trim().parse().unwrap();
        self.section(&format!("[spool]\ndisk_free_min = \"{}B\"\n", bytes - 4096))
    }

    /// Writes the file into a folder, which is where the gateway will keep its state too.
    pub(crate) fn write(&self, folder: &Path) -> PathBuf {
        let text = format!(
            "{}state_dir = \"{}\"\n\n[admin]\nbind = \"127.0.0.1:0\"\n\n{}\n{}\n{}",
            self.gateway,
            self.state_of(folder).display(),
            self.listener,
            self.uplink,
            self.sections
        );
        let file = folder.join("tidegate.toml");
        fs::write(&file, text).unwrap();
        file
    }
}

/// A running gateway; killed when dropped. When the test fails, what the gateway said is shown.
pub(crate) struct Gateway {
    child: Child,
    _folder: Option<tempfile::TempDir>,
    lines: Arc<Mutex<Vec<String>>>,
    collectors: [JoinHandle<()>; 2],
    port: u16,
}

impl Gateway {
    /// Starts it and waits until it listens.
    #[track_caller]
    pub(crate) fn start(configuration: &Configuration) -> Self {
        Self::spawn(configuration).listening()
    }

    /// Starts it in a folder that outlives it, and waits until it listens.
    #[track_caller]
    pub(crate) fn start_in(configuration: &Configuration, folder: &Path) -> Self {
        Self::spawn_in(configuration, folder).listening()
    }

    #[track_caller]
    fn listening(mut self) -> Self {
        let line = self.wait_for_line("listening on 127.0.0.1:", SOON);
        self.port = port_in(&line);
        self
    }

    /// Starts it without waiting for anything.
    #[track_caller]
    pub(crate) fn spawn(configuration: &Configuration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut gateway = Self::spawn_in(configuration, folder.path());
        gateway._folder = Some(folder);
        gateway
    }

    /// The same in a folder that outlives it.
    #[track_caller]
    pub(crate) fn spawn_in(configuration: &Configuration, folder: &Path) -> Self {
        let file = configuration.write(folder);
        let mut child = tidegate()
            .arg("run")
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let collectors = [
            collect(child.stdout.take().unwrap(), &lines),
            collect(child.stderr.take().unwrap(), &lines),
        ];
        Self {
            child,
            _folder: None,
            lines,
            collectors,
            port: 0,
        }
    }

    /// The listener's port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that it said so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Waits for a line that holds `part`, whatever the case of its letters.
    #[track_caller]
    pub(crate) fn wait_for_line(&mut self, part: &str, deadline: Duration) -> String {
        self.wait_for_line_with(&[part], deadline)
    }

    /// Waits for a line that holds one of `parts`, whatever the case of its letters.
    #[track_caller]
    pub(crate) fn wait_for_line_with(&mut self, parts: &[&str], deadline: Duration) -> String {
        let parts: Vec<String> = parts.iter().map(|part| part.to_lowercase()).collect();
        let what = format!("the gateway says one of {parts:?}");
        wait_for(&what, deadline, || {
            // Read before its lines: what it said at its end is among them.
            let ended = self.collectors.iter().all(JoinHandle::is_finished);
            // A copy: a failed test still shows what it said.
            let found = self.lines().into_iter().find(|line| {
                let line = line.to_lowercase();
                parts.iter().any(|part| line.contains(part))
            });
            assert!(found.is_some() || !ended, "it ended without {parts:?}");
            found
        })
    }

    /// Sends it a signal: `TERM`, `INT`.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// SIGKILL: it ends in the middle of whatever it does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What it holds in memory now, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.number("status", "VmRSS:")
    }

    /// The most that it ever held in memory, in KiB.
    pub(crate) fn resident_max_kib(&self) -> u64 {
        self.number("status", "VmHWM:")
    }

    /// Bytes that it made the kernel write to block devices.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.number("io", "write_bytes:")
    }

    /// A number that the kernel knows of the process.
    fn number(&self, file: &str, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.pid())).unwrap();
        let mut lines = text.lines();
        let rest = lines.find_map(|line| line.strip_prefix(name));
        let number = rest.and_then(|rest| rest.split_whitespace().next());
        number.expect("the kernel tells it").parse().unwrap()
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait_for_end(&mut self, deadline: Duration) -> ExitStatus {
        wait_for("the gateway ends", deadline, || {
            self.child.try_wait().unwrap()
        })
    }

    /// SIGTERM, exit 0, and a ledger that balances.
    #[track_caller]
    pub(crate) fn terminate(&mut self) -> Ledger {
        self.signal("TERM");
        let status = self.wait_for_end(SOON);
        assert!(status.success(), "the gateway ends with {status}");
        self.ledger()
    }

    /// The ledger that it printed at its end, checked to balance.
    #[track_caller]
    pub(crate) fn ledger(&self) -> Ledger {
        wait_until("its last words are read", SOON, || {
            self.collectors.iter().all(JoinHandle::is_finished)
        });
        let ledger = Ledger::read(&self.lines.lock().unwrap());
        assert!(!ledger.classes.is_empty(), "no ledger is printed");
        ledger.check_balance();
        ledger
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let lines = self.lines.lock().unwrap().join("\n");
            eprintln!("the gateway said:\n{lines}\n");
        }
    }
}

fn collect(stream: impl Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    let lines = Arc::clone(lines);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            lines.lock().unwrap().push(line);
        }
    })
}

/// The port behind `listening on 127.0.0.1:`.
fn port_in(line: &str) -> u16 {
    let after = line.split("listening on 127.0.0.1:").nth(1);
    let digits: String = after
        .unwrap_or_default()
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().expect("a port in the line")
}

/// The last ledger in a log: for each class its counters, by their names.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    classes: BTreeMap<String, BTreeMap<String, i64>>,
}

impl Ledger {
    /// Reads the lines `ledger class=NAME received=N ...`; a later line of a class stands.
    pub(crate) fn read(lines: &[String]) -> Self {
        let mut ledger = Self::default();
        for line in lines {
            let Some((_, rest)) = line.split_once("ledger class=") else {
                continue;
            };
            let mut words = rest.split_whitespace();
            let class = words.next().unwrap_or_default().trim_matches('"');
            let counters = words
                .filter_map(|word| word.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.parse().expect("a count")))
                .collect();
            ledger.classes.insert(class.to_owned(), counters);
        }
        ledger
    }

    /// A counter of a class; 0 for a class that is not there.
    pub(crate) fn count(&self, class: &str, counter: &str) -> u64 {
        let count = self.signed(class, counter);
        u64::try_from(count).unwrap_or_else(|_| panic!("{counter} of {class} is {count}"))
    }

    /// What a start found on disk of a class beyond what the accounts knew; negative: less.
    pub(crate) fn found(&self, class: &str) -> i64 {
        self.signed(class, "found")
    }

    fn signed(&self, class: &str, counter: &str) -> i64 {
        let counters = self.classes.get(class);
        counters.map_or(0, |counters| {
            *counters
                .get(counter)
                .unwrap_or_else(|| panic!("no counter {counter} in {self:?}"))
        })
    }

    /// A counter over all classes.
    pub(crate) fn total(&self, counter: &str) -> u64 {
        let classes = self.classes.keys();
        classes.map(|class| self.count(class, counter)).sum()
    }

    /// Promise 3: what came in is what became of it.
    #[track_caller]
    pub(crate) fn check_balance(&self) {
        for (class, counters) in &self.classes {
            let (came, went): (Vec<_>, Vec<_>) = counters
                .iter()
                .partition(|(name, _)| ["found", "received", "made_here"].contains(&name.as_str()));
            let came: i64 = came.into_iter().map(|(_, count)| count).sum();
            let went: i64 = went.into_iter().map(|(_, count)| count).sum();
            assert_eq!(came, went, "class {class} does not balance: {counters:?}");
        }
    }
}
