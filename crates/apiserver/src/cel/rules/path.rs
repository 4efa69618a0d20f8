//! Fields that rules blame: paths in errors, and `fieldPath`.

use crate::schema::structural::{Additional, Structural};
use crate::schema::validate::Path;

/// The text of a path and of a field below, itself a path that begins with `.` or `[`, or nothing.
pub fn below(path: &Path<'_>, below: &str) -> String {
    let path = path.to_string();
    match (path.is_empty(), below) {
        // An object has no name of its own.
        (true, "") => "<nil>".to_owned(),
        (true, below) => below.trim_start_matches('.').to_owned(),
        (false, below) => path + below,
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
