//! Text to tokens.

use serde_json::Number;

use super::Mistake;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Word(String),
    Text(String),
    /// A text over several lines, which cannot be a name.
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
    /// As an error names it.
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
        // A byte order mark says nothing more in UTF-8.
        Scanner { text, at: if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 } }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// The next token and the byte at which it starts.
    pub fn next(&mut self) -> Result<(usize, Token), Mistake> {
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
            '\'' => return Err(Mistake::new(at, "' has no meaning here: strings stand in double quotes")),
            ':' => return Err(Mistake::new(at, ": has no meaning here: write NAME = VALUE")),
            ';' => return Err(Mistake::new(at, "; has no meaning here: part by lines or commas")),
            c => return Err(Mistake::new(at, format!("{c} has no meaning here"))),
        };
        Ok((at, token))
    }

    /// Past white space and comments.
    fn space(&mut self) -> Result<(), Mistake> {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n']);
            self.at += rest.len() - trimmed.len();
            if trimmed.starts_with('#') || trimmed.starts_with("//") {
                self.at += trimmed.find('\n').unwrap_or(trimmed.len());
            } else if let Some(comment) = trimmed.strip_prefix("/*") {
                let Some(end) = comment.find("*/") else {
                    return Err(Mistake::new(self.at, "this comment is not closed: add */"));
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

    fn number(&mut self) -> Result<Token, Mistake> {
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
        number.map(Token::Number).ok_or_else(|| Mistake::new(at, format!("{text} is no number")))
    }

    fn string(&mut self) -> Result<Token, Mistake> {
        let start = self.at;
        let unclosed = || Mistake::new(start, "this string is not closed in its line: add a \"");
        let mut text = String::new();
        // Braces open in `${...}`, where quotes and new lines belong to the text.
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
                    let c =
                        escaped(escape, digits).map_err(|sentence| Mistake::new(start + offset, sentence))?;
                    text.push(c);
                }
                '\r' if chars.peek().is_some_and(|(_, next)| *next == '\n') => {}
                c => text.push(c),
            }
        }
        Err(unclosed())
    }

    /// `<<EOF` up to a line that is `EOF`; of `<<-EOF` the lines lose the indentation of that last one.
    fn heredoc(&mut self) -> Result<Token, Mistake> {
        let start = self.at;
        let rest = self.rest();
        let line_end = rest.find('\n').unwrap_or(rest.len());
        let head = rest[..line_end].trim_end();
        let (indented, anchor) = match head.strip_prefix("<<-") {
            Some(anchor) => (true, anchor),
            None => (false, head.strip_prefix("<<").unwrap_or_default()),
        };
        if anchor.is_empty() || !anchor.chars().all(|c| c.is_alphanumeric() || c == '_') {
            return Err(Mistake::new(
                start,
                "< has no meaning here: a text over several lines starts with <<NAME",
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
        Err(Mistake::new(
            start,
            format!("the text from here on is not ended: write {anchor} alone in a line"),
        ))
    }
}

/// The character that a backslash and `escape` stand for, with the `digits` that follow.
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
        other => return Err(format!("\\{other} is no escape: write \\\\{other} for a backslash")),
    };
    let wrong = || format!("\\{escape} is followed by no number of a character");
    for _ in 0..count {
        let digit = digits().and_then(|c| c.to_digit(radix)).ok_or_else(wrong)?;
        code = u32::wrapping_add(u32::wrapping_mul(code, radix), digit);
    }
    char::from_u32(code).ok_or_else(wrong)
}

/// The lines without the indentation of the line that ends them, unless one of them has less of it.
fn unindented(lines: &[&str], indentation: &str) -> String {
    let without: Option<String> = lines.iter().map(|line| line.strip_prefix(indentation)).collect();
    without.unwrap_or_else(|| lines.concat())
}
