//! The upstream broker is restarted five times under load, or the link is cut. Is a guaranteed message ever lost, or
//! acknowledged to its device on another message's PUBACK, or repeated beyond one window for each
//! restart? The proxy knows the truth: which message each PUBACK was for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use firmware_sim::watch::FarEnd;
use firmware_sim::wire::Protocol;

use crate::broker::{BrokerOptions, Stop};
use crate::fleet::{Fleet, Plan};
use crate::gateway::Ledger;
use crate::proxy::{Proxy, Sent};
use crate::site::Site;
use crate::wire::Version;

const FAULTS: usize = 5;
/// Messages of each fleet that must be answered between two faults.
const BETWEEN: u64 = 300;
/// Devices of each guaranteed class, with 28 messages unanswered each.
const DEVICES: u32 = 3;
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

/// A site, and devices of both guaranteed classes that send as fast as they are answered.
struct Loaded {
    site: Site,
    /// Between the devices and the gateway: it knows what each was answered, and when.
    front: Proxy,
    fleets: [Fleet; 2],
}

impl Loaded {
    fn new(site: Site) -> Self {
        let front = Proxy::start(([127, 0, 0, 1], site.port()).into());
        let plan = |topic| Plan::to(topic).devices(DEVICES);
        let plans = [plan("alarm").speaking(Protocol::V311), plan("sure")];
        let mut numbers = (0..).step_by(DEVICES as usize);
        let fleets = plans.map(|plan| {
            let first_device = numbers.next().unwrap();
            Fleet::numbered(front.port(), &plan, first_device, FarEnd::default())
        });
        Self {
            site,
            front,
            fleets,
        }
    }

    /// Until so many more are answered to each fleet.
    #[track_caller]
    fn run(&mut self) {
        for fleet in &mut self.fleets {
            fleet.wait_more_answered(BETWEEN, LONG);
        }
    }

    /// Ends the devices, then the gateway.
    #[track_caller]
    fn end(&mut self) -> Ledger {
        for fleet in &mut self.fleets {
            fleet.wait_all_answered(LONG);
        }
        self.site.terminate()
    }
}

/// Runs the load with five faults in it, then holds what came out against the truth.
fn fault_five_times(options: &BrokerOptions, fault: impl Fn(&mut Site)) {
    fault_five_times_over(2, Version::V5, options, fault);
}

/// The same over so many connections in this version.
fn fault_five_times_over(
    connections: usize,
    version: Version,
    options: &BrokerOptions,
    fault: impl Fn(&mut Site),
) {
    let protocol = match version {
        Version::V311 => "3.1.1",
        Version::V5 => "5",
    };
    let site = Site::on_broker(options, |configuration| {
        configuration
            .uplink("retry_max = \"1s\"")
            .uplink(&format!("connections = {connections}"))
            .uplink(&format!("protocol = \"{protocol}\""))
            .section(CLASSES)
            .rule("sure/#", "sure")
    });
    site.proxy.wait_for_connections(connections);
    let mut loaded = Loaded::new(site);
    for _ in 0..FAULTS {
        loaded.run();
        fault(&mut loaded.site);
    }
    loaded.run();
    let ledger = loaded.end();
    let total = loaded.front.sent().len() as u64;
    for counter in ["received", "delivered"] {
        let counted = ledger.count("critical", counter) + ledger.count("sure", counter);
        assert_eq!(counted, total, "{counter} against what the devices sent");
    }
    let Loaded {
        site,
        front,
        fleets,
    } = loaded;
    for fleet in fleets {
        let account = fleet.finish().account;
        assert_eq!(account.total(|kind| kind.refused), 0, "{account}");
        assert_eq!(account.total(|kind| kind.resent), 0, "{account}");
    }
    nothing_is_credited_to_another(&front, &site.proxy);
    nothing_overtakes(&front, &site.proxy);
    repeats_are_bounded(&site.proxy);
    for connection in site.proxy.connections() {
        assert_eq!(connection.version, version);
        assert!(connections == 2 || !connection.client_id.ends_with("-urgent"));
    }
}

/// The devices go on while the broker is away.
fn restart(site: &mut Site, stop: Stop) {
    site.broker.stop(stop);
    site.broker.run();
}

/// A message, as nobody sends another.
type Identity = (String, Vec<u8>);

fn identity(sent: &Sent) -> Identity {
    (sent.publish.topic.clone(), sent.publish.payload.clone())
}

/// Every answer to a device came after the PUBACK of that very message.
fn nothing_is_credited_to_another(front: &Proxy, upstream: &Proxy) {
    let mut safe: HashMap<Identity, Instant> = HashMap::new();
    for sent in upstream.sent() {
        if let Some(at) = sent.acknowledged {
            let first = safe.entry(identity(&sent)).or_insert(at);
            *first = at.min(*first);
        }
    }
    for sent in front.sent() {
        let text = sent.publish.text();
        let answered = sent.acknowledged;
        let answered = answered.unwrap_or_else(|| panic!("{text} was never answered"));
        let at = safe.get(&identity(&sent));
        let at = at.unwrap_or_else(|| panic!("{text} was never acknowledged upstream"));
        assert!(*at <= answered, "{text} was answered before its PUBACK");
    }
}

/// On each topic, messages leave for the first time in the order of receipt.
fn nothing_overtakes(front: &Proxy, upstream: &Proxy) {
    let [received, left] = [front, upstream].map(|proxy| {
        let mut seen = HashSet::new();
        let mut topics: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for sent in proxy.sent() {
            if seen.insert(identity(&sent)) {
                let (topic, payload) = identity(&sent);
                topics.entry(topic).or_default().push(payload);
            }
        }
        topics
    });
    assert!(received == left, "not the order of receipt");
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
    let sent = proxy.sent();
    let repeats = sent.len() - sent.iter().map(identity).collect::<HashSet<_>>().len();
    assert!(repeats <= bound, "{repeats} repeats, at most {bound}");
}

#[test]
fn do_five_restarts_with_the_session_kept_lose_nothing() {
    let options = BrokerOptions {
        persistence: true,
        ..BrokerOptions::default()
    };
    fault_five_times(&options, |site| restart(site, Stop::Clean));
}

#[test]
fn do_five_restarts_with_the_session_lost_lose_nothing() {
    let options = BrokerOptions::default();
    fault_five_times(&options, |site| restart(site, Stop::Kill));
}

#[test]
fn do_five_cuts_of_both_connections_lose_nothing() {
    fault_five_times(&BrokerOptions::default(), |site| site.proxy.cut());
}

#[test]
fn do_five_restarts_on_one_connection_of_mqtt_3_1_1_lose_nothing() {
    let options = BrokerOptions::default();
    fault_five_times_over(1, Version::V311, &options, |site| {
        restart(site, Stop::Kill);
    });
}
