//! APIServices of the groups and versions that this server serves itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future;
use serde_json::{Value, json};

use super::{Finding, delete, with_condition};
use crate::object::{Object, meta, time};
use crate::resource::Resource;
use crate::server::Inner;
use crate::status::Result;
use crate::write::context::{Operation, WriteContext};

/// The label of APIServices that this server makes and removes; others are their users'.
const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// Ranks of groups, as Kubernetes has them.
const GROUPS: [(&str, i64); 20] = [
    ("", 18_000),
    ("apiregistration.k8s.io", 17_900),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("admissionregistration.k8s.io", 16_700),
    ("apiextensions.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("discovery.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
    // Its kinds are those of other groups in old versions, so it comes after all others.
    ("extensions", 1),
];
/// The rank of other built-in groups, and that of custom kinds.
const BUILT_IN: i64 = 16_000;
const CUSTOM: (i64, i64) = (1000, 100);

/// The ranks of a group and version that this server serves itself: those of the group, and of the version within it.
pub fn priority(group: &str, version: &str, is_custom: bool) -> (i64, i64) {
    if is_custom {
        return CUSTOM;
    }
    let known = GROUPS.iter().find(|(name, _)| *name == group).map(|(_, rank)| *rank);
    (known.unwrap_or(BUILT_IN), if version == "v1" { 15 } else { 9 })
}

/// Makes an APIService for each group and version that is served and has none, and removes those that are served no more.
pub(super) async fn register(server: &Inner, resource: &Resource) -> Result<()> {
    let served = server.registry.current();
    let present = server.collection(resource)?.list("", None, 0, |_| true).objects;
    let names: BTreeSet<String> =
        present.iter().map(|object| meta(&object.value(), "name").to_owned()).collect();
    let (mut wanted, mut missing) = (BTreeSet::new(), Vec::new());
    for r in served.iter() {
        let name = format!("{}.{}", r.version, r.group);
        if wanted.insert(name.clone()) && !names.contains(&name) {
            missing.push(create(server, resource, api_service(r, &name)));
        }
    }
    // All at once: the store commits writes that come together in one step.
    future::try_join_all(missing).await?;
    for object in present.iter().filter(|object| is_automanaged(object)) {
        let name = meta(&object.value(), "name").to_owned();
        if !wanted.contains(&name) {
            delete(server, resource, &name).await?;
        }
    }
    Ok(())
}

fn is_automanaged(object: &Arc<Object>) -> bool {
    let value = object.value();
    value["metadata"]["labels"][AUTOMANAGED].is_string() && !value["spec"]["service"].is_object()
}

fn api_service(of: &Resource, name: &str) -> Value {
    let is_custom = of.custom.is_some();
    let (group, version) = priority(&of.group, &of.version, is_custom);
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": name, "labels": {AUTOMANAGED: if is_custom { "true" } else { "onstart" }}},
        "spec": {
            "group": of.group, "version": of.version, "groupPriorityMinimum": group, "versionPriority": version,
        },
    })
}

async fn create(server: &Inner, resource: &Resource, service: Value) -> Result<()> {
    let now = time(server.clock.now());
    let service = with_condition(&service, &Finding::local(), &now).unwrap_or(service);
    let ctx = WriteContext::internal(server, resource, Operation::Create);
    match server.create_object(&ctx, "", (service, 0), None).await {
        Ok(_) => Ok(()),
        Err(failure) if failure.reason == "AlreadyExists" => Ok(()),
        Err(failure) => Err(failure),
    }
}
