//! Labels of a Namespace that say what its Pods may do.

use std::fmt;

use serde_json::Value;

use crate::discovery::KUBERNETES_VERSION;
use crate::schema::FieldError;
use crate::schema::validate::{Errors, Path};

const PREFIX: &str = "pod-security.kubernetes.io/";

/// How much Pods are restricted; a later one restricts more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Not at all.
    #[default]
    Privileged,
    /// By what prevents known ways of gaining privileges.
    Baseline,
    /// By the current best practice of hardening.
    Restricted,
}

/// The release of Kubernetes whose rules a level means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Version {
    /// The one that this server is like.
    #[default]
    Latest,
    /// `v1.` and this.
    Minor(u32),
}

impl Version {
    /// The minor version whose rules apply; for releases that are not out yet, the latest.
    pub(super) fn minor(self) -> u32 {
        let latest = KUBERNETES_VERSION.1.parse().unwrap_or(u32::MAX);
        match self {
            Self::Latest => latest,
            Self::Minor(minor) => minor.min(latest),
        }
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let minor = text.strip_prefix("v1.").filter(|minor| {
            let is_plain = *minor == "0" || !minor.starts_with('0');
            is_plain && minor.chars().all(|c| c.is_ascii_digit())
        });
        match (text, minor.map(str::parse)) {
            ("latest", _) => Ok(Self::Latest),
            (_, Some(Ok(minor))) => Ok(Self::Minor(minor)),
            _ => Err("must be \"latest\" or \"v1.x\""),
        }
    }
}

/// A level as of a release, like `restricted:latest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standard {
    pub(super) level: Level,
    pub(super) version: Version,
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        })?;
        match self.version {
            Version::Latest => f.write_str(":latest"),
            Version::Minor(minor) => write!(f, ":v1.{minor}"),
        }
    }
}

/// What becomes of Pods of a Namespace that break a standard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Policy {
    /// They are refused.
    pub(super) enforce: Standard,
    /// They are written to the log.
    pub(super) audit: Standard,
    /// Their writer is warned.
    pub(super) warn: Standard,
}

impl Policy {
    /// Reads the labels. A level that cannot be read is the most restrictive one where it is enforced, and none where
    /// it is not.
    pub(super) fn read(labels: &Value) -> (Self, Vec<FieldError>) {
        let (root, mut errors) = (Path::root(), Errors::default());
        let metadata = root.field("metadata");
        let at = metadata.field("labels");
        let mut read = |mode: &str, fallback: Level| {
            let mut standard = Standard::default();
            let (key, version_key) = (format!("{PREFIX}{mode}"), format!("{PREFIX}{mode}-version"));
            let mut is_valid = None;
            if let Some(text) = labels[&key].as_str() {
                let level = match text {
                    "privileged" => Some(Level::Privileged),
                    "baseline" => Some(Level::Baseline),
                    "restricted" => Some(Level::Restricted),
                    _ => None,
                };
                is_valid = Some(level.is_some());
                standard.level = level.unwrap_or(fallback);
                if level.is_none() {
                    errors.invalid_text(
                        &at.key(&key),
                        text,
                        "must be one of privileged, baseline, restricted",
                    );
                }
            }
            let version = labels[&version_key].as_str();
            if let Some(text) = version {
                match Version::parse(text) {
                    Ok(version) => standard.version = version,
                    Err(why) => errors.invalid_text(&at.key(&version_key), text, why),
                }
            }
            (standard, is_valid, version.is_some())
        };
        let (enforce, enforces, _) = read("enforce", Level::Restricted);
        let (audit, ..) = read("audit", Level::Privileged);
        let (mut warn, warns, has_version) = read("warn", Level::Privileged);
        // Who refuses Pods wants to hear of templates that make such Pods.
        if warns.is_none() && enforces == Some(true) && enforce.level > warn.level {
            warn.level = enforce.level;
            if !has_version {
                warn.version = enforce.version;
            }
        }
        (Self { enforce, audit, warn }, errors.list)
    }

    /// Whether Pods and templates of Pods need not be looked at.
    pub(super) fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|standard| standard.level == Level::Privileged)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_read() {
        for (labels, expect, errors) in [
            (json!({}), "privileged:latest privileged:latest privileged:latest", 0),
            (json!({"enforce": "baseline"}), "baseline:latest privileged:latest baseline:latest", 0),
            (
                json!({"enforce": "restricted", "enforce-version": "v1.24"}),
                "restricted:v1.24 privileged:latest restricted:v1.24",
                0,
            ),
            (
                json!({"enforce": "restricted", "enforce-version": "v1.24", "warn-version": "v1.30"}),
                "restricted:v1.24 privileged:latest restricted:v1.30",
                0,
            ),
            (
                json!({"enforce": "restricted", "warn": "privileged", "audit": "baseline"}),
                "restricted:latest baseline:latest privileged:latest",
                0,
            ),
            (
                json!({"enforce": "x", "audit": "y", "warn": "z"}),
                "restricted:latest privileged:latest privileged:latest",
                3,
            ),
            (
                json!({"enforce-version": "v1.01", "audit-version": "1.2", "warn-version": "v1.x"}),
                "privileged:latest privileged:latest privileged:latest",
                3,
            ),
        ] {
            let labels: serde_json::Map<_, _> = labels
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, value)| (format!("{PREFIX}{key}"), value.clone()))
                .collect();
            let (policy, found) = Policy::read(&Value::Object(labels.clone()));
            let shown = format!("{} {} {}", policy.enforce, policy.audit, policy.warn);
            assert_eq!((shown.as_str(), found.len()), (expect, errors), "{labels:?}");
        }
    }
}
