//! The namespace controller: deletes the contents of a terminating namespace, then lets the namespace itself go.
//!
//! ```text
//! [Namespace] terminating --delete--> its Pods, then everything else in it, of every kind
//!        ^--- conditions, then no finalizer ---'
//! ```
//!
//! Pods go first, as Kubernetes has it since 1.33: what protects them or what they use while they end, such as
//! NetworkPolicies and Secrets, stays until they are gone.
//!
//! Watches Namespaces, and Pods to notice their deletion. Writes the namespaces' conditions and, once a namespace is
//! empty, removes the finalizer `kubernetes` from its spec, upon which the server deletes it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, ListParams, Patch, PostParams};
use kube::{Api, Error, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use yado_reconcile::{Informer, Next, ObjectKey, Queue};

use crate::kinds::{self, ServedKind};
use crate::{Context, writes};

const COMPONENT: &str = "namespace-controller";
/// This controller's finalizer in `spec.finalizers` of a namespace.
const FINALIZER: &str = "kubernetes";
/// Namespaces reconciled concurrently.
const WORKERS: usize = 4;
/// Minimum and maximum delay between two checks of a namespace's remaining contents. Deleted Pods trigger a check at
/// once; other objects rarely remain.
const RECHECK_DELAY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));
/// Minimum time from the deletion of a namespace to the deletion of what is in it besides Pods. `kubectl delete -f` deletes
/// a manifest's objects one after the other, its namespace first, and reports an error for each that is already gone;
/// Kubernetes waits for 5 s.
const CONTENT_DELAY: Duration = Duration::from_secs(1);

/// Contents of a namespace after the deletion of all of them was requested.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    /// Number of remaining objects by kind (`PLURAL.GROUP`).
    pub remaining: BTreeMap<String, usize>,
    /// Finalizers of the remaining objects, with the number of objects that have each.
    pub finalizers: BTreeMap<String, usize>,
    /// Kinds that could not be listed or deleted, each with the server's message.
    pub failures: Vec<String>,
    /// Why discovery of the kinds failed, if it did.
    pub undiscovered: Option<String>,
}

/// A write that a reconcile pass decided on.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Replace the namespace's conditions.
    Conditions(Vec<NamespaceCondition>),
    /// The namespace is empty: remove the finalizer.
    Finalize,
}

/// Decides whether a terminating namespace can be finalized, or which conditions report what remains in it.
pub fn reconcile(namespace: &Namespace, contents: &Contents, now: Timestamp) -> Vec<Action> {
    let empty =
        contents.remaining.is_empty() && contents.failures.is_empty() && contents.undiscovered.is_none();
    if empty {
        return vec![Action::Finalize];
    }
    let before = namespace.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let wanted = conditions(contents);
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    let mut after: Vec<_> =
        before.iter().filter(|c| wanted.iter().all(|(kind, ..)| c.type_ != *kind)).cloned().collect();
    for (kind, holds, reason, message) in wanted {
        let status = if holds { "True" } else { "False" };
        let since = before.iter().find(|c| c.type_ == kind && c.status == status);
        after.push(NamespaceCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: since
                .and_then(|c| c.last_transition_time.clone())
                .or_else(|| Some(now.clone())),
        });
    }
    if after == before { Vec::new() } else { vec![Action::Conditions(after)] }
}

type Wanted = (&'static str, bool, &'static str, String);

fn conditions(contents: &Contents) -> [Wanted; 5] {
    let counted = |counts: &BTreeMap<String, usize>, join: &str| {
        counts.iter().map(|(k, n)| format!("{k}{join}{n} resource instances")).collect::<Vec<_>>().join(", ")
    };
    let discovery = match &contents.undiscovered {
        Some(why) => (true, "DiscoveryFailed", format!("Discovery failed: {why}")),
        None => (false, "ResourcesDiscovered", "All resources successfully discovered".to_owned()),
    };
    let deletion = if contents.failures.is_empty() {
        let message = "All content successfully deleted, may be waiting on finalization".to_owned();
        (false, "ContentDeleted", message)
    } else {
        let message = format!("Failed to delete all resource types: {}", contents.failures.join(", "));
        (true, "ContentDeletionFailed", message)
    };
    let remaining = if contents.remaining.is_empty() {
        (false, "ContentRemoved", "All content successfully removed".to_owned())
    } else {
        let message = format!("Some resources are remaining: {}", counted(&contents.remaining, " has "));
        (true, "SomeResourcesRemain", message)
    };
    let held = if contents.finalizers.is_empty() {
        (false, "ContentHasNoFinalizers", "All content-preserving finalizers finished".to_owned())
    } else {
        let held = counted(&contents.finalizers, " in ");
        (
            true,
            "SomeFinalizersRemain",
            format!("Some content in the namespace has finalizers remaining: {held}"),
        )
    };
    let parsed = "All legacy kube types successfully parsed".to_owned();
    [
        ("NamespaceDeletionDiscoveryFailure", discovery.0, discovery.1, discovery.2),
        ("NamespaceDeletionGroupVersionParsingFailure", false, "ParsedGroupVersions", parsed),
        ("NamespaceDeletionContentFailure", deletion.0, deletion.1, deletion.2),
        ("NamespaceContentRemaining", remaining.0, remaining.1, remaining.2),
        ("NamespaceFinalizersRemaining", held.0, held.1, held.2),
    ]
}

/// What became of the deletion of a namespace's contents.
enum Emptied {
    /// It was requested for all objects that may be deleted yet; these remain.
    Contents(Contents),
    /// There are no Pods, and other objects may be deleted after this time.
    Early(Duration),
}

struct Controller {
    context: Context,
    namespaces: Arc<Informer<Namespace>>,
    /// Terminating namespaces by name, with the monotonic time at which the deletion of their contents began.
    begun: Mutex<HashMap<String, Duration>>,
}

/// Starts the namespace controller; its tasks belong to the context's owner.
pub(crate) fn start(context: &Context) {
    let this = Arc::new(Controller {
        context: context.clone(),
        namespaces: context.informers.all(),
        begun: Mutex::default(),
    });
    let queue = Queue::new(context.clock.clone());
    this.namespaces.feed_queue(&queue, |change| {
        change.new.as_ref().filter(|n| n.metadata.deletion_timestamp.is_some()).map(|n| n.name_any())
    });
    let namespaces = this.namespaces.clone();
    context.informers.all::<Pod>().feed_queue(&queue, move |change| {
        let gone = change.new.is_none().then(|| ObjectKey::new("", change.key.namespace.clone()));
        let namespace = gone.and_then(|key| namespaces.get(&key));
        namespace.filter(|n| n.metadata.deletion_timestamp.is_some()).map(|n| n.name_any())
    });
    context.run("namespaces", &queue, WORKERS, move |name| {
        let this = this.clone();
        async move { this.sync(&name).await }
    });
}

impl Controller {
    async fn sync(&self, name: &str) -> Result<Next, Error> {
        let Some(namespace) = self.namespaces.get(&ObjectKey::new("", name)) else {
            self.begun.lock().remove(name);
            return Ok(Next::Wait);
        };
        let finalizers = namespace.spec.as_ref().and_then(|s| s.finalizers.clone()).unwrap_or_default();
        let Some(since) = &namespace.metadata.deletion_timestamp else { return Ok(Next::Wait) };
        if !finalizers.iter().any(|f| f == FINALIZER) {
            return Ok(Next::Wait);
        }
        let now = self.context.clock.now();
        let monotonic = self.context.clock.monotonic();
        let begun = *self.begun.lock().entry(name.to_owned()).or_insert(monotonic);
        let delay = (begun + CONTENT_DELAY).saturating_sub(monotonic);
        let contents = match self.empty(name, delay).await {
            Emptied::Contents(contents) => contents,
            Emptied::Early(delay) => return Ok(Next::After(delay)),
        };
        for action in reconcile(&namespace, &contents, now) {
            match action {
                Action::Finalize => {
                    let left = finalizers.iter().filter(|f| *f != FINALIZER).cloned().collect();
                    self.finalize(&namespace, left).await?;
                    self.begun.lock().remove(name);
                    return Ok(Next::Wait);
                }
                Action::Conditions(conditions) => {
                    let patch = json!({ "metadata": { "uid": namespace.uid() }, "status": { "conditions": conditions } });
                    let api: Api<Namespace> = Api::all(self.context.client.clone());
                    api.patch_status(name, &writes::params(COMPONENT), &Patch::Merge(&patch)).await?;
                }
            }
        }
        let elapsed = Duration::try_from(now.duration_since(since.0)).unwrap_or_default();
        Ok(Next::After((elapsed / 4).clamp(RECHECK_DELAY.0, RECHECK_DELAY.1)))
    }

    async fn finalize(&self, namespace: &Namespace, left: Vec<String>) -> Result<(), Error> {
        let mut namespace = namespace.clone();
        namespace.spec.get_or_insert_default().finalizers = Some(left);
        let api: Api<Namespace> = Api::all(self.context.client.clone());
        let (name, params) = (namespace.name_any(), PostParams::default());
        match api.replace_subresource("finalize", &name, &params, &namespace).await {
            Err(error) if writes::has_code(&error, 404) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Requests the deletion of the namespace's Pods and, once there are none and `delay` is over, that of all other
    /// objects in it.
    async fn empty(&self, namespace: &str, delay: Duration) -> Emptied {
        let kinds = match kinds::discover(&self.context.client).await {
            Ok(kinds) => kinds,
            Err(error) => {
                let undiscovered = Some(writes::reason(&error));
                return Emptied::Contents(Contents { undiscovered, ..Contents::default() });
            }
        };
        let kinds = kinds.into_iter().filter(|k| k.namespaced && k.can(&["list", "delete"]));
        let (pods, others): (Vec<_>, Vec<_>) =
            kinds.partition(|k| k.resource.group.is_empty() && k.resource.plural == "pods");
        let contents = self.empty_of_all(namespace, &pods).await;
        if contents != Contents::default() {
            return Emptied::Contents(contents);
        }
        if delay.is_zero() {
            Emptied::Contents(self.empty_of_all(namespace, &others).await)
        } else {
            Emptied::Early(delay)
        }
    }

    /// Requests the deletion of all objects of these kinds in the namespace and returns what remains.
    async fn empty_of_all(&self, namespace: &str, kinds: &[ServedKind]) -> Contents {
        let work = kinds.iter().map(|kind| self.empty_of(namespace, kind).boxed()).collect();
        let mut all = Contents::default();
        for (kind, result) in writes::in_parallel(work).await {
            match result {
                Ok(left) => {
                    if !left.is_empty() {
                        all.remaining.insert(kind.name(), left.len());
                    }
                    for finalizer in left.into_iter().flatten() {
                        *all.finalizers.entry(finalizer).or_default() += 1;
                    }
                }
                Err(error) => all.failures.push(format!("{}: {}", kind.name(), writes::reason(&error))),
            }
        }
        all.failures.sort();
        all
    }

    /// Requests the deletion of all objects of a kind and returns the finalizers of each that remains.
    async fn empty_of<'a>(
        &self,
        namespace: &str,
        kind: &'a ServedKind,
    ) -> (&'a ServedKind, Result<Vec<Vec<String>>, Error>) {
        (kind, self.delete_all(namespace, kind).await)
    }

    async fn delete_all(&self, namespace: &str, kind: &ServedKind) -> Result<Vec<Vec<String>>, Error> {
        let api = kind.within(&self.context.client, namespace);
        let all = ListParams::default();
        let listed = api.list(&all).await?.items;
        if listed.is_empty() {
            return Ok(Vec::new());
        }
        let params = DeleteParams::background();
        if listed.iter().any(|o| o.metadata.deletion_timestamp.is_none()) {
            if kind.can(&["deletecollection"]) {
                let api: Api<kube::core::DynamicObject> =
                    Api::namespaced_with(self.context.client.clone(), namespace, &kind.resource);
                api.delete_collection(&params, &all).await?;
            } else {
                for object in &listed {
                    writes::ignore_not_found(api.delete(&object.name_any(), &params).await.map(drop))?;
                }
            }
        }
        let left = api.list(&all).await?.items;
        Ok(left.into_iter().map(|o| o.metadata.finalizers.unwrap_or_default()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(contents: Contents, expect: &[(&str, &str, &str)]) {
        let found = reconcile(&Namespace::default(), &contents, Timestamp::UNIX_EPOCH);
        let [Action::Conditions(conditions)] = found.as_slice() else { panic!("conditions, not {found:?}") };
        for (kind, status, message) in expect {
            let condition = conditions.iter().find(|c| c.type_ == *kind).expect(kind);
            assert_eq!((condition.status.as_str(), condition.message.as_deref()), (*status, Some(*message)));
        }
    }

    #[test]
    fn an_empty_namespace_goes() {
        let actions = reconcile(&Namespace::default(), &Contents::default(), Timestamp::UNIX_EPOCH);
        assert_eq!(actions, [Action::Finalize]);
    }

    #[test]
    fn what_holds_a_namespace_is_said() {
        let remaining = Contents {
            remaining: [("pods.".to_owned(), 2)].into(),
            finalizers: [("a.io/b".to_owned(), 1)].into(),
            ..Contents::default()
        };
        let rows = [
            (
                "NamespaceContentRemaining",
                "True",
                "Some resources are remaining: pods. has 2 resource instances",
            ),
            (
                "NamespaceFinalizersRemaining",
                "True",
                "Some content in the namespace has finalizers remaining: a.io/b in 1 resource instances",
            ),
            ("NamespaceDeletionDiscoveryFailure", "False", "All resources successfully discovered"),
        ];
        check(remaining, &rows);
        let failed = Contents { failures: vec!["pods.: no".into()], ..Contents::default() };
        let message = "Failed to delete all resource types: pods.: no";
        check(failed, &[("NamespaceDeletionContentFailure", "True", message)]);
        let undiscovered = Contents { undiscovered: Some("down".into()), ..Contents::default() };
        check(undiscovered, &[("NamespaceDeletionDiscoveryFailure", "True", "Discovery failed: down")]);
    }

    #[test]
    fn conditions_are_written_once() {
        let contents = Contents { remaining: [("pods.".to_owned(), 2)].into(), ..Contents::default() };
        let first = reconcile(&Namespace::default(), &contents, Timestamp::UNIX_EPOCH);
        let [Action::Conditions(conditions)] = first.as_slice() else { panic!("conditions, not {first:?}") };
        let status = k8s_openapi::api::core::v1::NamespaceStatus {
            conditions: Some(conditions.clone()),
            ..Default::default()
        };
        let namespace = Namespace { status: Some(status), ..Namespace::default() };
        let later = Timestamp::from_second(60).expect("a second of our era");
        assert_eq!(reconcile(&namespace, &contents, later), []);
    }
}
