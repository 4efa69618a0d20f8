//! The Pod garbage collector: deletes Pods that no node and no other controller deletes.
//!
//! ```text
//! [Node] gone, [Pod] ended --> delete [Pod]
//! ```
//!
//! Watches Pods and Nodes. Deletes, with a grace period of 0, Pods bound to nodes that do not exist, terminating Pods that
//! were never bound, and the oldest ended Pods in excess of a maximum. To those that have not ended it writes the phase
//! `Failed` first, since nobody else will.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::DeleteParams;
use kube::{Api, Error, ResourceExt};
use parking_lot::Mutex;
use yado_reconcile::{Informer, Next, ObjectKey, Queue};
use yado_types::pod::{is_ended, is_terminating, node_name};

use crate::{Context, writes};

const COMPONENT: &str = "pod-garbage-collector";
/// Delay between the end of a Pod and the count of ended Pods, so that many that end together are counted once.
const COUNT_AFTER: Duration = Duration::from_secs(5);

/// The Pods to delete. `lost` holds the names of nodes that have been missing for the whole grace period.
fn reconcile(pods: &[Arc<Pod>], lost: &HashSet<String>, ended_kept: usize) -> Vec<Arc<Pod>> {
    let nowhere = |p: &Pod| match node_name(p) {
        Some(node) => lost.contains(node),
        None => is_terminating(p),
    };
    let (mut gone, rest): (Vec<_>, Vec<_>) = pods.iter().cloned().partition(|p| nowhere(p));
    let mut ended: Vec<_> = rest.into_iter().filter(|p| is_ended(p) && !is_terminating(p)).collect();
    let surplus = ended.len().saturating_sub(ended_kept);
    ended.sort_by_key(|p| p.metadata.creation_timestamp.as_ref().map(|t| t.0));
    gone.extend(ended.into_iter().take(surplus));
    gone
}

struct Controller {
    context: Context,
    pods: Arc<Informer<Pod>>,
    nodes: Arc<Informer<Node>>,
    /// Nodes that Pods are bound to and that do not exist, with when that was first observed by the monotonic clock.
    missing: Mutex<HashMap<String, Duration>>,
}

/// Starts the Pod garbage collector; its tasks belong to the context's owner.
pub(crate) fn start(context: &Context) {
    let (pods, nodes) = (context.informers.all::<Pod>(), context.informers.all::<Node>());
    let queue: Arc<Queue<()>> = Queue::new(context.clock.clone());
    let to = queue.clone();
    nodes.feed(move |change| {
        if change.new.is_none() {
            to.add(());
        }
    });
    let (to, known) = (queue.clone(), nodes.clone());
    pods.feed(move |change| {
        let Some(pod) = &change.new else { return };
        let was_ended = change.old.as_ref().is_some_and(|p| is_ended(p));
        match node_name(pod) {
            None if is_terminating(pod) => to.add(()),
            Some(node) if known.get(&ObjectKey::new("", node)).is_none() => to.add(()),
            _ if is_ended(pod) && !was_ended => to.add_after((), COUNT_AFTER),
            _ => {}
        }
    });
    let this = Arc::new(Controller { context: context.clone(), pods, nodes, missing: Mutex::default() });
    context.run("pod-gc", &queue, 1, move |()| {
        let this = this.clone();
        async move { this.collect().await }
    });
}

impl Controller {
    async fn collect(&self) -> Result<Next, Error> {
        self.nodes.synced().await;
        self.pods.synced().await;
        let pods = self.pods.list();
        let (lost, next) = self.lost(&pods);
        for pod in reconcile(&pods, &lost, self.context.config.ended_pods_kept) {
            self.fail(&pod).await?;
            let params = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: writes::same_object(&pod.metadata),
                ..DeleteParams::background()
            };
            let api: Api<Pod> = writes::api_in_namespace_of(&self.context.client, &pod.metadata);
            tracing::info!(pod = %ObjectKey::of(&pod.metadata), "deleting a Pod that ended or has no node");
            writes::ignore_not_found(api.delete(&pod.name_any(), &params).await.map(drop))?;
        }
        Ok(next)
    }

    /// Writes that a Pod has failed, unless it has ended: what waits for its end, as a Job may, would wait for ever.
    async fn fail(&self, pod: &Pod) -> Result<(), Error> {
        if is_ended(pod) {
            return Ok(());
        }
        let mut status = serde_json::json!({ "phase": "Failed" });
        if node_name(pod).is_some() {
            let (reason, message) = ("DeletionByPodGC", "PodGC: node no longer exists");
            let condition = writes::disruption(pod, reason, message, self.context.clock.now());
            status["conditions"] = serde_json::json!([condition]);
        }
        writes::pod_status(&self.context.client, pod, COMPONENT, &status).await
    }

    /// Nodes that have been missing for the whole grace period, and when the next one will have been.
    fn lost(&self, pods: &[Arc<Pod>]) -> (HashSet<String>, Next) {
        let (now, grace) = (self.context.clock.monotonic(), self.context.config.lost_node_grace);
        let named: HashSet<_> = pods.iter().filter_map(|p| node_name(p)).collect();
        let gone = named.into_iter().filter(|n| self.nodes.get(&ObjectKey::new("", *n)).is_none());
        let gone: HashSet<_> = gone.map(str::to_owned).collect();
        let mut missing = self.missing.lock();
        missing.retain(|node, _| gone.contains(node));
        for node in gone {
            missing.entry(node).or_insert(now);
        }
        let waits = |since: &Duration| grace.saturating_sub(now.saturating_sub(*since));
        let lost = missing.iter().filter(|(_, s)| waits(s).is_zero()).map(|(n, _)| n.clone()).collect();
        let next = missing.values().map(waits).filter(|w| !w.is_zero()).min();
        (lost, next.map_or(Next::Wait, Next::After))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(pods: &[(&str, Value)], kept: usize, expect: &[&str]) {
        let pods: Vec<_> = pods
            .iter()
            .enumerate()
            .map(|(i, (name, value))| {
                let mut value = value.clone();
                value["metadata"]["name"] = json!(name);
                value["metadata"]["creationTimestamp"] = json!(format!("2026-01-01T00:00:{i:02}Z"));
                Arc::new(serde_json::from_value::<Pod>(value).expect("a Pod"))
            })
            .collect();
        let lost = HashSet::from(["lost".to_owned()]);
        let gone: Vec<_> = reconcile(&pods, &lost, kept).iter().map(|p| p.name_any()).collect();
        assert_eq!(gone, expect);
    }

    #[test]
    fn what_has_no_node_and_the_oldest_ended_go() {
        let deleting = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let ended = json!({"spec": {"nodeName": "a", "containers": []}, "status": {"phase": "Failed"}});
        check(&[("a", json!({"spec": {"nodeName": "lost", "containers": []}}))], 0, &["a"]);
        check(&[("a", json!({"spec": {"nodeName": "there", "containers": []}}))], 0, &[]);
        check(&[("a", deleting), ("b", json!({}))], 0, &["a"]);
        check(&[("a", ended.clone()), ("b", ended.clone()), ("c", ended)], 2, &["a"]);
    }
}
