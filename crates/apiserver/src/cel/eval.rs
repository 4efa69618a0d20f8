//! Evaluation of compiled expressions. Every step is charged before it is done.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::composition::Scope;
use super::constructed::{Constructed, field_of};
use super::cost::{self, Meter, Price};
use super::error::EvalError;
use super::library::lists::sort_by_key;
use super::library::regex::charge_states;
use super::node::{
    Assignment, Call, Construct, Element, Entry, Fold, FoldKind, Index, Node, OptionalMap, OrElse, RegexCall,
    Select,
};
use super::value::{Key, Outcome, Value};

/// Terms and items that are evaluated for one unit where Kubernetes counts none.
const PARTS_PER_UNIT: u64 = 8;

/// The state of one evaluation.
pub struct Machine<'m, 'a> {
    variables: &'m [Value<'a>],
    /// Where composed expressions have their values.
    scope: Option<&'m Scope<'a>>,
    /// Values of the variables of macros, the innermost last.
    locals: Vec<Value<'a>>,
    meter: &'m mut Meter,
}

impl<'m, 'a> Machine<'m, 'a> {
    pub fn new(variables: &'m [Value<'a>], scope: Option<&'m Scope<'a>>, meter: &'m mut Meter) -> Self {
        Self { variables, scope, locals: Vec::new(), meter }
    }

    pub fn evaluate(&mut self, node: &'a Node) -> Outcome<'a> {
        match node {
            Node::Constant(value) => Ok(value.clone()),
            Node::Text(text) => Ok(Value::text(text)),
            Node::Variable(index) => {
                self.meter.charge(cost::SELECT)?;
                self.variables.get(*index).cloned().ok_or(EvalError::NoSuchOverload)
            }
            Node::Local(index) => {
                self.meter.charge(cost::SELECT)?;
                self.locals.get(*index).cloned().ok_or(EvalError::NoSuchOverload)
            }
            Node::Composed(index) => {
                self.meter.charge(2 * cost::SELECT)?;
                self.scope.ok_or(EvalError::NoSuchOverload)?.composed(*index)
            }
            Node::Select(select) => self.select(select),
            Node::Has(select) => self.has(select),
            Node::Index(index) => self.index(index),
            Node::And(terms) => self.terms(terms, false),
            Node::Or(terms) => self.terms(terms, true),
            Node::Conditional(parts) => match self.evaluate(&parts[0])? {
                Value::Bool(true) => self.evaluate(&parts[1]),
                Value::Bool(false) => self.evaluate(&parts[2]),
                _ => Err(EvalError::NoSuchOverload),
            },
            Node::OrElse(or_else) => self.or_else(or_else),
            Node::List(elements) => self.list(elements),
            Node::Map(entries) => self.map(entries),
            Node::Construct(construct) => self.construct(construct),
            Node::Call(call) => self.call(call),
            Node::Regex(call) => self.regex(call),
            Node::Fold(fold) => self.fold(fold),
            Node::OptionalMap(map) => self.optional_map(map),
        }
    }

    fn select(&mut self, select: &'a Select) -> Outcome<'a> {
        let operand = self.evaluate(&select.operand)?;
        self.meter.charge(cost::SELECT)?;
        let (operand, is_optional) = match operand {
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(value)) => ((*value).clone(), true),
            value => (value, select.is_optional),
        };
        match field_of(&operand, &select.field)? {
            Some(value) if is_optional => Ok(Value::some(value?)),
            Some(value) => value,
            None if is_optional => Ok(Value::Optional(None)),
            None => Err(EvalError::NoSuchKey(select.field.to_string())),
        }
    }

    fn has(&mut self, select: &'a Select) -> Outcome<'a> {
        let operand = match self.evaluate(&select.operand)? {
            Value::Optional(None) => return Ok(Value::Bool(false)),
            Value::Optional(Some(value)) => (*value).clone(),
            value => value,
        };
        Ok(Value::Bool(field_of(&operand, &select.field)?.is_some()))
    }

    fn index(&mut self, index: &'a Index) -> Outcome<'a> {
        let (operand, key) = (self.evaluate(&index.operand)?, self.evaluate(&index.key)?);
        self.meter.charge(cost::SELECT)?;
        let (operand, is_optional) = match operand {
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(value)) => ((*value).clone(), true),
            value => (value, index.is_optional),
        };
        let (found, missing) = match (&operand, Key::of(&key)) {
            (Value::List(list), Some(Key::Int(at))) => {
                let found = usize::try_from(at).ok().and_then(|at| list.get(at));
                (found, EvalError::IndexOutOfBounds(at))
            }
            (Value::Map(map), Some(key)) => (map.get(&key), EvalError::NoSuchKey(shown(&key))),
            _ => return Err(EvalError::NoSuchOverload),
        };
        match found {
            Some(value) if is_optional => Ok(Value::some(value?)),
            Some(value) => value,
            None if is_optional => Ok(Value::Optional(None)),
            None => Err(missing),
        }
    }

    /// `&&` and `||`: a term that decides the result does so whatever errors others have.
    fn terms(&mut self, terms: &'a [Node], decisive: bool) -> Outcome<'a> {
        self.meter.charge(terms.len() as u64 / PARTS_PER_UNIT)?;
        let mut error = None;
        for term in terms {
            match self.evaluate(term) {
                Ok(Value::Bool(value)) if value == decisive => return Ok(Value::Bool(decisive)),
                Ok(Value::Bool(_)) => {}
                Err(limit) if limit.is_limit() => return Err(limit),
                other => {
                    error.get_or_insert(other.err().unwrap_or(EvalError::NoSuchOverload));
                }
            }
        }
        error.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    fn or_else(&mut self, or_else: &'a OrElse) -> Outcome<'a> {
        self.meter.charge(1)?;
        match self.evaluate(&or_else.operand)? {
            Value::Optional(Some(value)) if or_else.is_value => Ok((*value).clone()),
            Value::Optional(None) => self.evaluate(&or_else.other),
            value @ Value::Optional(_) => Ok(value),
            _ => Err(EvalError::NoSuchOverload),
        }
    }

    fn list(&mut self, elements: &'a [Element]) -> Outcome<'a> {
        self.meter.charge(cost::LIST + elements.len() as u64 / PARTS_PER_UNIT)?;
        let mut items = Vec::with_capacity(elements.len());
        for element in elements {
            items.extend(present(self.evaluate(&element.value)?, element.is_optional)?);
        }
        Ok(Value::list(items))
    }

    fn map(&mut self, entries: &'a [Entry]) -> Outcome<'a> {
        self.meter.charge(cost::MAP + entries.len() as u64 / PARTS_PER_UNIT)?;
        let mut map = BTreeMap::new();
        for entry in entries {
            let key = self.evaluate(&entry.key)?;
            let value = present(self.evaluate(&entry.value)?, entry.is_optional)?;
            if let Some(value) = value {
                insert(&mut map, &key, value)?;
            }
        }
        Ok(Value::map(map))
    }

    fn construct(&mut self, construct: &'a Construct) -> Outcome<'a> {
        self.meter.charge(cost::OBJECT + construct.fields.len() as u64 / PARTS_PER_UNIT)?;
        let mut fields: Vec<(&'a str, Value<'a>)> = Vec::with_capacity(construct.fields.len());
        for Assignment { field, value, is_optional } in &construct.fields {
            if let Some(value) = present(self.evaluate(value)?, *is_optional)? {
                fields.retain(|(known, _)| *known != &**field);
                fields.push((field, value));
            }
        }
        Ok(Value::Object(Arc::new(Constructed { name: &construct.name, fields })))
    }

    fn call(&mut self, call: &'a Call) -> Outcome<'a> {
        let function = call.function;
        // Most calls have one or two arguments, which need no allocation.
        match &*call.arguments {
            [only] => {
                let only = self.evaluate(only)?;
                self.run(call, &[only])
            }
            [first, second] => {
                let first = self.evaluate(first)?;
                let second = self.evaluate(second)?;
                self.run(call, &[first, second])
            }
            arguments => {
                let arguments = arguments.iter().map(|argument| self.evaluate(argument));
                let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
                cost::charge(self.meter, function.price, &arguments)?;
                (function.run)(self.meter, &arguments)
            }
        }
    }

    fn run(&mut self, call: &'a Call, arguments: &[Value<'a>]) -> Outcome<'a> {
        cost::charge(self.meter, call.function.price, arguments)?;
        (call.function.run)(self.meter, arguments)
    }

    fn regex(&mut self, call: &'a RegexCall) -> Outcome<'a> {
        let mut arguments = Vec::with_capacity(call.arguments.len() + 1);
        for argument in &call.arguments {
            arguments.push(self.evaluate(argument)?);
        }
        arguments.insert(1, Value::text(&call.pattern));
        cost::charge(self.meter, Price::Regex, &arguments)?;
        charge_states(self.meter, arguments[0].as_str().unwrap_or_default(), call.states)?;
        (call.apply)(&arguments, &call.regex)
    }

    fn optional_map(&mut self, map: &'a OptionalMap) -> Outcome<'a> {
        self.meter.charge(1)?;
        match self.evaluate(&map.operand)? {
            Value::Optional(None) => Ok(Value::Optional(None)),
            Value::Optional(Some(value)) => {
                self.locals.push((*value).clone());
                let result = self.evaluate(&map.body);
                self.locals.pop();
                if map.is_flat { result } else { Ok(Value::some(result?)) }
            }
            _ => Err(EvalError::NoSuchOverload),
        }
    }

    fn fold(&mut self, fold: &'a Fold) -> Outcome<'a> {
        let range = self.evaluate(&fold.range)?;
        let mut loop_state = Loop::new(fold.kind);
        let before = self.locals.len();
        let result = self.rounds(fold, &range, &mut loop_state);
        self.locals.truncate(before);
        match result? {
            Some(decided) => Ok(decided),
            None => loop_state.result(self.meter),
        }
    }

    /// All rounds of a loop, or those until its result is decided.
    fn rounds(
        &mut self,
        fold: &'a Fold,
        range: &Value<'a>,
        state: &mut Loop<'a>,
    ) -> Result<Option<Value<'a>>, EvalError> {
        match range {
            Value::List(list) => {
                for index in 0..list.len() {
                    let item = list.get(index).unwrap_or(Ok(Value::Null))?;
                    let first = if fold.has_two { Value::Int(index as i64) } else { item.clone() };
                    if let Some(decided) = self.round(fold, first, item, state)? {
                        return Ok(Some(decided));
                    }
                }
            }
            Value::Map(map) => {
                self.meter.charge(map.len() as u64)?;
                for key in map.keys() {
                    let value = match fold.has_two {
                        true => Key::of(&key).and_then(|key| map.get(&key)).unwrap_or(Ok(Value::Null))?,
                        false => key.clone(),
                    };
                    if let Some(decided) = self.round(fold, key, value, state)? {
                        return Ok(Some(decided));
                    }
                }
            }
            _ => return Err(EvalError::NoSuchOverload),
        }
        Ok(None)
    }

    fn round(
        &mut self,
        fold: &'a Fold,
        first: Value<'a>,
        second: Value<'a>,
        state: &mut Loop<'a>,
    ) -> Result<Option<Value<'a>>, EvalError> {
        self.meter.charge(fold.kind.round())?;
        let before = self.locals.len();
        self.locals.push(first.clone());
        if fold.has_two {
            self.locals.push(second.clone());
        }
        let is_wanted = match &fold.filter {
            None => true,
            Some(filter) => match self.evaluate(filter)? {
                Value::Bool(is_wanted) => is_wanted,
                _ => return Err(EvalError::NoSuchOverload),
            },
        };
        if !is_wanted {
            self.locals.truncate(before);
            return Ok(None);
        }
        let outcome = self.evaluate(&fold.body);
        self.locals.truncate(before);
        state.take(self.meter, outcome, first, second)
    }
}

impl FoldKind {
    /// Cost of a round besides the body.
    pub fn round(self) -> u64 {
        match self {
            Self::All => 3,
            Self::Exists => 4,
            Self::ExistsOne => 2,
            Self::Filter => 1,
            Self::Map | Self::SortBy => 2 + cost::LIST,
            Self::MapValues => 3,
            Self::MapEntries => 2,
        }
    }
}

/// The accumulated result of a loop.
struct Loop<'a> {
    kind: FoldKind,
    count: u64,
    error: Option<EvalError>,
    items: Vec<Value<'a>>,
    keyed: Vec<(Value<'a>, Value<'a>)>,
    entries: BTreeMap<Key<'a>, Value<'a>>,
}

impl<'a> Loop<'a> {
    fn new(kind: FoldKind) -> Self {
        Self { kind, count: 0, error: None, items: Vec::new(), keyed: Vec::new(), entries: BTreeMap::new() }
    }

    /// Takes the outcome of a round; a value is the result, whatever rounds would follow.
    fn take(
        &mut self,
        meter: &mut Meter,
        outcome: Outcome<'a>,
        first: Value<'a>,
        second: Value<'a>,
    ) -> Result<Option<Value<'a>>, EvalError> {
        match self.kind {
            FoldKind::All | FoldKind::Exists => {
                let decisive = self.kind == FoldKind::Exists;
                match outcome {
                    Ok(Value::Bool(value)) if value == decisive => return Ok(Some(Value::Bool(decisive))),
                    Ok(Value::Bool(_)) => {}
                    Err(limit) if limit.is_limit() => return Err(limit),
                    other => {
                        self.error.get_or_insert(other.err().unwrap_or(EvalError::NoSuchOverload));
                    }
                }
            }
            FoldKind::ExistsOne => self.count += u64::from(truth(outcome?)?),
            FoldKind::Map => self.items.push(outcome?),
            FoldKind::Filter => {
                if truth(outcome?)? {
                    meter.charge(2 + cost::LIST)?;
                    self.items.push(second);
                }
            }
            FoldKind::SortBy => self.keyed.push((outcome?, second)),
            FoldKind::MapValues => insert(&mut self.entries, &first, outcome?)?,
            FoldKind::MapEntries => match outcome? {
                Value::Map(map) => {
                    meter.charge(map.len() as u64)?;
                    for key in map.keys() {
                        let value = Key::of(&key).and_then(|key| map.get(&key)).unwrap_or(Ok(Value::Null))?;
                        insert(&mut self.entries, &key, value)?;
                    }
                }
                _ => return Err(EvalError::NoSuchOverload),
            },
        }
        Ok(None)
    }

    fn result(self, meter: &mut Meter) -> Outcome<'a> {
        if let Some(error) = self.error {
            return Err(error);
        }
        meter.charge(1)?;
        match self.kind {
            FoldKind::All => Ok(Value::Bool(true)),
            FoldKind::Exists => Ok(Value::Bool(false)),
            FoldKind::ExistsOne => Ok(Value::Bool(self.count == 1)),
            FoldKind::Map | FoldKind::Filter => Ok(Value::list(self.items)),
            FoldKind::SortBy => sort_by_key(meter, self.keyed),
            FoldKind::MapValues | FoldKind::MapEntries => Ok(Value::map(self.entries)),
        }
    }
}

fn truth(value: Value) -> Result<bool, EvalError> {
    match value {
        Value::Bool(value) => Ok(value),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn present(value: Value, is_optional: bool) -> Result<Option<Value>, EvalError> {
    match value {
        value if !is_optional => Ok(Some(value)),
        Value::Optional(value) => Ok(value.map(|value| (*value).clone())),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn insert<'a>(
    map: &mut BTreeMap<Key<'a>, Value<'a>>,
    key: &Value<'a>,
    value: Value<'a>,
) -> Result<(), EvalError> {
    let key = Key::of(key)
        .ok_or_else(|| EvalError::Failed(format!("unsupported key type: {}", key.type_name())))?;
    if map.contains_key(&key) {
        return Err(EvalError::Failed(format!("insert failed: key {} already exists", shown(&key))));
    }
    map.insert(key, value);
    Ok(())
}

fn shown(key: &Key) -> String {
    match key {
        Key::Bool(b) => b.to_string(),
        Key::Int(n) => n.to_string(),
        Key::Uint(n) => n.to_string(),
        Key::String(text) => text.to_string(),
    }
}
