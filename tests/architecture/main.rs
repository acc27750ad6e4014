//! Does the code keep to `gateway/ARCHITECTURE.md`? Reads the project's own sources and documents
//! and holds them to the rules in [`rules`]. The list of doors is read from the page itself, so
//! that page and code cannot drift apart.
#![allow(
    clippy::disallowed_methods,
    reason = "a test that reads the project's own files"
)]

mod document;
mod rules;
mod scan;

use std::fs;
use std::path::{Path, PathBuf};

use document::Page;
use scan::Source;

/// The documents whose file names are checked; the CHANGELOG may speak of what is gone.
const DOCUMENTS: &[&str] = &["README.md", "gateway/ARCHITECTURE.md"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn page() -> Page {
    Page::parse(&read("gateway/ARCHITECTURE.md")).unwrap()
}

/// Every source of the gateway, tests in files of their own left out.
fn sources() -> Vec<Source> {
    let house = root().join("gateway/src");
    let mut files = Vec::new();
    collect(&house, &mut files);
    files.sort();
    let sources: Vec<Source> = files
        .iter()
        .map(|file| {
            let path = file.strip_prefix(&house).unwrap().to_str().unwrap();
            Source::new(path, &fs::read_to_string(file).unwrap())
        })
        .collect();
    assert!(sources.len() > 10, "the gateway's sources were not found");
    rules::without_test_files(sources)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            files.push(path);
        }
    }
}

fn none(breaches: &[String]) {
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

#[test]
fn do_only_doors_read_clocks_open_sockets_touch_disks_or_spawn() {
    none(&rules::only_doors_act(&sources(), &page()));
}

#[test]
fn do_only_doors_lift_the_bans() {
    none(&rules::only_doors_lift_bans(&sources(), &page()));
}

#[test]
fn is_the_list_of_doors_true() {
    none(&rules::the_list_is_true(&sources(), &page()));
}

#[test]
fn does_traffic_never_name_control() {
    none(&rules::traffic_never_names_control(&sources()));
}

#[test]
fn does_every_file_say_what_it_is_for() {
    none(&rules::every_file_says_what_it_is_for(&sources()));
}

#[test]
fn is_there_no_room_for_everything() {
    none(&rules::no_room_for_everything(&sources()));
}

#[test]
fn does_no_room_eat_the_house() {
    none(&rules::no_room_eats_the_house(&sources()));
}

#[test]
fn is_there_no_hidden_state() {
    none(&rules::no_hidden_state(&sources(), &page()));
}

#[test]
fn is_unsafe_forbidden() {
    let workspace = read("Cargo.toml");
    let members = workspace
        .lines()
        .find_map(|line| line.trim().strip_prefix("members = "))
        .unwrap();
    let packages: Vec<(String, String)> = members
        .split('"')
        .skip(1)
        .step_by(2)
        .map(|member| format!("{member}/Cargo.toml"))
        .map(|path| (path.clone(), read(&path)))
        .collect();
    assert!(
        !packages.is_empty(),
        "members must stand on one line in Cargo.toml"
    );
    none(&rules::unsafe_is_forbidden(
        &workspace,
        &packages,
        &sources(),
    ));
}

#[test]
fn do_the_documents_name_only_files_that_are_there() {
    let mut documents: Vec<String> = DOCUMENTS.iter().map(|d| (*d).to_owned()).collect();
    for entry in fs::read_dir(root().join("gateway/docs/decisions")).unwrap() {
        let name = entry.unwrap().file_name();
        documents.push(format!("gateway/docs/decisions/{}", name.to_str().unwrap()));
    }
    let places = ["", "gateway", "gateway/src"].map(|place| root().join(place));
    let exists = |path: &str| places.iter().any(|place| place.join(path).is_file());
    for document in documents {
        none(&rules::documents_name_what_is_there(
            &document,
            &read(&document),
            exists,
        ));
    }
}
