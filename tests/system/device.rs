//! A device that the test holds by the wire: it sends what it is told, whenever it is told, however
//! many messages are unanswered, and remembers what was answered. A thread reads, another writes,
//! so that a gateway which stops reading never stops the test.

use std::io::{self, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::wait::{SOON, wait_until};
use crate::wire::{self, ConnAck, Connect, Frame, Publish, Version};

/// Connects and waits for CONNACK, whatever it says.
pub(crate) fn dial(
    address: SocketAddr,
    connect: &Connect,
    timeout: Duration,
) -> io::Result<(TcpStream, ConnAck)> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(&connect.encode())?;
    let frame = Frame::read(&mut stream)?;
    let connack = match frame.kind() {
        wire::CONNACK => frame.as_connack(connect.version),
        _ => None,
    };
    stream.set_read_timeout(None)?;
    let connack = connack.ok_or_else(|| io::Error::other("no CONNACK"))?;
    Ok((stream, connack))
}

/// A message that was sent and answered.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) publish: Publish,
    pub(crate) reason: u8,
    pub(crate) at: Instant,
}

/// A message that was sent and not yet answered.
#[derive(Clone, Debug)]
struct Unanswered {
    publish: Publish,
    /// QoS 2: PUBREC came, PUBREL is out.
    released: bool,
}

/// What the reading thread saw.
#[derive(Debug, Default)]
struct Seen {
    unanswered: Vec<Unanswered>,
    answered: Vec<Answered>,
    suback: Option<Vec<u8>>,
    pings_answered: usize,
    disconnect_reason: Option<u8>,
    closed: bool,
}

/// A connected device.
pub(crate) struct Device {
    connect: Connect,
    connack: ConnAck,
    stream: TcpStream,
    outgoing: mpsc::Sender<Vec<u8>>,
    seen: Arc<Mutex<Seen>>,
    next_id: u16,
}

impl Device {
    /// Connects to a port of this machine.
    ///
    /// # Panics
    /// When it is refused.
    #[track_caller]
    pub(crate) fn connect(port: u16, connect: &Connect) -> Self {
        Self::resume(port, connect, Vec::new(), 1)
    }

    /// A clean MQTT 5 or 3.1.1 session.
    #[track_caller]
    pub(crate) fn new(port: u16, version: Version, client_id: &str) -> Self {
        Self::connect(port, &Connect::new(version, client_id))
    }

    #[track_caller]
    fn resume(port: u16, connect: &Connect, unanswered: Vec<Unanswered>, next_id: u16) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let (stream, connack) = dial(address, connect, SOON)
            .unwrap_or_else(|error| panic!("{} is not let in: {error}", connect.client_id));
        assert_eq!(connack.code, 0, "{} is refused", connect.client_id);
        let (outgoing, packets) = mpsc::channel();
        let seen = Arc::new(Mutex::new(Seen {
            unanswered,
            ..Seen::default()
        }));
        write_on_a_thread(stream.try_clone().unwrap(), packets);
        read_on_a_thread(stream.try_clone().unwrap(), outgoing.clone(), &seen);
        Self {
            connect: connect.clone(),
            connack,
            stream,
            outgoing,
            seen,
            next_id,
        }
    }

    pub(crate) fn connack(&self) -> &ConnAck {
        &self.connack
    }

    /// Sends a message; gives its packet id (0 for QoS 0).
    pub(crate) fn publish(&mut self, topic: &str, payload: impl Into<Vec<u8>>, qos: u8) -> u16 {
        self.send(Publish::new(topic, payload, qos))
    }

    /// Sends a message as it is, with a packet id of its own.
    pub(crate) fn send(&mut self, mut publish: Publish) -> u16 {
        if publish.qos > 0 {
            publish.packet_id = self.next_id;
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            let mut seen = self.seen.lock().unwrap();
            seen.unanswered.push(Unanswered {
                publish: publish.clone(),
                released: false,
            });
        }
        self.send_raw(publish.encode(self.connect.version));
        publish.packet_id
    }

    /// Sends any bytes.
    pub(crate) fn send_raw(&self, bytes: Vec<u8>) {
        // An error means that the connection is gone, which `is_closed` tells.
        let _ = self.outgoing.send(bytes);
    }

    /// How many messages of QoS 1 and 2 are not answered.
    pub(crate) fn unanswered(&self) -> usize {
        self.seen.lock().unwrap().unanswered.len()
    }

    /// What was answered, in the order of the answers.
    pub(crate) fn answered(&self) -> Vec<Answered> {
        self.seen.lock().unwrap().answered.clone()
    }

    /// The answer's reason for one packet id.
    pub(crate) fn reason(&self, packet_id: u16) -> Option<u8> {
        let seen = self.seen.lock().unwrap();
        let mut answered = seen.answered.iter();
        answered
            .find(|answered| answered.publish.packet_id == packet_id)
            .map(|answered| answered.reason)
    }

    /// Waits until nothing is unanswered.
    #[track_caller]
    pub(crate) fn wait_all_answered(&self, deadline: Duration) {
        let what = format!("every message of {} is answered", self.connect.client_id);
        wait_until(&what, deadline, || self.unanswered() == 0);
    }

    /// Publishes and waits for the answer; gives its reason.
    #[track_caller]
    pub(crate) fn publish_and_wait(
        &mut self,
        topic: &str,
        payload: impl Into<Vec<u8>>,
        qos: u8,
    ) -> u8 {
        let packet_id = self.publish(topic, payload, qos);
        let what = format!("{topic} of {} is answered", self.connect.client_id);
        wait_until(&what, SOON, || self.reason(packet_id).is_some());
        self.reason(packet_id).unwrap()
    }

    /// Asks for a sign of life and waits for it: whatever was sent before has been read by then.
    #[track_caller]
    pub(crate) fn ping(&self) {
        let before = self.seen.lock().unwrap().pings_answered;
        self.send_raw(wire::packet(wire::PINGREQ << 4, &[]));
        wait_until("a PINGREQ is answered", SOON, || {
            self.seen.lock().unwrap().pings_answered > before
        });
    }

    /// The SUBACK's body without its packet id, once there is one.
    pub(crate) fn suback(&self) -> Option<Vec<u8>> {
        self.seen.lock().unwrap().suback.clone()
    }

    /// Whether the other side closed the connection.
    pub(crate) fn is_closed(&self) -> bool {
        self.seen.lock().unwrap().closed
    }

    /// The reason of the other side's DISCONNECT.
    pub(crate) fn disconnect_reason(&self) -> Option<u8> {
        self.seen.lock().unwrap().disconnect_reason
    }

    /// Cuts the connection without DISCONNECT, so that a will fires.
    pub(crate) fn cut(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        wait_until("the device's own connection ends", SOON, || {
            self.is_closed()
        });
    }

    /// Connects anew with the same client id and resends what is unanswered, marked DUP, as a
    /// client with a session does (MQTT 5, 4.4).
    #[track_caller]
    pub(crate) fn reconnect(&self, port: u16) -> Self {
        self.cut();
        let unanswered = std::mem::take(&mut self.seen.lock().unwrap().unanswered);
        let device = Self::resume(port, &self.connect, unanswered.clone(), self.next_id);
        for Unanswered {
            mut publish,
            released,
        } in unanswered
        {
            publish.dup = true;
            device.send_raw(if released {
                wire::answer(wire::PUBREL, publish.packet_id)
            } else {
                publish.encode(device.connect.version)
            });
        }
        device
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn write_on_a_thread(mut stream: TcpStream, packets: mpsc::Receiver<Vec<u8>>) {
    thread::spawn(move || {
        for packet in packets {
            if stream.write_all(&packet).is_err() {
                return;
            }
        }
    });
}

fn read_on_a_thread(stream: TcpStream, outgoing: mpsc::Sender<Vec<u8>>, seen: &Arc<Mutex<Seen>>) {
    let seen = Arc::clone(seen);
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        while let Ok(frame) = Frame::read(&mut reader) {
            if let Some(packet) = seen.lock().unwrap().take(&frame) {
                let _ = outgoing.send(packet);
            }
        }
        seen.lock().unwrap().closed = true;
    });
}

impl Seen {
    /// Notes a packet; gives what has to be sent because of it.
    fn take(&mut self, frame: &Frame) -> Option<Vec<u8>> {
        match frame.kind() {
            wire::PUBACK | wire::PUBCOMP => {
                let (packet_id, reason) = frame.as_answer()?;
                self.answer(packet_id, reason);
            }
            wire::PUBREC => {
                let (packet_id, reason) = frame.as_answer()?;
                if reason >= 0x80 {
                    self.answer(packet_id, reason);
                } else {
                    self.release(packet_id);
                    return Some(wire::answer(wire::PUBREL, packet_id));
                }
            }
            wire::SUBACK => self.suback = Some(frame.bytes[4..].to_vec()),
            wire::PINGRESP => self.pings_answered += 1,
            wire::DISCONNECT => self.disconnect_reason = Some(frame.as_disconnect()),
            _ => {}
        }
        None
    }

    fn place(&self, packet_id: u16) -> Option<usize> {
        let mut unanswered = self.unanswered.iter();
        unanswered.position(|unanswered| unanswered.publish.packet_id == packet_id)
    }

    fn release(&mut self, packet_id: u16) {
        if let Some(place) = self.place(packet_id) {
            self.unanswered[place].released = true;
        }
    }

    fn answer(&mut self, packet_id: u16, reason: u8) {
        if let Some(place) = self.place(packet_id) {
            self.answered.push(Answered {
                publish: self.unanswered.remove(place).publish,
                reason,
                at: Instant::now(),
            });
        }
    }
}
