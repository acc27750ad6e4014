//! Builds the TLS side of a connection to a broker, for the uplink and for sources. In come the
//! settings, out goes a rustls configuration. A door: certificates and keys are read from disk anew
//! each time, so that a rotated one needs no restart. What a failed handshake means is told by
//! [`handshake`](super::handshake).

#![allow(
    clippy::disallowed_methods,
    reason = "a door: certificates and keys are read anew at each connect"
)]

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsSettings;

/// Longest PEM file: a system's whole bundle of authorities takes about 250 KiB.
pub const PEM_BYTES_MAX: u64 = 1024 * 1024;

/// Why TLS towards a broker cannot be set up. Always the operator's to mend.
#[derive(Debug)]
pub enum TlsError {
    /// The file of this setting cannot be read.
    Unreadable(&'static str, PathBuf, io::Error),
    /// The file of this setting is longer than [`PEM_BYTES_MAX`]: it is the wrong file.
    TooLong(&'static str, PathBuf),
    /// The file of this setting is not sound PEM.
    NotPem(&'static str, PathBuf, String),
    /// There is no certificate in the file of this setting.
    NoCertificate(&'static str, PathBuf),
    /// There is no private key in the file of `key`.
    NoKey(PathBuf),
    /// A certificate in the file of `ca` cannot be an authority.
    BadAuthority(PathBuf, String),
    /// No `ca` is set and this system has no authorities.
    NoSystemAuthorities(String),
    /// One of `cert` and `key` is set without the other.
    HalfIdentity(&'static str),
    /// The key does not belong to the certificate.
    KeyMismatch(PathBuf, PathBuf),
    /// The key or the certificate is of a kind that cannot be used.
    BadIdentity(PathBuf, PathBuf, String),
    /// A name in `alpn` is empty or longer than 255 bytes (RFC 7301, 3.1).
    BadAlpn(String),
    /// TLS itself cannot start.
    Library(String),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(setting, path, error) => write!(
                f,
                "the file {} of `{setting}` cannot be read ({error}): put it there, readable for the gateway's user",
                path.display()
            ),
            Self::TooLong(setting, path) => write!(
                f,
                "the file {} of `{setting}` is longer than 1 MiB: name the PEM file",
                path.display()
            ),
            Self::NotPem(setting, path, error) => write!(
                f,
                "the file {} of `{setting}` is not sound PEM ({error}): write it again from its source",
                path.display()
            ),
            Self::NoCertificate(setting, path) => write!(
                f,
                "there is no certificate in the file {} of `{setting}`: it needs a block `BEGIN CERTIFICATE` (PEM, not DER)",
                path.display()
            ),
            Self::NoKey(path) => write!(
                f,
                "there is no private key in the file {} of `key`: it needs a block `BEGIN PRIVATE KEY` (PEM, not encrypted)",
                path.display()
            ),
            Self::BadAuthority(path, error) => write!(
                f,
                "a certificate in the file {} of `ca` cannot be used as an authority ({error})",
                path.display()
            ),
            Self::NoSystemAuthorities(error) => write!(
                f,
                "this system has no certificate authorities{error}: install ca-certificates or set `ca`"
            ),
            Self::HalfIdentity(missing) => write!(
                f,
                "a client certificate needs both `cert` and `key`, and `{missing}` is not set"
            ),
            Self::KeyMismatch(cert, key) => write!(
                f,
                "the key in {} does not belong to the certificate in {}: `key` and the first certificate of `cert` must be a pair",
                key.display(),
                cert.display()
            ),
            Self::BadIdentity(cert, key, error) => write!(
                f,
                "the client certificate in {} with the key in {} cannot be used ({error})",
                cert.display(),
                key.display()
            ),
            Self::BadAlpn(name) => {
                write!(f, "`alpn` name {name:?} must have 1 to 255 bytes")
            }
            Self::Library(error) => write!(f, "TLS cannot be set up ({error})"),
        }
    }
}

impl std::error::Error for TlsError {}

/// The configuration for a connection to a broker, from the files as they are now. Reads the disk:
/// not for a thread that must not wait.
///
/// # Errors
///
/// [`TlsError`], in words for the operator.
pub fn client_config(settings: &TlsSettings) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let trusting = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Library(error.to_string()))?
        .with_root_certificates(authorities(settings.ca.as_deref())?);
    let mut config = match (&settings.cert, &settings.key) {
        (Some(cert), Some(key)) => {
            let (chain, private_key) = (certificates("cert", cert)?, private_key(key)?);
            trusting
                .with_client_auth_cert(chain, private_key)
                .map_err(|error| identity_error(cert, key, &error))?
        }
        (None, None) => trusting.with_no_client_auth(),
        (Some(_), None) => return Err(TlsError::HalfIdentity("key")),
        (None, Some(_)) => return Err(TlsError::HalfIdentity("cert")),
    };
    config.alpn_protocols = alpn(&settings.alpn)?;
    Ok(config)
}

fn authorities(ca: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let Some(path) = ca else {
        return system_authorities();
    };
    let mut store = RootCertStore::empty();
    for certificate in certificates("ca", path)? {
        store
            .add(certificate)
            .map_err(|error| TlsError::BadAuthority(path.to_owned(), error.to_string()))?;
    }
    Ok(store)
}

fn system_authorities() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    // Systems carry a few authorities that no library reads; one sound one is enough to begin.
    let (sound, _) = store.add_parsable_certificates(found.certs);
    if sound == 0 {
        let error = found
            .errors
            .first()
            .map_or_else(String::new, |error| format!(" ({error})"));
        return Err(TlsError::NoSystemAuthorities(error));
    }
    Ok(store)
}

fn certificates(
    setting: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(setting, path)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::NotPem(setting, path.to_owned(), error.to_string()))?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate(setting, path.to_owned()));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    use rustls_pki_types::pem::Error;
    PrivateKeyDer::from_pem_slice(&read("key", path)?).map_err(|error| match error {
        Error::NoItemsFound => TlsError::NoKey(path.to_owned()),
        // The library's words could quote a line of the file, and this file is secret.
        _ => TlsError::NotPem("key", path.to_owned(), "damaged".to_owned()),
    })
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| TlsError::Unreadable(setting, path.to_owned(), error))?;
    if bytes.len() as u64 > PEM_BYTES_MAX {
        return Err(TlsError::TooLong(setting, path.to_owned()));
    }
    Ok(bytes)
}

fn identity_error(cert: &Path, key: &Path, error: &rustls::Error) -> TlsError {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::KeyMismatch(cert.to_owned(), key.to_owned())
        }
        other => TlsError::BadIdentity(cert.to_owned(), key.to_owned(), other.to_string()),
    }
}

fn alpn(names: &[String]) -> Result<Vec<Vec<u8>>, TlsError> {
    names
        .iter()
        .map(|name| match name.len() {
            1..=255 => Ok(name.clone().into_bytes()),
            _ => Err(TlsError::BadAlpn(name.clone())),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files(tempfile::TempDir);

    impl Files {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn with(&self, name: &str, content: &str) -> Option<PathBuf> {
            let path = self.0.path().join(name);
            std::fs::write(&path, content).unwrap();
            Some(path)
        }
    }

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["gateway".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn is_a_whole_identity_taken_with_its_application_protocols() {
        let files = Files::new();
        let (cert, key) = pair();
        let config = client_config(&TlsSettings {
            ca: files.with("ca", &cert),
            cert: files.with("cert", &cert),
            key: files.with("key", &key),
            alpn: vec!["x-amzn-mqtt-ca".to_owned()],
        })
        .unwrap();
        assert!(config.client_auth_cert_resolver.has_certs());
        assert_eq!(config.alpn_protocols, [b"x-amzn-mqtt-ca"]);
    }

    #[test]
    fn does_each_fault_name_its_file_and_its_remedy() {
        let files = Files::new();
        let (cert, key) = pair();
        let good_ca = files.with("ca", &cert);
        let good_cert = files.with("cert", &cert);
        let good_key = files.with("key", &key);
        let other_key = files.with("other-key", &pair().1);
        let damaged = files.with(
            "damaged",
            "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
        );
        let empty = files.with("empty", "nothing here\n");
        let gone = Some(PathBuf::from("/nowhere/gone"));
        for (ca, cert, key, words) in [
            (&gone, &None, &None, "/nowhere/gone of `ca` cannot be read"),
            (&empty, &None, &None, "empty of `ca`: it needs"),
            (&damaged, &None, &None, "damaged of `ca` is not sound PEM"),
            (&good_ca, &gone, &good_key, "/nowhere/gone of `cert`"),
            (&good_ca, &good_cert, &gone, "/nowhere/gone of `key`"),
            (&good_ca, &good_cert, &empty, "no private key in the file"),
            (
                &good_ca,
                &good_cert,
                &other_key,
                "does not belong to the certificate",
            ),
            (&good_ca, &good_cert, &None, "`key` is not set"),
            (&good_ca, &None, &good_key, "`cert` is not set"),
        ] {
            let settings = TlsSettings {
                ca: ca.clone(),
                cert: cert.clone(),
                key: key.clone(),
                alpn: vec![],
            };
            let error = client_config(&settings).unwrap_err().to_string();
            assert!(error.contains(words), "wanted {words:?}, got {error:?}");
        }
    }

    #[test]
    fn is_an_empty_application_protocol_refused() {
        let files = Files::new();
        let error = client_config(&TlsSettings {
            ca: files.with("ca", &pair().0),
            alpn: vec![String::new()],
            ..TlsSettings::default()
        })
        .unwrap_err();
        assert!(matches!(error, TlsError::BadAlpn(_)));
    }
}
