//! PersistentVolumes.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use yado_types::labels::FINALIZER_VOLUME_IN_USE;

use crate::edit::{existing, fill, text, within};
use crate::kinds::strategy::Strategy;
use crate::kinds::volume::{
    MODES, UNSET, check_access_modes, check_amount, check_class, class_name, hold, phase, short_access_modes,
};
use crate::schema::validate::{Errors, Path};
use crate::status::Result;
use crate::table::Column;
use crate::table::format::{age, text_or};
use crate::write::context::WriteContext;

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

#[derive(Debug)]
pub struct PersistentVolume;

impl Strategy for PersistentVolume {
    fn prepare_for_create(&self, _ctx: &WriteContext<'_>, object: &mut Value) -> Result<()> {
        hold(object, FINALIZER_VOLUME_IN_USE);
        Ok(())
    }

    fn default_object(&self, object: &mut Map<String, Value>) {
        if let Some(spec) = within(object, "spec") {
            fill(spec, "persistentVolumeReclaimPolicy", "Retain");
            fill(spec, "volumeMode", "Filesystem");
            if let Some(host_path) = existing(spec, "hostPath") {
                fill(host_path, "type", "");
            }
        }
        if let Some(status) = within(object, "status") {
            fill(status, "phase", "Pending");
        }
    }

    fn validate(&self, object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        let (spec, at) = (&object["spec"], root.field("spec"));
        check_access_modes(&spec["accessModes"], &at.field("accessModes"), errors);
        let capacity_at = at.field("capacity");
        match spec["capacity"].as_object() {
            Some(capacity) if !capacity.is_empty() => {
                check_amount(capacity.get("storage"), &capacity_at, errors)
            }
            _ => errors.required(&capacity_at, ""),
        }
        errors.one_of(
            &at.field("persistentVolumeReclaimPolicy"),
            &spec["persistentVolumeReclaimPolicy"],
            &["Delete", "Recycle", "Retain"],
        );
        errors.one_of(&at.field("volumeMode"), &spec["volumeMode"], &MODES);
        check_class(&spec["storageClassName"], &at.field("storageClassName"), errors);
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

    fn columns(&self) -> &[Column] {
        const {
            &[
                Column::NAME,
                Column::text("Capacity"),
                Column::text("Access Modes"),
                Column::text("Reclaim Policy"),
                Column::text("Status"),
                Column::text("Claim"),
                Column::text("StorageClass"),
                Column::text("VolumeAttributesClass"),
                Column::text("Reason"),
                Column::AGE,
                Column::wide("VolumeMode"),
            ]
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let claim = match text_or(&spec["claimRef"]["name"], "") {
            "" => String::new(),
            name => format!("{}/{name}", text_or(&spec["claimRef"]["namespace"], "")),
        };
        vec![
            object["metadata"]["name"].clone(),
            json!(text_or(&spec["capacity"]["storage"], "")),
            json!(short_access_modes(&spec["accessModes"])),
            json!(text_or(&spec["persistentVolumeReclaimPolicy"], "")),
            json!(phase(object)),
            json!(claim),
            json!(class_name(object)),
            json!(text_or(&spec["volumeAttributesClassName"], UNSET)),
            json!(text_or(&status["reason"], "")),
            json!(age(object, now)),
            json!(text_or(&spec["volumeMode"], UNSET)),
        ]
    }
}

/// The volume's source fields.
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
