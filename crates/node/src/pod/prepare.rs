//! The job that makes what a Pod needs before its first container: directories, volumes, network, sandbox. And the job that
//! refreshes its projected files.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::Api;
use yado_oci::runtime::{Error as RuntimeError, Sandbox};
use yado_oci::spec::SandboxSpec;
use yado_reconcile::events::EventType;

use super::tokens;
use crate::handle::PodHandle;
use crate::hostfiles;
use crate::network::{Attachment, PodRef};
use crate::registration::RUNTIME_HANDLER;
use crate::resources;
use crate::shared::Shared;
use crate::tokens::{TokenCache, Tokens};
use crate::volumes;

/// First delay before a failed preparation is tried again; each further failure doubles it.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest such delay, as Kubernetes has it for volumes.
const RETRY_LONGEST: Duration = Duration::from_secs(122);

/// Label of a sandbox: its Pod's namespace.
pub(super) const LABEL_NAMESPACE: &str = "namespace";
/// Label of a sandbox: its Pod's name.
pub(super) const LABEL_NAME: &str = "name";
/// Label of a sandbox: its Pod's address.
pub(super) const LABEL_ADDRESS: &str = "address";

/// Why a Pod could not be prepared: reason and message of the event.
pub(super) struct PrepareError {
    pub reason: &'static str,
    pub message: String,
}

/// The result of a preparation.
pub(super) struct Prepared {
    /// The address of the Pod, which it keeps if a later step fails; `None` with host networking.
    pub address: Option<IpAddr>,
    /// The tokens that the Pod has.
    pub tokens: TokenCache,
    /// The sandbox, or why there is none.
    pub result: Result<Sandbox, PrepareError>,
}

/// The delay after which a preparation is retried that has failed after so many `failures` in a row before.
pub(super) fn retry_delay(failures: u32) -> Duration {
    RETRY_FIRST.saturating_mul(1 << failures.min(10)).min(RETRY_LONGEST)
}

/// Prepares a Pod. What it has made when it fails is used by the next attempt, or removed with the Pod.
pub(super) async fn run(
    shared: &Arc<Shared>,
    handle: &PodHandle,
    pod: &Pod,
    mut cache: TokenCache,
) -> Prepared {
    let spec = pod.spec.clone().unwrap_or_default();
    if let Err(error) = check_runtime(shared, &spec).await {
        return Prepared { address: None, tokens: cache, result: Err(error) };
    }
    let network = async {
        if spec.host_network == Some(true) {
            return Ok(None);
        }
        let pod = PodRef {
            namespace: handle.key.namespace.clone(),
            name: handle.key.name.clone(),
            uid: handle.uid.clone(),
        };
        shared.network.attach(&pod).await.map(Some).map_err(|error| sandbox_error(&error.to_string()))
    };
    let tokens = async {
        let failed = |message| PrepareError { reason: "FailedMount", message };
        tokens::fetch(shared, handle, &spec, &mut cache).await.map_err(failed)
    };
    let sources = async {
        shared.watch_sources(handle, pod).await;
        Ok(())
    };
    let (attachment, tokens) = match tokio::try_join!(network, tokens, sources) {
        Ok((attachment, tokens, ())) => (attachment, tokens),
        Err(error) => return Prepared { address: None, tokens: cache, result: Err(error) },
    };
    let address = attachment.as_ref().map(|a| a.address);
    let result = make(shared, handle, pod, attachment, &tokens).await;
    Prepared { address, tokens: cache, result }
}

fn sandbox_error(message: &str) -> PrepareError {
    PrepareError {
        reason: "FailedCreatePodSandBox",
        message: format!("Failed to create pod sandbox: {message}"),
    }
}

/// Refuses a Pod whose RuntimeClass names another handler than this node's runtime. The class is looked at once for each
/// attempt, so that a Pod starts when its class has been made anew with a handler that is known.
async fn check_runtime(shared: &Shared, spec: &PodSpec) -> Result<(), PrepareError> {
    let Some(class) = spec.runtime_class_name.as_deref().filter(|name| !name.is_empty()) else {
        return Ok(());
    };
    let failed = |why: String| sandbox_error(&format!("failed to get sandbox runtime: {why}"));
    let classes: Api<RuntimeClass> = Api::all(shared.client.clone());
    match classes.get_opt(class).await {
        Ok(Some(class)) if matches!(class.handler.as_str(), "" | RUNTIME_HANDLER) => Ok(()),
        Ok(Some(class)) => Err(failed(format!(
            "no runtime for {:?} is configured; the only handler of this node is {RUNTIME_HANDLER:?}",
            class.handler
        ))),
        Ok(None) => Err(failed(format!("RuntimeClass {class:?} not found"))),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Makes volumes, files and sandbox of a Pod that is attached to the network.
async fn make(
    shared: &Shared,
    handle: &PodHandle,
    pod: &Pod,
    attachment: Option<Attachment>,
    tokens: &Tokens,
) -> Result<Sandbox, PrepareError> {
    let spec = pod.spec.clone().unwrap_or_default();
    let address = attachment.as_ref().map(|a| a.address);
    volumes(shared, handle, pod, address, tokens).await?;
    let failed = |error: RuntimeError| sandbox_error(&error.to_string());
    write_etc(shared, handle, pod, address).map_err(|error| sandbox_error(&error.to_string()))?;
    let sandbox = SandboxSpec {
        id: handle.uid.clone(),
        hostname: hostfiles::uts_name(pod, &shared.config.name, &shared.dns.domain),
        netns: attachment.map(|a| a.netns),
        host_pid: spec.host_pid == Some(true),
        host_ipc: spec.host_ipc == Some(true),
        share_pid: spec.share_process_namespace == Some(true),
        resources: resources::of_pod(&spec),
        sysctls: sysctls(&spec),
        labels: labels(handle, address),
    };
    match shared.runtime.create_sandbox(sandbox.clone()).await {
        Err(RuntimeError::SandboxExists { .. }) => {
            // What an interrupted preparation left behind.
            shared.runtime.destroy(&sandbox.id).await.map_err(failed)?;
            shared.runtime.create_sandbox(sandbox).await.map_err(failed)
        }
        made => made.map_err(failed),
    }
}

fn labels(handle: &PodHandle, address: Option<IpAddr>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        (LABEL_NAMESPACE.to_owned(), handle.key.namespace.clone()),
        (LABEL_NAME.to_owned(), handle.key.name.clone()),
    ]);
    labels.extend(address.map(|a| (LABEL_ADDRESS.to_owned(), a.to_string())));
    labels
}

fn sysctls(spec: &PodSpec) -> BTreeMap<String, String> {
    let all = spec.security_context.iter().flat_map(|s| s.sysctls.iter().flatten());
    all.map(|s| (yado_types::sysctls::dotted(&s.name), s.value.clone())).collect()
}

async fn volumes(
    shared: &Shared,
    handle: &PodHandle,
    pod: &Pod,
    address: Option<IpAddr>,
    tokens: &Tokens,
) -> Result<(), PrepareError> {
    let failed = |error: String| PrepareError { reason: "FailedMount", message: error };
    let planned = shared
        .with_scope(pod, shared.ports_address(pod, address), |scope| volumes::plan(scope, tokens))
        .map_err(|e| failed(e.to_string()))?;
    let dir = handle.dir.volumes();
    let made = tokio::task::spawn_blocking(move || {
        fs::create_dir_all(&dir).map_err(|e| format!("cannot create directory {}: {e}", dir.display()))?;
        volumes::make(&dir, &planned).map_err(|e| e.to_string())
    });
    made.await.unwrap_or_else(|e| Err(e.to_string())).map_err(failed)
}

fn write_etc(shared: &Shared, handle: &PodHandle, pod: &Pod, address: Option<IpAddr>) -> io::Result<()> {
    let etc = handle.dir.etc();
    fs::create_dir_all(&etc)?;
    let spec = pod.spec.clone().unwrap_or_default();
    let host = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let node = (shared.config.name.as_str(), shared.machine.address);
    let hosts = hostfiles::hosts(pod, address, &host("/etc/hosts"), &shared.dns, node);
    fs::write(etc.join("hosts"), hosts)?;
    let conf = hostfiles::resolv_conf(&spec, &handle.key.namespace, &shared.dns, &host("/etc/resolv.conf"));
    fs::write(etc.join("resolv.conf"), conf)?;
    fs::write(etc.join("hostname"), format!("{}\n", hostfiles::hostname(pod, &shared.config.name)))
}

/// Brings the projected files of a running Pod up to date, tokens among them. `address` is that of the Pod's ports. Two of
/// one Pod must not run at the same time.
pub(super) async fn refresh(
    shared: &Shared,
    handle: &PodHandle,
    pod: &Pod,
    address: Option<IpAddr>,
    cache: &mut TokenCache,
) {
    let spec = pod.spec.clone().unwrap_or_default();
    let tokens = match tokens::fetch(shared, handle, &spec, cache).await {
        Ok(tokens) => tokens,
        Err(why) => return shared.event(pod, None, EventType::Warning, "FailedMount", why),
    };
    let dir: PathBuf = handle.dir.volumes();
    let planned = match shared.with_scope(pod, address, |scope| volumes::plan(scope, &tokens)) {
        Ok(planned) => planned,
        Err(error) => {
            // The files stay as they are, as in Kubernetes: an app keeps what it has when a Secret is deleted.
            shared.event(pod, None, EventType::Warning, "FailedMount", error.to_string());
            return;
        }
    };
    let done = tokio::task::spawn_blocking(move || volumes::refresh(&dir, &planned)).await;
    if let Ok(Err(error)) = done {
        shared.event(pod, None, EventType::Warning, "FailedMount", error.to_string());
    }
}
