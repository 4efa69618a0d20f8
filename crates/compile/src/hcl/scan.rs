//! Tokenizer of HCL.

use serde_json::Number;

use super::SyntaxError;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Word(String),
    Text(String),
    /// A multi-line string, which cannot be a key.
    Heredoc(String),
    Number(Number),
    Assign,
    Comma,
    Open,
    Close,
    OpenList,
    CloseList,
    End,
}

impl Token {
    /// The token in error messages.
    pub fn shown(&self) -> String {
        match self {
            Token::Word(word) => word.clone(),
            Token::Text(text) => format!("{text:?}"),
            Token::Heredoc(_) => "a text over several lines".into(),
            Token::Number(n) => n.to_string(),
            Token::Assign => "=".into(),
            Token::Comma => "a comma".into(),
            Token::Open => "{".into(),
            Token::Close => "}".into(),
            Token::OpenList => "[".into(),
            Token::CloseList => "]".into(),
            Token::End => "the end of the file".into(),
        }
    }
}

const BLANKS: [char; 2] = [' ', '\t'];

pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str) -> Self {
        // A byte order mark has no meaning in UTF-8.
        Scanner { text, at: if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 } }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// The next token and the byte at which it starts.
    pub fn next(&mut self) -> Result<(usize, Token), SyntaxError> {
        self.space()?;
        let at = self.at;
        let Some(first) = self.rest().chars().next() else { return Ok((at, Token::End)) };
        let single = match first {
            '=' => Some(Token::Assign),
            ',' => Some(Token::Comma),
            '{' => Some(Token::Open),
            '}' => Some(Token::Close),
            '[' => Some(Token::OpenList),
            ']' => Some(Token::CloseList),
            _ => None,
        };
        if let Some(token) = single {
            self.at += 1;
            return Ok((at, token));
        }
        let token = match first {
            '"' => self.string()?,
            '<' => self.heredoc()?,
            '-' | '.' | '0'..='9' => self.number()?,
            c if c.is_alphabetic() || c == '_' => self.word(),
            '\'' => return Err(SyntaxError::new(at, "' is not valid here: write strings in double quotes")),
            ':' => return Err(SyntaxError::new(at, ": is not valid here: write NAME = VALUE")),
            ';' => {
                return Err(SyntaxError::new(at, "; is not valid here: separate items by lines or commas"));
            }
            c => return Err(SyntaxError::new(at, format!("{c} is not valid here"))),
        };
        Ok((at, token))
    }

    /// Skips white space and comments.
    fn space(&mut self) -> Result<(), SyntaxError> {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n']);
            self.at += rest.len() - trimmed.len();
            if trimmed.starts_with('#') || trimmed.starts_with("//") {
                self.at += trimmed.find('\n').unwrap_or(trimmed.len());
            } else if let Some(comment) = trimmed.strip_prefix("/*") {
                let Some(end) = comment.find("*/") else {
                    return Err(SyntaxError::new(self.at, "this comment is not closed: add */"));
                };
                self.at += end + 4;
            } else {
                return Ok(());
            }
        }
    }

    fn word(&mut self) -> Token {
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_alphanumeric() || "_-.".contains(c))).unwrap_or(rest.len());
        self.at += end;
        Token::Word(rest[..end].into())
    }

    fn number(&mut self) -> Result<Token, SyntaxError> {
        let (at, rest) = (self.at, self.rest());
        let mut before = ' ';
        let end = rest.find(|c: char| {
            let sign = (c == '-' || c == '+') && (before == ' ' || "eE".contains(before));
            before = c;
            !(sign || c.is_ascii_alphanumeric() || c == '.')
        });
        let text = &rest[..end.unwrap_or(rest.len())];
        self.at += text.len();
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        let (radix, body) = match digits.as_bytes() {
            [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
            [b'0', b'0'..=b'9', ..] => (8, &digits[1..]),
            _ => (10, digits),
        };
        let whole = i64::from_str_radix(body, radix).ok().filter(|_| !body.starts_with(['+', '-']));
        let number = match whole {
            Some(n) => Some(Number::from(if negative { -n } else { n })),
            None if radix == 16 || radix == 8 && !digits.contains(['.', 'e', 'E']) => None,
            None if !digits.starts_with(|c: char| c == '.' || c.is_ascii_digit()) => None,
            None => text.parse::<f64>().ok().and_then(Number::from_f64),
        };
        number.map(Token::Number).ok_or_else(|| SyntaxError::new(at, format!("{text} is not a valid number")))
    }

    fn string(&mut self) -> Result<Token, SyntaxError> {
        let start = self.at;
        let unclosed = || SyntaxError::new(start, "this string is not closed in its line: add a \"");
        let mut text = String::new();
        // Depth of braces in `${...}`, where quotes and line feeds belong to the text.
        let mut braces = 0_usize;
        let mut chars = self.rest().char_indices().skip(1).peekable();
        while let Some((offset, c)) = chars.next() {
            match c {
                '"' if braces == 0 => {
                    self.at = start + offset + 1;
                    return Ok(Token::Text(text));
                }
                '\n' if braces == 0 => return Err(unclosed()),
                '$' if chars.peek().is_some_and(|(_, next)| *next == '{') => {
                    braces += 1;
                    text.push_str("${");
                    chars.next();
                }
                '{' if braces > 0 => {
                    braces += 1;
                    text.push(c);
                }
                '}' if braces > 0 => {
                    braces -= 1;
                    text.push(c);
                }
                '\\' if braces == 0 => {
                    let Some((_, escape)) = chars.next() else { return Err(unclosed()) };
                    let digits = || chars.next_if(|(_, c)| c.is_ascii_hexdigit()).map(|(_, c)| c);
                    let c = escaped(escape, digits)
                        .map_err(|sentence| SyntaxError::new(start + offset, sentence))?;
                    text.push(c);
                }
                '\r' if chars.peek().is_some_and(|(_, next)| *next == '\n') => {}
                c => text.push(c),
            }
        }
        Err(unclosed())
    }

    /// Parses `<<EOF` up to the line `EOF`. With `<<-EOF`, the indentation of that line is removed from all lines.
    fn heredoc(&mut self) -> Result<Token, SyntaxError> {
        let start = self.at;
        let rest = self.rest();
        let line_end = rest.find('\n').unwrap_or(rest.len());
        let head = rest[..line_end].trim_end();
        let (indented, anchor) = match head.strip_prefix("<<-") {
            Some(anchor) => (true, anchor),
            None => (false, head.strip_prefix("<<").unwrap_or_default()),
        };
        if anchor.is_empty() || !anchor.chars().all(|c| c.is_alphanumeric() || c == '_') {
            return Err(SyntaxError::new(
                start,
                "< is not valid here: a text over several lines starts with <<NAME",
            ));
        }
        let mut lines: Vec<&str> = Vec::new();
        let mut offset = (line_end + 1).min(rest.len());
        for line in rest[offset..].split_inclusive('\n') {
            if line.trim() == anchor {
                self.at = start + offset + line.trim_end().len();
                let indentation = &line[..line.len() - line.trim_start_matches(BLANKS).len()];
                let text = if indented { unindented(&lines, indentation) } else { lines.concat() };
                return Ok(Token::Heredoc(text.replace("\r\n", "\n")));
            }
            offset += line.len();
            lines.push(line);
        }
        Err(SyntaxError::new(start, format!("this text is not terminated: write {anchor} alone on a line")))
    }
}

/// The character for a backslash and `escape`, which may consume the following `digits`.
fn escaped(escape: char, mut digits: impl FnMut() -> Option<char>) -> Result<char, String> {
    let (radix, count, mut code) = match escape {
        'n' => return Ok('\n'),
        't' => return Ok('\t'),
        'r' => return Ok('\r'),
        'a' => return Ok('\u{7}'),
        'b' => return Ok('\u{8}'),
        'f' => return Ok('\u{c}'),
        'v' => return Ok('\u{b}'),
        '"' | '\\' | '\'' | '$' => return Ok(escape),
        'x' => (16, 2, 0),
        'u' => (16, 4, 0),
        'U' => (16, 8, 0),
        '0'..='7' => (8, 2, escape.to_digit(8).unwrap_or(0)),
        other => return Err(format!("\\{other} is not a valid escape: write \\\\{other} for a backslash")),
    };
    let wrong = || format!("\\{escape} has to be followed by the number of a character");
    for _ in 0..count {
        let digit = digits().and_then(|c| c.to_digit(radix)).ok_or_else(wrong)?;
        code = u32::wrapping_add(u32::wrapping_mul(code, radix), digit);
    }
    char::from_u32(code).ok_or_else(wrong)
}

/// Removes the indentation of the closing line from all lines, unless one of them has less.
fn unindented(lines: &[&str], indentation: &str) -> String {
    let without: Option<String> = lines.iter().map(|line| line.strip_prefix(indentation)).collect();
    without.unwrap_or_else(|| lines.concat())
}
