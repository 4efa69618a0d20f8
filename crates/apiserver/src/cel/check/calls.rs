//! Operators and calls of functions.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue};

use super::{Checked, Checker, qualified};
use crate::cel::cost::{self, Meter};
use crate::cel::functions::{self, Function, Overload};
use crate::cel::library::jsonpatch::ESCAPE_KEY;
use crate::cel::library::regex;
use crate::cel::node::{Call, Index, Node, OrElse, RegexCall};
use crate::cel::types::{Type, TypeKind};
use crate::cel::value::Value;

impl Checker<'_> {
    pub(super) fn call(&mut self, id: u64, call: &CallExpr) -> Checked {
        match (call.func_name.as_str(), &call.target, call.args.as_slice()) {
            ("_&&_", None, args) => self.logic(args, "_&&_", Node::And),
            ("_||_", None, args) => self.logic(args, "_||_", Node::Or),
            ("_?_:_", None, [condition, yes, no]) => self.conditional(id, condition, yes, no),
            ("_?._", None, [operand, field]) => {
                let Expr::Literal(LiteralValue::String(name)) = &field.expr else {
                    return self.fail(field.id, "unsupported optional field selection".to_owned());
                };
                let operand = self.check(operand);
                self.field(id, operand, name.inner(), true)
            }
            ("_[_]", None, [operand, key]) => self.index(id, operand, key, false),
            ("_[?_]", None, [operand, key]) => self.index(id, operand, key, true),
            ("has", None, [field]) => self.has(field),
            (name, None, args) => match self.find_function(name) {
                Some(function) => self.function(id, function, None, args),
                None => self.undeclared_call(id, name, args),
            },
            (name, Some(target), args) => self.method(id, name, target, args),
        }
    }

    /// The function of a name, if these expressions may call it.
    fn find_function(&self, name: &str) -> Option<&'static Function> {
        functions::find(name).filter(|_| self.makes_patches || name != ESCAPE_KEY)
    }

    fn undeclared_call(&mut self, id: u64, name: &str, args: &[IdedExpr]) -> Checked {
        for argument in args {
            self.check(argument);
        }
        self.undeclared(id, name)
    }

    /// A method, a macro, or a function of a namespace.
    fn method(&mut self, id: u64, name: &str, target: &IdedExpr, args: &[IdedExpr]) -> Checked {
        let namespaced = qualified(target).map(|namespace| format!("{namespace}.{name}"));
        if let Some(function) = namespaced.as_deref().and_then(|name| self.find_function(name)) {
            return self.function(id, function, None, args);
        }
        if let Some(checked) = self.expand(id, name, target, args) {
            return checked;
        }
        let target = self.check(target);
        match self.find_function(name) {
            Some(function) => self.function(id, function, Some(target), args),
            None => self.undeclared_call(id, name, args),
        }
    }

    fn logic(&mut self, args: &[IdedExpr], name: &str, node: fn(Box<[Node]>) -> Node) -> Checked {
        let (mut terms, mut cost) = (Vec::new(), 0u64);
        self.flatten(args, name, &mut terms, &mut cost);
        Checked { node: node(terms.into()), kind: Type::of(TypeKind::Bool), cost }
    }

    /// Terms of the same operator become terms of one, which needs no recursion.
    fn flatten(&mut self, args: &[IdedExpr], name: &str, terms: &mut Vec<Node>, cost: &mut u64) {
        for argument in args {
            match &argument.expr {
                Expr::Call(inner) if inner.func_name == name && inner.target.is_none() => {
                    self.flatten(&inner.args, name, terms, cost);
                }
                _ => {
                    let checked = self.expect(argument, TypeKind::Bool);
                    *cost = cost.saturating_add(checked.cost);
                    terms.push(checked.node);
                }
            }
        }
    }

    fn conditional(&mut self, id: u64, condition: &IdedExpr, yes: &IdedExpr, no: &IdedExpr) -> Checked {
        let (condition, yes, no) = (self.check(condition), self.check(yes), self.check(no));
        let joined = yes.kind.join(&no.kind).filter(|_| Type::of(TypeKind::Bool).accepts(&condition.kind));
        let Some(kind) = joined else {
            return self.no_overload(id, "_?_:_", &[condition.kind, yes.kind, no.kind], false);
        };
        let cost = condition.cost.saturating_add(yes.cost.max(no.cost));
        Checked { node: Node::Conditional(Box::new([condition.node, yes.node, no.node])), kind, cost }
    }

    fn no_overload(&mut self, id: u64, name: &str, given: &[Type], is_method: bool) -> Checked {
        let mut names: Vec<String> = given.iter().map(Type::to_string).collect();
        let target = if is_method { format!("{}.", names.remove(0)) } else { String::new() };
        let names = names.join(", ");
        self.fail(id, format!("found no matching overload for '{name}' applied to '{target}({names})'"))
    }

    fn index(&mut self, id: u64, operand: &IdedExpr, key: &IdedExpr, is_optional: bool) -> Checked {
        let (operand, key) = (self.check(operand), self.check(key));
        let (container, wraps) = match &operand.kind.kind {
            TypeKind::Optional(inner) => (Type::clone(inner), true),
            _ => (operand.kind.clone(), is_optional),
        };
        let fits = match &container.kind {
            TypeKind::List(_) => Type::of(TypeKind::Int).accepts(&key.kind),
            TypeKind::Map(map) => map.key.accepts(&key.kind),
            TypeKind::Dyn | TypeKind::Unknown => true,
            _ => false,
        };
        if !fits {
            let name = if is_optional { "_[?_]" } else { "_[_]" };
            return self.no_overload(id, name, &[operand.kind, key.kind], false);
        }
        let item = container.item();
        let cost = operand.cost.saturating_add(key.cost).saturating_add(cost::SELECT);
        let index = Index { operand: operand.node, key: key.node, is_optional };
        let kind = if wraps { Type::optional(item) } else { item };
        Checked { node: Node::Index(Box::new(index)), kind, cost }
    }

    fn has(&mut self, field: &IdedExpr) -> Checked {
        let known = qualified(field).and_then(|name| self.qualified_name(field.id, &name));
        if let Some(known) = known {
            // Composed expressions are there whenever their names are.
            let node = Node::Constant(Value::Bool(true));
            return Checked { node, kind: Type::of(TypeKind::Bool), cost: known.cost };
        }
        let selected = match &field.expr {
            Expr::Select(select) => {
                let operand = self.check(&select.operand);
                self.field(field.id, operand, &select.field, false)
            }
            _ => return self.fail(field.id, "invalid argument to has() macro".to_owned()),
        };
        let node = match selected.node {
            Node::Select(select) => Node::Has(select),
            // What is wrong with it has been said.
            other => other,
        };
        // Asking whether a field is there costs nothing besides what it is a field of.
        Checked { node, kind: Type::of(TypeKind::Bool), cost: selected.cost.saturating_sub(cost::SELECT) }
    }

    fn function(
        &mut self,
        id: u64,
        function: &'static Function,
        target: Option<Checked>,
        args: &[IdedExpr],
    ) -> Checked {
        let is_method = target.is_some();
        let (mut nodes, mut kinds, mut cost) = (Vec::new(), Vec::new(), 0u64);
        let mut add = |checked: Checked| {
            cost = cost.saturating_add(checked.cost);
            nodes.push(checked.node);
            kinds.push(checked.kind);
        };
        target.into_iter().for_each(&mut add);
        let allowed_mixed = self.allows_mixed;
        self.allows_mixed |= function.name == "format";
        for argument in args {
            add(self.check(argument));
        }
        self.allows_mixed = allowed_mixed;
        let Some(result) = resolve(&function.overloads, &kinds, is_method) else {
            return self.no_overload(id, function.name, &kinds, is_method);
        };
        let kind = cost::result(function.grows, &kinds, result);
        let cost = cost.saturating_add(cost::estimate(function.price, &kinds));
        let place = args.first().map_or(id, |first| first.id);
        match self.special(place, function, nodes) {
            Some(node) => Checked { node, kind, cost },
            None => Checked { node: Node::Constant(Value::Null), kind, cost },
        }
    }

    /// Calls of which more is known than that they are calls. `None` where the arguments are wrong, which is said.
    fn special(&mut self, id: u64, function: &'static Function, mut nodes: Vec<Node>) -> Option<Node> {
        match (function.name, nodes.as_slice()) {
            ("or" | "orValue", [_, _]) => {
                let (other, operand) = (nodes.pop()?, nodes.pop()?);
                let is_value = function.name == "orValue";
                return Some(Node::OrElse(Box::new(OrElse { operand, other, is_value })));
            }
            ("duration" | "timestamp" | "quantity" | "ip" | "cidr", [Node::Text(text)]) => {
                let value = (function.run)(&mut Meter::new(u64::MAX), &[Value::made(&**text)]);
                match value {
                    Ok(value) => return Some(Node::Constant(value)),
                    Err(_) if matches!(function.name, "duration" | "timestamp") => {
                        self.fail(id, format!("invalid {} argument", function.name));
                        return None;
                    }
                    // Other functions fail where they are evaluated.
                    Err(_) => {}
                }
            }
            (name, [_, Node::Text(pattern), ..]) => {
                if let Some(apply) = regex::with_pattern(name) {
                    let Ok(compiled) = regex::compile(pattern) else {
                        self.fail(id, format!("invalid {name} argument"));
                        return None;
                    };
                    let Node::Text(pattern) = nodes.remove(1) else { return None };
                    let (arguments, states) = (nodes.into(), regex::states(&pattern));
                    let call = RegexCall { apply, regex: compiled, pattern, states, arguments };
                    return Some(Node::Regex(Box::new(call)));
                }
            }
            _ => {}
        }
        Some(Node::Call(Box::new(Call { function, arguments: nodes.into() })))
    }
}

/// The result of the overloads that accept these arguments; `dyn` where they have several.
fn resolve(overloads: &[Overload], given: &[Type], is_method: bool) -> Option<Type> {
    let mut result: Option<Type> = None;
    for overload in overloads {
        if overload.is_method != is_method || overload.parameters.len() != given.len() {
            continue;
        }
        let mut bindings = [None, None];
        let mut pairs = overload.parameters.iter().zip(given);
        if !pairs.all(|(parameter, given)| parameter.unify(given, &mut bindings)) {
            continue;
        }
        let this = overload.result.bound(&bindings);
        result = Some(match result {
            None => this,
            Some(known) if known.to_string() == this.to_string() => known,
            Some(_) => Type::of(TypeKind::Dyn),
        });
    }
    result
}
