//! Compiled expressions: names are resolved, macros are loops, constants are made.

use regex::Regex;

use super::functions::Function;
use super::library::regex::Apply;
use super::value::Value;

/// An expression.
pub enum Node {
    /// A constant.
    Constant(Value<'static>),
    /// A constant text, which values borrow.
    Text(Box<str>),
    /// A variable of the environment, by its position.
    Variable(usize),
    /// A variable of a macro, by its position among those in force.
    Local(usize),
    /// `variables.a`: an expression of the composition, by its position.
    Composed(usize),
    /// `a.b`
    Select(Box<Select>),
    /// `has(a.b)`
    Has(Box<Select>),
    /// `a[b]`
    Index(Box<Index>),
    /// `a && b`
    And(Box<[Node]>),
    /// `a || b`
    Or(Box<[Node]>),
    /// `a ? b : c`
    Conditional(Box<[Node; 3]>),
    /// `a.or(b)` and `a.orValue(b)`
    OrElse(Box<OrElse>),
    /// `[a, ?b]`
    List(Box<[Element]>),
    /// `{a: b, ?c: d}`
    Map(Box<[Entry]>),
    /// `Object.spec{a: b, ?c: d}`
    Construct(Box<Construct>),
    /// A call.
    Call(Box<Call>),
    /// A call of a function of regular expressions with a constant pattern.
    Regex(Box<RegexCall>),
    /// A macro over the items of a list or map.
    Fold(Box<Fold>),
    /// `a.optMap(b, c)` and `a.optFlatMap(b, c)`
    OptionalMap(Box<OptionalMap>),
}

/// A field of a value.
pub struct Select {
    pub operand: Node,
    /// As the expression names it.
    pub field: Box<str>,
    /// `a.?b`: an optional value, which is absent where the field is.
    pub is_optional: bool,
}

/// An item of a list or a map.
pub struct Index {
    pub operand: Node,
    pub key: Node,
    /// `a[?b]`
    pub is_optional: bool,
}

/// A default.
pub struct OrElse {
    pub operand: Node,
    pub other: Node,
    /// Whether the result is the value and not an optional one.
    pub is_value: bool,
}

/// An item of a list literal.
pub struct Element {
    pub value: Node,
    /// The value is an optional one; where it is absent there is no item.
    pub is_optional: bool,
}

/// An entry of a map literal.
pub struct Entry {
    pub key: Node,
    pub value: Node,
    /// The value is an optional one; where it is absent there is no entry.
    pub is_optional: bool,
}

/// An object literal.
pub struct Construct {
    /// The name of its type.
    pub name: Box<str>,
    pub fields: Box<[Assignment]>,
}

/// A field of an object literal.
pub struct Assignment {
    pub field: Box<str>,
    pub value: Node,
    /// The value is an optional one; where it is absent the field is not set.
    pub is_optional: bool,
}

/// A function with its arguments.
pub struct Call {
    pub function: &'static Function,
    pub arguments: Box<[Node]>,
}

/// A function whose second argument is a constant pattern.
pub struct RegexCall {
    pub apply: Apply,
    pub regex: Regex,
    pub pattern: Box<str>,
    /// States that matching may have to look at for each byte of the text.
    pub states: u64,
    /// The text, and what follows the pattern.
    pub arguments: Box<[Node]>,
}

/// A loop.
pub struct Fold {
    pub range: Node,
    /// Whether there are two variables: index and item, or key and value.
    pub has_two: bool,
    pub kind: FoldKind,
    /// Items for which this is false are passed over.
    pub filter: Option<Node>,
    /// The expression that is evaluated for each item.
    pub body: Node,
}

/// The kind of result of a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoldKind {
    /// True if the body always is.
    All,
    /// True if the body is, once at least.
    Exists,
    /// True if the body is exactly once.
    ExistsOne,
    /// The list of what the body is.
    Map,
    /// The list of the items for which the body is true.
    Filter,
    /// The map of what the body is, by the first variable.
    MapValues,
    /// The map of all entries of the maps that the body is.
    MapEntries,
    /// The items, in the order of what the body is.
    SortBy,
}

/// A function of a value that may be absent.
pub struct OptionalMap {
    pub operand: Node,
    pub body: Node,
    /// Whether the body is an optional value itself.
    pub is_flat: bool,
}
