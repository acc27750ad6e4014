//! Is every fault told, at once, at its line, with a caret and a hint?

use super::super::Severity;
use super::findings;

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
pub(super) const FAULTS: &[(&str, usize, &str)] = &[
    ("[gateway", 1, "this is not TOML"),
    ("[gateway]\nid = \"a\"\nid = \"b\"", 3, "this is not TOML"),
    ("gateway = 1", 1, "`gateway` is a bare number"),
    ("[[gateway]]", 1, "[gateway]"),
    ("[uplink]\nurl = \"mqtt://a\"", 1, "[[uplink]]"),
    ("uplink = [1]", 1, "`uplink` holds a bare number"),
    ("[[uplink]]\n[[uplink]]\n", 2, "more than 1 [[uplink]]"),
    ("[sool]", 1, "did you mean `spool`?"),
    ("[[spool]]", 1, "it stands once: write [spool]"),
    (
        "[spool]\nmax_size = \"1GiB\"",
        2,
        "known here: enabled|size_max",
    ),
    ("[spool]\nsize = \"1GiB\"", 2, "did you mean `size_max`?"),
    ("[spool]\nenabled = false", 2, "cannot be switched off"),
    (
        "[spool]\nsize_max = \"31MiB\"",
        2,
        "write \"32MiB\" or more",
    ),
    ("[spool]\nsize_max = 1", 2, "a bare number"),
    (
        "[spool]\ndisk_free_min = \"64GiB\"",
        2,
        "nothing would ever be written",
    ),
    (
        "[spool]\ndisk_free_min = \"2000GiB\"",
        2,
        "must be 0B to 1024GiB",
    ),
    (
        "[spool]\ncommit_interval = \"1ms\"",
        2,
        "must be 10ms to 5s",
    ),
    ("[spool]\nspool_after = \"6s\"", 2, "must be 100ms to 5s"),
    ("[spool]\nbacklog_share = 0.95", 2, "must be 0.05 to 0.9"),
    (
        "[spool]\nbacklog_share = 30",
        2,
        "a decimal number such as 0.3",
    ),
    ("[spool]\nlive_share_min = nan", 2, "must be 0.05 to 0.9"),
    ("[spool]\nlive_share_min = -0.2", 2, "must be 0.05 to 0.9"),
    (
        "[spool]\nlive_share_min = 0.8",
        2,
        "more than the whole link together",
    ),
    (
        "[spool]\nreplay_rate_max = \"1bit\"",
        2,
        "must be 8kbit to 100Gbit",
    ),
    (
        "[admin]\nbind = \"0.0.0.0:9180\"",
        2,
        "write `expose = true`",
    ),
    ("[admin]\nbind = \"9180\"", 2, "not an address and a port"),
    ("[admin]\nbind = \"\"", 2, "`bind` is empty"),
    (
        "[admin]\nbind = \"127.0.0.1:1883\"",
        1,
        "one address and port",
    ),
    (
        "[[class]]\nname = \"normal\"\ndelivery = \"buffered\"\norder = \"live_first\"",
        4,
        "did you mean \"live-first\"?",
    ),
    (
        "[[class]]\nname = \"normal\"\ndelivery = \"buffered\"\nspool_max = \"16MiB\"",
        4,
        "a class has two at least",
    ),
    (
        "[[class]]\nname = \"normal\"\ndelivery = \"buffered\"\nspool_mx = \"16MiB\"",
        4,
        "did you mean `spool_max`?",
    ),
    (
        "[[class]]\nname = \"normal\"\ndelivery = \"buffered\"\nreplay_topic = \"a/{topc}\"",
        4,
        "write {topic}",
    ),
    (
        "[[class]]\nname = \"normal\"\ndelivery = \"buffered\"\nreplay_topic = \"a/+\"",
        4,
        "no wildcards",
    ),
    (
        "[[class]]\nname = \"normal\"\ndelivery = \"buffered\"\nspool_max = \"65MiB\"\n\
         [spool]\nsize_max = \"64MiB\"",
        4,
        "`size_max` is 64MiB",
    ),
    (
        "[spool]\nsize_max = \"64MiB\"\n\
         [[class]]\nname = \"normal\"\ndelivery = \"guaranteed\"\nspool_max = \"40MiB\"\n\
         [[class]]\nname = \"b\"\ndelivery = \"guaranteed\"\nspool_max = \"40MiB\"",
        10,
        "are 80MiB together",
    ),
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
    (
        "[gateway]\nmemory_pressure_on = 0.4\nmemory_pressure_off = 0.4",
        3,
        "pressure would never end",
    ),
    (
        "[gateway]\nmemory_pressure_on = 0.9",
        2,
        "must be 0.05 to 0.875",
    ),
    (
        "[[class]]\nname = \"normal\"\ndelivery = \"latest\"\npressure_on = 0.3\npressure_off = 0.6",
        5,
        "`pressure_off` is 0.6, and `pressure_on` is 0.3",
    ),
    (
        "[[class]]\nname = \"normal\"\ndelivery = \"latest\"\npressure_age_off = \"2s\"",
        4,
        "`pressure_age_off` is 2s, and `pressure_age_on` is 2s",
    ),
    (
        "[[class]]\nname = \"normal\"\ndelivery = \"latest\"\npressure_stay = \"0s\"",
        4,
        "must be 1s to 1h",
    ),
    (
        "[[class]]\nname = \"normal\"\ndelivery = \"guaranteed\"\nwhen_full = \"drop-newest\"",
        4,
        "nothing of it is ever dropped",
    ),
    (
        "[[class]]\nname = \"normal\"\ndelivery = \"buffered\"\nwhen_full = \"drop-newset\"",
        4,
        "did you mean \"drop-newest\"?",
    ),
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
    (
        "[[class]]\nname = \"normal\"\ndelivery = \"buffered\"\nevery = \"60s\"",
        4,
        "`every` in a class that is not `latest`",
    ),
    (
        "[[class]]\nname = \"normal\"\ndelivery = \"guaranteed\"\nthin = \"60s\"",
        4,
        "write delivery = \"latest\"",
    ),
    (
        "[[class]]\nname = \"normal\"\ndelivery = \"buffered\"\nsummary = \"/rms\"",
        4,
        "`summary` in a class that is not `latest`",
    ),
    (
        "[[class]]\nname = \"normal\"\ndelivery = \"latest\"\nevery = \"500ms\"",
        4,
        "1s to 1d",
    ),
    (
        "[[class]]\nname = \"normal\"\ndelivery = \"latest\"\nttl = \"60s\"\nevery = \"60s\"",
        5,
        "has expired by then",
    ),
    (
        "[[class]]\nname = \"normal\"\ndelivery = \"latest\"\nttl = \"60s\"\nthin = \"1h\"",
        5,
        "`thin` is not shorter than `ttl`",
    ),
    (
        "[[class]]\nname = \"normal\"\ndelivery = \"latest\"\nthin = \"30s\"\nevery = \"60s\"",
        4,
        "`thin` is shorter than `every`",
    ),
    (
        "[[class]]\nname = \"normal\"\ndelivery = \"latest\"\nsummary = \"rms\"",
        4,
        "`summary`: \"rms\" is no JSON pointer",
    ),
    (
        "[[class]]\nname = \"normal\"\ndelivery = \"latest\"\nsummary = \"/rms\"\nsummary_of = [\"min\", \"maximum\"]",
        5,
        "`summary_of` cannot be \"maximum\"",
    ),
    (
        "[[class]]\nname = \"normal\"\ndelivery = \"latest\"\nsummary = \"/rms\"\nsummary_topic = \"{topic}\"",
        5,
        "would take a summary for a value",
    ),
    (
        "[[class]]\nname = \"normal\"\ndelivery = \"latest\"\nsummary_of = \"min\"",
        4,
        "`summary_of` without `summary`",
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
