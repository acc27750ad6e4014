//! Is the page what Prometheus takes? A strict reader of OpenMetrics 1.0, as far as it is used.

use std::collections::{BTreeMap, HashSet};

use super::*;
use crate::traffic::status::sample;

#[derive(Default)]
struct Family {
    kind: String,
    help: String,
    unit: String,
    samples: u32,
}

/// Reads the page and refuses what OpenMetrics does not allow: families whose lines are apart,
/// samples without a family, names and labels of wrong form, series that stand there twice. Gives
/// the families, and the value of each series as it is written.
fn read(text: &str) -> (BTreeMap<String, Family>, BTreeMap<String, f64>) {
    let (mut families, mut series) = (BTreeMap::<String, Family>::new(), BTreeMap::new());
    let mut current = String::new();
    let body = text.strip_suffix("# EOF\n").expect("ends with # EOF");
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let [what, name, rest] = [(); 3].map(|()| words.next().expect(line));
            assert!(is_name(name), "{line}");
            if name != current {
                assert!(!families.contains_key(name), "{name} in two places");
                current = name.to_owned();
            }
            let family = families.entry(name.to_owned()).or_default();
            assert_eq!(family.samples, 0, "{line} after samples");
            let field = match what {
                "HELP" => &mut family.help,
                "TYPE" => &mut family.kind,
                "UNIT" => &mut family.unit,
                _ => panic!("{line}"),
            };
            assert!(field.is_empty() && !rest.is_empty(), "{line}");
            *field = rest.to_owned();
        } else {
            let (key, value) = line.rsplit_once(' ').expect(line);
            let name = key.split('{').next().unwrap();
            let family = families.get_mut(&current).expect(line);
            let suffix = match &*family.kind {
                "counter" => "_total",
                "info" => "_info",
                "gauge" => "",
                kind => panic!("{kind} of {name}"),
            };
            assert_eq!(name, format!("{current}{suffix}"));
            family.samples += 1;
            if let Some(labels) = key.strip_prefix(name).filter(|labels| !labels.is_empty()) {
                read_labels(labels);
            }
            let value: f64 = value.parse().expect(line);
            assert!(value.is_finite() && (family.kind != "counter" || value >= 0.0));
            assert!(
                series.insert(key.to_owned(), value).is_none(),
                "{key} twice"
            );
        }
    }
    (families, series)
}

fn is_name(name: &str) -> bool {
    let word = |c: char| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit();
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(word)
}

/// Takes `{a="b",c="d"}` apart; escapes are `\\`, `\"`, `\n`.
fn read_labels(labels: &str) {
    let mut rest = labels.strip_prefix('{').expect(labels);
    let mut names = HashSet::new();
    loop {
        let (name, after) = rest.split_once("=\"").expect(labels);
        assert!(is_name(name) && names.insert(name), "{labels}");
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().expect(labels) {
                (at, '"') => break at,
                (_, '\\') => assert!(matches!(chars.next(), Some((_, '\\' | '"' | 'n')))),
                _ => {}
            }
        };
        match &after[end + 1..] {
            "}" => return,
            more => rest = more.strip_prefix(',').expect(labels),
        }
    }
}

fn page(status: Status) -> String {
    let process = Process {
        cpu_seconds: 1.25,
        resident_bytes: 9 << 20,
        start_seconds: 1.8e9,
    };
    text(Arc::new(status), process, true)
}

#[test]
fn is_the_page_what_prometheus_takes() {
    let (families, series) = read(&page(sample()));
    for (name, family) in &families {
        assert!(!family.help.is_empty() && !family.kind.is_empty(), "{name}");
        assert!(family.samples > 0, "{name} has no sample");
        let ours = name.starts_with("tidegate_") || name.starts_with("process_");
        assert!(ours, "{name}");
        // OpenMetrics: a unit ends the name; a counter's family has no `_total`, which samples have.
        assert!(family.unit.is_empty() || name.ends_with(&format!("_{}", family.unit)));
        let measures = name.ends_with("_bytes") || name.ends_with("_seconds");
        assert_eq!(measures, !family.unit.is_empty(), "{name}");
        assert!(!name.ends_with("_total") && !name.ends_with("_info"));
    }
    let names = [
        "tidegate_received_total{class=\"critical\"}",
        "tidegate_messages_total{class=\"critical\",outcome=\"dead_letters\"}",
        "tidegate_queue_bytes{class=\"low\"}",
        "tidegate_uplink_up{link=\"bulk\"}",
        "tidegate_uplink_ack_seconds{link=\"urgent\"}",
        "tidegate_spool_written_bytes_total",
        "tidegate_spool_commit_seconds_total",
        "tidegate_spool_commits_total",
        "tidegate_spool_aside_files",
        "tidegate_dead_letters_disk_messages{class=\"critical\"}",
        "tidegate_dead_letters_lost_total{class=\"low\"}",
        "tidegate_replay_paused{class=\"low\"}",
        "tidegate_disk_free_bytes",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
    ];
    let values = names.map(|name| *series.get(name).unwrap_or_else(|| panic!("{name}")));
    let five_gib = (5_u64 << 30) as f64;
    assert_eq!(
        values,
        [
            1_000.0,
            3.0,
            10_240.0,
            0.0,
            0.0453,
            123_456.0,
            0.12,
            40.0,
            1.0,
            2.0,
            1.0,
            0.0,
            five_gib,
            1.25,
            9_437_184.0
        ]
    );
    assert!(
        series
            .keys()
            .any(|key| key.starts_with("tidegate_build_info{version="))
    );
}

#[test]
fn does_the_ledger_balance_from_the_page_alone() {
    let (_, series) = read(&page(sample()));
    let sum = |prefix: &str| -> f64 {
        let of = series.iter().filter(|(key, _)| key.starts_with(prefix));
        of.map(|(_, value)| value).sum()
    };
    let came = sum("tidegate_found_messages{")
        + sum("tidegate_received_total{")
        + sum("tidegate_made_here_total{");
    let ended = sum("tidegate_messages_total{");
    let here = sum("tidegate_memory_messages{") + sum("tidegate_disk_messages{");
    assert_eq!(came, ended + here);
    assert_eq!(sum("tidegate_unaccounted_messages{"), 0.0);
}

#[test]
fn does_an_empty_path_give_a_sound_page() {
    read(&page(Status::default()));
}

#[test]
fn can_a_name_break_the_page() {
    let mut status = sample();
    status.classes[0].name = "a\"} 1\nx{y=\"\\".to_owned();
    read(&page(status));
}
