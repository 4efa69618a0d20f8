//! Regular expressions. Those of the language are RE2's; they are translated into those of the `regex` crate, which
//! matches in linear time, too.

use ::regex::{Regex, RegexBuilder};

use crate::cel::cost::{Grows, Meter, Price};
use crate::cel::error::EvalError;
use crate::cel::functions::Row;
use crate::cel::library::strings::{int, text, two};
use crate::cel::value::{Outcome, Value};

pub const FUNCTIONS: &[Row] = &[
    Row(
        "matches",
        "string.(string) bool; (string, string) bool",
        Price::Regex,
        Grows::Type,
        |meter, args| {
            let (_, pattern) = two(args)?;
            matches(args, &compile_now(meter, args, pattern)?)
        },
    ),
    Row("find", "string.(string) string", Price::Regex, Grows::Same, |meter, args| {
        let (_, pattern) = two(args)?;
        find(args, &compile_now(meter, args, pattern)?)
    }),
    Row(
        "findAll",
        "string.(string) list<string>; string.(string, int) list<string>",
        Price::Regex,
        Grows::Parts,
        |meter, args| {
            let (_, pattern) = two(args)?;
            find_all(args, &compile_now(meter, args, pattern)?)
        },
    ),
];

/// Evaluates a function of this library whose pattern is known when the program is compiled.
pub type Apply = for<'a> fn(&[Value<'a>], &Regex) -> Outcome<'a>;

/// The function of this name for a compiled pattern.
pub fn with_pattern(name: &str) -> Option<Apply> {
    match name {
        "matches" => Some(matches),
        "find" => Some(find),
        "findAll" => Some(find_all),
        _ => None,
    }
}

/// Largest program of a regular expression, in bytes: many times what any real one takes, and compiled in a few
/// milliseconds.
const MAX_PROGRAM: usize = 1 << 18;
/// The same for one that comes from data, which has to be compiled while evaluating.
const MAX_PROGRAM_OF_DATA: usize = 1 << 16;
/// Longest pattern that may come from data, in bytes.
const MAX_PATTERN: usize = 1024;
/// States of a pattern, times bytes of the text, for one unit. In most cases one state is looked at for each byte, in
/// the worst case all are.
const STATES_PER_UNIT: u64 = 500;

/// Compiles a pattern as RE2 reads it.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    build(pattern, MAX_PROGRAM)
}

fn build(pattern: &str, max_program: usize) -> Result<Regex, String> {
    let regex = RegexBuilder::new(&translate(pattern)).size_limit(max_program).build();
    regex.map_err(|e| {
        let text = e.to_string();
        let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("error parsing regexp: {last}: `{pattern}`")
    })
}

fn compile_now(meter: &mut Meter, args: &[Value], pattern: &str) -> Result<Regex, EvalError> {
    if pattern.len() > MAX_PATTERN {
        return Err(EvalError::failed("error parsing regexp: expression too large"));
    }
    charge_states(meter, text(args, 0)?, states(pattern))?;
    meter.regex(pattern, || build(pattern, MAX_PROGRAM_OF_DATA).map_err(EvalError::Failed))
}

/// The price of matching a text that Kubernetes' own price leaves out: repetitions make a short pattern large.
pub fn charge_states(meter: &mut Meter, text: &str, states: u64) -> Result<(), EvalError> {
    meter.charge((text.len() as u64).saturating_mul(states) / STATES_PER_UNIT)
}

/// How many states a pattern has, roughly: characters, as often as they are repeated.
pub fn states(pattern: &str) -> u64 {
    // The states of each open group, those of its last part apart.
    let mut open = vec![(0u64, 0u64)];
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let mut length = c.len_utf8();
        let last = open.len() - 1;
        let (sum, part) = &mut open[last];
        match c {
            '(' => open.push((0, 0)),
            ')' if last > 0 => {
                let inner = sum.saturating_add(*part);
                open.pop();
                let (sum, part) = &mut open[last - 1];
                *sum = sum.saturating_add(*part);
                *part = inner;
            }
            '{' if is_repetition(rest) => {
                let end = rest.find('}').unwrap_or(0);
                let counts = rest[1..end].split(',').filter_map(|count| count.parse::<u64>().ok());
                *part = part.saturating_mul(counts.max().unwrap_or(1).max(1));
                length = end + 1;
            }
            c => {
                if c == '\\' {
                    length += rest[1..].chars().next().map_or(0, char::len_utf8);
                } else if c == '[' {
                    length = rest.find(']').map_or(length, |end| end + 1);
                }
                *sum = sum.saturating_add(*part);
                *part = 1;
            }
        }
        rest = &rest[length..];
    }
    open.into_iter().fold(0, |all, (sum, part)| all.saturating_add(sum).saturating_add(part))
}

fn matches<'a>(args: &[Value<'a>], regex: &Regex) -> Outcome<'a> {
    Ok(Value::Bool(regex.is_match(text(args, 0)?)))
}

fn find<'a>(args: &[Value<'a>], regex: &Regex) -> Outcome<'a> {
    Ok(Value::made(regex.find(text(args, 0)?).map_or("", |found| found.as_str())))
}

fn find_all<'a>(args: &[Value<'a>], regex: &Regex) -> Outcome<'a> {
    let most = usize::try_from(int(args, 2, -1)?).unwrap_or(usize::MAX);
    let found = regex.find_iter(text(args, 0)?).take(most);
    Ok(Value::list(found.map(|found| Value::made(found.as_str())).collect()))
}

/// Differences between RE2 and `regex`: in RE2 `\d`, `\w`, `\s` and `\b` are of ASCII, a brace that begins no repetition
/// and brackets within a class are plain characters, and `\Q...\E` quotes.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let (mut rest, mut in_class) = (pattern, false);
    while let Some(c) = rest.chars().next() {
        let mut length = c.len_utf8();
        match c {
            '\\' => {
                let Some(next) = rest[1..].chars().next() else {
                    out.push('\\');
                    break;
                };
                length += next.len_utf8();
                match next {
                    'Q' => {
                        let quoted = &rest[2..];
                        let end = quoted.find("\\E").unwrap_or(quoted.len());
                        out.push_str(&::regex::escape(&quoted[..end]));
                        length += end + if end < quoted.len() { 2 } else { 0 };
                    }
                    'd' | 'D' | 'w' | 'W' | 's' | 'S' => out.push_str(class(next, in_class)),
                    'b' if !in_class => out.push_str(r"(?-u:\b)"),
                    'B' if !in_class => out.push_str(r"(?-u:\B)"),
                    next => out.extend(['\\', next]),
                }
            }
            '[' if in_class && rest.starts_with("[:") => out.push('['),
            '[' if in_class => out.push_str("\\["),
            '[' => {
                in_class = true;
                out.push('[');
                // A bracket that comes first is one of the characters.
                if rest[1..].starts_with('^') {
                    out.push('^');
                    length += 1;
                }
                if rest[length..].starts_with(']') {
                    out.push_str("\\]");
                    length += 1;
                }
            }
            ':' if in_class && rest.starts_with(":]") => {
                out.push_str(":]");
                length += 1;
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            // Pairs of these are operators on classes in `regex`.
            '&' | '~' if in_class => out.extend(['\\', c]),
            '-' if in_class && rest.starts_with("--") => out.push_str("\\-"),
            '{' if !in_class && !is_repetition(rest) => out.push_str("\\{"),
            '}' if !in_class => out.push('}'),
            c => out.push(c),
        }
        rest = &rest[length..];
    }
    out
}

fn class(name: char, in_class: bool) -> &'static str {
    match (name, in_class) {
        ('d', true) => "0-9",
        ('d', false) => "[0-9]",
        ('w', true) => "0-9A-Za-z_",
        ('w', false) => "[0-9A-Za-z_]",
        ('s', true) => r"\t\n\x0C\r\x20",
        ('s', false) => r"[\t\n\x0C\r\x20]",
        ('D', _) => "[^0-9]",
        ('W', _) => "[^0-9A-Za-z_]",
        _ => r"[^\t\n\x0C\r\x20]",
    }
}

/// Whether a text begins with `{n}`, `{n,}` or `{n,m}`.
fn is_repetition(text: &str) -> bool {
    let Some(inner) = text[1..].split_once('}').map(|(inner, _)| inner) else { return false };
    let (least, most) = inner.split_once(',').unwrap_or((inner, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    !least.is_empty() && digits(least) && digits(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_to_re2() {
        let rows = [
            (r"^\d+$", "12", true),
            (r"^\d+$", "१२", false),
            (r"^[\w.-]+$", "a_b.c-d", true),
            (r"^[\w]+$", "é", false),
            (r"^[^\s]+$", "a b", false),
            (r"^[\S]+$", "ab", true),
            (r"^[\W\d]+$", "-1", true),
            (r"\bfoo\b", "a foo b", true),
            (r"^a{2,3}$", "aaa", true),
            (r"^{a}$", "{a}", true),
            (r"^a{,2}$", "a{,2}", true),
            (r"^[[a]+$", "[a[", true),
            (r"^[]a]+$", "]a", true),
            (r"^[^]a]$", "b", true),
            (r"^[a&&b]+$", "&a", true),
            (r"^[[:alpha:]]+$", "ab", true),
            (r"^[[:alpha:]]+$", "a1", false),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.b\E$", "axb", false),
            (r"^\Qa[", "a[", true),
            (r"^\$\{[a-z]+\}$", "${ab}", true),
            (r"(?i)^É$", "é", true),
            (r"^.$", "é", true),
        ];
        for (pattern, text, matches) in rows {
            let regex = compile(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
            assert_eq!(regex.is_match(text), matches, "{pattern} {text} ({})", translate(pattern));
        }
        let rows =
            [("abc", 3), ("[a-z]{1,20}", 20), ("(ab{3}){5}c", 21), ("((a{9}){9}){9}", 729), ("\\\\{2}", 2)];
        for (pattern, expect) in rows {
            assert_eq!(states(pattern), expect, "{pattern}");
        }
        for bad in ["(", "[", "a**b(", "\\", r"\w{1000}{1000}"] {
            assert!(compile(bad).is_err(), "{bad}");
        }
    }
}
