//! Discovery of the kinds that the server has, for controllers that work on all of them.

use kube::api::PartialObjectMeta;
use kube::core::{ApiResource, DynamicObject};
use kube::discovery::{ApiCapabilities, Discovery, Scope};
use kube::{Api, Client, Error};

/// The metadata of an object of any kind.
pub type AnyMeta = PartialObjectMeta<DynamicObject>;

/// A kind that the server has, with its scope and verbs.
#[derive(Clone, Debug)]
pub struct ServedKind {
    /// Group, version, kind and plural.
    pub resource: ApiResource,
    /// Whether its objects lie in namespaces.
    pub namespaced: bool,
    operations: Vec<String>,
}

impl ServedKind {
    fn of((resource, capabilities): (ApiResource, ApiCapabilities)) -> Self {
        let namespaced = matches!(capabilities.scope, Scope::Namespaced);
        Self { resource, namespaced, operations: capabilities.operations }
    }

    /// Whether the kind supports all of these verbs, such as `list` and `deletecollection`.
    pub fn can(&self, verbs: &[&str]) -> bool {
        verbs.iter().all(|verb| self.operations.iter().any(|o| o == verb))
    }

    /// Whether the kind is Event, which garbage collection ignores: events have no owners or dependents, and expire.
    pub fn is_event(&self) -> bool {
        self.resource.plural == "events"
    }

    /// An API for the metadata of its objects: those of a namespace, or all if the kind or the argument has none.
    pub fn within(&self, client: &Client, namespace: &str) -> Api<AnyMeta> {
        if self.namespaced && !namespace.is_empty() {
            Api::namespaced_with(client.clone(), namespace, &self.resource)
        } else {
            Api::all_with(client.clone(), &self.resource)
        }
    }

    /// `PLURAL.GROUP`, as messages name the kind.
    pub fn name(&self) -> String {
        format!("{}.{}", self.resource.plural, self.resource.group)
    }
}

/// Discovers every kind, in the version that its group recommends.
pub async fn discover(client: &Client) -> Result<Vec<ServedKind>, Error> {
    let found = match Discovery::new(client.clone()).run_aggregated().await {
        Ok(found) => found,
        // Servers before 1.26 answer group by group.
        Err(_) => Discovery::new(client.clone()).run().await?,
    };
    // Its kinds are those of other groups in old versions.
    let groups = found.groups().filter(|group| group.name() != "extensions");
    Ok(groups.flat_map(|group| group.recommended_resources()).map(ServedKind::of).collect())
}
