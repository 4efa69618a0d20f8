//! Removing an app: everything that carries its label, or what manifests describe.

use std::{collections::BTreeMap, io::Write, time::Duration};

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, StatefulSet},
    batch::v1::{CronJob, Job},
    core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service},
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
    apply::{Kinds, Outcome, Summary, Verb, read_manifests, shown},
    args::{DownArgs, Global},
    claims,
    connect::failed,
    deploy::{self, Record, record},
    progress::Progress,
    scope::Scope,
};

/// As long as a Pod's own grace period and as much again; after that something holds it.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How often to look whether Pods are gone. A watch would be one connection more for a thing that takes moments.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Deletes every object of an app that was applied rather than deployed: all that has its label
/// `app.kubernetes.io/part-of` and was made by Yado. Waits until its Pods are gone. Volumes stay unless `volumes`.
///
/// # Errors
///
/// The API server refuses or cannot be reached, or a Pod does not go.
pub async fn delete_app(
    client: &Client,
    namespace: &str,
    app: &str,
    volumes: bool,
    progress: &Progress,
) -> anyhow::Result<Summary> {
    let selector =
        format!("{}={app},{}={}", labels::APP_PART_OF, labels::APP_MANAGED_BY, labels::MANAGED_BY_YADO);
    let step = progress.step("stop", app);
    // Routes first: what is being stopped should get no more requests.
    let mut destroyed = delete_kind::<Ingress>(client, namespace, &selector).await?;
    let claims = if volumes { claims_of_sets(client, namespace, &selector).await? } else { Vec::new() };
    destroyed += delete_kind::<Deployment>(client, namespace, &selector).await?;
    destroyed += delete_kind::<StatefulSet>(client, namespace, &selector).await?;
    destroyed += delete_kind::<DaemonSet>(client, namespace, &selector).await?;
    destroyed += delete_kind::<CronJob>(client, namespace, &selector).await?;
    destroyed += delete_kind::<Job>(client, namespace, &selector).await?;
    destroyed += delete_kind::<Service>(client, namespace, &selector).await?;
    destroyed += delete_kind::<ConfigMap>(client, namespace, &selector).await?;
    destroyed += delete_kind::<Secret>(client, namespace, &selector).await?;
    let gone =
        wait_gone(client, namespace, &selector, |left| step.detail(format!("{app}, {left} processes left")));
    if tokio::time::timeout(TIMEOUT, gone).await.is_err() {
        step.fail();
        anyhow::bail!("{app} still has Pods after {} s: see `yado ps {app}`", TIMEOUT.as_secs());
    }
    if volumes {
        destroyed += delete_kind::<PersistentVolumeClaim>(client, namespace, &selector).await?;
        let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
        for claim in claims {
            let shown = format!("PersistentVolumeClaim {claim}");
            destroyed += usize::from(delete(&api, &claim, &shown).await?);
        }
    }
    step.done(app);
    Ok(Summary { destroyed, ..Summary::default() })
}

/// Claims of the StatefulSets with these labels.
async fn claims_of_sets(client: &Client, namespace: &str, selector: &str) -> anyhow::Result<Vec<String>> {
    let api: Api<StatefulSet> = Api::namespaced(client.clone(), namespace);
    let sets = match api.list(&ListParams::default().labels(selector)).await {
        // A cluster without this kind has none of them.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Vec::new()),
        found => found.map_err(failed("StatefulSets cannot be listed"))?.items,
    };
    claims::of_sets(client, namespace, &sets).await
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
    let found = match found {
        // A cluster without this kind has none of them.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(0),
        found => found.map_err(failed(format!("{kind}s cannot be listed")))?.items,
    };
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
pub async fn delete_objects(
    client: &Client,
    namespace: &str,
    objects: &[Value],
) -> anyhow::Result<Vec<Outcome>> {
    let mut kinds = Kinds::new(client.clone(), namespace);
    let mut outcomes = Vec::new();
    for object in objects.iter().rev() {
        let api = kinds.api(object).await?;
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        if delete(&api, name, &shown(object)).await? {
            outcomes.push(Outcome { object: shown(object), verb: Verb::Deleted, fields: Vec::new() });
        }
    }
    Ok(outcomes)
}

/// `yado down`, and `yado deploy destroy`.
///
/// # Errors
///
/// There is no such app, the API server refuses, or something does not go.
pub async fn run(global: &Global, args: &DownArgs) -> anyhow::Result<()> {
    let objects = read_manifests(&args.files).await?;
    let scope = Scope::of(global).await?;
    let mut out = std::io::stdout();
    if !args.files.is_empty() {
        let outcomes = delete_objects(&scope.client, &scope.namespaces[0], &objects).await?;
        outcomes.iter().try_for_each(|outcome| writeln!(out, "{outcome}"))?;
        return Ok(writeln!(out, "{}", Summary::of(&outcomes))?);
    }
    let progress = Progress::stderr(global.color);
    let mut apps = apps(&scope, args.volumes).await?;
    if !args.all {
        let app = choose(args.app.as_deref(), &apps, &scope)?;
        return take_down(&scope, &app, &apps, args, &progress).await;
    }
    // Each takes its dependencies along, so what there is left is asked for anew.
    while let Some(app) = own(&apps).into_iter().next() {
        writeln!(out, "{}", app.name)?;
        take_down(&scope, &app, &apps, args, &progress).await?;
        let before = own(&apps).len();
        apps = self::apps(&scope, args.volumes).await?;
        anyhow::ensure!(own(&apps).len() < before, "{} is still there after it was removed", app.name);
    }
    Ok(())
}

async fn take_down(
    scope: &Scope,
    app: &AppName,
    apps: &Apps,
    args: &DownArgs,
    progress: &Progress,
) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    let (AppName { name, namespace }, records) = (app, &apps[app]);
    let Some(record) = records.iter().find(|record| record.app == *name) else {
        let summary = delete_app(&scope.client, namespace, name, args.volumes, progress).await?;
        return Ok(writeln!(out, "{summary}")?);
    };
    if !record.asked && !record.needed_by.is_empty() {
        let users = record.needed_by.iter().cloned().collect::<Vec<_>>().join(", ");
        anyhow::bail!("{name} is needed by {users}: take that down instead, and {name} goes with it");
    }
    let removed = deploy::remove(&scope.client, namespace, record, records, args.volumes, progress).await?;
    for line in removed.outcomes.iter().filter_map(Outcome::diff).chain(removed.kept) {
        writeln!(out, "{line}")?;
    }
    Ok(writeln!(out, "{}", Summary::of(&removed.outcomes))?)
}

/// An app: in two namespaces there may be two of one name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct AppName {
    name: String,
    namespace: String,
}

/// Apps, each with what is remembered in its namespace.
type Apps = BTreeMap<AppName, Vec<Record>>;

/// The apps that Yado deployed or started. With `volumes`, those too of which nothing but volumes is left.
async fn apps(scope: &Scope, volumes: bool) -> anyhow::Result<Apps> {
    let mut apps = Apps::new();
    for namespace in &scope.namespaces {
        let records = record::all(&scope.client, namespace).await?;
        let api: Api<Deployment> = Api::namespaced(scope.client.clone(), namespace);
        let selector = format!("{}={}", labels::APP_MANAGED_BY, labels::MANAGED_BY_YADO);
        let found = api.list(&ListParams::default().labels(&selector)).await;
        let found = found.map_err(failed("Deployments cannot be listed"))?;
        let labelled = found.iter().filter_map(|d| d.labels().get(labels::APP_PART_OF).cloned());
        // Of an app that was taken down there may be volumes, which nobody wants unless they are asked for.
        let recorded = records.iter().filter(|r| r.is_wanted() || volumes).map(|r| r.app.clone());
        for name in labelled.chain(recorded) {
            let namespace = namespace.clone();
            apps.entry(AppName { name, namespace }).or_insert_with(|| records.clone());
        }
    }
    Ok(apps)
}

/// Those that are meant where none is named: not what only others need.
fn own(apps: &Apps) -> Vec<AppName> {
    let own = |(app, records): (&AppName, &Vec<Record>)| {
        let record = records.iter().find(|r| r.app == app.name);
        record.is_none_or(|r| r.asked || !r.is_wanted()).then(|| app.clone())
    };
    apps.iter().filter_map(own).collect()
}

fn choose(wanted: Option<&str>, apps: &Apps, scope: &Scope) -> anyhow::Result<AppName> {
    let home =
        scope.home.as_ref().map(|home| AppName { name: home.app.clone(), namespace: home.namespace.clone() });
    let home = home.filter(|home| apps.contains_key(home));
    let candidates: Vec<AppName> = match wanted {
        Some(name) => apps.keys().filter(|app| app.name == name).cloned().collect(),
        None => Vec::new(),
    };
    let candidates = if candidates.is_empty() { own(apps) } else { candidates };
    chosen(wanted, home, candidates, &scope.shown())
}

/// The app that is meant: the one that is named, that of the working directory, or the only one there is.
fn chosen(
    wanted: Option<&str>,
    home: Option<AppName>,
    candidates: Vec<AppName>,
    place: &str,
) -> anyhow::Result<AppName> {
    let named: Vec<&AppName> =
        candidates.iter().filter(|app| wanted.is_none_or(|wanted| app.name == wanted)).collect();
    let list = candidates.iter().map(|app| app.name.as_str()).collect::<Vec<_>>().join(", ");
    match (wanted, home, named.as_slice()) {
        (None, Some(home), _) => Ok(home),
        (Some(name), Some(home), _) if home.name == name => Ok(home),
        (_, _, [only]) => Ok((*only).clone()),
        (None, _, []) => anyhow::bail!("there is no app in {place}"),
        (None, ..) => Err(crate::Usage(format!("there are several apps, so name one: {list}")).into()),
        (Some(name), _, []) if list.is_empty() => anyhow::bail!("there is no app {name} in {place}"),
        (Some(name), _, []) => anyhow::bail!("there is no app {name} in {place}: there are {list}"),
        (Some(name), _, several) => {
            let namespaces: Vec<&str> = several.iter().map(|app| app.namespace.as_str()).collect();
            let sentence =
                format!("there is an app {name} in namespaces {}: name one with -n", namespaces.join(", "));
            Err(crate::Usage(sentence).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_app_and_that_of_the_working_directory_need_not_be_named() {
        let app = |text: &str| {
            let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
            AppName { name: name.into(), namespace: namespace.into() }
        };
        let check = |wanted, home: Option<&str>, apps: &[&str], expect: &str| {
            let apps: Vec<AppName> = apps.iter().map(|text| app(text)).collect();
            let chosen = chosen(wanted, home.map(app), apps, "namespace default");
            let chosen =
                chosen.map_or_else(|e| e.to_string(), |app| format!("{}/{}", app.namespace, app.name));
            assert_eq!(chosen, expect);
        };
        check(None, None, &["a"], "default/a");
        check(None, None, &[], "there is no app in namespace default");
        check(None, None, &["a", "b"], "there are several apps, so name one: a, b");
        check(None, Some("p2/p2"), &["p1/p1", "p2/p2"], "p2/p2");
        check(Some("p1"), Some("p2/p2"), &["p1/p1", "p2/p2"], "p1/p1");
        check(Some("c"), None, &["a", "b"], "there is no app c in namespace default: there are a, b");
        check(Some("c"), None, &[], "there is no app c in namespace default");
        check(Some("a"), None, &["a", "p/a"], "there is an app a in namespaces default, p: name one with -n");
        check(Some("a"), Some("p/a"), &["a", "p/a"], "p/a");
    }
}
