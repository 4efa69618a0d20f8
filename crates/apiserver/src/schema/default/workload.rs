//! Defaults of what makes Pods.

use serde_json::{Map, Value};

use super::{existing, fill, objects, pod, within};

pub fn deployment(object: &mut Map<String, Value>) {
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
    template(spec);
}

pub fn replica_set(object: &mut Map<String, Value>) {
    let Some(spec) = within(object, "spec") else { return };
    fill(spec, "replicas", 1);
    template(spec);
}

pub fn template(spec: &mut Map<String, Value>) {
    if let Some(spec) = existing(spec, "template").and_then(|template| within(template, "spec")) {
        pod::default_spec(spec);
    }
}

pub fn daemon_set(object: &mut Map<String, Value>) {
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
    template(spec);
}

/// A ReplicationController that selects nothing selects what it makes.
pub fn replication_controller(object: &mut Map<String, Value>) {
    let labels = template_labels(object);
    if let Some(spec) = within(object, "spec") {
        fill(spec, "replicas", 1);
        template(spec);
        if let Some(labels) = &labels
            && is_empty(spec.get("selector"))
        {
            spec.insert("selector".into(), labels.clone());
        }
    }
    label_as(object, labels);
}

pub fn job(object: &mut Map<String, Value>) {
    let labels = template_labels(object);
    if let Some(spec) = within(object, "spec") {
        if !spec.contains_key("parallelism") {
            fill(spec, "completions", 1);
        }
        fill(spec, "parallelism", 1);
        let unlimited = spec.contains_key("backoffLimitPerIndex");
        fill(spec, "backoffLimit", if unlimited { i32::MAX } else { 6 });
        fill(spec, "completionMode", "NonIndexed");
        fill(spec, "suspend", false);
        fill(spec, "manualSelector", false);
        let replacement =
            if spec.contains_key("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
        fill(spec, "podReplacementPolicy", replacement);
        if let Some(policy) = existing(spec, "podFailurePolicy") {
            for rule in objects(policy, "rules") {
                objects(rule, "onPodConditions").for_each(|pattern| fill(pattern, "status", "True"));
            }
        }
        template(spec);
    }
    label_as(object, labels);
}

fn template_labels(object: &Map<String, Value>) -> Option<Value> {
    let labels = object.get("spec")?.get("template")?.get("metadata")?.get("labels")?;
    (!is_empty(Some(labels))).then(|| labels.clone())
}

fn is_empty(map: Option<&Value>) -> bool {
    map.and_then(Value::as_object).is_none_or(Map::is_empty)
}

/// What has no labels of its own gets its template's.
fn label_as(object: &mut Map<String, Value>, labels: Option<Value>) {
    let (Some(labels), Some(metadata)) = (labels, within(object, "metadata")) else { return };
    if is_empty(metadata.get("labels")) {
        metadata.insert("labels".into(), labels);
    }
}
