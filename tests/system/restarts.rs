//! The upstream broker is restarted five times under load, or the link is cut. Is a guaranteed message ever lost, or
//! acknowledged to its device on another message's PUBACK, or repeated beyond one window for each
//! restart? The proxy knows the truth: which message each PUBACK was for.

use std::collections::HashMap;
use std::time::Duration;

use crate::broker::{BrokerOptions, Stop};
use crate::device::Device;
use crate::proxy::Proxy;
use crate::site::Site;
use crate::wait::wait_until;
use crate::wire::{Connect, Version};

const FAULTS: usize = 5;
/// Messages that must be answered between two faults.
const BETWEEN: usize = 300;
/// Messages that each device leaves unanswered at once.
const WINDOW: usize = 40;
/// Five times back-off, broker start and the rest of the load, on a busy machine.
const LONG: Duration = Duration::from_secs(60);

const CLASSES: &str = r#"
[[class]]
name = "critical"
delivery = "guaranteed"
[[class]]
name = "sure"
delivery = "guaranteed"
[[class]]
name = "normal"
delivery = "buffered"
[[class]]
name = "low"
delivery = "latest"
"#;

/// Devices that send as fast as they are answered.
struct Load {
    devices: Vec<(String, Device)>,
    sent: Vec<usize>,
}

impl Load {
    fn new(port: u16) -> Self {
        let topics = ["alarm/0", "alarm/1", "sure/0", "sure/1"];
        let devices: Vec<_> = topics
            .iter()
            .enumerate()
            .map(|(number, topic)| {
                let version = [Version::V311, Version::V5][number % 2];
                let connect = Connect::persistent(version, &format!("device-{number}"));
                ((*topic).to_owned(), Device::connect(port, &connect))
            })
            .collect();
        let sent = vec![0; devices.len()];
        Self { devices, sent }
    }

    /// Fills every device's window.
    fn fill(&mut self) {
        for ((topic, device), sent) in self.devices.iter_mut().zip(&mut self.sent) {
            assert!(!device.is_closed(), "the gateway closed {topic}");
            for _ in device.unanswered()..WINDOW {
                device.publish(topic, format!("{topic} {sent:06}"), 1);
                *sent += 1;
            }
        }
    }

    fn answered(&self) -> usize {
        let devices = self.devices.iter();
        devices.map(|(_, device)| device.answered().len()).sum()
    }

    /// Sends until so many more are answered.
    fn run(&mut self, count: usize) {
        let goal = self.answered() + count;
        wait_until("the load goes through", LONG, || {
            self.fill();
            self.answered() >= goal
        });
    }
}

/// Runs the load with five faults in it, then holds what came out against the truth.
fn fault_five_times(options: &BrokerOptions, fault: impl Fn(&mut Site, &mut Load)) {
    fault_five_times_over(2, Version::V5, options, fault);
}

/// The same over so many connections in this version.
fn fault_five_times_over(
    connections: usize,
    version: Version,
    options: &BrokerOptions,
    fault: impl Fn(&mut Site, &mut Load),
) {
    let protocol = match version {
        Version::V311 => "3.1.1",
        Version::V5 => "5",
    };
    let mut site = Site::on_broker(options, |configuration| {
        configuration
            .uplink("retry_max = \"1s\"")
            .uplink(&format!("connections = {connections}"))
            .uplink(&format!("protocol = \"{protocol}\""))
            .section(CLASSES)
            .rule("sure/#", "sure")
    });
    site.proxy.wait_for_connections(connections);
    let mut load = Load::new(site.port());
    for _ in 0..FAULTS {
        load.run(BETWEEN);
        fault(&mut site, &mut load);
    }
    load.run(BETWEEN);
    for (_, device) in &load.devices {
        device.wait_all_answered(LONG);
    }
    let ledger = site.terminate();
    let total = load.sent.iter().sum::<usize>() as u64;
    for counter in ["received", "delivered"] {
        let counted = ledger.count("critical", counter) + ledger.count("sure", counter);
        assert_eq!(counted, total, "{counter} against what the devices sent");
    }
    nothing_is_credited_to_another(&load, &site.proxy);
    nothing_overtakes(&site.proxy);
    repeats_are_bounded(&site.proxy);
    for connection in site.proxy.connections() {
        assert_eq!(connection.version, version);
        assert!(connections == 2 || !connection.client_id.ends_with("-urgent"));
    }
}

/// The devices go on while the broker is away.
fn restart(site: &mut Site, load: &mut Load, stop: Stop) {
    site.broker.stop(stop);
    load.fill();
    site.broker.run();
}

/// Every answer to a device came after the PUBACK of that very message.
fn nothing_is_credited_to_another(load: &Load, proxy: &Proxy) {
    let acknowledged = proxy.acknowledged();
    for (_, device) in &load.devices {
        for answered in device.answered() {
            assert!(answered.reason < 0x80, "{answered:?} is refused");
            let text = answered.publish.text();
            let at = acknowledged.get(&answered.publish.payload);
            let at = at.unwrap_or_else(|| panic!("{text} was never acknowledged upstream"));
            assert!(*at <= answered.at, "{text} was answered before its PUBACK");
        }
    }
}

/// On each topic, messages leave for the first time in the order of receipt.
fn nothing_overtakes(proxy: &Proxy) {
    let mut newest: HashMap<String, String> = HashMap::new();
    let mut seen = std::collections::HashSet::new();
    for sent in proxy.sent() {
        let text = sent.publish.text();
        if seen.insert(text.clone()) {
            let newest = newest.entry(sent.publish.topic).or_default();
            assert!(*newest < text, "{text} was overtaken by {newest}");
            *newest = text;
        }
    }
}

/// At most one window of each link for each restart.
fn repeats_are_bounded(proxy: &Proxy) {
    let connections = proxy.connections();
    let window = |urgent: bool| {
        let connections = connections.iter();
        connections
            .filter(|connection| connection.client_id.ends_with("-urgent") == urgent)
            .map(|connection| connection.in_flight_max)
            .max()
            .unwrap_or(0)
    };
    let bound = FAULTS * (window(true) + window(false));
    let repeats = proxy.repeats();
    assert!(repeats <= bound, "{repeats} repeats, at most {bound}");
}

#[test]
fn do_five_restarts_with_the_session_kept_lose_nothing() {
    let options = BrokerOptions {
        persistence: true,
        ..BrokerOptions::default()
    };
    fault_five_times(&options, |site, load| restart(site, load, Stop::Clean));
}

#[test]
fn do_five_restarts_with_the_session_lost_lose_nothing() {
    let options = BrokerOptions::default();
    fault_five_times(&options, |site, load| restart(site, load, Stop::Kill));
}

#[test]
fn do_five_cuts_of_both_connections_lose_nothing() {
    fault_five_times(&BrokerOptions::default(), |site, _| site.proxy.cut());
}

#[test]
fn do_five_restarts_on_one_connection_of_mqtt_3_1_1_lose_nothing() {
    let options = BrokerOptions::default();
    fault_five_times_over(1, Version::V311, &options, |site, load| {
        restart(site, load, Stop::Kill);
    });
}
