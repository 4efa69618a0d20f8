//! Admission of a Pod by the node that it is bound to; pure. The scheduler checks the same before it binds a Pod, but a Pod
//! that is created with a `nodeName` bypasses it. Reasons and messages are those of Kubernetes' kubelet.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, PodSpec, Taint};
use yado_types::labels;
use yado_types::placement::{HostPort, NodeChoice};
use yado_types::resources::Resources;
use yado_types::sysctls::AllowedSysctls;
use yado_types::taints::{NO_EXECUTE, tolerates};

/// The properties of this node that Pods may require.
pub(crate) struct NodeProperties {
    /// Name of the Node object.
    pub name: String,
    /// Labels of the Node object.
    pub labels: BTreeMap<String, String>,
    /// Taints of the Node object.
    pub taints: Vec<Taint>,
    /// Resources that are available to Pods.
    pub allocatable: Resources,
    /// Kernel parameters that Pods may set beyond the safe ones.
    pub sysctls: AllowedSysctls,
}

impl NodeProperties {
    /// Reads the Node object, whose labels and taints others may have changed.
    pub(crate) fn of(node: &Node, allocatable: Resources, sysctls: AllowedSysctls) -> Self {
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: node.spec.iter().flat_map(|s| s.taints.iter().flatten()).cloned().collect(),
            allocatable,
            sysctls,
        }
    }
}

/// Resources and ports that admitted Pods use.
#[derive(Default)]
pub(crate) struct AllocatedResources {
    requests: Resources,
    ports: Vec<HostPort>,
}

impl AllocatedResources {
    /// Adds the requests and host ports of a Pod.
    pub(crate) fn add(&mut self, spec: &PodSpec) {
        self.requests.add(&Resources::of_pod(spec));
        self.ports.extend(HostPort::of_pod(spec));
    }
}

/// Why a Pod is not admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    /// Reason in upper camel case, for the Pod's status.
    pub reason: String,
    /// Message for the Pod's status.
    pub message: String,
}

impl Rejection {
    fn predicate(name: &str, why: &str) -> Self {
        Self { reason: name.into(), message: format!("Predicate {name} failed: {why}") }
    }
}

/// Judges a Pod beside those that run here already. The first obstacle in Kubernetes' order counts.
pub(crate) fn judge(
    spec: &PodSpec,
    offer: &NodeProperties,
    taken: &AllocatedResources,
) -> Result<(), Rejection> {
    if let Some(message) = forbidden_sysctl(spec, &offer.sysctls) {
        return Err(Rejection { reason: "SysctlForbidden".into(), message });
    }
    let own_system = offer.labels.get(labels::OS).map_or("linux", String::as_str);
    if spec.os.as_ref().is_some_and(|os| os.name != own_system) {
        return Err(Rejection {
            reason: "PodOSNotSupported".into(),
            message: "Failed to admit pod as the OS field doesn't match node OS".into(),
        });
    }
    fits(&Resources::of_pod(spec), &offer.allocatable, &taken.requests)?;
    if !NodeChoice::of(spec).matches(&offer.name, &offer.labels) {
        return Err(Rejection::predicate(
            "NodeAffinity",
            "node(s) didn't match Pod's node affinity/selector",
        ));
    }
    if HostPort::of_pod(spec).iter().any(|port| taken.ports.iter().any(|other| other.collides(port))) {
        let why = "node(s) didn't have free ports for the requested pod ports";
        return Err(Rejection::predicate("NodePorts", why));
    }
    let borne = |taint: &Taint| {
        let value = taint.value.as_deref().unwrap_or_default();
        spec.tolerations.iter().flatten().any(|t| tolerates(t, &taint.key, value, &taint.effect))
    };
    if offer.taints.iter().any(|taint| taint.effect == NO_EXECUTE && !borne(taint)) {
        return Err(Rejection::predicate(
            "TaintToleration",
            "node(s) had taints that the pod didn't tolerate",
        ));
    }
    Ok(())
}

/// Why the Pod may not set the kernel parameters that it asks for; `None` where it may.
fn forbidden_sysctl(spec: &PodSpec, allowed: &AllowedSysctls) -> Option<String> {
    let sysctls = spec.security_context.iter().flat_map(|s| s.sysctls.iter().flatten());
    let (network, ipc) = (spec.host_network == Some(true), spec.host_ipc == Some(true));
    allowed.refusal(sysctls.map(|s| s.name.as_str()), network, ipc)
}

/// Resources that the node does not know at all are left to whoever offers them elsewhere, as in Kubernetes.
fn fits(asked: &Resources, has: &Resources, taken: &Resources) -> Result<(), Rejection> {
    let amounts = [
        ("pods", asked.pods, taken.pods, has.pods),
        ("cpu", asked.milli_cpu, taken.milli_cpu, has.milli_cpu),
        ("memory", asked.memory, taken.memory, has.memory),
        ("ephemeral-storage", asked.ephemeral, taken.ephemeral, has.ephemeral),
    ];
    for (name, asked, taken, has) in amounts {
        if asked > 0 && asked > has.saturating_sub(taken) {
            return Err(Rejection {
                reason: format!("OutOf{name}"),
                message: format!(
                    "Node didn't have enough resource: {name}, requested: {asked}, used: {taken}, capacity: {has}"
                ),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(spec: Value, expect: &str) {
        let read = |mut spec: Value| -> PodSpec {
            let containers = spec.get("containers").is_none();
            if containers {
                spec["containers"] = json!([{"name": "c"}]);
            }
            serde_json::from_value(spec).expect("a Pod specification")
        };
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n", "labels": {"kubernetes.io/os": "linux", "disk": "ssd"}},
            "spec": {"taints": [
                {"key": "gone", "effect": "NoExecute"}, {"key": "full", "effect": "NoSchedule"},
            ]},
        }))
        .expect("a Node");
        let allocatable =
            Resources { milli_cpu: 2000, memory: 1 << 30, ephemeral: 1 << 30, pods: 2, ..Default::default() };
        let sysctls = "net.core.*".parse().expect("a pattern");
        let mut taken = AllocatedResources::default();
        taken.add(&read(json!({"containers": [{"name": "c",
            "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}},
            "ports": [{"containerPort": 80, "hostPort": 80}]}]})));
        let mut spec = spec;
        if spec.get("tolerations").is_none() {
            spec["tolerations"] = json!([{"operator": "Exists"}]);
        }
        let said = judge(&read(spec.clone()), &NodeProperties::of(&node, allocatable, sysctls), &taken);
        let said = said.map_or_else(|r| format!("{}: {}", r.reason, r.message), |()| "admitted".into());
        assert_eq!(said, expect, "{spec}");
    }

    fn asks(requests: Value) -> Value {
        json!({"containers": [{"name": "c", "resources": {"requests": requests}}]})
    }

    #[test]
    fn a_pod_that_the_node_cannot_run_is_rejected_by_the_first_reason() {
        check(json!({}), "admitted");
        check(asks(json!({"cpu": "1500m"})), "admitted");
        check(
            asks(json!({"cpu": "1501m"})),
            "OutOfcpu: Node didn't have enough resource: cpu, requested: 1501, used: 500, capacity: 2000",
        );
        check(
            asks(json!({"memory": "1"})),
            "OutOfmemory: Node didn't have enough resource: memory, requested: 1, used: 1073741824, capacity: 1073741824",
        );
        check(
            asks(json!({"ephemeral-storage": "2Gi"})),
            "OutOfephemeral-storage: Node didn't have enough resource: ephemeral-storage, requested: 2147483648, used: 0, capacity: 1073741824",
        );
        check(asks(json!({"example.com/gpu": "1"})), "admitted");
        check(json!({"nodeSelector": {"disk": "ssd"}}), "admitted");
        let affinity =
            "NodeAffinity: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        check(json!({"nodeSelector": {"disk": "hdd"}}), affinity);
        let term = |operator: &str| {
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": operator}]}]}}}})
        };
        check(term("Exists"), "admitted");
        check(term("DoesNotExist"), affinity);
        let port = |protocol: &str| {
            json!({"containers": [{"name": "c",
                "ports": [{"containerPort": 8080, "hostPort": 80, "protocol": protocol}]}]})
        };
        check(port("UDP"), "admitted");
        check(
            port("TCP"),
            "NodePorts: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
        );
        let taint = "TaintToleration: Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate";
        check(json!({"tolerations": []}), taint);
        check(json!({"tolerations": [{"key": "full", "operator": "Exists"}]}), taint);
        check(json!({"tolerations": [{"key": "gone", "operator": "Exists"}]}), "admitted");
        let sysctl = |name: &str| json!({"securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
        check(sysctl("kernel.shm_rmid_forced"), "admitted");
        check(sysctl("net/core/somaxconn"), "admitted");
        check(
            sysctl("kernel.msgmax"),
            "SysctlForbidden: forbidden sysctl: \"kernel.msgmax\" not allowlisted",
        );
        check(
            json!({"os": {"name": "windows"}}),
            "PodOSNotSupported: Failed to admit pod as the OS field doesn't match node OS",
        );
    }

    #[test]
    fn pods_are_counted() {
        let spec: PodSpec = serde_json::from_value(json!({"containers": [{"name": "c"}]})).expect("one");
        let offer = NodeProperties::of(
            &Node::default(),
            Resources { pods: 1, ..Default::default() },
            AllowedSysctls::default(),
        );
        let mut taken = AllocatedResources::default();
        assert_eq!(judge(&spec, &offer, &taken), Ok(()));
        taken.add(&spec);
        assert_eq!(judge(&spec, &offer, &taken).expect_err("full").reason, "OutOfpods");
    }
}
