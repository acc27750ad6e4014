//! A proxy between the gateway and the upstream broker that understands MQTT. It records the truth
//! (which message went out under which packet id, which PUBACK came back) and makes the faults of a
//! real uplink: acknowledgements that never come, connections that are up and carry nothing,
//! refusals, delay, a link that is gone. Its port stays the same throughout.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use crate::wait::{SOON, wait_until};
use crate::wire::{self, Frame, Publish, Version};

/// One PUBLISH that the gateway sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// The connection's number, from 0.
    pub(crate) connection: usize,
    pub(crate) client_id: String,
    pub(crate) publish: Publish,
    /// When it came here, and its bytes as they came.
    pub(crate) at: Instant,
    pub(crate) bytes: usize,
    /// It went into a black hole: the broker never saw it.
    pub(crate) vanished: bool,
    /// When its PUBACK was passed on to the gateway.
    pub(crate) acknowledged: Option<Instant>,
}

/// One connection of the gateway.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) client_id: String,
    pub(crate) version: Version,
    /// The CONNACK's code, once it came.
    pub(crate) connack: Option<u8>,
    pub(crate) connack_at: Option<Instant>,
    pub(crate) alive: bool,
    /// The most PUBLISH packets without PUBACK at once.
    pub(crate) in_flight_max: usize,
    in_flight: HashMap<u16, usize>,
    in_a_hole: bool,
}

type Choice = Box<dyn Fn(&Sent) -> bool + Send>;

/// What is wrong with the uplink.
struct Faults {
    broker: SocketAddr,
    away: bool,
    delay: Duration,
    swallow: Option<Choice>,
    refuse: Option<(String, u8)>,
    reject: Option<Choice>,
    one_at_a_time: bool,
}

struct State {
    faults: Faults,
    connections: Vec<Connection>,
    /// Of each connection, while it is alive.
    streams: Vec<Option<[TcpStream; 2]>>,
    sent: Vec<Sent>,
    brought: Vec<(String, Publish)>,
    swallowed: usize,
    broken_off: usize,
    forgetful: bool,
    stop: bool,
}

/// A running proxy.
pub(crate) struct Proxy {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Proxy {
    /// Starts one in front of a broker.
    pub(crate) fn start(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State {
            faults: Faults {
                broker,
                away: false,
                delay: Duration::ZERO,
                swallow: None,
                refuse: None,
                reject: None,
                one_at_a_time: false,
            },
            connections: Vec::new(),
            streams: Vec::new(),
            sent: Vec::new(),
            brought: Vec::new(),
            swallowed: 0,
            broken_off: 0,
            forgetful: false,
            stop: false,
        }));
        let shared = Arc::clone(&state);
        thread::spawn(move || accept(&listener, &shared));
        Self { port, state }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// From now on what the gateway sends is passed on and not remembered: for more than fit in memory.
    pub(crate) fn forget(&self) {
        self.state().forgetful = true;
    }

    /// The uplink is away: every connection is cut, new ones are closed at once.
    pub(crate) fn go_away(&self) {
        let mut state = self.state();
        state.faults.away = true;
        state.cut();
    }

    /// The uplink is back.
    pub(crate) fn come_back(&self) {
        self.state().faults.away = false;
    }

    /// Cuts every connection; new ones are welcome.
    pub(crate) fn cut(&self) {
        self.state().cut();
    }

    /// Every packet takes this long, both ways.
    pub(crate) fn delay(&self, delay: Duration) {
        self.state().faults.delay = delay;
    }

    /// Swallows the PUBACKs of the messages that `choice` names; `None` passes all again.
    pub(crate) fn swallow(&self, choice: Option<Choice>) {
        self.state().faults.swallow = choice;
    }

    /// Answers the messages that `choice` names with 0x99, payload format invalid (MQTT 5, 3.4.2.1), and
    /// keeps them from the broker; `None` passes all again.
    pub(crate) fn reject(&self, choice: Option<Choice>) {
        self.state().faults.reject = choice;
    }

    /// How many PUBACKs were swallowed.
    pub(crate) fn swallowed(&self) -> usize {
        self.state().swallowed
    }

    /// From now on the live connections whose client id ends so carry nothing, either way, and are
    /// not closed.
    pub(crate) fn black_hole(&self, client_id_suffix: &str) {
        let mut state = self.state();
        let mut holes = 0;
        for connection in &mut state.connections {
            if connection.alive && connection.client_id.ends_with(client_id_suffix) {
                connection.in_a_hole = true;
                holes += 1;
            }
        }
        assert!(holes > 0, "no connection of *{client_id_suffix}");
    }

    /// How many messages had no PUBACK when their connection ended.
    pub(crate) fn broken_off(&self) -> usize {
        self.state().broken_off
    }

    /// New connections whose client id ends so are refused with this CONNACK code.
    pub(crate) fn refuse(&self, client_id_suffix: &str, code: u8) {
        self.state().faults.refuse = Some((client_id_suffix.to_owned(), code));
    }

    /// Nobody is refused any more.
    pub(crate) fn welcome(&self) {
        self.state().faults.refuse = None;
    }

    /// Like a cloud that allows one connection for each device: a new one ends the others.
    pub(crate) fn allow_one_at_a_time(&self) {
        self.state().faults.one_at_a_time = true;
    }

    /// All connections so far.
    pub(crate) fn connections(&self) -> Vec<Connection> {
        self.state().connections.clone()
    }

    /// Everything that the gateway sent, in order, repeats included.
    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.state().sent.clone()
    }

    /// Everything that the broker sent to the gateway, with the client id that it was sent to, in
    /// order, repeats included.
    pub(crate) fn brought(&self) -> Vec<(String, Publish)> {
        self.state().brought.clone()
    }

    /// The payloads whose PUBACK was passed on, and when first.
    pub(crate) fn acknowledged(&self) -> HashMap<Vec<u8>, Instant> {
        let mut acknowledged = HashMap::new();
        for sent in &self.state().sent {
            if let Some(at) = sent.acknowledged {
                let first = acknowledged
                    .entry(sent.publish.payload.clone())
                    .or_insert(at);
                *first = at.min(*first);
            }
        }
        acknowledged
    }

    /// How often messages were sent beyond the first time, by payload.
    pub(crate) fn repeats(&self) -> usize {
        let state = self.state();
        let payloads: HashSet<_> = state
            .sent
            .iter()
            .map(|sent| &sent.publish.payload)
            .collect();
        state.sent.len() - payloads.len()
    }

    /// Waits until so many connections are up at once.
    #[track_caller]
    pub(crate) fn wait_for_connections(&self, count: usize) {
        wait_until(&format!("{count} connections upstream"), SOON, || {
            let state = self.state();
            let connections = state.connections.iter();
            connections
                .filter(|connection| connection.alive && connection.connack == Some(0))
                .count()
                == count
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.state();
        state.stop = true;
        state.cut();
        drop(state);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl State {
    fn cut(&mut self) {
        for (connection, streams) in self.connections.iter_mut().zip(&mut self.streams) {
            if connection.alive {
                self.broken_off += connection.in_flight.len();
            }
            connection.alive = false;
            for stream in streams.take().iter().flatten() {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// Ends every connection as a broker does when the session is taken over (MQTT 5, 3.1.4-3).
    fn take_over(&mut self) {
        for (connection, streams) in self.connections.iter().zip(&mut self.streams) {
            if let Some([gateway, _]) = streams
                && connection.version == Version::V5
            {
                let _ = gateway.write_all(&wire::packet(wire::DISCONNECT << 4, &[0x8e]));
            }
        }
        self.cut();
    }

    /// Notes a packet from the gateway; says whether it goes on.
    fn note_up(&mut self, number: usize, frame: &Frame) -> bool {
        let connection = &mut self.connections[number];
        let mut vanished = connection.in_a_hole;
        if frame.kind() == wire::PUBLISH {
            let publish = frame
                .as_publish(connection.version)
                .expect("the gateway sends whole PUBLISH packets");
            if publish.qos > 0 {
                let busy = connection
                    .in_flight
                    .insert(publish.packet_id, self.sent.len());
                assert!(busy.is_none(), "packet id {} twice", publish.packet_id);
            }
            connection.in_flight_max = connection.in_flight_max.max(connection.in_flight.len());
            let sent = Sent {
                connection: number,
                client_id: connection.client_id.clone(),
                publish,
                at: Instant::now(),
                bytes: frame.bytes.len(),
                vanished,
                acknowledged: None,
            };
            let reject = self.faults.reject.as_ref();
            if reject.is_some_and(|reject| reject(&sent)) {
                let id = sent.publish.packet_id;
                connection.in_flight.remove(&id);
                let [high, low] = id.to_be_bytes();
                let answer = wire::packet(wire::PUBACK << 4, &[high, low, 0x99]);
                if let Some([gateway, _]) = &mut self.streams[number] {
                    let _ = gateway.write_all(&answer);
                }
                vanished = true;
            }
            if !self.forgetful {
                self.sent.push(sent);
            }
        }
        !vanished
    }

    /// Notes a packet from the broker; says whether it goes on.
    fn note_down(&mut self, number: usize, frame: &Frame) -> bool {
        let connection = &mut self.connections[number];
        if connection.in_a_hole {
            return false;
        }
        match frame.kind() {
            wire::CONNACK => {
                let connack = frame.as_connack(connection.version);
                connection.connack = connack.map(|connack| connack.code);
                connection.connack_at = Some(Instant::now());
            }
            wire::PUBLISH => {
                let publish = frame.as_publish(connection.version);
                let publish = publish.expect("a whole PUBLISH");
                self.brought.push((connection.client_id.clone(), publish));
            }
            wire::PUBACK => {
                let (packet_id, _) = frame.as_answer().expect("a whole PUBACK");
                let place = connection.in_flight[&packet_id];
                if let Some(sent) = self.sent.get_mut(place) {
                    let swallow = self.faults.swallow.as_ref();
                    if swallow.is_some_and(|swallow| swallow(sent)) {
                        self.swallowed += 1;
                        return false;
                    }
                    sent.acknowledged = Some(Instant::now());
                }
                connection.in_flight.remove(&packet_id);
            }
            _ => {}
        }
        true
    }
}

fn accept(listener: &TcpListener, state: &Arc<Mutex<State>>) {
    for stream in listener.incoming() {
        if state.lock().unwrap().stop {
            return;
        }
        let state = Arc::clone(state);
        // An error means that one side went away, which is what the pumps end for.
        thread::spawn(move || stream.and_then(|stream| admit(stream, &state)));
    }
}

/// Reads CONNECT, applies what is to happen to it, and starts to pass packets.
fn admit(mut gateway: TcpStream, state: &Arc<Mutex<State>>) -> io::Result<()> {
    gateway.set_nodelay(true)?;
    if state.lock().unwrap().faults.away {
        return Ok(());
    }
    let connect = Frame::read(&mut gateway)?;
    let (client_id, version) = connect
        .as_connect()
        .expect("the gateway starts with CONNECT");
    let (broker, refused) = {
        let state = state.lock().unwrap();
        let refuse = state.faults.refuse.as_ref();
        let refused = refuse.filter(|(suffix, _)| client_id.ends_with(suffix.as_str()));
        (state.faults.broker, refused.map(|(_, code)| *code))
    };
    let connection = Connection {
        client_id,
        version,
        connack: refused,
        connack_at: None,
        alive: refused.is_none(),
        in_flight_max: 0,
        in_flight: HashMap::new(),
        in_a_hole: false,
    };
    if let Some(code) = refused {
        let mut state = state.lock().unwrap();
        state.connections.push(connection);
        state.streams.push(None);
        return gateway.write_all(&wire::connack(version, code));
    }
    let mut upstream = TcpStream::connect(broker)?;
    upstream.set_nodelay(true)?;
    upstream.write_all(&connect.bytes)?;
    let number = {
        let mut state = state.lock().unwrap();
        if state.faults.one_at_a_time {
            state.take_over();
        }
        if state.faults.away || state.stop {
            return Ok(());
        }
        state.connections.push(connection);
        state
            .streams
            .push(Some([gateway.try_clone()?, upstream.try_clone()?]));
        state.streams.len() - 1
    };
    pump(
        gateway.try_clone()?,
        upstream.try_clone()?,
        number,
        state,
        Way::Up,
    )?;
    pump(upstream, gateway, number, state, Way::Down)
}

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// Passes packets one way on two threads: one reads and notes, one writes when the delay is over.
fn pump(
    from: TcpStream,
    to: TcpStream,
    number: usize,
    state: &Arc<Mutex<State>>,
    way: Way,
) -> io::Result<()> {
    let (outgoing, packets) = mpsc::channel::<(Instant, Vec<u8>)>();
    let mut writer = to.try_clone()?;
    thread::spawn(move || {
        for (due, packet) in packets {
            sleep(due.saturating_duration_since(Instant::now()));
            if writer.write_all(&packet).is_err() {
                return;
            }
        }
    });
    let state = Arc::clone(state);
    thread::spawn(move || {
        let mut reader = BufReader::new(from);
        while let Ok(frame) = Frame::read(&mut reader) {
            let mut state = state.lock().unwrap();
            if !state.connections[number].alive {
                return;
            }
            let due = Instant::now() + state.faults.delay;
            let passes = match way {
                Way::Up => state.note_up(number, &frame),
                Way::Down => state.note_down(number, &frame),
            };
            if passes {
                drop(state);
                let _ = outgoing.send((due, frame.bytes));
            }
        }
        state.lock().unwrap().ended(number, way, &to);
    });
    Ok(())
}

impl State {
    /// One side of a connection closed it. A black hole hides that from the gateway.
    fn ended(&mut self, number: usize, way: Way, other: &TcpStream) {
        if self.connections[number].in_a_hole && way == Way::Down {
            return;
        }
        let connection = &mut self.connections[number];
        if connection.alive {
            self.broken_off += connection.in_flight.len();
        }
        connection.alive = false;
        self.streams[number] = None;
        let _ = other.shutdown(Shutdown::Both);
    }
}
