//! Runs the lifecycle hooks preStop and postStart of containers.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use yado_reconcile::events::EventType;

use crate::handle::PodHandle;
use crate::probes::handler::Handler;
use crate::shared::Shared;

/// Runs a hook for at most `limit`. A failure is reported as an event with `reason` and returned as its message.
pub(crate) async fn run(
    shared: &Shared,
    handle: &PodHandle,
    pod: &Pod,
    container: &Container,
    hook: &LifecycleHandler,
    reason: &'static str,
    limit: Duration,
) -> Result<(), String> {
    let result = match Handler::of_hook(hook, container) {
        Ok(handler) => handler.run(shared, handle, pod, container, limit).await,
        Err(message) => Err(message),
    };
    if let Err(message) = &result {
        let kind = reason.trim_start_matches("Failed").trim_end_matches("Hook");
        let text = format!("{kind}Hook failed: {message}");
        shared.event(pod, Some(&container.name), EventType::Warning, reason, text);
    }
    result
}
