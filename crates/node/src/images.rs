//! Images for containers: policy, pull secrets, one pull at a time per name.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use k8s_openapi::api::core::v1::{Container, Secret};
use parking_lot::Mutex;
use yado_oci::image::{Image, ImageError, ImageStore, Progress, Reference, RegistryAuth, RegistryAuths};

/// First delay before an image is asked for again; Kubernetes' value. Each further failure doubles it.
const RETRY_FIRST: Duration = Duration::from_secs(10);
/// The longest such delay; Kubernetes' value.
const RETRY_LONGEST: Duration = Duration::from_secs(300);
/// How long `ErrImagePull` is shown before `ImagePullBackOff` takes its place.
pub(crate) const SHOWN_AS_ERROR: Duration = Duration::from_secs(2);

/// The delay before the try after `failures` failures in a row.
pub(crate) fn retry_delay(failures: u32) -> Duration {
    RETRY_FIRST.saturating_mul(1 << failures.min(8)).min(RETRY_LONGEST)
}

/// When to fetch an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    Always,
    IfNotPresent,
    Never,
}

/// The container's policy; by default `Always` for the tag `latest` and for no tag, else `IfNotPresent`.
pub(crate) fn policy(container: &Container) -> Policy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => Policy::Always,
        Some("IfNotPresent") => Policy::IfNotPresent,
        Some("Never") => Policy::Never,
        _ => {
            let reference = container.image.as_deref().unwrap_or_default().parse::<Reference>();
            let floating =
                reference.is_ok_and(|r| r.digest().is_none() && r.tag().is_none_or(|t| t == "latest"));
            if floating { Policy::Always } else { Policy::IfNotPresent }
        }
    }
}

/// What is to be done for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Take the one that is here.
    Use,
    /// Ask the registry.
    Pull,
    /// It is not here, and must not be asked for.
    Refuse,
}

/// Decides by policy. An image that was imported, not pulled, has no registry that could know a newer one: it is
/// used even where the policy is `Always`.
pub(crate) fn step(policy: Policy, here: Option<&Image>) -> Step {
    match (policy, here) {
        (Policy::Always, Some(image)) if image.repo_digests.is_empty() => Step::Use,
        (Policy::Always, _) | (Policy::IfNotPresent, None) => Step::Pull,
        (_, Some(_)) => Step::Use,
        (Policy::Never, None) => Step::Refuse,
    }
}

/// Why an image is not to be had: a container's waiting reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unavailable {
    pub reason: &'static str,
    pub message: String,
}

type Pull = Shared<BoxFuture<'static, Result<Image, Arc<ImageError>>>>;

/// The image store with pulls shared between containers.
pub(crate) struct Images {
    store: ImageStore,
    /// One entry per name being pulled.
    pulls: Mutex<HashMap<String, Pull>>,
}

impl Images {
    pub(crate) fn new(store: ImageStore) -> Self {
        Self { store, pulls: Mutex::default() }
    }

    /// The image of this name, if it is on this machine.
    pub(crate) fn get(&self, name: &str) -> Result<Option<Image>, Unavailable> {
        self.store.get(name).map_err(|error| match error {
            ImageError::Reference { .. } => Unavailable {
                reason: "InvalidImageName",
                message: format!("Failed to apply default image tag \"{name}\": {error}"),
            },
            other => Unavailable { reason: "ImageInspectError", message: other.to_string() },
        })
    }

    /// Every image on this machine: names and size.
    pub(crate) fn list(&self) -> Vec<(Vec<String>, u64)> {
        let images = self.store.list().unwrap_or_default();
        images.into_iter().map(|i| (i.repo_digests.into_iter().chain(i.names).collect(), i.size)).collect()
    }

    /// Fetches an image. Whoever asks for one that is being fetched waits for the same pull.
    pub(crate) async fn pull(&self, name: &str, secrets: &[Arc<Secret>]) -> Result<Image, Unavailable> {
        let auth = credentials(name, secrets);
        let key = format!("{name} {}", secret_key(secrets));
        let pull = {
            let mut pulls = self.pulls.lock();
            let fresh = || {
                let (store, name) = (self.store.clone(), name.to_owned());
                async move { store.pull(&name, &auth, &Progress::none()).await.map_err(Arc::new) }
                    .boxed()
                    .shared()
            };
            pulls.entry(key.clone()).or_insert_with(fresh).clone()
        };
        let forget = Forget { images: self, key, pull: pull.clone() };
        let result = pull.await;
        drop(forget);
        result.map_err(|error| Unavailable {
            reason: "ErrImagePull",
            message: format!("failed to pull image \"{name}\": {error}"),
        })
    }
}

/// Takes a pull off the list once it has ended, or once its last waiter has gone.
struct Forget<'a> {
    images: &'a Images,
    key: String,
    pull: Pull,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        let mut pulls = self.images.pulls.lock();
        let ours = pulls.get(&self.key).is_some_and(|p| p.ptr_eq(&self.pull));
        // Three holders are the list, this guard, and the waiter itself.
        let last = self.pull.strong_count().is_none_or(|n| n <= 3);
        if ours && (self.pull.peek().is_some() || last) {
            pulls.remove(&self.key);
        }
    }
}

fn secret_key(secrets: &[Arc<Secret>]) -> String {
    let names: Vec<_> = secrets
        .iter()
        .map(|s| {
            let meta = &s.metadata;
            format!(
                "{}@{}",
                meta.uid.as_deref().unwrap_or_default(),
                meta.resource_version.as_deref().unwrap_or_default()
            )
        })
        .collect();
    names.join(",")
}

/// The credentials that the Pod's pull secrets have for this image's registry. A secret that cannot be read is
/// passed over, as Kubernetes does: the registry's refusal then says what is missing.
fn credentials(name: &str, secrets: &[Arc<Secret>]) -> RegistryAuth {
    let Ok(reference) = name.parse::<Reference>() else { return RegistryAuth::Anonymous };
    for secret in secrets {
        let data = secret.data.iter().flatten();
        for (key, value) in data {
            let json = match key.as_str() {
                ".dockerconfigjson" => value.0.clone(),
                ".dockercfg" => [b"{\"auths\":".as_slice(), &value.0, b"}"].concat(),
                _ => continue,
            };
            if let Ok(auths) = RegistryAuths::from_docker_config(&json) {
                let found = auths.lookup(&reference);
                if found != RegistryAuth::Anonymous {
                    return found;
                }
            }
        }
    }
    RegistryAuth::Anonymous
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use yado_oci::image::ImageConfig;

    use super::*;

    fn check(image: &str, written: Option<&str>, here: Option<&[&str]>, expect: Step) {
        let container: Container =
            serde_json::from_value(json!({"name": "c", "image": image, "imagePullPolicy": written}))
                .expect("a container");
        let here = here.map(|digests| Image {
            id: "sha256:1".into(),
            names: Vec::new(),
            repo_digests: digests.iter().map(|d| (*d).to_owned()).collect(),
            size: 0,
            config: ImageConfig::default(),
            layers: Vec::new(),
        });
        assert_eq!(step(policy(&container), here.as_ref()), expect, "{image} {written:?}");
    }

    #[test]
    fn the_policy_decides() {
        let pulled: &[&str] = &["r@sha256:2"];
        check("redis", None, Some(pulled), Step::Pull);
        check("redis", None, Some(&[]), Step::Use);
        check("redis:latest", None, None, Step::Pull);
        check("redis:7", None, Some(pulled), Step::Use);
        check("redis:7", None, None, Step::Pull);
        check("redis:7", Some("Always"), Some(pulled), Step::Pull);
        check("redis:7", Some("Never"), None, Step::Refuse);
        check("redis:7", Some("Never"), Some(pulled), Step::Use);
    }

    #[test]
    fn retries_back_off() {
        let delays: Vec<_> = (0..7).map(|n| retry_delay(n).as_secs()).collect();
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn credentials_are_those_of_the_registry() {
        let secret: Secret = serde_json::from_value(json!({"data": {".dockerconfigjson":
            // {"auths":{"r.example":{"username":"u","password":"p"}}}
            "eyJhdXRocyI6eyJyLmV4YW1wbGUiOnsidXNlcm5hbWUiOiJ1IiwicGFzc3dvcmQiOiJwIn19fQ=="}}))
        .expect("a Secret");
        let secrets = [Arc::new(secret)];
        let basic = RegistryAuth::Basic { username: "u".into(), password: "p".into() };
        assert!(credentials("r.example/app:1", &secrets) == basic);
        assert!(credentials("other.example/app:1", &secrets) == RegistryAuth::Anonymous);
    }
}
