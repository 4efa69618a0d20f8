//! What every decision about a write is told of its request.

use std::sync::LazyLock;

use crate::auth::{Identity, MASTERS};
use crate::resource::{Resource, Subresource};
use crate::server::Inner;

/// What is done to the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// It comes to be.
    Create,
    /// It changes, by an update, a patch or an apply.
    Update,
    /// Its deletion is asked for.
    Delete,
}

/// A write: who asks for it, and of what.
#[derive(Clone, Copy)]
pub(crate) struct WriteContext<'a> {
    /// For look-ups in other collections.
    pub(crate) server: &'a Inner,
    /// The resource that is written.
    pub(crate) resource: &'a Resource,
    /// Who asks.
    pub(crate) user: &'a Identity,
    /// What is done.
    pub(crate) operation: Operation,
    /// The part of the object that the request addresses.
    pub(crate) subresource: Option<Subresource>,
    /// Nothing is stored.
    pub(crate) dry_run: bool,
}

impl<'a> WriteContext<'a> {
    /// A write of the server's own: bootstrap, expiry.
    pub(crate) fn internal(server: &'a Inner, resource: &'a Resource, operation: Operation) -> Self {
        static USER: LazyLock<Identity> = LazyLock::new(|| Identity::new("system:apiserver", [MASTERS]));
        Self { server, resource, user: &USER, operation, subresource: None, dry_run: false }
    }

    /// The same request, of which this part is another operation on the whole object, as an apply to an object that is
    /// not there is a create.
    pub(crate) fn with_operation(self, operation: Operation) -> Self {
        Self { operation, ..self }
    }

    /// The same request, on objects of another resource.
    pub(crate) fn on(self, resource: &'a Resource) -> Self {
        Self { resource, ..self }
    }
}
