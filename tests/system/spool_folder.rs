//! What an operator, a second gateway, a bad card or a stranger does to the state folder: is it said,
//! is nothing deleted, and does the gateway start and carry on?

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use crate::broker::Stop;
use crate::device::Device;
use crate::fleet::{Fleet, Plan, total_far};
use crate::gateway::{Gateway, tidegate};
use crate::spool_site::{HOME, SpoolSite, files_in, say, wait_for_bytes};
use crate::wait::{SOON, code, run_to_end, wait_until};
use crate::wire::Version;

/// A site with a backlog of several segments or one, its gateway killed.
fn killed_with_backlog(plans: &[Plan]) -> (SpoolSite, Vec<Fleet>) {
    let mut site = SpoolSite::new();
    site.outage();
    let mut fleets: Vec<_> = plans.iter().map(|plan| site.play(plan)).collect();
    for fleet in &mut fleets {
        fleet.wait_all_answered(HOME);
    }
    site.gateway.kill();
    (site, fleets)
}

/// The cloud is back, and all that these fleets sent arrives there.
#[track_caller]
fn comes_home(site: &mut SpoolSite, fleets: impl IntoIterator<Item = Fleet>) {
    site.recover();
    for fleet in fleets {
        fleet.finish_at_home(HOME);
    }
}

#[test]
fn does_a_second_gateway_on_one_state_folder_say_so_and_end() {
    let mut site = SpoolSite::new();
    let file = site.configuration.write(site.home());
    let output = run_to_end(tidegate().arg("run").arg("-c").arg(&file), SOON);
    assert_ne!(code(output.status), 0);
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let state = site.home().join("state");
    assert!(said.contains(state.to_str().unwrap()), "{said}");
    assert!(said.to_lowercase().contains("another"), "{said}");
    assert!(!said.contains("listening on"), "{said}");
    // The first one has noticed nothing.
    site.outage();
    let mut fleet = site.play(&Plan::to("alarm").messages(25));
    fleet.wait_all_answered(SOON);
    comes_home(&mut site, [fleet]);
    site.terminate();
}

#[test]
fn is_the_folder_free_again_after_a_kill() {
    let (mut site, fleets) = killed_with_backlog(&[Plan::to("alarm").messages(25)]);
    site.begin();
    comes_home(&mut site, fleets);
}

#[test]
fn is_a_file_in_the_place_of_the_spool_folder_told_and_left_alone() {
    let mut site = SpoolSite::new();
    site.end(Stop::Clean);
    let spool = site.spool();
    fs::remove_dir_all(&spool).unwrap();
    fs::write(&spool, "a stranger's").unwrap();
    let mut gateway = Gateway::spawn_in(&site.configuration, site.home());
    gateway.wait_for_line(spool.to_str().unwrap(), SOON);
    assert_eq!(fs::read_to_string(&spool).unwrap(), "a stranger's");
}

#[test]
fn does_a_folder_that_cannot_be_written_cost_only_what_needs_the_disk() {
    let mut site = SpoolSite::new();
    let spool = site.spool();
    wait_until("there is a spool folder", SOON, || spool.is_dir());
    let Some(_locked) = Locked::new(&spool) else {
        return;
    };
    site.restart_without_check();
    site.wait_connected();
    let mut device = Device::new(site.port(), Version::V5, "d");
    assert!(device.publish_and_wait("alarm/a", "000 00000000", 1) < 0x80);
    site.outage();
    device.publish("alarm/a", "000 00000001", 1);
    site.gateway.wait_for_line(spool.to_str().unwrap(), SOON);
    device.ping();
    assert_eq!(device.unanswered(), 1, "acknowledged before safe");
    drop(_locked);
    // By itself, when the folder is well again.
    device.wait_all_answered(HOME);
    site.recover();
    wait_until("both arrive", HOME, || site.far.tally().different(0) == 2);
    site.terminate();
}

/// A folder that even root cannot write to.
struct Locked(std::path::PathBuf);

impl Locked {
    fn new(folder: &Path) -> Option<Self> {
        let output = Command::new("chattr").arg("+i").arg(folder).output();
        match output {
            Ok(output) if output.status.success() => Some(Self(folder.to_owned())),
            other => {
                say(&format!(
                    "SKIPPED: a folder without permission: chattr +i is not possible here: {other:?}"
                ));
                None
            }
        }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = Command::new("chattr").arg("-i").arg(&self.0).status();
    }
}

#[test]
fn is_a_foreign_file_in_the_spool_left_alone() {
    let (mut site, fleets) = killed_with_backlog(&[Plan::to("alarm").messages(50)]);
    let foreign = [
        ("notes.txt", "bring milk"),
        ("lost+found.bak", ""),
        ("critical.0000000g.redb", "no number"),
    ];
    for (name, text) in foreign {
        fs::write(site.spool().join(name), text).unwrap();
    }
    fs::create_dir(site.spool().join("folder.00000001.redb")).unwrap();
    site.begin();
    comes_home(&mut site, fleets);
    site.terminate();
    for (name, text) in foreign {
        let found = fs::read_to_string(site.spool().join(name));
        assert_eq!(found.ok().as_deref(), Some(text), "{name} was touched");
    }
}

#[test]
fn does_it_start_with_torn_and_foreign_segments_and_send_all_others() {
    let plan = |topic| Plan::to(topic).devices(10).messages(200);
    let plans = [plan("alarm"), plan("sure"), plan("value")];
    let (mut site, mut fleets) = killed_with_backlog(&plans);
    wait_for_bytes(&site.spool(), 1);
    let segments = files_in(&site.spool(), ".redb");
    let of = |class: &str| {
        let mut files = segments.iter();
        let name = |path: &&std::path::PathBuf| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with(class)
        };
        files
            .find(name)
            .unwrap_or_else(|| panic!("no segment of {class}: {segments:?}"))
            .clone()
    };
    // One is cut in half, one is not what its name says; the first class's is whole.
    let torn = of("sure.");
    let length = fs::metadata(&torn).unwrap().len();
    File::options()
        .write(true)
        .open(&torn)
        .unwrap()
        .set_len(length / 2)
        .unwrap();
    fs::write(of("normal."), vec![0x5a; 100_000]).unwrap();
    // And two that are nothing at all.
    fs::write(site.spool().join("critical.7fffff00.redb"), "").unwrap();
    fs::write(site.spool().join("sure.7fffff01.redb"), vec![0; 8192]).unwrap();
    site.begin();
    // Each is told, with what came of it, and kept for who wants to look.
    wait_until("both damaged files are told", SOON, || {
        let lines = site.gateway.lines();
        let told = lines.iter().filter(|line| {
            let words = ["was set aside", "recovered", "lost"];
            words.iter().all(|word| line.contains(word))
        });
        told.count() == 2
    });
    assert_eq!(files_in(&site.spool(), ".damaged").len(), 2);
    comes_home(&mut site, fleets.drain(..1));
    // It takes and keeps new ones.
    site.outage();
    let plans = ["alarm/b", "sure/b", "value/b"].map(|topic| Plan::to(topic).messages(125));
    let mut more = plans.map(|plan| site.play(&plan));
    more.iter_mut()
        .for_each(|fleet| fleet.wait_all_answered(HOME));
    comes_home(&mut site, more);
    let ledger = site.terminate();
    let sure = fleets.remove(0).finish().account;
    let came_home = total_far(&sure, |far| far.arrived);
    say(&format!(
        "of a segment cut in half {} of 2000 messages came home",
        came_home
    ));
    assert_eq!(ledger.total("on_disk"), 0, "{ledger:?}");
}
