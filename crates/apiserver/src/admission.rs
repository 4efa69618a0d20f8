//! What the server adds to objects and asks of them beyond their kind's own rules.

mod job;
mod namespace;
mod pod;
mod secret;
pub(crate) mod service;
pub(crate) mod volume;

use serde_json::Value;

use crate::resource::Resource;
use crate::server::Inner;
use crate::status::Result;

/// Before defaults are filled in: what a new object must not bring, and what it gets from the server.
pub(crate) fn before_create(server: &Inner, resource: &Resource, object: &mut Value) -> Result<()> {
    use crate::resource::Subresource::Status;
    // Nodes say how they are when they register; everything else begins without a status.
    if resource.has(Status)
        && resource.kind != "Node"
        && let Some(map) = object.as_object_mut()
    {
        map.shift_remove("status");
    }
    match &*resource.kind {
        "Namespace" => namespace::before_create(object),
        "Secret" => secret::merge_string_data(object),
        "Pod" => return pod::before_create(server, resource, object),
        "Job" => job::before_create(object),
        "PersistentVolume" => volume::before_create_volume(object),
        "PersistentVolumeClaim" => return volume::before_create_claim(server, object),
        _ => {}
    }
    Ok(())
}

/// Before defaults are filled in: what an update must not lose.
pub(crate) fn before_update(resource: &Resource, new: &mut Value, old: &Value) {
    match &*resource.kind {
        "Secret" => secret::merge_string_data(new),
        "Service" => service::keep_held(new, old),
        "Namespace" => namespace::before_update(new, old),
        _ => {}
    }
}

/// After defaults are filled in, before the rules are checked.
pub(crate) fn after_defaults(
    server: &Inner,
    resource: &Resource,
    object: &mut Value,
    old: Option<&Value>,
) -> Result<()> {
    match &*resource.kind {
        "Service" => service::allocate(server, resource, object, old),
        "PersistentVolumeClaim" => match old {
            Some(old) => volume::check_growth(server, resource, object, old),
            None => Ok(()),
        },
        "Pod" if old.is_none() => {
            pod::set_first_status(object);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Fields of a Job that are kept and that its controller does not follow.
const UNFOLLOWED: [&str; 4] =
    ["backoffLimitPerIndex", "maxFailedIndexes", "podFailurePolicy", "successPolicy"];

/// What a writer should know of an object that is taken as it is: nothing that is asked for is dropped in silence.
pub(crate) fn warnings(resource: &Resource, object: &Value) -> Vec<String> {
    if resource.kind == "Service" {
        return service::unfollowed_annotations(object);
    }
    if resource.kind != "Job" {
        return Vec::new();
    }
    let given = UNFOLLOWED.iter().filter(|key| !object["spec"][**key].is_null());
    given.map(|key| format!("spec.{key}: this cluster's Job controller does not act on it")).collect()
}
