//! What is served: one row for each resource of each group and version. Discovery, request parsing and storage read
//! this table and nothing else.

use std::sync::LazyLock;

use crate::schema::{self, Kind};

/// A part of an object, or an action on it, with a path of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    /// The observed state.
    Status,
    /// `autoscaling/v1` Scale of what has replicas.
    Scale,
    /// The scheduler's decision.
    Binding,
    /// A deletion that may be refused.
    Eviction,
    /// A container's output.
    Log,
    /// A new process in a container.
    Exec,
    /// A container's own process.
    Attach,
    /// Connections to a Pod's ports.
    PortForward,
    /// HTTP requests to a port of a Pod, or of one of a Service's Pods.
    Proxy,
    /// The removal of a Namespace's own finalizer.
    Finalize,
}

impl Subresource {
    const ALL: [Self; 10] = [
        Self::Status,
        Self::Scale,
        Self::Binding,
        Self::Eviction,
        Self::Log,
        Self::Exec,
        Self::Attach,
        Self::PortForward,
        Self::Proxy,
        Self::Finalize,
    ];

    /// The word in paths.
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::Log => "log",
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
            Self::Proxy => "proxy",
            Self::Finalize => "finalize",
        }
    }

    /// The subresource of that name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    /// Group, version and kind of what is read and written there, where they are not the object's own.
    pub fn kind(self) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Self::Scale => Some(("autoscaling", "v1", "Scale")),
            Self::Binding => Some(("", "v1", "Binding")),
            Self::Eviction => Some(("policy", "v1", "Eviction")),
            Self::Exec => Some(("", "v1", "PodExecOptions")),
            Self::Attach => Some(("", "v1", "PodAttachOptions")),
            Self::PortForward => Some(("", "v1", "PodPortForwardOptions")),
            Self::Proxy => Some(("", "v1", "PodProxyOptions")),
            Self::Status | Self::Log | Self::Finalize => None,
        }
    }

    /// Verbs, as discovery lists them.
    pub fn verbs(self) -> &'static [&'static str] {
        match self {
            Self::Status | Self::Scale => &["get", "patch", "update"],
            Self::Binding | Self::Eviction => &["create"],
            Self::Log => &["get"],
            Self::Exec | Self::Attach | Self::PortForward => &["create", "get"],
            Self::Proxy => &["create", "delete", "get", "patch", "update"],
            Self::Finalize => &["update"],
        }
    }
}

/// Where a resource's objects are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In the store.
    Stored,
    /// In the store as core/v1 Events; this is another form of them.
    CoreEvents,
    /// Nowhere: a create is answered at once (reviews, bindings).
    Answered,
}

/// One resource in one version.
#[derive(Debug)]
pub struct Resource {
    /// Empty for the core group.
    pub group: &'static str,
    /// `v1`.
    pub version: &'static str,
    /// `Deployment`.
    pub kind: &'static str,
    /// `deployments`.
    pub plural: &'static str,
    /// `deployment`.
    pub singular: &'static str,
    /// `deploy`.
    pub short: &'static [&'static str],
    /// Its objects live in Namespaces.
    pub namespaced: bool,
    /// `all`: shown by `kubectl get all`.
    pub categories: &'static [&'static str],
    /// Paths beneath its objects.
    pub subresources: Vec<Subresource>,
    /// Where its objects are.
    pub storage: Storage,
    /// Its place in [`RESOURCES`].
    pub index: usize,
    /// What its objects look like.
    pub schema: &'static Kind,
}

impl Resource {
    /// `deployments.apps`, as errors name it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `apps/v1`, as objects carry it.
    pub fn api_version(&self) -> String {
        api_version(self.group, self.version)
    }

    /// Verbs, as discovery lists them.
    pub fn verbs(&self) -> &'static [&'static str] {
        match self.storage {
            Storage::Answered => &["create"],
            _ => &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        }
    }

    /// The resource whose objects in the store this one shows.
    pub fn stored(&'static self) -> &'static Self {
        match self.storage {
            Storage::CoreEvents => find("", "v1", "events").unwrap_or(self),
            _ => self,
        }
    }

    /// Prefix of the keys of its objects in the store, with a slash at the end.
    pub fn prefix(&self) -> String {
        let group = if self.group.is_empty() { "core" } else { self.group };
        format!("/registry/{group}/{}/", self.plural)
    }

    /// It has this subresource.
    pub fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }

    /// Whether `metadata.generation` counts the changes of its spec.
    pub fn counts_generations(&self) -> bool {
        matches!(
            self.kind,
            "DaemonSet"
                | "Deployment"
                | "Ingress"
                | "Job"
                | "NetworkPolicy"
                | "Pod"
                | "PodTemplate"
                | "ReplicaSet"
                | "ReplicationController"
        )
    }
}

/// `apps/v1`; `v1` in the core group.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// The row of that path.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|r| r.plural == plural && r.group == group && r.version == version)
}

/// Beginnings of the keys in the store whose values must not lie on a disk in plain.
pub fn secret_prefixes() -> Vec<String> {
    RESOURCES.iter().filter(|r| r.group.is_empty() && r.kind == "Secret").map(Resource::prefix).collect()
}

/// Groups in the order in which discovery shows them, with their only version; the core group is not among them.
pub fn groups() -> Vec<(&'static str, &'static str)> {
    let mut groups: Vec<_> = Vec::new();
    for r in RESOURCES.iter().filter(|r| !r.group.is_empty()) {
        if !groups.contains(&(r.group, r.version)) {
            groups.push((r.group, r.version));
        }
    }
    groups
}

/// Kinds that are answered at once, with the names of the resource to which they are posted.
const ANSWERED: &[(&str, &str, &str, &str)] = &[
    ("", "Binding", "bindings", "binding"),
    ("authentication.k8s.io", "SelfSubjectReview", "selfsubjectreviews", "selfsubjectreview"),
    (
        "authorization.k8s.io",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        "selfsubjectaccessreview",
    ),
    ("authorization.k8s.io", "SelfSubjectRulesReview", "selfsubjectrulesreviews", "selfsubjectrulesreview"),
    ("authorization.k8s.io", "SubjectAccessReview", "subjectaccessreviews", "subjectaccessreview"),
];

/// Everything that is served: what [`crate::schema::KINDS`] says is stored, and what is answered at once.
pub static RESOURCES: LazyLock<Vec<Resource>> = LazyLock::new(|| {
    let stored = schema::KINDS.iter().filter(|k| k.is_stored()).map(|k| Resource {
        group: k.group,
        version: k.version,
        kind: k.kind,
        plural: k.plural,
        singular: k.singular,
        short: k.short_names,
        namespaced: k.namespaced,
        categories: k.categories,
        subresources: k.subresources.iter().filter_map(|s| Subresource::find(s)).collect(),
        index: 0,
        storage: if k.group == "events.k8s.io" { Storage::CoreEvents } else { Storage::Stored },
        schema: k,
    });
    let answered = ANSWERED.iter().filter_map(|&(group, kind, plural, singular)| {
        Some(Resource {
            group,
            version: "v1",
            kind,
            plural,
            singular,
            short: &[],
            namespaced: kind == "Binding",
            categories: &[],
            subresources: Vec::new(),
            storage: Storage::Answered,
            index: 0,
            schema: schema::find(group, "v1", kind)?,
        })
    });
    let rows = stored.chain(answered).enumerate();
    rows.map(|(index, row)| Resource { index, ..row }).collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_path_and_kind() {
        for r in RESOURCES.iter() {
            assert_eq!(find(r.group, r.version, r.plural).map(|f| f.kind), Some(r.kind));
        }
        assert_eq!(
            find("events.k8s.io", "v1", "events").map(|r| r.stored().prefix()),
            Some("/registry/core/events/".into())
        );
        assert!(find("apps", "v1beta1", "deployments").is_none());
    }
}
