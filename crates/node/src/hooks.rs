//! The hooks preStop and postStart: how one is run, and what the end of a postStart hook means.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use tokio_util::sync::CancellationToken;
use yado_reconcile::events::EventType;

use crate::pod::{Entry, Shared, start_probes};
use crate::probes::handler::Handler;
use crate::spec::{find_container, post_start};

/// Runs a hook. A failure is reported as an event and returned as its message.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    entry: &Arc<Entry>,
    pod: &Pod,
    container: &Container,
    hook: &LifecycleHandler,
    reason: &'static str,
    limit: Duration,
) -> Result<(), String> {
    let result = match Handler::of_hook(hook, container) {
        Ok(handler) => handler.run(shared, entry, pod, container, limit).await,
        Err(message) => Err(message),
    };
    if let Err(message) = &result {
        let kind = reason.trim_start_matches("Failed").trim_end_matches("Hook");
        let text = format!("{kind}Hook failed: {message}");
        shared.event(pod, Some(&container.name), EventType::Warning, reason, text);
    }
    result
}

/// The run of a container that a hook belongs to.
pub(crate) struct OfRun {
    pub container: String,
    pub attempt: u32,
    /// Cancelled when the run ends or is being stopped.
    pub stop: CancellationToken,
}

/// Runs the postStart hook of a container's present run. Success brings the container up; a failure stops it, and its
/// restart policy says what follows. As in Kubernetes a hook may take any time: one that hangs keeps its container
/// waiting. The end of the container, or of the Pod, ends the hook.
pub(crate) async fn run_post_start(shared: Arc<Shared>, entry: Arc<Entry>, pod: Arc<Pod>, of: OfRun) {
    let OfRun { container: name, attempt, stop } = of;
    let container = pod.spec.as_ref().and_then(|s| find_container(s, &name));
    let Some((container, hook)) = container.and_then(|c| Some((c, post_start(c)?))) else { return };
    let (reason, limit) = ("FailedPostStartHook", Duration::MAX);
    // Boxed: the future of an HTTPS request is large, and few hooks make one.
    let hooked = Box::pin(run(&shared, &entry, &pod, container, hook, reason, limit));
    let ran = stop.run_until_cancelled(hooked).await;
    let Some(outcome) = ran else { return };
    let up = entry.with_container(&name, |record| {
        // A hook that fails because its run has ended says nothing of the next one.
        if record.attempt != attempt || !record.is_active() {
            return false;
        }
        match outcome {
            Ok(()) => record.come_up(Some(container)),
            Err(_) => {
                record.restart_requested.get_or_insert_with(|| (reason.into(), None));
            }
        }
        record.run.is_up()
    });
    if up {
        start_probes(&shared, &entry, &pod, container);
    }
    shared.queue.add(entry.uid.clone());
}
