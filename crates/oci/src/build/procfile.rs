//! `Procfile` and `Aptfile`, by Heroku's conventions.

use crate::image::{ImageError, Result};

/// A line of a Procfile.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessType {
    /// `web`, `worker`.
    pub name: String,
    /// The command as written.
    pub command: String,
}

fn wrong<T>(file: &str, line: usize, reason: impl Into<String>) -> Result<T> {
    Err(ImageError::BuildFile { file: file.to_owned(), line, reason: reason.into() })
}

/// Reads a Procfile: `NAME: COMMAND` lines; empty lines and lines that begin with `#` are skipped. `file` is what to
/// call it in errors.
///
/// # Errors
/// With the line, where one is something else, a name occurs twice, or there is none at all.
pub fn parse_procfile(file: &str, text: &str) -> Result<Vec<ProcessType>> {
    let mut types: Vec<ProcessType> = Vec::new();
    for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, command)) = line.split_once(':') else {
            return wrong(
                file,
                number,
                "a process type is written `NAME: COMMAND`, such as `web: python3 app.py`",
            );
        };
        let (name, command) = (name.trim(), command.trim());
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')) {
            return wrong(file, number, format!("`{name}` is not a name of letters, digits, `-` and `_`"));
        }
        if command.is_empty() {
            return wrong(
                file,
                number,
                format!("the process type `{name}` has no command; write one after the colon"),
            );
        }
        if types.iter().any(|t| t.name == name) {
            return wrong(file, number, format!("the process type `{name}` is there twice; remove one"));
        }
        types.push(ProcessType { name: name.to_owned(), command: command.to_owned() });
    }
    if types.is_empty() {
        return wrong(file, 1, "it names no process type; add a line such as `web: python3 app.py`");
    }
    Ok(types)
}

/// Reads an Aptfile: Debian packages, one on a line or several with blanks between, as `apt-get install` takes them
/// (`redis-server`, `redis-server=5:7.0.15-1`). `#` begins a comment. `file` is what to call it in errors.
///
/// # Errors
/// With the line, for further repositories, packages by address, and what is no package name.
pub fn parse_aptfile(file: &str, text: &str) -> Result<Vec<String>> {
    let mut packages: Vec<String> = Vec::new();
    for (number, line) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.starts_with(":repo:") {
            let reason =
                "`:repo:` is not supported; add the repository to this machine's own package sources";
            return wrong(file, number, reason);
        }
        for word in line.split_whitespace() {
            if word.contains("://") || word.ends_with(".deb") {
                let reason =
                    format!("`{word}` is the address of a package; name a package of the machine's package sources");
                return wrong(file, number, reason);
            }
            if !is_package(word) {
                return wrong(file, number, format!("`{word}` is not the name of a Debian package"));
            }
            if !packages.iter().any(|p| p == word) {
                packages.push(word.to_owned());
            }
        }
    }
    Ok(packages)
}

/// `NAME[:ARCH][=VERSION]` by Debian's rules. Nothing that `apt-get` could take for an option or a pattern.
pub(super) fn is_package(word: &str) -> bool {
    let (name, version) = word.split_once('=').map_or((word, None), |(n, v)| (n, Some(v)));
    let (name, arch) = name.split_once(':').map_or((name, None), |(n, a)| (n, Some(a)));
    let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.len() >= 2
        && lower(name.as_bytes()[0])
        && name.bytes().all(|b| lower(b) || matches!(b, b'+' | b'-' | b'.'))
        // `apt-get` reads a last `-` or `+` as "remove" and "install".
        && !name.ends_with('-')
        && arch.is_none_or(|a| !a.is_empty() && a.bytes().all(|b| lower(b) || b == b'-'))
        && version.is_none_or(|v| {
            !v.is_empty() && v.bytes().all(|b| b.is_ascii_alphanumeric() || b".+-:~".contains(&b))
        })
}

/// How a process type's command is run: `/bin/sh -c "exec COMMAND"`, so that the shell expands variables and then
/// gives its place to the program. A command that is more than one program (`a && b`, `A=1 b`, `cd x; b`) cannot be
/// replaced that way and is given to the shell as it is.
pub fn process_command(command: &str) -> Vec<String> {
    let first = command.split_whitespace().next().unwrap_or_default();
    let compound = command.contains(['&', '|', ';', '\n', '`']) || command.starts_with(['(', '{', '!']);
    let built_in = [
        "exec", "cd", "if", "while", "until", "for", "case", "export", "set", "unset", "umask", "ulimit",
        "eval", ".", "source", "trap", "exit", "wait", ":",
    ];
    let assignment = first.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    });
    let simple = !compound && !assignment && !built_in.contains(&first);
    let line = if simple { format!("exec {command}") } else { command.to_owned() };
    vec!["/bin/sh".to_owned(), "-c".to_owned(), line]
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(result: Result<Vec<String>>, expect: Expect) {
        let text = match result {
            Ok(lines) => lines.join("\n"),
            Err(error) => error.to_string(),
        };
        expect.assert_eq(&text);
    }

    #[test]
    fn procfiles() {
        let parse = |text: &str| {
            let types = parse_procfile("Procfile", text)?;
            Ok(types.into_iter().map(|t| format!("{}={}", t.name, t.command)).collect())
        };
        check(
            parse("# types\nweb: python3 app.py --port $PORT\r\n\nworker:  sh -c 'a: b'\n"),
            expect![[r#"
            web=python3 app.py --port $PORT
            worker=sh -c 'a: b'"#]],
        );
        check(
            parse("web python3"),
            expect![
                "Procfile, line 1: a process type is written `NAME: COMMAND`, such as `web: python3 app.py`"
            ],
        );
        check(
            parse("web: a\nweb: b"),
            expect!["Procfile, line 2: the process type `web` is there twice; remove one"],
        );
        check(
            parse("\nweb:\n"),
            expect!["Procfile, line 2: the process type `web` has no command; write one after the colon"],
        );
        check(
            parse("w b: x"),
            expect!["Procfile, line 1: `w b` is not a name of letters, digits, `-` and `_`"],
        );
        check(
            parse("# nothing"),
            expect!["Procfile, line 1: it names no process type; add a line such as `web: python3 app.py`"],
        );
    }

    #[test]
    fn aptfiles() {
        let parse = |text: &str| parse_aptfile("Aptfile", text);
        check(
            parse("# all\npython3-flask\nredis-server=5:7.0.15-1~deb12u5 # pinned\nlibc6:amd64 g++ g++\n"),
            expect![[r#"
            python3-flask
            redis-server=5:7.0.15-1~deb12u5
            libc6:amd64
            g++"#]],
        );
        check(
            parse(":repo:deb http://x y z"),
            expect![
                "Aptfile, line 1: `:repo:` is not supported; add the repository to this machine's own package sources"
            ],
        );
        check(
            parse("a1\nhttp://x.org/a.deb"),
            expect![
                "Aptfile, line 2: `http://x.org/a.deb` is the address of a package; name a package of the machine's package sources"
            ],
        );
        check(
            parse("--allow-unauthenticated"),
            expect!["Aptfile, line 1: `--allow-unauthenticated` is not the name of a Debian package"],
        );
        check(parse("dpkg-"), expect!["Aptfile, line 1: `dpkg-` is not the name of a Debian package"]);
        check(parse(""), expect![""]);
    }

    #[test]
    fn commands() {
        let check = |command: &str, expect: &str| {
            assert_eq!(process_command(command), ["/bin/sh", "-c", expect], "{command}");
        };
        check("python3 app.py --port $PORT", "exec python3 app.py --port $PORT");
        check("exec redis-server", "exec redis-server");
        check("A=1 python3 app.py", "A=1 python3 app.py");
        check("cd x && ./run", "cd x && ./run");
        check("bin/x --a=b", "exec bin/x --a=b");
    }
}
