//! Questions about oneself and about rights: answered at once, never stored.

use http::Response;
use serde_json::{Value, json};

use crate::auth::{Decision, Identity, authorize};
use crate::content::{self, Body};
use crate::request::{Request, ServerRequest};
use crate::resource::{BUILT_IN, Resource};
use crate::schema::{FieldValidation, Parsed};
use crate::status::{Failure, Result};

/// The answer to a review of this kind.
pub(crate) fn answer(
    resource: &Resource,
    who: &Identity,
    parsed: Parsed,
    validation: FieldValidation,
) -> Result<Response<Body>> {
    let (mut review, warnings) = content::decode(&resource.schema, parsed, validation)?;
    let spec = &review["spec"];
    let status = match &*resource.kind {
        "SelfSubjectReview" => json!({"userInfo": {"username": who.user, "groups": who.groups}}),
        "SelfSubjectAccessReview" => {
            check(resource, spec)?;
            access(who, spec)
        }
        "SubjectAccessReview" => {
            check(resource, spec)?;
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            let groups = spec["groups"].as_array().into_iter().flatten().map(text).collect();
            access(&Identity { user: text(&spec["user"]), groups }, spec)
        }
        _ => rules(who),
    };
    review["status"] = status;
    let mut response = content::value(201, &review);
    content::warn(&mut response, &warnings);
    Ok(response)
}

/// The rules of a review's spec: whose access to what is asked for.
fn check(resource: &Resource, spec: &Value) -> Result<()> {
    let mut causes = Vec::new();
    let mut invalid = |field: &str, message: &str| {
        causes.push((field.to_owned(), "FieldValueInvalid".to_owned(), message.to_owned()));
    };
    if spec["resourceAttributes"].is_null() == spec["nonResourceAttributes"].is_null() {
        invalid(
            "spec.resourceAttributes",
            "Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified",
        );
    }
    let nobody = spec["user"].is_null() && spec["groups"].is_null();
    if resource.kind == "SubjectAccessReview" && nobody {
        invalid("spec.user", "Invalid value: \"\": at least one of user or group must be specified");
    }
    match causes.is_empty() {
        true => Ok(()),
        false => Err(Failure::invalid(&resource.group, &resource.kind, "", causes)),
    }
}

/// Whether `who` may do what the spec of an access review describes.
fn access(who: &Identity, spec: &Value) -> Value {
    // Rights are by group of users so far, the same for all resources: any request will do to ask. A path that is not
    // served is as open as the list of those that are.
    let path = spec["nonResourceAttributes"].is_object();
    let path = path.then(|| spec["nonResourceAttributes"]["path"].as_str().unwrap_or("/"));
    let request = Request::parse(
        &BUILT_IN,
        &http::Method::GET,
        path.unwrap_or("/api/v1/namespaces"),
        None,
        &http::HeaderMap::new(),
    );
    match authorize(who, &request.unwrap_or(Request::Server(ServerRequest::Root))) {
        Decision::Allow => json!({"allowed": true}),
        Decision::Deny(reason) => json!({"allowed": false, "reason": reason}),
    }
}

fn rules(who: &Identity) -> Value {
    let everything = access(who, &json!({}))["allowed"] == true;
    let (resources, paths) = if everything {
        (
            json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]),
            json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]),
        )
    } else {
        let review =
            |group, resources| json!({"verbs": ["create"], "apiGroups": [group], "resources": resources});
        (
            json!([
                review("authentication.k8s.io", json!(["selfsubjectreviews"])),
                review(
                    "authorization.k8s.io",
                    json!(["selfsubjectaccessreviews", "selfsubjectrulesreviews"])
                ),
            ]),
            json!([{"verbs": ["get"], "nonResourceURLs": ["/api", "/apis", "/healthz", "/version", "/openapi/v3"]}]),
        )
    };
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
}
