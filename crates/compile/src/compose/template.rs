//! Variables in text: `$NAME`, `${NAME}`, `${NAME:-default}` and its relatives, `$$` for a dollar sign.

/// Defaults in one another (`${A:-${B:-c}}`). Nobody reads more than a few; each level copies what is inside it.
const MAX_DEPTH: usize = 20;

/// Looks variables up, and hears of those that are not set and have no default.
pub(super) trait VariableLookup {
    /// The value, if it is set.
    fn value(&self, name: &str) -> Option<String>;
    /// `name` is not set; it becomes nothing.
    fn missing(&mut self, name: &str);
}

/// Replaces the variables of `text`. `None` where there are none.
///
/// # Errors
///
/// A sentence about what no variable can be, or the message of `${NAME:?message}`.
pub(super) fn substitute(text: &str, variables: &mut dyn VariableLookup) -> Result<Option<String>, String> {
    if !text.contains('$') {
        return Ok(None);
    }
    expand(text, variables, 0).map(Some)
}

fn expand(text: &str, variables: &mut dyn VariableLookup, depth: usize) -> Result<String, String> {
    if depth > MAX_DEPTH {
        return Err(format!("has defaults in more than {MAX_DEPTH} others"));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        rest = if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            after
        } else if let Some(inside) = after.strip_prefix('{') {
            let end = closing(inside).ok_or_else(|| invalid(&rest[dollar..]))?;
            let value = braced(&inside[..end], variables, depth)
                .map_err(|e| e.unwrap_or_else(|| invalid(&rest[dollar..dollar + 3 + end])))?;
            out.push_str(&value);
            &inside[end + 1..]
        } else {
            let end = name_end(after);
            // Before anything else a dollar sign is itself, as in `$(date)`.
            let value = if end == 0 { "$".into() } else { value_or_nothing(&after[..end], variables) };
            out.push_str(&value);
            &after[end..]
        };
    }
    out.push_str(rest);
    Ok(out)
}

fn value_or_nothing(name: &str, variables: &mut dyn VariableLookup) -> String {
    variables.value(name).unwrap_or_else(|| {
        variables.missing(name);
        String::new()
    })
}

fn invalid(from: &str) -> String {
    let shown: String = from.chars().take(20).collect();
    format!("has {shown:?}, which is not a valid variable: write $$ for a dollar sign")
}

/// Where the brace that was opened before `inside` is closed.
fn closing(inside: &str) -> Option<usize> {
    let mut open = 1;
    let bytes = inside.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'}' => {
                open -= 1;
                if open == 0 {
                    return Some(at);
                }
            }
            b'$' if bytes.get(at + 1) == Some(&b'{') => {
                open += 1;
                at += 1;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// What is between braces; `Err(None)` is no variable at all.
fn braced(inside: &str, variables: &mut dyn VariableLookup, depth: usize) -> Result<String, Option<String>> {
    let end = name_end(inside);
    let (name, operation) = inside.split_at(end);
    if name.is_empty() {
        return Err(None);
    }
    let value = variables.value(name);
    let (empty_counts, operation) = match operation.strip_prefix(':') {
        Some(operation) => (false, operation),
        None => (true, operation),
    };
    let set = value.as_deref().is_some_and(|v| empty_counts || !v.is_empty());
    let Some(sign) = operation.chars().next() else {
        return if empty_counts { Ok(value_or_nothing(name, variables)) } else { Err(None) };
    };
    let word = &operation[sign.len_utf8()..];
    match sign {
        '-' if set => Ok(value.unwrap_or_default()),
        '-' => expand(word, variables, depth + 1).map_err(Some),
        '+' if set => expand(word, variables, depth + 1).map_err(Some),
        '+' => Ok(String::new()),
        '?' if set => Ok(value.unwrap_or_default()),
        '?' => {
            let reason = expand(word, variables, depth + 1).map_err(Some)?;
            let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            let state = if empty_counts { "set" } else { "set or is empty" };
            Err(Some(format!("needs the variable {name}, which is not {state}{reason}")))
        }
        _ => Err(None),
    }
}

/// The length of the name at the start of `text`: a letter or `_`, then letters, digits and `_`.
fn name_end(text: &str) -> usize {
    if !text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return 0;
    }
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Table(Vec<String>);

    impl VariableLookup for Table {
        fn value(&self, name: &str) -> Option<String> {
            match name {
                "SET" | "set_2" => Some("value".into()),
                "EMPTY" => Some(String::new()),
                "DOLLAR" => Some("$SET".into()),
                _ => None,
            }
        }
        fn missing(&mut self, name: &str) {
            self.0.push(name.into());
        }
    }

    fn check(text: &str, expected: &str) {
        let mut table = Table(Vec::new());
        let mut result = match substitute(text, &mut table) {
            Ok(Some(text)) => text,
            Ok(None) => "(unchanged)".into(),
            Err(mistake) => format!("error: {mistake}"),
        };
        if !table.0.is_empty() {
            result += &format!(" (missing {})", table.0.join(", "));
        }
        assert_eq!(result, expected, "{text}");
    }

    #[test]
    fn interpolation() {
        check("plain", "(unchanged)");
        check("$SET", "value");
        check("a${SET}b$set_2.c", "avaluebvalue.c");
        check("$$SET $$", "$SET $");
        check("$DOLLAR", "$SET");
        check("$NO-", "- (missing NO)");
        check("${NO}", " (missing NO)");
        check("${NO-}", "");
        check("${EMPTY:-d}", "d");
        check("${EMPTY-d}", "");
        check("${NO:-d}", "d");
        check("${NO-d}", "d");
        check("${SET:-d}", "value");
        check("${NO:-a b:/?+-c}", "a b:/?+-c");
        check("${NO:-${EMPTY:-${SET}}}x", "valuex");
        check("${NO:-$SET$$}", "value$");
        check("${NO:-{a}}", "{a}");
        check("${SET:+r}", "r");
        check("${EMPTY:+r}", "");
        check("${EMPTY+r}", "r");
        check("${NO+r}", "");
        check("${NO:+${SET}}", "");
        check("${SET?e}", "value");
        check("${EMPTY?e}", "");
        check(
            "${EMPTY:?say ${SET}}",
            "error: needs the variable EMPTY, which is not set or is empty: say value",
        );
        check("${NO?}", "error: needs the variable NO, which is not set");
        check("${", "error: has \"${\", which is not a valid variable: write $$ for a dollar sign");
        check("${}", "error: has \"${}\", which is not a valid variable: write $$ for a dollar sign");
        check(
            "${SET:x}",
            "error: has \"${SET:x}\", which is not a valid variable: write $$ for a dollar sign",
        );
        check("${a b}", "error: has \"${a b}\", which is not a valid variable: write $$ for a dollar sign");
        check("$1 $(date) $", "$1 $(date) $");
        check("é${NO:-ü}$", "éü$");
    }

    #[test]
    fn depth_is_bounded() {
        let mut table = Table(Vec::new());
        let deep = format!("{}x{}", "${N:-".repeat(50_000), "}".repeat(50_000));
        assert!(substitute(&deep, &mut table).unwrap_err().contains("more than 20"));
    }
}
