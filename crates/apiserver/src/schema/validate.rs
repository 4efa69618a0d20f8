//! Rules of objects, in Kubernetes' words: those of metadata, and the vocabulary of a kind's own
//! ([`crate::kinds`]).

pub(crate) mod meta;
mod path;

use serde_json::{Value, json};

use super::Kind;
pub(crate) use path::{Errors, Path};

/// Which rule a field breaks.
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

impl Reason {
    /// The `reason` of a Status' cause.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
        }
    }
}

/// A field that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The path, like `spec.containers[0].image`.
    pub field: String,
    /// The rule.
    pub reason: Reason,
    /// The message after the path, like `Required value`.
    pub message: String,
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Checks an object (after defaulting) and, for an update, its change from `old`. Status is not looked at, and writes
/// through a subresource (binding, status) need no check here: they change nothing that has rules.
pub fn validate_object(kind: &Kind, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let root = Path::root();
    if kind.is_stored() {
        meta::object_meta(kind, &object["metadata"], &root.field("metadata"), &mut errors);
        if let Some(old) = old {
            meta::update(&object["metadata"], &old["metadata"], &root.field("metadata"), &mut errors);
        }
    }
    kind.strategy().validate(object, old, &mut errors);
    errors.list
}

/// Checks the labels and annotations of metadata that is taken over into another object.
pub fn validate_labels(meta: &Value) -> Vec<FieldError> {
    let (mut errors, root) = (Errors::default(), Path::root());
    let at = root.field("metadata");
    meta::labels(&meta["labels"], &at.field("labels"), &mut errors);
    meta::annotations(&meta["annotations"], &at.field("annotations"), &mut errors);
    errors.list
}

/// `Deployment.apps "web" is invalid: spec.selector: Required value`.
pub fn invalid_message(kind: &Kind, name: &str, errors: &[FieldError]) -> String {
    let all: Vec<String> = errors.iter().map(FieldError::to_string).collect();
    let text = match all.as_slice() {
        [only] => only.clone(),
        all => format!("[{}]", all.join(", ")),
    };
    format!("{} {name:?} is invalid: {text}", kind.qualified())
}

/// The `Status` (422, `Invalid`) that tells of these errors.
pub fn invalid_status(kind: &Kind, name: &str, errors: &[FieldError]) -> Value {
    let cause = |e: &FieldError| json!({"reason": e.reason.cause(), "message": e.message, "field": e.field});
    let causes: Vec<Value> = errors.iter().map(cause).collect();
    let mut details = json!({"name": name, "kind": kind.kind, "causes": causes});
    if !kind.group.is_empty() {
        details["group"] = json!(kind.group);
    }
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": invalid_message(kind, name, errors), "reason": "Invalid", "details": details, "code": 422,
    })
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
