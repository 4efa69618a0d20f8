//! Requests the tokens of a Pod's projected volumes from the API server.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, PodSpec, ServiceAccount};
use kube::api::{Api, PostParams};

use super::Actor;
use crate::handle::PodHandle;
use crate::lifecycle::SandboxPhase;
use crate::shared::Shared;
use crate::tokens::{TokenCache, Tokens, Wanted, wanted};

/// Seconds for which a token is valid where neither the volume nor the answer says.
const DEFAULT_SECONDS: i64 = 3600;

/// Returns the tokens that the Pod's projected volumes ask for, and requests those that it does not have or that are to be
/// replaced. One that cannot be had is replaced by the old one as long as that is valid.
///
/// # Errors
/// Where there is no valid token for a volume: the message of an event.
pub(super) async fn fetch(
    shared: &Shared,
    handle: &PodHandle,
    spec: &PodSpec,
    cache: &mut TokenCache,
) -> Result<Tokens, String> {
    let (mut tokens, mut failed) = (Tokens::new(), false);
    cache.begin(shared.clock.now());
    for wanted in wanted(spec) {
        let now = shared.clock.now();
        let token = match cache.fresh(&wanted.place, now) {
            Some(token) => token.to_owned(),
            None => {
                match request(shared, handle, spec, &wanted).await {
                    Ok((token, seconds)) => {
                        cache.insert(wanted.place.clone(), token.clone(), now, seconds);
                        token
                    }
                    Err(why) => {
                        failed = true;
                        let old = cache.valid(&wanted.place, now).map(str::to_owned);
                        old.ok_or_else(|| {
                        let volume = &wanted.place.0;
                        format!("MountVolume.SetUp failed for volume \"{volume}\" : failed to fetch token: {why}")
                    })?
                    }
                }
            }
        };
        tokens.insert(wanted.place, token);
    }
    if !failed {
        cache.succeed();
    }
    Ok(tokens)
}

/// Requests a token that is bound to the Pod, and returns it with the seconds for which it is valid.
async fn request(
    shared: &Shared,
    handle: &PodHandle,
    spec: &PodSpec,
    wanted: &Wanted,
) -> Result<(String, i64), String> {
    let account = spec.service_account_name.as_deref().filter(|n| !n.is_empty()).unwrap_or("default");
    let api: Api<ServiceAccount> = Api::namespaced(shared.client.clone(), &handle.key.namespace);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: wanted.audience.clone().map(|audience| vec![audience]),
            expiration_seconds: wanted.seconds,
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(handle.key.name.clone()),
                uid: Some(handle.uid.clone()),
            }),
        }),
        ..Default::default()
    };
    let params = PostParams::default();
    let answer = api.create_subresource::<_, TokenRequest>("token", account, &params, &request).await;
    let answer = answer.map_err(|error| error.to_string())?;
    let seconds = answer.spec.and_then(|spec| spec.expiration_seconds).or(wanted.seconds);
    let token = answer.status.and_then(|status| status.token).filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| "the API server's answer holds none".to_owned())?;
    Ok((token, seconds.unwrap_or(DEFAULT_SECONDS)))
}

impl Actor {
    /// Has the files of a running Pod refreshed if tokens are to be requested, or the next turn take place when they are.
    pub(super) fn schedule_tokens(&mut self, pod: &Pod) {
        // The end of a refresh leads to a turn.
        if self.state.record.sandbox != SandboxPhase::Ready || self.refresh.job.is_some() {
            return;
        }
        let Some(at) = pod.spec.as_ref().and_then(|spec| self.tokens.next_request(spec)) else { return };
        let (now, monotonic) = (self.shared.clock.now(), self.shared.clock.monotonic());
        if at <= now {
            self.refresh.wanted = true;
            return;
        }
        let at = monotonic + Duration::try_from(at.duration_since(now)).unwrap_or_default();
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}
