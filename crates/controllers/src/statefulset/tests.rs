use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("a second of our era")
}

/// A StatefulSet `db` with three replicas and these changes to its specification.
fn set(spec: Value) -> StatefulSet {
    let mut value = json!({
        "metadata": {"name": "db", "namespace": "n", "uid": "s", "generation": 3},
        "spec": {"replicas": 3, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 1}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c"}]}}},
    });
    for (name, field) in spec.as_object().into_iter().flatten() {
        value["spec"][name] = field.clone();
    }
    serde_json::from_value(value).expect("a StatefulSet")
}

fn with_claims(mut spec: Value) -> StatefulSet {
    spec["volumeClaimTemplates"] =
        json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]);
    set(spec)
}

fn rolling(partition: i32, unavailable: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"partition": partition, "maxUnavailable": unavailable}})
}

fn update_name(set: &StatefulSet) -> String {
    history::decide(set, &[]).0.update.name
}

/// A Pod by its ordinal and marks: `old`, `ready`, `pending`, `deleting`, `failed`, `succeeded`, `orphan`, `stranger`,
/// `unlabelled`, `for=SECONDS` since when it is ready.
fn pod(set: &StatefulSet, text: &str) -> Arc<Pod> {
    let mut words = text.split_whitespace();
    let name = words.next().map(|ordinal| format!("db-{ordinal}")).expect("an ordinal");
    let ordinal = name.rsplit_once('-').and_then(|(_, o)| o.parse().ok()).unwrap_or_default();
    let template = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    let mut value = json!(identity::pod(set, &template, &update_name(set), ordinal));
    let meta = &mut value["metadata"];
    (meta["name"], meta["uid"]) = (json!(name), json!(name));
    meta["creationTimestamp"] = json!(at(0).to_string());
    value["status"] = json!({"phase": "Running"});
    let mut since = 0;
    for word in words {
        match word {
            "old" => value["metadata"]["labels"]["controller-revision-hash"] = json!("db-old"),
            "ready" => value["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]),
            "pending" => value["status"]["phase"] = json!("Pending"),
            "deleting" => value["metadata"]["deletionTimestamp"] = json!(at(0).to_string()),
            "failed" => value["status"]["phase"] = json!("Failed"),
            "succeeded" => value["status"]["phase"] = json!("Succeeded"),
            "orphan" => value["metadata"]["ownerReferences"] = json!([]),
            "stranger" => value["metadata"]["name"] = json!("other-0"),
            "unlabelled" => value["metadata"]["labels"] = json!({"app": "db"}),
            other => since = other.strip_prefix("for=").and_then(|s| s.parse().ok()).expect(other),
        }
    }
    if let Some(condition) = value["status"]["conditions"].as_array_mut().and_then(|c| c.first_mut()) {
        condition["lastTransitionTime"] = json!(at(100 - since).to_string());
    }
    serde_json::from_value(value).map(Arc::new).expect("a Pod")
}

/// A claim by its ordinal and marks: `deleting`, and owners: `set`, `pod`, `other` or `earlier`, a Pod of the same name.
fn claim(text: &str) -> (String, Arc<PersistentVolumeClaim>) {
    let mut words = text.split_whitespace();
    let ordinal = words.next().expect("an ordinal");
    let name = format!("data-db-{ordinal}");
    let mut value = json!({"metadata": {"name": name, "namespace": "n", "ownerReferences": []}});
    for word in words {
        let pod = format!("db-{ordinal}");
        let owner = match word {
            "set" => json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "s"}),
            "pod" => json!({"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": pod}),
            "earlier" => json!({"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": "earlier"}),
            "other" => json!({"apiVersion": "v1", "kind": "X", "name": "x", "uid": "x"}),
            _ => {
                value["metadata"]["deletionTimestamp"] = json!(at(0).to_string());
                continue;
            }
        };
        let mut owner = owner;
        owner["controller"] = json!(true);
        value["metadata"]["ownerReferences"].as_array_mut().expect("owners").push(owner);
    }
    (name, Arc::new(serde_json::from_value(value).expect("a claim")))
}

fn names(pods: &[Arc<Pod>]) -> String {
    pods.iter().filter_map(|p| p.metadata.name.clone()).collect::<Vec<_>>().join(" ")
}

fn claims_named(claims: &[PersistentVolumeClaim]) -> String {
    let owned = |c: &PersistentVolumeClaim| c.metadata.owner_references.as_ref().map_or("", |_| " owned");
    let all = claims.iter().map(|c| format!("{}{}", c.metadata.name.clone().unwrap_or_default(), owned(c)));
    all.collect::<Vec<_>>().join(" ")
}

fn line(update: &str, action: Action) -> String {
    let revision = |pod: &Pod| match history::revision_of(pod) {
        Some(name) if name == update => "",
        _ => " of the current revision",
    };
    match action {
        Action::Adopt(p) => format!("adopt {}", names(&[p])),
        Action::Release(p) => format!("release {}", names(&[p])),
        Action::AdoptRevision(r) => format!("adopt revision {}", r.revision),
        Action::CreateRevision(r) => format!("remember as {}", r.revision),
        Action::Renumber(r, n) => format!("renumber {} as {n}", r.revision),
        Action::DeleteRevision(r) => format!("forget {}", r.revision),
        Action::Create(replicas) => {
            let each = |r: &Replica| {
                let pod = r.pod.metadata.name.clone().unwrap_or_default();
                let with = if r.claims.is_empty() { "" } else { " with " };
                format!("{pod}{}{with}{}", revision(&r.pod), claims_named(&r.claims))
            };
            format!("create {}", replicas.iter().map(each).collect::<Vec<_>>().join(", "))
        }
        Action::CreateClaims(p, claims) => {
            format!("create claims {} of {}", claims_named(&claims), names(&[p]))
        }
        Action::Blocked(pod, reason) => format!("no {pod}: {reason}"),
        Action::Conflict(c) => format!("conflict over {}", c.metadata.name.clone().unwrap_or_default()),
        Action::Own(c, owners) => {
            let owners: Vec<_> = owners.iter().map(|o| format!("{} {}", o.kind, o.name)).collect();
            format!("{} is owned by [{}]", c.metadata.name.clone().unwrap_or_default(), owners.join(", "))
        }
        Action::Repair(p, patch) => {
            let volumes = if patch["spec"].is_null() { "" } else { " and its volumes" };
            format!("repair {}{volumes}", names(&[p]))
        }
        Action::Delete(pods) => format!("delete {}", names(&pods)),
        Action::Status(s) => format!(
            "status {} ready {} available {} current {} updated {}{}",
            s.replicas,
            s.ready_replicas.unwrap_or_default(),
            s.available_replicas.unwrap_or_default(),
            s.current_replicas.unwrap_or_default(),
            s.updated_replicas.unwrap_or_default(),
            if s.current_revision == s.update_revision { " complete" } else { "" },
        ),
    }
}

/// Checks a pass 100 seconds after the Pods were created. The template and an older one are remembered.
fn check_with(set: &StatefulSet, pods: &[&str], claims: &[&str], expect: Expect) -> Next {
    let update = update_name(set);
    let mut set = set.clone();
    if pods.iter().any(|pod| pod.contains("old")) {
        let status = set.status.get_or_insert_default();
        status.current_revision = Some("db-old".into());
    }
    let revision = |name: &str, number: i64, data: Value| {
        let value = json!({
            "metadata": {"name": name, "labels": {"app": "db"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "s", "controller": true}]},
            "revision": number, "data": data,
        });
        Arc::new(serde_json::from_value::<ControllerRevision>(value).expect("a revision"))
    };
    let old = json!({"spec": {"template": {"$patch": "replace", "metadata": {"labels": {"app": "db"}}}}});
    let made = history::decide(&set, &[]).1;
    let Some(Action::CreateRevision(made)) = made.into_iter().next() else { panic!("no revision") };
    let data = made.data.map(|d| d.0).unwrap_or_default();
    let observed = Observed {
        set: &set,
        candidates: pods.iter().map(|p| pod(&set, p)).collect(),
        revisions: vec![revision("db-old", 1, old), revision(&update, 2, data)],
        claims: claims.iter().map(|c| claim(c)).collect(),
    };
    let (actions, next) = reconcile(&observed, at(100));
    let lines: Vec<_> = actions.into_iter().map(|action| line(&update, action)).collect();
    expect.assert_eq(&lines.join("\n"));
    next
}

fn check(set: &StatefulSet, pods: &[&str], expect: Expect) -> Next {
    check_with(set, pods, &[], expect)
}

#[test]
fn pods_start_one_after_another() {
    let plain = set(json!({}));
    check(
        &plain,
        &[],
        expect![[r#"
        create db-0
        status 0 ready 0 available 0 current 0 updated 0 complete"#]],
    );
    check(&plain, &["0 pending"], expect!["status 1 ready 0 available 0 current 1 updated 1 complete"]);
    check(&plain, &["0"], expect!["status 1 ready 0 available 0 current 1 updated 1 complete"]);
    check(
        &plain,
        &["0 ready"],
        expect![[r#"
        create db-1
        status 1 ready 1 available 1 current 1 updated 1 complete"#]],
    );
    check(
        &plain,
        &["0 ready", "2 ready"],
        expect![[r#"
        create db-1
        status 2 ready 2 available 2 current 2 updated 2 complete"#]],
    );
    check(
        &plain,
        &["0 ready", "1 ready", "2 ready"],
        expect!["status 3 ready 3 available 3 current 3 updated 3 complete"],
    );
    check(
        &plain,
        &["0 ready", "1 ready deleting", "2 ready"],
        expect!["status 3 ready 3 available 3 current 2 updated 2 complete"],
    );
    let numbered = set(json!({"ordinals": {"start": 5}, "replicas": 2}));
    check(
        &numbered,
        &["5 ready"],
        expect![[r#"
        create db-6
        status 1 ready 1 available 1 current 1 updated 1 complete"#]],
    );
    check(
        &numbered,
        &["5 ready", "6 ready", "0 ready"],
        expect![[r#"
        delete db-0
        status 3 ready 3 available 3 current 3 updated 3 complete"#]],
    );
    let slow = set(json!({"minReadySeconds": 10}));
    let next = check(
        &slow,
        &["0 ready for=4"],
        expect!["status 1 ready 1 available 0 current 1 updated 1 complete"],
    );
    assert_eq!(next, Next::After(std::time::Duration::from_secs(6)));
    check(
        &slow,
        &["0 ready for=10"],
        expect![[r#"
        create db-1
        status 1 ready 1 available 1 current 1 updated 1 complete"#]],
    );
}

#[test]
fn pods_start_together_where_that_is_asked_for() {
    let parallel = set(json!({"podManagementPolicy": "Parallel"}));
    check(
        &parallel,
        &[],
        expect![[r#"
        create db-0, db-1, db-2
        status 0 ready 0 available 0 current 0 updated 0 complete"#]],
    );
    check(
        &parallel,
        &["0", "2 pending"],
        expect![[r#"
        create db-1
        status 2 ready 0 available 0 current 2 updated 2 complete"#]],
    );
    check(
        &parallel,
        &["0", "1", "2", "3", "4 deleting", "5"],
        expect![[r#"
        delete db-5 db-3
        status 6 ready 0 available 0 current 5 updated 5 complete"#]],
    );
}

#[test]
fn pods_that_ended_are_replaced() {
    let plain = set(json!({}));
    check(
        &plain,
        &["0 ready", "1 failed", "2 ready"],
        expect![[r#"
        delete db-1
        status 3 ready 2 available 2 current 3 updated 3 complete"#]],
    );
    check(
        &plain,
        &["0 succeeded deleting"],
        expect!["status 1 ready 0 available 0 current 0 updated 0 complete"],
    );
    check(
        &set(json!({"podManagementPolicy": "Parallel"})),
        &["0 succeeded", "1 failed"],
        expect![[r#"
        delete db-0 db-1
        create db-2
        status 2 ready 0 available 0 current 2 updated 2 complete"#]],
    );
}

#[test]
fn surplus_pods_end_in_reverse() {
    let two = set(json!({"replicas": 2}));
    check(
        &two,
        &["0 ready", "1 ready", "2 ready", "3 ready"],
        expect![[r#"
        delete db-3
        status 4 ready 4 available 4 current 4 updated 4 complete"#]],
    );
    check(
        &two,
        &["0 ready", "1 ready", "2 ready", "3 ready deleting"],
        expect!["status 4 ready 4 available 4 current 3 updated 3 complete"],
    );
    check(
        &two,
        &["0 ready", "1", "2 ready"],
        expect!["status 3 ready 2 available 2 current 3 updated 3 complete"],
    );
    // The first one that is not available may go, others wait for it.
    check(
        &two,
        &["0 ready", "1 ready", "2 ready", "3"],
        expect![[r#"
        delete db-3
        status 4 ready 3 available 3 current 4 updated 4 complete"#]],
    );
    check(
        &two,
        &["0 ready", "1 ready", "2", "3"],
        expect!["status 4 ready 2 available 2 current 4 updated 4 complete"],
    );
    check(
        &set(json!({"replicas": 0})),
        &["0 ready"],
        expect![[r#"
        delete db-0
        status 1 ready 1 available 1 current 1 updated 1 complete"#]],
    );
}

#[test]
fn an_update_replaces_pods_from_the_highest_ordinal() {
    let plain = set(json!({}));
    check(
        &plain,
        &["0 ready old", "1 ready old", "2 ready old"],
        expect![[r#"
        delete db-2
        status 3 ready 3 available 3 current 3 updated 0"#]],
    );
    check(
        &plain,
        &["0 ready old", "1 ready old", "2 ready old deleting"],
        expect!["status 3 ready 3 available 3 current 2 updated 0"],
    );
    check(
        &plain,
        &["0 ready old", "1 ready old"],
        expect![[r#"
        create db-2
        status 2 ready 2 available 2 current 2 updated 0"#]],
    );
    check(
        &plain,
        &["0 ready old", "1 ready old", "2"],
        expect!["status 3 ready 2 available 2 current 2 updated 1"],
    );
    check(
        &plain,
        &["0 ready old", "1 ready old", "2 ready"],
        expect![[r#"
        delete db-1
        status 3 ready 3 available 3 current 2 updated 1"#]],
    );
    // A revision that does not work stops the rollout, also one that would mend it.
    check(
        &plain,
        &["0 ready old", "1 ready old", "2 old"],
        expect!["status 3 ready 2 available 2 current 3 updated 0"],
    );
    let canary = set(json!({"updateStrategy": rolling(2, json!(1))}));
    check(
        &canary,
        &["0 ready old", "1 ready old", "2 ready"],
        expect!["status 3 ready 3 available 3 current 2 updated 1"],
    );
    check(
        &canary,
        &["0 ready old", "2 ready"],
        expect![[r#"
        create db-1 of the current revision
        status 2 ready 2 available 2 current 1 updated 1"#]],
    );
    let two = set(json!({"updateStrategy": rolling(0, json!(2)), "replicas": 4}));
    check(
        &two,
        &["0 ready old", "1 ready old", "2 ready old", "3 ready old"],
        expect![[r#"
        delete db-3 db-2
        status 4 ready 4 available 4 current 4 updated 0"#]],
    );
    let on_delete = set(json!({"updateStrategy": {"type": "OnDelete"}}));
    check(
        &on_delete,
        &["0 ready old", "1 ready old", "2 ready old"],
        expect!["status 3 ready 3 available 3 current 3 updated 0"],
    );
    check(
        &on_delete,
        &["0 ready old", "2 ready old"],
        expect![[r#"
        create db-1
        status 2 ready 2 available 2 current 2 updated 0"#]],
    );
    check(
        &on_delete,
        &["0 ready", "1 ready", "2 ready"],
        expect!["status 3 ready 3 available 3 current 3 updated 3 complete"],
    );
}

#[test]
fn a_parallel_update_takes_pods_that_do_not_serve_first() {
    let of = |partition: i32, unavailable: Value, replicas: i32| {
        set(json!({"podManagementPolicy": "Parallel", "replicas": replicas,
            "updateStrategy": rolling(partition, unavailable)}))
    };
    check(
        &of(0, json!(1), 1),
        &["0 old"],
        expect![[r#"
        delete db-0
        status 1 ready 0 available 0 current 1 updated 0"#]],
    );
    check(
        &of(0, json!(1), 3),
        &["0 ready old", "1 ready old", "2 ready old deleting"],
        expect!["status 3 ready 3 available 3 current 2 updated 0"],
    );
    check(
        &of(0, json!(3), 5),
        &["0 old", "1 old", "2 ready old", "3 ready old", "4 ready old"],
        expect![[r#"
            delete db-1 db-0 db-4
            status 5 ready 3 available 3 current 5 updated 0"#]],
    );
    check(
        &of(2, json!(1), 5),
        &["0 ready old", "1 old", "2 ready old", "3 ready old", "4 ready old"],
        expect!["status 5 ready 4 available 4 current 5 updated 0"],
    );
    check(
        &of(0, json!("50%"), 3),
        &["0 ready old", "1 ready old", "2 ready old"],
        expect![[r#"
        delete db-2
        status 3 ready 3 available 3 current 3 updated 0"#]],
    );
    check(
        &of(0, json!("10%"), 3),
        &["0 ready old", "1 ready old", "2 ready old"],
        expect![[r#"
        delete db-2
        status 3 ready 3 available 3 current 3 updated 0"#]],
    );
}

#[test]
fn claims_come_before_their_pods_and_stay() {
    let plain = with_claims(json!({}));
    check_with(
        &plain,
        &[],
        &[],
        expect![[r#"
        create db-0 with data-db-0
        status 0 ready 0 available 0 current 0 updated 0 complete"#]],
    );
    check_with(
        &plain,
        &[],
        &["0"],
        expect![[r#"
        create db-0
        status 0 ready 0 available 0 current 0 updated 0 complete"#]],
    );
    check_with(
        &plain,
        &[],
        &["0 deleting"],
        expect![[r#"
        no db-0: pvc data-db-0 is being deleted
        status 0 ready 0 available 0 current 0 updated 0 complete"#]],
    );
    check_with(
        &plain,
        &["0 pending"],
        &[],
        expect![[r#"
        create claims data-db-0 of db-0
        status 1 ready 0 available 0 current 1 updated 1 complete"#]],
    );
    check_with(
        &plain,
        &["0 ready", "1 ready", "2 ready"],
        &["0", "1 set", "2 other"],
        expect![[r#"
        data-db-1 is owned by []
        status 3 ready 3 available 3 current 3 updated 3 complete"#]],
    );
}

#[test]
fn claims_go_as_the_retention_policy_says() {
    let of = |deleted: &str, scaled: &str| {
        with_claims(json!({"replicas": 1,
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": deleted, "whenScaled": scaled}}))
    };
    let both = ["0 ready", "1 ready"];
    for (deleted, scaled, claims, expect) in [
        (
            "Retain",
            "Retain",
            ["0", "1"],
            expect![[r#"
            delete db-1
            status 2 ready 2 available 2 current 2 updated 2 complete"#]],
        ),
        (
            "Delete",
            "Retain",
            ["0", "1"],
            expect![[r#"
            data-db-0 is owned by [StatefulSet db]
            data-db-1 is owned by [StatefulSet db]
            delete db-1
            status 2 ready 2 available 2 current 2 updated 2 complete"#]],
        ),
        (
            "Retain",
            "Delete",
            ["0", "1"],
            expect![[r#"
            data-db-1 is owned by [Pod db-1]
            delete db-1
            status 2 ready 2 available 2 current 2 updated 2 complete"#]],
        ),
        (
            "Delete",
            "Delete",
            ["0", "1"],
            expect![[r#"
            data-db-0 is owned by [StatefulSet db]
            data-db-1 is owned by [Pod db-1]
            delete db-1
            status 2 ready 2 available 2 current 2 updated 2 complete"#]],
        ),
        (
            "Delete",
            "Delete",
            ["0 set", "1 pod"],
            expect![[r#"
            delete db-1
            status 2 ready 2 available 2 current 2 updated 2 complete"#]],
        ),
        (
            "Delete",
            "Retain",
            ["0 other", "1 other set"],
            expect![[r#"
            conflict over data-db-1
            data-db-1 is owned by [X x]
            delete db-1
            status 2 ready 2 available 2 current 2 updated 2 complete"#]],
        ),
        (
            "Retain",
            "Delete",
            ["0 earlier", "1 earlier"],
            expect![[r#"
            delete db-1
            status 2 ready 2 available 2 current 2 updated 2 complete"#]],
        ),
    ] {
        check_with(&of(deleted, scaled), &both, &claims, expect);
    }
    check_with(
        &of("Delete", "Delete"),
        &[],
        &[],
        expect![[r#"
        create db-0 with data-db-0 owned
        status 0 ready 0 available 0 current 0 updated 0 complete"#]],
    );
    // The claim of the Pod that was there before is about to be deleted with it.
    check_with(
        &of("Retain", "Delete"),
        &[],
        &["0 earlier"],
        expect!["status 0 ready 0 available 0 current 0 updated 0 complete"],
    );
    check_with(
        &of("Retain", "Retain"),
        &[],
        &["0 earlier"],
        expect![[r#"
        create db-0
        status 0 ready 0 available 0 current 0 updated 0 complete"#]],
    );
}

#[test]
fn pods_are_its_own_by_their_names() {
    let plain = set(json!({"replicas": 1}));
    check(&plain, &["0 ready orphan"], expect!["adopt db-0"]);
    check(&plain, &["0 ready", "1 stranger"], expect!["release other-0"]);
    check(
        &plain,
        &["0 ready", "1 stranger orphan"],
        expect!["status 1 ready 1 available 1 current 1 updated 1 complete"],
    );
    check(
        &plain,
        &["0 ready unlabelled"],
        expect![[r#"
        repair db-0
        delete db-0
        status 1 ready 1 available 1 current 0 updated 0 complete"#]],
    );
    let mut deleted = plain.clone();
    deleted.metadata.deletion_timestamp = pod(&plain, "0 deleting").metadata.deletion_timestamp.clone();
    check(
        &deleted,
        &["0 failed", "1 stranger", "2 orphan"],
        expect!["status 1 ready 0 available 0 current 1 updated 1 complete"],
    );
    let mut foreign = plain.clone();
    foreign.spec.get_or_insert_default().volume_claim_templates =
        with_claims(json!({})).spec.and_then(|s| s.volume_claim_templates);
    let without = pod(&plain, "0 ready");
    assert!(
        identity::repair(&foreign, &without)
            .is_some_and(|patch| patch["spec"]["volumes"][0]["name"] == "data")
    );
}

#[test]
fn a_pod_has_the_identity_of_its_ordinal() {
    let set = with_claims(json!({"template": {"metadata": {"labels": {"app": "db"}},
        "spec": {"containers": [{"name": "c"}], "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]}}}));
    let template = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
    let pod = json!(identity::pod(&set, &template, "db-1a", 7));
    expect![[r#"
        ["db-7","db-",{"app":"db","apps.kubernetes.io/pod-index":"7","controller-revision-hash":"db-1a","statefulset.kubernetes.io/pod-name":"db-7"}]
        ["db-7","db"]
        [{"name":"data","persistentVolumeClaim":{"claimName":"data-db-7"}},{"emptyDir":{},"name":"tmp"}]"#]].assert_eq(&format!(
        "{}\n{}\n{}",
        json!([pod["metadata"]["name"], pod["metadata"]["generateName"], pod["metadata"]["labels"]]),
        json!([pod["spec"]["hostname"], pod["spec"]["subdomain"]]),
        pod["spec"]["volumes"]
    ));
    let claims: Vec<_> = identity::claims(&set, 7).map(|c| json!(c.metadata)).collect();
    expect![[r#"[{"labels":{"app":"db"},"name":"data-db-7","namespace":"n"}]"#]]
        .assert_eq(&json!(claims).to_string());
    assert!(identity::has_claim(&set, "data-db-12"));
    assert!(!identity::has_claim(&set, "data-db-012") && !identity::has_claim(&set, "other-db-1"));
}

#[test]
fn templates_are_remembered() {
    let revision = |set: &StatefulSet, number: i64, owned: bool| {
        let Some(Action::CreateRevision(mut made)) = history::decide(set, &[]).1.into_iter().next() else {
            panic!("no revision");
        };
        made.revision = number;
        if !owned {
            made.metadata.owner_references = None;
        }
        Arc::new(*made)
    };
    let images = ["a", "b", "c"].map(|image| {
        let spec = json!({"containers": [{"name": "c", "image": image}]});
        set(json!({"template": {"metadata": {"labels": {"app": "db"}}, "spec": spec}, "revisionHistoryLimit": 1}))
    });
    let [a, b, c] = &images;
    let passes = [
        (a, vec![], expect!["remember as 1"]),
        (a, vec![revision(a, 1, true)], expect![[""]]),
        (b, vec![revision(a, 1, true)], expect!["remember as 2"]),
        (a, vec![revision(a, 1, true), revision(b, 2, true)], expect!["renumber 1 as 3"]),
        (c, vec![revision(b, 2, true), revision(c, 3, true), revision(a, 1, true)], expect!["forget 1"]),
        (a, vec![revision(a, 1, false)], expect!["adopt revision 1"]),
    ];
    for (set, revisions, expect) in passes {
        let candidates = vec![pod(set, "0")];
        let observed = Observed { set, candidates, revisions, claims: BTreeMap::new() };
        let actions = reconcile(&observed, at(100)).0.into_iter().filter(|a| !matches!(a, Action::Status(_)));
        let lines: Vec<_> = actions.map(|action| line("", action)).collect();
        expect.assert_eq(&lines.join("\n"));
    }
}
