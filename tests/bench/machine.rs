//! What a run depends on and did not bring along: the machine, mosquitto, free ports.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Says on what it is measured.
pub(crate) fn print(gateway: &Path) {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let processor = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']))
        .to_owned();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("processor   {processor}, {cores} cores");
    println!(
        "kernel      Linux {}",
        read("/proc/sys/kernel/osrelease").trim()
    );
    println!("load before {}", read("/proc/loadavg").trim());
    println!("gateway     {}", gateway.display());
    println!("peer        {}", mosquitto_version());
}

/// A port of the loopback that was free a moment ago.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// mosquitto's program: Debian puts it where only root's PATH looks.
pub(crate) fn mosquitto_program() -> PathBuf {
    let usual = Path::new("/usr/sbin/mosquitto");
    if usual.exists() {
        usual.to_path_buf()
    } else {
        PathBuf::from("mosquitto")
    }
}

/// The first line that `mosquitto -h` says.
fn mosquitto_version() -> String {
    let output = Command::new(mosquitto_program()).arg("-h").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    match text.ok().as_deref().and_then(|text| text.lines().next()) {
        Some(line) => line.to_owned(),
        None => "mosquitto is not installed".to_owned(),
    }
}
