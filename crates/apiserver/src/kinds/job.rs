//! Jobs.

mod columns;
mod defaults;
mod indexes;
mod policies;
mod spec;
mod validation;

pub use defaults::default_failure_policy;
pub use spec::validate_spec;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::kinds::strategy::Strategy;
use crate::request::Propagation;
use crate::schema::validate::Errors;
use crate::status::Result;
use crate::table::Column;
use crate::write::context::WriteContext;

/// Fields that are stored and that the Job controller does not follow.
const UNFOLLOWED: [&str; 4] =
    ["backoffLimitPerIndex", "maxFailedIndexes", "podFailurePolicy", "successPolicy"];

#[derive(Debug)]
pub struct Job;

impl Strategy for Job {
    fn counts_generations(&self) -> bool {
        true
    }

    fn prepare_for_create(&self, _ctx: &WriteContext<'_>, job: &mut Value) -> Result<()> {
        defaults::select_own_pods(job);
        Ok(())
    }

    fn default_object(&self, job: &mut Map<String, Value>) {
        defaults::default_job(job);
    }

    fn validate(&self, job: &Value, old: Option<&Value>, errors: &mut Errors) {
        validation::validate_job(job, old, errors);
    }

    fn warnings(&self, job: &Value) -> Vec<String> {
        warnings(&job["spec"], "spec")
    }

    /// It is older than the garbage collector, and its clients expect that Pods stay.
    fn default_propagation(&self) -> Option<Propagation> {
        Some(Propagation::Orphan)
    }

    fn selectable_fields(&self) -> Vec<&str> {
        vec!["status.successful"]
    }

    fn columns(&self) -> &[Column] {
        columns::COLUMNS
    }

    fn cells(&self, job: &Value, now: Timestamp) -> Vec<Value> {
        columns::cells(job, now)
    }
}

/// Warnings about the Job's specification at `path`.
pub fn warnings(spec: &Value, path: &str) -> Vec<String> {
    let given = UNFOLLOWED.iter().filter(|key| !spec[**key].is_null());
    given.map(|key| format!("{path}.{key}: this cluster's Job controller does not act on it")).collect()
}
