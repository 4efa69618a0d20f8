//! Amounts of what a node has and a Pod asks for.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use crate::quantity::Quantity;

/// Amounts in the units that comparisons need: thousandths of a CPU, bytes, counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub milli_cpu: i64,
    /// Bytes of memory.
    pub memory: i64,
    /// Bytes of local disk.
    pub ephemeral: i64,
    /// Pods.
    pub pods: i64,
    /// Any other resource by name, ordered; few objects have any.
    pub extended: Vec<(Arc<str>, i64)>,
}

fn amount(quantity: &ApiQuantity) -> Quantity {
    quantity.0.parse().unwrap_or_default()
}

impl Resources {
    /// Reads a `requests` or `allocatable` map.
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

    /// What a Pod needs at its most: all containers together with the sidecars, or an init container with the
    /// sidecars started before it; and the overhead.
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
            // A request for the Pod as a whole replaces the sum, resource by resource.
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

    /// Adds each amount.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    /// Takes each amount off.
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

    /// The amount of a resource that is neither CPU, memory, disk nor Pods.
    pub fn extended(&self, name: &str) -> i64 {
        self.extended.iter().find(|(n, _)| &**n == name).map_or(0, |(_, v)| *v)
    }
}
