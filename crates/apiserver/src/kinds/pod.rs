//! Pods.

mod admission;
mod binding;
mod columns;
mod defaults;
mod eviction;
mod proxy;
mod token_volume;
mod validation;

use std::borrow::Cow;
use std::net::SocketAddr;

use async_trait::async_trait;
use http::Response;
use jiff::Timestamp;
use serde_json::{Map, Value};

pub use binding::bind;

use crate::content::Body;
use crate::edit::{copy, existing_at};
use crate::kinds::pod_spec;
use crate::kinds::strategy::{Posted, Strategy, reset_all_but};
use crate::object::field_at;
use crate::resource::Subresource;
use crate::schema::validate::{Errors, Path};
use crate::server::Inner;
use crate::status::{Failure, Result};
use crate::table::Column;
use crate::write::context::{Operation, WriteContext};

/// Seconds that a Pod gets to end where neither it nor the request says.
const DEFAULT_GRACE: u64 = 30;

#[derive(Debug)]
pub struct Pod;

#[async_trait]
impl Strategy for Pod {
    fn counts_generations(&self) -> bool {
        true
    }

    fn prepare_for_create(&self, ctx: &WriteContext<'_>, pod: &mut Value) -> Result<()> {
        // What is missing is for the rules to say.
        if pod["spec"].is_object() { admission::admit(ctx, pod) } else { Ok(()) }
    }

    /// A Pod that is written anew without what its class gave it keeps that.
    fn prepare_for_update(&self, _ctx: &WriteContext<'_>, new: &mut Value, old: &Value) -> Result<()> {
        for field in ["priority", "preemptionPolicy"] {
            if let Some(spec) = existing_at(new, &["spec"])
                && !spec.contains_key(field)
            {
                copy(&old["spec"], spec, field);
            }
        }
        Ok(())
    }

    fn default_object(&self, pod: &mut Map<String, Value>) {
        defaults::default_pod(pod);
    }

    /// The scheduler does not look at a Pod with gates, so its condition says from the start why it has no node.
    fn after_defaults(&self, ctx: &WriteContext<'_>, pod: &mut Value, _old: Option<&Value>) -> Result<()> {
        if ctx.operation == Operation::Create {
            defaults::say_gated(pod);
        }
        Ok(())
    }

    /// Kubernetes' nodes once wrote broken owners by way of the status, so that writes of it do not change them.
    fn prepare_for_subresource(&self, subresource: Subresource, new: &mut Value, old: &Value) {
        if subresource == Subresource::Status {
            reset_all_but(&["metadata", "status"], new, old);
            if let Some(metadata) = existing_at(new, &["metadata"]) {
                copy(&old["metadata"], metadata, "ownerReferences");
            }
        }
    }

    fn validate(&self, pod: &Value, old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        let at = root.field("spec");
        pod_spec::validate_spec(&pod["spec"], &at, errors);
        if let Some(old) = old {
            validation::validate_update(&pod["spec"], &old["spec"], &at, errors);
        }
    }

    /// Only a Pod on a node has something to end.
    fn grace_period(&self, pod: &Value, asked: Option<u64>) -> u64 {
        let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let bound = pod["spec"]["nodeName"].as_str().is_some_and(|n| !n.is_empty());
        if ended || !bound {
            return 0;
        }
        asked.or(pod["spec"]["terminationGracePeriodSeconds"].as_u64()).unwrap_or(DEFAULT_GRACE)
    }

    fn returns_deleted(&self) -> bool {
        true
    }

    async fn post(&self, ctx: &WriteContext<'_>, posted: Posted<'_>) -> Result<Response<Body>> {
        match ctx.subresource {
            Some(Subresource::Binding) => bind(ctx, posted).await,
            Some(Subresource::Eviction) => eviction::evict(ctx, posted).await,
            _ => Err(Failure::method_not_allowed()),
        }
    }

    fn proxy_address(&self, _server: &Inner, pod: &Value, port: &str) -> Result<SocketAddr> {
        proxy::address(pod, port)
    }

    fn selectable_fields(&self) -> Vec<&str> {
        vec![
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ]
    }

    fn field<'a>(&self, pod: &'a Value, path: &str) -> Cow<'a, str> {
        match path {
            "status.podIPs" => field_at(pod, "status.podIP"),
            "spec.hostNetwork" => (pod["spec"]["hostNetwork"] == true).to_string().into(),
            _ => field_at(pod, path),
        }
    }

    fn columns(&self) -> &[Column] {
        columns::COLUMNS
    }

    fn cells(&self, pod: &Value, now: Timestamp) -> Vec<Value> {
        columns::cells(pod, now)
    }
}
