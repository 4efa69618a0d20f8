//! PersistentVolumeClaims.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use yado_types::labels::FINALIZER_CLAIM_IN_USE;
use yado_types::quantity::Quantity;

use crate::edit::{existing, fill, map_at, text, within};
use crate::kinds::storage_class::is_default;
use crate::kinds::strategy::Strategy;
use crate::kinds::volume::{
    CLASS_ANNOTATION, MODES, UNSET, check_access_modes, check_amount, check_class, class_name, classes, hold,
    phase, short_access_modes,
};
use crate::object::{Object, meta};
use crate::schema::validate::{self, Errors, Path};
use crate::status::{Failure, Result};
use crate::table::Column;
use crate::table::format::{age, text_or};
use crate::write::context::WriteContext;

#[derive(Debug)]
pub struct PersistentVolumeClaim;

impl Strategy for PersistentVolumeClaim {
    /// A claim that names no class gets the cluster's.
    fn prepare_for_create(&self, ctx: &WriteContext<'_>, claim: &mut Value) -> Result<()> {
        hold(claim, FINALIZER_CLAIM_IN_USE);
        let named = claim["metadata"]["annotations"].get(CLASS_ANNOTATION).is_some();
        if named || !claim["spec"].is_object() || !claim["spec"]["storageClassName"].is_null() {
            return Ok(());
        }
        if let (Some(class), Some(spec)) = (default_class(ctx)?, map_at(claim, &["spec"])) {
            spec.insert("storageClassName".into(), class.into());
        }
        Ok(())
    }

    fn default_object(&self, object: &mut Map<String, Value>) {
        if let Some(spec) = within(object, "spec") {
            fill(spec, "volumeMode", "Filesystem");
        }
        if let Some(status) = within(object, "status") {
            fill(status, "phase", "Pending");
        }
    }

    fn after_defaults(&self, ctx: &WriteContext<'_>, claim: &mut Value, old: Option<&Value>) -> Result<()> {
        old.map_or(Ok(()), |old| check_growth(ctx, claim, old))
    }

    fn validate(&self, object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        let at = root.field("spec");
        validate_claim_spec(&object["spec"], &at, errors);
        if let Some(old) = old {
            claim_update(object, old, &at, errors);
        }
    }

    fn columns(&self) -> &[Column] {
        const {
            &[
                Column::NAME,
                Column::text("Status"),
                Column::text("Volume"),
                Column::text("Capacity"),
                Column::text("Access Modes"),
                Column::text("StorageClass"),
                Column::text("VolumeAttributesClass"),
                Column::AGE,
                Column::wide("VolumeMode"),
            ]
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let volume = text_or(&spec["volumeName"], "");
        let bound = !volume.is_empty();
        let capacity = if bound { text_or(&status["capacity"]["storage"], "0") } else { "" };
        let modes = if bound { short_access_modes(&status["accessModes"]) } else { String::new() };
        vec![
            object["metadata"]["name"].clone(),
            json!(phase(object)),
            json!(volume),
            json!(capacity),
            json!(modes),
            json!(class_name(object)),
            json!(text_or(&spec["volumeAttributesClassName"], UNSET)),
            json!(age(object, now)),
            json!(text_or(&spec["volumeMode"], UNSET)),
        ]
    }
}

/// Checks the specification of a claim, or of a template of claims.
pub fn validate_claim_spec(spec: &Value, at: &Path<'_>, errors: &mut Errors) {
    if !spec["selector"].is_null() {
        validate::meta::label_selector(&spec["selector"], &at.field("selector"), errors);
    }
    check_access_modes(&spec["accessModes"], &at.field("accessModes"), errors);
    let resources = at.field("resources");
    check_amount(spec["resources"]["requests"].get("storage"), &resources.field("requests"), errors);
    check_class(&spec["storageClassName"], &at.field("storageClassName"), errors);
    errors.one_of(&at.field("volumeMode"), &spec["volumeMode"], &MODES);
}

/// Of several default classes the newest counts.
fn default_class(ctx: &WriteContext<'_>) -> Result<Option<String>> {
    let classes =
        ctx.server.collection(classes()?)?.list("", None, 0, |class: &Object| is_default(&class.value()));
    let age = |class: &Value| (meta(class, "creationTimestamp").to_owned(), meta(class, "name").to_owned());
    let mut found: Vec<_> = classes.objects.iter().map(|class| age(&class.value())).collect();
    found.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    Ok(found.into_iter().next().map(|(_, name)| name))
}

/// A claim only grows where its class says that its volumes can.
fn check_growth(ctx: &WriteContext<'_>, new: &Value, old: &Value) -> Result<()> {
    let storage =
        |claim: &Value| text(&claim["spec"]["resources"]["requests"]["storage"]).parse::<Quantity>().ok();
    if old["status"]["phase"] != "Bound" || storage(new) <= storage(old) {
        return Ok(());
    }
    let class = new["spec"]["storageClassName"].as_str().unwrap_or_default();
    let grows = ctx
        .server
        .find(classes()?, "", class)
        .is_ok_and(|class| class.value()["allowVolumeExpansion"] == true);
    if grows {
        return Ok(());
    }
    let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
               support resize";
    Err(Failure::forbidden(ctx.resource, meta(new, "name"), why))
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
            if let Some(requests) = existing(spec, "resources").and_then(|r| existing(r, "requests")) {
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
