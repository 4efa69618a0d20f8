//! Procfiles with positions for diagnostics. The rules are in [`yado_types::procfile`].
//!
//! The type `web` serves HTTP on the port in `PORT`. A `release` process is a command that runs once for each release.

use std::path::Path;

use yado_types::procfile;

use crate::{
    diagnostic::{Diagnostic, Diagnostics, Position},
    source::Source,
};

/// One line of a Procfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Position of the line.
    pub at: Position,
    /// The process type as written.
    pub name: String,
    /// The command, for a shell.
    pub command: String,
}

impl Process {
    /// The argument vector that runs the command, see [`procfile::argv`].
    pub fn argv(&self) -> Vec<String> {
        procfile::argv(&self.command)
    }
}

/// Whether a file is a Procfile, by its name: `Procfile`, `Procfile.dev`, or a name that ends in `-Procfile`.
pub(crate) fn is_named(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name == "Procfile" || name.starts_with("Procfile.") || name.ends_with("-Procfile")
}

/// Reads the Procfile at `path`.
///
/// # Errors
///
/// The file cannot be read, or all errors that [`procfile::parse`] finds in it.
pub fn parse_file(path: &Path) -> Result<Vec<Process>, Diagnostics> {
    parse(&Source::read(path)?)
}

pub(crate) fn parse(source: &Source) -> Result<Vec<Process>, Diagnostics> {
    let process = |d: procfile::Definition| {
        let procfile::ProcessType { name, command } = d.process;
        Process { at: source.at_line(d.line, d.column), name, command }
    };
    match procfile::parse(&source.text) {
        Ok(definitions) => Ok(definitions.into_iter().map(process).collect()),
        Err(errors) => {
            let diagnostic = |e: procfile::ProcfileError| {
                Diagnostic::new(&source.at_line(e.line, e.column), e.to_string())
            };
            Err(Diagnostics(errors.into_iter().map(diagnostic).collect()))
        }
    }
}
