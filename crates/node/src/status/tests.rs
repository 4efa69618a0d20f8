use std::time::Duration;

use expect_test::{Expect, expect};
use serde_json::json;

use super::*;
use crate::lifecycle::{Action, Waiting};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn ended(code: i32, attempt: u32) -> Ended {
    Ended {
        code,
        reason: if code == 0 { "Completed".into() } else { "Error".into() },
        message: String::new(),
        started_at: Some(at(5)),
        finished_at: at(9),
        seen: Duration::from_secs(90),
        attempt,
    }
}

/// One line for the Pod and one for each container.
fn show(status: &PodStatus) -> String {
    let conditions: Vec<_> = status
        .conditions
        .iter()
        .flatten()
        .map(|c| {
            format!(
                "{}={}{}",
                c.type_,
                c.status,
                c.reason.as_deref().map(|r| format!("({r})")).unwrap_or_default()
            )
        })
        .collect();
    let mut out = format!("{} {}\n", status.phase.as_deref().unwrap_or_default(), conditions.join(" "));
    let containers =
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    for c in containers {
        let state = serde_json::to_string(&c.state).expect("JSON");
        let last = serde_json::to_string(&c.last_state).expect("JSON");
        out.push_str(&format!(
            "{} ready={} restarts={} {state} last={last}\n",
            c.name, c.ready, c.restart_count
        ));
    }
    out
}

fn check(policy: &str, change: impl FnOnce(&mut PodRecord), expect: Expect) {
    let pod = json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {"restartPolicy": policy, "initContainers": [{"name": "i"}], "containers": [{"name": "a", "image": "redis"}]},
    });
    let pod: Pod = serde_json::from_value(pod).expect("a Pod");
    let now = Now { monotonic: Duration::from_secs(100), wall: at(100) };
    let mut record = PodRecord::default();
    record.begin(&Action::Prepare, false, now);
    change(&mut record);
    let status = of(&pod, &record, [192, 0, 2, 1].into(), now);
    expect.assert_eq(&show(&status));
    // What is written is what is wanted: nothing is written again.
    let written = Pod { status: Some(status.clone()), ..pod };
    assert_eq!(difference(&status, &of(&written, &record, [192, 0, 2, 1].into(), now)), None);
}

fn ready(record: &mut PodRecord) {
    record.sandbox = SandboxPhase::Ready;
    record.address = Some([10, 0, 0, 1].into());
    let init = record.container_mut("i");
    (init.run, init.attempted) = (Run::Exited(ended(0, 0)), true);
}

#[test]
fn states_are_shown_as_kubectl_users_know_them() {
    check(
        "Always",
        |_| {},
        expect![[r#"
        Pending PodReadyToStartContainers=False Initialized=False(ContainersNotInitialized) ContainersReady=False(ContainersNotReady) Ready=False(ContainersNotReady) PodScheduled=True
        i ready=false restarts=0 {"waiting":{"reason":"PodInitializing"}} last={}
        a ready=false restarts=0 {"waiting":{"reason":"PodInitializing"}} last={}
    "#]],
    );
    check(
        "Always",
        |r| {
            ready(r);
            let a = r.container_mut("a");
            (a.run, a.attempted) = (Run::Running { started_at: at(10), post_start: Hook::Done }, true);
            (a.started, a.ready) = (true, true);
        },
        expect![[r#"
            Running PodReadyToStartContainers=True Initialized=True ContainersReady=True Ready=True PodScheduled=True
            i ready=true restarts=0 {"terminated":{"containerID":"yado://u/i-0","exitCode":0,"finishedAt":"1970-01-01T00:00:09Z","reason":"Completed","startedAt":"1970-01-01T00:00:05Z"}} last={}
            a ready=true restarts=0 {"running":{"startedAt":"1970-01-01T00:00:10Z"}} last={}
        "#]],
    );
    check(
        "Always",
        |r| {
            ready(r);
            let a = r.container_mut("a");
            (a.run, a.attempted, a.attempt) = (Run::Exited(ended(1, 3)), true, 3);
            a.back_off = Duration::from_secs(80);
        },
        expect![[r#"
            Running PodReadyToStartContainers=True Initialized=True ContainersReady=False(ContainersNotReady) Ready=False(ContainersNotReady) PodScheduled=True
            i ready=true restarts=0 {"terminated":{"containerID":"yado://u/i-0","exitCode":0,"finishedAt":"1970-01-01T00:00:09Z","reason":"Completed","startedAt":"1970-01-01T00:00:05Z"}} last={}
            a ready=false restarts=3 {"waiting":{"message":"back-off 1m20s restarting failed container=a pod=p_n(u)","reason":"CrashLoopBackOff"}} last={"terminated":{"containerID":"yado://u/a-3","exitCode":1,"finishedAt":"1970-01-01T00:00:09Z","reason":"Error","startedAt":"1970-01-01T00:00:05Z"}}
        "#]],
    );
    check(
        "Never",
        |r| {
            ready(r);
            let a = r.container_mut("a");
            (a.run, a.attempted) = (Run::Exited(ended(1, 0)), true);
            r.sandbox = SandboxPhase::Released;
        },
        expect![[r#"
            Failed PodReadyToStartContainers=False Initialized=True ContainersReady=False(PodFailed) Ready=False(PodFailed) PodScheduled=True
            i ready=true restarts=0 {"terminated":{"containerID":"yado://u/i-0","exitCode":0,"finishedAt":"1970-01-01T00:00:09Z","reason":"Completed","startedAt":"1970-01-01T00:00:05Z"}} last={}
            a ready=false restarts=0 {"terminated":{"containerID":"yado://u/a-0","exitCode":1,"finishedAt":"1970-01-01T00:00:09Z","reason":"Error","startedAt":"1970-01-01T00:00:05Z"}} last={}
        "#]],
    );
}

fn waiting(since: u64, expect: Expect) {
    check(
        "Always",
        |r| {
            ready(r);
            let a = r.container_mut("a");
            a.attempted = true;
            a.waiting = Some(Waiting {
                reason: "ErrImagePull".into(),
                message: "no such image".into(),
                since: Duration::from_secs(since),
                retry_at: Duration::from_secs(110),
                failures: 0,
            });
        },
        expect,
    );
}

#[test]
fn a_failed_pull_turns_into_a_back_off() {
    waiting(
        100,
        expect![[r#"
        Pending PodReadyToStartContainers=True Initialized=True ContainersReady=False(ContainersNotReady) Ready=False(ContainersNotReady) PodScheduled=True
        i ready=true restarts=0 {"terminated":{"containerID":"yado://u/i-0","exitCode":0,"finishedAt":"1970-01-01T00:00:09Z","reason":"Completed","startedAt":"1970-01-01T00:00:05Z"}} last={}
        a ready=false restarts=0 {"waiting":{"message":"no such image","reason":"ErrImagePull"}} last={}
    "#]],
    );
    waiting(
        90,
        expect![[r#"
        Pending PodReadyToStartContainers=True Initialized=True ContainersReady=False(ContainersNotReady) Ready=False(ContainersNotReady) PodScheduled=True
        i ready=true restarts=0 {"terminated":{"containerID":"yado://u/i-0","exitCode":0,"finishedAt":"1970-01-01T00:00:09Z","reason":"Completed","startedAt":"1970-01-01T00:00:05Z"}} last={}
        a ready=false restarts=0 {"waiting":{"message":"Back-off pulling image \"redis\": ErrImagePull: no such image","reason":"ImagePullBackOff"}} last={}
    "#]],
    );
}

#[test]
fn a_difference_names_what_changed_and_what_went() {
    let old = PodStatus { phase: Some("Pending".into()), reason: Some("x".into()), ..Default::default() };
    let new = PodStatus { phase: Some("Running".into()), ..Default::default() };
    assert_eq!(difference(&old, &new), Some(json!({"phase": "Running", "reason": null})));
}
