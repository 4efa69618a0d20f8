//! What claims and volumes get from the server: a class, and finalizers that keep them while they are in use.

use serde_json::{Value, json};
use yado_types::labels::{DEFAULT_STORAGE_CLASS, FINALIZER_CLAIM_IN_USE, FINALIZER_VOLUME_IN_USE};
use yado_types::quantity::Quantity;

use crate::object::{Object, meta, set_meta};
use crate::resource::{self, Resource};
use crate::server::Inner;
use crate::status::{Failure, Result};

/// The class as it was named before claims had a field for it.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// A claim that names no class gets the cluster's.
pub(super) fn before_create_claim(server: &Inner, claim: &mut Value) -> Result<()> {
    hold(claim, FINALIZER_CLAIM_IN_USE);
    let named = claim["metadata"]["annotations"].get(CLASS_ANNOTATION).is_some();
    if named || !claim["spec"].is_object() || !claim["spec"]["storageClassName"].is_null() {
        return Ok(());
    }
    if let Some(class) = default_class(server)? {
        claim["spec"]["storageClassName"] = class.into();
    }
    Ok(())
}

pub(super) fn before_create_volume(volume: &mut Value) {
    hold(volume, FINALIZER_VOLUME_IN_USE);
}

fn hold(object: &mut Value, finalizer: &str) {
    let mut finalizers = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    if !finalizers.iter().any(|f| f == finalizer) {
        finalizers.push(finalizer.into());
    }
    set_meta(object, "finalizers", finalizers.into());
}

/// Of several default classes the newest counts.
fn default_class(server: &Inner) -> Result<Option<String>> {
    let classes = server.collection(classes()?)?.list("", None, 0, |class: &Object| {
        class.value()["metadata"]["annotations"][DEFAULT_STORAGE_CLASS] == "true"
    });
    let age = |class: &Value| (meta(class, "creationTimestamp").to_owned(), meta(class, "name").to_owned());
    let mut found: Vec<_> = classes.objects.iter().map(|class| age(&class.value())).collect();
    found.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    Ok(found.into_iter().next().map(|(_, name)| name))
}

fn classes() -> Result<&'static Resource> {
    let classes = resource::find("storage.k8s.io", "v1", "storageclasses");
    classes.map(|classes| &**classes).ok_or_else(Failure::no_such_resource)
}

/// A claim only grows where its class says that its volumes can.
pub(super) fn check_growth(server: &Inner, claims: &Resource, new: &Value, old: &Value) -> Result<()> {
    let storage = |claim: &Value| {
        claim["spec"]["resources"]["requests"]["storage"].as_str().and_then(|s| s.parse::<Quantity>().ok())
    };
    if old["status"]["phase"] != "Bound" || storage(new) <= storage(old) {
        return Ok(());
    }
    let class = new["spec"]["storageClassName"].as_str().unwrap_or_default();
    let grows =
        server.find(classes()?, "", class).is_ok_and(|class| class.value()["allowVolumeExpansion"] == true);
    if grows {
        return Ok(());
    }
    let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
               support resize";
    Err(Failure::forbidden(claims, meta(new, "name"), why))
}

/// The class that every cluster has: directories on the node where the first Pod that uses the claim runs.
pub(crate) fn local_class() -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "local", "annotations": {DEFAULT_STORAGE_CLASS: "true"}},
        "provisioner": yado_types::labels::LOCAL_PROVISIONER,
        "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer", "allowVolumeExpansion": true,
    })
}
