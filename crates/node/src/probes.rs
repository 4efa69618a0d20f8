//! Probes: tried at intervals while a container runs, judged by thresholds.

pub(crate) mod grpc;
pub(crate) mod handler;
pub(crate) mod http;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use yado_reconcile::events::EventType;

use crate::lifecycle::Run;
use crate::pod::{Entry, Shared};
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

/// The kinds of probe that a container may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeKind {
    Startup,
    Readiness,
    Liveness,
}

impl ProbeKind {
    fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

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

/// Starts the probes of a container that runs. They end with `stop`.
pub(crate) fn start(
    shared: &Arc<Shared>,
    entry: &Arc<Entry>,
    pod: &Arc<Pod>,
    container: &Container,
    stop: &CancellationToken,
) {
    let (open, gate) = watch::channel(container.startup_probe.is_none() || entry.is_started(&container.name));
    let probes = [
        (ProbeKind::Startup, container.startup_probe.as_ref().filter(|_| !*gate.borrow())),
        (ProbeKind::Readiness, container.readiness_probe.as_ref()),
        (ProbeKind::Liveness, container.liveness_probe.as_ref()),
    ];
    let open = Arc::new(open);
    let attempt = entry.record.lock().container(&container.name).attempt;
    for (kind, probe) in probes {
        let Some(probe) = probe else { continue };
        let runner = Runner {
            shared: shared.clone(),
            entry: entry.clone(),
            pod: pod.clone(),
            container: container.clone(),
            probe: probe.clone(),
            kind,
            attempt,
            open: open.clone(),
            gate: gate.clone(),
        };
        let stop = stop.clone();
        shared.tasks.spawn("probe", async move {
            // Boxed: the future of a probe over TLS or HTTP/2 is large, and few probes are that.
            stop.run_until_cancelled(Box::pin(runner.run())).await;
        });
    }
}

struct Runner {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    pod: Arc<Pod>,
    container: Container,
    probe: Probe,
    kind: ProbeKind,
    /// The run that is probed: a result that comes late says nothing of the next one.
    attempt: u32,
    open: Arc<watch::Sender<bool>>,
    gate: watch::Receiver<bool>,
}

impl Runner {
    async fn run(mut self) {
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
                    self.report(message);
                }
                if succeeded {
                    schedule.calm();
                }
                if let Some(holds) = counter.observe(succeeded)
                    && self.apply(holds)
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
        handler.run(&self.shared, &self.entry, &self.pod, &self.container, timeout).await
    }

    fn report(&self, message: &str) {
        let text = format!("{} probe failed: {message}", self.kind.name());
        self.shared.event(&self.pod, Some(&self.container.name), EventType::Warning, "Unhealthy", text);
    }

    /// Acts on a result that has reached its threshold. Returns true if the probe has nothing more to do.
    fn apply(&self, holds: bool) -> bool {
        let name = &self.container.name;
        let (changed, done) = self.entry.with_container(name, |record| match (self.kind, holds) {
            _ if record.attempt != self.attempt || !matches!(record.run, Run::Running { .. }) => {
                (false, true)
            }
            (ProbeKind::Startup, true) => {
                record.started = true;
                record.ready = self.container.readiness_probe.is_none();
                (true, true)
            }
            (ProbeKind::Readiness, holds) => (std::mem::replace(&mut record.ready, holds) != holds, false),
            (ProbeKind::Liveness, true) => (false, false),
            (ProbeKind::Startup | ProbeKind::Liveness, false) => {
                let grace = self.probe.termination_grace_period_seconds.and_then(|g| u64::try_from(g).ok());
                let kind = self.kind.name().to_lowercase();
                let message = format!("Container {name} failed {kind} probe, will be restarted");
                record.restart_requested.get_or_insert((message, grace.map(Duration::from_secs)));
                (true, true)
            }
        });
        if self.kind == ProbeKind::Startup && holds {
            self.open.send_replace(true);
        }
        if changed {
            self.shared.queue.add(self.entry.uid.clone());
        }
        done
    }
}

#[cfg(test)]
mod tests;
