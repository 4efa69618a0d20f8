//! Values that may be absent. `or` and `orValue` evaluate their argument only where it is needed; see the evaluator.

use crate::cel::cost::{Grows, Meter, Price};
use crate::cel::error::EvalError;
use crate::cel::functions::Row;
use crate::cel::library::lists::list;
use crate::cel::value::{Outcome, Value};

const ONE: Price = Price::Fixed(1);

pub const FUNCTIONS: &[Row] = &[
    Row("optional.of", "(A) optional<A>", ONE, Grows::Same, |_, args| Ok(Value::some(args[0].clone()))),
    Row("optional.none", "() optional<A>", ONE, Grows::Type, |_, _| Ok(Value::Optional(None))),
    Row("optional.ofNonZeroValue", "(A) optional<A>", ONE, Grows::Same, |_, args| {
        Ok(if args[0].is_zero() { Value::Optional(None) } else { Value::some(args[0].clone()) })
    }),
    Row("hasValue", "optional<A>.() bool", ONE, Grows::Type, |_, args| match &args[0] {
        Value::Optional(value) => Ok(Value::Bool(value.is_some())),
        _ => Err(EvalError::NoSuchOverload),
    }),
    Row("value", "optional<A>.() A", ONE, Grows::Same, |_, args| match &args[0] {
        Value::Optional(Some(value)) => Ok((**value).clone()),
        Value::Optional(None) => Err(EvalError::failed("optional.none() dereference")),
        _ => Err(EvalError::NoSuchOverload),
    }),
    Row("or", "optional<A>.(optional<A>) optional<A>", ONE, Grows::Same, |_, _| {
        Err(EvalError::NoSuchOverload)
    }),
    Row("orValue", "optional<A>.(A) A", ONE, Grows::Same, |_, _| Err(EvalError::NoSuchOverload)),
    Row("optional.unwrap", "(list<optional<A>>) list<A>", Price::Items, Grows::Same, unwrap),
    Row("unwrapOpt", "list<optional<A>>.() list<A>", Price::Items, Grows::Same, unwrap),
];

fn unwrap<'a>(_: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    let mut values = Vec::new();
    for item in list(args)?.iter() {
        match item? {
            Value::Optional(value) => values.extend(value.map(|value| (*value).clone())),
            _ => return Err(EvalError::NoSuchOverload),
        }
    }
    Ok(Value::list(values))
}
