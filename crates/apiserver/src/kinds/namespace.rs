//! Namespaces. One is held by the finalizer of its spec until the Namespace controller has deleted its content.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use yado_store::Op;
use yado_types::names;

use crate::edit::{copy, existing, fill, list, map_at, within};
use crate::kinds::strategy::{NameRule, Strategy, reset_all_but};
use crate::object::{encode_for_store, meta, time};
use crate::resource::Subresource;
use crate::status::{Failure, Result};
use crate::table::Column;
use crate::table::format::age;
use crate::write::context::WriteContext;
use crate::write::create::uid;

/// The label by which selectors find a Namespace by name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// Namespaces that may not be deleted.
const PERMANENT: [&str; 3] = ["default", "kube-system", "kube-public"];

#[derive(Debug)]
pub struct Namespace;

impl Strategy for Namespace {
    fn name_rule(&self) -> NameRule {
        names::dns_label
    }

    fn prepare_for_create(&self, _ctx: &WriteContext<'_>, object: &mut Value) -> Result<()> {
        if let Some(object) = object.as_object_mut() {
            object.insert("spec".into(), json!({"finalizers": ["kubernetes"]}));
        }
        Ok(())
    }

    /// The finalizers of the spec change by way of the subresource `finalize` only.
    fn prepare_for_update(&self, _ctx: &WriteContext<'_>, new: &mut Value, old: &Value) -> Result<()> {
        if let Some(new) = new.as_object_mut() {
            copy(old, new, "spec");
        }
        Ok(())
    }

    /// `finalize` changes nothing but the finalizers of the spec.
    fn prepare_for_subresource(&self, subresource: Subresource, new: &mut Value, old: &Value) {
        match subresource {
            Subresource::Status => reset_all_but(&["metadata", "status"], new, old),
            Subresource::Finalize => {
                let finalizers = list(&new["spec"]["finalizers"]).to_vec();
                *new = old.clone();
                let Some(spec) = map_at(new, &["spec"]) else { return };
                if finalizers.is_empty() {
                    spec.shift_remove("finalizers");
                } else {
                    spec.insert("finalizers".into(), finalizers.into());
                }
            }
            _ => {}
        }
    }

    fn default_object(&self, object: &mut Map<String, Value>) {
        let metadata = object.get("metadata");
        let name = metadata.and_then(|m| m.get("name")).cloned();
        // One that is being deleted has had its finalizer, or is having it removed.
        let is_terminating = metadata.and_then(|m| m.get("deletionTimestamp")).is_some();
        if let Some(spec) = within(object, "spec").filter(|_| !is_terminating) {
            fill(spec, "finalizers", json!(["kubernetes"]));
        }
        if let Some(status) = within(object, "status") {
            fill(status, "phase", "Active");
        }
        if let (Some(name), Some(metadata)) = (name, existing(object, "metadata"))
            && let Some(labels) = within(metadata, "labels")
        {
            labels.insert(NAME_LABEL.into(), name);
        }
    }

    /// A Namespace is created with its default ServiceAccount, so that Pods can be created in it at once.
    fn companions(&self, ctx: &WriteContext<'_>, name: &str) -> Vec<Op> {
        let mut account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {
                "name": "default", "namespace": name, "uid": uid(&mut rand::rng()),
                "creationTimestamp": time(ctx.server.clock.now()),
            },
        });
        let key = format!("/registry/core/serviceaccounts/{name}/default");
        vec![Op::Put { key, value: encode_for_store(&mut account) }]
    }

    fn check_delete(&self, ctx: &WriteContext<'_>, object: &Value) -> Result<()> {
        let name = meta(object, "name");
        match PERMANENT.contains(&name) {
            true => Err(Failure::forbidden(ctx.resource, name, "this namespace may not be deleted")),
            false => Ok(()),
        }
    }

    fn begin_delete(&self, object: &mut Value) {
        if let Some(status) = map_at(object, &["status"]) {
            status.insert("phase".into(), "Terminating".into());
        }
    }

    fn is_held(&self, object: &Value) -> bool {
        !list(&object["spec"]["finalizers"]).is_empty()
    }

    fn selectable_fields(&self) -> Vec<&str> {
        vec!["status.phase"]
    }

    fn columns(&self) -> &[Column] {
        const { &[Column::NAME, Column::text("Status"), Column::AGE] }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![object["metadata"]["name"].clone(), object["status"]["phase"].clone(), json!(age(object, now))]
    }
}
