use expect_test::{Expect, expect};

use super::*;
use crate::schema::{default_object, find};

fn yaml(text: &str) -> Value {
    serde_norway::from_str(text).expect("YAML")
}

fn kind_of(object: &Value) -> &'static Kind {
    let kind = object["kind"].as_str().expect("a kind");
    find("", "v1", kind).or_else(|| find("apps", "v1", kind)).expect("a kind")
}

fn writer(manager: &str, minute: i64) -> Writer<'_> {
    Writer {
        manager,
        subresource: "",
        time: Timestamp::from_second(minute * 60).expect("a time"),
        conversions: None,
    }
}

/// Each step is `MANAGER apply|force|update YAML`; one minute passes between steps. Shows the object without its
/// metadata but for labels, then who owns what, or the error.
fn check(steps: &[(&str, &str, &str)], expect: Expect) {
    let mut live: Option<Value> = None;
    let mut out = String::new();
    for (minute, (manager, operation, object)) in steps.iter().enumerate() {
        let object = yaml(object);
        let (kind, writer) = (kind_of(&object), writer(manager, minute as i64));
        match *operation {
            "update" => {
                let mut new = object;
                default_object(kind, &mut new);
                track_update(kind, live.as_ref(), &mut new, writer);
                live = Some(new);
            }
            how => match apply(kind, live.as_ref(), &object, writer, how == "force") {
                Ok(mut new) => {
                    default_object(kind, &mut new);
                    live = Some(new);
                }
                Err(error) => out.push_str(&format!("{manager}: {error}\n")),
            },
        }
    }
    let live = live.expect("an object");
    let mut shown = live.clone();
    let entries = shown["metadata"]["managedFields"].take();
    shown["metadata"].as_object_mut().expect("metadata").shift_remove("managedFields");
    out.push_str(&format!("{shown}\n"));
    for entry in entries.as_array().into_iter().flatten() {
        out.push_str(
            &format!("{} {} {}", entry["manager"], entry["operation"], entry["time"]).replace('"', ""),
        );
        out.push_str(&format!(" {}\n", FieldSet::read(&entry["fieldsV1"]).paths().join(" ")));
    }
    expect.assert_eq(&out);
}

const MAP: &str =
    "{kind: ConfigMap, apiVersion: v1, metadata: {name: c, labels: {a: b}}, data: {x: '1', y: '2'}}";

#[test]
fn an_apply_owns_what_it_mentions_and_removes_what_it_no_longer_does() {
    check(
        &[
            ("me", "apply", MAP),
            ("me", "apply", "{kind: ConfigMap, apiVersion: v1, metadata: {name: c}, data: {x: '3'}}"),
        ],
        expect![[r#"
            {"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"x":"3"}}
            me Apply 1970-01-01T00:01:00Z .data.x
        "#]],
    );
}

#[test]
fn others_fields_stay_and_conflict() {
    check(
        &[
            ("me", "apply", MAP),
            (
                "you",
                "update",
                "{kind: ConfigMap, metadata: {name: c, labels: {a: b}}, data: {x: '9', y: '2', z: '1'}}",
            ),
            ("me", "apply", MAP),
            ("you", "apply", "{kind: ConfigMap, metadata: {name: c}, data: {x: '5', y: '5'}}"),
        ],
        expect![[r#"
            me: Apply failed with 1 conflict: conflict with "you" using v1: .data.x
            you: Apply failed with 2 conflicts: conflicts with "me":
            - .data.y
            conflicts with "you" using v1:
            - .data.x
            {"kind":"ConfigMap","metadata":{"name":"c","labels":{"a":"b"}},"data":{"x":"9","y":"2","z":"1"}}
            me Apply 1970-01-01T00:00:00Z .metadata.labels.a .data.y
            you Update 1970-01-01T00:01:00Z .data.z .data.x
        "#]],
    );
    check(
        &[
            ("me", "apply", MAP),
            (
                "you",
                "update",
                "{kind: ConfigMap, metadata: {name: c, labels: {a: b}}, data: {x: '9', y: '2', z: '1'}}",
            ),
            ("me", "force", MAP),
        ],
        expect![[r#"
            {"kind":"ConfigMap","metadata":{"name":"c","labels":{"a":"b"}},"data":{"x":"1","y":"2","z":"1"}}
            me Apply 1970-01-01T00:02:00Z .metadata.labels.a .data.x .data.y
            you Update 1970-01-01T00:01:00Z .data.z
        "#]],
    );
    check(
        &[
            ("me", "apply", MAP),
            ("you", "apply", "{kind: ConfigMap, metadata: {name: c}, data: {x: '1'}}"),
            ("me", "apply", "{kind: ConfigMap, metadata: {name: c}, data: {y: '2'}}"),
        ],
        expect![[r#"
            {"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"x":"1","y":"2"}}
            you Apply 1970-01-01T00:01:00Z .data.x
            me Apply 1970-01-01T00:02:00Z .data.y
        "#]],
    );
}

#[test]
fn lists_are_owned_by_item() {
    let with = |containers: &str| {
        format!(
            "{{kind: Deployment, metadata: {{name: d}}, spec: {{selector: {{matchLabels: {{a: b}}}}, template: {{spec: {{containers: {containers}}}}}}}}}"
        )
    };
    check(
        &[
            (
                "me",
                "apply",
                &with("[{name: a, image: 'i:1', ports: [{containerPort: 80}]}, {name: b, image: 'j:1'}]"),
            ),
            ("you", "apply", &with("[{name: side, image: 's:1'}, {name: b, env: [{name: E, value: v}]}]")),
            ("me", "apply", &with("[{name: a, image: 'i:2'}]")),
        ],
        expect![[r#"
            {"apiVersion":null,"kind":"Deployment","metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"spec":{"containers":[{"name":"a","image":"i:2","imagePullPolicy":"IfNotPresent","terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","resources":{}},{"name":"side","image":"s:1","imagePullPolicy":"IfNotPresent","terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","resources":{}},{"name":"b","imagePullPolicy":"IfNotPresent","terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","resources":{},"env":[{"name":"E","value":"v"}]}],"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","securityContext":{},"schedulerName":"default-scheduler"}},"replicas":1,"revisionHistoryLimit":10,"progressDeadlineSeconds":600,"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxUnavailable":"25%","maxSurge":"25%"}}},"status":{}}
            you Apply 1970-01-01T00:01:00Z .spec.selector .spec.template.spec.containers[name="side"] .spec.template.spec.containers[name="side"].name .spec.template.spec.containers[name="side"].image .spec.template.spec.containers[name="b"] .spec.template.spec.containers[name="b"].name .spec.template.spec.containers[name="b"].env[name="E"] .spec.template.spec.containers[name="b"].env[name="E"].name .spec.template.spec.containers[name="b"].env[name="E"].value
            me Apply 1970-01-01T00:02:00Z .spec.selector .spec.template.spec.containers[name="a"] .spec.template.spec.containers[name="a"].name .spec.template.spec.containers[name="a"].image
        "#]],
    );
}

#[test]
fn defaults_go_with_the_field_they_were_filled_into() {
    let with = |probe: &str| {
        format!(
            "{{kind: Pod, apiVersion: v1, metadata: {{name: p}}, spec: {{containers: [{{name: c, image: 'i:1'{probe}}}]}}}}"
        )
    };
    let probed = with(", readinessProbe: {httpGet: {path: /, port: 80}}");
    let probe_after = |steps: &[(&str, &str)]| {
        let mut live = None;
        for (minute, (manager, object)) in steps.iter().enumerate() {
            let object = yaml(object);
            let writer = writer(manager, minute as i64);
            let mut new =
                apply(kind_of(&object), live.as_ref(), &object, writer, false).expect("no conflict");
            default_object(kind_of(&object), &mut new);
            live = Some(new);
        }
        live.expect("an object")["spec"]["containers"][0]["readinessProbe"].take()
    };
    assert_eq!(probe_after(&[("me", &probed)])["periodSeconds"], 10);
    assert_eq!(probe_after(&[("me", &probed), ("me", &with(""))]), Value::Null);
    // What somebody else owns within stays, and what it stands in.
    let period = with(", readinessProbe: {periodSeconds: 10}");
    let left = probe_after(&[("me", &probed), ("you", &period), ("me", &with(""))]);
    assert_eq!((&left["periodSeconds"], &left["httpGet"]), (&json!(10), &Value::Null));
}

#[test]
fn what_was_there_before_the_first_apply_has_an_owner() {
    let mut live = yaml(MAP);
    let kind = kind_of(&live);
    let config = yaml("{kind: ConfigMap, metadata: {name: c}, data: {x: '2'}}");
    let error = apply(kind, Some(&live), &config, writer("me", 0), false).expect_err("a conflict");
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.x"
    );
    let ApplyError::Conflicts(conflicts) = error else { panic!("no conflicts") };
    assert_eq!(
        conflict_causes(&conflicts),
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"before-first-apply\" using v1", "field": ".data.x"}])
    );
    live["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    let error = apply(kind, None, &live, writer("me", 0), false).expect_err("malformed");
    assert_eq!(error.to_string(), "metadata.managedFields must be nil");
}

#[test]
fn applying_the_same_again_changes_nothing() {
    for object in [
        MAP,
        "{kind: Service, metadata: {name: s}, spec: {selector: {a: b}, ports: [{port: 80}, {port: 81, name: x}]}}",
    ] {
        let config = yaml(object);
        let kind = kind_of(&config);
        let mut first = apply(kind, None, &config, writer("me", 0), false).expect("applied");
        default_object(kind, &mut first);
        assert_eq!(apply(kind, Some(&first), &config, writer("me", 5), false), Ok(first));
    }
}

#[test]
fn status_and_object_have_owners_apart() {
    let kind = find("", "v1", "Pod").expect("Pod");
    let mut pod = yaml("{kind: Pod, metadata: {name: p, uid: u}, spec: {nodeName: n}}");
    track_update(kind, None, &mut pod, writer("kubectl-create", 0));
    let mut next = pod.clone();
    next["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    track_update(kind, Some(&pod), &mut next, Writer { subresource: "status", ..writer("kubelet", 1) });
    assert_eq!(
        next["metadata"]["managedFields"],
        json!([
            {"manager": "kubectl-create", "operation": "Update", "apiVersion": "v1", "time": "1970-01-01T00:00:00Z", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:spec": {"f:nodeName": {}}}},
            {"manager": "kubelet", "operation": "Update", "apiVersion": "v1", "time": "1970-01-01T00:01:00Z", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:status": {"f:phase": {}, "f:conditions": {".": {}, "k:{\"type\":\"Ready\"}": {".": {}, "f:type": {}, "f:status": {}}}}},
                "subresource": "status"},
        ])
    );
    let mut reset = next.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    track_update(kind, Some(&next), &mut reset, writer("kubectl", 2));
    assert_eq!(reset["metadata"].get("managedFields"), None);
}

#[test]
fn the_oldest_of_too_many_writers_are_folded() {
    let kind = find("", "v1", "ConfigMap").expect("ConfigMap");
    let mut live = yaml("{kind: ConfigMap, metadata: {name: c}, data: {}}");
    for at in 0..13 {
        let mut next = live.clone();
        next["data"][format!("k{at}")] = "v".into();
        track_update(kind, Some(&live), &mut next, writer(&format!("m{at}"), at));
        live = next;
    }
    let entries = live["metadata"]["managedFields"].as_array().expect("entries");
    let names: Vec<&str> = entries.iter().filter_map(|e| e["manager"].as_str()).collect();
    assert_eq!(names, ["ancient-changes", "m4", "m5", "m6", "m7", "m8", "m9", "m10", "m11", "m12"]);
    assert_eq!(
        FieldSet::read(&entries[0]["fieldsV1"]).paths(),
        [".data.k0", ".data.k1", ".data.k2", ".data.k3"]
    );
}
