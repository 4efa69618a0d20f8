//! Parser of environment files: `.env` and files in `env_file`.

use std::path::Path;

use indexmap::IndexMap;

use super::template::{self, VariableLookup};
use crate::{
    diagnostic::{Diagnostic, Position},
    source::Source,
};

/// Variables in the order of the file; a later one with the same name replaces the value.
pub(super) type EnvVars = IndexMap<String, String>;

/// Parses `source`. Values may refer to variables of `outer`, which take precedence, and to earlier variables of the file.
/// A name without a value has the value in `outer`, if there is one.
pub(super) fn read(
    source: &Source,
    outer: &dyn Fn(&str) -> Option<String>,
    found: &mut crate::diagnostic::Findings,
) -> EnvVars {
    let text = source.text.strip_prefix('\u{feff}').unwrap_or(&source.text);
    let mut parser = Parser { source, text, at: 0, outer, out: EnvVars::new() };
    if let Err(mistake) = parser.run() {
        found.errors.push(mistake);
    }
    parser.out
}

/// Parses `source` as literal `KEY=VALUE` lines (`format: raw`).
pub(super) fn read_raw(source: &Source) -> EnvVars {
    let lines = source.text.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#'));
    lines.filter_map(|l| l.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
}

struct Parser<'a> {
    source: &'a Source,
    text: &'a str,
    at: usize,
    outer: &'a dyn Fn(&str) -> Option<String>,
    out: EnvVars,
}

impl Parser<'_> {
    fn run(&mut self) -> Result<(), Diagnostic> {
        while self.start() {
            let (name, has_value) = self.name()?;
            let value = if has_value { Some(self.value(&name)?) } else { (self.outer)(&name) };
            // A name that begins with a digit cannot be referred to.
            if let Some(value) = value.filter(|_| !name.starts_with(|c: char| c.is_ascii_digit())) {
                self.out.insert(name, value);
            }
        }
        Ok(())
    }

    fn place(&self, at: usize) -> Position {
        self.source.at(at + self.source.text.len() - self.text.len())
    }

    /// Skips to the next line that is not empty or a comment.
    fn start(&mut self) -> bool {
        loop {
            let rest = &self.text[self.at..];
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if trimmed.is_empty() {
                return false;
            }
            if !trimmed.starts_with('#') {
                return true;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    /// Parses `export NAME=`, `NAME:` or `NAME` alone on its line.
    fn name(&mut self) -> Result<(String, bool), Diagnostic> {
        let rest = &self.text[self.at..];
        if let Some(after) = rest.strip_prefix("export").filter(|a| a.starts_with([' ', '\t'])) {
            self.at = self.text.len() - after.trim_start_matches([' ', '\t']).len();
        }
        let start = self.at;
        let rest = &self.text[start..];
        let end = rest.find(['=', ':', '\n']).unwrap_or(rest.len());
        let name = rest[..end].trim();
        let has_value = rest[end..].starts_with(['=', ':']);
        self.at = (start + end + 1).min(self.text.len());
        let odd = |c: char| !c.is_alphanumeric() && !matches!(c, '_' | '.' | '-' | '[' | ']');
        if let Some((offset, c)) = name.char_indices().find(|(_, c)| odd(*c)) {
            let sentence = format!(
                "{c:?} cannot be in the name of a variable: a line is NAME=value, or a comment with #"
            );
            return Err(Diagnostic::new(&self.place(start + offset), sentence));
        }
        if name.is_empty() {
            return Err(Diagnostic::new(
                &self.place(start),
                "there is no name before the value: a line is NAME=value",
            ));
        }
        let after = &self.text[self.at..];
        if has_value {
            self.at = self.text.len() - after.trim_start_matches([' ', '\t', '\r', '\u{b}', '\u{c}']).len();
        }
        Ok((name.into(), has_value))
    }

    fn value(&mut self, name: &str) -> Result<String, Diagnostic> {
        let start = self.at;
        let rest = &self.text[start..];
        let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
            let line = rest.split('\n').next().unwrap_or_default();
            self.at = (start + line.len() + 1).min(self.text.len());
            let value = line.split(" #").next().unwrap_or_default().trim_end();
            return self.expand(start, value);
        };
        let mut value = String::new();
        let mut escaped = false;
        for (offset, c) in rest.char_indices().skip(1) {
            if escaped {
                escaped = false;
                if c != quote {
                    value.push('\\');
                }
                value.push(c);
            } else if c == '\\' {
                escaped = true;
            } else if c == quote {
                self.at = start + offset + 1;
                return if quote == '"' { self.expand(start, &escapes(&value)) } else { Ok(value) };
            } else {
                value.push(c);
            }
        }
        let sentence = format!("the value of {name} has a {quote} that is not closed");
        Err(Diagnostic::new(&self.place(start), sentence))
    }

    fn expand(&self, start: usize, value: &str) -> Result<String, Diagnostic> {
        let mut known = Known { outer: self.outer, inner: &self.out };
        match template::substitute(value, &mut known) {
            Ok(replaced) => Ok(replaced.unwrap_or_else(|| value.into())),
            Err(reason) => Err(Diagnostic::new(&self.place(start), format!("the value {reason}"))),
        }
    }
}

struct Known<'a> {
    outer: &'a dyn Fn(&str) -> Option<String>,
    inner: &'a EnvVars,
}

impl VariableLookup for Known<'_> {
    fn value(&self, name: &str) -> Option<String> {
        (self.outer)(name).or_else(|| self.inner.get(name).cloned())
    }

    /// As in a shell, a variable that is not set is empty.
    fn missing(&mut self, _: &str) {}
}

/// Expands escapes within double quotes: `\n`, `\t`, and `\$` for a literal dollar sign.
fn escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('a') => out.push('\u{7}'),
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('v') => out.push('\u{b}'),
            Some('\\') => out.push('\\'),
            Some('$') => out.push_str("$$"),
            Some(c) => out.extend(['\\', c]),
            None => out.push('\\'),
        }
    }
    out
}

/// Reads and parses the file at `path`.
pub(super) fn read_file(
    path: &Path,
    outer: &dyn Fn(&str) -> Option<String>,
    found: &mut crate::diagnostic::Findings,
) -> EnvVars {
    match Source::read(path) {
        Ok(source) => read(&source, outer, found),
        Err(mistake) => {
            found.errors.push(mistake);
            EnvVars::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Findings;

    fn check(text: &str, expected: &str) {
        let source = Source { path: Path::new(".env").into(), text: text.into() };
        let mut found = Findings::default();
        let outer = |name: &str| (name == "OUT").then(|| "o".to_string());
        let variables = read(&source, &outer, &mut found);
        let mut shown: Vec<_> = variables.iter().map(|(k, v)| format!("{k}={v}")).collect();
        shown.extend(found.errors.iter().map(ToString::to_string));
        assert_eq!(shown.join("|"), expected, "{text}");
    }

    #[test]
    fn y18_env_file() {
        check("A=1\n\n# c\n  B = two words # c\nC=a#b\n", "A=1|B=two words|C=a#b");
        check("export A=1\nexport\tB: 2\r\nC:3", "A=1|B=2|C=3");
        check("A='x $B #'\nB=\"x $A #\\n\\\"\"\n", "A=x $B #|B=x x $B # #\n\"");
        check("A=a\nB=${A}b\nC=${NO:-c}$OUT\nD=$$A\nE=\"\\$A\"\n", "A=a|B=ab|C=co|D=$A|E=$A");
        check("OUT\nNO\nA=\nB=''\n", "OUT=o|A=|B=");
        check("A=\"1\n2\"\nB=3", "A=1\n2|B=3");
        check("A=1\nA=2\n", "A=2");
        check("1A=x\nB=1", "B=1");
        check("\u{feff}A=é\n", "A=é");
        check(
            "A=x\nb c=1",
            ".env:2:2: ' ' cannot be in the name of a variable: a line is NAME=value, or a comment with #"
                .replacen(".env", "A=x|.env", 1)
                .as_str(),
        );
        check("A='x\n", ".env:1:3: the value of A has a ' that is not closed");
        check("=x\n", ".env:1:1: there is no name before the value: a line is NAME=value");
        check(
            "A=${B\n",
            ".env:1:3: the value has \"${B\", which is not a valid variable: write $$ for a dollar sign",
        );
    }
}
