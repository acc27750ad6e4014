use super::*;
use crate::traffic::lanes::Refusal;

fn sent(packet_id: u16, qos: QoS, dup: bool, payload: &str) -> Sent {
    Sent {
        packet_id,
        qos,
        dup,
        fingerprint: fingerprint("t", payload.as_bytes()),
        bytes: 100,
    }
}

fn connected() -> Session {
    let mut session = Session::default();
    session.connect();
    session
}

fn new(session: &mut Session, sent: Sent) -> u32 {
    match session.arrive(sent) {
        Arrival::New { token } => token,
        other => panic!("{other:?} instead of a new message"),
    }
}

const ONE: QoS = QoS::AtLeastOnce;
const TWO: QoS = QoS::ExactlyOnce;

#[test]
fn does_a_message_stay_unanswered_until_the_relay_answers() {
    let mut session = connected();
    let token = new(&mut session, sent(1, ONE, false, "a"));
    assert_eq!((session.unanswered(), session.unanswered_bytes()), (1, 100));
    let reply = session.answer(token, Answer::Accepted).unwrap();
    assert_eq!((reply.packet_id, reply.qos), (1, ONE));
    assert_eq!((session.unanswered(), session.unanswered_bytes()), (0, 0));
    assert_eq!(session.in_flight(), 0);
    assert_eq!(
        session.answer(token, Answer::Accepted),
        None,
        "answered once"
    );
}

#[test]
fn does_a_resend_after_reconnect_attach_to_the_message_that_still_waits() {
    let mut session = connected();
    let token = new(&mut session, sent(7, ONE, false, "a"));
    session.park();
    session.connect();
    assert_eq!(session.arrive(sent(7, ONE, true, "a")), Arrival::Waiting);
    assert_eq!(session.unanswered(), 1);
    assert!(session.answer(token, Answer::Accepted).is_some());
}

#[test]
fn is_a_resend_told_at_once_what_was_answered_while_its_client_was_away() {
    let mut session = connected();
    let one = new(&mut session, sent(1, ONE, false, "a"));
    let two = new(&mut session, sent(2, TWO, false, "b"));
    session.park();
    let refused = Answer::Refused(Refusal::Full);
    assert_eq!(session.answer(one, refused), None);
    assert_eq!(session.answer(two, Answer::Accepted), None);
    session.connect();
    let told = |packet_id, qos, answer| {
        Arrival::Answered(Reply {
            packet_id,
            qos,
            answer,
        })
    };
    assert_eq!(
        session.arrive(sent(1, ONE, true, "a")),
        told(1, ONE, refused)
    );
    assert_eq!(
        session.arrive(sent(2, TWO, true, "b")),
        told(2, TWO, Answer::Accepted)
    );
    assert_eq!(session.in_flight(), 1, "QoS 2 waits for PUBREL");
    assert!(session.release(2));
    assert_eq!(
        (
            session.in_flight(),
            session.unanswered(),
            session.releases()
        ),
        (0, 0, 0)
    );
}

#[test]
fn is_an_answer_that_never_reached_the_socket_told_at_the_resend() {
    let mut session = connected();
    let said = new(&mut session, sent(1, ONE, false, "a"));
    assert!(session.answer(said, Answer::Accepted).is_some());
    session.said();
    let unsaid = new(&mut session, sent(2, ONE, false, "b"));
    assert!(session.answer(unsaid, Answer::Accepted).is_some());
    session.park();
    session.connect();
    let again = session.arrive(sent(2, ONE, true, "b"));
    assert!(matches!(again, Arrival::Answered(_)), "{again:?}");
    let again = session.arrive(sent(1, ONE, true, "a"));
    assert!(matches!(again, Arrival::New { .. }), "{again:?}");
}

#[test]
fn is_an_answer_kept_when_the_client_is_back_but_has_not_resent_yet() {
    let mut session = connected();
    let token = new(&mut session, sent(1, ONE, false, "a"));
    session.park();
    session.connect();
    assert_eq!(
        session.answer(token, Answer::Accepted),
        None,
        "it would be a PUBACK out of the blue"
    );
    assert!(matches!(
        session.arrive(sent(1, ONE, true, "a")),
        Arrival::Answered(_)
    ));
}

#[test]
fn is_a_rebooted_devices_packet_id_1_a_new_message() {
    let mut session = connected();
    let old = new(&mut session, sent(1, ONE, false, "before"));
    session.park();
    session.connect();
    let young = new(&mut session, sent(1, ONE, false, "before"));
    assert_ne!(old, young, "tokens are unique among the unanswered");
    assert_eq!(session.unanswered(), 2);
    assert_eq!(
        session.answer(old, Answer::Accepted),
        None,
        "nobody waits for the old one"
    );
    assert_eq!(session.unanswered(), 1);
    assert!(session.answer(young, Answer::Accepted).is_some());
    assert_eq!((session.unanswered(), session.unanswered_bytes()), (0, 0));
}

#[test]
fn is_a_dup_with_other_content_on_a_new_connection_a_new_message() {
    let mut session = connected();
    new(&mut session, sent(1, ONE, false, "a"));
    session.park();
    session.connect();
    new(&mut session, sent(1, ONE, true, "b"));
}

#[test]
fn is_another_message_under_a_pending_packet_id_refused_on_the_same_connection() {
    let mut session = connected();
    new(&mut session, sent(1, ONE, false, "a"));
    assert_eq!(session.arrive(sent(1, ONE, true, "b")), Arrival::InUse);
    assert_eq!(
        session.arrive(sent(1, ONE, false, "a")),
        Arrival::InUse,
        "DUP is part of it"
    );
    assert_eq!(
        session.arrive(sent(1, TWO, true, "a")),
        Arrival::InUse,
        "so is QoS"
    );
    assert_eq!(session.unanswered(), 1);
}

#[test]
fn is_qos_2_admitted_once_until_its_release() {
    let mut session = connected();
    let token = new(&mut session, sent(3, TWO, false, "a"));
    assert!(!session.release(3), "PUBREL before PUBREC names nothing");
    assert_eq!(session.arrive(sent(3, TWO, true, "a")), Arrival::Waiting);
    assert!(session.answer(token, Answer::Accepted).is_some());
    assert!(matches!(
        session.arrive(sent(3, TWO, true, "a")),
        Arrival::Answered(_)
    ));
    assert_eq!(session.arrive(sent(3, TWO, false, "b")), Arrival::InUse);
    assert!(session.release(3));
    assert!(!session.release(3));
    new(&mut session, sent(3, TWO, false, "b"));
}

#[test]
fn does_a_refused_qos_2_message_free_its_packet_id_at_once() {
    let mut session = connected();
    let token = new(&mut session, sent(3, TWO, false, "a"));
    assert!(
        session
            .answer(token, Answer::Refused(Refusal::Full))
            .is_some()
    );
    assert_eq!((session.in_flight(), session.releases()), (0, 0));
    new(&mut session, sent(3, TWO, false, "b"));
}

#[test]
fn is_a_returned_message_new_when_it_is_brought_again() {
    let mut session = connected();
    let held = new(&mut session, sent(1, ONE, false, "a"));
    assert!(session.returned(held));
    session.park();
    session.connect();
    let again = new(&mut session, sent(1, ONE, true, "a"));
    assert_eq!(session.answer(held, Answer::Accepted), None);
    assert_eq!(
        session.unanswered(),
        1,
        "a late answer to the old one is not for the new one"
    );
    assert!(session.answer(again, Answer::Accepted).is_some());
}

#[test]
fn do_topic_and_payload_both_make_the_fingerprint_whatever_their_length() {
    let mut seen = std::collections::HashSet::new();
    for topic in ["a", "b", "ab", "a/b/c/d/e/f/g"] {
        for len in 0..40 {
            for byte in [0, 1, 255] {
                // An empty payload is the same whatever it is not filled with.
                let fresh = seen.insert(fingerprint(topic, &vec![byte; len]));
                assert!(fresh || len == 0, "{topic} {len} {byte}");
            }
        }
    }
}

/// A model beside the session: what is unanswered, counted the plain way.
#[test]
fn do_the_counts_hold_through_any_history() {
    let mut state = 0x1234_5678_9ABC_DEF0_u64;
    let mut random = move |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for _ in 0..200 {
        let mut session = connected();
        let mut open: Vec<u32> = Vec::new();
        for _ in 0..500 {
            match random(8) {
                0..=3 => {
                    let qos = if random(2) == 0 { ONE } else { TWO };
                    let payload = if random(3) == 0 { "a" } else { "b" };
                    let id = u16::try_from(random(6)).unwrap() + 1;
                    if let Arrival::New { token } =
                        session.arrive(sent(id, qos, random(2) == 0, payload))
                    {
                        assert!(!open.contains(&token), "a token names one message");
                        open.push(token);
                    }
                }
                4 | 5 if !open.is_empty() => {
                    let at = usize::try_from(random(open.len() as u64)).unwrap();
                    session.answer(open.swap_remove(at), Answer::Accepted);
                }
                6 => {
                    session.release(u16::try_from(random(6)).unwrap() + 1);
                }
                _ => {
                    session.park();
                    session.connect();
                }
            }
            assert_eq!(session.unanswered(), open.len());
            assert_eq!(session.unanswered_bytes(), 100 * open.len() as u64);
            assert!(session.in_flight() <= 6 && session.releases() <= 6);
        }
    }
}

#[test]
fn is_it_said_when_a_returned_message_was_already_sent_again() {
    let mut session = connected();
    let again = new(&mut session, sent(1, ONE, false, "a"));
    let not_yet = new(&mut session, sent(2, ONE, false, "b"));
    session.park();
    session.connect();
    assert_eq!(session.arrive(sent(1, ONE, true, "a")), Arrival::Waiting);
    assert_eq!(session.in_flight(), 1);
    assert!(session.returned(again), "its client waits for the answer");
    assert!(!session.returned(not_yet), "its client will bring it");
    assert_eq!((session.in_flight(), session.unanswered()), (0, 0));
    new(&mut session, sent(2, ONE, true, "b"));
}
