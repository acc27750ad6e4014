//! The door against a real mosquitto, and against far ends that misbehave.
#![allow(
    clippy::disallowed_methods,
    reason = "tests start brokers, write their files and spawn the door"
)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use bytes::BytesMut;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rumqttc::mqttbytes::{QoS, v4};
use rumqttc::v5::mqttbytes::v5;

use super::super::{
    Ack, LinkLimits, PropertiesPolicy, RemoteSettings, Secret, TlsSettings, UplinkSettings,
};
use super::*;

const PATIENCE: Duration = Duration::from_secs(15);

fn settings(port: u16, protocol: Protocol) -> UplinkSettings {
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
struct Broker {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Broker {
    /// Starts one; `{dir}` in `lines` stands for its folder.
    fn start(lines: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::start_in(dir, free_port(), lines)
    }

    fn start_in(dir: tempfile::TempDir, port: u16, lines: &str) -> Self {
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

    fn end(mut self) -> tempfile::TempDir {
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

const OPEN: &str = "allow_anonymous true";

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// The door with one link, as the relay sees it.
struct Door {
    commands: mpsc::Sender<LinkCommand>,
    events: mpsc::Receiver<LinkEvent>,
    task: tokio::task::JoinHandle<()>,
}

impl Door {
    fn open(settings: UplinkSettings) -> Self {
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

    async fn event(&mut self) -> LinkEvent {
        timeout(PATIENCE, self.events.recv())
            .await
            .expect("an event in time")
            .expect("the door is there")
    }

    async fn up(&mut self) -> (u64, LinkLimits) {
        match self.event().await {
            LinkEvent::Up {
                attempt, limits, ..
            } => (attempt, limits),
            other => panic!("wanted Up, got {other:?}"),
        }
    }

    async fn down(&mut self) -> (u64, Option<u8>) {
        loop {
            match self.event().await {
                LinkEvent::Down {
                    attempt, reason, ..
                } => return (attempt, reason),
                LinkEvent::Up { .. } => panic!("Up without Down"),
                LinkEvent::Acks { .. } | LinkEvent::Written { .. } => {}
            }
        }
    }

    async fn say(&self, command: LinkCommand) {
        self.commands.send(command).await.unwrap();
    }

    async fn write(&self, attempt: u64, packets: Vec<u8>) {
        self.say(LinkCommand::Write { attempt, packets }).await;
    }

    /// All acknowledgements and the bytes written, until there are `count`.
    async fn acks(&mut self, count: usize, attempt: u64) -> (Vec<Ack>, u64) {
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

fn publish(protocol: Protocol, packet_id: u16) -> Vec<u8> {
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

#[tokio::test]
async fn does_a_real_broker_acknowledge_what_is_written() {
    for protocol in [Protocol::V311, Protocol::V5] {
        let broker = Broker::start(OPEN);
        let mut door = Door::open(settings(broker.port, protocol));
        let (attempt, limits) = door.up().await;
        assert_eq!(limits.qos_max, 2);
        let packets: Vec<u8> = (1..=200).flat_map(|id| publish(protocol, id)).collect();
        let bytes = packets.len() as u64;
        door.write(attempt, packets).await;
        let (acks, written) = door.acks(200, attempt).await;
        let ids: Vec<u16> = acks.iter().map(|ack| ack.packet_id).collect();
        assert_eq!(ids, (1..=200).collect::<Vec<u16>>());
        assert_eq!(written, bytes);
        door.say(LinkCommand::Shutdown).await;
        assert_eq!(door.down().await, (attempt, None));
        timeout(PATIENCE, door.task).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn does_the_link_come_back_when_the_broker_does() {
    let broker = Broker::start(OPEN);
    let port = broker.port;
    let mut door = Door::open(settings(port, Protocol::V5));
    let (first, _) = door.up().await;
    let dir = broker.end();
    assert_eq!(door.down().await.0, first);
    let _broker = Broker::start_in(dir, port, OPEN);
    let (second, _) = door.up().await;
    assert!(second > first);
    door.write(first, publish(Protocol::V5, 1)).await;
    door.write(second, publish(Protocol::V5, 2)).await;
    let (acks, _) = door.acks(1, second).await;
    assert_eq!(
        acks.iter().map(|ack| ack.packet_id).collect::<Vec<_>>(),
        [2],
        "what was meant for the old connection is dropped"
    );
}

#[tokio::test]
async fn does_reconnect_make_a_new_connection_and_an_old_one_not() {
    let broker = Broker::start(OPEN);
    let mut door = Door::open(settings(broker.port, Protocol::V311));
    let (first, _) = door.up().await;
    door.say(LinkCommand::Reconnect { attempt: first + 7 })
        .await;
    door.say(LinkCommand::Reconnect { attempt: first }).await;
    assert_eq!(door.down().await, (first, None));
    assert!(door.up().await.0 > first);
}

#[tokio::test]
async fn is_a_quiet_connection_kept_alive() {
    let broker = Broker::start(OPEN);
    let mut quiet = settings(broker.port, Protocol::V311);
    quiet.remote.keep_alive = Duration::from_secs(1);
    let mut door = Door::open(quiet);
    door.up().await;
    let event = timeout(Duration::from_secs(4), door.events.recv()).await;
    assert!(event.is_err(), "a quiet connection said {event:?}");
}

async fn refusal(settings: &UplinkSettings) -> String {
    match dial(settings, Link::Bulk, 0, Clock::start()).await {
        Ok(_) => panic!("it was taken"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn are_user_and_password_said_and_a_wrong_one_named() {
    let dir = tempfile::tempdir().unwrap();
    let passwords = dir.path().join("passwords");
    let made = Command::new("mosquitto_passwd")
        .args(["-b", "-c", passwords.to_str().unwrap(), "gate", "s3cret"])
        .status()
        .unwrap();
    assert!(made.success());
    let broker = Broker::start_in(
        dir,
        free_port(),
        "allow_anonymous false\npassword_file {dir}/passwords",
    );
    let file = broker.dir.path().join("password");
    for protocol in [Protocol::V311, Protocol::V5] {
        let mut settings = settings(broker.port, protocol);
        settings.remote.username = Some("gate".to_owned());
        settings.remote.password = Some(Secret::File(file.clone()));
        std::fs::write(&file, "wr0ng\n").unwrap();
        let sentence = refusal(&settings).await;
        assert!(
            sentence.contains("user") && sentence.contains("password"),
            "{sentence}"
        );
        assert!(!sentence.contains("wr0ng"));
        let mut door = Door::open(settings);
        // Mended on disk while the gateway runs.
        std::fs::write(&file, "s3cret\n").unwrap();
        door.up().await;
    }
}

/// An authority, and what it signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    /// Certificate and key.
    fn sign(&self, name: &str, expired: bool) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        if expired {
            params.not_before = rcgen::date_time_ymd(2019, 1, 1);
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        (cert.pem(), key.serialize_pem())
    }
}

/// A broker that demands client certificates, and the files of its clients.
struct Secured {
    broker: Broker,
    authority: Authority,
}

impl Secured {
    fn start(server_name: &str, expired: bool) -> Self {
        let authority = Authority::new("good authority");
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = authority.sign(server_name, expired);
        std::fs::write(dir.path().join("ca"), &authority.pem).unwrap();
        std::fs::write(dir.path().join("cert"), cert).unwrap();
        std::fs::write(dir.path().join("key"), key).unwrap();
        let lines = "cafile {dir}/ca\ncertfile {dir}/cert\nkeyfile {dir}/key\nrequire_certificate true\nallow_anonymous true";
        let broker = Broker::start_in(dir, free_port(), lines);
        Self { broker, authority }
    }

    /// A new file each time: the settings of several clients live side by side.
    fn file(&self, name: &str, content: &str) -> Option<PathBuf> {
        let mut file = tempfile::Builder::new()
            .prefix(name)
            .tempfile_in(self.broker.dir.path())
            .unwrap();
        file.write_all(content.as_bytes()).unwrap();
        Some(file.keep().unwrap().1)
    }

    fn settings(&self, ca: &Authority, identity: Option<(String, String)>) -> UplinkSettings {
        let mut settings = settings(self.broker.port, Protocol::V5);
        let mut tls = TlsSettings {
            ca: self.file("client-ca", &ca.pem),
            ..TlsSettings::default()
        };
        if let Some((cert, key)) = identity {
            tls.cert = self.file("client-cert", &cert);
            tls.key = self.file("client-key", &key);
        }
        settings.remote.tls = Some(tls);
        settings
    }
}

#[tokio::test]
async fn does_mutual_tls_carry_messages() {
    let secured = Secured::start("localhost", false);
    let identity = secured.authority.sign("gateway", false);
    let mut door = Door::open(secured.settings(&secured.authority, Some(identity)));
    let (attempt, _) = door.up().await;
    let packets: Vec<u8> = (1..=2_000)
        .flat_map(|id| publish(Protocol::V5, id))
        .collect();
    let bytes = packets.len() as u64;
    door.write(attempt, packets).await;
    let (acks, written) = door.acks(2_000, attempt).await;
    assert_eq!((acks.len(), written), (2_000, bytes));
    door.say(LinkCommand::Shutdown).await;
    door.down().await;
}

#[tokio::test]
async fn does_each_wrong_certificate_have_its_own_sentence() {
    let secured = Secured::start("localhost", false);
    let other = Authority::new("other authority");
    let good = &secured.authority;
    let identity = || Some(good.sign("gateway", false));
    for (settings, words) in [
        (
            secured.settings(&other, identity()),
            "the server's certificate is signed by an authority that is not trusted",
        ),
        (
            secured.settings(good, None),
            "the server demands a client certificate: set `cert` and `key`",
        ),
        (
            secured.settings(good, Some(good.sign("gateway", true))),
            "it has expired, renew it",
        ),
        (
            secured.settings(good, Some(other.sign("gateway", false))),
            "it does not know the authority that signed it",
        ),
    ] {
        let sentence = refusal(&settings).await;
        assert!(
            sentence.contains(words),
            "wanted {words:?}, got {sentence:?}"
        );
    }
    let expired = Secured::start("localhost", true);
    let sentence = refusal(&expired.settings(&expired.authority, None)).await;
    assert!(
        sentence.contains("the server's certificate has expired"),
        "{sentence}"
    );
    let elsewhere = Secured::start("elsewhere.example", false);
    let sentence = refusal(&elsewhere.settings(&elsewhere.authority, None)).await;
    assert!(
        sentence.contains("not for the name localhost but for"),
        "{sentence}"
    );
}

#[tokio::test]
async fn is_tls_at_the_wrong_port_named() {
    let broker = Broker::start(OPEN);
    let secured = Secured::start("localhost", false);
    let mut to_plain = secured.settings(&secured.authority, None);
    to_plain.remote.port = broker.port;
    let sentence = refusal(&to_plain).await;
    assert!(sentence.contains("port for mqtts://"), "{sentence}");
    let sentence = refusal(&settings(secured.broker.port, Protocol::V5)).await;
    assert!(sentence.contains("mqtts://"), "{sentence}");
}

#[tokio::test]
async fn does_nobody_listening_and_no_such_name_have_their_sentences() {
    let sentence = refusal(&settings(free_port(), Protocol::V5)).await;
    assert!(sentence.contains("nothing listens there"), "{sentence}");
    let mut nameless = settings(1, Protocol::V5);
    nameless.remote.host = "no-such-host.invalid".to_owned();
    let sentence = refusal(&nameless).await;
    assert!(sentence.contains("name"), "{sentence}");
}

/// A far end of our own on a thread; `serve` gets each connection after its CONNECT was read.
fn far_end(serve: impl Fn(usize, TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (index, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut head = [0; 2];
            if stream.read_exact(&mut head).is_ok() {
                let mut rest = vec![0; head[1].into()];
                stream.read_exact(&mut rest).unwrap();
                serve(index, stream);
            }
        }
    });
    port
}

const CONNACK_V311: [u8; 4] = [0x20, 2, 0, 0];

#[tokio::test]
async fn is_a_peer_that_never_answers_given_up_in_time() {
    let kept = Mutex::new(Vec::new());
    let port = far_end(move |_, stream| kept.lock().unwrap().push(stream));
    let mut impatient = settings(port, Protocol::V5);
    impatient.remote.connect_timeout = Duration::from_millis(600);
    let start = Instant::now();
    let sentence = refusal(&impatient).await;
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(sentence.contains("no CONNACK within"), "{sentence}");
}

#[tokio::test]
async fn is_a_peer_that_stops_answering_given_up_after_the_keep_alive() {
    let kept = Mutex::new(Vec::new());
    let port = far_end(move |_, mut stream| {
        stream.write_all(&CONNACK_V311).unwrap();
        kept.lock().unwrap().push(stream);
    });
    let mut settings = settings(port, Protocol::V311);
    settings.remote.keep_alive = Duration::from_millis(400);
    let mut door = Door::open(settings);
    door.up().await;
    let start = Instant::now();
    door.down().await;
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(590), "{took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn are_acknowledgements_read_while_the_socket_is_full() {
    let kept = Mutex::new(Vec::new());
    let port = far_end(move |_, mut stream| {
        stream.write_all(&CONNACK_V311).unwrap();
        let mut first = [0; 1];
        stream.read_exact(&mut first).unwrap();
        // From here on it reads nothing, and acknowledges all the same.
        std::thread::sleep(Duration::from_millis(200));
        (1..=50u8).for_each(|id| stream.write_all(&[0x40, 2, 0, id]).unwrap());
        kept.lock().unwrap().push(stream);
    });
    let mut door = Door::open(settings(port, Protocol::V311));
    let (attempt, _) = door.up().await;
    let bytes = 64 * 1024 * 1024;
    door.write(attempt, vec![0; bytes]).await;
    let (acks, written) = door.acks(50, attempt).await;
    assert_eq!(acks.len(), 50);
    assert!((written as usize) < bytes, "the socket was never full");
}

#[tokio::test]
async fn is_a_peer_that_talks_nonsense_left() {
    let port = far_end(|index, mut stream| {
        stream.write_all(&CONNACK_V311).unwrap();
        let nonsense: &[u8] = if index == 0 {
            &[0x40, 2, 0, 3, 0x30, 0]
        } else {
            &[]
        };
        stream.write_all(nonsense).unwrap();
        std::mem::forget(stream);
    });
    let mut door = Door::open(settings(port, Protocol::V311));
    let (attempt, _) = door.up().await;
    let (acks, _) = door.acks(1, attempt).await;
    assert_eq!(acks[0].packet_id, 3, "what came before it counts");
    assert_eq!(door.down().await, (attempt, None));
    door.up().await;
}

#[tokio::test]
async fn does_the_reason_of_a_disconnect_reach_the_relay() {
    let port = far_end(|_, mut stream| {
        stream.write_all(&[0x20, 3, 0, 0, 0]).unwrap();
        stream.write_all(&[0xE0, 1, 0x95]).unwrap();
        std::mem::forget(stream);
    });
    let mut door = Door::open(settings(port, Protocol::V5));
    let (attempt, _) = door.up().await;
    assert_eq!(door.down().await, (attempt, Some(0x95)));
}

#[tokio::test]
async fn does_shutdown_let_out_what_waits_and_say_goodbye() {
    let (told, heard) = std::sync::mpsc::channel();
    let port = far_end(move |_, mut stream| {
        stream.write_all(&CONNACK_V311).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        told.send(all).unwrap();
    });
    let mut door = Door::open(settings(port, Protocol::V311));
    let (attempt, _) = door.up().await;
    door.write(attempt, vec![0x11; 5_000]).await;
    door.say(LinkCommand::Shutdown).await;
    door.down().await;
    let all = heard.recv_timeout(PATIENCE).unwrap();
    assert_eq!(all.len(), 5_002);
    assert_eq!(all[5_000..], [0xE0, 0]);
}

#[tokio::test]
async fn is_an_upstream_that_stands_one_connection_left_with_the_bulk_one() {
    // Each new connection ends the one before, whatever its client id.
    let last: Mutex<Option<TcpStream>> = Mutex::new(None);
    let port = far_end(move |_, mut stream| {
        stream.write_all(&CONNACK_V311).unwrap();
        *last.lock().unwrap() = Some(stream);
    });
    let mut settings = settings(port, Protocol::V311);
    settings.connections = 2;
    let (_urgent, urgent_commands) = mpsc::channel(8);
    let (_bulk, bulk_commands) = mpsc::channel(8);
    let (told, mut events) = mpsc::channel(64);
    tokio::spawn(run_pair(
        Arc::new(settings),
        Some(urgent_commands),
        bulk_commands,
        told,
        Clock::start(),
    ));
    let mut up = [false; 2];
    let quiet = Duration::from_secs(4);
    while let Ok(event) = timeout(quiet, events.recv()).await {
        match event.unwrap() {
            LinkEvent::Up { link, .. } => up[link as usize] = true,
            LinkEvent::Down { link, .. } => up[link as usize] = false,
            other => panic!("nothing was written, and {other:?}"),
        }
    }
    assert_eq!(up, [false, true], "the bulk link is up and stays so");
}

#[tokio::test]
async fn do_two_connections_live_side_by_side_on_a_real_broker() {
    let broker = Broker::start(OPEN);
    let mut settings = settings(broker.port, Protocol::V5);
    settings.connections = 2;
    let (_urgent, urgent_commands) = mpsc::channel(8);
    let (_bulk, bulk_commands) = mpsc::channel(8);
    let (told, mut events) = mpsc::channel(64);
    tokio::spawn(run_pair(
        Arc::new(settings),
        Some(urgent_commands),
        bulk_commands,
        told,
        Clock::start(),
    ));
    let mut up = Vec::new();
    while let Ok(event) = timeout(Duration::from_secs(2), events.recv()).await {
        match event.unwrap() {
            LinkEvent::Up { link, .. } => up.push(link as usize),
            other => panic!("{other:?}"),
        }
    }
    up.sort_unstable();
    assert_eq!(up, [0, 1]);
}
