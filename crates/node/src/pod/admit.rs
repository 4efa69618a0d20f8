//! Admission: looks once at each Pod that is new here.

use k8s_openapi::api::core::v1::Pod;
use yado_reconcile::ObjectKey;
use yado_reconcile::events::EventType;
use yado_types::pod::{is_ended, is_terminating};

use super::Actor;
use crate::admission::{self, AllocatedResources, NodeProperties};
use crate::lifecycle::{FailureKind, PodFailure, outcome};
use crate::registration;
use crate::shared::Shared;

impl Actor {
    /// Admits a Pod, or fails it for good where this node cannot run it. One that was admitted before stays so, whatever
    /// has become of the node's labels since.
    pub(super) fn admit(&mut self, pod: &Pod) {
        if self.state.record.admitted || self.state.record.failed.is_some() {
            return;
        }
        let Some(spec) = pod.spec.as_ref().filter(|_| !is_terminating(pod) && !is_ended(pod)) else { return };
        let shared = self.shared.clone();
        // One at a time, until it is published: two Pods must not both find the same room.
        let _turn = shared.admitting.lock();
        match admission::judge(spec, &properties(&shared), &allocated(&shared)) {
            Ok(()) => self.record().admitted = true,
            Err(rejection) => {
                self.record().started_at.get_or_insert(shared.clock.now());
                let (reason, message) = (rejection.reason, rejection.message);
                let kind = FailureKind::Rejected;
                self.fail(PodFailure { kind, reason: reason.clone(), message: message.clone() });
                shared.event(pod, None, EventType::Warning, &reason, message);
            }
        }
        self.publish();
    }
}

/// The properties of this node by its object, or by those that it would register itself with while there is none.
fn properties(shared: &Shared) -> NodeProperties {
    let known = shared.nodes.get(&ObjectKey::new("", &shared.config.name));
    let allocatable = registration::allocatable(&shared.machine);
    match known {
        Some(node) => NodeProperties::of(&node, allocatable, shared.config.allowed_sysctls.clone()),
        None => NodeProperties {
            name: shared.config.name.clone(),
            labels: registration::node_labels(shared),
            taints: Vec::new(),
            allocatable,
            sysctls: shared.config.allowed_sysctls.clone(),
        },
    }
}

/// The resources of the Pods that have been admitted and have not ended.
fn allocated(shared: &Shared) -> AllocatedResources {
    let mut allocated = AllocatedResources::default();
    for handle in shared.handles.all() {
        let Some(pod) = shared.pod_object(&handle).filter(|pod| !is_ended(pod)) else { continue };
        let Some(spec) = &pod.spec else { continue };
        let state = handle.state();
        if state.record.admitted && outcome(spec, &state.record).is_none() {
            allocated.add(spec);
        }
    }
    allocated
}
