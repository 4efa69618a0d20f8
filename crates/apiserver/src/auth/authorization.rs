//! Whether a request is allowed: its terms for the roles, and the refusal.

use http::header::UPGRADE;
use http::request::Parts;
use std::sync::Arc;

use http::Method;

use crate::audit::Record;
use crate::identity::Identity;
use crate::rbac::{Attributes, Authorizer, NodeGraph, Target, Verdict};
use crate::request::{ApiRequest, Request, Verb};
use crate::resource::Subresource;
use crate::status::Result;

/// Refuses a request that no role allows to `who`.
///
/// # Errors
/// 403, with the sentence that Kubernetes has for it.
pub fn authorize(
    authorizer: &Authorizer,
    who: &Identity,
    request: &Request,
    asked: &Attributes<'_>,
    parts: &Parts,
) -> Result<()> {
    if let Some(record) = parts.extensions.get::<Arc<Record>>() {
        note(authorizer.decide(who, asked), record);
    }
    check(authorizer, who, asked)?;
    // A WebSocket begins with a GET, and yet makes a process or a connection in a container.
    if asked.verb == "get" && parts.headers.contains_key(UPGRADE) && opens_stream(request) {
        check(authorizer, who, &Attributes { verb: "create", ..*asked })?;
    }
    Ok(())
}

/// Adds the decision to the audit event, in Kubernetes' words.
fn note(verdict: Verdict, record: &Record) {
    let (decision, reason) = match verdict {
        Verdict::Allowed(reason) => ("allow", reason),
        Verdict::Denied(reason) => ("forbid", reason),
    };
    record.annotate("authorization.k8s.io/decision", decision);
    record.annotate("authorization.k8s.io/reason", &reason);
}

fn check(authorizer: &Authorizer, who: &Identity, asked: &Attributes<'_>) -> Result<()> {
    if authorizer.allows(who, asked) {
        return Ok(());
    }
    let reason = match authorizer.decide(who, asked) {
        // It became allowed this very moment.
        Verdict::Allowed(_) => return Ok(()),
        Verdict::Denied(reason) => reason,
    };
    let failure = asked.forbidden(who, &reason);
    // A node may still ask for what a Pod refers to that is gone already.
    if who.is_internal() && !NodeGraph::judges(asked) {
        // Nobody but this program's authors can mend it: the component's role lacks something.
        tracing::error!(%failure, "a component of this program asked for what its role does not allow");
    }
    Err(failure)
}

fn opens_stream(request: &Request) -> bool {
    use Subresource::{Attach, Exec, PortForward};
    matches!(request, Request::Api(r) if matches!(r.subresource, Some(Attach | Exec | PortForward)))
}

/// The attributes of a request that RBAC rules are matched against.
pub fn attributes<'a>(request: &'a Request, method: &Method, path: &'a str) -> Attributes<'a> {
    match request {
        Request::Server(_) => {
            let verb = match *method {
                Method::HEAD => "head",
                _ => "get",
            };
            Attributes { verb, target: Target::Path(path) }
        }
        Request::Aggregated(asked) => {
            let target = match &asked.resource {
                None => Target::Path(path),
                Some(of) => Target::Resource {
                    namespace: &of.namespace,
                    group: &asked.service.group,
                    resource: &of.resource,
                    subresource: &of.subresource,
                    name: &of.name,
                },
            };
            Attributes { verb: asked.verb, target }
        }
        Request::Api(r) => {
            let verb = match (&r.verb, method) {
                (Verb::Connect(_), &Method::POST) => "create",
                (verb, _) => verb.name(),
            };
            Attributes { verb, target: target(r) }
        }
    }
}

fn target(r: &ApiRequest) -> Target<'_> {
    let narrowed = match &r.verb {
        Verb::List(options) | Verb::DeleteCollection(options, _) => options.fields.required("metadata.name"),
        Verb::Watch(options) => options.list.fields.required("metadata.name"),
        _ => None,
    };
    let name = if r.name.is_empty() { narrowed.unwrap_or_default() } else { &r.name };
    // What is done to a Namespace is done in it, so that its own roles can allow it.
    let is_namespace = r.resource.group.is_empty() && r.resource.plural == "namespaces";
    Target::Resource {
        namespace: if is_namespace { &r.name } else { &r.namespace },
        group: &r.resource.group,
        resource: &r.resource.plural,
        subresource: r.subresource.map_or("", Subresource::name),
        name,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::resource::BUILT_IN;

    #[test]
    fn requests_in_the_terms_of_rules() {
        for (line, expect) in [
            ("GET /api/v1/namespaces/d/pods", "list [d] pods."),
            ("GET /api/v1/namespaces/d/pods?fieldSelector=metadata.name%3Da", "list [d] pods. a"),
            ("GET /api/v1/pods?watch=1&fieldSelector=metadata.name%3Da", "watch [] pods. a"),
            ("GET /api/v1/pods?fieldSelector=metadata.name!%3Da", "list [] pods."),
            ("GET /api/v1/namespaces/d/pods/p", "get [d] pods. p"),
            ("HEAD /api/v1/namespaces/d/pods/p", "get [d] pods. p"),
            ("GET /api/v1/namespaces/d/pods/p/log", "get [d] pods/log. p"),
            ("GET /api/v1/namespaces/d/pods/p/exec", "get [d] pods/exec. p"),
            ("POST /api/v1/namespaces/d/pods/p/exec", "create [d] pods/exec. p"),
            ("POST /api/v1/namespaces/d/pods/p/binding", "create [d] pods/binding. p"),
            ("PUT /api/v1/namespaces/d/services/s:80/proxy/x", "update [d] services/proxy. s:80"),
            ("POST /api/v1/namespaces", "create [] namespaces."),
            ("GET /api/v1/namespaces/d", "get [d] namespaces. d"),
            ("PUT /api/v1/namespaces/d/finalize", "update [d] namespaces/finalize. d"),
            ("GET /api/v1/nodes/n", "get [] nodes. n"),
            ("DELETE /apis/apps/v1/namespaces/d/deployments", "deletecollection [d] deployments.apps"),
            ("GET /apis/events.k8s.io/v1/events", "list [] events.events.k8s.io"),
            ("GET /apis/apps/v1", "get /apis/apps/v1"),
            ("GET /livez/ping", "get /livez/ping"),
            ("HEAD /healthz", "head /healthz"),
        ] {
            let (method, target) = line.split_once(' ').expect("METHOD TARGET");
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let method: Method = method.parse().expect("a method");
            let request = Request::parse(&BUILT_IN, &method, path, Some(query), &HeaderMap::new());
            let request = request.expect(line);
            let asked = attributes(&request, &method, path);
            let shown = match asked.target {
                Target::Path(path) => format!("{} {path}", asked.verb),
                Target::Resource { namespace, group, resource, subresource, name } => {
                    let slash = if subresource.is_empty() { "" } else { "/" };
                    let text =
                        format!("{} [{namespace}] {resource}{slash}{subresource}.{group} {name}", asked.verb);
                    text.trim_end().to_owned()
                }
            };
            assert_eq!(shown, expect, "{line}");
        }
    }
}
