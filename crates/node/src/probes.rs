//! Probes: tried at intervals while a container runs, judged by thresholds.

pub(crate) mod grpc;
pub(crate) mod handler;
pub(crate) mod http;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use tokio::sync::watch;
use yado_reconcile::events::EventType;

use crate::handle::{Message, PodHandle};
use crate::lifecycle::{ProbeKind, Probed};
use crate::shared::Shared;
use handler::Handler;

/// Before a container is ready for the first time its readiness is tried this soon again, then twice as late each
/// time up to the period: a server that needs 30 ms to listen is then ready after some 40 ms, not after a period.
/// Kubernetes' thresholds are not touched: these tries count only when they succeed.
const EAGER_FIRST: Duration = Duration::from_millis(5);
/// The same for a probe that runs a command in the container, which costs it some milliseconds each time.
const EAGER_FIRST_EXEC: Duration = Duration::from_millis(50);
/// Liveness is first looked at this long after the start: Kubernetes' own probes are never quicker, and a threshold
/// of one must not kill what had no time to begin.
const LIVENESS_AFTER: Duration = Duration::from_secs(1);

/// Counts consecutive results of a probe against its thresholds.
#[derive(Clone, Debug)]
pub(crate) struct ResultCounter {
    successes: i32,
    failures: i32,
    success_threshold: i32,
    failure_threshold: i32,
}

impl ResultCounter {
    pub(crate) fn new(probe: &Probe) -> Self {
        Self {
            successes: 0,
            failures: 0,
            success_threshold: probe.success_threshold.unwrap_or(1).max(1),
            failure_threshold: probe.failure_threshold.unwrap_or(3).max(1),
        }
    }

    /// Counts a result. Returns it once a threshold of consecutive equal results is reached.
    pub(crate) fn observe(&mut self, success: bool) -> Option<bool> {
        if success {
            self.successes = self.successes.saturating_add(1);
            self.failures = 0;
            (self.successes >= self.success_threshold).then_some(true)
        } else {
            self.failures = self.failures.saturating_add(1);
            self.successes = 0;
            (self.failures >= self.failure_threshold).then_some(false)
        }
    }
}

/// The delays between tries of a probe: short and growing ones until it succeeds, then its period.
pub(crate) struct Schedule {
    eager: Option<Duration>,
    period: Duration,
    waited: Duration,
}

impl Schedule {
    /// `eager` is the first short delay, where there are to be any.
    pub(crate) fn new(probe: &Probe, eager: Option<Duration>) -> Self {
        let period = Duration::from_secs(probe.period_seconds.unwrap_or(10).max(1).unsigned_abs().into());
        Self { eager, period, waited: Duration::ZERO }
    }

    /// The next delay, and whether a failure after it counts.
    pub(crate) fn next(&mut self) -> (Duration, bool) {
        let Some(delay) = self.eager else { return (self.period, true) };
        // No longer than the period: doubled at every try for ever, it would overflow.
        self.eager = Some((delay * 2).min(self.period));
        let left = self.period - self.waited;
        if delay >= left {
            // The regular beat is kept: one try per period that counts.
            self.waited = Duration::ZERO;
            return (left, true);
        }
        self.waited += delay;
        (delay, false)
    }

    /// Ends the short delays, after a success.
    pub(crate) fn calm(&mut self) {
        self.eager = None;
    }
}

/// The probes of the current run of a container. `started` says whether its startup probe has succeeded already, as it may
/// have before a restart of the node.
pub(crate) fn of_run(
    shared: &Arc<Shared>,
    handle: &Arc<PodHandle>,
    pod: &Arc<Pod>,
    container: &Container,
    attempt: u32,
    started: bool,
) -> Vec<Runner> {
    let (open, gate) = watch::channel(container.startup_probe.is_none() || started);
    let probes = [
        (ProbeKind::Startup, container.startup_probe.as_ref().filter(|_| !*gate.borrow())),
        (ProbeKind::Readiness, container.readiness_probe.as_ref()),
        (ProbeKind::Liveness, container.liveness_probe.as_ref()),
    ];
    let open = Arc::new(open);
    let runner = |(kind, probe): (ProbeKind, Option<&Probe>)| {
        Some(Runner {
            shared: shared.clone(),
            handle: handle.clone(),
            pod: pod.clone(),
            container: container.clone(),
            probe: probe?.clone(),
            kind,
            attempt,
            open: open.clone(),
            gate: gate.clone(),
            reported: None,
        })
    };
    probes.into_iter().filter_map(runner).collect()
}

/// A probe of one run of a container.
pub(crate) struct Runner {
    shared: Arc<Shared>,
    handle: Arc<PodHandle>,
    pod: Arc<Pod>,
    container: Container,
    probe: Probe,
    kind: ProbeKind,
    attempt: u32,
    /// Lets the other probes of the run begin.
    open: Arc<watch::Sender<bool>>,
    /// Whether the other probes may begin.
    gate: watch::Receiver<bool>,
    /// The result that the Pod's task knows.
    reported: Option<bool>,
}

impl Runner {
    /// Probes until there is nothing more to find out about the run. The caller ends it when the run ends.
    pub(crate) async fn run(mut self) {
        if self.kind != ProbeKind::Startup && self.gate.wait_for(|open| *open).await.is_err() {
            return;
        }
        let clock = self.shared.clock.clone();
        let delay =
            Duration::from_secs(self.probe.initial_delay_seconds.unwrap_or(0).max(0).unsigned_abs().into());
        let (delay, eager) = match (self.kind, &self.probe.exec) {
            (ProbeKind::Liveness, _) => (delay.max(LIVENESS_AFTER), None),
            (_, Some(_)) => (delay, Some(EAGER_FIRST_EXEC)),
            (_, None) => (delay, Some(EAGER_FIRST)),
        };
        if !delay.is_zero() {
            clock.sleep(delay).await;
        }
        let mut counter = ResultCounter::new(&self.probe);
        let mut schedule = Schedule::new(&self.probe, eager);
        let mut counts = eager.is_none();
        loop {
            let result = self.try_once().await;
            let succeeded = result.is_ok();
            if succeeded || counts {
                if let Err(message) = &result {
                    self.report_failure(message);
                }
                if succeeded {
                    schedule.calm();
                }
                if let Some(success) = counter.observe(succeeded)
                    && self.report(success).await
                {
                    return;
                }
            }
            let (delay, next_counts) = schedule.next();
            counts = next_counts;
            clock.sleep(delay).await;
        }
    }

    async fn try_once(&self) -> Result<(), String> {
        let timeout =
            Duration::from_secs(self.probe.timeout_seconds.unwrap_or(1).max(1).unsigned_abs().into());
        let handler = Handler::of_probe(&self.probe, &self.container)?;
        handler.run(&self.shared, &self.handle, &self.pod, &self.container, timeout).await
    }

    fn report_failure(&self, message: &str) {
        let text = format!("{} probe failed: {message}", self.kind.name());
        self.shared.event(&self.pod, Some(&self.container.name), EventType::Warning, "Unhealthy", text);
    }

    /// Tells the Pod's task a result that has reached its threshold, unless it is known. Returns true if the probe has
    /// nothing more to do.
    async fn report(&mut self, success: bool) -> bool {
        if self.reported.replace(success) != Some(success) {
            let grace = self.probe.termination_grace_period_seconds.and_then(|g| u64::try_from(g).ok());
            let probed = Probed {
                container: self.container.name.clone(),
                attempt: self.attempt,
                kind: self.kind,
                success,
                grace: grace.map(Duration::from_secs),
            };
            self.handle.send(Message::Probed(probed)).await;
        }
        match (self.kind, success) {
            (ProbeKind::Startup, true) => {
                self.open.send_replace(true);
                true
            }
            (ProbeKind::Startup | ProbeKind::Liveness, false) => true,
            (ProbeKind::Readiness, _) | (ProbeKind::Liveness, true) => false,
        }
    }
}

#[cfg(test)]
mod tests;
