//! The cells of what makes Pods.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::format::{age, duration, joined, labels, list, number, selector, text_or};
use crate::schema::Kind;

pub fn cells(kind: &Kind, object: &Value, now: Timestamp) -> Vec<Value> {
    let name = object["metadata"]["name"].clone();
    let age = json!(age(object, now));
    let (spec, status) = (&object["spec"], &object["status"]);
    let count = |key: &str| json!(number(&status[key]));
    match kind.message {
        "apps.v1.Deployment" => {
            let ready = format!("{}/{}", number(&status["readyReplicas"]), number(&spec["replicas"]));
            let cells = [name, json!(ready), count("updatedReplicas"), count("availableReplicas"), age];
            with_template(&cells, &spec["template"], selector(&spec["selector"]))
        }
        "apps.v1.DaemonSet" => {
            let numbers = [
                "desiredNumberScheduled",
                "currentNumberScheduled",
                "numberReady",
                "updatedNumberScheduled",
                "numberAvailable",
            ];
            let nodes = labels(&spec["template"]["spec"]["nodeSelector"]);
            let mut cells = vec![name];
            cells.extend(numbers.map(count));
            cells.extend([json!(nodes), age]);
            with_template(&cells, &spec["template"], selector(&spec["selector"]))
        }
        "apps.v1.ControllerRevision" => {
            vec![name, json!(controller(object)), json!(number(&object["revision"])), age]
        }
        "batch.v1.Job" => {
            let cells =
                [name, json!(job_state(object)), json!(completions(object)), json!(took(status, now)), age];
            with_template(&cells, &spec["template"], selector(&spec["selector"]))
        }
        "core.v1.PodTemplate" => {
            let shown = json!(labels(&object["template"]["metadata"]["labels"]));
            let [containers, images] = containers(&object["template"]);
            vec![name, containers, images, shown]
        }
        // ReplicaSets and their elders.
        _ => {
            let cells =
                [name, json!(number(&spec["replicas"])), count("replicas"), count("readyReplicas"), age];
            let by =
                if kind.group.is_empty() { labels(&spec["selector"]) } else { selector(&spec["selector"]) };
            with_template(&cells, &spec["template"], by)
        }
    }
}

fn with_template(cells: &[Value], template: &Value, selector: String) -> Vec<Value> {
    let [names, images] = containers(template);
    cells.iter().cloned().chain([names, images, json!(selector)]).collect()
}

/// Names and images of a template's containers.
fn containers(template: &Value) -> [Value; 2] {
    let containers = list(&template["spec"]["containers"]);
    ["name", "image"].map(|key| json!(joined(containers.iter().map(|c| text_or(&c[key], "").to_owned()), "")))
}

/// `daemonset.apps/agent`.
fn controller(object: &Value) -> String {
    let owners = list(&object["metadata"]["ownerReferences"]);
    let Some(owner) = owners.iter().find(|o| o["controller"] == true) else { return "<none>".into() };
    let kind = text_or(&owner["kind"], "").to_lowercase();
    let group = text_or(&owner["apiVersion"], "").split_once('/').map(|(group, _)| format!(".{group}"));
    format!("{kind}{}/{}", group.unwrap_or_default(), text_or(&owner["name"], ""))
}

fn job_state(job: &Value) -> &'static str {
    let conditions = list(&job["status"]["conditions"]);
    let holds = |kind: &str| conditions.iter().any(|c| c["type"] == kind && c["status"] == "True");
    let ended = ["Complete", "Failed"].into_iter().find(|kind| holds(kind));
    match ended {
        Some(state) => state,
        None if !job["metadata"]["deletionTimestamp"].is_null() => "Terminating",
        None => ["Suspended", "FailureTarget", "SuccessCriteriaMet"]
            .into_iter()
            .find(|kind| holds(kind))
            .unwrap_or("Running"),
    }
}

fn completions(job: &Value) -> String {
    let (spec, succeeded) = (&job["spec"], number(&job["status"]["succeeded"]));
    match (spec["completions"].as_i64(), number(&spec["parallelism"])) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallel @ 2..) => format!("{succeeded}/1 of {parallel}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

/// How long a Job has run, or ran.
fn took(status: &Value, now: Timestamp) -> String {
    let time = |key: &str| status[key].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let Some(started) = time("startTime") else { return String::new() };
    duration((time("completionTime").unwrap_or(now) - started).get_seconds())
}
