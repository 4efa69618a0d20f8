//! What a node may read besides what roles say: the Secrets and ConfigMaps that Pods bound to it refer to, each by its name,
//! and tokens of their ServiceAccounts. Kubernetes calls it the Node authorizer.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::attributes::{Attributes, Target};
use crate::edit::{list, text};
use crate::identity::{Identity, NODES, node_of};
use crate::object::meta;

/// The kind of object that a Pod refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Referenced {
    ConfigMap,
    Secret,
    ServiceAccount,
}

/// An object that a Pod of a node refers to, in the Pod's namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Reference {
    node: Box<str>,
    kind: Referenced,
    namespace: Box<str>,
    name: Box<str>,
}

/// The references of every Pod that is bound to a node.
#[derive(Debug, Default)]
pub struct NodeGraph {
    /// By the place of the Pod.
    pods: HashMap<Box<str>, BTreeSet<Reference>>,
    /// The number of Pods for each reference.
    counts: HashMap<Reference, usize>,
}

impl NodeGraph {
    /// Replaces everything.
    pub(super) fn load<'a>(&mut self, pods: impl Iterator<Item = (&'a str, Arc<Value>)>) {
        *self = Self::default();
        pods.for_each(|(place, pod)| self.set(place, Some(&pod)));
    }

    /// Notes the state of the Pod at this place; `None` where it went.
    pub(super) fn set(&mut self, place: &str, pod: Option<&Value>) {
        let references = pod.map(references).unwrap_or_default();
        if self.pods.get(place).map_or(references.is_empty(), |known| *known == references) {
            return;
        }
        let known = match references.is_empty() {
            true => self.pods.remove(place),
            false => self.pods.insert(place.into(), references.clone()),
        };
        for reference in references {
            *self.counts.entry(reference).or_default() += 1;
        }
        for reference in known.into_iter().flatten() {
            if let Some(count) = self.counts.get_mut(&reference) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&reference);
                }
            }
        }
    }

    /// Whether this is for nodes to do for their Pods.
    pub fn judges(asked: &Attributes<'_>) -> bool {
        asked_for(asked).is_some()
    }

    /// Whether `who` is a node that may do this.
    pub(super) fn allows(&self, who: &Identity, asked: &Attributes<'_>) -> bool {
        let Some(kind) = asked_for(asked) else { return false };
        let Target::Resource { namespace, name, .. } = asked.target else { return false };
        let Some(node) = node_of(&who.user).filter(|_| who.is_in(NODES)) else { return false };
        let reference = Reference { node: node.into(), kind, namespace: namespace.into(), name: name.into() };
        self.counts.contains_key(&reference)
    }
}

/// The kind of object that is asked for, if nodes may have those that their Pods refer to.
fn asked_for(asked: &Attributes<'_>) -> Option<Referenced> {
    let Target::Resource { group: "", resource, subresource, .. } = asked.target else { return None };
    let reads = matches!(asked.verb, "get" | "list" | "watch");
    match (resource, subresource) {
        ("configmaps", "") if reads => Some(Referenced::ConfigMap),
        ("secrets", "") if reads => Some(Referenced::Secret),
        ("serviceaccounts", "token") if asked.verb == "create" => Some(Referenced::ServiceAccount),
        _ => None,
    }
}

/// What a Pod refers to; nothing before it is bound to a node.
fn references(pod: &Value) -> BTreeSet<Reference> {
    use Referenced::{ConfigMap, Secret, ServiceAccount};
    let spec = &pod["spec"];
    let (node, namespace) = (text(&spec["nodeName"]), meta(pod, "namespace"));
    let mut found = BTreeSet::new();
    let mut add = |kind, name: &Value| {
        let name = text(name);
        if !node.is_empty() && !name.is_empty() {
            let (node, namespace, name) = (node.into(), namespace.into(), name.into());
            found.insert(Reference { node, kind, namespace, name });
        }
    };
    add(ServiceAccount, &spec["serviceAccountName"]);
    list(&spec["imagePullSecrets"]).iter().for_each(|secret| add(Secret, &secret["name"]));
    for volume in list(&spec["volumes"]) {
        add(ConfigMap, &volume["configMap"]["name"]);
        add(Secret, &volume["secret"]["secretName"]);
        for source in list(&volume["projected"]["sources"]) {
            add(ConfigMap, &source["configMap"]["name"]);
            add(Secret, &source["secret"]["name"]);
        }
    }
    for containers in ["initContainers", "containers", "ephemeralContainers"] {
        for container in list(&spec[containers]) {
            for source in list(&container["envFrom"]) {
                add(ConfigMap, &source["configMapRef"]["name"]);
                add(Secret, &source["secretRef"]["name"]);
            }
            for variable in list(&container["env"]) {
                add(ConfigMap, &variable["valueFrom"]["configMapKeyRef"]["name"]);
                add(Secret, &variable["valueFrom"]["secretKeyRef"]["name"]);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes_read_what_their_own_pods_refer_to() {
        let pod = |node: &str| {
            json!({
                "metadata": {"namespace": "a", "name": "p"},
                "spec": {
                    "nodeName": node, "serviceAccountName": "app", "imagePullSecrets": [{"name": "pull"}],
                    "volumes": [
                        {"configMap": {"name": "files"}}, {"secret": {"secretName": "key"}},
                        {"projected": {"sources": [{"configMap": {"name": "ca"}}, {"secret": {"name": "part"}}]}},
                    ],
                    "initContainers": [{"envFrom": [{"configMapRef": {"name": "init"}}, {"secretRef": {"name": "all"}}]}],
                    "containers": [{"env": [
                        {"valueFrom": {"configMapKeyRef": {"name": "one"}}},
                        {"valueFrom": {"secretKeyRef": {"name": "two"}}},
                    ]}],
                },
            })
        };
        let node = |name: &str| Identity::new(format!("system:node:{name}"), [NODES]);
        let may = |graph: &NodeGraph, who: &Identity, line: &str| {
            let [verb, resource, namespace, name] = *line.split(' ').collect::<Vec<_>>() else {
                panic!("{line}")
            };
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let name = if name == "-" { "" } else { name };
            let target = Target::Resource { namespace, group: "", resource, subresource, name };
            graph.allows(who, &Attributes { verb, target })
        };
        let mut graph = NodeGraph::default();
        graph.set("a/unbound", Some(&pod("")));
        graph.set("a/p", Some(&pod("n")));
        graph.set("a/q", Some(&pod("n")));
        for (line, expect) in [
            ("get secrets a pull", true),
            ("watch secrets a key", true),
            ("list secrets a part", true),
            ("get secrets a all", true),
            ("get secrets a two", true),
            ("get configmaps a files", true),
            ("get configmaps a ca", true),
            ("get configmaps a init", true),
            ("get configmaps a one", true),
            ("create serviceaccounts/token a app", true),
            ("get secrets a files", false),
            ("get secrets b key", false),
            ("get secrets a other", false),
            ("list secrets a -", false),
            ("update secrets a key", false),
            ("get serviceaccounts a app", false),
            ("create serviceaccounts/token a other", false),
        ] {
            assert_eq!(may(&graph, &node("n"), line), expect, "{line}");
            assert!(!may(&graph, &node("m"), line), "another node: {line}");
            assert!(!may(&graph, &Identity::new("system:node:n", ["dev"]), line), "not in the group: {line}");
        }
        // What two Pods refer to is readable until both are gone.
        graph.set("a/q", None);
        assert!(may(&graph, &node("n"), "get secrets a key"));
        graph.set("a/p", Some(&pod("m")));
        assert!(
            !may(&graph, &node("n"), "get secrets a key") && may(&graph, &node("m"), "get secrets a key")
        );
        graph.set("a/p", None);
        assert!(graph.counts.is_empty() && graph.pods.is_empty());
    }
}
