//! The readiness decision, row by row.

use serde_json::json;

use super::*;
use crate::ready::observed::Seen;

const SETTLE: Duration = Duration::from_secs(2);
/// Seconds between the first and the last look of a row, at which nothing else has changed.
const LONG: u64 = 60;

fn labels_of(app: &str, component: &str) -> Value {
    json!({labels::APP_NAME: app, labels::APP_COMPONENT: component})
}

/// A Deployment of one Pod whose status says that all is well, with its ReplicaSets of an old and of the new revision.
fn deployment(container: Value) -> Vec<Value> {
    let set = |revision: u64| {
        json!({"kind": "ReplicaSet", "metadata": {"name": format!("web-{revision}"), "uid": format!("set{revision}"),
            "annotations": {labels::DEPLOYMENT_REVISION: revision.to_string()},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Deployment", "name": "web", "uid": "web"}]}})
    };
    let mut web = json!({"kind": "Deployment",
        "metadata": {"name": "web", "uid": "web", "generation": 2, "labels": labels_of("shop", "web"),
            "annotations": {labels::DEPLOYMENT_REVISION: "2"}},
        "spec": {"replicas": 1, "template": {"spec": {"containers": [container]}}},
        "status": {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}});
    web["spec"]["template"]["metadata"] = json!({"annotations": {}});
    vec![web, set(1), set(2)]
}

fn job(conditions: Value, container: Value) -> Vec<Value> {
    vec![json!({"kind": "Job", "metadata": {"name": "web", "uid": "web", "labels": labels_of("shop", "web")},
        "spec": {"template": {"spec": {"containers": [container]}}},
        "status": {"ready": 1, "conditions": conditions}})]
}

/// A Pod of the owner `uid`, with one container in this state.
fn pod(uid: &str, container: &Value, phase: &str, ready: bool, state: Value) -> Pod {
    let mut status = state;
    for (key, value) in
        [("name", json!("c")), ("image", json!("i")), ("imageID", json!("")), ("ready", json!(ready))]
    {
        status[key] = value;
    }
    if status["restartCount"].is_null() {
        status["restartCount"] = json!(0);
    }
    let condition = if ready { "True" } else { "False" };
    serde_json::from_value(json!({
        "metadata": {"name": format!("pod-{uid}"), "namespace": "shop", "uid": format!("pod-{uid}"),
            "ownerReferences": [{"apiVersion": "v1", "kind": "ReplicaSet", "name": "o", "uid": uid}]},
        "spec": {"containers": [container]},
        "status": {"phase": phase, "containerStatuses": [status], "conditions": [{"type": "Ready", "status": condition}]},
    }))
    .unwrap()
}

fn plain() -> Value {
    json!({"name": "c", "image": "i"})
}

fn probed() -> Value {
    json!({"name": "c", "image": "i", "readinessProbe": {"exec": {"command": ["pg_isready", "-q"]}}})
}

fn serving() -> Value {
    json!({"name": "c", "image": "i", "ports": [{"containerPort": 80}]})
}

fn running() -> Value {
    json!({"state": {"running": {}}})
}

fn waits(reason: &str, restarts: i32, last: Value) -> Value {
    json!({"restartCount": restarts, "state": {"waiting": {"reason": reason, "message": "because"}}, "lastState": {"terminated": last}})
}

fn warning(reason: &str, kind: &str, of: &str, message: &str) -> Value {
    json!({"metadata": {"name": "e", "namespace": "shop"}, "reason": reason, "message": message,
        "involvedObject": {"kind": kind, "name": of, "uid": of}, "lastTimestamp": "2026-01-01T00:00:00Z"})
}

struct Row {
    objects: Vec<Value>,
    pods: Vec<Pod>,
    events: Vec<Value>,
    /// Seconds for which all is seen as it is.
    after: u64,
}

impl Row {
    fn of(objects: Vec<Value>, pods: Vec<Pod>, after: u64) -> Self {
        Row { objects, pods, events: Vec::new(), after }
    }

    fn with(mut self, event: Value) -> Self {
        self.events.push(event);
        self
    }

    fn observed(&self) -> Observed {
        let key = |object: &Value| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (text(&object["kind"]), text(&object["metadata"]["name"]))
        };
        let mut observed = Observed {
            objects: self.objects.iter().map(|object| (key(object), object.clone())).collect(),
            pods: self.pods.iter().map(|pod| (pod.name_any(), pod.clone())).collect(),
            events: self.events.iter().map(|e| serde_json::from_value(e.clone()).unwrap()).collect(),
            seen: Seen::default(),
            now: Duration::from_secs(100),
        };
        observed.note();
        observed.now += Duration::from_secs(self.after);
        observed.note();
        observed
    }
}

/// What is decided on the first object: `ready`, `moving: WHY` or `failed: WHY`, with `+log` where a log tells more.
fn check(what: &str, row: &Row, expect: &str) {
    let observed = row.observed();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let first = &row.objects[0];
    let key = (text(&first["kind"]), text(&first["metadata"]["name"]));
    let verdict = judge(&[key], &observed, SETTLE);
    let log = |cause: &Cause| match &cause.log {
        Some(log) if log.previous => " +previous log",
        Some(_) => " +log",
        None => "",
    };
    let said = match (&verdict.failed, verdict.moving.first()) {
        (Some((_, cause)), _) => format!("failed: {}{}", cause.sentence, log(cause)),
        (None, Some((_, cause))) => format!("moving: {}{}", cause.sentence, log(cause)),
        (None, None) => "ready".into(),
    };
    assert_eq!(said, expect, "{what}");
}

#[test]
fn a_process_is_ready_when_it_has_proved_so() {
    let of = |container: Value, ready, state: Value, after| {
        Row::of(deployment(container.clone()), vec![pod("set2", &container, "Running", ready, state)], after)
    };
    check(
        "just started",
        &of(plain(), true, running(), 0),
        "moving: its process has only just been started +log",
    );
    check("has lived", &of(plain(), true, running(), 2), "ready");
    check("probed", &of(probed(), true, running(), 0), "ready");
    check(
        "known before its Pods",
        &Row::of(deployment(plain()), vec![], LONG),
        "moving: 1/1 are ready in its newest revision",
    );
    check(
        "probe has said nothing",
        &of(probed(), false, running(), LONG),
        "moving: its process runs, but its readiness probe (pg_isready -q) has not succeeded yet",
    );
    let said = warning("Unhealthy", "Pod", "pod-set2", "Readiness probe failed: the schema is missing\n");
    check(
        "probe's own words",
        &of(probed(), false, running(), LONG).with(said),
        "moving: its process runs, but its readiness probe (pg_isready -q) fails: the schema is missing",
    );
    let again =
        json!({"restartCount": 1, "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 1}}});
    check(
        "crashed a moment ago",
        &of(plain(), true, again, 1),
        "moving: its process ended with exit code 1, and has just been restarted +previous log",
    );
    let mut old = deployment(plain());
    old[0]["status"]["observedGeneration"] = json!(1);
    check("an older generation", &Row::of(old, vec![], LONG), "moving: 1/1 are ready in its newest revision");
}

#[test]
fn a_restart_meanwhile_counts_with_a_probe_too() {
    let container = probed();
    let row =
        Row::of(deployment(container.clone()), vec![pod("set2", &container, "Running", true, running())], 0);
    let mut observed = row.observed();
    let key = [("Deployment".to_owned(), "web".to_owned())];
    assert!(judge(&key, &observed, SETTLE).is_ready());
    let again = json!({"restartCount": 1, "state": {"running": {}}});
    observed.pods.insert("pod-set2".into(), pod("set2", &container, "Running", true, again));
    observed.note();
    assert!(!judge(&key, &observed, SETTLE).is_ready());
    observed.now += SETTLE;
    assert!(judge(&key, &observed, SETTLE).is_ready());
}

#[test]
fn what_cannot_become_ready_fails_with_its_own_cause() {
    let of = |phase: &str, state: Value, after| {
        Row::of(deployment(plain()), vec![pod("set2", &plain(), phase, false, state)], after)
    };
    let crash = |restarts| waits("CrashLoopBackOff", restarts, json!({"exitCode": 7}));
    check("one crash", &of("Running", crash(0), LONG), "moving: its process ended with exit code 7 +log");
    check(
        "two crashes",
        &of("Running", crash(1), LONG),
        "moving: its process ended with exit code 7, 2 times +log",
    );
    check(
        "four crashes",
        &of("Running", crash(3), 0),
        "failed: its process ended with exit code 7, 4 times +log",
    );
    let start = json!({"exitCode": 128, "reason": "StartError", "message": "/no/such: no such file"});
    check(
        "no such program",
        &of("Running", waits("CrashLoopBackOff", 0, start.clone()), 0),
        "failed: its process cannot be started: /no/such: no such file +log",
    );
    check(
        "no such program, not tried again yet",
        &of("Running", json!({"state": {"terminated": start}}), 0),
        "failed: its process cannot be started: /no/such: no such file +log",
    );
    let killed = json!({"exitCode": 137, "reason": "OOMKilled"});
    let small = json!({"name": "c", "image": "i", "resources": {"limits": {"memory": "8Mi"}}});
    let pods = vec![pod("set2", &small, "Running", false, waits("CrashLoopBackOff", 3, killed))];
    check(
        "too little memory",
        &Row::of(deployment(small), pods, 0),
        "failed: its process was killed because it ran out of memory (OOMKilled): it needs more than its limit of 8Mi, 4 times +log",
    );
    let none = || json!({"exitCode": 0});
    check(
        "image, at first",
        &of("Pending", waits("ErrImagePull", 0, none()), LONG),
        "moving: image i cannot be pulled: because",
    );
    check(
        "image",
        &of("Pending", waits("ImagePullBackOff", 0, none()), 0),
        "failed: image i cannot be used: ImagePullBackOff because",
    );
    check(
        "unknown user, at first",
        &of("Pending", waits("CreateContainerConfigError", 0, none()), 0),
        "moving: its process cannot be created: CreateContainerConfigError: because",
    );
    check(
        "unknown user",
        &of("Pending", waits("CreateContainerConfigError", 0, none()), 3),
        "failed: its process cannot be created: CreateContainerConfigError: because",
    );
    let mount = warning("FailedMount", "Pod", "pod-set2", "MountVolume.SetUp failed: /nowhere is not there");
    let creating = || waits("ContainerCreating", 0, none());
    check("being made", &of("Pending", creating(), LONG), "moving: its container is being created");
    check(
        "mount",
        &of("Pending", creating(), LONG).with(mount),
        "failed: MountVolume.SetUp failed: /nowhere is not there",
    );
}

#[test]
fn a_process_that_is_not_run_again_has_done_its_work_or_failed() {
    let of = |code: i32, after| {
        let mut web = deployment(plain());
        web[0]["status"]["availableReplicas"] = json!(0);
        let state = json!({"state": {"terminated": {"exitCode": code}}});
        Row::of(web, vec![pod("set2", &plain(), "Running", false, state)], after)
    };
    check("ended well just now", &of(0, 0), "moving: its process ended with exit code 0 +log");
    check("ended well", &of(0, 1), "ready");
    check("ended badly just now", &of(3, 0), "moving: its process ended with exit code 3 +log");
    check("ended badly", &of(3, 1), "failed: its process ended with exit code 3 +log");
}

#[test]
fn only_the_newest_revision_counts() {
    let crash = waits("CrashLoopBackOff", 9, json!({"exitCode": 1}));
    let old = pod("set1", &plain(), "Running", false, crash.clone());
    let good = pod("set2", &plain(), "Running", true, running());
    check("the old one crashed", &Row::of(deployment(plain()), vec![old, good], LONG), "ready");
    let serves = pod("set1", &plain(), "Running", true, running());
    let bad = pod("set2", &plain(), "Running", false, crash);
    check(
        "the new one crashes",
        &Row::of(deployment(plain()), vec![serves, bad], LONG),
        "failed: its process ended with exit code 1, 10 times +log",
    );
}

#[test]
fn a_job_is_ready_when_it_has_completed() {
    let of = |conditions: Value, container: Value, phase: &str, state: Value| {
        Row::of(
            job(conditions, container.clone()),
            vec![pod("web", &container, phase, phase == "Running", state)],
            LONG,
        )
    };
    let condition = |kind: &str| json!([{"type": kind, "status": "True", "reason": "BackoffLimitExceeded", "message": "m"}]);
    check("runs", &of(json!([]), plain(), "Running", running()), "moving: it has not completed yet");
    check("complete", &of(condition("Complete"), plain(), "Succeeded", running()), "ready");
    check("serves", &of(json!([]), serving(), "Running", running()), "ready");
    let ended = json!({"state": {"terminated": {"exitCode": 3}}});
    check(
        "failed",
        &of(condition("Failed"), plain(), "Failed", ended.clone()),
        "failed: its process ended with exit code 3 (BackoffLimitExceeded: m) +log",
    );
    check(
        "a try has failed",
        &of(json!([]), plain(), "Failed", ended),
        "moving: its process ended with exit code 3 +log",
    );
    let crash = waits("CrashLoopBackOff", 5, json!({"exitCode": 1}));
    check(
        "its own number of tries",
        &of(json!([]), plain(), "Running", crash),
        "moving: its process ended with exit code 1, 6 times +log",
    );
    check(
        "its Pods are gone",
        &Row::of(job(condition("Failed"), plain()), vec![], 0),
        "failed: its Pods have failed (BackoffLimitExceeded: m)",
    );
}

#[test]
fn a_job_that_another_waits_for_must_complete_even_if_it_serves() {
    let mut objects = job(json!([]), serving());
    objects[0]["metadata"]["name"] = json!("migrate");
    objects[0]["metadata"]["labels"][labels::APP_COMPONENT] = json!("migrate");
    let mut web = deployment(plain());
    web[0]["spec"]["template"]["metadata"]["annotations"][labels::DEPENDS_ON] =
        json!("{\"migrate\": \"completed\"}");
    objects.extend(web);
    let mut waits = pod("set2", &plain(), "Pending", false, json!({}));
    waits.status.as_mut().unwrap().conditions = serde_json::from_value(
        json!([{"type": "PodScheduled", "status": "False", "message": "waits for migrate to complete"}]),
    )
    .unwrap();
    let pods = vec![pod("web", &serving(), "Running", true, running()), waits];
    let row = Row::of(objects, pods, LONG);
    let keys = [("Job".to_owned(), "migrate".to_owned()), ("Deployment".to_owned(), "web".to_owned())];
    let verdict = judge(&keys, &row.observed(), SETTLE);
    let said: Vec<&str> = verdict.moving.iter().map(|(_, cause)| cause.sentence.as_str()).collect();
    assert_eq!(said, ["it has not completed yet", "waits for migrate to complete"]);
}

#[test]
fn a_published_port_is_ready_when_it_is_the_services_own() {
    let service = |status: Value| {
        vec![
            json!({"kind": "Service", "metadata": {"name": "web-public"}, "spec": {"type": "LoadBalancer"}, "status": status}),
        ]
    };
    let refused = json!({"conditions": [{"type": labels::PUBLISHED, "status": "False",
        "message": "port 80/TCP is in use on this machine by nginx (process 7)"}]});
    let of = |status: Value, after| Row::of(service(status), vec![], after);
    check("published", &of(json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}), 0), "ready");
    check(
        "nobody has said anything",
        &of(json!({}), LONG),
        "moving: it has no address yet: its ports are published once its load balancer answers",
    );
    check(
        "refused just now",
        &of(refused.clone(), 1),
        "moving: port 80/TCP is in use on this machine by nginx (process 7)",
    );
    check("refused", &of(refused, 3), "failed: port 80/TCP is in use on this machine by nginx (process 7)");
    let event = warning("SyncLoadBalancerFailed", "Service", "web-public", "no quota");
    check("another cluster's balancer", &of(json!({}), LONG).with(event), "moving: no quota");
}

#[test]
fn a_pod_by_itself() {
    let of = |phase: &str, state: Value, after| {
        let pod = pod("web", &plain(), phase, phase == "Running", state);
        let object = json!({"kind": "Pod", "metadata": {"name": "pod-web"}});
        Row::of(vec![object], vec![pod], after)
    };
    check("has lived", &of("Running", running(), 2), "ready");
    check("done", &of("Succeeded", running(), 0), "ready");
    let ended = json!({"state": {"terminated": {"exitCode": 4, "message": "told so"}}});
    check("failed", &of("Failed", ended, 0), "failed: its process ended with exit code 4: told so +log");
}
