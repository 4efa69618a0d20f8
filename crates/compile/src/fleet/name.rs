//! Names of units: `redis@1.service` is the instance `1` of the template `redis@.service`.

use yado_types::names;

/// Unit types that fleet accepts.
pub const KINDS: [&str; 8] = ["service", "socket", "timer", "path", "device", "mount", "automount", "target"];

/// Leaves room for the suffix of Pod names, up to 17 characters, and for `-public`.
const MAX_OBJECT_NAME: usize = 40;

/// A unit's name and its parts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnitName {
    full: String,
}

impl UnitName {
    /// Parses a unit name: the base name of `text`, with `.service` added if it has no type, as in fleetctl.
    ///
    /// # Errors
    ///
    /// A sentence, if `text` is not a valid unit name.
    pub fn new(text: &str) -> Result<Self, String> {
        let base = text.rsplit('/').next().unwrap_or(text);
        let known = KINDS.iter().any(|k| base.strip_suffix(k).is_some_and(|rest| rest.ends_with('.')));
        let full = if known { base.to_string() } else { format!("{base}.service") };
        let name = UnitName { full };
        let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        if name.prefix().is_empty() || !name.full.chars().all(allowed) {
            return Err(format!(
                "\"{text}\" is not a valid unit name: use letters, digits and :-_.\\@, as in web.service or web@1.service"
            ));
        }
        if name.full.len() > 256 {
            return Err(format!(
                "\"{text}\" is too long for the name of a unit, which has at most 256 characters"
            ));
        }
        Ok(name)
    }

    /// `redis@1.service`; specifier `%n`.
    pub fn full(&self) -> &str {
        &self.full
    }

    /// `redis@1`; specifier `%N`.
    pub fn stem(&self) -> &str {
        self.full.rsplit_once('.').map_or(&self.full, |(stem, _)| stem)
    }

    /// `service`, `timer`, ...
    pub fn kind(&self) -> &str {
        self.full.rsplit_once('.').map_or("", |(_, kind)| kind)
    }

    /// `redis`; specifier `%p`.
    pub fn prefix(&self) -> &str {
        self.stem().split_once('@').map_or(self.stem(), |(prefix, _)| prefix)
    }

    /// `1`; specifier `%i`; empty for a template and for a unit that is not an instance.
    pub fn instance(&self) -> &str {
        self.stem().split_once('@').map_or("", |(_, instance)| instance)
    }

    /// Whether it is a template such as `redis@.service`, which runs only as instances.
    pub fn is_template(&self) -> bool {
        self.stem().ends_with('@') && self.instance().is_empty()
    }

    /// The template of an instance.
    pub fn template(&self) -> Option<UnitName> {
        let instance = !self.instance().is_empty();
        instance.then(|| UnitName { full: format!("{}@.{}", self.prefix(), self.kind()) })
    }

    /// The name of the unit's objects, a DNS label. Different units may have the same one, see [`Self::long_object`].
    pub fn object(&self) -> String {
        let stem = self.stem();
        let service = self.kind() == "service";
        let text = if service { stem.to_string() } else { format!("{stem}-{}", self.kind()) };
        let label = label(&text);
        if label.len() <= MAX_OBJECT_NAME { label } else { self.long_object() }
    }

    /// A unique name of the unit's objects, which ends with a hash of the unit name.
    pub fn long_object(&self) -> String {
        let hash = fnv(&self.full);
        let mut label = label(self.stem());
        label.truncate(MAX_OBJECT_NAME - 9);
        format!("{}-{hash:08x}", label.trim_end_matches('-'))
    }
}

impl std::fmt::Display for UnitName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.full)
    }
}

/// Converts `text` to a DNS label that is a valid Service name and so starts with a letter.
pub fn label(text: &str) -> String {
    let replaced = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let mut label = String::new();
    for c in text.chars().map(replaced) {
        if c != '-' || !label.ends_with('-') {
            label.push(c);
        }
    }
    label.truncate(63);
    let label = label.trim_matches('-');
    if label.is_empty() {
        return "unit".into();
    }
    if names::dns_1035_label(label).is_ok() { label.into() } else { format!("u-{label}") }
}

/// FNV-1a hash, sufficient to distinguish names; it does not have to resist an attacker.
fn fnv(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Whether `pattern`, as fleet's `Conflicts` takes it, matches `name`: `*`, `?`, `[a-c]`, `[^a]`, `\` before a character.
///
/// # Errors
///
/// The pattern is malformed.
pub fn glob(pattern: &str, name: &str) -> Result<bool, &'static str> {
    let pattern: Vec<Token> = tokens(pattern)?;
    let name: Vec<char> = name.chars().collect();
    // The set of pattern positions reachable by the name so far: without backtracking, so the time is bounded.
    let mut states = vec![false; pattern.len() + 1];
    states[0] = true;
    skip_stars(&pattern, &mut states);
    for c in name {
        let mut next = vec![false; pattern.len() + 1];
        for (at, token) in pattern.iter().enumerate().filter(|(at, _)| states[*at]) {
            match token {
                Token::Star => next[at] = true,
                Token::One(matches) => next[at + 1] |= matches.contains(c),
            }
        }
        skip_stars(&pattern, &mut next);
        states = next;
    }
    Ok(states[pattern.len()])
}

/// A star may match nothing.
fn skip_stars(pattern: &[Token], states: &mut [bool]) {
    for (at, token) in pattern.iter().enumerate() {
        if states[at] && matches!(token, Token::Star) {
            states[at + 1] = true;
        }
    }
}

enum Token {
    Star,
    One(Class),
}

struct Class {
    ranges: Vec<(char, char)>,
    negated: bool,
}

impl Class {
    fn contains(&self, c: char) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&c)) != self.negated
    }
}

fn tokens(pattern: &str) -> Result<Vec<Token>, &'static str> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        let ranges = match c {
            '*' => {
                tokens.push(Token::Star);
                continue;
            }
            '?' => Class { ranges: Vec::new(), negated: true },
            '\\' => {
                let c = chars.next().ok_or("ends in a backslash")?;
                Class { ranges: vec![(c, c)], negated: false }
            }
            '[' => {
                let negated = chars.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                loop {
                    match chars.next().ok_or("has a [ without its ]")? {
                        ']' if !ranges.is_empty() => break,
                        ']' => return Err("has an empty []"),
                        '\\' => ranges.extend(chars.next().map(|c| (c, c))),
                        first if chars.next_if_eq(&'-').is_some() => {
                            let last =
                                chars.next().filter(|c| *c != ']').ok_or("has a range without its end")?;
                            ranges.push((first, last));
                        }
                        one => ranges.push((one, one)),
                    }
                }
                Class { ranges, negated }
            }
            c => Class { ranges: vec![(c, c)], negated: false },
        };
        tokens.push(Token::One(ranges));
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c05_names_of_templates_and_instances() {
        let check = |text: &str, expect: &str| {
            let shown = match UnitName::new(text) {
                Ok(n) => {
                    let template = n.template().map(|t| t.full).unwrap_or_default();
                    format!(
                        "{} {} {} [{}] {template} {}",
                        n.full(),
                        n.stem(),
                        n.prefix(),
                        n.instance(),
                        n.object()
                    )
                }
                Err(mistake) => mistake,
            };
            assert_eq!(shown, expect);
        };
        check("units/web", "web.service web web []  web");
        check("web@1.service", "web@1.service web@1 web [1] web@.service web-1");
        check("web@a@b.service", "web@a@b.service web@a@b web [a@b] web@.service web-a-b");
        check("kappa-test@.service", "kappa-test@.service kappa-test@ kappa-test []  kappa-test");
        check("My_App.1.service", "My_App.1.service My_App.1 My_App.1 []  my-app-1");
        check("backup.timer", "backup.timer backup backup []  backup-timer");
        check("0.service", "0.service 0 0 []  u-0");
        check("dyno.app-1.2", "dyno.app-1.2.service dyno.app-1.2 dyno.app-1.2 []  dyno-app-1-2");
        let long = "a-name-that-is-too-long-for-what-the-pods-of-a-deployment-are-called";
        check(long, &format!("{long}.service {long} {long} []  a-name-that-is-too-long-for-wha-13c2592f"));
        for broken in ["", ".service", "a b.service", "@1.service", "ü.service"] {
            assert!(UnitName::new(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn c06_globs() {
        let check = |pattern: &str, name: &str, expect: bool| {
            assert_eq!(glob(pattern, name), Ok(expect), "{pattern} {name}");
        };
        check("apache.*.service", "apache.1.service", true);
        check("apache.*.service", "apache.service", false);
        check("apache@*", "apache@1.service", true);
        check("*", "", true);
        check("a?c", "abc", true);
        check("a?c", "ac", false);
        check("web@[1-3].service", "web@2.service", true);
        check("web@[^1-3].service", "web@2.service", false);
        check("a\\*b", "a*b", true);
        check("a\\*b", "axb", false);
        // What makes a naive matcher take forever.
        check(&"*a".repeat(500), &"a".repeat(400), false);
        for broken in ["a[", "a[]", "a[1-]", "a\\"] {
            assert!(glob(broken, "a").is_err(), "{broken}");
        }
    }
}
