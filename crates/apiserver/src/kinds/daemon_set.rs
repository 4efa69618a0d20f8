//! DaemonSets.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::edit::{fill, within};
use crate::kinds::pod_template::{self, CONTAINERS, IMAGES, SELECTOR, default_template, with_template};
use crate::kinds::rollout::{count_or_percent, is_zero, percent};
use crate::kinds::strategy::Strategy;
use crate::schema::validate::{Errors, Path};
use crate::table::Column;
use crate::table::format::{age, labels, number, selector};

#[derive(Debug)]
pub struct DaemonSet;

impl Strategy for DaemonSet {
    fn counts_generations(&self) -> bool {
        true
    }

    fn default_object(&self, object: &mut Map<String, Value>) {
        if let Some(status) = within(object, "status") {
            let counts =
                ["currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady"];
            counts.iter().for_each(|count| fill(status, count, 0));
        }
        let Some(spec) = within(object, "spec") else { return };
        fill(spec, "revisionHistoryLimit", 10);
        if let Some(strategy) = within(spec, "updateStrategy") {
            fill(strategy, "type", "RollingUpdate");
            if strategy["type"] == "RollingUpdate"
                && let Some(rolling) = within(strategy, "rollingUpdate")
            {
                fill(rolling, "maxUnavailable", 1);
                fill(rolling, "maxSurge", 0);
            }
        }
        default_template(spec);
    }

    fn validate(&self, object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        let (spec, at) = (&object["spec"], root.field("spec"));
        for key in ["minReadySeconds", "revisionHistoryLimit"] {
            errors.at_least(&at.field(key), &spec[key], 0);
        }
        pod_template::selector_and_template(spec, "daemonset", "DaemonSet", &at, errors);
        let (strategy, at_strategy) = (&spec["updateStrategy"], at.field("updateStrategy"));
        errors.one_of(&at_strategy.field("type"), &strategy["type"], &["RollingUpdate", "OnDelete"]);
        if strategy["type"] == "RollingUpdate" {
            let rolling_at = at_strategy.field("rollingUpdate");
            let (unavailable, surge) =
                (&strategy["rollingUpdate"]["maxUnavailable"], &strategy["rollingUpdate"]["maxSurge"]);
            let (unavailable_at, surge_at) =
                (rolling_at.field("maxUnavailable"), rolling_at.field("maxSurge"));
            count_or_percent(unavailable, &unavailable_at, errors);
            count_or_percent(surge, &surge_at, errors);
            match (is_zero(unavailable), is_zero(surge)) {
                (true, true) => {
                    errors.invalid(&unavailable_at, unavailable, "cannot be 0 when maxSurge is 0")
                }
                (false, false) => {
                    errors.invalid(&surge_at, surge, "may not be set when maxUnavailable is non-zero");
                }
                _ => {}
            }
            for (value, at) in [(unavailable, &unavailable_at), (surge, &surge_at)] {
                if percent(value).is_some_and(|p| p > 100) {
                    errors.invalid(at, value, "must not be greater than 100%");
                }
            }
        }
        pod_template::immutable_selector(spec, old, &at, errors);
    }

    fn columns(&self) -> &[Column] {
        const {
            &[
                Column::NAME,
                Column::integer("Desired"),
                Column::integer("Current"),
                Column::integer("Ready"),
                Column::integer("Up-to-date"),
                Column::integer("Available"),
                Column::text("Node Selector"),
                Column::AGE,
                CONTAINERS,
                IMAGES,
                SELECTOR,
            ]
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let numbers = [
            "desiredNumberScheduled",
            "currentNumberScheduled",
            "numberReady",
            "updatedNumberScheduled",
            "numberAvailable",
        ];
        let nodes = labels(&spec["template"]["spec"]["nodeSelector"]);
        let mut cells = vec![object["metadata"]["name"].clone()];
        cells.extend(numbers.map(|key| json!(number(&status[key]))));
        cells.extend([json!(nodes), json!(age(object, now))]);
        with_template(&cells, &spec["template"], selector(&spec["selector"]))
    }
}
