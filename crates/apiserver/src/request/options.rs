//! Options of the verbs, as queries and `DeleteOptions` bodies give them.

use std::time::Duration;

use serde_json::Value;
use yado_types::selector::{FieldSelector, LabelSelector};

use super::Query;
use crate::schema::FieldValidation;
use crate::status::{Failure, Result};

/// Which objects of a collection, and how many at once.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// By labels.
    pub labels: LabelSelector,
    /// By fields.
    pub fields: FieldSelector,
    /// At most so many; 0 is all.
    pub limit: usize,
    /// Where the previous part ended.
    pub continue_from: Option<String>,
    /// The revision meant.
    pub resource_version: Option<u64>,
    /// How it is meant.
    pub version_match: Option<VersionMatch>,
}

/// How a list's resourceVersion is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    /// Exactly that state.
    Exact,
    /// That state or a later one.
    NotOlderThan,
}

impl ListOptions {
    pub(crate) fn read(query: &Query) -> Result<Self> {
        let bad = |what: &str, e: &dyn std::fmt::Display| {
            Failure::bad_request(format!("unable to parse {what}: {e}"))
        };
        let version_match = match query.get("resourceVersionMatch") {
            None => None,
            Some("Exact") => Some(VersionMatch::Exact),
            Some("NotOlderThan") => Some(VersionMatch::NotOlderThan),
            Some(other) => {
                return Err(Failure::bad_request(format!(
                    "resourceVersionMatch: Unsupported value: \"{other}\": supported values: \"Exact\", \"NotOlderThan\""
                )));
            }
        };
        Ok(Self {
            labels: LabelSelector::parse(query.get("labelSelector").unwrap_or_default())
                .map_err(|e| bad("labelSelector", &e))?,
            fields: FieldSelector::parse(query.get("fieldSelector").unwrap_or_default())
                .map_err(|e| bad("fieldSelector", &e))?,
            limit: query.number("limit")?.unwrap_or(0).try_into().unwrap_or(usize::MAX),
            continue_from: query.get("continue").map(str::to_owned),
            resource_version: query.revision("resourceVersion")?,
            version_match,
        })
    }
}

/// Which changes to tell.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// Of which objects; `resource_version` is what the client already knows.
    pub list: ListOptions,
    /// Tell now and then up to which revision everything was told.
    pub bookmarks: bool,
    /// Begin with the objects there are, then a bookmark that says so.
    pub initial_events: bool,
    /// End after that long; never zero.
    pub timeout: Option<Duration>,
}

impl WatchOptions {
    pub(super) fn read(query: &Query) -> Result<Self> {
        let list = ListOptions::read(query)?;
        let initial_events = query.is_true("sendInitialEvents");
        if initial_events && list.version_match != Some(VersionMatch::NotOlderThan) {
            return Err(Failure::bad_request(
                "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to \
                 NotOlderThan",
            ));
        }
        Ok(Self {
            list,
            bookmarks: query.is_true("allowWatchBookmarks"),
            initial_events,
            timeout: query.number("timeoutSeconds")?.filter(|s| *s > 0).map(Duration::from_secs),
        })
    }
}

/// How to write.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// Do everything but write.
    pub dry_run: bool,
    /// Whose fields are written, for `managedFields`.
    pub field_manager: String,
    /// The manager was named, not guessed from the client's name.
    pub manager_given: bool,
    /// Handling of unknown fields.
    pub field_validation: FieldValidation,
    /// Take fields over from other managers.
    pub force: bool,
}

impl WriteOptions {
    pub(super) fn read(query: &Query, agent: &str) -> Result<Self> {
        let validation = query.get("fieldValidation").unwrap_or_default();
        let field_validation = FieldValidation::parse(validation).ok_or_else(|| {
            Failure::bad_request(format!(
                "fieldValidation: Unsupported value: \"{validation}\": supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))
        })?;
        let given = query.get("fieldManager");
        if given.is_some_and(|m| m.len() > 128) {
            return Err(Failure::bad_request("fieldManager: Too long: may not be more than 128 bytes"));
        }
        let guessed = agent.split('/').next().filter(|a| !a.is_empty()).unwrap_or("unknown");
        Ok(Self {
            dry_run: dry_run(query)?,
            field_manager: given.unwrap_or(guessed).chars().take(128).collect(),
            manager_given: given.is_some(),
            field_validation,
            force: query.is_true("force"),
        })
    }
}

fn dry_run(query: &Query) -> Result<bool> {
    let mut any = false;
    for value in query.all("dryRun").filter(|v| !v.is_empty()) {
        dry_run_value(value)?;
        any = true;
    }
    Ok(any)
}

fn dry_run_value(value: &str) -> Result<()> {
    if value == "All" {
        return Ok(());
    }
    Err(Failure::bad_request(format!("dryRun: Unsupported value: \"{value}\": supported values: \"All\"")))
}

/// Propagation policy: handling of the objects that a deleted one owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They follow.
    Background,
    /// They go first.
    Foreground,
    /// They stay.
    Orphan,
}

/// How to delete.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Do everything but delete.
    pub dry_run: bool,
    /// Seconds that a Pod has to end.
    pub grace_period: Option<u64>,
    /// Handling of owned objects; the default is Background.
    pub propagation: Option<Propagation>,
    /// Only the object with this uid.
    pub uid: Option<String>,
    /// Only this version of the object.
    pub resource_version: Option<String>,
}

impl DeleteOptions {
    pub(super) fn read(query: &Query) -> Result<Self> {
        Ok(Self {
            dry_run: dry_run(query)?,
            grace_period: query.number("gracePeriodSeconds")?,
            propagation: query.get("propagationPolicy").map(propagation).transpose()?,
            uid: None,
            resource_version: None,
        })
    }

    /// Adds what a decoded `DeleteOptions` body says; it wins over the query.
    pub fn merge_body(&mut self, body: &Value) -> Result<()> {
        for value in body["dryRun"].as_array().into_iter().flatten() {
            dry_run_value(value.as_str().unwrap_or_default())?;
            self.dry_run = true;
        }
        if let Some(seconds) = body["gracePeriodSeconds"].as_i64() {
            // A negative period means "at once" to old clients.
            self.grace_period = Some(seconds.max(0).unsigned_abs());
        }
        if body["propagationPolicy"].is_string() && body["orphanDependents"].is_boolean() {
            let message = "Invalid value: orphanDependents and propagationPolicy cannot be both set";
            let cause = ("propagationPolicy".into(), "FieldValueInvalid".into(), message.into());
            return Err(Failure::invalid("", "DeleteOptions", "", [cause]));
        }
        if let Some(policy) = body["propagationPolicy"].as_str() {
            self.propagation = Some(propagation(policy)?);
        } else if body["orphanDependents"] == true {
            self.propagation = Some(Propagation::Orphan);
        }
        let preconditions = &body["preconditions"];
        self.uid = preconditions["uid"].as_str().map(str::to_owned).or(self.uid.take());
        self.resource_version =
            preconditions["resourceVersion"].as_str().map(str::to_owned).or(self.resource_version.take());
        Ok(())
    }
}

fn propagation(text: &str) -> Result<Propagation> {
    match text {
        "Background" => Ok(Propagation::Background),
        "Foreground" => Ok(Propagation::Foreground),
        "Orphan" => Ok(Propagation::Orphan),
        other => Err(Failure::bad_request(format!(
            "propagationPolicy: Unsupported value: \"{other}\": supported values: \"Foreground\", \"Background\", \"Orphan\""
        ))),
    }
}
