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
        Decision::Refuse { pod, why } => format!("{}: {why}", pod.name_any()),
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
    assert!(state.pod_changed(&change(Some(&bound), None)), "room gives hope");
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
    state.unbound(candidate);
    assert_eq!(decided(&mut state), ["p on a"]);
    // Another scheduler was faster: its placement stays, and nothing is tried again.
    state.pod_changed(&change(Some(&p), Some(&pod("p", 0, Some("a")))));
    state.unbound(candidate);
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
