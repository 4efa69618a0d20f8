//! `yado ps`: what runs.

use std::io::Write;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde::Serialize;
use yado_types::clock::SystemClock;

use crate::{
    args::{Global, PsArgs},
    process,
    scope::Scope,
    table,
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    process: String,
    state: String,
    ready: bool,
    restarts: i32,
    /// Whether the run before the present one was ended for want of memory.
    oom_killed: bool,
    age_seconds: i64,
    pod: String,
    namespace: Option<String>,
    node: Option<String>,
}

/// `yado ps`.
///
/// # Errors
///
/// One sentence that says what, and what to do.
pub async fn run(global: &Global, args: &PsArgs) -> anyhow::Result<()> {
    let scope = Scope::of(global).await?;
    let chosen = scope.chosen(args.name.as_deref(), args.all).await?;
    let rows = rows(&chosen.found, SystemClock::shared().now().as_second());
    let text = match args.output {
        Some(format) => table::formatted(&rows, format)?,
        None if rows.is_empty() => match chosen.app {
            Some(app) => format!("nothing of {} runs\n", app.app),
            None => format!("nothing runs in {}\n", scope.shown()),
        },
        None => as_table(&rows),
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn rows(pods: &[(String, Pod)], now: i64) -> Vec<Row> {
    let row = |(process, pod): &(String, Pod)| Row {
        process: process.clone(),
        oom_killed: process::was_oom_killed(pod),
        state: process::state(pod),
        ready: process::is_ready(pod),
        restarts: process::restarts(pod),
        age_seconds: pod.creation_timestamp().map_or(0, |t| (now - t.0.as_second()).max(0)),
        pod: pod.name_any(),
        namespace: pod.namespace(),
        node: pod.spec.as_ref().and_then(|s| s.node_name.clone()),
    };
    let mut rows: Vec<Row> = pods.iter().map(row).collect();
    rows.sort_by(|a, b| (&a.process, &a.namespace).cmp(&(&b.process, &b.namespace)));
    rows
}

fn as_table(rows: &[Row]) -> String {
    let cells = |row: &Row| {
        let ready = if row.ready { "yes" } else { "no" };
        vec![
            row.process.clone(),
            row.state.clone(),
            ready.into(),
            if row.oom_killed { format!("{} (OOMKilled)", row.restarts) } else { row.restarts.to_string() },
            table::age(row.age_seconds),
            row.pod.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
    table::columns(&["PROCESS", "STATE", "READY", "RESTARTS", "AGE", "POD"], &rows)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::process::ProcessNames;

    #[test]
    fn pods_are_listed_as_processes() {
        let pod = |name: &str, labels: serde_json::Value, status: serde_json::Value, created: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"name": name, "labels": labels, "creationTimestamp": created},
                "spec": {"nodeName": "n", "containers": []},
                "status": status,
            }))
            .unwrap()
        };
        let web = json!({"app.kubernetes.io/name": "shop", "app.kubernetes.io/component": "web"});
        let ready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        let crashed = json!({"phase": "Running", "containerStatuses": [{
            "name": "web", "image": "", "imageID": "", "ready": false, "restartCount": 4,
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}}]});
        let pods = [
            pod("shop-web-1-b", web.clone(), ready.clone(), "2026-01-01T00:00:00Z"),
            pod("shop-web-1-a", web, crashed, "2026-01-01T00:01:00Z"),
            pod(
                "db-1-a",
                json!({"app.kubernetes.io/name": "db", "app.kubernetes.io/component": "app"}),
                ready,
                "2026-01-01T00:00:00Z",
            ),
            pod("own", json!({}), json!({"phase": "Pending"}), "2026-01-01T00:02:00Z"),
        ];
        let mut names = ProcessNames::of(&pods);
        let pods: Vec<(String, Pod)> = pods.into_iter().map(|pod| (names.name(&pod), pod)).collect();
        let rows = rows(&pods, "2026-01-01T00:02:00Z".parse::<jiff::Timestamp>().unwrap().as_second());
        expect![[r#"
            PROCESS     STATE             READY  RESTARTS  AGE  POD
            db.1        Running           yes    0         2m   db-1-a
            own         Pending           no     0         0s   own
            shop.web.1  Running           yes    0         2m   shop-web-1-b
            shop.web.2  CrashLoopBackOff  no     4         60s  shop-web-1-a
        "#]]
        .assert_eq(&as_table(&rows));
    }
}
