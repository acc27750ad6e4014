//! Reads what `gateway/ARCHITECTURE.md` says to machines: the fenced block `doors` (file, what it
//! may do, why) and the fenced block `exceptions` (file, name, why). Also finds the files that a
//! document names in backticks.

/// A line of the block `doors`.
#[derive(Debug)]
pub(crate) struct Door {
    /// A file below `gateway/src`, or a folder as `folder/*`.
    pub(crate) path: String,
    /// The capabilities that it has.
    pub(crate) may: Vec<String>,
}

impl Door {
    pub(crate) fn covers(&self, path: &str) -> bool {
        self.path
            .strip_suffix('*')
            .map_or(self.path == path, |folder| path.starts_with(folder))
    }
}

/// A line of the block `exceptions`.
#[derive(Debug)]
pub(crate) struct Exception {
    pub(crate) path: String,
    pub(crate) name: String,
}

/// The machine-readable part of the page.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) doors: Vec<Door>,
    pub(crate) exceptions: Vec<Exception>,
}

impl Page {
    /// Reads both blocks.
    ///
    /// # Errors
    /// A block that is missing, or a line without a reason.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let doors = rows(text, "doors")?.into_iter().map(|[path, may]| Door {
            path,
            may: may.split_whitespace().map(str::to_owned).collect(),
        });
        let exceptions = rows(text, "exceptions")?
            .into_iter()
            .map(|[path, name]| Exception { path, name });
        Ok(Self {
            doors: doors.collect(),
            exceptions: exceptions.collect(),
        })
    }

    pub(crate) fn is_door(&self, path: &str) -> bool {
        self.doors.iter().any(|door| door.covers(path))
    }

    pub(crate) fn allows(&self, path: &str, word: &str) -> bool {
        self.doors
            .iter()
            .any(|door| door.covers(path) && door.may.iter().any(|may| may == word))
    }

    pub(crate) fn excepts(&self, path: &str, name: &str) -> bool {
        self.exceptions
            .iter()
            .any(|e| e.path == path && e.name == name)
    }
}

/// The lines of a fenced block: two fields, and a third, the reason, that must not be empty.
fn rows(text: &str, block: &str) -> Result<Vec<[String; 2]>, String> {
    let fence = format!("```{block}");
    let lines = text.lines().skip_while(|line| *line != fence).skip(1);
    let rows: Vec<&str> = lines.take_while(|line| *line != "```").collect();
    if !text.lines().any(|line| line == fence) {
        return Err(format!("the block {fence} is missing"));
    }
    rows.into_iter()
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            let fields: Vec<&str> = line.split('|').map(str::trim).collect();
            match fields[..] {
                [path, what, why] if !path.is_empty() && !why.is_empty() => {
                    Ok([path.to_owned(), what.to_owned()])
                }
                _ => Err(format!("`{line}` is not `file | what | why`")),
            }
        })
        .collect()
}

/// The files named in backticks, outside fenced blocks: one word that ends in `.rs`, or that has a
/// folder and ends in `.toml` or `.md`. What the reader is to choose (`<...>`, `/etc/...`, `*`)
/// does not count.
pub(crate) fn files_named(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let prose = text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    });
    prose
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|word| is_file(word))
        .collect()
}

fn is_file(word: &str) -> bool {
    let ours = !word.starts_with(['/', '~', '.']) && !word.contains([' ', '*', '<', '{', '$', ':']);
    let named = word.ends_with(".rs")
        || (word.contains('/') && (word.ends_with(".toml") || word.ends_with(".md")));
    ours && named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_line_without_a_reason_refused() {
        assert!(Page::parse("```doors\na.rs | clock\n```\n```exceptions\n```\n").is_err());
        assert!(Page::parse("```doors\na.rs | clock | \n```\n```exceptions\n```\n").is_err());
        assert!(Page::parse("```doors\na.rs | clock | why\n```\n").is_err());
        assert!(Page::parse("```doors\na.rs | clock | why\n```\n```exceptions\n```\n").is_ok());
    }

    #[test]
    fn which_files_does_a_document_name() {
        let text =
            "`a.rs` and `config/x.toml`, `x.toml`\n```sh\n`b.rs`\n```\n`/etc/x/y.toml` `c/*.rs`";
        assert_eq!(files_named(text), ["a.rs", "config/x.toml"]);
    }
}
