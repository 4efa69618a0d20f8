//! Resolution of plain scalars by the core schema of YAML 1.2, as in Go's `yaml.v3` and later: they also accept the octal
//! numbers and underscores of YAML 1.1, and treat `yes`, `no`, `on` and `off` as strings.

use super::{Node, Scalar, Tag, Value};

/// A resolved scalar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ScalarMeaning {
    /// Empty, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer.
    Int(i128),
    /// A floating-point number.
    Float(f64),
    /// A string.
    Text,
}

impl Node {
    /// The resolved scalar; `None` for lists and mappings.
    pub fn meaning(&self) -> Option<ScalarMeaning> {
        let Value::Scalar(scalar) = &self.value else { return None };
        Some(match self.tag {
            Some(Tag::Text | Tag::Binary) => ScalarMeaning::Text,
            Some(Tag::Core) => plain(&scalar.text),
            _ => scalar.meaning(),
        })
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        self.meaning() == Some(ScalarMeaning::Null)
    }

    /// A scalar as Go prints its value: `16` for `0x10`, `1.5` for `1.50`, `true` for `TRUE`. `None` for null.
    pub fn printed(&self) -> Option<String> {
        let Value::Scalar(scalar) = &self.value else { return None };
        match self.meaning()? {
            ScalarMeaning::Null => None,
            ScalarMeaning::Bool(b) => Some(b.to_string()),
            ScalarMeaning::Int(i) => Some(i.to_string()),
            ScalarMeaning::Float(f) => Some(go_float(f)),
            ScalarMeaning::Text => Some(scalar.text.clone()),
        }
    }
}

impl Scalar {
    /// The resolved scalar; a quoted scalar is a string.
    pub fn meaning(&self) -> ScalarMeaning {
        if self.plain { plain(&self.text) } else { ScalarMeaning::Text }
    }
}

/// Resolves a plain scalar.
pub fn plain(text: &str) -> ScalarMeaning {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return ScalarMeaning::Null,
        "true" | "True" | "TRUE" => return ScalarMeaning::Bool(true),
        "false" | "False" | "FALSE" => return ScalarMeaning::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return ScalarMeaning::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return ScalarMeaning::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return ScalarMeaning::Float(f64::NAN),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return ScalarMeaning::Text;
    }
    let digits = text.replace('_', "");
    if let Some(int) = integer(&digits) {
        return ScalarMeaning::Int(int);
    }
    if is_float(&digits)
        && let Ok(float) = digits.parse()
    {
        return ScalarMeaning::Float(float);
    }
    ScalarMeaning::Text
}

/// Parses an integer like Go's `ParseInt` with base 0, from -2^63 to 2^64-1.
fn integer(text: &str) -> Option<i128> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = rest.as_bytes().get(..2).map(|p| [p[0], p[1].to_ascii_lowercase()]);
    let (radix, digits) = match lower {
        Some([b'0', b'x']) => (16, &rest[2..]),
        Some([b'0', b'o']) => (8, &rest[2..]),
        Some([b'0', b'b']) => (2, &rest[2..]),
        Some([b'0', _]) => (8, &rest[1..]),
        _ => (10, rest),
    };
    if !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let value = i128::from_str_radix(digits, radix).ok()?;
    let value = if negative { -value } else { value };
    (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&value).then_some(value)
}

/// Digits with at most one point and an exponent.
fn is_float(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (text, None),
    };
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let number_fits = match number.split_once('.') {
        Some((whole, part)) => {
            all_digits(whole) && all_digits(part) && !(whole.is_empty() && part.is_empty())
        }
        None => !number.is_empty() && all_digits(number),
    };
    number_fits && exponent.is_none_or(|e| !e.is_empty() && all_digits(e))
}

/// Formats a number like Go's `%v`: the fewest digits that restore it, with an exponent below 1e-4 and from 1e21 on.
fn go_float(float: f64) -> String {
    if float.is_infinite() {
        return if float > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    if float == 0.0 || float.is_nan() || (1e-4..1e21).contains(&float.abs()) {
        return float.to_string();
    }
    let scientific = format!("{float:e}");
    let (number, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |d| ('-', d));
    format!("{number}e{sign}{digits:0>2}")
}
