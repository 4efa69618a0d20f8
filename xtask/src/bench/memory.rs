//! Measurements of memory: what comes back after many Pods, and what many objects take.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use hyper::Method;
use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::client::{Access, Connection};
use super::cluster::{Cluster, Memory};
use super::report::{Report, mib, ms};

/// Time after the start by which start-up work has settled.
const SETTLE: Duration = Duration::from_secs(20);
/// Pods at a time, and how often they come and go.
const PODS: usize = 40;
const ROUNDS: usize = 50;
/// When memory is measured after the last Pod, by the name of the figure. The history of changes is kept for 5 minutes and
/// a half at most.
const LATER: [(Duration, &str); 4] = [
    (Duration::ZERO, "idle memory when 2,000 Pods have come and gone"),
    (Duration::from_secs(2 * 60), "the same 2 minutes later"),
    (Duration::from_secs(5 * 60), "the same 5 minutes later"),
    (Duration::from_secs(8 * 60), "the same 8 minutes later"),
];

/// Time after which the history of changes is dropped.
const HISTORY: Duration = Duration::from_secs(6 * 60);
const CONFIG_MAPS: usize = 100_000;
const CONNECTIONS: usize = 16;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const WEB: &str = "/apis/apps/v1/namespaces/default/deployments/web";

/// Measures an idle engine before many Pods come and go, and as time passes after that.
pub async fn after_pods(report: &mut Report) -> Result<()> {
    let mut cluster = Cluster::new(&["busybox.tar"])?;
    cluster.start().await?;
    let access = cluster.access()?;
    let mut api = access.connect().await?;
    tokio::time::sleep(SETTLE).await;
    let fresh = Memory::of(cluster.pid()?)?;
    report.add("idle memory before any Pod, resident (anonymous)", figure(fresh), "");
    api.post(DEPLOYMENTS, &deployment()).await?;
    for _ in 0..ROUNDS {
        scale(&access, &mut api, PODS).await?;
        scale(&access, &mut api, 0).await?;
    }
    let ended = Instant::now();
    for (later, name) in LATER {
        tokio::time::sleep(later.saturating_sub(ended.elapsed())).await;
        let memory = Memory::of(cluster.pid()?)?;
        let above = 100.0 * (memory.rss as f64 / fresh.rss as f64 - 1.0);
        report.add(name, format!("{}, {above:+.0} %", figure(memory)), "+20 %");
    }
    cluster.remove().await
}

fn figure(memory: Memory) -> String {
    format!("{} ({})", mib(memory.rss), mib(memory.anonymous))
}

/// Waits until the status of the Deployment says that it has as many Pods, all of them ready.
async fn scale(access: &Access, api: &mut Connection, replicas: usize) -> Result<()> {
    let mut watch = access.connect().await?.watch(DEPLOYMENTS).await?;
    api.merge(WEB, &json!({"spec": {"replicas": replicas}})).await?;
    let reached = |_: &str, deployment: &Value| {
        let status = |name: &str| deployment["status"][name].as_u64().unwrap_or(0);
        deployment["spec"]["replicas"] == replicas
            && ["replicas", "readyReplicas"].iter().all(|name| status(name) == replicas as u64)
    };
    watch.until("the Deployment is scaled", reached).await.map(drop)
}

/// Measures an engine with many objects: creating them, starting with them, and its memory when idle.
pub async fn many_objects(report: &mut Report) -> Result<()> {
    let mut cluster = Cluster::new(&[])?;
    cluster.start().await?;
    let access = cluster.access()?;
    let (mut working, next) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for _ in 0..CONNECTIONS {
        working.spawn(create(access.connect().await?, next.clone()));
    }
    let began = Instant::now();
    while let Some(done) = working.join_next().await {
        done??;
    }
    let rate = CONFIG_MAPS as f64 / began.elapsed().as_secs_f64();
    report.add("create 100,000 ConfigMaps of 1 KB, 16 connections", format!("{rate:.0}/s"), "");
    tokio::time::sleep(HISTORY).await;
    let memory = Memory::of(cluster.pid()?)?;
    report.add("idle memory 6 minutes later, resident (anonymous)", figure(memory), "300 MiB");
    cluster.stop().await?;
    let took = cluster.start().await?;
    report.add("start → node Ready with 100,000 ConfigMaps of 1 KB", ms(took), "0.5 s");
    tokio::time::sleep(SETTLE).await;
    let memory = Memory::of(cluster.pid()?)?;
    report.add("idle memory after that start, resident (anonymous)", figure(memory), "300 MiB");
    cluster.remove().await
}

async fn create(mut api: Connection, next: Arc<AtomicUsize>) -> Result<()> {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= CONFIG_MAPS {
            return Ok(());
        }
        let object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": format!("bench-{number}")},
            "data": {"text": "x".repeat(1000)},
        });
        let body = Bytes::from(object.to_string());
        api.bytes(Method::POST, "/api/v1/namespaces/default/configmaps", body).await?;
    }
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{
                    "name": "web",
                    "image": "busybox",
                    "imagePullPolicy": "Never",
                    "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"],
                }]},
            },
        },
    })
}
