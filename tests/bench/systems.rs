//! The systems that are compared: how each is configured and started.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::machine::{free_address, mosquitto_program};
use crate::process::Process;
use crate::sink::Sink;
use crate::tally::Tally;
use crate::traffic::filters;
use firmware_sim::wire::Protocol;

/// Time for a system to listen and to reach the sink.
const START_MAX: Duration = Duration::from_secs(10);

/// Messages in flight that mosquitto may have on its bridge; its default of 20 would strangle it.
const MOSQUITTO_INFLIGHT: u32 = 1_000;

/// Who forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum System {
    /// The gateway.
    Tidegate,
    /// mosquitto with a bridge.
    Mosquitto,
    /// A forwarder without logic.
    Floor,
}

impl System {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tidegate => "tidegate",
            Self::Mosquitto => "mosquitto",
            Self::Floor => "floor",
        }
    }
}

/// How a system is set up.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    /// Towards the sink.
    pub(crate) protocol: Protocol,
    /// QoS of mosquitto's bridge; the gateway always forwards at QoS 1.
    pub(crate) bridge_qos: u8,
    /// The gateway's rules.
    pub(crate) rules: Rules,
}

/// The gateway's rules.
#[derive(Clone, Copy)]
pub(crate) enum Rules {
    /// None: the default configuration.
    None,
    /// One, which gives the alarm topic the class `critical`.
    Alarm,
    /// One, which gives every topic the class `critical`.
    Guaranteed,
    /// So many, each for one device; a single one for all.
    Devices(u32),
}

/// A system that runs and is connected to the sink.
pub(crate) struct Running {
    pub(crate) process: Process,
    /// Where the devices connect.
    pub(crate) address: SocketAddr,
}

impl Running {
    /// Starts a system and waits until it listens and has reached the sink.
    pub(crate) fn start(
        system: System,
        gateway: &Path,
        setup: Setup,
        sink: &Sink<Tally>,
        folder: &Path,
    ) -> io::Result<Self> {
        let address = free_address()?;
        let command = match system {
            System::Tidegate => tidegate(gateway, setup, address, sink.address, folder)?,
            System::Mosquitto => mosquitto(setup, address, sink.address, folder)?,
            System::Floor => floor(setup, address, sink.address)?,
        };
        let process = Process::start(command, folder.join("system.log"))?;
        let mut running = Self { process, address };
        running.wait_until_ready(sink)?;
        Ok(running)
    }

    fn wait_until_ready(&mut self, sink: &Sink<Tally>) -> io::Result<()> {
        let deadline = Instant::now() + START_MAX;
        while sink.connections() == 0 || TcpStream::connect(self.address).is_err() {
            self.process.check_alive()?;
            if Instant::now() > deadline {
                let error = "it did not listen and reach the sink in 10 s";
                return Err(io::Error::new(io::ErrorKind::TimedOut, error));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // A second connection upstream may follow the first.
        std::thread::sleep(Duration::from_millis(300));
        self.process.check_alive()
    }
}

/// The gateway with its defaults, apart from ports and folder, and the rules that a case asks for.
fn tidegate(
    gateway: &Path,
    setup: Setup,
    listen: SocketAddr,
    sink: SocketAddr,
    folder: &Path,
) -> io::Result<Command> {
    let mut config = format!(
        "[gateway]\nstate_dir = \"{state}\"\n\n[admin]\nbind = \"127.0.0.1:0\"\n\n\
         [listener]\nbind = \"{listen}\"\n\n\
         [[uplink]]\nurl = \"mqtt://{sink}\"\nprotocol = \"{protocol}\"\n",
        state = folder.join("state").display(),
        protocol = setup.protocol.name(),
    );
    push_rules(&mut config, setup.rules);
    let file = folder.join("tidegate.toml");
    fs::write(&file, config)?;
    let mut command = Command::new(gateway);
    command.args(["run", "-c"]).arg(file);
    Ok(command)
}

fn push_rules(config: &mut String, rules: Rules) {
    let mut push = |topic: &str, class: &str| {
        let _ = write!(
            config,
            "\n[[rule]]\ntopic = \"{topic}\"\nclass = \"{class}\"\n"
        );
    };
    match rules {
        Rules::None => {}
        Rules::Alarm => push("plant/+/alarm", "critical"),
        Rules::Guaranteed => push("#", "critical"),
        Rules::Devices(count) => {
            for filter in filters(count) {
                push(&filter, "normal");
            }
        }
    }
}

/// mosquitto with one bridge. No limit but the window, and no file, so that nothing is dropped by
/// its defaults (20 in flight, 1,000 queued) and no disk is measured.
fn mosquitto(
    setup: Setup,
    listen: SocketAddr,
    sink: SocketAddr,
    folder: &Path,
) -> io::Result<Command> {
    let protocol = match setup.protocol {
        Protocol::V311 => "mqttv311",
        Protocol::V5 => "mqttv50",
    };
    let config = format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n\
         log_type error\nlog_type warning\n\
         max_inflight_messages {MOSQUITTO_INFLIGHT}\nmax_queued_messages 0\n\
         connection b\naddress {sink}\ntopic # out {qos}\n\
         bridge_protocol_version {protocol}\ncleansession true\n\
         try_private false\nnotifications false\nrestart_timeout 1\n",
        port = listen.port(),
        qos = setup.bridge_qos,
    );
    let file = folder.join("mosquitto.conf");
    fs::write(&file, config)?;
    let mut command = Command::new(mosquitto_program());
    command.arg("-c").arg(file);
    Ok(command)
}

/// The floor: this program, asked to be it.
fn floor(setup: Setup, listen: SocketAddr, sink: SocketAddr) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("floor")
        .args([listen.to_string(), sink.to_string()])
        .arg(setup.protocol.name());
    Ok(command)
}
