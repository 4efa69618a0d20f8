//! Checks of what a user may do: `authorizer.group('').resource('pods').namespace('x').check('create').allowed()`.

use std::fmt::Debug;
use std::sync::Arc;

use yado_types::names;

use crate::cel::cost::{Grows, Meter, Price};
use crate::cel::error::EvalError;
use crate::cel::functions::Row;
use crate::cel::library::strings::text;
use crate::cel::types::Opaque;
use crate::cel::value::{OpaqueValue, Outcome, Value};

/// Answers checks for one user.
pub trait Authority: Debug + Send + Sync {
    /// Decides a check.
    fn decide(&self, check: &Check<'_>) -> Decision;

    /// The same for a ServiceAccount.
    fn of_service_account(&self, namespace: &str, name: &str) -> Arc<dyn Authority>;
}

/// An action that a user may or may not carry out.
#[derive(Debug)]
pub enum Check<'a> {
    /// A verb on a path that is not a resource.
    Path {
        /// The path.
        path: &'a str,
        /// The HTTP method in lower case.
        verb: &'a str,
    },
    /// A verb on a resource.
    Resource {
        /// What it is about.
        resource: &'a Resource,
        /// The verb.
        verb: &'a str,
    },
}

/// A resource, as far as an expression has named it; what it has not is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// The API group.
    pub group: String,
    /// The plural.
    pub resource: String,
    /// The part of the object.
    pub subresource: String,
    /// The namespace.
    pub namespace: String,
    /// The name of the object.
    pub name: String,
}

/// The answer to a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// The reason; it may be empty.
    pub reason: String,
}

/// A part of a check, as expressions build it up.
#[derive(Clone, Debug)]
pub enum Access {
    /// `authorizer`
    Authorizer(Arc<dyn Authority>),
    /// `authorizer.path('/healthz')`
    Path(Arc<dyn Authority>, String),
    /// `authorizer.group('apps')`
    Group(Arc<dyn Authority>, String),
    /// `authorizer.group('apps').resource('deployments')`
    Resource(Arc<dyn Authority>, Resource),
    /// The answer.
    Decision(Decision),
}

impl Access {
    /// The name of its type.
    pub fn type_name(&self) -> &'static str {
        let kind = match self {
            Self::Authorizer(_) => Opaque::Authorizer,
            Self::Path(..) => Opaque::PathCheck,
            Self::Group(..) => Opaque::GroupCheck,
            Self::Resource(..) => Opaque::ResourceCheck,
            Self::Decision(_) => Opaque::Decision,
        };
        kind.name()
    }
}

/// As in Kubernetes, parts of checks have no identity beyond their type.
impl PartialEq for Access {
    fn eq(&self, other: &Self) -> bool {
        self.type_name() == other.type_name()
    }
}

/// Two checks are all that an expression can pay for.
const CHECK: Price = Price::Fixed(350_000);
const ONE: Price = Price::Fixed(1);
/// A selector is read once.
const SELECTOR: Price = Price::Walk { argument: 1, times: 1 };
const NARROW: &str = "resourcecheck.(string) resourcecheck";

pub const FUNCTIONS: &[Row] = &[
    Row("path", "authorizer.(string) pathcheck", ONE, Grows::Type, |_, args| {
        let path = named(args, "path must not be empty")?;
        Ok(value(Access::Path(authorizer(args)?, path)))
    }),
    Row("group", "authorizer.(string) groupcheck", ONE, Grows::Type, |_, args| {
        Ok(value(Access::Group(authorizer(args)?, text(args, 1)?.to_owned())))
    }),
    Row("serviceAccount", "authorizer.(string, string) authorizer", ONE, Grows::Type, service_account),
    Row("resource", "groupcheck.(string) resourcecheck", ONE, Grows::Type, |_, args| match access(args)? {
        Access::Group(authority, group) => {
            let resource = named(args, "resource must not be empty")?;
            let resource = Resource { group: group.clone(), resource, ..Resource::default() };
            Ok(value(Access::Resource(authority.clone(), resource)))
        }
        _ => Err(EvalError::NoSuchOverload),
    }),
    Row("subresource", NARROW, ONE, Grows::Type, |_, args| narrow(args, |r, given| r.subresource = given)),
    Row("namespace", NARROW, ONE, Grows::Type, |_, args| narrow(args, |r, given| r.namespace = given)),
    Row("name", NARROW, ONE, Grows::Type, |_, args| narrow(args, |r, given| r.name = given)),
    // Rules of roles know no selectors: whoever may list some objects of a resource may list all of them.
    Row("fieldSelector", NARROW, SELECTOR, Grows::Type, |_, args| narrow(args, |_, _| {})),
    Row("labelSelector", NARROW, SELECTOR, Grows::Type, |_, args| narrow(args, |_, _| {})),
    Row(
        "check",
        "pathcheck.(string) decision; resourcecheck.(string) decision",
        CHECK,
        Grows::Type,
        |_, args| {
            let verb = text(args, 1)?;
            let decision = match access(args)? {
                Access::Path(authority, path) => authority.decide(&Check::Path { path, verb }),
                Access::Resource(authority, resource) => {
                    authority.decide(&Check::Resource { resource, verb })
                }
                _ => return Err(EvalError::NoSuchOverload),
            };
            Ok(value(Access::Decision(decision)))
        },
    ),
    Row("allowed", "decision.() bool", ONE, Grows::Type, |_, args| Ok(Value::Bool(decision(args)?.allowed))),
    Row("reason", "decision.() string", ONE, Grows::Type, |_, args| {
        Ok(Value::made(decision(args)?.reason.as_str()))
    }),
    // A decision by roles cannot fail.
    Row("errored", "decision.() bool", ONE, Grows::Type, |_, args| {
        decision(args).map(|_| Value::Bool(false))
    }),
    Row("error", "decision.() string", ONE, Grows::Type, |_, args| decision(args).map(|_| Value::made(""))),
];

fn value<'a>(access: Access) -> Value<'a> {
    Value::opaque(OpaqueValue::Access(access))
}

fn access<'v>(args: &'v [Value<'_>]) -> Result<&'v Access, EvalError> {
    match args.first() {
        Some(Value::Opaque(opaque)) => match &**opaque {
            OpaqueValue::Access(access) => Ok(access),
            _ => Err(EvalError::NoSuchOverload),
        },
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn authorizer(args: &[Value<'_>]) -> Result<Arc<dyn Authority>, EvalError> {
    match access(args)? {
        Access::Authorizer(authority) => Ok(authority.clone()),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn decision<'v>(args: &'v [Value<'_>]) -> Result<&'v Decision, EvalError> {
    match access(args)? {
        Access::Decision(decision) => Ok(decision),
        _ => Err(EvalError::NoSuchOverload),
    }
}

/// The argument, which must not be empty.
fn named(args: &[Value<'_>], otherwise: &str) -> Result<String, EvalError> {
    let given = text(args, 1)?;
    if given.trim().is_empty() { Err(EvalError::failed(otherwise)) } else { Ok(given.to_owned()) }
}

fn narrow<'a>(args: &[Value<'a>], set: fn(&mut Resource, String)) -> Outcome<'a> {
    let Access::Resource(authority, resource) = access(args)? else { return Err(EvalError::NoSuchOverload) };
    let mut resource = resource.clone();
    set(&mut resource, text(args, 1)?.to_owned());
    Ok(value(Access::Resource(authority.clone(), resource)))
}

fn service_account<'a>(_: &mut Meter, args: &[Value<'a>]) -> Outcome<'a> {
    let (authority, namespace, name) = (authorizer(args)?, text(args, 1)?, text(args, 2)?);
    names::dns_subdomain(name).map_err(|_| EvalError::failed("Invalid service account name"))?;
    names::dns_label(namespace).map_err(|_| EvalError::failed("Invalid service account namespace"))?;
    Ok(value(Access::Authorizer(authority.of_service_account(namespace, name))))
}
