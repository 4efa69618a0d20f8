//! The endpoints controller: lists the Pods behind each Service as EndpointSlices and Endpoints.
//!
//! ```text
//! [Service], [Pod] --> [EndpointSlice] (what routers read)
//!                  `-> [Endpoints]     (what older clients read)
//! [Service] without selector, [Endpoints] --> [EndpointSlice]
//! ```
//!
//! Watches Services, Pods, EndpointSlices and Endpoints. Writes EndpointSlices and Endpoints of Services that have a
//! selector; a Service without one has its endpoints written by somebody else, as slices or as Endpoints, which are then
//! mirrored in slices. Slices are decided on first, because
//! traffic depends on them. A Pod that is being deleted is marked as terminating there and is no longer ready.

mod addresses;
mod mirror;
mod ports;
mod run;
mod slices;

pub(crate) use run::start;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Inputs of a reconcile pass: the Service, its Pods, its EndpointSlices and its Endpoints.
pub struct Observed<'a> {
    /// The Service to reconcile.
    pub service: &'a Service,
    /// Pods of its namespace that match its selector.
    pub pods: Vec<Arc<Pod>>,
    /// Its EndpointSlices that this controller manages, by their label.
    pub slices: Vec<Arc<EndpointSlice>>,
    /// Its EndpointSlices that mirror an Endpoints object, by their label.
    pub mirrored: Vec<Arc<EndpointSlice>>,
    /// The Endpoints object of its name, if there is one.
    pub endpoints: Option<Arc<Endpoints>>,
}

/// A write that a reconcile pass decided on. The objects are complete; a replacement carries its resource version.
#[derive(Clone, Debug)]
pub enum Action {
    /// Create this EndpointSlice.
    CreateSlice(Box<EndpointSlice>),
    /// Replace the EndpointSlice of this name.
    ReplaceSlice(Box<EndpointSlice>),
    /// Delete this EndpointSlice.
    DeleteSlice(Arc<EndpointSlice>),
    /// Create this Endpoints object.
    CreateEndpoints(Box<Endpoints>),
    /// Replace the Endpoints object of this name.
    ReplaceEndpoints(Box<Endpoints>),
}

/// Compares a Service's EndpointSlices and Endpoints with its Pods and returns the writes that bring them up to date.
/// Services that are being deleted need none; those of type ExternalName only lose what was there.
pub fn reconcile(observed: &Observed<'_>) -> Vec<Action> {
    let spec = observed.service.spec.as_ref();
    let selected = spec.and_then(|s| s.selector.as_ref()).is_some_and(|s| !s.is_empty());
    let external = spec.and_then(|s| s.type_.as_deref()) == Some("ExternalName");
    if observed.service.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    if !selected {
        return mirror::reconcile(observed.endpoints.as_deref(), &observed.mirrored);
    }
    // What mirrored the endpoints of a Service that has got a selector goes.
    let mut actions = mirror::reconcile(None, &observed.mirrored);
    if external {
        return actions;
    }
    actions.extend(slices::reconcile(observed.service, &observed.pods, &observed.slices));
    actions.extend(addresses::reconcile(observed.service, &observed.pods, observed.endpoints.as_deref()));
    actions
}

#[cfg(test)]
mod tests;
