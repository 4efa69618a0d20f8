//! The ServiceAccount controller: creates the ServiceAccount `default` and a ConfigMap with the cluster's CA certificate
//! in every namespace.
//!
//! ```text
//! [Namespace] --> [ServiceAccount] default
//!             `-> [ConfigMap] kube-root-ca.crt
//! ```
//!
//! Watches Namespaces, ServiceAccounts named `default` and ConfigMaps named `kube-root-ca.crt`. Writes the latter two.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Error;
use yado_reconcile::{Informer, Next, ObjectKey, Queue};

use crate::{Context, writes};

const COMPONENT: &str = "serviceaccount-controller";
const DEFAULT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";
const ROOT_CA_KEY: &str = "ca.crt";
/// Namespaces reconciled concurrently.
const WORKERS: usize = 2;

/// A write that a reconcile pass decided on.
#[derive(Clone, Debug, PartialEq)]
enum Action {
    /// Create the ServiceAccount `default`.
    CreateAccount,
    /// Create the ConfigMap with the CA certificate.
    CreateRootCa,
    /// Restore the ConfigMap's content, which differs from the CA certificate, and remove these keys.
    UpdateRootCa { others: Vec<String> },
}

/// Decides which of the two objects a namespace lacks. Namespaces that are being deleted get none.
fn reconcile(
    namespace: &Namespace,
    account: Option<&ServiceAccount>,
    published: Option<&ConfigMap>,
    root_ca: Option<&str>,
) -> Vec<Action> {
    if namespace.metadata.deletion_timestamp.is_some() {
        return Vec::new();
    }
    let mut actions = Vec::new();
    if account.is_none() {
        actions.push(Action::CreateAccount);
    }
    if let Some(ca) = root_ca {
        match published {
            None => actions.push(Action::CreateRootCa),
            Some(published) => {
                let data = published.data.iter().flatten();
                let (own, others): (Vec<_>, Vec<_>) = data.partition(|(key, _)| *key == ROOT_CA_KEY);
                let others: Vec<String> = others.into_iter().map(|(key, _)| key.clone()).collect();
                if !others.is_empty() || !own.iter().any(|(_, text)| *text == ca) {
                    actions.push(Action::UpdateRootCa { others });
                }
            }
        }
    }
    actions
}

struct Controller {
    context: Context,
    namespaces: Arc<Informer<Namespace>>,
    accounts: Arc<Informer<ServiceAccount>>,
    published: Arc<Informer<ConfigMap>>,
}

/// Starts the ServiceAccount controller; its tasks belong to the context's owner.
pub(crate) fn start(context: &Context) {
    let this = Arc::new(Controller {
        context: context.clone(),
        namespaces: context.informers.all(),
        accounts: context.informers.selected("metadata.name=default"),
        published: context.informers.selected("metadata.name=kube-root-ca.crt"),
    });
    let queue = Queue::new(context.clock.clone());
    this.namespaces.feed_queue(&queue, |change| [change.key.name.clone()]);
    this.accounts.feed_queue(&queue, |change| [change.key.namespace.clone()]);
    this.published.feed_queue(&queue, |change| [change.key.namespace.clone()]);
    context.run("serviceaccounts", &queue, WORKERS, move |name| {
        let this = this.clone();
        async move { this.sync(&name).await }
    });
}

impl Controller {
    async fn sync(&self, name: &str) -> Result<Next, Error> {
        self.accounts.synced().await;
        self.published.synced().await;
        let Some(namespace) = self.namespaces.get(&ObjectKey::new("", name)) else { return Ok(Next::Wait) };
        let account = self.accounts.get(&ObjectKey::new(name, DEFAULT));
        let published = self.published.get(&ObjectKey::new(name, ROOT_CA));
        let root_ca = self.context.config.root_ca.as_deref();
        for action in reconcile(&namespace, account.as_deref(), published.as_deref(), root_ca) {
            match self.apply(name, action).await {
                // Another client created or changed the object; its watch event triggers the next pass.
                Err(error) if writes::has_code(&error, 409) => {}
                // The namespace is being deleted or does not exist any more.
                Err(error) if writes::has_code(&error, 403) || writes::has_code(&error, 404) => {
                    return Ok(Next::Wait);
                }
                other => other?,
            }
        }
        Ok(Next::Wait)
    }

    async fn apply(&self, namespace: &str, action: Action) -> Result<(), Error> {
        let client = &self.context.client;
        let named = |name: &str| ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..Default::default()
        };
        let data = [(ROOT_CA_KEY.to_owned(), self.context.config.root_ca.clone().unwrap_or_default())];
        match action {
            Action::CreateAccount => {
                let account = ServiceAccount { metadata: named(DEFAULT), ..Default::default() };
                writes::create(client, &account).await.map(drop)
            }
            Action::CreateRootCa => {
                let map =
                    ConfigMap { metadata: named(ROOT_CA), data: Some(data.into()), ..Default::default() };
                writes::create(client, &map).await.map(drop)
            }
            Action::UpdateRootCa { others } => {
                let others = others.into_iter().map(|key| (key, None));
                let data: BTreeMap<_, _> =
                    data.into_iter().map(|(key, text)| (key, Some(text))).chain(others).collect();
                let patch = serde_json::json!({ "data": data });
                writes::merge::<ConfigMap>(client, &named(ROOT_CA), COMPONENT, &patch).await.map(drop)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(
        namespace: Value,
        account: bool,
        published: Option<&[(&str, &str)]>,
        ca: Option<&str>,
        expect: &[Action],
    ) {
        let namespace: Namespace =
            serde_json::from_value(json!({ "metadata": namespace })).expect("a namespace");
        let account = account.then(ServiceAccount::default);
        let published = published.map(|data| ConfigMap {
            data: Some(data.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect()),
            ..Default::default()
        });
        assert_eq!(reconcile(&namespace, account.as_ref(), published.as_ref(), ca), expect);
    }

    #[test]
    fn namespaces_get_what_they_lack() {
        check(json!({}), false, None, Some("CA"), &[Action::CreateAccount, Action::CreateRootCa]);
        check(json!({}), false, None, None, &[Action::CreateAccount]);
        let update = |others: &[&str]| {
            [Action::UpdateRootCa { others: others.iter().map(|key| (*key).to_owned()).collect() }]
        };
        check(json!({}), true, Some(&[(ROOT_CA_KEY, "old")]), Some("CA"), &update(&[]));
        check(json!({}), true, Some(&[]), Some("CA"), &update(&[]));
        check(json!({}), true, Some(&[(ROOT_CA_KEY, "CA"), ("x", "y")]), Some("CA"), &update(&["x"]));
        check(json!({}), true, Some(&[(ROOT_CA_KEY, "CA")]), Some("CA"), &[]);
        check(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}), false, None, Some("CA"), &[]);
    }
}
