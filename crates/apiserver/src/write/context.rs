//! The write context: properties of a request that every decision about its write needs.

use std::sync::LazyLock;

use parking_lot::Mutex;

use crate::apply::Conversions;
use crate::audit::Record;
use crate::auth::{Identity, MASTERS};
use crate::resource::{Resource, Subresource};
use crate::server::Inner;

/// The operation on the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// It comes to be.
    Create,
    /// It changes, by an update, a patch or an apply.
    Update,
    /// Its deletion is asked for.
    Delete,
    /// A stream to it is asked for, or a request to one of its ports: nothing is written.
    Connect,
}

/// A write: who asks for it, and of what.
#[derive(Clone, Copy)]
pub(crate) struct WriteContext<'a> {
    /// For look-ups in other collections.
    pub(crate) server: &'a Inner,
    /// The resource that is written, in the version in which the write is decided.
    pub(crate) resource: &'a Resource,
    /// The resource that the request names: another version of `resource`, or the same.
    pub(crate) requested: &'a Resource,
    /// The user of the request.
    pub(crate) user: &'a Identity,
    /// The operation.
    pub(crate) operation: Operation,
    /// The part of the object that the request addresses.
    pub(crate) subresource: Option<Subresource>,
    /// Nothing is stored.
    pub(crate) dry_run: bool,
    /// What server-side apply learns of objects in other versions; `None` for writes that track no managers of others.
    pub(crate) conversions: Option<&'a Conversions>,
    /// Collects the warnings of the response; `None` for writes without a response.
    pub(crate) warnings: Option<&'a Warnings>,
    /// The audit record of the request, if it is logged.
    pub(crate) audit: Option<&'a Record>,
}

/// Warnings that come up on the way to a write.
#[derive(Default)]
pub(crate) struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    /// All of them, each once: a decision that was made anew warns again.
    pub(crate) fn take(self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for warning in self.0.into_inner() {
            if !all.contains(&warning) {
                all.push(warning);
            }
        }
        all
    }
}

impl<'a> WriteContext<'a> {
    /// A write of the server's own: bootstrap, expiry.
    pub(crate) fn internal(server: &'a Inner, resource: &'a Resource, operation: Operation) -> Self {
        static USER: LazyLock<Identity> = LazyLock::new(|| Identity::new("system:apiserver", [MASTERS]));
        Self {
            server,
            resource,
            requested: resource,
            user: &USER,
            operation,
            subresource: None,
            dry_run: false,
            conversions: None,
            warnings: None,
            audit: None,
        }
    }

    /// Whether the server writes by itself, without a request.
    pub(crate) fn is_internal(&self) -> bool {
        self.warnings.is_none()
    }

    /// Adds warnings to the answer.
    pub(crate) fn warn(&self, warnings: Vec<String>) {
        if let Some(all) = self.warnings {
            all.0.lock().extend(warnings);
        }
    }

    /// Adds an annotation to the audit event of the request, if there is one.
    pub(crate) fn annotate(&self, key: &str, value: &str) {
        if let Some(record) = self.audit {
            record.annotate(key, value);
        }
    }

    /// The same request, of which this part is another operation on the whole object, as an apply to an object that is
    /// not there is a create.
    pub(crate) fn with_operation(self, operation: Operation) -> Self {
        Self { operation, ..self }
    }

    /// The same request, on objects of another resource.
    pub(crate) fn on(self, resource: &'a Resource) -> Self {
        Self { resource, requested: resource, ..self }
    }
}
