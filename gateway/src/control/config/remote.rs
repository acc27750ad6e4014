//! A broker to connect to: the keys that `[[uplink]]` and `[[source]]` share.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use super::expand::is_variable_name;
use super::reader::{Placed, Range, Section, quoted};
use crate::traffic::accept::Protocol;
use crate::traffic::send::{RemoteSettings, Secret, TlsSettings};

const CONNECT_TIMEOUT: Range<Duration> = Range {
    default: Duration::from_secs(10),
    least: Duration::from_secs(1),
    most: Duration::from_secs(300),
    why: "name, TCP, TLS and CONNACK together need a second; a longer wait hides a dead address",
};

const KEEP_ALIVE: Range<Duration> = Range {
    default: Duration::from_secs(30),
    least: Duration::from_secs(5),
    most: Duration::from_secs(18 * 3600),
    why: "shorter costs traffic on an idle link; MQTT counts it in seconds, up to 65535",
};

/// Longest client id: brokers take at least 23 bytes, most take 128.
const CLIENT_ID_BYTES_MAX: usize = 128;

/// Where a URL points.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Remote {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
}

/// Reads `url` and everything beside it that says how to connect. `default` is where to without a
/// `url`; with `None` a `url` must stand.
pub(super) fn read(
    s: &mut Section<'_, '_, '_>,
    protocol: Protocol,
    default: Option<Remote>,
) -> RemoteSettings {
    let remote = url(s, default);
    let tls = tls(s, remote.tls);
    let username = s.text("username").map(|text| text.value);
    let password = password(s);
    check_credentials(s, &remote, protocol, username.is_some(), password.is_some());
    RemoteSettings {
        host: remote.host,
        port: remote.port,
        tls,
        username,
        password,
        connect_timeout: s.time("connect_timeout", &CONNECT_TIMEOUT),
        keep_alive: whole_seconds(s, "keep_alive", &KEEP_ALIVE),
    }
}

/// The MQTT version.
pub(super) fn protocol(s: &mut Section<'_, '_, '_>) -> Protocol {
    let options = [("5", Protocol::V5), ("3.1.1", Protocol::V311)];
    s.choice("protocol", Protocol::V5, &options)
}

/// The client id, with `default` where the file has none.
pub(super) fn client_id(s: &mut Section<'_, '_, '_>, default: String) -> String {
    let Some(text) = s.text("client_id") else {
        return default;
    };
    if text.value.len() > CLIENT_ID_BYTES_MAX || text.value.contains(char::is_control) {
        let what = format!("`client_id` cannot be {}", quoted(&text.value));
        s.fault(
            "client_id",
            what,
            "1 to 128 bytes, without control characters",
        );
    }
    text.value
}

fn whole_seconds(
    s: &mut Section<'_, '_, '_>,
    key: &'static str,
    range: &Range<Duration>,
) -> Duration {
    let time = s.time(key, range);
    if time.subsec_nanos() != 0 {
        let what = format!("`{key}` is not a whole number of seconds");
        s.fault(key, what, "MQTT counts it in seconds");
    }
    time
}

fn url(s: &mut Section<'_, '_, '_>, default: Option<Remote>) -> Remote {
    let nowhere = Remote {
        host: String::new(),
        port: 0,
        tls: false,
    };
    let written = s.has("url");
    let Some(text) = s.text("url") else {
        if default.is_none() && !written {
            let what = "`url` is missing: where is the broker?".to_owned();
            s.fault("url", what, "write url = \"mqtt://host:1883\"");
        }
        return default.unwrap_or(nowhere);
    };
    match parse_url(&text.value) {
        Ok(remote) => remote,
        Err((what, hint)) => {
            s.fault("url", format!("`url`: {what}"), hint);
            nowhere
        }
    }
}

/// Takes a URL apart; else says what is wrong and what to do. Never repeats the URL: it may hold a
/// password.
pub(super) fn parse_url(url: &str) -> Result<Remote, (&'static str, &'static str)> {
    let (scheme, rest) = url
        .split_once("://")
        .ok_or(("no scheme", "write mqtt://host:port or mqtts://host:port"))?;
    let tls = match scheme {
        "mqtt" => false,
        "mqtts" => true,
        "tcp" => return Err(("the scheme tcp is not known", "write mqtt://")),
        "ssl" | "tls" | "mqtt+ssl" => {
            return Err((
                "this scheme is not known",
                "for MQTT over TLS write mqtts://",
            ));
        }
        "ws" | "wss" => {
            return Err((
                "MQTT over WebSocket is not spoken",
                "use mqtt:// or mqtts://",
            ));
        }
        _ => return Err(("this scheme is not known", "write mqtt:// or mqtts://")),
    };
    if rest.contains('@') {
        return Err((
            "user and password do not stand in the URL",
            "write `username`, and `password_file` or `password_env`, beside it, so that the password stays out of this file",
        ));
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#']) {
        return Err(("MQTT knows no path", "end it after the port"));
    }
    let (host, port) = split_port(rest)?;
    let port = port.unwrap_or(if tls { 8883 } else { 1883 });
    Ok(Remote { host, port, tls })
}

fn split_port(rest: &str) -> Result<(String, Option<u16>), (&'static str, &'static str)> {
    let (host, port) = match rest.strip_prefix('[') {
        Some(v6) => {
            let (host, after) = v6.split_once(']').unwrap_or(("", ""));
            if host.parse::<Ipv6Addr>().is_err() {
                return Err(("no IPv6 address between the brackets", "such as [fd00::1]"));
            }
            (host, after)
        }
        None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
    };
    let named = |b: u8| b.is_ascii_alphanumeric() || b"._-:".contains(&b);
    if host.is_empty() || host.len() > 253 || !host.bytes().all(named) {
        return Err((
            "no host name or address",
            "such as mqtt://broker.example:1883",
        ));
    }
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        Some(port) => match port.parse::<u16>() {
            Ok(port) if port > 0 => Some(port),
            _ => return Err(("no port after the colon", "a number, 1 to 65535")),
        },
        None => {
            return Err((
                "something stands after the address",
                "a colon and a port may",
            ));
        }
    };
    Ok((host.to_owned(), port))
}

fn tls(s: &mut Section<'_, '_, '_>, wanted: bool) -> Option<TlsSettings> {
    let settings = TlsSettings {
        ca: certificate_file(s, "ca", wanted),
        cert: certificate_file(s, "cert", wanted),
        key: certificate_file(s, "key", wanted),
        alpn: alpn(s),
    };
    for (one, other) in [("cert", "key"), ("key", "cert")] {
        if s.has(one) && !s.has(other) {
            let what = format!("`{one}` without `{other}`");
            s.fault(one, what, "mutual TLS needs both");
        }
    }
    if !wanted {
        for key in ["ca", "cert", "key", "alpn"] {
            if s.has(key) {
                let what = format!("`{key}` has no effect: the URL does not ask for TLS");
                s.fault(key, what, "write mqtts:// in `url`, or take the key out");
            }
        }
    }
    wanted.then_some(settings)
}

/// A file that TLS cannot do without.
fn certificate_file(
    s: &mut Section<'_, '_, '_>,
    key: &'static str,
    wanted: bool,
) -> Option<PathBuf> {
    let path = PathBuf::from(s.text(key)?.value);
    if !wanted {
        return None;
    }
    if let Err(reason) = s.surroundings().readable(&path) {
        let what = format!("`{key}`: {} cannot be read: {reason}", path.display());
        s.fault(
            key,
            what,
            "a file in PEM format that the gateway's user can read",
        );
    }
    Some(path)
}

fn alpn(s: &mut Section<'_, '_, '_>) -> Vec<String> {
    let names = s.texts("alpn").unwrap_or_default();
    if names.iter().any(|name| name.value.len() > 255) {
        let what = "a name in `alpn` is longer than 255 bytes".to_owned();
        s.fault("alpn", what, "TLS takes no longer ones");
    }
    names.into_iter().map(|name| name.value).collect()
}

fn password(s: &mut Section<'_, '_, '_>) -> Option<Secret> {
    let hint = "write it into a file that only the gateway can read and name that in `password_file`, or name a variable in `password_env`";
    s.never(
        "password",
        "a password does not stand in the configuration",
        hint,
    );
    let file = s.text("password_file");
    let environment = s.text("password_env");
    if file.is_some() && environment.is_some() {
        let what = "both `password_file` and `password_env`".to_owned();
        s.fault("password_env", what, "one of them is enough");
    }
    let environment = environment.and_then(|name| variable(s, name));
    file.map(|path| secret_file(s, path)).or(environment)
}

fn secret_file(s: &mut Section<'_, '_, '_>, path: Placed<String>) -> Secret {
    let path = PathBuf::from(path.value);
    if let Err(reason) = s.surroundings().readable(&path) {
        let what = format!(
            "`password_file`: {} cannot be read: {reason}",
            path.display()
        );
        let hint = "it is read at each connect; until it is there, the broker will refuse";
        s.warn("password_file", what, hint);
    }
    Secret::File(path)
}

fn variable(s: &mut Section<'_, '_, '_>, name: Placed<String>) -> Option<Secret> {
    if !is_variable_name(&name.value) {
        let what = "`password_env` is no name of an environment variable".to_owned();
        s.fault(
            "password_env",
            what,
            "the name, not the password: letters, digits and _",
        );
        return None;
    }
    if s.surroundings().variable(&name.value).is_none() {
        let what = "`password_env` names a variable that is not set here".to_owned();
        let hint = "set it in the environment of the gateway; until then, the broker will refuse";
        s.warn("password_env", what, hint);
    }
    Some(Secret::Environment(name.value))
}

fn check_credentials(
    s: &mut Section<'_, '_, '_>,
    remote: &Remote,
    protocol: Protocol,
    username: bool,
    password: bool,
) {
    let key = if s.has("password_file") {
        "password_file"
    } else {
        "password_env"
    };
    if password && !username && protocol == Protocol::V311 {
        let what = "a password without `username`".to_owned();
        s.fault(key, what, "MQTT 3.1.1 does not allow that; MQTT 5 does");
    }
    let here = remote.host == "localhost"
        || remote
            .host
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
    if password && !remote.tls && !here {
        let what = "the password goes over the network in clear text".to_owned();
        s.warn(key, what, "write mqtts:// in `url`");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_url_taken_apart() {
        let remote = |host: &str, port, tls| {
            Ok(Remote {
                host: host.to_owned(),
                port,
                tls,
            })
        };
        assert_eq!(parse_url("mqtt://a.b"), remote("a.b", 1883, false));
        assert_eq!(parse_url("mqtts://a-b/"), remote("a-b", 8883, true));
        assert_eq!(
            parse_url("mqtt://10.0.0.1:99"),
            remote("10.0.0.1", 99, false)
        );
        assert_eq!(parse_url("mqtt://[::1]:9"), remote("::1", 9, false));
        assert_eq!(
            parse_url("mqtts://[fd00::1]"),
            remote("fd00::1", 8883, true)
        );
    }

    #[test]
    fn is_what_is_no_url_refused() {
        for url in [
            "",
            "a:1883",
            "tcp://a",
            "ssl://a",
            "wss://a",
            "http://a",
            "mqtt://",
            "mqtt://:1883",
            "mqtt://a:",
            "mqtt://a:0",
            "mqtt://a:65536",
            "mqtt://a/b",
            "mqtt://a?x",
            "mqtt://u:p@a",
            "mqtt://[::1",
            "mqtt://[::1]x",
            "mqtt://[a]",
            "mqtt://a b",
            "mqtt://a:1:2",
            "mqtt://]",
        ] {
            assert!(parse_url(url).is_err(), "{url}");
        }
    }
}
