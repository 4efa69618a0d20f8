//! Conversions between types.

use yado_types::duration;

use crate::cel::cost::{Grows, Meter, Price};
use crate::cel::error::EvalError;
use crate::cel::functions::Row;
use crate::cel::library::time::{format_duration, parse_timestamp};
use crate::cel::value::{OpaqueValue, Outcome, Value};

pub const FUNCTIONS: &[Row] = &[
    Row("dyn", "(A) dyn", Price::Fixed(1), Grows::Same, |_, args| Ok(args[0].clone())),
    Row("type", "(A) type", Price::Fixed(1), Grows::Type, |_, args| Ok(Value::Type(args[0].type_name()))),
    Row("bool", "(bool) bool; (string) bool", Price::Fixed(1), Grows::Type, to_bool),
    Row(
        "int",
        "(int) int; (uint) int; (double) int; (string) int; (timestamp) int; (duration) int",
        Price::Fixed(1),
        Grows::Type,
        to_int,
    ),
    Row(
        "uint",
        "(uint) uint; (int) uint; (double) uint; (string) uint",
        Price::Fixed(1),
        Grows::Type,
        to_uint,
    ),
    Row(
        "double",
        "(double) double; (int) double; (uint) double; (string) double",
        Price::Fixed(1),
        Grows::Type,
        to_double,
    ),
    Row(
        "string",
        "(string) string; (bool) string; (int) string; (uint) string; (double) string; (bytes) string; \
         (timestamp) string; (duration) string; (ip) string; (cidr) string",
        Price::Fixed(1),
        Grows::Quoted,
        |_, args| to_string(&args[0]),
    ),
    Row(
        "bytes",
        "(bytes) bytes; (string) bytes",
        Price::Walk { argument: 0, times: 1 },
        Grows::Same,
        to_bytes,
    ),
    Row("duration", "(duration) duration; (string) duration", Price::Fixed(1), Grows::Type, to_duration),
    Row(
        "timestamp",
        "(timestamp) timestamp; (string) timestamp; (int) timestamp",
        Price::Fixed(1),
        Grows::Type,
        to_timestamp,
    ),
];

fn unconvertible(value: &Value, kind: &str) -> EvalError {
    EvalError::Failed(format!("type conversion error from '{}' to '{kind}'", value.type_name()))
}

fn to_bool<'a>(_: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    match &args[0] {
        Value::Bool(b) => Ok(Value::Bool(*b)),
        Value::String(text) => match &**text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Value::Bool(false)),
            _ => Err(unconvertible(&args[0], "bool")),
        },
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn to_int<'a>(_: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    const TOO_LARGE: EvalError = EvalError::IntegerOverflow("");
    Ok(Value::Int(match &args[0] {
        Value::Int(n) => *n,
        Value::Uint(n) => i64::try_from(*n).map_err(|_| TOO_LARGE)?,
        // Both ends are excluded: they cannot be told from their neighbours.
        Value::Double(n) if *n > i64::MIN as f64 && *n < i64::MAX as f64 => *n as i64,
        Value::Double(_) => return Err(TOO_LARGE),
        Value::String(text) => text.parse().map_err(|_| unconvertible(&args[0], "int"))?,
        Value::Timestamp(time) => time.as_second(),
        Value::Duration(nanoseconds) => *nanoseconds,
        _ => return Err(EvalError::NoSuchOverload),
    }))
}

fn to_uint<'a>(_: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    const TOO_LARGE: EvalError = EvalError::IntegerOverflow("unsigned ");
    Ok(Value::Uint(match &args[0] {
        Value::Uint(n) => *n,
        Value::Int(n) => u64::try_from(*n).map_err(|_| TOO_LARGE)?,
        Value::Double(n) if *n >= 0.0 && *n < u64::MAX as f64 => *n as u64,
        Value::Double(_) => return Err(TOO_LARGE),
        Value::String(text) => text.parse().map_err(|_| unconvertible(&args[0], "uint"))?,
        _ => return Err(EvalError::NoSuchOverload),
    }))
}

fn to_double<'a>(_: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Double(match &args[0] {
        Value::Double(n) => *n,
        Value::Int(n) => *n as f64,
        Value::Uint(n) => *n as f64,
        Value::String(text) => text.parse().map_err(|_| unconvertible(&args[0], "double"))?,
        _ => return Err(EvalError::NoSuchOverload),
    }))
}

/// The text of a value.
pub fn to_string<'a>(value: &Value<'a>) -> Outcome<'a> {
    Ok(match value {
        Value::String(_) => value.clone(),
        Value::Bool(b) => Value::text(if *b { "true" } else { "false" }),
        Value::Int(n) => Value::made(n.to_string()),
        Value::Uint(n) => Value::made(n.to_string()),
        Value::Double(n) => Value::made(format_double(*n)),
        Value::Bytes(bytes) => {
            let text = std::str::from_utf8(bytes);
            Value::made(
                text.map_err(|_| EvalError::failed("invalid UTF-8 in bytes, cannot convert to string"))?,
            )
        }
        Value::Timestamp(time) => Value::made(time.to_string()),
        Value::Duration(nanoseconds) => Value::made(format_duration(*nanoseconds)),
        Value::Opaque(opaque) => match &**opaque {
            OpaqueValue::Ip(ip) => Value::made(ip.to_string()),
            OpaqueValue::Cidr(cidr) => Value::made(cidr.to_string()),
            _ => return Err(EvalError::NoSuchOverload),
        },
        _ => return Err(EvalError::NoSuchOverload),
    })
}

/// A number as Go's `%g` writes it: with an exponent below 1e-4 and from 1e21 on.
pub fn format_double(number: f64) -> String {
    let size = number.abs();
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if size == 0.0 || (1e-4..1e21).contains(&size) {
        return number.to_string();
    }
    let text = format!("{number:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

fn to_bytes<'a>(_: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    match &args[0] {
        Value::Bytes(_) => Ok(args[0].clone()),
        Value::String(text) => Ok(Value::Bytes(text.as_bytes().into())),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn to_duration<'a>(_: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    match &args[0] {
        Value::Duration(_) => Ok(args[0].clone()),
        Value::String(text) => duration::parse(text).map(Value::Duration).map_err(EvalError::Failed),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn to_timestamp<'a>(_: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    match &args[0] {
        Value::Timestamp(_) => Ok(args[0].clone()),
        Value::String(text) => parse_timestamp(text).map(Value::Timestamp),
        Value::Int(seconds) => jiff::Timestamp::from_second(*seconds)
            .map(Value::Timestamp)
            .map_err(|_| EvalError::TimeOverflow("timestamp")),
        _ => Err(EvalError::NoSuchOverload),
    }
}
