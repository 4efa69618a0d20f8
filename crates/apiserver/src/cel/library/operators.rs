//! Operators, equality and order.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::cel::cost::{Grows, Meter, Price};
use crate::cel::error::EvalError;
use crate::cel::functions::Row;
use crate::cel::types::{Identity, ListType};
use crate::cel::value::{Key, List, Map, Outcome, Value};

const ORDERED: &str = "(bool, bool) bool; (int, int) bool; (int, double) bool; (int, uint) bool; \
    (uint, uint) bool; (uint, double) bool; (uint, int) bool; (double, double) bool; (double, int) bool; \
    (double, uint) bool; (string, string) bool; (bytes, bytes) bool; (timestamp, timestamp) bool; \
    (duration, duration) bool";

pub const FUNCTIONS: &[Row] = &[
    Row("!_", "(bool) bool", Price::Fixed(1), Grows::Type, not),
    Row("-_", "(int) int; (double) double", Price::Fixed(1), Grows::Type, negate),
    Row(
        "_+_",
        "(int, int) int; (uint, uint) uint; (double, double) double; (string, string) string; \
         (bytes, bytes) bytes; (list<A>, list<A>) list<A>; (duration, duration) duration; \
         (duration, timestamp) timestamp; (timestamp, duration) timestamp",
        Price::Sum,
        Grows::Sum,
        add,
    ),
    Row(
        "_-_",
        "(int, int) int; (uint, uint) uint; (double, double) double; (duration, duration) duration; \
         (timestamp, timestamp) duration; (timestamp, duration) timestamp",
        Price::Fixed(1),
        Grows::Type,
        subtract,
    ),
    Row(
        "_*_",
        "(int, int) int; (uint, uint) uint; (double, double) double",
        Price::Fixed(1),
        Grows::Type,
        multiply,
    ),
    Row(
        "_/_",
        "(int, int) int; (uint, uint) uint; (double, double) double",
        Price::Fixed(1),
        Grows::Type,
        divide,
    ),
    Row("_%_", "(int, int) int; (uint, uint) uint", Price::Fixed(1), Grows::Type, remainder),
    Row("_==_", "(A, A) bool", Price::Equal, Grows::Type, |meter, args| {
        Ok(Value::Bool(equal(meter, &args[0], &args[1])?))
    }),
    Row("_!=_", "(A, A) bool", Price::Equal, Grows::Type, |meter, args| {
        Ok(Value::Bool(!equal(meter, &args[0], &args[1])?))
    }),
    Row("_<_", ORDERED, Price::Order, Grows::Type, |_, args| ordered(args, Ordering::is_lt)),
    Row("_<=_", ORDERED, Price::Order, Grows::Type, |_, args| ordered(args, Ordering::is_le)),
    Row("_>_", ORDERED, Price::Order, Grows::Type, |_, args| ordered(args, Ordering::is_gt)),
    Row("_>=_", ORDERED, Price::Order, Grows::Type, |_, args| ordered(args, Ordering::is_ge)),
    Row("@in", "(A, list<A>) bool; (A, map<A, B>) bool", Price::Member, Grows::Type, member),
    Row(
        "size",
        "(string) int; (bytes) int; (list<A>) int; (map<A, B>) int; string.() int; bytes.() int; list<A>.() int; \
         map<A, B>.() int",
        Price::Fixed(1),
        Grows::Type,
        size,
    ),
];

fn not<'a>(_: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    match &args[0] {
        Value::Bool(b) => Ok(Value::Bool(!b)),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn negate<'a>(_: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    match &args[0] {
        Value::Int(n) => n.checked_neg().map(Value::Int).ok_or(EvalError::IntegerOverflow("")),
        Value::Double(n) => Ok(Value::Double(-n)),
        _ => Err(EvalError::NoSuchOverload),
    }
}

const UNSIGNED: EvalError = EvalError::IntegerOverflow("unsigned ");

fn add<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    match (&args[0], &args[1]) {
        (Value::Int(a), Value::Int(b)) => {
            a.checked_add(*b).map(Value::Int).ok_or(EvalError::IntegerOverflow(""))
        }
        (Value::Uint(a), Value::Uint(b)) => a.checked_add(*b).map(Value::Uint).ok_or(UNSIGNED),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::String(a), Value::String(b)) => Ok(Value::made([&**a, &**b].concat())),
        (Value::Bytes(a), Value::Bytes(b)) => Ok(Value::Bytes([&**a, &**b].concat().into())),
        (Value::List(a), Value::List(b)) => concatenate(meter, a, b),
        (Value::Duration(a), Value::Duration(b)) => {
            a.checked_add(*b).map(Value::Duration).ok_or(EvalError::TimeOverflow("duration"))
        }
        (Value::Duration(d), Value::Timestamp(t)) | (Value::Timestamp(t), Value::Duration(d)) => {
            shift(*t, *d)
        }
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn shift<'a>(time: Timestamp, nanoseconds: i64) -> Outcome<'a> {
    let moved = time.checked_add(SignedDuration::from_nanos(nanoseconds));
    moved.map(Value::Timestamp).map_err(|_| EvalError::TimeOverflow("timestamp"))
}

/// The sum of two lists: items of a set are there once, those of a map of the second list replace those of the first.
fn concatenate<'a>(meter: &mut Meter, a: &List<'a>, b: &List<'a>) -> Outcome<'a> {
    let mut items = a.iter().collect::<Result<Vec<_>, _>>()?;
    let identity = match a {
        List::Json(_, kind) => &kind.identity,
        List::Made(_) => &Identity::Position,
    };
    if *identity == Identity::Position {
        for item in b.iter() {
            items.push(item?);
        }
        return Ok(Value::list(items));
    }
    meter.charge((a.len() + b.len()) as u64)?;
    let mut known: BTreeMap<Vec<Key<'a>>, usize> = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        known.insert(identifier(identity, item)?, index);
    }
    for item in b.iter() {
        let item = item?;
        let id = identifier(identity, &item)?;
        match known.get(&id) {
            Some(index) => items[*index] = item,
            None => {
                known.insert(id, items.len());
                items.push(item);
            }
        }
    }
    Ok(Value::list(items))
}

/// The identifying value or keys of an item of a set or map.
fn identifier<'a>(identity: &Identity, item: &Value<'a>) -> Result<Vec<Key<'a>>, EvalError> {
    let key = |value: &Value<'a>| Key::of(value).ok_or(EvalError::NoSuchOverload);
    match (identity, item) {
        (Identity::Keys(names), Value::Map(map)) => {
            let values = names.iter().filter_map(|name| map.field(name));
            values.map(|value| key(&value?)).collect()
        }
        _ => Ok(vec![key(item)?]),
    }
}

fn subtract<'a>(_: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    match (&args[0], &args[1]) {
        (Value::Int(a), Value::Int(b)) => {
            a.checked_sub(*b).map(Value::Int).ok_or(EvalError::IntegerOverflow(""))
        }
        (Value::Uint(a), Value::Uint(b)) => a.checked_sub(*b).map(Value::Uint).ok_or(UNSIGNED),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
        (Value::Duration(a), Value::Duration(b)) => {
            a.checked_sub(*b).map(Value::Duration).ok_or(EvalError::TimeOverflow("duration"))
        }
        (Value::Timestamp(a), Value::Timestamp(b)) => {
            let nanoseconds = i64::try_from(a.duration_since(*b).as_nanos());
            nanoseconds.map(Value::Duration).map_err(|_| EvalError::TimeOverflow("duration"))
        }
        (Value::Timestamp(t), Value::Duration(d)) => {
            shift(*t, d.checked_neg().ok_or(EvalError::TimeOverflow("duration"))?)
        }
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn multiply<'a>(_: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    match (&args[0], &args[1]) {
        (Value::Int(a), Value::Int(b)) => {
            a.checked_mul(*b).map(Value::Int).ok_or(EvalError::IntegerOverflow(""))
        }
        (Value::Uint(a), Value::Uint(b)) => a.checked_mul(*b).map(Value::Uint).ok_or(UNSIGNED),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a * b)),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn divide<'a>(_: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    match (&args[0], &args[1]) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => Err(EvalError::DivisionByZero),
        (Value::Int(a), Value::Int(b)) => {
            a.checked_div(*b).map(Value::Int).ok_or(EvalError::IntegerOverflow(""))
        }
        (Value::Uint(a), Value::Uint(b)) => Ok(Value::Uint(a / b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a / b)),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn remainder<'a>(_: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    match (&args[0], &args[1]) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => Err(EvalError::ModulusByZero),
        (Value::Int(a), Value::Int(b)) => {
            a.checked_rem(*b).map(Value::Int).ok_or(EvalError::IntegerOverflow(""))
        }
        (Value::Uint(a), Value::Uint(b)) => Ok(Value::Uint(a % b)),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn ordered<'a>(args: &[Value<'a>], holds: fn(Ordering) -> bool) -> Outcome<'a> {
    Ok(Value::Bool(match (&args[0], &args[1]) {
        // Nothing is smaller or larger than what is not a number.
        (Value::Double(a), _) if a.is_nan() => false,
        (_, Value::Double(b)) if b.is_nan() => false,
        (a, b) => holds(compare(a, b).ok_or(EvalError::NoSuchOverload)?),
    }))
}

/// The order of two values; `None` where they have none.
pub fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
        (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
        _ => numbers(a, b),
    }
}

fn numbers(a: &Value, b: &Value) -> Option<Ordering> {
    let whole = |value: &Value| match value {
        Value::Int(n) => Some(i128::from(*n)),
        Value::Uint(n) => Some(i128::from(*n)),
        _ => None,
    };
    match (a, b) {
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Double(a), b) => Some(against(*a, whole(b)?)).filter(|_| !a.is_nan()),
        (a, Value::Double(b)) => Some(against(*b, whole(a)?).reverse()).filter(|_| !b.is_nan()),
        (a, b) => Some(whole(a)?.cmp(&whole(b)?)),
    }
}

/// Compares a number with a whole one without losing digits of the latter.
fn against(double: f64, whole: i128) -> Ordering {
    const BEYOND: f64 = 1e30;
    if double.abs() >= BEYOND {
        return if double > 0.0 { Ordering::Greater } else { Ordering::Less };
    }
    let floor = double.floor() as i128;
    floor.cmp(&whole).then(if double.fract() == 0.0 { Ordering::Equal } else { Ordering::Greater })
}

/// Whether two values are equal. Values of different types are not, but numbers are compared by their value. Each
/// pair of values that is looked at is charged.
pub fn equal(meter: &mut Meter, a: &Value, b: &Value) -> Result<bool, EvalError> {
    Ok(match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::List(a), Value::List(b)) => return lists(meter, a, b),
        (Value::Map(a), Value::Map(b)) => return maps(meter, a, b),
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (Some(a), Some(b)) => return equal(meter, a, b),
            (a, b) => a.is_none() && b.is_none(),
        },
        (Value::Type(a), Value::Type(b)) => a == b,
        (Value::Opaque(a), Value::Opaque(b)) => a == b,
        (Value::Object(a), Value::Object(b)) => return a.equals(meter, b),
        (Value::String(a), Value::String(b)) => **a == **b,
        (a, b) => compare(a, b) == Some(Ordering::Equal),
    })
}

/// The price of one pair of values within lists and maps.
fn pair(meter: &mut Meter, a: &Value, b: &Value) -> Result<bool, EvalError> {
    let text = if let (Value::String(a), Value::String(b)) = (a, b) { a.len().min(b.len()) } else { 0 };
    meter.charge(1 + text as u64 / 64)?;
    equal(meter, a, b)
}

fn lists(meter: &mut Meter, a: &List, b: &List) -> Result<bool, EvalError> {
    if a.len() != b.len() {
        return Ok(false);
    }
    if let List::Json(_, ListType { identity, .. }) = a
        && *identity != Identity::Position
    {
        return unordered(meter, identity, a, b);
    }
    for (a, b) in a.iter().zip(b.iter()) {
        if !pair(meter, &a?, &b?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Sets and maps are equal whatever the order of their items is.
fn unordered(meter: &mut Meter, identity: &Identity, a: &List, b: &List) -> Result<bool, EvalError> {
    meter.charge(2 * a.len() as u64)?;
    let mut known = BTreeMap::new();
    for item in a.iter() {
        let item = item?;
        known.insert(identifier(identity, &item)?, item);
    }
    let mut seen = BTreeSet::new();
    for item in b.iter() {
        let item = item?;
        let id = identifier(identity, &item)?;
        match known.get(&id) {
            Some(other) if pair(meter, other, &item)? => seen.insert(id),
            _ => return Ok(false),
        };
    }
    Ok(seen.len() == known.len())
}

fn maps(meter: &mut Meter, a: &Map, b: &Map) -> Result<bool, EvalError> {
    if a.len() != b.len() {
        return Ok(false);
    }
    if let (Map::Object(a, kind), Map::Object(b, _)) = (a, b) {
        // Fields that expressions do not see are compared, too.
        for (name, json) in *a {
            let Some(other) = b.get(name) else { return Ok(false) };
            let (value, other) = match kind.by_json_name(name) {
                Some(field) => (Value::read(json, &field.kind)?, Value::read(other, &field.kind)?),
                None => (Value::read_dyn(json)?, Value::read_dyn(other)?),
            };
            if !pair(meter, &value, &other)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    for key in a.keys() {
        let key = Key::of(&key).ok_or(EvalError::NoSuchOverload)?;
        let (Some(value), Some(other)) = (a.get(&key), b.get(&key)) else { return Ok(false) };
        if !pair(meter, &value?, &other?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn member<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    match (&args[0], &args[1]) {
        (item, Value::List(list)) => {
            for other in list.iter() {
                let other = other?;
                if other.size() > 64 {
                    meter.charge_bytes(item.size().min(other.size()) as usize)?;
                }
                if equal(meter, item, &other)? {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        (key, Value::Map(map)) => Ok(Value::Bool(Key::of(key).is_some_and(|key| map.get(&key).is_some()))),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn size<'a>(_: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(Value::Int(match &args[0] {
        Value::String(text) => text.chars().count() as i64,
        value @ (Value::Bytes(_) | Value::List(_) | Value::Map(_)) => value.size() as i64,
        _ => return Err(EvalError::NoSuchOverload),
    }))
}
