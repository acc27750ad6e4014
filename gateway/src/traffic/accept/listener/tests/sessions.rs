//! Sessions that outlive their connections.

use super::*;

#[tokio::test]
async fn is_a_kept_session_present_and_a_clean_one_not() {
    let mut site = Site::new();
    for (connect, connack) in [
        (connect_311("d", false, 60), WELCOME),
        (connect_311("d", false, 60), WELCOME_BACK),
        (connect_311("d", true, 60), WELCOME),
        (connect_311("d", false, 60), WELCOME),
    ] {
        let mut device = site.device(&connect, connack).await;
        device.send(&[0xE0, 0]).await;
        device.expect_end().await;
    }
}

#[tokio::test]
async fn is_a_resend_after_reconnect_attached_and_answered_once() {
    let mut site = Site::new();
    let mut device = site.device(&connect_311("d", false, 60), WELCOME).await;
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
    drop(device);
    // One answer while it is away, one after it is back.
    site.accept(&first).await;
    let mut device = site
        .device(&connect_311("d", false, 60), WELCOME_BACK)
        .await;
    device
        .send(
            &[
                publish_311(0x3A, 1, "a", "x"),
                publish_311(0x3A, 2, "a", "y"),
            ]
            .concat(),
        )
        .await;
    device.expect(&puback(1)).await;
    site.accept(&second).await;
    device.expect(&puback(2)).await;
    assert!(site.silent(), "neither was admitted again");
    device.send(&publish_311(0x32, 1, "a", "x")).await;
    site.message().await;
}

#[tokio::test]
async fn is_a_rebooted_devices_packet_id_1_taken_as_new() {
    let mut site = Site::new();
    let mut device = site.device(&connect_311("d", false, 60), WELCOME).await;
    device.send(&publish_311(0x32, 1, "a", "x")).await;
    let old = site.message().await;
    drop(device);
    let mut device = site
        .device(&connect_311("d", false, 60), WELCOME_BACK)
        .await;
    device.send(&publish_311(0x32, 1, "a", "x")).await;
    let young = site.message().await;
    site.accept(&old).await;
    device.ping().await;
    site.accept(&young).await;
    device.expect(&puback(1)).await;
}

#[tokio::test]
async fn does_a_newcomer_take_the_connection_over_with_its_session() {
    let mut site = Site::new();
    let mut old = site
        .device(&connect_5("d", true, &expiry(60)), &welcome_5(0))
        .await;
    old.send(&publish_5(0x32, 1, "a", b"", "x")).await;
    let message = site.message().await;
    let mut new = site
        .device(&connect_5("d", false, &expiry(60)), &welcome_5(1))
        .await;
    old.expect_disconnect(0x8E).await;
    new.send(&publish_5(0x3A, 1, "a", b"", "x")).await;
    new.ping().await;
    site.accept(&message).await;
    new.expect(&puback(1)).await;
}

#[tokio::test]
async fn does_the_newest_of_many_newcomers_win_and_nobody_stay_behind() {
    let mut site = Site::new();
    let mut devices = Vec::new();
    for _ in 0..20 {
        let mut device = site.plug(1024);
        device.send(&connect_311("d", true, 60)).await;
        devices.push(device);
    }
    let mut last = devices.pop().unwrap();
    last.expect(WELCOME).await;
    last.ping().await;
    drop(devices);
    last.send(&[0xE0, 0]).await;
    last.expect_end().await;
    drop(last);
    site.empty().await;
}

#[tokio::test]
async fn does_a_session_end_at_its_expiry_and_at_most_so_many_stay() {
    let mut site = Site::new();
    let device = site
        .device(&connect_5("d", true, &expiry(1)), &welcome_5(0))
        .await;
    drop(device);
    let Told::Open(door) = site.told().await else {
        panic!("no door")
    };
    assert_eq!(site.told().await, Told::Close(door));
    site.empty().await;
    for n in 0..11 {
        let connect = connect_311(&format!("d{n}"), false, 60);
        let mut device = site.device(&connect, WELCOME).await;
        device.send(&[0xE0, 0]).await;
        device.expect_end().await;
        assert!(matches!(site.told().await, Told::Open(_)));
        drop(device);
        // Its end is later than its last byte: the order of leaving is the order of this test.
        while site.porter.shared.registry.parked() < (n + 1).min(10) {
            tokio::task::yield_now().await;
        }
    }
    assert!(
        matches!(site.told().await, Told::Close(_)),
        "the eleventh pushes the oldest out"
    );
    site.device(&connect_311("d0", false, 60), WELCOME).await;
    site.device(&connect_311("d10", false, 60), WELCOME_BACK)
        .await;
}

#[tokio::test]
async fn is_a_longer_session_than_allowed_lowered_and_announced() {
    let mut site = Site::new();
    let announced = packed(
        0x20,
        &[
            &[0, 0, 16],
            b"\x11\0\0\x0E\x10\x21\0\x04\x27\0\x01\0\0\x22\0\x08",
        ],
    );
    site.device(&connect_5("d", true, &expiry(u32::MAX)), &announced)
        .await;
}

#[tokio::test]
async fn may_disconnect_end_a_session_but_not_make_one() {
    let mut site = Site::new();
    let mut device = site
        .device(&connect_5("d", true, &expiry(60)), &welcome_5(0))
        .await;
    device.send(&packed(0xE0, &[&[0, 5], &expiry(0)])).await;
    device.expect_end().await;
    drop(device);
    site.empty().await;
    let mut device = site.device(&connect_5("d", true, b""), &welcome_5(0)).await;
    device.send(&packed(0xE0, &[&[0, 5], &expiry(9)])).await;
    device.expect_disconnect(0x82).await;
}

/// The relay gives back what it held of the last connection while the device is already back and has
/// sent it again: without an end nobody would have the message, and no PUBACK would come.
#[tokio::test]
async fn is_a_message_that_is_returned_after_its_resend_brought_once_more() {
    let mut site = Site::new();
    let connect = |clean| connect_5("d", clean, &expiry(60));
    let mut device = site.device(&connect(true), &welcome_5(0)).await;
    for (id, payload) in [(1, "x"), (2, "y")] {
        device.send(&publish_5(0x32, id, "a", b"", payload)).await;
    }
    let first = site.message().await;
    let second = site.message().await;
    let door = first.receipt.door;
    site.notify(door, vec![Notice::Held]).await;
    device.expect_disconnect(0x97).await;
    drop(device);
    let mut device = site.device(&connect(false), &welcome_5(1)).await;
    site.notify(door, vec![Notice::Released]).await;
    device.send(&publish_5(0x3A, 1, "a", b"", "x")).await;
    device.ping().await;
    let token = |message: &Message| message.receipt.token.unwrap();
    let returned = [&first, &second].map(|message| Notice::Returned {
        token: token(message),
    });
    site.notify(door, returned.to_vec()).await;
    device.expect_disconnect(0x97).await;
    drop(device);
    let mut device = site.device(&connect(false), &welcome_5(1)).await;
    for (id, payload) in [(1, "x"), (2, "y")] {
        device.send(&publish_5(0x3A, id, "a", b"", payload)).await;
        let again = site.message().await;
        site.accept(&again).await;
        device.expect(&puback(id as u8)).await;
    }
}

/// What an old connection could not hand over must not lock its device out: it may come back with an
/// alarm.
#[tokio::test]
async fn does_a_full_lane_keep_a_device_from_coming_back() {
    for (clean, connack) in [(false, WELCOME_BACK), (true, WELCOME)] {
        let mut site = Site::new();
        site.block_rest();
        let mut device = site.device(&connect_311("d", clean, 60), WELCOME).await;
        device.send(&publish_311(0x30, 0, "a", "old")).await;
        device.send(&publish_311(0x32, 1, "a", "older")).await;
        device.ping().await;
        drop(device);
        let mut device = site.device(&connect_311("d", clean, 60), connack).await;
        device.send(&publish_311(0x30, 0, "a", "new")).await;
        device.ping().await;
        for payload in ["old", "older", "new"] {
            assert_eq!(site.message().await.body.payload(), payload.as_bytes());
        }
    }
}

#[tokio::test]
async fn is_a_connections_place_kept_until_all_that_it_sent_is_in_the_lanes() {
    let mut site = Site::new();
    site.block_rest();
    let mut device = site.device(&connect_311("d", false, 60), WELCOME).await;
    device.send(&publish_311(0x30, 0, "a", "x")).await;
    device.send(&[0xE0, 0]).await;
    device.expect_end().await;
    drop(device);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let places = Arc::clone(&site.porter.places);
    let all = u32::try_from(settings().connections_max).unwrap();
    assert!(places.try_acquire_many(all).is_err(), "its place is free");
    site.message().await;
    let free = soon(places.acquire_many(all)).await;
    assert!(free.is_ok());
}

/// Each end of a connection may add a will to what is unsent: that is bounded too.
#[tokio::test]
async fn do_wills_pile_up_behind_a_full_lane() {
    let mut settings = settings();
    settings.connection_bytes_max = 1000;
    let mut site = Site::with(settings, |_| {});
    site.block_rest();
    let gone = text(&"x".repeat(800));
    let connect = packed(
        0x10,
        &[b"\0\x04MQTT\x04\x04\0\x3C", &text("d"), &text("w"), &gone],
    );
    let mut welcomes = 0;
    for _ in 0..10 {
        let mut device = site.plug(4096);
        device.send(&connect).await;
        let mut connack = [0; 4];
        let reading = device.0.read_exact(&mut connack);
        match tokio::time::timeout(Duration::from_millis(500), reading).await {
            Ok(Ok(_)) => welcomes += 1,
            _ => break,
        }
    }
    assert!((2..5).contains(&welcomes), "{welcomes}");
    for _ in 0..welcomes {
        assert_eq!(site.message().await.body.topic(), "w");
    }
}

/// A session that waits for its client must not keep room in a lane for what was given back.
#[tokio::test]
async fn does_a_session_that_gave_up_waiting_keep_a_place_in_the_lane() {
    let mut site = Site::new();
    let mut device = site
        .device(&connect_5("d", true, &expiry(60)), &welcome_5(0))
        .await;
    let Told::Open(door) = site.told().await else {
        panic!("no door")
    };
    site.block_rest();
    device.send(&publish_5(0x32, 1, "a", b"", "x")).await;
    device.ping().await;
    site.notify(door, vec![Notice::Held]).await;
    device.expect_disconnect(0x97).await;
    drop(device);
    assert_eq!(site.told().await, Told::Withdraw(door));
    while site.rest.try_recv().is_ok() {}
    let lane = site.porter.shared.lanes.rest.clone();
    let all: Vec<_> = (0..4).map_while(|_| lane.try_reserve(0).ok()).collect();
    assert_eq!(all.len(), 4);
}
