//! NodeRestriction: a node writes its own Node, its own Lease and the Pods that are bound to it, and takes tokens for these
//! Pods only. What it may write at all its role says.

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::{Plugin, Review};
use crate::edit::text;
use crate::identity::{NODES, node_of};
use crate::resource::Subresource;
use crate::status::{Failure, Result};
use crate::write::context::{Operation, WriteContext};

/// The namespace of the Leases of nodes.
const LEASES: &str = "kube-node-lease";
/// Labels under this name are for others to set on nodes, so that Pods can be kept off those that are not trusted.
const RESTRICTED: &str = "node-restriction.kubernetes.io";
/// Labels in the domains of Kubernetes that a node may set on itself.
const OWN_LABELS: [&str; 12] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "node.kubernetes.io/windows-build",
];
/// Domains under which a node may set any label on itself.
const OWN_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// Restricts nodes to their own objects.
pub(super) struct NodeRestriction;

#[async_trait]
impl Plugin for NodeRestriction {
    fn handles(&self, ctx: &WriteContext<'_>, _namespace: &str) -> bool {
        ctx.user.is_in(NODES)
    }

    async fn validate(&self, review: &Review<'_>, object: Option<&Value>) -> Result<()> {
        let ctx = review.ctx;
        let judged = node_of(&ctx.user.user)
            .ok_or_else(|| format!("could not determine node from user {:?}", ctx.user.user))
            .and_then(|node| match (&*ctx.resource.group, &*ctx.resource.plural) {
                ("", "nodes") => check_node(node, review, object),
                ("", "pods") => check_pod(node, review, object),
                ("coordination.k8s.io", "leases") => check_lease(node, review),
                _ => Ok(()),
            });
        judged.map_err(|why| Failure::forbidden(ctx.resource, review.name, &why))
    }
}

type Judged = std::result::Result<(), String>;

fn check_node(node: &str, review: &Review<'_>, object: Option<&Value>) -> Judged {
    if review.name != node {
        let what = match review.ctx.operation {
            Operation::Create => "create",
            Operation::Update => "modify",
            Operation::Delete => "delete",
            Operation::Connect => "connect to",
        };
        return Err(format!("node {node:?} is not allowed to {what} node {:?}", review.name));
    }
    let Some(new) = object else { return Ok(()) };
    let none = Value::Null;
    let old = review.old.unwrap_or(&none);
    if review.old.is_some() && new["spec"]["taints"] != old["spec"]["taints"] {
        return Err(format!("node {node:?} is not allowed to modify taints"));
    }
    if review.old.is_some() && new["metadata"]["ownerReferences"] != old["metadata"]["ownerReferences"] {
        return Err(format!("node {node:?} is not allowed to modify ownerReferences"));
    }
    let refused = refused_labels(&new["metadata"]["labels"], &old["metadata"]["labels"]);
    match refused.is_empty() {
        true => Ok(()),
        false => Err(format!("is not allowed to modify labels: {}", refused.join(", "))),
    }
}

/// The labels that have changed and are not the node's to change.
fn refused_labels<'a>(new: &'a Value, old: &'a Value) -> Vec<&'a str> {
    let keys = |labels: &'a Value| labels.as_object().into_iter().flat_map(Map::keys);
    let mut changed: Vec<&str> = keys(new)
        .chain(keys(old))
        .filter(|key| new[key.as_str()] != old[key.as_str()])
        .map(String::as_str)
        .filter(|key| !is_own(key))
        .collect();
    changed.sort_unstable();
    changed.dedup();
    changed
}

fn is_own(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let is_under =
        |parent: &str| domain.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if is_under(RESTRICTED) {
        return false;
    }
    let is_reserved = is_under("kubernetes.io") || is_under("k8s.io");
    !is_reserved || OWN_LABELS.contains(&label) || OWN_DOMAINS.into_iter().any(is_under)
}

fn check_pod(node: &str, review: &Review<'_>, object: Option<&Value>) -> Judged {
    let is_bound_here = |pod: &Value| text(&pod["spec"]["nodeName"]) == node;
    match (review.ctx.operation, review.ctx.subresource) {
        // Kubernetes lets nodes create mirrors of Pods that they run by themselves, which this node has not.
        (Operation::Create, None) => Err(format!("node {node:?} is not allowed to create pods")),
        (Operation::Delete, _) => match review.old.is_none_or(is_bound_here) {
            true => Ok(()),
            false => Err(format!("node {node:?} can only delete pods with spec.nodeName set to itself")),
        },
        (Operation::Update, Some(Subresource::Status)) => {
            let old = review.old.unwrap_or(&Value::Null);
            if !is_bound_here(old) {
                return Err(format!(
                    "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
                ));
            }
            match object.is_some_and(|new| new["metadata"]["labels"] != old["metadata"]["labels"]) {
                true => Err(format!("node {node:?} cannot update labels through pod status")),
                false => Ok(()),
            }
        }
        _ => Err(format!("unexpected operation of node {node:?} on a pod")),
    }
}

fn check_lease(node: &str, review: &Review<'_>) -> Judged {
    if review.namespace != LEASES {
        return Err(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    match review.name == node {
        true => Ok(()),
        false => Err("can only access node lease with the same name as the requesting node".into()),
    }
}

/// Refuses a node's request for a token that is not bound to a Pod of that node.
pub(crate) fn check_token(ctx: &WriteContext<'_>, name: &str, bound: Option<&Value>) -> Result<()> {
    if !ctx.user.is_in(NODES) {
        return Ok(());
    }
    let refuse = |why: String| Err(Failure::forbidden(ctx.resource, name, &why));
    let Some(node) = node_of(&ctx.user.user) else {
        return refuse(format!("could not determine node from user {:?}", ctx.user.user));
    };
    match bound {
        None => refuse("node requested token not bound to a pod".into()),
        Some(pod) if text(&pod["spec"]["nodeName"]) != node => {
            refuse("node requested token bound to a pod scheduled on a different node".into())
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_that_a_node_sets_on_itself() {
        for (label, expect) in [
            ("app", true),
            ("example.com/rack", true),
            ("kubernetes.io/hostname", true),
            ("node.kubernetes.io/anything", true),
            ("x.kubelet.kubernetes.io/anything", true),
            ("topology.kubernetes.io/zone", true),
            ("node-role.kubernetes.io/control-plane", false),
            ("kubernetes.io/other", false),
            ("x.k8s.io/other", false),
            ("node-restriction.kubernetes.io/secure", false),
            ("notkubernetes.io/x", true),
        ] {
            assert_eq!(is_own(label), expect, "{label}");
        }
        let (new, old) =
            (json!({"k8s.io/a": "1", "k8s.io/b": "1", "c": "2"}), json!({"k8s.io/b": "1", "k8s.io/d": ""}));
        assert_eq!(refused_labels(&new, &old), ["k8s.io/a", "k8s.io/d"]);
    }
}
