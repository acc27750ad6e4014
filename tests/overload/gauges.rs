//! A look at the system once a second while it is measured, in a thread of its own: its memory, what
//! it says about pressure and its ledger, and the bytes on the link.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::process::usage_of;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How soon the thread notices that it is over.
const NAP: Duration = Duration::from_millis(20);
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// One look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// Since the first one.
    pub(crate) at: Duration,
    pub(crate) memory_kib: u64,
    /// Only the gateway says so.
    pub(crate) page: Option<Page>,
    /// Over the slow link so far.
    pub(crate) link_bytes: Option<u64>,
}

/// What the gateway says of itself, all classes together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Page {
    pub(crate) pressure_changes: u64,
    pub(crate) unaccounted: f64,
}

/// The thread.
pub(crate) struct Gauges {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Look>>,
}

impl Gauges {
    /// Begins to look at a process.
    pub(crate) fn start(
        process: u32,
        admin: Option<SocketAddr>,
        link_bytes: impl Fn() -> Option<u64> + Send + 'static,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let begun = Instant::now();
        let look = move || Look {
            at: begun.elapsed(),
            memory_kib: usage_of(process).map_or(0, |usage| usage.memory_kib),
            link_bytes: link_bytes(),
            page: admin.and_then(|admin| read_page(admin).ok()),
        };
        let thread = std::thread::Builder::new()
            .name("gauges".to_owned())
            .spawn(move || {
                let mut looks = vec![look()];
                let mut due = begun + LOOK_EVERY;
                while !stopped.load(Ordering::Relaxed) {
                    if Instant::now() >= due {
                        looks.push(look());
                        due += LOOK_EVERY;
                    }
                    std::thread::sleep(NAP);
                }
                looks.push(look());
                looks
            })?;
        Ok(Self { stop, thread })
    }

    /// Looks once more, and gives all looks.
    pub(crate) fn finish(self) -> Vec<Look> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

fn read_page(admin: SocketAddr) -> io::Result<Page> {
    let mut stream = TcpStream::connect_timeout(&admin, ANSWER_MAX)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(Page {
        pressure_changes: numbers(&text, "tidegate_pressure_changes_total").sum::<f64>() as u64,
        unaccounted: numbers(&text, "tidegate_unaccounted_messages")
            .map(f64::abs)
            .sum(),
    })
}

/// The numbers of one metric, for each class.
fn numbers<'a>(text: &'a str, metric: &'a str) -> impl Iterator<Item = f64> + 'a {
    text.lines()
        .filter_map(move |line| line.strip_prefix(metric)?.strip_prefix('{'))
        .filter_map(|rest| rest.rsplit_once("} ")?.1.trim().parse().ok())
}
