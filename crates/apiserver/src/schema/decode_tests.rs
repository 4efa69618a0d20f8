use serde_json::json;

use super::super::{find, parse_json};
use super::*;

fn run(kind: &str, body: &Value, mode: FieldValidation) -> Result<(Value, Vec<String>), String> {
    let kind = find("", "v1", kind).or_else(|| find("apps", "v1", kind)).expect("a kind");
    let parsed = parse_json(body.to_string().as_bytes()).expect("JSON");
    decode(kind, parsed, mode).map_err(|e| e.to_string())
}

#[test]
fn wrong_types_and_unknown_fields_are_named_in_kubernetes_words() {
    let rows = [
        (
            "Deployment",
            json!({"spec": {"replicas": "3"}}),
            "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct \
             field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "Deployment",
            json!({"spec": {"foo": 1, "template": {"spec": {"containers": [{"imagee": "x"}]}}}}),
            "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: unknown field \
             \"spec.foo\", unknown field \"spec.template.spec.containers[0].imagee\"",
        ),
        (
            "Pod",
            json!({"metadata": {"annotations": {"a": 1}}}),
            "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal number into Go struct field \
             ObjectMeta.metadata.annotations of type string",
        ),
        (
            "Pod",
            json!({"spec": {"containers": {}}}),
            "Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal object into Go struct field \
             PodSpec.spec.containers of type []v1.Container",
        ),
        (
            "Pod",
            json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "lots"}}}]}}),
            "Pod in version \"v1\" cannot be handled as a Pod: quantities must match the regular expression \
             '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            "Secret",
            json!({"data": {"a": "%"}}),
            "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 0",
        ),
    ];
    for (kind, body, expect) in rows {
        assert_eq!(run(kind, &body, FieldValidation::Strict).expect_err(expect), expect);
    }
}

#[test]
fn what_means_nothing_is_dropped_and_the_rest_is_canonical() {
    let body = json!({
        "apiVersion": "v1", "kind": "Pod", "odd": 1,
        "metadata": {"name": "a", "creationTimestamp": null, "namespace": "", "labels": {"x": ""}},
        "spec": {"hostNetwork": false, "terminationGracePeriodSeconds": 0, "volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [{"name": "c", "args": [], "stdin": false, "env": [{"name": "E", "value": ""}],
                "resources": {"requests": {"cpu": 0.5, "memory": "1024Mi"}}}]},
        "status": {"startTime": "2020-01-01T01:00:00+01:00"}
    });
    let (object, warnings) = run("Pod", &body, FieldValidation::Warn).expect("a Pod");
    assert_eq!(warnings, ["unknown field \"odd\""]);
    assert_eq!(
        object,
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "labels": {"x": ""}},
            "spec": {"terminationGracePeriodSeconds": 0, "volumes": [{"name": "v", "emptyDir": {}}],
                "containers": [{"name": "c", "env": [{"name": "E"}],
                    "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}}]},
            "status": {"startTime": "2020-01-01T00:00:00Z"}
        })
    );
    assert_eq!(run("Pod", &body, FieldValidation::Ignore), Ok((object, vec![])));
}

#[test]
fn duplicates_are_refused_or_warned_of() {
    let kind = find("apps", "v1", "Deployment").expect("a kind");
    let parse = || parse_json(br#"{"spec":{"replicas":1,"replicas":2}}"#).expect("JSON");
    let (_, warnings) = decode(kind, parse(), FieldValidation::Warn).expect("an object");
    assert_eq!(warnings, ["duplicate field \"spec.replicas\""]);
    let error = decode(kind, parse(), FieldValidation::Strict).expect_err("strict");
    assert_eq!(error.problem, "strict decoding error: duplicate field \"spec.replicas\"");
}
