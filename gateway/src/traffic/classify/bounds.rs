//! How large a condition may be, told from its text before anything that recurses sees it. In comes
//! text; out comes nothing, or what is too much of it. It knows no grammar: it counts, and never
//! counts too little.

/// Longest condition in bytes.
pub(super) const CONDITION_BYTES_MAX: usize = 4096;
/// Most words and signs of a condition, which bounds the parser's time. Some sixteen comparisons
/// joined by `&&` fit.
pub(super) const TOKENS_MAX: usize = 256;
/// Deepest condition: one for each operator that must wait for another, [`BRACKET_DEPTH`] for each
/// bracket around it. Parser and interpreter recurse by it; unoptimised, the parser was measured at
/// 32 KiB of stack for an operator and 130 KiB for a bracket, and a thread has 2 MiB.
pub(super) const DEPTH_MAX: usize = 40;
/// What a pair of brackets counts, see [`DEPTH_MAX`].
pub(super) const BRACKET_DEPTH: usize = 4;
/// Most `+` of a condition: each may copy a list or a text of the payload once more.
pub(super) const ADDITIONS_MAX: usize = 16;

/// Bounds the text before the parser, which recurses, sees it.
pub(super) fn check_size(text: &str) -> Result<(), String> {
    let advice = "split it over two rules";
    if text.len() > CONDITION_BYTES_MAX {
        return Err(format!(
            "the condition has {} bytes; at most {CONDITION_BYTES_MAX} are taken; {advice}",
            text.len()
        ));
    }
    let tokens = tokens(text).count();
    if tokens > TOKENS_MAX {
        return Err(format!(
            "the condition has {tokens} words and signs; at most {TOKENS_MAX} are taken; {advice}"
        ));
    }
    let depth = depth(text);
    if depth > DEPTH_MAX {
        return Err(format!(
            "the condition is nested too deeply ({depth}, where each bracket counts {BRACKET_DEPTH} and each operator in a row 1; at most {DEPTH_MAX} are taken); {advice}"
        ));
    }
    Ok(())
}

/// Words, numbers and single signs: at least as many as the parser will find.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let first = rest.chars().next()?;
        let end = match word(first) {
            true => rest.find(|c| !word(c)).unwrap_or(rest.len()),
            false => first.len_utf8(),
        };
        let (token, after) = rest.split_at(end);
        rest = after;
        Some(token)
    })
}

/// One level of brackets, while [`depth`] reads it.
#[derive(Default)]
struct Level {
    /// `?` so far: each nests what follows.
    choices: usize,
    /// The deepest part before the last separator.
    deepest: usize,
    /// Operators since the last separator: they hang on each other.
    chain: usize,
    /// The deepest bracket since the last separator.
    inner: usize,
}

impl Level {
    fn separate(&mut self) {
        self.deepest = self.deepest.max(self.chain + self.inner);
        (self.chain, self.inner) = (0, 0);
    }

    fn depth(mut self) -> usize {
        self.separate();
        self.choices + self.deepest
    }
}

/// At least as deep as the tree that the parser will make, see [`DEPTH_MAX`]. Texts in quotes are
/// skipped where no escape, long quote or comment could make that go wrong.
fn depth(text: &str) -> usize {
    let plain = !["\\", "//", "'''", "\"\"\""]
        .iter()
        .any(|odd| text.contains(odd));
    let mut levels = vec![Level::default()];
    let mut quote = None;
    let close = |levels: &mut Vec<Level>| {
        let closed = levels.pop().unwrap_or_default().depth();
        if levels.is_empty() {
            levels.push(Level::default());
        }
        if let Some(level) = levels.last_mut() {
            level.inner = level.inner.max(BRACKET_DEPTH + closed);
        }
    };
    for token in tokens(text) {
        if let Some(open) = quote {
            quote = (token != open).then_some(open);
            continue;
        }
        let Some(level) = levels.last_mut() else {
            break;
        };
        match token {
            "'" | "\"" if plain => quote = Some(token),
            "(" | "[" | "{" => {
                level.chain += 1;
                levels.push(Level::default());
            }
            ")" | "]" | "}" => close(&mut levels),
            "&" | "|" | "," | ":" => level.separate(),
            "?" => {
                level.choices += 1;
                level.separate();
            }
            "in" | "." | "+" | "-" | "*" | "/" | "%" | "<" | ">" | "=" | "!" => level.chain += 1,
            _ => {}
        }
    }
    while levels.len() > 1 {
        close(&mut levels);
    }
    levels.pop().map_or(0, Level::depth)
}
