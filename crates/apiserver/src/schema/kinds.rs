//! The kinds that are served, and those that only travel in requests.

/// One kind under one group and version.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The version within the group.
    pub version: &'static str,
    /// The kind as objects carry it, like `ReplicaSet`.
    pub kind: &'static str,
    /// The resource as paths carry it, like `replicasets`; empty for what only travels in bodies, like `DeleteOptions`.
    pub plural: &'static str,
    /// The resource's name for one, like `replicaset`.
    pub singular: &'static str,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// kubectl's short names.
    pub short_names: &'static [&'static str],
    /// kubectl's categories, of which `all` is known to users.
    pub categories: &'static [&'static str],
    /// Subresources that exist under an object's path.
    pub subresources: &'static [&'static str],
    /// The type's name in the field table, like `apps.v1.Deployment`.
    pub message: &'static str,
}

impl Kind {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `Pod` or `Deployment.apps`, as errors name it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.kind.to_owned() } else { format!("{}.{}", self.kind, self.group) }
    }

    /// The kind has objects of its own, at paths of their own.
    pub fn is_stored(&self) -> bool {
        !self.plural.is_empty() && !self.plural.contains('/')
    }
}

/// The kind of this group, version and name.
pub fn find(group: &str, version: &str, kind: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|k| k.kind == kind && k.group == group && k.version == version)
}

/// The kind served at this resource.
pub fn find_resource(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    KINDS
        .iter()
        .find(|k| k.plural == plural && !plural.is_empty() && k.group == group && k.version == version)
}

const NONE: &[&str] = &[];

#[rustfmt::skip]
const fn stored(
    gv: (&'static str, &'static str), kind: &'static str, names: (&'static str, &'static str), namespaced: bool,
    short_names: &'static [&'static str], categories: &'static [&'static str], subresources: &'static [&'static str],
    message: &'static str,
) -> Kind {
    let ((group, version), (plural, singular)) = (gv, names);
    Kind { group, version, kind, plural, singular, namespaced, short_names, categories, subresources, message }
}

const fn body(gv: (&'static str, &'static str), kind: &'static str, message: &'static str) -> Kind {
    stored(gv, kind, ("", ""), false, NONE, NONE, NONE, message)
}

const CORE: (&str, &str) = ("", "v1");
const APPS: (&str, &str) = ("apps", "v1");
const META: (&str, &str) = ("meta.k8s.io", "v1");
const NETWORKING: (&str, &str) = ("networking.k8s.io", "v1");
const ALL: &[&str] = &["all"];

/// Every kind that the API server reads or serves.
#[rustfmt::skip]
pub static KINDS: &[Kind] = &[
    stored(CORE, "ConfigMap", ("configmaps", "configmap"), true, &["cm"], NONE, NONE, "core.v1.ConfigMap"),
    stored(CORE, "Endpoints", ("endpoints", "endpoints"), true, &["ep"], NONE, NONE, "core.v1.Endpoints"),
    stored(CORE, "Event", ("events", "event"), true, &["ev"], NONE, NONE, "core.v1.Event"),
    stored(CORE, "Namespace", ("namespaces", "namespace"), false, &["ns"], NONE, &["finalize", "status"], "core.v1.Namespace"),
    stored(CORE, "Node", ("nodes", "node"), false, &["no"], NONE, &["status"], "core.v1.Node"),
    stored(CORE, "Pod", ("pods", "pod"), true, &["po"], ALL,
        &["attach", "binding", "eviction", "exec", "log", "portforward", "status"], "core.v1.Pod"),
    stored(CORE, "Secret", ("secrets", "secret"), true, NONE, NONE, NONE, "core.v1.Secret"),
    stored(CORE, "Service", ("services", "service"), true, &["svc"], ALL, &["status"], "core.v1.Service"),
    stored(CORE, "ServiceAccount", ("serviceaccounts", "serviceaccount"), true, &["sa"], NONE, &["token"], "core.v1.ServiceAccount"),
    stored(APPS, "Deployment", ("deployments", "deployment"), true, &["deploy"], ALL, &["scale", "status"], "apps.v1.Deployment"),
    stored(APPS, "ReplicaSet", ("replicasets", "replicaset"), true, &["rs"], ALL, &["scale", "status"], "apps.v1.ReplicaSet"),
    stored(("coordination.k8s.io", "v1"), "Lease", ("leases", "lease"), true, NONE, NONE, NONE, "coordination.v1.Lease"),
    stored(("discovery.k8s.io", "v1"), "EndpointSlice", ("endpointslices", "endpointslice"), true, NONE, NONE, NONE, "discovery.v1.EndpointSlice"),
    stored(("events.k8s.io", "v1"), "Event", ("events", "event"), true, &["ev"], NONE, NONE, "events.v1.Event"),
    stored(NETWORKING, "Ingress", ("ingresses", "ingress"), true, &["ing"], NONE, &["status"], "networking.v1.Ingress"),
    stored(NETWORKING, "IngressClass", ("ingressclasses", "ingressclass"), false, NONE, NONE, NONE, "networking.v1.IngressClass"),
    body(CORE, "Binding", "core.v1.Binding"),
    body(("autoscaling", "v1"), "Scale", "autoscaling.v1.Scale"),
    body(("policy", "v1"), "Eviction", "policy.v1.Eviction"),
    body(("authentication.k8s.io", "v1"), "TokenRequest", "authentication.v1.TokenRequest"),
    body(("authentication.k8s.io", "v1"), "TokenReview", "authentication.v1.TokenReview"),
    body(("authentication.k8s.io", "v1"), "SelfSubjectReview", "authentication.v1.SelfSubjectReview"),
    body(("authorization.k8s.io", "v1"), "SelfSubjectAccessReview", "authorization.v1.SelfSubjectAccessReview"),
    body(("authorization.k8s.io", "v1"), "SelfSubjectRulesReview", "authorization.v1.SelfSubjectRulesReview"),
    body(("authorization.k8s.io", "v1"), "SubjectAccessReview", "authorization.v1.SubjectAccessReview"),
    body(("authorization.k8s.io", "v1"), "LocalSubjectAccessReview", "authorization.v1.LocalSubjectAccessReview"),
    body(META, "DeleteOptions", "meta.v1.DeleteOptions"),
    body(META, "Status", "meta.v1.Status"),
    body(CORE, "DeleteOptions", "meta.v1.DeleteOptions"),
    body(CORE, "Status", "meta.v1.Status"),
];
