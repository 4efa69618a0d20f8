//! ValidatingAdmissionPolicies and their bindings.

use std::time::Duration;

use serde_json::{Value, json};

use super::{CONFIG_MAPS, Fixture, merge};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";

impl Fixture {
    async fn create(&self, plural: &str, name: &str, spec: &Value) {
        let object = json!({"metadata": {"name": name}, "spec": spec});
        let (code, answer, _) = self.send(&format!("POST {GROUP}/{plural}"), &object).await;
        assert_eq!(code, 201, "{answer:#}");
    }

    /// Puts a policy into force, in place of the one before.
    pub(super) async fn configure(&self, policy: &Value, binding: &Value) {
        for plural in ["validatingadmissionpolicybindings", "validatingadmissionpolicies"] {
            self.send(&format!("DELETE {GROUP}/{plural}/p"), &Value::Null).await;
        }
        let mut spec = json!({"matchConstraints": {"resourceRules": [{
            "operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]}});
        merge(&mut spec, policy);
        self.create("validatingadmissionpolicies", "p", &spec).await;
        let mut spec = json!({"policyName": "p", "validationActions": ["Deny"]});
        merge(&mut spec, binding);
        self.create("validatingadmissionpolicybindings", "p", &spec).await;
    }
}

/// A policy of one expression.
fn rule(expression: &str) -> Value {
    json!({"validations": [{"expression": expression}]})
}

/// Code and message or warnings of the write of a ConfigMap with this data.
async fn write(fixture: &Fixture, user: &str, name: &str, data: &Value) -> String {
    let object = json!({"metadata": {"name": name}, "data": data});
    let (code, answer, warnings) =
        fixture.send_as(user, &format!("POST {CONFIG_MAPS}?dryRun=All"), &object).await;
    let message = answer["message"].as_str().unwrap_or_default();
    let prefix = format!(
        "configmaps \"{name}\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p' denied request: "
    );
    let message = message.strip_prefix(&prefix).unwrap_or(message);
    [&[format!("{code} {message}").trim().to_owned()], warnings.as_slice()].concat().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn expressions_decide() {
    let fixture = Fixture::new().await;
    let with = |validation: Value, more: Value| {
        let mut policy = json!({"validations": [validation]});
        merge(&mut policy, &more);
        policy
    };
    let named = |name: &str, expression: &str| json!({"name": name, "expression": expression});
    let rows = [
        (rule("object.data.a == '1'"), "201"),
        (rule("object.data.a == '2'"), "422 failed expression: object.data.a == '2'"),
        (with(json!({"expression": "false", "message": " no \t"}), json!({})), "422 no"),
        (
            with(
                json!({"expression": "false", "message": "no", "messageExpression": "'a is ' + object.data.a"}),
                json!({}),
            ),
            "422 a is 1",
        ),
        (
            with(
                json!({"expression": "false", "message": "no", "messageExpression": "string(object.data.none)"}),
                json!({}),
            ),
            "422 no",
        ),
        (
            with(json!({"expression": "false", "message": "no", "messageExpression": "'a\\nb'"}), json!({})),
            "422 no",
        ),
        (with(json!({"expression": "false", "message": "no", "reason": "Forbidden"}), json!({})), "403 no"),
        (
            with(json!({"expression": "false", "message": "no", "reason": "Unauthorized"}), json!({})),
            "401 no",
        ),
        (
            with(
                json!({"expression": "false", "message": "no", "reason": "RequestEntityTooLarge"}),
                json!({}),
            ),
            "413 no",
        ),
        (
            rule("object.data.none == '1'"),
            "422 expression 'object.data.none == '1'' resulted in error: no such key: none",
        ),
        (with(json!({"expression": "object.data.none == '1'"}), json!({"failurePolicy": "Ignore"})), "201"),
        // Variables are composed, and computed where they are used only.
        (
            with(
                json!({"expression": "variables.twice == 2 || variables.broken"}),
                json!({"variables": [named("one", "int(object.data.a)"), named("twice", "variables.one * 2"),
                    named("broken", "object.data.none == ''")]}),
            ),
            "201",
        ),
        (
            with(
                json!({"expression": "variables.broken", "messageExpression": "string(variables.broken)"}),
                json!({"variables": [named("broken", "object.data.none == ''")]}),
            ),
            "422 expression 'variables.broken' resulted in error: composited variable \"broken\" fails to evaluate: no such key: none",
        ),
        (with(json!({"expression": "has(variables.a)"}), json!({"variables": [named("a", "1")]})), "201"),
        // What is not matched is not asked about.
        (
            with(
                json!({"expression": "false"}),
                json!({"matchConditions": [named("c", "object.data.a == '2'")]}),
            ),
            "201",
        ),
        (
            with(
                json!({"expression": "false"}),
                json!({"matchConditions": [named("c", "object.data.none == '2'")]}),
            ),
            "422 expression 'object.data.none == '2'' resulted in error: no such key: none",
        ),
        // The environment.
        (rule("oldObject == null && request.operation == 'CREATE' && request.dryRun"), "201"),
        (rule("request.userInfo.username == 'root' && 'system:masters' in request.userInfo.groups"), "201"),
        (rule("request.kind.kind == 'ConfigMap' && request.resource.resource == 'configmaps'"), "201"),
        (rule("request.namespace == 'default' && request.name == object.metadata.name"), "201"),
        (rule("namespaceObject.metadata.labels['kubernetes.io/metadata.name'] == 'default'"), "201"),
        (
            rule(
                "namespaceObject.status.phase == 'Active' && !has(namespaceObject.metadata.deletionTimestamp)",
            ),
            "201",
        ),
        (rule("authorizer.group('').resource('pods').namespace('x').check('create').allowed()"), "201"),
        (
            rule(
                "authorizer.serviceAccount('default', 'default').group('').resource('pods').check('list').allowed()",
            ),
            "422 failed expression: authorizer.serviceAccount('default', 'default').group('').resource('pods').check('list').allowed()",
        ),
        (
            rule(
                "authorizer.path('/healthz').check('get').allowed() && authorizer.requestResource.check('create').allowed()",
            ),
            "201",
        ),
        // An expression can pay for two checks.
        (
            rule("[1, 2, 3].all(i, authorizer.requestResource.check('create').allowed())"),
            "422 expression '[1, 2, 3].all(i, authorizer.requestResource.check('create').allowed())' resulted in error: \
             operation cancelled: actual cost limit exceeded",
        ),
        (
            json!({"validations": (0..10).map(|i| json!({"expression": format!("[{i}, 2].all(i, authorizer.requestResource.check('create').allowed())")}))
                .chain((0..10).map(|_| json!({"expression": "[0, 2].all(i, authorizer.requestResource.check('create').allowed())"})))
                .collect::<Vec<_>>()}),
            "422 validation failed due to running out of cost budget, no further validation rules will be run",
        ),
        (json!({"auditAnnotations": [{"key": "a", "valueExpression": "object.data.none"}]}), "INVALID"),
        (json!({"auditAnnotations": [{"key": "a", "valueExpression": "'a is ' + object.data.a"}]}), "201"),
        (
            json!({"auditAnnotations": [{"key": "a", "valueExpression": "string(object.data.none)"}]}),
            "422 expression 'string(object.data.none)' resulted in error: no such key: none",
        ),
    ];
    for (policy, expect) in &rows {
        if *expect == "INVALID" {
            let object = json!({"metadata": {"name": "q"}, "spec": policy});
            let line = format!("POST {GROUP}/validatingadmissionpolicies");
            assert_eq!(fixture.send(&line, &object).await.0, 422, "{policy}");
            continue;
        }
        fixture.configure(policy, &json!({})).await;
        let found = write(&fixture, "root", "c", &json!({"a": "1"})).await;
        assert_eq!(found, *expect, "{policy}");
    }
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bindings_decide_where_and_how() {
    let fixture = Fixture::new().await;
    let (never, data) = (rule("false"), json!({"a": "1"}));
    let denied = "422 failed expression: false";
    let warned = "201 299 - \"Validation failed for ValidatingAdmissionPolicy 'p' with binding 'p': failed expression: false\"";
    let only = |selector: Value| json!({"matchResources": selector});
    let labelled = |name: &str| json!({"matchLabels": {"kubernetes.io/metadata.name": name}});
    let rules = |resource: &str, more: Value| {
        let mut rule =
            json!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": [resource]});
        merge(&mut rule, &more);
        json!([rule])
    };
    let rows = [
        (json!({}), denied),
        (json!({"validationActions": ["Warn"]}), warned),
        (json!({"validationActions": ["Audit"]}), "201"),
        (json!({"validationActions": ["Warn", "Audit"]}), warned),
        (json!({"policyName": "another"}), "201"),
        (only(json!({"namespaceSelector": labelled("default")})), denied),
        (only(json!({"namespaceSelector": labelled("kube-system")})), "201"),
        (only(json!({"objectSelector": labelled("default")})), "201"),
        (only(json!({"resourceRules": rules("secrets", json!({}))})), "201"),
        (only(json!({"resourceRules": rules("*", json!({}))})), denied),
        (only(json!({"resourceRules": rules("*", json!({"resourceNames": ["other"]}))})), "201"),
        (only(json!({"resourceRules": rules("*", json!({"resourceNames": ["other", "c"]}))})), denied),
        (only(json!({"resourceRules": rules("*", json!({"scope": "Cluster"}))})), "201"),
        (only(json!({"excludeResourceRules": rules("configmaps", json!({}))})), "201"),
        (
            only(json!({"excludeResourceRules": rules("configmaps", json!({"operations": ["DELETE"]}))})),
            denied,
        ),
    ];
    for (binding, expect) in &rows {
        fixture.configure(&never, binding).await;
        assert_eq!(write(&fixture, "root", "c", &data).await, *expect, "{binding}");
    }
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_come_from_other_objects() {
    let fixture = Fixture::new().await;
    for (name, most) in [("small", "1"), ("large", "9")] {
        let object = json!({"metadata": {"name": name, "labels": {"limits": "yes"}}, "data": {"most": most}});
        assert_eq!(fixture.send(&format!("POST {CONFIG_MAPS}"), &object).await.0, 201);
    }
    let policy = |kind: &str| {
        let mut policy = rule("params == null || int(object.data.a) <= int(params.data.most)");
        policy["paramKind"] = json!({"apiVersion": "v1", "kind": kind});
        policy
    };
    let by = |reference: Value| {
        let mut reference = reference;
        if reference.get("parameterNotFoundAction").is_none() {
            reference["parameterNotFoundAction"] = json!("Deny");
        }
        json!({"paramRef": reference})
    };
    let failed = "422 failed expression: params == null || int(object.data.a) <= int(params.data.most)";
    let nobody = "422 failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    let rows = [
        ("ConfigMap", by(json!({"name": "small"})), failed),
        ("ConfigMap", by(json!({"name": "large"})), "201"),
        ("ConfigMap", by(json!({"name": "large", "namespace": "default"})), "201"),
        ("ConfigMap", by(json!({"name": "large", "namespace": "kube-system"})), nobody),
        ("ConfigMap", by(json!({"name": "none", "parameterNotFoundAction": "Allow"})), "201"),
        ("ConfigMap", by(json!({"selector": {"matchLabels": {"limits": "yes"}}})), failed),
        ("ConfigMap", by(json!({"selector": {"matchLabels": {"limits": "no"}}})), nobody),
        ("ConfigMap", json!({}), "201"),
        (
            "Node",
            by(json!({"name": "large", "namespace": "default"})),
            "422 failed to configure binding: paramRef.namespace must not be provided for a cluster-scoped `paramKind`",
        ),
        (
            "Gadget",
            by(json!({"name": "large"})),
            "422 configmaps \"c\" is forbidden: ValidatingAdmissionPolicy 'p' denied request: failed to configure policy: \
             failed to find resource referenced by paramKind: '/v1, Kind=Gadget'",
        ),
    ];
    for (kind, binding, expect) in &rows {
        fixture.configure(&policy(kind), binding).await;
        assert_eq!(write(&fixture, "root", "c", &json!({"a": "5"})).await, *expect, "{kind} {binding}");
    }
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_and_bindings_are_checked() {
    let fixture = Fixture::new().await;
    let rules =
        json!([{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]);
    let constraints = json!({"resourceRules": rules});
    let policy = |more: Value| {
        let mut spec = json!({"matchConstraints": constraints, "validations": [{"expression": "true"}]});
        merge(&mut spec, &more);
        spec
    };
    let binding = |more: Value| {
        let mut spec = json!({"policyName": "p", "validationActions": ["Deny"]});
        merge(&mut spec, &more);
        spec
    };
    let (policies, bindings) = ("validatingadmissionpolicies", "validatingadmissionpolicybindings");
    let rows = [
        (policies, policy(json!({})), ""),
        (policies, policy(json!({"matchConstraints": null})), "spec.matchConstraints: Required value"),
        (
            policies,
            policy(json!({"matchConstraints": {}})),
            "spec.matchConstraints.resourceRules: Required value",
        ),
        (
            policies,
            policy(json!({"validations": []})),
            "[spec.validations: Required value: validations or auditAnnotations must contain at least one item, \
             spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item]",
        ),
        (
            policies,
            policy(json!({"validations": [{"expression": "1 + 1"}]})),
            "spec.validations[0].expression: Invalid value: \"1 + 1\": must evaluate to bool but got int",
        ),
        (
            policies,
            policy(json!({"validations": [{"expression": "object.spec.x"}]})),
            "spec.validations[0].expression: Invalid value: \"object.spec.x\": must evaluate to bool but got dyn",
        ),
        (
            policies,
            policy(json!({"validations": [{"expression": "request.nothing == 1"}]})),
            "spec.validations[0].expression: Invalid value: \"request.nothing == 1\": compilation failed: ERROR: \
             <input>:1:8: undefined field 'nothing'",
        ),
        (
            policies,
            policy(json!({"validations": [{"expression": "params.x == 1"}]})),
            "spec.validations[0].expression: Invalid value: \"params.x == 1\": compilation failed: ERROR: <input>:1:1: \
             undeclared reference to 'params' (in container '')",
        ),
        (
            policies,
            policy(
                json!({"validations": [{"expression": "true", "messageExpression": "authorizer.path('/').check('get').reason()"}]}),
            ),
            "spec.validations[0].messageExpression: Invalid value: \"authorizer.path('/').check('get').reason()\": \
             compilation failed: ERROR: <input>:1:1: undeclared reference to 'authorizer'",
        ),
        (
            policies,
            policy(json!({"validations": [{"expression": "true", "reason": "Odd"}]})),
            "spec.validations[0].reason: Unsupported value: \"Odd\": supported values: \"Forbidden\", \"Invalid\", \
             \"RequestEntityTooLarge\", \"Unauthorized\"",
        ),
        (
            policies,
            policy(
                json!({"variables": [{"name": "a", "expression": "variables.b"}, {"name": "b", "expression": "1"}]}),
            ),
            "spec.variables[0].expression: Invalid value: \"variables.b\": compilation failed: ERROR: <input>:1:10: \
             undefined field 'b'",
        ),
        (
            policies,
            policy(json!({"variables": [{"name": "a-b", "expression": "1"}]})),
            "spec.variables[0].name: Invalid value: \"a-b\": name is not a valid CEL identifier",
        ),
        (
            policies,
            policy(json!({"paramKind": {"apiVersion": "a/b/c", "kind": "X"}})),
            "spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
        ),
        (bindings, binding(json!({})), ""),
        (bindings, binding(json!({"policyName": ""})), "spec.policyName: Required value"),
        (
            bindings,
            binding(json!({"validationActions": ["Deny", "Warn"]})),
            "spec.validationActions: Invalid value: [\"Deny\",\"Warn\"]: must not contain both Deny and Warn",
        ),
        (
            bindings,
            binding(json!({"validationActions": []})),
            "spec.validationActions: Required value: at least one validation action is required",
        ),
        (
            bindings,
            binding(json!({"paramRef": {"parameterNotFoundAction": "Deny"}})),
            "spec.paramRef: Required value: one of name or selector must be specified",
        ),
        (
            bindings,
            binding(json!({"paramRef": {"name": "x", "parameterNotFoundAction": "Maybe"}})),
            "spec.paramRef.parameterNotFoundAction: Unsupported value: \"Maybe\": supported values: \"Deny\", \"Allow\"",
        ),
    ];
    for (plural, spec, expect) in &rows {
        let object = json!({"metadata": {"name": "x"}, "spec": spec});
        let (code, answer, _) = fixture.send(&format!("POST {GROUP}/{plural}?dryRun=All"), &object).await;
        let message = answer["message"].as_str().unwrap_or_default();
        let message = message.split_once(" is invalid: ").map_or(message, |(_, rest)| rest);
        assert_eq!(code, if expect.is_empty() { 201 } else { 422 }, "{spec}: {answer:#}");
        assert!(message.starts_with(expect), "{spec}: {message}");
    }
    // Defaults, and columns as kubectl asks for them.
    fixture
        .create(policies, "d", &policy(json!({"paramKind": {"apiVersion": "apps/v1", "kind": "Deployment"}})))
        .await;
    let (_, answer, _) = fixture.send(&format!("GET {GROUP}/{policies}/d"), &Value::Null).await;
    assert_eq!(answer["spec"]["failurePolicy"], "Fail");
    assert_eq!(answer["spec"]["matchConstraints"]["matchPolicy"], "Equivalent");
    assert_eq!(answer["spec"]["matchConstraints"]["resourceRules"][0]["scope"], "*");
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_policies_may_read_their_parameters() {
    let fixture = Fixture::new().await;
    let role = json!({"metadata": {"name": "policies"}, "rules": [
        {"apiGroups": ["admissionregistration.k8s.io"], "resources": ["*"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create"]}]});
    let binding = json!({"metadata": {"name": "policies"}, "subjects": [{"kind": "User", "name": "jane"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "policies"}});
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    assert_eq!(fixture.send(&format!("POST {rbac}/clusterroles"), &role).await.0, 201);
    assert_eq!(fixture.send(&format!("POST {rbac}/clusterrolebindings"), &binding).await.0, 201);
    let rules =
        json!([{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]);
    for (kind, expect) in [
        ("ConfigMap", ""),
        (
            "Secret",
            "spec.paramKind: Forbidden: user \"jane\" must have \"get\" permission on all objects of the referenced \
             paramKind (kind=Secret, apiVersion=v1)",
        ),
        ("Gadget", "spec.paramKind: Forbidden: user \"jane\" must have"),
    ] {
        let object = json!({"metadata": {"name": "x"}, "spec": {"matchConstraints": {"resourceRules": rules},
            "paramKind": {"apiVersion": "v1", "kind": kind}, "validations": [{"expression": "true"}]}});
        let line = format!("POST {GROUP}/validatingadmissionpolicies?dryRun=All");
        let (code, answer, _) = fixture.send_as("jane", &line, &object).await;
        assert_eq!(code, if expect.is_empty() { 201 } else { 422 }, "{answer:#}");
        assert!(answer["message"].as_str().unwrap_or_default().contains(expect), "{answer:#}");
    }
    // Checks of what the user may do are theirs.
    fixture
        .configure(&rule("authorizer.group('').resource('secrets').check('get').allowed()"), &json!({}))
        .await;
    let data = json!({"a": "1"});
    let expect = "422 failed expression: authorizer.group('').resource('secrets').check('get').allowed()";
    assert_eq!(write(&fixture, "jane", "c", &data).await, expect);
    assert_eq!(write(&fixture, "root", "c", &data).await, "201");
    fixture.close().await;
}

/// The status of a policy says what its expressions cannot mean for the kinds that it matches.
#[tokio::test(flavor = "multi_thread")]
async fn expressions_are_checked_by_type() {
    let fixture = Fixture::new().await;
    let crd = json!({"metadata": {"name": "gadgets.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "gadgets", "kind": "Gadget"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
            "type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}}}]}});
    let line = "POST /apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert_eq!(fixture.send(line, &crd).await.0, 201);
    let wait = async |line: &str, pointer: &str| {
        for _ in 0..500 {
            let (_, answer, _) = fixture.send(line, &Value::Null).await;
            if answer.pointer(pointer).is_some() {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{pointer} of {line} does not come")
    };
    wait("GET /apis/example.com/v1/gadgets", "/items").await;
    let rules = json!([{"operations": ["*"], "apiGroups": ["apps", "example.com"], "apiVersions": ["v1"],
        "resources": ["deployments", "gadgets", "deployments/scale"]}]);
    let rows = [
        ("object.metadata.namespace == 'x' && object.metadata.labels['a'] == 'b'", json!({})),
        (
            "object.replicas > 1",
            json!({"expressionWarnings": [{"fieldRef": "spec.validations[0].expression", "warning":
                "apps/v1, Kind=Deployment: ERROR: <input>:1:7: undefined field 'replicas'\n | object.replicas > 1\n | ......^\n\n\
                 example.com/v1, Kind=Gadget: ERROR: <input>:1:7: undefined field 'replicas'\n | object.replicas > 1\n | ......^\n"}]}),
        ),
        (
            "object.spec.replicas > 1",
            json!({"expressionWarnings": [{"fieldRef": "spec.validations[0].expression", "warning":
                "example.com/v1, Kind=Gadget: ERROR: <input>:1:12: undefined field 'replicas'\n | object.spec.replicas > 1\n | ...........^\n"}]}),
        ),
    ];
    for (number, (expression, expect)) in rows.iter().enumerate() {
        let name = format!("t{number}");
        let spec = json!({"matchConstraints": {"resourceRules": rules}, "validations": [{"expression": expression}]});
        fixture.create("validatingadmissionpolicies", &name, &spec).await;
        let line = format!("GET {GROUP}/validatingadmissionpolicies/{name}");
        let answer = wait(&line, "/status/observedGeneration").await;
        assert_eq!(answer["status"]["typeChecking"], *expect, "{expression}");
        assert_eq!(answer["status"]["observedGeneration"], 1);
    }
    fixture.close().await;
}

/// Deletions and subresources are matched as rules say, and a policy is never under one.
#[tokio::test(flavor = "multi_thread")]
async fn policies_see_other_operations() {
    let fixture = Fixture::new().await;
    let object = json!({"metadata": {"name": "c"}, "data": {"a": "1"}});
    assert_eq!(fixture.send(&format!("POST {CONFIG_MAPS}"), &object).await.0, 201);
    let everything = |expression: &str| {
        let mut policy = rule(expression);
        policy["matchConstraints"] = json!({"resourceRules": [
            {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]});
        policy
    };
    fixture.configure(&everything("object != null || oldObject.data.a != '1'"), &json!({})).await;
    let (code, _, _) = fixture.send(&format!("DELETE {CONFIG_MAPS}/c"), &Value::Null).await;
    assert_eq!(code, 422);
    let change = json!({"data": {"a": "2"}});
    assert_eq!(fixture.send(&format!("PATCH {CONFIG_MAPS}/c"), &change).await.0, 200);
    assert_eq!(fixture.send(&format!("DELETE {CONFIG_MAPS}/c"), &Value::Null).await.0, 200);
    fixture.configure(&everything("request.?subResource.orValue('') != 'status'"), &json!({})).await;
    let status = json!({"metadata": {"annotations": {"a": "b"}}});
    assert_eq!(fixture.send("PATCH /api/v1/namespaces/default/status", &status).await.0, 422);
    fixture.configure(&everything("false"), &json!({})).await;
    let line = format!("DELETE {GROUP}/validatingadmissionpolicies/p");
    assert_eq!(fixture.send(&line, &Value::Null).await.0, 200);
    fixture.close().await;
}
