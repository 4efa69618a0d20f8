use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("a second of our era")
}

fn job(spec: Value, status: Value) -> Job {
    let mut value = json!({
        "metadata": {"name": "pi", "namespace": "n", "uid": "j"},
        "spec": {"selector": {"matchLabels": {"uid": "j"}}, "parallelism": 1, "completions": 1,
            "template": {"metadata": {"labels": {"uid": "j"}},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}},
        "status": {"startTime": at(0).to_string()},
    });
    for (section, fields) in [("spec", spec), ("status", status)] {
        for (name, field) in fields.as_object().into_iter().flatten() {
            match field {
                Value::Null => _ = value[section].as_object_mut().and_then(|o| o.remove(name)),
                field => value[section][name] = field.clone(),
            }
        }
    }
    serde_json::from_value(value).expect("a Job")
}

/// A Pod by its name, its phase and marks: `deleting`, `orphan`, `ended@S`, `restarts@N`, `index@N`, `created@S`, `ready`.
fn pod(text: &str) -> Arc<Pod> {
    let mut words = text.split_whitespace();
    let (name, phase) = (words.next().expect("a name"), words.next().expect("a phase"));
    let mut value = json!({
        "metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"uid": "j"},
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "pi", "uid": "j",
                "controller": true}]},
        "spec": {"containers": []},
        "status": {"phase": phase, "containerStatuses": [
            {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0}]},
    });
    for word in words {
        let (mark, argument) = word.split_once('@').unwrap_or((word, ""));
        let number = || argument.parse::<i64>().expect("a number");
        let status = &mut value["status"]["containerStatuses"][0];
        match mark {
            "deleting" => value["metadata"]["deletionTimestamp"] = json!(at(0).to_string()),
            "orphan" => value["metadata"]["ownerReferences"] = json!([]),
            "ended" => {
                status["state"] =
                    json!({"terminated": {"exitCode": 1, "finishedAt": at(number()).to_string()}});
            }
            "restarts" => status["restartCount"] = json!(number()),
            "index" => {
                let index = json!({"batch.kubernetes.io/job-completion-index": argument});
                value["metadata"]["annotations"] = index;
            }
            "created" => value["metadata"]["creationTimestamp"] = json!(at(number()).to_string()),
            "ready" => value["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]),
            other => panic!("no mark {other}"),
        }
    }
    serde_json::from_value(value).map(Arc::new).expect("a Pod")
}

fn names(pods: &[Arc<Pod>]) -> String {
    pods.iter().filter_map(|p| p.metadata.name.clone()).collect::<Vec<_>>().join(" ")
}

fn line(action: Action) -> String {
    match action {
        Action::Adopt(p) => format!("adopt {}", names(&[p])),
        Action::Release(p) => format!("release {}", names(&[p])),
        Action::Create(pods) => {
            let prefix = |p: &Pod| p.metadata.generate_name.clone().unwrap_or_default();
            format!("create {}", pods.iter().map(prefix).collect::<Vec<_>>().join(" "))
        }
        Action::Delete(pods) => format!("delete {}", names(&pods)),
        Action::Event(reason, text) => format!("{reason}: {text}"),
        Action::Expire => "expire".into(),
        Action::Status(s) => {
            let n = |n: Option<i32>| n.unwrap_or_default();
            let held = s.conditions.iter().flatten().map(|c| format!(" {}={}", c.type_, c.status));
            let done = s.completed_indexes.map(|d| format!(" done {d}")).unwrap_or_default();
            format!(
                "status active {} succeeded {} failed {} terminating {}{done}{}{}",
                n(s.active),
                n(s.succeeded),
                n(s.failed),
                n(s.terminating),
                held.collect::<String>(),
                if s.completion_time.is_some() { " completed" } else { "" }
            )
        }
    }
}

fn check_at(second: i64, job: &Job, pods: &[&str], expect: Expect) {
    let candidates: Vec<_> = pods.iter().map(|p| pod(p)).collect();
    let own: Vec<_> =
        candidates.iter().filter(|p| owners::controller_uid(&p.metadata).is_some()).cloned().collect();
    let counted = Ledger::default().count(job.status.as_ref(), &own);
    let (actions, next) = reconcile(&Observed { job, candidates, counted }, at(second));
    let mut lines: Vec<_> = actions.into_iter().map(line).collect();
    if let Next::After(wait) = next {
        lines.push(format!("look again in {} s", wait.as_secs()));
    }
    expect.assert_eq(&lines.join("\n"));
}

fn check(job: &Job, pods: &[&str], expect: Expect) {
    check_at(100, job, pods, expect);
}

#[test]
fn as_many_work_as_are_wanted() {
    let three = job(json!({"completions": 3, "parallelism": 2}), json!({}));
    check(
        &three,
        &[],
        expect![[r#"
        create pi- pi-
        status active 0 succeeded 0 failed 0 terminating 0"#]],
    );
    check(
        &three,
        &["a Running", "b Succeeded"],
        expect![[r#"
        create pi-
        status active 1 succeeded 1 failed 0 terminating 0"#]],
    );
    check(
        &three,
        &["a Running", "b Succeeded", "c Succeeded"],
        expect!["status active 1 succeeded 2 failed 0 terminating 0"],
    );
    let fewer = job(json!({"completions": 9, "parallelism": 1}), json!({}));
    check(
        &fewer,
        &["a Running ready", "b Pending"],
        expect![[r#"
        delete b
        status active 1 succeeded 0 failed 0 terminating 1"#]],
    );
    check(
        &fewer,
        &[
            "a Running ready created@5",
            "b Running created@3",
            "c Running created@4",
            "d Running ready created@2",
        ],
        expect![[r#"
        delete c b a
        status active 1 succeeded 0 failed 0 terminating 3"#]],
    );
    check(&three, &["a Running orphan"], expect!["adopt a"]);
    let queue = job(json!({"completions": null, "parallelism": 2}), json!({}));
    check(
        &queue,
        &["a Running", "b Succeeded"],
        expect!["status active 1 succeeded 1 failed 0 terminating 0"],
    );
    check(
        &queue,
        &["a Succeeded", "b Succeeded"],
        expect![[r#"
        Completed: Job completed
        status active 0 succeeded 2 failed 0 terminating 0 SuccessCriteriaMet=True Complete=True completed"#]],
    );
}

#[test]
fn a_job_ends_well_when_enough_have() {
    let one = job(json!({}), json!({}));
    check(
        &one,
        &["a Succeeded"],
        expect![[r#"
        Completed: Job completed
        status active 0 succeeded 1 failed 0 terminating 0 SuccessCriteriaMet=True Complete=True completed"#]],
    );
    // What still works is ended first; the Job is over when it is gone.
    check(
        &one,
        &["a Succeeded", "b Running"],
        expect![[r#"
        delete b
        status active 0 succeeded 1 failed 0 terminating 1 SuccessCriteriaMet=True"#]],
    );
    check(
        &one,
        &["a Succeeded", "b Running deleting"],
        expect!["status active 0 succeeded 1 failed 1 terminating 1 SuccessCriteriaMet=True"],
    );
    let none = job(json!({"completions": 0}), json!({}));
    check(
        &none,
        &[],
        expect![[r#"
        Completed: Job completed
        status active 0 succeeded 0 failed 0 terminating 0 SuccessCriteriaMet=True Complete=True completed"#]],
    );
}

#[test]
fn failures_are_tried_again_later_and_only_so_often() {
    let twice = job(json!({"backoffLimit": 2}), json!({}));
    check_at(
        1,
        &twice,
        &["a Failed ended@0"],
        expect![[r#"
        status active 0 succeeded 0 failed 1 terminating 0
        look again in 9 s"#]],
    );
    check_at(
        10,
        &twice,
        &["a Failed ended@0"],
        expect![[r#"
        create pi-
        status active 0 succeeded 0 failed 1 terminating 0"#]],
    );
    check_at(
        15,
        &twice,
        &["a Failed ended@0", "b Failed ended@10"],
        expect![[r#"
        status active 0 succeeded 0 failed 2 terminating 0
        look again in 15 s"#]],
    );
    // A success in the second of the failures does not cancel the delay; a failure before a success does not count.
    let indexed = job(json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3}), json!({}));
    check_at(
        1,
        &indexed,
        &["a Succeeded ended@1 index@0", "b Failed ended@1 index@1", "c Failed ended@1 index@2"],
        expect![[r#"
        status active 0 succeeded 1 failed 2 terminating 0 done 0
        look again in 20 s"#]],
    );
    check_at(
        2,
        &indexed,
        &["a Succeeded ended@2 index@0", "b Failed ended@1 index@1", "c Failed ended@1 index@2"],
        expect![[r#"
        create pi-1- pi-2-
        status active 0 succeeded 1 failed 2 terminating 0 done 0"#]],
    );
    check(
        &twice,
        &["a Failed", "b Failed", "c Failed"],
        expect![[r#"
        BackoffLimitExceeded: Job has reached the specified backoff limit
        status active 0 succeeded 0 failed 3 terminating 0 FailureTarget=True Failed=True"#]],
    );
    let never = job(json!({"backoffLimit": 0, "parallelism": 2, "completions": 2}), json!({}));
    check(
        &never,
        &["a Failed", "b Running"],
        expect![[r#"
        delete b
        status active 0 succeeded 0 failed 1 terminating 1 FailureTarget=True"#]],
    );
    let in_place = json!({"metadata": {"labels": {"uid": "j"}}, "spec": {"restartPolicy": "OnFailure", "containers": []}});
    let restarts = job(json!({"backoffLimit": 3, "template": in_place}), json!({}));
    check(
        &restarts,
        &["a Running restarts@2"],
        expect!["status active 1 succeeded 0 failed 0 terminating 0"],
    );
    check(
        &restarts,
        &["a Running restarts@3"],
        expect![[r#"
        delete a
        status active 0 succeeded 0 failed 0 terminating 1 FailureTarget=True"#]],
    );
}

#[test]
fn deadlines_suspension_and_time_to_live() {
    let late = job(json!({"activeDeadlineSeconds": 60}), json!({}));
    check_at(
        40,
        &late,
        &["a Running"],
        expect![[r#"
        status active 1 succeeded 0 failed 0 terminating 0
        look again in 20 s"#]],
    );
    check_at(
        60,
        &late,
        &[],
        expect![[r#"
        DeadlineExceeded: Job was active longer than specified deadline
        status active 0 succeeded 0 failed 0 terminating 0 FailureTarget=True Failed=True"#]],
    );
    let suspended = job(json!({"suspend": true}), json!({}));
    check(
        &suspended,
        &["a Running"],
        expect![[r#"
        Suspended: Job suspended
        delete a
        status active 0 succeeded 0 failed 0 terminating 1 Suspended=True"#]],
    );
    let condition = json!([{"type": "Suspended", "status": "True"}]);
    let resumed = job(json!({"suspend": false}), json!({"startTime": null, "conditions": condition}));
    check(
        &resumed,
        &[],
        expect![[r#"
        Resumed: Job resumed
        create pi-
        status active 0 succeeded 0 failed 0 terminating 0 Suspended=False"#]],
    );
    let complete = json!([{"type": "Complete", "status": "True", "lastTransitionTime": at(50).to_string()}]);
    let done = job(json!({"ttlSecondsAfterFinished": 100}), json!({"conditions": complete}));
    check(&done, &["a Succeeded"], expect!["look again in 50 s"]);
    check_at(150, &done, &["a Succeeded"], expect!["expire"]);
    let kept = job(json!({}), json!({"conditions": complete}));
    check(&kept, &["a Succeeded"], expect![""]);
    let foreign = job(json!({"managedBy": "example.com/other"}), json!({}));
    check(&foreign, &[], expect![""]);
}

#[test]
fn indexes_are_done_each_once() {
    let indexed =
        |status: Value| job(json!({"completionMode": "Indexed", "completions": 4, "parallelism": 2}), status);
    check(
        &indexed(json!({})),
        &["a Succeeded index@0", "b Running index@2"],
        expect![[r#"
        create pi-1-
        status active 1 succeeded 1 failed 0 terminating 0 done 0"#]],
    );
    // The Pods of two are gone; the status remembers them.
    let remembered = indexed(json!({"completedIndexes": "0-1", "succeeded": 2}));
    check(
        &remembered,
        &["c Succeeded index@2", "d Succeeded index@3"],
        expect![[r#"
        Completed: Job completed
        status active 0 succeeded 4 failed 0 terminating 0 done 0-3 SuccessCriteriaMet=True Complete=True completed"#]],
    );
    let of = |indexes: &[usize]| indexed::text(&indexes.iter().copied().collect());
    assert_eq!([of(&[]), of(&[3]), of(&[0, 1]), of(&[0, 1, 2, 5, 7, 8])], ["", "3", "0,1", "0-2,5,7,8"]);
    let made = indexed::with_index(Pod::default(), "pi", 3);
    assert_eq!(indexed::index(&made), Some(3));
    assert_eq!(made.spec.and_then(|s| s.hostname).as_deref(), Some("pi-3"));
}

#[test]
fn what_is_gone_stays_counted() {
    let mut ledger = Ledger::default();
    let status = JobStatus { succeeded: Some(2), failed: Some(3), ..Default::default() };
    let count = |ledger: &mut Ledger, pods: &[&str]| {
        let pods: Vec<_> = pods.iter().map(|p| pod(p)).collect();
        let counted = ledger.count(Some(&status), &pods);
        (counted.succeeded, counted.failed)
    };
    // Two of the failures told are of Pods that are there.
    assert_eq!(count(&mut ledger, &["a Failed", "b Failed", "c Running"]), (2, 3));
    assert_eq!(count(&mut ledger, &["c Succeeded"]), (3, 3));
    assert_eq!(count(&mut ledger, &[]), (3, 3));
    // Deleted by somebody: a failure, unless it ends well before it goes.
    assert_eq!(count(&mut ledger, &["d Running deleting", "e Running deleting"]), (3, 5));
    assert_eq!(count(&mut ledger, &["e Succeeded deleting"]), (4, 4));
    ledger.dismiss(&[pod("f Running")]);
    assert_eq!(count(&mut ledger, &["f Running deleting"]), (4, 4));
}
