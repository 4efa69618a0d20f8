//! The end of containers and Pods.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;
use yado_reconcile::events::EventType;

use super::{Entry, Shared};
use crate::hooks;
use crate::lifecycle::{ContainerRecord, Hook, Run, SandboxPhase};
use crate::spec::{find_container, pre_stop as pre_stop_hook};
use crate::volumes;

/// Pause before a teardown that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long the connections to a Pod may take to fall quiet before its containers are told to stop, and no more than two
/// thirds of its grace period: the rest is the programs' own. A client that uses one connection all the time is cut off
/// once for each Pod that it had, so a long time costs it few requests.
const QUIET_TIMEOUT: Duration = Duration::from_secs(20);

/// Waits until no traffic is sent to the Pod any more and what was sent is answered, within its grace period.
pub(super) async fn withdraw(shared: Arc<Shared>, entry: Arc<Entry>, grace: Duration) {
    let address = entry.record.lock().address;
    let began = shared.clock.monotonic();
    let withdrawn = async {
        match address {
            Some(address) => shared.traffic.withdrawn(address).await,
            None => shared.traffic.left(&entry.uid).await,
        }
    };
    tokio::select! {
        () = withdrawn => {}
        () = shared.clock.sleep(grace) => {
            tracing::warn!(pod = %entry.key, ?address, "traffic was not withdrawn within the grace period");
        }
    }
    // A program with a hook of its own for this needs the time itself.
    if let Some(address) = address.filter(|_| !has_pre_stop(&entry)) {
        let passed = shared.clock.monotonic().saturating_sub(began);
        let within = (grace * 2 / 3).min(QUIET_TIMEOUT).saturating_sub(passed);
        shared.traffic.quiet(address, within).await;
    }
    if let Some(termination) = &mut entry.record.lock().termination {
        termination.withdrawn = true;
    }
    shared.queue.add(entry.uid.clone());
}

fn has_pre_stop(entry: &Entry) -> bool {
    let pod = entry.pod.lock().clone();
    let containers = pod.iter().filter_map(|pod| pod.spec.as_ref()).flat_map(|spec| &spec.containers);
    containers.into_iter().any(|container| pre_stop_hook(container).is_some())
}

pub(super) async fn pre_stop(shared: Arc<Shared>, entry: Arc<Entry>, pod: Arc<Pod>, name: String) {
    let container = pod.spec.as_ref().and_then(|s| find_container(s, &name));
    if let Some((container, hook)) = container.and_then(|c| Some((c, pre_stop_hook(c)?))) {
        let deadline = entry.record.lock().container(&name).stop.as_ref().map(|s| s.deadline);
        let left = deadline.unwrap_or_default().saturating_sub(shared.clock.monotonic());
        // The failure is an event; the container is stopped all the same.
        let _ = hooks::run(&shared, &entry, &pod, container, hook, "FailedPreStopHook", left).await;
    }
    entry.with_container(&name, |record| {
        if let Some(stop) = &mut record.stop {
            stop.pre_stop = Hook::Done;
        }
    });
    shared.queue.add(entry.uid.clone());
}

pub(super) async fn signal(shared: Arc<Shared>, entry: Arc<Entry>, name: String, signal: i32) {
    let Some((sandbox, id)) = entry.running(&name) else { return };
    if let Err(error) = sandbox.signal(&id, signal).await {
        tracing::warn!(pod = %entry.key, container = name, %error, "the container could not be signalled");
        let pod = entry.pod.lock().clone();
        if let Some(pod) = pod {
            shared.event(
                &pod,
                Some(&name),
                EventType::Warning,
                "FailedKillPod",
                format!("error killing pod: {error}"),
            );
        }
    }
}

/// Takes down sandbox, network and mounts, and tries until it is done. With `again` only the sandbox goes, and the Pod
/// is then prepared anew: its volumes and its address are its own for as long as it is there.
pub(super) async fn run(shared: Arc<Shared>, entry: Arc<Entry>, again: bool) {
    entry.probing.lock().clear();
    *entry.watching.lock() = None;
    *entry.sandbox.lock() = None;
    // No file is written any more where a tmpfs is about to go: the next refresh finds the Pod not ready.
    drop(entry.refreshing.lock().await);
    let making = shared.making.read().await;
    loop {
        let torn_down = match again {
            true => shared.runtime.destroy(&entry.uid).await.map_err(|e| e.to_string()),
            false => tear_down(&shared, &entry.uid, entry.dir.root()).await,
        };
        let Err(error) = torn_down else { break };
        if shared.closing.is_cancelled() {
            return;
        }
        tracing::warn!(pod = %entry.key, error, "the Pod could not be taken down yet");
        shared.clock.sleep(RETRY).await;
    }
    drop(making);
    {
        let mut record = entry.record.lock();
        record.lose_sandbox(shared.now());
        if again {
            let pod = entry.pod.lock().clone();
            record.start_over(pod.as_deref());
            *entry.starting.lock() = CancellationToken::new();
        } else {
            record.sandbox = SandboxPhase::Released;
            record.forget_starts();
        }
    }
    shared.queue.add(entry.uid.clone());
}

async fn tear_down(shared: &Shared, uid: &str, dir: &Path) -> Result<(), String> {
    shared.runtime.destroy(uid).await.map_err(|e| e.to_string())?;
    shared.network.detach(uid).await.map_err(|e| e.to_string())?;
    let volumes = dir.join("volumes");
    let removed = tokio::task::spawn_blocking(move || {
        volumes::unmount_beneath(&volumes)?;
        remove(&volumes)
    });
    removed
        .await
        .map_err(io::Error::other)
        .and_then(|r| r)
        .map_err(|e| format!("cannot remove {}: {e}", dir.display()))
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes what is left of a Pod whose object is gone: its logs, its record.
pub(super) async fn forget(shared: Arc<Shared>, entry: Arc<Entry>) {
    let dir = entry.dir.root().to_owned();
    let removed =
        tokio::task::spawn_blocking(move || remove(&dir)).await.map_err(io::Error::other).and_then(|r| r);
    if let Err(error) = removed {
        tracing::warn!(pod = %entry.key, %error, "the Pod's directory could not be removed");
    }
    shared.entries.lock().remove(&entry.uid);
}

/// Takes down what a uid left behind that no Pod owns.
pub(super) async fn sweep(shared: &Shared, uid: &str) -> Result<(), String> {
    let dir = shared.config.data_dir.join("pods").join(uid);
    tear_down(shared, uid, &dir).await?;
    tokio::task::spawn_blocking(move || remove(&dir))
        .await
        .map_err(io::Error::other)
        .and_then(|r| r)
        .map_err(|e| format!("cannot remove the directory of Pod {uid}: {e}"))
}

/// Every uid that this node holds something of: sandboxes, network, directories, records.
pub(super) async fn held(shared: &Shared) -> BTreeSet<String> {
    let mut uids: BTreeSet<String> = shared.entries.lock().keys().cloned().collect();
    match shared.runtime.sandboxes().await {
        Ok(found) => uids.extend(found.into_iter().map(|f| f.spec.id)),
        Err(error) => tracing::warn!(%error, "sandboxes could not be listed"),
    }
    uids.extend(shared.network.attached().await);
    if let Ok(entries) = fs::read_dir(shared.config.data_dir.join("pods")) {
        uids.extend(entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()));
    }
    uids
}

/// Stops every Pod and removes everything of it, in parallel. Containers get `grace` after their stop signal.
pub(crate) async fn remove_everything(shared: &Arc<Shared>, grace: Duration) -> Result<(), String> {
    shared.closing.cancel();
    let entries: Vec<_> = shared.entries.lock().values().cloned().collect();
    entries.iter().for_each(|entry| entry.stop_starting());
    // Whatever is half made is finished first, so that it is found and goes too.
    let _nobody = shared.making.write().await;
    join_all(entries.iter().map(|entry| stop_containers(entry, grace))).await;
    let uids = held(shared).await;
    let swept = join_all(uids.iter().map(|uid| sweep(shared, uid))).await;
    let failures: Vec<String> = swept.into_iter().filter_map(Result::err).collect();
    if !failures.is_empty() {
        return Err(failures.join("; "));
    }
    shared.entries.lock().clear();
    let pods = shared.config.data_dir.join("pods");
    remove(&pods).map_err(|e| format!("cannot remove {}: {e}", pods.display()))
}

async fn stop_containers(entry: &Entry, grace: Duration) {
    entry.probing.lock().clear();
    let Some(sandbox) = entry.sandbox.lock().clone() else { return };
    let running: Vec<(String, i32)> = {
        let record = entry.record.lock();
        let running = record.containers.iter().filter(|(_, c)| matches!(c.run, Run::Running { .. }));
        running
            .map(|(n, c)| (ContainerRecord::id(n, c.attempt), c.stop_signal.unwrap_or(libc::SIGTERM)))
            .collect()
    };
    let stop = |(id, signal): (String, i32)| {
        let sandbox = sandbox.clone();
        async move {
            if sandbox.signal(&id, signal).await.is_ok() {
                let _ = tokio::time::timeout(grace, sandbox.wait(&id)).await;
            }
        }
    };
    join_all(running.into_iter().map(stop)).await;
}
