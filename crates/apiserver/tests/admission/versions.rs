//! The version of a resource that a rule names: which requests it matches, and what of them is seen.

use serde_json::{Value, json};

use super::{Fixture, merge};

const APPS: &str = "/apis/apps/v1/namespaces/default/deployments";
const EXTENSIONS: &str = "/apis/extensions/v1beta1/namespaces/default/deployments";

fn deployment(version: &str) -> Value {
    json!({
        "apiVersion": version, "kind": "Deployment", "metadata": {"name": "d", "labels": {"app": "d"}},
        "spec": {"selector": {"matchLabels": {"app": "d"}}, "template": {
            "metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
    })
}

fn ingress(version: &str) -> Value {
    let backend = match version {
        "networking.k8s.io/v1" => json!({"service": {"name": "web", "port": {"number": 80}}}),
        _ => json!({"serviceName": "web", "servicePort": 80}),
    };
    let field = if version == "networking.k8s.io/v1" { "defaultBackend" } else { "backend" };
    json!({"apiVersion": version, "kind": "Ingress", "metadata": {"name": "i"}, "spec": {field: backend}})
}

/// A rule, given as `GROUP/VERSIONS RESOURCES`, each list separated by commas.
fn rule(text: &str) -> Value {
    let (version, resources) = text.split_once(' ').expect("GROUP/VERSIONS RESOURCES");
    let (group, versions) = version.split_once('/').unwrap_or(("", version));
    let words = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    json!({"operations": ["*"], "apiGroups": [group], "apiVersions": words(versions), "resources": words(resources)})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_names_a_version_and_means_all_of_them() {
    let fixture = Fixture::new().await;
    let said = "request.kind.group + '/' + request.kind.version + ' ' + request.kind.kind + ' ' + request.resource.group + \
        ' <- ' + request.requestKind.group + '/' + request.requestKind.version + ' ' + request.requestResource.group + \
        ': ' + object.apiVersion";
    let (exact, equivalent) = ("Exact", "Equivalent");
    let (apps, extensions) = (deployment("apps/v1"), deployment("extensions/v1beta1"));
    let (ingresses, old_ingresses) = (
        "/apis/networking.k8s.io/v1/namespaces/default/ingresses",
        "/apis/extensions/v1beta1/namespaces/default/ingresses",
    );
    let of_apps = "apps/v1 Deployment apps <- apps/v1 apps: apps/v1";
    let rows: &[(&str, &str, &str, &Value, &str)] = &[
        ("apps/v1 deployments", exact, APPS, &apps, of_apps),
        ("apps/v1 deployments", exact, EXTENSIONS, &extensions, ""),
        (
            "apps/v1 deployments",
            equivalent,
            EXTENSIONS,
            &extensions,
            "apps/v1 Deployment apps <- extensions/v1beta1 extensions: apps/v1",
        ),
        (
            "extensions/v1beta1 deployments",
            exact,
            EXTENSIONS,
            &extensions,
            "extensions/v1beta1 Deployment extensions <- extensions/v1beta1 extensions: extensions/v1beta1",
        ),
        (
            "extensions/v1beta1 deployments",
            equivalent,
            APPS,
            &apps,
            "extensions/v1beta1 Deployment extensions <- apps/v1 apps: extensions/v1beta1",
        ),
        ("extensions/v1beta1 deployments", exact, APPS, &apps, ""),
        // The request's own version comes first, whatever the order of the rule.
        ("apps/v1beta1,v1 deployments", equivalent, APPS, &apps, of_apps),
        ("apps/v1beta1,v1beta2 replicasets", equivalent, APPS, &apps, ""),
        (
            "apps/* deployments",
            equivalent,
            EXTENSIONS,
            &extensions,
            "apps/v1 Deployment apps <- extensions/v1beta1 extensions: apps/v1",
        ),
        // Fields have the names of the version.
        (
            "networking.k8s.io/v1 ingresses",
            equivalent,
            old_ingresses,
            &ingress("extensions/v1beta1"),
            "networking.k8s.io/v1 Ingress networking.k8s.io <- extensions/v1beta1 extensions: networking.k8s.io/v1 web",
        ),
        (
            "extensions/v1beta1 ingresses",
            equivalent,
            ingresses,
            &ingress("networking.k8s.io/v1"),
            "extensions/v1beta1 Ingress extensions <- networking.k8s.io/v1 networking.k8s.io: extensions/v1beta1 old web",
        ),
    ];
    for (text, policy, path, object, expect) in rows {
        let said = format!(
            "{said} + (has(object.spec.defaultBackend) ? ' ' + object.spec.defaultBackend.service.name : '') + \
             (has(object.spec.backend) ? ' old ' + object.spec.backend.serviceName : '')"
        );
        let policy = json!({
            "matchConstraints": {"matchPolicy": policy, "resourceRules": [rule(text)]},
            "validations": [{"expression": "false", "messageExpression": said}],
        });
        fixture.configure(&policy, &json!({})).await;
        let (code, answer, _) = fixture.send(&format!("POST {path}?dryRun=All"), object).await;
        let message = answer["message"].as_str().unwrap_or_default();
        let shown = message.split_once("denied request: ").map_or(message, |(_, rest)| rest);
        assert_eq!(shown, *expect, "{policy} {path}");
        assert_eq!(code, if expect.is_empty() { 201 } else { 422 }, "{answer:#}");
    }
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn excluded_rules_and_bindings_mean_all_versions_too() {
    let fixture = Fixture::new().await;
    let policy = json!({
        "matchConstraints": {"resourceRules": [rule("apps/v1 deployments,deployments/scale")]},
        "validations": [{"expression": "false", "messageExpression": "request.kind.kind + ' ' + object.kind"}],
    });
    let (old, other) = (rule("extensions/v1beta1 deployments"), rule("extensions/v1beta1 replicasets"));
    let only = |field: &str, rule: &Value, policy: &str| json!({"matchResources": {field: [rule], "matchPolicy": policy}});
    for (binding, code) in [
        (json!({}), 422),
        (only("resourceRules", &old, "Equivalent"), 422),
        (only("resourceRules", &old, "Exact"), 201),
        (only("resourceRules", &other, "Equivalent"), 201),
        (only("excludeResourceRules", &old, "Equivalent"), 201),
        (only("excludeResourceRules", &old, "Exact"), 422),
    ] {
        fixture.configure(&policy, &binding).await;
        let found = fixture.send(&format!("POST {APPS}?dryRun=All"), &deployment("apps/v1")).await;
        assert_eq!(found.0, code, "{binding}: {:#}", found.1);
    }
    fixture.close().await;
}

/// Parts of an object with a kind of their own are seen as that kind.
#[tokio::test(flavor = "multi_thread")]
async fn subresources_are_seen_as_their_own_kind() {
    let fixture = Fixture::new().await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(fixture.send("POST /api/v1/namespaces/default/pods", &pod).await.0, 201);
    assert_eq!(fixture.send(&format!("POST {APPS}"), &deployment("apps/v1")).await.0, 201);
    let eviction = json!({"metadata": {"name": "p"}});
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    let scale = json!({"spec": {"replicas": 3}});
    let rows: &[(&str, &str, &Value, &str)] = &[
        (
            "apps/v1 deployments/scale",
            "PATCH /apis/apps/v1/namespaces/default/deployments/d/scale",
            &scale,
            "UPDATE autoscaling/v1 Scale Scale replicas 1 to 3",
        ),
        (
            "apps/v1 deployments/scale",
            "PATCH /apis/extensions/v1beta1/namespaces/default/deployments/d/scale",
            &scale,
            "UPDATE autoscaling/v1 Scale Scale replicas 1 to 3",
        ),
        ("apps/v1 deployments", "PATCH /apis/apps/v1/namespaces/default/deployments/d/scale", &scale, ""),
        (
            "/v1 pods/eviction",
            "POST /api/v1/namespaces/default/pods/p/eviction",
            &eviction,
            "CREATE policy/v1 Eviction Eviction",
        ),
        ("/v1 pods", "POST /api/v1/namespaces/default/pods/p/eviction", &eviction, ""),
        (
            "/v1 pods/binding",
            "POST /api/v1/namespaces/default/pods/p/binding",
            &binding,
            "CREATE /v1 Binding Binding to n",
        ),
        (
            "/v1 bindings",
            "POST /api/v1/namespaces/default/bindings",
            &binding,
            "CREATE /v1 Binding Binding to n",
        ),
        (
            "/v1 serviceaccounts/token",
            "POST /api/v1/namespaces/default/serviceaccounts/default/token",
            &json!({}),
            "CREATE authentication.k8s.io/v1 TokenRequest TokenRequest",
        ),
    ];
    for (text, line, body, expect) in rows {
        let policy = json!({
            "matchConstraints": {"resourceRules": [rule(text)]},
            "validations": [{"expression": "false", "messageExpression":
                "request.operation + ' ' + request.kind.group + '/' + request.kind.version + ' ' + request.kind.kind + ' ' + object.kind + \
                 (object.kind == 'Scale' ? ' replicas ' + string(oldObject.spec.replicas) + ' to ' + string(object.spec.replicas) : '') + \
                 (object.kind == 'Binding' ? ' to ' + object.target.name : '')"}],
        });
        fixture.configure(&policy, &json!({})).await;
        let (code, answer, _) = fixture.send(&format!("{line}?dryRun=All"), body).await;
        let message = answer["message"].as_str().unwrap_or_default();
        let shown = message.split_once("denied request: ").map_or("", |(_, rest)| rest);
        assert_eq!(shown, *expect, "{line}: {code} {answer:#}");
    }
    fixture.close().await;
}

/// What is connected to is not written: options are the object.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_seen_with_their_options() {
    let fixture = Fixture::new().await;
    let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    merge(&mut pod["spec"], &json!({"nodeName": "n"}));
    assert_eq!(fixture.send("POST /api/v1/namespaces/default/pods", &pod).await.0, 201);
    let pods = "/api/v1/namespaces/default/pods/p";
    let not_asked = "Upgrade request required";
    let rows: &[(&str, String, &str)] = &[
        (
            "pods/exec",
            format!("GET {pods}/exec?command=sh&command=-c&stdin=true&container=c"),
            "CONNECT exec PodExecOptions default/p {command: [\"sh\", \"-c\"], container: c, stdin: true}",
        ),
        (
            "pods/exec",
            format!("POST {pods}/exec?command=sh"),
            "CONNECT exec PodExecOptions default/p {command: [\"sh\"]}",
        ),
        (
            "pods/attach",
            format!("GET {pods}/attach?stdout=true"),
            "CONNECT attach PodAttachOptions default/p {stdout: true}",
        ),
        (
            "pods/portforward",
            format!("GET {pods}/portforward?ports=80,81"),
            "CONNECT portforward PodPortForwardOptions default/p {ports: [80, 81]}",
        ),
        (
            "pods/proxy",
            format!("DELETE {pods}:80/proxy/a/b"),
            "CONNECT proxy PodProxyOptions default/p:80 {path: a/b}",
        ),
        (
            "services/proxy",
            "GET /api/v1/namespaces/default/services/web/proxy/".to_owned(),
            "CONNECT proxy ServiceProxyOptions default/web {}",
        ),
        (
            "*/*",
            format!("GET {pods}/exec?command=sh"),
            "CONNECT exec PodExecOptions default/p {command: [\"sh\"]}",
        ),
        ("pods", format!("GET {pods}/exec?command=sh"), not_asked),
        ("pods/exec", format!("GET {pods}/attach?stdout=true"), not_asked),
        ("pods/*", format!("GET {pods}/log"), "Internal error occurred: error dialing node"),
    ];
    for (resource, line, expect) in rows {
        let mut rule = rule(&format!("/v1 {resource}"));
        rule["operations"] = json!(["CONNECT"]);
        let policy = json!({
            "matchConstraints": {"resourceRules": [rule]},
            "variables": [{"name": "said", "expression":
                "request.operation + ' ' + request.subResource + ' ' + request.kind.kind + ' ' + request.?namespace.orValue('') + '/' + request.name"},
                {"name": "options", "expression": "['command', 'container', 'path', 'ports', 'stdin', 'stdout', 'tty'].filter(k, k in object)"}],
            "validations": [{"expression": "oldObject == null && request.options == null && variables.options.size() < 0", "messageExpression":
                "variables.said + ' {' + variables.options.map(k, '%s: %s'.format([k, object[k]])).join(', ') + '}'"}],
        });
        fixture.configure(&policy, &json!({})).await;
        let (_, answer, _) = fixture.send(line, &Value::Null).await;
        let message = answer["message"].as_str().unwrap_or_default();
        let shown = message.split_once("denied request: ").map_or(message, |(_, rest)| rest);
        assert!(shown.starts_with(expect), "{line}: {answer:#}");
    }
    fixture.close().await;
}
