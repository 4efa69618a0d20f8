//! What tells a Job's Pods from all others: labels on them, and the selector that names them.

use serde_json::{Value, json};

use crate::object::meta;

/// Labels with the Job's name, today's and the one from before labels had a domain.
const NAMES: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];
/// The same for its uid; the first is what the selector names.
const UIDS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];

/// Adds them, unless the user has said to have taken care of it.
pub(super) fn before_create(job: &mut Value) {
    let (name, uid) = (meta(job, "name").to_owned(), meta(job, "uid").to_owned());
    if job["spec"]["manualSelector"] == true || !job["spec"]["template"].is_object() {
        return;
    }
    let spec = &mut job["spec"];
    let template = &mut spec["template"];
    if !template["metadata"].is_object() {
        template["metadata"] = json!({});
    }
    if !template["metadata"]["labels"].is_object() {
        template["metadata"]["labels"] = json!({});
    }
    let labels = &mut template["metadata"]["labels"];
    let wanted = UIDS.map(|key| (key, &uid)).into_iter().chain(NAMES.map(|key| (key, &name)));
    for (key, value) in wanted {
        // What the user gave stays; the rules refuse it where it cannot be right.
        if labels[key].is_null() {
            labels[key] = value.as_str().into();
        }
    }
    if spec["selector"].is_null() {
        spec["selector"] = json!({"matchLabels": {UIDS[0]: uid}});
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_select_what_they_make() {
        let mut job = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"spec": {}}}});
        before_create(&mut job);
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
        before_create(&mut manual);
        assert_eq!(manual["spec"]["template"], before["spec"]["template"]);
    }
}
