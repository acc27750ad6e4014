//! Where something is: HOST:PORT, or an MQTT URL. The door to names.
#![allow(
    clippy::disallowed_methods,
    reason = "resolves names, once, before anything runs"
)]

use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// MQTT's port.
const PORT: u16 = 1883;

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix("mqtt://").unwrap_or(text);
        if bare.contains("://") {
            return Err(
                "only mqtt:// is spoken here: use mqtt://HOST:PORT or HOST:PORT".to_owned(),
            );
        }
        let bare = bare.trim_end_matches('/');
        let (host, port) = match bare.rsplit_once(':') {
            // An IPv6 address without a port has colons of its own, inside brackets.
            Some((host, port)) if !port.ends_with(']') => {
                let port = port.parse();
                (
                    host,
                    port.map_err(|_| format!("`{bare}`: a port is a number up to 65535"))?,
                )
            }
            _ => (bare, PORT),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(format!("`{text}` names no host: use HOST:PORT"));
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Address {
    /// The first address of the name.
    ///
    /// # Errors
    /// When the name is not known, in the system's words.
    pub fn resolve(&self) -> std::io::Result<SocketAddr> {
        let mut addresses = (self.host.as_str(), self.port).to_socket_addrs()?;
        addresses
            .next()
            .ok_or_else(|| std::io::Error::other("the name has no address"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_addresses_read_as_people_write_them() {
        for (text, host, port) in [
            ("127.0.0.1:1884", "127.0.0.1", 1884),
            ("mqtt://cloud.example:99/", "cloud.example", 99),
            ("gateway", "gateway", 1883),
            ("[::1]:5", "::1", 5),
            ("[::1]", "::1", 1883),
        ] {
            let read: Address = text.parse().unwrap();
            assert_eq!((read.host.as_str(), read.port), (host, port), "{text}");
        }
        for wrong in ["mqtts://x", "x:99999", ":1883", ""] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
