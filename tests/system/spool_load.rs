//! Devices that never give up, by the thousands of messages: each sends as fast as it is answered, or
//! at its rate, comes back when its connection ends, and brings again, marked DUP, what was not
//! answered. What was answered is remembered by its number, so that the far end can be held against
//! it.
//!
//! They are no fleet of firmware-sim, which plays the crash harness: these tests count to the message (so
//! many of so many bytes, then the ledger must say the same number), ask while it goes on what each device
//! was answered, and must see what a gateway holds back. Firmware goes by time, has room for 28 unanswered
//! messages and lets newer readings take the place of those that wait.

use std::collections::VecDeque;
use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use crate::device::dial;
use crate::wait::wait_until;
use crate::wire::{self, Connect, Frame, Publish, Version};

/// How long a device waits for an answer before it looks at what else there is to do.
const TURN: Duration = Duration::from_millis(2);
/// How long a write may be stuck: a gateway that pauses this sender does not read.
const WRITE_MAX: Duration = Duration::from_secs(60);

/// What one device does.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    topic: String,
    window: usize,
    payload_bytes: usize,
    count_max: Option<u32>,
    each_second: Option<u32>,
}

impl Sender {
    /// Messages of 200 bytes with QoS 1, 128 of them unanswered at most, without end.
    pub(crate) fn to(topic: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            window: 128,
            payload_bytes: 200,
            count_max: None,
            each_second: None,
        }
    }

    /// How many may be unanswered.
    pub(crate) fn window(mut self, window: usize) -> Self {
        self.window = window;
        self
    }

    /// The size of a payload, at least 12.
    pub(crate) fn payload_bytes(mut self, bytes: usize) -> Self {
        self.payload_bytes = bytes;
        self
    }

    /// How many messages there are.
    pub(crate) fn count(mut self, count: u32) -> Self {
        self.count_max = Some(count);
        self
    }

    /// How many are sent in a second at most.
    pub(crate) fn each_second(mut self, count: u32) -> Self {
        self.each_second = Some(count);
        self
    }
}

/// What became of a device's messages, by their numbers from 0.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// How many there will be, if there is an end.
    goal: Option<u32>,
    /// How many were made, whether they went out or not.
    pub(crate) made: u32,
    pub(crate) answered: Vec<bool>,
    pub(crate) answered_count: u32,
    /// Answered with a reason that says no.
    pub(crate) refused: u32,
    /// The longest that one waited for its answer.
    pub(crate) slowest: Duration,
    /// Connections that it had.
    pub(crate) connections: u32,
}

/// Where the devices are sent to, and what they are told.
#[derive(Debug, Default)]
struct Orders {
    /// 0: nowhere.
    port: AtomicU16,
    paused: AtomicBool,
    ended: AtomicBool,
}

/// Running devices; they end when dropped.
pub(crate) struct Load {
    first: usize,
    orders: Arc<Orders>,
    progress: Vec<Arc<Mutex<Progress>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Lets the devices begin; their messages start with the device's place here and their number.
    pub(crate) fn start(port: u16, senders: &[Sender]) -> Self {
        Self::numbered(port, 0, senders)
    }

    /// The same with the devices numbered from `first` on.
    pub(crate) fn numbered(port: u16, first: usize, senders: &[Sender]) -> Self {
        let orders = Arc::new(Orders::default());
        orders.port.store(port, Ordering::SeqCst);
        let mut load = Self {
            first,
            orders: Arc::clone(&orders),
            progress: Vec::new(),
            threads: Vec::new(),
        };
        for (number, sender) in (first..).zip(senders) {
            let progress = Arc::new(Mutex::new(Progress {
                goal: sender.count_max,
                ..Progress::default()
            }));
            load.progress.push(Arc::clone(&progress));
            let mut device = Device {
                number,
                sender: sender.clone(),
                orders: Arc::clone(&orders),
                progress,
                unanswered: VecDeque::new(),
                next_id: 1,
                start: Instant::now(),
            };
            load.threads.push(thread::spawn(move || device.run()));
        }
        load
    }

    /// From now on the gateway is at this port; 0: there is none.
    pub(crate) fn go_to(&self, port: u16) {
        self.orders.port.store(port, Ordering::SeqCst);
    }

    /// Devices without an end make nothing new; what is unanswered is still brought.
    pub(crate) fn pause(&self) {
        self.orders.paused.store(true, Ordering::SeqCst);
        // Whoever is making new ones has done so when the lock is free.
        self.progress.iter().for_each(|p| drop(p.lock().unwrap()));
    }

    /// What became of one device's messages.
    pub(crate) fn progress(&self, device: usize) -> MutexGuard<'_, Progress> {
        self.progress[device - self.first].lock().unwrap()
    }

    fn sum(&self, count: impl Fn(&Progress) -> u32) -> u32 {
        let progress = self.progress.iter();
        progress
            .map(|progress| count(&progress.lock().unwrap()))
            .sum()
    }

    /// How many are answered, over all devices.
    pub(crate) fn answered(&self) -> u32 {
        self.sum(|progress| progress.answered_count)
    }

    /// How many were made, over all devices.
    pub(crate) fn made(&self) -> u32 {
        self.sum(|progress| progress.made)
    }

    /// The longest wait for an answer, over all devices.
    pub(crate) fn slowest(&self) -> Duration {
        let progress = self.progress.iter();
        let slowest = progress.map(|progress| progress.lock().unwrap().slowest);
        slowest.max().unwrap_or_default()
    }

    /// Waits until so many are answered, over all devices.
    #[track_caller]
    pub(crate) fn wait_answered(&self, count: u32, deadline: Duration) {
        let what = format!("{count} messages are answered");
        wait_until(&what, deadline, || self.answered() >= count);
    }

    /// Waits until everything is made and answered; devices without an end make nothing new.
    #[track_caller]
    pub(crate) fn wait_all_answered(&self, deadline: Duration) {
        self.pause();
        wait_until("everything is made and answered", deadline, || {
            let mut progress = self
                .progress
                .iter()
                .map(|progress| progress.lock().unwrap());
            progress.all(|progress| {
                let goal = progress.goal.unwrap_or(progress.made);
                progress.answered_count + progress.refused >= goal
            })
        });
    }

    /// How many are answered of these devices' messages.
    pub(crate) fn answered_by(&self, devices: &[usize]) -> u32 {
        let answered = devices.iter();
        answered
            .map(|device| self.progress(*device).answered_count)
            .sum()
    }

    /// Waits until each of these devices has messages without answer and got none for this long.
    #[track_caller]
    pub(crate) fn wait_stuck_at(&self, devices: &[usize], quiet: Duration, deadline: Duration) {
        let mut seen = vec![(0, Instant::now()); devices.len()];
        wait_until("nothing more is answered", deadline, || {
            for (device, (before, since)) in devices.iter().zip(&mut seen) {
                let progress = self.progress(*device);
                let answered = progress.answered_count;
                if answered != *before || answered == progress.made {
                    (*before, *since) = (answered, Instant::now());
                }
            }
            seen.iter().all(|(_, since)| since.elapsed() >= quiet)
        });
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.orders.ended.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "a device broke");
        }
    }
}

/// A message that is not answered.
struct Unanswered {
    packet_id: u16,
    number: u32,
    sent: Instant,
}

struct Device {
    number: usize,
    sender: Sender,
    orders: Arc<Orders>,
    progress: Arc<Mutex<Progress>>,
    unanswered: VecDeque<Unanswered>,
    next_id: u16,
    start: Instant,
}

impl Device {
    fn run(&mut self) {
        while !self.orders.ended.load(Ordering::SeqCst) {
            let port = self.orders.port.load(Ordering::SeqCst);
            if port != 0 {
                // An error means that the gateway went away: the next turn tries again.
                let _ = self.serve(port);
            }
            sleep(TURN);
        }
    }

    /// One connection, until it ends or the orders change.
    fn serve(&mut self, port: u16) -> io::Result<()> {
        let connect = Connect::persistent(self.version(), &format!("load-{}", self.number));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let (mut stream, connack) = dial(address, &connect, Duration::from_secs(5))?;
        if connack.code != 0 {
            return Err(io::Error::other("refused"));
        }
        stream.set_read_timeout(Some(TURN))?;
        stream.set_write_timeout(Some(WRITE_MAX))?;
        self.progress.lock().unwrap().connections += 1;
        stream.write_all(&self.bring_again())?;
        let mut received = Vec::new();
        while self.orders.port.load(Ordering::SeqCst) == port
            && !self.orders.ended.load(Ordering::SeqCst)
        {
            let packets = self.make();
            stream.write_all(&packets)?;
            if packets.is_empty() && self.unanswered.is_empty() {
                sleep(TURN);
            }
            read_what_is_there(&mut stream, &mut received)?;
            self.take_answers(&mut received);
        }
        Ok(())
    }

    fn bring_again(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        for unanswered in &self.unanswered {
            let publish = self.publish(unanswered.packet_id, unanswered.number, true);
            out.extend(publish.encode(self.version()));
        }
        out
    }

    /// Half of the devices speak 3.1.1.
    fn version(&self) -> Version {
        [Version::V311, Version::V5][self.number % 2]
    }

    fn publish(&self, packet_id: u16, number: u32, dup: bool) -> Publish {
        let mut payload = format!("{:03} {number:08}", self.number).into_bytes();
        payload.resize(self.sender.payload_bytes.max(12), b'.');
        let mut publish = Publish::new(&self.sender.topic, payload, 1);
        (publish.packet_id, publish.dup) = (packet_id, dup);
        publish
    }

    /// New messages, as many as the window and the rate allow.
    fn make(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let due = self.sender.each_second.map_or(u32::MAX, |rate| {
            (self.start.elapsed().as_secs_f64() * f64::from(rate)) as u32
        });
        let due = due.min(self.sender.count_max.unwrap_or(u32::MAX));
        let progress = Arc::clone(&self.progress);
        let mut progress = progress.lock().unwrap();
        if progress.goal.is_none() && self.orders.paused.load(Ordering::SeqCst) {
            return out;
        }
        while self.unanswered.len() < self.sender.window && progress.made < due {
            let (packet_id, number) = (self.next_id, progress.made);
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            let publish = self.publish(packet_id, number, false);
            out.extend(publish.encode(self.version()));
            self.unanswered.push_back(Unanswered {
                packet_id,
                number,
                sent: Instant::now(),
            });
            progress.made += 1;
            progress.answered.push(false);
        }
        out
    }

    fn place(&self, packet_id: u16) -> Option<usize> {
        let mut unanswered = self.unanswered.iter();
        unanswered.position(|unanswered| unanswered.packet_id == packet_id)
    }

    fn take_answers(&mut self, received: &mut Vec<u8>) {
        let progress = Arc::clone(&self.progress);
        let mut progress = progress.lock().unwrap();
        let mut rest = Cursor::new(received.as_slice());
        let mut taken = 0;
        while let Ok(frame) = Frame::read(&mut rest) {
            taken = rest.position() as usize;
            let Some((packet_id, reason)) = frame.as_answer() else {
                continue;
            };
            let place = self
                .place(packet_id)
                .filter(|_| frame.kind() == wire::PUBACK);
            let Some(message) = place.and_then(|place| self.unanswered.remove(place)) else {
                continue;
            };
            if reason >= 0x80 {
                progress.refused += 1;
                continue;
            }
            progress.slowest = progress.slowest.max(message.sent.elapsed());
            progress.answered[message.number as usize] = true;
            progress.answered_count += 1;
        }
        received.drain(..taken);
    }
}

/// Reads what has come; nothing for [`TURN`] is no error.
fn read_what_is_there(stream: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<()> {
    let mut chunk = [0; 4096];
    match stream.read(&mut chunk) {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Ok(count) => {
            received.extend(&chunk[..count]);
            Ok(())
        }
        Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => {
            Ok(())
        }
        Err(error) => Err(error),
    }
}
