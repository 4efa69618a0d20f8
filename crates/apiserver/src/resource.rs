//! The registry of what is served: one [`Resource`] for each kind of each group and version. Discovery, request parsing
//! and storage read the registry and nothing else.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use parking_lot::RwLock;

use crate::schema::{self, Kind, Name, Storage, VersionRank};

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
    /// A new token of a ServiceAccount.
    Token,
    /// The approval or denial of a CertificateSigningRequest.
    Approval,
}

impl Subresource {
    const ALL: [Self; 12] = [
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
        Self::Token,
        Self::Approval,
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
            Self::Token => "token",
            Self::Approval => "approval",
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
            Self::Token => Some(("authentication.k8s.io", "v1", "TokenRequest")),
            Self::Status | Self::Log | Self::Finalize | Self::Approval => None,
        }
    }

    /// Verbs, as discovery lists them.
    pub fn verbs(self) -> &'static [&'static str] {
        match self {
            Self::Status | Self::Scale | Self::Approval => &["get", "patch", "update"],
            Self::Binding | Self::Eviction | Self::Token => &["create"],
            Self::Log => &["get"],
            Self::Exec | Self::Attach | Self::PortForward => &["create", "get"],
            Self::Proxy => &["create", "delete", "get", "patch", "update"],
            Self::Finalize => &["update"],
        }
    }
}

/// One resource in one version: a kind at its path.
#[derive(Debug)]
pub struct Resource {
    /// The kind of its objects.
    pub schema: Arc<Kind>,
    /// Paths beneath its objects.
    pub subresources: Vec<Subresource>,
    /// Prefix of the keys of its objects in the store, with a slash at the end; all versions of a resource share it.
    pub prefix: String,
}

impl Deref for Resource {
    type Target = Kind;

    fn deref(&self) -> &Kind {
        &self.schema
    }
}

impl Resource {
    /// The resource of a kind that has one.
    pub fn of(kind: Arc<Kind>) -> Self {
        let group = kind.form.map_or(&*kind.group, |form| form.stored_as().0);
        let group = if group.is_empty() { "core" } else { group };
        let prefix = format!("/registry/{group}/{}/", kind.plural);
        let subresources = kind.subresources.iter().filter_map(|s| Subresource::find(s)).collect();
        Self { schema: kind, subresources, prefix }
    }

    /// `deployments.apps`, as errors name it.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_string()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// Verbs, as discovery lists them.
    pub fn verbs(&self) -> &'static [&'static str] {
        match self.storage {
            Storage::Answered | Storage::Body => &["create"],
            Storage::Stored => {
                &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
            }
        }
    }

    /// The resource in whose version writes are decided: the stored one where this is another form of a built-in kind,
    /// since it has the rules; else this one, since each version of a custom kind has rules of its own.
    pub(crate) fn deciding(&self) -> &Self {
        let stored = self.form.and_then(|form| {
            let (group, version) = form.stored_as();
            find(group, version, &self.plural)
        });
        stored.map_or(self, |stored| stored)
    }

    /// It has this subresource.
    pub fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }
}

/// The resources that are served at one moment.
#[derive(Debug, Default)]
pub struct Resources {
    /// In the order in which discovery shows them.
    all: Vec<Arc<Resource>>,
    by_plural: HashMap<Name, Vec<Arc<Resource>>>,
}

impl Resources {
    /// Those resources, in that order.
    pub fn new(all: Vec<Arc<Resource>>) -> Self {
        let mut by_plural: HashMap<Name, Vec<Arc<Resource>>> = HashMap::new();
        for r in &all {
            by_plural.entry(r.plural.clone()).or_default().push(r.clone());
        }
        Self { all, by_plural }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.all.iter()
    }

    /// The resource of that path.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.by_plural.get(plural)?.iter().find(|r| r.group == group && r.version == version)
    }

    /// Those of one group and version.
    pub fn of_version<'a>(
        &'a self,
        group: &'a str,
        version: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Resource>> + Clone {
        self.all.iter().filter(move |r| r.group == group && r.version == version)
    }

    /// Groups with their versions, each in the order in which discovery shows them: the preferred version first. The
    /// core group is not among them.
    pub fn groups(&self) -> Vec<(Name, Vec<Name>)> {
        let mut groups: Vec<(Name, Vec<Name>)> = Vec::new();
        for r in self.all.iter().filter(|r| !r.group.is_empty()) {
            let at = groups.iter().position(|(group, _)| *group == r.group).unwrap_or(groups.len());
            if at == groups.len() {
                groups.push((r.group.clone(), Vec::new()));
            }
            let versions = &mut groups[at].1;
            if !versions.contains(&r.version) {
                versions.push(r.version.clone());
            }
        }
        // A group's versions may come from several definitions.
        for (_, versions) in &mut groups {
            versions.sort_by(|a, b| VersionRank::of(b).cmp(&VersionRank::of(a)));
        }
        groups
    }
}

/// The registry of served resources. Built-in resources are always served; those of CustomResourceDefinitions come and
/// go.
#[derive(Debug)]
pub struct Registry {
    current: RwLock<Arc<Resources>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self { current: RwLock::new(BUILT_IN.clone()) }
    }
}

impl Registry {
    /// Serves these resources beside the built-in ones.
    pub fn serve(&self, custom: impl IntoIterator<Item = Arc<Resource>>) {
        let all = BUILT_IN.iter().cloned().chain(custom).collect();
        *self.current.write() = Arc::new(Resources::new(all));
    }

    /// A snapshot of the served resources; the answer to one request rests on one such snapshot.
    pub fn current(&self) -> Arc<Resources> {
        self.current.read().clone()
    }
}

/// The built-in resource of that path.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Arc<Resource>> {
    BUILT_IN.find(group, version, plural)
}

/// Beginnings of the keys in the store whose values must not lie on a disk in plain.
pub fn secret_prefixes() -> Vec<String> {
    BUILT_IN.iter().filter(|r| r.strategy().is_secret()).map(|r| r.prefix.clone()).collect()
}

/// The resources of the built-in kinds.
pub static BUILT_IN: LazyLock<Arc<Resources>> = LazyLock::new(|| {
    let served = schema::KINDS.iter().filter(|k| k.storage != Storage::Body);
    Arc::new(Resources::new(served.map(|k| Arc::new(Resource::of(k.clone()))).collect()))
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_found_by_path() {
        for r in BUILT_IN.iter() {
            assert_eq!(find(&r.group, &r.version, &r.plural).map(|f| &f.kind), Some(&r.kind));
        }
        assert_eq!(
            find("events.k8s.io", "v1", "events").map(|r| &r.prefix),
            find("", "v1", "events").map(|r| &r.prefix)
        );
        assert!(find("apps", "v1alpha1", "deployments").is_none());
    }
}
