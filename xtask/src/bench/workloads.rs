//! Measurements of Deployments of small Pods: start, replacement, restart, rolling update under load, deletion.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Bytes;
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::client::{Access, Connection, Watch};
use super::cluster::{Cluster, HTTP, Memory, container_pid, pid_of, shims};
use super::report::{Report, median, mib, ms};

/// Number of Pods of a Deployment.
pub const PODS: usize = 10;
const RUNS: usize = 5;
/// Callers of the rolling update, and the pause of each between two requests: a load that leaves the processors time
/// for the update itself.
const CALLERS: usize = 4;
const PAUSE: Duration = Duration::from_millis(5);

/// A small server that ends at SIGTERM. busybox's own, as a first process, would ignore it.
pub const PROGRAM: &str =
    "mkdir -p /www; echo ok > /www/index.html; trap 'exit 0' TERM; httpd -f -p 8000 -h /www & wait";

pub const AVAILABLE: &str = "Deployment of 10 → Available, without a probe";
pub const KILLED: &str = "`kill -9` of a container → Ready again";
pub const GONE: &str = "delete a Deployment of 10 → all gone";

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const WEB: &str = "/apis/apps/v1/namespaces/default/deployments/web";
const POD: &str = "/api/v1/namespaces/default/pods";
const HOST: &str = "web.test";

pub async fn measure(report: &mut Report) -> Result<()> {
    let mut cluster = Cluster::new(&["busybox.tar"])?;
    cluster.start().await?;
    let access = cluster.access()?;
    let mut api = access.connect().await?;
    let bench = Bench { access };

    let (mut probed, mut plain, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        plain.push(bench.create(&mut api, &deployment("one", false)).await?);
        bench.delete(&mut api).await?;
        probed.push(bench.create(&mut api, &deployment("one", true)).await?);
        gone.push(bench.delete(&mut api).await?);
    }
    report.add("Deployment of 10 → Available, readiness by TCP", ms(median(probed)), "0.5 s");
    report.add(AVAILABLE, ms(median(plain)), "0.5 s");

    bench.create(&mut api, &deployment("one", true)).await?;
    let engine = Memory::of(cluster.pid()?)?;
    report.add(
        "memory of the engine with 10 Pods, resident (PSS)",
        format!("{} ({})", mib(engine.rss), mib(engine.pss)),
        "",
    );
    let shims = shims(cluster.data.path())?;
    let each = shims.iter().map(|pid| Ok(Memory::of(*pid)?.private)).collect::<Result<Vec<_>>>()?;
    let mean = each.iter().sum::<u64>() / u64::try_from(each.len()).unwrap_or(1).max(1);
    report.add("memory of a Pod's shim, private", mib(mean), "");

    report.add("delete a Pod → replacement Ready", ms(median(bench.replace(&mut api).await?)), "");
    report.add(KILLED, ms(median(bench.kill(&mut api).await?)), "0.1 s");
    let update = bench.update(&mut api, "two").await?;
    report.add("rolling update of 10, one by one", ms(update), "");
    let (took, load) = bench.update_under_load(&mut api).await?;
    let figure = format!("{}: {} requests, {} failed", ms(took), load.sent, load.failed);
    report.add("the same under load through the router", figure, "0 failed");
    if let Some(why) = load.first {
        eprintln!("the first failure: {why}");
    }
    bench.delete(&mut api).await?;
    report.add(GONE, ms(median(gone)), "");
    cluster.remove().await
}

/// What the measurements share: a way to new connections.
struct Bench {
    access: Access,
}

impl Bench {
    async fn watch(&self, collection: &str) -> Result<Watch> {
        self.access.connect().await?.watch(collection).await
    }

    /// Waits until the Deployment's status says that all of its Pods are available.
    async fn create(&self, api: &mut Connection, deployment: &Value) -> Result<Duration> {
        let mut watch = self.watch(DEPLOYMENTS).await?;
        let began = Instant::now();
        api.post(DEPLOYMENTS, deployment).await?;
        watch.until("the Deployment is available", |_, object| is_complete(object)).await?;
        Ok(began.elapsed())
    }

    /// Waits until none of its Pods exists.
    async fn delete(&self, api: &mut Connection) -> Result<Duration> {
        let mut watch = self.watch(POD).await?;
        let mut left = names(&api.get(POD).await?);
        let began = Instant::now();
        api.delete(WEB).await?;
        let ended = |kind: &str, object: &Value| {
            if kind == "DELETED" {
                left.remove(name_of(object));
            }
            left.is_empty()
        };
        watch.until("all Pods are gone", ended).await?;
        Ok(began.elapsed())
    }

    /// One Pod after another: from its deletion until another is Ready in its place.
    async fn replace(&self, api: &mut Connection) -> Result<Vec<Duration>> {
        let mut known = names(&api.get(POD).await?);
        let mut took = Vec::new();
        for victim in known.clone() {
            let mut watch = self.watch(POD).await?;
            let mut gone = false;
            let began = Instant::now();
            api.delete(&format!("{POD}/{victim}")).await?;
            let new = watch.until("another Pod is ready", |kind, object| {
                gone |= kind == "DELETED";
                is_ready(object) && !known.contains(name_of(object))
            });
            known.insert(name_of(&new.await?).to_owned());
            took.push(began.elapsed());
            if !gone {
                watch.until("the deleted Pod is gone", |kind, _| kind == "DELETED").await?;
            }
        }
        Ok(took)
    }

    /// Each Pod's container once, since a second crash of the same would wait for its back-off.
    async fn kill(&self, api: &mut Connection) -> Result<Vec<Duration>> {
        let mut took = Vec::new();
        for pod in names(&api.get(POD).await?) {
            let mut watch = self.watch(POD).await?;
            let process = container_pid(&pod)?;
            let began = Instant::now();
            kill(pid_of(process), Signal::SIGKILL)?;
            let is_back = |object: &Value| {
                let restarts =
                    object.pointer("/status/containerStatuses/0/restartCount").and_then(Value::as_u64);
                name_of(object) == pod && restarts >= Some(1) && is_ready(object)
            };
            watch.until("the container is back", |_, object| is_back(object)).await?;
            took.push(began.elapsed());
        }
        Ok(took)
    }

    async fn update(&self, api: &mut Connection, version: &str) -> Result<Duration> {
        let mut watch = self.watch(DEPLOYMENTS).await?;
        let began = Instant::now();
        let template = deployment(version, true)["spec"]["template"].take();
        let changed = api.merge(WEB, &json!({"spec": {"template": template}})).await?;
        // Words of the generation before may still arrive.
        let wanted = generation(&changed);
        let updated = |_: &str, object: &Value| generation(object) >= wanted && is_complete(object);
        watch.until("the Deployment is updated", updated).await?;
        Ok(began.elapsed())
    }

    async fn update_under_load(&self, api: &mut Connection) -> Result<(Duration, Load)> {
        for (collection, object) in [
            ("/api/v1/namespaces/default/services", service()),
            ("/apis/networking.k8s.io/v1/namespaces/default/ingresses", ingress()),
        ] {
            api.post(collection, &object).await?;
        }
        routed().await?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            callers.spawn(call(stop.clone()));
        }
        let took = self.update(api, "three").await;
        stop.store(true, Ordering::Relaxed);
        let mut load = Load::default();
        while let Some(done) = callers.join_next().await {
            load.add(done?);
        }
        Ok((took?, load))
    }
}

/// What callers met with.
#[derive(Default)]
struct Load {
    sent: usize,
    failed: usize,
    first: Option<String>,
}

impl Load {
    fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.failed += other.failed;
        self.first = self.first.take().or(other.first);
    }
}

async fn call(stop: Arc<AtomicBool>) -> Load {
    let (mut load, mut connection) = (Load::default(), None);
    while !stop.load(Ordering::Relaxed) {
        load.sent += 1;
        if let Err(error) = request(&mut connection).await {
            load.failed += 1;
            load.first.get_or_insert_with(|| format!("{error:#}"));
            connection = None;
        }
        tokio::time::sleep(PAUSE).await;
    }
    load
}

/// One request through the router, over the connection of the one before where there is one.
async fn request(connection: &mut Option<Connection>) -> Result<()> {
    let connection = match connection {
        Some(connection) => connection,
        empty => {
            let stream = TcpStream::connect(("127.0.0.1", HTTP)).await?;
            stream.set_nodelay(true)?;
            empty.insert(Connection::over(stream, HOST).await?)
        }
    };
    let response = connection.send(Method::GET, "/", Bytes::new()).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    anyhow::ensure!(status.is_success() && body == "ok\n", "{status} {}", String::from_utf8_lossy(&body));
    Ok(())
}

/// Waits until the router serves the host.
async fn routed() -> Result<()> {
    let (mut connection, began) = (None, Instant::now());
    while let Err(error) = request(&mut connection).await {
        if began.elapsed() > Duration::from_secs(30) {
            return Err(error).context("the router never led to the Pods");
        }
        connection = None;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn names(list: &Value) -> BTreeSet<String> {
    list["items"].as_array().into_iter().flatten().map(|item| name_of(item).to_owned()).collect()
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn generation(object: &Value) -> u64 {
    object["metadata"]["generation"].as_u64().unwrap_or(1)
}

/// Whether the rollout is complete by the rules of `kubectl rollout status`.
fn is_complete(deployment: &Value) -> bool {
    let status = |name: &str| deployment["status"][name].as_u64().unwrap_or(0);
    let all = PODS as u64;
    status("observedGeneration") >= generation(deployment)
        && ["updatedReplicas", "replicas", "availableReplicas"].iter().all(|name| status(name) == all)
}

fn deployment(version: &str, probe: bool) -> Value {
    let probe = probe.then(|| json!({"tcpSocket": {"port": 8000}, "periodSeconds": 1}));
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": PODS,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{
                    "name": "web",
                    "image": "busybox",
                    "imagePullPolicy": "Never",
                    "env": [{"name": "VERSION", "value": version}],
                    "command": ["sh", "-c", PROGRAM],
                    "readinessProbe": probe,
                }]},
            },
        },
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8000}]},
    })
}

fn ingress() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "web"},
        "spec": {"rules": [{"host": HOST, "http": {"paths": [{
            "path": "/",
            "pathType": "Prefix",
            "backend": {"service": {"name": "web", "port": {"number": 80}}},
        }]}}]},
    })
}
