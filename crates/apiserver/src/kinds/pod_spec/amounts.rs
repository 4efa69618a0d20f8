//! Amounts of resources that containers and Pods request, and may take at most.

use std::collections::BTreeMap;

use serde_json::Value;
use yado_types::quantity::Quantity;

use crate::edit::list;

/// Amounts by the names of their resources.
pub type Amounts = BTreeMap<String, Quantity>;

/// The amounts of a map like `requests`.
pub fn amounts(map: &Value) -> Amounts {
    let map = map.as_object().into_iter().flatten();
    map.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.parse().ok()?))).collect()
}

/// Adds amounts to others.
pub fn add(to: &mut Amounts, from: Amounts) {
    for (name, amount) in from {
        let so_far = to.entry(name).or_default();
        *so_far = *so_far + amount;
    }
}

fn raise(to: &mut Amounts, from: Amounts) {
    for (name, amount) in from {
        let so_far = to.entry(name).or_default();
        *so_far = (*so_far).max(amount);
    }
}

/// The amounts of a whole Pod; `field` is `requests` or `limits`: the sum over its containers and sidecars, or an init
/// container with the sidecars before it where that is more, and its overhead. As Kubernetes computes them
/// (`pkg/api/v1/resource`).
pub fn of_pod(spec: &Value, field: &str) -> Amounts {
    let of = |container: &Value| amounts(&container["resources"][field]);
    let (mut running, mut sidecars, mut starting) = (Amounts::new(), Amounts::new(), Amounts::new());
    list(&spec["containers"]).iter().for_each(|container| add(&mut running, of(container)));
    for container in list(&spec["initContainers"]) {
        let mut needs = of(container);
        if container["restartPolicy"] == "Always" {
            add(&mut sidecars, needs);
            needs = sidecars.clone();
        } else {
            add(&mut needs, sidecars.clone());
        }
        raise(&mut starting, needs);
    }
    add(&mut running, sidecars);
    raise(&mut running, starting);
    // What is said of the Pod as a whole counts instead.
    running.extend(amounts(&spec["resources"][field]));
    add(&mut running, amounts(&spec["overhead"]));
    running
}

/// An amount as it is written for a resource of this name: bytes with the largest unit that divides them.
pub fn shown(name: &str, amount: Quantity) -> String {
    const UNITS: [(&str, i64); 7] = [
        ("Gi", 1 << 30),
        ("Mi", 1 << 20),
        ("Ki", 1 << 10),
        ("G", 1_000_000_000),
        ("M", 1_000_000),
        ("k", 1000),
        ("", 1),
    ];
    let is_bytes = name.ends_with("memory") || name.ends_with("storage");
    if !is_bytes || amount.milli() % 1000 != 0 {
        return amount.to_string();
    }
    let bytes = amount.units();
    let unit = UNITS.iter().find(|(_, size)| bytes >= *size && bytes % size == 0);
    unit.map_or_else(|| amount.to_string(), |(unit, size)| format!("{}{unit}", bytes / size))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_needs_what_its_containers_need_at_once() {
        let of = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let sidecar = |cpu: &str| json!({"restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}});
        for (spec, expect) in [
            (json!({"containers": [of("1"), of("500m")]}), "1500m"),
            (json!({"containers": [of("1")], "initContainers": [of("3")]}), "3"),
            (json!({"containers": [of("1")], "initContainers": [sidecar("1"), of("1500m")]}), "2500m"),
            (json!({"containers": [of("2")], "initContainers": [sidecar("1")]}), "3"),
            (
                json!({"containers": [of("2")], "resources": {"requests": {"cpu": "4"}}, "overhead": {"cpu": "1"}}),
                "5",
            ),
        ] {
            assert_eq!(of_pod(&spec, "requests")["cpu"].to_string(), expect, "{spec}");
        }
    }

    #[test]
    fn amounts_are_written_with_their_units() {
        for (name, text, expect) in [
            ("memory", "1073741824", "1Gi"),
            ("requests.memory", "100Mi", "100Mi"),
            ("requests.storage", "5G", "5G"),
            ("memory", "1025", "1025"),
            ("memory", "0", "0"),
            ("cpu", "1500m", "1500m"),
            ("pods", "1024", "1024"),
        ] {
            assert_eq!(shown(name, text.parse().expect("a quantity")), expect, "{name} {text}");
        }
    }
}
