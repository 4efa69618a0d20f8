//! What other objects decide of a new Pod: its ServiceAccount, its priority, its RuntimeClass.

use serde_json::Value;

use crate::edit::{copy, list, map_at, text};
use crate::object::meta;
use crate::resource;
use crate::status::{Failure, Result};
use crate::write::context::WriteContext;

/// The priority classes that every cluster has.
const SYSTEM_PRIORITIES: [(&str, i64); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

/// Completes a Pod, or refuses it.
pub fn admit(ctx: &WriteContext<'_>, pod: &mut Value) -> Result<()> {
    account(ctx, pod)?;
    priority(ctx, pod)?;
    runtime_class(ctx, pod)
}

fn refuse(ctx: &WriteContext<'_>, pod: &Value, why: &str) -> Failure {
    Failure::forbidden(ctx.resource, meta(pod, "name"), why)
}

/// Every Pod runs as a ServiceAccount of its Namespace.
fn account(ctx: &WriteContext<'_>, pod: &mut Value) -> Result<()> {
    let spec = &pod["spec"];
    let named = [&spec["serviceAccountName"], &spec["serviceAccount"]].map(text);
    let name = named.into_iter().find(|name| !name.is_empty()).unwrap_or("default").to_owned();
    let accounts = resource::find("", "v1", "serviceaccounts").ok_or_else(Failure::no_such_resource)?;
    let namespace = meta(pod, "namespace");
    let account = match ctx.server.find(accounts, namespace, &name) {
        Ok(account) => account.value(),
        // That the Namespace is not there is the better thing to complain about, and is noticed next.
        Err(_) if !ctx.server.has_namespace(namespace) => return Ok(()),
        Err(failure) => {
            let why = format!("error looking up service account {namespace}/{name}: {failure}");
            return Err(refuse(ctx, pod, &why));
        }
    };
    let has_secrets = !list(&spec["imagePullSecrets"]).is_empty();
    let Some(spec) = map_at(pod, &["spec"]) else { return Ok(()) };
    spec.insert("serviceAccountName".into(), name.as_str().into());
    spec.insert("serviceAccount".into(), name.into());
    if !has_secrets && account["imagePullSecrets"].is_array() {
        copy(&account, spec, "imagePullSecrets");
    }
    Ok(())
}

fn priority(ctx: &WriteContext<'_>, pod: &mut Value) -> Result<()> {
    let class = text(&pod["spec"]["priorityClassName"]);
    let priority = match SYSTEM_PRIORITIES.iter().find(|(name, _)| *name == class) {
        Some((_, priority)) => *priority,
        None if class.is_empty() => 0,
        None => return Err(refuse(ctx, pod, &format!("no PriorityClass with name {class} was found"))),
    };
    if let Some(spec) = map_at(pod, &["spec"]) {
        spec.insert("priority".into(), priority.into());
    }
    Ok(())
}

/// A Pod that asks for another runtime must not run in this one, which isolates it less than it expects. A cluster
/// without RuntimeClasses has none that it could ask for.
fn runtime_class(ctx: &WriteContext<'_>, pod: &Value) -> Result<()> {
    let name = text(&pod["spec"]["runtimeClassName"]);
    let classes = resource::find("node.k8s.io", "v1", "runtimeclasses");
    if name.is_empty() || classes.is_some_and(|classes| ctx.server.find(classes, "", name).is_ok()) {
        return Ok(());
    }
    Err(refuse(ctx, pod, &format!("pod rejected: RuntimeClass \"{name}\" not found")))
}
