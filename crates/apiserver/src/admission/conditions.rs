//! Match conditions: expressions in CEL that say which writes a webhook or a policy is asked about.

use std::sync::Arc;

use serde_json::Value;

use super::expressions::{self, Results, evaluate};
use crate::cel::{self, Budget, EvalError, Program, Scope, Type, Value as CelValue};
use crate::edit::{list, text};

/// A condition: the expression, compiled, or why it could not be.
pub(super) struct Condition {
    expression: String,
    program: Result<Program, String>,
}

/// The compiled conditions of each webhook of a configuration, in their order.
pub(super) type Conditions = Arc<Vec<Vec<Condition>>>;

/// Limit of the cost of all conditions of a webhook or a policy for one write. As in Kubernetes.
const COST_LIMIT: u64 = 2_500_000;

/// Compiles an expression whose result is true or false.
///
/// # Errors
/// A sentence for users that describes the mistake in the expression.
pub(crate) fn compile(expression: &str, variables: &[(String, Type)]) -> Result<Program, String> {
    expressions::compile(expression, variables, None, Results::Bool)
}

/// The conditions of a list `matchConditions`.
pub(super) fn read(conditions: &Value, variables: &[(String, Type)]) -> Vec<Condition> {
    let condition = |condition: &Value| {
        let expression = text(&condition["expression"]).to_owned();
        Condition { program: compile(&expression, variables), expression }
    };
    list(conditions).iter().map(condition).collect()
}

/// The conditions of a configuration of webhooks.
pub(super) fn of(configuration: &Value) -> Conditions {
    let variables = expressions::variables(false, true);
    let read = |webhook: &Value| read(&webhook["matchConditions"], &variables);
    let webhooks = list(&configuration["webhooks"]);
    Arc::new(match webhooks.iter().any(|webhook| !list(&webhook["matchConditions"]).is_empty()) {
        true => cel::batch(|| webhooks.iter().map(read).collect()),
        false => webhooks.iter().map(read).collect(),
    })
}

/// Whether all conditions hold. One that does not decides, whatever becomes of the others.
///
/// # Errors
/// The conditions that could not be evaluated, where none is false.
pub(super) fn hold<'a>(conditions: &'a [Condition], scope: &Scope<'a>) -> Result<bool, String> {
    let mut budget = Budget::new(COST_LIMIT);
    let mut failed = Vec::new();
    for Condition { expression, program } in conditions {
        match evaluate(program, expression, scope, &mut budget) {
            Ok(CelValue::Bool(true)) => {}
            Ok(CelValue::Bool(false)) => return Ok(false),
            Ok(_) => failed.push(format!("expression '{expression}' is neither true nor false")),
            Err(error) if error == EvalError::BudgetExhausted => return Err(error.to_string()),
            Err(error) => failed.push(error.to_string()),
        }
    }
    match failed.as_slice() {
        [] => Ok(true),
        [only] => Err(only.clone()),
        all => Err(format!("[{}]", all.join(", "))),
    }
}
