//! Errors and warnings with their positions in files.

use std::{fmt, path::Path, sync::Arc};

/// A position in a file. Lines and columns count from 1; columns count characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The file, as the user named it or as found from there.
    pub file: Arc<Path>,
    /// Line, from 1; 0 stands for the whole file.
    pub line: usize,
    /// Column, from 1; 0 stands for the whole file.
    pub column: usize,
}

impl Position {
    /// The file as a whole: it is missing, unreadable or empty.
    pub fn of_file(file: &Path) -> Self {
        Position { file: file.into(), line: 0, column: 0 }
    }
}

impl Default for Position {
    /// No position, for values that do not come from a file.
    fn default() -> Self {
        Position::of_file(Path::new(""))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        if self.line == 0 { write!(f, "{file}") } else { write!(f, "{file}:{}:{}", self.line, self.column) }
    }
}

/// One error or warning: `Appfile:3:5: "nme" is not a field of application; ...`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Diagnostic {
    /// Position in the file.
    pub at: Position,
    /// The problem and its remedy, one sentence without a full stop.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What no file says has no place to name.
        if !self.at.file.as_os_str().is_empty() {
            write!(f, "{}: ", self.at)?;
        }
        f.write_str(&self.message)
    }
}

impl Diagnostic {
    /// A diagnostic at a place.
    pub fn new(at: &Position, message: impl Into<String>) -> Self {
        Diagnostic { at: at.clone(), message: message.into() }
    }

    /// A diagnostic about a file as a whole.
    pub fn of_file(file: &Path, message: impl Into<String>) -> Self {
        Diagnostic { at: Position::of_file(file), message: message.into() }
    }
}

/// All errors of one compilation, at least one; displayed in the order of files and lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl From<Diagnostic> for Diagnostics {
    fn from(one: Diagnostic) -> Self {
        Diagnostics(vec![one])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// Collects errors and warnings, so that a front end reports all of them at once.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub errors: Vec<Diagnostic>,
    pub warnings: Vec<Diagnostic>,
}

impl Findings {
    pub fn error(&mut self, at: &Position, message: impl Into<String>) {
        self.errors.push(Diagnostic::new(at, message));
    }

    pub fn warn(&mut self, at: &Position, message: impl Into<String>) {
        self.warnings.push(Diagnostic::new(at, message));
    }

    /// Returns the warnings if there was no error, else all errors in order of position.
    pub fn finish(mut self) -> Result<Vec<Diagnostic>, Diagnostics> {
        if self.errors.is_empty() {
            return Ok(self.warnings);
        }
        self.errors.sort_by(|a, b| a.at.cmp(&b.at));
        self.errors.dedup();
        Err(Diagnostics(self.errors))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_begins_with_its_place() {
        let place = Position { line: 3, column: 5, ..Position::of_file(Path::new("Appfile")) };
        for (at, expect) in [
            (place, "Appfile:3:5: is odd"),
            (Position::of_file(Path::new("Appfile")), "Appfile: is odd"),
            (Position::default(), "is odd"),
        ] {
            assert_eq!(Diagnostic::new(&at, "is odd").to_string(), expect);
        }
    }
}
