//! A Pod's cells: the states of its containers as one word.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::edit::list;
use crate::table::Column;
use crate::table::format::{NONE, age, duration, number, text_or};

pub const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Ready"),
    Column::text("Status"),
    Column::text("Restarts"),
    Column::AGE,
    Column::wide("IP"),
    Column::wide("Node"),
    Column::wide("Nominated Node"),
    Column::wide("Readiness Gates"),
];

/// Summary of the containers' states.
#[derive(Default)]
struct Summary {
    reason: String,
    ready: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

impl Summary {
    fn count_restarts(&mut self, status: &Value) {
        self.restarts += number(&status["restartCount"]);
        let finished = status["lastState"]["terminated"]["finishedAt"].as_str().and_then(|t| t.parse().ok());
        self.last_restart = self.last_restart.max(finished);
    }
}

pub fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let sidecars = list(&spec["initContainers"]).iter().filter(|c| is_sidecar(c)).count();
    let total = list(&spec["containers"]).len() + sidecars;
    let summary = summarize(pod);
    let restarts = match summary.last_restart {
        Some(at) if summary.restarts > 0 => {
            let ago = duration((now - at).total(jiff::Unit::Second).map_or(0, |s| s.floor() as i64));
            format!("{} ({ago} ago)", summary.restarts)
        }
        _ => summary.restarts.to_string(),
    };
    let address = text_or(&status["podIPs"][0]["ip"], text_or(&status["podIP"], NONE));
    vec![
        pod["metadata"]["name"].clone(),
        json!(format!("{}/{total}", summary.ready)),
        json!(summary.reason),
        json!(restarts),
        json!(age(pod, now)),
        json!(address),
        json!(text_or(&spec["nodeName"], NONE)),
        json!(text_or(&status["nominatedNodeName"], NONE)),
        json!(readiness_gates(spec, status)),
    ]
}

fn readiness_gates(spec: &Value, status: &Value) -> String {
    let gates = list(&spec["readinessGates"]);
    if gates.is_empty() {
        return NONE.into();
    }
    let open = gates.iter().filter(|gate| condition(status, text_or(&gate["conditionType"], "")));
    format!("{}/{}", open.count(), gates.len())
}

fn condition(status: &Value, kind: &str) -> bool {
    list(&status["conditions"]).iter().any(|c| c["type"] == kind && c["status"] == "True")
}

fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn summarize(pod: &Value) -> Summary {
    let status = &pod["status"];
    let mut summary = Summary {
        reason: text_or(&status["reason"], text_or(&status["phase"], "")).to_owned(),
        ..Summary::default()
    };
    let gated = |c: &Value| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated";
    if list(&status["conditions"]).iter().any(gated) {
        summary.reason = "SchedulingGated".into();
    }
    let (initializing, sidecars) = init_containers(pod, &mut summary);
    if !initializing || condition(status, "Initialized") {
        // Restarts of init containers that are done no longer count; those of sidecars do.
        (summary.restarts, summary.last_restart) = (sidecars.restarts, sidecars.last_restart);
        containers(status, &mut summary);
    }
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        let phase = text_or(&status["phase"], "");
        if status["reason"] == "NodeLost" {
            summary.reason = "Unknown".into();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            summary.reason = "Terminating".into();
        }
    }
    summary
}

/// Whether an init container still has to finish, and the restarts of the sidecars among them.
fn init_containers(pod: &Value, summary: &mut Summary) -> (bool, Summary) {
    let specs = list(&pod["spec"]["initContainers"]);
    let mut sidecars = Summary::default();
    for (at, status) in list(&pod["status"]["initContainerStatuses"]).iter().enumerate() {
        summary.count_restarts(status);
        let sidecar = specs.iter().any(|c| c["name"] == status["name"] && is_sidecar(c));
        if sidecar {
            sidecars.count_restarts(status);
        }
        let (terminated, waiting) = (&status["state"]["terminated"], &status["state"]["waiting"]);
        if !terminated.is_null() && number(&terminated["exitCode"]) == 0 {
            continue;
        }
        if sidecar && status["started"] == true {
            summary.ready += usize::from(status["ready"] == true);
            continue;
        }
        let reason = if !terminated.is_null() {
            ended(terminated)
        } else {
            match text_or(&waiting["reason"], "PodInitializing") {
                "PodInitializing" => format!("{at}/{}", specs.len()),
                reason => reason.to_owned(),
            }
        };
        summary.reason = format!("Init:{reason}");
        return (true, sidecars);
    }
    (false, sidecars)
}

fn ended(terminated: &Value) -> String {
    let signal = number(&terminated["signal"]);
    match text_or(&terminated["reason"], "") {
        "" if signal != 0 => format!("Signal:{signal}"),
        "" => format!("ExitCode:{}", number(&terminated["exitCode"])),
        reason => reason.to_owned(),
    }
}

fn containers(status: &Value, summary: &mut Summary) {
    let mut running = false;
    // The first container's word counts, so it is said last.
    for container in list(&status["containerStatuses"]).iter().rev() {
        summary.count_restarts(container);
        let state = &container["state"];
        let waiting = text_or(&state["waiting"]["reason"], "");
        if !waiting.is_empty() {
            summary.reason = waiting.to_owned();
        } else if !state["terminated"].is_null() {
            summary.reason = ended(&state["terminated"]);
        } else if container["ready"] == true && !state["running"].is_null() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" && running {
        summary.reason = if condition(status, "Ready") { "Running" } else { "NotReady" }.into();
    }
}
