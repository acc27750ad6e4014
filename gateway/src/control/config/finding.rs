//! What is wrong with a configuration, told to an operator: what, where in the file, the line with
//! a caret under the culprit, and a hint. Comes from every reader and check of this room; goes to
//! stderr. It never shows a secret: a line that seems to hold one is cut.

use std::fmt;

/// A place in the text, in bytes.
pub type Span = std::ops::Range<usize>;

/// Whether the gateway starts all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It does not start.
    Fault,
    /// It starts, and this will hurt.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where it stands; `None`: nowhere in the text, a default is meant.
    pub at: Option<Span>,
    /// What is wrong.
    pub what: String,
    /// What to do about it; empty when that is plain.
    pub hint: String,
}

/// Everything that is wrong with one configuration, in the order of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    /// The name of the text: its path, or "embedded defaults".
    pub origin: String,
    /// The text itself.
    pub text: String,
    /// What was found.
    pub list: Vec<Finding>,
}

impl Findings {
    /// How many there are of this severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.list.iter().filter(|f| f.severity == severity).count()
    }

    /// Puts them into the order of the text.
    pub(super) fn sort(&mut self) {
        self.list
            .sort_by_key(|f| f.at.as_ref().map_or((0, 0), |at| (at.start, at.end)));
        self.list.dedup();
    }

    /// Where a finding stands: "tidegate.toml:12", or the name of the text.
    #[must_use]
    pub fn place(&self, finding: &Finding) -> String {
        match &finding.at {
            Some(at) => format!(
                "{}:{}",
                self.origin,
                Excerpt::cut(&self.text, at).line_number
            ),
            None => self.origin.clone(),
        }
    }

    /// "3 faults, 1 warning".
    #[must_use]
    pub fn summary(&self) -> String {
        let count = |severity, one: &str| match self.count(severity) {
            1 => format!("1 {one}"),
            n => format!("{n} {one}s"),
        };
        let faults = count(Severity::Fault, "fault");
        format!("{faults}, {}", count(Severity::Warning, "warning"))
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.list {
            finding.render(&self.origin, &self.text, f)?;
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Finding {
    fn render(&self, origin: &str, text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Fault => "fault",
            Severity::Warning => "warning",
        };
        writeln!(f, "{word}: {}", self.what)?;
        match self.at.as_ref().map(|at| Excerpt::cut(text, at)) {
            None => writeln!(f, "  --> {origin}")?,
            Some(excerpt) => excerpt.render(origin, f)?,
        }
        if !self.hint.is_empty() {
            writeln!(f, "   = hint: {}", self.hint)?;
        }
        Ok(())
    }
}

/// The longest part of a source line that is shown, in characters.
const LINE_CHARS_MAX: usize = 160;

/// The line that a finding points at.
struct Excerpt {
    line_number: usize,
    column: usize,
    line: String,
    caret_from: usize,
    caret_len: usize,
}

impl Excerpt {
    fn cut(text: &str, at: &Span) -> Self {
        let start = floor_char(text, at.start);
        let line_start = text[..start].rfind('\n').map_or(0, |i| i + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |i| start + i);
        let end = floor_char(text, at.end).clamp(start, line_end);
        let before = text[line_start..start].chars().count();
        let (line, shown_from) = printable(&text[line_start..line_end], before);
        let caret_from = before.saturating_sub(shown_from);
        let room = line.chars().count().saturating_sub(caret_from);
        Self {
            line_number: text[..start].matches('\n').count() + 1,
            column: before + 1,
            caret_from,
            caret_len: text[start..end].chars().count().min(room).max(1),
            line,
        }
    }

    fn render(&self, origin: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line_number.to_string();
        let pad = " ".repeat(number.len());
        writeln!(f, "{pad}--> {origin}:{number}:{}", self.column)?;
        writeln!(f, "{pad} |")?;
        writeln!(f, "{number} | {}", self.line)?;
        let carets = "^".repeat(self.caret_len);
        writeln!(f, "{pad} | {}{carets}", " ".repeat(self.caret_from))
    }
}

fn floor_char(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The line without control characters and secrets, cut to size around `column`; and the first
/// column that is shown.
fn printable(line: &str, column: usize) -> (String, usize) {
    let line = without_secrets(line);
    let from = if column + 20 > LINE_CHARS_MAX {
        column - LINE_CHARS_MAX / 2
    } else {
        0
    };
    let shown = line
        .trim_end_matches('\r')
        .chars()
        .skip(from)
        .take(LINE_CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    (shown, from)
}

/// Cuts what seems to be a secret: the value of a key such as `password`, and what stands before
/// the `@` of a URL.
fn without_secrets(line: &str) -> String {
    if let Some(value) = secret_value(line) {
        return format!("{}***", &line[..value]);
    }
    let Some(user) = line.find("://").map(|i| i + 3) else {
        return line.to_owned();
    };
    match line[user..].rfind('@') {
        Some(host) => format!("{}***{}", &line[..user], &line[user + host..]),
        None => line.to_owned(),
    }
}

/// Where the value of a secret's key starts.
fn secret_value(line: &str) -> Option<usize> {
    let lower = line.to_ascii_lowercase();
    ["passw", "secret", "token"].iter().find_map(|word| {
        let key = lower.find(word)?;
        let name_len = lower[key..].find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))?;
        let names_a_file = lower[key..key + name_len].ends_with("_file");
        let value = key + lower[key..].find('=')? + 1;
        (!names_a_file).then(|| value + usize::from(lower[value..].starts_with(' ')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str, at: Span) -> Findings {
        Findings {
            origin: "t.toml".to_owned(),
            text: text.to_owned(),
            list: vec![Finding {
                severity: Severity::Fault,
                at: Some(at),
                what: "what".to_owned(),
                hint: "hint".to_owned(),
            }],
        }
    }

    #[test]
    fn does_the_caret_stand_under_the_culprit() {
        let shown = findings("a = 1\nüb = \"x\"\n", 12..15).to_string();
        assert_eq!(
            shown,
            "fault: what\n --> t.toml:2:6\n  |\n2 | üb = \"x\"\n  |      ^^^\n   = hint: hint\n\n"
        );
    }

    #[test]
    fn is_a_secret_never_shown() {
        for line in [
            "password = \"hunter2\"",
            "  PassWord=\"hunter2\"",
            "url = \"mqtt://me:hunter2@cloud\"",
            "url = \"mqtt://me:hun@ter2@cloud\"",
            "uplink = [{ url = \"mqtt://c\", password = \"hunter2\" }]",
            "password_env = \"hunter2\"",
        ] {
            let shown = findings(line, 0..line.len()).to_string();
            assert!(!shown.contains("ter2"), "{shown}");
        }
        let shown = findings("password_file = \"/run/pw\"", 0..8).to_string();
        assert!(shown.contains("/run/pw"));
    }

    #[test]
    fn does_any_place_in_any_text_render() {
        let text = "é\r\n\tx = \"ü\u{7f}\" # password = äé=\n\n";
        for start in 0..text.len() + 3 {
            for end in 0..text.len() + 3 {
                let _ = findings(text, start..end).to_string();
            }
        }
        let long = "x".repeat(5000);
        let shown = findings(&long, 4000..4010).to_string();
        assert!(shown.len() < 600 && shown.contains("^^^^^^^^^^"));
    }
}
