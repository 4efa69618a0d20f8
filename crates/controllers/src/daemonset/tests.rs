use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("a second of our era")
}

fn set(spec: Value) -> DaemonSet {
    let mut value = json!({
        "metadata": {"name": "agent", "namespace": "n", "uid": "d", "generation": 3},
        "spec": {"selector": {"matchLabels": {"app": "agent"}},
            "template": {"metadata": {"labels": {"app": "agent"}}, "spec": {"containers": [{"name": "c"}]}}},
    });
    for (name, field) in spec.as_object().into_iter().flatten() {
        value["spec"][name] = field.clone();
    }
    serde_json::from_value(value).expect("a DaemonSet")
}

fn with_pod_spec(spec: Value) -> DaemonSet {
    set(json!({"template": {"metadata": {"labels": {"app": "agent"}}, "spec": spec}}))
}

/// A node by its name and taints, `KEY:EFFECT`; a word with `=` is a label.
fn node(text: &str) -> Arc<Node> {
    let mut words = text.split_whitespace();
    let name = words.next().expect("a name");
    let mut value = json!({"metadata": {"name": name, "labels": {}}, "spec": {"taints": []}});
    for word in words {
        match (word.split_once('='), word.split_once(':')) {
            (Some((key, label)), _) => value["metadata"]["labels"][key] = json!(label),
            (_, Some((key, effect))) => {
                let taints = value["spec"]["taints"].as_array_mut().expect("taints");
                taints.push(json!({"key": key, "effect": effect}));
            }
            _ => panic!("neither label nor taint: {word}"),
        }
    }
    Arc::new(serde_json::from_value(value).expect("a Node"))
}

/// A Pod by its name, `@NODE` and marks: `old`, `ready`, `deleting`, `failed`, `unbound`, `orphan`.
fn pod(set: &DaemonSet, text: &str) -> Arc<Pod> {
    let mut words = text.split_whitespace();
    let (name, on) = words.next().and_then(|w| w.split_once('@')).expect("NAME@NODE");
    let hash = history::hash(set);
    let mut value = json!({
        "metadata": {"name": name, "namespace": "n", "uid": name, "creationTimestamp": at(0).to_string(),
            "labels": {"app": "agent", "controller-revision-hash": hash},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "agent", "uid": "d",
                "controller": true}]},
        "spec": {"nodeName": on, "containers": []},
        "status": {"phase": "Running"},
    });
    for word in words {
        match word {
            "old" => value["metadata"]["labels"]["controller-revision-hash"] = json!("old"),
            "ready" => {
                value["status"]["conditions"] = json!([{"type": "Ready", "status": "True",
                    "lastTransitionTime": at(0).to_string()}]);
            }
            "deleting" => value["metadata"]["deletionTimestamp"] = json!(at(0).to_string()),
            "failed" => value["status"]["phase"] = json!("Failed"),
            "orphan" => value["metadata"]["ownerReferences"] = json!([]),
            "unbound" => {
                let made = nodes::pod_for(set, on, &hash);
                value["spec"] = serde_json::to_value(made.spec).expect("a spec");
            }
            other => panic!("no mark {other}"),
        }
    }
    serde_json::from_value(value).map(Arc::new).expect("a Pod")
}

fn names(pods: &[Arc<Pod>]) -> String {
    pods.iter().filter_map(|p| p.metadata.name.clone()).collect::<Vec<_>>().join(" ")
}

fn line(action: Action) -> String {
    match action {
        Action::Adopt(p) => format!("adopt {}", names(&[p])),
        Action::Release(p) => format!("release {}", names(&[p])),
        Action::CreateRevision(r) => format!("remember as {}", r.revision),
        Action::Renumber(r, n) => format!("renumber {} as {n}", r.revision),
        Action::DeleteRevision(r) => format!("forget {}", r.revision),
        Action::Ended(p) => format!("ended {}", names(&[p])),
        Action::Create(pods) => {
            let on: Vec<_> = pods.iter().filter_map(nodes::target).collect();
            format!("create on {}", on.join(" "))
        }
        Action::Delete(pods) => format!("delete {}", names(&pods)),
        Action::Status(s) => format!(
            "status {}/{} ready {} updated {} available {} misplaced {}",
            s.current_number_scheduled,
            s.desired_number_scheduled,
            s.number_ready,
            s.updated_number_scheduled.unwrap_or_default(),
            s.number_available.unwrap_or_default(),
            s.number_misscheduled
        ),
    }
}

fn check(set: &DaemonSet, nodes: &[&str], pods: &[&str], expect: Expect) {
    // The template is remembered already.
    let mut revision = ControllerRevision { revision: 1, ..Default::default() };
    let labels = [(CONTROLLER_REVISION_HASH.to_owned(), history::hash(set))];
    revision.metadata.labels = Some(labels.into());
    let observed = Observed {
        set,
        nodes: nodes.iter().map(|n| node(n)).collect(),
        candidates: pods.iter().map(|p| pod(set, p)).collect(),
        revisions: vec![Arc::new(revision)],
    };
    let (actions, _) = reconcile(&observed, at(100));
    expect.assert_eq(&actions.into_iter().map(line).collect::<Vec<_>>().join("\n"));
}

#[test]
fn one_pod_on_every_node_that_will_have_it() {
    let plain = set(json!({}));
    check(
        &plain,
        &["a", "b", "c"],
        &["p@b ready"],
        expect![[r#"
        create on a c
        status 1/3 ready 1 updated 1 available 1 misplaced 0"#]],
    );
    check(
        &plain,
        &["a", "b"],
        &["p@a unbound", "q@b deleting"],
        expect!["status 2/2 ready 0 updated 2 available 0 misplaced 0"],
    );
    check(
        &plain,
        &["a"],
        &["p@a ready", "q@a"],
        expect![[r#"
        delete q
        status 1/1 ready 1 updated 1 available 1 misplaced 0"#]],
    );
    check(
        &plain,
        &["a"],
        &["p@a failed"],
        expect![[r#"
        ended p
        delete p
        status 1/1 ready 0 updated 1 available 0 misplaced 0"#]],
    );
    check(
        &plain,
        &["a"],
        &["p@gone unbound", "q@gone"],
        expect![[r#"
        delete p
        create on a
        status 0/1 ready 0 updated 0 available 0 misplaced 0"#]],
    );
    check(&plain, &["a"], &["p@a orphan"], expect!["adopt p"]);
}

#[test]
fn nodes_are_chosen_by_labels_names_and_taints() {
    let ssd = with_pod_spec(json!({"nodeSelector": {"disk": "ssd"}, "containers": []}));
    check(
        &ssd,
        &["a disk=ssd", "b disk=hdd"],
        &["p@b ready"],
        expect![[r#"
        delete p
        create on a
        status 0/1 ready 0 updated 0 available 0 misplaced 1"#]],
    );
    let by_name = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}]}}});
    let named = with_pod_spec(json!({"affinity": by_name, "containers": []}));
    check(
        &named,
        &["a", "b"],
        &[],
        expect![[r#"
        create on b
        status 0/1 ready 0 updated 0 available 0 misplaced 0"#]],
    );
    let plain = set(json!({}));
    let nodes = [
        "cordoned node.kubernetes.io/unschedulable:NoSchedule",
        "lost node.kubernetes.io/unreachable:NoExecute",
        "special gpu:NoSchedule",
        "evicts gpu:NoExecute",
        "mild gpu:PreferNoSchedule",
    ];
    check(
        &plain,
        &nodes,
        &["p@special ready", "q@evicts ready"],
        expect![[r#"
        delete q
        create on cordoned lost mild
        status 0/3 ready 0 updated 0 available 0 misplaced 2"#]],
    );
    let bears =
        with_pod_spec(json!({"tolerations": [{"key": "gpu", "operator": "Exists"}], "containers": []}));
    check(
        &bears,
        &nodes,
        &[],
        expect![[r#"
        create on cordoned evicts lost mild special
        status 0/5 ready 0 updated 0 available 0 misplaced 0"#]],
    );
}

#[test]
fn updates_take_as_many_as_may_be_missing() {
    let rolling =
        |rolling: Value| set(json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}));
    let nodes = ["a", "b", "c", "d"];
    let old = ["p@a old ready", "q@b old ready", "r@c old ready", "s@d old ready"];
    let one = rolling(json!({"maxUnavailable": 1, "maxSurge": 0}));
    check(
        &one,
        &nodes,
        &old,
        expect![[r#"
        delete p
        status 4/4 ready 4 updated 0 available 4 misplaced 0"#]],
    );
    let half = rolling(json!({"maxUnavailable": "50%", "maxSurge": 0}));
    check(
        &half,
        &nodes,
        &old,
        expect![[r#"
        delete p q
        status 4/4 ready 4 updated 0 available 4 misplaced 0"#]],
    );
    // One is on its way: no other may go; one that serves nobody may.
    check(
        &one,
        &nodes,
        &["p@a", "q@b old ready", "r@c old", "s@d old ready"],
        expect![[r#"
        delete r
        status 4/4 ready 2 updated 1 available 2 misplaced 0"#]],
    );
    check(
        &one,
        &nodes,
        &["p@a ready", "q@b old ready deleting", "r@c old ready", "s@d old ready"],
        expect!["status 4/4 ready 4 updated 1 available 4 misplaced 0"],
    );
    let by_hand = set(json!({"updateStrategy": {"type": "OnDelete"}}));
    check(&by_hand, &nodes, &old, expect!["status 4/4 ready 4 updated 0 available 4 misplaced 0"]);
}

#[test]
fn updates_with_surge_add_before_they_take() {
    let surge = set(json!({"updateStrategy": {"type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}}));
    let nodes = ["a", "b"];
    check(
        &surge,
        &nodes,
        &["p@a old ready", "q@b old ready"],
        expect![[r#"
        create on a
        status 2/2 ready 2 updated 0 available 2 misplaced 0"#]],
    );
    check(
        &surge,
        &nodes,
        &["p@a old ready", "n@a", "q@b old ready"],
        expect!["status 2/2 ready 1 updated 1 available 1 misplaced 0"],
    );
    check(
        &surge,
        &nodes,
        &["p@a old ready", "n@a ready", "q@b old ready"],
        expect![[r#"
        delete p
        status 2/2 ready 2 updated 1 available 2 misplaced 0"#]],
    );
    check(
        &surge,
        &nodes,
        &["n@a ready", "q@b old"],
        expect![[r#"
        create on b
        status 2/2 ready 1 updated 1 available 1 misplaced 0"#]],
    );
}

#[test]
fn templates_are_remembered_by_number() {
    let set = set(json!({"revisionHistoryLimit": 1}));
    let hash = history::hash(&set);
    let revision = |number: i64, hash: &str| {
        let mut revision = ControllerRevision { revision: number, ..Default::default() };
        revision.metadata.labels = Some([(CONTROLLER_REVISION_HASH.to_owned(), hash.to_owned())].into());
        Arc::new(revision)
    };
    let check = |revisions: Vec<Arc<ControllerRevision>>, pods: &[&str], expect: Expect| {
        let observed = Observed {
            set: &set,
            nodes: vec![node("a")],
            candidates: pods.iter().map(|p| pod(&set, p)).collect(),
            revisions,
        };
        let lines = reconcile(&observed, at(100)).0.into_iter().map(line);
        let told: Vec<_> = lines.filter(|l| !l.starts_with("status") && !l.starts_with("delete")).collect();
        expect.assert_eq(&told.join("\n"));
    };
    check(vec![], &["p@a ready"], expect!["remember as 1"]);
    check(vec![revision(1, "old")], &["p@a ready"], expect!["remember as 2"]);
    // Rolled back to the first: it is the newest again, and what is beyond the limit and unused goes.
    check(
        vec![revision(1, &hash), revision(2, "two"), revision(3, "old"), revision(4, "four")],
        &["p@a old ready"],
        expect![[r#"
            renumber 1 as 5
            forget 2"#]],
    );
    let Some(Action::CreateRevision(made)) = history::remember(&set, &hash, &[]) else {
        panic!("it is made")
    };
    let data = &made.data.as_ref().expect("data").0;
    assert_eq!((&data["spec"]["template"]["$patch"], made.revision), (&json!("replace"), 1));
    assert_eq!(data["spec"]["template"]["spec"]["containers"][0]["name"], "c");
}
