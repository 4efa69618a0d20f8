use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("a second of our era")
}

/// A Job with fields of its spec and of its status; null takes a field away.
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

/// A Pod by its name, its phase and marks: `deleting@S`, `orphan`, `counted` (without the finalizer), `ended@S`, `code@N`,
/// `holds@CONDITION`, `restarts@N`, `index@N`, `failures@N`, `created@S`, `ready`.
fn pod(text: &str) -> Arc<Pod> {
    let mut words = text.split_whitespace();
    let (name, phase) = (words.next().expect("a name"), words.next().expect("a phase"));
    let mut value = json!({
        "metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"uid": "j"},
            "finalizers": [TRACKING],
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "pi", "uid": "j",
                "controller": true}]},
        "spec": {"containers": []},
        "status": {"phase": phase, "conditions": [], "containerStatuses": [
            {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0}]},
    });
    for word in words {
        let (mark, argument) = word.split_once('@').unwrap_or((word, ""));
        let number = || argument.parse::<i64>().expect("a number");
        let (meta, rest) = value
            .as_object_mut()
            .and_then(|o| {
                let status = o.get("status").cloned()?;
                Some((o.get_mut("metadata")?, status))
            })
            .expect("metadata and a status");
        let mut status = rest;
        let container = &mut status["containerStatuses"][0];
        match mark {
            "deleting" => meta["deletionTimestamp"] = json!(at(number()).to_string()),
            "orphan" => meta["ownerReferences"] = json!([]),
            "counted" => meta["finalizers"] = json!([]),
            "ended" => {
                let ended = &mut container["state"]["terminated"];
                ended["finishedAt"] = json!(at(number()).to_string());
                if ended["exitCode"].is_null() {
                    ended["exitCode"] = json!(1);
                }
            }
            "code" => container["state"]["terminated"] = json!({"exitCode": number()}),
            "holds" => status["conditions"] = json!([{"type": argument, "status": "True"}]),
            "restarts" => container["restartCount"] = json!(number()),
            "index" => meta["annotations"]["batch.kubernetes.io/job-completion-index"] = json!(argument),
            "failures" => {
                meta["annotations"]["batch.kubernetes.io/job-index-failure-count"] = json!(argument)
            }
            "created" => meta["creationTimestamp"] = json!(at(number()).to_string()),
            "ready" => status["conditions"] = json!([{"type": "Ready", "status": "True"}]),
            other => panic!("no mark {other}"),
        }
        value["status"] = status;
    }
    serde_json::from_value(value).map(Arc::new).expect("a Pod")
}

fn names(pods: &[Arc<Pod>]) -> String {
    pods.iter().filter_map(|p| p.metadata.name.clone()).collect::<Vec<_>>().join(" ")
}

fn status_line(s: &JobStatus) -> String {
    let n = |n: Option<i32>| n.unwrap_or_default();
    let held = s.conditions.iter().flatten().map(|c| format!(" {}={}", c.type_, c.status));
    let done = s.completed_indexes.as_ref().map(|d| format!(" done {d}")).unwrap_or_default();
    let lost = s.failed_indexes.as_ref().map(|d| format!(" lost {d}")).unwrap_or_default();
    let lists = s.uncounted_terminated_pods.clone().unwrap_or_default();
    let list = |word: &str, uids: Option<Vec<String>>| {
        uids.map(|uids| format!(" {word} {}", uids.join(" "))).unwrap_or_default()
    };
    format!(
        "status active {} terminating {} succeeded {}{} failed {}{}{done}{lost}{}{}{}",
        n(s.active),
        n(s.terminating),
        n(s.succeeded),
        list("and", lists.succeeded),
        n(s.failed),
        list("and", lists.failed),
        held.collect::<String>(),
        if s.start_time.is_none() { " not started" } else { "" },
        if s.completion_time.is_some() { " completed" } else { "" }
    )
}

fn line(action: Action) -> Option<String> {
    Some(match action {
        Action::Adopt(p) => format!("adopt {}", names(&[p])),
        Action::Release(p) => format!("release {}", names(&[p])),
        Action::Track(p) => format!("track {}", names(&[p])),
        Action::Create(pods) => {
            let shown = |p: &Pod| {
                let failures = p.metadata.annotations.iter().flatten().filter_map(|(key, value)| {
                    key.strip_prefix("batch.kubernetes.io/job-index-").map(|key| format!("({key} {value})"))
                });
                p.metadata.generate_name.clone().unwrap_or_default() + &failures.collect::<String>()
            };
            assert!(pods.iter().all(has_finalizer));
            format!("create {}", pods.iter().map(shown).collect::<Vec<_>>().join(" "))
        }
        Action::Delete(pods) => format!("delete {}", names(&pods)),
        Action::Dismiss(pods) => format!("dismiss {}", names(&pods)),
        Action::Untrack(pods) => format!("untrack {}", names(&pods)),
        Action::Event(kind, reason, text) => format!("{kind:?} {reason}: {text}"),
        Action::Expire => "expire".into(),
        Action::Status(s) => status_line(&s),
        Action::Remember(_) => return None,
    })
}

fn check_at(second: i64, job: &Job, pods: &[&str], expect: Expect) {
    let candidates: Vec<_> = pods.iter().map(|p| pod(p)).collect();
    let memory = Memory::default();
    let (actions, next) = reconcile(&Observed { job, candidates, memory: &memory }, at(second));
    let mut lines: Vec<_> = actions.into_iter().filter_map(line).collect();
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
        status active 0 terminating 0 succeeded 0 failed 0"#]],
    );
    check(
        &three,
        &["a Running", "b Succeeded"],
        expect![[r#"
        create pi-
        status active 1 terminating 0 succeeded 0 and b failed 0
        untrack b"#]],
    );
    check(
        &three,
        &["a Running", "b Succeeded", "c Succeeded"],
        expect![[r#"
        status active 1 terminating 0 succeeded 0 and b c failed 0
        untrack b c"#]],
    );
    let fewer = job(json!({"completions": 9, "parallelism": 1}), json!({}));
    check(
        &fewer,
        &["a Running ready", "b Pending"],
        expect![[r#"
        dismiss b
        status active 1 terminating 1 succeeded 0 failed 0"#]],
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
            dismiss c b a
            status active 1 terminating 3 succeeded 0 failed 0"#]],
    );
    let none = job(json!({"completions": 9, "parallelism": 0}), json!({}));
    check(
        &none,
        &["a Running"],
        expect![[r#"
        dismiss a
        status active 0 terminating 1 succeeded 0 failed 0"#]],
    );
    check(&three, &["a Running orphan"], expect!["adopt a"]);
    // Of a time before Pods had the finalizer.
    check(
        &three,
        &["a Running counted", "b Running"],
        expect![[r#"
        track a
        status active 2 terminating 0 succeeded 0 failed 0"#]],
    );
    let queue = job(json!({"completions": null, "parallelism": 2}), json!({}));
    check(
        &queue,
        &["a Running", "b Succeeded"],
        expect![[r#"
        status active 1 terminating 0 succeeded 0 and b failed 0
        untrack b"#]],
    );
    check(
        &queue,
        &["a Succeeded", "b Succeeded"],
        expect![[r#"
        status active 0 terminating 0 succeeded 0 and a b failed 0 SuccessCriteriaMet=True
        untrack a b"#]],
    );
}

#[test]
fn ends_are_entered_before_the_finalizer_goes_and_counted_after() {
    let three = |status: Value| job(json!({"completions": 3, "parallelism": 3}), status);
    check(
        &three(json!({})),
        &["a Running", "b Succeeded", "c Failed ended@0"],
        expect![[r#"
        create pi-
        status active 1 terminating 0 succeeded 0 and b failed 0 and c
        untrack b c"#]],
    );
    let entered = json!({"uncountedTerminatedPods": {"succeeded": ["b"], "failed": ["c"]}});
    // The finalizers are still there: they are asked away once more.
    check(
        &three(entered.clone()),
        &["a Running", "b Succeeded", "c Failed ended@0"],
        expect![[r#"
        create pi-
        status active 1 terminating 0 succeeded 0 and b failed 0 and c
        untrack b c"#]],
    );
    check(
        &three(entered.clone()),
        &["a Running", "b Succeeded counted", "c Failed ended@0"],
        expect![[r#"
        create pi-
        status active 1 terminating 0 succeeded 1 failed 0 and c
        untrack c"#]],
    );
    // Those that are gone are counted as well.
    check(
        &three(entered),
        &["a Running"],
        expect![[r#"
        create pi-
        status active 1 terminating 0 succeeded 1 failed 1"#]],
    );
    // The status counts them, and their Pods may stay for ever.
    let counted = json!({"succeeded": 1, "failed": 1});
    check(
        &three(counted),
        &["a Running", "b Succeeded counted", "c Failed counted ended@0"],
        expect![[r#"
        create pi-
        status active 1 terminating 0 succeeded 1 failed 1"#]],
    );
}

#[test]
fn a_job_ends_well_when_enough_have() {
    let one = job(json!({}), json!({}));
    check(
        &one,
        &["a Succeeded"],
        expect![[r#"
        status active 0 terminating 0 succeeded 0 and a failed 0 SuccessCriteriaMet=True
        untrack a"#]],
    );
    let entered = job(
        json!({}),
        json!({
            "uncountedTerminatedPods": {"succeeded": ["a"]},
            "conditions": [{"type": "SuccessCriteriaMet", "status": "True", "reason": "CompletionsReached",
                "message": "Reached expected number of succeeded pods"}],
        }),
    );
    check(
        &entered,
        &["a Succeeded counted"],
        expect![[r#"
        status active 0 terminating 0 succeeded 1 failed 0 SuccessCriteriaMet=True Complete=True completed
        Normal Completed: Job completed"#]],
    );
    // What still works is ended first; the Job is over when it is gone.
    check(
        &one,
        &["a Succeeded", "b Running"],
        expect![[r#"
        dismiss b
        status active 0 terminating 1 succeeded 0 and a failed 0 SuccessCriteriaMet=True
        untrack a b"#]],
    );
    check(
        &one,
        &["a Succeeded", "b Running counted deleting@99"],
        expect![[r#"
        status active 0 terminating 1 succeeded 0 and a failed 0 SuccessCriteriaMet=True
        untrack a"#]],
    );
    let none = job(json!({"completions": 0}), json!({}));
    check(
        &none,
        &[],
        expect![[r#"
        status active 0 terminating 0 succeeded 0 failed 0 SuccessCriteriaMet=True Complete=True completed
        Normal Completed: Job completed"#]],
    );
    let more = job(json!({"completions": 1}), json!({"succeeded": 2}));
    check(
        &more,
        &[],
        expect![[r#"
        status active 0 terminating 0 succeeded 2 failed 0 SuccessCriteriaMet=True Complete=True completed
        Warning TooManySucceededPods: Too many succeeded pods running after completion count reached
        Normal Completed: Job completed"#]],
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
        status active 0 terminating 0 succeeded 0 failed 0 and a
        untrack a
        look again in 9 s"#]],
    );
    check_at(
        10,
        &twice,
        &["a Failed ended@0"],
        expect![[r#"
        create pi-
        status active 0 terminating 0 succeeded 0 failed 0 and a
        untrack a"#]],
    );
    check_at(
        15,
        &twice,
        &["a Failed ended@0", "b Failed ended@10"],
        expect![[r#"
        status active 0 terminating 0 succeeded 0 failed 0 and a b
        untrack a b
        look again in 15 s"#]],
    );
    // A success in the second of the failures does not cancel the delay; a failure before a success does not count.
    let indexed = job(json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3}), json!({}));
    check_at(
        1,
        &indexed,
        &["a Succeeded ended@1 index@0", "b Failed ended@1 index@1", "c Failed ended@1 index@2"],
        expect![[r#"
            status active 0 terminating 0 succeeded 1 failed 0 and b c done 0
            untrack a b c
            look again in 20 s"#]],
    );
    check_at(
        2,
        &indexed,
        &["a Succeeded ended@2 index@0", "b Failed ended@1 index@1", "c Failed ended@1 index@2"],
        expect![[r#"
            create pi-1- pi-2-
            status active 0 terminating 0 succeeded 1 failed 0 and b c done 0
            untrack a b c"#]],
    );
    check(
        &twice,
        &["a Failed", "b Failed", "c Failed"],
        expect![[r#"
        status active 0 terminating 0 succeeded 0 failed 0 and a b c FailureTarget=True
        untrack a b c"#]],
    );
    let announced = json!([{"type": "FailureTarget", "status": "True", "reason": "BackoffLimitExceeded", "message": "too often"}]);
    let over = job(json!({"backoffLimit": 2}), json!({"failed": 3, "conditions": announced}));
    check(
        &over,
        &[],
        expect![[r#"
        status active 0 terminating 0 succeeded 0 failed 3 FailureTarget=True Failed=True
        Warning BackoffLimitExceeded: too often"#]],
    );
    let never = job(json!({"backoffLimit": 0, "parallelism": 2, "completions": 2}), json!({}));
    check(
        &never,
        &["a Failed", "b Running"],
        expect![[r#"
        delete b
        status active 0 terminating 1 succeeded 0 failed 0 and a b FailureTarget=True
        untrack a b"#]],
    );
    let in_place = json!({"metadata": {"labels": {"uid": "j"}}, "spec": {"restartPolicy": "OnFailure", "containers": []}});
    let restarts = job(json!({"backoffLimit": 3, "template": in_place}), json!({}));
    check(
        &restarts,
        &["a Running restarts@2"],
        expect!["status active 1 terminating 0 succeeded 0 failed 0"],
    );
    check(
        &restarts,
        &["a Running restarts@3"],
        expect![[r#"
        delete a
        status active 0 terminating 1 succeeded 0 failed 0 and a FailureTarget=True
        untrack a"#]],
    );
}

#[test]
fn deleted_pods_fail_at_once_or_when_they_have_ended() {
    let plain = job(json!({}), json!({}));
    check(
        &plain,
        &["a Running deleting@95"],
        expect![[r#"
        create pi-
        status active 0 terminating 1 succeeded 0 failed 0 and a
        untrack a"#]],
    );
    let patient = job(json!({"podReplacementPolicy": "Failed"}), json!({}));
    check(
        &patient,
        &["a Running deleting@95"],
        expect!["status active 0 terminating 1 succeeded 0 failed 0"],
    );
    check(
        &patient,
        &["a Failed deleting@95 ended@80"],
        expect![[r#"
        create pi-
        status active 0 terminating 0 succeeded 0 failed 0 and a
        untrack a"#]],
    );
    let leaving = |mut job: Job| {
        job.metadata.deletion_timestamp = Some(Time(at(0)));
        job
    };
    check(
        &leaving(plain),
        &["a Running", "b Running deleting@95", "c Succeeded"],
        expect![[r#"
        status active 1 terminating 1 succeeded 0 and c failed 0 and b
        untrack a b c"#]],
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
        status active 1 terminating 0 succeeded 0 failed 0
        look again in 20 s"#]],
    );
    check_at(
        60,
        &late,
        &[],
        expect![[r#"
        status active 0 terminating 0 succeeded 0 failed 0 FailureTarget=True Failed=True
        Warning DeadlineExceeded: Job was active longer than specified deadline"#]],
    );
    check_at(
        60,
        &late,
        &["a Running"],
        expect![[r#"
        delete a
        status active 0 terminating 1 succeeded 0 failed 0 and a FailureTarget=True
        untrack a"#]],
    );
    let suspended = job(json!({"suspend": true}), json!({}));
    check(
        &suspended,
        &["a Running"],
        expect![[r#"
        dismiss a
        Normal Suspended: Job suspended
        status active 0 terminating 1 succeeded 0 failed 0 Suspended=True not started"#]],
    );
    let condition = json!([{"type": "Suspended", "status": "True"}]);
    let resumed = job(json!({"suspend": false}), json!({"startTime": null, "conditions": condition}));
    check(
        &resumed,
        &[],
        expect![[r#"
        create pi-
        Normal Resumed: Job resumed
        status active 0 terminating 0 succeeded 0 failed 0 Suspended=False"#]],
    );
    let complete = json!([{"type": "Complete", "status": "True", "lastTransitionTime": at(50).to_string()}]);
    let done = job(json!({"ttlSecondsAfterFinished": 100}), json!({"conditions": complete}));
    check(&done, &["a Succeeded"], expect!["look again in 50 s"]);
    check_at(150, &done, &["a Succeeded"], expect!["expire"]);
    let kept = job(json!({}), json!({"conditions": complete}));
    check(&kept, &["a Succeeded"], expect![[""]]);
    let foreign = job(json!({"managedBy": "example.com/other"}), json!({}));
    check(&foreign, &[], expect![[""]]);
    let own = job(json!({"managedBy": "kubernetes.io/job-controller"}), json!({}));
    check(&own, &["a Running"], expect!["status active 1 terminating 0 succeeded 0 failed 0"]);
}

#[test]
fn indexes_are_done_each_once() {
    let indexed = |spec: Value, status: Value| {
        let mut all = json!({"completionMode": "Indexed", "completions": 4, "parallelism": 2});
        spec.as_object().into_iter().flatten().for_each(|(key, value)| all[key] = value.clone());
        job(all, status)
    };
    let plain = |status: Value| indexed(json!({}), status);
    check(
        &plain(json!({})),
        &["a Succeeded index@0", "b Running index@2"],
        expect![[r#"
        create pi-1-
        status active 1 terminating 0 succeeded 1 failed 0 done 0
        untrack a"#]],
    );
    // The Pods of two are gone; the status remembers them.
    let remembered = plain(json!({"completedIndexes": "0-1", "succeeded": 2}));
    check(
        &remembered,
        &["c Succeeded index@2", "d Succeeded index@3"],
        expect![[r#"
            status active 0 terminating 0 succeeded 4 failed 0 done 0-3 SuccessCriteriaMet=True
            untrack c d"#]],
    );
    check(
        &remembered,
        &["c Succeeded index@2 counted", "d Succeeded index@3"],
        expect![[r#"
        create pi-2-
        status active 0 terminating 0 succeeded 3 failed 0 done 0,1,3
        untrack d"#]],
    );
    // Twice the same, one that is not asked for, and one without.
    check(
        &plain(json!({})),
        &["a Pending index@1", "b Running index@1", "c Running index@4", "d Running"],
        expect![[r#"
            dismiss d c a
            status active 1 terminating 3 succeeded 0 failed 0"#]],
    );
    // It has become smaller, and larger.
    let smaller = indexed(json!({"completions": 2}), json!({"completedIndexes": "0,3", "succeeded": 2}));
    check(
        &smaller,
        &["a Running index@1", "b Running index@2"],
        expect![[r#"
        dismiss b
        status active 1 terminating 1 succeeded 1 failed 0 done 0"#]],
    );
    let larger = indexed(
        json!({"completions": 6, "parallelism": 6}),
        json!({"completedIndexes": "0-3", "succeeded": 4}),
    );
    check(
        &larger,
        &[],
        expect![[r#"
        create pi-4- pi-5-
        status active 0 terminating 0 succeeded 4 failed 0 done 0-3"#]],
    );
    let made = indexed::with_index(Pod::default(), &"pi".repeat(30), 3);
    assert_eq!(indexed::index(&made), Some(3));
    assert_eq!(made.metadata.generate_name, Some(format!("{}-3-", &"pi".repeat(30)[..55])));
    assert_eq!(made.spec.and_then(|s| s.hostname), Some(format!("{}-3", "pi".repeat(30))));
}

#[test]
fn indexes_fail_each_by_itself() {
    let by_index = |spec: Value, status: Value| {
        let mut all = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3,
            "backoffLimit": 2_147_483_647, "backoffLimitPerIndex": 1});
        spec.as_object().into_iter().flatten().for_each(|(key, value)| all[key] = value.clone());
        job(all, status)
    };
    let plain = |status: Value| by_index(json!({}), status);
    // The Pod that failed stays until its replacement has taken over its failures, and each index waits for itself.
    check_at(
        5,
        &plain(json!({})),
        &["a Failed index@0 failures@0 ended@0", "b Running index@1"],
        expect![[r#"
            create pi-2-(failure-count 0)
            status active 1 terminating 0 succeeded 0 failed 0 lost 
            look again in 5 s"#]],
    );
    check_at(
        10,
        &plain(json!({})),
        &["a Failed index@0 failures@0 ended@0", "b Running index@1", "c Running index@2"],
        expect![[r#"
            create pi-0-(failure-count 1)
            status active 2 terminating 0 succeeded 0 failed 0 lost "#]],
    );
    check_at(
        11,
        &plain(json!({})),
        &[
            "a Failed index@0 failures@0 ended@0",
            "a2 Running index@0 failures@1",
            "b Running index@1",
            "c Running index@2",
        ],
        expect![[r#"
            status active 3 terminating 0 succeeded 0 failed 0 and a lost 
            untrack a"#]],
    );
    // The second failure is one too many.
    check(
        &plain(json!({"failed": 1})),
        &["a2 Failed index@0 failures@1 ended@90", "b Running index@1", "c Running index@2"],
        expect![[r#"
            status active 2 terminating 0 succeeded 0 failed 1 and a2 lost 0
            untrack a2"#]],
    );
    let lost = json!({"failed": 2, "failedIndexes": "0"});
    check(
        &plain(lost.clone()),
        &["b Running index@1", "c Succeeded index@2"],
        expect![[r#"
        status active 1 terminating 0 succeeded 1 failed 2 done 2 lost 0
        untrack c"#]],
    );
    check(
        &plain(lost.clone()),
        &["b Succeeded index@1", "c Succeeded index@2"],
        expect![[r#"
            status active 0 terminating 0 succeeded 2 failed 2 done 1,2 lost 0 FailureTarget=True
            untrack b c"#]],
    );
    let few = by_index(json!({"maxFailedIndexes": 0}), lost);
    check(
        &few,
        &["b Running index@1"],
        expect![[r#"
        delete b
        status active 0 terminating 1 succeeded 0 failed 2 and b lost 0 FailureTarget=True
        untrack b"#]],
    );
    let policy = json!({"rules": [
        {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]});
    let ruled = by_index(json!({"podFailurePolicy": policy}), json!({}));
    check(
        &ruled,
        &[
            "a Failed index@0 failures@0 code@42 ended@0",
            "b Failed index@1 failures@0 holds@DisruptionTarget ended@0",
            "c Running index@2",
        ],
        expect![[r#"
            create pi-1-(failure-count 0)(ignored-failure-count 1)
            status active 1 terminating 0 succeeded 0 failed 0 and a lost 0
            untrack a"#]],
    );
}

#[test]
fn policies_say_what_failures_mean() {
    let rule = |action: &str, when: Value| {
        let mut rule = when;
        rule["action"] = json!(action);
        rule
    };
    let codes =
        |operator: &str, values: &[i32]| json!({"onExitCodes": {"operator": operator, "values": values}});
    let policy = json!({"rules": [
        rule("Ignore", json!({"onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]})),
        rule("Ignore", json!({"onExitCodes": {"containerName": "other", "operator": "In", "values": [3]}})),
        rule("Count", codes("In", &[2])),
        rule("FailJob", codes("NotIn", &[1])),
    ]});
    let ruled = |limit: i32| job(json!({"backoffLimit": limit, "podFailurePolicy": policy}), json!({}));
    check(
        &ruled(0),
        &["a Failed holds@DisruptionTarget ended@0"],
        expect![[r#"
        create pi-
        status active 0 terminating 0 succeeded 0 failed 0
        untrack a"#]],
    );
    check(
        &ruled(0),
        &["a Failed code@2"],
        expect![[r#"
        status active 0 terminating 0 succeeded 0 failed 0 and a FailureTarget=True
        untrack a"#]],
    );
    check(
        &ruled(6),
        &["a Failed code@1"],
        expect![[r#"
        create pi-
        status active 0 terminating 0 succeeded 0 failed 0 and a
        untrack a"#]],
    );
    check(
        &ruled(6),
        &["a Failed code@3"],
        expect![[r#"
        status active 0 terminating 0 succeeded 0 failed 0 and a FailureTarget=True
        untrack a"#]],
    );
    check(&ruled(6), &["a Running code@3"], expect!["status active 1 terminating 0 succeeded 0 failed 0"]);
    // Deleted, but how it ended is not known yet.
    check(
        &ruled(6),
        &["a Running deleting@90"],
        expect!["status active 0 terminating 1 succeeded 0 failed 0"],
    );
}

#[test]
fn some_indexes_may_be_enough() {
    let of = |rules: Value| {
        job(
            json!({"completionMode": "Indexed", "completions": 5, "parallelism": 5, "successPolicy": {"rules": rules}}),
            json!({}),
        )
    };
    let pods = [
        "a Succeeded index@0",
        "b Running index@1",
        "c Succeeded index@2",
        "d Running index@3",
        "e Failed index@4 ended@0",
    ];
    check(
        &of(json!([{"succeededCount": 3}, {"succeededIndexes": "1-3"}])),
        &pods,
        expect![[r#"
        create pi-4-
        status active 2 terminating 0 succeeded 2 failed 0 and e done 0,2
        untrack a c e"#]],
    );
    check(
        &of(json!([{"succeededIndexes": "1-3"}, {"succeededIndexes": "0,2"}])),
        &pods,
        expect![[r#"
        delete b d
        status active 0 terminating 2 succeeded 2 failed 0 and e done 0,2 SuccessCriteriaMet=True
        untrack a b c d e"#]],
    );
    check(
        &of(json!([{"succeededIndexes": "1-3", "succeededCount": 1}])),
        &pods,
        expect![[r#"
        delete b d
        status active 0 terminating 2 succeeded 2 failed 0 and e done 0,2 SuccessCriteriaMet=True
        untrack a b c d e"#]],
    );
}

/// What is left of the world when some writes have been done: the Job and its Pods.
struct World {
    job: Job,
    pods: Vec<Arc<Pod>>,
    made: usize,
}

impl World {
    /// Runs a pass, of whose actions only the first ones are carried out, as where the process ends in between.
    fn pass(&mut self, memory: &mut Memory, second: i64, most: usize) -> usize {
        let observed = Observed { job: &self.job, candidates: self.pods.clone(), memory };
        let (actions, _) = reconcile(&observed, at(second));
        let done = actions.len().min(most);
        for action in actions.into_iter().take(most) {
            self.carry_out(action, memory);
        }
        self.pods.retain(|pod| pod.metadata.deletion_timestamp.is_none() || has_finalizer(pod));
        done
    }

    fn carry_out(&mut self, action: Action, memory: &mut Memory) {
        let mut change = |pods: &[Arc<Pod>], change: &dyn Fn(&mut Pod)| {
            for pod in self.pods.iter_mut().filter(|p| pods.iter().any(|o| o.metadata.uid == p.metadata.uid))
            {
                change(Arc::make_mut(pod));
            }
        };
        let untrack = |pod: &mut Pod| pod.metadata.finalizers = None;
        let delete = |pod: &mut Pod| pod.metadata.deletion_timestamp = Some(Time(at(0)));
        match action {
            Action::Create(pods) => {
                for mut pod in pods {
                    self.made += 1;
                    let name = format!("p{}", self.made);
                    (pod.metadata.name, pod.metadata.uid) = (Some(name.clone()), Some(name));
                    self.pods.push(Arc::new(pod));
                }
            }
            Action::Delete(pods) => change(&pods, &delete),
            Action::Dismiss(pods) => {
                change(&pods, &untrack);
                change(&pods, &delete);
            }
            Action::Untrack(pods) => change(&pods, &untrack),
            Action::Status(status) => self.job.status = Some(*status),
            Action::Remember(backoff) => memory.backoff = Some(backoff),
            Action::Event(..) => {}
            other => panic!("not expected: {other:?}"),
        }
    }

    /// Ends each Pod that runs: every third fails, and every fifth is deleted by somebody.
    fn end_pods(&mut self) {
        let first = self.made - self.pods.iter().filter(|pod| !is_ended(pod)).count();
        for (n, pod) in self.pods.iter_mut().filter(|pod| !is_ended(pod)).enumerate() {
            let n = first + n;
            let pod = Arc::make_mut(pod);
            if n % 5 == 4 {
                pod.metadata.deletion_timestamp = Some(Time(at(0)));
            } else {
                let phase = if n % 3 == 2 { "Failed" } else { "Succeeded" };
                pod.status = Some(serde_json::from_value(json!({"phase": phase})).expect("a status"));
            }
        }
    }
}

#[test]
fn no_pod_is_counted_twice_or_forgotten_wherever_a_process_ends() {
    for crash in 0..6 {
        let spec = json!({"completions": 20, "parallelism": 4, "backoffLimit": 100});
        let mut world = World { job: job(spec, json!({})), pods: Vec::new(), made: 0 };
        let mut second = 0;
        for round in 0..200 {
            // Nobody remembers anything after a crash.
            let mut memory = Memory::default();
            second += 1000;
            world.pass(&mut memory, second, crash + usize::from(round % 2 == 0));
            for _ in 0..4 {
                world.pass(&mut memory, second, usize::MAX);
            }
            world.end_pods();
            if finish::ended(&world.job).is_some() {
                break;
            }
        }
        let status = world.job.status.clone().unwrap_or_default();
        assert_eq!(
            (status.succeeded, size(status.failed)),
            (Some(20), world.made - 20),
            "crash after {crash} actions: {}",
            status_line(&status)
        );
        assert!(finish::holds(&status, "Complete"), "{}", status_line(&status));
    }
}
