//! ValidatingAdmissionPolicyBindings.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use yado_types::names;

use super::admission_policy::{authorize_params, default_match_resources, match_resources, param_ref};
use crate::admission::validating_policies::policies;
use crate::edit::{existing, list, text};
use crate::kinds::strategy::Strategy;
use crate::object::meta;
use crate::schema::validate::{Errors, Path};
use crate::status::Result;
use crate::table::Column;
use crate::table::format::{age, selector};
use crate::write::context::WriteContext;

#[derive(Debug)]
pub struct ValidatingAdmissionPolicyBinding;

impl Strategy for ValidatingAdmissionPolicyBinding {
    fn counts_generations(&self) -> bool {
        true
    }

    fn default_object(&self, object: &mut Map<String, Value>) {
        if let Some(spec) = existing(object, "spec") {
            default_match_resources(spec, "matchResources");
        }
    }

    /// Whoever binds parameters learns of them what the messages of the policy tell.
    fn after_defaults(&self, ctx: &WriteContext<'_>, binding: &mut Value, old: Option<&Value>) -> Result<()> {
        let spec = &binding["spec"];
        let reference = &spec["paramRef"];
        let is_same =
            |old: &Value| ["paramRef", "policyName"].iter().all(|field| old["spec"][*field] == spec[*field]);
        if reference.is_null() || old.is_some_and(is_same) {
            return Ok(());
        }
        let policy = policies().and_then(|p| ctx.server.find(p, "", text(&spec["policyName"])).ok());
        let kind = policy.map(|policy| policy.value()["spec"]["paramKind"].clone()).unwrap_or_default();
        let place = (text(&reference["namespace"]), text(&reference["name"]));
        let sentence = "does not have \"get\" permission on the object referenced by paramRef";
        authorize_params(ctx, meta(binding, "name"), &kind, place, ("spec.paramRef", sentence))
    }

    fn validate(&self, object: &Value, _old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        let (spec, at) = (&object["spec"], root.field("spec"));
        match text(&spec["policyName"]) {
            "" => errors.required(&at.field("policyName"), ""),
            name => errors.check_text(&at.field("policyName"), name, names::dns_subdomain(name)),
        }
        param_ref(&spec["paramRef"], &at.field("paramRef"), errors);
        match_resources(&spec["matchResources"], &at.field("matchResources"), errors);
        actions(&spec["validationActions"], &at.field("validationActions"), errors);
    }

    fn columns(&self) -> &[Column] {
        const { &[Column::NAME, Column::text("PolicyName"), Column::text("ParamRef"), Column::AGE] }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let reference = &spec["paramRef"];
        let params = match (text(&reference["namespace"]), text(&reference["name"])) {
            _ if reference.is_null() => "<unset>".to_owned(),
            (_, "") => selector(&reference["selector"]),
            ("", name) => name.to_owned(),
            (namespace, name) => format!("{namespace}/{name}"),
        };
        vec![
            object["metadata"]["name"].clone(),
            spec["policyName"].clone(),
            json!(params),
            json!(age(object, now)),
        ]
    }
}

fn actions(actions: &Value, at: &Path<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, action) in list(actions).iter().enumerate() {
        errors.supported(&at.index(i), text(action), &["Audit", "Deny", "Warn"]);
        if !seen.insert(text(action)) {
            errors.duplicate(&at.index(i), action);
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API \
                      response and headers serves no purpose)";
        errors.invalid(at, actions, detail);
    }
    if seen.is_empty() {
        errors.required(at, "at least one validation action is required");
    }
}
