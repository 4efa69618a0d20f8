//! The Pod specification, which Pods and templates of Pods share: its defaults and its rules.

pub(crate) mod amounts;
mod containers;
mod defaults;
mod validation;
mod volumes;

pub use defaults::default_spec;
pub use validation::{validate_spec, validate_tolerations};
