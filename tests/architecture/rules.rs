//! The architecture's rules. Each takes sources (and what `gateway/ARCHITECTURE.md` says about
//! them) and gives back every breach as a sentence; none reads a file. That each rule can fail is
//! shown beside it, on made-up sources.

use crate::document::Page;
use crate::scan::{Source, TestModule, lines_naming, shipped_lines, test_modules};

/// What only a door may do: the word for it in the list of doors, the names that give it away, and
/// what to do instead.
struct Capability {
    word: &'static str,
    names: &'static [&'static str],
    instead: &'static str,
}

const CAPABILITIES: &[Capability] = &[
    Capability {
        word: "clock",
        names: &[
            "Instant",
            "SystemTime",
            "UNIX_EPOCH",
            "Clock",
            "tokio::time",
        ],
        instead: "take the time as a Tick",
    },
    Capability {
        word: "socket",
        names: &[
            "TcpStream",
            "TcpListener",
            "TcpSocket",
            "UdpSocket",
            "UnixStream",
            "UnixListener",
            "UnixDatagram",
            "ToSocketAddrs",
            "lookup_host",
            "socket2",
            "tokio::net",
            "AsyncClient",
            "EventLoop",
        ],
        instead: "give the bytes back as a value and let a door write them",
    },
    Capability {
        word: "disk",
        names: &[
            "fs",
            "from_pem_file",
            "pem_file_iter",
            "rustls_native_certs",
            ".exists(",
            ".try_exists(",
            ".is_file(",
            ".is_dir(",
            ".canonicalize(",
            ".read_dir(",
        ],
        instead: "take the content as an argument",
    },
    Capability {
        word: "task",
        names: &[
            "spawn",
            "spawn_blocking",
            "spawn_local",
            "block_on",
            "JoinSet",
            "JoinHandle",
            "std::thread",
            "tokio::task",
            "tokio::runtime",
            "tokio::main",
        ],
        instead: "be called by a door's task",
    },
    Capability {
        word: "process",
        names: &["process::Command", "process::exit", "process::abort"],
        instead: "return",
    },
    Capability {
        word: "signal",
        names: &["tokio::signal", "sd_notify"],
        instead: "listen to the shutdown's phase",
    },
    Capability {
        word: "environment",
        names: &["std::env"],
        instead: "take the value as an argument",
    },
    Capability {
        word: "random",
        names: &["getrandom", "rand", "RandomState"],
        instead: "take a seed or the drawn number as an argument",
    },
    Capability {
        word: "terminal",
        names: &[
            "print!",
            "println!",
            "eprint!",
            "eprintln!",
            "stdout",
            "stderr",
            "stdin",
        ],
        instead: "give the text back, or log it",
    },
];

/// Words of rooms in which a line would not know where it lives.
const BAD_ROOMS: &[&str] = &[
    "util", "utils", "common", "base", "core", "helper", "helpers", "manager", "misc", "types",
    "handler", "handlers",
];

/// A file longer than this holds more than one idea.
const LINES_MAX: usize = 600;

/// State that two tasks can change. A cell that is written once is none.
const LOCKS: &[&str] = &[
    "Mutex",
    "RwLock",
    "Condvar",
    "RefCell",
    "UnsafeCell",
    "AtomicBool",
    "AtomicU32",
    "AtomicU64",
    "AtomicUsize",
    "AtomicI64",
];

/// State that belongs to nobody. Not even a door has it.
const GLOBALS: &[&str] = &["static", "LazyLock", "thread_local!", "lazy_static"];

/// Only doors read clocks, open sockets, touch the disk, spawn tasks and so on, and each door does
/// only what the list says.
pub(crate) fn only_doors_act(sources: &[Source], page: &Page) -> Vec<String> {
    let mut breaches = Vec::new();
    for source in sources {
        for capability in CAPABILITIES {
            if page.allows(&source.path, capability.word) {
                continue;
            }
            for name in capability.names {
                for line in lines_naming(&source.code, name) {
                    breaches.push(format!(
                        "{}:{line} names `{name}`, but is not a door for `{}`: {}",
                        source.path, capability.word, capability.instead
                    ));
                }
            }
        }
    }
    breaches
}

/// Only doors lift clippy's bans.
pub(crate) fn only_doors_lift_bans(sources: &[Source], page: &Page) -> Vec<String> {
    let lifted = |source: &Source| {
        [
            "clippy::disallowed_methods",
            "clippy::disallowed_types",
            "clippy::disallowed_macros",
        ]
        .iter()
        .flat_map(|name| lines_naming(&source.code, name))
        .collect::<Vec<_>>()
    };
    sources
        .iter()
        .filter(|source| !page.is_door(&source.path))
        .flat_map(|source| lifted(source).into_iter().map(move |line| (source, line)))
        .map(|(source, line)| format!("{}:{line} lifts a ban, but is not a door", source.path))
        .collect()
}

/// The list of doors says nothing that the code does not do: no door that is gone, no word that a
/// rule does not know, no permission that nobody uses.
pub(crate) fn the_list_is_true(sources: &[Source], page: &Page) -> Vec<String> {
    let mut breaches = Vec::new();
    for door in &page.doors {
        let files: Vec<&Source> = sources.iter().filter(|s| door.covers(&s.path)).collect();
        if files.is_empty() {
            breaches.push(format!(
                "the door {} is gone: take it off the list",
                door.path
            ));
            continue;
        }
        for word in &door.may {
            let Some(capability) = CAPABILITIES.iter().find(|c| c.word == word) else {
                breaches.push(format!("{}: no such permission as `{word}`", door.path));
                continue;
            };
            let used = |source: &&Source| {
                capability
                    .names
                    .iter()
                    .any(|name| !lines_naming(&source.code, name).is_empty())
            };
            if !files.iter().any(used) {
                breaches.push(format!("{} does not use `{word}`: take it off", door.path));
            }
        }
    }
    for exception in &page.exceptions {
        let stands = sources.iter().any(|s| {
            s.path == exception.path && !lines_naming(&s.code, &exception.name).is_empty()
        });
        if !stands {
            let (path, name) = (&exception.path, &exception.name);
            breaches.push(format!(
                "{path} has no `{name}` any more: take it off the list"
            ));
        }
    }
    breaches
}

/// The data plane never names the operator's plane. A room inside `traffic` may be called so too:
/// what counts is the path from the crate's root.
pub(crate) fn traffic_never_names_control(sources: &[Source]) -> Vec<String> {
    let named = |source: &Source| {
        let from_here = format!("{}control", "super::".repeat(depth(&source.path)));
        ["crate::control", "tidegate::control", &from_here]
            .iter()
            .flat_map(|path| lines_naming(&source.code, path))
            .collect::<Vec<_>>()
    };
    sources
        .iter()
        .filter(|source| source.path.starts_with("traffic/"))
        .flat_map(|source| named(source).into_iter().map(move |line| (source, line)))
        .map(|(source, line)| {
            format!(
                "{}:{line} names `control`: settings' types live in `traffic`",
                source.path
            )
        })
        .collect()
}

/// How many modules stand between a file and the crate's root.
fn depth(path: &str) -> usize {
    let parts = path.split('/').count();
    parts - usize::from(path.ends_with("mod.rs"))
}

/// Every file opens with what its room is for.
pub(crate) fn every_file_says_what_it_is_for(sources: &[Source]) -> Vec<String> {
    sources
        .iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| format!("{} does not open with `//!`", source.path))
        .collect()
}

/// No room has a name that fits everything.
pub(crate) fn no_room_for_everything(sources: &[Source]) -> Vec<String> {
    sources
        .iter()
        .filter_map(|source| {
            let stem = source.path.strip_suffix(".rs")?;
            let bad = stem
                .split(['/', '_'])
                .find(|word| BAD_ROOMS.contains(word))?;
            Some(format!("{}: `{bad}` names no idea", source.path))
        })
        .collect()
}

/// No file eats the house. Test code does not count.
pub(crate) fn no_room_eats_the_house(sources: &[Source]) -> Vec<String> {
    sources
        .iter()
        .map(|source| (source, shipped_lines(&source.text)))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(source, lines)| {
            format!(
                "{} has {lines} lines, at most {LINES_MAX}: split it by who owns the state",
                source.path
            )
        })
        .collect()
}

/// One task owns the path: no locks outside the doors, no globals anywhere, but for the reasoned
/// exceptions.
pub(crate) fn no_hidden_state(sources: &[Source], page: &Page) -> Vec<String> {
    let mut breaches = Vec::new();
    for source in sources {
        let locks = if page.is_door(&source.path) {
            &[][..]
        } else {
            LOCKS
        };
        for name in locks
            .iter()
            .chain(GLOBALS)
            .filter(|name| !page.excepts(&source.path, name))
        {
            for line in lines_naming(&source.code, name) {
                let path = &source.path;
                breaches.push(format!(
                    "{path}:{line} has `{name}`: let the task that needs it own it"
                ));
            }
        }
    }
    breaches
}

/// No `unsafe`, by lint for every package, and not even by word.
pub(crate) fn unsafe_is_forbidden(
    workspace: &str,
    packages: &[(String, String)],
    sources: &[Source],
) -> Vec<String> {
    let mut breaches = Vec::new();
    if !section(workspace, "[workspace.lints.rust]").any(|line| line == "unsafe_code = \"forbid\"")
    {
        breaches
            .push("Cargo.toml: [workspace.lints.rust] must say unsafe_code = \"forbid\"".into());
    }
    for (path, manifest) in packages {
        if !section(manifest, "[lints]").any(|line| line == "workspace = true") {
            breaches.push(format!("{path}: [lints] must say workspace = true"));
        }
    }
    for source in sources {
        for line in lines_naming(&source.code, "unsafe") {
            breaches.push(format!("{}:{line} has `unsafe`", source.path));
        }
    }
    breaches
}

fn section<'a>(manifest: &'a str, header: &'a str) -> impl Iterator<Item = &'a str> {
    manifest
        .lines()
        .map(str::trim)
        .skip_while(move |line| *line != header)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
}

/// Every file that a document names in backticks exists. `exists` is asked for the path as
/// written.
pub(crate) fn documents_name_what_is_there(
    document: &str,
    text: &str,
    exists: impl Fn(&str) -> bool,
) -> Vec<String> {
    crate::document::files_named(text)
        .into_iter()
        .filter(|path| !exists(path))
        .map(|path| format!("{document} names {path}, which is not there"))
        .collect()
}

/// The sources without those that another declares as test code.
pub(crate) fn without_test_files(sources: Vec<Source>) -> Vec<Source> {
    let tests: Vec<String> = sources
        .iter()
        .flat_map(|source| {
            let modules = test_modules(&source.text).into_iter();
            modules.map(|module| match module {
                TestModule::Beside(path) => format!("{}{path}", folder_of(&source.path)),
                TestModule::Below(name) => format!("{}{name}", room_of(&source.path)),
            })
        })
        .collect();
    let is_test = |path: &str| {
        tests.iter().any(|test| {
            path.strip_prefix(test.as_str())
                .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        })
    };
    sources
        .into_iter()
        .filter(|source| !is_test(&source.path))
        .collect()
}

/// The folder of a file, with a final `/` unless it is the root.
fn folder_of(path: &str) -> &str {
    path.rfind('/').map_or("", |slash| &path[..=slash])
}

/// The folder in which a file's modules live, with a final `/` unless it is the root.
fn room_of(path: &str) -> String {
    let folder = folder_of(path);
    match &path[folder.len()..] {
        "mod.rs" | "lib.rs" | "main.rs" => folder.to_owned(),
        file => format!("{folder}{}/", file.trim_end_matches(".rs")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
```doors
clock.rs            | clock       | reads clocks
traffic/drive.rs    | clock task  | owns the relay
traffic/listener/*  | socket      | takes devices in
```
```exceptions
traffic/memory.rs | AtomicU64 | counts bytes for all doors
```
";

    fn page() -> Page {
        Page::parse(PAGE).unwrap()
    }

    fn one(path: &str, text: &str) -> Vec<Source> {
        vec![Source::new(path, text)]
    }

    #[test]
    fn is_a_clock_outside_the_doors_seen() {
        let text = "use std::time::{Duration, Instant};\nfn f() -> Instant { Instant::now() }\n";
        assert_eq!(
            only_doors_act(&one("traffic/relay.rs", text), &page()).len(),
            2
        );
        assert_eq!(only_doors_act(&one("clock.rs", text), &page()), [""; 0]);
    }

    #[test]
    fn may_a_door_do_what_its_line_does_not_say() {
        let text = "use tokio::net::TcpStream;\n";
        assert!(!only_doors_act(&one("traffic/drive.rs", text), &page()).is_empty());
        assert!(only_doors_act(&one("traffic/listener/session.rs", text), &page()).is_empty());
    }

    #[test]
    fn is_every_capability_seen() {
        for (text, word) in [
            ("fn f() { tokio::time::sleep(d); }", "clock"),
            ("use tokio::{net::TcpListener};", "socket"),
            ("use std::{fs, io};", "disk"),
            ("fn f(p: &Path) -> bool { p.exists() }", "disk"),
            ("fn f() { tokio::spawn(g()); }", "task"),
            ("fn f() { std::process::exit(1); }", "process"),
            ("use tokio::signal;", "signal"),
            ("fn f() { std::env::var(\"X\"); }", "environment"),
            ("fn f() { getrandom::fill(b); }", "random"),
            ("fn f() { println!(\"x\"); }", "terminal"),
        ] {
            let breaches = only_doors_act(&one("traffic/relay.rs", text), &page());
            assert!(
                breaches.iter().any(|b| b.contains(&format!("`{word}`"))),
                "{text}: {breaches:?}"
            );
        }
    }

    #[test]
    fn does_a_test_read_clocks_without_harm() {
        let text = "//! Room.\n#[cfg(test)]\nmod tests {\n    use std::time::Instant;\n}\n";
        assert_eq!(
            only_doors_act(&one("traffic/relay.rs", text), &page()),
            [""; 0]
        );
    }

    #[test]
    fn is_a_lifted_ban_seen() {
        let text = "#![allow(clippy::disallowed_methods, reason = \"\")]\n";
        assert_eq!(
            only_doors_lift_bans(&one("traffic/relay.rs", text), &page()).len(),
            1
        );
        assert_eq!(
            only_doors_lift_bans(&one("clock.rs", text), &page()),
            [""; 0]
        );
    }

    #[test]
    fn is_a_stale_list_seen() {
        let sources = [
            Source::new("clock.rs", "fn f() { Instant::now(); }"),
            Source::new("traffic/drive.rs", "fn f() { Instant::now(); }"),
        ];
        let breaches = the_list_is_true(&sources, &page());
        assert_eq!(breaches.len(), 3, "{breaches:?}");
        assert!(breaches[0].contains("does not use `task`"));
        assert!(breaches[1].contains("traffic/listener/* is gone"));
        assert!(breaches[2].contains("has no `AtomicU64`"));
    }

    #[test]
    fn is_control_seen_however_it_is_named() {
        for text in [
            "use crate::control::config::Config;",
            "use crate::{clock, control};",
            "fn f() { super::super::control::run(); }",
            "use super::super::{control::x, y};",
        ] {
            assert_eq!(
                traffic_never_names_control(&one("traffic/relay.rs", text)).len(),
                1,
                "{text}"
            );
            assert_eq!(traffic_never_names_control(&one("run.rs", text)), [""; 0]);
        }
        let innocent =
            "//! [`control`](crate::control)\nfn f(control: u8) { let x = control_x; }\n";
        assert_eq!(
            traffic_never_names_control(&one("traffic/relay.rs", innocent)),
            [""; 0]
        );
        let up = "use super::control::Config;";
        assert_eq!(
            traffic_never_names_control(&one("traffic/mod.rs", up)).len(),
            1
        );
    }

    #[test]
    fn is_a_file_without_its_essay_seen() {
        assert_eq!(
            every_file_says_what_it_is_for(&one("a.rs", "use x;\n//! Late.\n")).len(),
            1
        );
        assert_eq!(
            every_file_says_what_it_is_for(&one("a.rs", "//! Early.\n")),
            [""; 0]
        );
    }

    #[test]
    fn is_a_room_for_everything_seen() {
        for path in [
            "traffic/util.rs",
            "core/mod.rs",
            "traffic/queue_manager.rs",
            "types.rs",
        ] {
            assert_eq!(no_room_for_everything(&one(path, "")).len(), 1, "{path}");
        }
        assert_eq!(
            no_room_for_everything(&one("traffic/database.rs", "")),
            [""; 0]
        );
    }

    #[test]
    fn is_a_room_that_eats_the_house_seen() {
        let long = "//! Long.\n".repeat(LINES_MAX + 1);
        assert_eq!(no_room_eats_the_house(&one("a.rs", &long)).len(), 1);
        let tests = format!("//! Short.\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
        assert_eq!(no_room_eats_the_house(&one("a.rs", &tests)), [""; 0]);
    }

    #[test]
    fn is_hidden_state_seen() {
        for text in [
            "use std::sync::{Arc, Mutex};",
            "static COUNT: AtomicU64 = AtomicU64::new(0);",
            "thread_local! { }",
            "static mut X: u8 = 0;",
        ] {
            assert!(
                !no_hidden_state(&one("traffic/relay.rs", text), &page()).is_empty(),
                "{text}"
            );
        }
        let counter = "struct Room { bytes: AtomicU64, name: &'static str }";
        assert_eq!(
            no_hidden_state(&one("traffic/memory.rs", counter), &page()),
            [""; 0]
        );
        assert_eq!(
            no_hidden_state(&one("traffic/drive.rs", "static X: u8 = 0;"), &page()).len(),
            1
        );
        assert_eq!(
            no_hidden_state(&one("traffic/drive.rs", "use std::sync::Mutex;"), &page()),
            [""; 0]
        );
    }

    #[test]
    fn is_unsafe_seen() {
        let workspace = "[workspace.lints.rust]\nunsafe_code = \"forbid\"\n[x]\n";
        let package = |text: &str| vec![("a/Cargo.toml".to_owned(), text.to_owned())];
        let good = package("[lints]\nworkspace = true\n");
        assert_eq!(unsafe_is_forbidden(workspace, &good, &[]), [""; 0]);
        assert_eq!(
            unsafe_is_forbidden(
                "[workspace.lints.rust]\n[y]\nunsafe_code = \"forbid\"",
                &good,
                &[]
            )
            .len(),
            1
        );
        assert_eq!(
            unsafe_is_forbidden(workspace, &package("[lints]\n"), &[]).len(),
            1
        );
        assert_eq!(
            unsafe_is_forbidden(workspace, &good, &one("a.rs", "unsafe { x() }")).len(),
            1
        );
    }

    #[test]
    fn is_a_document_that_names_a_gone_file_seen() {
        let text =
            "See `traffic/relay.rs` and `traffic/gone.rs`, run `cargo x.rs`, edit `tidegate.toml`.";
        let breaches =
            documents_name_what_is_there("A.md", text, |path| path == "traffic/relay.rs");
        assert_eq!(breaches, ["A.md names traffic/gone.rs, which is not there"]);
    }

    #[test]
    fn is_a_file_of_tests_left_out() {
        let sources = vec![
            Source::new("traffic/queue/mod.rs", "#[cfg(test)]\nmod tests;\n"),
            Source::new("traffic/queue/tests.rs", ""),
            Source::new("traffic/relay.rs", "#[cfg(test)]\nmod model;\n"),
            Source::new("traffic/relay/model/plain.rs", ""),
            Source::new("traffic/tests.rs", ""),
            Source::new(
                "traffic/send/window.rs",
                "#[cfg(test)]\n#[path = \"window_tests.rs\"]\nmod tests;\n",
            ),
            Source::new("traffic/send/window_tests.rs", ""),
        ];
        let left: Vec<String> = without_test_files(sources)
            .into_iter()
            .map(|s| s.path)
            .collect();
        assert_eq!(
            left,
            [
                "traffic/queue/mod.rs",
                "traffic/relay.rs",
                "traffic/tests.rs",
                "traffic/send/window.rs"
            ]
        );
    }
}
