//! MutatingAdmissionPolicies.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::admission_policy::{
    authorize_param_kind, cells, default_match_resources, match_conditions, policy_head, variables,
};
use crate::admission::expressions::{self, Results};
use crate::cel::{self, Composition, Type};
use crate::edit::{existing, fill, list, text};
use crate::kinds::strategy::Strategy;
use crate::schema::validate::{Errors, Path};
use crate::status::Result;
use crate::table::Column;
use crate::write::context::WriteContext;

/// Operations of which there is an object to change, in the order of Kubernetes' messages.
const OPERATIONS: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];

#[derive(Debug)]
pub struct MutatingAdmissionPolicy;

impl Strategy for MutatingAdmissionPolicy {
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
        const { &[Column::NAME, Column::integer("Mutations"), Column::text("ParamKind"), Column::AGE] }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        cells(object, "mutations", now)
    }
}

/// The mistakes in a policy.
fn rules(object: &Value) -> Errors {
    let mut errors = Errors::default();
    let root = Path::root();
    let (spec, at) = (&object["spec"], root.field("spec"));
    policy_head(spec, &at, &mut errors);
    changeable(&spec["matchConstraints"], &at.field("matchConstraints"), &mut errors);
    let known = expressions::variables(spec["paramKind"].is_object(), true);
    match_conditions(&spec["matchConditions"], &known, &at.field("matchConditions"), &mut errors);
    let composition = variables(&spec["variables"], &known, &at.field("variables"), &mut errors);
    let mutations = at.field("mutations");
    if list(&spec["mutations"]).is_empty() {
        errors.required(&mutations, "mutations must contain at least one item");
    }
    for (i, given) in list(&spec["mutations"]).iter().enumerate() {
        mutation(given, (&known, &composition), &mutations.index(i), &mut errors);
    }
    let reinvocation = at.field("reinvocationPolicy");
    match text(&spec["reinvocationPolicy"]) {
        "" => errors.required(&reinvocation, ""),
        given => errors.supported(&reinvocation, given, &["Never", "IfNeeded"]),
    }
    errors
}

/// Checks that rules name operations that have an object to change. As in Kubernetes, errors do not say of which rule.
pub fn changeable(resources: &Value, at: &Path<'_>, errors: &mut Errors) {
    let rules = at.field("resourceRules");
    let at = rules.field("operations");
    for operation in list(&resources["resourceRules"]).iter().flat_map(|rule| list(&rule["operations"])) {
        errors.supported(&at, text(operation), &OPERATIONS);
    }
}

/// Checks a mutation, of which the type of patch decides which field has its expression.
fn mutation(
    given: &Value,
    (known, composition): (&[(String, Type)], &Composition),
    at: &Path<'_>,
    errors: &mut Errors,
) {
    let kind = text(&given["patchType"]);
    let (field, other, results) = match kind {
        "JSONPatch" => ("jsonPatch", "applyConfiguration", Results::Patch),
        "ApplyConfiguration" => ("applyConfiguration", "jsonPatch", Results::Object),
        "" => return errors.required(&at.field("patchType"), ""),
        _ => {
            return errors.supported(&at.field("patchType"), kind, &["ApplyConfiguration", "JSONPatch"]);
        }
    };
    match &given[field] {
        Value::Null => {
            errors.required(&at.field(field), &format!("must be specified when patchType is {kind}"));
        }
        patch => {
            let patch_at = at.field(field);
            let at = patch_at.field("expression");
            match text(&patch["expression"]).trim() {
                "" => errors.required(&at, ""),
                expression => {
                    let compiled = expressions::compile(expression, known, Some(composition), results);
                    errors.check_text(&at, expression, compiled.map(drop));
                }
            }
        }
    }
    if !given[other].is_null() {
        let detail = format!("must not be specified when patchType is {kind}");
        errors.invalid_text(&at.field(other), &format!("{{{other}}}"), &detail);
    }
}
