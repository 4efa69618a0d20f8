//! The settings of the audit log.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use yado_apiserver::audit::{Audit, LogConfig, Policy};
use yado_cli::args::AuditArgs;
use yado_reconcile::Clock;

/// What is logged, and where.
#[derive(Clone, Debug)]
pub struct AuditSettings {
    policy: Policy,
    log: LogConfig,
}

impl AuditSettings {
    /// Reads the policy; `None` where there is none.
    ///
    /// # Errors
    /// The file with the line of its first mistake.
    pub fn read(args: &AuditArgs) -> Result<Option<Self>> {
        let (Some(file), Some(path)) = (&args.audit_policy_file, &args.audit_log_path) else {
            return Ok(None);
        };
        let shown = file.display();
        let text =
            fs::read_to_string(file).with_context(|| format!("the audit policy {shown} cannot be read"))?;
        let policy = Policy::parse(&text)
            .map_err(|error| anyhow::anyhow!("{shown}:{}: {}", error.line, error.message))?;
        let log = LogConfig {
            path: (path != Path::new("-")).then(|| path.clone()),
            max_size: u64::from(args.audit_log_maxsize) << 20,
            max_backups: args.audit_log_maxbackup as usize,
            max_age: Duration::from_secs(u64::from(args.audit_log_maxage) * 86_400),
        };
        Ok(Some(Self { policy, log }))
    }

    /// Opens the log.
    ///
    /// # Errors
    /// Where its file cannot be written.
    pub fn open(&self, clock: &Arc<dyn Clock>) -> Result<Audit> {
        let shown = self.log.path.as_deref().unwrap_or(Path::new("-")).display();
        Audit::open(self.policy.clone(), self.log.clone(), clock.clone())
            .with_context(|| format!("the audit log {shown} cannot be opened"))
    }
}
