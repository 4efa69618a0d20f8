//! Endpoints: the Pods behind each Service.
//!
//! ```text
//! [Service], [Pod] --> [EndpointSlice] (what routers read)
//!                  `-> [Endpoints]     (what older clients read)
//! ```
//!
//! Watches Services, Pods, EndpointSlices and Endpoints. Writes EndpointSlices and Endpoints of Services that have a
//! selector; those of others are their makers'. The slices go first: traffic waits for them, and a Pod that is being
//! deleted leaves them at once.

mod addresses;
mod ports;
mod run;
mod slices;

pub(crate) use run::start;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// What a decision rests on.
pub struct Observed<'a> {
    /// The Service.
    pub service: &'a Service,
    /// Pods of its namespace that its selector means.
    pub pods: Vec<Arc<Pod>>,
    /// Its slices that this controller wrote.
    pub slices: Vec<Arc<EndpointSlice>>,
    /// The Endpoints of its name.
    pub endpoints: Option<Arc<Endpoints>>,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Action {
    /// Create a slice.
    CreateSlice(Box<EndpointSlice>),
    /// Replace a slice.
    ReplaceSlice(Box<EndpointSlice>),
    /// Delete a slice.
    DeleteSlice(Arc<EndpointSlice>),
    /// Create the Endpoints.
    CreateEndpoints(Box<Endpoints>),
    /// Replace the Endpoints.
    ReplaceEndpoints(Box<Endpoints>),
}

/// Decides what a Service's slices and Endpoints need.
pub fn reconcile(observed: &Observed<'_>) -> Vec<Action> {
    let spec = observed.service.spec.as_ref();
    let selected = spec.and_then(|s| s.selector.as_ref()).is_some_and(|s| !s.is_empty());
    let external = spec.and_then(|s| s.type_.as_deref()) == Some("ExternalName");
    if !selected || external || observed.service.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let mut actions = slices::reconcile(observed.service, &observed.pods, &observed.slices);
    actions.extend(addresses::reconcile(observed.service, &observed.pods, observed.endpoints.as_deref()));
    actions
}

#[cfg(test)]
mod tests;
