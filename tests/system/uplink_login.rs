//! The uplink lets in only who it knows: client certificates and passwords. Does a good one work,
//! and does each bad one say what is wrong, so that a person at the box can act?

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::broker::{Broker, BrokerOptions, TlsFiles};
use crate::certificates::{Authority, Files, Validity};
use crate::device::Device;
use crate::gateway::{Configuration, Gateway};
use crate::subscriber::Subscriber;
use crate::wait::SOON;
use crate::wire::Version;

/// A cloud that wants client certificates of its authority.
struct Cloud {
    authority: Authority,
    broker: Broker,
}

impl Cloud {
    fn new(server: Validity) -> Self {
        let authority = Authority::new("the cloud's authority");
        let files = authority.server(server);
        let broker = Broker::with(&BrokerOptions {
            tls: Some(TlsFiles {
                client_authority: authority.file(),
                certificate: files.certificate,
                key: files.key,
            }),
            ..BrokerOptions::default()
        });
        Self { authority, broker }
    }

    fn gateway(&self, authority: &Path, client: Option<&Files>) -> Gateway {
        let url = format!("mqtts://localhost:{}", self.broker.tls_port());
        let mut configuration = Configuration::to_url(&url)
            .uplink(&format!("ca = \"{}\"", authority.display()))
            .uplink("retry_max = \"1s\"");
        if let Some(client) = client {
            configuration = configuration
                .uplink(&format!("cert = \"{}\"", client.certificate.display()))
                .uplink(&format!("key = \"{}\"", client.key.display()));
        }
        Gateway::start(&configuration)
    }
}

#[test]
fn does_a_good_client_certificate_let_messages_through() {
    let cloud = Cloud::new(Validity::Good);
    let far = Subscriber::start(cloud.broker.address());
    let client = cloud.authority.client(Validity::Good);
    let gateway = cloud.gateway(&cloud.authority.file(), Some(&client));
    let mut device = Device::new(gateway.port(), Version::V5, "d");
    device.publish_and_wait("a", "x", 1);
    far.wait_for_topic("a", SOON);
}

pub(crate) const AUTHORITY: &[&str] = &["authority", "issuer"];
pub(crate) const EXPIRED: &[&str] = &["expired"];
pub(crate) const MISSING: &[&str] = &[
    "client certificate",
    "certificate required",
    "certificate is required",
];

/// Waits for the line with the one fault, and holds that no line tells of another.
#[track_caller]
pub(crate) fn says(mut gateway: Gateway, fault: &[&str], not: [&[&str]; 2]) {
    gateway.wait_for_line_with(fault, SOON);
    for line in gateway.lines() {
        let line = line.to_lowercase();
        for other in not.concat() {
            assert!(!line.contains(other), "{fault:?} is told as: {line}");
        }
    }
    assert!(gateway.runs(), "it tries on");
}

#[test]
fn is_a_server_of_another_authority_named_as_such() {
    let cloud = Cloud::new(Validity::Good);
    let client = cloud.authority.client(Validity::Good);
    let other = Authority::new("somebody");
    let gateway = cloud.gateway(&other.file(), Some(&client));
    says(gateway, AUTHORITY, [EXPIRED, MISSING]);
}

#[test]
fn is_an_expired_server_certificate_named_as_such() {
    let cloud = Cloud::new(Validity::Expired);
    let client = cloud.authority.client(Validity::Good);
    let gateway = cloud.gateway(&cloud.authority.file(), Some(&client));
    says(gateway, EXPIRED, [AUTHORITY, MISSING]);
}

#[test]
fn is_an_expired_client_certificate_named_as_such() {
    let cloud = Cloud::new(Validity::Good);
    let client = cloud.authority.client(Validity::Expired);
    let mut gateway = cloud.gateway(&cloud.authority.file(), Some(&client));
    gateway.wait_for_line_with(EXPIRED, SOON);
    assert!(gateway.runs(), "it tries on");
}

#[test]
fn is_a_client_certificate_of_another_authority_named_as_such() {
    let cloud = Cloud::new(Validity::Good);
    let other = Authority::new("somebody");
    let client = other.client(Validity::Good);
    let mut gateway = cloud.gateway(&cloud.authority.file(), Some(&client));
    gateway.wait_for_line_with(AUTHORITY, SOON);
    assert!(gateway.runs(), "it tries on");
}

#[test]
fn is_a_missing_client_certificate_named_as_such() {
    let cloud = Cloud::new(Validity::Good);
    let gateway = cloud.gateway(&cloud.authority.file(), None);
    says(gateway, MISSING, [EXPIRED, AUTHORITY]);
}

#[test]
fn is_a_password_read_from_its_file_anew_and_never_shown() {
    let login = ("box".to_owned(), "open-sesame".to_owned());
    let broker = Broker::with(&BrokerOptions {
        login: Some(login.clone()),
        ..BrokerOptions::default()
    });
    let far = Subscriber::with(broker.address(), Some(login));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "wrong-one\n").unwrap();
    let configuration = Configuration::to(broker.port())
        .uplink("username = \"box\"")
        .uplink(&format!("password_file = \"{}\"", file.display()))
        .uplink("retry_max = \"1s\"");
    let mut gateway = Gateway::start(&configuration);
    let refused = ["not authori", "password is wrong"];
    gateway.wait_for_line_with(&refused, SOON);
    // The operator corrects the file; nothing is restarted.
    fs::write(&file, "open-sesame\n").unwrap();
    let mut device = Device::new(gateway.port(), Version::V311, "d");
    device.publish("a", "x", 1);
    far.wait_for_topic("a", Duration::from_secs(30));
    for line in gateway.lines() {
        for secret in ["open-sesame", "wrong-one"] {
            assert!(!line.contains(secret), "a secret is shown: {line}");
        }
    }
}
