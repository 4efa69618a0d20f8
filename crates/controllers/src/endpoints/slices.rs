//! EndpointSlices: each has the endpoints of one address family and one set of port numbers, 100 at most.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sha2::{Digest, Sha256};
use yado_types::labels::{ENDPOINTSLICE_MANAGED_BY, SERVICE_NAME};
use yado_types::pod::{is_ready, is_terminating, node_name};

use super::Action;
use super::ports::{Port, address, hostname, is_headless, ports_of, publishes_all};
use crate::owners;

/// Value of [`ENDPOINTSLICE_MANAGED_BY`]: Kubernetes' own, so that the slices of an imported cluster stay managed.
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Label of the slices of headless Services.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Maximum number of endpoints in a slice; Kubernetes' default. It bounds what one changed endpoint rewrites.
const MAX_ENDPOINTS: usize = 100;

/// What the endpoints of a slice have in common: the address family and the ports with their numbers.
pub type Group = (String, Vec<Port>);

/// The writes that bring a Service's slices up to date with its Pods.
pub fn reconcile(service: &Service, pods: &[Arc<Pod>], slices: &[Arc<EndpointSlice>]) -> Vec<Action> {
    let mut groups: BTreeMap<Group, BTreeMap<String, Endpoint>> = BTreeMap::new();
    for family in families(service) {
        for pod in pods {
            if let Some(ip) = address(pod, &family) {
                let group = (family.clone(), ports_of(service, pod));
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                groups.entry(group).or_default().insert(uid, endpoint(service, pod, ip));
            }
        }
        if !groups.keys().any(|(f, _)| *f == family) {
            // A Service without Pods keeps one empty slice, which tells readers that its endpoints are known to be none.
            groups.insert((family, Vec::new()), BTreeMap::new());
        }
    }
    let mut actions = Vec::new();
    let mut taken: BTreeSet<String> = slices.iter().filter_map(|s| s.metadata.name.clone()).collect();
    let mut present: BTreeMap<Group, Vec<&Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in slices {
        present.entry(group_of(slice)).or_default().push(slice);
    }
    for (group, endpoints) in groups {
        let here = present.remove(&group).unwrap_or_default();
        pack(service, &group, endpoints, here, &mut taken, &mut actions);
    }
    actions.extend(present.into_values().flatten().map(|s| Action::DeleteSlice(s.clone())));
    actions
}

fn families(service: &Service) -> Vec<String> {
    let stated = service.spec.as_ref().and_then(|s| s.ip_families.clone()).filter(|f| !f.is_empty());
    stated.unwrap_or_else(|| vec!["IPv4".to_owned()])
}

/// The group of the endpoints of a slice.
pub fn group_of(slice: &EndpointSlice) -> Group {
    let port = |p: &EndpointPort| Port {
        name: p.name.clone().unwrap_or_default(),
        protocol: p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
        number: p.port.unwrap_or_default(),
        app_protocol: p.app_protocol.clone(),
    };
    (slice.address_type.clone(), slice.ports.iter().flatten().map(port).collect())
}

fn endpoint(service: &Service, pod: &Pod, ip: &str) -> Endpoint {
    let (serving, terminating) = (is_ready(pod), is_terminating(pod));
    let conditions = EndpointConditions {
        ready: Some(publishes_all(service) || (serving && !terminating)),
        serving: Some(serving),
        terminating: Some(terminating),
    };
    Endpoint {
        addresses: vec![ip.to_owned()],
        conditions: Some(conditions),
        hostname: hostname(service, pod),
        node_name: node_name(pod).map(str::to_owned),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Distributes the endpoints of a group over slices with few writes: those in a slice stay there, new ones fill existing
/// slices, and the rest goes into new slices. `present` are the group's slices, `taken` all names in use.
fn pack(
    service: &Service,
    group: &Group,
    mut wanted: BTreeMap<String, Endpoint>,
    present: Vec<&Arc<EndpointSlice>>,
    taken: &mut BTreeSet<String>,
    actions: &mut Vec<Action>,
) {
    let mut kept: Vec<(&Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
    for slice in present {
        let uids = slice.endpoints.iter().flatten().filter_map(|e| e.target_ref.as_ref()?.uid.as_ref());
        kept.push((slice, uids.filter_map(|uid| wanted.remove(uid)).collect()));
    }
    let mut rest = wanted.into_values();
    for (_, endpoints) in &mut kept {
        let room = MAX_ENDPOINTS.saturating_sub(endpoints.len());
        endpoints.extend(rest.by_ref().take(room));
    }
    let mut filled: Vec<_> = kept.iter().map(|(_, e)| !e.is_empty()).collect();
    let rest: Vec<_> = rest.collect();
    if rest.is_empty()
        && !filled.contains(&true)
        && let Some(first) = filled.first_mut()
    {
        *first = true;
    }
    for ((slice, endpoints), keep) in kept.into_iter().zip(filled.iter()) {
        let (labels, endpoints) = (labels(service, slice.metadata.labels.as_ref()), Some(endpoints));
        let same = slice.endpoints.as_deref().unwrap_or_default() == endpoints.as_deref().unwrap_or_default();
        if !keep {
            actions.push(Action::DeleteSlice(slice.clone()));
        } else if !same || slice.metadata.labels.as_ref() != Some(&labels) {
            let mut new = EndpointSlice::clone(slice);
            new.endpoints = endpoints;
            new.metadata.labels = Some(labels);
            new.metadata.managed_fields = None;
            actions.push(Action::ReplaceSlice(Box::new(new)));
        }
    }
    if rest.is_empty() && filled.is_empty() {
        actions.push(Action::CreateSlice(Box::new(new_slice(service, group, Vec::new(), taken))));
    }
    for chunk in rest.chunks(MAX_ENDPOINTS) {
        actions.push(Action::CreateSlice(Box::new(new_slice(service, group, chunk.to_vec(), taken))));
    }
}

/// The labels of a Service's slice: the Service's own and those that mark its slices. Labels that others added are kept.
fn labels(service: &Service, present: Option<&BTreeMap<String, String>>) -> BTreeMap<String, String> {
    let mut labels = present.cloned().unwrap_or_default();
    labels.remove(HEADLESS);
    labels.extend(service.metadata.labels.clone().unwrap_or_default());
    labels.insert(SERVICE_NAME.to_owned(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(ENDPOINTSLICE_MANAGED_BY.to_owned(), MANAGER.to_owned());
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

fn new_slice(
    service: &Service,
    group: &Group,
    endpoints: Vec<Endpoint>,
    taken: &mut BTreeSet<String>,
) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(free_name(&service.metadata, group, taken)),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels(service, None)),
            owner_references: Some(vec![owners::controller_reference(service)]),
            ..Default::default()
        },
        address_type: group.0.clone(),
        endpoints: Some(endpoints),
        ports: Some(group.1.iter().map(slice_port).collect()),
    }
}

/// A port as EndpointSlices have it.
pub fn slice_port(port: &Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone()),
        protocol: Some(port.protocol.clone()),
        port: Some(port.number),
        app_protocol: port.app_protocol.clone(),
    }
}

/// An unused name `OWNER-HASH`, with a hash of the owner's uid and the group: a pass that repeats a creation derives the
/// same name and gets a conflict instead of a second slice.
pub fn free_name(owner: &ObjectMeta, (family, ports): &Group, taken: &mut BTreeSet<String>) -> String {
    let owner_name = owner.name.as_deref().unwrap_or_default();
    let seed = format!("{:?} {family} {ports:?}", owner.uid);
    let mut attempt = 0u32;
    loop {
        let digest = Sha256::digest(format!("{seed} {attempt}"));
        let name = format!("{owner_name}-{}", &hex::encode(digest)[..5]);
        if taken.insert(name.clone()) {
            return name;
        }
        attempt += 1;
    }
}
