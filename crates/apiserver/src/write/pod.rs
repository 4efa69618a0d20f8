//! What only Pods have: binding and eviction.

use bytes::Bytes;
use http::{HeaderMap, Response};
use serde_json::{Value, json};

use super::Step;
use crate::content::{self, Body};
use crate::object::{Object, is_terminating, meta, time};
use crate::request::{ApiRequest, WriteOptions};
use crate::resource::{self, Resource};
use crate::schema;
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
        let kind = schema::find("", "v1", "Binding").ok_or_else(Failure::no_such_resource)?;
        let mut binding = content::parse(headers, body)?.value;
        content::expect_kind(kind, &mut binding)?;
        let named = meta(&binding, "name").to_owned();
        if !name.is_empty() && !named.is_empty() && name != named {
            return Err(Failure::bad_request("name in URL does not match name in Binding object"));
        }
        let name = if name.is_empty() { named } else { name.to_owned() };
        let pods = resource::find("", "v1", "pods").ok_or_else(Failure::no_such_resource)?;
        let now = time(self.clock.now());
        self.modify(pods, (&r.namespace, &name), options.dry_run, |pod| bound(pods, pod, &binding, &now))
            .await?;
        Ok(content::value(201, &success(201)))
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
        let mut eviction = content::parse(headers, body)?.value;
        content::expect_kind(kind, &mut eviction)?;
        let mut delete = crate::request::DeleteOptions { dry_run: options.dry_run, ..Default::default() };
        if eviction["deleteOptions"].is_object() {
            delete.merge_body(&eviction["deleteOptions"])?;
        }
        self.delete_object(r.resource, &r.namespace, &r.name, &delete).await?;
        Ok(content::value(201, &success(201)))
    }
}

fn success(code: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code})
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
