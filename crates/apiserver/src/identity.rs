//! Identities: the user, their groups, and further attributes from authentication or impersonation.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The group whose members may do everything, whatever roles say.
pub const MASTERS: &str = "system:masters";
/// The group of Yado's own components, which get their clients in process.
pub const COMPONENTS: &str = "system:yado:components";
/// The group of nodes.
pub const NODES: &str = "system:nodes";
/// The group of everyone who said who they are.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The user of requests without credentials.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group of requests without credentials.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";

const NODE: &str = "system:node:";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
/// The group of every ServiceAccount.
pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";

/// The identity that a request acts as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user's name.
    pub user: String,
    /// A text that tells this user from a former one of the same name; empty where authentication gives none.
    pub uid: String,
    /// The groups they are in.
    pub groups: Vec<String>,
    /// Further attributes, such as scopes, by keys in lower case.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    /// A user in these groups, and in that of the authenticated.
    pub fn new(user: impl Into<String>, groups: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut groups: Vec<String> = groups.into_iter().map(Into::into).collect();
        if !groups.iter().any(|g| g == AUTHENTICATED) {
            groups.push(AUTHENTICATED.into());
        }
        Self { user: user.into(), groups, ..Self::default() }
    }

    /// One of Yado's own components, such as `scheduler`.
    pub fn component(name: &str) -> Self {
        Self::new(format!("system:yado:{name}"), [COMPONENTS])
    }

    /// Somebody who did not say.
    pub fn anonymous() -> Self {
        Self { user: ANONYMOUS.into(), groups: vec![UNAUTHENTICATED.into()], ..Self::default() }
    }

    /// The subject of a client certificate: its common name is the user, its organisations are the groups. `None`
    /// where it names nobody. Whether it is valid is checked before, by the TLS handshake.
    pub fn of_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        let user = subject.iter_common_name().next()?.as_str().ok()?;
        let groups = subject.iter_organization().filter_map(|o| o.as_str().ok());
        Some(Self::new(user, groups))
    }

    /// The `UserInfo` of reviews.
    pub(crate) fn user_info(&self) -> Value {
        let mut info = Map::from_iter([("username".to_owned(), json!(self.user))]);
        if !self.uid.is_empty() {
            info.insert("uid".into(), json!(self.uid));
        }
        if !self.groups.is_empty() {
            info.insert("groups".into(), json!(self.groups));
        }
        if !self.extra.is_empty() {
            info.insert("extra".into(), json!(self.extra));
        }
        Value::Object(info)
    }

    /// They did not say who they are.
    pub fn is_anonymous(&self) -> bool {
        self.is_in(UNAUTHENTICATED)
    }

    /// Whether they are in this group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// Whether it is one of Yado's own components, or a node.
    pub fn is_internal(&self) -> bool {
        self.is_in(COMPONENTS) || self.is_in(NODES)
    }
}

/// The user name of a ServiceAccount.
pub fn service_account_user(namespace: &str, name: &str) -> String {
    format!("{SERVICE_ACCOUNT}{namespace}:{name}")
}

/// The namespace and name of the ServiceAccount whose user name this is.
pub fn service_account_of(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

/// The name of the node whose user name this is.
pub fn node_of(user: &str) -> Option<&str> {
    user.strip_prefix(NODE).filter(|name| !name.is_empty())
}

/// The groups of every ServiceAccount of a namespace.
pub fn service_account_groups(namespace: &str) -> [String; 2] {
    [SERVICE_ACCOUNTS.to_owned(), format!("{SERVICE_ACCOUNTS}:{namespace}")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_accounts_are_known_by_their_names() {
        for (user, expect) in [
            (service_account_user("n", "a.b").as_str(), Some(("n", "a.b"))),
            ("system:serviceaccount:n:", None),
            ("system:serviceaccount::a", None),
            ("system:serviceaccount:n:a:b", None),
            ("system:serviceaccount:n", None),
            ("jane", None),
        ] {
            assert_eq!(service_account_of(user), expect, "{user}");
        }
    }
}
