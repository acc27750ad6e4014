//! TLS: who trusts whom, and what the operator is told when somebody does not.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::ends::{Broker, Door, OPEN, free_port, publish, refusal, settings};
use crate::traffic::accept::Protocol;
use crate::traffic::send::{LinkCommand, TlsSettings, UplinkSettings};

/// An authority, and what it signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    /// Certificate and key.
    fn sign(&self, name: &str, expired: bool) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        if expired {
            params.not_before = rcgen::date_time_ymd(2019, 1, 1);
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        (cert.pem(), key.serialize_pem())
    }
}

/// A broker that demands client certificates, and the files of its clients.
struct Secured {
    broker: Broker,
    authority: Authority,
}

impl Secured {
    fn start(server_name: &str, expired: bool) -> Self {
        let authority = Authority::new("good authority");
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = authority.sign(server_name, expired);
        std::fs::write(dir.path().join("ca"), &authority.pem).unwrap();
        std::fs::write(dir.path().join("cert"), cert).unwrap();
        std::fs::write(dir.path().join("key"), key).unwrap();
        let lines =
            "cafile {dir}/ca\ncertfile {dir}/cert\nkeyfile {dir}/key\nrequire_certificate true";
        let lines = format!("{lines}\n{OPEN}");
        let broker = Broker::start_in(dir, free_port(), &lines);
        Self { broker, authority }
    }

    /// A new file each time: the settings of several clients live side by side.
    fn file(&self, name: &str, content: &str) -> Option<PathBuf> {
        let mut file = tempfile::Builder::new()
            .prefix(name)
            .tempfile_in(self.broker.dir.path())
            .unwrap();
        file.write_all(content.as_bytes()).unwrap();
        Some(file.keep().unwrap().1)
    }

    fn settings(&self, ca: &Authority, identity: Option<(String, String)>) -> UplinkSettings {
        let mut settings = settings(self.broker.port, Protocol::V5);
        let mut tls = TlsSettings {
            ca: self.file("client-ca", &ca.pem),
            ..TlsSettings::default()
        };
        if let Some((cert, key)) = identity {
            tls.cert = self.file("client-cert", &cert);
            tls.key = self.file("client-key", &key);
        }
        settings.remote.tls = Some(tls);
        settings
    }
}

#[tokio::test]
async fn does_mutual_tls_carry_messages() {
    let secured = Secured::start("localhost", false);
    let identity = secured.authority.sign("gateway", false);
    let mut door = Door::open(secured.settings(&secured.authority, Some(identity)));
    let (attempt, _) = door.up().await;
    let packets: Vec<u8> = (1..=2_000)
        .flat_map(|id| publish(Protocol::V5, id))
        .collect();
    let bytes = packets.len() as u64;
    door.write(attempt, packets).await;
    let (acks, written) = door.acks(2_000, attempt).await;
    assert_eq!((acks.len(), written), (2_000, bytes));
    door.say(LinkCommand::Shutdown).await;
    door.down().await;
}

#[tokio::test]
async fn does_each_wrong_certificate_have_its_own_sentence() {
    let secured = Secured::start("localhost", false);
    let other = Authority::new("other authority");
    let good = &secured.authority;
    let identity = || Some(good.sign("gateway", false));
    for (settings, words) in [
        (
            secured.settings(&other, identity()),
            "the server's certificate is signed by an authority that is not trusted",
        ),
        (
            secured.settings(good, None),
            "the server demands a client certificate: set `cert` and `key`",
        ),
        (
            secured.settings(good, Some(good.sign("gateway", true))),
            "it has expired, renew it",
        ),
        (
            secured.settings(good, Some(other.sign("gateway", false))),
            "it does not know the authority that signed it",
        ),
    ] {
        let sentence = refusal(&settings).await;
        assert!(
            sentence.contains(words),
            "wanted {words:?}, got {sentence:?}"
        );
    }
    let expired = Secured::start("localhost", true);
    let sentence = refusal(&expired.settings(&expired.authority, None)).await;
    assert!(
        sentence.contains("the server's certificate has expired"),
        "{sentence}"
    );
    let elsewhere = Secured::start("elsewhere.example", false);
    let sentence = refusal(&elsewhere.settings(&elsewhere.authority, None)).await;
    assert!(
        sentence.contains("not for the name localhost but for"),
        "{sentence}"
    );
}

#[tokio::test]
async fn is_tls_at_the_wrong_port_named() {
    let broker = Broker::start(OPEN);
    let secured = Secured::start("localhost", false);
    let mut to_plain = secured.settings(&secured.authority, None);
    to_plain.remote.port = broker.port;
    let sentence = refusal(&to_plain).await;
    assert!(sentence.contains("port for mqtts://"), "{sentence}");
    let sentence = refusal(&settings(secured.broker.port, Protocol::V5)).await;
    assert!(sentence.contains("mqtts://"), "{sentence}");
}

/// A far end that speaks these application protocols; gives its port, and each time what was agreed.
fn speaking(authority: &Authority, protocols: &[&str]) -> (u16, mpsc::Receiver<Option<Vec<u8>>>) {
    let (cert, key) = authority.sign("localhost", false);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    let (config, (agreed, told)) = (Arc::new(config), mpsc::channel());
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut tcp in listener.incoming().map(Result::unwrap) {
            let mut session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::Stream::new(&mut session, &mut tcp);
            // CONNECT, as short as it is, comes in one record; CONNACK says yes.
            if stream.read(&mut [0; 1024]).is_ok() {
                stream.write_all(&[0x20, 3, 0, 0, 0]).unwrap();
                let protocol = stream.conn.alpn_protocol().map(<[u8]>::to_vec);
                let _ = agreed.send(protocol);
            }
        }
    });
    (port, told)
}

#[tokio::test]
async fn is_the_application_protocol_agreed_in_the_handshake() {
    let authority = Authority::new("good authority");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &authority.pem).unwrap();
    let wanting = |port: u16, alpn: &[&str]| {
        let mut settings = settings(port, Protocol::V5);
        settings.remote.tls = Some(TlsSettings {
            ca: Some(file.path().to_owned()),
            alpn: alpn.iter().map(|name| (*name).to_owned()).collect(),
            ..TlsSettings::default()
        });
        settings
    };
    let (port, agreed) = speaking(&authority, &["http/1.1", "x-amzn-mqtt-ca"]);
    let mut door = Door::open(wanting(port, &["mqtt", "x-amzn-mqtt-ca"]));
    door.up().await;
    assert_eq!(agreed.recv().unwrap().unwrap(), b"x-amzn-mqtt-ca");
    let mut door = Door::open(wanting(port, &[]));
    door.up().await;
    assert_eq!(agreed.recv().unwrap(), None, "it was not asked for any");
    let sentence = refusal(&wanting(port, &["mqtt"])).await;
    assert!(
        sentence.contains("none of the application protocols in `alpn` (mqtt)"),
        "{sentence}"
    );
}
