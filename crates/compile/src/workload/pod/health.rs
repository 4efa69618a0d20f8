//! Docker's health checks as probes.

use k8s_openapi::api::core::v1::{ExecAction, Probe};

use super::Part;
use crate::workload::amount;

/// How a container is asked whether it is well, as Docker's `HEALTHCHECK` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// The command, without a shell.
    pub command: Vec<String>,
    /// Milliseconds between two questions; Docker's default is 30 s.
    pub interval: Option<u64>,
    /// Milliseconds for an answer; Docker's default is 30 s.
    pub timeout: Option<u64>,
    /// Failures in a row that make it unwell; Docker's default is 3.
    pub retries: Option<u32>,
    /// Milliseconds at its start in which failures do not count.
    pub start_period: Option<u64>,
    /// Milliseconds between two questions in that time.
    pub start_interval: Option<u64>,
}

impl Part {
    /// Asked whether it is well: it is ready when it is. A start period is a startup probe.
    pub fn health(&mut self, health: &Health) {
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
            // Docker asks every 5 s while a container starts, and says it is unwell when the tries after that time
            // are used up.
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
