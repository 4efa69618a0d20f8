//! Files of `NAME=VALUE` lines.

type Variables = Vec<(String, String)>;

/// The variables of a file, in order.
///
/// Blank lines and those that start with `#` are left out, as is a word `export`. A value in single quotes is as it is
/// written; in double quotes, `\n`, `\"` and `\\` are read; an unquoted one ends at ` #`.
///
/// # Errors
///
/// The number of the first line that is none of this.
pub fn read(text: &str) -> Result<Variables, usize> {
    let mut variables = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        let (name, value) = line.split_once('=').ok_or(number + 1)?;
        let name = name.trim_end();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(number + 1);
        }
        variables.push((name.to_owned(), self::value(value.trim()).ok_or(number + 1)?));
    }
    Ok(variables)
}

fn value(written: &str) -> Option<String> {
    if let Some(rest) = written.strip_prefix('\'') {
        return Some(rest[..rest.find('\'')?].to_owned());
    }
    let Some(rest) = written.strip_prefix('"') else {
        let end = written.find(" #").unwrap_or(written.len());
        return Some(written[..end].trim_end().to_owned());
    };
    let (mut value, mut chars) = (String::new(), rest.chars());
    loop {
        match chars.next()? {
            '"' => return Some(value),
            '\\' => match chars.next()? {
                'n' => value.push('\n'),
                c @ ('"' | '\\' | '$') => value.push(c),
                c => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_compose_reads_them() {
        let check = |text: &str, expect: Result<&[(&str, &str)], usize>| {
            let owned = |(n, v): &(&str, &str)| (n.to_string(), v.to_string());
            assert_eq!(read(text), expect.map(|all| all.iter().map(owned).collect()), "{text:?}");
        };
        check("# words\n\nA=1\nexport B = two words # and more\n", Ok(&[("A", "1"), ("B", "two words")]));
        check("A='x # $y'\nB=\"a\\n\\\"b\\\"\"\nC=", Ok(&[("A", "x # $y"), ("B", "a\n\"b\""), ("C", "")]));
        check("A=1\nnonsense", Err(2));
        check("A='open", Err(1));
        check("=1", Err(1));
    }
}
