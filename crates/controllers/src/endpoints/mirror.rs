//! EndpointSlices that mirror an Endpoints object: whoever gives a Service without a selector its endpoints by the older
//! API is read by routers, too. As Kubernetes' `endpointslicemirroring` controller does it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort as OldPort, EndpointSubset, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use yado_types::labels::{ENDPOINTSLICE_MANAGED_BY, SERVICE_NAME};

use super::Action;
use super::ports::Port;
use super::slices::{Group, free_name, group_of, slice_port};
use crate::owners;

/// Value of [`ENDPOINTSLICE_MANAGED_BY`] for mirrored slices: Kubernetes' own.
pub const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// Label of Endpoints that are not mirrored, because their writer writes EndpointSlices as well.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Annotation of Endpoints that elect a leader and hold no addresses.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that describe the Endpoints object itself and are not copied.
const OWN_ANNOTATIONS: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];
/// Maximum number of endpoints in a mirrored slice; Kubernetes' default, and the limit of a slice.
const MAX_ENDPOINTS: usize = 1000;

/// The writes that bring mirrored slices up to date with the Endpoints of a Service without a selector. Without Endpoints
/// all of them are deleted.
pub fn reconcile(endpoints: Option<&Endpoints>, slices: &[Arc<EndpointSlice>]) -> Vec<Action> {
    let mut taken: BTreeSet<String> = slices.iter().filter_map(|s| s.metadata.name.clone()).collect();
    let mut present: BTreeMap<Group, Arc<EndpointSlice>> = BTreeMap::new();
    let mut actions = Vec::new();
    for slice in slices {
        if let Some(second) = present.insert(group_of(slice), slice.clone()) {
            actions.push(Action::DeleteSlice(second));
        }
    }
    if let Some(endpoints) = endpoints.filter(|endpoints| is_mirrored(endpoints)) {
        for (group, found) in groups(endpoints) {
            let slice = mirrored(endpoints, &group, found);
            match present.remove(&group) {
                Some(old) if is_same(&old, &slice) => {}
                Some(old) => actions.push(Action::ReplaceSlice(Box::new(updated(&old, slice)))),
                None => {
                    let mut slice = slice;
                    slice.metadata.name = Some(free_name(&endpoints.metadata, &group, &mut taken));
                    actions.push(Action::CreateSlice(Box::new(slice)));
                }
            }
        }
    }
    actions.extend(present.into_values().map(Action::DeleteSlice));
    actions
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    let meta = &endpoints.metadata;
    let skips = meta.labels.as_ref().and_then(|labels| labels.get(SKIP)).is_some_and(|v| v == "true");
    let elects = meta.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(LEADER));
    !skips && !elects && meta.deletion_timestamp.is_none()
}

/// The endpoints by address family and ports, each address once.
fn groups(endpoints: &Endpoints) -> BTreeMap<Group, BTreeMap<String, Endpoint>> {
    let mut groups: BTreeMap<Group, BTreeMap<String, Endpoint>> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<Port> = subset.ports.iter().flatten().map(port).collect();
        for (address, is_ready) in addresses(subset) {
            let Ok(ip) = address.ip.parse::<IpAddr>() else { continue };
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            let group = groups.entry((family.to_owned(), ports.clone())).or_default();
            if group.len() < MAX_ENDPOINTS {
                group.entry(address.ip.clone()).or_insert_with(|| endpoint(address, is_ready));
            }
        }
    }
    groups
}

fn addresses(subset: &EndpointSubset) -> impl Iterator<Item = (&EndpointAddress, bool)> {
    let ready = subset.addresses.iter().flatten().map(|address| (address, true));
    ready.chain(subset.not_ready_addresses.iter().flatten().map(|address| (address, false)))
}

fn port(port: &OldPort) -> Port {
    Port {
        name: port.name.clone().unwrap_or_default(),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
        number: port.port,
        app_protocol: port.app_protocol.clone(),
    }
}

fn endpoint(address: &EndpointAddress, is_ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(is_ready), ..Default::default() }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Default::default()
    }
}

/// The slice of a group, without a name.
fn mirrored(endpoints: &Endpoints, group: &Group, found: BTreeMap<String, Endpoint>) -> EndpointSlice {
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), endpoints.metadata.name.clone().unwrap_or_default());
    labels.insert(ENDPOINTSLICE_MANAGED_BY.to_owned(), MANAGER.to_owned());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !OWN_ANNOTATIONS.contains(&key.as_str()));
    EndpointSlice {
        metadata: ObjectMeta {
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
            owner_references: Some(vec![owners::controller_reference(endpoints)]),
            ..Default::default()
        },
        address_type: group.0.clone(),
        endpoints: Some(found.into_values().collect()),
        ports: Some(group.1.iter().map(slice_port).collect()),
    }
}

fn is_same(old: &EndpointSlice, new: &EndpointSlice) -> bool {
    old.endpoints == new.endpoints
        && old.metadata.labels == new.metadata.labels
        && old.metadata.annotations == new.metadata.annotations
        && old.metadata.owner_references == new.metadata.owner_references
}

fn updated(old: &EndpointSlice, new: EndpointSlice) -> EndpointSlice {
    let metadata = ObjectMeta {
        labels: new.metadata.labels,
        annotations: new.metadata.annotations,
        owner_references: new.metadata.owner_references,
        managed_fields: None,
        ..old.metadata.clone()
    };
    EndpointSlice { metadata, ..new }
}
