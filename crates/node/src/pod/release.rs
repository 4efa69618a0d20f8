//! The jobs that withdraw a Pod from traffic and remove it, and the removal of all Pods.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use yado_oci::runtime::Sandbox;
use yado_oci::spec::{ContainerState, ContainerStatus};

use crate::container;
use crate::handle::PodHandle;
use crate::shared::Shared;
use crate::spec::pre_stop;
use crate::volumes;

/// Pause before a teardown that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Grace period of containers when all Pods are removed.
const REMOVAL_GRACE: Duration = Duration::from_secs(2);

/// How long the connections to a Pod may take to fall quiet before its containers are told to stop, and no more than two
/// thirds of its grace period: the rest is the programs' own. A client that uses one connection all the time is cut off
/// once for each Pod that it had, so a long time costs it few requests.
const QUIET_TIMEOUT: Duration = Duration::from_secs(20);

/// Waits until no traffic is sent to the Pod any more and what was sent is answered, within its grace period.
pub(super) async fn withdraw(
    shared: &Shared,
    handle: &PodHandle,
    pod: Option<&Pod>,
    address: Option<IpAddr>,
    grace: Duration,
) {
    let began = shared.clock.monotonic();
    let withdrawn = async {
        match address {
            Some(address) => shared.traffic.withdrawn(address).await,
            None => shared.traffic.left(&handle.uid).await,
        }
    };
    tokio::select! {
        () = withdrawn => {}
        () = shared.clock.sleep(grace) => {
            tracing::warn!(pod = %handle.key, ?address, "traffic was not withdrawn within the grace period");
        }
    }
    // A program with a hook of its own for this needs the time itself.
    if let Some(address) = address.filter(|_| !has_pre_stop(pod)) {
        let passed = shared.clock.monotonic().saturating_sub(began);
        let within = (grace * 2 / 3).min(QUIET_TIMEOUT).saturating_sub(passed);
        shared.traffic.quiet(address, within).await;
    }
}

fn has_pre_stop(pod: Option<&Pod>) -> bool {
    let containers = pod.and_then(|pod| pod.spec.as_ref()).into_iter().flat_map(|spec| &spec.containers);
    containers.into_iter().any(|container| pre_stop(container).is_some())
}

/// Removes sandbox, network and mounts, and tries until it is done. With `again` only the sandbox goes, and the Pod is then
/// prepared anew: its volumes and its address are its own for as long as it is there. Returns false if it gave up, because
/// all Pods are being removed.
pub(super) async fn run(shared: &Shared, handle: &PodHandle, again: bool) -> bool {
    loop {
        let torn_down = match again {
            true => shared.runtime.destroy(&handle.uid).await.map_err(|e| e.to_string()),
            false => tear_down(shared, &handle.uid, handle.dir.root()).await,
        };
        let Err(error) = torn_down else { return true };
        if shared.closing.is_cancelled() {
            return false;
        }
        tracing::warn!(pod = %handle.key, error, "the Pod could not be taken down yet");
        shared.clock.sleep(RETRY).await;
    }
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

/// Removes the files that are left of a Pod whose object is gone: its logs.
pub(super) async fn forget(handle: &PodHandle) {
    let dir = handle.dir.root().to_owned();
    let removed =
        tokio::task::spawn_blocking(move || remove(&dir)).await.map_err(io::Error::other).and_then(|r| r);
    if let Err(error) = removed {
        tracing::warn!(pod = %handle.key, %error, "the Pod's directory could not be removed");
    }
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

/// Every uid that this node holds something of: sandboxes, network, directories, tasks.
pub(super) async fn held(shared: &Shared) -> BTreeSet<String> {
    let mut uids: BTreeSet<String> =
        shared.handles.all().into_iter().map(|handle| handle.uid.clone()).collect();
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

/// Stops every Pod and removes everything of it, in parallel. Containers get [`REMOVAL_GRACE`] after their stop signal.
pub(crate) async fn remove_everything(shared: &Arc<Shared>) -> Result<(), String> {
    shared.closing.cancel();
    let handles = shared.handles.all();
    join_all(handles.iter().map(|handle| handle.ended())).await;
    let uids = held(shared).await;
    let swept = join_all(uids.iter().map(|uid| sweep(shared, uid))).await;
    let failures: Vec<String> = swept.into_iter().filter_map(Result::err).collect();
    if !failures.is_empty() {
        return Err(failures.join("; "));
    }
    handles.iter().for_each(|handle| shared.handles.remove(&handle.uid));
    let pods = shared.config.data_dir.join("pods");
    remove(&pods).map_err(|e| format!("cannot remove {}: {e}", pods.display()))
}

/// Sends the stop signal to all containers of a sandbox and waits until they have ended, at most for [`REMOVAL_GRACE`].
pub(super) async fn stop_containers(sandbox: &Sandbox) {
    let stop = |status: ContainerStatus| async move {
        let signal = status.labels.get(container::LABEL_STOP_SIGNAL).and_then(|signal| signal.parse().ok());
        if sandbox.signal(&status.id, signal.unwrap_or(libc::SIGTERM)).await.is_ok() {
            let _ = tokio::time::timeout(REMOVAL_GRACE, sandbox.wait(&status.id)).await;
        }
    };
    let runs = |status: &ContainerStatus| matches!(status.state, ContainerState::Running { .. });
    join_all(sandbox.statuses().into_iter().filter(runs).map(stop)).await;
}
