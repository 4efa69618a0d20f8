//! Images for containers: policy, pull secrets, each of which is tried, one pull at a time per name.

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

/// How the image of a container is obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PullDecision {
    /// Use the local image.
    Use,
    /// Pull it from the registry.
    Pull,
    /// Fail: there is no local image, and the policy forbids pulling.
    Refuse,
}

/// Decides by pull policy and local image. An image that was imported or built has no registry with a newer one, so it is
/// used even if the policy is `Always`.
pub(crate) fn decide_pull(policy: Policy, here: Option<&Image>) -> PullDecision {
    match (policy, here) {
        (Policy::Always, Some(image)) if image.repo_digests.is_empty() => PullDecision::Use,
        (Policy::Always, _) | (Policy::IfNotPresent, None) => PullDecision::Pull,
        (_, Some(_)) => PullDecision::Use,
        (Policy::Never, None) => PullDecision::Refuse,
    }
}

/// Why an image is unavailable: reason and message of the container's waiting state.
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
        let all = credentials(name, secrets);
        let key = format!("{name} {}", secret_key(secrets));
        let pull = {
            let mut pulls = self.pulls.lock();
            let fresh = || {
                let (store, name) = (self.store.clone(), name.to_owned());
                async move { store.pull_with_any(&name, &all, &Progress::none()).await.map_err(Arc::new) }
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

/// Everything that the Pod's pull secrets have for this image, the most specific first, as Kubernetes orders it; never
/// empty. A secret that cannot be read is passed over, as Kubernetes does: the registry's refusal then says what is missing.
fn credentials(name: &str, secrets: &[Arc<Secret>]) -> Vec<RegistryAuth> {
    let Ok(reference) = name.parse::<Reference>() else { return vec![RegistryAuth::Anonymous] };
    let mut found: Vec<(usize, RegistryAuth)> = Vec::new();
    for (key, value) in secrets.iter().flat_map(|secret| secret.data.iter().flatten()) {
        let json = match key.as_str() {
            ".dockerconfigjson" => value.0.clone(),
            ".dockercfg" => [b"{\"auths\":".as_slice(), &value.0, b"}"].concat(),
            _ => continue,
        };
        let matching = RegistryAuths::from_docker_config(&json).map(|auths| auths.matching(&reference));
        for (specificity, auth) in matching.unwrap_or_default() {
            if !found.iter().any(|(_, known)| *known == auth) {
                found.push((specificity, auth));
            }
        }
    }
    found.sort_by_key(|(specificity, _)| std::cmp::Reverse(*specificity));
    let mut all: Vec<RegistryAuth> = found.into_iter().map(|(_, auth)| auth).collect();
    if all.is_empty() {
        all.push(RegistryAuth::Anonymous);
    }
    all
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use serde_json::{Value, json};
    use yado_oci::image::ImageConfig;

    use super::*;

    fn check(image: &str, written: Option<&str>, here: Option<&[&str]>, expect: PullDecision) {
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
        assert_eq!(decide_pull(policy(&container), here.as_ref()), expect, "{image} {written:?}");
    }

    #[test]
    fn the_policy_decides() {
        let pulled: &[&str] = &["r@sha256:2"];
        check("redis", None, Some(pulled), PullDecision::Pull);
        check("redis", None, Some(&[]), PullDecision::Use);
        check("redis:latest", None, None, PullDecision::Pull);
        check("redis:7", None, Some(pulled), PullDecision::Use);
        check("redis:7", None, None, PullDecision::Pull);
        check("redis:7", Some("Always"), Some(pulled), PullDecision::Pull);
        check("redis:7", Some("Never"), None, PullDecision::Refuse);
        check("redis:7", Some("Never"), Some(pulled), PullDecision::Use);
    }

    #[test]
    fn retries_back_off() {
        let delays: Vec<_> = (0..7).map(|n| retry_delay(n).as_secs()).collect();
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn credentials_are_all_those_of_the_registry() {
        let secret = |json: Value| -> Arc<Secret> {
            let data = [(".dockerconfigjson".to_owned(), ByteString(json.to_string().into_bytes()))];
            Arc::new(Secret { data: Some(data.into()), ..Default::default() })
        };
        let of = |user: &str| json!({"username": user, "password": "p"});
        let secrets = [
            secret(json!({"auths": {"r.example": of("first"), "r.example/team": of("team")}})),
            secret(json!("unreadable")),
            secret(json!({"auths": {"https://r.example/v1/": of("second"), "*.example": of("any")}})),
            secret(json!({"auths": {"r.example": of("first"), "r.example/other": of("other")}})),
        ];
        let check = |image: &str, expect: &[&str]| {
            let basic =
                |user: &&str| RegistryAuth::Basic { username: (*user).to_owned(), password: "p".into() };
            let mut expect: Vec<_> = expect.iter().map(basic).collect();
            if expect.is_empty() {
                expect.push(RegistryAuth::Anonymous);
            }
            assert!(credentials(image, &secrets) == expect, "{image}");
        };
        check("r.example/app:1", &["first", "second", "any"]);
        check("r.example/team/app:1", &["team", "first", "second", "any"]);
        check("q.example/app", &["any"]);
        check("other.test/app:1", &[]);
        check("no image", &[]);
    }
}
