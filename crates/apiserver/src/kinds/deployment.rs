//! Deployments.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::edit::{copy, existing_at, fill, text, within};
use crate::kinds::pod_template::{self, CONTAINERS, IMAGES, SELECTOR, default_template, with_template};
use crate::kinds::rollout::{count_or_percent, is_zero, percent};
use crate::kinds::strategy::{Strategy, reset_all_but};
use crate::resource::Subresource;
use crate::schema::validate::{Errors, Path};
use crate::table::Column;
use crate::table::format::{age, number, selector};

#[derive(Debug)]
pub struct Deployment;

impl Strategy for Deployment {
    fn counts_generations(&self) -> bool {
        true
    }

    fn default_object(&self, object: &mut Map<String, Value>) {
        let Some(spec) = within(object, "spec") else { return };
        fill(spec, "replicas", 1);
        fill(spec, "revisionHistoryLimit", 10);
        fill(spec, "progressDeadlineSeconds", 600);
        if let Some(strategy) = within(spec, "strategy") {
            fill(strategy, "type", "RollingUpdate");
            if strategy["type"] == "RollingUpdate"
                && let Some(rolling) = within(strategy, "rollingUpdate")
            {
                fill(rolling, "maxUnavailable", "25%");
                fill(rolling, "maxSurge", "25%");
            }
        }
        default_template(spec);
    }

    /// Of the metadata, a write of the status changes all but the labels, as in Kubernetes.
    fn prepare_for_subresource(&self, subresource: Subresource, new: &mut Value, old: &Value) {
        if subresource == Subresource::Status {
            reset_all_but(&["metadata", "status"], new, old);
            if let Some(metadata) = existing_at(new, &["metadata"]) {
                copy(&old["metadata"], metadata, "labels");
            }
        }
    }

    fn validate(&self, object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        let (spec, at) = (&object["spec"], root.field("spec"));
        for key in ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
            errors.at_least(&at.field(key), &spec[key], 0);
        }
        pod_template::selector_and_template(spec, "deployment", "Deployment", &at, errors);
        strategy(&spec["strategy"], &at.field("strategy"), errors);
        let deadline = spec["progressDeadlineSeconds"].as_i64();
        if deadline.is_some_and(|d| d <= spec["minReadySeconds"].as_i64().unwrap_or(0)) {
            let detail = "must be greater than minReadySeconds";
            errors.invalid(&at.field("progressDeadlineSeconds"), &spec["progressDeadlineSeconds"], detail);
        }
        pod_template::immutable_selector(spec, old, &at, errors);
    }

    fn columns(&self) -> &[Column] {
        const {
            &[
                Column::NAME,
                Column::text("Ready"),
                Column::integer("Up-to-date"),
                Column::integer("Available"),
                Column::AGE,
                CONTAINERS,
                IMAGES,
                SELECTOR,
            ]
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let count = |key: &str| json!(number(&status[key]));
        let ready = format!("{}/{}", number(&status["readyReplicas"]), number(&spec["replicas"]));
        let name = object["metadata"]["name"].clone();
        let cells = [
            name,
            json!(ready),
            count("updatedReplicas"),
            count("availableReplicas"),
            json!(age(object, now)),
        ];
        with_template(&cells, &spec["template"], selector(&spec["selector"]))
    }
}

fn strategy(strategy: &Value, at: &Path<'_>, errors: &mut Errors) {
    let (rolling, rolling_at) = (&strategy["rollingUpdate"], at.field("rollingUpdate"));
    match text(&strategy["type"]) {
        "Recreate" if !rolling.is_null() => {
            errors.forbidden(&rolling_at, "may not be specified when strategy `type` is 'Recreate'");
        }
        "RollingUpdate" if rolling.is_null() => {
            errors.required(&rolling_at, "this should be defaulted and never be nil")
        }
        "RollingUpdate" => {
            let (unavailable, surge) = (&rolling["maxUnavailable"], &rolling["maxSurge"]);
            let unavailable_at = rolling_at.field("maxUnavailable");
            count_or_percent(unavailable, &unavailable_at, errors);
            count_or_percent(surge, &rolling_at.field("maxSurge"), errors);
            if percent(unavailable).is_some_and(|p| p > 100) {
                errors.invalid(&unavailable_at, unavailable, "must not be greater than 100%");
            }
            if is_zero(unavailable) && is_zero(surge) {
                errors.invalid(&unavailable_at, unavailable, "may not be 0 when `maxSurge` is 0");
            }
        }
        _ => errors.one_of(&at.field("type"), &strategy["type"], &["Recreate", "RollingUpdate"]),
    }
}
