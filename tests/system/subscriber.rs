//! The far end: an MQTT 5 client of the upstream broker that takes everything, acknowledges it at
//! once and remembers it in the order of arrival. It comes back by itself when the broker does.

use std::io::{BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use crate::device::{Device, dial};
use crate::wait::{SOON, wait_for, wait_until};
use crate::wire::{self, Connect, Frame, Publish, Version};

/// The topic of [`Subscriber::settle`], which is not recorded.
const MARK: &str = "everything-before-this";

/// One message that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) publish: Publish,
    pub(crate) at: Instant,
}

/// What is done with each message in the place of remembering it.
pub(crate) type Note = Box<dyn FnMut(Publish) + Send>;

#[derive(Default)]
struct Shared {
    arrived: Vec<Arrived>,
    note: Option<Note>,
    subscribed: bool,
    settled: Option<Vec<u8>>,
    stop: bool,
    stream: Option<TcpStream>,
}

/// A subscriber to `#`.
pub(crate) struct Subscriber {
    broker: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

impl Subscriber {
    /// Subscribes and waits until that is granted.
    #[track_caller]
    pub(crate) fn start(broker: SocketAddr) -> Self {
        Self::with(broker, None)
    }

    /// The same, for a broker that wants user and password.
    #[track_caller]
    pub(crate) fn with(broker: SocketAddr, login: Option<(String, String)>) -> Self {
        Self::run(broker, login, None)
    }

    /// One that hands every message on and remembers none: for more than fit in memory.
    #[track_caller]
    pub(crate) fn noting(broker: SocketAddr, note: Note) -> Self {
        Self::run(broker, None, Some(note))
    }

    #[track_caller]
    fn run(broker: SocketAddr, login: Option<(String, String)>, note: Option<Note>) -> Self {
        let shared = Arc::new(Mutex::new(Shared {
            note,
            ..Shared::default()
        }));
        let subscriber = Self {
            broker,
            shared: Arc::clone(&shared),
        };
        let mut connect = Connect::persistent(Version::V5, "far-end");
        connect.keep_alive_s = 0;
        connect.login = login;
        thread::spawn(move || {
            while !shared.lock().unwrap().stop {
                // An error means that the broker is away: the next turn tries again.
                let _ = receive(broker, &connect, &shared);
                shared.lock().unwrap().subscribed = false;
                sleep(Duration::from_millis(20));
            }
        });
        subscriber.wait_subscribed();
        subscriber
    }

    /// Waits until it is (again) subscribed.
    #[track_caller]
    pub(crate) fn wait_subscribed(&self) {
        wait_until("the far end is subscribed", SOON, || {
            self.shared().subscribed
        });
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    /// Waits until everything that the broker has taken by now has arrived here: what one client
    /// gets comes in the order in which the broker took it.
    #[track_caller]
    pub(crate) fn settle(&self) {
        self.wait_subscribed();
        let mark = format!("{:?}", Instant::now()).into_bytes();
        let mut marker = Device::new(self.broker.port(), Version::V311, "marker");
        marker.publish_and_wait(MARK, mark.clone(), 1);
        wait_until("the far end has everything", SOON, || {
            self.shared().settled.as_ref() == Some(&mark)
        });
    }

    /// All that arrived, repeats included, in order.
    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.shared().arrived.clone()
    }

    /// The payloads of one topic as text, in order.
    pub(crate) fn texts(&self, topic: &str) -> Vec<String> {
        let shared = self.shared();
        let arrived = shared.arrived.iter();
        arrived
            .filter(|arrived| arrived.publish.topic == topic)
            .map(|arrived| arrived.publish.text())
            .collect()
    }

    /// How many messages arrived whose topic starts so.
    pub(crate) fn count(&self, topic_prefix: &str) -> usize {
        let shared = self.shared();
        let arrived = shared.arrived.iter();
        arrived
            .filter(|arrived| arrived.publish.topic.starts_with(topic_prefix))
            .count()
    }

    /// Waits for a message on a topic and gives the first one.
    #[track_caller]
    pub(crate) fn wait_for_topic(&self, topic: &str, deadline: Duration) -> Arrived {
        wait_for(&format!("{topic} arrives upstream"), deadline, || {
            let shared = self.shared();
            let mut arrived = shared.arrived.iter();
            arrived
                .find(|arrived| arrived.publish.topic == topic)
                .cloned()
        })
    }

    /// Waits until so many messages arrived whose topic starts so.
    #[track_caller]
    pub(crate) fn wait_for_count(&self, topic_prefix: &str, count: usize, deadline: Duration) {
        let what = format!("{count} messages of {topic_prefix} arrive upstream");
        wait_until(&what, deadline, || self.count(topic_prefix) >= count);
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let mut shared = self.shared();
        shared.stop = true;
        if let Some(stream) = &shared.stream {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn receive(broker: SocketAddr, connect: &Connect, shared: &Mutex<Shared>) -> std::io::Result<()> {
    let (mut stream, _) = dial(broker, connect, Duration::from_secs(2))?;
    shared.lock().unwrap().stream = Some(stream.try_clone()?);
    stream.write_all(&wire::subscribe(Version::V5, "#", 1))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let frame = Frame::read(&mut reader)?;
        match frame.kind() {
            wire::SUBACK => shared.lock().unwrap().subscribed = true,
            wire::PUBLISH => {
                let publish = frame.as_publish(Version::V5).expect("a whole PUBLISH");
                let packet_id = publish.packet_id;
                let at = Instant::now();
                let mut shared = shared.lock().unwrap();
                if publish.topic == MARK {
                    shared.settled = Some(publish.payload);
                } else if let Some(note) = &mut shared.note {
                    note(publish);
                } else {
                    shared.arrived.push(Arrived { publish, at });
                }
                drop(shared);
                if packet_id > 0 {
                    stream.write_all(&wire::answer(wire::PUBACK, packet_id))?;
                }
            }
            _ => {}
        }
    }
}
