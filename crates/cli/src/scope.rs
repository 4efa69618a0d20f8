//! Where commands on what runs look: the namespace in force and, unless one was named, those that Yado made for
//! descriptions that have one of their own, as compose projects do.

use std::path::Path;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{Api, Client, ResourceExt, api::ListParams};
use yado_types::labels;

use crate::{
    args::Global,
    connect::{connect, failed},
    deploy::record,
    process::{self, AppPods, Precision, ProcessNames},
    source::Source,
    workloads,
};

/// A client, and namespaces to look in.
pub struct Scope {
    /// The client.
    pub client: Client,
    /// The namespace in force first.
    pub namespaces: Vec<String>,
    /// The app that was deployed from the working directory, unless a namespace was named.
    pub home: Option<AppPods>,
}

/// Pods that a command is about.
pub struct Chosen {
    /// Process names and Pods.
    pub found: Vec<(String, Pod)>,
    /// Where they are.
    pub namespaces: Vec<String>,
    /// The app that all of them are of, where only one is meant.
    pub app: Option<AppPods>,
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
        let home = match global.namespace {
            None => home(&client).await,
            Some(_) => None,
        };
        Ok(Scope { client, namespaces, home })
    }

    /// The Pods that `wanted` means, or all of them: those of the working directory's app where it has any, unless `all`.
    ///
    /// # Errors
    ///
    /// There are none, or they are of several apps.
    pub async fn chosen(&self, wanted: Option<&str>, all: bool) -> anyhow::Result<Chosen> {
        let pods = self.pods().await?;
        let mut names = ProcessNames::of(&pods);
        let named = pods.into_iter().map(|pod| (names.name(&pod), pod));
        let meant = |process: &str, pod: &Pod| wanted.is_none_or(|w| process::matches(pod, process, w));
        let mut found: Vec<(String, Pod)> = named.filter(|(process, pod)| meant(process, pod)).collect();
        if let Some(home) = self.home.as_ref().filter(|_| !all) {
            let of_home = |(_, pod): &(String, Pod)| home.has(pod);
            if wanted.is_none() || found.iter().any(of_home) {
                found.retain(of_home);
                let namespaces = vec![home.namespace.clone()];
                return Ok(Chosen { found, namespaces, app: Some(home.clone()) });
            }
        }
        if let Some(wanted) = wanted {
            anyhow::ensure!(
                !found.is_empty(),
                "there is no app, process or Pod {wanted} in {}: see `yado ps`",
                self.shown()
            );
        }
        Ok(Chosen { found, namespaces: self.namespaces.clone(), app: None })
    }

    /// Everything in the namespaces, of which nothing is known yet.
    pub fn whole(&self) -> Chosen {
        Chosen { found: Vec::new(), namespaces: self.namespaces.clone(), app: None }
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

impl Chosen {
    /// That the Pods which a word means are of one app.
    ///
    /// # Errors
    ///
    /// They are of several: which one is meant is for the user to say.
    pub fn of_one_app(&self, wanted: &str) -> anyhow::Result<()> {
        let app = |pod: &Pod| (pod.namespace(), pod.labels().get(labels::APP_NAME).cloned());
        let Some((_, first)) = self.found.first() else { return Ok(()) };
        if self.found.iter().all(|(_, pod)| app(pod) == app(first)) {
            return Ok(());
        }
        let part_of = |pod: &Pod| (pod.namespace(), pod.labels().get(labels::APP_PART_OF).cloned());
        // An app's name means the applications that it depends on as well.
        if self
            .found
            .iter()
            .all(|(_, pod)| part_of(pod) == part_of(first) && part_of(pod).1.as_deref() == Some(wanted))
        {
            return Ok(());
        }
        let pods: Vec<(&str, &Pod)> =
            self.found.iter().map(|(process, pod)| (process.as_str(), pod)).collect();
        anyhow::bail!(
            "{wanted} may mean {}: name one, with -n NAMESPACE where the names are the same",
            listed(&pods)
        )
    }
}

/// The app that was deployed from the working directory. Who may not list what is deployed has none.
async fn home(client: &Client) -> Option<AppPods> {
    let here = Source::of(Path::new(".")).ok()?;
    let records = record::everywhere(client).await.ok()?;
    let mut own =
        records.into_iter().filter(|(_, r)| r.asked && r.source.as_ref().is_some_and(|s| s.is_in(&here)));
    let (namespace, record) = own.next()?;
    // Several apps, as of several manifests of one directory: none of them is meant more than another.
    if own.next().is_some() {
        return None;
    }
    let workloads = record.objects.into_iter().filter(|key| workloads::KINDS.contains(&key.kind.as_str()));
    Some(AppPods { app: record.app, namespace, workloads: workloads.map(|key| key.name).collect() })
}

/// Pods with their process names, and how precisely a word names each.
type Candidate<'a> = (Precision, &'a str, &'a Pod);

/// The Pods that a word means most precisely.
///
/// # Errors
///
/// They are processes of different types: which one is meant is for the user to say.
pub fn unambiguous<'a>(
    wanted: &str,
    candidates: Vec<Candidate<'a>>,
) -> anyhow::Result<Vec<(&'a str, &'a Pod)>> {
    let Some(best) = candidates.iter().map(|(precision, ..)| *precision).min() else { return Ok(Vec::new()) };
    let meant: Vec<(&str, &Pod)> =
        candidates.into_iter().filter(|(p, ..)| *p == best).map(|(_, process, pod)| (process, pod)).collect();
    let kind = |pod: &Pod| (pod.namespace(), process::group(pod).unwrap_or_else(|| owner(pod)));
    let mut kinds: Vec<_> = meant.iter().map(|(_, pod)| kind(pod)).collect();
    kinds.sort();
    kinds.dedup();
    if kinds.len() > 1 {
        anyhow::bail!(
            "{wanted} may mean {}: name one, with -n NAMESPACE where the names are the same",
            listed(&meant)
        );
    }
    Ok(meant)
}

/// `p1.web.1 in namespace p1 or p2.web.1 in namespace p2`.
pub fn listed(pods: &[(&str, &Pod)]) -> String {
    let shown = |(process, pod): &(&str, &Pod)| {
        format!("{process} in namespace {}", pod.metadata.namespace.as_deref().unwrap_or_default())
    };
    pods.iter().map(shown).collect::<Vec<_>>().join(" or ")
}

fn owner(pod: &Pod) -> String {
    let owner = pod.owner_references().first().map(|owner| owner.name.clone());
    owner.unwrap_or_else(|| pod.name_any())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(namespace: &str, app: &str, component: &str, number: usize) -> Pod {
        let labels =
            json!({labels::APP_NAME: app, labels::APP_COMPONENT: component, labels::APP_PART_OF: app});
        let name = format!("{app}-{component}-1-{number}");
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": namespace, "labels": labels}}))
            .unwrap()
    }

    #[test]
    fn a_word_that_means_several_process_types_is_a_question() {
        let pods = [
            pod("p1", "p1", "web", 1),
            pod("p1", "p1", "web", 2),
            pod("p1", "p1", "db", 1),
            pod("p2", "p2", "web", 1),
            pod("other", "p2", "web", 1),
            pod("p3", "db", "app", 1),
        ];
        let mut names = ProcessNames::of(&pods);
        let named: Vec<(String, &Pod)> = pods.iter().map(|pod| (names.name(pod), pod)).collect();
        let check = |wanted: &str, expect: &str| {
            let candidates = named.iter().filter_map(|(process, pod)| {
                Some((process::precision(pod, process, wanted)?, process.as_str(), *pod))
            });
            let meant = unambiguous(wanted, candidates.collect());
            let meant = meant.map_or_else(|question| question.to_string(), |meant| listed(&meant));
            assert_eq!(meant, expect, "{wanted}");
        };
        check("p1.web", "p1.web.1 in namespace p1 or p1.web.2 in namespace p1");
        check("p1.web.2", "p1.web.2 in namespace p1");
        // The full name of one is not a guess at the process type of another.
        check("db", "db.1 in namespace p3");
        check(
            "p2.web.1",
            "p2.web.1 may mean p2.web.1 in namespace p2 or p2.web.1 in namespace other: name one, with -n NAMESPACE where the names are the same",
        );
        check(
            "p1",
            "p1 may mean p1.web.1 in namespace p1 or p1.web.2 in namespace p1 or p1.db.1 in namespace p1: name one, with -n NAMESPACE where the names are the same",
        );
        check("nothing", "");
    }
}
