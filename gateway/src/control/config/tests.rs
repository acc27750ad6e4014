//! What the configuration must keep: all faults at once, each with its place and a hint; defaults
//! that equal the file; a file that names every key and range; examples that are right; and never a
//! panic.

use super::*;
use crate::traffic::classify::Classifier;

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
}

/// The configuration in a text that has no fault.
pub(crate) fn parse(text: &str) -> Config {
    match read(text, "t.toml", &Bench) {
        Ok((config, _)) => config,
        Err(findings) => panic!("{findings}"),
    }
}

/// What is found in a text, faults or not.
fn findings(text: &str) -> Findings {
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
        "{:#?} {:#?} {:#?} {:#?} {:#?} {:#?}",
        config.gateway,
        config.listener,
        config.sources,
        config.uplink,
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
    assert!(known.len() > 60, "{}", known.len());
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
fn are_all_faults_told_at_once_with_line_caret_and_hint() {
    let text = "\
[gateway]
id = \"${NOBODY}\"
memory_max = \"64MX\"
default_class = \"nromal\"

[listner]
bind = \"127.0.0.1:1883\"

[listener]
bind = \"0.0.0.0:1883\"
bnid = 1
receive_max = 0

[[uplink]]
url = \"mqtts://me:hunter2@cloud\"
protocol = 5

[[rule]]
topic = [\"a/#\", \"b/#/c\"]
class = \"criticle\"
";
    let golden = "\
fault: the environment variable NOBODY is not set
 --> t.toml:2:6
  |
2 | id = \"${NOBODY}\"
  |      ^^^^^^^^^^^
   = hint: set it in the environment of the gateway, or write $$ where a $ is meant

fault: `memory_max`: \"64MX\" is not a size
 --> t.toml:3:14
  |
3 | memory_max = \"64MX\"
  |              ^^^^^^
   = hint: write a whole number and a unit: B, KiB, MiB, GiB (1024), kB, MB, GB (1000), such as \"64MiB\"

fault: `default_class`: no class is called \"nromal\"
 --> t.toml:4:17
  |
4 | default_class = \"nromal\"
  |                 ^^^^^^^^
   = hint: did you mean `normal`?

fault: unknown section or key \"listner\"
 --> t.toml:6:2
  |
6 | [listner]
  |  ^^^^^^^
   = hint: did you mean `listener`?

fault: `bind` opens 0.0.0.0:1883 to the network, and anybody there could publish
  --> t.toml:10:8
   |
10 | bind = \"0.0.0.0:1883\"
   |        ^^^^^^^^^^^^^^
   = hint: if that is meant, write `anonymous = true` beside it; else bind to 127.0.0.1

fault: unknown key \"bnid\" in [listener]
  --> t.toml:11:1
   |
11 | bnid = 1
   | ^^^^
   = hint: did you mean `bind`?

fault: `receive_max` is 0, and must be 1 to 65535
  --> t.toml:12:15
   |
12 | receive_max = 0
   |               ^
   = hint: MQTT's own limits (MQTT 5, 3.2.2.3.3)

fault: `url`: user and password do not stand in the URL
  --> t.toml:15:7
   |
15 | url = \"mqtts://***@cloud\"
   |       ^^^^^^^^^^^^^^^^^^^
   = hint: write `username`, and `password_file` or `password_env`, beside it, so that the password stays out of this file

fault: `protocol` cannot be a bare number
  --> t.toml:16:12
   |
16 | protocol = 5
   |            ^
   = hint: write \"5\" or \"3.1.1\", in quotes

fault: `topic`: \"b/#/c\" is no topic filter
  --> t.toml:19:17
   |
19 | topic = [\"a/#\", \"b/#/c\"]
   |                 ^^^^^^^
   = hint: HINT

fault: no class is called \"criticle\"
  --> t.toml:20:9
   |
20 | class = \"criticle\"
   |         ^^^^^^^^^^
   = hint: did you mean `critical`?

";
    let why = crate::traffic::classify::Filter::parse("b/#/c").unwrap_err();
    let told = findings(text);
    assert_eq!(told.to_string(), golden.replace("HINT", &why.to_string()));
    assert_eq!(told.summary(), "11 faults, 0 warnings");
}

/// A text, the line of the one fault in it, and a part of what is said.
const FAULTS: &[(&str, usize, &str)] = &[
    ("[gateway", 1, "this is not TOML"),
    ("[gateway]\nid = \"a\"\nid = \"b\"", 3, "this is not TOML"),
    ("gateway = 1", 1, "`gateway` is a bare number"),
    ("[[gateway]]", 1, "[gateway]"),
    ("[uplink]\nurl = \"mqtt://a\"", 1, "[[uplink]]"),
    ("uplink = [1]", 1, "`uplink` holds a bare number"),
    ("[[uplink]]\n[[uplink]]\n", 2, "more than 1 [[uplink]]"),
    ("[spool]", 1, "unknown section or key \"spool\""),
    ("[gateway]\nid = \"a b\"", 2, "`id` cannot be"),
    ("[gateway]\nid = \"\"", 2, "`id` is empty"),
    ("[gateway]\nid = \"${EMPTY}\"", 2, "the variable in it is"),
    ("[gateway]\nid = \"${HOSTNAME\"", 2, "without `}`"),
    ("[gateway]\nmemory_max = 1000", 2, "a bare number"),
    (
        "[gateway]\nmemory_max = \"1MiB\"",
        2,
        "must be 4MiB to 64GiB",
    ),
    ("[gateway]\ndrain_max = \"5\"", 2, "\"5\" is not a time"),
    ("[gateway]\ndrain_max = \"10m\"", 2, "must be 0s to 5m"),
    (
        "[gateway]\ndefault_class = \"discard\"",
        2,
        "never a default|cannot be \"discard\"",
    ),
    (
        "[listener]\nbind = \"localhost:1883\"",
        2,
        "not an address and a port",
    ),
    (
        "[listener]\nanonymous = \"yes\"",
        2,
        "`anonymous` cannot be text",
    ),
    (
        "[listener]\nsubscribe = \"acept\"",
        2,
        "did you mean \"accept\"?",
    ),
    ("[listener]\nenabled = false", 1, "nothing can come in"),
    ("[listener]\nreceive_max = 65536", 2, "must be 1 to 65535"),
    ("[listener]\nreceive_max = -1", 2, "must be 1 to 65535"),
    ("[listener]\nreceive_max = 1.5", 2, "a decimal number"),
    (
        "[listener]\npacket_max = \"1GiB\"",
        2,
        "must be 1KiB to 256MiB",
    ),
    ("[[uplink]]\nurl = \"cloud:1883\"", 2, "no scheme"),
    (
        "[[uplink]]\nurl = \"mqtt://127.0.0.1:1883\"",
        1,
        "own listener",
    ),
    ("[[uplink]]\nconnections = 3", 2, "must be 1 to 2"),
    ("[[uplink]]\nrate_max = \"fast\"", 2, "not a rate"),
    ("[[uplink]]\ntopic = \"a/#/{topic}\"", 2, "no wildcards"),
    ("[[uplink]]\ntopic = \"{topi}/{topic}\"", 2, "write {topic}"),
    ("[[uplink]]\ntopic = \"{topic}/{\"", 2, "stands for nothing"),
    ("[[uplink]]\nca = \"x.pem\"", 2, "does not ask for TLS"),
    (
        "[[uplink]]\nurl = \"mqtts://c\"\nca = \"/missing/ca\"",
        3,
        "no such file",
    ),
    (
        "[[uplink]]\nurl = \"mqtts://c\"\ncert = \"x\"",
        3,
        "`cert` without `key`",
    ),
    (
        "[[uplink]]\nurl = \"mqtts://c\"\nkey = \"x\"",
        3,
        "`key` without `cert`",
    ),
    (
        "[[uplink]]\npassword = \"hunter2\"",
        2,
        "does not stand in the configuration",
    ),
    (
        "[[uplink]]\npassword_env = \"hunter 2\"",
        2,
        "the name, not the password",
    ),
    (
        "[[uplink]]\npassword_env = \"PASSWORD\"\npassword_file = \"x\"",
        2,
        "one of them",
    ),
    (
        "[[uplink]]\nprotocol = \"3.1.1\"\npassword_env = \"PASSWORD\"",
        3,
        "without `username`",
    ),
    (
        "[[uplink]]\nkeep_alive = \"5500ms\"",
        2,
        "whole number of seconds",
    ),
    (
        "[[uplink]]\nclient_id = \"\\u0000\"",
        2,
        "`client_id` cannot be",
    ),
    (
        "[[uplink]]\nurl = \"mqtts://c\"\nalpn = []",
        3,
        "empty list",
    ),
    ("[[source]]\ntopics = [\"a\"]", 1, "`url` is missing"),
    ("[[source]]\nurl = \"mqtt://b\"", 1, "`topics` is missing"),
    (
        "[[source]]\nurl = \"mqtt://b\"\ntopics = [\"a#\"]",
        3,
        "no topic filter",
    ),
    (
        "[[source]]\nurl = \"mqtt://b\"\ntopics = [\"a\", 1]",
        3,
        "a bare number",
    ),
    (
        "[[source]]\nurl = \"mqtt://b\"\ntopics = \"a\"\nclient_id = \"x\"\n\
         [[source]]\nurl = \"mqtt://b\"\ntopics = \"b\"\nclient_id = \"x\"",
        5,
        "two connections to one broker with one client id",
    ),
    ("[[class]]\nname = \"normal\"", 1, "without `delivery`"),
    (
        "[[class]]\ndelivery = \"buffered\"",
        1,
        "without `name`|default_class",
    ),
    (
        "[[class]]\nname = \"a\"\ndelivery = \"latest\"",
        2,
        "write default_class = one of: a",
    ),
    (
        "[[class]]\nname = \"normal\"\ndelivery = \"latest\"\n[[class]]\nname = \"normal\"\ndelivery = \"latest\"",
        5,
        "a second class",
    ),
    (
        "[[class]]\nname = \"normal\"\ndelivery = \"best\"",
        3,
        "cannot be \"best\"",
    ),
    (
        "[[class]]\nname = \"normal\"\ndelivery = \"latest\"\nqueue_max = \"65MiB\"",
        4,
        "64MiB",
    ),
    (
        "[[class]]\nname = \"normal\"\ndelivery = \"latest\"\nweight = 0",
        4,
        "1 to 1000",
    ),
    (
        "[[class]]\nname = \"normal\"\ndelivery = \"latest\"\nttl = \"0s\"",
        4,
        "1s to 3650d",
    ),
    ("[[rule]]\nclass = \"low\"", 1, "without `topic`"),
    ("[[rule]]\ntopic = \"a\"", 1, "without `class`"),
    ("[[rule]]\ntopic = []\nclass = \"low\"", 2, "empty list"),
    (
        "[[rule]]\ntopic = \"a\"\nclass = \"low\"\nkey = \"sensor\"",
        4,
        "no JSON pointer",
    ),
    (
        "[[rule]]\ntopic = \"a\"\nclass = \"low\"\nwhen = \"payload.rms >\"",
        4,
        "`when`",
    ),
    (
        "[[rule]]\ntopic = \"a\"\nclass = \"low\"\nwhat = 1",
        4,
        "unknown key \"what\"",
    ),
];

#[test]
fn is_every_kind_of_fault_told_at_its_line() {
    for (text, line, part) in FAULTS {
        let told = findings(text);
        let fault = told.list.iter().find(|f| f.severity == Severity::Fault);
        let fault = fault.unwrap_or_else(|| panic!("no fault in\n{text}"));
        let at = fault
            .at
            .clone()
            .unwrap_or_else(|| panic!("no place: {fault:?}"));
        assert_eq!(text[..at.start].matches('\n').count() + 1, *line, "{told}");
        let said = told.to_string();
        assert!(
            part.split('|').any(|part| said.contains(part)),
            "{part}: {said}"
        );
        assert!(!said.contains("hunter"), "{said}");
        assert!(
            !fault.hint.is_empty() || said.contains("`when`"),
            "no hint: {said}"
        );
    }
}

/// A text, and what it is warned of.
const WARNINGS: &[(&str, &str)] = &[
    ("", "no rule leads to the first class `critical`"),
    (
        "gateway.default_class = \"a\"\n[[class]]\nname = \"a\"\ndelivery = \"buffered\"\n",
        "no class is `guaranteed`",
    ),
    (
        "gateway.default_class = \"a\"\n[[class]]\nname = \"a\"\ndelivery = \"guaranteed\"\nweight = 2",
        "`weight` has no effect",
    ),
    (
        "gateway.default_class = \"low\"",
        "the default class is `latest` and takes Sparkplug",
    ),
    (
        "[[rule]]\ntopic = \"#\"\nclass = \"low\"",
        "a `latest` class takes Sparkplug",
    ),
    (
        "[[rule]]\ntopic = \"+/+/DDATA/#\"\nclass = \"low\"",
        "a `latest` class takes Sparkplug",
    ),
    (
        "[[rule]]\ntopic = \"a/#\"\nclass = \"critical\"\n[[rule]]\ntopic = [\"a/b\", \"a/+/c\"]\nclass = \"normal\"",
        "`rule 2` never decides",
    ),
    (
        "[[rule]]\ntopic = \"a\"\nclass = \"critical\"\nkey = \"/a\"",
        "`key` has no effect",
    ),
    (
        "[[rule]]\ntopic = \"a\"\nclass = \"discard\"\nttl = \"1h\"",
        "`ttl` has no effect",
    ),
    (
        "[listener]\nsubscribe = \"accept\"",
        "nothing ever comes of them",
    ),
    ("gateway.memory_max = \"4MiB\"", "`memory_max` is small"),
    (
        "[[uplink]]\ntopic = \"all\"",
        "all messages go to one topic",
    ),
    (
        "[[uplink]]\nrate_max = \"8kbit\"\npacket_max = \"1MiB\"",
        "longer than `ack_timeout`",
    ),
    (
        "[[uplink]]\nprotocol = \"3.1.1\"\nproperties = \"full\"",
        "`properties` has no effect",
    ),
    (
        "[[uplink]]\nurl = \"mqtt://c\"\npassword_env = \"PASSWORD\"",
        "clear text",
    ),
    ("[[uplink]]\npassword_env = \"NOBODY\"", "not set here"),
    (
        "[[uplink]]\npassword_file = \"/missing/pw\"",
        "it is read at each connect",
    ),
    (
        "[[source]]\nurl = \"mqtt://127.0.0.1:1884\"\ntopics = \"a\"",
        "may come in again",
    ),
];

#[test]
fn is_what_will_hurt_warned_of_and_started() {
    for (text, part) in WARNINGS {
        let told = findings(text);
        assert_eq!(told.count(Severity::Fault), 0, "{told}");
        assert!(told.to_string().contains(part), "{part}: {told}");
    }
    let quiet = "[[rule]]\ntopic = \"spBv1.0/#\"\nclass = \"critical\"\n\
                 [[rule]]\ntopic = \"#\"\nclass = \"low\"\n\
                 [[rule]]\ntopic = \"$SYS/#\"\nclass = \"low\"\n";
    assert!(findings(quiet).list.is_empty(), "{}", findings(quiet));
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

/// A small generator with a fixed seed (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end.max(1) as u64).unwrap()
    }
}

/// One of: a character replaced, a piece cut, a piece of another text put in.
fn mutate(text: &str, other: &str, chance: &mut Chance) -> String {
    const ODD: &[&str] = &[
        "\"",
        "[",
        "]",
        "=",
        "{",
        "}",
        "\n",
        "#",
        "${",
        "$$",
        "\0",
        "é",
        "-1",
        "1e999",
        "\t",
        "'''",
        "[[rule]]\n",
        "18446744073709551616",
        "mqtt://[",
        "0x",
        ".",
        ",",
        "\u{feff}",
        "🜁",
    ];
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..=chance.below(4) {
        let at = chance.below(chars.len());
        let end = (at + chance.below(12)).min(chars.len());
        let put: Vec<char> = match chance.below(3) {
            0 => Vec::new(),
            1 => ODD[chance.below(ODD.len())].chars().collect(),
            _ => {
                let from = chance.below(other.len());
                other.chars().skip(from).take(chance.below(40)).collect()
            }
        };
        chars.splice(at..end, put);
    }
    chars.into_iter().collect()
}

#[test]
fn does_no_text_make_it_panic() {
    let everything: String = DOCUMENTED
        .lines()
        .filter(|line| !line.starts_with("# ") && !line.is_empty())
        .map(|line| line.trim_start_matches('#').to_owned() + "\n")
        .collect();
    let texts = [everything.as_str(), FIRE, SHIP];
    let mut chance = Chance(0x5eed);
    for _ in 0..600 {
        let text = texts[chance.below(3)];
        let other = texts[chance.below(3)];
        let mutated = mutate(text, other, &mut chance);
        let told = findings(&mutated);
        assert!(told.to_string().len() < 1 << 20);
    }
    for (text, ..) in FAULTS {
        for _ in 0..20 {
            let _ = findings(&mutate(text, &everything, &mut chance)).to_string();
        }
    }
}
