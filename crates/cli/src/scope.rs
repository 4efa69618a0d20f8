//! Where commands on what runs look: the namespace in force and, unless one was named, those that Yado made for
//! descriptions that have one of their own, as compose projects do.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{Api, Client, ResourceExt, api::ListParams};
use yado_types::labels;

use crate::{
    args::Global,
    connect::{connect, failed},
};

/// A client, and namespaces to look in.
pub struct Scope {
    /// The client.
    pub client: Client,
    /// The namespace in force first.
    pub namespaces: Vec<String>,
}

impl Scope {
    /// As the command line says.
    ///
    /// # Errors
    ///
    /// There is no usable kubeconfig.
    pub async fn of(global: &Global) -> anyhow::Result<Self> {
        let (client, namespace) = connect(global).await?;
        let mut namespaces = vec![namespace];
        if global.namespace.is_none() {
            let own = format!("{}={}", labels::APP_MANAGED_BY, labels::MANAGED_BY_YADO);
            let api: Api<Namespace> = Api::all(client.clone());
            // Who may not list namespaces has the one in force.
            let found = api.list(&ListParams::default().labels(&own)).await.map(|list| list.items);
            let found = found.unwrap_or_default().into_iter().map(|n| n.name_any());
            namespaces.extend(found.filter(|n| *n != namespaces[0]).collect::<Vec<_>>());
        }
        Ok(Scope { client, namespaces })
    }

    /// All Pods there.
    ///
    /// # Errors
    ///
    /// They cannot be listed.
    pub async fn pods(&self) -> anyhow::Result<Vec<Pod>> {
        let mut pods = Vec::new();
        for namespace in &self.namespaces {
            let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
            let listed = api.list(&ListParams::default()).await;
            pods.extend(listed.map_err(failed("Pods cannot be listed"))?.items);
        }
        Ok(pods)
    }

    /// The API of the Pods beside this one.
    pub fn api_of(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), pod.metadata.namespace.as_deref().unwrap_or(&self.namespaces[0]))
    }

    /// `namespace default`, `namespaces default and shop`.
    pub fn shown(&self) -> String {
        match self.namespaces.as_slice() {
            [one] => format!("namespace {one}"),
            [first @ .., last] => format!("namespaces {} and {last}", first.join(", ")),
            [] => "no namespace".into(),
        }
    }
}
