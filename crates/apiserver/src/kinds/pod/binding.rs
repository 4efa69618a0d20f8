//! The binding of a Pod to a node.

use http::Response;
use serde_json::{Value, json};

use crate::content::{self, Body};
use crate::edit::{list, map_at, text};
use crate::kinds::strategy::Posted;
use crate::object::{Object, is_terminating, meta, time};
use crate::resource::{self, Resource};
use crate::schema::{self, Kind};
use crate::status::{Failure, Result};
use crate::write::Decision;
use crate::write::context::{Operation, WriteContext};

/// Gives a Pod its node, once. The request names the Pod in its path, or else in its body.
pub async fn bind(ctx: &WriteContext<'_>, posted: Posted<'_>) -> Result<Response<Body>> {
    let (binding, warnings) = posted.decode(binding_kind()?)?;
    let r = posted.request;
    let given = meta(&binding, "namespace");
    if !given.is_empty() && given != r.namespace {
        return Err(Failure::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let named = meta(&binding, "name");
    if !r.name.is_empty() && !named.is_empty() && r.name != named {
        return Err(Failure::bad_request("name in URL does not match name in Binding object"));
    }
    let name = if r.name.is_empty() { named } else { &r.name }.to_owned();
    let binding = ctx.server.admit_body(ctx, (&r.namespace, &name), binding).await?;
    let pods = resource::find("", "v1", "pods").ok_or_else(Failure::no_such_resource)?;
    let ctx = ctx.on(pods).with_operation(Operation::Update);
    let now = time(ctx.server.clock.now());
    ctx.server.modify(&ctx, (&r.namespace, &name), 0, |pod| bound(pods, pod, &binding, &now)).await?;
    let mut response = created();
    content::warn(&mut response, &warnings);
    Ok(response)
}

/// The answer to a POST whose object is not stored.
pub fn created() -> Response<Body> {
    let status =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    content::value(201, &status)
}

fn binding_kind() -> Result<&'static Kind> {
    schema::find("", "v1", "Binding").map(|kind| &**kind).ok_or_else(Failure::no_such_resource)
}

/// The Pod after a binding.
fn bound(pods: &Resource, pod: &Object, binding: &Value, now: &str) -> Result<Decision> {
    let pod = pod.value();
    let name = meta(&pod, "name");
    let refuse = |why: String| {
        let mut failure = Failure::conflict(pods, name, &why);
        failure.message = format!("Operation cannot be fulfilled on pods/binding \"{name}\": {why}");
        Err(failure)
    };
    let target = &binding["target"];
    let kind = text(&target["kind"]);
    if !matches!(kind, "" | "Node") {
        let cause = format!("Unsupported value: \"{kind}\": supported values: \"Node\"");
        let cause = ("target.kind".to_owned(), "FieldValueNotSupported".to_owned(), cause);
        return Err(Failure::invalid("", "Binding", name, [cause]));
    }
    let Some(node) = target["name"].as_str().filter(|n| !n.is_empty()) else {
        let cause = ("target.name".to_owned(), "FieldValueRequired".to_owned(), "Required value".to_owned());
        return Err(Failure::invalid("", "Binding", name, [cause]));
    };
    let (uid, wanted) = (meta(&pod, "uid"), meta(binding, "uid"));
    if !wanted.is_empty() && wanted != uid {
        return refuse(format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}"
        ));
    }
    if is_terminating(&pod) {
        return refuse(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    if let Some(present) = pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()) {
        return refuse(format!("pod {name} is already assigned to node \"{present}\""));
    }
    if !list(&pod["spec"]["schedulingGates"]).is_empty() {
        return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let errors = schema::validate_labels(&binding["metadata"]);
    content::refuse_invalid(binding_kind()?, name, &errors)?;
    let mut next = Value::clone(&pod);
    if let Some(spec) = map_at(&mut next, &["spec"]) {
        spec.insert("nodeName".into(), node.into());
    }
    for field in ["annotations", "labels"] {
        let Some(given) = binding["metadata"][field].as_object() else { continue };
        if let Some(present) = map_at(&mut next, &["metadata", field]) {
            present.extend(given.clone());
        }
    }
    let condition =
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    if let Some(status) = map_at(&mut next, &["status"]) {
        let mut conditions = status.get("conditions").map(list).unwrap_or_default().to_vec();
        match conditions.iter_mut().find(|c| c["type"] == "PodScheduled") {
            Some(present) => *present = condition,
            None => conditions.push(condition),
        }
        status.insert("conditions".into(), conditions.into());
    }
    Ok(Decision::Put(next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_bound_once() {
        let pods = resource::find("", "v1", "pods").expect("served");
        let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
        for (pod, binding, expect) in [
            (json!({"metadata": {"name": "p"}, "spec": {}}), &binding, "n"),
            (
                json!({"metadata": {"name": "p"}, "spec": {"nodeName": "m"}}),
                &binding,
                "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"m\"",
            ),
            (
                json!({"metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {}}),
                &binding,
                "Operation cannot be fulfilled on pods/binding \"p\": pod p is being deleted, cannot be assigned to a host",
            ),
            (
                json!({"metadata": {"name": "p"}, "spec": {"schedulingGates": [{"name": "g"}]}}),
                &binding,
                "Operation cannot be fulfilled on pods/binding \"p\": pod p has non-empty .spec.schedulingGates",
            ),
            (
                json!({"metadata": {"name": "p"}, "spec": {}}),
                &json!({"metadata": {"labels": {"a b": "c"}}, "target": {"kind": "Node", "name": "n"}}),
                "Binding \"p\" is invalid: metadata.labels: Invalid value: \"a b\": name part must consist of \
                 alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. \
                 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
                 '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            ),
            (
                json!({"metadata": {"name": "p"}, "spec": {}}),
                &json!({"target": {}}),
                "Binding \"p\" is invalid: target.name: Required value",
            ),
        ] {
            let shown = match bound(pods, &Object::unwritten(pod, 1), binding, "2026-01-01T00:00:00Z") {
                Ok(Decision::Put(next)) => next["spec"]["nodeName"].as_str().unwrap_or_default().to_owned(),
                Ok(_) => "unchanged".to_owned(),
                Err(failure) => failure.to_string(),
            };
            assert_eq!(shown, expect);
        }
    }
}
