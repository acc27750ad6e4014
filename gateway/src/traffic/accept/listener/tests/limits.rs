//! What a device may not do, and what happens then.

use super::*;

#[tokio::test]
async fn is_a_connection_without_a_whole_connect_closed_in_time() {
    let mut site = Site::with(settings(), |patience| {
        patience.connect = Duration::from_millis(50)
    });
    let mut device = site.plug(1024);
    device.send(&connect_311("d", true, 60)[..8]).await;
    device.expect_end().await;
    site.empty().await;
}

#[tokio::test]
async fn is_a_client_that_never_finishes_a_packet_closed_by_keep_alive() {
    let mut site = Site::new();
    let mut device = site.device(&connect_311("d", true, 1), WELCOME).await;
    device.send(&publish_311(0x32, 1, "a", "xyz")[..5]).await;
    device.expect_end().await;
    drop(device);
    site.empty().await;
}

/// The packet's time is short, everything else as ever.
fn hasty(packet: Duration) -> Site {
    let mut settings = settings();
    settings.hold_max = DEADLINE;
    Site::with(settings, |patience| patience.packet = packet)
}

#[tokio::test]
async fn is_a_client_without_keep_alive_that_never_finishes_a_packet_closed() {
    let mut site = hasty(Duration::from_millis(100));
    let mut device = site.device(&connect_311("d", true, 0), WELCOME).await;
    // A whole packet before it does not help.
    device.send(&publish_311(0x30, 0, "a", "whole")).await;
    device.send(&publish_311(0x32, 1, "a", "xyz")[..5]).await;
    assert_eq!(site.message().await.body.payload(), b"whole");
    device.expect_end().await;
    drop(device);
    site.empty().await;
}

#[tokio::test]
async fn is_a_client_that_drips_a_packet_for_ever_closed() {
    let mut site = hasty(Duration::from_millis(300));
    let mut device = site.device(&connect_5("d", true, b""), &welcome_5(0)).await;
    let large = publish_5(0x30, 0, "a", b"", &"x".repeat(50_000));
    let drip = async {
        for byte in large {
            if device.0.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(drip).await;
    device.expect_disconnect(0x8D).await;
    assert!(site.silent());
}

#[tokio::test]
async fn are_slow_but_whole_packets_taken() {
    let mut site = hasty(Duration::from_millis(1000));
    let mut device = site.device(&connect_311("d", true, 0), WELCOME).await;
    // Together they take longer than one may; each brings the first byte of the next.
    let stream = publish_311(0x30, 0, "a", "slow").repeat(8);
    device.send(&stream[..1]).await;
    for part in stream[1..].chunks(stream.len() / 8) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        device.send(part).await;
    }
    for _ in 0..8 {
        assert_eq!(site.message().await.body.payload(), b"slow");
    }
    // Nothing is unfinished now, so a silence is no fault.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    device.ping().await;
}

#[tokio::test]
async fn does_a_pause_stop_the_clock_of_an_unfinished_packet() {
    let mut site = hasty(Duration::from_millis(500));
    let mut device = site.device(&connect_311("d", true, 0), WELCOME).await;
    let second = publish_311(0x32, 2, "a", "second");
    device.send(&publish_311(0x32, 1, "a", "first")).await;
    let first = site.message().await;
    let door = first.receipt.door;
    device.send(&second[..5]).await;
    site.notify(door, vec![Notice::Held]).await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    site.notify(door, vec![Notice::Released]).await;
    site.accept(&first).await;
    device.expect(&puback(1)).await;
    device.send(&second[5..]).await;
    assert_eq!(site.message().await.body.payload(), b"second");
    // And runs again after it.
    device.send(&second[..5]).await;
    device.expect_end().await;
}

#[tokio::test]
async fn are_quiet_peers_probed_by_tcp_behind_the_longest_keep_alive() {
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let _peer = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    for (longest, quiet) in [(600, 600), (18 * 3600, 32_767)] {
        probe_after(&stream, Duration::from_secs(longest));
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        let set = socket.tcp_keepalive_time().unwrap();
        assert_eq!(set, Duration::from_secs(quiet));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), PROBE_INTERVAL);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), PROBES_MAX);
    }
}

#[tokio::test]
async fn is_a_client_that_never_reads_closed_while_the_relay_never_waits() {
    let mut settings = settings();
    settings.receive_max = 1000;
    let mut site = Site::with(settings, |patience| {
        patience.write = Duration::from_millis(100)
    });
    let mut device = site.plug(16);
    device.send(&connect_311("d", true, 60)).await;
    device.expect(WELCOME).await;
    for id in 1..=50 {
        device.send(&publish_311(0x32, id, "a", "x")).await;
        let message = site.message().await;
        site.accept(&message).await;
    }
    assert!(matches!(site.told().await, Told::Open(_)));
    assert!(matches!(site.told().await, Told::Close(_)));
    site.empty().await;
    drop(device);
}

#[tokio::test]
async fn does_a_client_that_only_pings_and_never_reads_take_bounded_memory() {
    let mut site = Site::with(settings(), |patience| {
        patience.write = Duration::from_secs(1)
    });
    let mut device = site.plug(1024);
    device.send(&connect_311("d", true, 60)).await;
    device.expect(WELCOME).await;
    let pings = [0xC0, 0].repeat(512);
    let mut sent = 0;
    while let Ok(Ok(())) = tokio::time::timeout(DEADLINE, device.0.write_all(&pings)).await {
        sent += pings.len();
        assert!(sent < 1024 * 1024, "it reads on for ever");
    }
    site.empty().await;
}

#[tokio::test]
async fn is_another_message_under_a_pending_packet_id_refused() {
    let mut site = Site::new();
    let mut new = site
        .device(&connect_5("new", true, b"\x17\0"), &welcome_5(0))
        .await;
    new.send(&publish_5(0x32, 1, "a", b"", "x")).await;
    let message = site.message().await;
    new.send(&publish_5(0x32, 1, "a", b"", "other")).await;
    new.expect(&[0x40, 3, 0, 1, 0x91]).await;
    site.accept(&message).await;
    new.expect(&puback(1)).await;
    let mut old = site.device(&connect_311("old", true, 60), WELCOME).await;
    old.send(&publish_311(0x32, 1, "a", "x")).await;
    site.message().await;
    old.send(&publish_311(0x3A, 1, "a", "other")).await;
    old.expect_end().await;
    assert!(site.silent());
}

#[tokio::test]
async fn is_receive_maximum_enforced_with_5_and_a_pause_with_3_1_1() {
    let mut site = Site::new();
    let mut new = site
        .device(&connect_5("new", true, b""), &welcome_5(0))
        .await;
    for id in 1..=5 {
        new.send(&publish_5(0x32, id, "a", b"", "x")).await;
    }
    new.expect_disconnect(0x93).await;
    for _ in 0..4 {
        site.message().await;
    }
    let mut old = site.device(&connect_311("old", true, 60), WELCOME).await;
    for id in 1..=5 {
        old.send(&publish_311(0x32, id, "a", "x")).await;
    }
    let first = site.message().await;
    for _ in 0..3 {
        site.message().await;
    }
    assert!(site.silent(), "the fifth is not taken");
    site.accept(&first).await;
    old.expect(&puback(1)).await;
    site.message().await;
}

#[tokio::test]
async fn does_a_pause_stop_the_keep_alive_clock() {
    let mut site = Site::new();
    let mut device = site.device(&connect_311("d", true, 1), WELCOME).await;
    for id in 1..=4 {
        device.send(&publish_311(0x32, id, "a", "x")).await;
    }
    let first = site.message().await;
    tokio::time::sleep(Duration::from_millis(1700)).await;
    site.accept(&first).await;
    device.expect(&puback(1)).await;
    // The clock starts anew after the pause: no packet of the client was needed for that.
    tokio::time::sleep(Duration::from_millis(300)).await;
    device.ping().await;
}

#[tokio::test]
async fn does_a_hold_stop_the_keep_alive_clock_of_a_quiet_client() {
    let mut settings = settings();
    settings.hold_max = DEADLINE;
    let mut site = Site::with(settings, |_| {});
    let mut device = site.device(&connect_311("d", true, 1), WELCOME).await;
    device.send(&publish_311(0x32, 1, "a", "x")).await;
    let first = site.message().await;
    let door = first.receipt.door;
    site.notify(door, vec![Notice::Held]).await;
    tokio::time::sleep(Duration::from_millis(1700)).await;
    site.notify(door, vec![Notice::Released]).await;
    site.accept(&first).await;
    device.expect(&puback(1)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    device.ping().await;
}

#[tokio::test]
async fn are_unanswered_bytes_bounded() {
    let mut settings = settings();
    settings.connection_bytes_max = 2000;
    let mut site = Site::with(settings, |_| {});
    let mut device = site.device(&connect_5("d", true, b""), &welcome_5(0)).await;
    let large = "x".repeat(2000);
    device.send(&publish_5(0x32, 1, "a", b"", &large)).await;
    device.send(&publish_5(0x30, 0, "a", b"", "y")).await;
    let first = site.message().await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(site.silent());
    site.accept(&first).await;
    device.expect(&puback(1)).await;
    assert_eq!(site.message().await.body.payload(), b"y");
}

#[tokio::test]
async fn do_properties_count_as_unanswered_bytes() {
    let mut settings = settings();
    settings.connection_bytes_max = 2000;
    let mut site = Site::with(settings, |_| {});
    let mut device = site.device(&connect_5("d", true, b""), &welcome_5(0)).await;
    let value = text(&"v".repeat(2000));
    let len = 1 + 3 + value.len();
    let len = [(len & 0x7F) as u8 | 0x80, (len >> 7) as u8];
    let large = packed(
        0x32,
        &[&text("a"), &[0, 1], &len, b"\x26\0\x01k", &value, b"x"],
    );
    device.send(&large).await;
    device.send(&publish_5(0x30, 0, "a", b"", "y")).await;
    let first = site.message().await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(site.silent());
    site.accept(&first).await;
    assert_eq!(site.message().await.body.payload(), b"y");
}

#[tokio::test]
async fn does_an_idle_connection_cost_little() {
    let mut site = Site::new();
    let shared = Arc::clone(&site.porter.shared);
    let place = Arc::clone(&site.porter.places).try_acquire_owned().unwrap();
    let (stream, _device) = tokio::io::duplex(16);
    let peer = "192.0.2.1:5000".parse().unwrap();
    let task = size_of_val(&attend(stream, peer, shared, place));
    assert!(task <= 5 * 1024, "{task} bytes for each connection's task");
    let mut device = site.device(&connect_311("d", true, 60), WELCOME).await;
    device.ping().await;
}

#[tokio::test]
async fn is_a_held_connection_paused_then_read_on_when_released() {
    let mut settings = settings();
    settings.hold_max = DEADLINE;
    let mut site = Site::with(settings, |_| {});
    let mut device = site.device(&connect_5("d", true, b""), &welcome_5(0)).await;
    device.send(&publish_5(0x32, 1, "a", b"", "x")).await;
    let first = site.message().await;
    let door = first.receipt.door;
    site.notify(door, vec![Notice::Held]).await;
    site.accept(&first).await;
    device.expect(&puback(1)).await;
    device.send(&publish_5(0x32, 2, "a", b"", "y")).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(site.silent());
    site.notify(door, vec![Notice::Released]).await;
    assert_eq!(site.message().await.body.payload(), b"y");
}

#[tokio::test]
async fn is_a_connection_closed_without_its_will_when_held_too_long() {
    let mut site = Site::new();
    let will = packed(
        0x10,
        &[
            b"\0\x04MQTT\x05\x06\0\x3C\0",
            &text("d"),
            b"\0",
            &text("w"),
            &text("gone"),
        ],
    );
    let mut device = site.device(&will, &welcome_5(0)).await;
    device.send(&publish_5(0x32, 1, "a", b"", "x")).await;
    let door = site.message().await.receipt.door;
    site.notify(door, vec![Notice::Held]).await;
    device.expect_disconnect(0x97).await;
    drop(device);
    assert_eq!(site.told().await, Told::Open(door));
    assert_eq!(site.told().await, Told::Withdraw(door));
    assert_eq!(site.told().await, Told::Close(door));
    site.empty().await;
    assert!(site.silent());
}

#[tokio::test]
async fn are_packets_and_topics_beyond_the_limits_refused_with_their_reason() {
    let mut site = Site::new();
    let long = "x".repeat(65);
    let large = [0x30, 0x80, 0x80, 0x04];
    let cases: [(&[u8], u8); 6] = [
        (&large, 0x95),
        (&publish_5(0x30, 0, &long, b"", ""), 0x90),
        (&publish_5(0x30, 0, "1/2/3/4/5/6/7/8/9", b"", ""), 0x90),
        (&publish_5(0x30, 0, "a", b"\x23\0\x09", ""), 0x94),
        (&publish_5(0x30, 0, "a/#", b"", ""), 0x90),
        (&connect_5("d", true, b""), 0x82),
    ];
    for (bytes, reason) in cases {
        let mut device = site.device(&connect_5("d", true, b""), &welcome_5(0)).await;
        device.send(bytes).await;
        device.expect_disconnect(reason).await;
    }
    assert!(site.silent());
}

#[tokio::test]
async fn is_a_client_too_many_told_so() {
    let mut settings = settings();
    settings.connections_max = 1;
    let mut site = Site::with(settings, |_| {});
    let mut first = site.device(&connect_311("a", true, 60), WELCOME).await;
    let mut second = site.plug(1024);
    second.send(&connect_311("b", true, 60)).await;
    second.expect(&[0x20, 2, 0, 3]).await;
    let mut third = site.plug(1024);
    third.send(&connect_5("c", true, b"")).await;
    third.expect(&[0x20, 3, 0, 0x97, 0]).await;
    first.send(&[0xE0, 0]).await;
    first.expect_end().await;
    drop(first);
    while site.porter.places.available_permits() == 0 {
        soon(site.tasks.join_next()).await;
    }
    site.device(&connect_311("b", true, 60), WELCOME).await;
}

#[tokio::test]
async fn are_client_ids_and_keep_alive_agreed_by_the_rules() {
    let mut site = Site::new();
    let mut device = site.plug(1024);
    device.send(&connect_311("", false, 60)).await;
    device.expect(&[0x20, 2, 0, 2]).await;
    site.device(&connect_311("", true, 60), WELCOME).await;
    let mut device = site.plug(1024);
    device.send(&connect_5("", true, b"")).await;
    let mut connack = [0; 2];
    device.0.read_exact(&mut connack).await.unwrap();
    let mut rest = vec![0; usize::from(connack[1])];
    device.0.read_exact(&mut rest).await.unwrap();
    assert!(
        rest.windows(12)
            .any(|bytes| bytes == b"\x12\0\x29tidegate-"),
        "{rest:?}"
    );
    let mut settings = settings();
    settings.keep_alive_max = Duration::from_secs(30);
    settings.topic_alias_max = 0;
    let mut site = Site::with(settings, |_| {});
    let announced = packed(0x20, &[&[0, 0, 11], b"\x21\0\x04\x27\0\x01\0\0\x13\0\x1E"]);
    site.device(&connect_5("d", true, b""), &announced).await;
}

#[tokio::test]
async fn is_enhanced_authentication_refused() {
    let mut site = Site::new();
    let mut device = site.plug(1024);
    device.send(&connect_5("d", true, b"\x15\0\x01m")).await;
    device.expect(&[0x20, 3, 0, 0x8C, 0]).await;
    device.expect_end().await;
}
