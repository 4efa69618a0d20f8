//! The interface between generic code and a kind, with defaults for kinds without rules of their own.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::net::SocketAddr;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Response};
use jiff::Timestamp;
use serde_json::{Map, Value};
use yado_store::Op;
use yado_types::names;

use crate::content::{self, Body};
use crate::edit::copy;
use crate::object::field_at;
use crate::proxy::ProxyTarget;
use crate::request::{ApiRequest, Propagation, WriteOptions};
use crate::resource::Subresource;
use crate::schema::Kind;
use crate::schema::validate::Errors;
use crate::server::Inner;
use crate::status::{Failure, Result};
use crate::table::Column;
use crate::write::context::WriteContext;

/// A rule for names. The error says what a name must be.
pub(crate) type NameRule = fn(&str) -> Result<(), String>;

/// The behaviour of a kind's objects: `rest.RESTCreateStrategy` and its relatives in k8s.io/apiserver, and what printers
/// and selectors know of the kind.
///
/// The order in which a create calls it is `prepare_for_create`, `default_object`, `after_defaults`, `validate`; an update
/// begins with `prepare_for_update`, one of a subresource with `prepare_for_subresource`.
#[async_trait]
pub(crate) trait Strategy: Debug + Send + Sync {
    /// The rule for names of objects.
    fn name_rule(&self) -> NameRule {
        names::dns_subdomain
    }

    /// Whether `metadata.generation` counts the changes of the desired state.
    fn counts_generations(&self) -> bool {
        false
    }

    /// Whether values must not lie on a disk in plain.
    fn is_secret(&self) -> bool {
        false
    }

    /// Whether the status of a new object is dropped, where it has a subresource of its own.
    fn drops_status(&self) -> bool {
        true
    }

    /// Completes a new object before its defaults are filled in, and refuses what needs a look at other objects.
    fn prepare_for_create(&self, _ctx: &WriteContext<'_>, _object: &mut Value) -> Result<()> {
        Ok(())
    }

    /// Keeps what an update must not lose, before its defaults are filled in.
    fn prepare_for_update(&self, _ctx: &WriteContext<'_>, _new: &mut Value, _old: &Value) -> Result<()> {
        Ok(())
    }

    /// Resets what a write of the subresource may not change. A write of the status changes the metadata too, as most of
    /// Kubernetes' status strategies reset nothing but the spec.
    fn prepare_for_subresource(&self, subresource: Subresource, new: &mut Value, old: &Value) {
        if subresource == Subresource::Status {
            reset_all_but(&["metadata", "status"], new, old);
        }
    }

    /// Fills in the fields that are absent. Idempotent, and without a look at anything else.
    fn default_object(&self, _object: &mut Map<String, Value>) {}

    /// Gives an object what it has to be allocated, after its defaults are filled in and before it is validated.
    fn after_defaults(
        &self,
        _ctx: &WriteContext<'_>,
        _object: &mut Value,
        _old: Option<&Value>,
    ) -> Result<()> {
        Ok(())
    }

    /// The rules beyond those of metadata, for a new object, or for the change from `old`.
    fn validate(&self, _object: &Value, _old: Option<&Value>, _errors: &mut Errors) {}

    /// Warnings about an accepted object: fields that have no effect on this server.
    fn warnings(&self, _object: &Value) -> Vec<String> {
        Vec::new()
    }

    /// Computes the keys that an object holds in the store, such as a Service's addresses. They are written and deleted in
    /// the transaction that writes the object, which fails where another object holds one.
    fn holdings(&self) -> Option<fn(&Value) -> BTreeSet<String>> {
        None
    }

    /// Operations that are committed together with the creation of an object of this name.
    fn companions(&self, _ctx: &WriteContext<'_>, _name: &str) -> Vec<Op> {
        Vec::new()
    }

    /// Refuses a deletion.
    fn check_delete(&self, _ctx: &WriteContext<'_>, _object: &Value) -> Result<()> {
        Ok(())
    }

    /// Marks an object whose deletion was asked for.
    fn begin_delete(&self, _object: &mut Value) {}

    /// Seconds until the object is deleted without a further request, where the request asks for this many.
    fn grace_period(&self, _object: &Value, _asked: Option<u64>) -> u64 {
        0
    }

    /// The propagation policy of deletions that name none.
    fn default_propagation(&self) -> Option<Propagation> {
        None
    }

    /// Whether something besides `metadata.finalizers` holds the object's deletion back.
    fn is_held(&self, _object: &Value) -> bool {
        false
    }

    /// Whether a deletion answers with the object's last state. Otherwise it does with a Status.
    fn returns_deleted(&self) -> bool {
        false
    }

    /// Answers a POST that creates no object of the resource: a review, a Pod's binding or eviction.
    async fn post(&self, _ctx: &WriteContext<'_>, _posted: Posted<'_>) -> Result<Response<Body>> {
        Err(Failure::method_not_allowed())
    }

    /// Where requests to the subresource `proxy` go. The port is a number, a name, or empty for the only one.
    fn proxy_target(&self, server: &Inner, object: &Value, port: &str) -> Result<ProxyTarget> {
        self.proxy_address(server, object, port).map(ProxyTarget::Address)
    }

    /// The address of a port of a Pod, or of one of a Service's Pods; the port as for `proxy_target`.
    fn proxy_address(&self, _server: &Inner, _object: &Value, _port: &str) -> Result<SocketAddr> {
        Err(Failure::method_not_allowed())
    }

    /// Fields by which objects can be selected, besides the name and the namespace.
    fn selectable_fields(&self) -> Vec<&str> {
        Vec::new()
    }

    /// The text of a selectable field.
    fn field<'a>(&self, object: &'a Value, path: &str) -> Cow<'a, str> {
        field_at(object, path)
    }

    /// Columns of Tables.
    fn columns(&self) -> &[Column] {
        const { &[Column::NAME, Column::text("Created At")] }
    }

    /// One cell for each of the columns.
    fn cells(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let meta = &object["metadata"];
        vec![meta["name"].clone(), meta["creationTimestamp"].clone()]
    }
}

/// A kind without rules of its own.
#[derive(Debug)]
pub(crate) struct NoRules;

impl Strategy for NoRules {}

/// Makes all fields but these what they are in `old`.
pub(crate) fn reset_all_but(kept: &[&str], new: &mut Value, old: &Value) {
    let (Some(new), Some(before)) = (new.as_object_mut(), old.as_object()) else { return };
    let fields: BTreeSet<String> = new.keys().chain(before.keys()).cloned().collect();
    for field in fields.iter().filter(|field| !kept.contains(&field.as_str())) {
        copy(old, new, field);
    }
}

/// A POST that a kind answers by itself.
#[derive(Clone, Copy)]
pub(crate) struct Posted<'a> {
    /// Where it was sent.
    pub(crate) request: &'a ApiRequest,
    /// Its parameters.
    pub(crate) options: &'a WriteOptions,
    /// Its headers.
    pub(crate) headers: &'a HeaderMap,
    /// Its body.
    pub(crate) body: &'a Bytes,
}

impl Posted<'_> {
    /// The body as an object of a kind, and the warnings to send with the answer.
    pub(crate) fn decode(&self, kind: &Kind) -> Result<(Value, Vec<String>)> {
        content::decode(kind, content::parse(self.headers, self.body)?, self.options.field_validation)
    }
}
