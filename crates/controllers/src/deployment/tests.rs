use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("a second of our era")
}

/// A Deployment `web` of image `v2`; `spec` is merged over the defaults.
fn deployment(replicas: i32, spec: Value) -> Deployment {
    let mut value = json!({
        "metadata": {"name": "web", "namespace": "n", "uid": "d", "generation": 2,
            "annotations": {"deployment.kubernetes.io/revision": "2", "note": "x"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": template("v2"),
        },
    });
    merge(&mut value["spec"], spec);
    serde_json::from_value(value).expect("a Deployment")
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.into_iter().for_each(|(k, v)| merge(into.entry(k).or_insert(Value::Null), v));
        }
        (into, from) => *into = from,
    }
}

fn template(image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": image}]},
    })
}

/// A ReplicaSet of `image` that wants and has so many Pods, and so many of them available.
fn set(image: &str, revision: i64, wants: i32, has: i32, available: i32, desired: i32) -> Arc<ReplicaSet> {
    let mut template = template(image);
    template["metadata"]["labels"]["pod-template-hash"] = json!(image);
    let value = json!({
        "metadata": {
            "name": format!("web-{image}"), "namespace": "n", "uid": image, "generation": 1,
            "creationTimestamp": format!("2026-01-01T00:00:0{revision}Z"),
            "labels": {"app": "web", "pod-template-hash": image},
            "annotations": {
                "deployment.kubernetes.io/revision": revision.to_string(),
                "deployment.kubernetes.io/desired-replicas": desired.to_string(),
                "deployment.kubernetes.io/max-replicas": (desired + (desired + 3) / 4).to_string(),
                "note": "x",
            },
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d", "controller": true}
            ],
        },
        "spec": {"replicas": wants, "selector": {"matchLabels": {"app": "web", "pod-template-hash": image}},
            "template": template},
        "status": {"replicas": has, "readyReplicas": available, "availableReplicas": available,
            "observedGeneration": 1},
    });
    Arc::new(serde_json::from_value(value).expect("a ReplicaSet"))
}

fn observed<'a>(deployment: &'a Deployment, sets: &[Arc<ReplicaSet>]) -> Observed<'a> {
    let living = |s: &Arc<ReplicaSet>| (s.metadata.uid.clone().unwrap_or_default(), existing(s));
    Observed { deployment, candidates: sets.to_vec(), living_pods: sets.iter().map(living).collect() }
}

fn existing(set: &ReplicaSet) -> usize {
    set.status.as_ref().map_or(0, |s| usize::try_from(s.replicas).unwrap_or_default())
}

fn describe(actions: &[Action]) -> String {
    let name = |s: &ReplicaSet| s.metadata.name.clone().unwrap_or_default();
    let annotations = |a: &BTreeMap<String, String>| {
        let short = |k: &String| k.rsplit('/').next().unwrap_or_default().to_owned();
        a.iter().map(|(k, v)| format!("{}={v}", short(k))).collect::<Vec<_>>().join(" ")
    };
    let line = |action: &Action| match action {
        Action::Adopt(s) => format!("adopt {}", name(s)),
        Action::Release(s) => format!("release {}", name(s)),
        Action::Create(s) => {
            let meta = &s.metadata;
            format!("create {} of {}: {}", name(s), size(s), annotations(meta.annotations.as_ref().unwrap()))
        }
        Action::Scale(s, n, a) => format!("scale {} {}->{n}: {}", name(s), size(s), annotations(a)),
        Action::Annotate(s, a) => format!("annotate {}: {}", name(s), annotations(a)),
        Action::Delete(s) => format!("delete {}", name(s)),
        Action::Revision(r) => format!("revision {r}"),
        Action::Status(s) => {
            let n = |c: Option<i32>| c.unwrap_or_default();
            let conditions = s.conditions.iter().flatten();
            let conditions: Vec<_> = conditions
                .map(|c| format!("{}={}({})", c.type_, c.status, c.reason.as_deref().unwrap_or_default()))
                .collect();
            format!(
                "status {} updated {} ready {} available {} unavailable {}: {}",
                n(s.replicas),
                n(s.updated_replicas),
                n(s.ready_replicas),
                n(s.available_replicas),
                n(s.unavailable_replicas),
                conditions.join(" "),
            )
        }
    };
    actions.iter().map(|a| line(a) + "\n").collect()
}

fn check(deployment: &Deployment, sets: &[Arc<ReplicaSet>], expect: Expect) {
    let (actions, _) = reconcile(&observed(deployment, sets), at(0));
    expect.assert_eq(&describe(&actions));
}

#[test]
fn a_new_deployment_gets_its_replica_set() {
    check(
        &deployment(10, json!({})),
        &[],
        expect![[r#"
        create web-d475f4q6g9 of 10: desired-replicas=10 max-replicas=13 revision=1 note=x
        revision 1
        status 0 updated 0 ready 0 available 0 unavailable 0: Available=False(MinimumReplicasUnavailable) Progressing=True(NewReplicaSetCreated)
    "#]],
    );
    check(
        &deployment(3, json!({"strategy": {"type": "Recreate"}})),
        &[],
        expect![[r#"
        create web-d475f4q6g9 of 3: desired-replicas=3 max-replicas=3 revision=1 note=x
        revision 1
        status 0 updated 0 ready 0 available 0 unavailable 0: Available=False(MinimumReplicasUnavailable) Progressing=True(NewReplicaSetCreated)
    "#]],
    );
}

#[test]
fn an_update_goes_on_as_surge_and_unavailability_allow() {
    let d = deployment(10, json!({}));
    let old = |wants, available| set("v1", 1, wants, wants, available, 10);
    let new = |wants, available| set("v2", 2, wants, wants, available, 10);
    check(
        &d,
        &[old(10, 10)],
        expect![[r#"
        create web-d475f4q6g9 of 3: desired-replicas=10 max-replicas=13 revision=2 note=x
        revision 2
        status 10 updated 0 ready 10 available 10 unavailable 0: Available=True(MinimumReplicasAvailable) Progressing=True(NewReplicaSetCreated)
    "#]],
    );
    check(
        &d,
        &[old(10, 10), new(3, 0)],
        expect![[r#"
        scale web-v1 10->8: desired-replicas=10 max-replicas=13
        status 13 updated 3 ready 10 available 10 unavailable 3: Available=True(MinimumReplicasAvailable) Progressing=True(ReplicaSetUpdated)
    "#]],
    );
    check(
        &d,
        &[old(8, 8), new(3, 0)],
        expect![[r#"
        scale web-v2 3->5: desired-replicas=10 max-replicas=13
        status 11 updated 3 ready 8 available 8 unavailable 3: Available=True(MinimumReplicasAvailable) Progressing=True(ReplicaSetUpdated)
    "#]],
    );
    check(
        &d,
        &[old(8, 8), new(5, 0)],
        expect![[r#"
        status 13 updated 5 ready 8 available 8 unavailable 5: Available=True(MinimumReplicasAvailable) Progressing=True(ReplicaSetUpdated)
    "#]],
    );
    check(
        &d,
        &[old(8, 3), new(5, 5)],
        expect![[r#"
        scale web-v1 8->3: desired-replicas=10 max-replicas=13
        status 13 updated 5 ready 8 available 8 unavailable 5: Available=True(MinimumReplicasAvailable) Progressing=True(ReplicaSetUpdated)
    "#]],
    );
    // The ReplicaSet has not told yet that the Pods of the step before are gone: only one can be spared.
    check(
        &d,
        &[set("v1", 1, 8, 10, 10, 10), new(5, 1)],
        expect![[r#"
        scale web-v1 8->7: desired-replicas=10 max-replicas=13
        status 15 updated 5 ready 11 available 11 unavailable 2: Available=True(MinimumReplicasAvailable) Progressing=True(ReplicaSetUpdated)
    "#]],
    );
    check(
        &d,
        &[old(0, 0), new(10, 10)],
        expect![[r#"
        status 10 updated 10 ready 10 available 10 unavailable 0: Available=True(MinimumReplicasAvailable) Progressing=True(NewReplicaSetAvailable)
    "#]],
    );
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let d = deployment(2, json!({"strategy": {"type": "Recreate"}}));
    check(
        &d,
        &[set("v1", 1, 2, 2, 2, 2)],
        expect![[r#"
        scale web-v1 2->0: desired-replicas=2 max-replicas=2
        status 2 updated 0 ready 2 available 2 unavailable 0: Available=True(MinimumReplicasAvailable)
    "#]],
    );
    check(
        &d,
        &[set("v1", 1, 0, 1, 0, 2)],
        expect![[r#"
        status 1 updated 0 ready 0 available 0 unavailable 0: Available=False(MinimumReplicasUnavailable)
    "#]],
    );
    check(
        &d,
        &[set("v1", 1, 0, 0, 0, 2)],
        expect![[r#"
        create web-d475f4q6g9 of 2: desired-replicas=2 max-replicas=2 revision=2 note=x
        revision 2
        status 0 updated 0 ready 0 available 0 unavailable 0: Available=False(MinimumReplicasUnavailable) Progressing=True(NewReplicaSetCreated)
    "#]],
    );
}

#[test]
fn a_rollback_moves_the_old_revision_up() {
    let sets = [set("v2", 1, 0, 0, 0, 3), set("v3", 2, 3, 3, 3, 3)];
    check(
        &deployment(3, json!({})),
        &sets,
        expect![[r#"
        annotate web-v2: desired-replicas=3 max-replicas=4 revision=3 revision-history=1 note=x
        revision 3
    "#]],
    );
}

#[test]
fn a_change_of_size_is_shared_out_and_a_paused_deployment_only_scales() {
    let sets = [set("v1", 1, 8, 8, 8, 10), set("v2", 2, 5, 5, 0, 10)];
    check(
        &deployment(20, json!({})),
        &sets,
        expect![[r#"
        scale web-v1 8->15: desired-replicas=20 max-replicas=25
        scale web-v2 5->10: desired-replicas=20 max-replicas=25
        status 13 updated 5 ready 8 available 8 unavailable 5: Available=False(MinimumReplicasUnavailable)
    "#]],
    );
    check(
        &deployment(5, json!({})),
        &sets,
        expect![[r#"
        scale web-v1 8->4: desired-replicas=5 max-replicas=7
        scale web-v2 5->3: desired-replicas=5 max-replicas=7
        status 13 updated 5 ready 8 available 8 unavailable 5: Available=True(MinimumReplicasAvailable)
    "#]],
    );
    check(
        &deployment(0, json!({})),
        &sets,
        expect![[r#"
        scale web-v1 8->0: desired-replicas=0 max-replicas=0
        scale web-v2 5->0: desired-replicas=0 max-replicas=0
        status 13 updated 5 ready 8 available 8 unavailable 5: Available=True(MinimumReplicasAvailable)
    "#]],
    );
    let alone = [set("v2", 2, 3, 3, 3, 3)];
    check(
        &deployment(5, json!({})),
        &alone,
        expect![[r#"
        scale web-v2 3->5: desired-replicas=5 max-replicas=7
        status 3 updated 3 ready 3 available 3 unavailable 0: Available=False(MinimumReplicasUnavailable)
    "#]],
    );
    check(
        &deployment(3, json!({"paused": true})),
        &[set("v1", 1, 3, 3, 3, 3)],
        expect![[r#"
        status 3 updated 0 ready 3 available 3 unavailable 0: Available=True(MinimumReplicasAvailable) Progressing=Unknown(DeploymentPaused)
    "#]],
    );
}

#[test]
fn history_beyond_its_limit_goes_once_the_update_is_complete() {
    let sets: Vec<_> = ["a", "b", "c"].iter().zip(1..).map(|(image, r)| set(image, r, 0, 0, 0, 3)).collect();
    let complete: Vec<_> = sets.iter().cloned().chain([set("v2", 4, 3, 3, 3, 3)]).collect();
    check(
        &deployment(3, json!({"revisionHistoryLimit": 1})),
        &complete,
        expect![[r#"
        revision 4
        delete web-a
        delete web-b
        status 3 updated 3 ready 3 available 3 unavailable 0: Available=True(MinimumReplicasAvailable) Progressing=True(NewReplicaSetAvailable)
    "#]],
    );
    let incomplete: Vec<_> = sets.into_iter().chain([set("v2", 4, 3, 3, 2, 3)]).collect();
    check(
        &deployment(3, json!({"revisionHistoryLimit": 1})),
        &incomplete,
        expect![[r#"
        revision 4
        status 3 updated 3 ready 2 available 2 unavailable 1: Available=False(MinimumReplicasUnavailable) Progressing=True(ReplicaSetUpdated)
    "#]],
    );
}

#[test]
fn no_progress_in_time_is_said() {
    let mut d = deployment(3, json!({"progressDeadlineSeconds": 60}));
    let sets = [set("v1", 1, 3, 3, 3, 3), set("v2", 2, 1, 1, 0, 3)];
    let mut seen = Vec::new();
    for second in [0, 59, 60, 90] {
        let (actions, next) = reconcile(&observed(&d, &sets), at(second));
        for action in &actions {
            if let Action::Status(status) = action {
                d.status = Some(DeploymentStatus::clone(status));
            }
        }
        let status = d.status.clone().unwrap_or_default();
        let progressing =
            status::get(&status, "Progressing").and_then(|c| c.reason.clone()).unwrap_or_default();
        seen.push(format!("{second}: {progressing}, next {next:?}"));
    }
    expect![[r#"
        0: ReplicaSetUpdated, next After(60s)
        59: ReplicaSetUpdated, next After(1s)
        60: ProgressDeadlineExceeded, next Wait
        90: ProgressDeadlineExceeded, next Wait"#]]
    .assert_eq(&seen.join("\n"));
}

#[test]
fn shares_are_rounded_as_kubernetes_rounds_them() {
    let percent = |p: &str| IntOrString::String(p.into());
    for (value, total, up, expect) in [
        (percent("25%"), 10, true, 3),
        (percent("25%"), 10, false, 2),
        (percent("100%"), 3, false, 3),
        (percent("x"), 3, true, 0),
        (IntOrString::Int(4), 3, true, 4),
        (IntOrString::Int(-1), 3, true, 0),
    ] {
        assert_eq!(share(&value, total, up), expect, "{value:?} of {total}");
    }
    let none = json!({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "10%"}}});
    assert_eq!(
        Sets::of(&deployment(3, none), Vec::new()).leeway(),
        (0, 1),
        "an update must be able to begin"
    );
}

/// Plays an update: ReplicaSets follow at once in size, and so many new Pods become available at each step.
fn play(replicas: i32, strategy: Value, per_step: i32) {
    let d = deployment(replicas, json!({"strategy": {"rollingUpdate": strategy}}));
    let mut sizes: BTreeMap<String, (i32, i32)> = [("v1".to_owned(), (replicas, replicas))].into();
    let (surge, unavailable) = Sets::of(&d, Vec::new()).leeway();
    for step in 0.. {
        assert!(step < 100, "{strategy} of {replicas} ends");
        let sets: Vec<_> = sizes
            .iter()
            .zip(1..)
            .map(|((image, (wants, available)), revision)| {
                set(image, revision, *wants, *wants, *available, replicas)
            })
            .collect();
        let (actions, _) = reconcile(&observed(&d, &sets), at(0));
        for action in actions {
            match action {
                Action::Create(set) => drop(sizes.insert("v2".into(), (size(&set), 0))),
                Action::Scale(set, to, _) => {
                    let entry = sizes.entry(set.metadata.uid.clone().unwrap_or_default()).or_default();
                    // Pods that are not available are taken first.
                    *entry = (to, entry.1.min(to));
                }
                _ => {}
            }
        }
        let total: i32 = sizes.values().map(|(wants, _)| wants).sum();
        let available: i32 = sizes.values().map(|(_, available)| available).sum();
        assert!(total <= replicas + surge, "{strategy} of {replicas}: {sizes:?} is too many");
        assert!(available >= replicas - unavailable, "{strategy} of {replicas}: {sizes:?} is too few");
        if let Some((wants, available)) = sizes.get_mut("v2") {
            *available = (*available + per_step).min(*wants);
        }
        if sizes.get("v1") == Some(&(0, 0)) && sizes.get("v2") == Some(&(replicas, replicas)) {
            return;
        }
    }
}

#[test]
fn an_update_never_has_too_many_or_too_few_and_always_ends() {
    for replicas in [1, 2, 3, 10, 17] {
        for strategy in [
            json!({"maxSurge": 1, "maxUnavailable": 0}),
            json!({"maxSurge": 0, "maxUnavailable": 1}),
            json!({"maxSurge": "25%", "maxUnavailable": "25%"}),
            json!({"maxSurge": "100%", "maxUnavailable": "100%"}),
            json!({"maxSurge": 0, "maxUnavailable": 0}),
        ] {
            for per_step in [1, 3] {
                play(replicas, strategy.clone(), per_step);
            }
        }
    }
}

#[test]
fn the_template_hash_is_stable() {
    let d = deployment(1, json!({}));
    let (actions, _) = reconcile(&observed(&d, &[]), at(0));
    let name =
        actions.iter().find_map(|a| if let Action::Create(s) = a { s.metadata.name.clone() } else { None });
    // Were it to change, every ReplicaSet of a running cluster would still be found, by its template.
    expect!["web-d475f4q6g9"].assert_eq(&name.unwrap_or_default());
}

#[test]
fn names_of_replica_sets_stay_within_the_longest_name() {
    let long = format!("{}.{}", "a".repeat(241), "b".repeat(11));
    for (name, expect) in [
        ("web", "web-hash".to_owned()),
        (&"a".repeat(63), format!("{}-hash", "a".repeat(63))),
        (&"a".repeat(253), format!("{}-hash", "a".repeat(248))),
        (&long, format!("{}-tenletters", "a".repeat(241))),
    ] {
        let hash = if name == long { "tenletters" } else { "hash" };
        let made = history::set_name(name, hash);
        assert_eq!(made, expect);
        assert_eq!(yado_types::names::dns_subdomain(&made), Ok(()));
    }
}
