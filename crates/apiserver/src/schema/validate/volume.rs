//! Volumes, claims and their classes.

use serde_json::{Map, Value};
use yado_types::names;
use yado_types::quantity::Quantity;

use super::meta;
use super::path::{Errors, Path, list, text};

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const MODES: [&str; 2] = ["Block", "Filesystem"];
/// Fields of a volume's spec that name no source.
const NO_SOURCES: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

pub fn persistent_volume(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let root = Path::root();
    let (spec, at) = (&object["spec"], root.field("spec"));
    access_modes(&spec["accessModes"], &at.field("accessModes"), errors);
    let capacity_at = at.field("capacity");
    match spec["capacity"].as_object() {
        Some(capacity) if !capacity.is_empty() => amount(capacity.get("storage"), &capacity_at, errors),
        _ => errors.required(&capacity_at, ""),
    }
    errors.one_of(
        &at.field("persistentVolumeReclaimPolicy"),
        &spec["persistentVolumeReclaimPolicy"],
        &["Delete", "Recycle", "Retain"],
    );
    errors.one_of(&at.field("volumeMode"), &spec["volumeMode"], &MODES);
    class(&spec["storageClassName"], &at.field("storageClassName"), errors);
    source(spec, &at, errors);
    let Some(old) = old.map(|old| &old["spec"]) else { return };
    if sources(spec) != sources(old) {
        let detail = "spec.persistentvolumesource is immutable after creation";
        errors.forbidden(&at.field("persistentvolumesource"), detail);
    }
    if spec["volumeMode"] != old["volumeMode"] {
        errors.invalid(&at.field("volumeMode"), &spec["volumeMode"], "field is immutable");
    }
    if !old["nodeAffinity"].is_null() && spec["nodeAffinity"] != old["nodeAffinity"] {
        errors.invalid(&at.field("nodeAffinity"), &spec["nodeAffinity"], "field is immutable");
    }
}

/// What a volume is made of, by the names of its fields.
fn sources(spec: &Value) -> Vec<(&String, &Value)> {
    let fields = spec.as_object().into_iter().flat_map(Map::iter);
    fields.filter(|(name, _)| !NO_SOURCES.contains(&name.as_str())).collect()
}

fn source(spec: &Value, at: &Path<'_>, errors: &mut Errors) {
    let sources = sources(spec);
    let Some((first, _)) = sources.first() else {
        errors.required(at, "must specify a volume type");
        return;
    };
    for (name, _) in &sources[1..] {
        errors.forbidden(&at.field(name), "may not specify more than 1 volume type");
    }
    let source_at = at.field(first);
    if matches!(first.as_str(), "hostPath" | "local") {
        let (path, path_at) = (text(&spec[first.as_str()]["path"]), source_at.field("path"));
        if path.is_empty() {
            errors.required(&path_at, "");
        } else if path.split('/').any(|part| part == "..") {
            errors.invalid_text(&path_at, path, "must not contain '..'");
        }
        if path == "/" && spec["persistentVolumeReclaimPolicy"] == "Recycle" {
            let detail = "may not be 'recycle' for a hostPath mount of '/'";
            errors.forbidden(&at.field("persistentVolumeReclaimPolicy"), detail);
        }
    }
    if first.as_str() == "local" && spec["nodeAffinity"]["required"].is_null() {
        errors.required(&at.field("nodeAffinity"), "Local volume requires node affinity");
    }
}

pub fn claim(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let root = Path::root();
    let (spec, at) = (&object["spec"], root.field("spec"));
    if !spec["selector"].is_null() {
        meta::label_selector(&spec["selector"], &at.field("selector"), errors);
    }
    access_modes(&spec["accessModes"], &at.field("accessModes"), errors);
    let resources = at.field("resources");
    amount(spec["resources"]["requests"].get("storage"), &resources.field("requests"), errors);
    class(&spec["storageClassName"], &at.field("storageClassName"), errors);
    errors.one_of(&at.field("volumeMode"), &spec["volumeMode"], &MODES);
    if let Some(old) = old {
        claim_update(object, old, &at, errors);
    }
}

/// A claim stays what it was, but that it is bound, gets its class while it has none, and grows.
fn claim_update(object: &Value, old: &Value, at: &Path<'_>, errors: &mut Errors) {
    let (new, before) = (&object["spec"], &old["spec"]);
    let bound = old["status"]["phase"] == "Bound";
    let (mut expected, mut given) = (before.clone(), new.clone());
    for spec in [&mut expected, &mut given] {
        let Some(spec) = spec.as_object_mut() else { return };
        if text(&before["volumeName"]).is_empty() {
            spec.shift_remove("volumeName");
        }
        if before["storageClassName"].is_null() && !bound {
            spec.shift_remove("storageClassName");
        }
        if bound {
            spec.shift_remove("volumeAttributesClassName");
            if let Some(requests) = spec.get_mut("resources").and_then(|r| r["requests"].as_object_mut()) {
                requests.shift_remove("storage");
            }
        }
    }
    if expected != given {
        let detail = "spec is immutable after creation except resources.requests and \
                      volumeAttributesClassName for bound claims";
        errors.forbidden(at, detail);
    }
    let bytes = |amount: &Value| text(amount).parse::<Quantity>().ok();
    let wanted = bytes(&new["resources"]["requests"]["storage"]);
    let has = bytes(&old["status"]["capacity"]["storage"]);
    let had = bytes(&before["resources"]["requests"]["storage"]);
    if let (Some(wanted), Some(had)) = (wanted, had)
        && wanted < had
        && has.is_none_or(|has| wanted < has)
    {
        let resources = at.field("resources");
        let requests = resources.field("requests");
        errors.forbidden(&requests.field("storage"), "field can not be less than status.capacity");
    }
}

fn access_modes(modes: &Value, at: &Path<'_>, errors: &mut Errors) {
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

fn amount(given: Option<&Value>, at: &Path<'_>, errors: &mut Errors) {
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

fn class(class: &Value, at: &Path<'_>, errors: &mut Errors) {
    let name = text(class);
    if !name.is_empty() {
        errors.check_text(at, name, names::dns_subdomain(name));
    }
}

pub fn storage_class(object: &Value, old: Option<&Value>, errors: &mut Errors) {
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
