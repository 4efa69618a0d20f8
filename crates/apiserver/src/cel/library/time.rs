//! Durations and timestamps.

use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, Zoned};

use crate::cel::cost::{Grows, Meter, Price};
use crate::cel::error::EvalError;
use crate::cel::functions::Row;
use crate::cel::value::{Outcome, Value};

const DATE: &str = "timestamp.() int; timestamp.(string) int";
const TIME: &str = "timestamp.() int; timestamp.(string) int; duration.() int";
const ONE: Price = Price::Fixed(1);

pub const FUNCTIONS: &[Row] = &[
    Row("getFullYear", DATE, ONE, Grows::Type, |_, args| part(args, |t| t.year().into())),
    Row("getMonth", DATE, ONE, Grows::Type, |_, args| part(args, |t| i64::from(t.month()) - 1)),
    Row("getDayOfYear", DATE, ONE, Grows::Type, |_, args| part(args, |t| i64::from(t.day_of_year()) - 1)),
    Row("getDayOfMonth", DATE, ONE, Grows::Type, |_, args| part(args, |t| i64::from(t.day()) - 1)),
    Row("getDate", DATE, ONE, Grows::Type, |_, args| part(args, |t| t.day().into())),
    Row("getDayOfWeek", DATE, ONE, Grows::Type, |_, args| {
        part(args, |t| t.weekday().to_sunday_zero_offset().into())
    }),
    Row("getHours", TIME, ONE, Grows::Type, |meter, args| time(meter, args, HOUR, |t| t.hour().into())),
    Row("getMinutes", TIME, ONE, Grows::Type, |meter, args| time(meter, args, MINUTE, |t| t.minute().into())),
    Row("getSeconds", TIME, ONE, Grows::Type, |meter, args| time(meter, args, SECOND, |t| t.second().into())),
    Row("getMilliseconds", TIME, ONE, Grows::Type, |_, args| match &args[0] {
        Value::Duration(nanoseconds) => Ok(Value::Int(nanoseconds % SECOND / 1_000_000)),
        _ => part(args, |t| t.millisecond().into()),
    }),
];

const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

fn time<'a>(_: &mut Meter, args: &[Value<'a>], unit: i64, of: fn(&Zoned) -> i64) -> Outcome<'a> {
    match &args[0] {
        Value::Duration(nanoseconds) => Ok(Value::Int(nanoseconds / unit)),
        _ => part(args, of),
    }
}

fn part<'a>(args: &[Value<'a>], of: fn(&Zoned) -> i64) -> Outcome<'a> {
    let Value::Timestamp(time) = &args[0] else { return Err(EvalError::NoSuchOverload) };
    let zone = match args.get(1) {
        None => TimeZone::UTC,
        Some(Value::String(name)) => zone(name)?,
        Some(_) => return Err(EvalError::NoSuchOverload),
    };
    Ok(Value::Int(of(&time.to_zoned(zone))))
}

/// A time zone by its name in the IANA database, or an offset like `-08:00`.
fn zone(name: &str) -> Result<TimeZone, EvalError> {
    let unknown = || EvalError::Failed(format!("unknown time zone {name}"));
    let Some((hours, minutes)) = name.split_once(':') else {
        return TimeZone::get(name).map_err(|_| unknown());
    };
    let (hours, minutes): (i32, i32) =
        (hours.parse().map_err(|_| unknown())?, minutes.parse().map_err(|_| unknown())?);
    let sign = if name.starts_with('-') { -1 } else { 1 };
    let seconds = hours.checked_mul(3600).and_then(|h| h.checked_add(sign * (minutes % 60) * 60));
    let offset = seconds.and_then(|seconds| Offset::from_seconds(seconds).ok());
    offset.map(TimeZone::fixed).ok_or_else(unknown)
}

/// A timestamp as RFC 3339 writes it.
pub fn parse_timestamp(text: &str) -> Result<Timestamp, EvalError> {
    text.parse().map_err(|_| {
        EvalError::Failed(format!(
            "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as a timestamp"
        ))
    })
}

/// A duration as Go writes it, like `1h30m` or `-1.5s`, in nanoseconds.
pub fn parse_duration(text: &str) -> Option<i64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned == "0" {
        return Some(0);
    }
    if unsigned.is_empty() {
        return None;
    }
    let (mut rest, mut sum) = (unsigned, 0i128);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => SECOND.into(),
            "m" => MINUTE.into(),
            "h" => HOUR.into(),
            _ => return None,
        };
        sum = sum.checked_add(amount(number, unit)?)?;
        rest = after;
    }
    i64::try_from(if text.starts_with('-') { -sum } else { sum }).ok()
}

fn amount(number: &str, unit: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || whole.len() > 20 {
        return None;
    }
    let digits = |text: &str| match text.is_empty() {
        true => Some(0),
        false if text.bytes().all(|b| b.is_ascii_digit()) => text.parse::<i128>().ok(),
        false => None,
    };
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // Digits beyond these are less than a nanosecond of an hour.
    let fraction = &fraction[..fraction.len().min(15)];
    let part = digits(fraction)? * unit / 10i128.pow(fraction.len() as u32);
    digits(whole)?.checked_mul(unit)?.checked_add(part)
}

/// A duration in seconds, as the language writes it: `5400s`, `1.5s`.
pub fn format_duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let size = nanoseconds.unsigned_abs();
    let (seconds, rest) = (size / 1_000_000_000, size % 1_000_000_000);
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    let fraction = format!("{rest:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}
