//! Fleets that cannot run: told at once, with what to do.
#![allow(
    clippy::disallowed_methods,
    reason = "runs the binary under other limits"
)]

use std::net::TcpListener;
use std::process::Command;

use crate::broker::{Broker, free_port};
use crate::command::{Said, end, number, run, scenario, start};

#[track_caller]
fn assert_refused(said: &Said, words: &[&str]) {
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.out.is_empty(), "{said:?}");
    for word in words {
        assert!(said.err.contains(word), "{word} is not in {said:?}");
    }
}

#[test]
fn is_an_unknown_key_told_with_file_and_line() {
    let file = scenario("[[phase]]\nkind = \"steady\"\nseconds = 1\nsped = 2\n");
    let path = file.path().to_str().unwrap();
    let said = run(&["run", "--scenario", path]);
    assert_refused(&said, &[path, "line 4", "`sped`"]);
    let said = run(&["run", "--scenario", "/no/such/file.toml"]);
    assert_refused(&said, &["/no/such/file.toml", "config/scenarios"]);
}

#[test]
fn is_a_gateway_that_is_not_there_told_with_what_to_do() {
    let nobody = format!("127.0.0.1:{}", free_port());
    let said = run(&["run", "--connect", &nobody]);
    assert_refused(
        &said,
        &[&nobody, "nobody listens there", "tidegate run", "--connect"],
    );
    let said = run(&["run", "--connect", "no-such-host.invalid"]);
    assert_refused(&said, &["no-such-host.invalid", "use an address"]);
}

#[test]
fn is_something_else_than_a_gateway_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let child = start(&mut crate::command::firmware_sim(&[
        "run",
        "--connect",
        &address,
    ]));
    let (mut stream, _) = listener.accept().unwrap();
    std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    drop(stream);
    assert_refused(&end(child), &[&address, "is it a gateway?"]);
}

#[test]
fn is_a_far_end_that_is_not_there_told() {
    let broker = Broker::start();
    let nobody = format!("127.0.0.1:{}", free_port());
    let said = run(&["run", "--connect", &broker.address(), "--watch", &nobody]);
    assert_refused(&said, &[&nobody, "cannot be watched", "leave --watch out"]);
}

/// The binary under limits that a shell sets.
fn under_limits(limits: &str, arguments: &str) -> Said {
    let binary = env!("CARGO_BIN_EXE_firmware-sim");
    let script = format!("{limits}; exec '{binary}' run {arguments}");
    end(start(Command::new("sh").args(["-c", &script])))
}

#[test]
fn are_more_devices_than_the_system_holds_told_with_how_many_it_does() {
    let said = under_limits("ulimit -n 100", "--devices 200");
    assert_refused(
        &said,
        &["232 file descriptors", "--devices 68", "ulimit -Hn"],
    );
}

#[test]
fn is_a_soft_limit_raised_without_asking() {
    let broker = Broker::start();
    let file = scenario("[[phase]]\nkind = \"steady\"\nseconds = 2\n");
    let arguments = format!(
        "--json --devices 200 --connect {} --scenario {}",
        broker.address(),
        file.path().display()
    );
    let said = under_limits("ulimit -Sn 64", &arguments);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(number(&said.account(), "/run/connections_broken"), 0);
}
