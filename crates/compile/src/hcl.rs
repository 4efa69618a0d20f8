//! Parser of HCL 1, the language of Appfiles, and of its JSON form.
//!
//! ```text
//! FILE   = { ITEM [","] }
//! ITEM   = KEY { KEY } OBJECT | KEY "=" VALUE
//! KEY    = identifier | string
//! VALUE  = string | heredoc | number | true | false | LIST | OBJECT
//! LIST   = "[" [ VALUE { "," VALUE } [","] ] "]"
//! OBJECT = "{" FILE "}"
//! ```
//!
//! HCL 2 is another language: there an item needs a line of its own and its key cannot be a string, and Appfiles from
//! the time of HCL 1 do not keep to that. HCL 1 has no expressions; `${...}` in a string is kept as it is written.

pub(crate) mod json;
mod scan;

use serde_json::{Map, Number, Value};

use crate::{diagnostic::Diagnostic, source::Source};
use scan::{Scanner, Token};

/// Limit of nesting, which bounds the stack; deeper than any file written by hand.
const MAX_DEPTH: usize = 64;

/// `KEY KEY { ... }` or `KEY = VALUE`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Item {
    /// The keys, at least one.
    pub keys: Vec<Key>,
    pub value: Node,
    /// Whether it was written with `=`.
    pub assigned: bool,
}

/// One key of an item, quoted or not.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key {
    /// Byte at which it starts.
    pub at: usize,
    pub text: String,
}

/// A value and the byte at which it starts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub at: usize,
    pub kind: ValueKind,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ValueKind {
    /// `null`, in JSON only.
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    List(Vec<Node>),
    Object(Vec<Item>),
}

impl Item {
    /// The byte at which it starts.
    pub fn at(&self) -> usize {
        self.keys.first().map_or(self.value.at, |k| k.at)
    }

    /// Its first key.
    pub fn name(&self) -> &str {
        self.keys.first().map_or("", |k| &k.text)
    }
}

impl Node {
    /// Converts the value to JSON. The last value of a duplicate key counts, and the labels of a block become nested keys:
    /// `a "b" { c = 1 }` is `{"a": {"b": {"c": 1}}}`.
    pub fn to_json(&self) -> Value {
        match &self.kind {
            ValueKind::Null => Value::Null,
            ValueKind::Bool(b) => Value::Bool(*b),
            ValueKind::Number(n) => Value::Number(n.clone()),
            ValueKind::String(s) => Value::String(s.clone()),
            ValueKind::List(nodes) => Value::Array(nodes.iter().map(Node::to_json).collect()),
            ValueKind::Object(items) => {
                let mut map = Map::new();
                for item in items {
                    insert(&mut map, &item.keys, &item.value);
                }
                Value::Object(map)
            }
        }
    }
}

fn insert(map: &mut Map<String, Value>, keys: &[Key], value: &Node) {
    match keys {
        [] => {}
        [last] => drop(map.insert(last.text.clone(), value.to_json())),
        [first, rest @ ..] => {
            let inner = map.entry(first.text.clone()).or_insert(Value::Null);
            let mut below = match inner.take() {
                Value::Object(below) => below,
                _ => Map::new(),
            };
            insert(&mut below, rest, value);
            *inner = Value::Object(below);
        }
    }
}

/// A syntax error and its byte offset.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SyntaxError {
    pub at: usize,
    pub message: String,
}

impl SyntaxError {
    fn new(at: usize, message: impl Into<String>) -> Self {
        SyntaxError { at, message: message.into() }
    }
}

/// Parses a file: JSON where it starts with `{`, else HCL.
pub(crate) fn parse(source: &Source) -> Result<Vec<Item>, Diagnostic> {
    let text = source.text.as_str();
    let json = text.trim_start_matches('\u{feff}').trim_start().starts_with('{');
    let parsed = match text.find('\0') {
        Some(at) => Err(SyntaxError::new(at, "it contains a NUL character: remove it")),
        None if json => json::parse(text),
        None => parse_text(text),
    };
    parsed.map_err(|mistake| {
        let language = if json { "JSON" } else { "HCL" };
        Diagnostic::new(&source.at(mistake.at), format!("is not {language}: {}", mistake.message))
    })
}

fn parse_text(text: &str) -> Result<Vec<Item>, SyntaxError> {
    let mut parser = Parser { scanner: Scanner::new(text), ahead: None, depth: 0 };
    let items = parser.items(None)?;
    Ok(items)
}

struct Parser<'a> {
    scanner: Scanner<'a>,
    /// The token that was peeked at and not consumed.
    ahead: Option<(usize, Token)>,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&mut self) -> Result<&(usize, Token), SyntaxError> {
        if self.ahead.is_none() {
            self.ahead = Some(self.scanner.next()?);
        }
        // It has just been filled.
        Ok(self.ahead.get_or_insert((0, Token::End)))
    }

    fn take(&mut self) -> Result<(usize, Token), SyntaxError> {
        match self.ahead.take() {
            Some(token) => Ok(token),
            None => self.scanner.next(),
        }
    }

    /// Parses items up to the brace that closes the object opened at `opened`, or to the end of the file.
    fn items(&mut self, opened: Option<usize>) -> Result<Vec<Item>, SyntaxError> {
        let mut items = Vec::new();
        loop {
            let (at, token) = self.peek()?.clone();
            match (token, opened) {
                (Token::End, None) => return Ok(items),
                (Token::End, Some(opened)) => {
                    return Err(SyntaxError::new(opened, "this { is never closed: add a }"));
                }
                (Token::Close, Some(_)) => {
                    self.take()?;
                    return Ok(items);
                }
                (Token::Close, None) => return Err(SyntaxError::new(at, "this } closes nothing: remove it")),
                _ => items.push(self.item()?),
            }
            if self.peek()?.1 == Token::Comma {
                self.take()?;
            }
        }
    }

    fn item(&mut self) -> Result<Item, SyntaxError> {
        let mut keys: Vec<Key> = Vec::new();
        loop {
            let (at, token) = self.take()?;
            match token {
                Token::Word(text) if text != "true" && text != "false" => keys.push(Key { at, text }),
                Token::Text(text) => keys.push(Key { at, text }),
                Token::Assign if keys.len() == 1 => {
                    let value = self.value(&keys)?;
                    return Ok(Item { keys, value, assigned: true });
                }
                // HCL 1 rejects `name label = { ... }`, but it is unambiguous.
                Token::Assign if !keys.is_empty() && self.peek()?.1 == Token::Open => {}
                Token::Open if !keys.is_empty() => {
                    let value = self.object(at)?;
                    return Ok(Item { keys, value, assigned: false });
                }
                other => return Err(no_item(&keys, at, &other)),
            }
        }
    }

    fn value(&mut self, keys: &[Key]) -> Result<Node, SyntaxError> {
        let (at, token) = self.take()?;
        let kind = match token {
            Token::Text(s) | Token::Heredoc(s) => ValueKind::String(s),
            Token::Number(n) => ValueKind::Number(n),
            Token::Word(word) if word == "true" || word == "false" => ValueKind::Bool(word == "true"),
            Token::Open => return self.object(at),
            Token::OpenList => return self.list(at, keys),
            Token::Word(word) => {
                let sentence = format!(
                    "{word} is not a value: a value is a string in quotes, a number, true, false, a list or {{ ... }}"
                );
                return Err(SyntaxError::new(at, sentence));
            }
            other => {
                let key = keys.last().map_or("", |k| &k.text);
                return Err(SyntaxError::new(at, format!("{key} has no value before {}", other.shown())));
            }
        };
        Ok(Node { at, kind })
    }

    fn object(&mut self, at: usize) -> Result<Node, SyntaxError> {
        self.deeper(at)?;
        let items = self.items(Some(at))?;
        self.depth -= 1;
        Ok(Node { at, kind: ValueKind::Object(items) })
    }

    fn list(&mut self, at: usize, keys: &[Key]) -> Result<Node, SyntaxError> {
        self.deeper(at)?;
        let mut nodes = Vec::new();
        loop {
            match self.peek()?.1 {
                Token::CloseList => break,
                // `[1,,2]` is `[1, 2]`.
                Token::Comma => {
                    self.take()?;
                    continue;
                }
                Token::End => return Err(SyntaxError::new(at, "this [ is never closed: add a ]")),
                _ => nodes.push(self.value(keys)?),
            }
            let (at, token) = self.peek()?.clone();
            match token {
                Token::Comma => drop(self.take()?),
                Token::CloseList | Token::End => {}
                other => {
                    return Err(SyntaxError::new(
                        at,
                        format!(
                            "the values of a list are separated by commas, but {} follows one",
                            other.shown()
                        ),
                    ));
                }
            }
        }
        self.take()?;
        self.depth -= 1;
        Ok(Node { at, kind: ValueKind::List(nodes) })
    }

    fn deeper(&mut self, at: usize) -> Result<(), SyntaxError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(SyntaxError::new(at, format!("is nested more than {MAX_DEPTH} deep")));
        }
        Ok(())
    }
}

fn no_item(keys: &[Key], at: usize, token: &Token) -> SyntaxError {
    let shown = token.shown();
    match keys {
        [] => SyntaxError::new(
            at,
            format!("{shown} is found where a name is expected: write NAME = VALUE or NAME {{ ... }}"),
        ),
        [.., last] => SyntaxError::new(
            last.at,
            format!("{} is followed by {shown}: write NAME = VALUE or NAME {{ ... }}", last.text),
        ),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, expect: Expect) {
        let source = Source { path: std::path::Path::new("A").into(), text: text.into() };
        let shown = match parse(&source) {
            Ok(items) => Node { at: 0, kind: ValueKind::Object(items) }.to_json().to_string(),
            Err(mistake) => mistake.to_string(),
        };
        expect.assert_eq(&shown);
    }

    #[test]
    fn what_hcl_1_took() {
        for (text, expect) in [
            (
                "a = 1 b = 2, c { d = \"x\" e = true } # one line",
                expect![[r#"{"a":1,"b":2,"c":{"d":"x","e":true}}"#]],
            ),
            (
                "\"a\" \"b\" { \"c\" = 1 }\n/* a\n comment */ d = [1, \"two\", [3,], {e = 4},] // end",
                expect![[r#"{"a":{"b":{"c":1}},"d":[1,"two",[3],{"e":4}]}"#]],
            ),
            (
                "a = 0x1F b = 010 c = -2.5e3 d = 1e2 e = -7 f.g-h_1 = 0",
                expect![[r#"{"a":31,"b":8,"c":-2500.0,"d":100.0,"e":-7,"f.g-h_1":0}"#]],
            ),
            (
                r#"a = "q\"\\\n\t\u00e9\x41\101" b = "${x("y")} z""#,
                expect![[r#"{"a":"q\"\\\n\téAA","b":"${x(\"y\")} z"}"#]],
            ),
            (
                "a = <<EOF\nx\n  y\nEOF\nb = <<-E\n    one\n      two\n    E\nc = 1",
                expect![[r#"{"a":"x\n  y\n","b":"one\n  two\n","c":1}"#]],
            ),
            // The line that ends a text says how much indentation goes; with less of it somewhere, none does.
            ("a = <<-E\n    x\n   y\n  E\n", expect![[r#"{"a":"  x\n y\n"}"#]]),
            ("a = <<-E\n\tx\n\t\ty\n\t\tE\n", expect![[r#"{"a":"\tx\n\t\ty\n"}"#]]),
            (
                "a = <<E\r\nx\r\n\r\nE\r\nb = \"${c\r\nd}\\r\\n\"",
                expect![[r#"{"a":"x\n\n","b":"${c\nd}\r\n"}"#]],
            ),
            ("a = \"${b(\"${c}\")} {d}\"", expect![[r#"{"a":"${b(\"${c}\")} {d}"}"#]]),
            (
                "a = [,1,,2,] b = .5 c = -.5 d = [[1],]",
                expect![[r#"{"a":[1,2],"b":0.5,"c":-0.5,"d":[[1]]}"#]],
            ),
            ("/*/ a */ b = 1 /**/ c = 2", expect![[r#"{"b":1,"c":2}"#]]),
            ("\u{feff}a = 1\r\nb \"c\" = {}\r\n", expect![[r#"{"a":1,"b":{"c":{}}}"#]]),
            ("", expect!["{}"]),
            ("{\"a\": {\"b\": [1, null, -2.5, \"\\u00e9\"]}}", expect![[r#"{"a":{"b":[1,null,-2.5,"é"]}}"#]]),
        ] {
            check(text, expect);
        }
    }

    #[test]
    fn what_is_no_hcl() {
        for (text, expect) in [
            (
                "a",
                expect![[
                    r#"A:1:1: is not HCL: a is followed by the end of the file: write NAME = VALUE or NAME { ... }"#
                ]],
            ),
            ("a =", expect![[r#"A:1:4: is not HCL: a has no value before the end of the file"#]]),
            ("a = {\n b = 1", expect![[r#"A:1:5: is not HCL: this { is never closed: add a }"#]]),
            ("}", expect![[r#"A:1:1: is not HCL: this } closes nothing: remove it"#]]),
            ("a = \"x\n", expect![[r#"A:1:5: is not HCL: this string is not closed in its line: add a ""#]]),
            (
                "a = [1 2]",
                expect![[
                    r#"A:1:8: is not HCL: the values of a list are separated by commas, but 2 follows one"#
                ]],
            ),
            (
                "a = b",
                expect![[
                    r#"A:1:5: is not HCL: b is not a value: a value is a string in quotes, a number, true, false, a list or { ... }"#
                ]],
            ),
            (
                "a = <<EOF\nx",
                expect![[r#"A:1:5: is not HCL: this text is not terminated: write EOF alone on a line"#]],
            ),
            ("/* a", expect![[r#"A:1:1: is not HCL: this comment is not closed: add */"#]]),
            (
                "a = 'x'",
                expect![[r#"A:1:5: is not HCL: ' is not valid here: write strings in double quotes"#]],
            ),
            ("a {\n  b: 1\n}", expect![[r#"A:2:4: is not HCL: : is not valid here: write NAME = VALUE"#]]),
            ("a = 0x", expect![[r#"A:1:5: is not HCL: 0x is not a valid number"#]]),
            ("a = 08", expect!["A:1:5: is not HCL: 08 is not a valid number"]),
            ("a = .", expect!["A:1:5: is not HCL: . is not a valid number"]),
            (
                "a <<E\nb\nE\n {}",
                expect![
                    "A:1:1: is not HCL: a is followed by a text over several lines: write NAME = VALUE or NAME { ... }"
                ],
            ),
            (
                "a true {}",
                expect!["A:1:1: is not HCL: a is followed by true: write NAME = VALUE or NAME { ... }"],
            ),
            ("a = \"\0\"", expect!["A:1:6: is not HCL: it contains a NUL character: remove it"]),
            ("{\"a\": }", expect![[r#"A:1:7: is not JSON: a value is expected here"#]]),
        ] {
            check(text, expect);
        }
    }
}
