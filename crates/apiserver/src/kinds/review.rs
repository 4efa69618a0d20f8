//! Reviews: questions about oneself and about rights, answered at once and never stored.

use async_trait::async_trait;
use http::Response;
use serde_json::{Map, Value, json};

use crate::auth::Identity;
use crate::content::{self, Body};
use crate::edit::{list, text};
use crate::kinds::strategy::{Posted, Strategy};
use crate::object::meta;
use crate::rbac::{Attributes, Authorizer, Target, Verdict};
use crate::schema::Kind;
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

/// `LocalSubjectAccessReview`: whether somebody else may do something in the namespace that it is sent to.
#[derive(Debug)]
pub struct LocalSubjectAccessReview;

/// `SelfSubjectRulesReview`: what its user may do in a namespace.
#[derive(Debug)]
pub struct SelfSubjectRulesReview;

#[async_trait]
impl Strategy for SelfSubjectReview {
    async fn post(&self, ctx: &WriteContext<'_>, posted: Posted<'_>) -> Result<Response<Body>> {
        answer(ctx, posted, |_| Ok(json!({"userInfo": ctx.user.user_info()})))
    }
}

#[async_trait]
impl Strategy for SelfSubjectAccessReview {
    async fn post(&self, ctx: &WriteContext<'_>, posted: Posted<'_>) -> Result<Response<Body>> {
        answer(ctx, posted, |review| {
            check(&ctx.resource.schema, &posted.request.namespace, review)?;
            Ok(access(&ctx.server.authorizer, ctx.user, &review["spec"]))
        })
    }
}

#[async_trait]
impl Strategy for SubjectAccessReview {
    async fn post(&self, ctx: &WriteContext<'_>, posted: Posted<'_>) -> Result<Response<Body>> {
        answer(ctx, posted, |review| {
            check(&ctx.resource.schema, &posted.request.namespace, review)?;
            Ok(access(&ctx.server.authorizer, &subject(&review["spec"]), &review["spec"]))
        })
    }
}

#[async_trait]
impl Strategy for LocalSubjectAccessReview {
    async fn post(&self, ctx: &WriteContext<'_>, posted: Posted<'_>) -> Result<Response<Body>> {
        SubjectAccessReview.post(ctx, posted).await
    }
}

#[async_trait]
impl Strategy for SelfSubjectRulesReview {
    async fn post(&self, ctx: &WriteContext<'_>, posted: Posted<'_>) -> Result<Response<Body>> {
        answer(ctx, posted, |review| rules(&ctx.server.authorizer, ctx.user, &review["spec"]))
    }
}

/// The review with the status that it gets.
fn answer(
    ctx: &WriteContext<'_>,
    posted: Posted<'_>,
    status: impl FnOnce(&Value) -> Result<Value>,
) -> Result<Response<Body>> {
    let (mut review, warnings) = posted.decode(&ctx.resource.schema)?;
    let status = status(&review)?;
    if let Some(review) = review.as_object_mut() {
        review.insert("status".into(), status);
    }
    let mut response = content::value(201, &review);
    content::warn(&mut response, &warnings);
    Ok(response)
}

/// Whose access the spec of a review asks about.
fn subject(spec: &Value) -> Identity {
    let texts = |values: &Value| list(values).iter().map(|value| text(value).to_owned()).collect();
    let extra = spec["extra"].as_object().into_iter().flatten();
    Identity {
        user: text(&spec["user"]).to_owned(),
        uid: text(&spec["uid"]).to_owned(),
        groups: texts(&spec["groups"]),
        extra: extra.map(|(key, values)| (key.clone(), texts(values))).collect(),
    }
}

/// The rules of a review's spec: whose access to what is asked for.
fn check(kind: &Kind, namespace: &str, review: &Value) -> Result<()> {
    let spec = &review["spec"];
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let mut causes = Vec::new();
    let mut invalid = |field: &str, message: &str| {
        let message = format!("Invalid value: {message}");
        causes.push((format!("spec.{field}"), "FieldValueInvalid".to_owned(), message));
    };
    match (resource.is_null(), path.is_null()) {
        (false, false) => {
            invalid("nonResourceAttributes", "cannot be specified in combination with resourceAttributes");
        }
        (true, true) => invalid(
            "resourceAttributes",
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ),
        _ => {}
    }
    let nobody = text(&spec["user"]).is_empty() && list(&spec["groups"]).is_empty();
    if kind.kind != "SelfSubjectAccessReview" && nobody {
        invalid("user", "\"\": at least one of user or group must be specified");
    }
    if kind.namespaced {
        let given = meta(review, "namespace");
        if !given.is_empty() && given != namespace {
            return Err(Failure::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        if !path.is_null() {
            invalid("nonResourceAttributes", "disallowed on this kind of request");
        }
        let asked = text(&resource["namespace"]);
        if !resource.is_null() && asked != namespace {
            invalid("resourceAttributes.namespace", &format!("{asked:?}: must match metadata.namespace"));
        }
    }
    match causes.is_empty() {
        true => Ok(()),
        false => Err(Failure::invalid(&kind.group, &kind.kind, "", causes)),
    }
}

/// Whether `who` may do what the spec of an access review describes.
fn access(authorizer: &Authorizer, who: &Identity, spec: &Value) -> Value {
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let asked = if path.is_object() {
        Attributes { verb: text(&path["verb"]), target: Target::Path(text(&path["path"])) }
    } else {
        let target = Target::Resource {
            namespace: text(&resource["namespace"]),
            group: text(&resource["group"]),
            resource: text(&resource["resource"]),
            subresource: text(&resource["subresource"]),
            name: text(&resource["name"]),
        };
        Attributes { verb: text(&resource["verb"]), target }
    };
    let (allowed, reason) = match authorizer.decide(who, &asked) {
        Verdict::Allowed(reason) => (true, reason),
        Verdict::Denied(reason) => (false, reason),
    };
    let mut status = Map::from_iter([("allowed".to_owned(), json!(allowed))]);
    if !reason.is_empty() {
        status.insert("reason".into(), reason.into());
    }
    Value::Object(status)
}

/// The rules that `who` has in the namespace of a rules review's spec.
fn rules(authorizer: &Authorizer, who: &Identity, spec: &Value) -> Result<Value> {
    let namespace = text(&spec["namespace"]);
    if namespace.is_empty() {
        return Err(Failure::bad_request("no namespace on request"));
    }
    let (rules, error) = authorizer.rules_for(who, namespace);
    let (paths, resources): (Vec<Value>, Vec<Value>) =
        rules.into_iter().partition(|rule| !rule["nonResourceURLs"].is_null());
    let mut status = Map::from_iter([
        ("resourceRules".to_owned(), resources.into()),
        ("nonResourceRules".to_owned(), paths.into()),
        ("incomplete".to_owned(), false.into()),
    ]);
    if !error.is_empty() {
        status.insert("evaluationError".into(), error.into());
    }
    Ok(Value::Object(status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rbac::{Binding, Index, RoleKey, Rule};
    use crate::schema;

    /// Jane may read Pods of `n`, and `/metrics`; a role that does not exist is bound to her in `n`.
    fn authorizer() -> Authorizer {
        let rules = |rules: Value| Rule::read_all(&json!({"rules": rules}));
        let binding = |name: &str, namespace: &str, kind: &str, role: &str| {
            Binding::read(&json!({
                "metadata": {"name": name, "namespace": namespace}, "roleRef": {"kind": kind, "name": role},
                "subjects": [{"kind": "User", "name": "jane"}],
            }))
        };
        let mut index = Index::default();
        index.set_role(
            RoleKey::new("", "metrics"),
            rules(json!([{"verbs": ["get"], "nonResourceURLs": ["/metrics"]}])),
        );
        index.set_role(
            RoleKey::new("n", "pods"),
            rules(json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}])),
        );
        index.set_binding(binding("m", "", "ClusterRole", "metrics"));
        index.set_binding(binding("p", "n", "Role", "pods"));
        index.set_binding(binding("q", "n", "Role", "lost"));
        Authorizer::new(index)
    }

    fn check(kind: &str, namespace: &str, review: Value, expect: &str) {
        let group =
            if kind == "SelfSubjectReview" { "authentication.k8s.io" } else { "authorization.k8s.io" };
        let kind = schema::find(group, "v1", kind).expect("a kind");
        let mut jane = Identity::new("jane", ["dev"]);
        jane.uid = "7".into();
        jane.extra.insert("scopes".into(), vec!["view".into()]);
        let (authorizer, spec) = (authorizer(), &review["spec"]);
        let status = || match &*kind.kind {
            "SelfSubjectReview" => Ok(json!({"userInfo": jane.user_info()})),
            "SelfSubjectRulesReview" => rules(&authorizer, &jane, spec),
            "SelfSubjectAccessReview" => {
                super::check(kind, namespace, &review).map(|()| access(&authorizer, &jane, spec))
            }
            _ => super::check(kind, namespace, &review).map(|()| access(&authorizer, &subject(spec), spec)),
        };
        let shown = match status() {
            Ok(status) => status.to_string(),
            Err(failure) => format!("{} {}", failure.code, failure.message),
        };
        assert_eq!(shown, expect, "{} {review}", kind.kind);
    }

    #[test]
    fn reviews_answer_truly() {
        let pods = |namespace: &str, verb: &str| json!({"verb": verb, "resource": "pods", "namespace": namespace, "version": "v1"});
        let of_resource = |attributes: Value| json!({"spec": {"resourceAttributes": attributes}});
        check(
            "SelfSubjectReview",
            "",
            json!({}),
            r#"{"userInfo":{"username":"jane","uid":"7","groups":["dev","system:authenticated"],"extra":{"scopes":["view"]}}}"#,
        );
        check(
            "SelfSubjectAccessReview",
            "",
            of_resource(pods("n", "list")),
            r#"{"allowed":true,"reason":"RBAC: allowed by RoleBinding \"p/n\" of Role \"pods\" to User \"jane\""}"#,
        );
        check(
            "SelfSubjectAccessReview",
            "",
            of_resource(pods("n", "delete")),
            r#"{"allowed":false,"reason":"RBAC: role.rbac.authorization.k8s.io \"lost\" not found"}"#,
        );
        check("SelfSubjectAccessReview", "", of_resource(pods("", "list")), r#"{"allowed":false}"#);
        check(
            "SelfSubjectAccessReview",
            "",
            json!({"spec": {"nonResourceAttributes": {"path": "/metrics", "verb": "get"}}}),
            r#"{"allowed":true,"reason":"RBAC: allowed by ClusterRoleBinding \"m\" of ClusterRole \"metrics\" to User \"jane\""}"#,
        );
        check(
            "SelfSubjectRulesReview",
            "",
            json!({"spec": {"namespace": "n"}}),
            r#"{"resourceRules":[{"verbs":["get","list"],"apiGroups":[""],"resources":["pods"]}],"nonResourceRules":[{"verbs":["get"],"nonResourceURLs":["/metrics"]}],"incomplete":false,"evaluationError":"role.rbac.authorization.k8s.io \"lost\" not found"}"#,
        );
        check("SelfSubjectRulesReview", "", json!({"spec": {}}), "400 no namespace on request");
        let of = |user: &str, groups: Value| json!({"spec": {"user": user, "groups": groups, "resourceAttributes": pods("n", "list")}});
        check("SubjectAccessReview", "", of("eve", json!([])), r#"{"allowed":false}"#);
        check("SubjectAccessReview", "", of("eve", json!(["system:masters"])), r#"{"allowed":true}"#);
        check(
            "LocalSubjectAccessReview",
            "n",
            of("jane", json!([])),
            r#"{"allowed":true,"reason":"RBAC: allowed by RoleBinding \"p/n\" of Role \"pods\" to User \"jane\""}"#,
        );
        let refused = |kind: &str, field: &str, why: &str| {
            format!("422 {kind}.authorization.k8s.io \"\" is invalid: spec.{field}: Invalid value: {why}")
        };
        check(
            "SubjectAccessReview",
            "",
            of("", json!([])),
            &refused("SubjectAccessReview", "user", "\"\": at least one of user or group must be specified"),
        );
        check(
            "SelfSubjectAccessReview",
            "",
            json!({"spec": {}}),
            &refused(
                "SelfSubjectAccessReview",
                "resourceAttributes",
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            ),
        );
        check(
            "LocalSubjectAccessReview",
            "m",
            of("jane", json!([])),
            &refused(
                "LocalSubjectAccessReview",
                "resourceAttributes.namespace",
                "\"n\": must match metadata.namespace",
            ),
        );
    }
}
