//! Paths of fields in errors, and `fieldPath` of rules.

use std::fmt;

use crate::schema::structural::{Additional, Structural};

/// A path as a chain of steps, written only into errors.
#[derive(Clone, Copy)]
pub struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Root,
    Field(&'p str),
    Key(&'p str),
    Index(usize),
}

impl<'p> Path<'p> {
    /// The object itself.
    pub fn root() -> Self {
        Self { parent: None, step: Step::Root }
    }

    pub fn field(&'p self, name: &'p str) -> Self {
        Self { parent: Some(self), step: Step::Field(name) }
    }

    pub fn key(&'p self, name: &'p str) -> Self {
        Self { parent: Some(self), step: Step::Key(name) }
    }

    pub fn index(&'p self, index: usize) -> Self {
        Self { parent: Some(self), step: Step::Index(index) }
    }

    /// The path of a field below, itself a path that begins with `.` or `[`, or nothing.
    pub fn with(&self, below: &str) -> String {
        let path = self.to_string();
        match (path.is_empty(), below) {
            // An object has no name of its own.
            (true, "") => "<nil>".to_owned(),
            (true, below) => below.trim_start_matches('.').to_owned(),
            (false, below) => path + below,
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(parent) = self.parent else { return Ok(()) };
        parent.fmt(f)?;
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) if parent.parent.is_none() => f.write_str(name),
            Step::Field(name) => write!(f, ".{name}"),
            Step::Key(name) => write!(f, "[{name}]"),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

/// Reads the `fieldPath` of a rule, like `.spec.a` or `['spec']['a']`, as messages show it. `None` where it names no
/// field of the schema.
pub fn read_field_path(path: &str, schema: &Structural) -> Option<String> {
    let (mut rest, mut schema, mut shown) = (path, schema, String::new());
    while !rest.is_empty() {
        let name;
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[', ']']).unwrap_or(after.len());
            let (field, after) = after.split_at(end);
            (name, rest) = (field.to_owned(), after);
        } else {
            let (quoted, after) = quoted(rest.strip_prefix("['")?)?;
            (name, rest) = (quoted, after.strip_prefix(']')?);
        }
        if schema.properties.is_empty() {
            let Additional::Of(values) = &schema.additional else { return None };
            schema = values;
            shown.push_str(&format!("[{name}]"));
        } else {
            schema = schema.properties.get(&name)?;
            shown.push_str(&format!(".{name}"));
        }
    }
    Some(shown).filter(|shown| !shown.is_empty())
}

/// A text up to its closing quote, without its escapes, and what follows the quote.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (mut name, mut chars) = (String::new(), text.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' => return Some((name, &text[at + 1..])),
            '\\' => name.push(match chars.next()?.1 {
                'a' => '\x07',
                'b' => '\x08',
                'f' => '\x0c',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\x0b',
                c @ ('\'' | '\\') => c,
                _ => return None,
            }),
            c => name.push(c),
        }
    }
    None
}
