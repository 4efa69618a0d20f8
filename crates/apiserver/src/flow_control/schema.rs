//! FlowSchemas and PriorityLevelConfigurations as they are compared with requests.

use http::HeaderValue;
use serde_json::Value;

use crate::edit::{list, text};
use crate::identity::{Identity, service_account_of};
use crate::object::meta;
use crate::rbac::{Attributes, Target};

/// Matches everything of its list; validation makes sure that it stands alone.
const ALL: &str = "*";

/// A FlowSchema.
#[derive(Clone, Debug)]
pub struct FlowSchema {
    /// Its name.
    pub name: Box<str>,
    /// Its UID, as responses carry it; empty for a mandatory object that is not stored.
    pub uid: HeaderValue,
    /// Of the FlowSchemas that match a request, the one with the lowest precedence is taken.
    pub precedence: i64,
    /// The name of the priority level.
    pub level: Box<str>,
    /// The attribute by which the requests are divided into flows; without one, all are one flow.
    pub distinguisher: Option<Distinguisher>,
    rules: Box<[PolicyRule]>,
}

/// The attribute of requests that tells flows of one FlowSchema apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distinguisher {
    /// The user's name.
    ByUser,
    /// The namespace of the request.
    ByNamespace,
}

/// Subjects, and the requests of theirs that match.
#[derive(Clone, Debug)]
struct PolicyRule {
    subjects: Box<[Subject]>,
    resources: Box<[ResourceRule]>,
    paths: Box<[PathRule]>,
}

/// `None` for a name stands for all names.
#[derive(Clone, Debug)]
enum Subject {
    User(Option<Box<str>>),
    Group(Option<Box<str>>),
    ServiceAccount { namespace: Box<str>, name: Option<Box<str>> },
}

/// A list of words, or all of them.
#[derive(Clone, Debug)]
enum Words {
    All,
    These(Box<[Box<str>]>),
}

#[derive(Clone, Debug)]
struct ResourceRule {
    verbs: Words,
    groups: Words,
    /// Plurals, with their subresource after a slash.
    resources: Words,
    namespaces: Words,
    /// Requests without a namespace match too.
    cluster_scope: bool,
}

#[derive(Clone, Debug)]
struct PathRule {
    verbs: Words,
    paths: Words,
}

impl FlowSchema {
    /// Reads a FlowSchema.
    pub fn read(object: &Value) -> Self {
        let spec = &object["spec"];
        let distinguisher = match text(&spec["distinguisherMethod"]["type"]) {
            "ByUser" => Some(Distinguisher::ByUser),
            "ByNamespace" => Some(Distinguisher::ByNamespace),
            _ => None,
        };
        Self {
            name: meta(object, "name").into(),
            uid: uid(object),
            precedence: spec["matchingPrecedence"].as_i64().unwrap_or(i64::MAX),
            level: text(&spec["priorityLevelConfiguration"]["name"]).into(),
            distinguisher,
            rules: list(&spec["rules"]).iter().map(PolicyRule::read).collect(),
        }
    }

    /// Whether a request is one of this FlowSchema's.
    pub fn matches(&self, who: &Identity, asked: &Attributes<'_>) -> bool {
        self.rules.iter().any(|rule| rule.matches(who, asked))
    }
}

impl PolicyRule {
    fn read(rule: &Value) -> Self {
        Self {
            subjects: list(&rule["subjects"]).iter().filter_map(Subject::read).collect(),
            resources: list(&rule["resourceRules"]).iter().map(ResourceRule::read).collect(),
            paths: list(&rule["nonResourceRules"]).iter().map(PathRule::read).collect(),
        }
    }

    fn matches(&self, who: &Identity, asked: &Attributes<'_>) -> bool {
        self.subjects.iter().any(|subject| subject.matches(who))
            && match asked.target {
                Target::Path(path) => self.paths.iter().any(|rule| rule.matches(asked.verb, path)),
                Target::Resource { .. } => self.resources.iter().any(|rule| rule.matches(asked)),
            }
    }
}

impl Subject {
    fn read(subject: &Value) -> Option<Self> {
        let name = |of: &str| Some(text(&subject[of]["name"])).filter(|name| *name != ALL).map(Box::from);
        match text(&subject["kind"]) {
            "User" => Some(Self::User(name("user"))),
            "Group" => Some(Self::Group(name("group"))),
            "ServiceAccount" => {
                let namespace = text(&subject["serviceAccount"]["namespace"]).into();
                Some(Self::ServiceAccount { namespace, name: name("serviceAccount") })
            }
            _ => None,
        }
    }

    fn matches(&self, who: &Identity) -> bool {
        match self {
            Self::User(None) | Self::Group(None) => true,
            Self::User(Some(name)) => *who.user == **name,
            Self::Group(Some(name)) => who.is_in(name),
            Self::ServiceAccount { namespace, name } => {
                service_account_of(&who.user).is_some_and(|(of, account)| {
                    *of == **namespace && name.as_ref().is_none_or(|name| *account == **name)
                })
            }
        }
    }
}

impl Words {
    fn read(words: &Value) -> Self {
        match list(words) {
            [one] if one == ALL => Self::All,
            words => Self::These(words.iter().map(|word| text(word).into()).collect()),
        }
    }

    fn has(&self, word: &str) -> bool {
        self.any(|known| known == word)
    }

    fn any(&self, matches: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::All => true,
            Self::These(words) => words.iter().any(|known| matches(known)),
        }
    }
}

impl ResourceRule {
    fn read(rule: &Value) -> Self {
        Self {
            verbs: Words::read(&rule["verbs"]),
            groups: Words::read(&rule["apiGroups"]),
            resources: Words::read(&rule["resources"]),
            namespaces: Words::read(&rule["namespaces"]),
            cluster_scope: rule["clusterScope"] == true,
        }
    }

    fn matches(&self, asked: &Attributes<'_>) -> bool {
        let Target::Resource { namespace, group, resource, subresource, .. } = asked.target else {
            return false;
        };
        let names = |known: &str| match known.split_once('/') {
            None => subresource.is_empty() && known == resource,
            Some((of, part)) => of == resource && part == subresource,
        };
        self.verbs.has(asked.verb)
            && self.resources.any(names)
            && self.groups.has(group)
            && if namespace.is_empty() { self.cluster_scope } else { self.namespaces.has(namespace) }
    }
}

impl PathRule {
    fn read(rule: &Value) -> Self {
        Self { verbs: Words::read(&rule["verbs"]), paths: Words::read(&rule["nonResourceURLs"]) }
    }

    /// A path stands for what is beneath it too, as in Kubernetes.
    fn matches(&self, verb: &str, path: &str) -> bool {
        let covers = |known: &str| {
            let start = known.trim_end_matches('*').trim_end_matches('/');
            known == path || path.strip_prefix(start).is_some_and(|rest| rest.starts_with('/'))
        };
        self.verbs.has(verb) && self.paths.any(covers)
    }
}

/// A PriorityLevelConfiguration.
#[derive(Clone, Debug)]
pub struct PriorityLevel {
    /// Its name.
    pub name: Box<str>,
    /// Its UID, as responses carry it; empty for a mandatory object that is not stored.
    pub uid: HeaderValue,
    /// Requests are neither limited nor queued.
    pub is_exempt: bool,
    /// Its part of the server's seats, in proportion to all levels' shares.
    pub shares: u32,
    /// The percentage of its seats that other levels may use.
    pub lendable_percent: u32,
    /// The percentage of its seats that it may use of other levels' beyond its own; `None` for no limit.
    pub borrowing_percent: Option<u32>,
    /// Queues for requests that have to wait; without them they are rejected.
    pub queuing: Option<Queuing>,
}

/// The queues of a priority level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queuing {
    /// The number of queues.
    pub queues: u32,
    /// The number of queues among which a flow's requests are spread.
    pub hand_size: u32,
    /// Requests that may wait in one queue.
    pub length_limit: u32,
}

impl PriorityLevel {
    /// Reads a PriorityLevelConfiguration.
    pub fn read(object: &Value) -> Self {
        let spec = &object["spec"];
        let is_exempt = spec["type"] == "Exempt";
        let limits = if is_exempt { &spec["exempt"] } else { &spec["limited"] };
        let number = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
        let queuing = &limits["limitResponse"]["queuing"];
        let of_queues = |key: &str| number(&queuing[key]).unwrap_or(1).max(1);
        Self {
            name: meta(object, "name").into(),
            uid: uid(object),
            is_exempt,
            shares: number(&limits["nominalConcurrencyShares"]).unwrap_or(0),
            lendable_percent: number(&limits["lendablePercent"]).unwrap_or(0).min(100),
            borrowing_percent: number(&limits["borrowingLimitPercent"]),
            queuing: queuing.is_object().then(|| Queuing {
                queues: of_queues("queues"),
                hand_size: of_queues("handSize").min(of_queues("queues")),
                length_limit: of_queues("queueLengthLimit"),
            }),
        }
    }
}

fn uid(object: &Value) -> HeaderValue {
    HeaderValue::from_str(meta(object, "uid")).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::flow_control::defaults;
    use crate::identity::{AUTHENTICATED, MASTERS, NODES};

    /// The FlowSchema that takes a request `VERB PATH` or `VERB RESOURCE[.GROUP] [-n NAMESPACE]`.
    fn chosen(schemas: &[FlowSchema], who: &Identity, request: &str) -> Box<str> {
        let words: Vec<&str> = request.split(' ').collect();
        let target = if words[1].starts_with('/') {
            Target::Path(words[1])
        } else {
            let (resource, group) = words[1].split_once('.').unwrap_or((words[1], ""));
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let namespace = words.get(3).copied().unwrap_or_default();
            Target::Resource { namespace, group, resource, subresource, name: "" }
        };
        let asked = Attributes { verb: words[0], target };
        let found = schemas.iter().filter(|schema| schema.matches(who, &asked));
        let found = found.min_by_key(|schema| (schema.precedence, schema.name.clone()));
        found.map_or("-".into(), |schema| schema.name.clone())
    }

    #[test]
    fn the_default_schemas_take_requests_as_kubernetes_do() {
        let schemas: Vec<_> = defaults::flow_schemas().map(|(object, _)| FlowSchema::read(&object)).collect();
        let user = |name: &str, groups: &[&str]| Identity::new(name, groups.iter().copied());
        let account = |name: &str, namespace: &str| {
            let of = format!("system:serviceaccounts:{namespace}");
            user(&format!("system:serviceaccount:{namespace}:{name}"), &["system:serviceaccounts", &of])
        };
        for (who, request, expect) in [
            (user("root", &[MASTERS]), "delete nodes", "exempt"),
            (user("root", &[MASTERS]), "get /metrics", "exempt"),
            (Identity::anonymous(), "get /healthz", "probes"),
            (Identity::anonymous(), "get /livez/ping", "probes"),
            (Identity::anonymous(), "head /livez", "global-default"),
            (Identity::anonymous(), "get /version", "global-default"),
            (
                user("system:kube-scheduler", &[]),
                "update leases.coordination.k8s.io -n kube-system",
                "system-leader-election",
            ),
            (user("system:kube-scheduler", &[]), "create pods/binding -n a", "kube-scheduler"),
            (
                user("system:node:a", &[NODES]),
                "update leases.coordination.k8s.io -n kube-node-lease",
                "system-node-high",
            ),
            (user("system:node:a", &[NODES]), "patch nodes/status", "system-node-high"),
            (user("system:node:a", &[NODES]), "patch pods/status -n a", "system-nodes"),
            (
                Identity::component("deployment-controller"),
                "patch deployments/status.apps -n a",
                "yado-components",
            ),
            (
                Identity::component("kube-scheduler"),
                "update leases.coordination.k8s.io -n kube-system",
                "yado-leader-election",
            ),
            (account("dns", "kube-system"), "get leases.coordination.k8s.io -n a", "system-leader-election"),
            (account("dns", "kube-system"), "list pods", "kube-system-service-accounts"),
            (account("default", "shop"), "list pods -n shop", "service-accounts"),
            (user("jane", &[AUTHENTICATED]), "list pods", "global-default"),
        ] {
            assert_eq!(*chosen(&schemas, &who, request), *expect, "{} {request}", who.user);
        }
    }

    #[test]
    fn rules_match_as_they_are_written() {
        let schema =
            |rule: Value| FlowSchema::read(&json!({"metadata": {"name": "s"}, "spec": {"rules": [rule]}}));
        let subjects =
            json!([{"kind": "User", "user": {"name": "jane"}}, {"kind": "Group", "group": {"name": "dev"}}]);
        let on = |resources: &str, namespaces: Value, cluster: bool| {
            schema(json!({"subjects": subjects, "resourceRules": [{
                "verbs": ["get"], "apiGroups": [""], "resources": [resources], "namespaces": namespaces,
                "clusterScope": cluster,
            }]}))
        };
        let at = |path: &str| {
            schema(
                json!({"subjects": subjects, "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": [path]}]}),
            )
        };
        let jane = Identity::new("jane", ["x"]);
        for (schema, request, expect) in [
            (on("pods", json!(["a"]), false), "get pods -n a", true),
            (on("pods", json!(["a"]), false), "get pods -n b", false),
            (on("pods", json!(["a"]), false), "get pods/log -n a", false),
            (on("pods/log", json!(["a"]), false), "get pods/log -n a", true),
            (on("pods", json!(["*"]), false), "get pods -n b", true),
            (on("pods", json!(["*"]), false), "get pods", false),
            (on("pods", json!(["a"]), true), "get pods", true),
            (on("*", json!([]), true), "get nodes/status", true),
            (on("pods", json!(["*"]), true), "list pods -n a", false),
            (on("pods", json!(["*"]), true), "get pods.apps -n a", false),
            (on("*", json!(["*"]), true), "get /api", false),
            (at("*"), "get /api", true),
            (at("/healthz"), "get /healthz", true),
            (at("/healthz"), "get /healthz/etcd", true),
            (at("/healthz"), "get /healthzz", false),
            (at("/healthz/*"), "get /healthz/etcd", true),
            (at("/hea"), "get /healthz", false),
            (at("/api"), "get pods", false),
        ] {
            assert_eq!(
                *chosen(std::slice::from_ref(&schema), &jane, request) == *"s",
                expect,
                "{schema:?} {request}"
            );
            let dev = Identity::new("eve", ["dev"]);
            assert_eq!(
                *chosen(std::slice::from_ref(&schema), &dev, request) == *"s",
                expect,
                "{schema:?} {request}"
            );
            assert_eq!(*chosen(&[schema], &Identity::new("eve", ["x"]), request), *"-");
        }
    }
}
