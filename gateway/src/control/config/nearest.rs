//! The name that was probably meant.

/// The one of `known` that is nearest to `name`, if one is near: few typing errors away, or the
/// same but for its end.
pub(super) fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    /// Longer names are not worth comparing; no key is that long.
    const NAME_CHARS_MAX: usize = 64;
    if name.chars().count() > NAME_CHARS_MAX {
        return None;
    }
    known
        .into_iter()
        .filter_map(|candidate| Some((distance_if_near(name, candidate)?, candidate)))
        .min()
        .map(|(_, candidate)| candidate)
}

fn distance_if_near(name: &str, candidate: &str) -> Option<usize> {
    let distance = distance(&name.to_lowercase(), &candidate.to_lowercase());
    let typo = distance <= (candidate.chars().count() / 3).max(1);
    let begun = name.len() >= 3 && candidate.starts_with(name);
    let overdone = candidate.len() >= 3 && name.starts_with(candidate);
    (typo || begun || overdone).then_some(distance)
}

/// Damerau-Levenshtein distance (optimal string alignment): characters to insert, delete, replace,
/// or neighbours to swap.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    let mut last_a = None;
    for (row, ca) in a.chars().enumerate() {
        let mut current = Vec::with_capacity(b.len() + 1);
        current.push(row + 1);
        for (column, &cb) in b.iter().enumerate() {
            let replaced = above[column] + usize::from(ca != cb);
            let mut best = replaced.min(above[column + 1] + 1).min(current[column] + 1);
            if column > 0 && last_a == Some(cb) && ca == b[column - 1] {
                best = best.min(before[column - 1] + 1);
            }
            current.push(best);
        }
        last_a = Some(ca);
        before = std::mem::replace(&mut above, current);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_distance_right() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("bind", "bind"), 0);
        assert_eq!(distance("bnid", "bind"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn is_what_was_meant_found() {
        let known = ["bind", "subscribe", "password_file", "packet_max", "ttl"];
        assert_eq!(nearest("bnd", known), Some("bind"));
        assert_eq!(nearest("Subscirbe", known), Some("subscribe"));
        assert_eq!(nearest("password", known), Some("password_file"));
        assert_eq!(nearest("tll", known), Some("ttl"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest(&"x".repeat(100_000), known), None);
    }
}
