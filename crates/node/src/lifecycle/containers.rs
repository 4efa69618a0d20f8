//! Containers of a Pod whose sandbox is ready: init containers in order, then the rest, each restarted as its policy says.
//! A container with a postStart hook holds back the start of those after it until the hook has ended.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::{Action, ContainerRecord, Hook, Now, Plan, PodRecord, Run, policy_of, restarts};
use crate::spec::{grace_period, is_sidecar, post_start, restart_policy};

pub(super) fn decide(pod: &Pod, spec: &PodSpec, record: &PodRecord, now: Now, plan: &mut Plan) {
    let policy = restart_policy(spec);
    // Once a container has run, init containers are history: sidecars among them are still kept up.
    let initialised = spec.containers.iter().any(|c| record.container(&c.name).run != Run::Absent);
    let mut may_start = true;
    for init in spec.init_containers.iter().flatten() {
        let state = record.container(&init.name);
        if is_sidecar(init) {
            keep(spec, init, state, "Always", may_start, now, plan);
            let up = state.run.is_up() && state.started;
            if !initialised && !up {
                return;
            }
            may_start &= !holds_back(init, state, plan);
        } else if !initialised && !matches!(&state.run, Run::Exited(ended) if ended.code == 0) {
            let policy = if policy == "Always" { "OnFailure" } else { policy };
            keep(spec, init, state, policy, may_start, now, plan);
            return;
        }
    }
    for container in &spec.containers {
        let state = record.container(&container.name);
        let policy = policy_of(pod, spec, &container.name, state.attempt);
        keep(spec, container, state, policy, may_start, now, plan);
        may_start &= !holds_back(container, state, plan);
    }
}

/// Whether the containers after this one have to wait for its postStart hook.
fn holds_back(container: &Container, state: &ContainerRecord, plan: &Plan) -> bool {
    let begins = || plan.actions.contains(&Action::Start { container: container.name.clone() });
    let comes_up = || state.is_active() && !state.run.is_up();
    post_start(container).is_some() && (comes_up() || begins())
}

/// Starts a container that should run, where it `may_start` already, and stops one whose restart was requested.
fn keep(
    spec: &PodSpec,
    container: &Container,
    state: &ContainerRecord,
    policy: &str,
    may_start: bool,
    now: Now,
    plan: &mut Plan,
) {
    let name = &container.name;
    match &state.run {
        Run::Absent => match &state.waiting {
            Some(waiting) if waiting.retry_at > now.monotonic => {
                plan.wake_at(waiting.retry_at);
                // The word for it changes meanwhile.
                let changes = waiting.since + crate::images::SHOWN_AS_ERROR;
                if changes > now.monotonic {
                    plan.wake_at(changes);
                }
            }
            _ if may_start => plan.push(Action::Start { container: name.clone() }),
            _ => {}
        },
        Run::Exited(ended) if restarts(policy, ended.code) => {
            let at = state.restart_at(ended);
            if at <= now.monotonic && may_start {
                plan.push(Action::Start { container: name.clone() });
            } else if at > now.monotonic {
                plan.wake_at(at);
            }
        }
        Run::Running { post_start, .. } => {
            if (*post_start, &state.stop) == (Hook::Pending, &None) {
                plan.push(Action::PostStart { container: name.clone() });
            }
            if let (Some((message, grace)), None) = (&state.restart_requested, &state.stop) {
                let grace = grace.unwrap_or_else(|| grace_period(spec));
                plan.push(Action::BeginStop { container: name.clone(), grace, message: message.clone() });
            } else if state.stop.is_none() && policy == "Always" && has_another_image(container, state) {
                let message = format!("Container {name} definition changed, will be restarted");
                plan.push(Action::BeginStop { container: name.clone(), grace: grace_period(spec), message });
            }
            go_on_stopping(name, state, now, plan);
        }
        Run::Starting | Run::Exited(_) => {}
    }
}

/// The image is the one thing of a container that may be changed while it runs.
fn has_another_image(container: &Container, state: &ContainerRecord) -> bool {
    !state.image.is_empty() && container.image.as_deref() != Some(&state.image)
}

/// The next step of a stop that has begun: hook, signal, SIGKILL.
pub(super) fn go_on_stopping(name: &str, state: &ContainerRecord, now: Now, plan: &mut Plan) {
    let Some(stop) = &state.stop else { return };
    let container = name.to_owned();
    let late = stop.deadline <= now.monotonic;
    match (stop.pre_stop, stop.signalled) {
        (Hook::Pending, _) => plan.push(Action::PreStop { container }),
        (Hook::Done, false) => plan.push(Action::Signal { container }),
        (Hook::Running, false) if late => plan.push(Action::Signal { container }),
        (_, true) if late => plan.push(Action::Kill { container }),
        _ => plan.wake_at(stop.deadline),
    }
}
