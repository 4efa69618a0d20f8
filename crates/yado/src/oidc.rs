//! The keys of the OpenID Connect provider by whose tokens people log in: fetched from it, and again when a token names one
//! that is not known.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use yado_apiserver::tokens::oidc::{Provider, Settings};
use yado_cli::args::OidcArgs;
use yado_reconcile::{Clock, Tasks};

/// Keys are fetched anew this often.
const PERIOD: Duration = Duration::from_secs(3600);
/// Keys are not fetched more often than this, whatever tokens name and however the provider answers.
const SHORTEST_PERIOD: Duration = Duration::from_secs(10);
/// How long the provider may take for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer.
const MAX_ANSWER: usize = 1 << 20;

/// A provider, and how its documents are fetched.
#[derive(Clone, Debug)]
pub struct Login {
    provider: Arc<Provider>,
    client: reqwest::Client,
}

impl Login {
    /// The provider that the command line names, if it names one.
    ///
    /// # Errors
    /// Where the file of certificates cannot be read.
    pub fn new(args: &OidcArgs) -> Result<Option<Self>> {
        let Some(issuer) = args.oidc_issuer_url.clone() else { return Ok(None) };
        let mut client = reqwest::Client::builder().timeout(TIMEOUT);
        if let Some(file) = &args.oidc_ca_file {
            let pem = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem)
                .with_context(|| format!("{} has no certificates in PEM", file.display()))?;
            ensure!(!certificates.is_empty(), "{} has no certificates in PEM", file.display());
            client = client.tls_certs_only(certificates);
        }
        let algorithms = match args.oidc_signing_algs.as_slice() {
            [] => vec!["RS256".to_owned()],
            named => named.to_vec(),
        };
        let prefix = args.oidc_username_prefix.as_deref();
        let settings = Settings {
            issuer,
            client_id: args.oidc_client_id.clone().unwrap_or_default(),
            username_claim: args.oidc_username_claim.clone().unwrap_or_else(|| "sub".into()),
            username_prefix: prefix.map(|prefix| if prefix == "-" { "" } else { prefix }.to_owned()),
            groups_claim: args.oidc_groups_claim.clone(),
            groups_prefix: args.oidc_groups_prefix.clone().unwrap_or_default(),
            required_claims: args.oidc_required_claim.iter().cloned().collect::<BTreeMap<_, _>>(),
            algorithms,
        };
        let client = client.build().context("TLS cannot be set up")?;
        Ok(Some(Self { provider: Arc::new(Provider::new(settings)), client }))
    }

    /// Keeps the keys current until the tasks are stopped, and returns what verifies tokens by them.
    pub fn start(&self, clock: Arc<dyn Clock>, tasks: &Tasks) -> Arc<Provider> {
        let login = self.clone();
        tasks.spawn("OpenID Connect keys", async move {
            loop {
                if let Err(error) = login.fetch().await {
                    let issuer = login.provider.issuer();
                    tracing::warn!(
                        issuer,
                        error = format!("{error:#}"),
                        "the provider's keys cannot be fetched"
                    );
                }
                clock.sleep(SHORTEST_PERIOD).await;
                tokio::select! {
                    () = clock.sleep(PERIOD) => {}
                    () = login.provider.wants_keys() => {}
                }
            }
        });
        self.provider.clone()
    }

    async fn fetch(&self) -> Result<()> {
        let issuer = self.provider.issuer();
        let document =
            self.get(&format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'))).await?;
        let named = document["issuer"].as_str().unwrap_or_default();
        ensure!(named == issuer, "the provider's configuration names the issuer {named:?}");
        let Some(keys) = document["jwks_uri"].as_str() else {
            bail!("the provider's configuration names no jwks_uri")
        };
        let keys = self.get(keys).await?;
        ensure!(self.provider.set_keys(&keys) > 0, "the provider publishes no key that can be used");
        Ok(())
    }

    async fn get(&self, url: &str) -> Result<Value> {
        let failed = || format!("GET {url}");
        let mut response =
            self.client.get(url).send().await.and_then(|r| r.error_for_status()).with_context(failed)?;
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.with_context(failed)? {
            ensure!(
                body.len() + part.len() <= MAX_ANSWER,
                "the answer of {url} is longer than {MAX_ANSWER} bytes"
            );
            body.extend(part);
        }
        serde_json::from_slice(&body).with_context(|| format!("the answer of {url} is not JSON"))
    }
}
