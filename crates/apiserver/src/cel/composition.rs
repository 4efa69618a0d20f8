//! Named expressions that others use as `variables.NAME`, evaluated when they are first used.

use std::cell::{Cell, OnceCell};
use std::sync::Arc;

use super::Program;
use super::cost::{CALL_LIMIT, Meter};
use super::error::EvalError;
use super::eval::Machine;
use super::types::{DYN, ListType, MapType, Type, TypeKind};
use super::value::{Outcome, Value};

/// Expressions with names. Each may use those before it.
pub struct Composition {
    entries: Vec<Entry>,
}

struct Entry {
    name: String,
    program: Result<Program, String>,
}

impl Composition {
    /// A composition without expressions.
    pub const fn empty() -> Self {
        Self { entries: Vec::new() }
    }

    /// Appends a compiled expression, or why it could not be compiled: whatever uses it then fails.
    pub fn push(&mut self, name: &str, program: Result<Program, String>) {
        self.entries.push(Entry { name: name.to_owned(), program });
    }

    /// The position of a name; of several with the same name, the last.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.entries.iter().rposition(|entry| entry.name == name)
    }

    /// The type of an entry, as others see it. As in Kubernetes, nothing is known of the fields of objects.
    pub(super) fn kind(&self, index: usize) -> Type {
        let entry = self.entries.get(index).and_then(|entry| entry.program.as_ref().ok());
        entry.map_or_else(|| DYN.clone(), |program| opened(program.result()))
    }

    /// Levels of recursion that the evaluation of an entry takes, with those of the entries that it uses.
    pub(super) fn depth(&self, index: usize) -> usize {
        self.entries
            .get(index)
            .and_then(|entry| entry.program.as_ref().ok())
            .map_or(0, |program| program.depth)
    }
}

fn opened(kind: &Type) -> Type {
    match &kind.kind {
        TypeKind::List(list) => {
            let item = opened(&list.item);
            let kind = ListType { item, identity: list.identity.clone() };
            Type::of(TypeKind::List(Arc::new(kind)))
        }
        TypeKind::Map(map) => {
            let kind = MapType { key: opened(&map.key), value: opened(&map.value) };
            Type::of(TypeKind::Map(Arc::new(kind)))
        }
        TypeKind::Object(_)
        | TypeKind::Optional(_)
        | TypeKind::Opaque(_)
        | TypeKind::Constructed(_)
        | TypeKind::Type => DYN.clone(),
        other => Type::of(other.clone()),
    }
}

/// The values that the expressions of one decision share: those of the environment's variables, in their order, and
/// those of the composition, each computed at most once.
pub struct Scope<'a> {
    pub(super) variables: Vec<Value<'a>>,
    composition: &'a Composition,
    computed: Vec<OnceCell<Outcome<'a>>>,
    /// What composed expressions may still cost.
    remaining: Cell<u64>,
}

impl<'a> Scope<'a> {
    /// A scope in which nothing is computed yet.
    pub fn new(variables: Vec<Value<'a>>, composition: &'a Composition) -> Self {
        let computed = composition.entries.iter().map(|_| OnceCell::new()).collect();
        Self { variables, composition, computed, remaining: Cell::new(0) }
    }

    /// Lets composed expressions cost this much; returns what was left before.
    pub(super) fn allow(&self, units: u64) -> u64 {
        self.remaining.replace(units)
    }

    /// The value of an entry of the composition. An error is kept as a value is.
    pub(super) fn composed(&self, index: usize) -> Outcome<'a> {
        let (Some(entry), Some(cell)) = (self.composition.entries.get(index), self.computed.get(index))
        else {
            return Err(EvalError::NoSuchOverload);
        };
        if let Some(known) = cell.get() {
            return known.clone();
        }
        let (name, failed) = (&entry.name, |error: String| Err(EvalError::Failed(error)));
        let outcome = match &entry.program {
            Err(error) => failed(format!("composited variable {name:?} fails to compile: {error}")),
            Ok(program) => {
                let remaining = self.remaining.get();
                let mut meter = Meter::new(CALL_LIMIT.min(remaining));
                let outcome = Machine::new(&self.variables, Some(self), &mut meter).evaluate(&program.root);
                self.remaining.set(self.remaining.get().saturating_sub(meter.spent()));
                match outcome {
                    // Nothing is left for any other expression either.
                    Err(EvalError::CostLimit) if remaining < CALL_LIMIT => {
                        return Err(EvalError::BudgetExhausted);
                    }
                    Err(EvalError::BudgetExhausted) => return Err(EvalError::BudgetExhausted),
                    Err(error) => failed(format!("composited variable {name:?} fails to evaluate: {error}")),
                    value => value,
                }
            }
        };
        cell.get_or_init(|| outcome).clone()
    }
}
