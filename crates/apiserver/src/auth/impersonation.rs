//! Acting as somebody else (`kubectl --as`), for whom roles allow the verb `impersonate`.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use crate::identity::{
    ANONYMOUS, AUTHENTICATED, Identity, UNAUTHENTICATED, service_account_groups, service_account_of,
};
use crate::rbac::{Attributes, Authorizer, Target, Verdict};
use crate::status::{Failure, Result};

const PREFIX: &str = "impersonate-";
const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";
/// The API group of the resources `uids` and `userextras`, which exist for rules only.
const AUTHENTICATION: &str = "authentication.k8s.io";

/// The identity that a request acts as: its own, or the one that its headers ask for.
///
/// # Errors
/// 403 where `who` may not act as that user, or with one of the groups, the uid or the extra values; 400 where the
/// headers cannot be honoured, since a request that asks for fewer rights must not run with all of the caller's.
pub fn impersonate(authorizer: &Authorizer, who: Identity, headers: &HeaderMap) -> Result<Identity> {
    if !headers.keys().any(|name| name.as_str().starts_with(PREFIX)) {
        return Ok(who);
    }
    let wanted = Wanted::read(headers)?;
    wanted.authorize(authorizer, &who)?;
    Ok(wanted.identity())
}

/// Whom the headers name.
struct Wanted {
    user: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl Wanted {
    fn read(headers: &HeaderMap) -> Result<Self> {
        let known = |name: &str| [USER, UID, GROUP].contains(&name) || name.starts_with(EXTRA);
        let unknown = |name: &&str| name.starts_with(PREFIX) && !known(name);
        if let Some(name) = headers.keys().map(HeaderName::as_str).find(unknown) {
            return Err(Failure::bad_request(format!("the header {name} is not known")));
        }
        let one = |name: &str| match &mut *texts(headers, name)? {
            [] => Ok(String::new()),
            [one] => Ok(std::mem::take(one)),
            _ => Err(Failure::bad_request(format!("the header {name} is there more than once"))),
        };
        let mut extra = BTreeMap::new();
        for name in headers.keys().filter(|name| name.as_str().starts_with(EXTRA)) {
            let malformed = |_| Failure::bad_request(format!("the header {name} is not valid UTF-8"));
            let key = percent_decode_str(&name.as_str()[EXTRA.len()..]).decode_utf8().map_err(malformed)?;
            extra.insert(key.to_lowercase(), texts(headers, name.as_str())?);
        }
        let wanted = Self { user: one(USER)?, uid: one(UID)?, groups: texts(headers, GROUP)?, extra };
        if wanted.user.is_empty() {
            return Err(Failure::bad_request(
                "requested groups, a uid or extra values without impersonating a user",
            ));
        }
        Ok(wanted)
    }

    /// Refuses what `who` may not act as.
    fn authorize(&self, authorizer: &Authorizer, who: &Identity) -> Result<()> {
        let check = |(namespace, group, resource, subresource, name): (&str, &str, &str, &str, &str)| {
            let target = Target::Resource { namespace, group, resource, subresource, name };
            let asked = Attributes { verb: "impersonate", target };
            match authorizer.decide(who, &asked) {
                Verdict::Allowed(_) => Ok(()),
                Verdict::Denied(reason) => Err(asked.forbidden(who, &reason)),
            }
        };
        match service_account_of(&self.user) {
            Some((namespace, name)) => check((namespace, "", "serviceaccounts", "", name))?,
            None => check(("", "", "users", "", &self.user))?,
        }
        self.groups.iter().try_for_each(|group| check(("", "", "groups", "", group)))?;
        for (key, values) in &self.extra {
            values.iter().try_for_each(|value| check(("", AUTHENTICATION, "userextras", key, value)))?;
        }
        match self.uid.as_str() {
            "" => Ok(()),
            uid => check(("", AUTHENTICATION, "uids", "", uid)),
        }
    }

    fn identity(self) -> Identity {
        let Self { user, uid, mut groups, extra } = self;
        // As a service account's own credentials would have them.
        if let Some((namespace, _)) = service_account_of(&user)
            && groups.is_empty()
        {
            groups.extend(service_account_groups(namespace));
        }
        let given =
            |groups: &[String]| groups.iter().any(|g| [AUTHENTICATED, UNAUTHENTICATED].contains(&g.as_str()));
        if !given(&groups) {
            groups.push(if user == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED }.into());
        }
        Identity { user, uid, groups, extra }
    }
}

/// The values of a header, in the order in which they came.
fn texts(headers: &HeaderMap, name: &str) -> Result<Vec<String>> {
    let text = |value: &HeaderValue| String::from_utf8(value.as_bytes().to_vec()).ok();
    let malformed = || Failure::bad_request(format!("the header {name} is empty or not valid UTF-8"));
    let values = headers.get_all(name).iter();
    values.map(|value| text(value).filter(|t| !t.is_empty()).ok_or_else(malformed)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::identity::MASTERS;
    use crate::rbac::Index;

    type Header<'a> = (&'a str, &'a [u8]);

    /// `jane` may act as bob and as one service account, with two groups, one uid and the scope `view`.
    fn authorizer() -> Authorizer {
        let rules = json!([
            {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["bob"]},
            {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["groups"], "resourceNames": ["a", "b"]},
            {"verbs": ["impersonate"], "apiGroups": [AUTHENTICATION], "resources": ["uids"], "resourceNames": ["7"]},
            {"verbs": ["impersonate"], "apiGroups": [AUTHENTICATION], "resources": ["userextras/scopes"],
             "resourceNames": ["view"]},
        ]);
        let local = json!([
            {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": ["x"]},
        ]);
        let subjects = json!([{"kind": "User", "name": "jane"}]);
        let mut index = Index::default();
        index.set_role(
            crate::rbac::RoleKey::new("", "r"),
            crate::rbac::Rule::read_all(&json!({"rules": rules})),
        );
        index.set_role(
            crate::rbac::RoleKey::new("d", "r"),
            crate::rbac::Rule::read_all(&json!({"rules": local})),
        );
        for (namespace, kind) in [("", "ClusterRole"), ("d", "Role")] {
            index.set_binding(crate::rbac::Binding::read(&json!({
                "metadata": {"name": "b", "namespace": namespace}, "subjects": subjects,
                "roleRef": {"kind": kind, "name": "r"},
            })));
        }
        Authorizer::new(index)
    }

    fn check(who: &Identity, given: &[Header<'_>], expect: &str) {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            let name = HeaderName::from_bytes(name.as_bytes()).expect(name);
            headers.append(name, HeaderValue::from_bytes(value).expect("a header"));
        }
        let shown = match impersonate(&authorizer(), who.clone(), &headers) {
            Ok(found) => {
                let extra = found.extra.iter().map(|(key, values)| format!(" {key}={}", values.join(",")));
                format!(
                    "{}/{} [{}]{}",
                    found.user,
                    found.uid,
                    found.groups.join(" "),
                    extra.collect::<String>()
                )
            }
            Err(failure) if failure.code == 403 => failure.message,
            Err(failure) => failure.code.to_string(),
        };
        assert_eq!(shown, expect, "{} {headers:?}", who.user);
    }

    #[test]
    fn impersonation_is_honoured_or_refused() {
        let master = Identity::new("admin", [MASTERS]);
        check(&master, &[], "admin/ [system:masters system:authenticated]");
        let rows: &[(&[Header<'_>], &str)] = &[
            (&[("impersonate-user", b"bob")], "bob/ [system:authenticated]"),
            (&[("impersonate-user", "j\u{f6}rg".as_bytes())], "j\u{f6}rg/ [system:authenticated]"),
            (
                &[("impersonate-user", b"bob"), ("impersonate-group", b"a"), ("impersonate-group", b"b")],
                "bob/ [a b system:authenticated]",
            ),
            (&[("impersonate-user", b"system:anonymous")], "system:anonymous/ [system:unauthenticated]"),
            (
                &[("impersonate-user", b"bob"), ("impersonate-group", b"system:unauthenticated")],
                "bob/ [system:unauthenticated]",
            ),
            (
                &[("impersonate-user", b"system:serviceaccount:d:x")],
                "system:serviceaccount:d:x/ [system:serviceaccounts system:serviceaccounts:d system:authenticated]",
            ),
            (
                &[
                    ("impersonate-user", b"bob"),
                    ("impersonate-uid", b"7"),
                    ("impersonate-extra-scopes", b"view"),
                    ("impersonate-extra-scopes", b"edit"),
                    ("impersonate-extra-acme.com%2fteam", b"x"),
                ],
                "bob/7 [system:authenticated] acme.com/team=x scopes=view,edit",
            ),
            (&[("impersonate-user", b"j\xf6rg")], "400"),
            (&[("impersonate-user", b"")], "400"),
            (&[("impersonate-group", b"dev")], "400"),
            (&[("impersonate-user", b"bob"), ("impersonate-group", b"\xff")], "400"),
            (&[("impersonate-user", b"bob"), ("impersonate-user", b"eve")], "400"),
            (&[("impersonate-user", b"bob"), ("impersonate-other", b"eve")], "400"),
            (&[("impersonate-extra-scopes", b"view")], "400"),
            (&[("impersonate-uid", b"7")], "400"),
        ];
        for (given, expect) in rows {
            check(&master, given, expect);
        }
    }

    #[test]
    fn roles_say_whom_a_user_may_act_as() {
        let jane = Identity::new("jane", ["dev"]);
        let rows: &[(&[Header<'_>], &str)] = &[
            (
                &[
                    ("impersonate-user", b"bob"),
                    ("impersonate-group", b"a"),
                    ("impersonate-uid", b"7"),
                    ("impersonate-extra-scopes", b"view"),
                ],
                "bob/7 [a system:authenticated] scopes=view",
            ),
            (
                &[("impersonate-user", b"system:serviceaccount:d:x")],
                "system:serviceaccount:d:x/ [system:serviceaccounts system:serviceaccounts:d system:authenticated]",
            ),
            (
                &[("impersonate-user", b"eve")],
                "users \"eve\" is forbidden: User \"jane\" cannot impersonate resource \"users\" in API group \"\" at the \
                 cluster scope",
            ),
            (
                &[("impersonate-user", b"bob"), ("impersonate-group", b"system:masters")],
                "groups \"system:masters\" is forbidden: User \"jane\" cannot impersonate resource \"groups\" in API group \
                 \"\" at the cluster scope",
            ),
            (
                &[("impersonate-user", b"system:serviceaccount:d:y")],
                "serviceaccounts \"y\" is forbidden: User \"jane\" cannot impersonate resource \"serviceaccounts\" in API \
                 group \"\" in the namespace \"d\"",
            ),
            (
                &[("impersonate-user", b"bob"), ("impersonate-uid", b"8")],
                "uids.authentication.k8s.io \"8\" is forbidden: User \"jane\" cannot impersonate resource \"uids\" in API \
                 group \"authentication.k8s.io\" at the cluster scope",
            ),
            (
                &[("impersonate-user", b"bob"), ("impersonate-extra-scopes", b"edit")],
                "userextras.authentication.k8s.io \"edit\" is forbidden: User \"jane\" cannot impersonate resource \
                 \"userextras/scopes\" in API group \"authentication.k8s.io\" at the cluster scope",
            ),
        ];
        for (given, expect) in rows {
            check(&jane, given, expect);
        }
    }
}
