//! The tables of the file, found by name: those that may stand once (`[gateway]`) and those that
//! repeat (`[[rule]]`). What is neither is a fault.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::finding::Span;
use super::reader::{Reading, known_names, quoted, type_word};

/// A table and where it starts.
pub(super) type Table<'t> = (&'t DeTable<'t>, Option<Span>);

/// The tables that a configuration may have.
const SECTIONS: [&str; 8] = [
    "gateway", "listener", "source", "uplink", "spool", "class", "rule", "admin",
];

/// Faults for everything at the top that is no section.
pub(super) fn refuse_unknown(reading: &mut Reading<'_>, root: &DeTable<'_>) {
    for (key, _) in root {
        let name = key.get_ref().as_ref();
        if !SECTIONS.contains(&name) {
            let what = format!("unknown section or key {}", quoted(name));
            reading.fault(Some(key.span()), what, known_names(name, &SECTIONS));
        }
    }
}

/// A table that stands at most once.
pub(super) fn one<'t>(
    reading: &mut Reading<'_>,
    root: &'t DeTable<'t>,
    name: &str,
) -> Option<Table<'t>> {
    let value = root.get(name)?;
    if let DeValue::Table(table) = value.get_ref() {
        return Some((table, Some(value.span())));
    }
    let at = first_item(value).unwrap_or(value).span();
    let what = format!("`{name}` is {}", type_word(value.get_ref()));
    let hint = format!("it stands once: write [{name}] and its keys below");
    reading.fault(Some(at), what, hint);
    None
}

/// Tables that repeat, in their order.
pub(super) fn many<'t>(
    reading: &mut Reading<'_>,
    root: &'t DeTable<'t>,
    name: &str,
    count_max: usize,
) -> Vec<Table<'t>> {
    let Some(value) = root.get(name) else {
        return Vec::new();
    };
    let hint = format!("it can repeat: write [[{name}]] and its keys below");
    let DeValue::Array(items) = value.get_ref() else {
        let what = format!("`{name}` is {}", type_word(value.get_ref()));
        reading.fault(Some(value.span()), what, hint);
        return Vec::new();
    };
    if let Some(excess) = items.get(count_max) {
        let what = format!("more than {count_max} [[{name}]] sections");
        let hint = format!("there are {}; put several into one", items.len());
        reading.fault(Some(excess.span()), what, hint);
    }
    let tables = items.iter().take(count_max);
    tables
        .filter_map(|item| match item.get_ref() {
            DeValue::Table(table) => Some((table, Some(item.span()))),
            other => {
                let what = format!("`{name}` holds {}", type_word(other));
                reading.fault(Some(item.span()), what, hint.clone());
                None
            }
        })
        .collect()
}

fn first_item<'t>(value: &'t Spanned<DeValue<'t>>) -> Option<&'t Spanned<DeValue<'t>>> {
    value.get_ref().as_array()?.first()
}
