//! Lives of Pods as tables: what happens, and what is begun then.

use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::Container;
use serde_json::{Value, json};

use super::*;

struct World {
    pod: Option<Pod>,
    record: PodRecord,
    now: Now,
}

impl World {
    fn new(spec: Value) -> Self {
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec});
        Self {
            pod: Some(serde_json::from_value(pod).expect("a Pod")),
            record: PodRecord::default(),
            now: Now {
                monotonic: Duration::from_secs(1000),
                wall: Timestamp::from_second(50_000).expect("a time"),
            },
        }
    }

    fn container(&mut self, name: &str) -> Option<&mut Container> {
        self.pod.as_mut()?.spec.as_mut()?.containers.iter_mut().find(|c| c.name == name)
    }

    fn happen(&mut self, event: &str) {
        let words: Vec<&str> = event.split_whitespace().collect();
        let now = self.now;
        match words.as_slice() {
            [] => {}
            ["prepared"] => {
                self.record.sandbox = SandboxPhase::Ready;
                self.record.address = Some([10, 0, 0, 1].into());
            }
            ["unprepared"] => {
                let retry_at = now.monotonic + Duration::from_secs(1);
                self.record.sandbox = SandboxPhase::Failed { message: "no".into(), retry_at };
            }
            ["died"] => {
                self.record.lose_sandbox(now);
                self.record.sandbox = SandboxPhase::Dead;
            }
            ["discarded"] => self.record.start_over(self.pod.as_ref()),
            ["released"] => self.record.sandbox = SandboxPhase::Released,
            ["runs", names @ ..] => {
                for name in names {
                    let image = self.container(name).and_then(|c| c.image.clone()).unwrap_or_default();
                    let container = self.record.container_mut(name);
                    container.image = image;
                    let post_start = if name.starts_with("started") { Hook::Pending } else { Hook::Done };
                    container.run = Run::Running { started_at: now.wall, post_start };
                    container.waiting = None;
                    if post_start == Hook::Done {
                        container.come_up(None);
                    }
                }
            }
            ["exits", name, code] => {
                let container = self.record.container_mut(name);
                let started_at = match container.run {
                    Run::Running { started_at, .. } => Some(started_at),
                    _ => None,
                };
                container.ended(Ended {
                    code: code.parse().expect("a number"),
                    reason: "Error".into(),
                    message: String::new(),
                    started_at,
                    finished_at: now.wall,
                    seen: now.monotonic,
                    attempt: container.attempt,
                });
            }
            ["unpulled", name] => self.record.container_mut(name).not_started(Waiting {
                reason: "ErrImagePull".into(),
                message: "no".into(),
                since: now.monotonic,
                retry_at: now.monotonic + Duration::from_secs(10),
                failures: 0,
            }),
            ["unwell", name] => {
                self.record.container_mut(name).restart_requested = Some(("unwell".into(), None))
            }
            ["after", seconds] => {
                let by = Duration::from_secs(seconds.parse().expect("a number"));
                self.now = Now { monotonic: now.monotonic + by, wall: now.wall + by };
            }
            ["deleted", grace] => {
                let meta = &mut self.pod.as_mut().expect("it is there").metadata;
                meta.deletion_timestamp =
                    serde_json::from_value(json!("2026-01-01T00:00:00Z")).expect("a time");
                meta.deletion_grace_period_seconds = grace.parse().ok();
            }
            ["image", name, image] => {
                self.container(name).expect("it is there").image = Some((*image).to_owned());
            }
            ["withdrawn"] => self.record.termination.as_mut().expect("it ends").withdrawn = true,
            ["hooked", name] => {
                self.record.container_mut(name).stop.as_mut().expect("it stops").pre_stop = Hook::Done;
            }
            ["up", name] => self.record.container_mut(name).come_up(None),
            ["evicted"] => {
                self.record.failed = Some(PodFailure {
                    kind: FailureKind::Evicted,
                    reason: "Evicted".into(),
                    message: "too much".into(),
                });
            }
            ["gone"] => self.pod = None,
            other => panic!("{other:?}"),
        }
    }

    /// Everything that is begun now, and when to look again.
    fn settle(&mut self) -> String {
        let mut begun = Vec::new();
        loop {
            let plan = decide(self.pod.as_ref(), &self.record, self.now);
            for action in &plan.actions {
                let hooked =
                    matches!(action, Action::BeginStop { container, .. } if container.starts_with("hooked"));
                self.record.begin(action, hooked, self.now);
                begun.push(show(action));
            }
            let last = matches!(plan.actions.last(), None | Some(Action::Delete | Action::Forget));
            if last {
                if let Some(wake) = plan.wake {
                    begun.push(format!("(wake in {:?})", wake - self.now.monotonic));
                }
                return begun.join(", ");
            }
            assert!(begun.len() < 50, "it never settles: {begun:?}");
        }
    }
}

fn show(action: &Action) -> String {
    match action {
        Action::Start { container } => format!("start {container}"),
        Action::Fail { reason, .. } => format!("fail {reason}"),
        Action::BeginTermination { grace } => format!("terminate {grace:?}"),
        Action::Hasten { grace } => format!("hasten {grace:?}"),
        Action::BeginStop { container, grace, .. } => format!("stop {container} {grace:?}"),
        Action::PostStart { container } => format!("postStart {container}"),
        Action::PreStop { container } => format!("preStop {container}"),
        Action::Signal { container } => format!("signal {container}"),
        Action::Kill { container } => format!("kill {container}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

fn check(spec: Value, events: &[&str], expect: Expect) {
    let mut world = World::new(spec);
    let mut story = String::new();
    for event in events {
        world.happen(event);
        let begun = world.settle();
        story.push_str(&format!("{event:<14} | {begun}\n"));
    }
    expect.assert_eq(&story);
}

#[test]
fn a_pod_is_started_and_deleted() {
    check(
        json!({"containers": [{"name": "a"}, {"name": "b"}]}),
        &[
            "",
            "prepared",
            "runs a b",
            "deleted 30",
            "withdrawn",
            "exits a 0",
            "after 30",
            "exits b 137",
            "released",
            "gone",
        ],
        expect![[r#"
                           | prepare
            prepared       | start a, start b
            runs a b       | 
            deleted 30     | terminate 30s, (wake in 30s)
            withdrawn      | stop a 30s, stop b 30s, signal a, signal b, (wake in 30s)
            exits a 0      | (wake in 30s)
            after 30       | kill b, (wake in 10s)
            exits b 137    | release
            released       | delete
            gone           | forget
        "#]],
    );
}

#[test]
fn deletion_meets_every_moment() {
    let one = || json!({"containers": [{"name": "a"}]});
    check(
        one(),
        &["deleted 30"],
        expect![[r#"
        deleted 30     | delete
    "#]],
    );
    check(
        one(),
        &["", "deleted 30", "prepared", "released"],
        expect![[r#"
                       | prepare
        deleted 30     | 
        prepared       | terminate 30s, release
        released       | delete
    "#]],
    );
    // Traffic that does not go away is not waited for beyond the grace period.
    check(
        one(),
        &["", "prepared", "runs a", "deleted 5", "after 5"],
        expect![[r#"
                       | prepare
        prepared       | start a
        runs a         | 
        deleted 5      | terminate 5s, (wake in 5s)
        after 5        | stop a 0ns, signal a, (wake in 2s)
    "#]],
    );
    // A second deletion shortens the period.
    check(
        one(),
        &["", "prepared", "runs a", "deleted 30", "withdrawn", "deleted 2", "after 2"],
        expect![[r#"
                           | prepare
            prepared       | start a
            runs a         | 
            deleted 30     | terminate 30s, (wake in 30s)
            withdrawn      | stop a 30s, signal a, (wake in 30s)
            deleted 2      | hasten 2s, (wake in 2s)
            after 2        | kill a, (wake in 10s)
        "#]],
    );
    // The object is gone: by force, or while nobody looked.
    check(
        one(),
        &["", "prepared", "runs a", "gone", "withdrawn", "exits a 0", "released"],
        expect![[r#"
                       | prepare
        prepared       | start a
        runs a         | 
        gone           | terminate 1s, (wake in 1s)
        withdrawn      | stop a 1s, signal a, (wake in 1s)
        exits a 0      | release
        released       | forget
    "#]],
    );
    check(
        one(),
        &["", "unprepared", "deleted 30", "released"],
        expect![[r#"
                       | prepare
        unprepared     | (wake in 1s)
        deleted 30     | release
        released       | delete
    "#]],
    );
}

#[test]
fn what_a_lost_sandbox_leaves_is_taken_down() {
    let one = || json!({"containers": [{"name": "a"}]});
    check(
        one(),
        &["", "prepared", "runs a", "died", "deleted 30", "discarded", "released"],
        expect![[r#"
                       | prepare
        prepared       | start a
        runs a         | 
        died           | discard
        deleted 30     | 
        discarded      | release
        released       | delete
    "#]],
    );
    check(
        one(),
        &["", "prepared", "runs a", "died", "gone", "discarded", "released"],
        expect![[r#"
                       | prepare
        prepared       | start a
        runs a         | 
        died           | discard
        gone           | 
        discarded      | release
        released       | forget
    "#]],
    );
}

#[test]
fn what_has_ended_for_good_does_not_run_again_in_a_new_sandbox() {
    check(
        json!({"restartPolicy": "OnFailure", "containers": [{"name": "a"}, {"name": "b"}]}),
        &["", "prepared", "runs a b", "exits a 0", "died", "discarded", "prepared", "runs b", "exits b 0"],
        expect![[r#"
                       | prepare
        prepared       | start a, start b
        runs a b       | 
        exits a 0      | 
        died           | discard
        discarded      | prepare
        prepared       | start b
        runs b         | 
        exits b 0      | release
    "#]],
    );
}

#[test]
fn a_start_that_fails_late_does_not_touch_what_runs() {
    check(
        json!({"containers": [{"name": "a"}]}),
        &["", "prepared", "died", "discarded", "prepared", "runs a", "unpulled a"],
        expect![[r#"
                       | prepare
        prepared       | start a
        died           | discard
        discarded      | prepare
        prepared       | start a
        runs a         | 
        unpulled a     | 
    "#]],
    );
}

#[test]
fn another_image_restarts_its_container() {
    check(
        json!({"containers": [{"name": "a", "image": "i:1"}, {"name": "b", "image": "j"}]}),
        &["", "prepared", "runs a b", "image a i:2", "exits a 143", "runs a"],
        expect![[r#"
                       | prepare
        prepared       | start a, start b
        runs a b       | 
        image a i:2    | stop a 30s, signal a, (wake in 30s)
        exits a 143    | start a
        runs a         | 
    "#]],
    );
}

#[test]
fn a_deletion_shortens_a_stop_that_has_begun() {
    check(
        json!({"containers": [{"name": "a"}]}),
        &["", "prepared", "runs a", "unwell a", "deleted 5", "withdrawn", "after 5"],
        expect![[r#"
                           | prepare
            prepared       | start a
            runs a         | 
            unwell a       | stop a 30s, signal a, (wake in 30s)
            deleted 5      | terminate 5s, (wake in 5s)
            withdrawn      | (wake in 5s)
            after 5        | kill a, (wake in 10s)
        "#]],
    );
}

#[test]
fn hooks_come_before_the_signal() {
    check(
        json!({"containers": [{"name": "hooked"}]}),
        &["", "prepared", "runs hooked", "deleted 10", "withdrawn", "after 3", "hooked hooked", "after 7"],
        expect![[r#"
                           | prepare
            prepared       | start hooked
            runs hooked    | 
            deleted 10     | terminate 10s, (wake in 10s)
            withdrawn      | stop hooked 10s, preStop hooked, (wake in 10s)
            after 3        | (wake in 7s)
            hooked hooked  | signal hooked, (wake in 7s)
            after 7        | kill hooked, (wake in 10s)
        "#]],
    );
    // A hook that takes all the time leaves two seconds.
    check(
        json!({"containers": [{"name": "hooked"}]}),
        &["", "prepared", "runs hooked", "deleted 10", "withdrawn", "after 10", "after 2"],
        expect![[r#"
                           | prepare
            prepared       | start hooked
            runs hooked    | 
            deleted 10     | terminate 10s, (wake in 10s)
            withdrawn      | stop hooked 10s, preStop hooked, (wake in 10s)
            after 10       | signal hooked, (wake in 2s)
            after 2        | kill hooked, (wake in 10s)
        "#]],
    );
}

#[test]
fn a_post_start_hook_holds_back_what_comes_after() {
    let started =
        |name: &str| json!({"name": name, "lifecycle": {"postStart": {"exec": {"command": ["true"]}}}});
    check(
        json!({"containers": [started("started"), {"name": "b"}]}),
        &[
            "",
            "prepared",
            "runs started",
            "up started",
            "runs b",
            "exits started 1",
            "exits b 1",
            "runs started",
            "up started",
        ],
        expect![[r#"
                           | prepare
            prepared       | start started
            runs started   | postStart started
            up started     | start b
            runs b         | 
            exits started 1 | start started
            exits b 1      | 
            runs started   | postStart started
            up started     | start b
        "#]],
    );
    // A hook that fails ends its container, and with it the wait of the others.
    check(
        json!({"containers": [started("started"), {"name": "b"}]}),
        &[
            "",
            "prepared",
            "runs started",
            "unwell started",
            "exits started 143",
            "runs started",
            "up started",
        ],
        expect![[r#"
                           | prepare
            prepared       | start started
            runs started   | postStart started
            unwell started | stop started 30s, signal started, (wake in 30s)
            exits started 143 | start started
            runs started   | postStart started
            up started     | start b
        "#]],
    );
    // What cannot start for another reason holds nothing back.
    check(
        json!({"containers": [started("started"), {"name": "b"}]}),
        &["", "prepared", "unpulled started"],
        expect![[r#"
                           | prepare
            prepared       | start started
            unpulled started | start b, (wake in 2s)
        "#]],
    );
    let mut sidecar = started("started");
    sidecar["restartPolicy"] = json!("Always");
    check(
        json!({"initContainers": [sidecar, {"name": "i"}], "containers": [{"name": "a"}]}),
        &["", "prepared", "runs started", "up started", "runs i", "deleted 5"],
        expect![[r#"
                           | prepare
            prepared       | start started
            runs started   | postStart started
            up started     | start i
            runs i         | 
            deleted 5      | terminate 5s, (wake in 5s)
        "#]],
    );
    check(
        json!({"containers": [started("started")]}),
        &["", "prepared", "runs started", "deleted 5", "withdrawn", "exits started 0"],
        expect![[r#"
                           | prepare
            prepared       | start started
            runs started   | postStart started
            deleted 5      | terminate 5s, (wake in 5s)
            withdrawn      | stop started 5s, signal started, (wake in 5s)
            exits started 0 | release
        "#]],
    );
}

#[test]
fn restarts_back_off_and_are_forgiven() {
    check(
        json!({"containers": [{"name": "a"}]}),
        &[
            "",
            "prepared",
            "runs a",
            "exits a 1",
            "runs a",
            "exits a 1",
            "after 10",
            "runs a",
            "exits a 0",
            "after 20",
            "runs a",
            "after 700",
            "exits a 1",
        ],
        expect![[r#"
                           | prepare
            prepared       | start a
            runs a         | 
            exits a 1      | start a
            runs a         | 
            exits a 1      | (wake in 10s)
            after 10       | start a
            runs a         | 
            exits a 0      | (wake in 20s)
            after 20       | start a
            runs a         | 
            after 700      | 
            exits a 1      | start a
        "#]],
    );
    let never = || json!({"restartPolicy": "Never", "containers": [{"name": "a"}, {"name": "b"}]});
    check(
        never(),
        &["", "prepared", "runs a b", "exits a 1", "exits b 0", "released"],
        expect![[r#"
                       | prepare
        prepared       | start a, start b
        runs a b       | 
        exits a 1      | 
        exits b 0      | release
        released       | 
    "#]],
    );
    let on_failure = json!({"restartPolicy": "OnFailure", "containers": [{"name": "a"}]});
    check(
        on_failure,
        &["", "prepared", "runs a", "exits a 1", "runs a", "exits a 0"],
        expect![[r#"
                       | prepare
        prepared       | start a
        runs a         | 
        exits a 1      | start a
        runs a         | 
        exits a 0      | release
    "#]],
    );
}

#[test]
fn init_containers_come_first_and_in_order() {
    let spec = |policy: &str| json!({"restartPolicy": policy, "initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}]});
    check(
        spec("Always"),
        &[
            "",
            "prepared",
            "runs i",
            "exits i 1",
            "runs i",
            "exits i 0",
            "runs j",
            "exits j 0",
            "runs a",
            "exits a 0",
        ],
        expect![[r#"
                           | prepare
            prepared       | start i
            runs i         | 
            exits i 1      | start i
            runs i         | 
            exits i 0      | start j
            runs j         | 
            exits j 0      | start a
            runs a         | 
            exits a 0      | start a
        "#]],
    );
    check(
        spec("Never"),
        &["", "prepared", "runs i", "exits i 3", "released"],
        expect![[r#"
                       | prepare
        prepared       | start i
        runs i         | 
        exits i 3      | release
        released       | 
    "#]],
    );
    check(
        json!({"restartPolicy": "Never", "initContainers": [{"name": "s", "restartPolicy": "Always"}],
               "containers": [{"name": "a"}]}),
        &["", "prepared", "runs s", "runs a", "exits s 1", "runs s", "exits a 0", "exits s 0"],
        expect![[r#"
                           | prepare
            prepared       | start s
            runs s         | start a
            runs a         | 
            exits s 1      | start s
            runs s         | 
            exits a 0      | stop s 30s, signal s, (wake in 30s)
            exits s 0      | release
        "#]],
    );
}

#[test]
fn what_fails_is_tried_again() {
    let one = || json!({"containers": [{"name": "a"}]});
    check(
        one(),
        &["", "unprepared", "after 1", "prepared", "unpulled a", "after 2", "after 8"],
        expect![[r#"
                       | prepare
        unprepared     | (wake in 1s)
        after 1        | prepare
        prepared       | start a
        unpulled a     | (wake in 2s)
        after 2        | (wake in 8s)
        after 8        | start a
    "#]],
    );
    check(
        one(),
        &["", "prepared", "runs a", "died", "discarded", "prepared", "runs a"],
        expect![[r#"
                       | prepare
        prepared       | start a
        runs a         | 
        died           | discard
        discarded      | prepare
        prepared       | start a
        runs a         | 
    "#]],
    );
    check(
        one(),
        &["", "prepared", "runs a", "unwell a", "exits a 143", "runs a"],
        expect![[r#"
                       | prepare
        prepared       | start a
        runs a         | 
        unwell a       | stop a 30s, signal a, (wake in 30s)
        exits a 143    | start a
        runs a         | 
    "#]],
    );
}

#[test]
fn a_deadline_ends_the_pod() {
    check(
        json!({"activeDeadlineSeconds": 60, "terminationGracePeriodSeconds": 5, "containers": [{"name": "a"}]}),
        &["", "prepared", "runs a", "after 60", "exits a 143", "released", "deleted 5"],
        expect![[r#"
                           | prepare, (wake in 60s)
            prepared       | start a, (wake in 60s)
            runs a         | (wake in 60s)
            after 60       | fail DeadlineExceeded, stop a 5s, signal a, (wake in 5s)
            exits a 143    | release
            released       | 
            deleted 5      | delete
        "#]],
    );
}

#[test]
fn an_evicted_pod_is_stopped_at_once_and_stays_failed() {
    check(
        json!({"containers": [{"name": "a"}]}),
        &["", "prepared", "runs a", "evicted", "after 1", "exits a 137", "released"],
        expect![[r#"
                           | prepare
            prepared       | start a
            runs a         | 
            evicted        | stop a 1s, signal a, (wake in 1s)
            after 1        | kill a, (wake in 10s)
            exits a 137    | release
            released       | 
        "#]],
    );
}

#[test]
fn restarts_are_counted() {
    let mut world = World::new(json!({"containers": [{"name": "a"}]}));
    let events = [
        "",
        "prepared",
        "unpulled a",
        "after 10",
        "runs a",
        "exits a 1",
        "unpulled a",
        "after 10",
        "runs a",
        "died",
        "discarded",
        "prepared",
    ];
    let attempts: Vec<u32> = events
        .iter()
        .map(|event| {
            world.happen(event);
            world.settle();
            world.record.container("a").attempt
        })
        .collect();
    assert_eq!(attempts, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2]);
}

/// A Deployment's Pods are always restarted by their own field; how often their containers are is an annotation.
#[test]
fn containers_run_as_often_as_their_annotation_says() {
    let restart = json!({"once": "no", "thrice": "on-failure:2"}).to_string();
    let spec = json!({"containers": [{"name": "once", "image": "a"}, {"name": "thrice"}]});
    let mut world = World::new(spec);
    let metadata = &mut world.pod.as_mut().expect("it is there").metadata;
    metadata.annotations = Some([(yado_types::labels::RESTART.to_owned(), restart)].into());
    let mut story = String::new();
    for event in [
        "",
        "prepared",
        "runs once thrice",
        "exits once 1",
        "exits thrice 1",
        "runs thrice",
        "exits thrice 1",
        "after 10",
        "runs thrice",
        "exits thrice 1",
        "after 3600",
        // Both have had their last run, and a new sandbox gives them no other.
        "died",
        "discarded",
        "prepared",
        "after 3600",
    ] {
        world.happen(event);
        story.push_str(&format!("{event:<16} | {}\n", world.settle()));
    }
    expect![[r#"
                         | prepare
        prepared         | start once, start thrice
        runs once thrice | 
        exits once 1     | 
        exits thrice 1   | start thrice
        runs thrice      | 
        exits thrice 1   | (wake in 10s)
        after 10         | start thrice
        runs thrice      | 
        exits thrice 1   | 
        after 3600       | 
        died             | discard
        discarded        | prepare
        prepared         | 
        after 3600       | 
    "#]]
    .assert_eq(&story);
    let pod = world.pod.expect("it is there");
    assert_eq!(outcome(pod.spec.as_ref().expect("a specification"), &world.record), None);
}

#[test]
fn what_went_with_its_machine_did_not_end_by_itself() {
    let restart = json!({"once": "no"}).to_string();
    let mut world = World::new(json!({"containers": [{"name": "once"}]}));
    let metadata = &mut world.pod.as_mut().expect("it is there").metadata;
    metadata.annotations = Some([(yado_types::labels::RESTART.to_owned(), restart)].into());
    let mut story = String::new();
    for event in ["", "prepared", "runs once", "died", "discarded", "prepared"] {
        world.happen(event);
        story.push_str(&format!("{event:<10} | {}\n", world.settle()));
    }
    expect![[r#"
                   | prepare
        prepared   | start once
        runs once  | 
        died       | discard
        discarded  | prepare
        prepared   | start once
    "#]]
    .assert_eq(&story);
}

#[test]
fn a_probe_counts_for_the_run_that_it_probed() {
    let started_at = Timestamp::UNIX_EPOCH;
    let container: Container =
        serde_json::from_value(json!({"name": "a", "readinessProbe": {}})).expect("a container");
    let check = |kind: ProbeKind, attempt: u32, success: bool, expect: (bool, bool, bool, bool)| {
        let mut record = PodRecord::default();
        let state = record.container_mut("a");
        state.attempt = 1;
        state.run = Run::Running { started_at, post_start: Hook::Done };
        let probed = Probed { container: "a".into(), attempt, kind, success, grace: None };
        let changed = record.probed(&probed, Some(&container));
        let state = record.container("a");
        assert_eq!(
            (changed, state.started, state.ready, state.restart_requested.is_some()),
            expect,
            "{probed:?}"
        );
    };
    check(ProbeKind::Startup, 1, true, (true, true, false, false));
    check(ProbeKind::Startup, 1, false, (true, false, false, true));
    check(ProbeKind::Readiness, 1, true, (true, false, true, false));
    check(ProbeKind::Readiness, 1, false, (false, false, false, false));
    check(ProbeKind::Liveness, 1, true, (false, false, false, false));
    check(ProbeKind::Liveness, 1, false, (true, false, false, true));
    check(ProbeKind::Readiness, 0, true, (false, false, false, false));
    check(ProbeKind::Liveness, 0, false, (false, false, false, false));
}

#[test]
fn a_post_start_hook_counts_for_the_run_that_it_belongs_to() {
    let running = |post_start| Run::Running { started_at: Timestamp::UNIX_EPOCH, post_start };
    let check = |run: Run, attempt: u32, success: bool, up: bool, restarts: bool| {
        let mut state = ContainerRecord { attempt: 1, run, ..ContainerRecord::default() };
        assert_eq!(state.post_start_ended(attempt, success, None), up, "{attempt} {success}");
        assert_eq!(state.restart_requested.is_some(), restarts, "{attempt} {success}");
    };
    check(running(Hook::Running), 1, true, true, false);
    check(running(Hook::Running), 1, false, false, true);
    check(running(Hook::Running), 0, true, false, false);
    check(running(Hook::Running), 0, false, false, false);
    check(Run::Absent, 1, true, false, false);
}

#[test]
fn what_ends_already_does_not_fail_and_what_waits_is_retried() {
    let mut record = PodRecord::default();
    let failure =
        || PodFailure { kind: FailureKind::Evicted, reason: "Evicted".into(), message: String::new() };
    assert!(record.fail(failure()));
    assert!(!record.fail(failure()), "it has failed already");
    let mut record = PodRecord::default();
    let now = Now { monotonic: Duration::from_secs(9), wall: Timestamp::UNIX_EPOCH };
    record.begin(&Action::BeginTermination { grace: Duration::from_secs(1) }, false, now);
    assert!(!record.fail(failure()), "it ends already");
    let late = Duration::from_secs(60);
    record.sandbox = SandboxPhase::Failed { message: "no".into(), retry_at: late };
    for (name, reason) in [("a", "ErrImagePull"), ("b", "CreateContainerConfigError")] {
        let (since, message) = (Duration::ZERO, String::new());
        let waiting = Waiting { reason: reason.into(), message, since, retry_at: late, failures: 0 };
        record.container_mut(name).waiting = Some(waiting);
    }
    record.retry_now(&["ErrImagePull"], now.monotonic);
    assert_eq!(record.sandbox, SandboxPhase::Failed { message: "no".into(), retry_at: now.monotonic });
    let retry_at = |name: &str| record.container(name).waiting.as_ref().map(|w| w.retry_at);
    assert_eq!((retry_at("a"), retry_at("b")), (Some(now.monotonic), Some(late)));
}
