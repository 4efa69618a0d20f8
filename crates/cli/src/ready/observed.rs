//! Observed state of one namespace that readiness is decided from, and for how long it has been as it is.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod, PodCondition};
use kube::ResourceExt;
use serde_json::Value;

/// Kind and name of an object.
pub type Key = (String, String);

/// The state of one namespace.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Workloads, ReplicaSets and Services, each with its `kind`.
    pub objects: BTreeMap<Key, Value>,
    /// Pods by name.
    pub pods: BTreeMap<String, Pod>,
    /// Warnings about any of these.
    pub events: Vec<Event>,
    /// For how long states have been seen.
    pub seen: Seen,
    /// The monotonic time of this observation.
    pub now: Duration,
}

impl Observed {
    /// The words of the newest warning about a Pod that has one of these reasons.
    pub(super) fn warning(&self, pod: &Pod, reasons: &[&str]) -> Option<String> {
        let uid = pod.metadata.uid.as_deref();
        self.newest(|e| {
            e.involved_object.uid.as_deref() == uid
                && e.reason.as_deref().is_some_and(|r| reasons.contains(&r))
        })
    }

    /// The words of the newest warning about an object that has this reason.
    pub(super) fn warning_of(&self, kind: &str, name: &str, reason: &str) -> Option<String> {
        self.newest(|e| {
            e.involved_object.kind.as_deref() == Some(kind)
                && e.involved_object.name.as_deref() == Some(name)
                && e.reason.as_deref() == Some(reason)
        })
    }

    fn newest(&self, wanted: impl Fn(&Event) -> bool) -> Option<String> {
        let time = |e: &Event| {
            let micro = e.event_time.as_ref().map(|t| t.0);
            e.last_timestamp.as_ref().map(|t| t.0).or(micro).or(e
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|t| t.0))
        };
        let newest = self.events.iter().filter(|e| wanted(e)).max_by_key(|e| time(e))?;
        newest.message.as_ref().map(|m| m.trim().to_owned())
    }

    /// Notes which states are there now, and forgets those that have passed.
    pub(super) fn note(&mut self) {
        let mut there: Vec<String> = Vec::new();
        for pod in self.pods.values() {
            if pod_condition(pod, "PodScheduled").is_some_and(|c| c.status == "False") {
                there.push(format!("{}/unscheduled", pod.name_any()));
            }
            let status = pod.status.iter();
            let statuses = status.flat_map(|s| [&s.init_container_statuses, &s.container_statuses]);
            for status in statuses.flatten().flatten() {
                there.push(container_state(pod, status));
                self.seen.restarts(pod, status);
            }
        }
        for ((kind, name), object) in &self.objects {
            if let Some(refusal) = refusal(object) {
                there.push(format!("{kind}/{name}/{refusal}"));
            }
        }
        let Some(since) = &mut self.seen.since else { return };
        since.retain(|key, _| there.contains(key));
        for key in there {
            since.entry(key).or_insert(self.now);
        }
    }
}

/// Why the node does not publish a Service, as its condition says.
pub(super) fn refusal(service: &Value) -> Option<String> {
    let mut conditions = service["status"]["conditions"].as_array().into_iter().flatten();
    let refused =
        conditions.find(|c| c["type"] == yado_types::labels::PUBLISHED && c["status"] == "False")?;
    Some(refused["message"].as_str().unwrap_or("its ports cannot be published").to_owned())
}

/// A name for the state of a container that changes whenever the state does.
pub(super) fn container_state(pod: &Pod, status: &ContainerStatus) -> String {
    let state = status.state.as_ref();
    let word = match (state.and_then(|s| s.waiting.as_ref()), state.and_then(|s| s.running.as_ref())) {
        (Some(waiting), _) => waiting.reason.as_deref().unwrap_or("waiting"),
        (None, Some(_)) => "running",
        (None, None) => "ended",
    };
    format!("{}/{}/{}/{word}", pod.name_any(), status.name, status.restart_count)
}

pub(super) fn pod_condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    yado_types::pod::condition(pod, kind)
}

/// Since when states have been seen, on the monotonic clock of whoever observes: other machines' clocks may differ.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `None` where everything counts as having been so for long.
    since: Option<HashMap<String, Duration>>,
    /// Restarts of each container when it was first seen.
    restarts: HashMap<String, i32>,
}

impl Default for Seen {
    fn default() -> Self {
        Seen { since: Some(HashMap::new()), restarts: HashMap::new() }
    }
}

impl Seen {
    /// For a single look, which cannot tell for how long anything has been so.
    pub fn for_long() -> Self {
        Seen { since: None, restarts: HashMap::new() }
    }

    pub(super) fn age(&self, state: &str, now: Duration) -> Duration {
        match &self.since {
            None => Duration::MAX,
            Some(since) => since.get(state).map_or(Duration::ZERO, |at| now.saturating_sub(*at)),
        }
    }

    fn restarts(&mut self, pod: &Pod, status: &ContainerStatus) {
        let key = format!("{}/{}", pod.name_any(), status.name);
        self.restarts.entry(key).or_insert(status.restart_count);
    }

    /// Whether a container was restarted since it was first seen.
    pub(super) fn restarted(&self, pod: &Pod, status: &ContainerStatus) -> bool {
        let key = format!("{}/{}", pod.name_any(), status.name);
        self.restarts.get(&key).is_some_and(|before| status.restart_count > *before)
    }
}
