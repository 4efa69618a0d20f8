//! The cost of evaluation. A unit is about the work of one comparison, some 50 nanoseconds. Prices follow Kubernetes
//! (`k8s.io/apiserver/pkg/cel/library/cost.go`, cel-go's `checker/cost.go`), so that definitions which are accepted
//! there are accepted here; estimates know the largest sizes only, except for texts that are replaced.
//!
//! The same price is asked twice: of the sizes that types allow, when an expression is compiled, and of the sizes that
//! values have, before the work is done. Work that grows with data always has a price, also where Kubernetes counts
//! none, so that a limit on cost is a limit on time and memory.

use regex::Regex;

use super::error::EvalError;
use super::types::{Size, Type, TypeKind};
use super::value::Value;

/// Limit of the cost of one evaluation, about a tenth of a second in Kubernetes' own implementation.
pub const CALL_LIMIT: u64 = 1_000_000;
/// Limit of the cost of all evaluations for one object.
pub const REQUEST_LIMIT: u64 = 10_000_000;
/// Cost of reading a variable or a field.
pub const SELECT: u64 = 1;
/// Cost of making a list.
pub const LIST: u64 = 10;
/// Cost of making a map.
pub const MAP: u64 = 30;
/// Cost of making an object.
pub const OBJECT: u64 = 40;

/// Bytes that are walked for one unit where Kubernetes counts the whole walk as one unit.
const BYTES_PER_UNIT: u64 = 512;
/// Cost of compiling a regular expression during evaluation.
const COMPILE_REGEX: u64 = 3000;
/// Items of lists that are copied for one unit; Kubernetes copies none.
const ITEMS_PER_UNIT: u64 = 4;

/// The remaining cost that the expressions of one request may have.
#[derive(Debug)]
pub struct Budget {
    remaining: u64,
}

impl Budget {
    /// A budget of this many units.
    pub fn new(units: u64) -> Self {
        Self { remaining: units }
    }

    /// The remaining units.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    pub(super) fn spend(&mut self, units: u64) {
        self.remaining = self.remaining.saturating_sub(units);
    }

    /// Nothing is left, so that no other expression is evaluated.
    pub fn exhaust(&mut self) {
        self.remaining = 0;
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(REQUEST_LIMIT)
    }
}

/// Counts the cost of one evaluation.
#[derive(Debug)]
pub struct Meter {
    spent: u64,
    limit: u64,
    /// The pattern that was compiled last: mostly it is the same for all items of a loop.
    pattern: Option<(String, Regex)>,
}

impl Meter {
    pub fn new(limit: u64) -> Self {
        Self { spent: 0, limit, pattern: None }
    }

    pub fn spent(&self) -> u64 {
        self.spent
    }

    /// Takes units, before the work that they pay for.
    pub fn charge(&mut self, units: u64) -> Result<(), EvalError> {
        self.spent = self.spent.saturating_add(units);
        if self.spent > self.limit { Err(EvalError::CostLimit) } else { Ok(()) }
    }

    /// A regular expression of the data, compiled unless it was the last one that was.
    pub fn regex(
        &mut self,
        pattern: &str,
        compile: impl FnOnce() -> Result<Regex, EvalError>,
    ) -> Result<Regex, EvalError> {
        if let Some((known, regex)) = &self.pattern
            && known == pattern
        {
            return Ok(regex.clone());
        }
        self.charge(COMPILE_REGEX)?;
        let regex = compile()?;
        self.pattern = Some((pattern.to_owned(), regex.clone()));
        Ok(regex)
    }

    /// The price of walking over so many bytes, a tenth of a unit each.
    pub fn charge_bytes(&mut self, bytes: usize) -> Result<(), EvalError> {
        self.charge(tenths(bytes as u64))
    }
}

/// The price of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Price {
    /// This many units.
    Fixed(u64),
    /// A tenth of a unit for each byte or item of an argument, this many times.
    Walk {
        /// The argument that is walked over.
        argument: usize,
        /// How often.
        times: u64,
    },
    /// A tenth of a unit for each byte or item of the smaller argument: `==`.
    Equal,
    /// A tenth of a unit for each byte of the smaller text: `<`.
    Order,
    /// A tenth of a unit for each byte of both texts; one unit for anything else: `+`.
    Sum,
    /// A tenth of a unit for each byte of both, multiplied: `contains`.
    Product,
    /// The length of the text, multiplied by that of the regular expression.
    Regex,
    /// One unit for each item of a list and what comparing them costs.
    Items,
    /// One unit for each item of the second argument: `in`.
    Member,
    /// One unit for each pair of items.
    Pairs,
    /// Nothing in advance: the function asks for it while it works.
    Metered,
}

/// The size of a function's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grows {
    /// The bound that follows from its type.
    Type,
    /// As large as the first argument.
    Same,
    /// As large as all arguments together.
    Sum,
    /// Twice the first argument and more: quoting, encoding.
    Quoted,
    /// A list of parts of the first argument.
    Parts,
    /// The first argument with all of the second replaced by the third.
    Replaced,
    /// All items and what is between them.
    Joined,
}

fn tenths(size: u64) -> u64 {
    size.div_ceil(10)
}

/// The largest price that arguments of these types allow.
pub fn estimate(price: Price, arguments: &[Type]) -> u64 {
    let most = |index: usize| arguments.get(index).map_or(1, |argument| argument.size.max);
    match price {
        Price::Fixed(units) => units,
        Price::Metered => tenths(most(0)),
        Price::Walk { argument, times } => tenths(most(argument).saturating_mul(times)),
        Price::Equal => match arguments.iter().any(is_fixed) {
            // Kubernetes estimates nothing for these.
            true => 0,
            false => tenths(most(0).min(most(1))),
        },
        Price::Order => tenths(most(0).min(most(1))),
        Price::Sum => match arguments.iter().any(|a| is_text(a) || a.is_dynamic()) {
            true => tenths(most(0).saturating_add(most(1))),
            false => 1,
        },
        Price::Product => tenths(most(0)).saturating_mul(tenths(most(1))),
        Price::Regex => regex(most(0), most(1)),
        Price::Items => {
            let item = arguments.first().map(Type::item);
            let each = item.filter(is_text).map_or(1, |item| tenths(item.size.max).saturating_add(1));
            match arguments.first().map(|list| &list.kind) {
                Some(TypeKind::List(_)) => most(0).saturating_mul(each),
                _ => tenths(most(0)),
            }
        }
        Price::Member => match arguments.get(1).map(|list| &list.kind) {
            Some(TypeKind::Map(_)) => 1,
            _ => most(1),
        },
        Price::Pairs => most(0).saturating_mul(most(1).max(1)),
    }
}

/// Takes the price of a function with these arguments.
pub fn charge(meter: &mut Meter, price: Price, arguments: &[Value]) -> Result<(), EvalError> {
    let size = |index: usize| arguments.get(index).map_or(1, Value::size);
    let units = match price {
        Price::Fixed(units) => units + walked(arguments),
        Price::Metered => 1,
        Price::Walk { argument, times } => tenths(size(argument).saturating_mul(times)).max(1),
        Price::Equal | Price::Order => tenths(size(0).min(size(1))),
        Price::Sum => match arguments.first() {
            Some(Value::String(_) | Value::Bytes(_)) => tenths(size(0) + size(1)),
            Some(Value::List(_)) => 1 + (size(0) + size(1)) / ITEMS_PER_UNIT,
            _ => 1,
        },
        Price::Product => tenths(size(0)).max(1) * tenths(size(1)),
        Price::Regex => regex(size(0), size(1)),
        Price::Items => size(0),
        Price::Member => match arguments.get(1) {
            Some(Value::Map(_)) => 1,
            _ => size(1),
        },
        Price::Pairs => size(0).saturating_mul(size(1).max(1)),
    };
    meter.charge(units)
}

fn walked(arguments: &[Value]) -> u64 {
    match arguments.first() {
        Some(Value::String(text)) => text.len() as u64 / BYTES_PER_UNIT,
        _ => 0,
    }
}

/// An expression of a regular expression is taken to be four characters long.
fn regex(text: u64, pattern: u64) -> u64 {
    tenths(text.saturating_add(1)).saturating_mul(pattern.div_ceil(4))
}

/// Whether values of a type are of a size that does not vary.
fn is_fixed(kind: &Type) -> bool {
    !is_text(kind)
        && !kind.is_dynamic()
        && !matches!(kind.kind, TypeKind::List(_) | TypeKind::Map(_) | TypeKind::Optional(_))
}

fn is_text(kind: &Type) -> bool {
    matches!(kind.kind, TypeKind::String | TypeKind::Bytes)
}

/// The type of a result with the sizes that arguments of these types allow.
pub fn result(grows: Grows, arguments: &[Type], result: Type) -> Type {
    let size = |index: usize| arguments.get(index).map_or(Size::SCALAR, |argument| argument.size);
    match grows {
        Grows::Type => result,
        Grows::Same => result.sized(size(0)),
        Grows::Sum => match arguments.iter().any(|a| is_text(a) || matches!(a.kind, TypeKind::List(_))) {
            true => result.sized(size(0).plus(size(1))),
            false => result,
        },
        Grows::Quoted => {
            let max = size(0).max.saturating_mul(4).saturating_add(2);
            result.sized(Size { min: size(0).min, max })
        }
        Grows::Parts => match result.kind {
            TypeKind::List(_) => {
                let item = Type::of(TypeKind::String).sized(Size::at_most(size(0).max));
                Type::list(item).sized(Size::at_most(size(0).max))
            }
            _ => result.sized(Size::at_most(size(0).max)),
        },
        Grows::Replaced => result.sized(replaced(size(0), size(1), size(2))),
        Grows::Joined => {
            let (list, item) = (size(0), arguments.first().map_or(Size::UNKNOWN, |list| list.item().size));
            let between = size(1).max.saturating_mul(u64::from(arguments.len() > 1));
            result.sized(Size::at_most(list.max.saturating_mul(item.max.saturating_add(between))))
        }
    }
}

fn replaced(text: Size, what: Size, with: Size) -> Size {
    let max = match what.min {
        // An empty text is found around each character.
        0 => text.max.saturating_add(1).saturating_mul(with.max).saturating_add(text.max),
        least if with.max <= least => text.max,
        least => text.max.div_ceil(least).saturating_mul(with.max).max(text.max),
    };
    Size::at_most(max)
}
