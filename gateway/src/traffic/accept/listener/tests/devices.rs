//! The ordinary life of a device.

use super::*;
use crate::traffic::lanes::Refusal;
use crate::traffic::message::{QoS, Tick};

#[tokio::test]
async fn is_qos_1_acknowledged_only_when_the_relay_has_answered() {
    let mut site = Site::new();
    let mut device = site.device(&connect_311("d", true, 60), WELCOME).await;
    device.send(&publish_311(0x33, 1, "a/b", "x")).await;
    let message = site.message().await;
    assert_eq!(
        (message.body.topic(), message.body.payload()),
        ("a/b", &b"x"[..])
    );
    assert_eq!((message.qos, message.retain), (QoS::AtLeastOnce, true));
    assert_eq!((message.expires, message.sequence), (Tick::NEVER, 0));
    device.ping().await;
    site.accept(&message).await;
    device.expect(&puback(1)).await;
}

#[tokio::test]
async fn do_answers_go_out_in_the_order_in_which_they_come() {
    let mut site = Site::new();
    let mut device = site.device(&connect_311("d", true, 60), WELCOME).await;
    device
        .send(
            &[
                publish_311(0x32, 1, "a", "x"),
                publish_311(0x32, 2, "a", "y"),
            ]
            .concat(),
        )
        .await;
    let first = site.message().await;
    let second = site.message().await;
    site.accept(&second).await;
    device.expect(&puback(2)).await;
    site.accept(&first).await;
    device.expect(&puback(1)).await;
}

#[tokio::test]
async fn is_qos_0_handed_on_with_nobody_waiting() {
    let mut site = Site::new();
    let mut device = site.device(&connect_311("d", true, 60), WELCOME).await;
    device.send(&publish_311(0x30, 0, "a", "")).await;
    let message = site.message().await;
    assert_eq!(
        (message.receipt.token, message.body.payload().len()),
        (None, 0)
    );
}

#[tokio::test]
async fn is_qos_2_received_once_and_released() {
    let mut site = Site::new();
    let mut device = site.device(&connect_311("d", true, 60), WELCOME).await;
    device.send(&publish_311(0x34, 9, "a", "x")).await;
    let message = site.message().await;
    site.accept(&message).await;
    device.expect(&[0x50, 2, 0, 9]).await;
    device.send(&publish_311(0x3C, 9, "a", "x")).await;
    device.expect(&[0x50, 2, 0, 9]).await;
    device.send(&[0x62, 2, 0, 9]).await;
    device.expect(&[0x70, 2, 0, 9]).await;
    assert!(site.silent(), "the resend is not admitted again");
}

#[tokio::test]
async fn is_a_refusal_told_where_the_protocol_can() {
    let mut site = Site::new();
    let mut new = site
        .device(&connect_5("new", true, b""), &welcome_5(0))
        .await;
    new.send(&publish_5(0x32, 1, "a", b"", "x")).await;
    let message = site.message().await;
    site.answer(&message, Answer::Refused(Refusal::TooLarge))
        .await;
    let text = text("larger than the uplink takes");
    let len = u8::try_from(text.len()).unwrap();
    new.expect(&packed(0x40, &[&[0, 1, 0x83, len + 1, 0x1F], &text]))
        .await;
    let mut old = site.device(&connect_311("old", true, 60), WELCOME).await;
    old.send(&publish_311(0x32, 1, "a", "x")).await;
    let message = site.message().await;
    site.answer(&message, Answer::Refused(Refusal::Full)).await;
    old.expect(&puback(1)).await;
}

#[tokio::test]
async fn are_reason_strings_left_out_for_who_does_not_want_or_cannot_take_them() {
    let mut site = Site::new();
    for wish in [&b"\x17\0"[..], b"\x27\0\0\0\x14"] {
        let mut device = site
            .device(&connect_5("d", true, wish), &welcome_5(0))
            .await;
        device.send(&publish_5(0x32, 1, "a", b"", "x")).await;
        let message = site.message().await;
        site.answer(&message, Answer::Refused(Refusal::Full)).await;
        device.expect(&[0x40, 3, 0, 1, 0x97]).await;
    }
}

#[tokio::test]
async fn do_properties_and_expiry_go_on_and_topic_aliases_stay() {
    let mut site = Site::new();
    let mut device = site.device(&connect_5("d", true, b""), &welcome_5(0)).await;
    let properties = b"\x23\0\x01\x02\0\0\0\x0A\x26\0\x01k\0\x01v";
    device
        .send(&publish_5(0x30, 0, "a/b", properties, "x"))
        .await;
    device
        .send(&publish_5(0x30, 0, "", b"\x23\0\x01", "y"))
        .await;
    let first = site.message().await;
    assert_eq!(first.body.properties(), b"\x26\0\x01k\0\x01v");
    assert_eq!(first.expires, first.received.after(Duration::from_secs(10)));
    let second = site.message().await;
    assert_eq!(
        (second.body.topic(), second.body.payload()),
        ("a/b", &b"y"[..])
    );
    assert!(second.body.properties().is_empty());
    device
        .send(&publish_5(0x30, 0, "", b"\x23\0\x02", "z"))
        .await;
    device.expect_disconnect(0x82).await;
}

#[tokio::test]
async fn is_a_subscription_refused_or_granted_in_silence() {
    let subscribe_311 = packed(0x82, &[b"\0\x05\0\x01a\x01\0\x01b\x02"]);
    let subscribe_5 = packed(0x82, &[b"\0\x05\0\0\x01a\x01"]);
    let mut site = Site::new();
    let mut device = site.device(&connect_311("d", true, 60), WELCOME).await;
    device.send(&subscribe_311).await;
    device.expect(&[0x90, 4, 0, 5, 0x80, 0x80]).await;
    device.send(&packed(0xA2, &[b"\0\x06\0\x01a"])).await;
    device.expect(&[0xB0, 2, 0, 6]).await;
    let mut device = site.device(&connect_5("e", true, b""), &welcome_5(0)).await;
    device.send(&subscribe_5).await;
    device.expect(&[0x90, 4, 0, 5, 0, 0x83]).await;
    let mut settings = settings();
    settings.subscribe = SubscribePolicy::Accept;
    let mut site = Site::with(settings, |_| {});
    let mut device = site.device(&connect_311("d", true, 60), WELCOME).await;
    device.send(&subscribe_311).await;
    device.expect(&[0x90, 4, 0, 5, 1, 2]).await;
}

#[tokio::test]
async fn does_an_urgent_message_get_through_behind_bulk_that_waits() {
    let mut site = Site::with_class(settings(), |_| {}, ClassId::FIRST);
    site.block_rest();
    let mut device = site.device(&connect_311("d", true, 60), WELCOME).await;
    device.send(&publish_311(0x30, 0, "fire", "!")).await;
    let batch = soon(site.urgent.recv()).await.unwrap();
    let mut bulk = batch.messages[0].clone();
    bulk.class = ClassId(1);
    let alarm = batch.messages[0].clone();
    let shared = Arc::clone(&site.porter.shared);
    let unsent = lane::Unsent::default();
    let mut ends = lane::LaneEnds::new(&shared.lanes, shared.clock, batch.door, unsent);
    ends.unsent.push(bulk);
    ends.unsent.push(alarm);
    let sending = tokio::time::timeout(Duration::from_millis(10), ends.finish()).await;
    assert!(sending.is_err(), "the bulk waits");
    assert!(ends.untracked_bytes() > 0, "and is counted");
    assert_eq!(soon(site.urgent.recv()).await.unwrap().messages.len(), 1);
}

#[tokio::test]
async fn are_large_packets_taken_whole_and_in_pieces() {
    let mut site = Site::new();
    let mut device = site.plug(1000);
    device.send(&connect_311("d", true, 60)).await;
    device.expect(WELCOME).await;
    let payload = "x".repeat(60_000);
    device.send(&publish_311(0x32, 1, "a", &payload)).await;
    let message = site.message().await;
    assert_eq!(message.body.payload().len(), 60_000);
    site.accept(&message).await;
    device.expect(&puback(1)).await;
}

/// Whether connected, parked or taken over when the gateway stops.
#[tokio::test]
async fn does_the_relay_get_to_count_what_the_lanes_had_no_room_for() {
    let mut site = Site::new();
    let connected = connect_311("connected", true, 60);
    let mut connected = site.device(&connected, WELCOME).await;
    let mut parked = site
        .device(&connect_311("parked", false, 60), WELCOME)
        .await;
    let mut older = site.device(&connect_311("both", false, 60), WELCOME).await;
    site.block_rest();
    for (device, name) in [
        (&mut connected, "connected"),
        (&mut parked, "parked"),
        (&mut older, "older"),
    ] {
        device.send(&publish_311(0x30, 0, name, "qos 0")).await;
        device.send(&publish_311(0x32, 1, name, "qos 1")).await;
        device.ping().await;
    }
    parked.send(&[0xE0, 0]).await;
    parked.expect_end().await;
    let connect = connect_311("both", false, 60);
    let mut newer = site.device(&connect, WELCOME_BACK).await;
    newer.send(&publish_311(0x30, 0, "newer", "qos 0")).await;
    newer.ping().await;
    site.phase.send(Phase::Drain).unwrap();
    site.phase.send(Phase::Stop).unwrap();
    let mut topics = Vec::new();
    for _ in 0..7 {
        let message = site.message().await;
        topics.push(message.body.topic().to_owned());
        assert_eq!(
            message.receipt.token.is_some(),
            message.qos != QoS::AtMostOnce
        );
    }
    topics.sort();
    let both = ["connected", "connected", "newer", "older", "older"];
    assert_eq!(topics[..5], both);
    assert_eq!(topics[5..], ["parked", "parked"]);
    while soon(site.tasks.join_next()).await.is_some() {}
    assert!(site.silent(), "something is counted twice");
}

#[tokio::test]
async fn does_shutdown_pass_answers_on_and_then_close_without_wills() {
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
    let message = site.message().await;
    site.phase.send(Phase::Drain).unwrap();
    device.send(&publish_5(0x32, 2, "a", b"", "y")).await;
    site.accept(&message).await;
    device.expect(&puback(1)).await;
    site.phase.send(Phase::Stop).unwrap();
    device.expect_disconnect(0x8B).await;
    drop(device);
    while soon(site.tasks.join_next()).await.is_some() {}
    assert!(
        site.silent(),
        "neither what came after the drain nor the will"
    );
}

#[tokio::test]
async fn does_it_serve_a_real_socket_and_say_what_to_do_about_a_port_in_use() {
    let site = Site::new();
    let listener = Listener::bind(&settings()).unwrap();
    let at = listener.local_addr();
    let mut taken = settings();
    taken.bind = at;
    let refused = Listener::bind(&taken).unwrap_err().to_string();
    assert!(
        refused.contains("in use") && refused.contains(&at.to_string()),
        "{refused}"
    );
    let shared = &site.porter.shared;
    let serving = tokio::spawn(listener.serve(
        Arc::clone(&shared.rules),
        shared.lanes.clone(),
        shared.clock,
        site.phase.subscribe(),
    ));
    let mut socket = tokio::net::TcpStream::connect(at).await.unwrap();
    socket.write_all(&connect_311("d", true, 60)).await.unwrap();
    let mut connack = [0; 4];
    soon(socket.read_exact(&mut connack)).await.unwrap();
    assert_eq!(connack, WELCOME);
    site.phase.send(Phase::Stop).unwrap();
    assert_eq!(soon(socket.read(&mut connack)).await.unwrap(), 0);
    drop(socket);
    soon(serving).await.unwrap();
}

/// The story: our own reader and our own tests could share a misreading of the protocol; another
/// implementation's client does not.
#[tokio::test(flavor = "multi_thread")]
async fn does_mosquitto_pub_get_its_acknowledgements() {
    let mut site = Site::new();
    let listener = Listener::bind(&settings()).unwrap();
    let port = listener.local_addr().port().to_string();
    let shared = Arc::clone(&site.porter.shared);
    let serving = tokio::spawn(listener.serve(
        Arc::clone(&shared.rules),
        shared.lanes.clone(),
        shared.clock,
        site.phase.subscribe(),
    ));
    for (version, qos) in [
        ("311", "0"),
        ("311", "1"),
        ("311", "2"),
        ("5", "0"),
        ("5", "1"),
        ("5", "2"),
    ] {
        let mut client = std::process::Command::new("mosquitto_pub")
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &port,
                "-V",
                version,
                "-q",
                qos,
                "-t",
                "a/b",
                "-m",
                "hello",
            ])
            .spawn()
            .expect("mosquitto_pub (package mosquitto-clients) is needed");
        let message = site.message().await;
        assert_eq!(message.body.payload(), b"hello");
        if qos != "0" {
            site.accept(&message).await;
        }
        let status = tokio::task::spawn_blocking(move || client.wait())
            .await
            .unwrap()
            .unwrap();
        assert!(status.success(), "MQTT {version} QoS {qos}: {status}");
    }
    site.phase.send(Phase::Stop).unwrap();
    soon(serving).await.unwrap();
}
