//! What a connection to the broker needs from the disk and the environment: password and
//! certificates, read anew at each connect so that a rotated one needs no restart. Nothing of it
//! is ever shown.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::traffic::send::{RemoteSettings, Secret, TlsSettings};

/// User name, password and TLS, as they are now.
pub(super) struct Access {
    /// User name and password (empty: none).
    pub(super) login: Option<(String, String)>,
    /// TLS, for `mqtts://`.
    pub(super) tls: Option<ClientConfig>,
}

/// Reads what the settings name.
///
/// # Errors
/// In words for the operator: what cannot be read.
pub(super) fn access(remote: &RemoteSettings) -> Result<Access, String> {
    let password = remote.password.as_ref().map(password).transpose()?;
    Ok(Access {
        login: remote
            .username
            .clone()
            .map(|name| (name, password.unwrap_or_default())),
        tls: remote.tls.as_ref().map(client_config).transpose()?,
    })
}

#[allow(
    clippy::disallowed_methods,
    reason = "secrets are read anew at each connect"
)]
fn password(secret: &Secret) -> Result<String, String> {
    match secret {
        Secret::File(path) => std::fs::read_to_string(path)
            .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
            .map_err(|error| unreadable("password file", path, &error)),
        Secret::Environment(name) => std::env::var(name)
            .map_err(|_| format!("the environment variable {name} for the password is not set")),
    }
}

fn client_config(settings: &TlsSettings) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots(settings.ca.as_deref())?);
    let mut config = match (&settings.cert, &settings.key) {
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(
                certificates(cert)?,
                PrivateKeyDer::from_pem_file(key).map_err(|e| unreadable("key", key, &e))?,
            )
            .map_err(|error| format!("certificate and key do not work together: {error}"))?,
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = settings
        .alpn
        .iter()
        .map(|p| p.clone().into_bytes())
        .collect();
    Ok(config)
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let authorities = match ca {
        Some(path) => certificates(path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    roots.add_parsable_certificates(authorities);
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable("certificates", path, &error))
}

fn unreadable(what: &str, path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("the {what} {} cannot be read: {error}", path.display())
}
