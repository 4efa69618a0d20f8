//! Leases.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::edit::text;
use crate::kinds::strategy::Strategy;
use crate::schema::validate::{Errors, Path};
use crate::table::Column;
use crate::table::format::age;

#[derive(Debug)]
pub struct Lease;

impl Strategy for Lease {
    fn validate(&self, object: &Value, _old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        let (spec, at) = (&object["spec"], root.field("spec"));
        if spec["leaseDurationSeconds"].as_i64().is_some_and(|n| n <= 0) {
            errors.invalid(
                &at.field("leaseDurationSeconds"),
                &spec["leaseDurationSeconds"],
                "must be greater than 0",
            );
        }
        errors.at_least(&at.field("leaseTransitions"), &spec["leaseTransitions"], 0);
    }

    fn columns(&self) -> &[Column] {
        const { &[Column::NAME, Column::text("Holder"), Column::AGE] }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let holder = json!(text(&object["spec"]["holderIdentity"]));
        vec![object["metadata"]["name"].clone(), holder, json!(age(object, now))]
    }
}
