//! Reads the tables of the file key by key and goes on after a fault, so that all faults are told
//! at once. In comes the parsed text with its places; out go values, and what is wrong goes to
//! [`Reading`]. A key exists by being read: the known names, the nearest-name hints and the test of
//! the documentation all come from what was asked for here, so they cannot drift apart.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::expand::{ExpandError, expand};
use super::finding::{Finding, Severity, Span};
use super::nearest::nearest;
use super::units;

/// What a configuration needs to know of the machine: the door `file` asks the real one.
pub trait Surroundings {
    /// The value of an environment variable.
    fn variable(&self, name: &str) -> Option<String>;
    /// Whether this file can be read, or why not.
    ///
    /// # Errors
    /// The reason, for the operator.
    fn readable(&self, path: &Path) -> Result<(), String>;
    /// The size in bytes of the file system that holds this folder, or will hold it once it is
    /// made; `None` where the machine does not tell.
    fn disk_bytes(&self, folder: &Path) -> Option<u64>;
}

/// A key that was asked for, and what its values may be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Known {
    pub(super) section: &'static str,
    pub(super) key: &'static str,
    /// The range or the choice, as the documentation must say it; empty when there is none.
    pub(super) says: String,
}

/// One pass over a configuration: what was found so far.
pub(super) struct Reading<'e> {
    pub(super) surroundings: &'e dyn Surroundings,
    pub(super) findings: Vec<Finding>,
    pub(super) known: Vec<Known>,
}

impl Reading<'_> {
    pub(super) fn fault(&mut self, at: Option<Span>, what: String, hint: impl Into<String>) {
        self.find(Severity::Fault, at, what, hint.into());
    }

    pub(super) fn warn(&mut self, at: Option<Span>, what: String, hint: impl Into<String>) {
        self.find(Severity::Warning, at, what, hint.into());
    }

    fn find(&mut self, severity: Severity, at: Option<Span>, what: String, hint: String) {
        self.findings.push(Finding {
            severity,
            at,
            what,
            hint,
        });
    }
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) at: Span,
}

/// The range of a setting, its default, and why the range ends where it does.
pub(super) struct Range<T> {
    pub(super) default: T,
    pub(super) least: T,
    pub(super) most: T,
    pub(super) why: &'static str,
}

/// One table being read.
pub(super) struct Section<'r, 'e, 't> {
    reading: &'r mut Reading<'e>,
    name: &'static str,
    table: Option<&'t DeTable<'t>>,
    header: Option<Span>,
    asked: Vec<&'static str>,
}

impl<'r, 'e, 't> Section<'r, 'e, 't> {
    /// A table, or the defaults of one that the file does not have.
    pub(super) fn open(
        reading: &'r mut Reading<'e>,
        name: &'static str,
        table: Option<(&'t DeTable<'t>, Option<Span>)>,
    ) -> Self {
        let (table, header) = table.unzip();
        Self {
            reading,
            name,
            table,
            header: header.flatten(),
            asked: Vec::new(),
        }
    }

    /// Where the table starts.
    pub(super) fn header(&self) -> Option<Span> {
        self.header.clone()
    }

    /// Where the key's value stands, else the table.
    pub(super) fn at(&self, key: &str) -> Option<Span> {
        self.written(key).map(Spanned::span).or(self.header())
    }

    /// Whether the file says anything about this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.written(key).is_some()
    }

    pub(super) fn fault(&mut self, key: &str, what: String, hint: impl Into<String>) {
        self.reading.fault(self.at(key), what, hint);
    }

    /// A fault in one item of a list.
    pub(super) fn fault_at(&mut self, at: &Span, what: String, hint: impl Into<String>) {
        self.reading.fault(Some(at.clone()), what, hint);
    }

    pub(super) fn warn(&mut self, key: &str, what: String, hint: impl Into<String>) {
        self.reading.warn(self.at(key), what, hint);
    }

    pub(super) fn surroundings(&self) -> &'e dyn Surroundings {
        self.reading.surroundings
    }

    /// A string, expanded and not empty.
    pub(super) fn text(&mut self, key: &'static str) -> Option<Placed<String>> {
        let value = self.ask(key, String::new())?;
        self.string(key, value, "write it in quotes")
    }

    /// A string, or a list of at least one: each with its place.
    pub(super) fn texts(&mut self, key: &'static str) -> Option<Vec<Placed<String>>> {
        let value = self.ask(key, String::new())?;
        let DeValue::Array(items) = value.get_ref() else {
            let hint = "write a string in quotes, or a list of them";
            return Some(vec![self.string(key, value, hint)?]);
        };
        if items.is_empty() {
            self.fault(key, format!("`{key}` is an empty list"), "say at least one");
            return None;
        }
        let texts: Vec<_> = items
            .iter()
            .filter_map(|item| self.string(key, item, "every item is a string in quotes"))
            .collect();
        (texts.len() == items.len()).then_some(texts)
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &'static str, default: bool) -> bool {
        match self.ask(key, "true or false".to_owned()) {
            None => default,
            Some(value) => value.get_ref().as_bool().unwrap_or_else(|| {
                self.wrong_type(key, value, "write true or false, without quotes");
                default
            }),
        }
    }

    /// A whole number within a range.
    pub(super) fn integer<T>(&mut self, key: &'static str, range: &Range<T>) -> T
    where
        T: Copy + Ord + Display + TryFrom<u64>,
    {
        self.optional_integer(key, range).unwrap_or(range.default)
    }

    /// A whole number within a range, if there is one.
    pub(super) fn optional_integer<T>(&mut self, key: &'static str, range: &Range<T>) -> Option<T>
    where
        T: Copy + Ord + Display + TryFrom<u64>,
    {
        let value = self.ask(key, says(&range.least, &range.most))?;
        let DeValue::Integer(number) = value.get_ref() else {
            self.wrong_type(key, value, "write a whole number, without quotes or unit");
            return None;
        };
        let digits = number.as_str().replace('_', "");
        let parsed = u64::from_str_radix(&digits, number.radix()).ok();
        match parsed.and_then(|n| T::try_from(n).ok()) {
            Some(n) => self.within(key, n, range, T::to_string),
            None => {
                self.outside(key, &digits, range, &T::to_string);
                None
            }
        }
    }

    /// A share of the whole as a decimal number, in 1/1000.
    pub(super) fn share(&mut self, key: &'static str, range: &Range<u32>) -> u32 {
        let show = |permille: &u32| units::show_share(*permille);
        let says = says(&show(&range.least), &show(&range.most));
        let Some(value) = self.ask(key, says) else {
            return range.default;
        };
        let DeValue::Float(written) = value.get_ref() else {
            self.wrong_type(
                key,
                value,
                "write a decimal number such as 0.3, without quotes",
            );
            return range.default;
        };
        let share =
            units::share(written.as_str()).filter(|s| (range.least..=range.most).contains(s));
        share.unwrap_or_else(|| {
            self.outside(key, written.as_str(), range, &show);
            range.default
        })
    }

    /// A size in bytes.
    pub(super) fn size(&mut self, key: &'static str, range: &Range<u64>) -> u64 {
        self.optional_size(key, range).unwrap_or(range.default)
    }

    /// A size in bytes, if there is one.
    pub(super) fn optional_size(&mut self, key: &'static str, range: &Range<u64>) -> Option<u64> {
        let show = |n: &u64| units::show_size(*n);
        self.amount(key, range, (units::size, show), "size", units::SIZE_HINT)
    }

    /// A time.
    pub(super) fn time(&mut self, key: &'static str, range: &Range<Duration>) -> Duration {
        self.optional_time(key, range).unwrap_or(range.default)
    }

    /// A time, if there is one.
    pub(super) fn optional_time(
        &mut self,
        key: &'static str,
        range: &Range<Duration>,
    ) -> Option<Duration> {
        let show = |t: &Duration| units::show_time(*t);
        self.amount(key, range, (units::time, show), "time", units::TIME_HINT)
    }

    /// A rate in bytes a second, if there is one.
    pub(super) fn optional_rate(&mut self, key: &'static str, range: &Range<u64>) -> Option<u64> {
        let show = |n: &u64| units::show_rate(*n);
        self.amount(key, range, (units::rate, show), "rate", units::RATE_HINT)
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        default: T,
        options: &[(&'static str, T)],
    ) -> T {
        self.optional_choice(key, options).unwrap_or(default)
    }

    /// One of several words, if there is one.
    pub(super) fn optional_choice<T: Copy>(
        &mut self,
        key: &'static str,
        options: &[(&'static str, T)],
    ) -> Option<T> {
        let words: Vec<_> = options
            .iter()
            .map(|(word, _)| format!("\"{word}\""))
            .collect();
        let words = words.join(" or ");
        let value = self.ask(key, words.clone())?;
        let text = self.string(key, value, &format!("write {words}, in quotes"))?;
        if let Some((_, chosen)) = options.iter().find(|(word, _)| *word == text.value) {
            return Some(*chosen);
        }
        let near = nearest(&text.value, options.iter().map(|(word, _)| *word));
        let meant = near.map_or(String::new(), |word| format!("; did you mean \"{word}\"?"));
        let what = format!("`{key}` cannot be {}", quoted(&text.value));
        self.fault(key, what, format!("write {words}{meant}"));
        None
    }

    /// A key that people expect and that is not there on purpose.
    pub(super) fn never(&mut self, key: &'static str, what: &str, hint: &str) {
        if self.has(key) {
            self.asked.push(key);
            self.fault(key, what.to_owned(), hint);
        }
    }

    /// Ends the reading: every key that was not asked for is a fault.
    pub(super) fn done(self) {
        for (key, _) in self.table.into_iter().flatten() {
            let name = key.get_ref().as_ref();
            if !self.asked.contains(&name) {
                let what = format!("unknown key {} in {}", quoted(name), self.name);
                let hint = known_names(name, &self.asked);
                self.reading.fault(Some(key.span()), what, hint);
            }
        }
    }

    fn written(&self, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.table?.get(key)
    }

    fn ask(&mut self, key: &'static str, says: String) -> Option<&'t Spanned<DeValue<'t>>> {
        self.asked.push(key);
        self.reading.known.push(Known {
            section: self.name,
            key,
            says,
        });
        self.written(key)
    }

    fn string(
        &mut self,
        key: &'static str,
        value: &'t Spanned<DeValue<'t>>,
        hint: &str,
    ) -> Option<Placed<String>> {
        let at = value.span();
        let DeValue::String(written) = value.get_ref() else {
            self.wrong_type(key, value, hint);
            return None;
        };
        let (what, hint) = match expand(written, |name| self.reading.surroundings.variable(name)) {
            Ok(value) if !value.is_empty() => return Some(Placed { value, at }),
            Ok(_) if written.is_empty() => (format!("`{key}` is empty"), "leave the key out"),
            Ok(_) => (
                format!("`{key}` is empty: the variable in it is"),
                "give the variable a value in the environment of the gateway",
            ),
            Err(ExpandError::Unset(name)) => (
                format!("the environment variable {name} is not set"),
                "set it in the environment of the gateway, or write $$ where a $ is meant",
            ),
            Err(ExpandError::Open) => (
                "`${` without `}`".to_owned(),
                "write ${NAME}, or $$ where a $ is meant",
            ),
            Err(ExpandError::Name(name)) => (
                format!("{} is no name of an environment variable", quoted(&name)),
                "write ${NAME} with letters, digits and _",
            ),
        };
        self.reading.fault(Some(at), what, hint);
        None
    }

    fn wrong_type(&mut self, key: &str, value: &Spanned<DeValue<'_>>, hint: &str) {
        let what = format!("`{key}` cannot be {}", type_word(value.get_ref()));
        self.reading.fault(Some(value.span()), what, hint);
    }

    fn amount<T: Copy + Ord>(
        &mut self,
        key: &'static str,
        range: &Range<T>,
        (parse, show): (fn(&str) -> Option<T>, impl Fn(&T) -> String),
        kind: &str,
        hint: &str,
    ) -> Option<T> {
        let value = self.ask(key, says(&show(&range.least), &show(&range.most)))?;
        let text = self
            .string(key, value, &format!("{hint}, in quotes"))?
            .value;
        let Some(amount) = parse(&text) else {
            let what = format!("`{key}`: {} is not a {kind}", quoted(&text));
            self.fault(key, what, hint);
            return None;
        };
        self.within(key, amount, range, show)
    }

    fn within<T: Copy + Ord>(
        &mut self,
        key: &'static str,
        amount: T,
        range: &Range<T>,
        show: impl Fn(&T) -> String,
    ) -> Option<T> {
        if (range.least..=range.most).contains(&amount) {
            return Some(amount);
        }
        self.outside(key, &show(&amount), range, &show);
        None
    }

    fn outside<T>(
        &mut self,
        key: &'static str,
        shown: &str,
        range: &Range<T>,
        show: &impl Fn(&T) -> String,
    ) {
        let (least, most) = (show(&range.least), show(&range.most));
        let what = format!("`{key}` is {shown}, and must be {least} to {most}");
        self.fault(key, what, range.why);
    }
}

fn says(least: &impl Display, most: &impl Display) -> String {
    format!("{least} to {most}")
}

/// A text in quotes, for a message; cut where it is long.
pub(super) fn quoted(text: &str) -> String {
    /// Enough to recognise it by.
    const SHOWN_CHARS_MAX: usize = 80;
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    format!("\"{}\"", shown.replace(char::is_control, " "))
}

/// The hint for a name that is not known.
pub(super) fn known_names(name: &str, known: &[&str]) -> String {
    match nearest(name, known.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// What a value is, in words.
pub(super) fn type_word(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a bare number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
