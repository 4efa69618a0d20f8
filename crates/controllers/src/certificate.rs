//! The certificate controller: approves what nodes ask for themselves, signs what is approved, and removes requests that are
//! done with.
//!
//! ```text
//! [CertificateSigningRequest] --approved by somebody--> status.certificate --an hour--> deleted
//! ```
//!
//! Watches CertificateSigningRequests and writes their conditions and certificates. The key of the authority is never seen
//! here: certificates are made by an [`Authority`].

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Error, ResourceExt};
use yado_reconcile::{Informer, Next, ObjectKey, Queue};

use crate::{Context, writes};

/// Requests reconciled concurrently.
const WORKERS: usize = 2;
/// How long a request stays after it was approved, denied or has failed, as in Kubernetes.
const DECIDED: SignedDuration = SignedDuration::from_hours(1);
/// How long a request waits for a decision, as in Kubernetes.
const PENDING: SignedDuration = SignedDuration::from_hours(24);

/// Issues certificates for the signers of Kubernetes.
pub trait Authority: Debug + Send + Sync {
    /// The user name of the node that asks for its own client certificate; `None` for any other request.
    fn node_of(&self, spec: &CertificateSigningRequestSpec) -> Option<String>;
    /// A certificate in PEM, or why the signer refuses the request. `None` where the signer is another program.
    fn sign(&self, spec: &CertificateSigningRequestSpec) -> Option<Result<String, String>>;
}

/// What is to be done about a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Action {
    /// Delete it.
    Delete,
    /// Have the authority sign it.
    Sign,
    /// Approve it if it is a node's that has the right.
    Recognize,
    /// Nothing until it is to be deleted.
    Wait,
}

/// Decides what is to be done about a request, and when it is to be deleted.
fn reconcile(request: &CertificateSigningRequest, now: Timestamp) -> (Action, Timestamp) {
    let status = request.status.clone().unwrap_or_default();
    let find = |kind: &str| status.conditions.iter().flatten().find(|condition| condition.type_ == kind);
    let created = request.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let since = |condition: &CertificateSigningRequestCondition| {
        let times = [&condition.last_update_time, &condition.last_transition_time];
        times.into_iter().flatten().next().map_or(created, |time| time.0)
    };
    let decided = ["Failed", "Denied", "Approved"].into_iter().find_map(find);
    let is_signed = status.certificate.is_some_and(|certificate| !certificate.0.is_empty());
    let end = match decided {
        // One that waits for its certificate is of use as long as one that waits for its approval.
        Some(approved) if approved.type_ == "Approved" && !is_signed => since(approved) + PENDING,
        Some(decided) => since(decided) + DECIDED,
        None => created + PENDING,
    };
    let action = match decided {
        _ if now >= end => Action::Delete,
        Some(approved) if approved.type_ == "Approved" && !is_signed => Action::Sign,
        None => Action::Recognize,
        _ => Action::Wait,
    };
    (action, end)
}

struct Controller {
    context: Context,
    authority: Arc<dyn Authority>,
    requests: Arc<Informer<CertificateSigningRequest>>,
}

/// Starts the certificate controller; its tasks belong to the context's owner.
pub(crate) fn start(context: &Context) {
    let Some(authority) = context.config.authority.clone() else { return };
    let requests = context.informers.all::<CertificateSigningRequest>();
    let queue: Arc<Queue<String>> = Queue::new(context.clock.clone());
    requests.feed_queue(&queue, |change| [change.key.name.clone()]);
    let this = Arc::new(Controller { context: context.clone(), authority, requests });
    context.run("certificates", &queue, WORKERS, move |name| {
        let this = this.clone();
        async move { this.sync(&name).await }
    });
}

impl Controller {
    async fn sync(&self, name: &str) -> Result<Next, Error> {
        let Some(request) = self.requests.get(&ObjectKey::new("", name)) else { return Ok(Next::Wait) };
        let (action, end) = reconcile(&request, self.context.clock.now());
        let done = match action {
            Action::Delete => self.delete(&request).await,
            Action::Sign => self.sign(&request).await,
            Action::Recognize => self.recognize(&request).await,
            Action::Wait => Ok(()),
        };
        match done {
            // It was deleted or has changed since; its watch event triggers the next pass.
            Err(error) if writes::has_code(&error, 404) || writes::has_code(&error, 409) => {
                return Ok(Next::Wait);
            }
            other => other?,
        }
        let left = end.duration_since(self.context.clock.now());
        // A duration that has passed is no duration.
        Ok(Duration::try_from(left).map_or(Next::Wait, Next::After))
    }

    fn api(&self) -> Api<CertificateSigningRequest> {
        Api::all(self.context.client.clone())
    }

    async fn delete(&self, request: &CertificateSigningRequest) -> Result<(), Error> {
        let same =
            DeleteParams { preconditions: writes::same_object(&request.metadata), ..Default::default() };
        self.api().delete(&request.name_any(), &same).await.map(drop)
    }

    async fn sign(&self, request: &CertificateSigningRequest) -> Result<(), Error> {
        let Some(signed) = self.authority.sign(&request.spec) else { return Ok(()) };
        let mut signed_request = request.clone();
        let status = signed_request.status.get_or_insert_default();
        match signed {
            Ok(pem) => status.certificate = Some(ByteString(pem.into_bytes())),
            Err(why) => {
                let failed = self.condition("Failed", "SignerValidationFailure", why);
                status.conditions.get_or_insert_default().push(failed);
            }
        }
        let name = request.name_any();
        self.api().replace_status(&name, &PostParams::default(), &signed_request).await.map(drop)
    }

    /// Approves a node's request for its own client certificate, if roles allow its sender to have one.
    async fn recognize(&self, request: &CertificateSigningRequest) -> Result<(), Error> {
        let Some(node) = self.authority.node_of(&request.spec) else { return Ok(()) };
        let (subresource, message) = match request.spec.username.as_deref() == Some(&node) {
            true => (
                "selfnodeclient",
                "Auto approving self kubelet client certificate after SubjectAccessReview.",
            ),
            false => ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."),
        };
        if !self.is_allowed(&request.spec, subresource).await? {
            return Ok(());
        }
        let mut approved = request.clone();
        let condition = self.condition("Approved", "AutoApproved", message.to_owned());
        approved.status.get_or_insert_default().conditions.get_or_insert_default().push(condition);
        let name = request.name_any();
        self.api().replace_subresource("approval", &name, &PostParams::default(), &approved).await.map(drop)
    }

    async fn is_allowed(
        &self,
        spec: &CertificateSigningRequestSpec,
        subresource: &str,
    ) -> Result<bool, Error> {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: spec.username.clone(),
                uid: spec.uid.clone(),
                groups: spec.groups.clone(),
                extra: spec.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    group: Some("certificates.k8s.io".into()),
                    resource: Some("certificatesigningrequests".into()),
                    subresource: Some(subresource.into()),
                    verb: Some("create".into()),
                    version: Some("*".into()),
                    ..Default::default()
                }),
                ..Default::default()
            },
            ..Default::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.context.client.clone());
        let answer = api.create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    fn condition(&self, kind: &str, reason: &str, message: String) -> CertificateSigningRequestCondition {
        CertificateSigningRequestCondition {
            type_: kind.into(),
            status: "True".into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_update_time: Some(Time(self.context.clock.now())),
            last_transition_time: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_are_signed_once_and_removed_in_time() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().expect("a time");
        let at = |kind: &str, time: &str| json!([{"type": kind, "status": "True", "lastUpdateTime": time}]);
        let recent = "2026-01-01T23:30:00Z";
        for (created, conditions, certificate, expect, end) in [
            (recent, json!(null), "", Action::Recognize, "2026-01-02T23:30:00Z"),
            ("2026-01-01T00:00:00Z", json!(null), "", Action::Delete, "2026-01-02T00:00:00Z"),
            (recent, at("Approved", recent), "", Action::Sign, "2026-01-02T23:30:00Z"),
            (recent, at("Approved", recent), "Y2VydA==", Action::Wait, "2026-01-02T00:30:00Z"),
            (recent, at("Denied", recent), "", Action::Wait, "2026-01-02T00:30:00Z"),
            (recent, at("Denied", "2026-01-01T23:00:00Z"), "", Action::Delete, "2026-01-02T00:00:00Z"),
            (recent, at("Failed", "2026-01-01T23:00:01Z"), "", Action::Wait, "2026-01-02T00:00:01Z"),
        ] {
            let request = json!({
                "metadata": {"name": "r", "creationTimestamp": created},
                "spec": {"request": "", "signerName": "example.com/s"},
                "status": {"conditions": conditions, "certificate": certificate},
            });
            let request = serde_json::from_value(request).expect("a request");
            let found = reconcile(&request, now);
            assert_eq!(found, (expect, end.parse().expect("a time")), "{conditions} {certificate}");
        }
    }
}
