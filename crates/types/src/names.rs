//! Validation of names, label keys and label values, with the error messages of Kubernetes.

/// Checks a DNS label (RFC 1123): `[a-z0-9]([-a-z0-9]*[a-z0-9])?`, at most 63 characters.
pub fn dns_label(s: &str) -> Result<(), String> {
    if s.len() > 63 {
        return Err("must be no more than 63 characters".into());
    }
    if is_label(s) {
        return Ok(());
    }
    Err("a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end \
         with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
        .into())
}

/// Checks a DNS subdomain (RFC 1123) as Kubernetes does for names of objects: labels joined by dots, at most 253 characters
/// in all. A single label may be longer than the 63 characters that DNS itself allows.
pub fn dns_subdomain(s: &str) -> Result<(), String> {
    if s.len() > 253 {
        return Err("must be no more than 253 characters".into());
    }
    if s.split('.').all(is_label) {
        return Ok(());
    }
    Err("a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start \
         and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
        .into())
}

/// Checks a DNS label that starts with a letter (RFC 1035), as required for names of Services.
pub fn dns_1035_label(s: &str) -> Result<(), String> {
    if s.len() > 63 {
        return Err("must be no more than 63 characters".into());
    }
    if is_label(s) && s.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Ok(());
    }
    Err("a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
         character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation \
         is '[a-z]([-a-z0-9]*[a-z0-9])?')"
        .into())
}

/// Checks that a name can be one segment of a URL's path, the only rule for names of roles and their bindings.
pub fn path_segment(s: &str) -> Result<(), String> {
    match s {
        "." | ".." => Err(format!("may not be '{s}'")),
        _ if s.contains('/') => Err("may not contain '/'".into()),
        _ if s.contains('%') => Err("may not contain '%'".into()),
        _ => Ok(()),
    }
}

/// Checks the key of a label or annotation: an optional DNS subdomain and `/`, then a name of at most 63 characters.
pub fn qualified_name(s: &str) -> Result<(), String> {
    let (prefix, name) = match s.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, s),
    };
    if let Some(prefix) = prefix {
        if prefix.is_empty() {
            return Err("prefix part must be non-empty".into());
        }
        dns_subdomain(prefix).map_err(|e| format!("prefix part {e}"))?;
    }
    if name.is_empty() {
        return Err("name part must be non-empty".into());
    }
    if name.len() > 63 {
        return Err("name part must be no more than 63 characters".into());
    }
    if is_name(name) {
        return Ok(());
    }
    Err("name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
         alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
         '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
        .into())
}

/// Checks the value of a label: empty or at most 63 characters of `[A-Za-z0-9_.-]`, alphanumeric at both ends.
pub fn label_value(s: &str) -> Result<(), String> {
    if s.len() > 63 {
        return Err("must be no more than 63 characters".into());
    }
    if s.is_empty() || is_name(s) {
        return Ok(());
    }
    Err("a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start \
         and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
         validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
        .into())
}

fn is_label(s: &str) -> bool {
    let b = s.as_bytes();
    let plain = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    b.first().is_some_and(plain) && b.last().is_some_and(plain) && b.iter().all(|c| plain(c) || *c == b'-')
}

fn is_name(s: &str) -> bool {
    let b = s.as_bytes();
    b.first().is_some_and(u8::is_ascii_alphanumeric)
        && b.last().is_some_and(u8::is_ascii_alphanumeric)
        && b.iter().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_accepted_or_refused() {
        let (long, longest, too_long) = ("a".repeat(64), "a".repeat(253), "a".repeat(254));
        type Rule = fn(&str) -> Result<(), String>;
        let rows: &[(Rule, &[&str], &[&str])] = &[
            (dns_label, &["a", "a-1", "1a"], &["", "-a", "a-", "A", "a.b", "a_b", &long]),
            (
                dns_subdomain,
                &["a.b", "a-1.b", &long, &longest],
                &["", ".a", "a..b", "a.B", "a-.b", &too_long],
            ),
            (dns_1035_label, &["a1"], &["1a", "a.b"]),
            (path_segment, &["a", "system:node", "A b", "..."], &[".", "..", "a/b", "a%b"]),
            (qualified_name, &["a", "A.b_c", "x.io/Name"], &["", "/a", "x/", "X.io/a", "a b", "a/b/c"]),
            (label_value, &["", "a", "A_b.c-d"], &["-", "a ", "é", &long]),
        ];
        for (rule, good, bad) in rows {
            good.iter().for_each(|s| assert_eq!(rule(s), Ok(()), "{s:?}"));
            bad.iter().for_each(|s| assert!(rule(s).is_err(), "{s:?}"));
        }
    }
}
