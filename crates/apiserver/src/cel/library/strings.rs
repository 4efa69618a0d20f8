//! Functions of text.

use crate::cel::cost::{Grows, Meter, Price};
use crate::cel::error::EvalError;
use crate::cel::functions::Row;
use crate::cel::library::format::format_text;
use crate::cel::value::{Outcome, Value};

const WALK: Price = Price::Walk { argument: 0, times: 1 };
const TWICE: Price = Price::Walk { argument: 0, times: 2 };

pub const FUNCTIONS: &[Row] = &[
    Row("contains", "string.(string) bool", Price::Product, Grows::Type, |_, args| {
        let (text, part) = two(args)?;
        Ok(Value::Bool(text.contains(part)))
    }),
    Row(
        "startsWith",
        "string.(string) bool",
        Price::Walk { argument: 1, times: 1 },
        Grows::Type,
        |_, args| {
            let (text, part) = two(args)?;
            Ok(Value::Bool(text.starts_with(part)))
        },
    ),
    Row("endsWith", "string.(string) bool", Price::Walk { argument: 1, times: 1 }, Grows::Type, |_, args| {
        let (text, part) = two(args)?;
        Ok(Value::Bool(text.ends_with(part)))
    }),
    Row("charAt", "string.(int) string", Price::Fixed(1), Grows::Type, char_at),
    Row("lowerAscii", "string.() string", WALK, Grows::Same, |_, args| {
        Ok(Value::made(text(args, 0)?.to_ascii_lowercase()))
    }),
    Row("upperAscii", "string.() string", WALK, Grows::Same, |_, args| {
        Ok(Value::made(text(args, 0)?.to_ascii_uppercase()))
    }),
    Row("trim", "string.() string", WALK, Grows::Same, |_, args| Ok(Value::made(text(args, 0)?.trim()))),
    Row(
        "replace",
        "string.(string, string) string; string.(string, string, int) string",
        TWICE,
        Grows::Replaced,
        replace,
    ),
    Row(
        "split",
        "string.(string) list<string>; string.(string, int) list<string>",
        TWICE,
        Grows::Parts,
        split,
    ),
    Row("substring", "string.(int) string; string.(int, int) string", WALK, Grows::Same, substring),
    Row("join", "list<string>.() string; list<string>.(string) string", Price::Metered, Grows::Joined, join),
    Row("strings.quote", "(string) string", WALK, Grows::Quoted, |_, args| {
        Ok(Value::made(quote(text(args, 0)?)))
    }),
];

/// Apart, because it reaches into all other libraries.
pub const FORMAT: &[Row] =
    &[Row("format", "string.(list<dyn>) string", Price::Metered, Grows::Type, format_text)];

/// An argument that is a text.
pub fn text<'v>(args: &'v [Value], index: usize) -> Result<&'v str, EvalError> {
    args.get(index).and_then(Value::as_str).ok_or(EvalError::NoSuchOverload)
}

/// Two arguments that are texts.
pub fn two<'v>(args: &'v [Value]) -> Result<(&'v str, &'v str), EvalError> {
    Ok((text(args, 0)?, text(args, 1)?))
}

/// An argument that is a whole number; a default where it is not given.
pub fn int(args: &[Value], index: usize, default: i64) -> Result<i64, EvalError> {
    match args.get(index) {
        None => Ok(default),
        Some(Value::Int(n)) => Ok(*n),
        Some(_) => Err(EvalError::NoSuchOverload),
    }
}

fn out_of_range(index: i64) -> EvalError {
    EvalError::Failed(format!("index out of range: {index}"))
}

/// The byte at which a character begins, or the end; `None` beyond it.
fn offset(text: &str, characters: i64) -> Option<usize> {
    let characters = usize::try_from(characters).ok()?;
    if text.is_ascii() {
        return Some(characters).filter(|n| *n <= text.len());
    }
    let ends = text.char_indices().map(|(offset, _)| offset).chain([text.len()]);
    ends.into_iter().nth(characters)
}

fn char_at<'a>(_: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, index) = (text(args, 0)?, int(args, 1, 0)?);
    let at = offset(text, index).ok_or_else(|| out_of_range(index))?;
    Ok(Value::made(text[at..].chars().next().map(String::from).unwrap_or_default()))
}

/// The position of a part in characters: the first from `args[2]` on, or the last up to there.
pub fn index_of<'a>(args: &[Value<'a>], is_last: bool) -> Outcome<'a> {
    let (text, part) = two(args)?;
    let from = match args.get(2) {
        None => {
            if is_last {
                text.len()
            } else {
                0
            }
        }
        Some(_) => {
            let from = int(args, 2, 0)?;
            offset(text, from).ok_or_else(|| out_of_range(from))?
        }
    };
    let found = match is_last {
        true => text[..(from + part.len()).min(text.len())].rfind(part),
        false => text[from..].find(part).map(|at| at + from),
    };
    Ok(Value::Int(found.map_or(-1, |at| text[..at].chars().count() as i64)))
}

fn replace<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, what) = two(args)?;
    let with = self::text(args, 2)?;
    let count = usize::try_from(int(args, 3, -1)?).unwrap_or(usize::MAX);
    // What is made is paid for before it is made.
    if with.len() > what.len() {
        let found = text.matches(what).take(count).count();
        meter.charge_bytes(found.saturating_mul(with.len()))?;
    }
    Ok(Value::made(text.replacen(what, with, count)))
}

fn split<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, by) = two(args)?;
    let count = match int(args, 2, -1)? {
        0 => return Ok(Value::list(Vec::new())),
        count => usize::try_from(count).unwrap_or(usize::MAX),
    };
    let parts: Vec<&str> = if by.is_empty() {
        let ends: Vec<usize> = text.char_indices().map(|(offset, _)| offset).take(count).collect();
        let next = ends.iter().skip(1).copied().chain([text.len()]);
        ends.iter().zip(next).map(|(from, to)| &text[*from..to]).collect()
    } else {
        text.splitn(count, by).collect()
    };
    meter.charge(parts.len() as u64)?;
    Ok(Value::list(parts.into_iter().map(Value::made).collect()))
}

fn substring<'a>(_: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    let (text, from) = (text(args, 0)?, int(args, 1, 0)?);
    let start = offset(text, from).ok_or_else(|| out_of_range(from))?;
    let end = match args.get(2) {
        None => text.len(),
        Some(_) => {
            let to = int(args, 2, 0)?;
            if to < from {
                return Err(EvalError::Failed(format!("invalid substring range. start: {from}, end: {to}")));
            }
            offset(text, to).ok_or_else(|| out_of_range(to))?
        }
    };
    Ok(Value::made(&text[start..end]))
}

fn join<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    let Value::List(list) = &args[0] else { return Err(EvalError::NoSuchOverload) };
    let between = if args.len() > 1 { text(args, 1)? } else { "" };
    let mut joined = String::new();
    for (index, item) in list.iter().enumerate() {
        let item = item?;
        let item = item.as_str().ok_or(EvalError::NoSuchOverload)?;
        // Once for reading, once for writing.
        meter.charge(1 + (item.len() + between.len()) as u64 / 5)?;
        if index > 0 {
            joined.push_str(between);
        }
        joined.push_str(item);
    }
    Ok(Value::made(joined))
}

/// The text as a literal of the language, in double quotes.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x0b' => quoted.push_str("\\v"),
            '"' | '\\' => quoted.extend(['\\', c]),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
