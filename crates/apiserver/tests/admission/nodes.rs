//! What nodes may write.

use serde_json::{Value, json};

use super::Fixture;

#[tokio::test(flavor = "multi_thread")]
async fn nodes_write_their_own_objects_only() {
    let fixture = Fixture::new().await;
    let pod = |name: &str, node: &str| {
        let spec = json!({"nodeName": node, "containers": [{"name": "c", "image": "x"}]});
        json!({"metadata": {"name": name}, "spec": spec})
    };
    const PODS: &str = "/api/v1/namespaces/default/pods";
    const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces";
    const TOKEN: &str = "POST /api/v1/namespaces/default/serviceaccounts/default/token";
    for (line, body) in [
        ("POST /api/v1/nodes".to_owned(), json!({"metadata": {"name": "m"}})),
        (format!("POST {PODS}"), pod("own", "n")),
        (format!("POST {PODS}"), pod("other", "m")),
    ] {
        let (code, answer, _) = fixture.send(&line, &body).await;
        assert_eq!(code, 201, "{line}: {answer:#}");
    }
    let labels = |key: &str| json!({"metadata": {"labels": {key: ""}}});
    let named = |name: &str| json!({"metadata": {"name": name}});
    let bound =
        |pod: &str| json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod}}});
    let phase = || json!({"status": {"phase": "Running"}});
    let (node, nameless) = ("system:node:n", "system:node:");
    for (user, line, body, expect) in [
        (node, "POST /api/v1/nodes".to_owned(), named("n"), "201"),
        (nameless, "PATCH /api/v1/nodes/n".into(), labels("app"), "403 could not determine node from user"),
        (node, "PATCH /api/v1/nodes/n".into(), labels("app"), "200"),
        (
            node,
            "PATCH /api/v1/nodes/n".into(),
            labels("node-role.kubernetes.io/control-plane"),
            "403 is not allowed to modify labels: node-role.kubernetes.io/control-plane",
        ),
        (
            node,
            "PATCH /api/v1/nodes/n".into(),
            json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}}),
            "403 node \"n\" is not allowed to modify taints",
        ),
        (
            node,
            "PATCH /api/v1/nodes/m/status".into(),
            phase(),
            "403 node \"n\" is not allowed to modify node \"m\"",
        ),
        (node, format!("PATCH {PODS}/own/status"), phase(), "200"),
        (
            node,
            format!("PATCH {PODS}/other/status"),
            phase(),
            "403 node \"n\" can only update pod status for pods",
        ),
        (
            node,
            format!("PATCH {PODS}/own/status"),
            labels("a"),
            "403 node \"n\" cannot update labels through pod status",
        ),
        (node, format!("POST {LEASES}/kube-node-lease/leases"), named("n"), "201"),
        (
            node,
            format!("POST {LEASES}/kube-node-lease/leases"),
            named("m"),
            "403 can only access node lease with",
        ),
        (node, format!("POST {LEASES}/default/leases"), named("n"), "403 can only access leases in the"),
        (node, TOKEN.into(), json!({}), "403 node requested token not bound to a pod"),
        (
            node,
            TOKEN.into(),
            bound("other"),
            "403 node requested token bound to a pod scheduled on a different node",
        ),
        (node, TOKEN.into(), bound("own"), "201"),
        (node, format!("DELETE {PODS}/other"), Value::Null, "403 node \"n\" can only delete pods"),
        (node, format!("DELETE {PODS}/own"), json!({"gracePeriodSeconds": 0}), "200"),
    ] {
        let (code, answer, _) = fixture.send_as(user, &line, &body).await;
        let message = answer["message"].as_str().unwrap_or_default();
        let message = message.split_once(" is forbidden: ").map_or(message, |(_, why)| why);
        let shown = format!("{code} {message}");
        assert!(shown.trim().starts_with(expect), "{user} {line} {body}: {shown}");
    }
    fixture.close().await;
}
