//! One device has gone mad while the uplink is away: its guaranteed messages are held, its connection
//! is closed after `hold_max`, and it brings them again. Do others notice, and is anything lost or
//! repeated? And what does a device that was not answered find after the gateway was restarted?

use std::thread::sleep;
use std::time::Duration;

use crate::device::Device;
use crate::gateway::Gateway;
use crate::site::Site;
use crate::wait::{SOON, wait_until};
use crate::wire::{Connect, Publish, Version};

/// One client may occupy 64 KiB of the first class.
const CLASSES: &str = r#"
[[class]]
name = "critical"
delivery = "guaranteed"
client_max = "64KiB"
[[class]]
name = "normal"
delivery = "buffered"
[[class]]
name = "low"
delivery = "latest"
"#;

/// What a mad device sends: far more than `client_max`.
fn alarms() -> Vec<String> {
    let alarms = 0..15;
    alarms
        .map(|number| format!("{number:02} {:.>16384}", ""))
        .collect()
}

/// Waits until the gateway has closed the device's connection.
#[track_caller]
fn wait_closed(device: &Device) {
    wait_until("the mad device is closed", SOON, || device.is_closed());
}

/// A device that is closed after one second of holding comes again, until all is answered.
#[track_caller]
fn bring_again_until_answered(device: &mut Device, port: u16) {
    wait_until("all is brought again and answered", SOON, || {
        if device.is_closed() {
            *device = device.reconnect(port);
        }
        device.unanswered() == 0
    });
}

#[test]
fn is_only_a_mad_device_held_and_closed_and_does_all_it_brings_again_arrive_once() {
    for version in [Version::V311, Version::V5] {
        let mut site = Site::with(|configuration| {
            configuration
                .listener("hold_max = \"1s\"")
                .uplink("retry_max = \"1s\"")
                .section(CLASSES)
                .no_room_on_disk()
        });
        site.proxy.wait_for_connections(2);
        site.proxy.go_away();
        let mut connect = Connect::persistent(version, "mad");
        connect.will = Some(Publish::new("will", "gone", 1));
        let mut mad = Device::connect(site.port(), &connect);
        for alarm in alarms() {
            mad.publish("alarm/mad", alarm, 1);
        }
        wait_closed(&mad);
        site.gateway.wait_for_line("messages were held", SOON);
        // It comes again, and is held again; another one has a place all the while.
        mad = mad.reconnect(site.port());
        assert!(mad.connack().session_present, "{version:?}");
        let mut other = Device::new(site.port(), version, "other");
        let mut fires = Vec::new();
        wait_until("the mad device is closed again", SOON, || {
            if fires.len() < 15 {
                fires.push(format!("fire {}", fires.len()));
                other.publish("alarm/other", fires.last().unwrap().as_str(), 1);
            }
            // Whoever is held is not read.
            other.ping();
            sleep(Duration::from_millis(100));
            mad.is_closed()
        });
        assert!(!other.is_closed(), "the other one was held too");
        assert!(mad.answered().is_empty(), "acknowledged before safe");
        assert!(other.answered().is_empty(), "acknowledged before safe");
        site.proxy.come_back();
        bring_again_until_answered(&mut mad, site.port());
        other.wait_all_answered(SOON);
        let ledger = site.terminate();
        assert_eq!(site.far.texts("alarm/other"), fires);
        assert_eq!(site.far.texts("alarm/mad"), alarms(), "{version:?}");
        assert_eq!(site.far.count("will"), 0, "it was the gateway that closed");
        assert_eq!(
            ledger.count("critical", "delivered"),
            15 + fires.len() as u64
        );
        assert!(ledger.count("critical", "returned") > 0, "{ledger:?}");
    }
}

#[test]
fn is_a_session_gone_after_a_restart_of_the_gateway_and_said_to_be() {
    for version in [Version::V311, Version::V5] {
        let mut site = Site::with(|configuration| {
            configuration
                .gateway("drain_max = \"1s\"")
                .no_room_on_disk()
        });
        site.proxy.wait_for_connections(2);
        site.proxy.go_away();
        let mut device = Device::connect(site.port(), &Connect::persistent(version, "d"));
        assert!(!device.connack().session_present);
        for qos in [1, 2] {
            device.publish(&format!("alarm/{qos}"), "fire", qos);
        }
        device.ping();
        device = device.reconnect(site.port());
        assert!(device.connack().session_present, "{version:?}");
        let ledger = site.terminate();
        assert_eq!(ledger.count("critical", "returned"), 2, "{version:?}");
        site.gateway = Gateway::start(&Site::configuration(site.proxy.port()));
        let mut device = device.reconnect(site.port());
        assert!(!device.connack().session_present, "{version:?}");
        // What the device still has is new to this gateway, and arrives.
        site.proxy.come_back();
        device.wait_all_answered(Duration::from_secs(30));
        assert!(device.publish_and_wait("value/a", "x", 1) < 0x80);
        let ledger = site.terminate();
        assert_eq!(ledger.count("critical", "delivered"), 2, "{version:?}");
        for qos in [1, 2] {
            assert_eq!(site.far.texts(&format!("alarm/{qos}")), ["fire"]);
        }
    }
}
