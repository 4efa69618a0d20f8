//! The Node object and its lease.
//!
//! Watches nothing; writes `[Node]` (labels once, status every five minutes and when a condition changes) and
//! `[Lease]` in `kube-node-lease` every ten seconds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    ContainerImage, Node, NodeAddress, NodeCondition, NodeRuntimeHandler, NodeSpec, NodeStatus,
    NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use yado_types::labels;
use yado_types::resources::Resources;

use crate::machine::{self, Machine};
use crate::shared::Shared;
use crate::status::whole_seconds;

/// How often the lease is renewed; Kubernetes' value.
const RENEW: Duration = Duration::from_secs(10);
/// How long the lease says the node may be silent; Kubernetes' value.
const LEASE_SECONDS: i32 = 40;
/// Lease renewals between two writes of an unchanged status: five minutes, Kubernetes' value.
const STATUS_EVERY: u32 = 30;
/// First delay before a failed registration is tried again; each further failure doubles it.
const RETRY_FIRST: Duration = Duration::from_millis(20);
/// The longest such delay: once the API server is there, the node is not long in coming.
const RETRY_LONGEST: Duration = Duration::from_secs(2);
/// Less memory than this is pressure; Kubernetes' eviction threshold.
const LEAST_MEMORY: i64 = 100 << 20;
/// Fewer free process ids than this is pressure.
const LEAST_PROCESSES: i64 = 512;
/// Less room than this share of the disk is pressure: one part in so many. Kubernetes' threshold is a tenth; on large
/// disks that is a lot of room, so a gibibyte is enough too.
const LEAST_DISK_SHARE: i64 = 10;
/// See [`LEAST_DISK_SHARE`].
const ENOUGH_DISK: i64 = 1 << 30;
/// Images that the status names; Kubernetes' limit.
const MOST_IMAGES: usize = 50;

/// Handler of RuntimeClasses that means the runtime of this node, the only one that it has.
pub(crate) const RUNTIME_HANDLER: &str = "yado";
/// The version that `kubectl get nodes` shows: the Kubernetes API it follows, and Yado's own.
pub(crate) const KUBELET_VERSION: &str = concat!("v1.36.0-yado", env!("CARGO_PKG_VERSION"));

/// Registers the node and keeps its lease, as a task.
pub(crate) fn start(shared: &Arc<Shared>) {
    let worker = shared.clone();
    shared.tasks.spawn("registration", async move {
        let mut delay = RETRY_FIRST;
        let uid = loop {
            match register(&worker).await {
                Ok(uid) => break uid,
                Err(error) => {
                    tracing::debug!(node = worker.config.name, %error, "the node could not be registered yet");
                    worker.clock.sleep(delay).await;
                    delay = (delay * 2).min(RETRY_LONGEST);
                }
            }
        };
        beat(&worker, &uid).await;
    });
}

async fn beat(shared: &Shared, uid: &str) {
    let mut since_status = 0;
    let mut known = pressures(shared);
    loop {
        if let Err(error) = renew(shared, uid).await {
            tracing::warn!(node = shared.config.name, %error, "the node's lease could not be renewed");
        }
        shared.clock.sleep(RENEW).await;
        since_status += 1;
        let now = pressures(shared);
        if since_status >= STATUS_EVERY || now != known {
            match write_status(shared).await {
                Ok(()) => (since_status, known) = (0, now),
                Err(error) => {
                    tracing::warn!(node = shared.config.name, %error, "the node's status could not be written");
                }
            }
        }
    }
}

/// Makes the Node object, or brings an earlier one up to date. Returns its uid.
async fn register(shared: &Shared) -> Result<String, kube::Error> {
    let api: Api<Node> = Api::all(shared.client.clone());
    let mut labels = node_labels(shared);
    // No node may give itself a role: the control plane that it runs does.
    labels.remove(labels::CONTROL_PLANE);
    let name = &shared.config.name;
    let node = Node {
        metadata: ObjectMeta { name: Some(name.clone()), labels: Some(labels.clone()), ..Default::default() },
        spec: Some(NodeSpec::default()),
        status: None,
    };
    let node = match api.create(&PostParams::default(), &node).await {
        Ok(node) => node,
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let mut labels = json!(labels);
            if shared.config.host_image.is_none() {
                // It may have been allowed at an earlier start.
                labels[labels::HOST_IMAGE_ALLOWED] = Value::Null;
            }
            let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
            api.patch(name, &PatchParams::default(), &patch).await?
        }
        Err(error) => return Err(error),
    };
    write_status(shared).await?;
    Ok(node.metadata.uid.unwrap_or_default())
}

/// What Pods may take of the machine: all but the memory whose lack is pressure.
pub(crate) fn allocatable(machine: &Machine) -> Resources {
    Resources {
        milli_cpu: machine.cpu.milli(),
        memory: (machine.memory.units() - LEAST_MEMORY).max(0),
        ephemeral: machine.ephemeral_storage.units(),
        pods: machine.pods.into(),
        ..Default::default()
    }
}

/// The labels of the node.
pub(crate) fn node_labels(shared: &Shared) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([
        (labels::HOSTNAME.to_owned(), shared.config.name.clone()),
        (labels::OS.to_owned(), "linux".to_owned()),
        (labels::ARCH.to_owned(), shared.machine.architecture.to_owned()),
        // The node runs the cluster itself; Swarm's word for that is manager.
        (labels::CONTROL_PLANE.to_owned(), String::new()),
    ]);
    all.extend(shared.config.labels.clone());
    if shared.config.host_image.is_some() {
        all.insert(labels::HOST_IMAGE_ALLOWED.to_owned(), "true".to_owned());
    }
    all
}

async fn write_status(shared: &Shared) -> Result<(), kube::Error> {
    let api: Api<Node> = Api::all(shared.client.clone());
    let old = api.get_opt(&shared.config.name).await?.and_then(|n| n.status).unwrap_or_default();
    let status = status(shared, &old);
    let patch = Patch::Merge(json!({"status": status}));
    api.patch_status(&shared.config.name, &PatchParams::default(), &patch).await.map(drop)
}

fn status(shared: &Shared, old: &NodeStatus) -> NodeStatus {
    let machine = &shared.machine;
    let amounts = |memory: i64| {
        BTreeMap::from([
            ("cpu".to_owned(), ApiQuantity(machine.cpu.to_string())),
            ("memory".to_owned(), ApiQuantity(format!("{}Ki", memory / 1024))),
            ("pods".to_owned(), ApiQuantity(machine.pods.to_string())),
            (
                "ephemeral-storage".to_owned(),
                ApiQuantity(format!("{}Ki", machine.ephemeral_storage.units() / 1024)),
            ),
        ])
    };
    let memory = machine.memory.units();
    let mut conditions: Vec<NodeCondition> = old.conditions.clone().unwrap_or_default();
    for (kind, status, reason, message) in condition_texts(pressures(shared)) {
        set_condition(&mut conditions, kind, status, reason, message, shared.clock.now());
    }
    let address = |kind: &str, address: String| NodeAddress { type_: kind.into(), address };
    NodeStatus {
        addresses: Some(vec![
            address("InternalIP", machine.address.to_string()),
            address("Hostname", machine.hostname.clone()),
        ]),
        capacity: Some(amounts(memory)),
        allocatable: Some(amounts(allocatable(machine).memory)),
        conditions: Some(conditions),
        images: Some(images(shared)),
        runtime_handlers: Some(runtime_handlers()),
        node_info: Some(NodeSystemInfo {
            architecture: machine.architecture.into(),
            boot_id: machine.boot_id.clone(),
            container_runtime_version: format!("yado://{}", env!("CARGO_PKG_VERSION")),
            kernel_version: machine.kernel.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: KUBELET_VERSION.into(),
            machine_id: machine.machine_id.clone(),
            operating_system: "linux".into(),
            os_image: machine.os_image.clone(),
            system_uuid: machine.machine_id.clone(),
            ..Default::default()
        }),
        ..old.clone()
    }
}

/// The handlers that RuntimeClasses may name: this node's own runtime, which is also that of Pods without a class.
fn runtime_handlers() -> Vec<NodeRuntimeHandler> {
    let handler = |name: &str| NodeRuntimeHandler { name: Some(name.into()), ..Default::default() };
    vec![handler(""), handler(RUNTIME_HANDLER)]
}

fn images(shared: &Shared) -> Vec<ContainerImage> {
    let mut all = shared.images.list();
    all.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    let image = |(names, size): (Vec<String>, u64)| ContainerImage {
        names: Some(names),
        size_bytes: Some(i64::try_from(size).unwrap_or(i64::MAX)),
    };
    all.into_iter().take(MOST_IMAGES).map(image).collect()
}

/// What is short on this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pressures {
    memory: bool,
    disk: bool,
    processes: bool,
}

fn pressures(shared: &Shared) -> Pressures {
    Pressures {
        memory: machine::available_memory().is_some_and(|free| free < LEAST_MEMORY),
        disk: machine::disk(&shared.config.data_dir)
            .is_some_and(|d| d.available < ENOUGH_DISK.min(d.total / LEAST_DISK_SHARE)),
        processes: machine::free_processes().is_some_and(|free| free < LEAST_PROCESSES),
    }
}

type ConditionText = (&'static str, &'static str, &'static str, &'static str);

fn condition_texts(p: Pressures) -> [ConditionText; 4] {
    let of = |kind, short, bad: (&'static str, &'static str), good: (&'static str, &'static str)| {
        let (status, (reason, message)) = if short { ("True", bad) } else { ("False", good) };
        (kind, status, reason, message)
    };
    [
        of(
            "MemoryPressure",
            p.memory,
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        of(
            "DiskPressure",
            p.disk,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        of(
            "PIDPressure",
            p.processes,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ]
}

fn set_condition(
    all: &mut Vec<NodeCondition>,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: jiff::Timestamp,
) {
    let now = Time(whole_seconds(now));
    let before = all.iter().position(|c| c.type_ == kind).map(|at| all.remove(at));
    let since = before.filter(|c| c.status == status).and_then(|c| c.last_transition_time);
    all.push(NodeCondition {
        type_: kind.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_heartbeat_time: Some(now.clone()),
        last_transition_time: Some(since.unwrap_or(now)),
    });
}

async fn renew(shared: &Shared, uid: &str) -> Result<(), kube::Error> {
    let name = &shared.config.name;
    let api: Api<Lease> = Api::namespaced(shared.client.clone(), labels::NODE_LEASE_NAMESPACE);
    let spec = LeaseSpec {
        holder_identity: Some(name.clone()),
        lease_duration_seconds: Some(LEASE_SECONDS),
        renew_time: Some(MicroTime(shared.clock.now())),
        ..Default::default()
    };
    let patch = Patch::Merge(json!({"spec": spec}));
    match api.patch(name, &PatchParams::default(), &patch).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        other => return other.map(drop),
    }
    let owner = OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: name.clone(),
        uid: uid.to_owned(),
        ..Default::default()
    };
    let metadata =
        ObjectMeta { name: Some(name.clone()), owner_references: Some(vec![owner]), ..Default::default() };
    let lease = Lease { metadata, spec: Some(spec) };
    match api.create(&PostParams::default(), &lease).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_the_time_of_its_last_change() {
        let at = |s| jiff::Timestamp::from_second(s).expect("a time");
        let mut all = Vec::new();
        for (status, when, since) in [("True", 1, 1), ("True", 5, 1), ("False", 9, 9), ("False", 12, 9)] {
            set_condition(&mut all, "Ready", status, "r", "m", at(when));
            assert_eq!(all.len(), 1);
            assert_eq!(all[0].last_transition_time, Some(Time(at(since))), "{when}");
            assert_eq!(all[0].last_heartbeat_time, Some(Time(at(when))));
        }
    }
}
