//! Attributes of a request that rules are matched against.

use crate::identity::Identity;
use crate::status::Failure;

/// The action of a request: a verb on a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes<'a> {
    /// The verb: one of Kubernetes' for resources, any word that roles use (`bind`, `impersonate`), or the HTTP method in
    /// lower case for paths.
    pub verb: &'a str,
    /// The target of the verb.
    pub target: Target<'a>,
}

/// The object of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// Objects of the API.
    Resource {
        /// The namespace; empty for all, and for what has none.
        namespace: &'a str,
        /// The API group; empty for the core group.
        group: &'a str,
        /// The plural, like `pods`.
        resource: &'a str,
        /// The part of the object, like `log`; empty for the object itself.
        subresource: &'a str,
        /// The object's name; empty for a collection, and where the request does not say it.
        name: &'a str,
    },
    /// A path that is not a resource, like `/metrics`.
    Path(&'a str),
}

impl<'a> Attributes<'a> {
    /// The namespace that decides which RoleBindings count; empty for none.
    pub fn namespace(&self) -> &'a str {
        match self.target {
            Target::Resource { namespace, .. } => namespace,
            Target::Path(_) => "",
        }
    }

    /// The sentence that says to `who` that they must not do this: `User "x" cannot list resource "pods" in API group ""
    /// in the namespace "y"`.
    pub fn sentence(&self, who: &Identity) -> String {
        let (user, verb) = (&who.user, self.verb);
        match self.target {
            Target::Path(path) => format!("User {user:?} cannot {verb} path {path:?}"),
            Target::Resource { namespace, group, resource, subresource, .. } => {
                let slash = if subresource.is_empty() { "" } else { "/" };
                let place = match namespace {
                    "" => "at the cluster scope".to_owned(),
                    namespace => format!("in the namespace {namespace:?}"),
                };
                format!(
                    "User {user:?} cannot {verb} resource \"{resource}{slash}{subresource}\" in API group {group:?} \
                     {place}"
                )
            }
        }
    }

    /// The failure (403) of a request that does this and must not. `reason` is what the authorizer adds; it may be empty.
    pub fn forbidden(&self, who: &Identity, reason: &str) -> Failure {
        let sentence = self.sentence(who);
        let sentence = if reason.is_empty() { sentence } else { format!("{sentence}: {reason}") };
        match self.target {
            Target::Path(_) => Failure::denied(format!("forbidden: {sentence}")),
            Target::Resource { group, resource, name, .. } => {
                Failure::denied_resource(group, resource, name, &sentence)
            }
        }
    }
}
