//! Two connections, and upstreams that stand only one.

use std::io::Write;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::ends::{Broker, OPEN, far_end, settings};
use super::misbehaviour::CONNACK_V311;
use crate::clock::Clock;
use crate::traffic::accept::Protocol;
use crate::traffic::send::upstream::run_pair;
use crate::traffic::send::{Link, LinkEvent};

#[tokio::test]
async fn is_an_upstream_that_stands_one_connection_left_with_the_bulk_one() {
    // Each new connection ends the one before, whatever its client id.
    let last: Mutex<Option<TcpStream>> = Mutex::new(None);
    let port = far_end(move |_, _, mut stream| {
        stream.write_all(&CONNACK_V311).unwrap();
        *last.lock().unwrap() = Some(stream);
    });
    let mut settings = settings(port, Protocol::V311);
    settings.connections = 2;
    let (_urgent, urgent_commands) = mpsc::channel(8);
    let (_bulk, bulk_commands) = mpsc::channel(8);
    let (told, mut events) = mpsc::channel(64);
    tokio::spawn(run_pair(
        Arc::new(settings),
        Some(urgent_commands),
        bulk_commands,
        told,
        Clock::start(),
    ));
    let mut up = [false; 2];
    let quiet = Duration::from_secs(4);
    while let Ok(event) = timeout(quiet, events.recv()).await {
        match event.unwrap() {
            LinkEvent::Up { link, .. } => up[link as usize] = true,
            LinkEvent::Down { link, .. } => up[link as usize] = false,
            other => panic!("nothing was written, and {other:?}"),
        }
    }
    assert_eq!(up, [false, true], "the bulk link is up and stays so");
}

#[tokio::test]
async fn do_two_connections_live_side_by_side_on_a_real_broker() {
    let broker = Broker::start(OPEN);
    let mut settings = settings(broker.port, Protocol::V5);
    settings.connections = 2;
    let (_urgent, urgent_commands) = mpsc::channel(8);
    let (_bulk, bulk_commands) = mpsc::channel(8);
    let (told, mut events) = mpsc::channel(64);
    tokio::spawn(run_pair(
        Arc::new(settings),
        Some(urgent_commands),
        bulk_commands,
        told,
        Clock::start(),
    ));
    let mut up = Vec::new();
    while let Ok(event) = timeout(Duration::from_secs(2), events.recv()).await {
        match event.unwrap() {
            LinkEvent::Up { link, .. } => up.push(link as usize),
            other => panic!("{other:?}"),
        }
    }
    up.sort_unstable();
    assert_eq!(up, [0, 1]);
}

#[tokio::test]
async fn is_a_refused_second_not_asked_again_and_again() {
    let (told, asked) = std::sync::mpsc::channel();
    let port = far_end(move |_, connect, mut stream| {
        let urgent = connect.ends_with(b"-urgent");
        let not_authorised = if urgent { 5 } else { 0 };
        stream.write_all(&[0x20, 2, 0, not_authorised]).unwrap();
        told.send(urgent).unwrap();
        std::mem::forget(stream);
    });
    let mut settings = settings(port, Protocol::V311);
    settings.connections = 2;
    settings.retry_max = Duration::from_millis(100);
    let (_urgent, urgent_commands) = mpsc::channel(8);
    let (_bulk, bulk_commands) = mpsc::channel(8);
    let (events, mut heard) = mpsc::channel(64);
    tokio::spawn(run_pair(
        Arc::new(settings),
        Some(urgent_commands),
        bulk_commands,
        events,
        Clock::start(),
    ));
    let up = timeout(Duration::from_secs(5), heard.recv()).await.unwrap();
    assert!(matches!(
        up,
        Some(LinkEvent::Up {
            link: Link::Bulk,
            ..
        })
    ));
    // At 100 ms a try, two seconds would see twenty.
    let more = timeout(Duration::from_secs(2), heard.recv()).await;
    assert!(more.is_err(), "the bulk link stays up: {more:?}");
    let tries = asked.try_iter().filter(|urgent| *urgent).count();
    assert!((1..=3).contains(&tries), "{tries} tries of the urgent one");
}
