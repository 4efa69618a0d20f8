//! Procfiles as Heroku defines them: one `TYPE: COMMAND` a line.
//!
//! The compiler reads a Procfile for the Deployments that run its process types, and the image builder reads it for the
//! command of the image. Both have to accept the same files and run the same command, so the rules are here. The module
//! knows nothing of Kubernetes: `oci` uses it and no other module of this crate.

/// A process type and its command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessType {
    /// The name: `web`, `worker`.
    pub name: String,
    /// The command as written, for a shell.
    pub command: String,
}

/// A process type and its position in the Procfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// The process type.
    pub process: ProcessType,
    /// Line, from 1.
    pub line: usize,
    /// Column of the first character, from 1, counted in characters.
    pub column: usize,
}

/// An error in a Procfile. Its `Display` form is the message without the position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct ProcfileError {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, counted in characters.
    pub column: usize,
    /// The kind of error.
    pub kind: ProcfileErrorKind,
}

/// The kind of an error in a Procfile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProcfileErrorKind {
    /// A line without a colon.
    #[error(
        "the line is not a process type and its command: write TYPE: COMMAND, such as web: python3 app.py"
    )]
    NoColon,
    /// A name with other characters than ASCII letters, digits, `-` and `_`, or an empty one.
    #[error("\"{0}\" is not a valid process type: use letters, digits, - and _")]
    Name(String),
    /// Nothing after the colon.
    #[error("process type {0} has no command: write {0}: COMMAND")]
    NoCommand(String),
    /// A second line for a process type; names differ in more than case, as objects are named after them.
    #[error("process type {name} is already defined in line {first}")]
    Duplicate {
        /// The name.
        name: String,
        /// The line of its first definition.
        first: usize,
    },
    /// A file without process types.
    #[error("the file defines no process type: write for example web: python3 app.py")]
    Empty,
}

/// Parses a Procfile. Empty lines and lines that begin with `#` are skipped, and so is a byte order mark.
///
/// # Errors
///
/// All errors, in the order of lines; at least one.
pub fn parse(text: &str) -> Result<Vec<Definition>, Vec<ProcfileError>> {
    let mut definitions: Vec<Definition> = Vec::new();
    let mut errors = Vec::new();
    for (line, written) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let trimmed = written.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let column = written.chars().take_while(|c| c.is_whitespace()).count() + 1;
        match process_type(trimmed, &definitions) {
            Ok(process) => definitions.push(Definition { process, line, column }),
            Err(kind) => errors.push(ProcfileError { line, column, kind }),
        }
    }
    if definitions.is_empty() && errors.is_empty() {
        errors.push(ProcfileError { line: 1, column: 1, kind: ProcfileErrorKind::Empty });
    }
    if errors.is_empty() { Ok(definitions) } else { Err(errors) }
}

fn process_type(line: &str, earlier: &[Definition]) -> Result<ProcessType, ProcfileErrorKind> {
    let (name, command) = line.split_once(':').ok_or(ProcfileErrorKind::NoColon)?;
    let (name, command) = (name.trim_end(), command.trim());
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')) {
        return Err(ProcfileErrorKind::Name(name.into()));
    }
    if command.is_empty() {
        return Err(ProcfileErrorKind::NoCommand(name.into()));
    }
    if let Some(first) = earlier.iter().find(|d| d.process.name.eq_ignore_ascii_case(name)) {
        return Err(ProcfileErrorKind::Duplicate { name: name.into(), first: first.line });
    }
    Ok(ProcessType { name: name.into(), command: command.into() })
}

/// The argument vector that runs the command of a process type: `/bin/sh -c "exec COMMAND"`. The shell expands variables
/// and is then replaced by the program, so that the program receives signals and its exit code is that of the
/// container. A command that needs the shell to stay (`a && b`, `A=1 b`, `cd x; b`) is passed to it unchanged.
pub fn argv(command: &str) -> Vec<String> {
    let line = if is_simple(command) { format!("exec {command}") } else { command.to_owned() };
    vec!["/bin/sh".to_owned(), "-c".to_owned(), line]
}

/// Whether a command is a single program that `exec` can run.
fn is_simple(command: &str) -> bool {
    /// Built-in commands and reserved words, which are not programs or change the state of the shell.
    const NOT_PROGRAMS: [&str; 21] = [
        "!", ".", ":", "case", "cd", "eval", "exec", "exit", "export", "for", "if", "set", "source", "trap",
        "ulimit", "umask", "unset", "until", "wait", "while", "{",
    ];
    let first = command.split_whitespace().next().unwrap_or_default();
    let assignment = first.contains('=');
    !command.contains(['&', '|', ';', '(', ')', '<', '>', '`', '\n'])
        && !assignment
        && !NOT_PROGRAMS.contains(&first)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[test]
    fn procfiles() {
        let check = |text: &str, expect: Expect| {
            let shown: Vec<String> = match parse(text) {
                Ok(all) => all
                    .iter()
                    .map(|d| format!("{}:{} {}={}", d.line, d.column, d.process.name, d.process.command))
                    .collect(),
                Err(errors) => errors.iter().map(|e| format!("{}:{} {e}", e.line, e.column)).collect(),
            };
            expect.assert_eq(&shown.join("\n"));
        };
        check(
            "\u{feff}# types\nweb: python3 app.py --port $PORT\r\n\n  worker :  sh -c 'a: b'\n",
            expect![[r#"
                2:1 web=python3 app.py --port $PORT
                4:3 worker=sh -c 'a: b'"#]],
        );
        check(
            "web python3\nw b: x\n: y\nok: z\nOK: z\n\tlast:",
            expect![[r#"
                1:1 the line is not a process type and its command: write TYPE: COMMAND, such as web: python3 app.py
                2:1 "w b" is not a valid process type: use letters, digits, - and _
                3:1 "" is not a valid process type: use letters, digits, - and _
                5:1 process type OK is already defined in line 4
                6:2 process type last has no command: write last: COMMAND"#]],
        );
        check(
            "# nothing",
            expect!["1:1 the file defines no process type: write for example web: python3 app.py"],
        );
    }

    #[test]
    fn commands() {
        for (command, line) in [
            ("python3 app.py --port $PORT", "exec python3 app.py --port $PORT"),
            ("bin/x --a=b", "exec bin/x --a=b"),
            ("exec redis-server", "exec redis-server"),
            ("A=1 python3 app.py", "A=1 python3 app.py"),
            ("cd x && ./run", "cd x && ./run"),
            ("cat <in >out", "cat <in >out"),
            ("echo $(date)", "echo $(date)"),
            ("source env", "source env"),
            ("! true", "! true"),
        ] {
            assert_eq!(argv(command), ["/bin/sh", "-c", line], "{command}");
        }
    }
}
