//! JSON parser that keeps positions and produces the items of HCL.

use serde_json::Number;

use super::{Item, Key, MAX_DEPTH, Node, SyntaxError, ValueKind};

/// Parses a JSON object.
pub(crate) fn parse(text: &str) -> Result<Vec<Item>, SyntaxError> {
    let start = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let mut parser = Parser { text, at: start, depth: 0 };
    let node = parser.value()?;
    parser.space();
    if parser.at < text.len() {
        return Err(SyntaxError::new(parser.at, "there is text after the object: remove it"));
    }
    match node.kind {
        ValueKind::Object(items) => Ok(items),
        _ => Err(SyntaxError::new(node.at, "an object is expected here: { ... }")),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn next_is(&mut self, c: char) -> bool {
        self.space();
        let is = self.text[self.at..].starts_with(c);
        if is {
            self.at += c.len_utf8();
        }
        is
    }

    fn value(&mut self) -> Result<Node, SyntaxError> {
        self.space();
        let at = self.at;
        let rest = &self.text[at..];
        let kind = match rest.chars().next() {
            Some('{') => self.object()?,
            Some('[') => self.list()?,
            Some('"') => ValueKind::String(self.string()?),
            Some('-' | '0'..='9') => ValueKind::Number(self.number()?),
            _ => {
                let words = [
                    ("true", ValueKind::Bool(true)),
                    ("false", ValueKind::Bool(false)),
                    ("null", ValueKind::Null),
                ];
                let Some((word, kind)) = words.into_iter().find(|(word, _)| rest.starts_with(word)) else {
                    return Err(SyntaxError::new(at, "a value is expected here"));
                };
                self.at += word.len();
                kind
            }
        };
        Ok(Node { at, kind })
    }

    fn object(&mut self) -> Result<ValueKind, SyntaxError> {
        self.open()?;
        let mut items = Vec::new();
        if !self.next_is('}') {
            loop {
                self.space();
                let at = self.at;
                if !self.text[at..].starts_with('"') {
                    return Err(SyntaxError::new(at, "a key in double quotes is expected here"));
                }
                let text = self.string()?;
                if !self.next_is(':') {
                    return Err(SyntaxError::new(self.at, "a colon and a value are expected after the key"));
                }
                items.push(Item { keys: vec![Key { at, text }], value: self.value()?, assigned: true });
                if self.next_is('}') {
                    break;
                }
                if !self.next_is(',') {
                    return Err(SyntaxError::new(self.at, "a comma or } is expected here"));
                }
            }
        }
        self.depth -= 1;
        Ok(ValueKind::Object(items))
    }

    fn list(&mut self) -> Result<ValueKind, SyntaxError> {
        self.open()?;
        let mut nodes = Vec::new();
        if !self.next_is(']') {
            loop {
                nodes.push(self.value()?);
                if self.next_is(']') {
                    break;
                }
                if !self.next_is(',') {
                    return Err(SyntaxError::new(self.at, "a comma or ] is expected here"));
                }
            }
        }
        self.depth -= 1;
        Ok(ValueKind::List(nodes))
    }

    fn open(&mut self) -> Result<(), SyntaxError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(SyntaxError::new(self.at, format!("is nested more than {MAX_DEPTH} deep")));
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<String, SyntaxError> {
        let (start, rest) = (self.at, &self.text[self.at..]);
        let mut escaped = false;
        for (offset, c) in rest.char_indices().skip(1) {
            match c {
                '"' if !escaped => {
                    let end = start + offset + 1;
                    self.at = end;
                    return serde_json::from_str(&self.text[start..end]).map_err(|_| {
                        SyntaxError::new(
                            start,
                            "this string has an escape or a character that is not valid in JSON",
                        )
                    });
                }
                c => escaped = c == '\\' && !escaped,
            }
        }
        Err(SyntaxError::new(start, "this string is not closed: add a \""))
    }

    fn number(&mut self) -> Result<Number, SyntaxError> {
        let (start, rest) = (self.at, &self.text[self.at..]);
        let end =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c))).unwrap_or(rest.len());
        self.at += end;
        serde_json::from_str(&rest[..end])
            .map_err(|_| SyntaxError::new(start, format!("{} is not a valid number", &rest[..end])))
    }
}
