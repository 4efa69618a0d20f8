//! Limits of local disk: `emptyDir.sizeLimit` and limits of `ephemeral-storage`. A Pod that uses more is evicted, by the
//! rules of Kubernetes' kubelet and in its words. [`Limits::exceeded`] is pure; [`start`] measures and tells the Pod's task.
//!
//! ```text
//! [Pod with limits] --every 10 s--> disk_usage of its directories --exceeded()--> [Pod] Failed, Evicted
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, PodSpec, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use yado_types::quantity::Quantity;

use crate::disk_usage;
use crate::handle::{Message, PodHandle, PodState};
use crate::lifecycle::{ContainerRecord, SandboxPhase};
use crate::shared::Shared;
use crate::spec::{all_containers, is_sidecar};

/// How often usage is looked at; Kubernetes' value.
const INTERVAL: Duration = Duration::from_secs(10);
/// A look that takes long makes the next one wait this many times as long, so that no more than a twentieth of one
/// processor goes into looking, however many files there are.
const REST: u32 = 19;
/// The resource.
const EPHEMERAL: &str = "ephemeral-storage";

/// An amount of disk.
#[derive(Clone, Debug, PartialEq)]
struct Limit {
    bytes: u64,
    /// As the Pod writes it.
    text: String,
}

impl Limit {
    /// Reads a quantity; one that limits nothing is none.
    fn of(quantity: Option<&ApiQuantity>) -> Option<Self> {
        let text = &quantity?.0;
        let bytes = u64::try_from(text.parse::<Quantity>().ok()?.units()).ok()?;
        (bytes > 0).then(|| Self { bytes, text: text.clone() })
    }

    /// Several together, in the largest unit that divides them.
    fn sum(all: Vec<Self>) -> Option<Self> {
        const UNITS: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        if all.len() < 2 {
            return all.into_iter().next();
        }
        let bytes = all.iter().fold(0u64, |sum, limit| sum.saturating_add(limit.bytes));
        let unit = (bytes.trailing_zeros() / 10) as usize;
        Some(Self { bytes, text: format!("{}{}", bytes >> (10 * unit), UNITS[unit]) })
    }
}

/// What a Pod may use, as its specification says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Limits {
    /// By volume.
    volumes: BTreeMap<String, Limit>,
    /// By container.
    containers: BTreeMap<String, Limit>,
    /// Of all containers and volumes together.
    pod: Option<Limit>,
}

/// What a Pod uses, in bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// Writable layer, volumes that its image declares, and logs, by container.
    containers: BTreeMap<String, u64>,
    /// By volume; only those that lie on the node's disk.
    volumes: BTreeMap<String, u64>,
}

/// An emptyDir on the node's disk. A volume that names no source is one, too.
fn on_disk(volume: &Volume) -> bool {
    match &volume.empty_dir {
        Some(empty) => empty.medium.as_deref() != Some("Memory"),
        None => *volume == Volume { name: volume.name.clone(), ..Default::default() },
    }
}

impl Limits {
    /// Reads them; `None` where nothing is limited.
    pub(crate) fn of(spec: &PodSpec) -> Option<Self> {
        let size = |v: &Volume| Limit::of(v.empty_dir.as_ref()?.size_limit.as_ref());
        let volumes = spec.volumes.iter().flatten().filter(|v| on_disk(v));
        let volumes = volumes.filter_map(|v| Some((v.name.clone(), size(v)?)));
        let containers = all_containers(spec).filter_map(|c| Some((c.name.clone(), of_container(c)?)));
        let all = Self { volumes: volumes.collect(), containers: containers.collect(), pod: of_pod(spec) };
        (all != Self::default()).then_some(all)
    }

    /// Beyond this nothing needs to be counted.
    fn most(&self) -> u64 {
        let all = self.volumes.values().chain(self.containers.values()).chain(&self.pod);
        all.map(|limit| limit.bytes).max().unwrap_or(0)
    }

    /// Which limit is exceeded, in one sentence.
    pub(crate) fn exceeded(&self, usage: &Usage) -> Option<String> {
        let used = |of: &BTreeMap<String, u64>, name: &str| of.get(name).copied().unwrap_or(0);
        let mut volumes = self.volumes.iter();
        if let Some((name, limit)) = volumes.find(|(name, limit)| used(&usage.volumes, name) > limit.bytes) {
            let text = &limit.text;
            return Some(format!("Usage of EmptyDir volume \"{name}\" exceeds the limit \"{text}\"."));
        }
        let parts = usage.containers.values().chain(usage.volumes.values());
        let sum = parts.fold(0u64, |sum, part| sum.saturating_add(*part));
        if let Some(limit) = self.pod.as_ref().filter(|limit| sum > limit.bytes) {
            let text = &limit.text;
            return Some(format!(
                "Pod ephemeral local storage usage exceeds the total limit of containers {text}."
            ));
        }
        let mut containers = self.containers.iter();
        let (name, limit) = containers.find(|(name, limit)| used(&usage.containers, name) > limit.bytes)?;
        Some(format!("Container {name} exceeded its local ephemeral storage limit \"{}\".", limit.text))
    }
}

fn of_container(container: &Container) -> Option<Limit> {
    Limit::of(container.resources.as_ref()?.limits.as_ref()?.get(EPHEMERAL))
}

/// The containers' limits together, as far as they have any; init containers run one at a time.
fn of_pod(spec: &PodSpec) -> Option<Limit> {
    let inits = || spec.init_containers.iter().flatten();
    let lasting = inits().filter(|c| is_sidecar(c)).chain(&spec.containers).filter_map(of_container);
    let first = inits().filter(|c| !is_sidecar(c)).filter_map(of_container);
    Limit::sum(lasting.collect()).into_iter().chain(first).max_by_key(|limit| limit.bytes)
}

/// Directories whose disk usage is measured, by the container or volume that they belong to.
#[derive(Default)]
struct MeasuredDirs {
    containers: Vec<(String, Vec<PathBuf>)>,
    volumes: Vec<(String, PathBuf)>,
}

impl MeasuredDirs {
    fn of(handle: &PodHandle, state: &PodState, spec: &PodSpec) -> Self {
        let of_container = |name: &String| {
            let id = ContainerRecord::id(name, state.record.container(name).attempt);
            let layer = state.sandbox.as_ref().map(|s| s.writable_layer(&id));
            layer.into_iter().chain([handle.dir.logs(name), handle.dir.image_volumes(name)]).collect()
        };
        let containers = all_containers(spec).map(|c| (c.name.clone(), of_container(&c.name)));
        let volumes = spec.volumes.iter().flatten().filter(|v| on_disk(v));
        Self {
            containers: containers.collect(),
            volumes: volumes.map(|v| (v.name.clone(), handle.dir.volumes().join(&v.name))).collect(),
        }
    }

    fn measure(self, most: u64) -> Usage {
        let of = |place: &PathBuf| disk_usage::of(place, most);
        let sum = |places: &Vec<PathBuf>| places.iter().map(of).fold(0u64, u64::saturating_add);
        Usage {
            containers: self.containers.iter().map(|(name, places)| (name.clone(), sum(places))).collect(),
            volumes: self.volumes.iter().map(|(name, place)| (name.clone(), of(place))).collect(),
        }
    }
}

/// Looks at all Pods that have limits again and again, one after the other, as a task.
pub(crate) fn start(shared: &Arc<Shared>) {
    let worker = shared.clone();
    shared.tasks.spawn("disk limits", async move {
        let mut pause = INTERVAL;
        loop {
            worker.clock.sleep(pause).await;
            let began = worker.clock.monotonic();
            for handle in worker.handles.all() {
                check(&handle).await;
            }
            let took = worker.clock.monotonic().saturating_sub(began);
            pause = INTERVAL.max(took.saturating_mul(REST));
        }
    });
}

async fn check(handle: &PodHandle) {
    let state = handle.state();
    let Some(spec) = state.pod.as_ref().and_then(|pod| pod.spec.as_ref()) else { return };
    let Some(limits) = Limits::of(spec) else { return };
    let record = &state.record;
    if record.sandbox != SandboxPhase::Ready || record.termination.is_some() || record.failed.is_some() {
        return;
    }
    let (dirs, most) = (MeasuredDirs::of(handle, &state, spec), limits.most());
    let Ok(usage) = tokio::task::spawn_blocking(move || dirs.measure(most)).await else { return };
    if let Some(message) = limits.exceeded(&usage) {
        handle.send(Message::Evict(message)).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const MI: u64 = 1 << 20;

    fn check_limits(spec: Value, containers: &[(&str, u64)], volumes: &[(&str, u64)], expect: Option<&str>) {
        let limits = serde_json::from_value(spec.clone()).map(|spec: PodSpec| Limits::of(&spec));
        let limits = limits.expect("a Pod specification").expect("limits");
        let usage = |of: &[(&str, u64)]| of.iter().map(|(name, n)| ((*name).to_owned(), n * MI)).collect();
        let usage = Usage { containers: usage(containers), volumes: usage(volumes) };
        assert_eq!(limits.exceeded(&usage).as_deref(), expect, "{spec} {usage:?}");
    }

    fn container(name: &str, limit: &str) -> Value {
        json!({"name": name, "resources": {"limits": {"ephemeral-storage": limit}}})
    }

    #[test]
    fn a_pod_that_uses_more_than_a_limit_is_told_which() {
        let volume = json!({"volumes": [{"name": "e", "emptyDir": {"sizeLimit": "5Mi"}}], "containers": [{"name": "a"}]});
        check_limits(volume.clone(), &[("a", 50)], &[("e", 5)], None);
        check_limits(
            volume,
            &[],
            &[("e", 6)],
            Some("Usage of EmptyDir volume \"e\" exceeds the limit \"5Mi\"."),
        );
        let one = json!({"volumes": [{"name": "e"}], "containers": [container("a", "5Mi"), {"name": "b"}]});
        check_limits(one.clone(), &[("a", 3), ("b", 2)], &[], None);
        let whole = "Pod ephemeral local storage usage exceeds the total limit of containers 5Mi.";
        check_limits(one.clone(), &[("a", 3), ("b", 3)], &[], Some(whole));
        check_limits(one, &[("a", 3)], &[("e", 3)], Some(whole));
        let two = json!({"initContainers": [container("i", "9Mi")],
            "containers": [container("a", "5Mi"), container("b", "5Mi")]});
        check_limits(two.clone(), &[("a", 1), ("b", 5)], &[], None);
        let both = "Pod ephemeral local storage usage exceeds the total limit of containers 10Mi.";
        check_limits(two.clone(), &[("a", 5), ("b", 6)], &[], Some(both));
        check_limits(
            two,
            &[("a", 1), ("b", 6)],
            &[],
            Some("Container b exceeded its local ephemeral storage limit \"5Mi\"."),
        );
    }

    #[test]
    fn what_has_no_limit_on_disk_is_not_measured() {
        for spec in [
            json!({"containers": [{"name": "a"}], "volumes": [{"name": "e", "emptyDir": {}}]}),
            json!({"containers": [{"name": "a"}],
                "volumes": [{"name": "e", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]}),
            json!({"containers": [{"name": "a", "resources": {"limits": {"memory": "1Mi"}}}]}),
        ] {
            let read: PodSpec = serde_json::from_value(spec.clone()).expect("a Pod specification");
            assert_eq!(Limits::of(&read), None, "{spec}");
        }
    }
}
