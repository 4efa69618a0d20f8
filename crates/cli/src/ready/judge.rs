//! The readiness decision: observed objects in, one [`Readiness`] for each awaited object out. Pure.
//!
//! | kind | ready when |
//! |---|---|
//! | Deployment, StatefulSet, DaemonSet, ReplicaSet | its rollout is complete and every Pod of the newest revision is ready |
//! | Job | it has completed; one that serves and that nothing waits for: its Pods are ready |
//! | Pod | it is ready, or has succeeded |
//! | Service of type LoadBalancer | its status names an address: its ports are its own |
//!
//! A Pod is ready when its Ready condition holds, and each container without a probe has run for the settle time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::Value;
use yado_types::labels;

use super::{
    container::{self, Expectation},
    observed::{Key, Observed, refusal},
};
use crate::workloads::{self, Count};

/// How long a Service may be refused its ports before that counts: who had them may just be going, and a port that a
/// program of the machine had is asked for again every two seconds.
const PORT_RETRIED: Duration = Duration::from_secs(3);

/// Outcome of a readiness decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It serves in its newest generation, or has completed.
    Ready,
    /// It may become ready by itself; why it is not yet.
    Moving(Cause),
    /// It cannot become ready unless something is changed.
    Failed(Cause),
}

/// Why something is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The rest of a sentence that begins with the object.
    pub sentence: String,
    /// Where the last words of the process are.
    pub log: Option<LogOf>,
}

impl Cause {
    /// A cause without a log.
    pub fn of(sentence: impl Into<String>) -> Self {
        Cause { sentence: sentence.into(), log: None }
    }
}

/// The log of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOf {
    /// The Pod.
    pub pod: String,
    /// The container.
    pub container: String,
    /// The run before the present one.
    pub previous: bool,
}

/// The decision on everything that is awaited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How many are ready.
    pub ready: usize,
    /// The first that has failed, in the order in which they were applied: what others depend on comes first.
    pub failed: Option<(Key, Cause)>,
    /// Those that are not ready and have not failed, in the same order.
    pub moving: Vec<(Key, Cause)>,
}

impl Verdict {
    /// Whether everything is ready.
    pub fn is_ready(&self) -> bool {
        self.failed.is_none() && self.moving.is_empty()
    }
}

/// Kinds that are awaited beside those of [`workloads::KINDS`].
pub const SERVICE: &str = "Service";

/// Decides on `awaited`, given what is observed of their namespace.
pub fn judge(awaited: &[Key], observed: &Observed, settle: Duration) -> Verdict {
    let completions = completions(awaited, observed);
    let mut verdict = Verdict { ready: 0, failed: None, moving: Vec::new() };
    for key in awaited {
        match one(key, observed, settle, &completions) {
            Readiness::Ready => verdict.ready += 1,
            Readiness::Moving(cause) => verdict.moving.push((key.clone(), cause)),
            Readiness::Failed(cause) => drop(verdict.failed.get_or_insert((key.clone(), cause))),
        }
    }
    verdict
}

/// Components whose completion another one waits for.
fn completions(awaited: &[Key], observed: &Observed) -> BTreeSet<String> {
    let objects = awaited.iter().filter_map(|key| observed.objects.get(key));
    let waits = objects.flat_map(depends_on);
    waits.filter(|(_, what)| what == labels::DEPENDS_ON_COMPLETED).map(|(component, _)| component).collect()
}

/// What a workload's Pods wait for: component to condition.
pub fn depends_on(object: &Value) -> BTreeMap<String, String> {
    let template = if object["kind"] == "Pod" { object } else { &object["spec"]["template"] };
    let text = template["metadata"]["annotations"][labels::DEPENDS_ON].as_str().unwrap_or("{}");
    serde_json::from_str(text).unwrap_or_default()
}

/// The component that a workload is.
pub fn component(object: &Value) -> Option<&str> {
    object["metadata"]["labels"][labels::APP_COMPONENT].as_str()
}

fn one(key: &Key, observed: &Observed, settle: Duration, completions: &BTreeSet<String>) -> Readiness {
    let Some(object) = observed.objects.get(key) else {
        return Readiness::Moving(Cause::of("the API server has no such object"));
    };
    match key.0.as_str() {
        SERVICE => service(key, object, observed),
        "Job" => job(object, observed, settle, completions),
        "Pod" => {
            let Some(pod) = observed.pods.get(&key.1) else {
                return Readiness::Moving(Cause::of("it is not observed yet"));
            };
            container::pod(observed, pod, Expectation { settle, owner_counts_failures: false })
        }
        _ => replicated(object, observed, settle),
    }
}

fn service(key: &Key, object: &Value, observed: &Observed) -> Readiness {
    let addresses = object["status"]["loadBalancer"]["ingress"].as_array();
    if addresses.is_some_and(|all| !all.is_empty()) {
        return Readiness::Ready;
    }
    if let Some(refused) = refusal(object) {
        let since = observed.seen.age(&format!("{}/{}/{refused}", key.0, key.1), observed.now);
        let cause = Cause::of(refused);
        return if since >= PORT_RETRIED { Readiness::Failed(cause) } else { Readiness::Moving(cause) };
    }
    let said = observed.warning_of(&key.0, &key.1, "SyncLoadBalancerFailed");
    let nobody = "it has no address yet: its ports are published once its load balancer answers".to_owned();
    Readiness::Moving(Cause::of(said.unwrap_or(nobody)))
}

fn job(object: &Value, observed: &Observed, settle: Duration, completions: &BTreeSet<String>) -> Readiness {
    if workloads::condition(object, "Complete") {
        return Readiness::Ready;
    }
    let pods: Vec<&Pod> = observed.pods.values().filter(|pod| is_owned_by(pod, object)).collect();
    let expected = Expectation { settle, owner_counts_failures: true };
    let states: Vec<Readiness> = pods.iter().map(|pod| container::pod(observed, pod, expected)).collect();
    let cause = |states: &[Readiness]| {
        states.iter().find_map(|state| match state {
            Readiness::Moving(cause) | Readiness::Failed(cause) => Some(cause.clone()),
            Readiness::Ready => None,
        })
    };
    if let Some(reason) = workloads::failed_condition(object) {
        let mut cause = cause(&states).unwrap_or_else(|| Cause::of("its Pods have failed"));
        if !reason.is_empty() {
            cause.sentence.push_str(&format!(" ({reason})"));
        }
        return Readiness::Failed(cause);
    }
    if let Some(Readiness::Failed(cause)) = states.iter().find(|s| matches!(s, Readiness::Failed(_))) {
        return Readiness::Failed(cause.clone());
    }
    let Count { ready, wanted } = workloads::count(object);
    let awaited = component(object).is_some_and(|c| completions.contains(c));
    if serves(object) && !awaited && ready >= wanted && states.iter().all(|s| *s == Readiness::Ready) {
        return Readiness::Ready;
    }
    Readiness::Moving(cause(&states).unwrap_or_else(|| Cause::of("it has not completed yet")))
}

/// Whether a Job's process listens for others, and so is not meant to end before it is told to.
fn serves(job: &Value) -> bool {
    let containers = job["spec"]["template"]["spec"]["containers"].as_array().into_iter().flatten();
    let mut containers = containers.map(|c| (&c["ports"], &c["readinessProbe"]));
    containers.any(|(ports, probe)| ports.as_array().is_some_and(|p| !p.is_empty()) || probe.is_object())
}

fn replicated(object: &Value, observed: &Observed, settle: Duration) -> Readiness {
    let pods: Vec<&Pod> = newest_pods(object, observed).collect();
    let expected = Expectation { settle, owner_counts_failures: false };
    let mut moving = None;
    for pod in &pods {
        match container::pod(observed, pod, expected) {
            Readiness::Ready => {}
            Readiness::Failed(cause) => return Readiness::Failed(cause),
            Readiness::Moving(cause) => drop(moving.get_or_insert(cause)),
        }
    }
    if workloads::conditions(object).any(|c| c["reason"] == "ProgressDeadlineExceeded") {
        return Readiness::Failed(
            moving.unwrap_or_else(|| Cause::of("it has exceeded its progress deadline")),
        );
    }
    if let Some(cause) = moving {
        return Readiness::Moving(cause);
    }
    let wanted = usize::try_from(workloads::count(object).wanted).unwrap_or(0);
    // Processes that have done their work are never available, and as many as were asked for.
    if pods.len() >= wanted && pods.iter().any(|pod| container::has_done_its_work(observed, pod)) {
        return Readiness::Ready;
    }
    // Its status may be known before its Pods are.
    let observed_pods = observed.pods.values().filter(|pod| is_of(pod, object, observed)).count();
    if workloads::is_rolled_out(object) && observed_pods >= wanted {
        return Readiness::Ready;
    }
    let failure =
        workloads::conditions(object).find(|c| c["type"] == "ReplicaFailure" && c["status"] == "True");
    let said = failure.and_then(|c| c["message"].as_str()).map(|m| format!("its Pods cannot be made: {m}"));
    let count = workloads::count(object);
    Readiness::Moving(Cause::of(said.unwrap_or_else(|| format!("{count} are ready in its newest revision"))))
}

/// The Pods of an object that are of its newest revision and stay: what is wrong with earlier ones may be what this
/// revision mends.
pub fn newest_pods<'a>(object: &'a Value, observed: &'a Observed) -> impl Iterator<Item = &'a Pod> {
    let by_template = object["kind"] != "Deployment";
    observed.pods.values().filter(move |pod| {
        is_of(pod, object, observed)
            && (!by_template || runs_template(object, pod))
            && pod.metadata.deletion_timestamp.is_none()
    })
}

/// Whether a Pod is an object's, of the newest revision where that is a Deployment.
fn is_of(pod: &Pod, object: &Value, observed: &Observed) -> bool {
    match object["kind"] == "Deployment" {
        true => newest_replica_set(object, observed).is_some_and(|set| is_owned_by(pod, set)),
        false => is_owned_by(pod, object),
    }
}

/// The ReplicaSet of a Deployment's newest revision.
fn newest_replica_set<'a>(object: &Value, observed: &'a Observed) -> Option<&'a Value> {
    let revision = &object["metadata"]["annotations"][labels::DEPLOYMENT_REVISION];
    let seen = object["status"]["observedGeneration"].as_i64() >= object["metadata"]["generation"].as_i64();
    let sets = observed.objects.iter().filter(|((kind, _), _)| kind == "ReplicaSet").map(|(_, set)| set);
    let mut own = sets.filter(|set| {
        owner_uids(&set["metadata"]).any(|uid| Some(uid) == object["metadata"]["uid"].as_str())
    });
    own.find(|set| seen && set["metadata"]["annotations"][labels::DEPLOYMENT_REVISION] == *revision)
}

fn owner_uids(metadata: &Value) -> impl Iterator<Item = &str> {
    metadata["ownerReferences"].as_array().into_iter().flatten().filter_map(|o| o["uid"].as_str())
}

fn is_owned_by(pod: &Pod, object: &Value) -> bool {
    let uid = object["metadata"]["uid"].as_str();
    pod.owner_references().iter().any(|owner| Some(owner.uid.as_str()) == uid)
}

/// Whether a Pod's containers are those of an object's template.
fn runs_template(object: &Value, pod: &Pod) -> bool {
    let Ok(running) = serde_json::to_value(&pod.spec) else { return false };
    let containers = |spec: &Value| spec["containers"].as_array().cloned().unwrap_or_default();
    let running = containers(&running);
    containers(&object["spec"]["template"]["spec"]).iter().all(|wanted| {
        let same = |there: &Value, field: &str| there[field] == wanted[field];
        running.iter().any(|there| ["name", "image", "command", "args", "env"].iter().all(|f| same(there, f)))
    })
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
