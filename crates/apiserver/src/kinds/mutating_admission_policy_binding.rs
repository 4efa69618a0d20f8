//! MutatingAdmissionPolicyBindings.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::admission_policy::{
    BINDING_COLUMNS, authorize_param_ref, binding_cells, binding_head, default_match_resources,
};
use super::mutating_admission_policy::changeable;
use crate::admission::mutating_policies::policies;
use crate::edit::existing;
use crate::kinds::strategy::Strategy;
use crate::schema::validate::{Errors, Path};
use crate::status::Result;
use crate::table::Column;
use crate::write::context::WriteContext;

#[derive(Debug)]
pub struct MutatingAdmissionPolicyBinding;

impl Strategy for MutatingAdmissionPolicyBinding {
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
        changeable(&spec["matchResources"], &at.field("matchResources"), errors);
    }

    fn columns(&self) -> &[Column] {
        BINDING_COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        binding_cells(object, now)
    }
}
