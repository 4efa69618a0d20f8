//! ReplicationControllers, the elders of ReplicaSets.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::edit::{fill, within};
use crate::kinds::pod_template::{
    self, default_template, is_empty, label_as, template_labels, validate_template,
};
use crate::kinds::replica_set::{REPLICAS, replicas};
use crate::kinds::strategy::Strategy;
use crate::request::Propagation;
use crate::schema::validate::{Errors, Path, meta};
use crate::table::Column;
use crate::table::format::labels;

#[derive(Debug)]
pub struct ReplicationController;

impl Strategy for ReplicationController {
    fn counts_generations(&self) -> bool {
        true
    }

    /// One that selects nothing selects what it makes.
    fn default_object(&self, object: &mut Map<String, Value>) {
        let labels = template_labels(object);
        if let Some(status) = within(object, "status") {
            fill(status, "replicas", 0);
        }
        if let Some(spec) = within(object, "spec") {
            fill(spec, "replicas", 1);
            default_template(spec);
            if let Some(labels) = &labels
                && is_empty(spec.get("selector"))
            {
                spec.insert("selector".into(), labels.clone());
            }
        }
        label_as(object, labels);
    }

    /// The selector is a plain map, and may change.
    fn validate(&self, object: &Value, _old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        let (spec, at) = (&object["spec"], root.field("spec"));
        errors.at_least(&at.field("replicas"), &spec["replicas"], 0);
        errors.at_least(&at.field("minReadySeconds"), &spec["minReadySeconds"], 0);
        let selector = json!({"matchLabels": spec["selector"]});
        if meta::is_empty_selector(&selector) {
            errors.required(&at.field("selector"), "");
        }
        meta::labels(&spec["selector"], &at.field("selector"), errors);
        let template_at = at.field("template");
        if spec["template"].is_null() {
            errors.required(&template_at, "");
            return;
        }
        pod_template::matches_template(&selector, &spec["template"], &template_at, errors);
        validate_template(&spec["template"], &template_at, errors);
        pod_template::always_restarts(&spec["template"], "ReplicationController", &template_at, errors);
    }

    /// It is older than the garbage collector, and its clients expect that Pods stay.
    fn default_propagation(&self) -> Option<Propagation> {
        Some(Propagation::Orphan)
    }

    fn selectable_fields(&self) -> Vec<&str> {
        vec!["status.replicas"]
    }

    fn columns(&self) -> &[Column] {
        REPLICAS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        replicas(object, labels(&object["spec"]["selector"]), now)
    }
}
