//! ValidatingAdmissionPolicyBindings.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::admission_policy::{
    BINDING_COLUMNS, authorize_param_ref, binding_cells, binding_head, default_match_resources,
};
use crate::admission::validating_policies::policies;
use crate::edit::{existing, list, text};
use crate::kinds::strategy::Strategy;
use crate::schema::validate::{Errors, Path};
use crate::status::Result;
use crate::table::Column;
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

    fn after_defaults(&self, ctx: &WriteContext<'_>, binding: &mut Value, old: Option<&Value>) -> Result<()> {
        authorize_param_ref(ctx, policies(), binding, old)
    }

    fn validate(&self, object: &Value, _old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        let (spec, at) = (&object["spec"], root.field("spec"));
        binding_head(spec, &at, errors);
        actions(&spec["validationActions"], &at.field("validationActions"), errors);
    }

    fn columns(&self) -> &[Column] {
        BINDING_COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        binding_cells(object, now)
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
