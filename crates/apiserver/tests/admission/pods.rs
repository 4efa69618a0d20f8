//! What other objects decide of Pods and claims: RuntimeClass, PriorityClass, StorageClass, Namespace.

use serde_json::{Value, json};

use super::{Fixture, merge};

const PODS: &str = "POST /api/v1/namespaces/default/pods?dryRun=All";

fn pod(spec: &Value) -> Value {
    let mut whole = json!({"containers": [{"name": "c", "image": "x"}]});
    merge(&mut whole, spec);
    json!({"metadata": {"name": "p"}, "spec": whole})
}

/// The fields of a created Pod's spec, or the reason of the refusal.
async fn check(fixture: &Fixture, spec: Value, fields: &[&str], expect: &str) {
    let (_, answer, _) = fixture.send(PODS, &pod(&spec)).await;
    let refusal = answer["message"].as_str().map(|text| text.trim_start_matches("pods \"p\" is forbidden: "));
    let shown = fields.iter().map(|field| answer["spec"][*field].to_string()).collect::<Vec<_>>().join(" ");
    assert_eq!(refusal.unwrap_or(&shown), expect, "{spec}");
}

#[tokio::test(flavor = "multi_thread")]
async fn runtime_classes_complete_pods() {
    let fixture = Fixture::new().await;
    let line = "POST /apis/node.k8s.io/v1/runtimeclasses";
    let class = json!({"metadata": {"name": "box"}, "handler": "yado", "overhead": {"podFixed": {"cpu": "100m"}},
        "scheduling": {"nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "box", "operator": "Exists"}]}});
    assert_eq!(fixture.send(line, &class).await.0, 201);
    let plain = json!({"metadata": {"name": "plain"}, "handler": "kata"});
    assert_eq!(fixture.send(line, &plain).await.0, 201);
    for (class, code, expect) in [
        (
            json!({"metadata": {"name": "x"}, "handler": "Not a label"}),
            422,
            "handler: Invalid value: \"Not a label\"",
        ),
        (
            json!({"metadata": {"name": "x"}, "handler": "a", "overhead": {"podFixed": {"cpu": "-1"}}}),
            422,
            "overhead.podFixed[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
        ),
        (
            json!({"metadata": {"name": "x"}, "handler": "a", "scheduling": {"tolerations": [{"value": "v"}]}}),
            422,
            "scheduling.tolerations[0].operator",
        ),
    ] {
        let (found, answer, _) = fixture.send(line, &class).await;
        assert_eq!(found, code, "{answer:#}");
        assert!(answer["message"].as_str().unwrap_or_default().contains(expect), "{answer:#}");
    }
    let change = json!({"handler": "other"});
    let (code, answer, _) = fixture.send("PATCH /apis/node.k8s.io/v1/runtimeclasses/box", &change).await;
    assert_eq!(code, 422);
    assert!(
        answer["message"]
            .as_str()
            .unwrap_or_default()
            .contains("handler: Invalid value: \"other\": field is immutable")
    );

    let fields = &["overhead", "nodeSelector"];
    let mismatch = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
    let unfounded = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
    for (spec, expect) in [
        (json!({"runtimeClassName": "none"}), "pod rejected: RuntimeClass \"none\" not found"),
        (json!({"runtimeClassName": "plain"}), "null null"),
        (json!({"runtimeClassName": "box"}), r#"{"cpu":"100m"} {"disk":"ssd"}"#),
        (json!({"runtimeClassName": "box", "overhead": {"cpu": "0.1"}}), r#"{"cpu":"100m"} {"disk":"ssd"}"#),
        (json!({"runtimeClassName": "box", "overhead": {"cpu": "1"}}), mismatch),
        (json!({"runtimeClassName": "plain", "overhead": {"cpu": "1"}}), unfounded),
        (json!({"overhead": {"cpu": "1"}}), unfounded),
        (
            json!({"runtimeClassName": "box", "nodeSelector": {"a": "b"}}),
            r#"{"cpu":"100m"} {"a":"b","disk":"ssd"}"#,
        ),
        (
            json!({"runtimeClassName": "box", "nodeSelector": {"disk": "hdd"}}),
            "conflict: runtimeClass.scheduling.nodeSelector[disk] = ssd; pod.spec.nodeSelector[disk] = hdd",
        ),
    ] {
        check(&fixture, spec, fields, expect).await;
    }
    let (_, answer, _) = fixture.send(PODS, &pod(&json!({"runtimeClassName": "box"}))).await;
    let keys: Vec<&str> = answer["spec"]["tolerations"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|toleration| toleration["key"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(keys, ["box", "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]);
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_tolerate_nodes_with_what_they_ask_for() {
    let fixture = Fixture::new().await;
    let ask =
        |limits: Value| json!({"containers": [{"name": "c", "image": "x", "resources": {"limits": limits}}]});
    let lost = r#"{"effect":"NoExecute","key":"node.kubernetes.io/not-ready","operator":"Exists","tolerationSeconds":300},{"effect":"NoExecute","key":"node.kubernetes.io/unreachable","operator":"Exists","tolerationSeconds":300}"#;
    for (limits, added) in [
        (json!({"cpu": "1"}), ""),
        (
            json!({"example.com/gpu": "1"}),
            r#"{"key":"example.com/gpu","operator":"Exists","effect":"NoSchedule"},"#,
        ),
        (json!({"kubernetes.io/batch": "1"}), ""),
    ] {
        check(&fixture, ask(limits), &["tolerations"], &format!("[{added}{lost}]")).await;
    }
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn classes_give_priorities_and_storage() {
    let fixture = Fixture::new().await;
    let line = "POST /apis/scheduling.k8s.io/v1/priorityclasses";
    let class = json!({"metadata": {"name": "high"}, "value": 100, "preemptionPolicy": "Never"});
    assert_eq!(fixture.send(line, &class).await.0, 201);
    let fields = &["priority", "preemptionPolicy", "priorityClassName"];
    for (spec, expect) in [
        (json!({}), r#"0 "PreemptLowerPriority" null"#),
        (json!({"priorityClassName": "high"}), r#"100 "Never" "high""#),
        (json!({"priorityClassName": "none"}), "no PriorityClass with name none was found"),
        (
            json!({"priorityClassName": "high", "priority": 5}),
            "the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 100 \
             from the given PriorityClass name",
        ),
        (
            json!({"priorityClassName": "system-node-critical"}),
            r#"2000001000 "PreemptLowerPriority" "system-node-critical""#,
        ),
    ] {
        check(&fixture, spec, fields, expect).await;
    }
    // A Pod keeps its priority when it is written again from its own manifest.
    let object = pod(&json!({"priorityClassName": "high"}));
    assert_eq!(fixture.send("POST /api/v1/namespaces/default/pods", &object).await.0, 201);
    let (code, answer, _) = fixture
        .send("PUT /api/v1/namespaces/default/pods/p", &{
            let (_, mut current, _) =
                fixture.send("GET /api/v1/namespaces/default/pods/p", &Value::Null).await;
            if let Some(spec) = current["spec"].as_object_mut() {
                spec.remove("priority");
                spec.remove("preemptionPolicy");
            }
            current
        })
        .await;
    assert_eq!((code, &answer["spec"]["priority"]), (200, &json!(100)), "{answer:#}");

    let claim = |more: Value| {
        let mut spec =
            json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        merge(&mut spec, &more);
        json!({"metadata": {"name": "c"}, "spec": spec})
    };
    let classes = "/apis/storage.k8s.io/v1/storageclasses";
    for (set_up, class, expect) in [
        (json!({}), json!({}), "\"local\""),
        (json!({}), json!({"storageClassName": ""}), "\"\""),
        (
            json!({"metadata": {"name": "old", "annotations": {"storageclass.beta.kubernetes.io/is-default-class": "true"}},
                "provisioner": "x"}),
            json!({}),
            "\"old\"",
        ),
    ] {
        if set_up != json!({}) {
            let gone = json!({"metadata": {"annotations": null}});
            assert_eq!(fixture.send(&format!("PATCH {classes}/local"), &gone).await.0, 200);
            assert_eq!(fixture.send(&format!("POST {classes}"), &set_up).await.0, 201);
        }
        let line = "POST /api/v1/namespaces/default/persistentvolumeclaims?dryRun=All";
        let (code, answer, _) = fixture.send(line, &claim(class)).await;
        assert_eq!(
            (code, answer["spec"]["storageClassName"].to_string().as_str()),
            (201, expect),
            "{answer:#}"
        );
    }
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_made_in_a_namespace_that_goes_or_is_not_there() {
    let fixture = Fixture::new().await;
    let object = json!({"metadata": {"name": "going", "finalizers": ["example.com/wait"]}});
    assert_eq!(fixture.send("POST /api/v1/namespaces", &object).await.0, 201);
    assert_eq!(fixture.send("DELETE /api/v1/namespaces/going", &Value::Null).await.0, 200);
    let map = json!({"metadata": {"name": "m"}});
    for (line, code, message) in [
        ("POST /api/v1/namespaces/none/configmaps", 404, "namespaces \"none\" not found"),
        (
            "POST /api/v1/namespaces/going/configmaps",
            403,
            "configmaps \"m\" is forbidden: unable to create new content in namespace going because it is being terminated",
        ),
        (
            "DELETE /api/v1/namespaces/default",
            403,
            "namespaces \"default\" is forbidden: this namespace may not be deleted",
        ),
        (
            "DELETE /api/v1/namespaces/kube-system",
            403,
            "namespaces \"kube-system\" is forbidden: this namespace may not be deleted",
        ),
        (
            "DELETE /api/v1/namespaces/kube-public",
            403,
            "namespaces \"kube-public\" is forbidden: this namespace may not be deleted",
        ),
    ] {
        let body = if line.starts_with("POST") { map.clone() } else { Value::Null };
        let (found, answer, _) = fixture.send(line, &body).await;
        assert_eq!((found, answer["message"].as_str().unwrap_or_default()), (code, message), "{line}");
    }
    let review = json!({"spec": {"user": "x", "resourceAttributes": {"namespace": "none", "verb": "get", "resource": "pods"}}});
    let line = "POST /apis/authorization.k8s.io/v1/namespaces/none/localsubjectaccessreviews";
    assert_eq!(fixture.send(line, &review).await.0, 201);
    fixture.close().await;
}
