//! From parsed expressions to compiled ones: names are resolved, types checked, costs estimated.

mod calls;
mod macros;

use std::sync::Arc;

use cel::common::ast::{
    EntryExpr, Expr, IdedExpr, ListExpr, LiteralValue, MapExpr, SelectExpr, StructExpr, StructFieldExpr,
};

use super::composition::Composition;
use super::constructed;
use super::cost;
use super::error::CompileError;
use super::node::{Assignment, Construct, Element, Entry, Node, Select};
use super::source::{Problem, Source};
use super::types::{DYN, Size, Type, TypeKind};
use super::value::Value;
use super::{Declarations, Program};

/// Levels that expressions may be nested within each other; their evaluation recurses as deep.
const MAX_DEPTH: usize = 100;
/// The same with the expressions of a composition that one uses, and those that they use.
const MAX_COMPOSED_DEPTH: usize = 200;
/// The name under which the expressions of a composition are used.
const COMPOSED: &str = "variables";
/// Levels of lists and maps in an expression. With the macros of an expression this bounds how deep values are.
const MAX_LITERAL_DEPTH: usize = 16;

/// A checked expression.
pub struct Checked {
    /// How it is evaluated.
    pub node: Node,
    /// The type of its result.
    pub kind: Type,
    /// Upper bound of its cost.
    pub cost: u64,
}

/// Checks and compiles a parsed expression.
pub fn check(
    expression: &IdedExpr,
    source: &Source,
    declared: Declarations<'_>,
) -> Result<Program, CompileError> {
    let Declarations { variables, composition, makes_patches } = declared;
    let mut checker = Checker {
        variables,
        composition,
        makes_patches,
        source,
        scopes: Vec::new(),
        problems: Vec::new(),
        used: vec![false; variables.len()],
        depth: 0,
        deepest: 0,
        literal_depth: 0,
        allows_mixed: false,
    };
    let checked = checker.check(expression);
    if checker.problems.is_empty() {
        let (used, depth) = (checker.used, checker.deepest);
        Ok(Program { root: checked.node, result: checked.kind, cost: checked.cost, used, depth })
    } else {
        Err(source.report(checker.problems))
    }
}

struct Checker<'c> {
    variables: &'c [(String, Type)],
    composition: Option<&'c Composition>,
    /// Whether objects and patches can be constructed.
    makes_patches: bool,
    source: &'c Source,
    /// Variables of macros, the innermost last.
    scopes: Vec<(String, Type)>,
    problems: Vec<Problem>,
    used: Vec<bool>,
    depth: usize,
    /// The most levels there were, with those of composed expressions.
    deepest: usize,
    literal_depth: usize,
    /// Lists may have items of several types: they are in the arguments of `format`.
    allows_mixed: bool,
}

impl Checker<'_> {
    fn check(&mut self, expression: &IdedExpr) -> Checked {
        if self.depth == MAX_DEPTH {
            return self.fail(expression.id, "expression recursion limit exceeded".to_owned());
        }
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
        let checked = match &expression.expr {
            Expr::Literal(literal) => constant(literal),
            Expr::Ident(name) => self.name(expression.id, name),
            Expr::Select(select) => self.select(expression, select),
            Expr::Call(call) => self.call(expression.id, call),
            Expr::List(list) => self.list(list),
            Expr::Map(map) => self.map(map),
            Expr::Struct(object) => self.construct(expression.id, object),
            Expr::Comprehension(_) | Expr::Unspecified => {
                self.fail(expression.id, "unexpected expression".to_owned())
            }
        };
        self.depth -= 1;
        checked
    }

    fn fail(&mut self, id: u64, text: String) -> Checked {
        self.problems.push(Problem { offset: self.source.offset(id), text });
        Checked { node: Node::Constant(Value::Null), kind: Type::of(TypeKind::Unknown), cost: 0 }
    }

    fn undeclared(&mut self, id: u64, name: &str) -> Checked {
        self.fail(id, format!("undeclared reference to '{name}' (in container '')"))
    }

    /// The expression, which has to be of a type.
    fn expect(&mut self, expression: &IdedExpr, kind: TypeKind) -> Checked {
        let checked = self.check(expression);
        let expected = Type::of(kind);
        if expected.accepts(&checked.kind) {
            return checked;
        }
        self.fail(expression.id, format!("expected type '{expected}' but found '{}'", checked.kind))
    }

    fn name(&mut self, id: u64, name: &str) -> Checked {
        let plain = name.strip_prefix('.').unwrap_or(name);
        if let Some(local) = self.scopes.iter().rposition(|(known, _)| known == name) {
            let kind = self.scopes[local].1.clone();
            return Checked { node: Node::Local(local), kind, cost: cost::SELECT };
        }
        if let Some(index) = self.variables.iter().position(|(known, _)| known == plain) {
            self.used[index] = true;
            let kind = self.variables[index].1.clone();
            return Checked { node: Node::Variable(index), kind, cost: cost::SELECT };
        }
        match type_named(plain) {
            Some(name) => type_constant(name),
            None => self.undeclared(id, name),
        }
    }

    fn select(&mut self, expression: &IdedExpr, select: &SelectExpr) -> Checked {
        let name = qualified(expression);
        if let Some(name) = name.as_deref().and_then(type_named) {
            return type_constant(name);
        }
        if let Some(checked) = name.and_then(|name| self.qualified_name(expression.id, &name)) {
            return checked;
        }
        let operand = self.check(&select.operand);
        self.field(expression.id, operand, &select.field, false)
    }

    /// A variable whose name has dots, or an expression of the composition; `None` where the name is neither.
    fn qualified_name(&mut self, id: u64, name: &str) -> Option<Checked> {
        let name = name.strip_prefix('.').unwrap_or(name);
        let (first, rest) = name.split_once('.')?;
        if self.scopes.iter().any(|(known, _)| known == first) {
            return None;
        }
        if self.variables.iter().any(|(known, _)| known == name) {
            return Some(self.name(id, name));
        }
        match self.composition {
            Some(composition) if first == COMPOSED && !rest.contains('.') => {
                Some(self.composed(id, composition, rest))
            }
            _ => None,
        }
    }

    /// `variables.NAME`
    fn composed(&mut self, id: u64, composition: &Composition, name: &str) -> Checked {
        let Some(index) = composition.position(name) else {
            return self.fail(id, format!("undefined field '{name}'"));
        };
        self.deepest = self.deepest.max(self.depth + composition.depth(index));
        if self.deepest > MAX_COMPOSED_DEPTH {
            return self.fail(id, "expression recursion limit exceeded".to_owned());
        }
        Checked { node: Node::Composed(index), kind: composition.kind(index), cost: 2 * cost::SELECT }
    }

    /// `operand.field` or, where it `is_optional`, `operand.?field`.
    fn field(&mut self, id: u64, operand: Checked, field: &str, is_optional: bool) -> Checked {
        let (kind, wraps) = match &operand.kind.kind {
            TypeKind::Optional(inner) => (Type::clone(inner), true),
            _ => (operand.kind.clone(), is_optional),
        };
        let Some(result) = self.field_type(id, &kind, field) else {
            return Checked { node: operand.node, kind: Type::of(TypeKind::Unknown), cost: 0 };
        };
        let cost = operand.cost.saturating_add(cost::SELECT);
        let select = Select { operand: operand.node, field: field.into(), is_optional };
        let kind = if wraps { Type::optional(result) } else { result };
        Checked { node: Node::Select(Box::new(select)), kind, cost }
    }

    fn field_type(&mut self, id: u64, kind: &Type, field: &str) -> Option<Type> {
        match &kind.kind {
            TypeKind::Map(map) => Some(map.value.clone()),
            TypeKind::Object(object) => match object.fields.get(field) {
                Some(field) => Some(field.kind.clone()),
                None => {
                    self.fail(id, format!("undefined field '{field}'"));
                    None
                }
            },
            TypeKind::Constructed(name) => match constructed::field_type(name, field) {
                Some(field) => Some(field),
                None => {
                    self.fail(id, format!("undefined field '{field}'"));
                    None
                }
            },
            TypeKind::Dyn | TypeKind::Unknown => Some(DYN.clone()),
            _ => {
                self.fail(id, format!("type '{kind}' does not support field selection"));
                None
            }
        }
    }

    fn list(&mut self, list: &ListExpr) -> Checked {
        let mut item: Option<Type> = None;
        let (mut elements, mut cost) = (Vec::with_capacity(list.elements.len()), cost::LIST);
        self.literal_depth += 1;
        for (index, element) in list.elements.iter().enumerate() {
            let is_optional = list.optional_indices.contains(&index);
            let checked = self.element(element, is_optional);
            cost = cost.saturating_add(checked.cost);
            item = Some(self.join(element.id, item, &checked.kind));
            elements.push(Element { value: checked.node, is_optional });
        }
        self.close_literal(list.elements.first().map_or(0, |first| first.id));
        let size =
            Size { min: (elements.len() - list.optional_indices.len()) as u64, max: elements.len() as u64 };
        let kind = Type::list(item.unwrap_or_else(|| Type::of(TypeKind::Unknown))).sized(size);
        Checked { node: Node::List(elements.into()), kind, cost }
    }

    fn map(&mut self, map: &MapExpr) -> Checked {
        let (mut key_type, mut value_type): (Option<Type>, Option<Type>) = (None, None);
        let (mut entries, mut cost) = (Vec::with_capacity(map.entries.len()), cost::MAP);
        self.literal_depth += 1;
        for entry in &map.entries {
            let EntryExpr::MapEntry(entry) = &entry.expr else { continue };
            let key = self.check(&entry.key);
            if !matches!(key.kind.kind, TypeKind::Bool | TypeKind::Int | TypeKind::Uint | TypeKind::String)
                && !key.kind.is_dynamic()
            {
                self.fail(entry.key.id, format!("unsupported map key type: {}", key.kind));
            }
            let value = self.element(&entry.value, entry.optional);
            cost = cost.saturating_add(key.cost).saturating_add(value.cost);
            key_type = Some(self.join(entry.key.id, key_type, &key.kind));
            value_type = Some(self.join(entry.value.id, value_type, &value.kind));
            entries.push(Entry { key: key.node, value: value.node, is_optional: entry.optional });
        }
        self.close_literal(map.entries.first().map_or(0, |first| first.id));
        let unknown = || Type::of(TypeKind::Unknown);
        let kind = Type::map(key_type.unwrap_or_else(unknown), value_type.unwrap_or_else(unknown));
        let kind = kind.sized(Size::at_most(entries.len() as u64));
        Checked { node: Node::Map(entries.into()), kind, cost }
    }

    /// `Object.spec{field: value}`
    fn construct(&mut self, id: u64, object: &StructExpr) -> Checked {
        let name = object.type_name.strip_prefix('.').unwrap_or(&object.type_name);
        if !self.makes_patches || !constructed::is_type(name) {
            return self.undeclared(id, &object.type_name);
        }
        let (mut fields, mut cost) = (Vec::with_capacity(object.entries.len()), cost::OBJECT);
        self.literal_depth += 1;
        for entry in &object.entries {
            let EntryExpr::StructField(StructFieldExpr { field, value, optional }) = &entry.expr else {
                continue;
            };
            let checked = self.element(value, *optional);
            cost = cost.saturating_add(checked.cost);
            match constructed::field_type(name, field) {
                None => _ = self.fail(entry.id, format!("undefined field '{field}'")),
                Some(expected) if !expected.accepts(&checked.kind) => {
                    let given = checked.kind;
                    let text = format!(
                        "expected type of field '{field}' is '{expected}' but provided type is '{given}'"
                    );
                    self.fail(entry.id, text);
                }
                Some(_) => {
                    let (field, is_optional) = (field.as_str().into(), *optional);
                    fields.push(Assignment { field, value: checked.node, is_optional });
                }
            }
        }
        self.close_literal(id);
        let construct = Construct { name: name.into(), fields: fields.into() };
        let kind = Type::of(TypeKind::Constructed(name.into()));
        Checked { node: Node::Construct(Box::new(construct)), kind, cost }
    }

    fn close_literal(&mut self, id: u64) {
        if self.literal_depth > MAX_LITERAL_DEPTH {
            self.fail(id, format!("lists and maps are nested more than {MAX_LITERAL_DEPTH} levels deep"));
        }
        self.literal_depth -= 1;
    }

    /// The value of an item or entry; where it `is_optional`, an optional value is unwrapped.
    fn element(&mut self, expression: &IdedExpr, is_optional: bool) -> Checked {
        let mut checked = self.check(expression);
        if is_optional {
            let inner = match &checked.kind.kind {
                TypeKind::Optional(inner) => Some(Arc::clone(inner)),
                _ => None,
            };
            match inner {
                Some(inner) => checked.kind = Type::clone(&inner),
                None if checked.kind.is_dynamic() => {}
                None => {
                    let text = format!("expected type 'optional_type({0})' but found '{0}'", checked.kind);
                    return self.fail(expression.id, text);
                }
            }
        }
        checked
    }

    /// The type of an item and of those before it.
    fn join(&mut self, id: u64, known: Option<Type>, next: &Type) -> Type {
        let Some(known) = known else { return next.clone() };
        match known.join(next) {
            Some(joined) => joined,
            None if self.allows_mixed => DYN.clone().sized(known.size.union(next.size)),
            None => {
                self.fail(id, format!("expected type '{known}' but found '{next}'"));
                known
            }
        }
    }
}

fn constant(literal: &LiteralValue) -> Checked {
    let of = |value, kind| (Node::Constant(value), Type::of(kind));
    let (node, kind) = match literal {
        LiteralValue::Boolean(b) => of(Value::Bool(*b.inner()), TypeKind::Bool),
        LiteralValue::Int(n) => of(Value::Int(*n.inner()), TypeKind::Int),
        LiteralValue::UInt(n) => of(Value::Uint(*n.inner()), TypeKind::Uint),
        LiteralValue::Double(n) => of(Value::Double(*n.inner()), TypeKind::Double),
        LiteralValue::Null => of(Value::Null, TypeKind::Null),
        LiteralValue::Bytes(bytes) => {
            let bytes = bytes.inner();
            let size = Size::exactly(bytes.len() as u64);
            (Node::Constant(Value::Bytes(bytes.into())), Type::of(TypeKind::Bytes).sized(size))
        }
        LiteralValue::String(text) => {
            let text = text.inner();
            let size = Size::exactly(text.chars().count() as u64);
            (Node::Text(text.into()), Type::of(TypeKind::String).sized(size))
        }
    };
    Checked { node, kind, cost: 0 }
}

fn type_constant(name: &'static str) -> Checked {
    Checked { node: Node::Constant(Value::Type(name)), kind: Type::of(TypeKind::Type), cost: cost::SELECT }
}

/// The types that have a name in expressions.
fn type_named(name: &str) -> Option<&'static str> {
    const NAMES: [&str; 18] = [
        "bool",
        "bytes",
        "double",
        "int",
        "list",
        "map",
        "null_type",
        "string",
        "type",
        "uint",
        "optional_type",
        "google.protobuf.Duration",
        "google.protobuf.Timestamp",
        "kubernetes.Quantity",
        "kubernetes.URL",
        "kubernetes.NamedFormat",
        "net.IP",
        "net.CIDR",
    ];
    NAMES.into_iter().find(|known| *known == name)
}

/// The name that selections on a name spell, like `a.b.c`.
fn qualified(expression: &IdedExpr) -> Option<String> {
    match &expression.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) if !select.test => {
            Some(format!("{}.{}", qualified(&select.operand)?, select.field))
        }
        _ => None,
    }
}
