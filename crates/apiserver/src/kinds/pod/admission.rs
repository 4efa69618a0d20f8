//! Fields of a new Pod that other objects decide (ServiceAccount, PriorityClass, RuntimeClass) and tolerations of what it
//! asks for.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::token_volume;
use crate::edit::{copy, list, map_at, text};
use crate::kinds::priority_class::default_class;
use crate::kinds::runtime_class;
use crate::object::meta;
use crate::resource;
use crate::status::{Failure, Result};
use crate::write::context::WriteContext;
use crate::write::create::generate_name;

/// Completes a Pod, or refuses it.
pub fn admit(ctx: &WriteContext<'_>, pod: &mut Value) -> Result<()> {
    account(ctx, pod)?;
    priority(ctx, pod)?;
    extended_resources(pod);
    runtime_class::admit(ctx, pod)
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
    token_volume::mount(spec, &account, generate_name(token_volume::NAME_PREFIX, &mut rand::rng()));
    Ok(())
}

/// The priority of a Pod is that of its class; a Pod without one is of the default class, if there is one.
fn priority(ctx: &WriteContext<'_>, pod: &mut Value) -> Result<()> {
    let name = text(&pod["spec"]["priorityClassName"]);
    let class = match name {
        "" => default_class(ctx.server),
        name => {
            let classes = resource::find("scheduling.k8s.io", "v1", "priorityclasses");
            let class = classes.and_then(|classes| ctx.server.find(classes, "", name).ok());
            let missing = || refuse(ctx, pod, &format!("no PriorityClass with name {name} was found"));
            Some(class.ok_or_else(missing)?.value())
        }
    };
    let value = class.as_ref().and_then(|class| class["value"].as_i64()).unwrap_or(0);
    if let Some(given) = pod["spec"]["priority"].as_i64().filter(|given| *given != value) {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
             computed {value} from the given PriorityClass name"
        );
        return Err(refuse(ctx, pod, &why));
    }
    let policy =
        class.as_ref().map(|class| text(&class["preemptionPolicy"])).filter(|policy| !policy.is_empty());
    let policy = policy.unwrap_or("PreemptLowerPriority");
    let given = text(&pod["spec"]["preemptionPolicy"]);
    if !given.is_empty() && given != policy {
        let why = format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        );
        return Err(refuse(ctx, pod, &why));
    }
    if let Some(spec) = map_at(pod, &["spec"]) {
        spec.insert("priority".into(), value.into());
        spec.insert("preemptionPolicy".into(), policy.into());
        if let Some(class) = &class {
            spec.insert("priorityClassName".into(), meta(class, "name").into());
        }
    }
    Ok(())
}

/// Nodes with special resources are often tainted with the name of these, so that only Pods that ask for them come.
fn extended_resources(pod: &mut Value) {
    let mut names = BTreeSet::new();
    for field in ["initContainers", "containers"] {
        for container in list(&pod["spec"][field]) {
            for amounts in [&container["resources"]["requests"], &container["resources"]["limits"]] {
                let keys = amounts.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
                names.extend(keys.filter(|name| is_extended(name)).map(str::to_owned));
            }
        }
    }
    if names.is_empty() {
        return;
    }
    let mut tolerations = list(&pod["spec"]["tolerations"]).to_vec();
    for name in names {
        let added = json!({"key": name, "operator": "Exists", "effect": "NoSchedule"});
        if !tolerations.contains(&added) {
            tolerations.push(added);
        }
    }
    if let Some(spec) = map_at(pod, &["spec"]) {
        spec.insert("tolerations".into(), tolerations.into());
    }
}

/// Whether a resource is none of Kubernetes' own.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}
