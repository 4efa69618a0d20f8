//! `yado ps`: what runs.

use std::io::Write;

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde::Serialize;
use yado_types::clock::SystemClock;

use crate::{
    args::{Global, PsArgs},
    process::{self, ProcessNames},
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
    let pods = scope.pods().await?;
    let now = SystemClock::shared().now();
    let mut rows = rows(&pods, now.as_second());
    if let Some(wanted) = &args.name {
        let mut names = ProcessNames::of(&pods);
        let chosen: Vec<String> = pods
            .iter()
            .filter(|p| process::matches(p, &names.name(p), wanted))
            .map(ResourceExt::name_any)
            .collect();
        rows.retain(|r| chosen.contains(&r.pod));
        let sentence = || format!("there is no app, process or Pod {wanted} in {}", scope.shown());
        rows.first().with_context(sentence)?;
    }
    let text = match args.output {
        Some(format) => table::formatted(&rows, format)?,
        None if rows.is_empty() => format!("nothing runs in {}\n", scope.shown()),
        None => as_table(&rows),
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn rows(pods: &[Pod], now: i64) -> Vec<Row> {
    let mut names = ProcessNames::of(pods);
    let row = |pod: &Pod| Row {
        process: names.name(pod),
        state: process::state(pod),
        ready: process::is_ready(pod),
        restarts: process::restarts(pod),
        age_seconds: pod.creation_timestamp().map_or(0, |t| (now - t.0.as_second()).max(0)),
        pod: pod.name_any(),
        namespace: pod.namespace(),
        node: pod.spec.as_ref().and_then(|s| s.node_name.clone()),
    };
    let mut rows: Vec<Row> = pods.iter().map(row).collect();
    rows.sort_by(|a, b| a.process.cmp(&b.process));
    rows
}

fn as_table(rows: &[Row]) -> String {
    let cells = |row: &Row| {
        let ready = if row.ready { "yes" } else { "no" };
        vec![
            row.process.clone(),
            row.state.clone(),
            ready.into(),
            row.restarts.to_string(),
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
