//! Noise on whole connections: none may hold its task, its seat or its place.

use super::*;

#[tokio::test]
async fn does_every_connection_end_whatever_it_sends() {
    let mut site = Site::with(settings(), |patience| {
        patience.linger = Duration::from_millis(1)
    });
    let mut state = 0x5EED_u64;
    let mut random = move |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let story = [
        connect_5("d", true, b""),
        publish_5(0x32, 1, "a/b", b"\x23\0\x01", "x"),
        publish_5(0x34, 2, "", b"\x23\0\x01", "y"),
        packed(0x82, &[b"\0\x05\0\0\x01a\x01"]),
        vec![0xC0, 0],
        vec![0x62, 2, 0, 2],
    ]
    .concat();
    for round in 0..5_000 {
        let mut bytes = story.clone();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] ^= 1 << random(8),
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, random(256) as u8),
            }
        }
        let mut device = site.plug(4096);
        let _ = device.0.write_all(&bytes).await;
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        }
        drop(device);
        while let Ok(batch) = site.rest.try_recv() {
            drop(batch);
        }
        while let Some(ended) = site.tasks.try_join_next() {
            ended.expect("a task failed");
        }
        // Mutated packets may have asked for a kept session: few can stay.
        if site.tasks.len() > 60 {
            tokio::task::yield_now().await;
        }
    }
    // What has not ended yet hands over its last messages first; what asked for a kept session may
    // stay, as far as the listener keeps sessions.
    let shared = Arc::clone(&site.porter.shared);
    let drain = async {
        while site.porter.places.available_permits() < settings().connections_max
            || shared.registry.seats() > settings().sessions_max
        {
            let _ = site.rest.try_recv();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    soon(drain).await;
}
