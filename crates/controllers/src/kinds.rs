//! Which kinds the server has: for what works on all of them.

use kube::api::PartialObjectMeta;
use kube::core::{ApiResource, DynamicObject};
use kube::discovery::{ApiCapabilities, Discovery, Scope};
use kube::{Api, Client, Error};

/// An object of any kind, its metadata alone.
pub type AnyMeta = PartialObjectMeta<DynamicObject>;

/// A kind and what can be done with it.
#[derive(Clone, Debug)]
pub struct Served {
    pub resource: ApiResource,
    pub namespaced: bool,
    operations: Vec<String>,
}

impl Served {
    fn of((resource, capabilities): (ApiResource, ApiCapabilities)) -> Self {
        let namespaced = matches!(capabilities.scope, Scope::Namespaced);
        Self { resource, namespaced, operations: capabilities.operations }
    }

    /// It offers all of these verbs.
    pub fn can(&self, verbs: &[&str]) -> bool {
        verbs.iter().all(|verb| self.operations.iter().any(|o| o == verb))
    }

    /// Events tell of others, own nothing, are owned by none, and go by themselves.
    pub fn is_event(&self) -> bool {
        self.resource.plural == "events"
    }

    /// The API for the metadata of its objects in a namespace, or of all where it has none.
    pub fn within(&self, client: &Client, namespace: &str) -> Api<AnyMeta> {
        if self.namespaced && !namespace.is_empty() {
            Api::namespaced_with(client.clone(), namespace, &self.resource)
        } else {
            Api::all_with(client.clone(), &self.resource)
        }
    }

    /// `plural.group`, as messages name it.
    pub fn name(&self) -> String {
        format!("{}.{}", self.resource.plural, self.resource.group)
    }
}

/// Every kind in the version that its group prefers.
pub async fn discover(client: &Client) -> Result<Vec<Served>, Error> {
    let found = match Discovery::new(client.clone()).run_aggregated().await {
        Ok(found) => found,
        // Servers before 1.26 answer group by group.
        Err(_) => Discovery::new(client.clone()).run().await?,
    };
    Ok(found.groups().flat_map(|g| g.recommended_resources()).map(Served::of).collect())
}
