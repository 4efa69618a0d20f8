//! Ends of processes, as lines: with which code, and what happens next.

use std::{collections::BTreeMap, pin::pin};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use kube::{
    Api, Client, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use yado_types::{labels::RESTART, pod::Restart};

use crate::{process::ProcessNames, text::harmless};

/// Tells `tell` of every process that ends, those of Pods that are being removed excepted, until this is dropped.
///
/// `labels` is a selector of Pods; empty is all.
pub async fn follow_exits(client: &Client, namespace: &str, labels: &str, tell: impl Fn(String)) {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let config = watcher::Config::default().labels(labels);
    let mut events = pin!(watcher(api, config).default_backoff());
    let mut exits = Exits::default();
    // A watcher starts again by itself after an error.
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(pod) | Event::InitApply(pod)) => exits.observe(&pod).into_iter().for_each(&tell),
            Ok(Event::Delete(pod)) => exits.forget(&pod.name_any()),
            Ok(Event::Init | Event::InitDone) | Err(_) => {}
        }
    }
}

/// Which ends have been told.
#[derive(Default)]
struct Exits {
    names: ProcessNames,
    /// Pod and container to the run whose end was told last.
    told: BTreeMap<(String, String), String>,
}

impl Exits {
    fn forget(&mut self, pod: &str) {
        self.names.forget(pod);
        self.told.retain(|(name, _), _| name != pod);
    }

    /// A line for each process of the Pod that has ended since the last look.
    fn observe(&mut self, pod: &Pod) -> Vec<String> {
        let process = self.names.name(pod);
        let status = pod.status.as_ref();
        let init = status.and_then(|s| s.init_container_statuses.as_ref()).into_iter().flatten();
        let own = status.and_then(|s| s.container_statuses.as_ref()).into_iter().flatten();
        let several = pod.spec.as_ref().is_some_and(|s| s.containers.len() > 1);
        let mut lines = Vec::new();
        for (container, is_init) in init.map(|c| (c, true)).chain(own.map(|c| (c, false))) {
            let Some(end) = end(pod, container, is_init) else { continue };
            let key = (pod.name_any(), container.name.clone());
            if self.told.insert(key, end.run.clone()).as_ref() == Some(&end.run)
                || pod.metadata.deletion_timestamp.is_some()
                || (is_init && end.code == 0)
            {
                continue;
            }
            let which = if several || is_init { format!("/{}", container.name) } else { String::new() };
            lines.push(format!("{process}{which} {}", end.sentence));
        }
        lines
    }
}

struct End {
    /// Identifies the run.
    run: String,
    code: i32,
    sentence: String,
}

/// The last end of a container's process.
fn end(pod: &Pod, container: &ContainerStatus, is_init: bool) -> Option<End> {
    let terminated = |state: Option<&ContainerState>| state.and_then(|s| s.terminated.clone());
    let now = terminated(container.state.as_ref());
    let ended = now.clone().or_else(|| terminated(container.last_state.as_ref()))?;
    let waiting = container.state.as_ref().and_then(|s| s.waiting.as_ref());
    let code = ended.exit_code;
    let how = match ended.reason.as_deref() {
        Some("StartError" | "ContainerCannotRun") => {
            format!("cannot be started: {}", harmless(ended.message.as_deref().unwrap_or_default(), false))
        }
        Some("OOMKilled") => format!("was killed because it ran out of memory (OOMKilled, exit code {code})"),
        _ => format!("ended with exit code {code}"),
    };
    // What has been replaced by another run was run again, whatever is said of the present one.
    let again = now.is_none() || restarts(pod, container, code, is_init);
    let next = match (again, waiting) {
        (true, Some(waiting)) => match delay(waiting.message.as_deref().unwrap_or_default()) {
            Some(delay) => format!("it is started again in {delay}"),
            None => "it is started again".into(),
        },
        (true, None) if now.is_none() => "it has been started again".into(),
        (true, None) => "it is started again".into(),
        (false, _) => not_restarted(pod, code),
    };
    let started = ended.started_at.as_ref().map(|t| t.0.to_string()).unwrap_or_default();
    let run = ended.container_id.unwrap_or(started);
    Some(End { run, code, sentence: format!("{how}; {next}") })
}

/// Whether the node starts a container again that ended with this code: as its Pod's policy says or, where that is
/// `Always` as a Deployment's has to be, the annotation with what its description says.
fn restarts(pod: &Pod, container: &ContainerStatus, code: i32, is_init: bool) -> bool {
    match pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always") {
        "Never" => false,
        "OnFailure" => code != 0,
        _ if is_init => code != 0,
        _ => {
            let annotation = pod.annotations().get(RESTART).map_or("{}", String::as_str);
            let policies: BTreeMap<String, String> = serde_json::from_str(annotation).unwrap_or_default();
            let policy = policies.get(&container.name).and_then(|text| text.parse::<Restart>().ok());
            policy.unwrap_or_default().again(code, container.restart_count.max(0).unsigned_abs())
        }
    }
}

fn not_restarted(pod: &Pod, code: i32) -> String {
    let of_job = pod.owner_references().iter().any(|owner| owner.kind == "Job");
    match code {
        0 => "it has completed".into(),
        _ if of_job => "it is not started again, unless its Job has retries left".into(),
        _ => "it is not started again".into(),
    }
}

/// The delay in `back-off 10s restarting failed container=web pod=...`.
fn delay(message: &str) -> Option<&str> {
    message.strip_prefix("back-off ")?.split(' ').next()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(policy: &str, owner: &str, status: Value) -> Pod {
        let mut container = status;
        for (key, value) in
            [("name", json!("c")), ("image", json!("")), ("imageID", json!("")), ("ready", json!(false))]
        {
            container[key] = value;
        }
        container["restartCount"] = json!(0);
        serde_json::from_value(json!({
            "metadata": {"name": "p", "ownerReferences": [{"apiVersion": "v1", "kind": owner, "name": "o", "uid": "u"}]},
            "spec": {"restartPolicy": policy, "containers": [{"name": "c"}]},
            "status": {"containerStatuses": [container]},
        }))
        .unwrap()
    }

    #[test]
    fn every_end_is_told_once_with_what_happens_next() {
        let ended = |code: i32, run: &str| json!({"terminated": {"exitCode": code, "containerID": run}});
        let waits = |run: &str| {
            json!({"state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container=c"}},
                "lastState": ended(1, run)})
        };
        let start_error =
            json!({"terminated": {"exitCode": 128, "reason": "StartError", "message": "no such file"}});
        let killed = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
        let rows = [
            ("Always", "ReplicaSet", json!({"state": {"running": {}}}), None),
            (
                "Always",
                "ReplicaSet",
                json!({"state": ended(0, "1")}),
                Some("p ended with exit code 0; it is started again"),
            ),
            (
                "Always",
                "ReplicaSet",
                waits("1"),
                Some("p ended with exit code 1; it is started again in 10s"),
            ),
            (
                "Always",
                "ReplicaSet",
                json!({"state": {"running": {}}, "lastState": ended(3, "1")}),
                Some("p ended with exit code 3; it has been started again"),
            ),
            (
                "Always",
                "ReplicaSet",
                json!({"state": start_error}),
                Some("p cannot be started: no such file; it is started again"),
            ),
            (
                "Never",
                "Job",
                json!({"state": ended(3, "1")}),
                Some("p ended with exit code 3; it is not started again, unless its Job has retries left"),
            ),
            (
                "OnFailure",
                "Job",
                json!({"state": ended(0, "1")}),
                Some("p ended with exit code 0; it has completed"),
            ),
            (
                "Never",
                "None",
                json!({"state": killed}),
                Some(
                    "p was killed because it ran out of memory (OOMKilled, exit code 137); it is not started again",
                ),
            ),
        ];
        for (policy, owner, status, expect) in rows {
            let mut exits = Exits::default();
            let pod = pod(policy, owner, status);
            assert_eq!(exits.observe(&pod).first().map(String::as_str), expect);
            assert_eq!(exits.observe(&pod), Vec::<String>::new(), "told twice");
        }
        // A Deployment's Pods that run once, as their description says.
        let mut once = pod("Always", "ReplicaSet", json!({"state": ended(3, "1")}));
        once.metadata.annotations = Some([(RESTART.to_owned(), r#"{"c": "no"}"#.to_owned())].into());
        assert_eq!(Exits::default().observe(&once), ["p ended with exit code 3; it is not started again"]);
        let mut exits = Exits::default();
        assert_eq!(exits.observe(&pod("Always", "ReplicaSet", waits("1"))).len(), 1);
        assert_eq!(exits.observe(&pod("Always", "ReplicaSet", waits("2"))).len(), 1);
        let mut leaving = pod("Always", "ReplicaSet", waits("3"));
        leaving.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(exits.observe(&leaving), Vec::<String>::new());
    }
}
