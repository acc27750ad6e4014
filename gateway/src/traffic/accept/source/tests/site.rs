//! A site for the tests: a real mosquitto with a publisher, and a relay that does what it is told.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::traffic::accept::{Protocol, RetainedPolicy, SourceSettings};
use crate::traffic::classify::{RuleSettings, Rules};
use crate::traffic::lanes::{
    Answer, Batch, DoorEvent, Lane, Lanes, Notice, Phase, REST_LANE_BYTES_MAX,
};
use crate::traffic::message::{ClassId, DoorId, Message};
use crate::traffic::queue::{ClassSettings, Delivery};
use crate::traffic::send::RemoteSettings;

/// Long enough for a loaded machine; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for a condition.
pub(super) async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A mosquitto with a folder of its own; killed when dropped.
pub(super) struct Broker {
    dir: tempfile::TempDir,
    pub(super) port: u16,
    child: Option<Child>,
}

impl Broker {
    /// Starts one, with these lines of configuration on top.
    pub(super) async fn start(extra: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let path = dir.path().display();
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\n\
             persistence_location {path}/\nmax_queued_messages 0\nlog_type all\n\
             log_dest file {path}/log\n{extra}\n"
        );
        std::fs::write(dir.path().join("conf"), config).unwrap();
        let mut broker = Self {
            dir,
            port,
            child: None,
        };
        broker.again().await;
        broker
    }

    /// Starts it again, after [`Broker::stop`].
    pub(super) async fn again(&mut self) {
        let child = Command::new("mosquitto")
            .arg("-c")
            .arg(self.dir.path().join("conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.expect("mosquitto must be installed"));
        let address = ("127.0.0.1", self.port);
        until("the broker listens", || {
            std::net::TcpStream::connect(address).is_ok()
        })
        .await;
    }

    /// Ends it, so that it writes its state.
    pub(super) fn stop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let term = Command::new("kill").arg(child.id().to_string()).status();
        assert!(term.unwrap().success());
        child.wait().unwrap();
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// How often the log has this.
    pub(super) fn logged(&self, what: &str) -> usize {
        self.log().matches(what).count()
    }

    /// The packet identifiers of this client's PUBACKs, in their order.
    pub(super) fn acknowledged(&self, client: &str) -> Vec<u32> {
        let start = format!("Received PUBACK from {client} (Mid: ");
        self.log()
            .lines()
            .filter_map(|line| line.split_once(start.as_str()))
            .map(|(_, rest)| rest.split([',', ')']).next().unwrap().parse().unwrap())
            .collect()
    }

    /// Publishes each line as one message and waits for the broker's word.
    pub(super) fn publish(&self, topic: &str, lines: impl Iterator<Item = String>, args: &[&str]) {
        let mut all = self.publisher(topic, &["-l", "-q", "1"]);
        all.args(args);
        let lines: String = lines.map(|line| line + "\n").collect();
        let file = self.dir.path().join("lines");
        std::fs::write(&file, lines).unwrap();
        all.stdin(std::fs::File::open(&file).unwrap());
        assert!(all.status().unwrap().success());
    }

    /// `mosquitto_pub`, ready to run.
    pub(super) fn publisher(&self, topic: &str, args: &[&str]) -> Command {
        let mut command = Command::new("mosquitto_pub");
        command.args(["-p", &self.port.to_string(), "-t", topic]);
        command.args(args);
        command
    }

    /// A folder for files of the test.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What the relay answers by itself.
#[derive(Clone, Copy, Default, PartialEq)]
enum Answers {
    #[default]
    Nothing,
    AllButFirstClass,
    Everything,
}

#[derive(Default)]
struct Told {
    answers: Answers,
    doors: HashMap<DoorId, (Arc<str>, mpsc::Sender<Vec<Notice>>)>,
    taken: Vec<Message>,
    unanswered: Vec<(DoorId, u32)>,
    withdrawn: usize,
}

/// A relay that notes everything, and answers at once or when told.
pub(super) struct Relay {
    told: Arc<Mutex<Told>>,
}

impl Relay {
    fn start(answers: bool) -> (Self, Lanes) {
        let (urgent, mut from_urgent) = Lane::new(16, REST_LANE_BYTES_MAX);
        let (rest, mut from_rest) = Lane::new(16, REST_LANE_BYTES_MAX);
        let (doors, mut from_doors) = mpsc::channel(16);
        let told = Arc::new(Mutex::new(Told {
            answers: if answers {
                Answers::Everything
            } else {
                Answers::Nothing
            },
            ..Told::default()
        }));
        let state = Arc::clone(&told);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    Some(batch) = from_urgent.recv() => take(&state, batch, true),
                    Some(batch) = from_rest.recv() => take(&state, batch, false),
                    Some(event) = from_doors.recv() => hear(&state, event),
                    else => break,
                }
            }
        });
        let lanes = Lanes {
            urgent,
            rest,
            doors,
        };
        (Self { told }, lanes)
    }

    /// Every payload that was taken, in the order of taking.
    pub(super) fn payloads(&self) -> Vec<String> {
        let told = self.told.lock().unwrap();
        let text = |m: &Message| String::from_utf8_lossy(m.body.payload()).into_owned();
        told.taken.iter().map(text).collect()
    }

    /// How many different payloads were taken.
    pub(super) fn different(&self) -> usize {
        self.payloads().into_iter().collect::<HashSet<_>>().len()
    }

    /// How many messages were taken.
    pub(super) fn count(&self) -> usize {
        self.told.lock().unwrap().taken.len()
    }

    /// The messages, with the names of their doors.
    pub(super) fn messages(&self) -> Vec<(Arc<str>, Message)> {
        let told = self.told.lock().unwrap();
        let named = |m: &Message| (Arc::clone(&told.doors[&m.receipt.door].0), m.clone());
        told.taken.iter().map(named).collect()
    }

    /// How many withdrawals there were.
    pub(super) fn withdrawn(&self) -> usize {
        self.told.lock().unwrap().withdrawn
    }

    /// From now on everything is answered at once; what waits is answered now, newest first.
    pub(super) fn answer(&self) {
        let mut told = self.told.lock().unwrap();
        told.answers = Answers::Everything;
        while let Some((door, token)) = told.unanswered.pop() {
            say(&told, door, vec![accepted(token)]);
        }
    }

    /// Answers all but the oldest, and closes all doors, as at a clean stop.
    pub(super) fn end(&self) {
        let mut told = self.told.lock().unwrap();
        for (door, token) in told.unanswered.split_off(1) {
            say(&told, door, vec![accepted(token)]);
        }
        told.doors.clear();
    }

    /// From now on everything but the first class is answered at once.
    pub(super) fn answer_all_but_first_class(&self) {
        self.told.lock().unwrap().answers = Answers::AllButFirstClass;
    }

    /// Gives back everything that is not answered.
    pub(super) fn give_back(&self) {
        let mut told = self.told.lock().unwrap();
        while let Some((door, token)) = told.unanswered.pop() {
            say(&told, door, vec![Notice::Returned { token }]);
        }
    }

    /// Says this to all doors.
    pub(super) fn say(&self, notice: Notice) {
        let told = self.told.lock().unwrap();
        for door in told.doors.keys() {
            say(&told, *door, vec![notice]);
        }
    }
}

fn accepted(token: u32) -> Notice {
    Notice::Answer {
        token,
        answer: Answer::Accepted,
    }
}

fn say(told: &Told, door: DoorId, notices: Vec<Notice>) {
    told.doors[&door]
        .1
        .try_send(notices)
        .expect("the relay never waits");
}

fn take(state: &Mutex<Told>, batch: Batch, urgent: bool) {
    let mut told = state.lock().unwrap();
    assert!(!batch.messages.is_empty());
    let answers = match told.answers {
        Answers::Nothing => false,
        Answers::AllButFirstClass => !urgent,
        Answers::Everything => true,
    };
    for message in batch.messages {
        assert_eq!(message.class == ClassId::FIRST, urgent, "the wrong lane");
        assert_eq!(message.receipt.door, batch.door);
        match message.receipt.token {
            Some(token) if answers => say(&told, batch.door, vec![accepted(token)]),
            Some(token) => told.unanswered.push((batch.door, token)),
            None => {}
        }
        told.taken.push(message);
    }
}

fn hear(state: &Mutex<Told>, event: DoorEvent) {
    let mut told = state.lock().unwrap();
    match event {
        DoorEvent::Open {
            notices,
            client,
            site,
            id,
        } => {
            assert!(site);
            let door = DoorId {
                index: u32::try_from(told.doors.len()).unwrap(),
                generation: 0,
            };
            told.doors.insert(door, (client, notices));
            id.send(door).unwrap();
        }
        DoorEvent::Withdraw { .. } => told.withdrawn += 1,
        DoorEvent::Close(_) => {}
    }
}

/// A source that runs, with its relay.
pub(super) struct Gateway {
    pub(super) relay: Relay,
    phase: watch::Sender<Phase>,
    task: JoinHandle<()>,
}

/// Settings for this broker; everything below `plant/`.
pub(super) fn settings(broker: &Broker, protocol: Protocol) -> SourceSettings {
    SourceSettings {
        name: "source 1".into(),
        remote: RemoteSettings {
            host: "127.0.0.1".into(),
            port: broker.port,
            tls: None,
            username: None,
            password: None,
            connect_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(30),
        },
        topics: vec!["plant/#".into()],
        protocol,
        client_id: "tide".into(),
        retained: RetainedPolicy::Skip,
        packet_bytes_max: 10_000,
        topic_bytes_max: 64,
        topic_levels_max: 8,
        hold_max: Duration::from_secs(60),
    }
}

/// Alarms are of the first class; so may be what shakes.
pub(super) fn rules() -> Arc<Rules> {
    let class = |name, delivery| ClassSettings::new(name, delivery, 1 << 20);
    let classes = [
        class("critical", Delivery::Guaranteed),
        class("normal", Delivery::Buffered),
    ];
    let alarms = RuleSettings {
        name: "alarms".into(),
        filters: vec!["plant/+/alarm".into()],
        when: None,
        class: ClassId::FIRST,
        key: None,
        ttl: None,
    };
    Arc::new(Rules::compile(&[alarms], &classes, ClassId(1), 1 << 20).unwrap())
}

impl Gateway {
    /// Starts a source; it is connected when this returns.
    pub(super) async fn start(broker: &Broker, settings: SourceSettings, answers: bool) -> Self {
        let grants = || {
            let granted = |client| broker.logged(&format!("Sending SUBACK to tide-{client}"));
            (granted("urgent"), granted("rest"))
        };
        let before = grants();
        let (relay, lanes) = Relay::start(answers);
        let (phase, seen) = watch::channel(Phase::Run);
        let run = super::super::run(Arc::new(settings), rules(), lanes, Clock::start(), seen);
        let task = tokio::spawn(run);
        until("both connections are subscribed", || {
            let now = grants();
            now.0 > before.0 && now.1 > before.1
        })
        .await;
        Self { relay, phase, task }
    }

    /// Says how far the shutdown is.
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.send(phase).unwrap();
    }

    /// Stops it, as at a clean shutdown.
    pub(super) async fn stop(self) -> Relay {
        self.enter(Phase::Drain);
        self.enter(Phase::Stop);
        self.ended().await
    }

    /// Waits for its end.
    pub(super) async fn ended(self) -> Relay {
        let ended = tokio::time::timeout(PATIENCE, self.task).await;
        ended.expect("the source does not stop").unwrap();
        self.relay
    }
}
