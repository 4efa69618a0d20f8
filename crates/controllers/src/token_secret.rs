//! The token controller: fills Secrets of type `kubernetes.io/service-account-token` with a token of their ServiceAccount,
//! and deletes them with it.
//!
//! ```text
//! [ServiceAccount] --> [Secret] that names it
//! ```
//!
//! Watches these Secrets and ServiceAccounts. Writes and deletes the former. The token is requested from the API server and
//! bound to the Secret, so that it becomes invalid when the Secret is deleted.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::Error;
use kube::api::PostParams;
use serde_json::json;
use yado_reconcile::{Index, Informer, Next, ObjectKey, Queue};

use crate::{Context, writes};

const COMPONENT: &str = "token-controller";
/// The type of the Secrets.
const TYPE: &str = "kubernetes.io/service-account-token";
/// The annotation that names the ServiceAccount.
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
/// The annotation with the ServiceAccount's uid.
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// Seconds for which a token is valid that has no expiration of its own: the longest that can be requested.
const SECONDS: i64 = 1 << 32;
/// Secrets reconciled concurrently.
const WORKERS: usize = 2;

/// A write that a reconcile pass decided on.
#[derive(Clone, Debug, PartialEq)]
enum Action {
    /// Delete the Secret, whose ServiceAccount does not exist.
    Delete,
    /// Set the annotation with the account's uid and these data, and a new token if it has none.
    Fill { data: BTreeMap<&'static str, ByteString>, needs_token: bool },
}

/// The ServiceAccount that a Secret names.
fn account_of(secret: &Secret) -> Option<ObjectKey> {
    let name = secret.metadata.annotations.as_ref()?.get(ACCOUNT_NAME)?;
    let is_token = secret.type_.as_deref() == Some(TYPE) && !name.is_empty();
    is_token.then(|| ObjectKey::new(secret.metadata.namespace.as_deref().unwrap_or_default(), name))
}

/// Decides what a Secret lacks, given the ServiceAccount that it names.
fn reconcile(secret: &Secret, account: Option<&ServiceAccount>, root_ca: Option<&str>) -> Option<Action> {
    if secret.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let known = secret.metadata.annotations.as_ref().and_then(|all| all.get(ACCOUNT_UID));
    let is_same =
        |account: &&ServiceAccount| known.is_none_or(|uid| Some(uid) == account.metadata.uid.as_ref());
    if account.filter(is_same).is_none() {
        return Some(Action::Delete);
    }
    let holds =
        |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).filter(|value| !value.0.is_empty());
    let mut data = BTreeMap::new();
    if let Some(ca) = root_ca.filter(|ca| holds("ca.crt").is_none_or(|held| held.0 != ca.as_bytes())) {
        data.insert("ca.crt", ByteString(ca.into()));
    }
    if holds("namespace").is_none() {
        let namespace = secret.metadata.namespace.clone().unwrap_or_default();
        data.insert("namespace", ByteString(namespace.into_bytes()));
    }
    let needs_token = holds("token").is_none();
    let is_complete = data.is_empty() && !needs_token && known.is_some();
    (!is_complete).then_some(Action::Fill { data, needs_token })
}

struct Controller {
    context: Context,
    secrets: Arc<Informer<Secret>>,
    accounts: Arc<Informer<ServiceAccount>>,
}

/// Starts the token controller; its tasks belong to the context's owner.
pub(crate) fn start(context: &Context) {
    let this = Arc::new(Controller {
        context: context.clone(),
        secrets: context.informers.selected(&format!("type={TYPE}")),
        accounts: context.informers.all(),
    });
    let of_account: Arc<Index<ObjectKey, Secret>> =
        this.secrets.index(|secret| account_of(secret).into_iter().collect());
    let queue = Queue::new(context.clock.clone());
    this.secrets.feed_queue(&queue, |change| [change.key.clone()]);
    this.accounts.feed_queue(&queue, move |change| {
        let secrets = of_account.get(&change.key);
        secrets.iter().map(|secret| ObjectKey::of(&secret.metadata)).collect::<Vec<_>>()
    });
    context.run("token-secrets", &queue, WORKERS, move |key| {
        let this = this.clone();
        async move { this.sync(&key).await }
    });
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> Result<Next, Error> {
        self.accounts.synced().await;
        let Some(secret) = self.secrets.get(key) else { return Ok(Next::Wait) };
        let Some(named) = account_of(&secret) else { return Ok(Next::Wait) };
        let root_ca = self.context.config.root_ca.as_deref();
        let mut account = self.accounts.get(&named).map(|account| (*account).clone());
        if reconcile(&secret, account.as_ref(), root_ca) == Some(Action::Delete) {
            // The two watches are not in step: the account may be there already.
            let api = writes::api_in_namespace_of::<ServiceAccount>(&self.context.client, &secret.metadata);
            account = api.get_opt(&named.name).await?;
        }
        match reconcile(&secret, account.as_ref(), root_ca) {
            None => {}
            Some(Action::Delete) => {
                tracing::info!(secret = %key, account = %named, "deleting a token whose ServiceAccount is gone");
                writes::delete::<Secret>(&self.context.client, &secret.metadata).await?;
            }
            Some(Action::Fill { data, needs_token }) => {
                let uid = account.and_then(|account| account.metadata.uid);
                match self.fill(&secret, &named.name, uid, data, needs_token).await {
                    // The Secret or the account was deleted or replaced meanwhile; the watch event triggers a pass.
                    Err(error) if writes::has_code(&error, 404) || writes::has_code(&error, 409) => {}
                    filled => filled?,
                }
            }
        }
        Ok(Next::Wait)
    }

    async fn fill(
        &self,
        secret: &Secret,
        account: &str,
        account_uid: Option<String>,
        mut data: BTreeMap<&'static str, ByteString>,
        needs_token: bool,
    ) -> Result<(), Error> {
        if needs_token {
            let token = self.request(secret, account).await?;
            data.insert("token", ByteString(token.into_bytes()));
        }
        let patch = json!({
            "metadata": {"uid": secret.metadata.uid, "annotations": {ACCOUNT_UID: account_uid}}, "data": data,
        });
        writes::merge::<Secret>(&self.context.client, &secret.metadata, COMPONENT, &patch).await.map(drop)
    }

    /// A token of the account that is bound to the Secret.
    async fn request(&self, secret: &Secret, account: &str) -> Result<String, Error> {
        let bound = BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Secret".into()),
            name: secret.metadata.name.clone(),
            uid: secret.metadata.uid.clone(),
        };
        let spec = TokenRequestSpec {
            audiences: None,
            expiration_seconds: Some(SECONDS),
            bound_object_ref: Some(bound),
        };
        let request = TokenRequest { spec: Some(spec), ..Default::default() };
        let api = writes::api_in_namespace_of::<ServiceAccount>(&self.context.client, &secret.metadata);
        let answer = api
            .create_subresource::<_, TokenRequest>("token", account, &PostParams::default(), &request)
            .await?;
        Ok(answer.status.and_then(|status| status.token).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn secrets_get_what_they_lack_and_go_with_their_account() {
        let full = json!({"token": "dA==", "ca.crt": "Q0E=", "namespace": "bg=="});
        let bound = json!({ACCOUNT_NAME: "a", ACCOUNT_UID: "u"});
        let fill = |data: &[(&'static str, &str)], needs_token| {
            let data = data.iter().map(|(key, text)| (*key, ByteString(text.as_bytes().to_vec()))).collect();
            Some(Action::Fill { data, needs_token })
        };
        for (annotations, data, account, expect) in [
            (
                json!({ACCOUNT_NAME: "a"}),
                Value::Null,
                Some("u"),
                fill(&[("ca.crt", "CA"), ("namespace", "n")], true),
            ),
            (bound.clone(), full.clone(), Some("u"), None),
            (json!({ACCOUNT_NAME: "a"}), full.clone(), Some("u"), fill(&[], false)),
            (
                bound.clone(),
                json!({"token": "dA==", "namespace": "bg=="}),
                Some("u"),
                fill(&[("ca.crt", "CA")], false),
            ),
            (
                bound.clone(),
                json!({"token": "", "ca.crt": "eA==", "namespace": "bg=="}),
                Some("u"),
                fill(&[("ca.crt", "CA")], true),
            ),
            (bound.clone(), full.clone(), None, Some(Action::Delete)),
            (bound.clone(), full.clone(), Some("other"), Some(Action::Delete)),
        ] {
            let secret = json!({
                "metadata": {"name": "s", "namespace": "n", "annotations": annotations}, "data": data, "type": TYPE,
            });
            let secret: Secret = serde_json::from_value(secret).expect("a Secret");
            let account = account.map(|uid| ServiceAccount {
                metadata: kube::api::ObjectMeta { uid: Some(uid.into()), ..Default::default() },
                ..Default::default()
            });
            assert_eq!(reconcile(&secret, account.as_ref(), Some("CA")), expect, "{annotations} {data}");
        }
        let other =
            json!({"metadata": {"namespace": "n", "annotations": {ACCOUNT_NAME: "a"}}, "type": "Opaque"});
        assert_eq!(account_of(&serde_json::from_value(other).expect("a Secret")), None);
    }
}
