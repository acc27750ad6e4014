//! Is what will hurt warned of, and started all the same?

use super::super::Severity;
use super::findings;

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
    (
        "[spool]\nsize_max = \"64GiB\"",
        "has 64GiB, of which 256MiB stay free",
    ),
    (
        "[spool]\nreplay_rate_max = \"1Mbit\"\n[[uplink]]\nrate_max = \"1Mbit\"",
        "the uplink's `rate_max` is 1Mbit",
    ),
    (
        "gateway.default_class = \"a\"\n[[class]]\nname = \"a\"\ndelivery = \"latest\"\nspool_max = \"32MiB\"",
        "matters at a clean stop only",
    ),
    (
        "gateway.default_class = \"a\"\n[[class]]\nname = \"a\"\ndelivery = \"buffered\"\nreplay_topic = \"{topic}\"",
        "`replay_topic` has no effect",
    ),
    (
        "gateway.default_class = \"a\"\n[[class]]\nname = \"a\"\ndelivery = \"buffered\"\nreplay_topic = \"old\"",
        "`replay_topic` does not hold {topic}",
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
