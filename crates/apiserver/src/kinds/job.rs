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
    let more_than = |field: &str, most: i64| spec[field].as_i64().is_some_and(|n| n > most);
    let large = more_than("completions", spec::MOST_INDEXES) && more_than("parallelism", spec::MOST_OF_MANY);
    if !large || spec["completionMode"] != "Indexed" {
        return Vec::new();
    }
    vec![format!(
        "{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes \
         might not be able to track completedIndexes when a big number of indexes fail"
    )]
}
