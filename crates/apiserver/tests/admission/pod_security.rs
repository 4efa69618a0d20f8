//! Pod Security: what labels of a Namespace do to Pods and templates of Pods.

use serde_json::{Value, json};

use super::Fixture;

fn pod(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": spec})
}

fn plain() -> Value {
    json!({"containers": [{"name": "c", "image": "x"}]})
}

fn deployment(spec: Value) -> Value {
    json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": spec}}})
}

impl Fixture {
    async fn label(&self, labels: Value) -> (u16, Value, Vec<String>) {
        let labels: serde_json::Map<_, _> = labels
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| (format!("pod-security.kubernetes.io/{key}"), value.clone()))
            .collect();
        let change = json!({"metadata": {"labels": null}});
        self.send("PATCH /api/v1/namespaces/default", &change).await;
        self.send("PATCH /api/v1/namespaces/default", &json!({"metadata": {"labels": labels}})).await
    }
}

const ALL: &str = "allowPrivilegeEscalation != false (container \"c\" must set \
    securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" must set \
    securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"c\" must set \
    securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set \
    securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")";

#[tokio::test(flavor = "multi_thread")]
async fn labels_restrict_pods_and_warn_of_templates() {
    let fixture = Fixture::new().await;
    let on_host = || json!({"hostNetwork": true, "containers": [{"name": "c", "image": "x"}]});
    let refused = |standard: &str, what: &str| {
        format!("403 pods \"p\" is forbidden: violates PodSecurity \"{standard}\": {what}")
    };
    let warned = |standard: &str, what: &str| {
        let text = format!("would violate PodSecurity \"{standard}\": {what}").replace('"', "\\\"");
        format!("201 299 - \"{text}\"")
    };
    let rows = [
        (json!({}), on_host(), "201".to_owned(), "201".to_owned()),
        (json!({"enforce": "baseline"}), plain(), "201".to_owned(), "201".to_owned()),
        (
            json!({"enforce": "baseline"}),
            on_host(),
            refused("baseline:latest", "host namespaces (hostNetwork=true)"),
            warned("baseline:latest", "host namespaces (hostNetwork=true)"),
        ),
        (
            json!({"enforce": "restricted"}),
            plain(),
            refused("restricted:latest", ALL),
            warned("restricted:latest", ALL),
        ),
        (
            json!({"enforce": "restricted", "warn": "privileged"}),
            plain(),
            refused("restricted:latest", ALL),
            "201".to_owned(),
        ),
        (
            json!({"warn": "restricted"}),
            plain(),
            warned("restricted:latest", ALL),
            warned("restricted:latest", ALL),
        ),
        (json!({"audit": "restricted"}), plain(), "201".to_owned(), "201".to_owned()),
        (
            json!({"enforce": "restricted", "enforce-version": "v1.7"}),
            plain(),
            refused(
                "restricted:v1.7",
                "runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true)",
            ),
            warned(
                "restricted:v1.7",
                "runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true)",
            ),
        ),
    ];
    for (labels, spec, of_pod, of_template) in rows {
        let (code, answer, _) = fixture.label(labels.clone()).await;
        assert_eq!(code, 200, "{answer:#}");
        for (line, object, expect) in [
            ("POST /api/v1/namespaces/default/pods?dryRun=All", pod("p", spec.clone()), of_pod),
            (
                "POST /apis/apps/v1/namespaces/default/deployments?dryRun=All",
                deployment(spec.clone()),
                of_template,
            ),
        ] {
            let (code, answer, warnings) = fixture.send(line, &object).await;
            let message = answer["message"].as_str().unwrap_or_default().to_owned();
            let shown =
                [&[format!("{code} {message}").trim().to_owned()], warnings.as_slice()].concat().join(" ");
            assert_eq!(shown, expect, "{labels} {line} {spec}");
        }
    }
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stricter_labels_warn_of_the_pods_that_are_there() {
    let fixture = Fixture::new().await;
    for name in ["b", "a", "c"] {
        let spec = json!({"hostPID": true, "containers": [{"name": "c", "image": "x"}]});
        let line = "POST /api/v1/namespaces/default/pods";
        assert_eq!(fixture.send(line, &pod(name, spec)).await.0, 201);
    }
    let rows = [
        (
            json!({"enforce": "odd"}),
            422,
            "Namespace \"default\" is invalid: \
            metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"odd\": must be one of privileged, baseline, \
            restricted",
            &[][..],
        ),
        (
            json!({"warn-version": "1.2"}),
            422,
            "Namespace \"default\" is invalid: \
            metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \"1.2\": must be \"latest\" or \"v1.x\"",
            &[],
        ),
        (json!({"warn": "restricted"}), 200, "", &[]),
        (
            json!({"enforce": "baseline"}),
            200,
            "",
            &[
                r#"299 - "existing pods in namespace \"default\" violate the new PodSecurity enforce level \"baseline:latest\"""#,
                r#"299 - "a (and 2 other pods): host namespaces""#,
            ],
        ),
    ];
    for (labels, code, message, warnings) in rows {
        let (found, answer, told) = fixture.label(labels.clone()).await;
        assert_eq!((found, answer["message"].as_str().unwrap_or_default()), (code, message), "{labels}");
        assert_eq!(told, warnings, "{labels}");
    }
    // Only what concerns the standards is looked at again: a Pod from before may be changed otherwise.
    let change = json!({"metadata": {"labels": {"x": "y"}}});
    assert_eq!(fixture.send("PATCH /api/v1/namespaces/default/pods/a", &change).await.0, 200);
    let (_, mut pod, _) = fixture.send("GET /api/v1/namespaces/default/pods/a", &Value::Null).await;
    pod["spec"]["containers"][0]["image"] = json!("y");
    assert_eq!(fixture.send("PUT /api/v1/namespaces/default/pods/a", &pod).await.0, 403);
    fixture.close().await;
}
