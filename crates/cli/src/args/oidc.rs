//! `--oidc-*`: who may log in by an OpenID Connect provider. Names and defaults are those of kube-apiserver.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

/// The provider by whose tokens people log in.
#[derive(Debug, Clone, Default, Args)]
pub struct OidcArgs {
    /// URL of the OpenID Connect provider by whose tokens people log in; it begins with https://
    #[arg(long, value_name = "URL", requires = "oidc_client_id", value_parser = issuer)]
    pub oidc_issuer_url: Option<String>,
    /// The client that tokens must be issued for
    #[arg(long, value_name = "ID", requires = "oidc_issuer_url")]
    pub oidc_client_id: Option<String>,
    /// Certificates of the authority of the provider, in PEM [default: the system's]
    #[arg(long, value_name = "FILE", requires = "oidc_issuer_url")]
    pub oidc_ca_file: Option<PathBuf>,
    /// The claim with the user's name
    #[arg(long, value_name = "CLAIM", requires = "oidc_issuer_url")]
    pub oidc_username_claim: Option<String>,
    /// What user names begin with; `-` is nothing [default: nothing for the claim email, else the URL and #]
    #[arg(long, value_name = "PREFIX", requires = "oidc_issuer_url")]
    pub oidc_username_prefix: Option<String>,
    /// The claim with the user's groups
    #[arg(long, value_name = "CLAIM", requires = "oidc_issuer_url")]
    pub oidc_groups_claim: Option<String>,
    /// What groups begin with
    #[arg(long, value_name = "PREFIX", requires = "oidc_issuer_url")]
    pub oidc_groups_prefix: Option<String>,
    /// A claim that tokens must have, with its value; may be repeated
    #[arg(long, value_name = "CLAIM=VALUE", requires = "oidc_issuer_url", value_parser = claim)]
    pub oidc_required_claim: Vec<(String, String)>,
    /// Signature algorithms that are accepted, with commas between [default: RS256]
    #[arg(long, value_name = "NAMES", requires = "oidc_issuer_url", value_delimiter = ',',
          value_parser = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384"])]
    pub oidc_signing_algs: Vec<String>,
}

impl OidcArgs {
    /// The words of a command line that mean the same.
    pub(super) fn words(&self) -> Vec<OsString> {
        let mut words = Vec::new();
        let mut add = |flag: &str, value: OsString| words.extend([format!("--oidc-{flag}").into(), value]);
        for (flag, value) in [
            ("issuer-url", &self.oidc_issuer_url),
            ("client-id", &self.oidc_client_id),
            ("username-claim", &self.oidc_username_claim),
            ("username-prefix", &self.oidc_username_prefix),
            ("groups-claim", &self.oidc_groups_claim),
            ("groups-prefix", &self.oidc_groups_prefix),
        ] {
            if let Some(value) = value {
                add(flag, value.into());
            }
        }
        if let Some(file) = &self.oidc_ca_file {
            add("ca-file", std::path::absolute(file).unwrap_or_else(|_| file.clone()).into());
        }
        for (claim, value) in &self.oidc_required_claim {
            add("required-claim", format!("{claim}={value}").into());
        }
        if !self.oidc_signing_algs.is_empty() {
            add("signing-algs", self.oidc_signing_algs.join(",").into());
        }
        words
    }
}

fn issuer(text: &str) -> Result<String, String> {
    match text.starts_with("https://") && !text.contains(['?', '#']) {
        true => Ok(text.to_owned()),
        false => Err("write a URL that begins with https:// and has neither query nor fragment".into()),
    }
}

fn claim(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(name, _)| !name.is_empty());
    parts
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "write it as CLAIM=VALUE".to_owned())
}
