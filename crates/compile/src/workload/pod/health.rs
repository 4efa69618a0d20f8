//! Translation of Docker health checks to probes.

use k8s_openapi::api::core::v1::{ExecAction, Probe};

use super::PodFragment;
use crate::workload::amount;

/// A health check with the fields of Docker's `HEALTHCHECK`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthCheck {
    /// The command and its arguments, executed without a shell.
    pub command: Vec<String>,
    /// Milliseconds between two checks; Docker's default is 30 s.
    pub interval: Option<u64>,
    /// Timeout of a check in milliseconds; Docker's default is 30 s.
    pub timeout: Option<u64>,
    /// Consecutive failures after which the container is unhealthy; Docker's default is 3.
    pub retries: Option<u32>,
    /// Milliseconds after the start in which failures do not count.
    pub start_period: Option<u64>,
    /// Milliseconds between two checks during the start period.
    pub start_interval: Option<u64>,
}

impl PodFragment {
    /// Sets the readiness probe from `health`, and a startup probe if there is a start period.
    pub fn health(&mut self, health: &HealthCheck) {
        let exec = Some(ExecAction { command: Some(health.command.clone()) });
        let interval = amount::seconds(health.interval.unwrap_or(30_000), 1);
        let timeout = amount::seconds(health.timeout.unwrap_or(30_000), 1);
        let retries = i32::try_from(health.retries.unwrap_or(3)).unwrap_or(i32::MAX).max(1);
        let probe = Probe {
            exec,
            period_seconds: Some(interval),
            timeout_seconds: Some(timeout),
            failure_threshold: Some(retries),
            ..Probe::default()
        };
        if let Some(start) = health.start_period.filter(|p| *p > 0) {
            // Docker checks every 5 s while a container starts, and reports it as unhealthy once the retries
            // after the start period have failed.
            let period = amount::seconds(health.start_interval.unwrap_or(5000), 1).min(interval);
            let in_all = i64::from(amount::seconds(start, 1)) + i64::from(retries) * i64::from(interval);
            let tries = (in_all as u64).div_ceil(period as u64);
            self.container.startup_probe = Some(Probe {
                period_seconds: Some(period),
                failure_threshold: Some(i32::try_from(tries).unwrap_or(i32::MAX)),
                ..probe.clone()
            });
        }
        self.container.readiness_probe = Some(probe);
    }
}
