use serde_json::json;

use super::*;

fn pod(name: &str, priority: i32, node: Option<&str>) -> Arc<Pod> {
    let value = json!({
        "metadata": {"name": name, "namespace": "n", "uid": name},
        "spec": {"priority": priority, "nodeName": node, "containers": [
            {"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
    });
    Arc::new(serde_json::from_value(value).expect("a Pod"))
}

fn node(cpus: i32) -> Change<Node> {
    let value = json!({"metadata": {"name": "a"}, "status": {
        "allocatable": {"cpu": cpus.to_string(), "memory": "4Gi", "pods": "10"},
        "conditions": [{"type": "Ready", "status": "True"}]}});
    let node = serde_json::from_value(value).expect("a Node");
    Change { key: ObjectKey::new("", "a"), old: None, new: Some(Arc::new(node)) }
}

fn change(old: Option<&Arc<Pod>>, new: Option<&Arc<Pod>>) -> Change<Pod> {
    let key = old.or(new).map(|p| ObjectKey::of(&p.metadata)).unwrap_or_default();
    Change { key, old: old.cloned(), new: new.cloned() }
}

fn decided(state: &mut State) -> Vec<String> {
    let line = |d: Decision| match d {
        Decision::Bind { candidate, node } => format!("{} on {node}", candidate.pod.name_any()),
        Decision::Reject { pod, why } => format!("{}: {why}", pod.name_any()),
        Decision::SelectNode { candidate, node, claims } => {
            let claims: Vec<_> = claims.iter().map(ToString::to_string).collect();
            format!("{} waits for {} on {node}", candidate.pod.name_any(), claims.join(", "))
        }
        Decision::Wait { pod, why } => format!("{} {why}", pod.name_any()),
        Decision::WarnMalformed { pod, why } => format!("{}! {why}", pod.name_any()),
    };
    state.decide(10).into_iter().map(line).collect()
}

#[test]
fn the_important_come_first_and_the_refused_wait_for_hope() {
    let mut state = State::default();
    state.node_changed(&node(1));
    let (low, high) = (pod("low", 0, None), pod("high", 5, None));
    state.pod_changed(&change(None, Some(&low)));
    state.pod_changed(&change(None, Some(&high)));
    assert_eq!(decided(&mut state), ["high on a", "low: 0/1 nodes are available: 1 Insufficient cpu."]);
    let mut told = Pod::clone(&low);
    told.metadata.resource_version = Some("2".into());
    assert!(!state.pod_changed(&change(Some(&low), Some(&Arc::new(told)))), "its own status wakes nobody");
    assert_eq!(decided(&mut state), [""; 0]);
    let bound = pod("high", 5, Some("a"));
    state.pod_changed(&change(Some(&high), Some(&bound)));
    assert_eq!(decided(&mut state), [""; 0]);
    assert!(state.pod_changed(&change(Some(&bound), None)), "room gives retry_unschedulable");
    assert_eq!(decided(&mut state), ["low on a"]);
}

#[test]
fn a_lost_race_is_taken_back_and_tried_again() {
    let mut state = State::default();
    state.node_changed(&node(1));
    let p = pod("p", 0, None);
    state.pod_changed(&change(None, Some(&p)));
    let decisions = state.decide(10);
    let Some(Decision::Bind { candidate, .. }) = decisions.first() else { panic!("it is bound") };
    state.binding_failed(candidate);
    assert_eq!(decided(&mut state), ["p on a"]);
    // Another scheduler was faster: its placement stays, and nothing is tried again.
    state.pod_changed(&change(Some(&p), Some(&pod("p", 0, Some("a")))));
    state.binding_failed(candidate);
    assert_eq!(decided(&mut state), [""; 0]);
    assert!(state.snapshot.holds("p"));
}

#[test]
fn pods_that_are_not_ours_are_left_alone() {
    let mut state = State::default();
    state.node_changed(&node(9));
    for spec in [
        json!({"schedulerName": "other", "containers": []}),
        json!({"schedulingGates": [{"name": "g"}], "containers": []}),
    ] {
        let value = json!({"metadata": {"name": "p", "namespace": "n", "uid": "p"}, "spec": spec});
        let pod = Arc::new(serde_json::from_value(value).expect("a Pod"));
        state.pod_changed(&change(None, Some(&pod)));
        assert_eq!(decided(&mut state), [""; 0]);
    }
}

/// A Pod of a component, in a phase, with what it depends on.
fn of_component(name: &str, phase: &str, depends_on: &str) -> Arc<Pod> {
    let bound = if phase == "Pending" { "" } else { "a" };
    let conditions = json!([{"type": "Ready", "status": if phase == "Ready" { "True" } else { "False" }}]);
    let over = json!([{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": 0}}}]);
    let value = json!({
        "metadata": {"name": name, "namespace": "n", "uid": name,
            "labels": {"app.kubernetes.io/name": "shop", "app.kubernetes.io/component": name},
            "annotations": {"yado.dev/depends-on": depends_on, "yado.dev/restart": "{\"c\":\"no\"}"}},
        "spec": {"nodeName": bound, "containers": []},
        "status": {"phase": if ["Ready", "Over"].contains(&phase) { "Running" } else { phase },
            "containerStatuses": if phase == "Over" { over } else { json!([]) }, "conditions": conditions},
    });
    Arc::new(serde_json::from_value(value).expect("a Pod"))
}

#[test]
fn pods_wait_for_what_they_depend_on() {
    let mut state = State::default();
    state.node_changed(&node(9));
    let web = of_component("web", "Pending", r#"{"db":"healthy","migrate":"completed","cache":"started"}"#);
    state.pod_changed(&change(None, Some(&web)));
    let first = "web waits for cache to start (there is no Pod of it) and for db to be healthy (there is no Pod of \
                 it) and for migrate to complete (there is no Pod of it)";
    assert_eq!(decided(&mut state), [first]);
    assert_eq!(decided(&mut state), [""; 0], "nothing has changed");
    let mut last: HashMap<&str, Arc<Pod>> = HashMap::new();
    for (name, phase, expect) in [
        (
            "cache",
            "Running",
            "web waits for db to be healthy (there is no Pod of it) and for migrate to complete (there is no Pod of it)",
        ),
        (
            "db",
            "Running",
            "web waits for db to be healthy and for migrate to complete (there is no Pod of it)",
        ),
        (
            "db",
            "Over",
            "web waits for db to be healthy (it has ended) and for migrate to complete (there is no Pod of it)",
        ),
        ("db", "Ready", "web waits for migrate to complete (there is no Pod of it)"),
        ("migrate", "Failed", "web waits for migrate to complete (it has failed)"),
        ("db", "Ready", ""),
        ("other", "Running", ""),
        ("migrate", "Succeeded", "web on a"),
    ] {
        let pod = of_component(name, phase, "");
        state.pod_changed(&change(last.get(name), Some(&pod)));
        last.insert(name, pod);
        let shown: Vec<_> = decided(&mut state).into_iter().filter(|line| !line.contains('!')).collect();
        assert_eq!(shown.join("; "), expect, "{name} is {phase}");
    }
}

#[test]
fn circles_and_mistakes_of_dependencies_hold_up_nobody_else() {
    let mut state = State::default();
    state.node_changed(&node(9));
    for (name, depends_on) in [
        ("a", r#"{"b":"healthy"}"#),
        ("b", r#"{"a":"started"}"#),
        ("c", "db"),
        ("d", r#"{"db":"up"}"#),
        ("e", "{}"),
    ] {
        state.pod_changed(&change(None, Some(&of_component(name, "Pending", depends_on))));
    }
    let expect = expect_test::expect![[r#"
        a waits for b to be healthy
        b waits for a to start
        c! it is not a valid JSON object of strings: expected value at line 1 column 1
        c on a
        d! the condition "up" for db is not one of started, healthy and completed
        d on a
        e on a"#]];
    expect.assert_eq(&decided(&mut state).join("\n"));
}

fn claimed<K>(key: &str, value: serde_json::Value) -> Change<K>
where
    K: serde::de::DeserializeOwned,
{
    let (namespace, name) = key.split_once('/').unwrap_or(("", key));
    let mut value = value;
    value["metadata"]["name"] = json!(name);
    let object = serde_json::from_value(value).expect("an object");
    Change { key: ObjectKey::new(namespace, name), old: None, new: Some(Arc::new(object)) }
}

#[test]
fn claims_are_bound_where_their_pod_goes() {
    let mut state = State::default();
    state.node_changed(&node(9));
    let value = json!({
        "metadata": {"name": "db", "namespace": "n", "uid": "db"},
        "spec": {"containers": [], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]},
    });
    let pod: Arc<Pod> = Arc::new(serde_json::from_value(value).expect("a Pod"));
    state.pod_changed(&change(None, Some(&pod)));
    let refused = |why: &str| format!("db: 0/1 nodes are available: {why}.");
    assert_eq!(decided(&mut state), [refused("persistentvolumeclaim \"data\" not found")]);
    let class = |mode: &str| json!({"provisioner": "yado.dev/local", "volumeBindingMode": mode});
    let claim = |more: serde_json::Value| {
        let mut value =
            json!({"metadata": {"namespace": "n"}, "spec": {"storageClassName": "local"}, "status": {}});
        for (key, field) in more.as_object().into_iter().flatten() {
            for (name, inner) in field.as_object().into_iter().flatten() {
                value[key][name] = inner.clone();
            }
        }
        claimed::<PersistentVolumeClaim>("n/data", value)
    };
    state.storage_changed(|v| v.class_changed(&claimed("local", class("Immediate"))));
    state.storage_changed(|v| v.claim_changed(&claim(json!({}))));
    assert_eq!(decided(&mut state), [refused("pod has unbound immediate PersistentVolumeClaims")]);
    state.storage_changed(|v| v.class_changed(&claimed("local", class("WaitForFirstConsumer"))));
    assert_eq!(decided(&mut state), ["db waits for n/data on a"]);
    let named = json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "a"}}});
    state.storage_changed(|v| v.claim_changed(&claim(named)));
    assert_eq!(decided(&mut state), [""; 0], "the volume is being made");
    let here = |host: &str| {
        json!({"metadata": {}, "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]}]}}}})
    };
    let bound = json!({"spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}});
    state.storage_changed(|v| v.volume_changed(&claimed("pv", here("elsewhere"))));
    state.storage_changed(|v| v.claim_changed(&claim(bound)));
    assert_eq!(decided(&mut state), [refused("1 node(s) didn't match PersistentVolume's node affinity")]);
    state.storage_changed(|v| v.volume_changed(&claimed("pv", here("a"))));
    assert_eq!(decided(&mut state), ["db on a"]);
}

/// Not a timing test: it shows the rate that the design aims at. `cargo test --release -- --ignored --nocapture`.
#[test]
#[ignore = "prints a rate; run it alone and in release"]
fn rate_of_decisions_over_many_nodes() {
    let mut state = State::default();
    for i in 0..5000 {
        let value = json!({"metadata": {"name": format!("n{i}")}, "status": {
            "allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}]}});
        let node = Arc::new(serde_json::from_value(value).expect("a Node"));
        state.node_changed(&Change { key: ObjectKey::new("", format!("n{i}")), old: None, new: Some(node) });
    }
    let pods: Vec<_> = (0..20_000).map(|i| pod(&format!("p{i}"), 0, None)).collect();
    let clock = yado_reconcile::SystemClock::shared();
    let start = clock.monotonic();
    for pod in &pods {
        state.pod_changed(&change(None, Some(pod)));
    }
    let mut bound = 0;
    loop {
        let decisions = state.decide(BATCH);
        if decisions.is_empty() {
            break;
        }
        bound += decisions.iter().filter(|d| matches!(d, Decision::Bind { .. })).count();
    }
    let taken = clock.monotonic() - start;
    eprintln!("{bound} Pods over 5000 nodes: {:.0}/s", bound as f64 / taken.as_secs_f64());
    assert_eq!(bound, pods.len());
}
