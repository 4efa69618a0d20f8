//! Procfiles as Heroku defines them: one `type: command` a line.
//!
//! The type `web` is the one that serves HTTP; it is told its port in `PORT`. A `release` process is a command to
//! run once per release, not a process to keep running.

use std::path::Path;

use crate::{
    diagnostic::{Diagnostics, Findings, Position},
    source::Source,
};

/// One line of a Procfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Where the line starts.
    pub at: Position,
    /// The process type as written.
    pub name: String,
    /// What the shell is told to run.
    pub command: String,
}

impl Process {
    /// The shell's arguments. A simple command replaces the shell, so that it gets signals itself and its exit code
    /// is the container's; one that is more than that (`a && b`, `X=1 a`) needs the shell to stay.
    pub fn argv(&self) -> Vec<String> {
        let simple = !self.command.contains(['&', '|', ';', '(', ')', '<', '>', '`', '\n']);
        let first = self.command.split_whitespace().next().unwrap_or_default();
        // An assignment in front, or what only a shell can do, is no program that `exec` could become.
        let program = !first.contains('=')
            && !matches!(
                first,
                "cd" | "exec"
                    | "export"
                    | "if"
                    | "for"
                    | "while"
                    | "until"
                    | "case"
                    | "."
                    | "set"
                    | "eval"
                    | "!"
                    | "{"
                    | "trap"
                    | "ulimit"
                    | "umask"
            );
        let command = if simple && program { format!("exec {}", self.command) } else { self.command.clone() };
        vec!["/bin/sh".into(), "-c".into(), command]
    }
}

/// Whether a file is a Procfile, by its name: `Procfile`, `Procfile.dev`, and what ends in `-Procfile`.
pub(crate) fn is_named(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name == "Procfile" || name.starts_with("Procfile.") || name.ends_with("-Procfile")
}

/// Reads the Procfile at `path`.
///
/// # Errors
///
/// The file cannot be read, a line is not `type: command`, a type is there twice, or there is none.
pub fn parse_file(path: &Path) -> Result<Vec<Process>, Diagnostics> {
    parse(&Source::read(path)?)
}

pub(crate) fn parse(source: &Source) -> Result<Vec<Process>, Diagnostics> {
    let mut found = Findings::default();
    let mut processes: Vec<Process> = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        let text = line.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let column = line.chars().take_while(|c| c.is_whitespace()).count() + 1;
        let at = source.at_line(number + 1, column);
        let Some((name, command)) = text.split_once(':') else {
            found.error(&at, "is not a process type and its command: write TYPE: COMMAND");
            continue;
        };
        let (name, command) = (name.trim_end(), command.trim());
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)) {
            found.error(&at, format!("\"{name}\" is no process type: use letters, digits, - and _"));
        } else if command.is_empty() {
            found.error(&at, format!("process type {name} has no command: write {name}: COMMAND"));
        } else if let Some(first) = processes.iter().find(|p| p.name.eq_ignore_ascii_case(name)) {
            found.error(&at, format!("process type {name} is already defined in line {}", first.at.line));
        } else {
            processes.push(Process { at, name: name.into(), command: command.into() });
        }
    }
    if processes.is_empty() && found.errors.is_empty() {
        found.error(&source.at_line(1, 1), "defines no process type: write for example web: COMMAND");
    }
    found.finish()?;
    Ok(processes)
}
