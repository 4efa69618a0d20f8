//! The loop around the decisions on claims and volumes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, Patch, PostParams};
use kube::{Api, Error, Resource, ResourceExt};
use serde_json::{Value, json};
use yado_reconcile::events::{EventType, Recorder};
use yado_reconcile::{Index, Next, ObjectKey, Queue, Watch, revision_of};
use yado_types::labels::{FINALIZER_CLAIM_IN_USE, FINALIZER_VOLUME_IN_USE, LOCAL_PROVISIONER, SELECTED_NODE};
use yado_types::pod::is_ended;

use super::{Action, BIND_COMPLETED, BOUND_BY_CONTROLLER, Observed, STORAGE_PROVISIONER};
use super::{bind, matching, provision, release};
use crate::pods::OWN_WRITES;
use crate::{Context, writes};

const COMPONENT: &str = "persistentvolume-controller";
/// What makes volumes speaks under a name of its own.
const PROVISIONER: &str = LOCAL_PROVISIONER;

/// Claims and volumes are looked at by one worker, one after the other: two claims must not choose one volume.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    Claim(ObjectKey),
    Volume(String),
}

struct Loop {
    context: Context,
    recorder: Recorder,
    provisioner: Recorder,
    claims: Arc<Watch<PersistentVolumeClaim>>,
    volumes: Arc<Watch<PersistentVolume>>,
    classes: Arc<Watch<StorageClass>>,
    nodes: Arc<Watch<Node>>,
    pods: Arc<Watch<Pod>>,
    /// Pods by the claims that they use.
    users: Arc<Index<ObjectKey, Pod>>,
}

/// Claims that a Pod uses.
pub(crate) fn claims_of(pod: &Pod) -> Vec<ObjectKey> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let named = volumes.filter_map(|v| v.persistent_volume_claim.as_ref().map(|c| c.claim_name.clone()));
    named.map(|name| ObjectKey::new(namespace.clone(), name)).collect()
}

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    let watches = &context.watches;
    let (claims, volumes) = (watches.all::<PersistentVolumeClaim>(), watches.all::<PersistentVolume>());
    let (classes, pods) = (watches.all::<StorageClass>(), watches.all::<Pod>());
    let queue: Arc<Queue<Key>> = Queue::new(context.clock.clone());
    feed(&queue, &claims, &volumes, &classes, &pods);
    let this = Arc::new(Loop {
        recorder: context.recorder(COMPONENT),
        provisioner: context.recorder(PROVISIONER),
        users: pods.index(claims_of),
        nodes: watches.all::<Node>(),
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
    claims: &Arc<Watch<PersistentVolumeClaim>>,
    volumes: &Arc<Watch<PersistentVolume>>,
    classes: &Arc<Watch<StorageClass>>,
    pods: &Arc<Watch<Pod>>,
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
        // A Pod that goes or ends may be the last user of a claim that is to go.
        let going = |key: &ObjectKey| known.get(key).is_some_and(|c| c.metadata.deletion_timestamp.is_some());
        let keys = change.latest().map(|p| claims_of(p)).unwrap_or_default();
        keys.into_iter().filter(going).map(Key::Claim).collect::<Vec<_>>()
    });
}

/// Claims that look for a volume.
fn unbound(claims: &Watch<PersistentVolumeClaim>) -> Vec<Key> {
    let phase = |c: &PersistentVolumeClaim| c.status.as_ref().and_then(|s| s.phase.clone());
    let open = claims.list().into_iter().filter(|c| phase(c).as_deref() != Some("Bound"));
    open.map(|c| Key::Claim(ObjectKey::of(&c.metadata))).collect()
}

impl Loop {
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
                // Somebody else wrote in between; their change brings us back.
                Err(error) if writes::is_code(&error, 409) => return Ok(Next::Wait),
                Err(error) if writes::is_code(&error, 404) => return Ok(Next::Wait),
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
            Action::LetGo => {
                let patch = without_finalizer(&claim.metadata, FINALIZER_CLAIM_IN_USE);
                self.patch_claim(claim, &patch, false).await
            }
            Action::Tell(warning, reason, message) => {
                let kind = if warning { EventType::Warning } else { EventType::Normal };
                self.recorder.event(&claim.object_ref(&()), kind, reason, message);
                Ok(())
            }
        }
    }

    /// The volume is the claim's from now on; a race for it is lost with 409.
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
            // Made before and not seen yet.
            Err(error) if writes::is_code(&error, 409) => return Ok(()),
            Err(error) => {
                let message = writes::reason(&error);
                self.provisioner.event(&about, EventType::Warning, "ProvisioningFailed", message);
                return Err(error);
            }
        };
        let message = format!("Successfully provisioned volume {}", made.name_any());
        self.provisioner.event(&about, EventType::Normal, "ProvisioningSucceeded", message);
        self.volumes.seen(revision_of(made.metadata.resource_version.as_deref()), OWN_WRITES).await;
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
        let ends = |a: &release::Action| matches!(a, release::Action::Reclaim | release::Action::LetGo);
        let mut decided = actions;
        if let Some(key) = key.filter(|_| decided.iter().any(ends)) {
            // Before anything is lost, the server itself is asked: the watches of two kinds keep no common pace.
            let api: Api<PersistentVolumeClaim> =
                Api::namespaced(self.context.client.clone(), &key.namespace);
            claim = api.get_opt(&key.name).await?.map(Arc::new);
            decided = release::reconcile(&volume, claim.as_deref());
        }
        for action in decided {
            match self.apply_to_volume(&volume, action).await {
                Err(error) if writes::is_code(&error, 404) || writes::is_code(&error, 409) => {
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
            release::Action::LetGo => {
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

    /// Removes the directory, then the volume; what cannot be removed stays, and its user is told.
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
        writes::gone_is_fine(api.delete(&volume.name_any(), &params).await.map(drop))
    }

    async fn patch_claim(
        &self,
        claim: &PersistentVolumeClaim,
        patch: &Value,
        status: bool,
    ) -> Result<(), Error> {
        let api: Api<PersistentVolumeClaim> = writes::beside(&self.context.client, &claim.metadata);
        let (name, params, patch) = (claim.name_any(), writes::params(COMPONENT), Patch::Merge(patch));
        let written = match status {
            true => api.patch_status(&name, &params, &patch).await?,
            false => api.patch(&name, &params, &patch).await?,
        };
        self.claims.seen(revision_of(written.metadata.resource_version.as_deref()), OWN_WRITES).await;
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
        self.volumes.seen(revision_of(written.metadata.resource_version.as_deref()), OWN_WRITES).await;
        Ok(())
    }
}

/// The merge patch that takes a finalizer off an object, if it is still the same.
fn without_finalizer(
    meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    finalizer: &str,
) -> Value {
    let mut finalizers = meta.finalizers.clone().unwrap_or_default();
    finalizers.retain(|f| f != finalizer);
    let left = if finalizers.is_empty() { Value::Null } else { json!(finalizers) };
    json!({ "metadata": { "resourceVersion": meta.resource_version, "finalizers": left } })
}
