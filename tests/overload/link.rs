//! A slow link: the system runs in a network namespace of its own, with two cables to the benchmark's.
//! Over one, as fast as it goes, the devices come; over the other, which `tc` makes slow in both
//! directions, the sink is reached. Both are gone when it is dropped. Needs root.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The namespaces' names begin so; the rest is the benchmark's process id.
const PREFIX: &str = "tg-overload-";
/// The range of addresses that is set aside for benchmarks (RFC 2544). Each run takes eight of it, by
/// its process id, so that two do not meet: four for each cable, of which the middle ones are used.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
const ADDRESSES: u32 = 1 << 17;
const ADDRESSES_OF_RUN: u32 = 8;
const OF_DEVICES: u32 = 1;
const OF_SYSTEM: u32 = 2;
const OF_SINK: u32 = 5;
const OF_UPLINK: u32 = 6;
/// What the modem holds: half a second of 256 kbit/s, two and a half of 50.
const MODEM_BYTES: u32 = 16_000;
/// One packet of the largest size at once.
const BURST_BYTES: u32 = 1_600;

/// A link that stands.
pub(crate) struct Link {
    namespace: String,
    devices: String,
    uplink: String,
    pub(crate) kbit: u32,
}

impl Link {
    /// Makes it.
    pub(crate) fn make(kbit: u32) -> io::Result<Self> {
        let id = std::process::id();
        let link = Self {
            namespace: format!("{PREFIX}{id}"),
            devices: format!("tgl{id}"),
            uplink: format!("tgw{id}"),
            kbit,
        };
        link.build().map_err(|error| {
            let hint = "a slow link needs root, ip(8) and tc(8)";
            io::Error::new(error.kind(), format!("{error}; {hint}"))
        })?;
        Ok(link)
    }

    fn build(&self) -> io::Result<()> {
        let (space, uplink) = (self.namespace.as_str(), self.uplink.as_str());
        run("ip", &["netns", "add", space])?;
        run("ip", &["-n", space, "link", "set", "lo", "up"])?;
        for (outside, inside, here, there) in [
            (self.devices.as_str(), "devices", OF_DEVICES, OF_SYSTEM),
            (uplink, "uplink", OF_SINK, OF_UPLINK),
        ] {
            let address = |number| format!("{}/30", address(number));
            run(
                "ip",
                &[
                    "link", "add", outside, "type", "veth", "peer", "name", inside, "netns", space,
                ],
            )?;
            run("ip", &["addr", "add", &address(here), "dev", outside])?;
            run("ip", &["link", "set", outside, "up"])?;
            run(
                "ip",
                &["-n", space, "addr", "add", &address(there), "dev", inside],
            )?;
            run("ip", &["-n", space, "link", "set", inside, "up"])?;
        }
        self.slow_down(&["-n", space], "uplink")?;
        self.slow_down(&[], uplink)
    }

    fn slow_down(&self, before: &[&str], device: &str) -> io::Result<()> {
        let (rate, burst, limit) = (
            format!("{}kbit", self.kbit),
            BURST_BYTES.to_string(),
            MODEM_BYTES.to_string(),
        );
        let mut arguments = before.to_vec();
        arguments.extend(["qdisc", "add", "dev", device, "root", "tbf"]);
        arguments.extend(["rate", &rate, "burst", &burst, "limit", &limit]);
        run("tc", &arguments)
    }

    /// Where the sink listens.
    pub(crate) fn sink() -> SocketAddr {
        (address(OF_SINK), 0).into()
    }

    /// Where a system behind the link listens.
    pub(crate) fn listener(port: u16) -> SocketAddr {
        (address(OF_SYSTEM), port).into()
    }

    /// A command that runs behind the link, as the same process.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace])
            .arg(program);
        command
    }

    /// What counts its bytes.
    pub(crate) fn counter(&self) -> Counter {
        let folder = Path::new("/sys/class/net").join(&self.uplink);
        Counter(folder.join("statistics/rx_bytes"))
    }
}

/// Counts the bytes that come from the system over the slow link, frames and all: as tbf counts them.
pub(crate) struct Counter(PathBuf);

impl Counter {
    /// So far.
    pub(crate) fn read(&self) -> Option<u64> {
        fs::read_to_string(&self.0).ok()?.trim().parse().ok()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The kernel takes a namespace's cables down some time after it; the next run has the names.
        for cable in [&self.devices, &self.uplink] {
            let _ = run("ip", &["link", "del", cable]);
        }
        remove(&self.namespace);
    }
}

/// One of this run's addresses.
fn address(number: u32) -> Ipv4Addr {
    let runs = ADDRESSES / ADDRESSES_OF_RUN;
    let run = std::process::id() % runs;
    Ipv4Addr::from_bits(FIRST_ADDRESS.to_bits() + run * ADDRESSES_OF_RUN + number)
}

/// TCP segments that a process's namespace sent again so far.
pub(crate) fn retransmissions(process: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/net/snmp")).ok()?;
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let names = lines.next()?.split_whitespace();
    let values = lines.next()?.split_whitespace();
    let (_, value) = names.zip(values).find(|(name, _)| *name == "RetransSegs")?;
    value.parse().ok()
}

/// Removes the namespaces of benchmarks that were killed.
pub(crate) fn remove_leftovers() {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(id) = name.strip_prefix(PREFIX) else {
            continue;
        };
        if !Path::new("/proc").join(id).exists() {
            remove(&name);
        }
    }
}

/// The cables go with the namespace that holds their other ends.
fn remove(namespace: &str) {
    let _ = run("ip", &["netns", "del", namespace]);
}

fn run(program: &str, arguments: &[&str]) -> io::Result<()> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let error = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "{program} {}: {}",
        arguments.join(" "),
        error.trim()
    )))
}
