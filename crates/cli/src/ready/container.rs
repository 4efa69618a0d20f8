//! Readiness of a Pod and of its containers, with the cause in users' words.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, Pod, Probe};
use kube::ResourceExt;

use super::{
    judge::{Cause, LogOf, Readiness},
    observed::{Observed, container_state, pod_condition},
};

/// A process that needs another one may end a few times until that one is up.
const TOLERATED_RESTARTS: i32 = 3;
/// How long a container may fail to be created, which the node tries again after two seconds, before that counts.
const CREATE_RETRIED: Duration = Duration::from_secs(3);
/// How long a Pod may wait for a volume that cannot be mounted, or for a claim that is not there.
const MOUNT_RETRIED: Duration = Duration::from_secs(5);

/// A container is restarted at once, or waits for its restart in so many words; one that is only ended for longer is
/// not restarted, as a description may ask for.
const RESTARTED_WITHIN: Duration = Duration::from_secs(1);

/// What is expected of a Pod's containers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expectation {
    /// How long a container without a probe, or one that was restarted meanwhile, must have run.
    pub settle: Duration,
    /// Whether the Pod's owner decides how many failures are too many, as a Job does.
    pub owner_counts_failures: bool,
}

/// Readiness of one Pod.
pub(super) fn pod(observed: &Observed, pod: &Pod, expected: Expectation) -> Readiness {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    match phase {
        "Succeeded" => return Readiness::Ready,
        "Failed" if expected.owner_counts_failures => return Readiness::Moving(failure(pod)),
        "Failed" => return Readiness::Failed(failure(pod)),
        _ => {}
    }
    if let Some(waits) = unscheduled(observed, pod) {
        return waits;
    }
    let mut moving = None;
    for (spec, status, init) in containers(pod) {
        let of_container = ContainerOf { observed, pod, spec, status, init, expected };
        match of_container.readiness() {
            Readiness::Ready => {}
            Readiness::Failed(cause) => return Readiness::Failed(cause),
            Readiness::Moving(cause) => drop(moving.get_or_insert(cause)),
        }
    }
    if let Some(cause) = moving {
        return Readiness::Moving(cause);
    }
    match yado_types::pod::is_ready(pod) || has_done_its_work(observed, pod) {
        true => Readiness::Ready,
        false => Readiness::Moving(Cause::of("its Pod is not ready yet")),
    }
}

/// Whether a process of the Pod has ended well for good: such a Pod is not Ready, and need not be.
pub(super) fn has_done_its_work(observed: &Observed, pod: &Pod) -> bool {
    let mut statuses = containers(pod).filter(|(_, _, init)| !init).filter_map(|(_, status, _)| status);
    statuses.any(|status| {
        let ended = status.state.as_ref().and_then(|s| s.terminated.as_ref());
        ended.is_some_and(|ended| ended.exit_code == 0) && is_over(observed, pod, status)
    })
}

/// Whether a container that has ended stays so: one that is to be restarted waits for that, or runs again at once.
fn is_over(observed: &Observed, pod: &Pod, status: &ContainerStatus) -> bool {
    observed.seen.age(&container_state(pod, status), observed.now) >= RESTARTED_WITHIN
}

/// Why a Pod has no node: what it waits for, or what no node offers.
fn unscheduled(observed: &Observed, pod: &Pod) -> Option<Readiness> {
    let refused = pod_condition(pod, "PodScheduled").filter(|c| c.status == "False")?;
    let message = refused.message.clone().unwrap_or_else(|| "it has no node yet".into());
    let absent = message.contains("persistentvolumeclaim") && message.contains("not found");
    let cause = Cause::of(message);
    let waited = observed.seen.age(&format!("{}/unscheduled", pod.name_any()), observed.now);
    Some(if absent && waited >= MOUNT_RETRIED { Readiness::Failed(cause) } else { Readiness::Moving(cause) })
}

/// Why a Pod has failed as a whole.
fn failure(pod: &Pod) -> Cause {
    let ended = containers(pod).find_map(|(spec, status, init)| {
        let ended = status?.state.as_ref()?.terminated.as_ref().filter(|t| t.exit_code != 0)?;
        Some(Cause {
            sentence: format!("{} {}", subject(pod, spec, init), ended_how(spec, ended)),
            log: Some(log_of(pod, spec, false)),
        })
    });
    let status = pod.status.as_ref();
    let word = |text: Option<&String>| text.cloned().unwrap_or_default();
    let evicted = || {
        let (reason, message) =
            (word(status.and_then(|s| s.reason.as_ref())), word(status.and_then(|s| s.message.as_ref())));
        Cause::of(format!("its Pod has failed {reason} {message}").trim_end().replace("  ", " "))
    };
    ended.unwrap_or_else(evicted)
}

type Part<'a> = (&'a Container, Option<&'a ContainerStatus>, bool);

/// Containers with their status, init containers first.
pub(super) fn containers(pod: &Pod) -> impl Iterator<Item = Part<'_>> {
    let status = pod.status.as_ref();
    let init = status.and_then(|s| s.init_container_statuses.as_ref()).into_iter().flatten();
    let statuses: Vec<&ContainerStatus> =
        init.chain(status.and_then(|s| s.container_statuses.as_ref()).into_iter().flatten()).collect();
    let spec = pod.spec.iter();
    let all = spec.flat_map(|s| {
        let init = s.init_containers.iter().flatten().map(|c| (c, true));
        init.chain(s.containers.iter().map(|c| (c, false)))
    });
    all.map(move |(c, init)| (c, statuses.iter().find(|s| s.name == c.name).copied(), init))
}

/// `its process`, or which one where a Pod has several.
fn subject(pod: &Pod, container: &Container, init: bool) -> String {
    let several = pod.spec.as_ref().is_some_and(|s| s.containers.len() > 1);
    match (init, several) {
        (true, _) => format!("its init container {}", container.name),
        (false, true) => format!("its container {}", container.name),
        (false, false) => "its process".into(),
    }
}

fn log_of(pod: &Pod, container: &Container, previous: bool) -> LogOf {
    LogOf { pod: pod.name_any(), container: container.name.clone(), previous }
}

/// `ended with exit code 1`, and what it left as its termination message.
fn ended_how(container: &Container, ended: &ContainerStateTerminated) -> String {
    let message = ended.message.as_deref().unwrap_or_default().trim();
    match ended.reason.as_deref().unwrap_or_default() {
        "StartError" | "ContainerCannotRun" => format!("cannot be started: {message}"),
        "OOMKilled" => {
            let limit = container.resources.as_ref().and_then(|r| r.limits.as_ref()?.get("memory"));
            let limit = limit.map(|l| format!(" of {}", l.0)).unwrap_or_default();
            format!(
                "was killed because it ran out of memory (OOMKilled): it needs more than its limit{limit}"
            )
        }
        _ if message.is_empty() => format!("ended with exit code {}", ended.exit_code),
        _ => format!("ended with exit code {}: {message}", ended.exit_code),
    }
}

struct ContainerOf<'a> {
    observed: &'a Observed,
    pod: &'a Pod,
    spec: &'a Container,
    status: Option<&'a ContainerStatus>,
    init: bool,
    expected: Expectation,
}

impl ContainerOf<'_> {
    fn readiness(&self) -> Readiness {
        let Some(status) = self.status else {
            return Readiness::Moving(Cause::of("its Pod is being set up"));
        };
        let state = status.state.clone().unwrap_or_default();
        if let Some(ended) = &state.terminated {
            let over = !self.expected.owner_counts_failures && is_over(self.observed, self.pod, status);
            return match self.ended(ended, false) {
                Readiness::Moving(_) if over && ended.exit_code == 0 => Readiness::Ready,
                Readiness::Moving(cause) if over => Readiness::Failed(cause),
                readiness => readiness,
            };
        }
        if let Some(waiting) = &state.waiting {
            let reason = waiting.reason.as_deref().unwrap_or_default();
            return self.waiting(status, reason, waiting.message.as_deref().unwrap_or_default());
        }
        if state.running.is_none() {
            return Readiness::Moving(Cause::of("its Pod is being set up"));
        }
        self.running(status)
    }

    fn subject(&self) -> String {
        subject(self.pod, self.spec, self.init)
    }

    /// How long the container has been seen in its present state.
    fn age(&self) -> Duration {
        let key = self.status.map(|s| container_state(self.pod, s)).unwrap_or_default();
        self.observed.seen.age(&key, self.observed.now)
    }

    fn ended(&self, ended: &ContainerStateTerminated, again: bool) -> Readiness {
        if self.init && ended.exit_code == 0 {
            return Readiness::Ready;
        }
        let sentence = format!("{} {}", self.subject(), ended_how(self.spec, ended));
        let cause = Cause { sentence, log: Some(log_of(self.pod, self.spec, again)) };
        match ended.reason.as_deref() {
            Some("StartError" | "ContainerCannotRun") => Readiness::Failed(cause),
            _ => Readiness::Moving(cause),
        }
    }

    fn waiting(&self, status: &ContainerStatus, reason: &str, message: &str) -> Readiness {
        let image = self.spec.image.as_deref().unwrap_or_default();
        match reason {
            "" | "ContainerCreating" | "PodInitializing" => self.being_made(),
            // The node tries again after ErrImagePull, and says this once it has failed for a second time.
            "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" => Readiness::Failed(Cause::of(
                format!("image {image} cannot be used: {reason} {message}").trim_end(),
            )),
            "CrashLoopBackOff" => self.crashes(status),
            "ErrImagePull" => {
                Readiness::Moving(Cause::of(format!("image {image} cannot be pulled: {message}").trim_end()))
            }
            _ => {
                let cause = Cause::of(format!("{} cannot be created: {reason}: {message}", self.subject()));
                if self.age() >= CREATE_RETRIED { Readiness::Failed(cause) } else { Readiness::Moving(cause) }
            }
        }
    }

    /// A container that was not created yet, perhaps for a volume that cannot be mounted.
    fn being_made(&self) -> Readiness {
        match self.observed.warning(self.pod, &["FailedMount", "FailedCreatePodSandBox"]) {
            Some(message) => {
                let cause = Cause::of(message);
                if self.age() >= MOUNT_RETRIED { Readiness::Failed(cause) } else { Readiness::Moving(cause) }
            }
            None => Readiness::Moving(Cause::of("its container is being created")),
        }
    }

    fn crashes(&self, status: &ContainerStatus) -> Readiness {
        let ended = status.last_state.as_ref().and_then(|s| s.terminated.as_ref());
        let Some(ended) = ended else {
            return Readiness::Moving(Cause::of("its process waits to be restarted"));
        };
        let (Readiness::Moving(mut cause) | Readiness::Failed(mut cause)) = self.ended(ended, false) else {
            return Readiness::Moving(Cause::of("its process waits to be restarted"));
        };
        if matches!(ended.reason.as_deref(), Some("StartError" | "ContainerCannotRun")) {
            return Readiness::Failed(cause);
        }
        let times = status.restart_count + 1;
        if times > 1 {
            cause.sentence.push_str(&format!(", {times} times"));
        }
        let hopeless = !self.expected.owner_counts_failures && status.restart_count >= TOLERATED_RESTARTS;
        if hopeless { Readiness::Failed(cause) } else { Readiness::Moving(cause) }
    }

    fn running(&self, status: &ContainerStatus) -> Readiness {
        let sidecar = self.spec.restart_policy.as_deref() == Some("Always");
        if self.init && !sidecar {
            let sentence = format!("{} still runs", self.subject());
            return Readiness::Moving(Cause { sentence, log: Some(log_of(self.pod, self.spec, false)) });
        }
        if !status.ready {
            return Readiness::Moving(self.unready(status));
        }
        let probed = self.spec.readiness_probe.is_some() || self.spec.startup_probe.is_some();
        let restarted = self.observed.seen.restarted(self.pod, status);
        if (probed && !restarted) || self.age() >= self.expected.settle {
            return Readiness::Ready;
        }
        let sentence = match status.last_state.as_ref().and_then(|s| s.terminated.as_ref()) {
            Some(ended) => {
                format!("{} {}, and has just been restarted", self.subject(), ended_how(self.spec, ended))
            }
            None => format!("{} has only just been started", self.subject()),
        };
        let previous = status.restart_count > 0;
        Readiness::Moving(Cause { sentence, log: Some(log_of(self.pod, self.spec, previous)) })
    }

    /// Why a container that runs is not ready: its probe's own words where there are any.
    fn unready(&self, status: &ContainerStatus) -> Cause {
        let said = self.observed.warning(self.pod, &["Unhealthy"]);
        let started = status.started == Some(true);
        let (name, probe) = match (&self.spec.startup_probe, &self.spec.readiness_probe) {
            (Some(probe), _) if !started => ("startup", Some(probe)),
            (_, readiness) => ("readiness", readiness.as_ref()),
        };
        let asks = probe.map(asks).unwrap_or_default();
        let sentence = match said {
            Some(words) => {
                let words = words.split_once(" probe failed: ").map_or(words.as_str(), |(_, words)| words);
                format!("{} runs, but its {name} probe ({asks}) fails: {words}", self.subject())
            }
            None => format!("{} runs, but its {name} probe ({asks}) has not succeeded yet", self.subject()),
        };
        Cause { sentence, log: None }
    }
}

/// What a probe does: `sh -c "pg_isready"`, `GET :80/healthz`, `connect to port 80`.
fn asks(probe: &Probe) -> String {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    let port = |port: &IntOrString| match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    };
    if let Some(exec) = &probe.exec {
        return exec.command.iter().flatten().cloned().collect::<Vec<_>>().join(" ");
    }
    if let Some(get) = &probe.http_get {
        return format!("GET :{}{}", port(&get.port), get.path.as_deref().unwrap_or("/"));
    }
    if let Some(tcp) = &probe.tcp_socket {
        return format!("connect to port {}", port(&tcp.port));
    }
    "grpc".into()
}
