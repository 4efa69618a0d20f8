//! Measurements of the API server over TLS, as an external client sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use hyper::Method;
use hyper::body::Bytes;
use serde_json::json;
use tokio::task::JoinSet;

use super::client::{Access, Connection};
use super::cluster::Cluster;
use super::report::{Report, median, ms, percentile};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const OBJECTS: usize = 2000;
const CONNECTIONS: usize = 16;
const READING: Duration = Duration::from_secs(3);
const LISTS: usize = 21;
const EVENTS: usize = 301;

pub async fn measure(report: &mut Report) -> Result<()> {
    let mut cluster = Cluster::new(&[])?;
    cluster.start().await?;
    let access = cluster.access()?;

    let began = Instant::now();
    let mut all = at_once(&access, create).await?;
    let rate = all.len() as f64 / began.elapsed().as_secs_f64();
    let (p50, p99) = (percentile(&mut all, 50), percentile(&mut all, 99));
    let figure = format!("{rate:.0}/s, p50 {}, p99 {}", ms(p50), ms(p99));
    report.add("create 2,000 ConfigMaps, 16 connections", figure, "");

    let began = Instant::now();
    let all = at_once(&access, read).await?;
    report.add(
        "GET, 16 connections",
        format!("{:.0}/s", all.len() as f64 / began.elapsed().as_secs_f64()),
        "",
    );

    let mut connection = access.connect().await?;
    let mut lists = Vec::new();
    for _ in 0..LISTS {
        let began = Instant::now();
        connection.bytes(Method::GET, CONFIG_MAPS, Bytes::new()).await?;
        lists.push(began.elapsed());
    }
    report.add("LIST of 2,000 ConfigMaps", ms(median(lists)), "");
    report.add("create → event at a watcher", ms(median(events(&access, connection).await?)), "");
    cluster.remove().await
}

/// Does the same over all connections; how long each request took. Connections are made beforehand.
async fn at_once<F>(access: &Access, work: fn(Connection, Arc<AtomicUsize>) -> F) -> Result<Vec<Duration>>
where
    F: Future<Output = Result<Vec<Duration>>> + Send + 'static,
{
    let mut working = JoinSet::new();
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(access.connect().await?);
    }
    let next = Arc::new(AtomicUsize::new(0));
    for connection in connections {
        working.spawn(work(connection, next.clone()));
    }
    let mut all = Vec::new();
    while let Some(done) = working.join_next().await {
        all.extend(done??);
    }
    Ok(all)
}

fn config_map(name: &str) -> Bytes {
    let object = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"app": "bench"}},
        "data": {"key": "value", "text": "x".repeat(200)},
    });
    object.to_string().into()
}

async fn create(mut connection: Connection, next: Arc<AtomicUsize>) -> Result<Vec<Duration>> {
    let mut took = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= OBJECTS {
            return Ok(took);
        }
        let body = config_map(&format!("bench-{number}"));
        let began = Instant::now();
        connection.bytes(Method::POST, CONFIG_MAPS, body).await?;
        took.push(began.elapsed());
    }
}

async fn read(mut connection: Connection, next: Arc<AtomicUsize>) -> Result<Vec<Duration>> {
    let (mut took, start) = (Vec::new(), Instant::now());
    while start.elapsed() < READING {
        let number = next.fetch_add(1, Ordering::Relaxed) % OBJECTS;
        let began = Instant::now();
        connection.bytes(Method::GET, &format!("{CONFIG_MAPS}/bench-{number}"), Bytes::new()).await?;
        took.push(began.elapsed());
    }
    Ok(took)
}

/// From before a creation is sent to its event at a watcher on another connection.
async fn events(access: &Access, mut writer: Connection) -> Result<Vec<Duration>> {
    let mut watch = access.connect().await?.watch(CONFIG_MAPS).await?;
    let mut took = Vec::new();
    for number in 0..EVENTS {
        let name = format!("event-{number}");
        let body = config_map(&name);
        let began = Instant::now();
        let seen = async {
            watch.until("the event", |_, object| object["metadata"]["name"] == name.as_str()).await?;
            anyhow::Ok(began.elapsed())
        };
        let (elapsed, _) = tokio::try_join!(seen, writer.bytes(Method::POST, CONFIG_MAPS, body))?;
        took.push(elapsed);
    }
    Ok(took)
}
