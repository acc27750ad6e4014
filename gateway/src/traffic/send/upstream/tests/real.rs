//! The door and a real mosquitto.

use std::process::Command;
use std::time::Duration;

use tokio::time::timeout;

use super::ends::{Broker, Door, OPEN, PATIENCE, free_port, publish, refusal, settings};
use crate::traffic::accept::Protocol;
use crate::traffic::send::{LinkCommand, Secret};

#[tokio::test]
async fn does_a_real_broker_acknowledge_what_is_written() {
    for protocol in [Protocol::V311, Protocol::V5] {
        let broker = Broker::start(OPEN);
        let mut door = Door::open(settings(broker.port, protocol));
        let (attempt, limits) = door.up().await;
        assert_eq!(limits.qos_max, 2);
        let packets: Vec<u8> = (1..=200).flat_map(|id| publish(protocol, id)).collect();
        let bytes = packets.len() as u64;
        door.write(attempt, packets).await;
        let (acks, written) = door.acks(200, attempt).await;
        let ids: Vec<u16> = acks.iter().map(|ack| ack.packet_id).collect();
        assert_eq!(ids, (1..=200).collect::<Vec<u16>>());
        assert_eq!(written, bytes);
        door.say(LinkCommand::Shutdown).await;
        assert_eq!(door.down().await, (attempt, None));
        timeout(PATIENCE, door.task).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn does_the_link_come_back_when_the_broker_does() {
    let broker = Broker::start(OPEN);
    let port = broker.port;
    let mut door = Door::open(settings(port, Protocol::V5));
    let (first, _) = door.up().await;
    let dir = broker.end();
    assert_eq!(door.down().await.0, first);
    let _broker = Broker::start_in(dir, port, OPEN);
    let (second, _) = door.up().await;
    assert!(second > first);
    door.write(first, publish(Protocol::V5, 1)).await;
    door.write(second, publish(Protocol::V5, 2)).await;
    let (acks, _) = door.acks(1, second).await;
    assert_eq!(
        acks.iter().map(|ack| ack.packet_id).collect::<Vec<_>>(),
        [2],
        "what was meant for the old connection is dropped"
    );
}

#[tokio::test]
async fn does_reconnect_make_a_new_connection_and_an_old_one_not() {
    let broker = Broker::start(OPEN);
    let mut door = Door::open(settings(broker.port, Protocol::V311));
    let (first, _) = door.up().await;
    door.say(LinkCommand::Reconnect { attempt: first + 7 })
        .await;
    door.say(LinkCommand::Reconnect { attempt: first }).await;
    assert_eq!(door.down().await, (first, None));
    assert!(door.up().await.0 > first);
}

#[tokio::test]
async fn is_a_quiet_connection_kept_alive() {
    let broker = Broker::start(OPEN);
    let mut quiet = settings(broker.port, Protocol::V311);
    quiet.remote.keep_alive = Duration::from_secs(1);
    let mut door = Door::open(quiet);
    door.up().await;
    let event = timeout(Duration::from_secs(4), door.events.recv()).await;
    assert!(event.is_err(), "a quiet connection said {event:?}");
}

#[tokio::test]
async fn are_user_and_password_said_and_a_wrong_one_named() {
    let dir = tempfile::tempdir().unwrap();
    let passwords = dir.path().join("passwords");
    let made = Command::new("mosquitto_passwd")
        .args(["-b", "-c", passwords.to_str().unwrap(), "gate", "s3cret"])
        .status()
        .unwrap();
    assert!(made.success());
    let broker = Broker::start_in(
        dir,
        free_port(),
        "allow_anonymous false\npassword_file {dir}/passwords",
    );
    let file = broker.dir.path().join("password");
    for protocol in [Protocol::V311, Protocol::V5] {
        let mut settings = settings(broker.port, protocol);
        settings.remote.username = Some("gate".to_owned());
        settings.remote.password = Some(Secret::File(file.clone()));
        std::fs::write(&file, "wr0ng\n").unwrap();
        let sentence = refusal(&settings).await;
        assert!(
            sentence.contains("user") && sentence.contains("password"),
            "{sentence}"
        );
        assert!(!sentence.contains("wr0ng"));
        let mut door = Door::open(settings);
        // Mended on disk while the gateway runs.
        std::fs::write(&file, "s3cret\n").unwrap();
        door.up().await;
    }
}

#[tokio::test]
async fn does_nobody_listening_and_no_such_name_have_their_sentences() {
    let sentence = refusal(&settings(free_port(), Protocol::V5)).await;
    assert!(sentence.contains("nothing listens there"), "{sentence}");
    let mut nameless = settings(1, Protocol::V5);
    nameless.remote.host = "no-such-host.invalid".to_owned();
    let sentence = refusal(&nameless).await;
    assert!(sentence.contains("name"), "{sentence}");
}
