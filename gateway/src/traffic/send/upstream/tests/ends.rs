//! Both ends of a connection under test: the door as the relay sees it, a real mosquitto, and far
//! ends of our own.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rumqttc::mqttbytes::{QoS, v4};
use rumqttc::v5::mqttbytes::v5;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::traffic::accept::Protocol;
use crate::traffic::send::dial::dial;
use crate::traffic::send::upstream::run_pair;
use crate::traffic::send::{
    Ack, Link, LinkCommand, LinkEvent, LinkLimits, PropertiesPolicy, RemoteSettings, UplinkSettings,
};

pub(super) const PATIENCE: Duration = Duration::from_secs(15);

pub(super) fn settings(port: u16, protocol: Protocol) -> UplinkSettings {
    UplinkSettings {
        remote: RemoteSettings {
            host: "localhost".to_owned(),
            port,
            tls: None,
            username: None,
            password: None,
            connect_timeout: Duration::from_secs(5),
            keep_alive: Duration::from_secs(30),
        },
        protocol,
        topic: "{topic}".to_owned(),
        client_id: "gateway".to_owned(),
        connections: 1,
        rate_bytes_max: None,
        publish_max: None,
        packet_bytes_max: None,
        properties: PropertiesPolicy::None,
        ack_timeout: Duration::from_secs(10),
        retry_max: Duration::from_secs(1),
    }
}

/// A real mosquitto, ended by its process handle.
pub(super) struct Broker {
    child: Child,
    pub(super) port: u16,
    pub(super) dir: tempfile::TempDir,
}

impl Broker {
    /// Starts one; `{dir}` in `lines` stands for its folder.
    pub(super) fn start(lines: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::start_in(dir, free_port(), lines)
    }

    pub(super) fn start_in(dir: tempfile::TempDir, port: u16, lines: &str) -> Self {
        let lines = lines.replace("{dir}", dir.path().to_str().unwrap());
        let user = Command::new("id").arg("-un").output().unwrap().stdout;
        let user = String::from_utf8(user).unwrap();
        let file = dir.path().join("mosquitto.conf");
        let content = format!("listener {port} 127.0.0.1\nuser {user}\n{lines}\n");
        std::fs::write(&file, content).unwrap();
        let child = Command::new("mosquitto")
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is installed");
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "mosquitto did not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { child, port, dir }
    }

    pub(super) fn end(mut self) -> tempfile::TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes whatever a test writes at once.
pub(super) const OPEN: &str = "allow_anonymous true\nmax_inflight_messages 65535";

pub(super) fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// The door with one link, as the relay sees it.
pub(super) struct Door {
    pub(super) commands: mpsc::Sender<LinkCommand>,
    pub(super) events: mpsc::Receiver<LinkEvent>,
    pub(super) task: tokio::task::JoinHandle<()>,
}

impl Door {
    pub(super) fn open(settings: UplinkSettings) -> Self {
        let (commands, taken) = mpsc::channel(64);
        let (told, events) = mpsc::channel(64);
        let door = run_pair(Arc::new(settings), None, taken, told, Clock::start());
        let task = tokio::spawn(door);
        Self {
            commands,
            events,
            task,
        }
    }

    pub(super) async fn event(&mut self) -> LinkEvent {
        timeout(PATIENCE, self.events.recv())
            .await
            .expect("an event in time")
            .expect("the door is there")
    }

    pub(super) async fn up(&mut self) -> (u64, LinkLimits) {
        match self.event().await {
            LinkEvent::Up {
                attempt, limits, ..
            } => (attempt, limits),
            other => panic!("wanted Up, got {other:?}"),
        }
    }

    pub(super) async fn down(&mut self) -> (u64, Option<u8>) {
        let (attempt, reason, _) = self.end().await;
        (attempt, reason)
    }

    /// The attempt, the reason, and whether the far end ended it.
    pub(super) async fn end(&mut self) -> (u64, Option<u8>, bool) {
        loop {
            match self.event().await {
                LinkEvent::Down {
                    attempt,
                    reason,
                    by_peer,
                    ..
                } => return (attempt, reason, by_peer),
                LinkEvent::Up { .. } => panic!("Up without Down"),
                LinkEvent::Acks { .. } | LinkEvent::Written { .. } => {}
            }
        }
    }

    pub(super) async fn say(&self, command: LinkCommand) {
        self.commands.send(command).await.unwrap();
    }

    pub(super) async fn write(&self, attempt: u64, packets: Vec<u8>) {
        self.say(LinkCommand::Write { attempt, packets }).await;
    }

    /// All acknowledgements and the bytes written, until there are `count`.
    pub(super) async fn acks(&mut self, count: usize, attempt: u64) -> (Vec<Ack>, u64) {
        let (mut all, mut written) = (Vec::new(), 0);
        while all.len() < count {
            match self.event().await {
                LinkEvent::Acks {
                    acks, attempt: of, ..
                } => {
                    assert_eq!(of, attempt);
                    all.extend(acks);
                }
                LinkEvent::Written {
                    total, attempt: of, ..
                } => {
                    assert_eq!(of, attempt);
                    assert!(total > written);
                    written = total;
                }
                other => panic!("wanted acknowledgements, got {other:?}"),
            }
        }
        (all, written)
    }
}

pub(super) fn publish(protocol: Protocol, packet_id: u16) -> Vec<u8> {
    let mut packet = BytesMut::new();
    match protocol {
        Protocol::V311 => {
            let mut publish = v4::Publish::new("plant/t", QoS::AtLeastOnce, "21.5");
            publish.pkid = packet_id;
            publish.write(&mut packet).unwrap();
        }
        Protocol::V5 => {
            let qos = rumqttc::v5::mqttbytes::QoS::AtLeastOnce;
            let mut publish = v5::Publish::new("plant/t", qos, "21.5", None);
            publish.pkid = packet_id;
            publish.write(&mut packet).unwrap();
        }
    }
    packet.to_vec()
}

/// A far end of our own on a thread; `serve` gets each connection, its number and what its
/// CONNECT said.
pub(super) fn far_end(serve: impl Fn(usize, &[u8], TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (index, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut head = [0; 2];
            if stream.read_exact(&mut head).is_ok() {
                let mut rest = vec![0; head[1].into()];
                stream.read_exact(&mut rest).unwrap();
                serve(index, &rest, stream);
            }
        }
    });
    port
}

pub(super) async fn refusal(settings: &UplinkSettings) -> String {
    match dial(settings, Link::Bulk, 0, Clock::start()).await {
        Ok(_) => panic!("it was taken"),
        Err(error) => error.to_string(),
    }
}
