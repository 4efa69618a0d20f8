//! JSON with places, as items like HCL's.

use serde_json::Number;

use super::{Item, Key, Kind, MAX_DEPTH, Mistake, Node};

/// Parses a JSON object.
pub(crate) fn parse(text: &str) -> Result<Vec<Item>, Mistake> {
    let start = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let mut parser = Parser { text, at: start, depth: 0 };
    let node = parser.value()?;
    parser.space();
    if parser.at < text.len() {
        return Err(Mistake::new(parser.at, "something follows the object: remove it"));
    }
    match node.kind {
        Kind::Object(items) => Ok(items),
        _ => Err(Mistake::new(node.at, "an object has to stand here: { ... }")),
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

    fn value(&mut self) -> Result<Node, Mistake> {
        self.space();
        let at = self.at;
        let rest = &self.text[at..];
        let kind = match rest.chars().next() {
            Some('{') => self.object()?,
            Some('[') => self.list()?,
            Some('"') => Kind::String(self.string()?),
            Some('-' | '0'..='9') => Kind::Number(self.number()?),
            _ => {
                let words = [("true", Kind::Bool(true)), ("false", Kind::Bool(false)), ("null", Kind::Null)];
                let Some((word, kind)) = words.into_iter().find(|(word, _)| rest.starts_with(word)) else {
                    return Err(Mistake::new(at, "a value has to stand here"));
                };
                self.at += word.len();
                kind
            }
        };
        Ok(Node { at, kind })
    }

    fn object(&mut self) -> Result<Kind, Mistake> {
        self.open()?;
        let mut items = Vec::new();
        if !self.next_is('}') {
            loop {
                self.space();
                let at = self.at;
                if !self.text[at..].starts_with('"') {
                    return Err(Mistake::new(at, "a key in double quotes has to stand here"));
                }
                let text = self.string()?;
                if !self.next_is(':') {
                    return Err(Mistake::new(self.at, "a colon and a value have to follow the key"));
                }
                items.push(Item { keys: vec![Key { at, text }], value: self.value()?, assigned: true });
                if self.next_is('}') {
                    break;
                }
                if !self.next_is(',') {
                    return Err(Mistake::new(self.at, "a comma or } has to stand here"));
                }
            }
        }
        self.depth -= 1;
        Ok(Kind::Object(items))
    }

    fn list(&mut self) -> Result<Kind, Mistake> {
        self.open()?;
        let mut nodes = Vec::new();
        if !self.next_is(']') {
            loop {
                nodes.push(self.value()?);
                if self.next_is(']') {
                    break;
                }
                if !self.next_is(',') {
                    return Err(Mistake::new(self.at, "a comma or ] has to stand here"));
                }
            }
        }
        self.depth -= 1;
        Ok(Kind::List(nodes))
    }

    fn open(&mut self) -> Result<(), Mistake> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Mistake::new(self.at, format!("is nested more than {MAX_DEPTH} deep")));
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<String, Mistake> {
        let (start, rest) = (self.at, &self.text[self.at..]);
        let mut escaped = false;
        for (offset, c) in rest.char_indices().skip(1) {
            match c {
                '"' if !escaped => {
                    let end = start + offset + 1;
                    self.at = end;
                    return serde_json::from_str(&self.text[start..end]).map_err(|_| {
                        Mistake::new(start, "this string has an escape or a character that JSON has not")
                    });
                }
                c => escaped = c == '\\' && !escaped,
            }
        }
        Err(Mistake::new(start, "this string is not closed: add a \""))
    }

    fn number(&mut self) -> Result<Number, Mistake> {
        let (start, rest) = (self.at, &self.text[self.at..]);
        let end =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c))).unwrap_or(rest.len());
        self.at += end;
        serde_json::from_str(&rest[..end])
            .map_err(|_| Mistake::new(start, format!("{} is no number", &rest[..end])))
    }
}
