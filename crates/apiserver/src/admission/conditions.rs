//! Match conditions: expressions in CEL that say which writes something is asked about.

use std::sync::Arc;

use serde_json::Value;

use crate::cel::{Budget, Outcome, Program, Type, TypeKind, Value as CelValue};
use crate::edit::{list, text};

/// The compiled conditions of each webhook of a configuration, in their order.
pub(super) type Conditions = Arc<Vec<Vec<(String, Result<Program, String>)>>>;

/// The variables of an expression, in the order of their bindings.
const VARIABLES: [&str; 3] = ["object", "oldObject", "request"];

fn variables() -> Vec<(String, Type)> {
    VARIABLES.iter().map(|name| ((*name).to_owned(), Type::of(TypeKind::Dyn))).collect()
}

/// Compiles an expression whose result is true or false.
///
/// # Errors
/// A sentence for users that describes the mistake in the expression.
pub(crate) fn compile(expression: &str) -> Result<Program, String> {
    let program =
        Program::compile(expression, &variables()).map_err(|error| format!("compilation failed: {error}"))?;
    match program.result().kind {
        TypeKind::Bool | TypeKind::Dyn => Ok(program),
        _ => Err("must evaluate to bool".to_owned()),
    }
}

/// The conditions of a configuration.
pub(super) fn of(configuration: &Value) -> Conditions {
    let condition =
        |condition: &Value| (text(&condition["name"]).to_owned(), compile(text(&condition["expression"])));
    let webhook = |webhook: &Value| list(&webhook["matchConditions"]).iter().map(condition).collect();
    Arc::new(list(&configuration["webhooks"]).iter().map(webhook).collect())
}

/// Whether all conditions hold. One that does not decides, whatever becomes of the others.
///
/// # Errors
/// The conditions that could not be evaluated, where none is false.
pub(super) fn hold(
    conditions: &[(String, Result<Program, String>)],
    request: &Value,
) -> Result<bool, String> {
    let mut budget = Budget::default();
    let mut failed = Vec::new();
    let read = |name: &str| CelValue::read_dyn(&request[name]);
    for (name, program) in conditions {
        let evaluated = program.as_ref().map_err(Clone::clone).and_then(|program| {
            let mut evaluate = || -> Outcome<'_> {
                let bindings = [read("object")?, read("oldObject")?, CelValue::read_dyn(request)?];
                program.evaluate(&bindings, &mut budget)
            };
            evaluate().map_err(|error| error.to_string())
        });
        match evaluated {
            Ok(CelValue::Bool(true)) => {}
            Ok(CelValue::Bool(false)) => return Ok(false),
            Ok(_) => failed.push(format!("condition {name:?}: it is neither true nor false")),
            Err(error) => failed.push(format!("condition {name:?}: {error}")),
        }
    }
    if failed.is_empty() { Ok(true) } else { Err(failed.join("; ")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_conditions_hold_or_one_decides() {
        let request = json!({"object": {"metadata": {"name": "a"}}, "oldObject": null, "userInfo": {"username": "jane"}});
        for (expressions, expect) in [
            (&[][..], "true"),
            (&["object.metadata.name == 'a'"][..], "true"),
            (&["request.userInfo.username != 'jane'"][..], "false"),
            (&["object.nothing.name == 'a'", "1 > 2"][..], "false"),
            (&["oldObject == null", "has(object.metadata)"][..], "true"),
        ] {
            let conditions: Vec<_> = expressions.iter().map(|e| ("c".to_owned(), compile(e))).collect();
            let shown = hold(&conditions, &request).map_or_else(|error| error, |holds| holds.to_string());
            assert_eq!(shown, expect, "{expressions:?}");
        }
        let failing = [("c".to_owned(), compile("object.nothing.name == 'a'"))];
        assert!(hold(&failing, &request).is_err());
        assert!(compile("1 + 1").is_err() && compile("object.").is_err());
    }
}
