use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::eviction::due_in;
use super::*;

const GRACE: Duration = Duration::from_secs(40);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("a second of our era")
}

fn node(ready: Option<&str>, spec: Value) -> Node {
    let conditions: Vec<Value> =
        ready.iter().map(|status| json!({"type": "Ready", "status": status})).collect();
    let value = json!({"metadata": {"name": "a"}, "spec": spec, "status": {"conditions": conditions}});
    serde_json::from_value(value).expect("a Node")
}

fn describe((actions, next): (Vec<Action>, Next)) -> String {
    let line = |action: &Action| match action {
        Action::Conditions(conditions) => {
            let one = |c: &NodeCondition| {
                format!("{}={}({})", c.type_, c.status, c.reason.clone().unwrap_or_default())
            };
            format!("silent: {}", conditions.iter().map(one).collect::<Vec<_>>().join(" "))
        }
        Action::PodsNotReady => "pods not ready".to_owned(),
        Action::Taints(taints) => {
            let one = |t: &Taint| format!("{}:{}", t.key.rsplit('/').next().unwrap_or_default(), t.effect);
            format!("taints: {}", taints.iter().map(one).collect::<Vec<_>>().join(" "))
        }
    };
    let mut lines: Vec<_> = actions.iter().map(line).collect();
    lines.push(format!("{next:?}"));
    lines.join("\n")
}

fn check(node: &Node, silent: u64, expect: Expect) {
    expect.assert_eq(&describe(reconcile(node, Duration::from_secs(silent), GRACE, at(0))));
}

#[test]
fn silence_makes_a_node_unreachable() {
    check(&node(Some("True"), json!({})), 0, expect!["After(40s)"]);
    check(&node(Some("True"), json!({})), 39, expect!["After(1s)"]);
    check(
        &node(Some("True"), json!({})),
        40,
        expect![[r#"
        silent: Ready=Unknown(NodeStatusUnknown) MemoryPressure=Unknown(NodeStatusNeverUpdated) DiskPressure=Unknown(NodeStatusNeverUpdated) PIDPressure=Unknown(NodeStatusNeverUpdated)
        pods not ready
        taints: unreachable:NoSchedule unreachable:NoExecute
        Wait"#]],
    );
    check(
        &node(None, json!({})),
        40,
        expect![[r#"
        silent: Ready=Unknown(NodeStatusNeverUpdated) MemoryPressure=Unknown(NodeStatusNeverUpdated) DiskPressure=Unknown(NodeStatusNeverUpdated) PIDPressure=Unknown(NodeStatusNeverUpdated)
        pods not ready
        taints: unreachable:NoSchedule unreachable:NoExecute
        Wait"#]],
    );
    let unreachable = json!({"taints": [
        {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"},
        {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"},
    ]});
    check(
        &node(Some("Unknown"), unreachable.clone()),
        99,
        expect![[r#"
        pods not ready
        Wait"#]],
    );
    check(
        &node(Some("True"), unreachable),
        0,
        expect![[r#"
        taints: 
        After(40s)"#]],
    );
}

#[test]
fn conditions_and_cordons_become_taints() {
    check(
        &node(Some("False"), json!({})),
        0,
        expect![[r#"
        taints: not-ready:NoSchedule not-ready:NoExecute
        After(40s)"#]],
    );
    check(
        &node(None, json!({})),
        0,
        expect![[r#"
        taints: not-ready:NoSchedule
        After(40s)"#]],
    );
    let mine =
        json!({"unschedulable": true, "taints": [{"key": "mine", "effect": "NoExecute", "value": "x"}]});
    check(
        &node(Some("True"), mine),
        0,
        expect![[r#"
        taints: mine:NoExecute unschedulable:NoSchedule
        After(40s)"#]],
    );
    let uncordoned = json!({"taints": [
        {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}, {"key": "mine", "effect": "NoSchedule"},
    ]});
    check(
        &node(Some("True"), uncordoned),
        0,
        expect![[r#"
        taints: mine:NoSchedule
        After(40s)"#]],
    );
}

#[test]
fn pods_go_when_their_tolerations_end() {
    let taint =
        |key: &str, effect: &str| json!({"key": key, "effect": effect, "timeAdded": at(0).to_string()});
    let unreachable = "node.kubernetes.io/unreachable";
    let rows = [
        (json!([]), vec![taint("a", "NoSchedule")], None),
        (json!([]), vec![taint("a", "NoExecute")], Some(0)),
        (json!([]), vec![taint(unreachable, "NoExecute")], Some(290)),
        (json!([{"operator": "Exists"}]), vec![taint("a", "NoExecute")], None),
        (
            json!([{"key": "a", "operator": "Exists", "tolerationSeconds": 60}]),
            vec![taint("a", "NoExecute")],
            Some(50),
        ),
        (
            json!([{"key": "a", "operator": "Exists", "tolerationSeconds": 5}]),
            vec![taint("a", "NoExecute")],
            Some(0),
        ),
        (json!([{"key": "a", "operator": "Equal", "value": "x"}]), vec![taint("a", "NoExecute")], Some(0)),
        (
            json!([{"key": "a", "operator": "Exists"}]),
            vec![taint("a", "NoExecute"), taint(unreachable, "NoExecute")],
            Some(290),
        ),
    ];
    for (tolerations, taints, expect) in rows {
        let pod: Pod =
            serde_json::from_value(json!({"spec": {"containers": [], "tolerations": tolerations}}))
                .expect("a Pod");
        let taints: Vec<Taint> = serde_json::from_value(json!(taints)).expect("taints");
        let due = due_in(&pod, &taints, Duration::from_secs(300), at(0), at(10)).map(|d| d.as_secs());
        assert_eq!(due, expect, "{tolerations} on {taints:?}");
    }
    // A start of the control plane gives Pods of a silent node their full grace; other taints do not wait for it.
    for (key, expect) in [(unreachable, 290), ("a", 0)] {
        let taints: Vec<Taint> = serde_json::from_value(json!([taint(key, "NoExecute")])).expect("taints");
        let due = due_in(&Pod::default(), &taints, Duration::from_secs(300), at(1000), at(1010));
        assert_eq!(due, Some(Duration::from_secs(expect)), "{key}");
    }
}
