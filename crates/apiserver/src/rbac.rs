//! Role-based access control: who may do what, decided from Roles, ClusterRoles and their bindings.
//!
//! ```text
//! [Role, ClusterRole, RoleBinding, ClusterRoleBinding] --feed--> index --allows(who, attributes)--> reason or nothing
//! [defaults] --reconcile, at start-up--> the same objects
//! [write of a role or binding] --> escalation: does the writer hold what they grant?
//! ```
//!
//! Everything here is pure over its arguments but [`Authorizer`], which holds the index that the cache's feed keeps as
//! current as the objects themselves: whoever has been told that a binding is written is judged by it. The rules are
//! those of <https://kubernetes.io/docs/reference/access-authn-authz/rbac/>; what is not allowed is denied, and nothing
//! takes a right away. ClusterRoles that aggregate others are filled in by a controller, not here.

mod attributes;
mod authorizer;
pub mod defaults;
mod escalation;
mod index;
mod node_graph;
mod reconcile;
mod rule;

pub use attributes::{Attributes, Target};
pub use authorizer::{Authorizer, Verdict};
pub use escalation::{Change, Refusal, check};
pub use index::{Binding, Index, Reason, RoleKey, Subject};
pub use node_graph::NodeGraph;
pub use reconcile::{Reconciled, reconcile};
pub use rule::Rule;

#[cfg(test)]
mod tests;
