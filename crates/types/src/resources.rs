//! Amounts of resources that nodes offer and Pods request.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use crate::quantity::Quantity;

/// Amounts of each resource, as whole numbers in fixed units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU in thousandths of a core.
    pub milli_cpu: i64,
    /// Memory in bytes.
    pub memory: i64,
    /// Ephemeral storage (local disk) in bytes.
    pub ephemeral: i64,
    /// Number of Pods: 1 for a Pod, the maximum for a node.
    pub pods: i64,
    /// Other resources by name, sorted by name.
    pub extended: Vec<(Arc<str>, i64)>,
}

fn amount(quantity: &ApiQuantity) -> Quantity {
    quantity.0.parse().unwrap_or_default()
}

impl Resources {
    /// Parses a map such as `requests` or `allocatable`. Quantities that are not valid count as 0.
    pub fn read(map: &BTreeMap<String, ApiQuantity>) -> Self {
        let mut all = Self::default();
        for (name, quantity) in map {
            let quantity = amount(quantity);
            match name.as_str() {
                "cpu" => all.milli_cpu = quantity.milli(),
                "memory" => all.memory = quantity.units(),
                "ephemeral-storage" => all.ephemeral = quantity.units(),
                "pods" => all.pods = quantity.units(),
                other => all.extended.push((other.into(), quantity.units())),
            }
        }
        all
    }

    fn of_container(container: &Container) -> Self {
        container.resources.as_ref().and_then(|r| r.requests.as_ref()).map(Self::read).unwrap_or_default()
    }

    /// The Pod's effective requests, as Kubernetes computes them: the maximum of all containers with all sidecars and of each
    /// init container with the sidecars started before it, plus the overhead.
    pub fn of_pod(spec: &PodSpec) -> Self {
        let mut running = Self::default();
        spec.containers.iter().for_each(|c| running.add(&Self::of_container(c)));
        let (mut sidecars, mut starting) = (Self::default(), Self::default());
        for init in spec.init_containers.iter().flatten() {
            let mut needs = Self::of_container(init);
            if init.restart_policy.as_deref() == Some("Always") {
                sidecars.add(&needs);
                needs = sidecars.clone();
            } else {
                needs.add(&sidecars);
            }
            starting.raise_to(&needs);
        }
        running.add(&sidecars);
        running.raise_to(&starting);
        if let Some(whole) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
            // Requests at the level of the Pod replace the sum of that resource.
            let stated = Self::read(whole);
            if whole.contains_key("cpu") {
                running.milli_cpu = stated.milli_cpu;
            }
            if whole.contains_key("memory") {
                running.memory = stated.memory;
            }
        }
        if let Some(overhead) = &spec.overhead {
            running.add(&Self::read(overhead));
        }
        running.pods = 1;
        running
    }

    /// Adds the amounts of `other`, saturating.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    /// Subtracts the amounts of `other`, saturating.
    pub fn remove(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
    }

    fn raise_to(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Self, with: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral = with(self.ephemeral, other.ephemeral);
        self.pods = with(self.pods, other.pods);
        for (name, value) in &other.extended {
            match self.extended.binary_search_by(|(n, _)| n.cmp(name)) {
                Ok(i) => self.extended[i].1 = with(self.extended[i].1, *value),
                Err(i) => self.extended.insert(i, (name.clone(), with(0, *value))),
            }
        }
    }

    /// The amount of an extended resource; 0 if there is none.
    pub fn extended(&self, name: &str) -> i64 {
        self.extended.iter().find(|(n, _)| &**n == name).map_or(0, |(_, v)| *v)
    }
}

/// The quality-of-service class of a Pod: `Guaranteed`, `Burstable` or `BestEffort`, as Kubernetes computes it
/// (`pkg/apis/core/helper/qos`).
///
/// Each lookup returns the amount of a resource in a list, `requests` or `limits`, as it is written. Amounts compare by
/// value, and a request that is absent is equal to the limit, as defaulting makes it. `containers` are all containers and
/// init containers, sidecars among them, but no ephemeral ones. Amounts for the Pod as a whole count instead of those of
/// its containers.
pub fn qos_class<'a, L>(pod: Option<L>, containers: impl IntoIterator<Item = L>) -> &'static str
where
    L: Fn(&str, &str) -> Option<&'a str>,
{
    const COMPUTE: [&str; 2] = ["cpu", "memory"];
    let positive = |lookup: &L, list: &str, name: &str| {
        lookup(list, name)?.parse::<Quantity>().ok().filter(|amount| *amount > Quantity::default())
    };
    let states = |lookup: &L| {
        COMPUTE.iter().any(|name| lookup("requests", name).is_some() || lookup("limits", name).is_some())
    };
    let of_pod = pod.filter(states);
    let of_containers = of_pod.is_none().then_some(containers).into_iter().flatten();
    let (mut is_guaranteed, mut requests, mut limits) =
        (true, [Quantity::default(); 2], [Quantity::default(); 2]);
    for lookup in of_pod.into_iter().chain(of_containers) {
        for (i, name) in COMPUTE.into_iter().enumerate() {
            let limit = positive(&lookup, "limits", name);
            let request = match lookup("requests", name) {
                Some(_) => positive(&lookup, "requests", name),
                None => limit,
            };
            is_guaranteed &= limit.is_some();
            requests[i] = requests[i] + request.unwrap_or_default();
            limits[i] = limits[i] + limit.unwrap_or_default();
        }
    }
    let nothing = [Quantity::default(); 2];
    match () {
        () if requests == nothing && limits == nothing => "BestEffort",
        () if is_guaranteed && requests == limits => "Guaranteed",
        () => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_service_follow_from_amounts() {
        // Containers as `REQUESTS / LIMITS` of cpu and memory, `-` where there is none; the Pod's own after `|`.
        for (containers, expect) in [
            ("- - / - -", "BestEffort"),
            ("0 0 / 0 -", "BestEffort"),
            ("1 1Gi / 1000m 1024Mi", "Guaranteed"),
            ("- - / 1 1Gi", "Guaranteed"),
            ("1 1Gi / 1 1Gi; - - / 0.5 1e6", "Guaranteed"),
            ("1 1Gi / 1 1Gi; - - / - -", "Burstable"),
            ("1 - / - -", "Burstable"),
            ("1m - / 1m -", "Burstable"),
            ("500m 1Gi / 1 1Gi", "Burstable"),
            ("0 1Gi / 1 1Gi", "Burstable"),
            // Kubernetes compares the sums.
            ("1 1Gi / 2 1Gi; 2 1Gi / 1 1Gi", "Guaranteed"),
            ("- - / - - | 1 1Gi / 1 1Gi", "Guaranteed"),
            ("1 1Gi / 1 1Gi | 1 - / 2 -", "Burstable"),
            ("1 1Gi / 1 1Gi | - - / - -", "Guaranteed"),
        ] {
            let lookup = |text: &'static str| {
                let (requests, limits) = text.split_once('/').unwrap();
                move |list: &str, name: &str| {
                    let mut amounts = if list == "requests" { requests } else { limits }.split_whitespace();
                    amounts.nth(usize::from(name == "memory")).filter(|amount| *amount != "-")
                }
            };
            let (own, pod) = containers.split_once('|').map_or((containers, None), |(c, pod)| (c, Some(pod)));
            assert_eq!(qos_class(pod.map(lookup), own.split(';').map(lookup)), expect, "{containers}");
        }
    }
}
