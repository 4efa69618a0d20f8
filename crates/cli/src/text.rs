//! Bytes of a log as text that can be shown: lines of any bytes, and terminal control sequences made visible.

use std::borrow::Cow;

use futures::{AsyncBufReadExt, io::AsyncBufRead};

/// A longer line is shown as several, so that a process that never writes a line feed does not fill the memory.
const LONGEST_LINE: usize = 256 * 1024;

/// The next line without its line feed, or `None` at the end. Bytes that are not UTF-8 become U+FFFD.
///
/// # Errors
///
/// Those of the stream.
pub async fn next_line(stream: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<String>> {
    let mut line = Vec::new();
    loop {
        let chunk = stream.fill_buf().await?;
        if chunk.is_empty() {
            return Ok((!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned()));
        }
        let feed = chunk.iter().position(|byte| *byte == b'\n');
        let (taken, ends) = match feed {
            Some(at) => (at, true),
            None => (chunk.len().min(LONGEST_LINE - line.len()), false),
        };
        line.extend_from_slice(&chunk[..taken]);
        stream.consume_unpin(taken + usize::from(ends));
        if ends || line.len() >= LONGEST_LINE {
            return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
        }
    }
}

/// Text without power over a terminal: control characters are shown as `^[` or `\u{9b}`, a carriage return at the end is
/// dropped. With `colours`, sequences that only choose colours and styles (SGR) stay.
pub fn harmless(text: &str, colours: bool) -> Cow<'_, str> {
    let text = text.strip_suffix('\r').unwrap_or(text);
    if !text.chars().any(is_control) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if colours && let Some(length) = sgr(rest) {
            out.push_str(&rest[..length]);
            rest = &rest[length..];
            continue;
        }
        match c {
            c if !is_control(c) => out.push(c),
            // Caret notation, as `cat -v` writes it.
            c if c.is_ascii() => out.extend(['^', char::from(c as u8 ^ 0x40)]),
            c => out.extend(c.escape_unicode()),
        }
        rest = &rest[c.len_utf8()..];
    }
    Cow::Owned(out)
}

/// A control character, of C0 or C1, that is neither a tab nor the line feed of a text of several lines.
fn is_control(c: char) -> bool {
    c.is_control() && c != '\t' && c != '\n'
}

/// The length of the SGR sequence, `ESC [ 1 ; 31 m`, that `text` begins with.
fn sgr(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\x1b[")?;
    let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';' && c != ':')?;
    parameters[end..].starts_with('m').then_some(2 + end + 1)
}

#[cfg(test)]
mod tests {
    use futures::{executor::block_on, io::Cursor};

    use super::*;

    #[test]
    fn any_bytes_come_as_lines() {
        let check = |bytes: &[u8], expect: &[&str]| {
            let mut stream = Cursor::new(bytes);
            let mut lines = Vec::new();
            while let Some(line) = block_on(next_line(&mut stream)).expect("bytes in memory") {
                lines.push(line);
            }
            assert_eq!(lines, expect, "{bytes:?}");
        };
        check(b"", &[]);
        check(b"one\ntwo", &["one", "two"]);
        check(b"before\ncaf\xe9\nafter\n", &["before", "caf\u{fffd}", "after"]);
        check(b"\xff\xfe\n\n\x00\n", &["\u{fffd}\u{fffd}", "", "\0"]);
        let long = vec![b'x'; LONGEST_LINE + 2];
        check(&long, &["x".repeat(LONGEST_LINE).as_str(), "xx"]);
    }

    #[test]
    fn a_log_has_no_power_over_the_terminal() {
        for (text, with_colours, without) in [
            ("plain ä\tb", "plain ä\tb", "plain ä\tb"),
            ("progress\r", "progress", "progress"),
            ("over\rwritten", "over^Mwritten", "over^Mwritten"),
            ("\x1b[1;31mred\x1b[0m\x1b[m", "\x1b[1;31mred\x1b[0m\x1b[m", "^[[1;31mred^[[0m^[[m"),
            ("\x1b[38:5:1mx", "\x1b[38:5:1mx", "^[[38:5:1mx"),
            ("\x1b]0;title\x07", "^[]0;title^G", "^[]0;title^G"),
            ("\x1b[2J\x1b[3;4H\x1b[?25l", "^[[2J^[[3;4H^[[?25l", "^[[2J^[[3;4H^[[?25l"),
            ("\x1b[31", "^[[31", "^[[31"),
            ("\u{9b}2J\u{7f}", "\\u{9b}2J^?", "\\u{9b}2J^?"),
        ] {
            assert_eq!(harmless(text, true), with_colours, "{text:?}");
            assert_eq!(harmless(text, false), without, "{text:?}");
        }
    }
}
