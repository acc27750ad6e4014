//! Reads Rust sources as far as the architecture's rules need it: comments, literals, lifetimes and
//! test code blanked, imports flattened, so that a rule can look for words. In comes a file's text,
//! out goes text with the same number of lines. It does not parse: a rule that needs a parser
//! belongs into clippy.

/// A file of the project, as the rules see it.
#[derive(Debug)]
pub(crate) struct Source {
    /// Its path below `gateway/src`, with `/` between the parts.
    pub(crate) path: String,
    /// Its text as written.
    pub(crate) text: String,
    /// The code that ships: see [`shipped`].
    pub(crate) code: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code: flatten_imports(&shipped(text)),
        }
    }
}

/// The text with comments, literals, lifetimes and `#[cfg(test)]` items blanked. Line breaks stay,
/// so that line numbers hold.
pub(crate) fn shipped(text: &str) -> String {
    let mut code = blank_literals(text);
    for range in test_items(&code) {
        blank(&mut code, range);
    }
    code.into_iter().collect()
}

/// Lines of the file that are not test code.
pub(crate) fn shipped_lines(text: &str) -> usize {
    let code = blank_literals(text);
    let tests: usize = test_items(&code)
        .into_iter()
        .map(|range| code[range].iter().filter(|c| **c == '\n').count())
        .sum();
    text.lines().count().saturating_sub(tests)
}

/// The modules that `#[cfg(test)] mod x;` declares in this file: `x`, or what `#[path]` says
/// without its `.rs`.
pub(crate) fn test_modules(text: &str) -> Vec<TestModule> {
    let written: Vec<char> = text.chars().collect();
    let code = blank_literals(text);
    test_items(&code)
        .into_iter()
        .filter_map(|range| {
            let item: String = code[range.clone()].iter().collect();
            let name = item.split_once("mod ")?.1.trim().strip_suffix(';')?;
            let written: String = written[range].iter().collect();
            Some(match written.split_once("#[path = \"") {
                Some((_, path)) => TestModule::Beside(path.split_once(".rs\"")?.0.to_owned()),
                None => TestModule::Below(name.trim().to_owned()),
            })
        })
        .collect()
}

/// Where a module of tests lives: a path without `.rs`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TestModule {
    /// From the folder of the file that declares it.
    Beside(String),
    /// From the folder in which that file's modules live.
    Below(String),
}

/// Where a word or path occurs, as line numbers from 1. A boundary is required on each side that
/// ends in a letter, so `fs` is not found in `offset`, nor `env` in the macro `env!`.
pub(crate) fn lines_naming(code: &str, word: &str) -> Vec<usize> {
    let mut lines: Vec<usize> = code
        .match_indices(word)
        .filter(|(at, _)| stands_alone(code, *at, word))
        .map(|(at, _)| code[..at].matches('\n').count() + 1)
        .collect();
    lines.dedup();
    lines
}

fn stands_alone(code: &str, at: usize, word: &str) -> bool {
    let before = code[..at].chars().next_back();
    let after = code[at + word.len()..].chars().next();
    let open_before = !word.starts_with(is_word) || !before.is_some_and(is_word);
    let open_after = !word.ends_with(is_word) || !after.is_some_and(|c| is_word(c) || c == '!');
    open_before && open_after
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn blank(code: &mut [char], range: std::ops::Range<usize>) {
    for c in &mut code[range] {
        if *c != '\n' {
            *c = ' ';
        }
    }
}

fn blank_literals(text: &str) -> Vec<char> {
    let mut code: Vec<char> = text.chars().collect();
    let mut at = 0;
    while at < code.len() {
        let end = literal_end(&code, at);
        if end > at {
            blank(&mut code, at..end);
            at = end;
        } else {
            at += 1;
        }
    }
    code
}

/// The end of the comment, literal or lifetime that starts at `at`; `at` when none does.
fn literal_end(code: &[char], at: usize) -> usize {
    let next = code.get(at + 1).copied();
    match code[at] {
        '/' if next == Some('/') => line_end(code, at),
        '/' if next == Some('*') => block_comment_end(code, at),
        '"' => string_end(code, at),
        'r' if at == 0 || !is_word(code[at - 1]) || code[at - 1] == 'b' => raw_string_end(code, at),
        '\'' => quote_end(code, at),
        _ => at,
    }
}

fn line_end(code: &[char], at: usize) -> usize {
    code[at..]
        .iter()
        .position(|c| *c == '\n')
        .map_or(code.len(), |length| at + length)
}

fn block_comment_end(code: &[char], mut at: usize) -> usize {
    let mut depth = 0_u32;
    while at < code.len() {
        match (code[at], code.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at.min(code.len())
}

fn string_end(code: &[char], mut at: usize) -> usize {
    at += 1;
    while at < code.len() && code[at] != '"' {
        at += if code[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(code.len())
}

fn raw_string_end(code: &[char], at: usize) -> usize {
    let hashes = code[at + 1..].iter().take_while(|c| **c == '#').count();
    let open = at + 1 + hashes;
    if code.get(open) != Some(&'"') {
        return at;
    }
    let closed = |end: &usize| {
        code[*end] == '"'
            && code[*end + 1..]
                .iter()
                .take_while(|c| **c == '#')
                .take(hashes)
                .count()
                == hashes
    };
    (open + 1..code.len())
        .find(closed)
        .map_or(code.len(), |end| end + 1 + hashes)
}

/// A character literal, or a lifetime with its name.
fn quote_end(code: &[char], at: usize) -> usize {
    if code.get(at + 1) == Some(&'\\') {
        let close = code.iter().skip(at + 3).position(|c| *c == '\'');
        return close.map_or(code.len(), |length| at + 3 + length + 1);
    }
    if code.get(at + 2) == Some(&'\'') {
        return at + 3;
    }
    let name = code[at + 1..].iter().take_while(|c| is_word(**c)).count();
    at + 1 + name
}

/// The items under `#[cfg(test)]` (or `#[cfg(all(test, ...))]`), attributes included.
fn test_items(code: &[char]) -> Vec<std::ops::Range<usize>> {
    let mut items = Vec::new();
    let mut at = 0;
    while at < code.len() {
        if starts_with(code, at, "#[cfg(test)]") || starts_with(code, at, "#[cfg(all(test") {
            let end = item_end(code, at);
            items.push(at..end);
            at = end;
        } else {
            at += 1;
        }
    }
    items
}

fn starts_with(code: &[char], at: usize, word: &str) -> bool {
    word.chars()
        .enumerate()
        .all(|(i, c)| code.get(at + i) == Some(&c))
}

/// Past the `;`, or past the closing brace, of the item whose first attribute is at `at`.
fn item_end(code: &[char], mut at: usize) -> usize {
    let mut depth = 0_u32;
    while at < code.len() {
        match code[at] {
            '{' | '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
        at += 1;
    }
    code.len()
}

/// `use a::{b, c::d};` becomes `use a::b;use a::c::d;`, on the line where it starts, so that a
/// path is found however it was imported.
fn flatten_imports(code: &str) -> String {
    let mut flat = String::new();
    let mut rest = code;
    while let Some((before, import, after)) = next_import(rest) {
        flat.push_str(before);
        for path in leaves("", import) {
            flat.push_str("use ");
            flat.push_str(&path);
            flat.push(';');
        }
        flat.extend(import.chars().filter(|c| *c == '\n'));
        rest = after;
    }
    flat.push_str(rest);
    flat
}

fn next_import(code: &str) -> Option<(&str, &str, &str)> {
    let start = code
        .match_indices("use ")
        .map(|(at, _)| at)
        .find(|at| !code[..*at].chars().next_back().is_some_and(is_word))?;
    let body = start + "use ".len();
    let end = body + code[body..].find(';')?;
    Some((&code[..start], &code[body..end], &code[end + 1..]))
}

fn leaves(prefix: &str, tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((path, group)) = tree.split_once('{') else {
        return vec![format!("{prefix}{tree}")];
    };
    let group = group.trim_end().strip_suffix('}').unwrap_or(group);
    let prefix = format!("{prefix}{path}");
    split_outside_braces(group)
        .into_iter()
        .filter(|part| !part.trim().is_empty())
        .flat_map(|part| leaves(&prefix, part))
        .collect()
}

fn split_outside_braces(group: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_i32, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&group[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn does_a_word_in_a_comment_or_literal_count() {
        let text = "// Instant\n/* a /* Instant */ b */ let s = \"Instant \\\" Instant\";\n\
                    let r = br#\"Instant\" Instant\"#; let c = '\"'; let t: &'static str; Instant\n";
        let source = Source::new("x.rs", text);
        assert_eq!(lines_naming(&source.code, "Instant"), [3]);
        assert_eq!(lines_naming(&source.code, "static"), [0_usize; 0]);
    }

    #[test]
    fn does_test_code_count() {
        let text =
            "fn a() {}\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n fn b() { fs(); }\n}\nfs();\n";
        assert_eq!(lines_naming(&shipped(text), "fs"), [7]);
        assert_eq!(shipped_lines(text), 3);
        assert_eq!(
            test_modules("#[cfg(test)]\nmod tests;\nmod other;"),
            [TestModule::Below("tests".to_owned())]
        );
        assert_eq!(
            test_modules("#[cfg(test)]\n#[path = \"x_tests.rs\"]\nmod tests;"),
            [TestModule::Beside("x_tests".to_owned())]
        );
    }

    #[test]
    fn is_a_path_found_in_a_nested_import() {
        let text =
            "use tokio::{\n    net::{TcpStream, TcpListener as L},\n    time,\n};\nenv!(\"x\");\n";
        let code = Source::new("x.rs", text).code;
        assert_eq!(lines_naming(&code, "tokio::time"), [1]);
        assert_eq!(lines_naming(&code, "tokio::net::TcpListener"), [1]);
        assert_eq!(lines_naming(&code, "env"), [0_usize; 0]);
        assert_eq!(code.lines().count(), text.lines().count());
    }
}
