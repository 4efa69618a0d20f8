//! Lists that are looked at as sets.

use crate::cel::cost::{Grows, Meter, Price};
use crate::cel::error::EvalError;
use crate::cel::functions::Row;
use crate::cel::library::operators::equal;
use crate::cel::value::{List, Value};

const TWO: &str = "(list<A>, list<A>) bool";

pub const FUNCTIONS: &[Row] = &[
    Row("sets.contains", TWO, Price::Pairs, Grows::Type, |meter, args| {
        let (a, b) = two(args)?;
        Ok(Value::Bool(contains(meter, a, b)?))
    }),
    Row("sets.equivalent", TWO, Price::Pairs, Grows::Type, |meter, args| {
        let (a, b) = two(args)?;
        Ok(Value::Bool(contains(meter, a, b)? && contains(meter, b, a)?))
    }),
    Row("sets.intersects", TWO, Price::Pairs, Grows::Type, |meter, args| {
        let (a, b) = two(args)?;
        for item in b.iter() {
            if has(meter, a, &item?)? {
                return Ok(Value::Bool(true));
            }
        }
        Ok(Value::Bool(false))
    }),
];

fn two<'v, 'a>(args: &'v [Value<'a>]) -> Result<(&'v List<'a>, &'v List<'a>), EvalError> {
    match args {
        [Value::List(a), Value::List(b)] => Ok((a, b)),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn contains(meter: &mut Meter, list: &List, part: &List) -> Result<bool, EvalError> {
    for item in part.iter() {
        if !has(meter, list, &item?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn has(meter: &mut Meter, list: &List, wanted: &Value) -> Result<bool, EvalError> {
    for item in list.iter() {
        let item = item?;
        meter.charge(item.size().min(wanted.size()) / 64)?;
        if equal(meter, &item, wanted)? {
            return Ok(true);
        }
    }
    Ok(false)
}
