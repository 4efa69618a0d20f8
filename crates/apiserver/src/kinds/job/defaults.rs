//! Defaults of Jobs, and the labels and the selector that tell a Job's Pods from all others.

use serde_json::{Map, Value};

use crate::edit::{existing, fill, map_at, objects, within};
use crate::kinds::pod_template::{default_template, label_as, template_labels};
use crate::object::meta;

/// Labels with the Job's name, today's and the one from before labels had a domain.
const NAMES: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

/// The same for its uid; the first is what the selector names.
const UIDS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];

/// Adds the labels and the selector, unless the user takes care of them.
pub fn select_own_pods(job: &mut Value) {
    let spec = &job["spec"];
    if spec["manualSelector"] == true || !spec["template"].is_object() {
        return;
    }
    let (name, uid) = (meta(job, "name").to_owned(), meta(job, "uid").to_owned());
    if let Some(labels) = map_at(job, &["spec", "template", "metadata", "labels"]) {
        // What the user gave stays; the rules refuse it where it cannot be right.
        UIDS.iter().for_each(|key| fill(labels, key, uid.as_str()));
        NAMES.iter().for_each(|key| fill(labels, key, name.as_str()));
    }
    if let Some(labels) = map_at(job, &["spec", "selector", "matchLabels"]) {
        fill(labels, UIDS[0], uid);
    }
}

/// Fills in what a Job leaves out.
pub fn default_job(object: &mut Map<String, Value>) {
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
        default_failure_policy(spec);
        default_template(spec);
    }
    label_as(object, labels);
}

/// Fills in the statuses of the conditions in the policy for failed Pods.
pub fn default_failure_policy(spec: &mut Map<String, Value>) {
    let Some(policy) = existing(spec, "podFailurePolicy") else { return };
    for rule in objects(policy, "rules") {
        objects(rule, "onPodConditions").for_each(|pattern| fill(pattern, "status", "True"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn jobs_select_what_they_make() {
        let mut job = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"spec": {}}}});
        select_own_pods(&mut job);
        assert_eq!(
            job["spec"]["selector"],
            json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}})
        );
        assert_eq!(
            job["spec"]["template"]["metadata"]["labels"],
            json!({
                "batch.kubernetes.io/controller-uid": "u", "controller-uid": "u",
                "batch.kubernetes.io/job-name": "j", "job-name": "j",
            })
        );
        let mut manual = json!({"metadata": {"uid": "u"}, "spec": {"manualSelector": true, "template": {}}});
        let before = manual.clone();
        select_own_pods(&mut manual);
        assert_eq!(manual["spec"]["template"], before["spec"]["template"]);
    }
}
