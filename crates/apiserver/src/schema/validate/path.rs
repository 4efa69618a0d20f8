//! Paths of fields, built on the stack and written only into errors, and the collection of errors.

use std::fmt;

use serde_json::Value;

use super::{FieldError, Reason};

/// A path as a chain of steps.
#[derive(Clone, Copy)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// The object itself.
    pub fn root() -> Self {
        Self { parent: None, step: Step::Root }
    }

    pub fn field(&'a self, name: &'a str) -> Self {
        Self { parent: Some(self), step: Step::Field(name) }
    }

    pub fn index(&'a self, index: usize) -> Self {
        Self { parent: Some(self), step: Step::Index(index) }
    }

    pub fn key(&'a self, key: &'a str) -> Self {
        Self { parent: Some(self), step: Step::Key(key) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(parent) = self.parent else { return Ok(()) };
        parent.fmt(f)?;
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) if matches!(parent.step, Step::Root) => f.write_str(name),
            Step::Field(name) => write!(f, ".{name}"),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// So many errors are told at once; the rest shows when these are mended.
const MAX_ERRORS: usize = 50;

/// Errors as they are found.
#[derive(Default)]
pub struct Errors {
    pub list: Vec<FieldError>,
}

impl Errors {
    fn push(&mut self, at: &Path<'_>, reason: Reason, message: String) {
        if self.list.len() < MAX_ERRORS {
            self.list.push(FieldError { field: at.to_string(), reason, message });
        }
    }

    /// Adds errors that were found elsewhere.
    pub fn extend(&mut self, errors: impl IntoIterator<Item = FieldError>) {
        let room = MAX_ERRORS.saturating_sub(self.list.len());
        self.list.extend(errors.into_iter().take(room));
    }

    pub fn required(&mut self, at: &Path<'_>, detail: &str) {
        let colon = if detail.is_empty() { "" } else { ": " };
        self.push(at, Reason::Required, format!("Required value{colon}{detail}"));
    }

    /// `value` is written as JSON, as Kubernetes does.
    pub fn invalid(&mut self, at: &Path<'_>, value: &Value, detail: &str) {
        self.push(at, Reason::Invalid, format!("Invalid value: {value}: {detail}"));
    }

    /// For an object as a whole, which is not written.
    pub fn invalid_object(&mut self, at: &Path<'_>, detail: &str) {
        self.push(at, Reason::Invalid, format!("Invalid value: {detail}"));
    }

    pub fn invalid_text(&mut self, at: &Path<'_>, value: &str, detail: &str) {
        self.invalid(at, &Value::from(value), detail);
    }

    /// Told where the rule does not hold.
    pub fn check_text(&mut self, at: &Path<'_>, value: &str, rule: Result<(), String>) {
        if let Err(detail) = rule {
            self.invalid_text(at, value, &detail);
        }
    }

    pub fn forbidden(&mut self, at: &Path<'_>, detail: &str) {
        self.push(at, Reason::Forbidden, format!("Forbidden: {detail}"));
    }

    pub fn duplicate(&mut self, at: &Path<'_>, value: &Value) {
        self.push(at, Reason::Duplicate, format!("Duplicate value: {value}"));
    }

    pub fn not_found(&mut self, at: &Path<'_>, value: &str) {
        self.push(at, Reason::NotFound, format!("Not found: {value:?}"));
    }

    pub fn too_long(&mut self, at: &Path<'_>, limit: usize) {
        self.push(at, Reason::TooLong, format!("Too long: may not be more than {limit} bytes"));
    }

    pub fn too_many(&mut self, at: &Path<'_>, count: usize, most: usize) {
        self.push(at, Reason::TooMany, format!("Too many: {count}: must have at most {most} items"));
    }

    /// A text that has to be one of `supported`, if it is there.
    pub fn one_of(&mut self, at: &Path<'_>, value: &Value, supported: &[&str]) {
        if let Some(text) = value.as_str() {
            self.supported(at, text, supported);
        }
    }

    /// A text that has to be one of `supported`, also where it is empty.
    pub fn supported(&mut self, at: &Path<'_>, text: &str, supported: &[&str]) {
        if !supported.contains(&text) {
            self.unsupported(at, &format!("{text:?}"), supported);
        }
    }

    /// A value, as it is to be written, that is not one of `supported`.
    pub fn unsupported(&mut self, at: &Path<'_>, value: &str, supported: &[&str]) {
        let all: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        let message = format!("Unsupported value: {value}: supported values: {}", all.join(", "));
        self.push(at, Reason::NotSupported, message);
    }

    /// A number that has to be at least `least`, if it is there.
    pub fn at_least(&mut self, at: &Path<'_>, value: &Value, least: i64) {
        if value.as_i64().is_some_and(|n| n < least) {
            self.invalid(at, value, &format!("must be greater than or equal to {least}"));
        }
    }

    /// A port number, if it is there.
    pub fn port(&mut self, at: &Path<'_>, value: &Value) {
        if value.as_i64().is_some_and(|n| !(1..=65_535).contains(&n)) {
            self.invalid(at, value, "must be between 1 and 65535, inclusive");
        }
    }
}
