//! preStop and postStart.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use yado_reconcile::events::EventType;

use crate::pod::{Entry, Shared};
use crate::probes::target::{Target, Verdict};

/// A postStart hook that takes longer is given up: the container could never become ready.
pub(crate) const POST_START_LIMIT: Duration = Duration::from_secs(600);

/// The container's preStop hook.
pub(crate) fn pre_stop(container: &Container) -> Option<&LifecycleHandler> {
    container.lifecycle.as_ref()?.pre_stop.as_ref()
}

/// The container's postStart hook.
pub(crate) fn post_start(container: &Container) -> Option<&LifecycleHandler> {
    container.lifecycle.as_ref()?.post_start.as_ref()
}

/// Runs a hook; a failure is an event, and the answer is its message.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    entry: &Arc<Entry>,
    pod: &Pod,
    container: &Container,
    hook: &LifecycleHandler,
    reason: &'static str,
    limit: Duration,
) -> Result<(), String> {
    let verdict = match Target::of_hook(hook, container) {
        Ok(target) => target.reach(shared, entry, pod, container, limit).await,
        Err(message) => Verdict::Failure(message),
    };
    match verdict {
        Verdict::Success => Ok(()),
        Verdict::Failure(message) => {
            let kind = reason.trim_start_matches("Failed").trim_end_matches("Hook");
            let text = format!("{kind}Hook failed: {message}");
            shared.event(pod, Some(&container.name), EventType::Warning, reason, text);
            Err(message)
        }
    }
}
