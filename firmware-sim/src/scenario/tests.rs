//! Scenarios as people write them: the ones that come with the project, and wrong ones.

use std::time::Duration;

use super::*;

/// What is said about a wrong scenario.
fn faults(text: &str) -> String {
    Scenario::read(text).unwrap_err().to_string()
}

#[test]
fn is_the_story_told_in_a_minute_with_every_trouble() {
    let story = Scenario::read(STORY).unwrap();
    assert_eq!(story.length(), Duration::from_secs(60));
    let kinds: std::collections::BTreeSet<_> = story.phases().map(|phase| phase.name).collect();
    assert_eq!(kinds.len(), 8, "{kinds:?}");
}

#[test]
#[allow(clippy::disallowed_methods, reason = "reads the project's scenarios")]
fn are_all_scenarios_of_the_project_sound() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/scenarios");
    let mut read = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        if let Err(faults) = Scenario::read(&text) {
            panic!("{}: {faults}", path.display());
        }
        read += 1;
    }
    assert!(read >= 18, "{read} scenarios");
}

#[test]
fn are_phases_repeated_as_often_as_they_fit_and_once_at_least() {
    let text =
        "[[phase]]\nkind = \"burst\"\nseconds = 5\n[[phase]]\nkind = \"steady\"\nseconds = 5\n";
    let scenario = Scenario::read(text).unwrap();
    for (seconds, rounds) in [(600, 60), (39, 3), (10, 1), (1, 1)] {
        let repeated = scenario.clone().repeated_for(Duration::from_secs(seconds));
        let names: Vec<_> = repeated.phases().map(|phase| phase.name).collect();
        assert_eq!(names, ["burst", "steady"].repeat(rounds), "{seconds} s");
    }
}

#[test]
fn is_an_unknown_key_told_with_its_line() {
    let text = "[[phase]]\nkind = \"steady\"\nseconds = 1\nsecond = 2\n";
    let said = faults(text);
    assert!(said.starts_with("line 4: unknown field `second`"), "{said}");
    let said = faults("[fleet]\n\nchanels = 2\n[[phase]]\nkind = \"steady\"\nseconds = 1\n");
    assert!(
        said.starts_with("line 3: unknown field `chanels`"),
        "{said}"
    );
}

#[test]
fn is_a_key_that_means_nothing_here_told_with_those_that_do() {
    let said = faults("[[phase]]\nkind = \"flapping\"\nseconds = 1\nfactor = 2\n");
    assert!(said.starts_with("line 4: `factor` means nothing"), "{said}");
    assert!(said.contains("share, up_seconds, down_seconds"), "{said}");
    let said = faults("[[phase]]\nkind = \"steady\"\nseconds = 1\nreadings = 2\n");
    assert!(
        said.starts_with("line 4: `readings` means nothing"),
        "{said}"
    );
}

#[test]
fn are_all_faults_told_at_once() {
    let said = faults(
        "[fleet]\nchannels = 9\ntopic = \"a/#\"\n[[phase]]\nkind = \"burst\"\nseconds = 0\n\
         readings_per_second = 5000\nfactor = 3\n[[phase]]\nkind = \"alarm-storm\"\nseconds = 1\n\
         alarms_per_minute = 900\nshare = 2\n",
    );
    for fault in [
        "line 2: `channels` is 9; it must be 1 to 8",
        "line 3: `topic` must have",
        "line 4: readings_per_second times factor is 15000",
        "line 6: `seconds` is 0; it must be 0.1 to 604800",
        "line 9: 900 alarms a minute need as many samples",
        "line 13: `share` is 2; it must be 0 to 1",
    ] {
        assert!(said.contains(fault), "{fault} is not among:\n{said}");
    }
}

#[test]
fn is_a_scenario_without_phases_refused() {
    assert!(faults("").contains("there is no [[phase]]"));
    assert!(
        faults("[[phase]\n").starts_with("line 1:"),
        "{}",
        faults("[[phase]\n")
    );
    assert!(
        faults("[[phase]]\nkind = \"x\"\nseconds = 1\n").starts_with("line 2: unknown variant")
    );
}

#[test]
fn does_a_scaled_scenario_keep_its_parts() {
    let story = Scenario::read(STORY)
        .unwrap()
        .scaled_to(Duration::from_secs(6));
    assert_eq!(
        story.phases().next().unwrap().length,
        Duration::from_secs(1)
    );
    let (index, phase, began) = story.at(Tick::from_micros(1_500_000));
    assert_eq!(
        (index, phase.name, began),
        (1, "burst", Tick::from_micros(1_000_000))
    );
    let (index, ..) = story.at(Tick::NEVER);
    assert_eq!(index, 8, "the last one stands after the end");
}
