//! Durations, sizes and shell words as compose writes them.

use std::time::Duration;

/// `1h30m`, `1.5s`, `100ms`, `2d`, `1w`; `0` needs no unit.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = 0.0_f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let after = &rest[digits..];
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let seconds = match &after[..end] {
            "w" => 604_800.0,
            "d" => 86_400.0,
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += number * seconds;
        rest = &after[end..];
    }
    // Go's durations end after 292 years.
    if total > 9.2e9 {
        return None;
    }
    Duration::try_from_secs_f64(total).ok()
}

/// `512`, `64m`, `1.5g`, `2GiB`, `10 kb`: units are powers of 1024, whatever they are called, as docker takes them.
pub(super) fn bytes(text: &str) -> Option<i64> {
    if let Ok(plain) = text.parse::<i64>() {
        return Some(plain);
    }
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.')? + 1;
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let power = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit) {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    let size = number * 1024_f64.powi(power);
    (size.is_finite() && (0.0..9e18).contains(&size)).then_some(size as i64)
}

/// A command line in its words.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    pub words: Vec<String>,
    /// What only a shell would carry out, such as `&& next`, with all that comes after it.
    pub left_out: Option<String>,
}

/// The words of a command line, as docker compose splits them: quotes and backslashes join, `$(...)` and backquotes
/// hold together what is in them, `#` has no meaning, and what needs a shell ends the command.
pub(super) fn shell_words(text: &str) -> Result<Words, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '\'' => within(&mut chars, word.get_or_insert_default(), '\'', "has a ' that is not closed")?,
            '"' => within(&mut chars, word.get_or_insert_default(), '"', "has a \" that is not closed")?,
            '`' => {
                let word = word.get_or_insert_default();
                word.push('`');
                within(&mut chars, word, '`', "has a ` that is not closed")?;
                word.push('`');
            }
            '(' => {
                let Some(word) = word.as_mut().filter(|w| w.ends_with('$')) else {
                    return Err("has a ( that no shell reads: put it in quotes");
                };
                word.push('(');
                within(&mut chars, word, ')', "has a $( that is not closed")?;
                word.push(')');
            }
            ')' => return Err("has a ) that closes nothing: put it in quotes"),
            ';' | '&' | '|' | '<' | '>' => {
                // The number before it, as in `2>`, is a part of it.
                let numbered = word.as_ref().is_some_and(|w| w.bytes().all(|b| b.is_ascii_digit()));
                let number =
                    if c == '>' && numbered { word.take().unwrap_or_default() } else { String::new() };
                words.extend(word.take());
                return Ok(Words { words, left_out: Some(format!("{number}{}", text[at..].trim_end())) });
            }
            '\\' => match chars.next() {
                Some((_, '\n')) => {}
                Some((_, c)) => word.get_or_insert_default().push(escaped(c)),
                None => return Err("ends with a backslash"),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(Words { words, left_out: None })
}

/// The character that `\c` stands for, as docker compose reads it: a tab, a line feed, or `c` itself.
fn escaped(c: char) -> char {
    match c {
        't' => '\t',
        'n' => '\n',
        c => c,
    }
}

/// What stands before `close`. A backslash takes its meaning from the next character, but not between `'`.
fn within(
    chars: &mut std::str::CharIndices<'_>,
    word: &mut String,
    close: char,
    open: &'static str,
) -> Result<(), &'static str> {
    loop {
        match chars.next().ok_or(open)?.1 {
            c if c == close => return Ok(()),
            '\\' if close != '\'' => match chars.next().ok_or(open)?.1 {
                '\n' => {}
                c => word.push(escaped(c)),
            },
            c => word.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in [
            ("1m30s", Some(90_000)),
            ("1.5s", Some(1500)),
            ("100ms", Some(100)),
            ("0", Some(0)),
            ("2d", Some(172_800_000)),
            ("1w", Some(604_800_000)),
            ("30", None),
            ("s", None),
            ("", None),
            ("1x", None),
            ("-1s", None),
            ("1..s", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(duration(text).map(|d| d.as_millis()), expected, "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("512", Some(512)),
            ("-1", Some(-1)),
            ("64m", Some(64 << 20)),
            ("64M", Some(64 << 20)),
            ("1.5g", Some(3 << 29)),
            ("2GiB", Some(2 << 30)),
            ("10 kb", Some(10 << 10)),
            ("1b", Some(1)),
            ("b", None),
            ("1z", None),
            ("", None),
            ("9999999p", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn words() {
        for (text, expected) in [
            ("a 'b c' \"d\\\"e\" f\\ g", Ok((vec!["a", "b c", "d\"e", "f g"], None))),
            ("", Ok((vec![], None))),
            ("a '' b", Ok((vec!["a", "", "b"], None))),
            ("sh -c \"echo $HOME #x; ls\"\n", Ok((vec!["sh", "-c", "echo $HOME #x; ls"], None))),
            ("a\\\nb \"c\\\nd\\x\" 'c\\x'", Ok((vec!["ab", "cdx", "c\\x"], None))),
            (r#"printf "a\n\t$HOME\"" b\tc '\n'"#, Ok((vec!["printf", "a\n\t$HOME\"", "b\tc", "\\n"], None))),
            ("a $(b c) `d e`f", Ok((vec!["a", "$(b c)", "`d e`f"], None))),
            ("a && b", Ok((vec!["a"], Some("&& b")))),
            ("a 'b c';", Ok((vec!["a", "b c"], Some(";")))),
            ("a 2> /dev/null", Ok((vec!["a"], Some("2> /dev/null")))),
            ("a x2>b \n", Ok((vec!["a", "x2"], Some(">b")))),
            ("a http://x/?a=1&b=2", Ok((vec!["a", "http://x/?a=1"], Some("&b=2")))),
            ("a (b)", Err("has a ( that no shell reads: put it in quotes")),
            ("a b)", Err("has a ) that closes nothing: put it in quotes")),
            ("a $(b", Err("has a $( that is not closed")),
            ("a `b", Err("has a ` that is not closed")),
            ("a 'b", Err("has a ' that is not closed")),
            ("a \\", Err("ends with a backslash")),
        ] {
            let expected = expected.map(|(words, left_out)| Words {
                words: words.into_iter().map(String::from).collect(),
                left_out: left_out.map(String::from),
            });
            assert_eq!(shell_words(text), expected, "{text}");
        }
    }
}
