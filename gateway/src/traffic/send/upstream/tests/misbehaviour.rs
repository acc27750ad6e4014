//! Far ends that stall, lie or refuse.

use std::io::{Read, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::ends::{Door, PATIENCE, far_end, refusal, settings};
use crate::traffic::accept::Protocol;
use crate::traffic::send::{LinkCommand, LinkEvent};

pub(super) const CONNACK_V311: [u8; 4] = [0x20, 2, 0, 0];

#[tokio::test]
async fn is_a_peer_that_never_answers_given_up_in_time() {
    let kept = Mutex::new(Vec::new());
    let port = far_end(move |_, _, stream| kept.lock().unwrap().push(stream));
    let mut impatient = settings(port, Protocol::V5);
    impatient.remote.connect_timeout = Duration::from_millis(600);
    let start = Instant::now();
    let sentence = refusal(&impatient).await;
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(sentence.contains("no CONNACK within"), "{sentence}");
}

#[tokio::test]
async fn is_a_peer_that_stops_answering_given_up_after_the_keep_alive() {
    let kept = Mutex::new(Vec::new());
    let port = far_end(move |_, _, mut stream| {
        stream.write_all(&CONNACK_V311).unwrap();
        kept.lock().unwrap().push(stream);
    });
    let mut settings = settings(port, Protocol::V311);
    settings.remote.keep_alive = Duration::from_millis(400);
    let mut door = Door::open(settings);
    door.up().await;
    let start = Instant::now();
    let (_, _, by_peer) = door.end().await;
    assert!(!by_peer, "nobody knows who was silent");
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(590), "{took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn are_acknowledgements_read_while_the_socket_is_full() {
    let kept = Mutex::new(Vec::new());
    let port = far_end(move |_, _, mut stream| {
        stream.write_all(&CONNACK_V311).unwrap();
        let mut first = [0; 1];
        stream.read_exact(&mut first).unwrap();
        // From here on it reads nothing, and acknowledges all the same.
        std::thread::sleep(Duration::from_millis(200));
        (1..=50u8).for_each(|id| stream.write_all(&[0x40, 2, 0, id]).unwrap());
        kept.lock().unwrap().push(stream);
    });
    let mut door = Door::open(settings(port, Protocol::V311));
    let (attempt, _) = door.up().await;
    let bytes = 64 * 1024 * 1024;
    door.write(attempt, vec![0; bytes]).await;
    let (acks, written) = door.acks(50, attempt).await;
    assert_eq!(acks.len(), 50);
    assert!((written as usize) < bytes, "the socket was never full");
}

#[tokio::test]
async fn is_a_peer_that_talks_nonsense_left() {
    let port = far_end(|index, _, mut stream| {
        stream.write_all(&CONNACK_V311).unwrap();
        let nonsense: &[u8] = if index == 0 {
            &[0x40, 2, 0, 3, 0x30, 0]
        } else {
            &[]
        };
        stream.write_all(nonsense).unwrap();
        std::mem::forget(stream);
    });
    let mut door = Door::open(settings(port, Protocol::V311));
    let (attempt, _) = door.up().await;
    let (acks, _) = door.acks(1, attempt).await;
    assert_eq!(acks[0].packet_id, 3, "what came before it counts");
    assert_eq!(door.end().await, (attempt, None, true));
    door.up().await;
}

#[tokio::test]
async fn is_it_told_that_the_far_end_closed() {
    let port = far_end(|index, _, mut stream| {
        stream.write_all(&CONNACK_V311).unwrap();
        if index > 0 {
            // Closed with bytes unread: a reset.
            let mut first = [0; 1];
            stream.read_exact(&mut first).unwrap();
        }
    });
    let mut door = Door::open(settings(port, Protocol::V311));
    let (attempt, _) = door.up().await;
    assert_eq!(door.end().await, (attempt, None, true));
    let (attempt, _) = door.up().await;
    door.write(attempt, vec![0; 1000]).await;
    assert_eq!(door.end().await, (attempt, None, true));
}

/// What waits for the socket must not keep the door from hearing that the connection is to end.
#[tokio::test]
async fn is_a_reconnect_heard_while_the_socket_is_full() {
    let kept = Mutex::new(Vec::new());
    let port = far_end(move |_, _, mut stream| {
        stream.write_all(&CONNACK_V311).unwrap();
        kept.lock().unwrap().push(stream);
    });
    let mut door = Door::open(settings(port, Protocol::V311));
    let (attempt, _) = door.up().await;
    door.write(attempt, vec![0; 64 * 1024 * 1024]).await;
    door.say(LinkCommand::Reconnect { attempt }).await;
    assert_eq!(door.end().await, (attempt, None, false));
    let (attempt, _) = door.up().await;
    door.write(attempt, vec![0; 64 * 1024 * 1024]).await;
    door.say(LinkCommand::Shutdown).await;
    assert_eq!(door.end().await, (attempt, None, false));
}

/// The relay ends before the doors: an acknowledgement that nobody takes any more is the first that
/// this one learns of it.
#[tokio::test]
async fn is_goodbye_said_when_an_event_finds_no_relay() {
    let (told, heard) = std::sync::mpsc::channel();
    let port = far_end(move |_, _, mut stream| {
        stream.write_all(&CONNACK_V311).unwrap();
        let mut first = [0; 4];
        stream.read_exact(&mut first).unwrap();
        stream.write_all(&[0x40, 2, 0, 1]).unwrap();
        let mut all = Vec::new();
        // An acknowledgement that came too late resets the connection behind the last bytes.
        let _ = stream.read_to_end(&mut all);
        told.send(all).unwrap();
    });
    let Door {
        commands,
        mut events,
        task,
    } = Door::open(settings(port, Protocol::V311));
    let Some(LinkEvent::Up { attempt, .. }) = events.recv().await else {
        panic!("no connection");
    };
    drop(events);
    let packets = vec![0x11; 4];
    let write = LinkCommand::Write { attempt, packets };
    commands.send(write).await.unwrap();
    tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap();
    assert_eq!(heard.recv_timeout(PATIENCE).unwrap(), [0xE0, 0]);
    drop(commands);
}

#[tokio::test]
async fn does_the_reason_of_a_disconnect_reach_the_relay() {
    let port = far_end(|_, _, mut stream| {
        stream.write_all(&[0x20, 3, 0, 0, 0]).unwrap();
        stream.write_all(&[0xE0, 1, 0x95]).unwrap();
        std::mem::forget(stream);
    });
    let mut door = Door::open(settings(port, Protocol::V5));
    let (attempt, _) = door.up().await;
    assert_eq!(door.end().await, (attempt, Some(0x95), true));
}

#[tokio::test]
async fn does_shutdown_let_out_what_waits_and_say_goodbye() {
    let (told, heard) = std::sync::mpsc::channel();
    let port = far_end(move |_, _, mut stream| {
        stream.write_all(&CONNACK_V311).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        told.send(all).unwrap();
    });
    let mut door = Door::open(settings(port, Protocol::V311));
    let (attempt, _) = door.up().await;
    door.write(attempt, vec![0x11; 5_000]).await;
    door.say(LinkCommand::Shutdown).await;
    door.down().await;
    let all = heard.recv_timeout(PATIENCE).unwrap();
    assert_eq!(all.len(), 5_002);
    assert_eq!(all[5_000..], [0xE0, 0]);
}

#[tokio::test]
async fn does_a_waiting_alarm_shorten_the_wait() {
    let port = far_end(|index, _, mut stream| {
        // The first answer takes no QoS 1: what follows is a wait near the cap.
        let qos_max = u8::from(index > 0);
        let connack = [0x20, 5, 0, 0, 2, 0x24, qos_max];
        stream.write_all(&connack).unwrap();
        std::mem::forget(stream);
    });
    let mut patient = settings(port, Protocol::V5);
    patient.retry_max = Duration::from_secs(120);
    let mut door = Door::open(patient);
    let nothing = tokio::time::timeout(Duration::from_secs(1), door.events.recv()).await;
    assert!(nothing.is_err(), "no connection without QoS 1: {nothing:?}");
    door.say(LinkCommand::Hurry).await;
    assert_eq!(door.up().await.1.qos_max, 1);
}
