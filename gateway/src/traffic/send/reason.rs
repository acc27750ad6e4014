//! MQTT's reason codes in words for an operator: what the upstream said, and what to do about it.
//! In comes a code, out goes a part of a sentence. Pure.

/// Longest text of the far end that is shown in a log line, in characters.
const SHOWN_CHARS_MAX: usize = 200;

/// A text of the far end as a log may show it: control characters escaped, length bounded.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(SHOWN_CHARS_MAX)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        shown.push_str("...");
    }
    shown
}

/// Why CONNECT was refused, MQTT 3.1.1 (3.2.2.3).
pub(super) fn refused_v311(code: u8) -> String {
    match code {
        1 => "it does not speak MQTT 3.1.1: try `protocol = \"5\"`".to_owned(),
        2 => BAD_CLIENT_ID.to_owned(),
        3 => "its MQTT service is not available now".to_owned(),
        4 => BAD_LOGIN.to_owned(),
        5 => NOT_AUTHORISED.to_owned(),
        other => format!("code {other}, which MQTT 3.1.1 does not know"),
    }
}

/// Why CONNECT was refused, MQTT 5 (3.2.2.2).
pub(super) fn refused_v5(code: u8) -> String {
    match code {
        // A 3.1.1 broker answers an MQTT 5 CONNECT with its own code 1 (3.1.1, 3.1.2.2).
        0x01 | 0x84 => "it does not speak MQTT 5: set `protocol = \"3.1.1\"`".to_owned(),
        0x85 => BAD_CLIENT_ID.to_owned(),
        0x86 => BAD_LOGIN.to_owned(),
        0x87 => NOT_AUTHORISED.to_owned(),
        0x8A => "this client is banned there: ask the upstream's operator".to_owned(),
        0x8C => "it wants another way of authentication than user and password".to_owned(),
        other => told(other),
    }
}

/// Why the upstream ended a connection, MQTT 5 (3.14.2.1).
pub(super) fn disconnected(code: u8) -> String {
    match code {
        0x00 => "it gave no reason".to_owned(),
        0x87 => "it says that we are not authorised: check what this client may publish there".to_owned(),
        0x8E => "another client took the connection over with the same client id: give each gateway its own".to_owned(),
        other => told(other),
    }
}

const BAD_CLIENT_ID: &str = "it rejects the client id: set `client_id` to one that it allows";
const BAD_LOGIN: &str = "user name or password is wrong: check `username` and the password";
const NOT_AUTHORISED: &str =
    "it does not authorise this client: check user, password, certificate and client id there";

/// Codes that mean the same in CONNACK and DISCONNECT.
fn told(code: u8) -> String {
    let words = match code {
        0x80 => "unspecified error",
        0x81 => "it calls a packet of ours malformed",
        0x82 => "it sees a protocol error of ours",
        0x83 => "an error of its own implementation",
        0x88 => "it is not available now",
        0x89 => "it is busy",
        0x8B => "it is shutting down",
        0x8D => "it missed our keep-alive",
        0x90 => "it does not accept a topic of ours: check `topic`",
        0x93 => "it got more unacknowledged messages than it takes",
        0x94 => "it does not accept a topic alias",
        0x95 => "a packet was too large for it: lower `packet_max`",
        0x96 => "messages come too fast for it: set `publish_max`",
        0x97 => "a quota there is used up",
        0x98 => "its operator ended the connection",
        0x99 => "it does not accept a payload",
        0x9A => "it takes no retained messages",
        0x9B => "it does not take QoS 1",
        0x9C => "it asks to use another server for now: change `url` if that lasts",
        0x9D => "it has moved: change `url`",
        0x9F => "connections come too fast for it",
        0xA0 => "the longest time for a connection there is over",
        _ => return format!("reason 0x{code:02X}"),
    };
    format!("{words} (0x{code:02X})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_hostile_text_made_harmless_and_short() {
        let shown = shown(&"a\n\u{1b}[31m".repeat(1_000));
        assert!(!shown.contains('\n') && !shown.contains('\u{1b}'));
        assert!(shown.len() < 2_000 && shown.ends_with("..."));
    }
}
