//! A Job's cells.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::edit::list;
use crate::kinds::pod_template::{CONTAINERS, IMAGES, SELECTOR, with_template};
use crate::table::Column;
use crate::table::format::{age, duration, number, selector};

pub const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Status"),
    Column::text("Completions"),
    Column::text("Duration"),
    Column::AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub fn cells(job: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&job["spec"], &job["status"]);
    let (name, age) = (job["metadata"]["name"].clone(), json!(age(job, now)));
    let cells = [name, json!(state(job)), json!(completions(job)), json!(took(status, now)), age];
    with_template(&cells, &spec["template"], selector(&spec["selector"]))
}

fn state(job: &Value) -> &'static str {
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
