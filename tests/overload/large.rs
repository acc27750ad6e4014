//! A camera among the sensors: a reading of 1 MiB now and then, on one topic.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::wire::{self, Frame, Prepared, Protocol, invalid};

/// Its topic.
pub(crate) const TOPIC: &str = "large/camera/image";
const BYTES: usize = 1 << 20;
/// 256 kbit/s take 33 s for one.
const EVERY: Duration = Duration::from_secs(60);
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A camera that publishes.
pub(crate) struct Camera(JoinHandle<io::Result<u64>>);

impl Camera {
    /// Connects it; it publishes a tenth into the load first, and each minute after that.
    pub(crate) fn start(address: SocketAddr, load: Duration) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.write_all(&wire::connect("camera", Protocol::V5))?;
        wait_for(&mut stream, wire::CONNACK)?;
        let begun = Instant::now();
        std::thread::Builder::new()
            .name("camera".to_owned())
            .spawn(move || {
                let packet = Prepared::new(TOPIC, 1, Protocol::V5, BYTES);
                let mut sent: u16 = 0;
                let mut due = load / 10;
                while due < load {
                    std::thread::sleep((begun + due).saturating_duration_since(Instant::now()));
                    let mut bytes = Vec::new();
                    packet.append(&mut bytes, sent + 1, |_| {});
                    stream.write_all(&bytes)?;
                    wait_for(&mut stream, wire::PUBACK)?;
                    sent += 1;
                    due += EVERY;
                }
                Ok(sent.into())
            })
            .map(Self)
    }

    /// How many it published.
    pub(crate) fn finish(self) -> io::Result<u64> {
        self.0
            .join()
            .map_err(|_| io::Error::other("the camera's thread panicked"))?
    }
}

/// Reads until a packet of this kind is there; nothing else comes between.
fn wait_for(stream: &mut TcpStream, kind: u8) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 256];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&buffer[..read]);
        match Frame::first_of(&bytes).map_err(invalid)? {
            Some(frame) if frame.kind() == kind => return Ok(()),
            Some(_) => return Err(io::Error::other("the camera was refused")),
            None => {}
        }
    }
}
