//! A device gone mad beside others, and devices that are slowed.

use super::*;

/// What reads the lanes takes one batch of each connection before the second of any.
#[tokio::test]
async fn does_a_client_that_floods_have_one_batch_in_a_lane_before_others() {
    let mut site = Site::new();
    let mut mad = site.device(&connect_311("mad", true, 60), WELCOME).await;
    let mut good = site.device(&connect_311("good", true, 60), WELCOME).await;
    let flood = publish_311(0x30, 0, "a", &"x".repeat(1000)).repeat(500);
    mad.send(&flood).await;
    mad.ping().await;
    good.send(&publish_311(0x30, 0, "a", "reading")).await;
    good.ping().await;
    let first = soon(site.rest.recv()).await.unwrap();
    assert_eq!(first.messages[0].body.payload().len(), 1000);
    let second = soon(site.rest.recv()).await.unwrap();
    assert_eq!(second.messages[0].body.payload(), b"reading");
    assert!(site.rest.try_recv().is_err(), "the flood's next turn");
    drop(first);
    let third = soon(site.rest.recv()).await.unwrap();
    assert_eq!(third.messages[0].body.payload().len(), 1000);
}

#[tokio::test]
async fn is_a_client_read_at_its_limit_and_all_that_it_sent_taken() {
    let mut settings = settings();
    settings.client_rate_max = Some(100);
    let mut site = Site::with(settings, |_| {});
    let mut device = site.device(&connect_311("d", true, 1), WELCOME).await;
    let start = std::time::Instant::now();
    device
        .send(&publish_311(0x30, 0, "a", "x").repeat(300))
        .await;
    for _ in 0..300 {
        let _ = site.message().await;
    }
    // Its keep-alive of a second is long over, and its clock stood still.
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(2700), "{took:?}");
    device.ping().await;
}

#[tokio::test]
async fn is_a_slowed_device_answered_within_its_keep_alive() {
    let mut site = Site::new();
    let mut device = site.device(&connect_311("d", true, 4), WELCOME).await;
    let reading = publish_311(0x30, 0, "a", "x");
    for _ in 0..12 {
        device.send(&reading).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let door = site.message().await.receipt.door;
    site.notify(door, vec![Notice::Slowed { permille: 10 }])
        .await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let start = std::time::Instant::now();
    // At a hundredth of ten a second, these alone take five minutes.
    device.send(&reading.repeat(30)).await;
    device.ping().await;
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(500),
        "it is not slowed: {took:?}"
    );
    assert!(took < Duration::from_secs(4), "{took:?}");
}
