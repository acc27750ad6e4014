//! What the checks need to know of topic filters (MQTT 5, 4.7): whether one covers another, whether
//! two can meet. Filters that are not valid give an answer without a meaning.

/// Whether every topic that `narrow` matches is matched by `wide` too.
pub(super) fn covers(wide: &str, narrow: &str) -> bool {
    if narrow.starts_with('$') && wide.starts_with(['+', '#']) {
        return false;
    }
    let mut narrow = narrow.split('/');
    for level in wide.split('/') {
        match (level, narrow.next()) {
            ("#", _) => return true,
            (_, None | Some("#")) => return false,
            ("+", Some(_)) => {}
            (wide, Some(narrow)) if wide == narrow => {}
            _ => return false,
        }
    }
    narrow.next().is_none()
}

/// Whether some topic is matched by both.
pub(super) fn meet(a: &str, b: &str) -> bool {
    let hidden = |x: &str, y: &str| x.starts_with('$') && y.starts_with(['+', '#']);
    if hidden(a, b) || hidden(b, a) {
        return false;
    }
    let (mut a, mut b) = (a.split('/'), b.split('/'));
    loop {
        match (a.next(), b.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some("+"), Some(_)) | (Some(_), Some("+")) => {}
            (Some(x), Some(y)) if x == y => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn does_a_filter_cover_only_what_it_matches() {
        for (wide, narrow) in [
            ("#", "a/b"),
            ("a/#", "a"),
            ("a/+", "a/b"),
            ("+/#", "a/#"),
            ("a/#", "a/+/#"),
        ] {
            assert!(covers(wide, narrow), "{wide} {narrow}");
        }
        for (wide, narrow) in [
            ("a/+", "a/#"),
            ("a", "+"),
            ("#", "$SYS/x"),
            ("+/b", "a"),
            ("a/b", "a/b/c"),
        ] {
            assert!(!covers(wide, narrow), "{wide} {narrow}");
        }
    }

    #[test]
    fn do_filters_meet_where_a_topic_fits_both() {
        for (a, b) in [
            ("#", "a"),
            ("a/+", "+/b"),
            ("a/#", "a"),
            ("spBv1.0/#", "+/+/x"),
        ] {
            assert!(meet(a, b) && meet(b, a), "{a} {b}");
        }
        for (a, b) in [("a", "b"), ("a/+", "a"), ("#", "$SYS/a"), ("a/b", "a/b/c")] {
            assert!(!meet(a, b) && !meet(b, a), "{a} {b}");
        }
    }
}
