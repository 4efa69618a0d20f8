//! The I/O of the persistent volume controller: it queues claims and volumes, and applies the actions of each reconcile
//! pass.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, Patch, PostParams};
use kube::{Api, Error, Resource, ResourceExt};
use serde_json::{Value, json};
use yado_reconcile::events::{EventType, Recorder};
use yado_reconcile::{Index, Informer, Next, ObjectKey, Queue, revision_of};
use yado_types::labels::{FINALIZER_CLAIM_IN_USE, FINALIZER_VOLUME_IN_USE, LOCAL_PROVISIONER, SELECTED_NODE};
use yado_types::pod::is_ended;

use super::{Action, BIND_COMPLETED, BOUND_BY_CONTROLLER, Observed, STORAGE_PROVISIONER};
use super::{bind, matching, provision, release};
use crate::pods::OWN_WRITES_TIMEOUT;
use crate::{Context, writes};

const COMPONENT: &str = "persistentvolume-controller";
/// Component name in events of the provisioner, which Kubernetes keeps apart from the controller.
const PROVISIONER: &str = LOCAL_PROVISIONER;

/// A claim, or a volume by name. One worker reconciles both kinds, because two claims must not be bound to one volume.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    Claim(ObjectKey),
    Volume(String),
}

struct Controller {
    context: Context,
    recorder: Recorder,
    provisioner: Recorder,
    claims: Arc<Informer<PersistentVolumeClaim>>,
    volumes: Arc<Informer<PersistentVolume>>,
    classes: Arc<Informer<StorageClass>>,
    nodes: Arc<Informer<Node>>,
    pods: Arc<Informer<Pod>>,
    /// Pods by the keys of the claims that they use.
    users: Arc<Index<ObjectKey, Pod>>,
}

/// Keys of the claims that a Pod's volumes use.
pub(crate) fn claims_of(pod: &Pod) -> Vec<ObjectKey> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let named = volumes.filter_map(|v| v.persistent_volume_claim.as_ref().map(|c| c.claim_name.clone()));
    named.map(|name| ObjectKey::new(namespace.clone(), name)).collect()
}

/// Starts the persistent volume controller; its tasks belong to the context's owner.
pub(crate) fn start(context: &Context) {
    let informers = &context.informers;
    let (claims, volumes) = (informers.all::<PersistentVolumeClaim>(), informers.all::<PersistentVolume>());
    let (classes, pods) = (informers.all::<StorageClass>(), informers.all::<Pod>());
    let queue: Arc<Queue<Key>> = Queue::new(context.clock.clone());
    feed(&queue, &claims, &volumes, &classes, &pods);
    let this = Arc::new(Controller {
        recorder: context.recorder(COMPONENT),
        provisioner: context.recorder(PROVISIONER),
        users: pods.index(claims_of),
        nodes: informers.all::<Node>(),
        context: context.clone(),
        claims,
        volumes,
        classes,
        pods,
    });
    context.run("volumes", &queue, 1, move |key| {
        let this = this.clone();
        async move {
            this.claims.synced().await;
            this.volumes.synced().await;
            this.classes.synced().await;
            this.nodes.synced().await;
            this.pods.synced().await;
            match key {
                Key::Claim(key) => this.claim(&key).await,
                Key::Volume(name) => this.volume(&name).await,
            }
        }
    });
}

fn feed(
    queue: &Arc<Queue<Key>>,
    claims: &Arc<Informer<PersistentVolumeClaim>>,
    volumes: &Arc<Informer<PersistentVolume>>,
    classes: &Arc<Informer<StorageClass>>,
    pods: &Arc<Informer<Pod>>,
) {
    claims.feed_queue(queue, |change| {
        let volume = change.latest().and_then(|c| c.spec.as_ref()?.volume_name.clone());
        let volume = volume.filter(|v| !v.is_empty()).map(Key::Volume);
        volume.into_iter().chain([Key::Claim(change.key.clone())])
    });
    let waiting = claims.clone();
    volumes.feed_queue(queue, move |change| {
        let mut keys = vec![Key::Volume(change.key.name.clone())];
        let of = change.latest().and_then(|v| v.spec.as_ref()?.claim_ref.clone());
        match of {
            Some(of) => keys.push(Key::Claim(ObjectKey::new(
                of.namespace.unwrap_or_default(),
                of.name.unwrap_or_default(),
            ))),
            None => keys.extend(unbound(&waiting)),
        }
        keys
    });
    let waiting = claims.clone();
    classes.feed_queue(queue, move |_| unbound(&waiting));
    let known = claims.clone();
    pods.feed_queue(queue, move |change| {
        // A Pod that ends may have been the last user of a claim that is being deleted.
        let going = |key: &ObjectKey| known.get(key).is_some_and(|c| c.metadata.deletion_timestamp.is_some());
        let keys = change.latest().map(|p| claims_of(p)).unwrap_or_default();
        keys.into_iter().filter(going).map(Key::Claim).collect::<Vec<_>>()
    });
}

/// Claims that are not bound.
fn unbound(claims: &Informer<PersistentVolumeClaim>) -> Vec<Key> {
    let phase = |c: &PersistentVolumeClaim| c.status.as_ref().and_then(|s| s.phase.clone());
    let open = claims.list().into_iter().filter(|c| phase(c).as_deref() != Some("Bound"));
    open.map(|c| Key::Claim(ObjectKey::of(&c.metadata))).collect()
}

impl Controller {
    async fn claim(&self, key: &ObjectKey) -> Result<Next, Error> {
        let Some(claim) = self.claims.get(key) else { return Ok(Next::Wait) };
        let node = claim.metadata.annotations.as_ref().and_then(|a| a.get(SELECTED_NODE));
        let users = self.users.get(key).into_iter().filter(|p| !is_ended(p)).map(|p| p.name_any());
        let observed = Observed {
            claim: &claim,
            volumes: self.volumes.list(),
            class: self.classes.get(&ObjectKey::new("", matching::class_of(&claim))),
            node: node.and_then(|name| self.nodes.get(&ObjectKey::new("", name))),
            users: users.collect(),
            provider: self.context.config.directories.as_ref().map(|d| d.node().to_owned()),
        };
        for action in bind::reconcile(&observed) {
            match self.apply(&claim, observed.class.as_deref(), action).await {
                // The object has changed since; its watch event triggers the next pass.
                Err(error) if writes::has_code(&error, 409) => return Ok(Next::Wait),
                Err(error) if writes::has_code(&error, 404) => return Ok(Next::Wait),
                other => other?,
            }
        }
        Ok(Next::Wait)
    }

    async fn apply(
        &self,
        claim: &PersistentVolumeClaim,
        class: Option<&StorageClass>,
        action: Action,
    ) -> Result<(), Error> {
        match action {
            Action::Reserve(volume) => self.reserve(&volume, claim).await,
            Action::Bind(volume) => self.bind(claim, &volume).await,
            Action::Provision { node } => match class {
                Some(class) => self.provision(claim, class, &node).await,
                None => Ok(()),
            },
            Action::Grow(volume, size) => {
                let patch = json!({ "spec": { "capacity": { "storage": size } } });
                self.patch_volume(&volume, &patch, false).await
            }
            Action::Phase(phase) => {
                let status = json!({ "phase": phase });
                self.patch_claim(
                    claim,
                    &json!({ "metadata": { "uid": claim.uid() }, "status": status }),
                    true,
                )
                .await
            }
            Action::ForgetNode => {
                let patch = json!({ "metadata": { "annotations": { SELECTED_NODE: null } } });
                self.patch_claim(claim, &patch, false).await
            }
            Action::RemoveFinalizer => {
                let patch = without_finalizer(&claim.metadata, FINALIZER_CLAIM_IN_USE);
                self.patch_claim(claim, &patch, false).await
            }
            Action::Event(warning, reason, message) => {
                let kind = if warning { EventType::Warning } else { EventType::Normal };
                self.recorder.event(&claim.object_ref(&()), kind, reason, message);
                Ok(())
            }
        }
    }

    /// Writes the volume's `claimRef`, unless it has it. Fails with 409 if the volume has changed since.
    async fn reserve(&self, volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), Error> {
        let of = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
        if of.is_some_and(|of| of.uid == claim.metadata.uid) {
            return Ok(());
        }
        let mut patch = json!({
            "metadata": { "resourceVersion": volume.metadata.resource_version },
            "spec": { "claimRef": provision::reference(claim) },
        });
        if of.is_none() {
            patch["metadata"]["annotations"] = json!({ BOUND_BY_CONTROLLER: "yes" });
        }
        self.patch_volume(volume, &patch, false).await
    }

    async fn bind(&self, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<(), Error> {
        let named = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
        let mut annotations = json!({ BIND_COMPLETED: "yes" });
        if named.is_empty() {
            annotations[BOUND_BY_CONTROLLER] = "yes".into();
        }
        let patch = json!({
            "metadata": { "uid": claim.uid(), "annotations": annotations },
            "spec": { "volumeName": volume.name_any() },
        });
        self.patch_claim(claim, &patch, false).await?;
        let spec = volume.spec.as_ref();
        let status = json!({ "metadata": { "uid": claim.uid() }, "status": {
            "phase": "Bound",
            "accessModes": spec.and_then(|s| s.access_modes.clone()),
            "capacity": spec.and_then(|s| s.capacity.clone()),
        } });
        self.patch_claim(claim, &status, true).await
    }

    async fn provision(
        &self,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
        node: &str,
    ) -> Result<(), Error> {
        let Some(directories) = &self.context.config.directories else { return Ok(()) };
        let path = directories.path(&provision::directory_name(claim));
        let annotations = json!({ STORAGE_PROVISIONER: LOCAL_PROVISIONER });
        self.patch_claim(claim, &json!({ "metadata": { "annotations": annotations } }), false).await?;
        let volume = provision::volume(claim, class, node, path);
        let api: Api<PersistentVolume> = Api::all(self.context.client.clone());
        let about = claim.object_ref(&());
        let made = match api.create(&PostParams::default(), &volume).await {
            Ok(made) => made,
            // It exists already, and the informer has not shown it yet.
            Err(error) if writes::has_code(&error, 409) => return Ok(()),
            Err(error) => {
                let message = writes::reason(&error);
                self.provisioner.event(&about, EventType::Warning, "ProvisioningFailed", message);
                return Err(error);
            }
        };
        let message = format!("Successfully provisioned volume {}", made.name_any());
        self.provisioner.event(&about, EventType::Normal, "ProvisioningSucceeded", message);
        self.volumes.seen(revision_of(made.metadata.resource_version.as_deref()), OWN_WRITES_TIMEOUT).await;
        self.bind(claim, &made).await
    }

    async fn volume(&self, name: &str) -> Result<Next, Error> {
        let Some(volume) = self.volumes.get(&ObjectKey::new("", name)) else { return Ok(Next::Wait) };
        let of = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
        let key = of.map(|of| {
            ObjectKey::new(of.namespace.clone().unwrap_or_default(), of.name.clone().unwrap_or_default())
        });
        let mut claim = key.as_ref().and_then(|key| self.claims.get(key));
        let actions = release::reconcile(&volume, claim.as_deref());
        let ends =
            |a: &release::Action| matches!(a, release::Action::Reclaim | release::Action::RemoveFinalizer);
        let mut decided = actions;
        if let Some(key) = key.filter(|_| decided.iter().any(ends)) {
            // Before data is deleted, the claim is read from the server, since watches of two kinds are not in step.
            let api: Api<PersistentVolumeClaim> =
                Api::namespaced(self.context.client.clone(), &key.namespace);
            claim = api.get_opt(&key.name).await?.map(Arc::new);
            decided = release::reconcile(&volume, claim.as_deref());
        }
        for action in decided {
            match self.apply_to_volume(&volume, action).await {
                Err(error) if writes::has_code(&error, 404) || writes::has_code(&error, 409) => {
                    return Ok(Next::Wait);
                }
                other => other?,
            }
        }
        Ok(Next::Wait)
    }

    async fn apply_to_volume(&self, volume: &PersistentVolume, action: release::Action) -> Result<(), Error> {
        match action {
            release::Action::Phase(phase) => {
                let patch = json!({ "metadata": { "uid": volume.uid() }, "status": { "phase": phase } });
                self.patch_volume(volume, &patch, true).await
            }
            release::Action::RemoveFinalizer => {
                let patch = without_finalizer(&volume.metadata, FINALIZER_VOLUME_IN_USE);
                self.patch_volume(volume, &patch, false).await
            }
            release::Action::Warn(reason, message) => {
                self.recorder.event(&volume.object_ref(&()), EventType::Warning, reason, message);
                Ok(())
            }
            release::Action::Reclaim => self.reclaim(volume).await,
        }
    }

    /// Removes the directory, then the volume. If the directory cannot be removed, the volume is kept and an event says why.
    async fn reclaim(&self, volume: &PersistentVolume) -> Result<(), Error> {
        let directory = provision::directory(volume).map(str::to_owned);
        if let (Some(directories), Some(path)) = (&self.context.config.directories, directory)
            && let Err(error) = directories.remove(path).await
        {
            let about = volume.object_ref(&());
            self.recorder.event(&about, EventType::Warning, "VolumeFailedDelete", error.to_string());
            return Ok(());
        }
        let params = DeleteParams {
            preconditions: writes::same_object(&volume.metadata),
            ..DeleteParams::background()
        };
        let api: Api<PersistentVolume> = Api::all(self.context.client.clone());
        writes::ignore_not_found(api.delete(&volume.name_any(), &params).await.map(drop))
    }

    async fn patch_claim(
        &self,
        claim: &PersistentVolumeClaim,
        patch: &Value,
        status: bool,
    ) -> Result<(), Error> {
        let api: Api<PersistentVolumeClaim> =
            writes::api_in_namespace_of(&self.context.client, &claim.metadata);
        let (name, params, patch) = (claim.name_any(), writes::params(COMPONENT), Patch::Merge(patch));
        let written = match status {
            true => api.patch_status(&name, &params, &patch).await?,
            false => api.patch(&name, &params, &patch).await?,
        };
        self.claims.seen(revision_of(written.metadata.resource_version.as_deref()), OWN_WRITES_TIMEOUT).await;
        Ok(())
    }

    async fn patch_volume(
        &self,
        volume: &PersistentVolume,
        patch: &Value,
        status: bool,
    ) -> Result<(), Error> {
        let api: Api<PersistentVolume> = Api::all(self.context.client.clone());
        let (name, params, patch) = (volume.name_any(), writes::params(COMPONENT), Patch::Merge(patch));
        let written = match status {
            true => api.patch_status(&name, &params, &patch).await?,
            false => api.patch(&name, &params, &patch).await?,
        };
        self.volumes
            .seen(revision_of(written.metadata.resource_version.as_deref()), OWN_WRITES_TIMEOUT)
            .await;
        Ok(())
    }
}

/// The merge patch that removes a finalizer from an object, if it has not changed since.
fn without_finalizer(
    meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    finalizer: &str,
) -> Value {
    let mut finalizers = meta.finalizers.clone().unwrap_or_default();
    finalizers.retain(|f| f != finalizer);
    let left = if finalizers.is_empty() { Value::Null } else { json!(finalizers) };
    json!({ "metadata": { "resourceVersion": meta.resource_version, "finalizers": left } })
}
