//! The Endpoints object of a Service, the API before EndpointSlices: all addresses in one object, grouped by port numbers
//! and readiness.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use yado_types::pod::{is_ready, is_terminating, node_name};

use super::Action;
use super::ports::{Port, address, hostname, is_headless, ports_of, publishes_all};

/// Label with the controller that writes an Endpoints object; Kubernetes' name.
pub const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY`] for this controller; Kubernetes' value.
pub const MANAGER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Maximum number of addresses in one object; Kubernetes' limit. EndpointSlices list all of them.
const MAX_ADDRESSES: usize = 1000;

/// The write that brings a Service's Endpoints up to date; `None` if `present` is up to date.
pub fn reconcile(service: &Service, pods: &[Arc<Pod>], present: Option<&Endpoints>) -> Option<Action> {
    let (subsets, cut) = subsets(service, pods);
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    let Some(present) = present else {
        let metadata = ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: cut.then(|| [(OVER_CAPACITY.to_owned(), "truncated".to_owned())].into()),
            ..Default::default()
        };
        return Some(Action::CreateEndpoints(Box::new(Endpoints { metadata, subsets: Some(subsets) })));
    };
    let was_cut = present.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(OVER_CAPACITY));
    let same = present.subsets.as_deref().unwrap_or_default() == subsets;
    if same && was_cut == cut && present.metadata.labels.as_ref() == Some(&labels) {
        return None;
    }
    let mut new = present.clone();
    new.subsets = Some(subsets);
    new.metadata.labels = Some(labels);
    new.metadata.managed_fields = None;
    let annotations = new.metadata.annotations.get_or_insert_default();
    if cut {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    Some(Action::ReplaceEndpoints(Box::new(new)))
}

/// Addresses grouped by port numbers, and whether they were truncated to [`MAX_ADDRESSES`].
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let family =
        service.spec.as_ref().and_then(|s| s.ip_families.as_ref()?.first()).map_or("IPv4", String::as_str);
    let all = publishes_all(service);
    let mut groups: BTreeMap<Vec<Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    let (mut count, mut cut) = (0, false);
    for pod in pods.iter().filter(|p| all || !is_terminating(p)) {
        let Some(ip) = address(pod, family) else { continue };
        let ports = ports_of(service, pod);
        if ports.is_empty() && !is_headless(service) {
            continue;
        }
        if count == MAX_ADDRESSES {
            cut = true;
            break;
        }
        count += 1;
        let (ready, not_ready) = groups.entry(ports).or_default();
        let group = if all || is_ready(pod) { ready } else { not_ready };
        group.push(address_of(service, pod, ip));
    }
    let some = |mut addresses: Vec<EndpointAddress>| {
        addresses.sort_by(|a, b| a.ip.cmp(&b.ip));
        (!addresses.is_empty()).then_some(addresses)
    };
    let subsets = groups.into_iter().map(|(ports, (ready, not_ready))| {
        let ports: Vec<_> = ports.iter().map(port).collect();
        EndpointSubset {
            addresses: some(ready),
            not_ready_addresses: some(not_ready),
            ports: (!ports.is_empty()).then_some(ports),
        }
    });
    (subsets.collect(), cut)
}

fn port(port: &Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone()).filter(|n| !n.is_empty()),
        port: port.number,
        protocol: Some(port.protocol.clone()),
        app_protocol: port.app_protocol.clone(),
    }
}

fn address_of(service: &Service, pod: &Pod, ip: &str) -> EndpointAddress {
    EndpointAddress {
        ip: ip.to_owned(),
        hostname: hostname(service, pod),
        node_name: node_name(pod).map(str::to_owned),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..Default::default()
        }),
    }
}
