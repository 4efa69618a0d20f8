//! The kinds that are served, and those that only travel in requests.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use super::custom::Custom;
use crate::convert::{self, Form};
use crate::kinds::strategy::{NoRules, Strategy};
use crate::kinds::*;

/// The API group of roles and their bindings.
pub const RBAC_GROUP: &str = "rbac.authorization.k8s.io";
/// The API group of FlowSchemas and PriorityLevelConfigurations.
pub const FLOW_CONTROL_GROUP: &str = "flowcontrol.apiserver.k8s.io";

/// A name of a kind: of fixed text for built-in kinds, read from a CustomResourceDefinition for others.
pub type Name = Cow<'static, str>;

/// Where a kind's objects are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In the store.
    Stored,
    /// Nowhere: a create is answered at once (reviews, bindings).
    Answered,
    /// Nowhere: the kind has no resource of its own and only travels in requests, like `DeleteOptions`.
    Body,
}

/// One kind under one group and version.
#[derive(Debug)]
pub struct Kind {
    /// The API group; empty for the core group.
    pub group: Name,
    /// The version within the group.
    pub version: Name,
    /// The kind as objects carry it, like `ReplicaSet`.
    pub kind: Name,
    /// The resource as paths carry it, like `replicasets`; empty for what only travels in bodies.
    pub plural: Name,
    /// The resource's name for one, like `replicaset`.
    pub singular: Name,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// kubectl's short names.
    pub short_names: Vec<Name>,
    /// kubectl's categories, of which `all` is known to users.
    pub categories: Vec<Name>,
    /// Subresources that exist under an object's path.
    pub subresources: Vec<Name>,
    /// Where objects are.
    pub storage: Storage,
    /// How objects of another built-in kind are shown as this one; `None` where objects of this kind are stored.
    pub(crate) form: Option<&'static dyn Form>,
    /// The type's name in the field table, like `apps.v1.Deployment`; empty for a custom kind.
    pub message: &'static str,
    /// The properties of a custom kind.
    pub custom: Option<Box<Custom>>,
    /// The behaviour of objects of a built-in kind.
    pub(crate) built_in: &'static dyn Strategy,
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        (&self.group, &self.version, &self.kind) == (&other.group, &other.version, &other.kind)
    }
}

impl Eq for Kind {}

impl Kind {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// `Pod` or `Deployment.apps`, as errors name it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.kind.to_string() } else { format!("{}.{}", self.kind, self.group) }
    }

    /// The behaviour of its objects.
    pub(crate) fn strategy(&self) -> &dyn Strategy {
        match &self.custom {
            Some(custom) => &**custom,
            None => self.built_in,
        }
    }

    /// The warning that each request draws, for a version that is deprecated.
    pub fn deprecation(&self) -> Option<Cow<'_, str>> {
        if let Some(custom) = &self.custom {
            return custom.deprecation.as_deref().map(Cow::Borrowed);
        }
        let form = self.form?;
        let ((group, version), life) = (form.stored_as(), form.deprecation()?);
        Some(Cow::Owned(format!(
            "{} {} is deprecated in v{}+, unavailable in v{}+; use {} {}",
            self.api_version(),
            self.kind,
            life.deprecated,
            life.removed,
            api_version(group, version),
            self.kind
        )))
    }

    /// Whether it is another version of a stored kind, with the same fields in the table.
    pub(crate) fn is_other_version(&self) -> bool {
        self.form.is_some_and(Form::is_other_version)
    }

    /// The kind has objects of its own, at paths of their own.
    pub fn is_stored(&self) -> bool {
        self.storage == Storage::Stored
    }
}

impl Kind {
    /// The kind of lists of its objects.
    pub fn list_kind(&self) -> String {
        match &self.custom {
            Some(custom) => custom.list_kind.clone(),
            None => format!("{}List", self.kind),
        }
    }

    /// Whether every object lies in the store in the form of this kind, so that none is ever converted.
    pub fn has_one_form(&self) -> bool {
        self.form.is_none() && !self.custom.as_ref().is_some_and(|custom| custom.versions.are_several())
    }
}

/// `apps/v1`; `v1` in the core group.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// The built-in kind of this group, version and name.
pub fn find(group: &str, version: &str, kind: &str) -> Option<&'static Arc<Kind>> {
    KINDS.iter().find(|k| k.kind == kind && k.group == group && k.version == version)
}

/// The built-in kind served at this resource.
pub fn find_resource(group: &str, version: &str, plural: &str) -> Option<&'static Arc<Kind>> {
    KINDS
        .iter()
        .find(|k| k.plural == plural && !plural.is_empty() && k.group == group && k.version == version)
}

/// A kind without objects of its own.
fn body(gv: (&'static str, &'static str), kind: &'static str, message: &'static str) -> Kind {
    let (group, version) = gv;
    Kind {
        group: group.into(),
        version: version.into(),
        kind: kind.into(),
        plural: "".into(),
        singular: "".into(),
        namespaced: false,
        short_names: Vec::new(),
        categories: Vec::new(),
        subresources: Vec::new(),
        storage: Storage::Body,
        form: None,
        message,
        custom: None,
        built_in: &NoRules,
    }
}

/// A kind with objects, of the whole cluster.
fn cluster(
    gv: (&'static str, &'static str),
    kind: &'static str,
    names: (&'static str, &'static str),
    message: &'static str,
) -> Kind {
    Kind {
        plural: names.0.into(),
        singular: names.1.into(),
        storage: Storage::Stored,
        ..body(gv, kind, message)
    }
}

/// A kind with objects in namespaces.
fn namespaced(
    gv: (&'static str, &'static str),
    kind: &'static str,
    names: (&'static str, &'static str),
    message: &'static str,
) -> Kind {
    Kind { namespaced: true, ..cluster(gv, kind, names, message) }
}

/// A kind whose objects are answered and not kept.
fn answered(
    gv: (&'static str, &'static str),
    kind: &'static str,
    names: (&'static str, &'static str),
    message: &'static str,
) -> Kind {
    Kind { storage: Storage::Answered, ..cluster(gv, kind, names, message) }
}

fn names(given: &[&'static str]) -> Vec<Name> {
    given.iter().map(|name| Name::from(*name)).collect()
}

impl Kind {
    fn short(self, short_names: &[&'static str]) -> Self {
        Self { short_names: names(short_names), ..self }
    }

    /// Adds the kind to `kubectl get all`.
    fn of_all(self) -> Self {
        Self { categories: names(&["all"]), ..self }
    }

    /// A category of its own.
    fn of(self, category: &'static str) -> Self {
        Self { categories: names(&[category]), ..self }
    }

    fn with(self, subresources: &[&'static str]) -> Self {
        Self { subresources: names(subresources), ..self }
    }

    fn ruled_by(self, strategy: &'static dyn Strategy) -> Self {
        Self { built_in: strategy, ..self }
    }
}

const CORE: (&str, &str) = ("", "v1");
const APPS: (&str, &str) = ("apps", "v1");
const BATCH: (&str, &str) = ("batch", "v1");
const SCHEDULING: (&str, &str) = ("scheduling.k8s.io", "v1");
const NODE: (&str, &str) = ("node.k8s.io", "v1");
const STORAGE: (&str, &str) = ("storage.k8s.io", "v1");
const META: (&str, &str) = ("meta.k8s.io", "v1");
const NETWORKING: (&str, &str) = ("networking.k8s.io", "v1");
const COORDINATION: (&str, &str) = ("coordination.k8s.io", "v1");
const DISCOVERY: (&str, &str) = ("discovery.k8s.io", "v1");
const EVENTS: (&str, &str) = ("events.k8s.io", "v1");
const RBAC: (&str, &str) = (RBAC_GROUP, "v1");
const FLOW_CONTROL: (&str, &str) = (FLOW_CONTROL_GROUP, "v1");
const ADMISSION: (&str, &str) = ("admissionregistration.k8s.io", "v1");
const EXTENSIONS: (&str, &str) = ("apiextensions.k8s.io", "v1");
const CERTIFICATES: (&str, &str) = ("certificates.k8s.io", "v1");
const REGISTRATION: (&str, &str) = ("apiregistration.k8s.io", "v1");
const AUTHENTICATION: (&str, &str) = ("authentication.k8s.io", "v1");
const AUTHORIZATION: (&str, &str) = ("authorization.k8s.io", "v1");

/// Every built-in kind that the API server reads or serves.
pub static KINDS: LazyLock<Vec<Arc<Kind>>> = LazyLock::new(|| {
    let today = built_in();
    let (previews, removed) = (convert::preview_kinds(&today), convert::removed_kinds(&today));
    today.into_iter().chain(previews).chain(removed).map(Arc::new).collect()
});

fn built_in() -> Vec<Kind> {
    stored().into_iter().chain(unstored()).collect()
}

/// The kinds whose objects are in the store.
#[rustfmt::skip]
fn stored() -> Vec<Kind> {
    vec![
        namespaced(CORE, "ConfigMap", ("configmaps", "configmap"), "core.v1.ConfigMap").ruled_by(&config_map::ConfigMap).short(&["cm"]),
        namespaced(CORE, "Endpoints", ("endpoints", "endpoints"), "core.v1.Endpoints").ruled_by(&endpoints::Endpoints).short(&["ep"]),
        namespaced(CORE, "Event", ("events", "event"), "core.v1.Event").ruled_by(&event::Event).short(&["ev"]),
        namespaced(CORE, "LimitRange", ("limitranges", "limitrange"), "core.v1.LimitRange").ruled_by(&limit_range::LimitRange).short(&["limits"]),
        cluster(CORE, "Namespace", ("namespaces", "namespace"), "core.v1.Namespace").ruled_by(&namespace::Namespace).short(&["ns"]).with(&["finalize", "status"]),
        cluster(CORE, "Node", ("nodes", "node"), "core.v1.Node").ruled_by(&node::Node).short(&["no"]).with(&["proxy", "status"]),
        cluster(CORE, "PersistentVolume", ("persistentvolumes", "persistentvolume"), "core.v1.PersistentVolume").ruled_by(&persistent_volume::PersistentVolume).short(&["pv"]).with(&["status"]),
        namespaced(CORE, "PersistentVolumeClaim", ("persistentvolumeclaims", "persistentvolumeclaim"), "core.v1.PersistentVolumeClaim").ruled_by(&persistent_volume_claim::PersistentVolumeClaim)
            .short(&["pvc"]).with(&["status"]),
        namespaced(CORE, "Pod", ("pods", "pod"), "core.v1.Pod").ruled_by(&pod::Pod).short(&["po"]).of_all()
            .with(&["attach", "binding", "eviction", "exec", "log", "portforward", "proxy", "status"]),
        namespaced(CORE, "PodTemplate", ("podtemplates", "podtemplate"), "core.v1.PodTemplate").ruled_by(&pod_template::PodTemplate),
        namespaced(CORE, "ReplicationController", ("replicationcontrollers", "replicationcontroller"), "core.v1.ReplicationController").ruled_by(&replication_controller::ReplicationController)
            .short(&["rc"]).of_all().with(&["scale", "status"]),
        namespaced(CORE, "ResourceQuota", ("resourcequotas", "resourcequota"), "core.v1.ResourceQuota")
            .ruled_by(&resource_quota::ResourceQuota).short(&["quota"]).with(&["status"]),
        namespaced(CORE, "Secret", ("secrets", "secret"), "core.v1.Secret").ruled_by(&secret::Secret),
        namespaced(CORE, "Service", ("services", "service"), "core.v1.Service").ruled_by(&service::Service).short(&["svc"]).of_all().with(&["proxy", "status"]),
        namespaced(CORE, "ServiceAccount", ("serviceaccounts", "serviceaccount"), "core.v1.ServiceAccount").ruled_by(&service_account::ServiceAccount).short(&["sa"]).with(&["token"]),
        namespaced(APPS, "ControllerRevision", ("controllerrevisions", "controllerrevision"), "apps.v1.ControllerRevision").ruled_by(&controller_revision::ControllerRevision),
        namespaced(APPS, "DaemonSet", ("daemonsets", "daemonset"), "apps.v1.DaemonSet").ruled_by(&daemon_set::DaemonSet).short(&["ds"]).of_all().with(&["status"]),
        namespaced(APPS, "Deployment", ("deployments", "deployment"), "apps.v1.Deployment").ruled_by(&deployment::Deployment).short(&["deploy"]).of_all().with(&["scale", "status"]),
        namespaced(APPS, "ReplicaSet", ("replicasets", "replicaset"), "apps.v1.ReplicaSet").ruled_by(&replica_set::ReplicaSet).short(&["rs"]).of_all().with(&["scale", "status"]),
        namespaced(APPS, "StatefulSet", ("statefulsets", "statefulset"), "apps.v1.StatefulSet").ruled_by(&stateful_set::StatefulSet).short(&["sts"]).of_all().with(&["scale", "status"]),
        namespaced(BATCH, "CronJob", ("cronjobs", "cronjob"), "batch.v1.CronJob").ruled_by(&cron_job::CronJob).short(&["cj"]).of_all().with(&["status"]),
        namespaced(BATCH, "Job", ("jobs", "job"), "batch.v1.Job").ruled_by(&job::Job).of_all().with(&["status"]),
        cluster(CERTIFICATES, "CertificateSigningRequest", ("certificatesigningrequests", "certificatesigningrequest"), "certificates.v1.CertificateSigningRequest")
            .ruled_by(&certificate_signing_request::CertificateSigningRequest).short(&["csr"]).with(&["approval", "status"]),
        namespaced(COORDINATION, "Lease", ("leases", "lease"), "coordination.v1.Lease").ruled_by(&lease::Lease),
        namespaced(DISCOVERY, "EndpointSlice", ("endpointslices", "endpointslice"), "discovery.v1.EndpointSlice").ruled_by(&endpoint_slice::EndpointSlice),
        Kind { form: Some(&convert::EventForm), ..namespaced(EVENTS, "Event", ("events", "event"), "events.v1.Event").ruled_by(&event::NewEvent).short(&["ev"]) },
        namespaced(NETWORKING, "Ingress", ("ingresses", "ingress"), "networking.v1.Ingress").ruled_by(&ingress::Ingress).short(&["ing"]).with(&["status"]),
        cluster(NETWORKING, "IngressClass", ("ingressclasses", "ingressclass"), "networking.v1.IngressClass").ruled_by(&ingress_class::IngressClass),
        namespaced(NETWORKING, "NetworkPolicy", ("networkpolicies", "networkpolicy"), "networking.v1.NetworkPolicy").ruled_by(&network_policy::NetworkPolicy).short(&["netpol"]),
        cluster(RBAC, "ClusterRole", ("clusterroles", "clusterrole"), "rbac.v1.ClusterRole").ruled_by(&role::ClusterRole),
        cluster(RBAC, "ClusterRoleBinding", ("clusterrolebindings", "clusterrolebinding"), "rbac.v1.ClusterRoleBinding").ruled_by(&role_binding::RoleBinding { namespaced: false }),
        namespaced(RBAC, "Role", ("roles", "role"), "rbac.v1.Role").ruled_by(&role::Role),
        namespaced(RBAC, "RoleBinding", ("rolebindings", "rolebinding"), "rbac.v1.RoleBinding").ruled_by(&role_binding::RoleBinding { namespaced: true }),
        cluster(ADMISSION, "MutatingWebhookConfiguration", ("mutatingwebhookconfigurations", "mutatingwebhookconfiguration"), "admissionregistration.v1.MutatingWebhookConfiguration").ruled_by(&webhook_configuration::WebhookConfiguration { mutating: true }).of("api-extensions"),
        cluster(ADMISSION, "ValidatingWebhookConfiguration", ("validatingwebhookconfigurations", "validatingwebhookconfiguration"), "admissionregistration.v1.ValidatingWebhookConfiguration").ruled_by(&webhook_configuration::WebhookConfiguration { mutating: false }).of("api-extensions"),
        cluster(ADMISSION, "ValidatingAdmissionPolicy", ("validatingadmissionpolicies", "validatingadmissionpolicy"), "admissionregistration.v1.ValidatingAdmissionPolicy").ruled_by(&validating_admission_policy::ValidatingAdmissionPolicy).of("api-extensions").with(&["status"]),
        cluster(ADMISSION, "ValidatingAdmissionPolicyBinding", ("validatingadmissionpolicybindings", "validatingadmissionpolicybinding"), "admissionregistration.v1.ValidatingAdmissionPolicyBinding").ruled_by(&validating_admission_policy_binding::ValidatingAdmissionPolicyBinding).of("api-extensions"),
        cluster(ADMISSION, "MutatingAdmissionPolicy", ("mutatingadmissionpolicies", "mutatingadmissionpolicy"), "admissionregistration.v1.MutatingAdmissionPolicy").ruled_by(&mutating_admission_policy::MutatingAdmissionPolicy).of("api-extensions"),
        cluster(ADMISSION, "MutatingAdmissionPolicyBinding", ("mutatingadmissionpolicybindings", "mutatingadmissionpolicybinding"), "admissionregistration.v1.MutatingAdmissionPolicyBinding").ruled_by(&mutating_admission_policy_binding::MutatingAdmissionPolicyBinding).of("api-extensions"),
        cluster(EXTENSIONS, "CustomResourceDefinition", ("customresourcedefinitions", "customresourcedefinition"),
            "apiextensions.v1.CustomResourceDefinition").ruled_by(&custom_resource_definition::CustomResourceDefinition).short(&["crd", "crds"]).of("api-extensions").with(&["status"]),
        cluster(FLOW_CONTROL, "FlowSchema", ("flowschemas", "flowschema"), "flowcontrol.v1.FlowSchema")
            .ruled_by(&flow_schema::FlowSchema).with(&["status"]),
        cluster(FLOW_CONTROL, "PriorityLevelConfiguration", ("prioritylevelconfigurations", "prioritylevelconfiguration"),
            "flowcontrol.v1.PriorityLevelConfiguration").ruled_by(&priority_level_configuration::PriorityLevelConfiguration).with(&["status"]),
        cluster(NODE, "RuntimeClass", ("runtimeclasses", "runtimeclass"), "node.v1.RuntimeClass").ruled_by(&runtime_class::RuntimeClass),
        cluster(REGISTRATION, "APIService", ("apiservices", "apiservice"), "apiregistration.v1.APIService")
            .ruled_by(&api_service::ApiService).of("api-extensions").with(&["status"]),
        cluster(SCHEDULING, "PriorityClass", ("priorityclasses", "priorityclass"), "scheduling.v1.PriorityClass")
            .ruled_by(&priority_class::PriorityClass).short(&["pc"]),
        cluster(STORAGE, "StorageClass", ("storageclasses", "storageclass"), "storage.v1.StorageClass").ruled_by(&storage_class::StorageClass).short(&["sc"]),
    ]
}

/// Kinds that are answered at once, or only travel in requests.
#[rustfmt::skip]
fn unstored() -> Vec<Kind> {
    vec![
        Kind { namespaced: true, ..answered(CORE, "Binding", ("bindings", "binding"), "core.v1.Binding").ruled_by(&binding::Binding) },
        body(CORE, "PodExecOptions", "core.v1.PodExecOptions"),
        body(CORE, "PodAttachOptions", "core.v1.PodAttachOptions"),
        body(CORE, "PodPortForwardOptions", "core.v1.PodPortForwardOptions"),
        body(CORE, "NodeProxyOptions", "core.v1.NodeProxyOptions"),
        body(CORE, "PodProxyOptions", "core.v1.PodProxyOptions"),
        body(CORE, "ServiceProxyOptions", "core.v1.ServiceProxyOptions"),
        body(("autoscaling", "v1"), "Scale", "autoscaling.v1.Scale").ruled_by(&scale::Scale),
        body(("policy", "v1"), "Eviction", "policy.v1.Eviction"),
        body(AUTHENTICATION, "TokenRequest", "authentication.v1.TokenRequest").ruled_by(&token_request::TokenRequest),
        answered(AUTHENTICATION, "TokenReview", ("tokenreviews", "tokenreview"), "authentication.v1.TokenReview").ruled_by(&token_review::TokenReview),
        answered(AUTHENTICATION, "SelfSubjectReview", ("selfsubjectreviews", "selfsubjectreview"), "authentication.v1.SelfSubjectReview").ruled_by(&review::SelfSubjectReview),
        answered(AUTHORIZATION, "SelfSubjectAccessReview", ("selfsubjectaccessreviews", "selfsubjectaccessreview"), "authorization.v1.SelfSubjectAccessReview").ruled_by(&review::SelfSubjectAccessReview),
        answered(AUTHORIZATION, "SelfSubjectRulesReview", ("selfsubjectrulesreviews", "selfsubjectrulesreview"), "authorization.v1.SelfSubjectRulesReview").ruled_by(&review::SelfSubjectRulesReview),
        answered(AUTHORIZATION, "SubjectAccessReview", ("subjectaccessreviews", "subjectaccessreview"), "authorization.v1.SubjectAccessReview").ruled_by(&review::SubjectAccessReview),
        Kind { namespaced: true, ..answered(AUTHORIZATION, "LocalSubjectAccessReview", ("localsubjectaccessreviews", "localsubjectaccessreview"), "authorization.v1.LocalSubjectAccessReview").ruled_by(&review::LocalSubjectAccessReview) },
        body(META, "DeleteOptions", "meta.v1.DeleteOptions"),
        body(META, "Status", "meta.v1.Status"),
        body(CORE, "DeleteOptions", "meta.v1.DeleteOptions"),
        body(CORE, "Status", "meta.v1.Status"),
    ]
}
