//! The roles and bindings that every cluster has from the start: Kubernetes' own, and one role for each of Yado's
//! components, which has what the component asks for and no more.
//!
//! Components of one process share informers, which read with an identity and a role of their own
//! (`system:yado:informers`); a component's role has only what it asks for itself.
//!
//! Names and rules of the first are those of Kubernetes
//! (<https://kubernetes.io/docs/reference/access-authn-authz/rbac/#default-roles-and-role-bindings>), without roles of
//! programs that have no part here. A binding has the name of its role. They are written by [`super::reconcile`], so that what an administrator adds to them stays.

use serde_json::{Map, Value, json};

use super::reconcile::AUTOUPDATE;
use crate::identity::{AUTHENTICATED, MASTERS, NODES, SERVICE_ACCOUNTS, UNAUTHENTICATED};
use crate::schema::RBAC_GROUP;

/// A ClusterRole with the ClusterRoleBinding of the same name.
#[derive(Debug)]
pub struct DefaultRole {
    /// The name of both.
    pub name: &'static str,
    /// The role whose aggregation takes this one's rules in, such as `view`; empty for none.
    pub part_of: &'static str,
    /// Its rules are those of the roles that are part of it, filled in by a controller.
    pub aggregates: bool,
    /// Its own rules.
    pub rules: &'static [DefaultRule],
    /// The subjects of its default binding; none where empty.
    pub subjects: &'static [DefaultSubject],
}

/// A rule. Lists are words with a space between them.
#[derive(Debug)]
pub enum DefaultRule {
    /// Verbs on resources of API groups; `core` is the core group.
    Resources {
        /// API groups.
        groups: &'static str,
        /// Plurals, with their subresource after a slash.
        resources: &'static str,
        /// Verbs.
        verbs: &'static str,
        /// The names of the objects; empty for all.
        names: &'static str,
    },
    /// Verbs on paths.
    Paths {
        /// Paths; a star at the end stands for anything.
        paths: &'static str,
        /// HTTP methods in lower case.
        verbs: &'static str,
    },
}

/// Whom a default binding means.
#[derive(Clone, Copy, Debug)]
pub enum DefaultSubject {
    /// A user.
    User(&'static str),
    /// The members of a group.
    Group(&'static str),
}

use DefaultSubject::{Group, User};

const CERTIFICATES_GROUP: &str = "certificates.k8s.io";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET_CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";

const READ: &str = "get list watch";
/// Rights of an informer.
const WATCH: &str = "list watch";
const WRITE: &str = "create delete deletecollection patch update";
const ALL: &str = "create delete deletecollection get list patch update watch";
const WRITE_EVENTS: DefaultRule = on("core events.k8s.io", "events", "create patch update");
/// Rights of the event recorder.
const EVENTS: DefaultRule = on("core", "events", "create patch");
/// Rights of a candidate for a Lease.
const ELECTION: DefaultRule = on("coordination.k8s.io", "leases", "create get update");
/// Rights of a controller of Pods, which looks at Pods that are not in its informer yet.
const OWN_PODS: DefaultRule = on("core", "pods", "list create patch delete");

const fn on(groups: &'static str, resources: &'static str, verbs: &'static str) -> DefaultRule {
    DefaultRule::Resources { groups, resources, verbs, names: "" }
}

/// A verb on signers of certificates by their names.
const fn on_signers(verbs: &'static str, names: &'static str) -> DefaultRule {
    DefaultRule::Resources { groups: CERTIFICATES_GROUP, resources: "signers", verbs, names }
}

const fn at(paths: &'static str, verbs: &'static str) -> DefaultRule {
    DefaultRule::Paths { paths, verbs }
}

const fn role(
    name: &'static str,
    rules: &'static [DefaultRule],
    subjects: &'static [DefaultSubject],
) -> DefaultRole {
    DefaultRole { name, part_of: "", aggregates: false, rules, subjects }
}

/// A role that gathers the rules of others.
const fn gathering(name: &'static str, part_of: &'static str) -> DefaultRole {
    DefaultRole { name, part_of, aggregates: true, rules: &[], subjects: &[] }
}

/// A role whose rules another one gathers.
const fn part(name: &'static str, part_of: &'static str, rules: &'static [DefaultRule]) -> DefaultRole {
    DefaultRole { name, part_of, aggregates: false, rules, subjects: &[] }
}

/// Every default role.
pub static ROLES: &[DefaultRole] = &[
    role("cluster-admin", &[on("*", "*", "*"), at("*", "*")], &[Group(MASTERS)]),
    gathering("admin", ""),
    gathering("edit", "admin"),
    gathering("view", "edit"),
    part(
        "system:aggregate-to-admin",
        "admin",
        &[
            on("authorization.k8s.io", "localsubjectaccessreviews", "create"),
            on(RBAC_GROUP, "rolebindings roles", ALL),
        ],
    ),
    part(
        "system:aggregate-to-edit",
        "edit",
        &[
            on("core", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy", READ),
            on("core", "serviceaccounts", "impersonate"),
            on("core", "pods pods/attach pods/exec pods/portforward pods/proxy", WRITE),
            on("core", "pods/eviction serviceaccounts/token", "create"),
            on("core", "configmaps events persistentvolumeclaims replicationcontrollers", WRITE),
            on("core", "replicationcontrollers/scale secrets serviceaccounts services services/proxy", WRITE),
            on("apps", "daemonsets deployments deployments/rollback deployments/scale", WRITE),
            on("apps", "replicasets replicasets/scale statefulsets statefulsets/scale", WRITE),
            on("autoscaling", "horizontalpodautoscalers", WRITE),
            on("batch", "cronjobs jobs", WRITE),
            on("policy", "poddisruptionbudgets", WRITE),
            on("networking.k8s.io", "ingresses networkpolicies", WRITE),
            on("extensions", "daemonsets deployments deployments/scale ingresses", WRITE),
            on("extensions", "networkpolicies replicasets replicasets/scale", WRITE),
            on("coordination.k8s.io", "leases", ALL),
        ],
    ),
    part(
        "system:aggregate-to-view",
        "view",
        &[
            on(
                "core",
                "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods",
                READ,
            ),
            on("core", "replicationcontrollers replicationcontrollers/scale serviceaccounts", READ),
            on("core", "services services/status bindings events limitranges namespaces", READ),
            on("core", "namespaces/status pods/log pods/status replicationcontrollers/status", READ),
            on("core", "resourcequotas resourcequotas/status", READ),
            on("metrics.k8s.io", "nodes pods", READ),
            on("discovery.k8s.io", "endpointslices", READ),
            on("apps", "controllerrevisions daemonsets daemonsets/status deployments", READ),
            on("apps", "deployments/scale deployments/status replicasets replicasets/scale", READ),
            on("apps", "replicasets/status statefulsets statefulsets/scale statefulsets/status", READ),
            on("autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status", READ),
            on("batch", "cronjobs cronjobs/status jobs jobs/status", READ),
            on("policy", "poddisruptionbudgets poddisruptionbudgets/status", READ),
            on("networking.k8s.io", "ingresses ingresses/status networkpolicies", READ),
            on("extensions", "daemonsets daemonsets/status deployments deployments/scale", READ),
            on("extensions", "deployments/status ingresses ingresses/status networkpolicies", READ),
            on("extensions", "replicasets replicasets/scale replicasets/status", READ),
        ],
    ),
    role(
        "system:basic-user",
        &[
            on("authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews", "create"),
            on("authentication.k8s.io", "selfsubjectreviews", "create"),
        ],
        &[Group(AUTHENTICATED)],
    ),
    role(
        "system:discovery",
        &[at(
            "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/",
            "get",
        )],
        &[Group(AUTHENTICATED)],
    ),
    role(
        "system:public-info-viewer",
        &[at("/healthz /livez /readyz /version /version/", "get")],
        &[Group(AUTHENTICATED), Group(UNAUTHENTICATED)],
    ),
    role(
        "system:monitoring",
        &[at("/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*", "get")],
        &[Group("system:monitoring")],
    ),
    role(
        "system:auth-delegator",
        &[
            on("authentication.k8s.io", "tokenreviews", "create"),
            on("authorization.k8s.io", "subjectaccessreviews", "create"),
        ],
        &[],
    ),
    role(
        "system:service-account-issuer-discovery",
        &[at(
            "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
            "get",
        )],
        &[Group(SERVICE_ACCOUNTS)],
    ),
    role(
        "system:persistent-volume-provisioner",
        &[
            on("core", "persistentvolumes", "create delete get list watch"),
            on("core", "persistentvolumeclaims", "get list update watch"),
            on("storage.k8s.io", "storageclasses", READ),
            on("core", "events", "watch"),
            WRITE_EVENTS,
        ],
        &[],
    ),
    role(
        "system:node-proxier",
        &[
            on("core", "endpoints services", "list watch"),
            on("core", "nodes", READ),
            on("discovery.k8s.io", "endpointslices", "list watch"),
            WRITE_EVENTS,
        ],
        &[User("system:kube-proxy")],
    ),
    role(
        "system:node-problem-detector",
        &[on("core", "nodes", "get"), on("core", "nodes/status", "patch"), WRITE_EVENTS],
        &[],
    ),
    role(
        "system:kube-scheduler",
        &[
            on("coordination.k8s.io", "leases", "create get update"),
            on("core", "nodes namespaces services replicationcontrollers", READ),
            on("core", "persistentvolumeclaims persistentvolumes", READ),
            on("core", "pods", "delete get list watch"),
            on("core", "bindings pods/binding", "create"),
            on("core", "pods/status", "patch update"),
            on("apps", "replicasets statefulsets", READ),
            on("policy", "poddisruptionbudgets", READ),
            on("storage.k8s.io", "csinodes csidrivers csistoragecapacities", READ),
            on("authentication.k8s.io", "tokenreviews", "create"),
            on("authorization.k8s.io", "subjectaccessreviews", "create"),
            WRITE_EVENTS,
        ],
        &[User("system:kube-scheduler")],
    ),
    role(
        "system:volume-scheduler",
        &[
            on("core", "persistentvolumeclaims persistentvolumes", "get list patch update watch"),
            on("storage.k8s.io", "storageclasses", READ),
        ],
        &[User("system:kube-scheduler")],
    ),
    role(
        "system:node-bootstrapper",
        &[on(CERTIFICATES_GROUP, "certificatesigningrequests", "create get list watch")],
        &[],
    ),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &[on(CERTIFICATES_GROUP, "certificatesigningrequests/nodeclient", "create")],
        &[],
    ),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &[on(CERTIFICATES_GROUP, "certificatesigningrequests/selfnodeclient", "create")],
        &[],
    ),
    role(
        "system:certificates.k8s.io:kube-apiserver-client-approver",
        &[on_signers("approve", CLIENT_SIGNER)],
        &[],
    ),
    role(
        "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
        &[on_signers("approve", KUBELET_CLIENT_SIGNER)],
        &[],
    ),
    role(
        "system:certificates.k8s.io:kubelet-serving-approver",
        &[on_signers("approve", KUBELET_SERVING_SIGNER)],
        &[],
    ),
    // Yado's own node. Secrets, ConfigMaps and tokens of its own Pods are the node graph's to allow.
    role(
        "system:node",
        &[
            on("core", "nodes", "create get list watch patch"),
            on("core", "nodes/status pods/status", "patch"),
            on("coordination.k8s.io", "leases", "create patch"),
            on("core", "pods", "list watch delete"),
            on("core", "services persistentvolumeclaims persistentvolumes", WATCH),
            on("node.k8s.io", "runtimeclasses", "get"),
            EVENTS,
        ],
        &[Group(NODES)],
    ),
    role(
        "system:yado:kube-scheduler",
        &[
            on("core", "pods/binding", "create"),
            on("core", "pods/status", "patch"),
            on("core", "persistentvolumeclaims", "patch"),
            ELECTION,
            EVENTS,
        ],
        &[User("system:yado:kube-scheduler")],
    ),
    // The election of the process that runs the controllers, each of which has a role of its own.
    role("system:yado:kube-controller-manager", &[ELECTION], &[User("system:yado:kube-controller-manager")]),
    role(
        "system:controller:deployment-controller",
        &[
            on("apps", "deployments", "get patch"),
            on("apps", "deployments/status", "patch"),
            on("apps", "replicasets", "get create patch delete"),
            EVENTS,
        ],
        &[User("system:yado:deployment-controller")],
    ),
    role(
        "system:controller:replicaset-controller",
        &[
            on("apps", "replicasets", "get"),
            on("apps", "replicasets/status", "patch"),
            on("core", "replicationcontrollers", "get"),
            on("core", "replicationcontrollers/status", "patch"),
            OWN_PODS,
            EVENTS,
        ],
        &[User("system:yado:replicaset-controller")],
    ),
    role(
        "system:controller:daemon-set-controller",
        &[
            on("apps", "daemonsets", "get"),
            on("apps", "daemonsets/status", "patch"),
            on("apps", "controllerrevisions", "create patch delete"),
            OWN_PODS,
            EVENTS,
        ],
        &[User("system:yado:daemon-set-controller")],
    ),
    role(
        "system:controller:statefulset-controller",
        &[
            on("apps", "statefulsets", "get"),
            on("apps", "statefulsets/status", "patch"),
            on("apps", "controllerrevisions", "get create patch delete"),
            on("core", "persistentvolumeclaims", "create patch"),
            OWN_PODS,
            EVENTS,
        ],
        &[User("system:yado:statefulset-controller")],
    ),
    role(
        "system:controller:job-controller",
        &[on("batch", "jobs", "get delete"), on("batch", "jobs/status", "patch"), OWN_PODS, EVENTS],
        &[User("system:yado:job-controller")],
    ),
    role(
        "system:controller:cronjob-controller",
        &[on("batch", "jobs", "get create delete"), on("batch", "cronjobs/status", "patch"), EVENTS],
        &[User("system:yado:cronjob-controller")],
    ),
    role(
        "system:controller:persistent-volume-binder",
        &[
            on("core", "persistentvolumes", "create patch delete"),
            on("core", "persistentvolumeclaims", "get patch"),
            on("core", "persistentvolumes/status persistentvolumeclaims/status", "patch"),
            EVENTS,
        ],
        &[User("system:yado:persistent-volume-binder")],
    ),
    role(
        "system:controller:endpointslice-controller",
        &[
            on("core", "endpoints", "create update delete"),
            on("discovery.k8s.io", "endpointslices", "create update delete"),
        ],
        &[User("system:yado:endpointslice-controller")],
    ),
    role(
        "system:controller:service-account-controller",
        &[
            on("core", "serviceaccounts", "list watch create"),
            on("core", "configmaps", "list watch create patch"),
        ],
        &[User("system:yado:service-account-controller")],
    ),
    role(
        "system:controller:certificate-controller",
        &[
            on(CERTIFICATES_GROUP, "certificatesigningrequests", "delete"),
            on(
                CERTIFICATES_GROUP,
                "certificatesigningrequests/approval certificatesigningrequests/status",
                "update",
            ),
            on_signers("approve", KUBELET_CLIENT_SIGNER),
            on_signers("sign", CLIENT_SIGNER),
            on_signers("sign", KUBELET_CLIENT_SIGNER),
            on_signers("sign", KUBELET_SERVING_SIGNER),
            on("authorization.k8s.io", "subjectaccessreviews", "create"),
        ],
        &[User("system:yado:certificate-controller")],
    ),
    role(
        "system:controller:token-controller",
        &[
            on("core", "serviceaccounts", "get"),
            on("core", "serviceaccounts/token", "create"),
            on("core", "secrets", "list watch patch delete"),
        ],
        &[User("system:yado:token-controller")],
    ),
    role(
        "system:controller:namespace-controller",
        &[
            on("core", "namespaces/status", "patch"),
            on("core", "namespaces/finalize", "update"),
            on("*", "*", "get list watch delete deletecollection"),
        ],
        &[User("system:yado:namespace-controller")],
    ),
    role(
        "system:controller:generic-garbage-collector",
        &[on("*", "*", "get list watch patch delete"), EVENTS],
        &[User("system:yado:generic-garbage-collector")],
    ),
    role(
        "system:controller:node-controller",
        &[
            on("core", "nodes", "patch"),
            on("core", "nodes/status pods/status", "patch"),
            on("core", "pods", "delete"),
            EVENTS,
        ],
        &[User("system:yado:node-controller")],
    ),
    role(
        "system:controller:pod-garbage-collector",
        &[on("core", "pods", "delete"), on("core", "pods/status", "patch")],
        &[User("system:yado:pod-garbage-collector")],
    ),
    role(
        "system:controller:clusterrole-aggregation-controller",
        &[on(RBAC_GROUP, "clusterroles", "patch escalate")],
        &[User("system:yado:clusterrole-aggregation-controller")],
    ),
    // Service addresses, names, the packet filter and the HTTP router.
    role(
        "system:yado:net",
        &[
            on("core", "services/status", "patch"),
            on("networking.k8s.io", "ingresses/status", "patch"),
            EVENTS,
        ],
        &[User("system:yado:net")],
    ),
    // The informers that all components of the process share: what it lists, all of them see.
    role(
        "system:yado:informers",
        &[
            on("core", "endpoints namespaces nodes persistentvolumeclaims persistentvolumes pods", WATCH),
            on("core", "replicationcontrollers serviceaccounts services", WATCH),
            on("apps", "controllerrevisions daemonsets deployments replicasets statefulsets", WATCH),
            on("batch", "cronjobs jobs", WATCH),
            on("coordination.k8s.io", "leases", WATCH),
            on("discovery.k8s.io", "endpointslices", WATCH),
            on("networking.k8s.io", "ingresses networkpolicies", WATCH),
            on("storage.k8s.io", "storageclasses", WATCH),
            on(RBAC_GROUP, "clusterroles", WATCH),
            on(CERTIFICATES_GROUP, "certificatesigningrequests", WATCH),
        ],
        &[User("system:yado:informers")],
    ),
];

/// Every default ClusterRole and ClusterRoleBinding, as they are stored.
pub fn objects() -> impl Iterator<Item = Value> {
    ROLES.iter().flat_map(|role| [Some(role.to_value()), role.binding()].into_iter().flatten())
}

impl DefaultRole {
    /// The ClusterRole.
    pub fn to_value(&self) -> Value {
        let mut role = object("ClusterRole", self.name);
        if !self.part_of.is_empty() {
            role["metadata"]["labels"][aggregation_label(self.part_of)] = "true".into();
        }
        if self.aggregates {
            let labels = json!({aggregation_label(self.name): "true"});
            role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": labels}]});
        } else {
            role["rules"] = self.rules.iter().map(DefaultRule::to_value).collect();
        }
        role
    }

    /// The ClusterRoleBinding; `None` where nobody has the role by default.
    pub fn binding(&self) -> Option<Value> {
        if self.subjects.is_empty() {
            return None;
        }
        let mut binding = object("ClusterRoleBinding", self.name);
        binding["subjects"] = self.subjects.iter().map(|subject| subject.to_value()).collect();
        binding["roleRef"] = json!({"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": self.name});
        Some(binding)
    }
}

impl DefaultRule {
    fn to_value(&self) -> Value {
        let list = |words: &str| -> Value {
            words.split(' ').map(|word| Value::from(if word == "core" { "" } else { word })).collect()
        };
        let fields = match self {
            Self::Resources { groups, resources, verbs, names } => {
                let mut fields = vec![("apiGroups", groups), ("resources", resources), ("verbs", verbs)];
                if !names.is_empty() {
                    fields.push(("resourceNames", names));
                }
                fields
            }
            Self::Paths { paths, verbs } => vec![("nonResourceURLs", paths), ("verbs", verbs)],
        };
        Value::Object(
            fields.into_iter().map(|(key, words)| (key.to_owned(), list(words))).collect::<Map<_, _>>(),
        )
    }
}

impl DefaultSubject {
    fn to_value(self) -> Value {
        let (kind, name) = match self {
            User(name) => ("User", name),
            Group(name) => ("Group", name),
        };
        json!({"kind": kind, "apiGroup": RBAC_GROUP, "name": name})
    }
}

/// The label of the roles whose rules `role` gathers.
fn aggregation_label(role: &str) -> String {
    format!("{RBAC_GROUP}/aggregate-to-{role}")
}

fn object(kind: &str, name: &str) -> Value {
    json!({
        "apiVersion": format!("{RBAC_GROUP}/v1"), "kind": kind,
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {AUTOUPDATE: "true"},
        },
    })
}
