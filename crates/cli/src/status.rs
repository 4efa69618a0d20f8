//! `yado status`: what is deployed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    time::Duration,
};

use kube::Client;
use serde::Serialize;
use yado_compile::ExternalEndpoint;
use yado_types::clock::SystemClock;

use crate::{
    args::{Global, StatusArgs},
    deploy::{self, Record, record},
    local::{Running, addresses},
    ready::{self, Observed, Readiness, Verdict, judge},
    scope::Scope,
    table,
    workloads::{self, Count},
};

/// An application as it is now.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    app: String,
    #[serde(rename = "type")]
    app_type: String,
    namespace: String,
    revision: u64,
    deployed_at: String,
    /// Only others asked for it.
    dependency: bool,
    needed_by: Vec<String>,
    dependencies: Vec<String>,
    processes: Vec<Process>,
    /// The revision that serves, where that is another one or none.
    #[serde(skip_serializing_if = "Option::is_none")]
    unready: Option<Unready>,
    images: Vec<String>,
    addresses: Vec<String>,
    /// Volumes that are left of an app that was taken down.
    left: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Process {
    kind: String,
    name: String,
    /// Pods of the present revision that are ready.
    ready: i64,
    wanted: i64,
    /// Pods of earlier revisions that are ready.
    earlier: i64,
}

/// The present revision is not ready.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Unready {
    /// It has failed, rather than being on its way.
    failed: bool,
    /// Why.
    why: String,
    /// The revision that serves meanwhile, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    serving: Option<u64>,
}

/// `yado status`, and `yado deploy status`.
///
/// # Errors
///
/// There is no such app, or the API server does not answer.
pub async fn run(global: &Global, args: &StatusArgs) -> anyhow::Result<()> {
    let scope = Scope::of(global).await?;
    let mut rows = Vec::new();
    for namespace in &scope.namespaces {
        for record in record::all(&scope.client, namespace).await? {
            if args.app.as_ref().is_none_or(|wanted| *wanted == record.app) {
                rows.push(row(&scope.client, namespace, record).await?);
            }
        }
    }
    if let Some(app) = args.app.as_ref().filter(|_| rows.is_empty()) {
        anyhow::bail!("no app {app} is deployed in {}: see `yado status`", scope.shown());
    }
    let now = SystemClock::shared().now().as_second();
    let text = match (args.output, args.app.is_some()) {
        (Some(format), _) => table::formatted(&rows, format)?,
        (None, true) => rows.iter().map(|row| detail(row, now)).collect(),
        (None, false) if rows.is_empty() => {
            format!("nothing is deployed in {}; `yado deploy` does that\n", scope.shown())
        }
        (None, false) => overview(&rows, now),
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

async fn row(client: &Client, namespace: &str, record: Record) -> anyhow::Result<Row> {
    let observed = observe(client, namespace, &record).await?;
    let verdicts: Vec<Verdict> =
        observed.iter().map(|(keys, state)| judge(keys, state, Duration::ZERO)).collect();
    let processes: Vec<Process> =
        observed.iter().flat_map(|(keys, state)| keys.iter().filter_map(|key| process(key, state))).collect();
    let published: Vec<ExternalEndpoint> = record.published.iter().map(Into::into).collect();
    let published = deploy::reached(client, namespace, &published).await;
    let http_port = Running::find(&Running::default_data_dir()).map(|engine| engine.http_port);
    let wanted = record.is_wanted();
    let left =
        record.objects.iter().filter(|key| !wanted && key.kind != "Namespace").map(ToString::to_string);
    Ok(Row {
        left: left.collect(),
        unready: wanted.then(|| unready(&record, &verdicts, &processes)).flatten(),
        app_type: record.app_type,
        namespace: namespace.to_owned(),
        revision: record.revision,
        deployed_at: record.deployed_at,
        dependency: !record.asked,
        needed_by: record.needed_by.into_iter().collect(),
        dependencies: record.dependencies,
        processes,
        images: record.images,
        addresses: if wanted { addresses(record.host.as_deref(), &published, http_port) } else { Vec::new() },
        app: record.app,
    })
}

/// What runs of an app, and what publishes its ports, by namespace.
async fn observe(
    client: &Client,
    namespace: &str,
    record: &Record,
) -> anyhow::Result<Vec<(Vec<ready::Key>, Observed)>> {
    let mut by_namespace: BTreeMap<&str, Vec<ready::Key>> = BTreeMap::new();
    let published: BTreeSet<&str> = record.published.iter().map(|port| port.service.as_str()).collect();
    for key in &record.objects {
        let publishes = key.kind == "Service" && published.contains(key.name.as_str());
        if workloads::KINDS.contains(&key.kind.as_str()) || publishes {
            let namespace = key.namespace.as_deref().unwrap_or(namespace);
            by_namespace.entry(namespace).or_default().push((key.kind.clone(), key.name.clone()));
        }
    }
    let mut all = Vec::new();
    for (namespace, mut keys) in by_namespace {
        let observed = ready::observe(client, namespace, &keys).await?;
        // A Service of another type is published as soon as it is there.
        keys.retain(|key| {
            key.0 != "Service" || observed.objects.get(key).is_some_and(|o| ready::awaited(o).is_some())
        });
        all.push((keys, observed));
    }
    Ok(all)
}

/// How many of a workload's Pods are ready; none for a Service.
fn process(key: &ready::Key, observed: &Observed) -> Option<Process> {
    if key.0 == "Service" {
        return None;
    }
    let (kind, name) = key.clone();
    // Somebody has removed it by other means: of what was wanted nothing is there.
    let Some(object) = observed.objects.get(key) else {
        return Some(Process { kind, name, ready: 0, wanted: 1, earlier: 0 });
    };
    let Count { ready, wanted } = workloads::count(object);
    if kind != "Deployment" {
        return Some(Process { kind, name, ready, wanted, earlier: 0 });
    }
    let newest = ready::newest_pods(object, observed);
    let newest = newest.filter(|pod| ready::of_pod(pod) == Readiness::Ready).count();
    let newest = i64::try_from(newest).unwrap_or(ready);
    Some(Process { kind, name, ready: newest.min(wanted), wanted, earlier: (ready - newest).max(0) })
}

/// Why the present revision is not ready, if it is not.
fn unready(record: &Record, verdicts: &[Verdict], processes: &[Process]) -> Option<Unready> {
    if verdicts.iter().all(Verdict::is_ready) {
        return None;
    }
    let failed = verdicts.iter().find_map(|verdict| verdict.failed.as_ref());
    let moving = verdicts.iter().find_map(|verdict| verdict.moving.first());
    let (key, cause) = failed.or(moving)?;
    let now = format!("{} {}: {}", key.0, key.1, cause.sentence);
    // What a deployment saw after it had waited weighs more than what a single look can tell.
    let why = record.failure.clone().filter(|_| failed.is_none()).unwrap_or(now);
    let serves = processes.iter().any(|process| process.earlier > 0);
    Some(Unready {
        failed: failed.is_some() || record.failure.is_some(),
        why,
        serving: record.served.filter(|served| serves && *served != record.revision),
    })
}

fn ago(row: &Row, now: i64) -> String {
    match row.deployed_at.parse::<jiff::Timestamp>() {
        Ok(time) => format!("{} ago", table::age(now - time.as_second())),
        Err(_) => "never".into(),
    }
}

fn state(row: &Row) -> String {
    if !row.left.is_empty() || (row.dependency && row.needed_by.is_empty()) {
        return "down".into();
    }
    let (ready, wanted) = row.processes.iter().fold((0, 0), |(r, w), p| (r + p.ready, w + p.wanted));
    let earlier: i64 = row.processes.iter().map(|p| p.earlier).sum();
    let failed = if row.unready.as_ref().is_some_and(|u| u.failed) { "failed, " } else { "" };
    match earlier {
        0 => format!("{failed}{ready}/{wanted} ready"),
        _ => format!("{failed}{ready}/{wanted} ready, {earlier} of {} serve", serving(row)),
    }
}

/// The revision that serves while the present one does not: `v2`, or `an earlier revision`.
fn serving(row: &Row) -> String {
    let known = row.unready.as_ref().and_then(|unready| unready.serving);
    known.map_or_else(|| "an earlier revision".into(), |revision| format!("v{revision}"))
}

/// `has failed (why); v2 serves`.
fn present_revision(row: &Row) -> Option<String> {
    let unready = row.unready.as_ref()?;
    let word = if unready.failed { "has failed" } else { "is not ready" };
    let serves = row.processes.iter().any(|process| process.earlier > 0);
    let serves = if serves { format!("; {} serves", serving(row)) } else { String::new() };
    Some(format!("v{} {word}{serves}: {}", row.revision, unready.why))
}

fn overview(rows: &[Row], now: i64) -> String {
    let cells = |row: &Row| {
        let note = match (row.left.is_empty(), row.needed_by.is_empty()) {
            (false, _) => format!("keeps {}", row.left.join(", ")),
            (true, false) => format!("for {}", row.needed_by.join(", ")),
            (true, true) => String::new(),
        };
        let answers = row.addresses.first().cloned().unwrap_or(note);
        vec![row.app.clone(), format!("v{}", row.revision), ago(row, now), state(row), answers]
    };
    let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
    table::columns(&["APP", "REVISION", "DEPLOYED", "PROCESSES", "ADDRESS"], &rows)
}

/// One application at length, as Otto showed it.
fn detail(row: &Row, now: i64) -> String {
    let kind = if row.app_type.is_empty() { String::new() } else { format!(" ({})", row.app_type) };
    let mut lines = vec![
        "==> App Info".to_owned(),
        format!("    Application:    {}{kind}", row.app),
        format!("    Namespace:      {}", row.namespace),
        format!("    Revision:       v{}, deployed {}", row.revision, ago(row, now)),
    ];
    let mut list = |title: &str, items: &[String]| {
        for (i, item) in items.iter().enumerate() {
            let title = if i == 0 { format!("{title}:") } else { String::new() };
            lines.push(format!("    {title:<15} {item}"));
        }
    };
    list("State", &present_revision(row).into_iter().collect::<Vec<_>>());
    list("Address", &row.addresses);
    list("Image", &row.images);
    list("Depends on", &row.dependencies);
    list("Needed by", &row.needed_by);
    list("Left", &row.left);
    lines.push("==> Component Status".into());
    for process in &row.processes {
        let Process { kind, name, ready, wanted, earlier } = process;
        let earlier = match earlier {
            0 => String::new(),
            _ => format!(", {earlier} of {} serve", serving(row)),
        };
        lines.push(format!("    {name:<24} {ready}/{wanted} ready{earlier} ({kind})"));
    }
    if row.processes.is_empty() {
        lines.push("    nothing runs".into());
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn what_is_deployed_is_shown() {
        let row = |app: &str, needed_by: &[&str], left: &[&str]| Row {
            app: app.into(),
            app_type: "ruby".into(),
            namespace: "default".into(),
            revision: 3,
            deployed_at: "2026-01-01T00:00:00Z".into(),
            dependency: !needed_by.is_empty() || !left.is_empty(),
            needed_by: needed_by.iter().map(ToString::to_string).collect(),
            dependencies: vec!["redis".into()],
            processes: vec![Process {
                kind: "Deployment".into(),
                name: format!("{app}-web"),
                ready: 1,
                wanted: 2,
                earlier: 0,
            }],
            unready: None,
            images: vec![format!("yado.local/{app}:1")],
            addresses: if app == "shop" {
                vec!["http://shop.localhost:8080".into(), "tcp://localhost:1".into()]
            } else {
                Vec::new()
            },
            left: left.iter().map(ToString::to_string).collect(),
        };
        let now = "2026-01-01T00:02:00Z".parse::<jiff::Timestamp>().unwrap().as_second();
        let rows = [
            row("shop", &[], &[]),
            row("redis", &["shop"], &[]),
            row("old", &[], &["PersistentVolumeClaim data"]),
        ];
        expect![[r#"
            APP    REVISION  DEPLOYED  PROCESSES  ADDRESS
            shop   v3        2m ago    1/2 ready  http://shop.localhost:8080
            redis  v3        2m ago    1/2 ready  for shop
            old    v3        2m ago    down       keeps PersistentVolumeClaim data
        "#]]
        .assert_eq(&overview(&rows, now));
        expect![[r#"
            ==> App Info
                Application:    shop (ruby)
                Namespace:      default
                Revision:       v3, deployed 2m ago
                Address:        http://shop.localhost:8080
                                tcp://localhost:1
                Image:          yado.local/shop:1
                Depends on:     redis
            ==> Component Status
                shop-web                 1/2 ready (Deployment)
        "#]]
        .assert_eq(&detail(&rows[0], now));
        let mut bad = row("shop", &[], &[]);
        (bad.processes[0].ready, bad.processes[0].earlier) = (0, 2);
        let why = "Deployment shop-web: its process ended with exit code 1, 4 times".into();
        bad.unready = Some(Unready { failed: true, why, serving: Some(2) });
        expect![[r#"
            APP   REVISION  DEPLOYED  PROCESSES                         ADDRESS
            shop  v3        2m ago    failed, 0/2 ready, 2 of v2 serve  http://shop.localhost:8080
        "#]]
        .assert_eq(&overview(std::slice::from_ref(&bad), now));
        expect![[r#"
            ==> App Info
                Application:    shop (ruby)
                Namespace:      default
                Revision:       v3, deployed 2m ago
                State:          v3 has failed; v2 serves: Deployment shop-web: its process ended with exit code 1, 4 times
                Address:        http://shop.localhost:8080
                                tcp://localhost:1
                Image:          yado.local/shop:1
                Depends on:     redis
            ==> Component Status
                shop-web                 0/2 ready, 2 of v2 serve (Deployment)
        "#]]
        .assert_eq(&detail(&bad, now));
    }
}
