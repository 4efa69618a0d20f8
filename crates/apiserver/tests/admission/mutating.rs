//! MutatingAdmissionPolicies and their bindings.

use serde_json::{Value, json};

use super::{CONFIG_MAPS, Fixture, merge};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1beta1";
const POLICIES: &str = "mutatingadmissionpolicies";
const BINDINGS: &str = "mutatingadmissionpolicybindings";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// A mutation by an object that is merged.
fn apply(expression: &str) -> Value {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

/// A mutation by a JSON patch.
fn patch(expression: &str) -> Value {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

/// A policy of these mutations about all that is written.
fn policy(mutations: &[Value], more: &Value) -> Value {
    let mut spec = json!({
        "matchConstraints": {"resourceRules": [
            {"operations": ["CREATE", "UPDATE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]},
        "mutations": mutations, "reinvocationPolicy": "Never",
    });
    merge(&mut spec, more);
    spec
}

impl Fixture {
    /// Puts policies with a binding each into force, in place of those before, named `p0`, `p1`, ...
    async fn mutate_by(&self, policies: &[(Value, Value)]) {
        for plural in [BINDINGS, POLICIES] {
            self.send(&format!("DELETE {GROUP}/{plural}"), &Value::Null).await;
        }
        for (number, (policy, binding)) in policies.iter().enumerate() {
            let name = format!("p{number}");
            let mut spec = json!({"policyName": name});
            merge(&mut spec, binding);
            for (plural, spec) in [(POLICIES, policy), (BINDINGS, &spec)] {
                let object = json!({"metadata": {"name": name}, "spec": spec});
                let (code, answer, _) = self.send(&format!("POST {GROUP}/{plural}"), &object).await;
                assert_eq!(code, 201, "{answer:#}");
            }
        }
    }
}

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data})
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"app": "d"}},
        "spec": {"selector": {"matchLabels": {"app": "d"}}, "template": {
            "metadata": {"labels": {"app": "d"}}, "spec": {"containers": [
                {"name": "c", "image": "i", "args": ["a"], "env": [{"name": "A", "value": "1"}]}, {"name": "side", "image": "s"}]}}},
    })
}

/// Code and what a pointer shows of the answer, or the message.
fn shown((code, answer, _): &(u16, Value, Vec<String>), pointer: &str) -> String {
    match answer["message"].as_str() {
        Some(message) => format!("{code} {} {message}", answer["reason"].as_str().unwrap_or_default()),
        None => format!("{code} {}", answer.pointer(pointer).unwrap_or(&Value::Null)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn configurations_are_merged() {
    let fixture = Fixture::new().await;
    let denied = "403 Invalid policy 'p0' with binding 'p0' denied request: ";
    let (labels, containers, spec) = ("/metadata/labels", "/spec/template/spec/containers", "/spec");
    let rows: &[(&str, &str, &str)] = &[
        ("Object{metadata: Object.metadata{labels: {'team': 'x'}}}", labels, r#"201 {"app":"d","team":"x"}"#),
        ("Object{metadata: Object.metadata{labels: {'app': 'y'}}}", labels, r#"201 {"app":"y"}"#),
        ("Object{}", labels, r#"201 {"app":"d"}"#),
        // Items of lists are told apart by their keys, and defaults are filled in.
        (
            "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: \
             [Object.spec.template.spec.containers{name: 'c', env: [Object.spec.template.spec.containers.env{name: 'B', value: '2'}]}]}}}}",
            "/spec/template/spec/containers/0/env",
            r#"201 [{"name":"A","value":"1"},{"name":"B","value":"2"}]"#,
        ),
        (
            "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{initContainers: \
             [Object.spec.template.spec.initContainers{name: 'first', image: 'proxy:latest', restartPolicy: 'Always'}]}}}}",
            "/spec/template/spec/initContainers/0/imagePullPolicy",
            r#"201 "Always""#,
        ),
        (
            "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: \
             object.spec.template.spec.containers.map(c, Object.spec.template.spec.containers{name: c.name, imagePullPolicy: 'Never'})}}}}",
            "/spec/template/spec/containers/1/imagePullPolicy",
            r#"201 "Never""#,
        ),
        ("Object{spec: Object.spec{replicas: 0}}", "/spec/replicas", "201 0"),
        (
            "Object{spec: Object.spec{?replicas: optional.none(), ?paused: optional.of(true)}}",
            "/spec/paused",
            "201 true",
        ),
        (
            "object.metadata.name == 'd' ? Object{spec: Object.spec{replicas: 3}} : Object{}",
            "/spec/replicas",
            "201 3",
        ),
        // What is owned as a whole is not merged.
        (
            "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: \
             [Object.spec.template.spec.containers{name: 'c', args: ['b']}], tolerations: []}}}}",
            containers,
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: \
             .spec.template.spec.containers[0].args, .spec.template.spec.tolerations",
        ),
        (
            "Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {'a': 'b'}}}}",
            spec,
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.selector",
        ),
        (
            "Object{spec: Object.spec{size: 1}}",
            spec,
            "error applying patch: failed to convert patch object to typed object: .spec.size: field not declared in schema",
        ),
        (
            "Object{spec: Object.spec{size: 1}, other: 'x'}",
            spec,
            "error applying patch: failed to convert patch object to typed object: errors:\n  .spec.size: field not declared in \
             schema\n  .other: field not declared in schema",
        ),
        (
            "Object{spec: Object.spec{replicas: 'many'}}",
            spec,
            "error applying patch: failed to convert patch object to typed object: json: cannot unmarshal string into Go struct \
             field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: \
             [Object.spec.template.spec.containers{name: 'c'}, Object.spec.template.spec.containers{name: 'c'}]}}}}",
            spec,
            "error applying patch: failed to convert patch object to typed object: .spec.template.spec.containers: duplicate \
             entries for key [name=\"c\"]",
        ),
        (
            "Object{spec: Object.wrong{replicas: 1}}",
            spec,
            "type mismatch: unexpected type name \"Object.wrong\", expected \"Object.spec\", which matches field name path from \
             root Object type",
        ),
        (
            "Object{metadata: Object.metadata{labels: {'a': object.none}}}",
            spec,
            "expression 'Object{metadata: Object.metadata{labels: {'a': object.none}}}' resulted in error: no such key: none",
        ),
        (
            "Object{metadata: Object.metadata{labels: {'a': string([1, 2, 3].all(i, authorizer.requestResource.check('create').allowed()))}}}",
            spec,
            "expression 'Object{metadata: Object.metadata{labels: {'a': string([1, 2, 3].all(i, \
             authorizer.requestResource.check('create').allowed()))}}}' resulted in error: operation cancelled: actual cost limit \
             exceeded",
        ),
        // The object that comes about is checked as any other.
        (
            "Object{spec: Object.spec{replicas: -1}}",
            spec,
            "422 Invalid Deployment.apps \"d\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "Object{metadata: Object.metadata{name: 'other'}}",
            spec,
            "422 Invalid Deployment.apps \"d\" is invalid: metadata.name: Invalid value: \"other\": field is immutable",
        ),
    ];
    for (expression, pointer, expect) in rows {
        fixture.mutate_by(&[(policy(&[apply(expression)], &json!({})), json!({}))]).await;
        let found = fixture.send(&format!("POST {DEPLOYMENTS}?dryRun=All"), &deployment()).await;
        let found = shown(&found, pointer);
        assert_eq!(found.strip_prefix(denied).unwrap_or(&found), *expect, "{expression}");
    }
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_are_applied() {
    let fixture = Fixture::new().await;
    let denied = "403 Invalid policy 'p0' with binding 'p0' denied request: ";
    let rows: &[(&str, &str, &str)] = &[
        ("[JSONPatch{op: 'add', path: '/data/b', value: '2'}]", "/data", r#"201 {"a":"1","b":"2"}"#),
        (
            "[JSONPatch{op: 'remove', path: '/data/a'}, JSONPatch{op: 'add', path: '/data/c', value: 'x'}]",
            "/data",
            r#"201 {"c":"x"}"#,
        ),
        ("[JSONPatch{op: 'move', from: '/data/a', path: '/data/b'}]", "/data", r#"201 {"b":"1"}"#),
        ("[JSONPatch{op: 'copy', from: '/data/a', path: '/data/b'}]", "/data", r#"201 {"a":"1","b":"1"}"#),
        (
            "[JSONPatch{op: 'add', path: '/metadata/annotations', value: Object.metadata.annotations{team: 'x'}}, \
             JSONPatch{op: 'add', path: '/metadata/annotations/' + jsonpatch.escapeKey('example.com/a-b'), value: 'y'}]",
            "/metadata/annotations",
            r#"201 {"team":"x","example.com/a-b":"y"}"#,
        ),
        (
            "[JSONPatch{op: 'add', path: '/metadata/finalizers', value: ['a/b', 'c/d']}]",
            "/metadata/finalizers",
            r#"201 ["a/b","c/d"]"#,
        ),
        ("object.data.a == '2' ? [JSONPatch{op: 'remove', path: '/data'}] : []", "/data", r#"201 {"a":"1"}"#),
        // A test that fails is no mistake.
        (
            "[JSONPatch{op: 'test', path: '/data/a', value: '2'}, JSONPatch{op: 'remove', path: '/data/a'}]",
            "/data",
            r#"201 {"a":"1"}"#,
        ),
        (
            "[JSONPatch{op: 'test', path: '/data/a', value: '1'}, JSONPatch{op: 'remove', path: '/data/a'}]",
            "/data",
            "201 null",
        ),
        (
            "[JSONPatch{op: 'test', path: '/data/z', value: '1'}, JSONPatch{op: 'remove', path: '/data/a'}]",
            "/data",
            r#"201 {"a":"1"}"#,
        ),
        (
            "[JSONPatch{op: 'test', path: '/binaryData/z', value: '1'}]",
            "/data",
            "JSON Patch: patch[0]: test \"/binaryData/z\": /binaryData does not exist",
        ),
        (
            "[JSONPatch{op: 'remove', path: '/data/z'}]",
            "/data",
            "JSON Patch: patch[0]: remove \"/data/z\": /data/z does not exist",
        ),
        (
            "[JSONPatch{path: '/data'}]",
            "/data",
            "JSON Patch: error decoding patch: patch[0]: \"\" is not an operation of JSON patches",
        ),
        (
            "[JSONPatch{op: 'add', path: '/spec', value: Object.spec{a: Object.b{}}}]",
            "/data",
            "type mismatch: unexpected type name \"Object.b\", expected \"Object.spec.a\", which matches field name path from root \
             Object type",
        ),
        (
            "[JSONPatch{op: 'add', path: '/spec', value: {'a': 1}}]",
            "/data",
            "500 InternalError Internal error occurred: ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict \
             decoding error: unknown field \"spec\"",
        ),
        (
            "[JSONPatch{op: 'add', path: '/data', value: 1}]",
            "/data",
            "500 InternalError Internal error occurred: ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot \
             unmarshal number into Go struct field ConfigMap.data of type map[string]string",
        ),
    ];
    for (expression, pointer, expect) in rows {
        fixture.mutate_by(&[(policy(&[patch(expression)], &json!({})), json!({}))]).await;
        let found = fixture.send(&format!("POST {CONFIG_MAPS}?dryRun=All"), &map(json!({"a": "1"}))).await;
        let found = shown(&found, pointer);
        assert_eq!(found.strip_prefix(denied).unwrap_or(&found), *expect, "{expression}");
    }
    fixture.close().await;
}

/// A mutation that appends a letter to `data.a`.
fn append(letter: &str) -> Value {
    patch(&format!("[JSONPatch{{op: 'add', path: '/data/a', value: object.data.a + '{letter}'}}]"))
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_follow_each_other() {
    let fixture = Fixture::new().await;
    let (none, again) = (json!({}), json!({"reinvocationPolicy": "IfNeeded"}));
    let only = |more: Value| (policy(&[append("x")], &more), json!({}));
    let named = |name: &str, expression: &str| json!({"name": name, "expression": expression});
    let params = |kind: &str| json!({"paramKind": {"apiVersion": "v1", "kind": kind}});
    let by_params = || {
        let expression = "[JSONPatch{op: 'add', path: '/data/a', value: object.data.a + params.data.suffix}]";
        policy(&[patch(expression)], &params("ConfigMap"))
    };
    let reference = |more: Value| {
        let mut reference = json!({"parameterNotFoundAction": "Deny"});
        merge(&mut reference, &more);
        json!({"paramRef": reference})
    };
    for (name, suffix) in [("first", "1"), ("second", "2")] {
        let object =
            json!({"metadata": {"name": name, "labels": {"suffix": "yes"}}, "data": {"suffix": suffix}});
        assert_eq!(fixture.send(&format!("POST {CONFIG_MAPS}"), &object).await.0, 201);
    }
    let of = |resource: &str| {
        json!({"matchResources": {"resourceRules": [
        {"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": [resource]}]}})
    };
    let broken = "[JSONPatch{op: 'remove', path: '/nothing'}]";
    let denied = |name: &str, why: &str| {
        format!("403 Invalid policy '{name}' with binding '{name}' denied request: {why}")
    };
    let rows: Vec<(Vec<(Value, Value)>, String)> = vec![
        // In the order of their names, each on what those before made.
        (vec![(policy(&[append("b"), append("c")], &none), none.clone()), (policy(&[append("d")], &none), none.clone())], "abcd".into()),
        // Those that want it see what came after them, once.
        (vec![(policy(&[append("b")], &again), none.clone()), (policy(&[append("c")], &none), none.clone())], "abcb".into()),
        (vec![(policy(&[append("b")], &again), none.clone()), (policy(&[append("c")], &again), none.clone())], "abcbc".into()),
        (vec![(policy(&[append("b")], &again), none.clone())], "ab".into()),
        (vec![(policy(&[append("b")], &none), none.clone()), (policy(&[append("c")], &again), none.clone())], "abc".into()),
        // Conditions, variables and the environment.
        (vec![only(json!({"matchConditions": [named("c", "object.data.a == 'b'")]}))], "a".into()),
        (vec![only(json!({"matchConditions": [named("c", "object.data.a == 'a'")]}))], "ax".into()),
        (
            vec![(policy(&[append("b")], &none), none.clone()), only(json!({"matchConditions": [named("c", "object.data.a == 'ab'")]}))],
            "abx".into(),
        ),
        (
            vec![only(json!({"matchConditions": [named("c", "object.none == 'a'")]}))],
            denied("p0", "expression 'object.none == 'a'' resulted in error: no such key: none"),
        ),
        (
            vec![only(json!({"failurePolicy": "Ignore", "matchConditions": [named("c", "object.none == 'a'")]}))],
            "a".into(),
        ),
        (
            vec![(
                policy(
                    &[patch("[JSONPatch{op: 'add', path: '/data/a', value: variables.both + namespaceObject.metadata.name + request.operation}]")],
                    &json!({"variables": [named("one", "object.data.a + '-'"), named("both", "variables.one + variables.one")]}),
                ),
                none.clone(),
            )],
            "a-a-defaultCREATE".into(),
        ),
        // Variables are computed anew for each mutation.
        (
            vec![(
                policy(
                    &[append("b"), patch("[JSONPatch{op: 'add', path: '/data/a', value: variables.now + variables.now}]")],
                    &json!({"variables": [named("now", "object.data.a")]}),
                ),
                none.clone(),
            )],
            "abab".into(),
        ),
        // A mutation that fails leaves the others; what is ignored is not told.
        (vec![(policy(&[patch(broken), append("b")], &json!({"failurePolicy": "Ignore"})), none.clone())], "ab".into()),
        (
            vec![(policy(&[patch(broken), append("b")], &none), none.clone())],
            denied("p0", "JSON Patch: patch[0]: remove \"/nothing\": /nothing does not exist"),
        ),
        // Parameters.
        (vec![(by_params(), reference(json!({"name": "second"})))], "a2".into()),
        (vec![(by_params(), reference(json!({"selector": {"matchLabels": {"suffix": "yes"}}})))], "a12".into()),
        (
            vec![(by_params(), reference(json!({"name": "third"})))],
            "403 Forbidden policy 'p0' with binding 'p0' denied request: failed to configure binding: no params found for policy \
             binding with `Deny` parameterNotFoundAction"
                .into(),
        ),
        (vec![(by_params(), reference(json!({"name": "third", "parameterNotFoundAction": "Allow"})))], "a".into()),
        (
            vec![(policy(&[append("b")], &params("Gadget")), none.clone())],
            "403 Forbidden policy \"p0\" denied request: failed to configure policy: failed to find resource referenced by \
             paramKind: '/v1, Kind=Gadget'"
                .into(),
        ),
        // Bindings narrow.
        (vec![(policy(&[append("b")], &none), of("configmaps"))], "ab".into()),
        (vec![(policy(&[append("b")], &none), of("secrets"))], "a".into()),
        (vec![(policy(&[append("b")], &none), json!({"policyName": "another"}))], "a".into()),
    ];
    for (policies, expect) in &rows {
        fixture.mutate_by(policies).await;
        let found = fixture.send(&format!("POST {CONFIG_MAPS}?dryRun=All"), &map(json!({"a": "a"}))).await;
        let found = match found.1["data"]["a"].as_str() {
            Some(text) => text.to_owned(),
            None => shown(&found, ""),
        };
        assert_eq!(found, *expect, "{policies:#?}");
    }
    fixture.close().await;
}

/// Updates are changed too, through any version and subresource; what policies make is then validated.
#[tokio::test(flavor = "multi_thread")]
async fn updates_and_other_versions_are_changed() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.send(&format!("POST {DEPLOYMENTS}"), &deployment()).await.0, 201);
    let ingress = json!({"metadata": {"name": "i"}, "spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}});
    let rule = |group: &str, version: &str, resource: &str| {
        json!({"matchConstraints": {"resourceRules": [
        {"operations": ["CREATE", "UPDATE"], "apiGroups": [group], "apiVersions": [version], "resources": [resource]}]}})
    };
    let (apps, old) = (rule("apps", "v1", "deployments"), rule("extensions", "v1beta1", "ingresses"));
    let labelled =
        "Object{metadata: Object.metadata{labels: {'seen-as': object.apiVersion.replace('/', '.')}}}";
    let rows: &[(Value, Value, &str, Value, &str, &str)] = &[
        (
            apply(labelled),
            apps.clone(),
            "PATCH /apis/extensions/v1beta1/namespaces/default/deployments/d?dryRun=All",
            json!({}),
            "/metadata/labels/seen-as",
            r#"200 "apps.v1""#,
        ),
        (
            apply(labelled),
            rule("extensions", "v1beta1", "deployments"),
            "PATCH /apis/apps/v1/namespaces/default/deployments/d?dryRun=All",
            json!({}),
            "/metadata/labels/seen-as",
            r#"200 "extensions.v1beta1""#,
        ),
        // The generation counts what policies change.
        (
            apply("Object{spec: Object.spec{replicas: 5}}"),
            apps.clone(),
            "PATCH /apis/apps/v1/namespaces/default/deployments/d?dryRun=All",
            json!({"metadata": {"annotations": {"a": "b"}}}),
            "/metadata/generation",
            "200 2",
        ),
        // A status is written through its own path.
        (
            apply("Object{status: Object.status{replicas: 5}}"),
            apps.clone(),
            "PATCH /apis/apps/v1/namespaces/default/deployments/d?dryRun=All",
            json!({"metadata": {"annotations": {"a": "b"}}}),
            "/status",
            "200 {}",
        ),
        (
            apply("Object{status: Object.status{replicas: 5}}"),
            rule("apps", "v1", "deployments/status"),
            "PATCH /apis/apps/v1/namespaces/default/deployments/d/status?dryRun=All",
            json!({"status": {"observedGeneration": 1}}),
            "/status",
            r#"200 {"observedGeneration":1,"replicas":5}"#,
        ),
        (
            apply("Object{spec: Object.spec{replicas: oldObject.spec.replicas + object.spec.replicas}}"),
            rule("apps", "v1", "deployments/scale"),
            "PATCH /apis/apps/v1/namespaces/default/deployments/d/scale?dryRun=All",
            json!({"spec": {"replicas": 3}}),
            "/spec/replicas",
            "200 4",
        ),
        // Fields have the names of the version that the rule names.
        (
            apply(
                "Object{spec: Object.spec{backend: Object.spec.backend{serviceName: 'other', servicePort: 81}}}",
            ),
            old.clone(),
            "POST /apis/networking.k8s.io/v1/namespaces/default/ingresses?dryRun=All",
            ingress.clone(),
            "/spec/defaultBackend/service",
            r#"201 {"name":"other","port":{"number":81}}"#,
        ),
        (
            patch(
                "[JSONPatch{op: 'replace', path: '/spec/backend/serviceName', value: object.spec.backend.serviceName + '-2'}]",
            ),
            old.clone(),
            "POST /apis/networking.k8s.io/v1/namespaces/default/ingresses?dryRun=All",
            ingress.clone(),
            "/spec/defaultBackend/service/name",
            r#"201 "web-2""#,
        ),
    ];
    for (mutation, more, line, body, pointer, expect) in rows {
        fixture.mutate_by(&[(policy(std::slice::from_ref(mutation), more), json!({}))]).await;
        let found = fixture.send(line, body).await;
        assert_eq!(shown(&found, pointer), *expect, "{line} {mutation}");
    }
    // What a mutating policy makes is what a validating one sees.
    let validating = json!({
        "matchConstraints": {"resourceRules": [
            {"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]},
        "validations": [{"expression": "object.data.a == 'ab'"}],
    });
    fixture.configure(&validating, &json!({})).await;
    assert_eq!(fixture.send(&format!("POST {CONFIG_MAPS}?dryRun=All"), &map(json!({"a": "a"}))).await.0, 422);
    fixture.mutate_by(&[(policy(&[append("b")], &json!({})), json!({}))]).await;
    assert_eq!(fixture.send(&format!("POST {CONFIG_MAPS}?dryRun=All"), &map(json!({"a": "a"}))).await.0, 201);
    // Nothing but policies is written here, and none of them is under one.
    fixture
        .mutate_by(&[(
            policy(&[patch("[JSONPatch{op: 'remove', path: '/nothing'}]")], &json!({})),
            json!({}),
        )])
        .await;
    let line = format!("PATCH {GROUP}/{POLICIES}/p0");
    assert_eq!(fixture.send(&line, &json!({"metadata": {"labels": {"a": "b"}}})).await.0, 200);
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_and_bindings_are_checked() {
    let fixture = Fixture::new().await;
    let with = |more: Value| policy(&[apply("Object{}")], &more);
    let of = |mutation: Value| policy(&[mutation], &json!({}));
    let rules = |rule: Value| {
        let mut given = json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]});
        merge(&mut given, &rule);
        with(json!({"matchConstraints": {"resourceRules": [given]}}))
    };
    let binding = |more: Value| {
        let mut spec = json!({"policyName": "p"});
        merge(&mut spec, &more);
        spec
    };
    let operations =
        "Unsupported value: \"DELETE\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"";
    let rows = [
        (POLICIES, with(json!({})), "".to_owned()),
        (POLICIES, with(json!({"mutations": []})), "spec.mutations: Required value: mutations must contain at least one item".into()),
        (POLICIES, with(json!({"reinvocationPolicy": null})), "spec.reinvocationPolicy: Required value".into()),
        (
            POLICIES,
            with(json!({"reinvocationPolicy": "Always"})),
            "spec.reinvocationPolicy: Unsupported value: \"Always\": supported values: \"Never\", \"IfNeeded\"".into(),
        ),
        (POLICIES, with(json!({"matchConstraints": null})), "spec.matchConstraints: Required value".into()),
        (POLICIES, rules(json!({"operations": ["DELETE"]})), format!("spec.matchConstraints.resourceRules.operations: {operations}")),
        (POLICIES, rules(json!({"operations": ["CONNECT", "CREATE"]})), "".into()),
        (
            POLICIES,
            rules(json!({"operations": ["*", "CREATE"]})),
            "spec.matchConstraints.resourceRules[0].operations: Invalid value: [\"*\",\"CREATE\"]: if '*' is present, must not specify other operations".into(),
        ),
        (
            POLICIES,
            rules(json!({"resources": ["pods/*", "pods/exec"]})),
            "spec.matchConstraints.resourceRules[0].resources[1]: Invalid value: \"pods/exec\": if 'pods/*' is present, must not specify pods/exec".into(),
        ),
        (
            POLICIES,
            rules(json!({"resources": ["*", "pods"]})),
            "spec.matchConstraints.resourceRules[0].resources: Invalid value: [\"*\",\"pods\"]: if '*' is present, must not specify other resources without subresources".into(),
        ),
        (POLICIES, of(json!({"applyConfiguration": {"expression": "Object{}"}})), "spec.mutations[0].patchType: Required value".into()),
        (
            POLICIES,
            of(json!({"patchType": "Merge"})),
            "spec.mutations[0].patchType: Unsupported value: \"Merge\": supported values: \"ApplyConfiguration\", \"JSONPatch\"".into(),
        ),
        (
            POLICIES,
            of(json!({"patchType": "JSONPatch", "applyConfiguration": {"expression": "Object{}"}})),
            "[spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch, \
             spec.mutations[0].applyConfiguration: Invalid value: \"{applyConfiguration}\": must not be specified when patchType is JSONPatch]"
                .into(),
        ),
        (POLICIES, of(apply("  ")), "spec.mutations[0].applyConfiguration.expression: Required value".into()),
        (
            POLICIES,
            of(apply("{'spec': 1}")),
            "spec.mutations[0].applyConfiguration.expression: Invalid value: \"{'spec': 1}\": must evaluate to Object but got map(string, int)".into(),
        ),
        (
            POLICIES,
            of(apply("Object.spec{}")),
            "spec.mutations[0].applyConfiguration.expression: Invalid value: \"Object.spec{}\": must evaluate to Object but got Object.spec".into(),
        ),
        (
            POLICIES,
            of(patch("[]")),
            "spec.mutations[0].jsonPatch.expression: Invalid value: \"[]\": must evaluate to list(JSONPatch) but got list(dyn)".into(),
        ),
        (
            POLICIES,
            of(patch("[JSONPatch{op: 1}]")),
            "spec.mutations[0].jsonPatch.expression: Invalid value: \"[JSONPatch{op: 1}]\": compilation failed: ERROR: <input>:1:14: \
             expected type of field 'op' is 'string' but provided type is 'int'"
                .into(),
        ),
        (
            POLICIES,
            with(json!({"variables": [{"name": "a", "expression": "Object{}"}]})),
            "spec.variables[0].expression: Invalid value: \"Object{}\": compilation failed: ERROR: <input>:1:7: undeclared reference to \
             'Object' (in container '')"
                .into(),
        ),
        (
            POLICIES,
            with(json!({"matchConditions": [{"name": "c", "expression": "params.a"}]})),
            "spec.matchConditions[0].expression: Invalid value: \"params.a\": compilation failed: ERROR: <input>:1:1: undeclared \
             reference to 'params'"
                .into(),
        ),
        (BINDINGS, binding(json!({})), "".into()),
        (BINDINGS, binding(json!({"policyName": ""})), "spec.policyName: Required value".into()),
        (
            BINDINGS,
            binding(json!({"paramRef": {"name": "x"}})),
            "spec.paramRef.parameterNotFoundAction: Required value".into(),
        ),
        (
            BINDINGS,
            binding(json!({"matchResources": {"resourceRules": [
                {"operations": ["DELETE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]}})),
            format!("spec.matchResources.resourceRules.operations: {operations}"),
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
    // Each version shows the same objects, with defaults of its own.
    fixture.mutate_by(&[(with(json!({})), json!({}))]).await;
    let group = "/apis/admissionregistration.k8s.io";
    for version in ["v1", "v1beta1", "v1alpha1"] {
        let (code, answer, warnings) =
            fixture.send(&format!("GET {group}/{version}/{POLICIES}/p0"), &Value::Null).await;
        assert_eq!(
            (code, &answer["apiVersion"]),
            (200, &json!(format!("admissionregistration.k8s.io/{version}")))
        );
        assert_eq!(answer["spec"]["failurePolicy"], "Fail");
        assert_eq!(answer["spec"]["matchConstraints"]["matchPolicy"], "Equivalent");
        assert_eq!(warnings.len(), usize::from(version == "v1alpha1"), "{warnings:?}");
    }
    let object = json!({"metadata": {"name": "a"}, "spec": {"policyName": "p", "paramRef": {"name": "x"}}});
    for (version, code) in [("v1", 422), ("v1alpha1", 201)] {
        let found = fixture.send(&format!("POST {group}/{version}/{BINDINGS}?dryRun=All"), &object).await;
        assert_eq!(found.0, code, "{:#}", found.1);
    }
    fixture.close().await;
}
