//! What only Pods have: binding and eviction.

use bytes::Bytes;
use http::{HeaderMap, Response};
use serde_json::{Value, json};

use super::Step;
use crate::content::{self, Body};
use crate::object::{Object, is_terminating, meta, time};
use crate::request::{ApiRequest, WriteOptions};
use crate::resource::{self, Resource};
use crate::schema::{self, Kind};
use crate::server::Inner;
use crate::status::{Failure, Result};

impl Inner {
    /// Gives a Pod its node, once.
    pub(super) async fn bind(
        &self,
        r: &ApiRequest,
        name: &str,
        options: &WriteOptions,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Response<Body>> {
        let kind = binding_kind()?;
        let (binding, warnings) =
            content::decode(kind, content::parse(headers, body)?, options.field_validation)?;
        let given = meta(&binding, "namespace");
        if !given.is_empty() && given != r.namespace {
            return Err(Failure::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        let named = meta(&binding, "name").to_owned();
        if !name.is_empty() && !named.is_empty() && name != named {
            return Err(Failure::bad_request("name in URL does not match name in Binding object"));
        }
        let name = if name.is_empty() { named } else { name.to_owned() };
        let pods = resource::find("", "v1", "pods").ok_or_else(Failure::no_such_resource)?;
        let now = time(self.clock.now());
        self.modify(pods, (&r.namespace, &name), options.dry_run, 0, |pod| bound(pods, pod, &binding, &now))
            .await?;
        let mut response = content::value(201, &success(201));
        content::warn(&mut response, &warnings);
        Ok(response)
    }

    /// Deletes a Pod by its own wish to be asked first; disruption budgets, which could refuse, do not exist here.
    pub(super) async fn evict(
        &self,
        r: &ApiRequest,
        options: &WriteOptions,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Response<Body>> {
        let kind = schema::find("policy", "v1", "Eviction").ok_or_else(Failure::no_such_resource)?;
        let (eviction, warnings) =
            content::decode(kind, content::parse(headers, body)?, options.field_validation)?;
        let named = meta(&eviction, "name");
        if !named.is_empty() && named != r.name {
            return Err(Failure::bad_request("name in URL does not match name in Eviction object"));
        }
        let mut delete = crate::request::DeleteOptions { dry_run: options.dry_run, ..Default::default() };
        if eviction["deleteOptions"].is_object() {
            delete.merge_body(&eviction["deleteOptions"])?;
        }
        self.delete_object(&r.resource, &r.namespace, &r.name, &delete).await?;
        let mut response = content::value(201, &success(201));
        content::warn(&mut response, &warnings);
        Ok(response)
    }
}

fn success(code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code})
}

fn binding_kind() -> Result<&'static Kind> {
    schema::find("", "v1", "Binding").map(|kind| &**kind).ok_or_else(Failure::no_such_resource)
}

/// What a binding makes of a Pod.
fn bound(pods: &Resource, pod: &Object, binding: &Value, now: &str) -> Result<Step> {
    let pod = pod.value();
    let name = meta(&pod, "name");
    let refuse = |why: String| {
        let mut failure = Failure::conflict(pods, name, &why);
        failure.message = format!("Operation cannot be fulfilled on pods/binding \"{name}\": {why}");
        Err(failure)
    };
    let target = &binding["target"];
    if !matches!(target["kind"].as_str(), None | Some("" | "Node")) {
        let kind = target["kind"].as_str().unwrap_or_default();
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
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let errors = schema::validate_labels(&binding["metadata"]);
    content::refuse_invalid(binding_kind()?, name, &errors)?;
    let mut next = Value::clone(&pod);
    next["spec"]["nodeName"] = node.into();
    for field in ["annotations", "labels"] {
        for (key, value) in binding["metadata"][field].as_object().into_iter().flatten() {
            next["metadata"][field][key] = value.clone();
        }
    }
    let condition =
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    if !next["status"]["conditions"].is_array() {
        next["status"]["conditions"] = json!([]);
    }
    if let Some(conditions) = next["status"]["conditions"].as_array_mut() {
        match conditions.iter_mut().find(|c| c["type"] == "PodScheduled") {
            Some(present) => *present = condition,
            None => conditions.push(condition),
        }
    }
    Ok(Step::Put(next))
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
                Ok(Step::Put(next)) => next["spec"]["nodeName"].as_str().unwrap_or_default().to_owned(),
                Ok(_) => "unchanged".to_owned(),
                Err(failure) => failure.to_string(),
            };
            assert_eq!(shown, expect);
        }
    }
}
