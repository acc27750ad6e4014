//! What a connection to the broker needs from the disk and the environment: password and
//! certificates, read anew at each connect so that a rotated one needs no restart. Nothing of it
//! is ever shown.

use rustls::ClientConfig;

use crate::traffic::send::{RemoteSettings, tls};

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
    let password = match &remote.password {
        Some(secret) => secret
            .read()
            .map_err(|error| error.to_string())?
            .expose()
            .to_owned(),
        None => String::new(),
    };
    let tls = match &remote.tls {
        Some(settings) => Some(tls::client_config(settings).map_err(|error| error.to_string())?),
        None => None,
    };
    Ok(Access {
        login: remote.username.clone().map(|name| (name, password)),
        tls,
    })
}
