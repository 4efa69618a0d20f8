//! Everything a Pod needs before its first container: directories, volumes, network, sandbox.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, PodSpec, ServiceAccount};
use kube::api::{Api, PostParams};
use yado_oci::runtime::{Error as RuntimeError, Sandbox};
use yado_oci::spec::SandboxSpec;
use yado_reconcile::events::EventType;

use super::{Entry, Shared, observe};
use crate::hostfiles;
use crate::lifecycle::SandboxPhase;
use crate::network::PodRef;
use crate::resources;
use crate::volumes::{self, Tokens};

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

/// What failed: the event's reason and message.
struct Failure {
    reason: &'static str,
    message: String,
}

pub(super) async fn run(shared: Arc<Shared>, entry: Arc<Entry>, pod: Arc<Pod>) {
    let _making = shared.making.read().await;
    if shared.closing.is_cancelled() {
        return;
    }
    match prepare(&shared, &entry, &pod).await {
        Ok((sandbox, address)) => {
            *entry.preparation_failures.lock() = 0;
            {
                let mut record = entry.record.lock();
                record.sandbox = SandboxPhase::Ready;
                record.address = address;
            }
            observe::watch(&shared, &entry, sandbox);
            if entry.stale.swap(false, Ordering::SeqCst) {
                shared.refresh(entry.clone());
            }
        }
        Err(failure) => {
            shared.event(&pod, None, EventType::Warning, failure.reason, failure.message.clone());
            let mut failures = entry.preparation_failures.lock();
            let delay = RETRY_FIRST.saturating_mul(1 << (*failures).min(10)).min(RETRY_LONGEST);
            *failures += 1;
            let retry_at = shared.clock.monotonic() + delay;
            entry.record.lock().sandbox = SandboxPhase::Failed { message: failure.message, retry_at };
        }
    }
    shared.queue.add(entry.uid.clone());
}

async fn prepare(shared: &Shared, entry: &Entry, pod: &Pod) -> Result<(Sandbox, Option<IpAddr>), Failure> {
    let spec = pod.spec.clone().unwrap_or_default();
    let network = async {
        if spec.host_network == Some(true) {
            return Ok(None);
        }
        let pod = PodRef {
            namespace: entry.key.namespace.clone(),
            name: entry.key.name.clone(),
            uid: entry.uid.clone(),
        };
        shared.network.attach(&pod).await.map(Some).map_err(|error| Failure {
            reason: "FailedCreatePodSandBox",
            message: format!("Failed to create pod sandbox: {error}"),
        })
    };
    let tokens = tokens(shared, entry, &spec);
    let (attachment, tokens) = tokio::try_join!(network, tokens)?;
    let address = attachment.as_ref().map(|a| a.address);
    // Known before the volumes are made: the downward API may ask for it.
    entry.record.lock().address = address;
    volumes(shared, entry, pod, &tokens).await?;
    let failed = |message: String| Failure {
        reason: "FailedCreatePodSandBox",
        message: format!("Failed to create pod sandbox: {message}"),
    };
    write_etc(shared, entry, pod, address).map_err(|e| failed(e.to_string()))?;
    let sandbox = SandboxSpec {
        id: entry.uid.clone(),
        hostname: hostfiles::uts_name(pod, &shared.config.name, &shared.dns.domain),
        netns: attachment.map(|a| a.netns),
        host_pid: spec.host_pid == Some(true),
        host_ipc: spec.host_ipc == Some(true),
        share_pid: spec.share_process_namespace == Some(true),
        resources: resources::of_pod(&spec),
        sysctls: sysctls(&spec),
        labels: labels(entry, address),
    };
    let made = match shared.runtime.create_sandbox(sandbox.clone()).await {
        Err(RuntimeError::SandboxExists { .. }) => {
            // What an interrupted preparation left behind.
            shared.runtime.destroy(&sandbox.id).await.map_err(|e| failed(e.to_string()))?;
            shared.runtime.create_sandbox(sandbox).await
        }
        other => other,
    };
    Ok((made.map_err(|e| failed(e.to_string()))?, address))
}

fn labels(entry: &Entry, address: Option<IpAddr>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        (LABEL_NAMESPACE.to_owned(), entry.key.namespace.clone()),
        (LABEL_NAME.to_owned(), entry.key.name.clone()),
    ]);
    labels.extend(address.map(|a| (LABEL_ADDRESS.to_owned(), a.to_string())));
    labels
}

fn sysctls(spec: &PodSpec) -> BTreeMap<String, String> {
    let all = spec.security_context.iter().flat_map(|s| s.sysctls.iter().flatten());
    all.map(|s| (yado_types::sysctls::dotted(&s.name), s.value.clone())).collect()
}

async fn volumes(shared: &Shared, entry: &Entry, pod: &Pod, tokens: &Tokens) -> Result<(), Failure> {
    let failed = |error: String| Failure { reason: "FailedMount", message: error };
    let planned = shared
        .with_scope(entry, pod, |scope| volumes::plan(scope, tokens))
        .map_err(|e| failed(e.to_string()))?;
    let dir = entry.dir.volumes();
    let made = tokio::task::spawn_blocking(move || {
        fs::create_dir_all(&dir).map_err(|e| format!("cannot create directory {}: {e}", dir.display()))?;
        volumes::make(&dir, &planned).map_err(|e| e.to_string())
    });
    made.await.unwrap_or_else(|e| Err(e.to_string())).map_err(failed)
}

fn write_etc(shared: &Shared, entry: &Entry, pod: &Pod, address: Option<IpAddr>) -> io::Result<()> {
    let etc = entry.dir.etc();
    fs::create_dir_all(&etc)?;
    let spec = pod.spec.clone().unwrap_or_default();
    let host = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let node = (shared.config.name.as_str(), shared.machine.address);
    let hosts = hostfiles::hosts(pod, address, &host("/etc/hosts"), &shared.dns, node);
    fs::write(etc.join("hosts"), hosts)?;
    let conf = hostfiles::resolv_conf(&spec, &entry.key.namespace, &shared.dns, &host("/etc/resolv.conf"));
    fs::write(etc.join("resolv.conf"), conf)?;
    fs::write(etc.join("hostname"), format!("{}\n", hostfiles::hostname(pod, &shared.config.name)))
}

/// Tokens for the Pod's projected volumes. A token that was added by default and that the API server does not offer
/// is left out; one that the Pod asks for itself is not.
async fn tokens(shared: &Shared, entry: &Entry, spec: &PodSpec) -> Result<Tokens, Failure> {
    let mut tokens = Tokens::new();
    let account = spec.service_account_name.as_deref().filter(|n| !n.is_empty()).unwrap_or("default");
    let api: Api<ServiceAccount> = Api::namespaced(shared.client.clone(), &entry.key.namespace);
    for volume in spec.volumes.iter().flatten() {
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            let Some(wanted) = &source.service_account_token else { continue };
            let request = TokenRequest {
                spec: Some(TokenRequestSpec {
                    audiences: wanted.audience.clone().map(|a| vec![a]),
                    expiration_seconds: wanted.expiration_seconds,
                    bound_object_ref: None,
                }),
                ..Default::default()
            };
            let params = PostParams::default();
            let answer = api.create_subresource::<_, TokenRequest>("token", account, &params, &request).await;
            match answer.map(|a| a.status.and_then(|s| s.token)).map_err(|e| e.to_string()) {
                Ok(Some(token)) => {
                    tokens.insert((volume.name.clone(), wanted.path.clone()), token);
                }
                _ if volume.name.starts_with("kube-api-access-") => {}
                other => {
                    let why = other.err().unwrap_or_else(|| "the answer holds none".into());
                    let message = format!(
                        "MountVolume.SetUp failed for volume \"{}\" : failed to fetch a token of service account \
                         {account}: {why}",
                        volume.name
                    );
                    return Err(Failure { reason: "FailedMount", message });
                }
            }
        }
    }
    Ok(tokens)
}

/// Brings a running Pod's projected files up to date, as the Pod and what it refers to are by then.
pub(super) async fn refresh(shared: Arc<Shared>, entry: Arc<Entry>) {
    let _refreshing = entry.refreshing.lock().await;
    let Some(pod) = shared.pods.get(&entry.key).filter(|p| p.metadata.uid.as_deref() == Some(&entry.uid))
    else {
        return;
    };
    // Noted before the look at the phase, so that whoever ends the preparation sees one or the other.
    entry.stale.store(true, Ordering::SeqCst);
    if entry.record.lock().sandbox != SandboxPhase::Ready {
        return;
    }
    entry.stale.store(false, Ordering::SeqCst);
    let spec = pod.spec.clone().unwrap_or_default();
    let Ok(tokens) = tokens(&shared, &entry, &spec).await else { return };
    let dir: PathBuf = entry.dir.volumes();
    let planned = match shared.with_scope(&entry, &pod, |scope| volumes::plan(scope, &tokens)) {
        Ok(planned) => planned,
        Err(error) => {
            // The files stay as they are, as in Kubernetes: an app keeps what it has when a Secret is deleted.
            shared.event(&pod, None, EventType::Warning, "FailedMount", error.to_string());
            return;
        }
    };
    let done = tokio::task::spawn_blocking(move || volumes::refresh(&dir, &planned)).await;
    if let Ok(Err(error)) = done {
        shared.event(&pod, None, EventType::Warning, "FailedMount", error.to_string());
    }
}
