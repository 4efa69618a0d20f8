//! StorageClasses.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use yado_types::labels::{DEFAULT_STORAGE_CLASS, LOCAL_PROVISIONER};

use crate::edit::{fill, text};
use crate::kinds::strategy::Strategy;
use crate::schema::validate::{Errors, Path};
use crate::table::Column;
use crate::table::format::{age, text_or};

/// The annotation that said so before [`DEFAULT_STORAGE_CLASS`] did.
const OLD_DEFAULT: &str = "storageclass.beta.kubernetes.io/is-default-class";

#[derive(Debug)]
pub struct StorageClass;

impl Strategy for StorageClass {
    fn default_object(&self, object: &mut Map<String, Value>) {
        fill(object, "reclaimPolicy", "Delete");
        fill(object, "volumeBindingMode", "Immediate");
    }

    fn validate(&self, object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        if text(&object["provisioner"]).is_empty() {
            errors.required(&root.field("provisioner"), "");
        }
        errors.one_of(&root.field("reclaimPolicy"), &object["reclaimPolicy"], &["Delete", "Retain"]);
        let modes = ["Immediate", "WaitForFirstConsumer"];
        errors.one_of(&root.field("volumeBindingMode"), &object["volumeBindingMode"], &modes);
        let Some(old) = old else { return };
        for key in ["parameters", "provisioner", "reclaimPolicy"] {
            if object[key] != old[key] {
                errors.forbidden(&root.field(key), &format!("updates to {key} are forbidden."));
            }
        }
        if object["volumeBindingMode"] != old["volumeBindingMode"] {
            let at = root.field("volumeBindingMode");
            errors.invalid(&at, &object["volumeBindingMode"], "field is immutable");
        }
    }

    fn columns(&self) -> &[Column] {
        const {
            &[
                Column::NAME,
                Column::text("Provisioner"),
                Column::text("ReclaimPolicy"),
                Column::text("VolumeBindingMode"),
                Column::text("AllowVolumeExpansion"),
                Column::AGE,
            ]
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let meta = &object["metadata"];
        let mark = if is_default(object) { " (default)" } else { "" };
        let name = format!("{}{mark}", text_or(&meta["name"], ""));
        vec![
            json!(name),
            json!(text_or(&object["provisioner"], "")),
            json!(text_or(&object["reclaimPolicy"], "Delete")),
            json!(text_or(&object["volumeBindingMode"], "Immediate")),
            json!(object["allowVolumeExpansion"] == true),
            json!(age(object, now)),
        ]
    }
}

/// Whether claims that name no class are of this one, by the annotation of today or its older form.
pub fn is_default(class: &Value) -> bool {
    let annotations = &class["metadata"]["annotations"];
    [DEFAULT_STORAGE_CLASS, OLD_DEFAULT].iter().any(|key| annotations[*key] == "true")
}

/// The class that every cluster has: directories on the node where the first Pod that uses the claim runs.
pub fn local_class() -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "local", "annotations": {DEFAULT_STORAGE_CLASS: "true"}},
        "provisioner": LOCAL_PROVISIONER,
        "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer", "allowVolumeExpansion": true,
    })
}
