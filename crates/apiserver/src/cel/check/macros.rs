//! Macros: calls that evaluate an argument for each item of a list or map.

use cel::common::ast::{Expr, IdedExpr};

use super::{Checked, Checker};
use crate::cel::cost;
use crate::cel::node::{Fold, FoldKind, Node, OptionalMap};
use crate::cel::types::{DYN, Size, Type, TypeKind};

/// The arguments of a macro over items.
struct Loop<'e> {
    kind: FoldKind,
    variables: &'e [IdedExpr],
    filter: Option<&'e IdedExpr>,
    body: &'e IdedExpr,
}

/// The macro of a name with these arguments.
fn find<'e>(name: &str, args: &'e [IdedExpr]) -> Option<Loop<'e>> {
    use FoldKind::*;
    let (kind, variables) = match (name, args.len()) {
        ("all", 2) => (All, 1),
        ("exists", 2) => (Exists, 1),
        ("exists_one" | "existsOne", 2) => (ExistsOne, 1),
        ("map", 2 | 3) => (Map, 1),
        ("filter", 2) => (Filter, 1),
        ("sortBy", 2) => (SortBy, 1),
        ("all", 3) => (All, 2),
        ("exists", 3) => (Exists, 2),
        ("exists_one" | "existsOne", 3) => (ExistsOne, 2),
        ("transformList", 3 | 4) => (Map, 2),
        ("transformMap", 3 | 4) => (MapValues, 2),
        ("transformMapEntry", 3 | 4) => (MapEntries, 2),
        _ => return None,
    };
    let (variables, rest) = args.split_at(variables);
    let (body, filter) = rest.split_last()?;
    Some(Loop { kind, variables, filter: filter.first(), body })
}

impl Checker<'_> {
    /// The macro that a call is, if it is one.
    pub(super) fn expand(
        &mut self,
        id: u64,
        name: &str,
        target: &IdedExpr,
        args: &[IdedExpr],
    ) -> Option<Checked> {
        match (name, args) {
            ("optMap", [variable, body]) => Some(self.optional_map(id, target, variable, body, false)),
            ("optFlatMap", [variable, body]) => Some(self.optional_map(id, target, variable, body, true)),
            _ => Some(self.fold(target, &find(name, args)?)),
        }
    }

    fn variable(&mut self, expression: &IdedExpr) -> Option<String> {
        match &expression.expr {
            Expr::Ident(name) => Some(name.clone()),
            _ => {
                self.fail(expression.id, "argument must be a simple name".to_owned());
                None
            }
        }
    }

    fn fold(&mut self, target: &IdedExpr, parts: &Loop) -> Checked {
        let range = self.check(target);
        let kinds = self.variable_types(target.id, &range.kind, parts.variables.len() == 2);
        let mut names = Vec::new();
        for variable in parts.variables {
            match self.variable(variable) {
                Some(name) if names.contains(&name) => {
                    return self.fail(variable.id, format!("duplicate variable name: {name}"));
                }
                Some(name) => names.push(name),
                None => return Checked { node: range.node, kind: Type::of(TypeKind::Unknown), cost: 0 },
            }
        }
        let item = kinds.last().cloned().unwrap_or_else(|| DYN.clone());
        let first = kinds.first().cloned().unwrap_or_else(|| DYN.clone());
        let before = self.scopes.len();
        self.scopes.extend(names.into_iter().zip(kinds));
        let filter = parts.filter.map(|filter| self.expect(filter, TypeKind::Bool));
        let body = match parts.kind {
            FoldKind::All | FoldKind::Exists | FoldKind::ExistsOne | FoldKind::Filter => {
                self.expect(parts.body, TypeKind::Bool)
            }
            _ => self.check(parts.body),
        };
        self.scopes.truncate(before);
        let rounds = range.kind.size.max;
        let each = round_cost(parts.kind).saturating_add(body.cost);
        let each = each.saturating_add(filter.as_ref().map_or(0, |filter| filter.cost));
        let cost = range.cost.saturating_add(rounds.saturating_mul(each)).saturating_add(1);
        let kind = self.result(parts, item, first, &body.kind, rounds);
        let (filter, has_two) = (filter.map(|filter| filter.node), parts.variables.len() == 2);
        let fold = Fold { range: range.node, has_two, kind: parts.kind, filter, body: body.node };
        Checked { node: Node::Fold(Box::new(fold)), kind, cost }
    }

    /// The types of a macro's variables: the item or key, or index and item, or key and value.
    fn variable_types(&mut self, id: u64, range: &Type, has_two: bool) -> Vec<Type> {
        match &range.kind {
            TypeKind::List(list) if has_two => vec![Type::of(TypeKind::Int), list.item.clone()],
            TypeKind::List(list) => vec![list.item.clone()],
            TypeKind::Map(map) if has_two => vec![map.key.clone(), map.value.clone()],
            TypeKind::Map(map) => vec![map.key.clone()],
            kind => {
                if !matches!(kind, TypeKind::Dyn | TypeKind::Unknown) {
                    let text = format!(
                        "expression of type '{range}' cannot be range of a comprehension (must be list, map, or \
                         dynamic)"
                    );
                    self.fail(id, text);
                }
                vec![DYN.clone(); 1 + usize::from(has_two)]
            }
        }
    }

    fn result(&mut self, parts: &Loop, item: Type, first: Type, body: &Type, rounds: u64) -> Type {
        let size = Size::at_most(rounds);
        match parts.kind {
            FoldKind::All | FoldKind::Exists | FoldKind::ExistsOne => Type::of(TypeKind::Bool),
            FoldKind::Map => Type::list(body.clone()).sized(size),
            FoldKind::Filter | FoldKind::SortBy => Type::list(item).sized(size),
            FoldKind::MapValues => Type::map(first, body.clone()).sized(size),
            FoldKind::MapEntries => match &body.kind {
                TypeKind::Map(map) => {
                    Type::map(map.key.clone(), map.value.clone()).sized(size.times(body.size))
                }
                TypeKind::Dyn | TypeKind::Unknown => Type::map(DYN.clone(), DYN.clone()),
                _ => {
                    self.fail(parts.body.id, format!("expected type 'map(dyn, dyn)' but found '{body}'")).kind
                }
            },
        }
    }

    fn optional_map(
        &mut self,
        id: u64,
        target: &IdedExpr,
        variable: &IdedExpr,
        body: &IdedExpr,
        is_flat: bool,
    ) -> Checked {
        let operand = self.check(target);
        let inner = match &operand.kind.kind {
            TypeKind::Optional(inner) => Type::clone(inner),
            TypeKind::Dyn | TypeKind::Unknown => DYN.clone(),
            _ => {
                let name = if is_flat { "optFlatMap" } else { "optMap" };
                let text =
                    format!("found no matching overload for '{name}' applied to '{}.()'", operand.kind);
                return self.fail(id, text);
            }
        };
        let Some(name) = self.variable(variable) else { return operand };
        self.scopes.push((name, inner));
        let body = self.check(body);
        self.scopes.pop();
        let cost = operand.cost.saturating_add(body.cost).saturating_add(1);
        let kind = if is_flat { body.kind } else { Type::optional(body.kind) };
        let map = OptionalMap { operand: operand.node, body: body.node, is_flat };
        Checked { node: Node::OptionalMap(Box::new(map)), kind, cost }
    }
}

/// Upper bound of the cost of a round besides its parts.
fn round_cost(kind: FoldKind) -> u64 {
    kind.round() + if kind == FoldKind::Filter { 2 + cost::LIST } else { 0 }
}
