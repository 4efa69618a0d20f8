//! Rules that PersistentVolumes and claims share: access modes, volume modes, classes, and the finalizer of those in
//! use.

use serde_json::Value;
use yado_types::names;
use yado_types::quantity::Quantity;

use crate::edit::{list, map_at, text};
use crate::resource::{self, Resource};
use crate::schema::validate::{Errors, Path};
use crate::status::{Failure, Result};
use crate::table::format::{joined, text_or};

/// How a volume is seen by containers.
pub const MODES: [&str; 2] = ["Block", "Filesystem"];

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// The class as it was named before claims had a field for it.
pub const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// Cell of an optional field that is not set.
pub const UNSET: &str = "<unset>";

/// Adds a finalizer that holds an object while it is in use.
pub fn hold(object: &mut Value, finalizer: &str) {
    let Some(metadata) = map_at(object, &["metadata"]) else { return };
    let mut finalizers = metadata.get("finalizers").map(list).unwrap_or_default().to_vec();
    if !finalizers.iter().any(|f| f == finalizer) {
        finalizers.push(finalizer.into());
    }
    metadata.insert("finalizers".into(), finalizers.into());
}

/// The resource of StorageClasses.
pub fn classes() -> Result<&'static Resource> {
    let classes = resource::find("storage.k8s.io", "v1", "storageclasses");
    classes.map(|classes| &**classes).ok_or_else(Failure::no_such_resource)
}

/// Checks access modes.
pub fn check_access_modes(modes: &Value, at: &Path<'_>, errors: &mut Errors) {
    let modes = list(modes);
    if modes.is_empty() {
        errors.required(at, "at least 1 access mode is required");
    }
    for mode in modes {
        errors.one_of(at, mode, &ACCESS_MODES);
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        errors.forbidden(at, "may not use ReadWriteOncePod with other access modes");
    }
}

/// Checks an amount of storage.
pub fn check_amount(given: Option<&Value>, at: &Path<'_>, errors: &mut Errors) {
    let at = at.key("storage");
    let Some(given) = given else {
        errors.required(&at, "");
        return;
    };
    match text(given).parse::<Quantity>() {
        Ok(amount) if amount > Quantity::default() => {}
        Ok(_) => errors.invalid(&at, given, "must be greater than zero"),
        // Decoding has told already.
        Err(_) => {}
    }
}

/// Checks the name of a class.
pub fn check_class(class: &Value, at: &Path<'_>, errors: &mut Errors) {
    let name = text(class);
    if !name.is_empty() {
        errors.check_text(at, name, names::dns_subdomain(name));
    }
}

/// The phase, as it is shown.
pub fn phase(object: &Value) -> &str {
    if object["metadata"]["deletionTimestamp"].is_null() {
        text_or(&object["status"]["phase"], "")
    } else {
        "Terminating"
    }
}

/// The name of the class, as it is shown.
pub fn class_name(object: &Value) -> &str {
    let annotation = text_or(&object["metadata"]["annotations"][CLASS_ANNOTATION], "");
    if annotation.is_empty() { text_or(&object["spec"]["storageClassName"], "") } else { annotation }
}

/// `RWO,RWX`: in this order, each once.
pub fn short_access_modes(modes: &Value) -> String {
    let known = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let given = known.iter().filter(|(mode, _)| list(modes).iter().any(|m| m == mode));
    joined(given.map(|(_, short)| (*short).to_owned()), "")
}
