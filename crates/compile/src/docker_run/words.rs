//! Word splitting as in a shell.

/// Splits `text` into words. Quotes group; a backslash escapes the next character (within double quotes only characters
/// that are special to a shell); a backslash at the end of a line joins it with the next one.
///
/// # Errors
///
/// A quote is not closed.
pub fn split(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        None => return Err("a quote is not closed"),
                        Some('\'') => break,
                        Some(inner) => word.push(inner),
                    }
                }
            }
            '"' => double_quoted(&mut chars, word.get_or_insert_default())?,
            '\\' => match chars.next() {
                Some('\n') | None => {}
                Some(c) => word.get_or_insert_default().push(c),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

fn double_quoted(chars: &mut std::str::Chars, word: &mut String) -> Result<(), &'static str> {
    loop {
        match chars.next() {
            None => return Err("a quote is not closed"),
            Some('"') => return Ok(()),
            Some('\\') => match chars.next() {
                Some('\n') => {}
                Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                Some(c) => word.extend(['\\', c]),
                None => return Err("a quote is not closed"),
            },
            Some(inner) => word.push(inner),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_as_a_shell_splits_them() {
        for (text, expect) in [
            ("a  b\tc", Ok(vec!["a", "b", "c"])),
            ("-e 'A=b c' \"d e\"f", Ok(vec!["-e", "A=b c", "d ef"])),
            ("a\\ b \\\n c", Ok(vec!["a b", "c"])),
            (r#""a\n\"b\\" '\n'"#, Ok(vec!["a\\n\"b\\", "\\n"])),
            ("''", Ok(vec![""])),
            ("'a", Err("a quote is not closed")),
            ("", Ok(vec![])),
        ] {
            let words = split(text);
            assert_eq!(
                words.as_ref().map(|w| w.iter().map(String::as_str).collect()).map_err(|e| *e),
                expect,
                "{text}"
            );
        }
    }
}
