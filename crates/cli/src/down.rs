//! Removing an app: everything that carries its label, or what manifests describe.

use std::{collections::BTreeSet, io::Write, time::Duration};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod, Secret, Service},
    networking::v1::Ingress,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, PropagationPolicy},
    core::NamespaceResourceScope,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use yado_types::labels;

use crate::{
    apply::{Kinds, Summary, read_manifests, shown},
    args::{DownArgs, Global},
    connect::{connect, failed},
    progress::Progress,
};

/// As long as a Pod's own grace period and as much again; after that something holds it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often to look whether Pods are gone. A watch would be one connection more for a thing that takes moments.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Deletes every object of the app `app` (label `app.kubernetes.io/part-of`) that Yado made and waits until its Pods
/// are gone.
///
/// # Errors
///
/// The API server refuses or cannot be reached, or a Pod does not go.
pub async fn delete_app(
    client: &Client,
    namespace: &str,
    app: &str,
    progress: &Progress,
) -> anyhow::Result<Summary> {
    let selector =
        format!("{}={app},{}={}", labels::APP_PART_OF, labels::APP_MANAGED_BY, labels::MANAGED_BY_YADO);
    let step = progress.step("stop", app);
    // Routes first: what is being stopped should get no more requests.
    let mut destroyed = delete_kind::<Ingress>(client, namespace, &selector).await?;
    destroyed += delete_kind::<Deployment>(client, namespace, &selector).await?;
    destroyed += delete_kind::<Service>(client, namespace, &selector).await?;
    destroyed += delete_kind::<ConfigMap>(client, namespace, &selector).await?;
    destroyed += delete_kind::<Secret>(client, namespace, &selector).await?;
    let gone =
        wait_gone(client, namespace, &selector, |left| step.detail(format!("{app}, {left} processes left")));
    if tokio::time::timeout(PATIENCE, gone).await.is_err() {
        step.fail();
        anyhow::bail!("{app} still has Pods after {} s: see `yado ps {app}`", PATIENCE.as_secs());
    }
    step.done(app);
    Ok(Summary { destroyed, ..Summary::default() })
}

async fn delete_kind<K>(client: &Client, namespace: &str, selector: &str) -> anyhow::Result<usize>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let kind = K::kind(&()).into_owned();
    let found = api.list(&ListParams::default().labels(selector)).await;
    let found = found.map_err(failed(format!("{kind}s cannot be listed")))?.items;
    for object in &found {
        delete(&api, &object.name_any(), &format!("{kind} {}", object.name_any())).await?;
    }
    Ok(found.len())
}

/// Deletes one object and what it owns; whether it was there.
async fn delete<K>(api: &Api<K>, name: &str, shown: &str) -> anyhow::Result<bool>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let params =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
    match api.delete(name, &params).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(failed(format!("{shown} cannot be deleted"))(error)),
    }
}

async fn wait_gone(client: &Client, namespace: &str, selector: &str, left: impl Fn(usize)) {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    loop {
        // An answer that does not come is waited for like a Pod that does not go.
        if let Ok(pods) = api.list_metadata(&ListParams::default().labels(selector)).await {
            if pods.items.is_empty() {
                return;
            }
            left(pods.items.len());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Deletes `objects`, the last one first, and does not wait.
///
/// # Errors
///
/// The first object that cannot be deleted.
pub async fn delete_objects(client: &Client, namespace: &str, objects: &[Value]) -> anyhow::Result<Summary> {
    let mut kinds = Kinds::new(client.clone(), namespace);
    let mut summary = Summary::default();
    for object in objects.iter().rev() {
        let api = kinds.api(object).await?;
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        summary.destroyed += usize::from(delete(&api, name, &shown(object)).await?);
    }
    Ok(summary)
}

/// `yado down`.
pub(crate) async fn run(global: &Global, args: &DownArgs) -> anyhow::Result<()> {
    let objects = read_manifests(&args.files)?;
    let (client, namespace) = connect(global).await?;
    let summary = if !args.files.is_empty() {
        delete_objects(&client, &namespace, &objects).await?
    } else {
        let apps = apps(&client, &namespace).await?;
        let app = choose(args.app.as_deref(), &apps, &namespace)?;
        delete_app(&client, &namespace, &app, &Progress::stderr(global.color)).await?
    };
    writeln!(std::io::stdout(), "{summary}")?;
    Ok(())
}

/// The apps that Yado started in a namespace.
async fn apps(client: &Client, namespace: &str) -> anyhow::Result<BTreeSet<String>> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let selector = format!("{}={}", labels::APP_MANAGED_BY, labels::MANAGED_BY_YADO);
    let found = api.list(&ListParams::default().labels(&selector)).await;
    let found = found.map_err(failed("Deployments cannot be listed"))?;
    Ok(found.iter().filter_map(|d| d.labels().get(labels::APP_PART_OF).cloned()).collect())
}

fn choose(wanted: Option<&str>, apps: &BTreeSet<String>, namespace: &str) -> anyhow::Result<String> {
    let list = apps.iter().cloned().collect::<Vec<_>>().join(", ");
    match (wanted, apps.len()) {
        (Some(app), _) if apps.contains(app) => Ok(app.into()),
        (Some(app), 0) => anyhow::bail!("there is no app {app} in namespace {namespace}"),
        (Some(app), _) => anyhow::bail!("there is no app {app} in namespace {namespace}: there are {list}"),
        (None, 0) => anyhow::bail!("there is no app in namespace {namespace}"),
        (None, 1) => Ok(list),
        (None, _) => Err(crate::Usage(format!("there are several apps, so name one: {list}")).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_app_need_not_be_named() {
        let check = |wanted, apps: &[&str], expect: &str| {
            let apps = apps.iter().map(ToString::to_string).collect();
            let chosen = choose(wanted, &apps, "default").unwrap_or_else(|e| e.to_string());
            assert_eq!(chosen, expect);
        };
        check(None, &["a"], "a");
        check(Some("b"), &["a", "b"], "b");
        check(None, &[], "there is no app in namespace default");
        check(None, &["a", "b"], "there are several apps, so name one: a, b");
        check(Some("c"), &["a", "b"], "there is no app c in namespace default: there are a, b");
    }
}
