//! The rules of the built-in kinds, in Kubernetes' words.

use super::Kind;
use serde_json::Value;

/// Which rule a field breaks; its name is a Status cause's `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Missing.
    Required,
    /// Not allowed as it is.
    Invalid,
    /// Not one of the values there are.
    NotSupported,
    /// Given twice.
    Duplicate,
    /// Not allowed here or now.
    Forbidden,
    /// Too long.
    TooLong,
    /// More entries than allowed.
    TooMany,
    /// Refers to what is not there.
    NotFound,
}

/// A field that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The path, like `spec.containers[0].image`.
    pub field: String,
    /// The rule.
    pub reason: Reason,
    /// What is said after the path, like `Required value`.
    pub message: String,
}

/// Checks an object (after defaulting) and, for an update, its change from `old`.
pub fn validate_object(_kind: &Kind, _object: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    Vec::new()
}

/// The `Status` (422, `Invalid`) that tells of these errors.
pub fn invalid_status(_kind: &Kind, _name: &str, _errors: &[FieldError]) -> Value {
    Value::Null
}
