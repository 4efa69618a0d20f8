//! The parameters of policies: objects of any kind, which a binding names or selects.

use std::sync::Arc;

use serde_json::Value;

use super::Review;
use super::matching::selects;
use super::request::namespace;
use crate::edit::text;
use crate::resource::{Resource, Resources};

/// The resource that a `ParamKind` names.
pub(crate) fn resource_of<'r>(resources: &'r Resources, kind: &Value) -> Option<&'r Arc<Resource>> {
    let (api_version, kind) = (text(&kind["apiVersion"]), text(&kind["kind"]));
    resources.iter().find(|r| r.kind == kind && r.is_stored() && r.api_version() == api_version)
}

/// A `ParamKind` in messages, like `apps/v1, Kind=Deployment`.
pub(super) fn shown(kind: &Value) -> String {
    let api_version = text(&kind["apiVersion"]);
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    format!("{group}/{version}, Kind={}", text(&kind["kind"]))
}

/// The parameters with which a binding applies its policy: null where it applies without any.
///
/// # Errors
/// Why they cannot be looked up, or that there are none and the binding wants the write to be refused then.
pub(super) async fn collect(
    review: &Review<'_>,
    resource: Option<&Resource>,
    reference: &Value,
) -> Result<Vec<Arc<Value>>, String> {
    let (Some(resource), false) = (resource, reference.is_null()) else {
        return Ok(vec![Arc::default()]);
    };
    let given = text(&reference["namespace"]);
    let place = match (resource.namespaced, given) {
        (false, "") => "",
        (false, _) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into());
        }
        (true, "") => namespace(review),
        (true, given) => given,
    };
    if resource.namespaced && place.is_empty() {
        let why = "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
        return Err(why.to_owned());
    }
    let server = review.ctx.server;
    let found = match text(&reference["name"]) {
        "" => {
            let collection = server.collection(resource).map_err(|failure| failure.message)?;
            let mut found = Vec::new();
            for object in collection.list(place, None, 0, |_| true).objects {
                let labels = &object.value()["metadata"]["labels"];
                if selects(&reference["selector"], labels).map_err(|failure| failure.message)? {
                    found.push(object);
                }
            }
            found
        }
        name => match server.find(resource, place, name) {
            Ok(object) => vec![object],
            Err(failure) if failure.code == 404 => Vec::new(),
            Err(failure) => return Err(failure.message),
        },
    };
    if found.is_empty() && text(&reference["parameterNotFoundAction"]) == "Deny" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    let shown = server.present(resource, found).await.map_err(|failure| failure.message)?;
    Ok(shown.iter().map(|object| object.value()).collect())
}
