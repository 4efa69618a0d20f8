//! The functions of expressions: the language's own, and Kubernetes' libraries.

pub mod authz;
pub mod convert;
pub mod format;
pub mod jsonpatch;
pub mod lists;
pub mod net;
pub mod operators;
pub mod optional;
pub mod quantity;
pub mod regex;
pub mod sets;
pub mod strings;
pub mod time;
pub mod url;
