//! Wills: when they are published, and when not.

use super::*;

fn connect(clean: bool, session: u32, delay: u32) -> Vec<u8> {
    let flags = 0x2C | if clean { 2 } else { 0 };
    let delay = [&[5, 0x18][..], &delay.to_be_bytes()].concat();
    packed(
        0x10,
        &[
            b"\0\x04MQTT\x05",
            &[flags, 0, 60, 5],
            &expiry(session),
            &text("d"),
            &delay,
            &text("w/t"),
            &text("gone"),
        ],
    )
}

async fn expect_will(site: &mut Site) {
    let will = site.message().await;
    assert_eq!(
        (will.body.topic(), will.body.payload()),
        ("w/t", &b"gone"[..])
    );
    assert_eq!((will.receipt.token, will.retain), (None, true));
}

#[tokio::test]
async fn is_a_will_published_when_the_connection_drops_and_before_the_door_closes() {
    let mut site = Site::new();
    let device = site.device(&connect(true, 0, 0), &welcome_5(0)).await;
    drop(device);
    expect_will(&mut site).await;
    site.empty().await;
}

#[tokio::test]
async fn is_a_will_published_after_a_fault_and_after_a_disconnect_that_asks_for_it() {
    let mut site = Site::new();
    for last in [&[0xE0, 1, 4][..], &[0x00, 0]] {
        let mut device = site.device(&connect(true, 0, 0), &welcome_5(0)).await;
        device.send(last).await;
        expect_will(&mut site).await;
    }
}

#[tokio::test]
async fn is_a_will_published_after_a_packet_that_was_never_finished() {
    let mut site = Site::with(settings(), |patience| {
        patience.packet = Duration::from_millis(50)
    });
    let mut device = site.device(&connect(true, 0, 0), &welcome_5(0)).await;
    device.send(&[0x30, 9, 0]).await;
    device.expect_disconnect(0x8D).await;
    expect_will(&mut site).await;
}

#[tokio::test]
async fn is_no_will_published_after_disconnect() {
    let mut site = Site::new();
    let mut device = site.device(&connect(true, 0, 0), &welcome_5(0)).await;
    device.send(&[0xE0, 0]).await;
    device.expect_end().await;
    drop(device);
    site.empty().await;
    assert!(site.silent());
}

#[tokio::test]
async fn does_a_will_wait_for_its_delay() {
    let mut site = Site::new();
    let device = site.device(&connect(true, 60, 1), &welcome_5(0)).await;
    let clock = site.porter.shared.clock;
    let dropped = clock.now();
    drop(device);
    expect_will(&mut site).await;
    assert!(clock.now().since(dropped) >= Duration::from_secs(1));
    site.device(&connect(false, 60, 1), &welcome_5(1)).await;
}

#[tokio::test]
async fn is_a_waiting_will_cancelled_by_a_return_and_published_by_a_clean_start() {
    let mut site = Site::new();
    drop(site.device(&connect(true, 60, 30), &welcome_5(0)).await);
    let device = site.device(&connect(false, 60, 30), &welcome_5(1)).await;
    assert!(site.silent(), "it came back in time");
    drop(device);
    site.device(&connect(true, 60, 30), &welcome_5(0)).await;
    expect_will(&mut site).await;
}

#[tokio::test]
async fn does_a_cancelled_will_stay_cancelled() {
    let mut site = Site::new();
    drop(site.device(&connect(true, 60, 30), &welcome_5(0)).await);
    let mut device = site.device(&connect(false, 60, 30), &welcome_5(1)).await;
    device.send(&[0xE0, 0]).await;
    device.expect_end().await;
    drop(device);
    // A clean start ends the session, with whatever will still waits in it.
    let mut device = site.device(&connect(true, 0, 0), &welcome_5(0)).await;
    device.send(&[0xE0, 0]).await;
    device.expect_end().await;
    drop(device);
    site.empty().await;
    assert!(site.silent());
}

#[tokio::test]
async fn is_a_waiting_will_published_when_its_session_ends_first() {
    let mut site = Site::new();
    drop(site.device(&connect(true, 1, 600), &welcome_5(0)).await);
    expect_will(&mut site).await;
    site.empty().await;
}

/// A device whose PINGREQ is not answered since the gateway does not read is not dead.
#[tokio::test]
async fn is_no_will_published_when_a_long_pause_drove_the_client_away() {
    let mut settings = settings();
    settings.hold_max = DEADLINE;
    // It leaves in the pause; leaves unseen, behind more than the buffer takes; or comes back.
    for (bulk, back) in [(0, false), (20_000, false), (20_000, true)] {
        let mut site = Site::with(settings.clone(), |_| {});
        let mut device = site.device(&connect(true, 60, 0), &welcome_5(0)).await;
        device.send(&publish_5(0x32, 1, "a", b"", "x")).await;
        let door = site.message().await.receipt.door;
        site.notify(door, vec![Notice::Held]).await;
        let payload = "y".repeat(bulk);
        device.send(&publish_5(0x30, 0, "a", b"", &payload)).await;
        tokio::time::sleep(Duration::from_millis(1100)).await;
        if back {
            let mut again = site.device(&connect(false, 60, 0), &welcome_5(1)).await;
            again.send(&[0xE0, 0]).await;
        }
        drop(device);
        site.notify(door, vec![Notice::Released]).await;
        if !back {
            assert_eq!(site.message().await.body.payload().len(), bulk);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(site.silent(), "{bulk} {back}");
    }
}

#[tokio::test]
async fn is_a_will_published_after_a_pause_that_is_over() {
    let mut settings = settings();
    settings.hold_max = DEADLINE;
    let mut site = Site::with(settings, |_| {});
    let mut device = site.device(&connect(true, 60, 0), &welcome_5(0)).await;
    device.send(&publish_5(0x32, 1, "a", b"", "x")).await;
    let message = site.message().await;
    let door = message.receipt.door;
    site.notify(door, vec![Notice::Held]).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    site.notify(door, vec![Notice::Released]).await;
    device.ping().await;
    drop(device);
    expect_will(&mut site).await;
}
