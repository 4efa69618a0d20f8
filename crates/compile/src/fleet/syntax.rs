//! The syntax of unit files: sections of `Key=Value` lines.
//!
//! As systemd reads it: lines that begin with `#` or `;` are comments, also between continued lines; a line that ends
//! in a backslash goes on in the next one, with a blank for the backslash. As fleet submits it: a line that is neither
//! a comment, a section nor an assignment makes the file unusable, where systemd would only skip that line.

use crate::{
    diagnostic::{Findings, Position},
    source::Source,
};

/// A `Key=Value` assignment.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// `Service`
    pub section: String,
    /// `ExecStart`
    pub key: String,
    /// Where the key is.
    pub at: Position,
    /// The text after `=`, trimmed.
    pub value: AssignmentValue,
}

/// A value, which may have continuation lines.
#[derive(Debug, Clone)]
pub struct AssignmentValue {
    /// The joined lines.
    pub text: String,
    /// Offset in `text` and position in the file at which each line begins.
    parts: Vec<(usize, Position)>,
}

impl AssignmentValue {
    /// Position of the byte at `offset` of the text.
    pub fn at(&self, offset: usize) -> Position {
        let part = self.parts.iter().rev().find(|(start, _)| *start <= offset).or(self.parts.first());
        // There is one part at least: a value begins somewhere.
        let Some((start, at)) = part else { return Position::of_file(std::path::Path::new("")) };
        let before = self.text.get(*start..offset.max(*start)).unwrap_or_default();
        Position { column: at.column + before.chars().count(), ..at.clone() }
    }

    /// Position of the first byte.
    pub fn start(&self) -> Position {
        self.at(0)
    }
}

/// Parses all assignments, in order.
pub fn read(source: &Source, found: &mut Findings) -> Vec<Assignment> {
    let mut reader = Reader { source, found, section: None, entries: Vec::new(), open: None };
    for (number, line) in source.text.split('\n').enumerate() {
        let line = if number == 0 { line.trim_start_matches('\u{feff}') } else { line };
        reader.line(number + 1, line.strip_suffix('\r').unwrap_or(line));
    }
    reader.close();
    reader.entries
}

struct Reader<'a> {
    source: &'a Source,
    found: &'a mut Findings,
    section: Option<String>,
    entries: Vec<Assignment>,
    /// The assignment whose next line is a continuation.
    open: Option<Assignment>,
}

/// All Unicode white space is trimmed, as in fleet, since lines copied from web pages contain it.
const BLANKS: fn(char) -> bool = char::is_whitespace;

impl Reader<'_> {
    fn line(&mut self, number: usize, line: &str) {
        let text = line.trim_start_matches(BLANKS);
        if text.starts_with(['#', ';']) {
            return;
        }
        let column = line[..line.len() - text.len()].chars().count() + 1;
        let at = self.source.at_line(number, column);
        let (text, goes_on) = continued(text);
        if let Some(entry) = &mut self.open {
            entry.value.parts.push((entry.value.text.len(), at));
            entry.value.text.push_str(&text);
        } else if text.trim_matches(BLANKS).is_empty() {
            return;
        } else if let Some(header) = text.strip_prefix('[') {
            return self.header(&at, header.trim_end_matches(BLANKS));
        } else {
            self.assignment(&at, &text);
        }
        if !goes_on {
            self.close();
        }
    }

    fn header(&mut self, at: &Position, header: &str) {
        match header.split_once(']') {
            Some((name, "")) if !name.is_empty() => self.section = Some(name.into()),
            Some((_, "")) => self.found.error(at, "the section has no name: write it as [Service]"),
            Some((name, rest)) => {
                let sentence = format!("\"{rest}\" stands behind [{name}]: put it on a line of its own");
                self.found.error(at, sentence);
                self.section = Some(name.into());
            }
            None => {
                self.found.error(at, format!("\"[{header}\" has no closing bracket: write it as [Service]"));
            }
        }
    }

    fn assignment(&mut self, at: &Position, text: &str) {
        let assigned = text.split_once('=').filter(|(key, _)| !key.trim_matches(BLANKS).is_empty());
        let Some((key, value)) = assigned.filter(|_| self.section.is_some()) else {
            if self.section.is_none() {
                let shown: String =
                    text.split('=').next().unwrap_or_default().trim_end_matches(BLANKS).into();
                return self.found.warn(at, format!("{shown} stands before any [Section] and has no effect"));
            }
            let shown: String = text.trim_end_matches(BLANKS).chars().take(40).collect();
            let mut sentence = format!(
                "\"{shown}\" is not a Key=Value line, a [Section] or a # comment: correct or remove the line"
            );
            // The most common cause, which editors do not show.
            let previous = self.source.text.lines().nth(at.line.saturating_sub(2)).unwrap_or_default();
            if at.line > 1 && previous.ends_with(BLANKS) && previous.trim_end_matches(BLANKS).ends_with('\\')
            {
                sentence.push_str("; the line above ends in a blank, so its backslash does not continue it");
            }
            return self.found.error(at, sentence);
        };
        let section = self.section.clone().unwrap_or_default();
        let trimmed = value.trim_start_matches(BLANKS);
        let column = at.column + text[..text.len() - trimmed.len()].chars().count();
        self.open = Some(Assignment {
            section,
            key: key.trim_end_matches(BLANKS).into(),
            at: at.clone(),
            value: AssignmentValue {
                text: trimmed.into(),
                parts: vec![(0, Position { column, ..at.clone() })],
            },
        });
    }

    fn close(&mut self) {
        if let Some(mut entry) = self.open.take() {
            let end = entry.value.text.trim_end_matches(BLANKS).len();
            entry.value.text.truncate(end);
            self.entries.push(entry);
        }
    }
}

/// Replaces a trailing backslash that is not escaped by a blank. Returns whether there was one.
fn continued(line: &str) -> (std::borrow::Cow<'_, str>, bool) {
    let slashes = line.len() - line.trim_end_matches('\\').len();
    if slashes.is_multiple_of(2) {
        return (line.into(), false);
    }
    (format!("{} ", &line[..line.len() - 1]).into(), true)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, expect: &Expect) {
        let source = Source { path: std::path::Path::new("u.service").into(), text: text.into() };
        let mut found = Findings::default();
        let mut shown = String::new();
        for entry in read(&source, &mut found) {
            let Assignment { section, key, at, value } = entry;
            let end = value.at(value.text.len());
            shown.push_str(&format!(
                "{section}.{key} {}:{} = {:?} {}:{} to {}:{}\n",
                at.line,
                at.column,
                value.text,
                value.start().line,
                value.start().column,
                end.line,
                end.column
            ));
        }
        for diagnostic in found.errors.iter().chain(&found.warnings) {
            shown.push_str(&format!("{diagnostic}\n"));
        }
        expect.assert_eq(&shown);
    }

    #[test]
    fn c04_sections_and_assignments() {
        check(
            "# a comment\n[Unit]\nDescription=Hello World\n; another\n\n  After = docker.service\nAfter=\n[X-Fleet]\r\nX-Conflicts=a=b\r\n",
            &expect![[r#"
                Unit.Description 3:1 = "Hello World" 3:13 to 3:24
                Unit.After 6:3 = "docker.service" 6:11 to 6:25
                Unit.After 7:1 = "" 7:7 to 7:7
                X-Fleet.X-Conflicts 9:1 = "a=b" 9:13 to 9:16
            "#]],
        );
    }

    #[test]
    fn c04_as_fleet_itself_read_them() {
        for (text, expect) in [
            // Blanks of a web page around keys, values and headers.
            (
                "\u{feff}[Unit]\u{a0}\n\u{a0}After\u{a0}=\u{a0}a.service\u{a0}\n\u{b}[Service]\u{2028}\nA=b\n",
                expect![[r#"
                    Unit.After 2:2 = "a.service" 2:10 to 2:19
                    Service.A 4:1 = "b" 4:3 to 4:4
                "#]],
            ),
            // An empty line ends a value that would go on, as does the end of the file.
            (
                "[Service]\nA=b \\\n\nB=c\nC=d \\",
                expect![[r#"
                Service.A 2:1 = "b" 2:3 to 2:4
                Service.B 4:1 = "c" 4:3 to 4:4
                Service.C 5:1 = "d" 5:3 to 5:4
            "#]],
            ),
            (
                "[Service]\r\nA=b \\\r\n  c\r\n\r\n",
                expect![[r#"
                Service.A 2:1 = "b  c" 2:3 to 3:4
            "#]],
            ),
            (
                "[Service]\nA='b\\\n#c'\n;d=e\nf\\\\\n",
                expect![[r#"
                Service.A 2:1 = "'b f\\\\" 2:3 to 5:4
            "#]],
            ),
            // What is not about a section is passed over.
            (
                "see below:\nA=b\n[Service]\n=c\nA==c\n",
                expect![[r#"
                Service.A 5:1 = "=c" 5:3 to 5:5
                u.service:4:1: "=c" is not a Key=Value line, a [Section] or a # comment: correct or remove the line
                u.service:1:1: see below: stands before any [Section] and has no effect
                u.service:2:1: A stands before any [Section] and has no effect
            "#]],
            ),
        ] {
            check(text, &expect);
        }
    }

    #[test]
    fn c04_lines_go_on() {
        check(
            "[Service]\nExecStart=/bin/sh -c \\\n  # between\n    \"true\" \\\n    -x\nA=\\\\\nB=b \\",
            &expect![[r#"
                Service.ExecStart 2:1 = "/bin/sh -c  \"true\"  -x" 2:11 to 5:7
                Service.A 6:1 = "\\\\" 6:3 to 6:5
                Service.B 7:1 = "b" 7:3 to 7:4
            "#]],
        );
    }

    #[test]
    fn c23_mistakes_have_their_place() {
        check(
            "Key=early\ntext of a page\n[Unit\n[Service] x\n  ExecStart /bin/true\nExecStart=/bin/sh \\ \n  -c true\n[]\n",
            &expect![[r#"
                Service.ExecStart 6:1 = "/bin/sh \\" 6:11 to 6:20
                u.service:3:1: "[Unit" has no closing bracket: write it as [Service]
                u.service:4:1: " x" stands behind [Service]: put it on a line of its own
                u.service:5:3: "ExecStart /bin/true" is not a Key=Value line, a [Section] or a # comment: correct or remove the line
                u.service:7:3: "-c true" is not a Key=Value line, a [Section] or a # comment: correct or remove the line; the line above ends in a blank, so its backslash does not continue it
                u.service:8:1: the section has no name: write it as [Service]
                u.service:1:1: Key stands before any [Section] and has no effect
                u.service:2:1: text of a page stands before any [Section] and has no effect
            "#]],
        );
    }
}
