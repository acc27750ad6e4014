//! A source lets in only who it knows, and is to be who it says: does a good certificate or password
//! work, and does each bad one say what is wrong, so that a person at the box can act?

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::broker::{Broker, BrokerOptions, Stop, TlsFiles};
use crate::certificates::{Authority, Files, Validity};
use crate::device::Device;
use crate::gateway::{Configuration, Gateway};
use crate::subscriber::Subscriber;
use crate::uplink_login::{AUTHORITY, EXPIRED, MISSING, says};
use crate::wait::{SOON, wait_until};
use crate::wire::{Connect, Publish, Version};

/// A plant's broker that wants client certificates of its authority, and a cloud.
struct Plant {
    authority: Authority,
    source: Broker,
    cloud: Broker,
}

impl Plant {
    fn new(server: Validity) -> Self {
        let authority = Authority::new("the plant's authority");
        let files = authority.server(server);
        let source = Broker::with(&BrokerOptions {
            tls: Some(TlsFiles {
                client_authority: authority.file(),
                certificate: files.certificate,
                key: files.key,
            }),
            ..BrokerOptions::default()
        });
        let cloud = Broker::start();
        Self {
            authority,
            source,
            cloud,
        }
    }

    fn gateway(&self, authority: &Path, client: Option<&Files>) -> Gateway {
        let url = format!("mqtts://localhost:{}", self.source.tls_port());
        let mut lines = format!("ca = \"{}\"", authority.display());
        if let Some(client) = client {
            let (certificate, key) = (client.certificate.display(), client.key.display());
            lines += &format!("\ncert = \"{certificate}\"\nkey = \"{key}\"");
        }
        let configuration = Configuration::to(self.cloud.port());
        Gateway::start(&configuration.source_at(&url, "\"plant/#\"", &lines))
    }
}

/// Publishes to a source until something of it arrives in the cloud.
#[track_caller]
fn wait_until_taken(source: &mut Device, far: &Subscriber) {
    let mut turn = 0;
    wait_until("the source is taken", 2 * SOON, || {
        if turn % 30 == 0 {
            source.publish("plant/a", format!("{turn}"), 1);
        }
        turn += 1;
        far.count("plant/a") > 0
    });
}

#[test]
fn does_a_good_client_certificate_let_a_sources_messages_in() {
    let plant = Plant::new(Validity::Good);
    let far = Subscriber::start(plant.cloud.address());
    let client = plant.authority.client(Validity::Good);
    let _gateway = plant.gateway(&plant.authority.file(), Some(&client));
    let mut device = Device::new(plant.source.port(), Version::V5, "sensor");
    wait_until_taken(&mut device, &far);
}

#[test]
fn is_a_source_of_another_authority_named_as_such() {
    let plant = Plant::new(Validity::Good);
    let client = plant.authority.client(Validity::Good);
    let other = Authority::new("somebody");
    let gateway = plant.gateway(&other.file(), Some(&client));
    says(gateway, AUTHORITY, [EXPIRED, MISSING]);
}

#[test]
fn is_a_sources_expired_certificate_named_as_such() {
    let plant = Plant::new(Validity::Expired);
    let client = plant.authority.client(Validity::Good);
    let gateway = plant.gateway(&plant.authority.file(), Some(&client));
    says(gateway, EXPIRED, [AUTHORITY, MISSING]);
}

#[test]
fn is_a_client_certificate_that_a_source_misses_named_as_such() {
    let plant = Plant::new(Validity::Good);
    let gateway = plant.gateway(&plant.authority.file(), None);
    says(gateway, MISSING, [EXPIRED, AUTHORITY]);
}

#[test]
fn is_a_sources_password_read_anew_at_each_connect_and_never_shown() {
    let login = ("box".to_owned(), "open-sesame".to_owned());
    let mut source = Broker::with(&BrokerOptions {
        login: Some(login.clone()),
        persistence: true,
        ..BrokerOptions::default()
    });
    let cloud = Broker::start();
    let far = Subscriber::start(cloud.address());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "wrong-one\n").unwrap();
    let lines = format!("username = \"box\"\npassword_file = \"{}\"", file.display());
    let configuration = Configuration::to(cloud.port());
    let configuration = configuration.source(source.port(), "\"plant/#\"", &lines);
    let mut gateway = Gateway::start(&configuration);
    gateway.wait_for_line("refuses us", SOON);
    // The operator corrects the file; nothing is restarted.
    fs::write(&file, "open-sesame\n").unwrap();
    let mut connect = Connect::new(Version::V311, "sensor");
    connect.login = Some(login);
    wait_until_taken(&mut Device::connect(source.port(), &connect), &far);
    // It was right once, and is wrong at the next connect; then right again.
    fs::write(&file, "wrong-two\n").unwrap();
    let before = gateway.lines().len();
    source.stop(Stop::Clean);
    source.run();
    wait_until("it is refused again", 2 * SOON, || {
        gateway.lines()[before..].join("").contains("refuses us")
    });
    fs::write(&file, "open-sesame\n").unwrap();
    let mut sensor = Device::connect(source.port(), &connect);
    sensor.send(Publish::new("plant/b", "kept by the broker meanwhile", 1));
    far.wait_for_topic("plant/b", Duration::from_secs(60));
    for line in gateway.lines() {
        for secret in ["open-sesame", "wrong-one", "wrong-two"] {
            assert!(!line.contains(secret), "a secret is shown: {line}");
        }
    }
}
