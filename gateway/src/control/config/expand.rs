//! `${NAME}` in a string stands for an environment variable, so that one file serves a fleet; `$$`
//! stands for `$`. A `$` before anything else stays, since MQTT has topics such as `$SYS/...`.

/// Expands `text`; the variables come from `variable`.
///
/// # Errors
/// The name of the first variable that is not set, or what is wrong with the way it is written.
pub(super) fn expand(
    text: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<String, ExpandError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let (name, after) = after.split_once('}').ok_or(ExpandError::Open)?;
            out.push_str(&value(name, &variable)?);
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Why a string does not expand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ExpandError {
    /// `${` without `}`.
    Open,
    /// Not a name of a variable.
    Name(String),
    /// Not set in the gateway's environment.
    Unset(String),
}

/// Whether this can be the name of an environment variable.
pub(super) fn is_variable_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn value(name: &str, variable: &impl Fn(&str) -> Option<String>) -> Result<String, ExpandError> {
    if !is_variable_name(name) {
        return Err(ExpandError::Name(name.to_owned()));
    }
    variable(name).ok_or_else(|| ExpandError::Unset(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        (name == "SITE").then(|| "north".to_owned())
    }

    #[test]
    fn are_variables_and_only_variables_expanded() {
        let expand = |text| expand(text, environment);
        assert_eq!(expand("a/${SITE}/${SITE}").unwrap(), "a/north/north");
        assert_eq!(
            expand("$SYS/# $$x $${SITE} $").unwrap(),
            "$SYS/# $x ${SITE} $"
        );
        assert_eq!(
            expand("${NONE}"),
            Err(ExpandError::Unset("NONE".to_owned()))
        );
        assert_eq!(expand("${SITE"), Err(ExpandError::Open));
        assert_eq!(expand("${a b}"), Err(ExpandError::Name("a b".to_owned())));
    }
}
