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
