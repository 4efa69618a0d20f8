//! Which Kubernetes to talk to.

use std::path::{Path, PathBuf};

use anyhow::Context;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::args::{DEFAULT_DATA_DIR, Global};

/// A Kubernetes to talk to.
pub struct Target {
    /// How.
    pub client: Client,
    /// The namespace to work in.
    pub namespace: String,
    /// The API server's address.
    pub server: String,
}

/// A client, and the namespace to work in.
///
/// # Errors
///
/// There is no kubeconfig, or the one there is is broken.
pub async fn connect(global: &Global) -> anyhow::Result<(Client, String)> {
    let Target { client, namespace, .. } = target(global).await?;
    Ok((client, namespace))
}

/// [`connect`], with where it leads.
///
/// # Errors
///
/// As [`connect`].
pub async fn target(global: &Global) -> anyhow::Result<Target> {
    let paths = kubeconfigs(global)?;
    let shown = paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(" with ");
    let mut kubeconfig = Kubeconfig::default();
    for path in &paths {
        let next = Kubeconfig::read_from(path).map_err(|error| unreadable(path, &error))?;
        kubeconfig = kubeconfig.merge(next).with_context(|| format!("{shown} do not fit together"))?;
    }
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("{shown} cannot be used"))?;
    let namespace = global.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let server = config.cluster_url.to_string();
    let client = Client::try_from(config).with_context(|| format!("{shown} cannot be used"))?;
    Ok(Target { client, namespace, server })
}

/// What is wrong with a kubeconfig, without the lines around the fault: a key may be in them.
fn unreadable(path: &Path, error: &kube::config::KubeconfigError) -> anyhow::Error {
    let (path, text) = (path.display(), error.to_string());
    let first = text.lines().next().unwrap_or_default();
    anyhow::anyhow!("{path} is not a valid kubeconfig ({first}): name another with --kubeconfig")
}

/// The kubeconfigs to use: the one named, those of `KUBECONFIG`, the one of the engine on this machine, the user's own.
fn kubeconfigs(global: &Global) -> anyhow::Result<Vec<PathBuf>> {
    if let Some(named) = &global.kubeconfig {
        anyhow::ensure!(
            named.is_file(),
            "there is no kubeconfig {}: name another with --kubeconfig",
            named.display()
        );
        return Ok(vec![named.clone()]);
    }
    let variable = std::env::var_os("KUBECONFIG").unwrap_or_default();
    let listed: Vec<PathBuf> = std::env::split_paths(&variable).filter(|p| p.is_file()).collect();
    if !listed.is_empty() {
        return Ok(listed);
    }
    let data_dir =
        std::env::var_os("YADO_DATA_DIR").map_or_else(|| PathBuf::from(DEFAULT_DATA_DIR), PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".kube/config"));
    let candidates = [Some(data_dir.join("kubeconfig")), home];
    let found = candidates.into_iter().flatten().find(|path| path.is_file());
    let sentence =
        "no Kubernetes is known here: start one with `yado infra`, or name one with --kubeconfig FILE";
    Ok(vec![found.context(sentence)?])
}

/// Says what was attempted and, in Kubernetes' own words, why it failed.
pub fn failed(what: impl Into<String>) -> impl FnOnce(kube::Error) -> anyhow::Error {
    let what = what.into();
    move |error| anyhow::anyhow!("{what}: {}", reason(&error))
}

/// An error of the API as a sentence.
pub fn reason(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return status.message.clone();
    }
    // The outermost text of a connection's failure only says that there was one.
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match error {
        kube::Error::Service(_) | kube::Error::HyperError(_) => {
            format!(
                "the API server cannot be reached ({innermost}); is it running? `yado infra` starts one here"
            )
        }
        _ => innermost.to_string(),
    }
}
