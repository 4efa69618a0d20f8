//! The FlowSchemas and PriorityLevelConfigurations that every cluster has: Kubernetes' own, and two FlowSchemas for
//! Yado's components, which are no users that Kubernetes' name.
//!
//! Source of the first: `pkg/apis/flowcontrol/bootstrap/default.go` in k8s.io/apiserver.

use serde_json::{Value, json};

use crate::identity::{AUTHENTICATED, COMPONENTS, MASTERS, NODES, UNAUTHENTICATED};
use crate::schema::FLOW_CONTROL_GROUP;

/// Whether the server keeps an object's spec as it is here.
pub const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
/// The level, and the FlowSchema, of requests that are never limited.
pub const EXEMPT: &str = "exempt";
/// The level, and the FlowSchema, of requests that nothing else takes.
pub const CATCH_ALL: &str = "catch-all";

/// How the server keeps a default object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The server cannot do without it: it always has the spec that it has here.
    Mandatory,
    /// It is made again when it is deleted, and its administrators may change its spec.
    Suggested,
}

impl Kept {
    fn of(name: &str) -> Self {
        if [EXEMPT, CATCH_ALL].contains(&name) { Self::Mandatory } else { Self::Suggested }
    }
}

/// The default FlowSchemas.
pub fn flow_schemas() -> impl Iterator<Item = (Value, Kept)> {
    const LEASES: &str = "coordination.k8s.io";
    let leases = |verbs: &[&str]| on(verbs, LEASES, &["leases"], false);
    let change = ["get", "create", "update"];
    let everyone = || groups(&[UNAUTHENTICATED, AUTHENTICATED]);
    let users = |name: &str| json!([user(name)]);
    let electors =
        [user("system:kube-controller-manager"), user("system:kube-scheduler"), kube_system_accounts()];
    let probes = json!({
        "subjects": everyone(),
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}],
    });
    let of_nodes = json!([on(&["*"], "", &["nodes", "nodes/status"], true), leases(&["*"])]);
    let elections = some(groups(&[COMPONENTS]), json!([leases(&change)]));
    let [one_flow, by_user, by_namespace] = [None, Some("ByUser"), Some("ByNamespace")];
    [
        (EXEMPT, EXEMPT, 1, one_flow, all(groups(&[MASTERS]))),
        ("probes", EXEMPT, 2, one_flow, probes),
        (
            "system-leader-election",
            "leader-election",
            100,
            by_user,
            some(json!(electors), json!([leases(&change)])),
        ),
        ("yado-leader-election", "leader-election", 110, by_user, elections),
        ("system-node-high", "node-high", 400, by_user, some(groups(&[NODES]), of_nodes)),
        ("system-nodes", "system", 500, by_user, all(groups(&[NODES]))),
        (
            "kube-controller-manager",
            "workload-high",
            800,
            by_namespace,
            all(users("system:kube-controller-manager")),
        ),
        ("kube-scheduler", "workload-high", 800, by_namespace, all(users("system:kube-scheduler"))),
        ("yado-components", "workload-high", 810, by_user, all(groups(&[COMPONENTS]))),
        (
            "kube-system-service-accounts",
            "workload-high",
            900,
            by_namespace,
            all(json!([kube_system_accounts()])),
        ),
        ("service-accounts", "workload-low", 9000, by_user, all(groups(&["system:serviceaccounts"]))),
        ("global-default", "global-default", 9900, by_user, all(everyone())),
        (CATCH_ALL, CATCH_ALL, 10_000, by_user, all(everyone())),
    ]
    .map(|(name, level, precedence, distinguisher, rule)| {
        (flow_schema(name, level, precedence, distinguisher, rule), Kept::of(name))
    })
    .into_iter()
}

/// A rule for everything that these subjects ask for.
fn all(subjects: Value) -> Value {
    json!({
        "subjects": subjects, "resourceRules": [on(&["*"], "*", &["*"], true)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    })
}

/// A rule for what these subjects ask of some resources.
fn some(subjects: Value, resource_rules: Value) -> Value {
    json!({"subjects": subjects, "resourceRules": resource_rules})
}

/// The default PriorityLevelConfigurations.
pub fn priority_levels() -> impl Iterator<Item = (Value, Kept)> {
    let limited = |shares: u32, lendable: u32, response: Value| {
        json!({"type": "Limited", "limited": {
            "nominalConcurrencyShares": shares, "limitResponse": response, "lendablePercent": lendable,
        }})
    };
    let queued = |shares: u32, lendable: u32, queues: u32, hand_size: u32| {
        let queuing = json!({"queues": queues, "handSize": hand_size, "queueLengthLimit": 50});
        limited(shares, lendable, json!({"type": "Queue", "queuing": queuing}))
    };
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    [
        (EXEMPT, exempt),
        (CATCH_ALL, limited(5, 0, json!({"type": "Reject"}))),
        ("system", queued(30, 33, 64, 6)),
        ("node-high", queued(40, 25, 64, 6)),
        ("leader-election", queued(10, 0, 16, 4)),
        ("workload-high", queued(40, 50, 128, 6)),
        ("workload-low", queued(100, 90, 128, 6)),
        ("global-default", queued(20, 50, 128, 6)),
    ]
    .map(|(name, spec)| (object("PriorityLevelConfiguration", name, spec), Kept::of(name)))
    .into_iter()
}

/// Those of the default objects that are mandatory.
pub fn mandatory(objects: impl Iterator<Item = (Value, Kept)>) -> impl Iterator<Item = Value> {
    objects.filter(|(_, kept)| *kept == Kept::Mandatory).map(|(object, _)| object)
}

/// The spec that a mandatory object of this kind always has; `None` for names of others.
pub fn mandatory_spec(kind: &str, name: &str) -> Option<Value> {
    let is_it = |object: &Value| object["kind"] == kind && object["metadata"]["name"] == name;
    let mut object = mandatory(flow_schemas().chain(priority_levels())).find(is_it)?;
    Some(object["spec"].take())
}

fn flow_schema(name: &str, level: &str, precedence: u32, distinguisher: Option<&str>, rule: Value) -> Value {
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": [rule],
    });
    if let Some(method) = distinguisher {
        spec["distinguisherMethod"] = json!({"type": method});
    }
    object("FlowSchema", name, spec)
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": format!("{FLOW_CONTROL_GROUP}/v1"), "kind": kind,
        "metadata": {"name": name, "annotations": {AUTOUPDATE: "true"}}, "spec": spec,
    })
}

fn groups(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "user": {"name": name}})
}

fn kube_system_accounts() -> Value {
    json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "*"}})
}

/// Verbs on resources of a group, in every namespace and, with `cluster_scope`, outside of them.
fn on(verbs: &[&str], group: &str, resources: &[&str], cluster_scope: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"]});
    if cluster_scope {
        rule["clusterScope"] = true.into();
    }
    rule
}
