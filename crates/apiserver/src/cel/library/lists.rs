//! Functions of lists.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::cel::cost::{Grows, Meter, Price};
use crate::cel::error::EvalError;
use crate::cel::functions::Row;
use crate::cel::library::operators::{compare, equal};
use crate::cel::library::strings::{index_of, int};
use crate::cel::value::{Key, List, Outcome, Value};

const COMPARABLE: &str = "list<int>.() bool; list<uint>.() bool; list<double>.() bool; list<bool>.() bool; \
    list<duration>.() bool; list<timestamp>.() bool; list<string>.() bool; list<bytes>.() bool";
const EXTREME: &str = "list<int>.() int; list<uint>.() uint; list<double>.() double; list<bool>.() bool; \
    list<duration>.() duration; list<timestamp>.() timestamp; list<string>.() string; list<bytes>.() bytes";
const SORTED: &str = "list<int>.() list<int>; list<uint>.() list<uint>; list<double>.() list<double>; \
    list<bool>.() list<bool>; list<duration>.() list<duration>; list<timestamp>.() list<timestamp>; \
    list<string>.() list<string>; list<bytes>.() list<bytes>";
const POSITION: &str = "list<A>.(A) int; string.(string) int; string.(string, int) int";

pub const FUNCTIONS: &[Row] = &[
    Row("isSorted", COMPARABLE, Price::Items, Grows::Type, is_sorted),
    Row(
        "sum",
        "list<int>.() int; list<uint>.() uint; list<double>.() double; list<duration>.() duration",
        Price::Items,
        Grows::Type,
        sum,
    ),
    Row("min", EXTREME, Price::Items, Grows::Type, |_, args| extreme(args, "min", Ordering::Less)),
    Row("max", EXTREME, Price::Items, Grows::Type, |_, args| extreme(args, "max", Ordering::Greater)),
    Row("indexOf", POSITION, Price::Items, Grows::Type, |meter, args| position(meter, args, false)),
    Row("lastIndexOf", POSITION, Price::Items, Grows::Type, |meter, args| position(meter, args, true)),
    Row("lists.range", "(int) list<int>", Price::Metered, Grows::Type, range),
    Row("slice", "list<A>.(int, int) list<A>", Price::Items, Grows::Same, slice),
    Row("reverse", "list<A>.() list<A>", Price::Items, Grows::Same, |_, args| {
        Ok(Value::list(list(args)?.iter().rev().collect::<Result<_, _>>()?))
    }),
    Row("distinct", "list<A>.() list<A>", Price::Items, Grows::Same, distinct),
    Row("flatten", "list<A>.() list<dyn>; list<A>.(int) list<dyn>", Price::Metered, Grows::Type, flatten),
    Row("sort", SORTED, Price::Items, Grows::Same, sort),
    Row("first", "list<A>.() optional<A>", Price::Fixed(1), Grows::Type, |_, args| {
        Ok(Value::Optional(list(args)?.get(0).transpose()?.map(Into::into)))
    }),
    Row("last", "list<A>.() optional<A>", Price::Fixed(1), Grows::Type, |_, args| {
        let list = list(args)?;
        Ok(Value::Optional(list.len().checked_sub(1).and_then(|i| list.get(i)).transpose()?.map(Into::into)))
    }),
];

/// The first argument, a list.
pub fn list<'v, 'a>(args: &'v [Value<'a>]) -> Result<&'v List<'a>, EvalError> {
    match args.first() {
        Some(Value::List(list)) => Ok(list),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn is_sorted<'a>(_: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    let mut last: Option<Value> = None;
    for item in list(args)?.iter() {
        let item = item?;
        if let Some(last) = &last
            && compare(last, &item).ok_or(EvalError::NoSuchOverload)? == Ordering::Greater
        {
            return Ok(Value::Bool(false));
        }
        last = Some(item);
    }
    Ok(Value::Bool(true))
}

fn sum<'a>(_: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    let mut sum = Value::Int(0);
    for (index, item) in list(args)?.iter().enumerate() {
        let item = item?;
        sum = match (&sum, &item) {
            (_, Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::Duration(_)) if index == 0 => item,
            (Value::Int(a), Value::Int(b)) => {
                Value::Int(a.checked_add(*b).ok_or(EvalError::IntegerOverflow(""))?)
            }
            (Value::Uint(a), Value::Uint(b)) => {
                Value::Uint(a.checked_add(*b).ok_or(EvalError::IntegerOverflow("unsigned "))?)
            }
            (Value::Double(a), Value::Double(b)) => Value::Double(a + b),
            (Value::Duration(a), Value::Duration(b)) => {
                Value::Duration(a.checked_add(*b).ok_or(EvalError::TimeOverflow("duration"))?)
            }
            _ => return Err(EvalError::NoSuchOverload),
        };
    }
    Ok(sum)
}

fn extreme<'a>(args: &[Value<'a>], name: &str, wanted: Ordering) -> Outcome<'a> {
    let mut found: Option<Value<'a>> = None;
    for item in list(args)?.iter() {
        let item = item?;
        let is_better = match &found {
            None => true,
            Some(found) => compare(&item, found).ok_or(EvalError::NoSuchOverload)? == wanted,
        };
        if is_better {
            found = Some(item);
        }
    }
    found.ok_or_else(|| EvalError::Failed(format!("{name} called on empty list")))
}

fn position<'a>(meter: &mut Meter, args: &[Value<'a>], is_last: bool) -> Outcome<'a> {
    let Some(Value::List(list)) = args.first() else { return index_of(args, is_last) };
    let wanted = args.get(1).ok_or(EvalError::NoSuchOverload)?;
    let mut found = -1;
    for (index, item) in list.iter().enumerate() {
        let item = item?;
        meter.charge(item.size().min(wanted.size()) / 64)?;
        if equal(meter, &item, wanted)? {
            found = index as i64;
            if !is_last {
                break;
            }
        }
    }
    Ok(Value::Int(found))
}

fn range<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    let count = u64::try_from(int(args, 0, 0)?).unwrap_or(0);
    meter.charge(count)?;
    Ok(Value::list((0..count as i64).map(Value::Int).collect()))
}

fn slice<'a>(_: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    let (list, from, to) = (list(args)?, int(args, 1, 0)?, int(args, 2, 0)?);
    let wrong = |text: String| Err(EvalError::Failed(text));
    if from < 0 || to < 0 {
        return wrong(format!("cannot slice({from}, {to}), negative indexes not supported"));
    }
    if from > to {
        return wrong(format!(
            "cannot slice({from}, {to}), start index must be less than or equal to end index"
        ));
    }
    if to as usize > list.len() {
        return wrong(format!("cannot slice({from}, {to}), list is length {}", list.len()));
    }
    let items = (from as usize..to as usize).filter_map(|index| list.get(index));
    Ok(Value::list(items.collect::<Result<_, _>>()?))
}

fn distinct<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    let (mut keys, mut others, mut kept) = (BTreeSet::new(), Vec::new(), Vec::new());
    for item in list(args)?.iter() {
        let item = item?;
        meter.charge(1 + item.size() / 64)?;
        let is_new = match Key::of(&item) {
            // True and 1 are different; a number is the same whatever its type is.
            Some(key) => keys.insert(key),
            None => {
                let mut is_new = true;
                for other in &others {
                    meter.charge(1)?;
                    is_new = is_new && !equal(meter, other, &item)?;
                }
                if is_new {
                    others.push(item.clone());
                }
                is_new
            }
        };
        if is_new {
            kept.push(item);
        }
    }
    Ok(Value::list(kept))
}

fn flatten<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    let depth = int(args, 1, 1)?;
    if depth < 0 {
        return Err(EvalError::failed("level must be non-negative"));
    }
    let mut flat = Vec::new();
    append(meter, list(args)?, depth, &mut flat)?;
    Ok(Value::list(flat))
}

fn append<'a>(
    meter: &mut Meter,
    list: &List<'a>,
    depth: i64,
    into: &mut Vec<Value<'a>>,
) -> Result<(), EvalError> {
    meter.charge(1 + list.len() as u64)?;
    for item in list.iter() {
        match item? {
            Value::List(inner) if depth > 0 => append(meter, &inner, depth - 1, into)?,
            item => into.push(item),
        }
    }
    Ok(())
}

fn sort<'a>(meter: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    let items = list(args)?.iter().collect::<Result<Vec<_>, _>>()?;
    let keyed = items.into_iter().map(|item| (item.clone(), item)).collect();
    sort_by_key(meter, keyed)
}

/// The values in the order of their keys.
pub fn sort_by_key<'a>(meter: &mut Meter, mut keyed: Vec<(Value<'a>, Value<'a>)>) -> Outcome<'a> {
    let bytes: u64 = keyed.iter().map(|(key, _)| key.size() / 64).sum();
    meter.charge((keyed.len() as u64 + bytes) * u64::from(keyed.len().max(1).ilog2()))?;
    // Whether all keys have an order is found out before they are sorted: a comparison must not fail.
    if keyed.windows(2).any(|pair| pair[0].0.type_name() != pair[1].0.type_name())
        || keyed.iter().any(|(key, _)| compare(key, key).is_none())
    {
        return Err(EvalError::failed("list elements must have the same type"));
    }
    keyed.sort_by(|a, b| compare(&a.0, &b.0).unwrap_or(Ordering::Equal));
    Ok(Value::list(keyed.into_iter().map(|(_, value)| value).collect()))
}
