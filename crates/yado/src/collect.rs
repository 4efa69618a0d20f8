//! The images of a running engine are kept within bounds: what nothing uses goes, the longest unused first.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use yado_node::Node;
use yado_oci::image::{Bounds, Freed, ImageStore, Keep};
use yado_reconcile::{Clock, Informer, Informers, Tasks};

/// As often as a kubelet looks.
const PERIOD: Duration = Duration::from_secs(300);

/// Knows what of the images is to be kept.
#[derive(Clone)]
pub struct Keeper {
    images: ImageStore,
    node: Node,
    pods: Arc<Informer<Pod>>,
}

impl Keeper {
    /// Of the images that `node` runs containers from.
    pub fn new(images: ImageStore, node: Node, informers: &Informers) -> Self {
        Self { images, node, pods: informers.all::<Pod>() }
    }

    /// The images.
    pub fn images(&self) -> &ImageStore {
        &self.images
    }

    /// The node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Looks now and then until the tasks are stopped.
    pub fn start(&self, clock: Arc<dyn Clock>, tasks: &Tasks) {
        let keeper = self.clone();
        tasks.spawn("image collection", async move {
            loop {
                clock.sleep(PERIOD).await;
                match keeper.tidy(Bounds::default()).await {
                    Ok(freed) if freed == Freed::default() => {}
                    Ok(Freed { images, layers, bytes }) => {
                        tracing::info!(images, layers, bytes, "removed what nothing used");
                    }
                    Err(error) => tracing::warn!("images are not collected: {error:#}"),
                }
            }
        });
    }

    /// Removes what nothing uses and is beyond the bounds.
    pub async fn tidy(&self, bounds: Bounds) -> Result<Freed> {
        // Before all Pods are known, and their containers found again, everything would seem unused.
        self.pods.synced().await;
        self.node.ready().await;
        let keep = Keep { in_use: self.node.images_in_use(), named: self.named() };
        let images = self.images.clone();
        let tidied = tokio::task::spawn_blocking(move || images.tidy(&keep, &bounds));
        Ok(tidied.await.context("it ended early")??)
    }

    /// What Pods that are there ask for.
    fn named(&self) -> BTreeSet<String> {
        let pods = self.pods.list();
        let specs = pods.iter().filter_map(|pod| pod.spec.as_ref());
        let containers =
            specs.flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
        containers.filter_map(|container| container.image.clone()).collect()
    }
}
