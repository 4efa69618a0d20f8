//! Schemas of kinds: names, fields, types, merge keys, defaulting and validation.
//!
//! Everything comes from two tables: [`KINDS`] (what is served under which name) and `schema/fields.txt` (the fields of
//! each type). Nothing here does I/O and nothing is built before it is asked for; field names are slices of the table's
//! text, so that the whole schema takes a few hundred KiB.
//!
//! The order in which a write uses it:
//!
//! ```text
//! bytes -> parse_json -> decode -> default_object -> validate_object -> store
//! ```

mod bounds;
mod custom;
mod decode;
mod default;
mod fields;
mod json;
mod json_path;
mod kinds;
pub mod structural;
pub(crate) mod validate;
mod yaml;

pub use bounds::{MAX_DEPTH, MAX_VALUES, TooManyValues, Values};
pub use custom::{Custom, ScalePaths, VersionRank, Versions, kinds_of};
pub use decode::{DecodeError, FieldValidation, decode};
pub use default::default_object;
pub use fields::{Field, Inner, ListType, Message, Shape, message};
pub use json::{MalformedBody, Parsed, parse_json, parse_part};
pub use json_path::{JsonPath, JsonPathError};
pub use kinds::{
    FLOW_CONTROL_GROUP, KINDS, Kind, Name, RBAC_GROUP, Storage, api_version, find, find_resource,
};
pub use validate::{FieldError, Reason, invalid_message, invalid_status, validate_labels, validate_object};
pub use yaml::{MalformedYaml, parse_yaml};

#[cfg(test)]
mod corpus_tests;
