//! TokenRequests: a token of a ServiceAccount, issued at once and not stored.

use http::Response;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use crate::admission::node_restriction;
use crate::content::{self, Body};
use crate::edit::{fill, list, map_at, text, within};
use crate::kinds::strategy::{Posted, Strategy};
use crate::object::{meta, time};
use crate::resource::{self, Resource};
use crate::schema::validate::{Errors, Path};
use crate::schema::{self, Kind};
use crate::status::{Failure, Result};
use crate::tokens::{Bound, Wanted, lifetime_error};
use crate::write::context::WriteContext;

/// Seconds for which a token is valid where the request does not say.
const DEFAULT_SECONDS: i64 = 3600;

#[derive(Debug)]
pub struct TokenRequest;

impl Strategy for TokenRequest {
    fn default_object(&self, request: &mut Map<String, Value>) {
        if let Some(spec) = within(request, "spec") {
            fill(spec, "expirationSeconds", DEFAULT_SECONDS);
        }
    }

    fn validate(&self, request: &Value, _old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        let (spec, seconds) = (root.field("spec"), &request["spec"]["expirationSeconds"]);
        if let Some(why) = lifetime_error(seconds.as_i64().unwrap_or(DEFAULT_SECONDS)) {
            errors.invalid(&spec.field("expirationSeconds"), seconds, why);
        }
    }
}

/// Answers a request for a token of the ServiceAccount that its path names.
pub async fn issue(ctx: &WriteContext<'_>, posted: Posted<'_>) -> Result<Response<Body>> {
    let kind = kind()?;
    let (request, warnings) = posted.decode(kind)?;
    let (namespace, name) = (&*posted.request.namespace, &*posted.request.name);
    let mut request = ctx.server.admit_body(ctx, (namespace, name), request).await?;
    let account = ctx.server.find(ctx.resource, namespace, name)?.value();
    let now = ctx.server.clock.now();
    complete(ctx, kind, &mut request, (namespace, name), now)?;
    content::refuse_invalid(kind, "", &schema::validate_object(kind, &request, None))?;

    let spec = &request["spec"];
    let bound = bound_object(ctx, spec, (namespace, name))?;
    let pod = bound.as_ref().filter(|(kind, _)| *kind == Bound::Pod).map(|(_, pod)| &**pod);
    node_restriction::check_token(ctx, name, pod)?;
    let audiences: Vec<String> = list(&spec["audiences"]).iter().map(|a| text(a).to_owned()).collect();
    let seconds = spec["expirationSeconds"].as_i64().unwrap_or(DEFAULT_SECONDS);
    let wanted = Wanted {
        account: &account,
        bound: bound.as_ref().map(|(kind, object)| (*kind, &**object)),
        node: bound.as_ref().and_then(|(kind, object)| node_of(ctx, *kind, object)),
        audiences: &audiences,
        seconds,
    };
    let token = ctx.server.issue(&wanted, now)?;
    if let Some(request) = request.as_object_mut() {
        let expires = time(now + SignedDuration::from_secs(seconds));
        request.insert("status".into(), json!({"token": token, "expirationTimestamp": expires}));
    }
    let mut response = content::value(201, &request);
    content::warn(&mut response, &warnings);
    Ok(response)
}

fn kind() -> Result<&'static Kind> {
    let kind = schema::find("authentication.k8s.io", "v1", "TokenRequest");
    kind.map(|kind| &**kind).ok_or_else(Failure::no_such_resource)
}

/// Fills in what the path, the server and the defaults say.
fn complete(
    ctx: &WriteContext<'_>,
    kind: &Kind,
    request: &mut Value,
    (namespace, name): (&str, &str),
    now: Timestamp,
) -> Result<()> {
    for (field, expected) in [("name", name), ("namespace", namespace)] {
        let given = meta(request, field);
        if !given.is_empty() && given != expected {
            let mut errors = Errors::default();
            let root = Path::root();
            let detail = format!("must match the service account {field} if specified");
            errors.invalid_text(&root.field("metadata").field(field), given, &detail);
            content::refuse_invalid(kind, name, &errors.list)?;
        }
        if let Some(metadata) = map_at(request, &["metadata"]) {
            metadata.insert(field.into(), expected.into());
        }
    }
    if let Some(metadata) = map_at(request, &["metadata"]) {
        metadata.insert("creationTimestamp".into(), time(now).into());
    }
    if let Some(spec) = map_at(request, &["spec"])
        && spec.get("audiences").is_none_or(|audiences| list(audiences).is_empty())
    {
        spec.insert("audiences".into(), json!(ctx.server.issuer.audiences));
    }
    schema::default_object(kind, request);
    Ok(())
}

type Found = std::sync::Arc<Value>;

/// The object that the token is to be bound to.
fn bound_object(
    ctx: &WriteContext<'_>,
    spec: &Value,
    (namespace, account): (&str, &str),
) -> Result<Option<(Bound, Found)>> {
    let reference = &spec["boundObjectRef"];
    if !reference.is_object() {
        return Ok(None);
    }
    let (version, kind, name) =
        (text(&reference["apiVersion"]), text(&reference["kind"]), text(&reference["name"]));
    let (bound, plural, namespace) = match (version, kind) {
        ("v1", "Pod") => (Bound::Pod, "pods", namespace),
        ("v1", "Secret") => (Bound::Secret, "secrets", namespace),
        ("v1", "Node") => (Bound::Node, "nodes", ""),
        _ => {
            let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
            let why = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
            return Err(Failure::bad_request(why));
        }
    };
    let resource = core(plural)?;
    let object = ctx.server.find(resource, namespace, name)?.value();
    if bound == Bound::Pod && text(&object["spec"]["serviceAccountName"]) != account {
        return Err(Failure::bad_request(format!(
            "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
        )));
    }
    let (asked, uid) = (text(&reference["uid"]), meta(&object, "uid"));
    if !asked.is_empty() && asked != uid {
        let why = format!(
            "the UID in the bound object reference ({asked}) does not match the UID in record. The object might have \
             been deleted and then recreated"
        );
        return Err(Failure::conflict(resource, name, &why));
    }
    Ok(Some((bound, object)))
}

/// The node of a Pod that a token is bound to. One that is not registered has no uid.
fn node_of<'a>(ctx: &WriteContext<'_>, kind: Bound, object: &'a Value) -> Option<(&'a str, String)> {
    let name = text(&object["spec"]["nodeName"]);
    if kind != Bound::Pod || name.is_empty() {
        return None;
    }
    let node = core("nodes").and_then(|nodes| ctx.server.find(nodes, "", name));
    let uid = node.map(|node| meta(&node.value(), "uid").to_owned()).unwrap_or_default();
    Some((name, uid))
}

fn core(plural: &str) -> Result<&'static Resource> {
    resource::find("", "v1", plural).map(|r| &**r).ok_or_else(Failure::no_such_resource)
}
