//! The registry of what is served: one [`Resource`] for each kind of each group and version. Discovery, request parsing
//! and storage read the registry and nothing else.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use parking_lot::RwLock;
use tokio::sync::watch;

use crate::aggregation::{Aggregated, priority};
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

    /// Group, version and kind of what is read and written there, where they are not the object's own. `plural` is that of the
    /// resource.
    pub fn kind(self, plural: &str) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Self::Scale => Some(("autoscaling", "v1", "Scale")),
            Self::Binding => Some(("", "v1", "Binding")),
            Self::Eviction => Some(("policy", "v1", "Eviction")),
            Self::Exec => Some(("", "v1", "PodExecOptions")),
            Self::Attach => Some(("", "v1", "PodAttachOptions")),
            Self::PortForward => Some(("", "v1", "PodPortForwardOptions")),
            Self::Proxy if plural == "nodes" => Some(("", "v1", "NodeProxyOptions")),
            Self::Proxy if plural == "services" => Some(("", "v1", "ServiceProxyOptions")),
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
    /// Groups and versions that other servers serve.
    aggregated: Vec<Arc<Aggregated>>,
    /// Ranks of groups and versions in discovery, where they are given.
    priorities: Priorities,
}

/// Ranks in discovery, the highest first: of a group, and of a version within its group.
pub type Priorities = HashMap<(Name, Name), (i64, i64)>;

impl Resources {
    /// Those resources, in that order.
    pub fn new(all: Vec<Arc<Resource>>) -> Self {
        let mut by_plural: HashMap<Name, Vec<Arc<Resource>>> = HashMap::new();
        for r in &all {
            by_plural.entry(r.plural.clone()).or_default().push(r.clone());
        }
        Self { all, by_plural, ..Self::default() }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.all.iter()
    }

    /// The resource of that path.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.by_plural.get(plural)?.iter().find(|r| r.group == group && r.version == version)
    }

    /// Other versions of a resource: paths by which the same objects are reached, each with this part of them.
    pub fn equivalents<'a>(
        &'a self,
        resource: &'a Resource,
        subresource: Option<Subresource>,
    ) -> impl Iterator<Item = &'a Arc<Resource>> {
        let same_name = self.by_plural.get(&resource.plural).into_iter().flatten();
        same_name.filter(move |other| {
            let is_other = (&other.group, &other.version) != (&resource.group, &resource.version);
            is_other && other.prefix == resource.prefix && subresource.is_none_or(|part| other.has(part))
        })
    }

    /// Those of one group and version.
    pub fn of_version<'a>(
        &'a self,
        group: &'a str,
        version: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Resource>> + Clone {
        self.all.iter().filter(move |r| r.group == group && r.version == version)
    }

    /// What another server serves as that group and version.
    pub fn aggregated(&self, group: &str, version: &str) -> Option<&Arc<Aggregated>> {
        self.aggregated.iter().find(|service| service.group == group && service.version == version)
    }

    /// All that other servers serve.
    pub fn all_aggregated(&self) -> &[Arc<Aggregated>] {
        &self.aggregated
    }

    /// Groups with their versions, each in the order in which discovery shows them: the preferred version first. The
    /// core group is not among them.
    pub fn groups(&self) -> Vec<(Name, Vec<Name>)> {
        let mut groups: Vec<(Name, Vec<Name>)> = Vec::new();
        let own = self.all.iter().map(|r| (&r.group, &r.version));
        let others = self.aggregated.iter().map(|service| (&service.group, &service.version));
        for (group, version) in own.chain(others).filter(|(group, _)| !group.is_empty()) {
            let at = groups.iter().position(|(known, _)| known == group).unwrap_or(groups.len());
            if at == groups.len() {
                groups.push((group.clone(), Vec::new()));
            }
            let versions = &mut groups[at].1;
            if !versions.contains(version) {
                versions.push(version.clone());
            }
        }
        let rank = |group: &Name, version: &Name| {
            let given = self.priorities.get(&(group.clone(), version.clone())).copied();
            let is_custom = || self.of_version(group, version).next().is_some_and(|r| r.custom.is_some());
            given.unwrap_or_else(|| priority(group, version, is_custom()))
        };
        // A group's versions may come from several definitions.
        for (group, versions) in &mut groups {
            let key = |version: &Name| rank(group, version).1;
            versions.sort_by(|a, b| (key(b), VersionRank::of(b)).cmp(&(key(a), VersionRank::of(a))));
        }
        // Groups of the same rank stay in the order of the table.
        let of_group = |(group, versions): &(Name, Vec<Name>)| {
            versions.iter().map(|version| rank(group, version).0).max().unwrap_or(0)
        };
        groups.sort_by_key(|group| std::cmp::Reverse(of_group(group)));
        groups
    }
}

/// The registry of served resources. Built-in resources are always served; those of CustomResourceDefinitions come and
/// go.
#[derive(Debug)]
pub struct Registry {
    current: RwLock<Arc<Resources>>,
    /// Counts the changes of the resources that this server has itself.
    changed: watch::Sender<u64>,
}

impl Default for Registry {
    fn default() -> Self {
        Self { current: RwLock::new(BUILT_IN.clone()), changed: watch::Sender::new(0) }
    }
}

impl Registry {
    /// Serves these resources beside the built-in ones.
    pub fn serve(&self, custom: impl IntoIterator<Item = Arc<Resource>>) {
        let all = BUILT_IN.iter().cloned().chain(custom).collect();
        let mut current = self.current.write();
        let (aggregated, priorities) = (current.aggregated.clone(), current.priorities.clone());
        *current = Arc::new(Resources { aggregated, priorities, ..Resources::new(all) });
        drop(current);
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// Serves what other servers have beside the own resources, all in this order.
    pub fn aggregate(&self, aggregated: Vec<Arc<Aggregated>>, priorities: Priorities) {
        let mut current = self.current.write();
        let all = current.all.clone();
        *current = Arc::new(Resources { aggregated, priorities, ..Resources::new(all) });
    }

    /// Wakes when the resources that this server has itself have changed.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
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
