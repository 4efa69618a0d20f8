use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

/// A CronJob that is due at each full hour, created at 09:00 of 2024-02-28, with fields of its spec and its status in YAML's
/// flow style.
fn cron_job(spec: Value, status: Value) -> CronJob {
    let mut value = json!({
        "metadata": {"name": "tidy", "namespace": "n", "uid": "c", "creationTimestamp": "2024-02-28T09:00:00Z"},
        "spec": {"schedule": "0 * * * *", "concurrencyPolicy": "Allow", "suspend": false,
            "successfulJobsHistoryLimit": 3, "failedJobsHistoryLimit": 1,
            "jobTemplate": {"metadata": {"labels": {"a": "b"}},
                "spec": {"template": {"spec": {"containers": []}}}}},
        "status": status,
    });
    for (name, field) in spec.as_object().into_iter().flatten() {
        value["spec"][name] = field.clone();
    }
    serde_json::from_value(value).expect("a CronJob")
}

/// A Job by its name and marks: `complete@HH:MM`, `failed`, `started@HH:MM`.
fn job(text: &str) -> Arc<Job> {
    let mut words = text.split_whitespace();
    let name = words.next().expect("a name");
    let mut value = json!({"metadata": {"name": name, "namespace": "n", "uid": name}, "status": {}});
    let at = |time: &str| json!(format!("2024-02-28T{time}:00Z"));
    for word in words {
        let (mark, time) = word.split_once('@').unwrap_or((word, ""));
        let status = &mut value["status"];
        match mark {
            "complete" => {
                status["conditions"] = json!([{"type": "Complete", "status": "True"}]);
                status["completionTime"] = at(time);
            }
            "failed" => status["conditions"] = json!([{"type": "Failed", "status": "True"}]),
            "started" => status["startTime"] = at(time),
            other => panic!("no mark {other}"),
        }
    }
    serde_json::from_value(value).map(Arc::new).expect("a Job")
}

fn names(jobs: &[Arc<Job>]) -> String {
    jobs.iter().map(|job| job.name_any()).collect::<Vec<_>>().join(" ")
}

/// Checks what is decided at `now` (`HH:MM` of 2024-02-28, or a whole time).
fn check(now: &str, cron_job: &CronJob, jobs: &[&str], expect: Expect) {
    let now = if now.len() == 5 { format!("2024-02-28T{now}:00Z") } else { now.to_owned() };
    let zone = cron_job.spec.time_zone.as_deref();
    let zone = zone.map_or(Ok(TimeZone::UTC), yado_types::time_zone::find);
    let observed = Observed { cron_job, jobs: jobs.iter().map(|text| job(text)).collect(), zone };
    let decision = reconcile(observed, now.parse().expect("a time"));
    let mut lines: Vec<String> = decision
        .events
        .into_iter()
        .map(|(kind, reason, text)| format!("{kind:?} {reason}: {text}"))
        .collect();
    if !decision.expired.is_empty() {
        lines.push(format!("delete {}", names(&decision.expired)));
    }
    if let Some(start) = decision.start {
        let annotations = start.job.metadata.annotations.clone().unwrap_or_default();
        let replaces = names(&start.replaces);
        let instead = if replaces.is_empty() { String::new() } else { format!(" instead of {replaces}") };
        lines.push(format!("create {} for {}{instead}", start.job.name_any(), annotations[SCHEDULED]));
    }
    let active = decision.status.active.unwrap_or_default();
    let active: Vec<_> = active.iter().filter_map(|job| job.name.as_deref()).collect();
    let succeeded = decision.status.last_successful_time.map(|time| time.0.to_string());
    lines.push(format!(
        "active ({}) succeeded {}",
        active.join(" "),
        succeeded.as_deref().unwrap_or("never")
    ));
    if let Next::After(wait) = decision.next {
        lines.push(format!("look again in {} ms", wait.as_millis()));
    }
    expect.assert_eq(&lines.join("\n"));
}

fn active(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"name": name, "uid": name, "namespace": "n"})).collect()
}

#[test]
fn jobs_start_when_they_are_due() {
    let plain = cron_job(json!({}), json!({}));
    check(
        "09:58",
        &plain,
        &[],
        expect![[r#"
        active () succeeded never
        look again in 120100 ms"#]],
    );
    check(
        "10:00",
        &plain,
        &[],
        expect![[r#"
        create tidy-28485240 for 2024-02-28T10:00:00Z
        active () succeeded never
        look again in 300000 ms"#]],
    );
    // The last time alone, however many were missed.
    check(
        "12:59",
        &plain,
        &[],
        expect![[r#"
        create tidy-28485360 for 2024-02-28T12:00:00Z
        active () succeeded never
        look again in 60100 ms"#]],
    );
    check(
        "2024-03-28T12:59:00Z",
        &plain,
        &[],
        expect![[r#"
        Warning TooManyMissedTimes: too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew
        create tidy-28527120 for 2024-03-28T12:00:00Z
        active () succeeded never
        look again in 60100 ms"#]],
    );
    let done = cron_job(json!({}), json!({"lastScheduleTime": "2024-02-28T10:00:00Z"}));
    check(
        "10:59",
        &done,
        &[],
        expect![[r#"
        active () succeeded never
        look again in 60100 ms"#]],
    );
    // The clock was set back.
    check(
        "09:30",
        &done,
        &[],
        expect![[r#"
        active () succeeded never
        look again in 300000 ms"#]],
    );
    let minutes = cron_job(json!({"schedule": "@every 90s"}), json!({}));
    check(
        "09:04",
        &minutes,
        &[],
        expect![[r#"
        create tidy-28485183 for 2024-02-28T09:03:00Z
        active () succeeded never
        look again in 30100 ms"#]],
    );
    let tokyo = cron_job(json!({"schedule": "30 18 * * *", "timeZone": "Asia/Tokyo"}), json!({}));
    check(
        "09:30",
        &tokyo,
        &[],
        expect![[r#"
        create tidy-28485210 for 2024-02-28T18:30:00+09:00
        active () succeeded never
        look again in 300000 ms"#]],
    );
}

#[test]
fn deadlines_limit_what_is_made_up_for() {
    let soon = cron_job(json!({"startingDeadlineSeconds": 300}), json!({}));
    check(
        "10:04",
        &soon,
        &[],
        expect![[r#"
        create tidy-28485240 for 2024-02-28T10:00:00Z
        active () succeeded never
        look again in 300000 ms"#]],
    );
    check(
        "10:05",
        &soon,
        &[],
        expect![[r#"
        active () succeeded never
        look again in 300000 ms"#]],
    );
    check(
        "2024-03-28T12:00:00Z",
        &soon,
        &[],
        expect![[r#"
        create tidy-28527120 for 2024-03-28T12:00:00Z
        active () succeeded never
        look again in 300000 ms"#]],
    );
}

#[test]
fn what_cannot_start_says_why() {
    let suspended = cron_job(json!({"suspend": true}), json!({}));
    check("10:00", &suspended, &[], expect!["active () succeeded never"]);
    let lost = cron_job(json!({"timeZone": "Mars/Olympus"}), json!({}));
    check(
        "10:00",
        &lost,
        &[],
        expect![[r#"
        Warning UnknownTimeZone: invalid timeZone: "Mars/Olympus": unknown time zone Mars/Olympus
        active () succeeded never"#]],
    );
    let never = cron_job(json!({"schedule": "0 0 30 2 *"}), json!({}));
    check(
        "10:00",
        &never,
        &[],
        expect![[r#"
        Warning InvalidSchedule: invalid schedule: 0 0 30 2 * : it is never due
        active () succeeded never"#]],
    );
    let broken = cron_job(json!({"schedule": "whenever"}), json!({}));
    check(
        "10:00",
        &broken,
        &[],
        expect![[r#"
        Warning UnparseableSchedule: unparseable schedule: "whenever" : expected exactly 5 fields, found 1: [whenever]
        active () succeeded never"#]],
    );
    let mut leaving = cron_job(json!({}), json!({"active": active(&["tidy-1"])}));
    leaving.metadata.deletion_timestamp = leaving.metadata.creation_timestamp.clone();
    check(
        "10:00",
        &leaving,
        &[],
        expect![[r#"
        Normal MissingJob: Active job went missing: tidy-1
        active () succeeded never"#]],
    );
}

#[test]
fn jobs_that_still_run_are_kept_awaited_or_replaced() {
    let of = |policy: &str| {
        cron_job(
            json!({"concurrencyPolicy": policy}),
            json!({"active": active(&["tidy-28485180"]), "lastScheduleTime": "2024-02-28T09:00:00Z"}),
        )
    };
    let running = ["tidy-28485180 started@09:00"];
    check(
        "10:00",
        &of("Allow"),
        &running,
        expect![[r#"
        create tidy-28485240 for 2024-02-28T10:00:00Z
        active (tidy-28485180) succeeded never
        look again in 300000 ms"#]],
    );
    check(
        "10:00",
        &of("Forbid"),
        &running,
        expect![[r#"
        Normal JobAlreadyActive: Not starting job because prior execution is running and concurrency policy is Forbid
        active (tidy-28485180) succeeded never
        look again in 300000 ms"#]],
    );
    check(
        "10:00",
        &of("Replace"),
        &running,
        expect![[r#"
        create tidy-28485240 for 2024-02-28T10:00:00Z instead of tidy-28485180
        active (tidy-28485180) succeeded never
        look again in 300000 ms"#]],
    );
    // It is over now, and the time that it missed is made up for.
    check(
        "10:10",
        &of("Forbid"),
        &["tidy-28485180 started@09:00 complete@10:09"],
        expect![[r#"
        Normal SawCompletedJob: Saw completed job: tidy-28485180, condition: Complete
        create tidy-28485240 for 2024-02-28T10:00:00Z
        active () succeeded 2024-02-28T10:09:00Z
        look again in 300000 ms"#]],
    );
}

#[test]
fn the_status_follows_the_jobs() {
    let status = json!({
        "active": active(&["a", "b", "gone"]), "lastScheduleTime": "2024-02-28T10:00:00Z",
        "lastSuccessfulTime": "2024-02-28T09:30:00Z",
    });
    let one = cron_job(json!({}), status);
    check(
        "10:10",
        &one,
        &["a complete@10:05", "b failed", "manual", "older complete@09:10"],
        expect![[r#"
            Normal SawCompletedJob: Saw completed job: a, condition: Complete
            Normal SawCompletedJob: Saw completed job: b, condition: Failed
            Warning UnexpectedJob: Saw a job that the controller did not create or forgot: manual
            Normal MissingJob: Active job went missing: gone
            active () succeeded 2024-02-28T10:05:00Z
            look again in 300000 ms"#]],
    );
    // By hand, between two times.
    let known = cron_job(json!({}), json!({"lastScheduleTime": "2024-02-28T10:00:00Z"}));
    check(
        "10:10",
        &known,
        &["manual complete@10:07"],
        expect![[r#"
        active () succeeded 2024-02-28T10:07:00Z
        look again in 300000 ms"#]],
    );
}

#[test]
fn old_jobs_go() {
    let jobs = [
        "a complete@09:09 started@09:05",
        "b complete@09:08 started@09:01",
        "c complete@09:07 started@09:01",
        "d complete@09:06 started@09:04",
        "e failed started@09:03",
        "f failed",
        "g failed started@09:02",
        "h started@09:00",
    ];
    let status = |names: &[&str]| json!({"active": active(names)});
    check(
        "09:10",
        &cron_job(json!({}), status(&["h"])),
        &jobs,
        expect![[r#"
        delete b g e
        active (h) succeeded 2024-02-28T09:09:00Z
        look again in 300000 ms"#]],
    );
    let none = json!({"successfulJobsHistoryLimit": 0, "failedJobsHistoryLimit": 0});
    check(
        "09:10",
        &cron_job(none, status(&["a", "h"])),
        &jobs,
        expect![[r#"
        Normal SawCompletedJob: Saw completed job: a, condition: Complete
        delete b c d a g e f
        active (h) succeeded 2024-02-28T09:09:00Z
        look again in 300000 ms"#]],
    );
}
