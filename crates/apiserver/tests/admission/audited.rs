//! What admission adds to audit events.

use std::time::Duration;

use serde_json::{Value, json};
use yado_apiserver::{Config, audit};
use yado_types::clock::SystemClock;

use super::{CONFIG_MAPS, Fixture};

const POLICY: &str =
    "{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [RequestReceived], rules: [{level: Metadata}]}";

#[tokio::test(flavor = "multi_thread")]
async fn policies_and_standards_annotate_audit_events() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("audit.log");
    let log =
        audit::LogConfig { path: Some(path.clone()), max_size: 0, max_backups: 0, max_age: Duration::ZERO };
    let policy = audit::Policy::parse(POLICY).expect("a policy");
    let audit = audit::Audit::open(policy, log, SystemClock::shared()).expect("a log");
    let fixture = Fixture::with(Config { audit: Some(audit), ..Config::default() }).await;
    fixture
        .configure(
            &json!({
                "validations": [{"expression": "object.data.a == 'x'", "message": "a is not x"}],
                "auditAnnotations": [{"key": "value", "valueExpression": "'a is ' + object.data.a"}],
            }),
            &json!({"validationActions": ["Audit"]}),
        )
        .await;
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/audit": "baseline"}}});
    let pod = json!({
        "metadata": {"name": "p"}, "spec": {"hostNetwork": true, "containers": [{"name": "c", "image": "x"}]},
    });
    for (line, body, expect) in [
        (format!("POST {CONFIG_MAPS}"), json!({"metadata": {"name": "audited"}, "data": {"a": "1"}}), 201),
        ("PATCH /api/v1/namespaces/default".to_owned(), labels, 200),
        ("POST /api/v1/namespaces/default/pods".to_owned(), pod, 201),
    ] {
        let (code, answer, _) = fixture.send(&line, &body).await;
        assert_eq!(code, expect, "{line}: {answer:#}");
    }
    fixture.close().await;
    let text = std::fs::read_to_string(&path).expect("a log");
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let annotation = |resource: &str, key: &str| {
        let of = events.iter().filter(|e| e["verb"] == "create" && e["objectRef"]["resource"] == resource);
        of.filter_map(|event| event["annotations"][key].as_str()).next_back().unwrap_or_default().to_owned()
    };
    assert_eq!(annotation("configmaps", "p/value"), "a is 1");
    let failure = annotation("configmaps", "validation.policy.admission.k8s.io/validation_failure");
    let failure: Value = serde_json::from_str(&failure).expect("JSON");
    assert_eq!(failure[0]["message"], "a is not x");
    assert_eq!(failure[0]["validationActions"], json!(["Audit"]));
    assert_eq!(
        annotation("pods", "pod-security.kubernetes.io/audit-violations"),
        "would violate PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
    );
}
