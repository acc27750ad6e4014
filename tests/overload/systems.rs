//! The systems that are compared: how each is configured and started, as a user would.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::link::Link;
use crate::machine::{free_address, mosquitto_program};
use crate::process::Process;

/// Time for a system to listen and to reach the sink; a link of 50 kbit/s takes its part of it.
const START_MAX: Duration = Duration::from_secs(20);
/// A second connection upstream may follow the first.
const SECOND_CONNECTION: Duration = Duration::from_millis(500);
/// What mosquitto may queue: its default of 1,000 messages would drop alarms at once, and without any
/// limit a flood would take all memory there is.
const MOSQUITTO_QUEUE_BYTES: u32 = 256 * 1024 * 1024;

/// Who forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum System {
    /// The gateway.
    Tidegate,
    /// mosquitto with a bridge.
    Bridge,
    /// mosquitto with two bridges, one for alarms.
    TwoBridges,
}

impl System {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tidegate => "tidegate",
            Self::Bridge => "one bridge",
            Self::TwoBridges => "two bridges",
        }
    }
}

/// How a system is set up.
pub(crate) struct Setup<'a> {
    pub(crate) upstream: SocketAddr,
    /// Runs behind it.
    pub(crate) link: Option<&'a Link>,
    /// Topic filters and the gateway's class of each, the first that matches decides.
    pub(crate) rules: &'a [(&'static str, &'static str)],
    pub(crate) folder: &'a Path,
}

/// A system that runs and is connected to the sink.
pub(crate) struct Running {
    pub(crate) process: Process,
    /// Where the devices connect.
    pub(crate) address: SocketAddr,
    /// Where it tells how it is.
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) log: PathBuf,
}

impl Running {
    /// Starts a system and waits until it listens and `is_connected` to the sink.
    pub(crate) fn start(
        system: System,
        gateway: &Path,
        setup: &Setup<'_>,
        is_connected: impl Fn() -> bool,
    ) -> io::Result<Self> {
        let [address, admin] = match setup.link {
            Some(_) => [Link::listener(1883), Link::listener(9180)],
            None => [free_address()?, free_address()?],
        };
        let (program, arguments) = match system {
            System::Tidegate => tidegate(gateway, setup, address, admin)?,
            System::Bridge | System::TwoBridges => mosquitto(system, setup, address)?,
        };
        let mut command = match setup.link {
            Some(link) => link.command(&program),
            None => Command::new(program),
        };
        command.args(arguments);
        let log = setup.folder.join("system.log");
        let mut running = Self {
            process: Process::start(command, log.clone())?,
            address,
            admin: (system == System::Tidegate).then_some(admin),
            log,
        };
        running.wait_until_ready(is_connected)?;
        Ok(running)
    }

    fn wait_until_ready(&mut self, is_connected: impl Fn() -> bool) -> io::Result<()> {
        let deadline = Instant::now() + START_MAX;
        while !is_connected() || TcpStream::connect(self.address).is_err() {
            self.process.check_alive()?;
            if Instant::now() > deadline {
                let error = "it did not listen and reach the sink in 20 s";
                return Err(io::Error::new(io::ErrorKind::TimedOut, error));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(SECOND_CONNECTION);
        self.process.check_alive()
    }
}

type ProgramAndArguments = (PathBuf, Vec<String>);

/// The gateway with its defaults, apart from addresses, folder and rules.
fn tidegate(
    gateway: &Path,
    setup: &Setup<'_>,
    listen: SocketAddr,
    admin: SocketAddr,
) -> io::Result<ProgramAndArguments> {
    let exposed = !listen.ip().is_loopback();
    let mut config = format!(
        "[gateway]\nstate_dir = \"{state}\"\n\n[admin]\nbind = \"{admin}\"\nexpose = {exposed}\n\n\
         [listener]\nbind = \"{listen}\"\nanonymous = {exposed}\n\n\
         [[uplink]]\nurl = \"mqtt://{upstream}\"\n",
        state = setup.folder.join("state").display(),
        upstream = setup.upstream,
    );
    for (topic, class) in setup.rules {
        let _ = write!(
            config,
            "\n[[rule]]\ntopic = \"{topic}\"\nclass = \"{class}\"\n"
        );
    }
    let file = setup.folder.join("tidegate.toml");
    fs::write(&file, config)?;
    let arguments = vec!["run".into(), "-c".into(), file.display().to_string()];
    Ok((gateway.to_path_buf(), arguments))
}

/// mosquitto with one bridge for everything, or one for what the gateway's first class has and one for
/// the rest. Its defaults, but for the queue, and without a disk.
fn mosquitto(
    system: System,
    setup: &Setup<'_>,
    listen: SocketAddr,
) -> io::Result<ProgramAndArguments> {
    let mut config = format!(
        "listener {port} {address}\nallow_anonymous true\npersistence false\n\
         log_type error\nlog_type warning\n\
         max_queued_messages 0\nmax_queued_bytes {MOSQUITTO_QUEUE_BYTES}\n",
        port = listen.port(),
        address = listen.ip(),
    );
    match system {
        System::TwoBridges => {
            let (urgent, rest): (Vec<_>, Vec<_>) = filters(setup.rules)
                .into_iter()
                .partition(|(_, class)| *class == "critical");
            push_bridge(&mut config, "urgent", setup.upstream, &urgent);
            push_bridge(&mut config, "rest", setup.upstream, &rest);
        }
        _ => push_bridge(&mut config, "all", setup.upstream, &[("#", "")]),
    }
    let file = setup.folder.join("mosquitto.conf");
    fs::write(&file, config)?;
    let arguments = vec!["-c".into(), file.display().to_string()];
    Ok((mosquitto_program(), arguments))
}

/// The rules' filters, with each topic in one of them only: what a bridge cannot exclude is named.
fn filters(rules: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let mut filters: Vec<_> = rules.to_vec();
    filters.retain(|(filter, _)| *filter != "#");
    for channel in [
        "+/+/temperature",
        "+/+/pressure",
        "+/+/vibration",
        "+/+/level",
    ] {
        filters.push((channel, ""));
    }
    filters
}

fn push_bridge(
    config: &mut String,
    name: &str,
    upstream: SocketAddr,
    filters: &[(&'static str, &'static str)],
) {
    let _ = write!(config, "connection {name}\naddress {upstream}\n");
    for (filter, _) in filters {
        let _ = writeln!(config, "topic {filter} out 1");
    }
    config.push_str(
        "bridge_protocol_version mqttv50\ncleansession false\n\
         try_private false\nnotifications false\nrestart_timeout 1\n",
    );
}
