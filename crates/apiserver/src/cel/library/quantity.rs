//! Kubernetes' quantities.

use std::cmp::Ordering;

use yado_types::quantity::Quantity;

use crate::cel::cost::{Grows, Meter, Price};
use crate::cel::error::EvalError;
use crate::cel::functions::Row;
use crate::cel::library::strings::text;
use crate::cel::value::{OpaqueValue, Outcome, Value};

const ONE: Price = Price::Fixed(1);
const PARSE: Price = Price::Walk { argument: 0, times: 1 };
const BOTH: &str = "quantity.(quantity) quantity; quantity.(int) quantity";

pub const FUNCTIONS: &[Row] = &[
    Row("quantity", "(string) quantity", PARSE, Grows::Type, |_, args| match text(args, 0)?.parse() {
        Ok(quantity) => Ok(Value::opaque(OpaqueValue::Quantity(quantity))),
        Err(error) => Err(EvalError::failed(format!("{error}"))),
    }),
    Row("isQuantity", "(string) bool", PARSE, Grows::Type, |_, args| {
        Ok(Value::Bool(text(args, 0)?.parse::<Quantity>().is_ok()))
    }),
    Row("sign", "(quantity) int; quantity.() int", ONE, Grows::Type, |_, args| {
        Ok(Value::Int(sign(quantity(args, 0)?.cmp(&Quantity::default()))))
    }),
    Row("isGreaterThan", "quantity.(quantity) bool", ONE, Grows::Type, |_, args| {
        Ok(Value::Bool(quantity(args, 0)? > quantity(args, 1)?))
    }),
    Row("isLessThan", "quantity.(quantity) bool", ONE, Grows::Type, |_, args| {
        Ok(Value::Bool(quantity(args, 0)? < quantity(args, 1)?))
    }),
    Row("compareTo", "quantity.(quantity) int", ONE, Grows::Type, |_, args| {
        Ok(Value::Int(sign(quantity(args, 0)?.cmp(&quantity(args, 1)?))))
    }),
    Row("asApproximateFloat", "quantity.() double", ONE, Grows::Type, |_, args| {
        Ok(Value::Double(quantity(args, 0)?.approximately()))
    }),
    Row("asInteger", "quantity.() int", ONE, Grows::Type, |_, args| {
        let whole = quantity(args, 0)?.whole();
        whole.map(Value::Int).ok_or_else(|| EvalError::failed("cannot convert value to integer"))
    }),
    Row("isInteger", "quantity.() bool", ONE, Grows::Type, |_, args| {
        Ok(Value::Bool(quantity(args, 0)?.whole().is_some()))
    }),
    Row("add", BOTH, ONE, Grows::Type, |meter, args| combine(meter, args, |a, b| a + b)),
    Row("sub", BOTH, ONE, Grows::Type, |meter, args| combine(meter, args, |a, b| a - b)),
];

fn sign(order: Ordering) -> i64 {
    order as i64
}

fn quantity(args: &[Value], index: usize) -> Result<Quantity, EvalError> {
    match args.get(index) {
        Some(Value::Opaque(opaque)) => match **opaque {
            OpaqueValue::Quantity(quantity) => Ok(quantity),
            _ => Err(EvalError::NoSuchOverload),
        },
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn combine<'a>(_: &mut Meter, args: &[Value<'a>], by: fn(Quantity, Quantity) -> Quantity) -> Outcome<'a> {
    let other = match args.get(1) {
        Some(Value::Int(n)) => Quantity::from_units(*n),
        _ => quantity(args, 1)?,
    };
    Ok(Value::opaque(OpaqueValue::Quantity(by(quantity(args, 0)?, other))))
}
