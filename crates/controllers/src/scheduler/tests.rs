use std::sync::Arc;

use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::*;

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.into_iter().for_each(|(k, v)| merge(into.entry(k).or_insert(Value::Null), v));
        }
        (into, from) => *into = from,
    }
}

/// A ready node with 2 CPUs, 4 GiB and room for 10 Pods, labelled with its name and its zone, the name's first letter.
fn node(name: &str, more: Value) -> Node {
    let mut value = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "zone": &name[..1]}},
        "spec": {},
        "status": {
            "allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10", "ephemeral-storage": "10Gi"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    merge(&mut value, more);
    serde_json::from_value(value).expect("a Node")
}

fn pod(labels: Value, spec: Value) -> Arc<PodInfo> {
    let mut all = json!({"containers": [{"name": "c"}]});
    merge(&mut all, spec);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"namespace": "n", "labels": labels, "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true}]},
        "spec": all,
    }))
    .expect("a Pod");
    Arc::new(PodInfo::of(&pod))
}

fn asks(resources: Value) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": resources}}]})
}

fn snapshot(nodes: &[Node], placed: &[(&str, Arc<PodInfo>)]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for node in nodes {
        snapshot.set_node(node);
    }
    for (i, (node, pod)) in placed.iter().enumerate() {
        snapshot.place(&i.to_string(), node, pod.clone());
    }
    snapshot
}

fn check(snapshot: &Snapshot, pod: &PodInfo, expect: Expect) {
    let answer = match schedule(snapshot, pod, 0) {
        Ok(node) => node.name().to_owned(),
        Err(why) => why.to_string(),
    };
    expect.assert_eq(&answer);
}

#[test]
fn nodes_are_refused_for_reasons_that_users_know() {
    let none = json!({});
    let plain = pod(none.clone(), none.clone());
    check(&snapshot(&[], &[]), &plain, expect!["no nodes available to schedule pods"]);
    let mixed = [
        node("a1", json!({"spec": {"unschedulable": true}})),
        node("a2", json!({"spec": {"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}})),
        node("a3", json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}})),
        node("b1", json!({"status": {"allocatable": {"pods": "0"}}})),
    ];
    check(
        &snapshot(&mixed, &[]),
        &plain,
        expect![
            "0/4 nodes are available: 1 Too many pods, 1 node(s) had untolerated taint {gpu: yes}, 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }, 1 node(s) were unschedulable."
        ],
    );
    let one = [node("a", none.clone())];
    let rows = [
        (
            asks(json!({"cpu": "3", "memory": "5Gi"})),
            expect!["0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory."],
        ),
        (
            asks(json!({"example.com/gpu": "1"})),
            expect!["0/1 nodes are available: 1 Insufficient example.com/gpu."],
        ),
        (
            json!({"nodeSelector": {"zone": "b"}}),
            expect!["0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."],
        ),
        (json!({"nodeSelector": {"zone": "a"}}), expect!["a"]),
        (
            json!({"nodeName": "b"}),
            expect!["0/1 nodes are available: 1 node(s) didn't match the requested node name."],
        ),
        (
            json!({"initContainers": [{"name": "i", "resources": {"requests": {"cpu": "3"}}}]}),
            expect!["0/1 nodes are available: 1 Insufficient cpu."],
        ),
        (json!({"overhead": {"memory": "5Gi"}}), expect!["0/1 nodes are available: 1 Insufficient memory."]),
    ];
    for (spec, expect) in rows {
        check(&snapshot(&one, &[]), &pod(none.clone(), spec), expect);
    }
}

#[test]
fn tolerations_open_tainted_nodes() {
    let nodes = [node(
        "a",
        json!({"spec": {"unschedulable": true, "taints": [
        {"key": "gpu", "value": "yes", "effect": "NoSchedule"}, {"key": "slow", "effect": "PreferNoSchedule"}]}}),
    )];
    let rows = [
        (json!([{"operator": "Exists"}]), expect!["a"]),
        (
            json!([{"key": "gpu", "operator": "Exists"}]),
            expect!["0/1 nodes are available: 1 node(s) were unschedulable."],
        ),
        (
            json!([{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}, {"key": "gpu", "value": "no"}]),
            expect!["0/1 nodes are available: 1 node(s) had untolerated taint {gpu: yes}."],
        ),
        (
            json!([{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}, {"key": "gpu", "value": "yes"}]),
            expect!["a"],
        ),
    ];
    for (tolerations, expect) in rows {
        check(&snapshot(&nodes, &[]), &pod(json!({}), json!({"tolerations": tolerations})), expect);
    }
}

#[test]
fn what_is_taken_counts_and_the_free_and_uncrowded_node_wins() {
    let nodes = [node("a", json!({})), node("b", json!({}))];
    let (other, big) =
        (pod(json!({}), asks(json!({"cpu": "1"}))), pod(json!({}), asks(json!({"cpu": "1500m"}))));
    check(&snapshot(&nodes, &[("a", other.clone())]), &big, expect!["b"]);
    check(
        &snapshot(&nodes, &[("a", other.clone()), ("b", other)]),
        &big,
        expect!["0/2 nodes are available: 2 Insufficient cpu."],
    );
    let port = pod(
        json!({}),
        json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}),
    );
    check(&snapshot(&nodes, &[("a", port.clone())]), &port, expect!["b"]);
    check(
        &snapshot(&nodes, &[("a", port.clone()), ("b", port.clone())]),
        &port,
        expect!["0/2 nodes are available: 2 node(s) didn't have free ports for the requested pod ports."],
    );
    let preferring = pod(
        json!({}),
        json!({"affinity": {"nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 50, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}}]}}}),
    );
    check(&snapshot(&nodes, &[]), &preferring, expect!["b"]);
    let required = pod(
        json!({}),
        json!({"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}, {}]}}}}),
    );
    check(&snapshot(&nodes, &[]), &required, expect!["b"]);
}

#[test]
fn pods_are_kept_near_apart_and_spread() {
    let nodes = ["a1", "a2", "b1"].map(|n| node(n, json!({})));
    let term = |key: &str| json!([{"topologyKey": key, "labelSelector": {"matchLabels": {"app": "x"}}}]);
    let rule = |kind: &str, key: &str| json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": term(key)}}});
    let x = || pod(json!({"app": "x"}), json!({}));
    let near = pod(json!({"app": "y"}), rule("podAffinity", "zone"));
    check(&snapshot(&nodes, &[("b1", x())]), &near, expect!["b1"]);
    check(
        &snapshot(&nodes, &[]),
        &near,
        expect!["0/3 nodes are available: 3 node(s) didn't match pod affinity rules."],
    );
    let first = pod(json!({"app": "x"}), rule("podAffinity", "zone"));
    check(&snapshot(&nodes, &[]), &first, expect!["a1"]);
    let apart = pod(json!({"app": "x"}), rule("podAntiAffinity", "zone"));
    check(&snapshot(&nodes, &[("a1", x())]), &apart, expect!["b1"]);
    check(
        &snapshot(&nodes, &[("a1", apart.clone()), ("b1", apart.clone())]),
        &apart,
        expect!["0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules."],
    );
    check(
        &snapshot(&nodes, &[("a1", apart.clone()), ("b1", apart)]),
        &x(),
        expect!["0/3 nodes are available: 3 node(s) didn't satisfy existing pods anti-affinity rules."],
    );
    let spread = pod(
        json!({"app": "x"}),
        json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "x"}}}]}),
    );
    check(&snapshot(&nodes, &[("a1", x())]), &spread, expect!["b1"]);
    let full = node("b1", json!({"status": {"allocatable": {"pods": "0"}}}));
    check(
        &snapshot(&[nodes[0].clone(), full], &[("a1", x())]),
        &spread,
        expect![
            "0/2 nodes are available: 1 Too many pods, 1 node(s) didn't match pod topology spread constraints."
        ],
    );
    // One that goes has made room already: with it the zones are even.
    let going = PodInfo { terminating: true, ..(*x()).clone() };
    check(
        &snapshot(&nodes, &[("a1", x()), ("b1", x()), ("b1", Arc::new(going))]),
        &pod(
            json!({"app": "x"}),
            json!({"nodeName": "b1", "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone",
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "x"}}}]}),
        ),
        expect!["b1"],
    );
    // A term without a selector means no Pods at all, so that nothing can be near them.
    let no_selector = json!([{"topologyKey": "zone"}]);
    let rule = |kind: &str| json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": no_selector}}});
    let lonely = pod(json!({"app": "x"}), rule("podAffinity"));
    check(
        &snapshot(&nodes, &[("a1", x())]),
        &lonely,
        expect!["0/3 nodes are available: 3 node(s) didn't match pod affinity rules."],
    );
    let bold = pod(json!({"app": "x"}), rule("podAntiAffinity"));
    check(&snapshot(&nodes[..1], &[("a1", x())]), &bold, expect!["a1"]);
}

#[test]
fn a_pod_may_name_its_node_by_a_field() {
    let nodes = ["a1", "b1"].map(|n| node(n, json!({})));
    let on = |name: &str| {
        pod(
            json!({}),
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}]}}}}),
        )
    };
    check(&snapshot(&nodes, &[]), &on("b1"), expect!["b1"]);
    let refused = expect!["0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."];
    check(&snapshot(&nodes, &[]), &on("c1"), refused);
}

#[test]
fn a_burst_is_spread_and_assumed_pods_come_and_go() {
    let nodes: Vec<_> = (0..20).map(|i| node(&format!("n{i}"), json!({}))).collect();
    let mut snapshot = snapshot(&nodes, &[]);
    let small = pod(json!({}), asks(json!({"cpu": "200m"})));
    let mut chosen = Vec::new();
    for i in 0..200 {
        let node = schedule(&snapshot, &small, i).expect("there is room").name().to_owned();
        snapshot.assume(&i.to_string(), &node, small.clone());
        chosen.push(node);
    }
    assert!(snapshot.nodes().iter().all(|n| n.pods.len() == 10), "ten on each");
    assert!(schedule(&snapshot, &small, 200).is_err());
    snapshot.forget("7");
    assert!(schedule(&snapshot, &small, 201).is_ok(), "a binding that failed leaves room");
    let node = schedule(&snapshot, &small, 202).expect("there is room").name().to_owned();
    assert_eq!(node, chosen[7]);
    snapshot.place("8", &chosen[8], small.clone());
    snapshot.forget("8");
    assert!(snapshot.holds("8"), "one that is bound stays");
    snapshot.remove_node(&node);
    assert!(schedule(&snapshot, &small, 203).is_err());
    snapshot.set_node(&nodes.iter().find(|n| n.metadata.name.as_ref() == Some(&node)).expect("it").clone());
    assert_eq!(
        schedule(&snapshot, &small, 204).map(NodeInfo::name),
        Ok(&*node),
        "with what still runs on it"
    );
    for i in 0..200 {
        snapshot.remove(&i.to_string());
    }
    assert!(
        snapshot.nodes().iter().all(|n| n.requested == Resources::default() || n.requested.milli_cpu == 0)
    );
}

#[test]
fn only_what_changes_the_offer_gives_hope() {
    let mut snapshot = snapshot(&[node("a", json!({}))], &[]);
    let beat =
        json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}});
    assert!(!snapshot.set_node(&node("a", beat)));
    assert!(snapshot.set_node(&node("a", json!({"metadata": {"labels": {"disk": "ssd"}}}))));
    assert!(snapshot.set_node(&node("b", json!({}))));
}
