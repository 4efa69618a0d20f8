use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("a second of our era")
}

fn set(replicas: i32, more: Value) -> ReplicaSet {
    let mut value = json!({
        "metadata": {"name": "web", "namespace": "n", "uid": "s", "generation": 1},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}},
    });
    for (section, fields) in more.as_object().into_iter().flatten() {
        for (name, field) in fields.as_object().into_iter().flatten() {
            value[section][name] = field.clone();
        }
    }
    serde_json::from_value(value).expect("a ReplicaSet")
}

/// A Pod by its name and marks: `orphan`, `foreign` label, `deleting`, `failed`, `unbound`, `ready@S`, `restarts@N`,
/// `cost@N`, `on@NODE`, `born@S`.
fn pod(text: &str) -> Arc<Pod> {
    let mut words = text.split_whitespace();
    let name = words.next().expect("a name");
    let mut value = json!({
        "metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"app": "web"},
            "creationTimestamp": at(0).to_string(),
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "s",
                "controller": true}]},
        "spec": {"nodeName": "node", "containers": []},
        "status": {"phase": "Running"},
    });
    for word in words {
        let (mark, argument) = word.split_once('@').unwrap_or((word, ""));
        let number = || argument.parse::<i64>().expect("a number");
        match mark {
            "orphan" => value["metadata"]["ownerReferences"] = json!([]),
            "foreign" => value["metadata"]["labels"] = json!({}),
            "deleting" => value["metadata"]["deletionTimestamp"] = json!(at(0).to_string()),
            "failed" => value["status"]["phase"] = json!("Failed"),
            "pending" => value["status"]["phase"] = json!("Pending"),
            "unbound" => value["spec"]["nodeName"] = json!(""),
            "on" => value["spec"]["nodeName"] = json!(argument),
            "born" => value["metadata"]["creationTimestamp"] = json!(at(number()).to_string()),
            "cost" => {
                value["metadata"]["annotations"] =
                    json!({"controller.kubernetes.io/pod-deletion-cost": argument});
            }
            "restarts" => {
                value["status"]["containerStatuses"] = json!([{"name": "c", "image": "", "imageID": "",
                    "ready": true, "restartCount": number()}]);
            }
            "ready" => {
                value["status"]["conditions"] = json!([{"type": "Ready", "status": "True",
                    "lastTransitionTime": at(number()).to_string()}]);
            }
            other => panic!("unknown mark {other}"),
        }
    }
    Arc::new(serde_json::from_value(value).expect("a Pod"))
}

fn describe((actions, next): (Vec<Action>, Next)) -> String {
    let name = |p: &Arc<Pod>| p.metadata.name.clone().unwrap_or_default();
    let mut lines: Vec<_> = actions
        .iter()
        .map(|action| match action {
            Action::Adopt(p) => format!("adopt {}", name(p)),
            Action::Release(p) => format!("release {}", name(p)),
            Action::Create(n) => format!("create {n}"),
            Action::Delete(pods) => format!("delete {}", pods.iter().map(name).collect::<Vec<_>>().join(" ")),
            Action::Status(s) => format!(
                "status {} ready {} available {} labelled {}",
                s.replicas,
                s.ready_replicas.unwrap_or_default(),
                s.available_replicas.unwrap_or_default(),
                s.fully_labeled_replicas.unwrap_or_default(),
            ),
        })
        .collect();
    if next != Next::Wait {
        lines.push(format!("{next:?}"));
    }
    lines.join("\n")
}

fn check(set: &ReplicaSet, pods: &[&str], expect: Expect) {
    let observed = Observed {
        set,
        candidates: pods.iter().map(|p| pod(p)).collect(),
        related_per_node: [("crowded".to_owned(), 2), ("node".to_owned(), 1)].into(),
    };
    expect.assert_eq(&describe(reconcile(&observed, at(100))));
}

#[test]
fn as_many_pods_as_asked_for() {
    check(
        &set(3, json!({})),
        &[],
        expect![[r#"
        create 3
        status 0 ready 0 available 0 labelled 0"#]],
    );
    check(&set(3, json!({})), &["a ready@0", "b", "c"], expect!["status 3 ready 1 available 1 labelled 3"]);
    check(
        &set(3, json!({})),
        &["a", "b deleting", "c failed"],
        expect![[r#"
        create 2
        status 1 ready 0 available 0 labelled 1"#]],
    );
    // What has failed just after it was made is not replaced at once.
    check(
        &set(3, json!({})),
        &["a", "b failed born@98", "c failed born@97", "d failed"],
        expect![[r#"
        status 1 ready 0 available 0 labelled 1
        After(2s)"#]],
    );
    check(
        &set(1000, json!({})),
        &[],
        expect![[r#"
        create 500
        status 0 ready 0 available 0 labelled 0"#]],
    );
    check(
        &set(0, json!({})),
        &["a"],
        expect![[r#"
        delete a
        status 1 ready 0 available 0 labelled 1"#]],
    );
}

#[test]
fn pods_are_taken_in_and_let_go_before_they_are_counted() {
    check(
        &set(2, json!({})),
        &["a orphan", "b foreign", "c"],
        expect![[r#"
        adopt a
        release b"#]],
    );
    check(
        &set(2, json!({})),
        &["a orphan deleting", "b orphan failed", "c", "d"],
        expect!["status 2 ready 0 available 0 labelled 2"],
    );
    let deleted = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    check(
        &set(2, deleted),
        &["a orphan", "b foreign", "c"],
        expect!["status 2 ready 0 available 0 labelled 1"],
    );
}

#[test]
fn the_least_useful_goes_first() {
    // In each row the Pod that should go is called `x`; it stands last, so that order alone does not choose it.
    for pods in [
        ["a", "x unbound"],
        ["a", "x pending"],
        ["a ready@0", "x"],
        ["a ready@0 cost@1", "x ready@0"],
        ["a ready@0", "x ready@0 on@crowded"],
        ["a ready@0", "x ready@99"],
        ["a ready@0", "x ready@0 restarts@3"],
        ["a ready@0", "x ready@0 born@99"],
    ] {
        let observed = Observed {
            set: &set(1, json!({})),
            candidates: pods.iter().map(|p| pod(p)).collect(),
            related_per_node: [("crowded".to_owned(), 2), ("node".to_owned(), 1)].into(),
        };
        let (actions, _) = reconcile(&observed, at(100));
        let deleted =
            actions.iter().find_map(|a| if let Action::Delete(p) = a { Some(p.clone()) } else { None });
        let names: Vec<_> =
            deleted.unwrap_or_default().iter().filter_map(|p| p.metadata.name.clone()).collect();
        assert_eq!(names, ["x"], "of {pods:?}");
    }
}

#[test]
fn a_pod_is_available_once_it_has_been_ready_for_long_enough() {
    let set = set(3, json!({"spec": {"minReadySeconds": 30}}));
    check(
        &set,
        &["a ready@0", "b ready@80", "c ready@90"],
        expect![[r#"
        status 3 ready 3 available 1 labelled 3
        After(10s)"#]],
    );
}

#[test]
fn a_failure_stays_with_its_time_until_it_is_over() {
    let mut set = set(1, json!({}));
    let failed = conditions(&set, Some(("FailedCreate", "no".into())), at(0));
    set.status = Some(ReplicaSetStatus { conditions: failed.clone(), ..Default::default() });
    assert_eq!(conditions(&set, Some(("FailedCreate", "no again".into())), at(50)), failed);
    assert_eq!(conditions(&set, None, at(50)), None);
}

#[test]
fn pods_are_made_of_the_template() {
    let set = set(1, json!({}));
    let template = set.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
    let pod = pod_of(&template, "n", owners::controller_reference(&set));
    expect![[r#"{"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"web-","labels":{"app":"web"},"namespace":"n","ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"ReplicaSet","name":"web","uid":"s"}]},"spec":{"containers":[]}}"#]].assert_eq(&serde_json::to_string(&pod).expect("a Pod"));
}
