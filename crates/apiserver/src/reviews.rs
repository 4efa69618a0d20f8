//! Questions about oneself and about rights: answered at once, never stored.

use http::Response;
use serde_json::{Value, json};

use crate::auth::{Decision, Identity, authorize};
use crate::content::{self, Body};
use crate::request::Request;
use crate::resource::Resource;
use crate::status::{Failure, Result};

/// The answer to a review of this kind.
pub(crate) fn answer(resource: &Resource, who: &Identity, mut review: Value) -> Result<Response<Body>> {
    content::expect_kind(resource.schema, &mut review)?;
    review["status"] = match resource.kind {
        "SelfSubjectReview" => json!({"userInfo": {"username": who.user, "groups": who.groups}}),
        "SelfSubjectAccessReview" => access(who, &review["spec"])?,
        "SubjectAccessReview" => {
            let spec = &review["spec"];
            let groups = spec["groups"].as_array().into_iter().flatten().filter_map(Value::as_str);
            access(&Identity::new(spec["user"].as_str().unwrap_or_default(), groups), spec)?
        }
        _ => rules(who),
    };
    Ok(content::value(201, &review))
}

/// Whether `who` may do what the spec of an access review describes.
fn access(who: &Identity, spec: &Value) -> Result<Value> {
    // Rights are by group of users so far, the same for all resources: any request will do to ask.
    let path = spec["nonResourceAttributes"]["path"].as_str().unwrap_or("/api/v1/namespaces");
    let request = Request::parse(&http::Method::GET, path, None, &http::HeaderMap::new())
        .map_err(|_| Failure::bad_request(format!("nonResourceAttributes.path: \"{path}\" is not served")))?;
    Ok(match authorize(who, &request) {
        Decision::Allow => json!({"allowed": true}),
        Decision::Deny(reason) => json!({"allowed": false, "reason": reason}),
    })
}

fn rules(who: &Identity) -> Value {
    let everything = access(who, &json!({})).is_ok_and(|a| a["allowed"] == true);
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
