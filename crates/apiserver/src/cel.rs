//! The Common Expression Language as Kubernetes has it: compiling, checking, estimating and evaluating expressions.
//!
//! ```text
//! text --source--> syntax tree --check--> Program --eval--> Value
//! ```
//!
//! Of the `cel` crate only the parser is used. Its evaluator knows no limit of cost, which rules written by strangers
//! need, and it checks no types, without which a rule on a field that does not exist would fail for each object
//! instead of being refused once. So expressions are checked against [`types`] and compiled into [`node`]s, and each
//! step of evaluating them has a price ([`cost`]).
//!
//! [`rules`] evaluates the `x-kubernetes-validations` of a schema. Nothing else here knows of schemas or objects, so
//! that policies and match conditions can use it as well.
//!
//! Expressions that share named ones ([`Composition`]) are evaluated in a [`Scope`].
//!
//! Expressions that make patches construct objects ([`constructed`]), whose JSON is taken ([`json`]).
//!
//! Deliberately absent: `semver`, messages of protocol buffers.

mod check;
mod composition;
pub mod constructed;
mod cost;
mod error;
mod eval;
mod functions;
pub mod json;
mod library;
mod node;
pub mod rules;
mod source;
mod types;
mod value;

#[cfg(test)]
mod tests;

pub use composition::{Composition, Scope};
pub use cost::Budget;
pub use error::{CompileError, EvalError};
pub use library::authz::{Access, Authority, Check, Decision, Resource};
pub use types::{Field, ObjectType, Opaque, Type, TypeKind};
pub use value::{OpaqueValue, Outcome, Value};

use cost::{CALL_LIMIT, Meter};
use node::Node;

/// Does work that compiles several expressions: one thread for all of them. Without a thread the work is done here, and
/// whatever it compiles fails.
pub fn batch<T: Send>(work: impl Fn() -> T + Sync) -> T {
    source::on_large_stack(&work).unwrap_or_else(|error| {
        tracing::warn!(%error, "expressions cannot be compiled");
        work()
    })
}

/// What an expression may use.
#[derive(Clone, Copy)]
pub struct Declarations<'d> {
    /// Variables, in the order in which their values are given.
    pub variables: &'d [(String, Type)],
    /// Expressions that it may use as `variables.NAME`.
    pub composition: Option<&'d Composition>,
    /// Whether it may construct objects and patches.
    pub makes_patches: bool,
}

/// A compiled expression.
pub struct Program {
    root: Node,
    result: Type,
    cost: u64,
    used: Vec<bool>,
    /// Levels of recursion that its evaluation takes.
    depth: usize,
}

impl Program {
    /// Compiles an expression that may use these variables.
    pub fn compile(expression: &str, variables: &[(String, Type)]) -> Result<Self, CompileError> {
        let declared = Declarations { variables, composition: None, makes_patches: false };
        Self::compile_with(expression, declared)
    }

    /// Compiles an expression that may use what is declared.
    pub fn compile_with(expression: &str, declared: Declarations<'_>) -> Result<Self, CompileError> {
        let compiled = source::on_large_stack(|| {
            let (parsed, source) = source::Source::parse(expression)?;
            check::check(&parsed, &source, declared)
        });
        compiled.unwrap_or_else(|error| Err(CompileError(error.to_string())))
    }

    /// The type of the result.
    pub fn result(&self) -> &Type {
        &self.result
    }

    /// Upper bound of the cost of an evaluation, by the sizes that the types of the variables allow.
    pub fn estimated_cost(&self) -> u64 {
        self.cost
    }

    /// Whether the expression uses the variable at this position.
    pub fn uses(&self, variable: usize) -> bool {
        self.used.get(variable).copied().unwrap_or(false)
    }

    /// Evaluates the expression with values for its variables, in their order. Ends with an error when it has cost as
    /// much as one evaluation may, or as is left of the budget.
    pub fn evaluate<'a>(&'a self, bindings: &[Value<'a>], budget: &mut Budget) -> Outcome<'a> {
        let remaining = budget.remaining();
        if remaining == 0 {
            return Err(EvalError::BudgetExhausted);
        }
        let mut meter = Meter::new(CALL_LIMIT.min(remaining));
        let outcome = eval::Machine::new(bindings, None, &mut meter).evaluate(&self.root);
        budget.spend(meter.spent());
        match outcome {
            Err(EvalError::CostLimit) if remaining < CALL_LIMIT => Err(EvalError::BudgetExhausted),
            outcome => outcome,
        }
    }

    /// Evaluates the expression in a scope. What composed expressions cost that it is the first to use is taken from
    /// the budget too.
    pub fn evaluate_in<'a>(&'a self, scope: &Scope<'a>, budget: &mut Budget) -> Outcome<'a> {
        let remaining = budget.remaining();
        if remaining == 0 {
            return Err(EvalError::BudgetExhausted);
        }
        scope.allow(remaining);
        let mut meter = Meter::new(CALL_LIMIT.min(remaining));
        let outcome = eval::Machine::new(&scope.variables, Some(scope), &mut meter).evaluate(&self.root);
        let spent = meter.spent().saturating_add(remaining - scope.allow(0));
        budget.spend(spent);
        match outcome {
            Err(EvalError::CostLimit) if remaining < CALL_LIMIT => Err(EvalError::BudgetExhausted),
            Ok(_) if spent > remaining => Err(EvalError::BudgetExhausted),
            outcome => outcome,
        }
    }
}
