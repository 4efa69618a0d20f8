//! Names of properties as expressions can say them.

/// Words that the language keeps for itself.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Whether the language keeps this word for itself, so that nothing can be named by it.
pub fn is_reserved(word: &str) -> bool {
    RESERVED.contains(&word)
}

/// The name of a property in expressions: `a-b` is `a__dash__b`, `namespace` is `__namespace__`. `None` for names that
/// expressions cannot say.
pub fn escape(name: &str) -> Option<String> {
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if is_reserved(name) {
        return Some(format!("__{name}__"));
    }
    let mut escaped = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        let mut length = 1;
        match c {
            '_' if rest.starts_with("__") => {
                escaped.push_str("__underscores__");
                length = 2;
            }
            '.' => escaped.push_str("__dot__"),
            '-' => escaped.push_str("__dash__"),
            '/' => escaped.push_str("__slash__"),
            c if c.is_ascii_alphanumeric() || c == '_' => escaped.push(c),
            _ => return None,
        }
        rest = &rest[length..];
    }
    Some(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        let rows = [
            ("a", Some("a")),
            ("a1_b", Some("a1_b")),
            ("a-b", Some("a__dash__b")),
            ("a.b/c", Some("a__dot__b__slash__c")),
            ("a__b", Some("a__underscores__b")),
            ("a___b", Some("a__underscores___b")),
            ("namespace", Some("__namespace__")),
            ("while", Some("__while__")),
            ("$a", None),
            ("é", None),
            ("1a", None),
            ("", None),
        ];
        for (name, expect) in rows {
            assert_eq!(escape(name).as_deref(), expect, "{name}");
        }
    }
}
