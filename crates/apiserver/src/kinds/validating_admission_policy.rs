//! ValidatingAdmissionPolicies.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Map, Value};
use yado_types::names;

use super::admission_policy::{
    authorize_param_kind, cells, default_match_resources, match_conditions, policy_head, variables,
};
use crate::admission::expressions::{self, Results};
use crate::cel::{self, Composition, Type};
use crate::edit::{existing, fill, list, text};
use crate::kinds::strategy::Strategy;
use crate::object::meta;
use crate::schema::validate::{Errors, Path};
use crate::status::Result;
use crate::table::Column;
use crate::write::context::WriteContext;

/// Annotations that a policy may make.
const MAX_ANNOTATIONS: usize = 20;
/// Bytes of an expression that makes an annotation.
const MAX_ANNOTATION_EXPRESSION: usize = 5 * 1024;
/// Variables that expressions may use.
type Variables<'v> = &'v [(String, Type)];

#[derive(Debug)]
pub struct ValidatingAdmissionPolicy;

impl Strategy for ValidatingAdmissionPolicy {
    fn counts_generations(&self) -> bool {
        true
    }

    fn default_object(&self, object: &mut Map<String, Value>) {
        if let Some(spec) = existing(object, "spec") {
            fill(spec, "failurePolicy", "Fail");
            default_match_resources(spec, "matchConstraints");
        }
    }

    fn after_defaults(&self, ctx: &WriteContext<'_>, policy: &mut Value, old: Option<&Value>) -> Result<()> {
        authorize_param_kind(ctx, policy, old)
    }

    fn validate(&self, object: &Value, _old: Option<&Value>, errors: &mut Errors) {
        errors.extend(cel::batch(|| rules(object).list));
    }

    fn columns(&self) -> &[Column] {
        const { &[Column::NAME, Column::integer("Validations"), Column::text("ParamKind"), Column::AGE] }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        cells(object, "validations", now)
    }
}

/// The mistakes in a policy.
fn rules(object: &Value) -> Errors {
    let mut errors = Errors::default();
    let root = Path::root();
    let (spec, at) = (&object["spec"], root.field("spec"));
    policy_head(spec, &at, &mut errors);
    let has_params = spec["paramKind"].is_object();
    let (with, without) =
        (expressions::variables(has_params, true), expressions::variables(has_params, false));
    match_conditions(&spec["matchConditions"], &with, &at.field("matchConditions"), &mut errors);
    let composition = variables(&spec["variables"], &with, &at.field("variables"), &mut errors);
    if list(&spec["validations"]).is_empty() && list(&spec["auditAnnotations"]).is_empty() {
        for field in ["validations", "auditAnnotations"] {
            let detail = "validations or auditAnnotations must contain at least one item";
            errors.required(&at.field(field), detail);
        }
    }
    let validations = at.field("validations");
    for (i, given) in list(&spec["validations"]).iter().enumerate() {
        validation(given, (&with, &without), &composition, &validations.index(i), &mut errors);
    }
    annotations(object, &with, &composition, &at.field("auditAnnotations"), &mut errors);
    errors
}

/// Checks a validation. Its message may use less than it itself may: `without` the authorizer.
fn validation(
    given: &Value,
    (with, without): (Variables<'_>, Variables<'_>),
    composition: &Composition,
    at: &Path<'_>,
    errors: &mut Errors,
) {
    let mut compile = |field: &str, expression: &str, variables, results| {
        let compiled = expressions::compile(expression, variables, Some(composition), results);
        errors.check_text(&at.field(field), expression, compiled.map(drop));
    };
    let (expression, by, message) =
        (text(&given["expression"]), text(&given["messageExpression"]), text(&given["message"]));
    if !expression.trim().is_empty() {
        compile("expression", expression, with, Results::Bool);
    }
    if !by.trim().is_empty() {
        compile("messageExpression", by, without, Results::String);
    }
    if expression.trim().is_empty() {
        errors.required(&at.field("expression"), "expression is not specified");
    }
    if !by.is_empty() && by.trim().is_empty() {
        errors.invalid_text(&at.field("messageExpression"), by, "must be non-empty if specified");
    }
    if !message.is_empty() && message.trim().is_empty() {
        errors.invalid_text(&at.field("message"), message, "message must be non-empty if specified");
    } else if message.trim().contains(['\n', '\r']) {
        errors.invalid_text(&at.field("message"), message, "message must not contain line breaks");
    }
    let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
    errors.one_of(&at.field("reason"), &given["reason"], &reasons);
}

fn annotations(
    object: &Value,
    variables: &[(String, Type)],
    composition: &Composition,
    at: &Path<'_>,
    errors: &mut Errors,
) {
    let given = &object["spec"]["auditAnnotations"];
    if list(given).len() > MAX_ANNOTATIONS {
        errors.invalid(at, given, &format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations"));
    }
    let mut seen = BTreeSet::new();
    for (i, annotation) in list(given).iter().enumerate() {
        let at = at.index(i);
        let (key, expression) = (text(&annotation["key"]), text(&annotation["valueExpression"]));
        let whole = format!("{}/{key}", meta(object, "name"));
        errors.check_text(&at.field("key"), &whole, names::qualified_name(&whole));
        let expression_at = at.field("valueExpression");
        match expression.trim() {
            "" => errors.required(&expression_at, "valueExpression is not specified"),
            trimmed if trimmed.len() > MAX_ANNOTATION_EXPRESSION => {
                let detail = format!("must not exceed {MAX_ANNOTATION_EXPRESSION} bytes in length");
                errors.required(&expression_at, &detail);
            }
            trimmed => {
                let compiled =
                    expressions::compile(trimmed, variables, Some(composition), Results::StringOrNull);
                errors.check_text(&expression_at, expression, compiled.map(drop));
            }
        }
        if !seen.insert(key) {
            errors.duplicate(&at.field("key"), &annotation["key"]);
        }
    }
}
