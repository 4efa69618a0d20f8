//! Parses a script of `sh -c` if it is a list of simple commands: `docker kill web; exec docker run ...`.
//!
//! Scripts that need a shell (loops, pipes, `$(command)`) are not parsed; the caller leaves them to a shell.

use super::text::{Fact, Piece, Variables, Word, is_name};

/// A simple command: its words.
pub type Simple = Vec<Word>;

/// The commands of `script`, joined by any operator; `None` unless it is a list of simple commands.
///
/// With `pipes`, a pipe counts as a list too, which is sufficient to inspect commands but not to run them.
pub fn commands(script: &str, variables: &Variables, pipes: bool) -> Option<Vec<Simple>> {
    let script = script.trim();
    // `echo $(command)` prints the output of the command, which is in the log anyway.
    if let Some(inner) = script.strip_prefix("echo").map(str::trim_start)
        && let Some(inner) = inner.strip_prefix("$(").and_then(|i| i.strip_suffix(')'))
        && !inner.contains(['(', ')'])
    {
        return commands(inner, variables, pipes);
    }
    let mut reader = Reader {
        chars: script.chars().collect(),
        at: 0,
        variables: variables.clone(),
        pipes,
        word: None,
        words: Vec::new(),
        commands: Vec::new(),
        redirected: false,
    };
    reader.read()?;
    Some(reader.commands)
}

struct Reader {
    chars: Vec<char>,
    at: usize,
    variables: Variables,
    pipes: bool,
    word: Option<Word>,
    words: Simple,
    commands: Vec<Simple>,
    /// Whether the next word is the target of a redirection.
    redirected: bool,
}

/// Reserved words, which start compound commands.
const KEYWORDS: [&str; 17] = [
    "if", "then", "else", "elif", "fi", "for", "while", "until", "do", "done", "case", "esac", "function",
    "{", "}", "!", "trap",
];

impl Reader {
    fn next(&mut self) -> Option<char> {
        let c = self.chars.get(self.at).copied();
        self.at += usize::from(c.is_some());
        c
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn taken(&mut self, c: char) -> bool {
        let is = self.peek() == Some(c);
        self.at += usize::from(is);
        is
    }

    fn read(&mut self) -> Option<()> {
        while let Some(c) = self.next() {
            match c {
                ' ' | '\t' | '\r' => self.end_word()?,
                ';' | '\n' => self.end_command()?,
                '&' if self.taken('&') => self.end_command()?,
                '|' if self.taken('|') => self.end_command()?,
                '|' if self.pipes => self.end_command()?,
                '&' | '|' | '(' | ')' | '`' if c != '`' => return None,
                '#' if self.word.is_none() => {
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.at += 1;
                    }
                }
                '>' | '<' => self.redirection()?,
                '\'' => {
                    self.push("");
                    loop {
                        match self.next()? {
                            '\'' => break,
                            c => self.push(c.encode_utf8(&mut [0; 4])),
                        }
                    }
                }
                '"' => self.quoted()?,
                '\\' => match self.next() {
                    Some('\n') | None => {}
                    Some(c) => self.push(c.encode_utf8(&mut [0; 4])),
                },
                '$' | '`' => self.dollar(c, false)?,
                c => self.push(c.encode_utf8(&mut [0; 4])),
            }
        }
        self.end_command()
    }

    fn quoted(&mut self) -> Option<()> {
        self.push("");
        loop {
            match self.next()? {
                '"' => return Some(()),
                '\\' => match self.next()? {
                    c @ ('"' | '\\' | '$' | '`') => self.push(c.encode_utf8(&mut [0; 4])),
                    '\n' => {}
                    c => self.push(&format!("\\{c}")),
                },
                c @ ('$' | '`') => self.dollar(c, true)?,
                c => self.push(c.encode_utf8(&mut [0; 4])),
            }
        }
    }

    /// Parses and drops redirections of output (`2>&1`, `>/dev/null`), since output goes to the log. Redirected input needs
    /// a shell.
    fn redirection(&mut self) -> Option<()> {
        let before = self.chars.get(self.at.wrapping_sub(2)).copied();
        if self.chars[self.at - 1] == '<' {
            return None;
        }
        // The number of the redirected stream is not a word.
        if before.is_some_and(|c| c.is_ascii_digit())
            && self.word.as_ref().is_some_and(|w| w.lossy().len() == 1)
        {
            self.word = None;
        }
        self.end_word()?;
        let _ = self.taken('>');
        let _ = self.taken('&');
        self.redirected = true;
        Some(())
    }

    /// Expands `$NAME`, `${NAME}`, `${NAME:-default}` and `$(command)` for the few commands whose output is known.
    fn dollar(&mut self, c: char, quoted: bool) -> Option<()> {
        let rest: String = self.chars[self.at..].iter().collect();
        if c == '`' || rest.starts_with('(') {
            let (inner, length) = if c == '`' {
                let inner = rest.split_once('`')?.0;
                (inner, inner.chars().count() + 1)
            } else {
                let inner = rest[1..].split_once(')')?.0;
                (inner, inner.chars().count() + 2)
            };
            let fact = match inner.trim() {
                "hostname" | "/bin/hostname" | "/usr/bin/hostname" | "hostname -s" | "hostname -f"
                | "uname -n" => Fact::HostName,
                "cat /etc/machine-id" => Fact::MachineId,
                _ if inner.contains(['(', ')']) => return None,
                // Where commands are only inspected, a substituted command counts too.
                command => {
                    if self.pipes {
                        self.commands.extend(commands(command, &self.variables, true)?);
                    }
                    Fact::Output(command.into())
                }
            };
            self.at += length;
            self.word.get_or_insert_default().0.push(Piece::Node(fact));
            return Some(());
        }
        let (name, default) = if let Some(inner) = rest.strip_prefix('{') {
            let inner = inner.split_once('}')?.0;
            self.at += inner.chars().count() + 2;
            let (name, default) = inner.split_once(":-").unwrap_or((inner, ""));
            (name.to_string(), default.to_string())
        } else {
            let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            self.at += name.len();
            if name.is_empty() {
                // A dollar sign before a blank is literal; `$?`, `$@` and others need a shell.
                let alone = rest.starts_with([' ', '"', '\'']) || rest.is_empty();
                return alone.then(|| self.push("$"));
            }
            (name, String::new())
        };
        if !is_name(&name) || default.contains(['$', '`']) {
            return None;
        }
        let value = if name == "HOSTNAME" {
            Word(vec![Piece::Node(Fact::HostName)])
        } else {
            self.variables.get(&name)
        };
        let value = if value.0.is_empty() && !default.is_empty() { Word::of(&default) } else { value };
        self.value(value, quoted)
    }

    /// Appends the value of a variable, which is split into words outside of quotes.
    fn value(&mut self, value: Word, quoted: bool) -> Option<()> {
        match value.known().filter(|_| !quoted) {
            Some(text) => {
                for (i, piece) in text.split_whitespace().enumerate() {
                    if i > 0 {
                        self.end_word()?;
                    }
                    self.push(piece);
                }
            }
            None => {
                let word = self.word.get_or_insert_default();
                word.0.extend(value.0);
            }
        }
        Some(())
    }

    fn push(&mut self, text: &str) {
        let word = self.word.get_or_insert_default();
        match word.0.last_mut() {
            Some(Piece::Known(known)) => known.push_str(text),
            _ => word.0.push(Piece::Known(text.into())),
        }
    }

    fn end_word(&mut self) -> Option<()> {
        let Some(word) = self.word.take() else { return Some(()) };
        if std::mem::take(&mut self.redirected) {
            return Some(());
        }
        // An assignment before a command.
        if self.words.is_empty()
            && let Some(Piece::Known(first)) = word.0.first()
            && let Some((name, value)) = first.split_once('=').filter(|(name, _)| is_name(name))
        {
            let mut parts = vec![Piece::Known(value.to_string())];
            parts.extend(word.0[1..].iter().cloned());
            self.variables.known.insert(name.into(), Word(parts));
            return Some(());
        }
        self.words.push(word);
        Some(())
    }

    fn end_command(&mut self) -> Option<()> {
        self.end_word()?;
        self.redirected = false;
        let words = std::mem::take(&mut self.words);
        let Some(first) = words.first().and_then(Word::known) else { return words.is_empty().then_some(()) };
        match first.as_str() {
            keyword if KEYWORDS.contains(&keyword) => return None,
            "." | "source" => self.variables.files = true,
            "export" => {
                for word in &words[1..] {
                    let text = word.known()?;
                    let (name, value) = text.split_once('=')?;
                    self.variables.known.insert(name.into(), Word::of(value));
                }
            }
            _ => self.commands.push(words),
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_that_are_lists_of_commands() {
        let known = [("NAME", "web"), ("FLAGS", "-a -b")].map(|(k, v)| (k.to_string(), Word::of(v)));
        let check = |script: &str, expect: Option<&str>| {
            let variables = Variables { known: known.clone().into(), files: false };
            let commands = commands(script, &variables, false);
            let shown = commands.map(|c| {
                let lines: Vec<String> = c
                    .iter()
                    .map(|words| words.iter().map(|w| format!("[{}]", w.kubernetes())).collect())
                    .collect();
                lines.join(" ")
            });
            assert_eq!(shown.as_deref(), expect, "{script}");
        };
        check("exec docker run x", Some("[exec][docker][run][x]"));
        check(
            "docker kill a; docker rm a && docker run a || true",
            Some("[docker][kill][a] [docker][rm][a] [docker][run][a] [true]"),
        );
        check(
            "docker inspect x >/dev/null 2>&1 || docker run -v /d x",
            Some("[docker][inspect][x] [docker][run][-v][/d][x]"),
        );
        check(
            "docker run $FLAGS \"$FLAGS\" ${NAME}x '$NAME' \"a\\\"b\" c\\ d",
            Some("[docker][run][-a][-b][-a -b][webx][$NAME][a\"b][c d]"),
        );
        check("TAG=v1; docker run x:$TAG ${OTHER:-none} \"\"", Some("[docker][run][x:v1][none][]"));
        check(
            "docker run -h $(hostname) -e H=`hostname` $HOSTNAME",
            Some("[docker][run][-h][$(UNIT_HOST_NAME)][-e][H=$(UNIT_HOST_NAME)][$(UNIT_HOST_NAME)]"),
        );
        check(
            ". /etc/environment; docker run -e IP=$COREOS_IP x",
            Some("[docker][run][-e][IP=$(COREOS_IP)][x]"),
        );
        check("echo $(docker run x)", Some("[docker][run][x]"));
        check(
            "docker run --dns $(ip a | tail -n 1) `cat x`",
            Some("[docker][run][--dns][$(UNIT_OUTPUT)][$(UNIT_OUTPUT)]"),
        );
        check("docker run x # a comment\n true", Some("[docker][run][x] [true]"));
        check("", Some(""));
        for shell in [
            "while true; do echo hi; done",
            "docker run $(cat $(ls))",
            "docker ps | xargs docker rm",
            "(docker run x)",
            "docker run x &",
            "docker run x < file",
            "docker run 'x",
            "if true; then docker run x; fi",
            "docker run $@",
            "docker run \"${A%%b}\"",
            "echo \\",
            "\"",
            "$",
            "${",
        ] {
            if !["echo \\", "$"].contains(&shell) {
                check(shell, None);
            }
            let _ = commands(shell, &Variables::default(), true);
        }
    }
}
