//! Requests and limits, turned into cgroup values, a quality-of-service class, and an OOM score.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use yado_oci::spec::Resources;
use yado_types::quantity::Quantity;

use crate::spec::{all_containers, is_sidecar};

/// CFS period; Kubernetes' default.
const PERIOD_US: i64 = 100_000;
/// Below this quota the kernel refuses; Kubernetes' floor.
const LEAST_QUOTA_US: i64 = 1_000;
/// The kernel's smallest `cpu.shares`.
const LEAST_SHARES: u64 = 2;
/// The kernel's largest `cpu.shares`.
const MOST_SHARES: u64 = 262_144;
/// Processes of one Pod. A fork bomb ends here rather than with the machine's last process id.
const MOST_PROCESSES: i64 = 32_768;

type Amounts = Option<BTreeMap<String, ApiQuantity>>;

fn amount(amounts: &Amounts, name: &str) -> Option<Quantity> {
    amounts.as_ref()?.get(name)?.0.parse().ok()
}

fn limit(resources: Option<&ResourceRequirements>, name: &str) -> Option<Quantity> {
    amount(&resources?.limits, name)
}

/// A request defaults to the limit.
fn request(resources: Option<&ResourceRequirements>, name: &str) -> Option<Quantity> {
    amount(&resources?.requests, name).or_else(|| limit(resources, name))
}

/// A container's limit of `cpu` or `memory`.
pub(crate) fn container_limit(container: &Container, name: &str) -> Option<Quantity> {
    limit(container.resources.as_ref(), name)
}

/// A container's request of `cpu` or `memory`.
pub(crate) fn container_request(container: &Container, name: &str) -> Option<Quantity> {
    request(container.resources.as_ref(), name)
}

/// `cpu.shares` of a request: 1024 for a whole core.
fn shares(cpu: Quantity) -> u64 {
    let shares = u64::try_from(cpu.milli()).unwrap_or(0).saturating_mul(1024) / 1000;
    shares.clamp(LEAST_SHARES, MOST_SHARES)
}

fn quota(cpu: Quantity) -> i64 {
    (cpu.milli().saturating_mul(PERIOD_US) / 1000).max(LEAST_QUOTA_US)
}

fn values(cpu_request: Option<Quantity>, cpu_limit: Option<Quantity>, memory: Option<Quantity>) -> Resources {
    let positive = |q: Option<Quantity>| q.filter(|q| q.milli() > 0);
    let cpu_limit = positive(cpu_limit);
    Resources {
        cpu_shares: Some(shares(cpu_request.unwrap_or_default())),
        cpu_quota_us: cpu_limit.map(quota),
        cpu_period_us: cpu_limit.map(|_| PERIOD_US.unsigned_abs()),
        memory_limit: positive(memory).map(Quantity::units),
        pids_limit: None,
    }
}

/// The cgroup values of a container.
pub(crate) fn of_container(container: &Container) -> Resources {
    let r = container.resources.as_ref();
    values(request(r, "cpu"), limit(r, "cpu"), limit(r, "memory"))
}

/// The cgroup values of a whole Pod: limits only where every container has one.
pub(crate) fn of_pod(spec: &PodSpec) -> Resources {
    let sum = |of: &dyn Fn(&Container) -> Option<Quantity>| -> Option<Quantity> {
        let lasting = || {
            let sidecars = spec.init_containers.iter().flatten().filter(|c| is_sidecar(c));
            sidecars.chain(&spec.containers)
        };
        let running: Option<Quantity> = lasting().map(of).sum::<Option<Quantity>>();
        let inits = spec.init_containers.iter().flatten().filter(|c| !is_sidecar(c));
        let largest: Option<Vec<Quantity>> = inits.map(of).collect();
        Some(largest?.into_iter().fold(running?, Ord::max))
    };
    let mut resources = values(
        sum(&|c| Some(container_request(c, "cpu").unwrap_or_default())),
        sum(&|c| container_limit(c, "cpu")),
        sum(&|c| container_limit(c, "memory")),
    );
    resources.pids_limit = Some(MOST_PROCESSES);
    resources
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub(crate) fn qos_class(spec: &PodSpec) -> &'static str {
    fn lookup<'a>(resources: Option<&'a ResourceRequirements>) -> impl Fn(&str, &str) -> Option<&'a str> {
        move |list, name| {
            let amounts =
                resources.and_then(|r| if list == "requests" { &r.requests } else { &r.limits }.as_ref());
            Some(amounts?.get(name)?.0.as_str())
        }
    }
    let containers = all_containers(spec).map(|container| lookup(container.resources.as_ref()));
    let pod = spec.resources.as_ref().map(|resources| lookup(Some(resources)));
    yado_types::resources::qos_class(pod, containers)
}

/// The kernel's readiness to take a container first, by Kubernetes' formula: the less of the machine's memory it
/// asked for, the sooner.
pub(crate) fn oom_score_adj(spec: &PodSpec, container: &Container, machine_memory: i64) -> i32 {
    match qos_class(spec) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let request = container_request(container, "memory").map_or(0, Quantity::units);
            let share = 1000i128 * i128::from(request) / i128::from(machine_memory.max(1));
            (1000 - share).clamp(3, 999) as i32
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(containers: Value, qos: &str, pod: (u64, Option<i64>, Option<i64>), oom: i32) {
        let spec: PodSpec =
            serde_json::from_value(json!({"containers": containers})).expect("a Pod specification");
        assert_eq!(qos_class(&spec), qos, "{containers}");
        let got = of_pod(&spec);
        assert_eq!((got.cpu_shares.unwrap_or(0), got.cpu_quota_us, got.memory_limit), pod, "{containers}");
        assert_eq!(oom_score_adj(&spec, &spec.containers[0], 1 << 30), oom, "{containers}");
    }

    #[test]
    fn resources_become_cgroup_values_and_a_class() {
        check(json!([{"name": "a"}]), "BestEffort", (2, None, None), 1000);
        check(
            json!([{"name": "a", "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}}}]),
            "Guaranteed",
            (512, Some(50_000), Some(64 << 20)),
            -997,
        );
        check(
            json!([{"name": "a", "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}}}, {"name": "b"}]),
            "Burstable",
            (102, None, None),
            500,
        );
        check(
            json!([{"name": "a", "resources": {"limits": {"cpu": "1E", "memory": "1E"}}}]),
            "Guaranteed",
            (MOST_SHARES, Some(i64::MAX / 1000), Some(1_000_000_000_000_000_000)),
            -997,
        );
        check(
            json!([{"name": "a", "resources": {"requests": {"cpu": "1m"}, "limits": {"cpu": "1m"}}}]),
            "Burstable",
            (2, Some(1000), None),
            999,
        );
    }
}
