//! The Kubernetes API as a `tower::Service` over a revisioned store.

pub mod apply;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod schema;
pub mod table;
