//! The first lines at a start: who this is, where it listens, where it sends, what it promises, and
//! what it does while the uplink is not there. Made from the configuration alone.

use crate::control::config::Config;
use crate::control::config::spool::about;
use crate::control::config::units::{show_rate, show_size, show_time};
use crate::traffic::accept::{Protocol, SourceSettings};
use crate::traffic::message::ClassId;
use crate::traffic::queue::{ClassSettings, Delivery};
use crate::traffic::send::{RemoteSettings, UplinkSettings};

/// The lines, in their order.
pub(super) fn greeting(config: &Config) -> Vec<String> {
    let version = env!("CARGO_PKG_VERSION");
    let mut lines = vec![
        format!("Tidegate {version} starts as gateway {}", config.gateway.id),
        format!("Configuration: {}", configuration(config)),
        format!("Takes messages from: {}", doors(config)),
        format!("Sends to: {}", uplink(&config.uplink)),
        format!("State folder: {}", config.gateway.state_dir.display()),
        format!("Spool: {}", spool(config)),
        format!("Tells how it is at: {}", admin(config)),
        format!("Classes, the most urgent first: {}", classes(config)),
    ];
    lines.push(format!(
        "While the uplink is not there: {}",
        offline(config)
    ));
    lines
}

fn configuration(config: &Config) -> String {
    let rules = match config.rules.len() {
        0 => "no rules: every message is of the default class".to_owned(),
        1 => "1 rule".to_owned(),
        n => format!("{n} rules"),
    };
    format!("{}, {rules}", config.origin)
}

fn doors(config: &Config) -> String {
    let listener = config.listener.as_ref();
    let listener = listener.map(|l| format!("devices at {} (MQTT 3.1.1 and 5)", l.bind));
    let sources = config.sources.iter().map(source);
    listener
        .into_iter()
        .chain(sources)
        .collect::<Vec<_>>()
        .join("; ")
}

fn source(source: &SourceSettings) -> String {
    let broker = broker(&source.remote, source.protocol);
    format!("{broker}, topics {}", source.topics.join(" "))
}

fn broker(remote: &RemoteSettings, protocol: Protocol) -> String {
    let scheme = if remote.tls.is_some() {
        "mqtts"
    } else {
        "mqtt"
    };
    let host = if remote.host.contains(':') {
        format!("[{}]", remote.host)
    } else {
        remote.host.clone()
    };
    let protocol = match protocol {
        Protocol::V311 => "3.1.1",
        Protocol::V5 => "5",
    };
    format!("{scheme}://{host}:{} (MQTT {protocol})", remote.port)
}

fn uplink(uplink: &UplinkSettings) -> String {
    let connections = match uplink.connections {
        1 => "over one connection".to_owned(),
        n => format!("over {n} connections"),
    };
    let mut parts = vec![broker(&uplink.remote, uplink.protocol), connections];
    if uplink.topic != "{topic}" {
        parts.push(format!("as {}", uplink.topic));
    }
    let rate = uplink.rate_bytes_max;
    parts.extend(rate.map(|rate| format!("at most {}/s", show_rate(rate))));
    let publishes = uplink.publish_max;
    parts.extend(publishes.map(|n| format!("at most {n} publishes a second and connection")));
    parts.join(", ")
}

fn classes(config: &Config) -> String {
    let all = config.classes.iter().enumerate();
    let all: Vec<_> = all
        .map(|(place, class)| one_class(config, place, class))
        .collect();
    all.join("; ")
}

fn one_class(config: &Config, place: usize, class: &ClassSettings) -> String {
    let delivery = match class.delivery {
        Delivery::Guaranteed => "guaranteed",
        Delivery::Buffered => "buffered",
        Delivery::Latest => "latest",
    };
    let mut words = format!("{} {delivery}", class.name);
    if place != ClassId::FIRST.index() {
        words.push_str(&format!(", weight {}", class.weight));
    }
    if let Some(ttl) = class.ttl {
        words.push_str(&format!(", for {}", show_time(ttl)));
    }
    if let Some(every) = class.every {
        let every = show_time(every);
        words.push_str(&format!(", at most one value of each key in {every}"));
    }
    if config.gateway.default_class.index() == place {
        words.push_str(" (the default)");
    }
    words
}

fn spool(config: &Config) -> String {
    let spool = &config.spool;
    format!(
        "up to {} in {}, while {} of the disk stay free; nothing is written while the uplink takes what comes",
        about(spool.size_bytes_max),
        spool.dir.display(),
        about(spool.disk_free_bytes_min)
    )
}

fn admin(config: &Config) -> String {
    config.admin.bind.map_or_else(
        || "nowhere, [admin] is switched off".to_owned(),
        |bind| format!("http://{bind} (livez, readyz, metrics)"),
    )
}

fn offline(config: &Config) -> String {
    let memory = show_size(config.gateway.memory_bytes_max);
    let disk = about(config.spool.size_bytes_max);
    let dir = config.spool.dir.display();
    let all: Vec<_> = config
        .classes
        .iter()
        .map(|class| format!("{} {}{}", class.name, fate(class.delivery), curve(class)))
        .collect();
    format!(
        "{}; up to {memory} of memory and {disk} in {dir}, in all",
        all.join("; ")
    )
}

/// What of a thinned class goes to the disk.
fn curve(class: &ClassSettings) -> String {
    class.thin.map_or(String::new(), |thin| {
        let thin = show_time(thin);
        format!(", and one value of each key in {thin} goes to the spool")
    })
}

fn fate(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::Guaranteed => {
            "goes to the spool and is acknowledged when the disk keeps it, and when that is full its senders are paused"
        }
        Delivery::Buffered => "goes to the spool, and when that is full the oldest is evicted",
        Delivery::Latest => "waits in memory, after 2 s only the newest of each key",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::config::tests::parse;

    #[test]
    fn do_the_first_lines_say_where_to_and_what_if() {
        let text = greeting(&parse("gateway.id = \"edge-1\"")).join("\n");
        for part in [
            "gateway edge-1",
            "devices at 127.0.0.1:1883 (MQTT 3.1.1 and 5)",
            "mqtt://127.0.0.1:1884 (MQTT 5), over 2 connections",
            "tidegate-state",
            "critical guaranteed; normal buffered, weight 3, for 7d (the default); low latest, weight 1",
            "Spool: up to 1GiB in tidegate-state/spool, while 256MiB of the disk stay free",
            "at: http://127.0.0.1:9180 (livez, readyz, metrics)\n",
            "critical goes to the spool and is acknowledged when the disk keeps it",
            "normal goes to the spool, and when that is full the oldest is evicted",
            "low waits in memory",
            "up to 64MiB of memory and 1GiB in tidegate-state/spool, in all",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn is_what_is_thinned_told() {
        let text = greeting(&parse(
            "gateway.default_class = \"low\"\n[[class]]\nname = \"low\"\ndelivery = \"latest\"\n\
             every = \"10s\"\nthin = \"1m\"\n",
        ))
        .join("\n");
        assert!(
            text.contains("low latest, at most one value of each key in 10s"),
            "{text}"
        );
        let offline =
            "only the newest of each key, and one value of each key in 1m goes to the spool";
        assert!(text.contains(offline), "{text}");
    }

    #[test]
    fn are_limits_and_sources_told() {
        let text = greeting(&parse(
            "gateway.id = \"e\"\nlistener.enabled = false\nadmin.enabled = false\n\
             [[source]]\nurl = \"mqtt://[fd00::1]\"\ntopics = [\"a/#\", \"b\"]\n\
             [[uplink]]\nurl = \"mqtts://c\"\nconnections = 1\nrate_max = \"256kbit\"\n\
             publish_max = 90\ntopic = \"s/{gateway}/{topic}\"\n",
        ))
        .join("\n");
        assert!(text.contains("at: nowhere"), "{text}");
        assert!(
            text.contains("from: mqtt://[fd00::1]:1883 (MQTT 5), topics a/# b\n"),
            "{text}"
        );
        assert!(
            text.contains(
                "mqtts://c:8883 (MQTT 5), over one connection, as s/{gateway}/{topic}, at most 256kbit/s, at most 90 publishes a second and connection\n"
            ),
            "{text}"
        );
    }
}
