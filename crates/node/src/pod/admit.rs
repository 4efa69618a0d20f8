//! Admission: looks once at each Pod that is new here.

use k8s_openapi::api::core::v1::Pod;
use yado_reconcile::ObjectKey;
use yado_reconcile::events::EventType;
use yado_types::pod::{is_ended, is_terminating};

use super::{Entry, Shared};
use crate::admission::{self, AllocatedResources, NodeProperties};
use crate::lifecycle::{FailureKind, PodFailure, outcome};
use crate::registration;

impl Shared {
    /// Admits a Pod, or fails it for good where this node cannot run it. One that was admitted before stays so, whatever
    /// has become of the node's labels since.
    pub(super) fn admit(&self, entry: &Entry, pod: &Pod) {
        let Some(spec) = pod.spec.as_ref().filter(|_| !is_terminating(pod) && !is_ended(pod)) else { return };
        // One at a time: two Pods must not both find the same room.
        let _turn = self.admitting.lock();
        {
            let record = entry.record.lock();
            if record.admitted || record.failed.is_some() {
                return;
            }
        }
        match admission::judge(spec, &self.offer(), &self.taken()) {
            Ok(()) => entry.record.lock().admitted = true,
            Err(rejection) => {
                entry.record.lock().started_at.get_or_insert(self.clock.now());
                let (reason, message) = (rejection.reason, rejection.message);
                let kind = FailureKind::Rejected;
                entry.fail(PodFailure { kind, reason: reason.clone(), message: message.clone() });
                self.event(pod, None, EventType::Warning, &reason, message);
            }
        }
    }

    /// This node as its object says; by what it would register itself with where the object is not there.
    fn offer(&self) -> NodeProperties {
        let known = self.nodes.get(&ObjectKey::new("", &self.config.name));
        let allocatable = registration::allocatable(&self.machine);
        match known {
            Some(node) => NodeProperties::of(&node, allocatable, self.config.allowed_sysctls.clone()),
            None => NodeProperties {
                name: self.config.name.clone(),
                labels: registration::node_labels(self),
                taints: Vec::new(),
                allocatable,
                sysctls: self.config.allowed_sysctls.clone(),
            },
        }
    }

    /// What the Pods take that have been admitted and have not ended.
    fn taken(&self) -> AllocatedResources {
        let mut taken = AllocatedResources::default();
        let entries: Vec<_> = self.entries.lock().values().cloned().collect();
        for entry in entries {
            let here = self.pods.get(&entry.key).filter(|p| p.metadata.uid.as_deref() == Some(&entry.uid));
            let Some(pod) = here.filter(|p| !is_ended(p)) else { continue };
            let Some(spec) = &pod.spec else { continue };
            let record = entry.record.lock();
            if record.admitted && outcome(spec, &record).is_none() {
                taken.add(spec);
            }
        }
        taken
    }
}
