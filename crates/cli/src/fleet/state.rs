//! What runs, in fleet's and systemd's words.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerStatus, Node, Pod};
use kube::{Api, Client, ResourceExt, api::ListParams};
use yado_types::labels;

use super::registry::APP;
use crate::connect::failed;

/// A node, as fleet sees machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    pub node: String,
    pub id: String,
    pub ip: String,
    pub metadata: BTreeMap<String, String>,
    pub ready: bool,
    /// Whether units may run its own programs.
    pub host: bool,
}

/// As many characters of a machine's ID as are shown unless all are asked for.
const SHORT_ID: usize = 8;

impl Machine {
    fn of(node: &Node) -> Self {
        let status = node.status.clone().unwrap_or_default();
        let id = status.node_info.map(|i| i.machine_id).filter(|id| !id.is_empty());
        let id = id.or_else(|| node.uid().map(|u| u.replace('-', ""))).unwrap_or_else(|| node.name_any());
        let addresses = status.addresses.unwrap_or_default();
        let ip = addresses.iter().find(|a| a.type_ == "InternalIP").map(|a| a.address.clone());
        let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
        // What users put on nodes has no prefix; what has one is a program's.
        let own = node.labels().iter().filter(|(key, _)| !key.contains('/'));
        let metadata = own.map(|(k, v)| (k.clone(), v.clone())).collect();
        let host = node.labels().get(labels::HOST_IMAGE_ALLOWED).is_some_and(|v| v == "true");
        Machine { node: node.name_any(), id, ip: ip.unwrap_or_default(), metadata, ready, host }
    }

    /// `85c0c595...`
    pub fn id_legend(&self, full: bool) -> String {
        if full {
            self.id.clone()
        } else {
            format!("{}...", self.id.chars().take(SHORT_ID).collect::<String>())
        }
    }

    /// `85c0c595.../172.17.8.102`
    pub fn legend(&self, full: bool) -> String {
        let id = self.id_legend(full);
        if self.ip.is_empty() { id } else { format!("{id}/{}", self.ip) }
    }
}

/// systemd's state of a unit on one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitState {
    pub active: &'static str,
    pub sub: &'static str,
    /// The node, where it has one.
    pub node: Option<String>,
}

/// What there is in the cluster beside the units themselves.
pub struct Cluster {
    pub machines: Vec<Machine>,
    /// Pods by their unit's name.
    pub pods: BTreeMap<String, Vec<Pod>>,
}

impl Cluster {
    /// Reads it.
    pub async fn read(client: &Client, namespace: &str) -> anyhow::Result<Self> {
        let nodes: Api<Node> = Api::all(client.clone());
        let nodes = nodes.list(&ListParams::default()).await;
        let nodes = nodes.map_err(failed("Error retrieving list of active machines"))?;
        let mut machines: Vec<Machine> = nodes.iter().map(Machine::of).collect();
        machines.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(Cluster { machines, pods: pods(client, namespace).await? })
    }

    /// The machine of a node.
    pub fn machine(&self, node: Option<&str>) -> Option<&Machine> {
        self.machines.iter().find(|m| Some(m.node.as_str()) == node)
    }

    /// The Pods of a unit, the newest first, and those that are on their way out last.
    pub fn of(&self, unit: &str) -> &[Pod] {
        self.pods.get(unit).map_or(&[], Vec::as_slice)
    }
}

/// The Pods of units, by unit.
pub async fn pods(client: &Client, namespace: &str) -> anyhow::Result<BTreeMap<String, Vec<Pod>>> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let found = api.list(&ListParams::default().labels(&format!("{}={APP}", labels::APP_NAME))).await;
    let mut all = found.map_err(failed("Error retrieving the states of units"))?.items;
    // Of two of the same second, which is as fine as these times are, the one that goes is the older.
    let stays = |p: &Pod| p.metadata.deletion_timestamp.is_none();
    all.sort_by_key(|p| std::cmp::Reverse((stays(p), p.creation_timestamp(), p.name_any())));
    let mut pods: BTreeMap<String, Vec<Pod>> = BTreeMap::new();
    for pod in all {
        if let Some(unit) = pod.annotations().get(labels::UNIT).cloned() {
            pods.entry(unit).or_default().push(pod);
        }
    }
    Ok(pods)
}

/// The node that a Pod is on.
pub fn node(pod: &Pod) -> Option<String> {
    pod.spec.as_ref()?.node_name.clone()
}

/// Why a Pod is on no node yet.
pub fn unscheduled(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let scheduled = conditions.into_iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    scheduled.message.clone().filter(|m| !m.is_empty())
}

/// Whether a Pod runs a program of the machine itself.
pub fn runs_on_host(pod: &Pod) -> bool {
    let selector = pod.spec.as_ref().and_then(|s| s.node_selector.as_ref());
    selector.is_some_and(|s| s.contains_key(labels::HOST_IMAGE_ALLOWED))
}

/// The main container's status.
pub fn main(pod: &Pod) -> Option<&ContainerStatus> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    containers.iter().find(|c| c.name == "main").or(containers.first())
}

/// A Pod's state in systemd's words. `remains` is `RemainAfterExit`.
pub fn of_pod(pod: &Pod, remains: bool) -> UnitState {
    let state = |active, sub| UnitState { active, sub, node: node(pod) };
    let status = pod.status.clone().unwrap_or_default();
    let phase = status.phase.as_deref().unwrap_or("Pending");
    if phase == "Failed" {
        return state("failed", "failed");
    }
    if phase == "Succeeded" {
        return if remains { state("active", "exited") } else { state("inactive", "dead") };
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return state("deactivating", "stop-sigterm");
    }
    if node(pod).is_none() {
        return state("inactive", "dead");
    }
    let Some(container) = main(pod).and_then(|c| c.state.clone()) else {
        return state("activating", "start-pre");
    };
    if container.running.is_some() {
        return state("active", "running");
    }
    let waiting = container.waiting.and_then(|w| w.reason).unwrap_or_default();
    if waiting == "CrashLoopBackOff" || container.terminated.is_some() {
        return state("activating", "auto-restart");
    }
    state("activating", "start-pre")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn c11_states_in_systemds_words() {
        let check = |phase: &str, node: Value, container: Value, remains: bool, expect: &str| {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {"name": "p"},
                "spec": {"nodeName": node, "containers": []},
                "status": {"phase": phase, "containerStatuses": [{"name": "main", "image": "", "imageID": "",
                    "ready": false, "restartCount": 0, "state": container}]},
            }))
            .unwrap();
            let state = of_pod(&pod, remains);
            assert_eq!(format!("{} {}", state.active, state.sub), expect, "{phase} {container}");
        };
        let running = json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
        let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
        check("Running", json!("n"), running, false, "active running");
        check("Pending", json!("n"), waiting("PodInitializing"), false, "activating start-pre");
        check("Pending", json!("n"), waiting("ImagePullBackOff"), false, "activating start-pre");
        check("Running", json!("n"), waiting("CrashLoopBackOff"), false, "activating auto-restart");
        check(
            "Running",
            json!("n"),
            json!({"terminated": {"exitCode": 1}}),
            false,
            "activating auto-restart",
        );
        check("Pending", json!(null), json!({}), false, "inactive dead");
        check("Failed", json!("n"), json!({"terminated": {"exitCode": 1}}), false, "failed failed");
        check("Succeeded", json!("n"), json!({"terminated": {"exitCode": 0}}), false, "inactive dead");
        check("Succeeded", json!("n"), json!({"terminated": {"exitCode": 0}}), true, "active exited");
    }

    #[test]
    fn c03_machines_are_nodes() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "node-1", "labels": {"region": "eu", "kubernetes.io/os": "linux"}},
            "status": {
                "addresses": [{"type": "Hostname", "address": "node-1"}, {"type": "InternalIP", "address": "10.0.0.1"}],
                "nodeInfo": {"machineID": "85c0c595d4a6409e8ae23bf3dee8e3b8", "architecture": "", "bootID": "",
                    "containerRuntimeVersion": "", "kernelVersion": "", "kubeProxyVersion": "", "kubeletVersion": "",
                    "operatingSystem": "", "osImage": "", "systemUUID": ""},
            },
        }))
        .unwrap();
        let machine = Machine::of(&node);
        assert_eq!(machine.legend(false), "85c0c595.../10.0.0.1");
        assert_eq!(machine.legend(true), "85c0c595d4a6409e8ae23bf3dee8e3b8/10.0.0.1");
        assert_eq!(machine.metadata, BTreeMap::from([("region".into(), "eu".into())]));
    }
}
