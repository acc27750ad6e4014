//! Reads secrets, anew at each connect so that a rotated one needs no restart. In comes where the
//! secret is, out goes its text. A door: it reads files and the environment. What it read is never
//! shown, neither by `Debug` nor in an error.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::Secret;

/// Longest secret: what an MQTT password can hold (MQTT 5, 1.5.6 and 3.1.3.6).
pub const SECRET_BYTES_MAX: u64 = 65_535;

/// A secret that was read. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Revealed(String);

impl Revealed {
    /// The text, for the packet that carries it and for nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Revealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(a secret)")
    }
}

/// Why a secret could not be read. Always the operator's to mend.
#[derive(Debug)]
pub enum SecretError {
    /// The file cannot be read: make it, or let the gateway's user read it.
    Unreadable(PathBuf, io::Error),
    /// The file is longer than [`SECRET_BYTES_MAX`]: it is the wrong file.
    TooLong(PathBuf),
    /// The file or variable is not UTF-8: write the secret as text.
    NotText(String),
    /// The environment variable is not set where the gateway runs.
    Unset(String),
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(
                f,
                "the secret's file {} cannot be read ({error}): make it readable for the gateway's user",
                path.display()
            ),
            Self::TooLong(path) => write!(
                f,
                "the secret's file {} is longer than {SECRET_BYTES_MAX} bytes: name the file that holds the secret alone",
                path.display()
            ),
            Self::NotText(place) => write!(f, "the secret in {place} is not UTF-8 text"),
            Self::Unset(name) => write!(
                f,
                "the environment variable {name} for the secret is not set: set it for the gateway's process"
            ),
        }
    }
}

impl std::error::Error for SecretError {}

impl Secret {
    /// Reads the secret as it is now. A file's final line break does not count.
    ///
    /// # Errors
    ///
    /// [`SecretError`], in words for the operator.
    pub fn read(&self) -> Result<Revealed, SecretError> {
        match self {
            Self::File(path) => read_file(path),
            Self::Environment(name) => read_variable(name),
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the secrets' door")]
fn read_file(path: &Path) -> Result<Revealed, SecretError> {
    let unreadable = |error| SecretError::Unreadable(path.to_owned(), error);
    // One byte more than allowed tells too long from just long enough, line break included.
    let most = SECRET_BYTES_MAX + 2;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| SecretError::NotText(format!("the file {}", path.display())))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.len() as u64 > SECRET_BYTES_MAX {
        return Err(SecretError::TooLong(path.to_owned()));
    }
    Ok(Revealed(line.to_owned()))
}

#[allow(clippy::disallowed_methods, reason = "this is the secrets' door")]
fn read_variable(name: &str) -> Result<Revealed, SecretError> {
    use std::env::VarError;
    match std::env::var(name) {
        Ok(text) if text.len() as u64 > SECRET_BYTES_MAX => {
            Err(SecretError::TooLong(PathBuf::from(format!("${name}"))))
        }
        Ok(text) => Ok(Revealed(text)),
        Err(VarError::NotPresent) => Err(SecretError::Unset(name.to_owned())),
        Err(VarError::NotUnicode(_)) => Err(SecretError::NotText(format!("${name}"))),
    }
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "tests make the files that are read"
)]
mod tests {
    use super::*;

    fn file_with(content: &[u8]) -> (tempfile::TempDir, Secret) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, content).unwrap();
        (dir, Secret::File(path))
    }

    #[test]
    fn does_only_the_final_line_break_go() {
        for (content, secret) in [
            (&b"s3cret"[..], "s3cret"),
            (b"s3cret\n", "s3cret"),
            (b"s3cret\r\n", "s3cret"),
            (b" two\nlines \n\n", " two\nlines \n"),
            (b"", ""),
        ] {
            let (_dir, from) = file_with(content);
            assert_eq!(from.read().unwrap().expose(), secret);
        }
    }

    #[test]
    fn is_a_rotated_secret_seen_at_the_next_read() {
        let (dir, from) = file_with(b"old");
        assert_eq!(from.read().unwrap().expose(), "old");
        std::fs::write(dir.path().join("secret"), "new").unwrap();
        assert_eq!(from.read().unwrap().expose(), "new");
    }

    #[test]
    fn do_errors_name_the_place_and_never_the_secret() {
        let (_dir, not_text) = file_with(b"hush\xff");
        let (_dir2, too_long) = file_with(&b"hush".repeat(20_000));
        for (from, names) in [
            (not_text, "/secret"),
            (too_long, "/secret"),
            (Secret::File("/nowhere/secret".into()), "/nowhere/secret"),
            (
                Secret::Environment("TIDEGATE_TEST_UNSET".into()),
                "TIDEGATE_TEST_UNSET",
            ),
        ] {
            let error = from.read().unwrap_err();
            assert!(error.to_string().contains(names), "{error}");
            assert!(!format!("{error} {error:?}").contains("hush"));
        }
    }

    #[test]
    fn is_a_secret_hidden_from_debug() {
        let (_dir, from) = file_with(b"hush");
        assert!(!format!("{:?} {from:?}", from.read()).contains("hush"));
    }
}
