//! What an earlier process of this node left running, taken over.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, ContainerState as ApiState, ContainerStateTerminated, Pod};
use yado_oci::runtime::Found;
use yado_oci::spec::{ContainerState, ContainerStatus};
use yado_reconcile::ObjectKey;

use super::observe::{identify, time};
use super::prepare::{LABEL_ADDRESS, LABEL_NAME, LABEL_NAMESPACE};
use super::{Actor, release};
use crate::container;
use crate::lifecycle::{Ended, Hook, Now, PodRecord, Run, SandboxPhase, is_final};
use crate::shared::Shared;
use crate::spec::{all_containers, find_container, post_start};
use crate::volumes;

/// Takes over every sandbox that is found, removes what no Pod owns, and starts the tasks of the Pods. It is called once the
/// Pods' objects are known and before new Pods are taken up.
pub(crate) async fn adopt_all(shared: &Arc<Shared>) {
    let found = match shared.runtime.sandboxes().await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "sandboxes could not be listed; Pods start anew");
            Vec::new()
        }
    };
    let mut actors = Vec::new();
    for sandbox in found {
        actors.push(adopt(shared, sandbox).await);
    }
    for pod in shared.pods.list() {
        let Some(uid) = pod.metadata.uid.as_deref() else { continue };
        if shared.handles.get(uid).is_none() {
            let mut actor = Actor::new(shared, uid, &ObjectKey::of(&pod.metadata));
            let state = actor.state();
            recall(&mut state.record, &pod, false, shared.now());
            state.pod = Some(pod);
            actors.push(actor);
        }
    }
    for uid in release::held(shared).await {
        let owned = shared.handles.get(&uid).is_some();
        if !owned && let Err(error) = release::sweep(shared, &uid).await {
            tracing::warn!(uid, error, "what a Pod left behind could not be removed");
        }
    }
    // What is admitted is known of all of them before one begins.
    actors.iter().for_each(Actor::publish);
    actors.into_iter().for_each(Actor::spawn);
}

async fn adopt(shared: &Arc<Shared>, found: Found) -> Actor {
    let label = |name: &str| found.spec.labels.get(name).cloned().unwrap_or_default();
    let key = ObjectKey::new(label(LABEL_NAMESPACE), label(LABEL_NAME));
    let uid = found.spec.id.clone();
    let mut actor = Actor::new(shared, &uid, &key);
    let pod = shared.pod_object(&actor.handle);
    let state = actor.state();
    state.pod = pod.clone();
    state.record.admitted = true;
    state.record.address = label(LABEL_ADDRESS).parse().ok();
    state.record.sandbox = SandboxPhase::Dead;
    if let Some(pod) = &pod {
        recall(&mut state.record, pod, found.alive, shared.now());
    }
    if !found.alive {
        return actor;
    }
    let sandbox = match shared.runtime.adopt(&uid).await {
        Ok(sandbox) => sandbox,
        Err(error) => {
            tracing::warn!(pod = %key, %error, "the sandbox could not be adopted; the Pod starts anew");
            return actor;
        }
    };
    let record = actor.record();
    record.sandbox = SandboxPhase::Ready;
    for status in sandbox.statuses() {
        take_over(record, pod.as_deref(), &status, shared.now());
    }
    // What its files are made of may have changed while nobody watched.
    let refers = pod.as_deref().map(volumes::references).unwrap_or_default();
    actor.refresh.wanted = !(refers.config_maps.is_empty() && refers.secrets.is_empty());
    actor.follow(sandbox);
    actor.resume_probes(pod.as_ref());
    actor
}

/// What the sandbox says of a container counts more than what the object says.
fn take_over(record: &mut PodRecord, pod: Option<&Pod>, status: &ContainerStatus, now: Now) {
    let Some((name, attempt)) = identify(status) else { return };
    let state = record.container_mut(&name);
    if state.attempted && state.attempt > attempt {
        return;
    }
    state.attempt = attempt;
    state.attempted = true;
    let label = |name: &str| status.labels.get(name);
    state.stop_signal = label(container::LABEL_STOP_SIGNAL).and_then(|s| s.parse().ok());
    if state.image_id.is_empty() {
        state.image_id = label(container::LABEL_IMAGE).cloned().unwrap_or_default();
    }
    state.waiting = None;
    // The object may have told of this very run's end already.
    state.last = state.last.take().filter(|last| last.attempt != attempt);
    state.run = match &status.state {
        // Created but never started: the process that would have started it is gone. A new run replaces it.
        ContainerState::Created => Run::Absent,
        ContainerState::Running { started_at, .. } => {
            let post_start = if is_hook_pending(pod, &name) { Hook::Pending } else { Hook::Done };
            Run::Running { started_at: time(*started_at, now), post_start }
        }
        // Taken in with its message and all when the state is absorbed.
        ContainerState::Exited { .. } => Run::Starting,
    };
}

/// Whether the postStart hook of a container that runs has to be run, perhaps once more: its end would have been written
/// as the state `running`. Kubernetes, too, delivers hooks at least once.
fn is_hook_pending(pod: Option<&Pod>, name: &str) -> bool {
    let Some((spec, status)) = pod.and_then(|p| p.spec.as_ref().zip(p.status.as_ref())) else { return false };
    let mut said =
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let runs = said.any(|s| s.name == name && s.state.as_ref().is_some_and(|state| state.running.is_some()));
    !runs && find_container(spec, name).and_then(post_start).is_some()
}

/// What the Pod's own status says of the past: restarts, readiness, how the last runs ended. Where its sandbox is not
/// `alive`, what ran has ended, nobody knows how.
fn recall(record: &mut PodRecord, pod: &Pod, alive: bool, now: Now) {
    record.holds = true;
    let Some((spec, status)) = pod.spec.as_ref().zip(pod.status.as_ref()) else { return };
    record.started_at = status.start_time.as_ref().map(|t| t.0);
    record.admitted |= record.started_at.is_some();
    if yado_types::pod::is_ended(pod) {
        return;
    }
    let statuses =
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    for said in statuses.filter(|s| all_containers(spec).any(|c| c.name == s.name)) {
        let state = record.container_mut(&said.name);
        let current = said.state.clone().unwrap_or_default();
        state.attempt = said.restart_count.max(0).unsigned_abs();
        state.attempted = said.container_id.is_some() || said.restart_count > 0;
        state.image = said.image.clone();
        state.image_id = said.image_id.clone();
        state.ready = said.ready;
        state.started = said.started.unwrap_or(false);
        let terminated = |state: Option<ApiState>| state.and_then(|s| s.terminated);
        let attempt = state.attempt;
        let last = terminated(said.last_state.clone());
        let last = last.map(|t| (attempt_of(&t).unwrap_or(attempt.saturating_sub(1)), t));
        let last = last.map(|(attempt, t)| ended(t, attempt, now));
        let lost = current.running.as_ref().filter(|_| !alive);
        let lost = lost.map(|r| Ended::unknown(r.started_at.as_ref().map(|t| t.0), attempt, now));
        match terminated(Some(current)).map(|t| ended(t, attempt, now)).or(lost) {
            // It must not run once more because its sandbox went with the machine.
            Some(end) if is_final(pod, &said.name, &end) => {
                (state.run, state.last) = (Run::Exited(end), last);
            }
            end => state.last = end.or(last),
        }
    }
}

/// Which run the object tells of, by the end of its container's id.
fn attempt_of(said: &ContainerStateTerminated) -> Option<u32> {
    said.container_id.as_ref()?.rsplit_once('-')?.1.parse().ok()
}

fn ended(said: ContainerStateTerminated, attempt: u32, now: Now) -> Ended {
    Ended {
        code: said.exit_code,
        reason: said.reason.unwrap_or_default(),
        message: said.message.unwrap_or_default(),
        started_at: said.started_at.map(|t| t.0),
        finished_at: said.finished_at.map_or(now.wall, |t| t.0),
        seen: now.monotonic,
        attempt,
    }
}

impl Actor {
    /// Probes go on from the state that the object shows, so that a restart of the node makes nothing unready.
    fn resume_probes(&mut self, pod: Option<&Arc<Pod>>) {
        let Some((pod, spec)) = pod.and_then(|p| Some((p, p.spec.as_ref()?))) else { return };
        let up = self.state.record.containers.iter().filter(|(_, state)| state.run.is_up());
        let up: Vec<&Container> = up.filter_map(|(name, _)| find_container(spec, name)).collect();
        for container in up {
            let state = self.record().container_mut(&container.name);
            state.started |= container.startup_probe.is_none();
            state.ready |= state.started && container.readiness_probe.is_none();
            self.start_probes(pod, container);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::lifecycle::{Action, decide};

    /// What is begun for a Pod of this policy whose only container said `state`, once its sandbox is `alive` or not.
    fn check(policy: &str, state: Value, alive: bool, expect: &[Action]) {
        check_restart(policy, "always", state, alive, expect);
    }

    /// The same where an annotation says how often the containers are run again. Gives what starts after that.
    fn check_restart(
        policy: &str,
        restart: &str,
        state: Value,
        alive: bool,
        expect: &[Action],
    ) -> Vec<Action> {
        let restart = json!({"a": restart, "b": restart}).to_string();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u",
                "annotations": {yado_types::labels::RESTART: restart}},
            "spec": {"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]},
            "status": {"phase": "Running", "containerStatuses": [
                {"name": "a", "image": "i", "imageID": "i", "ready": false, "restartCount": 0, "state": state},
                {"name": "b", "image": "i", "imageID": "i", "ready": false, "restartCount": 0,
                    "state": {"terminated": {"exitCode": 0}}},
            ]},
        }))
        .expect("a Pod");
        let now = Now { monotonic: Duration::from_secs(9), wall: jiff::Timestamp::UNIX_EPOCH };
        let mut record = PodRecord::default();
        recall(&mut record, &pod, alive, now);
        assert_eq!(decide(Some(&pod), &record, now).actions, expect, "{policy} {state} {alive}");
        record.sandbox = SandboxPhase::Ready;
        decide(Some(&pod), &record, now).actions
    }

    #[test]
    fn a_hook_whose_end_was_never_written_runs_again() {
        let check = |state: Value, hooked: bool, expect: &[Action]| {
            let mut container = json!({"name": "a", "image": "i"});
            if hooked {
                container["lifecycle"] = json!({"postStart": {"exec": {"command": ["true"]}}});
            }
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {"name": "p", "namespace": "n", "uid": "u"},
                "spec": {"containers": [container]},
                "status": {"phase": "Pending", "containerStatuses": [{"name": "a", "image": "i", "imageID": "i",
                    "ready": false, "restartCount": 0, "state": state}]},
            }))
            .expect("a Pod");
            let now = Now { monotonic: Duration::from_secs(9), wall: jiff::Timestamp::UNIX_EPOCH };
            let mut record = PodRecord::default();
            recall(&mut record, &pod, true, now);
            record.sandbox = SandboxPhase::Ready;
            let labels = [(container::LABEL_NAME, "a"), (container::LABEL_ATTEMPT, "0")];
            let status = ContainerStatus {
                id: "a-0".into(),
                state: ContainerState::Running { pid: 1, started_at: 0 },
                labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            };
            take_over(&mut record, Some(&pod), &status, now);
            assert_eq!(decide(Some(&pod), &record, now).actions, expect, "{pod:?}");
        };
        let waiting = || json!({"waiting": {"reason": "ContainerCreating"}});
        check(waiting(), true, &[Action::PostStart { container: "a".into() }]);
        check(json!({"running": {}}), true, &[]);
        check(waiting(), false, &[]);
    }

    #[test]
    fn restarts_are_known_after_a_restart_of_the_machine() {
        let ended =
            |run: u32| json!({"terminated": {"exitCode": 1, "containerID": format!("yado://u/a-{run}")}});
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        for (state, last, count) in
            [(json!({"running": {}}), ended(2), 3), (waiting, ended(3), 3), (ended(3), ended(2), 3)]
        {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {"name": "p", "namespace": "n", "uid": "u"},
                "spec": {"initContainers": [{"name": "i"}], "containers": [{"name": "a"}]},
                "status": {"phase": "Running",
                    "initContainerStatuses": [{"name": "i", "image": "i", "imageID": "i", "ready": true,
                        "restartCount": 1, "state": {"terminated": {"exitCode": 0}}}],
                    "containerStatuses": [{"name": "a", "image": "i", "imageID": "i", "ready": false,
                        "restartCount": count, "state": state, "lastState": last}]},
            }))
            .expect("a Pod");
            let now = Now { monotonic: Duration::from_secs(9), wall: jiff::Timestamp::UNIX_EPOCH };
            let mut record = PodRecord::default();
            recall(&mut record, &pod, false, now);
            let status = crate::status::of(&pod, &record, [127, 0, 0, 1].into(), now);
            let container = &status.container_statuses.expect("statuses")[0];
            assert_eq!((container.restart_count, status.phase.as_deref()), (3, Some("Pending")), "{pod:?}");
            let init = &status.init_container_statuses.expect("statuses")[0];
            assert!(!init.ready && init.restart_count == 1, "it runs once more: {init:?}");
        }
    }

    #[test]
    fn what_ended_for_good_before_a_restart_of_the_machine_does_not_run_again() {
        let running = || json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
        let failed = || json!({"terminated": {"exitCode": 1}});
        check("Always", running(), false, &[Action::Prepare]);
        check("OnFailure", running(), false, &[Action::Prepare]);
        check("OnFailure", failed(), false, &[Action::Prepare]);
        check("OnFailure", json!({"terminated": {"exitCode": 0}}), false, &[Action::Release]);
        check("Never", running(), false, &[Action::Release]);
        check("Never", failed(), false, &[Action::Release]);
        check("Never", running(), true, &[Action::Prepare]);
        // What an annotation leaves at one run has had it; but what ended with the machine starts again.
        for (restart, state, starts) in [
            ("no", running(), &["a"][..]),
            ("no", failed(), &[]),
            ("on-failure:1", failed(), &["a"]),
            ("on-failure", json!({"terminated": {"exitCode": 0}}), &[]),
            ("always", json!({"terminated": {"exitCode": 0}}), &["a", "b"]),
        ] {
            let begun = check_restart("Always", restart, state.clone(), false, &[Action::Prepare]);
            let starts: Vec<_> =
                starts.iter().map(|name| Action::Start { container: (*name).into() }).collect();
            assert_eq!(begun, starts, "{restart} {state}");
        }
        // Whether an ended Pod was taken down is not known: it is done again.
        let ended = json!({"spec": {"containers": [{"name": "a"}]}, "status": {"phase": "Failed"}});
        let ended: Pod = serde_json::from_value(ended).expect("a Pod");
        let now = Now { monotonic: Duration::from_secs(9), wall: jiff::Timestamp::UNIX_EPOCH };
        let mut record = PodRecord::default();
        recall(&mut record, &ended, false, now);
        assert_eq!(decide(Some(&ended), &record, now).actions, [Action::Release]);
    }
}
