//! Reviews: questions about oneself and about rights, answered at once and never stored.

use async_trait::async_trait;
use http::Response;
use serde_json::{Value, json};

use crate::auth::{Decision, Identity, authorize};
use crate::content::{self, Body};
use crate::edit::{list, text};
use crate::kinds::strategy::{Posted, Strategy};
use crate::request::{Request, ServerRequest};
use crate::resource::BUILT_IN;
use crate::status::{Failure, Result};
use crate::write::context::WriteContext;

/// `SelfSubjectReview`: who the server takes its user for.
#[derive(Debug)]
pub struct SelfSubjectReview;

/// `SelfSubjectAccessReview`: whether its user may do something.
#[derive(Debug)]
pub struct SelfSubjectAccessReview;

/// `SubjectAccessReview`: whether somebody else may do something.
#[derive(Debug)]
pub struct SubjectAccessReview;

/// `SelfSubjectRulesReview`: what its user may do.
#[derive(Debug)]
pub struct SelfSubjectRulesReview;

#[async_trait]
impl Strategy for SelfSubjectReview {
    async fn post(&self, ctx: &WriteContext<'_>, posted: Posted<'_>) -> Result<Response<Body>> {
        let who = ctx.user;
        answer(ctx, posted, |_| Ok(json!({"userInfo": who.user_info()})))
    }
}

#[async_trait]
impl Strategy for SelfSubjectAccessReview {
    async fn post(&self, ctx: &WriteContext<'_>, posted: Posted<'_>) -> Result<Response<Body>> {
        answer(ctx, posted, |spec| {
            refuse(ctx, one_kind_of_attributes(spec))?;
            Ok(access(ctx.user, spec))
        })
    }
}

#[async_trait]
impl Strategy for SubjectAccessReview {
    async fn post(&self, ctx: &WriteContext<'_>, posted: Posted<'_>) -> Result<Response<Body>> {
        answer(ctx, posted, |spec| {
            let nobody = spec["user"].is_null() && spec["groups"].is_null();
            let why = "Invalid value: \"\": at least one of user or group must be specified";
            let somebody = nobody.then_some(("spec.user", why));
            refuse(ctx, one_kind_of_attributes(spec).into_iter().chain(somebody))?;
            let groups = list(&spec["groups"]).iter().map(|group| text(group).to_owned()).collect();
            Ok(access(&Identity { user: text(&spec["user"]).to_owned(), groups }, spec))
        })
    }
}

#[async_trait]
impl Strategy for SelfSubjectRulesReview {
    async fn post(&self, ctx: &WriteContext<'_>, posted: Posted<'_>) -> Result<Response<Body>> {
        answer(ctx, posted, |_| Ok(rules(ctx.user)))
    }
}

/// The review with the status that its spec gets.
fn answer(
    ctx: &WriteContext<'_>,
    posted: Posted<'_>,
    status: impl FnOnce(&Value) -> Result<Value>,
) -> Result<Response<Body>> {
    let (mut review, warnings) = posted.decode(&ctx.resource.schema)?;
    let status = status(&review["spec"])?;
    if let Some(review) = review.as_object_mut() {
        review.insert("status".into(), status);
    }
    let mut response = content::value(201, &review);
    content::warn(&mut response, &warnings);
    Ok(response)
}

/// The field and the message of an invalid value.
type Invalid = (&'static str, &'static str);

fn one_kind_of_attributes(spec: &Value) -> Option<Invalid> {
    let why = "Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified";
    let is_wrong = spec["resourceAttributes"].is_null() == spec["nonResourceAttributes"].is_null();
    is_wrong.then_some(("spec.resourceAttributes", why))
}

fn refuse(ctx: &WriteContext<'_>, wrong: impl IntoIterator<Item = Invalid>) -> Result<()> {
    let cause =
        |(field, message): Invalid| (field.to_owned(), "FieldValueInvalid".to_owned(), message.to_owned());
    let causes: Vec<_> = wrong.into_iter().map(cause).collect();
    match causes.is_empty() {
        true => Ok(()),
        false => Err(Failure::invalid(&ctx.resource.group, &ctx.resource.kind, "", causes)),
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
