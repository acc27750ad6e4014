//! A narrow link in network namespaces: the gateway on this side, a broker in a namespace of its own,
//! and between them a modem that carries so many bits a second each way and, like real ones, has a
//! buffer of its own that holds seconds. A second, wide way leads around the modem, for who watches.
//! It needs root; everything is gone when it is dropped.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// What the modem queues before it drops: two seconds at 256 kbit/s.
const MODEM_BYTES: u32 = 64_000;

/// A narrow link.
pub(crate) struct NarrowLink {
    name: String,
    subnet: u8,
}

impl NarrowLink {
    /// A link of so many kbit/s each way, or `None`, and a line that says so, where that may not be made.
    pub(crate) fn new(kbit: u32) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = std::process::id() * 7 + NEXT.fetch_add(1, Ordering::Relaxed);
        let link = Self {
            name: format!("tg{}", number % 1_000_000),
            // Two of them: the narrow way and the wide one.
            subnet: u8::try_from(number % 120 * 2).unwrap(),
        };
        if let Err(error) = link.make(kbit) {
            println!("SKIPPED: no narrow link can be made here (root is needed): {error}");
            return None;
        }
        Some(link)
    }

    /// The far end's namespace.
    pub(crate) fn far_namespace(&self) -> String {
        format!("{}f", self.name)
    }

    /// The far end over the narrow way.
    pub(crate) fn far_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 231, self.subnet, 2)
    }

    /// The far end over the wide way.
    pub(crate) fn far_address_wide(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 231, self.subnet + 1, 2)
    }

    /// Carries so many kbit/s from now on.
    pub(crate) fn set_rate(&self, kbit: u32) {
        for port in ["near", "far"] {
            self.shape("change", port, kbit).unwrap();
        }
    }

    /// Bytes that the modem sent to the far end, headers included.
    pub(crate) fn sent_bytes(&self) -> u64 {
        let modem = format!("{}m", self.name);
        let output = Command::new("ip")
            .args([
                "netns", "exec", &modem, "tc", "-s", "qdisc", "show", "dev", "far",
            ])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut words = text.split_whitespace().skip_while(|word| *word != "Sent");
        words.nth(1).expect("tc counts").parse().unwrap()
    }

    fn make(&self, kbit: u32) -> Result<(), String> {
        let (modem, far) = (format!("{}m", self.name), self.far_namespace());
        let (near, side) = (format!("{}near", self.name), format!("{}side", self.name));
        let (narrow, wide) = (self.subnet, self.subnet + 1);
        ip(&format!("netns add {modem}"))?;
        ip(&format!("netns add {far}"))?;
        ip(&format!(
            "link add {near} type veth peer name near netns {modem}"
        ))?;
        ip(&format!(
            "link add {side} type veth peer name side netns {far}"
        ))?;
        ip(&format!(
            "-n {modem} link add dev far type veth peer name wan netns {far}"
        ))?;
        ip(&format!("-n {modem} link add dev bridge0 type bridge"))?;
        for port in ["near", "far"] {
            ip(&format!("-n {modem} link set dev {port} master bridge0"))?;
        }
        ip(&format!("-n {far} addr add 10.231.{narrow}.2/24 dev wan"))?;
        ip(&format!("-n {far} addr add 10.231.{wide}.2/24 dev side"))?;
        ip(&format!("addr add 10.231.{narrow}.1/24 dev {near}"))?;
        ip(&format!("addr add 10.231.{wide}.1/24 dev {side}"))?;
        for (namespace, device) in [
            (&modem, "near"),
            (&modem, "far"),
            (&modem, "bridge0"),
            (&far, "wan"),
            (&far, "side"),
            (&far, "lo"),
        ] {
            ip(&format!("-n {namespace} link set dev {device} up"))?;
        }
        for device in [&near, &side] {
            ip(&format!("link set dev {device} up"))?;
        }
        // The rule of congestion that most systems have, whatever this one prefers.
        ip(&format!(
            "route replace 10.231.{narrow}.0/24 dev {near} src 10.231.{narrow}.1 congctl cubic"
        ))?;
        for port in ["near", "far"] {
            self.shape("add", port, kbit)?;
        }
        Ok(())
    }

    fn shape(&self, verb: &str, port: &str, kbit: u32) -> Result<(), String> {
        let modem = format!("{}m", self.name);
        // One packet at a time; more at rates at which the kernel's clock ticks too slowly for that.
        let burst = (kbit * 2).max(2000);
        ip(&format!(
            "netns exec {modem} tc qdisc {verb} dev {port} root tbf rate {kbit}kbit burst {burst} limit {MODEM_BYTES}"
        ))
    }
}

impl Drop for NarrowLink {
    fn drop(&mut self) {
        // Their ends of the pairs go with them, and so do ours.
        let _ = ip(&format!("netns del {}m", self.name));
        let _ = ip(&format!("netns del {}", self.far_namespace()));
        let _ = ip(&format!("link del dev {}near", self.name));
        let _ = ip(&format!("link del dev {}side", self.name));
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    let mut command = Command::new("ip");
    let output = command.args(arguments.split(' ')).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("ip {arguments}: {}", said.trim()))
}
