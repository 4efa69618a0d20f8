//! Named formats, and text made from a template.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use yado_types::names;

use super::convert::{format_double, to_string};
use super::url::Url;
use crate::cel::cost::{Grows, Meter, Price};
use crate::cel::error::EvalError;
use crate::cel::functions::Row;
use crate::cel::library::strings::text;
use crate::cel::value::{List, Map, OpaqueValue, Outcome, Value};

const ONE: Price = Price::Fixed(1);

pub const FUNCTIONS: &[Row] = &[
    Row("format.dns1123Label", "() format", ONE, Grows::Type, |_, _| Ok(known(0))),
    Row("format.dns1123Subdomain", "() format", ONE, Grows::Type, |_, _| Ok(known(1))),
    Row("format.dns1035Label", "() format", ONE, Grows::Type, |_, _| Ok(known(2))),
    Row("format.qualifiedName", "() format", ONE, Grows::Type, |_, _| Ok(known(3))),
    Row("format.dns1123LabelPrefix", "() format", ONE, Grows::Type, |_, _| Ok(known(4))),
    Row("format.dns1123SubdomainPrefix", "() format", ONE, Grows::Type, |_, _| Ok(known(5))),
    Row("format.dns1035LabelPrefix", "() format", ONE, Grows::Type, |_, _| Ok(known(6))),
    Row("format.labelValue", "() format", ONE, Grows::Type, |_, _| Ok(known(7))),
    Row("format.uri", "() format", ONE, Grows::Type, |_, _| Ok(known(8))),
    Row("format.uuid", "() format", ONE, Grows::Type, |_, _| Ok(known(9))),
    Row("format.byte", "() format", ONE, Grows::Type, |_, _| Ok(known(10))),
    Row("format.date", "() format", ONE, Grows::Type, |_, _| Ok(known(11))),
    Row("format.datetime", "() format", ONE, Grows::Type, |_, _| Ok(known(12))),
    Row("format.named", "(string) optional<format>", ONE, Grows::Type, |_, args| {
        let name = text(args, 0)?;
        let found = FORMATS.iter().position(|format| format.name == name);
        Ok(Value::Optional(found.map(|index| known(index).into())))
    }),
    Row(
        "validate",
        "format.(string) optional<list<string>>",
        // The regular expression of the longest format.
        Price::Walk { argument: 1, times: 32 },
        Grows::Type,
        validate,
    ),
];

/// A format that text may have.
#[derive(Debug)]
pub struct NamedFormat {
    name: &'static str,
    /// Checks a text; the error describes the mistake.
    check: fn(&str) -> Result<(), String>,
}

impl PartialEq for NamedFormat {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

static FORMATS: [NamedFormat; 13] = [
    NamedFormat { name: "dns1123Label", check: names::dns_label },
    NamedFormat { name: "dns1123Subdomain", check: names::dns_subdomain },
    NamedFormat { name: "dns1035Label", check: names::dns_1035_label },
    NamedFormat { name: "qualifiedName", check: names::qualified_name },
    NamedFormat { name: "dns1123LabelPrefix", check: |text| names::dns_label(&prefix(text)) },
    NamedFormat { name: "dns1123SubdomainPrefix", check: |text| names::dns_subdomain(&prefix(text)) },
    NamedFormat { name: "dns1035LabelPrefix", check: |text| names::dns_1035_label(&prefix(text)) },
    NamedFormat { name: "labelValue", check: names::label_value },
    NamedFormat { name: "uri", check: |text| Url::parse(text).map(drop) },
    NamedFormat { name: "uuid", check: |text| right(is_uuid(text), "does not match the UUID format") },
    NamedFormat { name: "byte", check: |text| right(STANDARD.decode(text).is_ok(), "invalid base64") },
    NamedFormat {
        name: "date",
        check: |text| right(text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(), "invalid date"),
    },
    NamedFormat {
        name: "datetime",
        check: |text| right(text.parse::<jiff::Timestamp>().is_ok(), "invalid datetime"),
    },
];

fn known<'a>(index: usize) -> Value<'a> {
    Value::opaque(OpaqueValue::Format(&FORMATS[index]))
}

/// A prefix of a name may end with a dash: something follows.
fn prefix(text: &str) -> String {
    match text.len() > 1 && text.ends_with('-') {
        true => format!("{}a", &text[..text.len() - 1]),
        false => text.to_owned(),
    }
}

fn right(is_right: bool, message: &str) -> Result<(), String> {
    if is_right { Ok(()) } else { Err(message.to_owned()) }
}

fn is_uuid(text: &str) -> bool {
    let is_hex =
        |text: &str, length: usize| text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit());
    let parts: Vec<&str> = text.splitn(6, '-').collect();
    match parts.as_slice() {
        [all] => is_hex(all, 32),
        [a, b, c, d, e] => is_hex(a, 8) && [b, c, d].iter().all(|part| is_hex(part, 4)) && is_hex(e, 12),
        _ => false,
    }
}

fn validate<'a>(_: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    let Some(Value::Opaque(opaque)) = args.first() else { return Err(EvalError::NoSuchOverload) };
    let OpaqueValue::Format(format) = **opaque else { return Err(EvalError::NoSuchOverload) };
    Ok(match (format.check)(text(args, 1)?) {
        Ok(()) => Value::Optional(None),
        Err(wrong) => Value::some(Value::list(vec![Value::made(wrong)])),
    })
}

/// Decimals where none are asked for.
const PRECISION: usize = 6;
/// Most decimals that may be asked for; a double has no more than 1074.
const MAX_PRECISION: usize = 1100;

/// `'%s has %d items'.format([name, count])`.
pub fn format_text<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    let template = text(args, 0)?;
    let Some(Value::List(values)) = args.get(1) else { return Err(EvalError::NoSuchOverload) };
    meter.charge_bytes(template.len())?;
    let (mut out, mut rest, mut next) = (String::new(), template, 0);
    while let Some(percent) = rest.find('%') {
        out.push_str(&rest[..percent]);
        rest = &rest[percent + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let (precision, verb, after) = clause(rest)?;
        let value = values.get(next).ok_or_else(|| {
            EvalError::Failed(format!("error during formatting: index {next} out of range"))
        })??;
        next += 1;
        rest = after;
        let before = out.len();
        match verb {
            's' => append(meter, &value, &mut out)?,
            verb => {
                out.push_str(&number(verb, precision, &value)?);
                meter.charge_bytes(out.len() - before)?;
            }
        }
    }
    out.push_str(rest);
    Ok(Value::made(out))
}

/// The precision and the letter after a percent sign, and the rest of the template.
fn clause(text: &str) -> Result<(Option<usize>, char, &str), EvalError> {
    let failed = |why: &str| EvalError::Failed(format!("error during formatting: {why}"));
    let (precision, text) = match text.strip_prefix('.') {
        None => (None, text),
        Some(text) => {
            let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            let precision = text[..end].parse().ok().filter(|precision| *precision <= MAX_PRECISION);
            (Some(precision.ok_or_else(|| failed("error while parsing precision"))?), &text[end..])
        }
    };
    let verb = text.chars().next().ok_or_else(|| failed("unexpected end of string"))?;
    if !"sdfebxXo".contains(verb) {
        return Err(failed(&format!(
            "could not parse formatting clause: unrecognized formatting clause \"{verb}\""
        )));
    }
    Ok((precision, verb, &text[verb.len_utf8()..]))
}

/// The text of a value; within lists and maps it shows its type.
fn append(meter: &mut Meter, value: &Value, out: &mut String) -> Result<(), EvalError> {
    let text = match value {
        Value::List(list) => return append_list(meter, list, out),
        Value::Map(map) => return append_map(meter, map, out),
        Value::Null => "null".into(),
        Value::Type(name) => Value::text(name),
        value => to_string(value).map_err(|_| {
            EvalError::Failed(format!(
                "error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, \
                 maps, lists, types, durations, and timestamps, was given {}",
                value.type_name()
            ))
        })?,
    };
    let text = text.as_str().unwrap_or_default();
    meter.charge_bytes(text.len() + 10)?;
    out.push_str(text);
    Ok(())
}

impl From<&'static str> for Value<'_> {
    fn from(text: &'static str) -> Self {
        Value::text(text)
    }
}

fn append_item(meter: &mut Meter, value: &Value, out: &mut String) -> Result<(), EvalError> {
    match value {
        Value::String(text) => {
            meter.charge_bytes(text.len() + 10)?;
            out.push_str(&format!("{:?}", &**text));
            Ok(())
        }
        Value::Double(n) => {
            meter.charge(1)?;
            out.push_str(&format!("{n:.PRECISION$}"));
            Ok(())
        }
        Value::Duration(_) | Value::Timestamp(_) | Value::Type(_) => {
            let (open, close) = match value {
                Value::Duration(_) => ("duration(\"", "\")"),
                Value::Timestamp(_) => ("timestamp(\"", "\")"),
                _ => ("type(", ")"),
            };
            out.push_str(open);
            append(meter, value, out)?;
            out.push_str(close);
            Ok(())
        }
        value => append(meter, value, out),
    }
}

fn append_list(meter: &mut Meter, list: &List, out: &mut String) -> Result<(), EvalError> {
    out.push('[');
    for (index, item) in list.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        append_item(meter, &item?, out)?;
    }
    out.push(']');
    Ok(())
}

fn append_map(meter: &mut Meter, map: &Map, out: &mut String) -> Result<(), EvalError> {
    let mut entries = Vec::new();
    for key in map.keys() {
        let mut name = String::new();
        append_item(meter, &key, &mut name)?;
        let key = crate::cel::value::Key::of(&key).ok_or(EvalError::NoSuchOverload)?;
        entries.push((name, map.get(&key).unwrap_or(Ok(Value::Null))?));
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    out.push('{');
    for (index, (name, value)) in entries.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        out.push_str(name);
        out.push(':');
        append_item(meter, value, out)?;
    }
    out.push('}');
    Ok(())
}

fn number(verb: char, precision: Option<usize>, value: &Value) -> Result<String, EvalError> {
    let wrong = |clause: &str, kinds: &str| {
        let given = value.type_name();
        EvalError::Failed(format!(
            "error during formatting: {clause} can only be used on {kinds}, was given {given}"
        ))
    };
    let double = match value {
        Value::Double(n) => Some(*n),
        Value::Int(n) => Some(*n as f64),
        Value::Uint(n) => Some(*n as f64),
        _ => None,
    };
    let whole = match value {
        Value::Int(n) => Some(i128::from(*n)),
        Value::Uint(n) => Some(i128::from(*n)),
        Value::Bool(b) if verb == 'b' => Some((*b).into()),
        _ => None,
    };
    let precision = precision.unwrap_or(PRECISION);
    match verb {
        'd' => match (whole, value) {
            (Some(n), _) => Ok(n.to_string()),
            (None, Value::Double(n)) => Ok(format_double(*n)),
            _ => Err(wrong("decimal clause", "integers")),
        },
        'f' => {
            double.map(|n| format!("{n:.precision$}")).ok_or_else(|| wrong("fixed-point clause", "doubles"))
        }
        'e' => double.map(|n| scientific(n, precision)).ok_or_else(|| wrong("scientific clause", "doubles")),
        'o' => whole.map(|n| radix(n, 'o')).ok_or_else(|| wrong("octal clause", "integers")),
        'b' => whole.map(|n| radix(n, 'b')).ok_or_else(|| {
            EvalError::Failed(format!(
                "error during formatting: only integers and bools can be formatted as binary, was given {}",
                value.type_name()
            ))
        }),
        _ => hexadecimal(verb, whole, value),
    }
}

fn hexadecimal(verb: char, whole: Option<i128>, value: &Value) -> Result<String, EvalError> {
    let text = match (whole, value) {
        (Some(n), _) => radix(n, 'x'),
        (None, Value::String(text)) => hex::encode(text.as_bytes()),
        (None, Value::Bytes(bytes)) => hex::encode(bytes),
        _ => {
            return Err(EvalError::Failed(format!(
                "error during formatting: only integers, byte buffers, and strings can be formatted as hex, was \
                 given {}",
                value.type_name()
            )));
        }
    };
    Ok(if verb == 'X' { text.to_uppercase() } else { text })
}

fn radix(number: i128, radix: char) -> String {
    let (sign, size) = (if number < 0 { "-" } else { "" }, number.unsigned_abs());
    match radix {
        'b' => format!("{sign}{size:b}"),
        'o' => format!("{sign}{size:o}"),
        _ => format!("{sign}{size:x}"),
    }
}

/// With a sign and two digits at least, as C and Go write exponents.
fn scientific(number: f64, precision: usize) -> String {
    let text = format!("{number:.precision$e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None => text,
    }
}
