//! The cells of volumes, claims and their classes.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::format::{age, joined, list, text_or};

const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
/// The class as it was named before claims had a field for it.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const UNSET: &str = "<unset>";

pub fn persistent_volume(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let claim = match text_or(&spec["claimRef"]["name"], "") {
        "" => String::new(),
        name => format!("{}/{name}", text_or(&spec["claimRef"]["namespace"], "")),
    };
    vec![
        object["metadata"]["name"].clone(),
        json!(text_or(&spec["capacity"]["storage"], "")),
        json!(access_modes(&spec["accessModes"])),
        json!(text_or(&spec["persistentVolumeReclaimPolicy"], "")),
        json!(phase(object)),
        json!(claim),
        json!(class(object)),
        json!(text_or(&spec["volumeAttributesClassName"], UNSET)),
        json!(text_or(&status["reason"], "")),
        json!(age(object, now)),
        json!(text_or(&spec["volumeMode"], UNSET)),
    ]
}

pub fn claim(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let volume = text_or(&spec["volumeName"], "");
    let bound = !volume.is_empty();
    let capacity = if bound { text_or(&status["capacity"]["storage"], "0") } else { "" };
    let modes = if bound { access_modes(&status["accessModes"]) } else { String::new() };
    vec![
        object["metadata"]["name"].clone(),
        json!(phase(object)),
        json!(volume),
        json!(capacity),
        json!(modes),
        json!(class(object)),
        json!(text_or(&spec["volumeAttributesClassName"], UNSET)),
        json!(age(object, now)),
        json!(text_or(&spec["volumeMode"], UNSET)),
    ]
}

pub fn storage_class(object: &Value, now: Timestamp) -> Vec<Value> {
    let meta = &object["metadata"];
    let is_default = meta["annotations"][DEFAULT_CLASS] == "true";
    let name = format!("{}{}", text_or(&meta["name"], ""), if is_default { " (default)" } else { "" });
    vec![
        json!(name),
        json!(text_or(&object["provisioner"], "")),
        json!(text_or(&object["reclaimPolicy"], "Delete")),
        json!(text_or(&object["volumeBindingMode"], "Immediate")),
        json!(object["allowVolumeExpansion"] == true),
        json!(age(object, now)),
    ]
}

fn phase(object: &Value) -> &str {
    if object["metadata"]["deletionTimestamp"].is_null() {
        text_or(&object["status"]["phase"], "")
    } else {
        "Terminating"
    }
}

fn class(object: &Value) -> &str {
    let annotation = text_or(&object["metadata"]["annotations"][CLASS_ANNOTATION], "");
    if annotation.is_empty() { text_or(&object["spec"]["storageClassName"], "") } else { annotation }
}

/// `RWO,RWX`: in this order, each once.
fn access_modes(modes: &Value) -> String {
    let known = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let given = known.iter().filter(|(mode, _)| list(modes).iter().any(|m| m == mode));
    joined(given.map(|(_, short)| (*short).to_owned()), "")
}
