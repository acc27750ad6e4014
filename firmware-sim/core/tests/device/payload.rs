//! Payloads, as the far end reads them.

use proptest::prelude::*;
use tidegate_device::payload::{COMPACT_LENGTH, Form, PAYLOAD_MAX, read_compact, write};
use tidegate_device::{Body, Crossing, Message, Tick, Value};

fn message(body: Body) -> Message {
    Message {
        boot: 3,
        seq: 17,
        channel: 2,
        due: Tick::from_micros(1_200_000),
        wall_millis: 1_700_000_000_123,
        body,
    }
}

fn json(body: Body) -> String {
    let mut buffer = [0; PAYLOAD_MAX];
    let written = write(&message(body), Form::Json, &mut buffer).unwrap();
    String::from_utf8(written.to_vec()).unwrap()
}

#[test]
fn is_the_json_what_a_rule_can_read() {
    let head = r#"{"boot":3,"seq":17,"tick":1200000,"time":1700000000123"#;
    assert_eq!(
        json(Body::Reading(Value(21_530))),
        format!(r#"{head},"value":21.530}}"#)
    );
    assert_eq!(
        json(Body::Reading(Value(-7))),
        format!(r#"{head},"value":-0.007}}"#)
    );
    assert_eq!(
        json(Body::Reading(Value(0))),
        format!(r#"{head},"value":0.000}}"#)
    );
    let alarm = Body::Alarm {
        crossing: Crossing::Raised,
        value: Value(90_001),
    };
    assert_eq!(
        json(alarm),
        format!(r#"{head},"channel":2,"state":"raised","value":90.001}}"#)
    );
    let report = Body::Report {
        superseded: 5,
        dropped: 0,
        resent: 12,
    };
    assert_eq!(
        json(report),
        format!(r#"{head},"superseded":5,"dropped":0,"resent":12}}"#)
    );
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        any::<i32>().prop_map(|value| Body::Reading(Value(value))),
        (any::<bool>(), any::<i32>()).prop_map(|(raised, value)| Body::Alarm {
            crossing: if raised {
                Crossing::Raised
            } else {
                Crossing::Cleared
            },
            value: Value(value),
        }),
        any::<[u32; 3]>().prop_map(|[superseded, dropped, resent]| Body::Report {
            superseded,
            dropped,
            resent,
        }),
    ]
}

proptest! {
    #[test]
    fn does_every_message_fit_and_come_back(
        names in any::<(u32, u32, u8, u64, u64)>(),
        body in body(),
    ) {
        let (boot, seq, channel, due, wall_millis) = names;
        let message = Message { boot, seq, channel, due: Tick::from_micros(due), wall_millis, body };
        let mut buffer = [0; PAYLOAD_MAX];
        prop_assert!(write(&message, Form::Json, &mut buffer).is_some());
        let compact = write(&message, Form::Compact, &mut buffer).unwrap();
        prop_assert_eq!(compact.len(), COMPACT_LENGTH);
        prop_assert_eq!(read_compact(compact), Some(message));
    }

    #[test]
    fn is_a_buffer_too_small_told_and_never_overrun(length in 0..PAYLOAD_MAX, body in body()) {
        let mut buffer = [0xAA; PAYLOAD_MAX];
        for form in [Form::Json, Form::Compact] {
            let _ = write(&message(body), form, &mut buffer[..length]);
            prop_assert!(buffer[length..].iter().all(|&byte| byte == 0xAA));
        }
    }

    #[test]
    fn is_anything_else_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Some(message) = read_compact(&bytes) {
            let mut buffer = [0; COMPACT_LENGTH];
            let again = write(&message, Form::Compact, &mut buffer).unwrap();
            prop_assert_eq!(again[..14].to_vec(), bytes[..14].to_vec());
        }
    }
}
