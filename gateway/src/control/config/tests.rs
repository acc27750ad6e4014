//! What the configuration must keep: defaults that equal the file, a file that names every key and
//! range, examples that are right; all faults at once, each with its place and a hint ([`faults`]);
//! and never a panic ([`mutations`]).

mod faults;
mod mutations;
mod warnings;

use super::*;
use crate::traffic::classify::Classifier;
use crate::traffic::spool::Order;

/// A machine with what a test needs.
pub(crate) struct Bench;

impl Surroundings for Bench {
    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "HOSTNAME" => Some("edge-1".to_owned()),
            "EMPTY" => Some(String::new()),
            "PASSWORD" => Some("hunter2".to_owned()),
            _ => None,
        }
    }

    fn readable(&self, path: &std::path::Path) -> Result<(), String> {
        if path.starts_with("/missing") {
            return Err("there is no such file".to_owned());
        }
        Ok(())
    }

    fn disk_bytes(&self, folder: &std::path::Path) -> Option<u64> {
        let small = folder.starts_with("/small");
        Some(if small { 400 << 20 } else { 64 << 30 })
    }
}

/// The configuration in a text that has no fault.
pub(crate) fn parse(text: &str) -> Config {
    match read(text, "t.toml", &Bench) {
        Ok((config, _)) => config,
        Err(findings) => panic!("{findings}"),
    }
}

/// What is found in a text, faults or not.
pub(crate) fn findings(text: &str) -> Findings {
    match read(text, "t.toml", &Bench) {
        Ok((_, warnings)) => warnings,
        Err(findings) => findings,
    }
}

const DOCUMENTED: &str = include_str!("../../../../config/tidegate.toml");
const FIRE: &str = include_str!("../../../../config/examples/fire-and-ventilation.toml");
const VIBRATION: &str = include_str!("../../../../config/examples/vibration-4g.toml");
const SHIP: &str = include_str!("../../../../config/examples/ship-satellite.toml");

/// The configuration without what compares by address or names its text.
fn shown(config: &Config) -> String {
    format!(
        "{:#?} {:#?} {:#?} {:#?} {:#?} {:#?} {:#?} {:#?}",
        config.gateway,
        config.listener,
        config.sources,
        config.uplink,
        config.spool,
        config.admin,
        config.classes,
        config.rules
    )
}

#[test]
fn does_the_documented_file_equal_the_defaults() {
    assert_eq!(shown(&parse(DOCUMENTED)), shown(&parse("")));
}

/// The keys that are read when every section stands in the file.
fn known() -> Vec<reader::Known> {
    let mut reading = Reading {
        surroundings: &Bench,
        findings: Vec::new(),
        known: Vec::new(),
    };
    let text = "[[source]]\n[[class]]\n[[rule]]\n";
    let _ = read_text(&mut reading, text, "t.toml");
    reading.known.sort();
    reading.known.dedup();
    reading.known
}

/// For each key in the documented file, set or not: its section, the key, and the comment above it
/// that several keys in a row share.
fn documented() -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let (mut section, mut comment, mut fresh) = (String::new(), String::new(), true);
    for line in DOCUMENTED.lines() {
        let setting = line.strip_prefix('#').filter(|l| !l.starts_with(' '));
        let setting = setting.unwrap_or(line).trim_end();
        if setting.starts_with('[') {
            section = setting.to_owned();
        } else if line.is_empty() {
            (comment, fresh) = (String::new(), true);
        } else if let (Some((key, _)), false) =
            (setting.split_once(" = "), setting.starts_with('#'))
        {
            found.push((section.clone(), key.to_owned(), comment.clone()));
            fresh = false;
        } else {
            assert!(fresh, "a comment below the keys it is about: {line}");
            comment.push_str(line.trim_start_matches(['#', ' ']));
            comment.push(' ');
        }
    }
    found
}

#[test]
fn does_the_documented_file_name_every_key_and_its_range() {
    let documented = documented();
    let known = known();
    assert!(known.len() > 75, "{}", known.len());
    for reader::Known { section, key, says } in &known {
        let about: Vec<_> = documented
            .iter()
            .filter(|(s, k, _)| s == section && k == key)
            .collect();
        assert!(!about.is_empty(), "{section} {key} is not documented");
        assert!(
            about
                .iter()
                .any(|(_, _, comment)| comment.contains(says.as_str())),
            "{section} {key}: the comment does not say {says:?}: {about:?}"
        );
    }
    for (section, key, _) in &documented {
        assert!(
            known.iter().any(|k| k.section == section && k.key == key),
            "{section} {key} is documented and not known"
        );
    }
}

#[test]
fn is_every_setting_that_the_documented_file_offers_a_good_one() {
    let offered: String = DOCUMENTED
        .lines()
        .filter(|line| !line.starts_with("#password_env"))
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => rest,
            _ => line,
        })
        .map(|line| line.replace("mqtt://", "mqtts://") + "\n")
        .collect();
    let config = parse(&offered);
    assert_eq!(config.sources.len(), 1);
    assert_eq!(config.rules.len(), 1);
    assert!(config.uplink.rate_bytes_max == Some(32_000) && config.uplink.publish_max == Some(90));
    assert!(
        config
            .uplink
            .remote
            .tls
            .is_some_and(|tls| tls.cert.is_some())
    );
}

#[test]
fn do_the_defaults_stand() {
    let config = parse("");
    assert_eq!(config.gateway.id, "edge-1");
    assert_eq!(config.gateway.memory_bytes_max, 64 << 20);
    assert_eq!(config.gateway.default_class, ClassId(1));
    let listener = config.listener.unwrap();
    assert_eq!(listener.bind.to_string(), "127.0.0.1:1883");
    assert_eq!(config.uplink.remote.port, 1884);
    assert_eq!(config.uplink.client_id, "edge-1");
    let names: Vec<_> = config.classes.iter().map(|c| &*c.name).collect();
    assert_eq!(names, ["critical", "normal", "low"]);
    assert_eq!(config.classes[1].ttl, Some(Duration::from_secs(7 * 86_400)));
    assert_eq!(config.classes[2].client_bytes_max, 16 << 20);
    let orders: Vec<_> = config.classes.iter().map(|c| c.order).collect();
    assert_eq!(orders, [Order::Strict, Order::LiveFirst, Order::LiveFirst]);
    assert_eq!(config.spool.dir.to_str(), Some("tidegate-state/spool"));
    assert_eq!(config.spool.size_bytes_max, 1 << 30);
    assert_eq!(config.spool.disk_free_bytes_min, 256 << 20);
    assert_eq!(config.spool.default_class, ClassId(1));
    let evictable: Vec<_> = config.spool.classes.iter().map(|c| c.evictable).collect();
    assert_eq!(evictable, [false, true, true]);
    let admin = config.admin.bind.map(|bind| bind.to_string());
    assert_eq!(admin.as_deref(), Some("127.0.0.1:9180"));
}

/// The class that an example gives.
fn class_of(text: &str, topic: &str, payload: &str) -> String {
    let config = parse(text);
    let mut classifier = Classifier::new(Arc::clone(&config.compiled));
    let verdict = classifier.classify(topic, payload.as_bytes());
    let class = config.classes.get(verdict.class.index());
    class.map_or("discard".to_owned(), |class| class.name.to_string())
}

#[test]
fn do_the_examples_check_without_a_word() {
    for text in [FIRE, VIBRATION, SHIP] {
        let findings = findings(text);
        assert!(findings.list.is_empty(), "{findings}");
    }
}

#[test]
fn do_the_examples_give_the_classes_that_they_promise() {
    let stopped = |reason| format!("{{\"state\": \"stopped\", \"reason\": \"{reason}\"}}");
    let unit = "building/3/ventilation/7/state";
    for (text, topic, payload, class) in [
        (FIRE, "building/3/fire/alarm", "", "fire"),
        (FIRE, "building/3/smoke/12/state", "1", "fire"),
        (FIRE, unit, &*stopped("overheat"), "fire"),
        (FIRE, unit, &*stopped("schedule"), "plant"),
        (FIRE, unit, "not json", "plant"),
        (FIRE, "building/3/ventilation/7/speed", "1200", "readings"),
        (
            FIRE,
            "building/3/climate/12/temperature",
            "21.5",
            "readings",
        ),
        (FIRE, "building/3/climate/12/debug/heap", "", "readings"),
        (FIRE, "building/3/lift/1/debug/heap", "", "discard"),
        (FIRE, "lobby/unknown", "", "plant"),
        (VIBRATION, "hall/pump-7/rms", "{\"rms\": 9.3}", "alarm"),
        (VIBRATION, "hall/pump-7/rms", "{\"rms\": 7.1}", "trend"),
        (VIBRATION, "hall/pump-7/trip", "", "alarm"),
        (VIBRATION, "hall/pump-7/spectrum", "", "spectra"),
        (VIBRATION, "hall/pump-7/debug/x", "", "discard"),
        (SHIP, "ship/fire/deck-4", "", "safety"),
        (SHIP, "ship/bilge/2/level/high", "", "safety"),
        (
            SHIP,
            "ship/cargo/reefer/7/temperature",
            "{\"celsius\": -4.0}",
            "safety",
        ),
        (
            SHIP,
            "ship/cargo/reefer/7/temperature",
            "{\"celsius\": -18.5}",
            "readings",
        ),
        (SHIP, "ship/position", "", "voyage"),
        (SHIP, "ship/engine/main/rpm", "82", "readings"),
        (SHIP, "ship/camera/1", "", "discard"),
    ] {
        assert_eq!(class_of(text, topic, payload), class, "{topic} {payload}");
    }
}

#[test]
fn is_a_class_thinned_as_its_keys_say() {
    let config = parse(
        "[gateway]\ndefault_class = \"a\"\n[[class]]\nname = \"a\"\ndelivery = \"latest\"\n\
         every = \"10s\"\nthin = \"1m\"\nspool_max = \"64MiB\"\n\
         summary = \"/a~1b\"\nsummary_of = [\"mean\"]\nsummary_topic = \"s/{gateway}/{topic}\"\n",
    );
    let class = &config.classes[0];
    assert_eq!(class.every, Some(Duration::from_secs(10)));
    assert_eq!(class.thin, Some(Duration::from_secs(60)));
    let summary = class.summary.as_ref().unwrap();
    assert_eq!(summary.value.as_str(), "/a~1b");
    assert_eq!(summary.of, [crate::traffic::queue::summary::Figure::Mean]);
    assert_eq!(summary.topic, "s/edge-1/{topic}");
}

#[test]
fn are_variables_expanded_wherever_a_text_stands() {
    let config = parse(
        "[[uplink]]\ntopic = \"s/${HOSTNAME}/{topic}\"\n\
         [[rule]]\ntopic = [\"${HOSTNAME}/#\"]\nclass = \"critical\"\n",
    );
    assert_eq!(config.uplink.topic, "s/edge-1/{topic}");
    assert_eq!(config.rules[0].filters, ["edge-1/#"]);
}

#[test]
fn is_everything_in_one_file_where_it_belongs() {
    let config = parse(
        "[gateway]\nid = \"g\"\ndrain_max = \"1s\"\n[listener]\nenabled = false\n\
         [[source]]\nurl = \"mqtts://b\"\ntopics = [\"a/#\", \"$SYS/#\"]\nretained = \"take\"\n\
         [[source]]\nurl = \"mqtt://b\"\ntopics = \"x\"\n\
         [[uplink]]\nurl = \"mqtt://[::1]\"\nproperties = \"full\"\nrate_max = \"32KiB\"\n\
         [[rule]]\nname = \"n\"\ntopic = \"a\"\nclass = \"low\"\nkey = \"/k\"\nttl = \"5m\"\n\
         [[rule]]\ntopic = \"#\"\nclass = \"discard\"\n",
    );
    assert!(config.listener.is_none());
    assert_eq!(config.sources[0].client_id, "g-source");
    assert_eq!(config.sources[1].client_id, "g-source-2");
    assert_eq!(config.sources[0].remote.port, 8883);
    assert_eq!(config.uplink.remote.host, "::1");
    assert_eq!(config.uplink.rate_bytes_max, Some(32 << 10));
    assert_eq!(config.rules[0].class, ClassId(2));
    assert_eq!(config.rules[0].key.as_deref(), Some("/k"));
    assert_eq!(config.rules[1].class, ClassId::DISCARD);
    assert_eq!(&*config.rules[1].name, "rule 2");
}

#[test]
fn does_the_spool_have_what_its_section_and_the_classes_say() {
    let config = parse(
        "[gateway]\nstate_dir = \"/data\"\ndefault_class = \"b\"\n\
         [spool]\nsize_max = \"2GiB\"\ndisk_free_min = \"1GiB\"\ncommit_interval = \"1s\"\n\
         spool_after = \"5s\"\nbacklog_share = 0.5\nlive_share_min = 0.05\nreplay_rate_max = \"32KiB\"\n\
         [[class]]\nname = \"a\"\ndelivery = \"guaranteed\"\nspool_max = \"2GiB\"\norder = \"live-first\"\n\
         [[class]]\nname = \"b\"\ndelivery = \"buffered\"\norder = \"strict\"\n\
         replay_topic = \"old/{gateway}/{topic}\"\n\
         [admin]\nbind = \"0.0.0.0:80\"\nexpose = true\n",
    );
    let spool = &config.spool;
    assert_eq!(spool.dir.to_str(), Some("/data/spool"));
    assert_eq!(
        (spool.size_bytes_max, spool.disk_free_bytes_min),
        (2 << 30, 1 << 30)
    );
    assert_eq!(spool.policy.commit_interval, Duration::from_secs(1));
    assert_eq!(spool.policy.spool_after, Duration::from_secs(5));
    assert_eq!(
        (
            spool.policy.backlog_share_permille,
            spool.policy.live_share_min_permille
        ),
        (500, 50)
    );
    assert_eq!(spool.policy.replay_rate_bytes_max, Some(32 << 10));
    assert_eq!(spool.classes[0].bytes_max, Some(2 << 30));
    assert_eq!(
        (&*spool.classes[1].name, spool.classes[1].bytes_max),
        ("b", None)
    );
    assert_eq!(spool.default_class, ClassId(1));
    assert_eq!(config.classes[0].order, Order::LiveFirst);
    assert_eq!(config.classes[1].order, Order::Strict);
    assert_eq!(
        config.classes[1].replay_topic.as_deref(),
        Some("old/{gateway}/{topic}")
    );
    assert_eq!(config.admin.bind.map(|bind| bind.port()), Some(80));
    assert_eq!(parse("admin.enabled = false").admin.bind, None);
}

#[test]
fn does_a_small_disk_get_a_small_spool() {
    let config = parse("gateway.state_dir = \"/small/state\"");
    assert_eq!(config.spool.size_bytes_max, 100 << 20);
    assert_eq!(config.spool.disk_free_bytes_min, 50 << 20);
    let share = "[gateway]\nstate_dir = \"/small\"\ndefault_class = \"a\"\n\
                 [[class]]\nname = \"a\"\ndelivery = \"guaranteed\"\nspool_max = \"200MiB\"\n";
    let told = findings(share).to_string();
    assert!(
        told.contains("warning: `spool_max` of class `a`: this disk gives the spool 100MiB"),
        "{told}"
    );
}
