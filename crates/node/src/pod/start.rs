//! The jobs that begin a run of a container: [`configure`] gets the image and computes the specification, [`create`] creates
//! and starts the container.

use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Secret};
use yado_oci::image::{Image, ImageConfig};
use yado_oci::runtime::Sandbox;
use yado_oci::spec::{BindMount, ContainerSpec};
use yado_reconcile::ObjectKey;
use yado_reconcile::events::EventType;
use yado_types::labels;

use crate::container::{self, ContainerInputs};
use crate::environment::{self, ConfigError};
use crate::handle::PodHandle;
use crate::images::{self, PullDecision, Unavailable};
use crate::lifecycle::{ContainerRecord, Waiting};
use crate::shared::Shared;
use crate::spec::find_container;
use crate::volumes::copy_up;
use crate::{annotations, security, volumes};

/// The waiting reason of what a change of a ConfigMap or Secret may mend.
pub(super) const CONFIG_ERROR: &str = "CreateContainerConfigError";
/// The waiting reason where a node does not allow its own root as an image.
const HOST_REFUSED: &str = "ErrHostImageNotAllowed";
/// First delay before a container that could not be configured or created is tried again.
const RETRY_FIRST: Duration = Duration::from_secs(2);
/// The longest such delay.
const RETRY_LONGEST: Duration = Duration::from_secs(60);

/// Delay before a start that was cancelled is tried again, should the Pod live on after all.
const ABANDONED: Duration = Duration::from_secs(1);

/// Why a container was not started: reason and message of its waiting state.
pub(super) struct StartError {
    pub reason: &'static str,
    pub message: String,
}

impl StartError {
    /// The sandbox was released while the container was configured.
    pub(super) fn sandbox_gone() -> Self {
        cannot_create("the Pod's sandbox is gone".into())
    }

    /// The state in which the container waits for the next attempt, after so many `failures` in a row before this one.
    pub(super) fn waiting(self, failures: u32, now: Duration) -> Waiting {
        let delay = match self.reason {
            "ErrImagePull" | "ErrImageNeverPull" | "InvalidImageName" | HOST_REFUSED => {
                images::retry_delay(failures)
            }
            _ => RETRY_FIRST.saturating_mul(1 << failures.min(8)).min(RETRY_LONGEST),
        };
        let reason = self.reason.into();
        Waiting { reason, message: self.message, since: now, retry_at: now + delay, failures }
    }
}

impl From<Unavailable> for StartError {
    fn from(u: Unavailable) -> Self {
        Self { reason: u.reason, message: u.message }
    }
}

/// The state of a container whose start was cancelled.
pub(super) fn abandoned(now: Duration) -> Waiting {
    Waiting {
        reason: "ContainerCreating".into(),
        message: String::new(),
        since: now,
        retry_at: now + ABANDONED,
        failures: 0,
    }
}

/// The result of configuring a run of a container.
pub(super) struct Configured {
    /// Its image, once that is on this machine.
    pub image: Option<UsedImage>,
    /// The specification for the runtime, or why there is none.
    pub specification: Result<ContainerSpec, StartError>,
}

/// What the record of a container says about its image.
pub(super) struct UsedImage {
    /// The name in the Pod.
    pub name: String,
    /// The digest that is shown to users.
    pub id: String,
    /// Number of the signal that asks the container to end.
    pub stop_signal: i32,
}

/// Pulls the image of a container if need be and computes the specification of its run `attempt`. `address` is that of the
/// Pod's ports. Cancelling it leaves nothing but an image, and the content of volumes that is being copied.
pub(super) async fn configure(
    shared: &Shared,
    handle: &PodHandle,
    pod: &Pod,
    name: &str,
    attempt: u32,
    address: Option<IpAddr>,
) -> Configured {
    let Some((spec, container)) = pod.spec.as_ref().and_then(|s| Some((s, find_container(s, name)?))) else {
        let message = format!("the Pod has no container \"{name}\"");
        return Configured { image: None, specification: Err(StartError { reason: CONFIG_ERROR, message }) };
    };
    let run = ContainerRun { shared, handle, pod, spec, container, attempt, address };
    let image = match run.image().await {
        Ok(image) => image,
        Err(error) => return Configured { image: None, specification: Err(error) },
    };
    let used = UsedImage {
        name: container.image.clone().unwrap_or_default(),
        id: shown_image_id(&image),
        stop_signal: container::stop_signal(container, &image),
    };
    Configured { image: Some(used), specification: run.specify(&image).await }
}

/// A run of a container that is being configured.
struct ContainerRun<'a> {
    shared: &'a Shared,
    handle: &'a PodHandle,
    pod: &'a Pod,
    spec: &'a PodSpec,
    container: &'a Container,
    attempt: u32,
    address: Option<IpAddr>,
}

impl ContainerRun<'_> {
    async fn specify(&self, image: &Image) -> Result<ContainerSpec, StartError> {
        let Self { shared, handle, pod, spec, container, attempt, address } = *self;
        let invalid = |ConfigError(message)| StartError { reason: CONFIG_ERROR, message };
        let dir = &handle.dir;
        let mut env =
            shared.with_scope(pod, address, |scope| environment::of(container, scope)).map_err(invalid)?;
        for (alias, image) in annotations::links(pod, &container.name).map_err(invalid)? {
            annotations::linked(&mut env, &alias, &linked_image(shared, pod, spec, &image).await?.config);
        }
        let mut binds = volumes::binds(&dir.volumes(), spec, container, &env).map_err(invalid)?;
        let mut empty = shared.with_scope(pod, address, |scope| {
            copy_up::volumes_to_fill(&dir.volumes(), pod, spec, container, scope.sources)
        });
        let of_run = dir.image_volumes(&container.name).join(attempt.to_string());
        let declared = volumes::image::binds(&image.config.volumes, &binds, &of_run).map_err(invalid)?;
        volumes::image::make(&declared)
            .map_err(|e| cannot_create(format!("cannot make a volume of its image: {e}")))?;
        let to_fill =
            |bind: &BindMount| copy_up::CopyUp { volume: bind.source.clone(), from: bind.target.clone() };
        empty.extend(declared.iter().map(to_fill));
        binds.extend(declared);
        fill(shared, handle, empty, image).await?;
        let user = annotations::user(pod, &container.name).map_err(invalid)?;
        let limits = annotations::limits(pod).map_err(invalid)?;
        let profiles = shared.config.data_dir.join("seccomp");
        let identity =
            security::of(spec, container, &image.config.user, user.as_deref(), &profiles).map_err(invalid)?;
        let specified = container::specify(ContainerInputs {
            pod,
            spec,
            container,
            attempt,
            image,
            env,
            binds,
            identity,
            dir,
            node_name: &shared.config.name,
            domain: &shared.dns.domain,
            machine_memory: shared.machine.memory.units(),
            host: shared.config.host_image.clone().filter(|_| is_host(container)),
            limits,
        });
        specified.map_err(invalid)
    }

    /// The image, which is pulled if the policy says so.
    async fn image(&self) -> Result<Image, StartError> {
        image(self.shared, self.pod, self.spec, self.container).await
    }
}

/// Copies what the image has at the places of volumes that are empty and want it.
async fn fill(
    shared: &Shared,
    handle: &PodHandle,
    empty: Vec<copy_up::CopyUp>,
    image: &Image,
) -> Result<(), StartError> {
    // The machine's own files are no template for a volume.
    if image.layers.is_empty() {
        return Ok(());
    }
    for wanted in empty {
        let (lock, number) = shared.fill_locks.of(&wanted.volume);
        // Held by the copy itself, which goes on where this start is given up.
        let held = lock.lock_owned().await;
        let (layers, scratch) = (image.layers.clone(), handle.dir.scratch(number));
        let filled = tokio::task::spawn_blocking(move || {
            let _held = held;
            copy_up::fill(&[wanted], &layers, &scratch)
        });
        let filled = filled.await.unwrap_or_else(|panicked| Err(panicked.to_string()));
        filled.map_err(cannot_create)?;
    }
    Ok(())
}

fn cannot_create(message: String) -> StartError {
    StartError { reason: "CreateContainerError", message }
}

/// As users know it: the digest at the registry where there is one, else the image's own.
fn shown_image_id(image: &Image) -> String {
    image.repo_digests.first().cloned().unwrap_or_else(|| image.id.clone())
}

async fn image(
    shared: &Shared,
    pod: &Pod,
    spec: &PodSpec,
    container: &Container,
) -> Result<Image, StartError> {
    let name = container.image.as_deref().unwrap_or_default();
    let event =
        |kind, reason, message: String| shared.event(pod, Some(&container.name), kind, reason, message);
    if is_host(container) {
        return match shared.config.host_image {
            Some(_) => Ok(host_image()),
            None => {
                let message = format!(
                    "the image \"{name}\" is the node's own root, which node {} does not allow; start it with \
                     --allow-host-image",
                    shared.config.name
                );
                event(EventType::Warning, "Failed", format!("Error: {message}"));
                Err(StartError { reason: HOST_REFUSED, message })
            }
        };
    }
    let here = shared
        .images
        .get(name)
        .inspect_err(|e| event(EventType::Warning, "InspectFailed", e.message.clone()))?;
    match (images::decide_pull(images::policy(container), here.as_ref()), here) {
        (PullDecision::Use, Some(image)) => {
            let message = format!("Container image \"{name}\" already present on machine");
            event(EventType::Normal, "Pulled", message);
            Ok(image)
        }
        (PullDecision::Refuse, _) | (PullDecision::Use, None) => {
            let message = format!("Container image \"{name}\" is not present with pull policy of Never");
            event(EventType::Warning, "ErrImageNeverPull", message.clone());
            Err(StartError { reason: "ErrImageNeverPull", message })
        }
        (PullDecision::Pull, _) => {
            event(EventType::Normal, "Pulling", format!("Pulling image \"{name}\""));
            let began = shared.clock.monotonic();
            let pulled = shared.images.pull(name, &pull_secrets(shared, pod, spec)).await;
            match pulled {
                Ok(image) => {
                    let took = shared.clock.monotonic().saturating_sub(began);
                    let message = format!(
                        "Successfully pulled image \"{name}\" in {took:.3?}. Image size: {} bytes.",
                        image.size
                    );
                    event(EventType::Normal, "Pulled", message);
                    Ok(image)
                }
                Err(error) => {
                    event(
                        EventType::Warning,
                        "Failed",
                        format!("Failed to pull image \"{name}\": {}", error.message),
                    );
                    event(EventType::Warning, "Failed", format!("Error: {}", error.reason));
                    event(EventType::Normal, "BackOff", format!("Back-off pulling image \"{name}\""));
                    Err(error.into())
                }
            }
        }
    }
}

/// The image of a container that is linked, for what it says of its ports: fetched where it is not here, since the
/// variables of a link are those of the container's whole life.
async fn linked_image(shared: &Shared, pod: &Pod, spec: &PodSpec, name: &str) -> Result<Image, StartError> {
    match shared.images.get(name)? {
        Some(image) => Ok(image),
        None => Ok(shared.images.pull(name, &pull_secrets(shared, pod, spec)).await?),
    }
}

/// Whether a container runs on the node's own root. That is the name as it stands: with a tag or a registry it is an
/// image like any other.
fn is_host(container: &Container) -> bool {
    container.image.as_deref() == Some(labels::HOST_IMAGE)
}

/// The node's own root as an image: it says nothing of what to run.
fn host_image() -> Image {
    Image {
        id: labels::HOST_IMAGE.into(),
        names: vec![labels::HOST_IMAGE.into()],
        repo_digests: Vec::new(),
        size: 0,
        config: ImageConfig::default(),
        layers: Vec::new(),
    }
}

fn pull_secrets(shared: &Shared, pod: &Pod, spec: &PodSpec) -> Vec<Arc<Secret>> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let names = spec.image_pull_secrets.iter().flatten().map(|s| &s.name);
    names.filter_map(|name| shared.secrets.get(&ObjectKey::new(namespace, name))).collect()
}

/// Creates and starts the container of run `attempt`. The sandbox's state tells how the run goes on.
pub(super) async fn create(
    shared: &Shared,
    handle: &PodHandle,
    pod: &Pod,
    sandbox: &Sandbox,
    name: &str,
    attempt: u32,
    specification: ContainerSpec,
) -> Result<(), StartError> {
    let event = |kind, reason, message: String| shared.event(pod, Some(name), kind, reason, message);
    make_files(handle, name, attempt)
        .map_err(|e| cannot_create(format!("cannot make the container's files: {e}")))?;
    let id = specification.id.clone();
    sandbox.create(specification).await.map_err(|error| {
        event(EventType::Warning, "Failed", format!("Error: {error}"));
        cannot_create(error.to_string())
    })?;
    event(EventType::Normal, "Created", format!("Container created: {name}"));
    match sandbox.start(&id).await {
        Ok(_pid) => event(EventType::Normal, "Started", format!("Container started: {name}")),
        // The container's state says the same, and counts as a run that has ended.
        Err(error) => event(EventType::Warning, "Failed", format!("Error: {error}")),
    }
    if let Some(before) = attempt.checked_sub(1) {
        // Only now, since the restart is what somebody waits for. Its exit code and its log are kept elsewhere; its
        // writable layer is of no more use.
        if let Err(error) = sandbox.remove(&ContainerRecord::id(name, before)).await {
            tracing::debug!(pod = %handle.key, container = name, %error, "the container before was not removed");
        }
        let volumes = handle.dir.image_volumes(name);
        let removed =
            tokio::task::spawn_blocking(move || volumes::image::remove_others(&volumes, attempt)).await;
        if let Ok(Err(error)) = removed {
            tracing::debug!(pod = %handle.key, container = name, %error, "volumes of its image were not removed");
        }
    }
    Ok(())
}

/// The log directory and the file for the termination message; what runs before the last one left goes.
fn make_files(handle: &PodHandle, name: &str, attempt: u32) -> std::io::Result<()> {
    let logs = handle.dir.logs(name);
    fs::create_dir_all(&logs)?;
    if let Some(old) = attempt.checked_sub(2) {
        let prefix = format!("{old}.log");
        for file in fs::read_dir(&logs)?.flatten() {
            if file.file_name().to_string_lossy().starts_with(&prefix) {
                fs::remove_file(file.path())?;
            }
        }
        let _ = fs::remove_file(handle.dir.termination(name, old));
    }
    let message = handle.dir.termination(name, attempt);
    if let Some(parent) = message.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&message, b"")?;
    // Whoever the container runs as may say why it ends.
    fs::set_permissions(&message, std::os::unix::fs::PermissionsExt::from_mode(0o666))
}
