//! `yado status`: what is deployed.

use std::io::Write;

use kube::{Api, Client, ResourceExt, api::DynamicObject};
use serde::Serialize;
use yado_compile::Published;
use yado_types::clock::SystemClock;

use crate::{
    args::{Global, StatusArgs},
    deploy::{
        self, Record,
        record::{self, Key},
    },
    local::{Running, addresses},
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
    images: Vec<String>,
    addresses: Vec<String>,
    /// Volumes that are left of an app that was taken down.
    left: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Process {
    kind: String,
    name: String,
    ready: i64,
    wanted: i64,
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
    let mut processes = Vec::new();
    for key in &record.objects {
        let Some(count) = count(client, namespace, key).await? else { continue };
        processes.push(Process {
            kind: key.kind.clone(),
            name: key.name.clone(),
            ready: count.ready,
            wanted: count.wanted,
        });
    }
    let published: Vec<Published> = record.published.iter().map(Into::into).collect();
    let published = deploy::reached(client, namespace, &published).await;
    let http_port = Running::find(&Running::default_data_dir()).map(|engine| engine.http_port);
    let wanted = record.is_wanted();
    let left =
        record.objects.iter().filter(|key| !wanted && key.kind != "Namespace").map(ToString::to_string);
    Ok(Row {
        left: left.collect(),
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

/// How many of an object's Pods are ready; none for what runs nothing.
async fn count(client: &Client, namespace: &str, key: &Key) -> anyhow::Result<Option<Count>> {
    let Some(resource) = workloads::resource(&key.kind) else { return Ok(None) };
    let namespace = key.namespace.as_deref().unwrap_or(namespace);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let found = api.get_opt(&key.name).await;
    let found = found.map_err(crate::connect::failed(format!("{key} cannot be read")))?;
    // Somebody has removed it by other means: of what was wanted nothing is there.
    let Some(object) = found else { return Ok(Some(Count { ready: 0, wanted: 1 })) };
    debug_assert_eq!(object.name_any(), key.name);
    let mut value = serde_json::to_value(&object)?;
    value["kind"] = key.kind.as_str().into();
    Ok(Some(workloads::count(&value)))
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
    format!("{ready}/{wanted} ready")
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
    list("Address", &row.addresses);
    list("Image", &row.images);
    list("Depends on", &row.dependencies);
    list("Needed by", &row.needed_by);
    list("Left", &row.left);
    lines.push("==> Component Status".into());
    for process in &row.processes {
        let Process { kind, name, ready, wanted } = process;
        lines.push(format!("    {name:<24} {ready}/{wanted} ready ({kind})"));
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
            }],
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
    }
}
