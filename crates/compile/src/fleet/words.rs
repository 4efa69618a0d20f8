//! Word splitting of systemd: quotes group, a backslash escapes.

/// A word and its offset in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    pub text: String,
    pub offset: usize,
}

/// Splits `text`.
///
/// # Errors
///
/// The offset and the message.
pub fn split(text: &str) -> Result<Vec<Split>, (usize, &'static str)> {
    let mut words = Vec::new();
    let mut word: Option<Split> = None;
    let mut chars = text.char_indices().peekable();
    while let Some((offset, c)) = chars.next() {
        let open =
            |word: &mut Option<Split>| word.get_or_insert(Split { text: String::new(), offset }).text.len();
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '"' | '\'' => {
                open(&mut word);
                let Some(word) = &mut word else { continue };
                loop {
                    match chars.next() {
                        None => return Err((offset, "this quote is not closed")),
                        Some((_, end)) if end == c => break,
                        Some((_, '\\')) => escape(&mut chars, &mut word.text),
                        Some((_, inner)) => word.text.push(inner),
                    }
                }
            }
            '\\' => {
                open(&mut word);
                let Some(word) = &mut word else { continue };
                escape(&mut chars, &mut word.text);
            }
            c => {
                open(&mut word);
                word.as_mut().into_iter().for_each(|w| w.text.push(c));
            }
        }
    }
    words.extend(word);
    Ok(words)
}

type Chars<'a> = std::iter::Peekable<std::str::CharIndices<'a>>;

/// Parses a C escape after a backslash. Unknown escapes are kept, as in systemd.
fn escape(chars: &mut Chars<'_>, into: &mut String) {
    let Some((_, c)) = chars.next() else { return into.push('\\') };
    let plain = match c {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        's' => ' ',
        '\\' | '"' | '\'' => c,
        'x' => return number(chars, into, c, 16, 2, None),
        'u' => return number(chars, into, c, 16, 4, None),
        'U' => return number(chars, into, c, 16, 8, None),
        '0'..='7' => return number(chars, into, c, 8, 2, Some(c)),
        // systemd keeps `\$` and `\;` for the next stage.
        _ => {
            into.push('\\');
            c
        }
    };
    into.push(plain);
}

/// Parses a numeric escape of `digits` digits, of which `first` may be the first.
fn number(chars: &mut Chars<'_>, into: &mut String, c: char, radix: u32, digits: usize, first: Option<char>) {
    let text: String = first.into_iter().chain(chars.clone().map(|(_, c)| c).take(digits)).collect();
    let value = u32::from_str_radix(&text, radix).ok().filter(|v| *v != 0).and_then(char::from_u32);
    match value.filter(|_| text.len() == digits + usize::from(first.is_some())) {
        Some(value) => {
            chars.nth(digits - 1);
            into.push(value);
        }
        None => into.extend(['\\', c]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c04_quoting_of_commands() {
        let check = |text: &str, expect: Result<&[&str], (usize, &'static str)>| {
            let words = split(text).map(|w| w.into_iter().map(|w| w.text).collect::<Vec<_>>());
            let expect = expect.map(|e| e.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(words, expect, "{text}");
        };
        check("", Ok(&[]));
        check("/bin/echo  one\ttwo ", Ok(&["/bin/echo", "one", "two"]));
        check(
            r#"sh -c "while true; do echo \"hi\"; done""#,
            Ok(&["sh", "-c", "while true; do echo \"hi\"; done"]),
        );
        check(r"sh -c 'a \'b\' c'", Ok(&["sh", "-c", "a 'b' c"]));
        check(r#"a="b c"d '' """#, Ok(&["a=b cd", "", ""]));
        check(r"a\x20b \s \t \\ \101 \u00e9", Ok(&["a b", " ", "\t", "\\", "A", "é"]));
        check(r"grep \. \d+ \xzz \400 end\", Ok(&["grep", r"\.", r"\d+", r"\xzz", "\u{100}", r"end\"]));
        check("a 'b", Err((2, "this quote is not closed")));
        check("échec \"", Err((7, "this quote is not closed")));
    }

    #[test]
    fn words_know_their_place() {
        let offsets: Vec<usize> = split("a  'b' c\\n").unwrap().into_iter().map(|w| w.offset).collect();
        assert_eq!(offsets, [0, 3, 7]);
    }
}
