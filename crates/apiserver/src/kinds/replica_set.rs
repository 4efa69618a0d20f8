//! ReplicaSets.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::edit::{fill, within};
use crate::kinds::pod_template::{self, CONTAINERS, IMAGES, SELECTOR, default_template, with_template};
use crate::kinds::strategy::Strategy;
use crate::schema::validate::{Errors, Path};
use crate::table::Column;
use crate::table::format::{age, number, selector};

#[derive(Debug)]
pub struct ReplicaSet;

impl Strategy for ReplicaSet {
    fn counts_generations(&self) -> bool {
        true
    }

    fn default_object(&self, object: &mut Map<String, Value>) {
        if let Some(status) = within(object, "status") {
            fill(status, "replicas", 0);
        }
        let Some(spec) = within(object, "spec") else { return };
        fill(spec, "replicas", 1);
        default_template(spec);
    }

    fn validate(&self, object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        let (spec, at) = (&object["spec"], root.field("spec"));
        errors.at_least(&at.field("replicas"), &spec["replicas"], 0);
        errors.at_least(&at.field("minReadySeconds"), &spec["minReadySeconds"], 0);
        pod_template::selector_and_template(spec, "replica set", "ReplicaSet", &at, errors);
        pod_template::immutable_selector(spec, old, &at, errors);
    }

    fn selectable_fields(&self) -> Vec<&str> {
        vec!["status.replicas"]
    }

    fn columns(&self) -> &[Column] {
        REPLICAS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        replicas(object, selector(&object["spec"]["selector"]), now)
    }
}

/// Columns of what keeps a number of Pods.
pub const REPLICAS: &[Column] = &[
    Column::NAME,
    Column::integer("Desired"),
    Column::integer("Current"),
    Column::integer("Ready"),
    Column::AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// The cells of [`REPLICAS`].
pub fn replicas(object: &Value, selector: String, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let count = |key: &str| json!(number(&status[key]));
    let name = object["metadata"]["name"].clone();
    let desired = json!(number(&spec["replicas"]));
    let cells = [name, desired, count("replicas"), count("readyReplicas"), json!(age(object, now))];
    with_template(&cells, &spec["template"], selector)
}
