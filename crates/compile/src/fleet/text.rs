//! Words that may contain values known only on the node.

use std::collections::BTreeMap;

use super::name::UnitName;

/// Marks the start of the name of a node value: a private-use character that does not occur in text.
pub const OPEN: &str = "\u{e000}";
/// Marks its end.
pub const CLOSE: &str = "\u{e001}";

/// A value known only on the node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fact {
    /// `%H`
    HostName,
    /// `%m`
    MachineId,
    /// `%b`
    BootId,
    /// `%v`
    Kernel,
    /// A variable of an `EnvironmentFile=`.
    Variable(String),
    /// A variable of an `EnvironmentFile=` that is split into words.
    Words(String),
    /// The output of a command: `$(COMMAND)`.
    Output(String),
}

/// A piece of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Literal text.
    Known(String),
    /// A value known only on the node.
    Node(Fact),
}

/// A word of a command line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Word(pub Vec<Piece>);

impl Word {
    /// A literal word.
    pub fn of(text: &str) -> Self {
        Word(vec![Piece::Known(text.into())])
    }

    /// The text, if it contains no node value.
    pub fn known(&self) -> Option<String> {
        self.0.iter().try_fold(String::new(), |text, part| match part {
            Piece::Known(more) => Some(text + more),
            Piece::Node(_) => None,
        })
    }

    /// The text without node values.
    pub fn lossy(&self) -> String {
        self.0
            .iter()
            .filter_map(|p| if let Piece::Known(text) = p { Some(text.as_str()) } else { None })
            .collect()
    }

    /// The node values in it.
    pub fn facts(&self) -> impl Iterator<Item = &Fact> {
        self.0.iter().filter_map(|p| if let Piece::Node(fact) = p { Some(fact) } else { None })
    }

    /// The word in a container's command, arguments and environment, in which Kubernetes expands `$(NAME)`.
    pub fn kubernetes(&self) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Piece::Known(known) => text.push_str(&literal(known)),
                Piece::Node(fact) => text.push_str(&format!("$({})", fact.variable())),
            }
        }
        text
    }

    /// The word for the parser of Docker commands, which does not know variables: a node value is marked by [`OPEN`] and
    /// [`CLOSE`].
    pub fn docker(&self) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Piece::Known(known) => text.push_str(known),
                Piece::Node(fact) => text.extend([OPEN, fact.variable(), CLOSE]),
            }
        }
        text
    }

    /// The word for a shell, quoted so that only node values are expanded.
    pub fn shell(&self) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Piece::Known(known) => text.push_str(&quoted(known)),
                // The host name of the Pod may differ from that of the node.
                Piece::Node(Fact::HostName) => {
                    text.push_str("\"${UNIT_HOST_NAME:-$(cat /proc/sys/kernel/hostname)}\"");
                }
                Piece::Node(Fact::MachineId) => text.push_str("\"$(cat /etc/machine-id)\""),
                Piece::Node(Fact::BootId) => text.push_str("\"$(tr -d - </proc/sys/kernel/random/boot_id)\""),
                Piece::Node(Fact::Kernel) => text.push_str("\"$(cat /proc/sys/kernel/osrelease)\""),
                Piece::Node(Fact::Variable(name)) => text.push_str(&format!("\"${{{name}}}\"")),
                Piece::Node(Fact::Words(name)) => text.push_str(&format!("${{{name}}}")),
                Piece::Node(Fact::Output(command)) => text.push_str(&format!("\"$({command})\"")),
            }
        }
        if text.is_empty() { "''".into() } else { text }
    }

    fn push(&mut self, more: &str) {
        match self.0.last_mut() {
            Some(Piece::Known(text)) => text.push_str(more),
            _ if more.is_empty() => {}
            _ => self.0.push(Piece::Known(more.into())),
        }
    }
}

impl Fact {
    /// The environment variable that holds the value in a container.
    pub fn variable(&self) -> &str {
        match self {
            Fact::HostName => "UNIT_HOST_NAME",
            Fact::MachineId => "UNIT_MACHINE_ID",
            Fact::BootId => "UNIT_BOOT_ID",
            Fact::Kernel => "UNIT_KERNEL",
            Fact::Variable(name) | Fact::Words(name) => name,
            Fact::Output(_) => "UNIT_OUTPUT",
        }
    }
}

/// Escapes text for fields in which Kubernetes expands `$(NAME)` and `$$`.
pub fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        out.push(c);
        if c == '$' && matches!(chars.peek(), Some('$' | '(')) {
            out.push('$');
        }
    }
    out
}

/// Quotes text as one word of a shell.
pub fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Expands specifiers such as `%i`. Unknown specifiers are kept, as in systemd.
pub fn specifiers(text: &str, unit: &UnitName) -> Word {
    let mut word = Word::default();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            word.push(c.encode_utf8(&mut [0; 4]));
            continue;
        }
        match chars.next() {
            None => word.push("%"),
            Some('%') => word.push("%"),
            Some('n') => word.push(unit.full()),
            Some('N') => word.push(unit.stem()),
            Some('p') => word.push(unit.prefix()),
            Some('P') => word.push(&unescaped(unit.prefix())),
            Some('i') => word.push(unit.instance()),
            Some('I') => word.push(&unescaped(unit.instance())),
            Some('j') => word.push(unit.prefix().rsplit('-').next().unwrap_or_default()),
            Some('J') => word.push(&unescaped(unit.prefix().rsplit('-').next().unwrap_or_default())),
            Some('f') => {
                let of = if unit.instance().is_empty() { unit.prefix() } else { unit.instance() };
                word.push(&format!("/{}", unescaped(of).trim_start_matches('/')));
            }
            Some('t') => word.push("/run"),
            Some('u') => word.push("root"),
            Some('U') => word.push("0"),
            Some('h') => word.push("/root"),
            Some('H') => word.0.push(Piece::Node(Fact::HostName)),
            Some('m') => word.0.push(Piece::Node(Fact::MachineId)),
            Some('b') => word.0.push(Piece::Node(Fact::BootId)),
            Some('v') => word.0.push(Piece::Node(Fact::Kernel)),
            Some(other) => word.push(&format!("%{other}")),
        }
    }
    word
}

/// Reverses systemd's escaping of names: `-` becomes `/`, `\x2d` becomes `-`.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        let number =
            rest.strip_prefix(br"\x").and_then(|r| r.get(..2)).and_then(|r| std::str::from_utf8(r).ok());
        match number.and_then(|n| u8::from_str_radix(n, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(if *byte == b'-' { b'/' } else { *byte });
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The variables of a unit.
#[derive(Debug, Clone, Default)]
pub struct Variables {
    /// Variables of `Environment=`; later ones replace earlier ones.
    pub known: BTreeMap<String, Word>,
    /// Whether environment files on the node may define more variables.
    pub files: bool,
}

impl Variables {
    /// The value of a variable; empty if it is not set.
    pub fn get(&self, name: &str) -> Word {
        match self.known.get(name) {
            Some(value) => value.clone(),
            None if name == "MAINPID" => Word::of("1"),
            None if self.files => Word(vec![Piece::Node(Fact::Variable(name.into()))]),
            None => Word::default(),
        }
    }

    /// Expands `${NAME}` anywhere, and `$NAME` if it is a separate word, which is then split into words.
    pub fn expand(&self, word: Word) -> Vec<Word> {
        if let [Piece::Known(text)] = word.0.as_slice()
            && let Some(name) = text.strip_prefix('$').filter(|n| is_name(n))
        {
            let value = self.get(name);
            return match value.known() {
                Some(text) => super::words::split(&text)
                    .map(|words| words.iter().map(|w| Word::of(&w.text)).collect())
                    .unwrap_or_else(|_| text.split_whitespace().map(Word::of).collect()),
                None if self.known.contains_key(name) => vec![value],
                None => vec![Word(vec![Piece::Node(Fact::Words(name.into()))])],
            };
        }
        let mut out = Word::default();
        for part in word.0 {
            match part {
                Piece::Known(text) => self.braces(&text, &mut out),
                node @ Piece::Node(_) => out.0.push(node),
            }
        }
        vec![out]
    }

    fn braces(&self, text: &str, out: &mut Word) {
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            out.push(&rest[..at]);
            let after = &rest[at + 1..];
            if let Some(after) = after.strip_prefix('$') {
                out.push("$");
                rest = after;
            } else if let Some((name, after)) =
                after.strip_prefix('{').and_then(|a| a.split_once('}')).filter(|(name, _)| is_name(name))
            {
                for part in self.get(name).0 {
                    match part {
                        Piece::Known(text) => out.push(&text),
                        node @ Piece::Node(_) => out.0.push(node),
                    }
                }
                rest = after;
            } else {
                out.push("$");
                rest = after;
            }
        }
        out.push(rest);
    }
}

/// Whether `name` is a valid variable name.
pub fn is_name(name: &str) -> bool {
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    first && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c05_specifiers() {
        let check = |text: &str, unit: &str, expect: &str| {
            let word = specifiers(text, &UnitName::new(unit).unwrap());
            assert_eq!(word.kubernetes(), expect, "{text}");
        };
        check("kappa-test-%i", "kappa-test@1.service", "kappa-test-1");
        check("%n %N %p [%i]", "web@a.service", "web@a.service web@a web [a]");
        check("%n %N %p [%i]", "web.1.service", "web.1.service web.1 web.1 []");
        check("%I %P %f", r"my-app@dev-sda\x2d1.service", "dev/sda-1 my/app /dev/sda-1");
        check("%j %J", "a-b-c.service", "c c");
        check("date +%%Y %{x} %Y %", "a.service", "date +%Y %{x} %Y %");
        check(
            "%H:%m %b %v",
            "a.service",
            "$(UNIT_HOST_NAME):$(UNIT_MACHINE_ID) $(UNIT_BOOT_ID) $(UNIT_KERNEL)",
        );
        check("$(date) $$ $x", "a.service", "$$(date) $$$ $x");
    }

    #[test]
    fn c04_variables() {
        let known =
            [("ONE", "1"), ("TWO", "a 'b c'"), ("NONE", "")].map(|(k, v)| (k.to_string(), Word::of(v)));
        let check = |text: &str, files: bool, expect: &[&str]| {
            let variables = Variables { known: known.clone().into(), files };
            let words: Vec<String> = variables.expand(Word::of(text)).iter().map(Word::kubernetes).collect();
            assert_eq!(words, expect, "{text}");
        };
        check("x${ONE}y${NONE}z", false, &["x1yz"]);
        check("$TWO", false, &["a", "b c"]);
        check("${TWO}", false, &["a 'b c'"]);
        check("echo $ONE", false, &["echo $ONE"]);
        check("$NONE", false, &[]);
        check("$ABSENT", false, &[]);
        check("${ABSENT}", false, &[""]);
        check("${ABSENT}:80", true, &["$(ABSENT):80"]);
        check("$$ONE $${x} ${a-b} $", false, &["$ONE ${x} ${a-b} $"]);
        check("$MAINPID", false, &["1"]);
    }

    #[test]
    fn shells_get_words_whole() {
        let word = Word(vec![Piece::Known("it's $HOME ".into()), Piece::Node(Fact::Variable("IP".into()))]);
        assert_eq!(word.shell(), r#"'it'\''s $HOME '"${IP}""#);
        assert_eq!(Word::default().shell(), "''");
        assert_eq!(Word::of("/usr/bin/env").shell(), "/usr/bin/env");
    }
}
