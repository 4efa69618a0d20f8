//! The environment of expressions in admission: which variables they may use, and the values of these for a write.
//!
//! | variable | value |
//! |---|---|
//! | `object`, `oldObject` | the object after and before; null where there is none |
//! | `request` | the write, without its objects |
//! | `namespaceObject` | the Namespace of the object; null for objects of the cluster |
//! | `authorizer`, `authorizer.requestResource` | checks of what the user may do |
//! | `params` | the parameters of a policy; null where its binding names none |

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use serde_json::Value;

use super::Review;
use super::request::{namespace, request};
use super::subject::Subject;
use crate::cel::{
    self, Access, Authority, Budget, Check, Composition, Decision, Declarations, EvalError, Field,
    ObjectType, Opaque, OpaqueValue, Outcome, Program, Scope, Type, TypeKind, Value as CelValue, constructed,
};
use crate::edit::{list, text as text_of};
use crate::identity::{Identity, service_account_groups, service_account_user};
use crate::rbac::{Attributes, Authorizer, Target, Verdict};
use crate::resource::{self, Resource};

/// The types that the result of an expression may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Results {
    /// True or false.
    Bool,
    /// Text.
    String,
    /// Text, or null for none.
    StringOrNull,
    /// Any.
    Any,
    /// An object that is merged into another one.
    Object,
    /// The operations of a JSON patch.
    Patch,
}

/// A composition without expressions.
pub(super) static NOTHING: Composition = Composition::empty();
static NULL: Value = Value::Null;

/// The variables of expressions, in the order in which [`Environment`] gives their values. Those that may not be used
/// have a name that no expression can say.
pub(crate) fn variables(has_params: bool, has_authorizer: bool) -> Vec<(String, Type)> {
    let any = || Type::of(TypeKind::Dyn);
    typed(any(), has_params.then(any), has_authorizer)
}

/// The same where the types of objects and parameters are known.
pub(super) fn typed(object: Type, params: Option<Type>, has_authorizer: bool) -> Vec<(String, Type)> {
    let unless = |is_known: bool, name: &str| if is_known { name.to_owned() } else { String::new() };
    let opaque = |opaque| Type::of(TypeKind::Opaque(opaque));
    vec![
        ("object".to_owned(), object.clone()),
        ("oldObject".to_owned(), object),
        ("request".to_owned(), REQUEST.clone()),
        ("namespaceObject".to_owned(), NAMESPACE.clone()),
        (unless(has_authorizer, "authorizer"), opaque(Opaque::Authorizer)),
        (unless(has_authorizer, "authorizer.requestResource"), opaque(Opaque::ResourceCheck)),
        (unless(params.is_some(), "params"), params.unwrap_or_else(|| Type::of(TypeKind::Dyn))),
    ]
}

/// Compiles an expression whose result is of one of these types.
///
/// # Errors
/// A sentence for users that describes the mistake in the expression.
pub(crate) fn compile(
    expression: &str,
    variables: &[(String, Type)],
    composition: Option<&Composition>,
    results: Results,
) -> Result<Program, String> {
    let makes_patches = matches!(results, Results::Object | Results::Patch);
    let program = Program::compile_with(expression, Declarations { variables, composition, makes_patches });
    let program = program.map_err(|error| format!("compilation failed: {error}"))?;
    let found = program.result();
    let expected = match (results, &found.kind) {
        (Results::Any, _)
        | (Results::Bool, TypeKind::Bool)
        | (Results::String | Results::StringOrNull, TypeKind::String)
        | (Results::StringOrNull, TypeKind::Null) => return Ok(program),
        (Results::Object, TypeKind::Constructed(name)) if **name == *constructed::OBJECT => {
            return Ok(program);
        }
        (Results::Patch, TypeKind::List(list)) if is_patch(&list.item) => return Ok(program),
        (Results::Object, _) => constructed::OBJECT,
        (Results::Patch, _) => "list(JSONPatch)",
        (Results::Bool, _) => "bool",
        (Results::String, _) => "string",
        (Results::StringOrNull, _) => "one of [string null_type]",
    };
    let found = if matches!(found.kind, TypeKind::Null) { "null_type".to_owned() } else { found.to_string() };
    Err(format!("must evaluate to {expected} but got {found}"))
}

fn is_patch(kind: &Type) -> bool {
    matches!(&kind.kind, TypeKind::Constructed(name) if **name == *constructed::PATCH)
}

/// Compiles a list of variables, each of which may use those before it.
pub(super) fn compose(given: &Value, variables: &[(String, Type)]) -> Composition {
    let mut composition = Composition::empty();
    for variable in list(given) {
        let program = compile(text_of(&variable["expression"]), variables, Some(&composition), Results::Any);
        composition.push(text_of(&variable["name"]), program);
    }
    composition
}

/// Evaluates a compiled expression. Errors are told with the expression; running out of the budget is told as it is.
pub(super) fn evaluate<'a>(
    program: &'a Result<Program, String>,
    expression: &str,
    scope: &Scope<'a>,
    budget: &mut Budget,
) -> Outcome<'a> {
    match program {
        Err(error) => Err(EvalError::Failed(format!("compilation error: {error}"))),
        Ok(program) => program.evaluate_in(scope, budget).map_err(|error| match error {
            EvalError::BudgetExhausted => error,
            error => EvalError::Failed(format!("expression '{expression}' resulted in error: {error}")),
        }),
    }
}

/// The data of a write that expressions are evaluated over.
pub(super) struct Environment {
    request: Value,
    namespace: Arc<Value>,
    authority: Arc<dyn Authority>,
    resource: cel::Resource,
}

impl Environment {
    /// That of a write, for a rule that names it as one of `matched`.
    pub(super) fn of(review: &Review<'_>, matched: &Resource) -> Self {
        let ctx = review.ctx;
        let namespaces = resource::find("", "v1", "namespaces").filter(|_| ctx.resource.namespaced);
        let found = namespaces.and_then(|namespaces| ctx.server.find(namespaces, "", review.namespace).ok());
        let authority = UserAuthority { authorizer: ctx.server.authorizer.clone(), user: ctx.user.clone() };
        let resource = cel::Resource {
            group: ctx.requested.group.to_string(),
            resource: ctx.requested.plural.to_string(),
            subresource: ctx.subresource.map(|s| s.name().to_owned()).unwrap_or_default(),
            namespace: namespace(review).to_owned(),
            name: review.name.to_owned(),
        };
        Self {
            request: Value::Object(request(review, matched)),
            namespace: found.map(|namespace| namespace.value()).unwrap_or_default(),
            authority: Arc::new(authority),
            resource,
        }
    }

    /// A scope for expressions that use these objects, parameters and named expressions.
    pub(super) fn scope<'a>(
        &'a self,
        subject: &'a Subject<'_>,
        params: &'a Value,
        composition: &'a Composition,
    ) -> Result<Scope<'a>, EvalError> {
        let access = |access| CelValue::opaque(OpaqueValue::Access(access));
        let values = vec![
            CelValue::read_dyn(subject.object().unwrap_or(&NULL))?,
            CelValue::read_dyn(subject.old().unwrap_or(&NULL))?,
            CelValue::read(&self.request, &REQUEST)?,
            CelValue::read(&self.namespace, &NAMESPACE)?,
            access(Access::Authorizer(self.authority.clone())),
            access(Access::Resource(self.authority.clone(), self.resource.clone())),
            CelValue::read_dyn(params)?,
        ];
        Ok(Scope::new(values, composition))
    }
}

/// The rights of one user, by the roles.
struct UserAuthority {
    authorizer: Arc<Authorizer>,
    user: Identity,
}

impl std::fmt::Debug for UserAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserAuthority").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Authority for UserAuthority {
    fn decide(&self, check: &Check<'_>) -> Decision {
        let attributes = match check {
            Check::Path { path, verb } => Attributes { verb, target: Target::Path(path) },
            Check::Resource { resource, verb } => Attributes {
                verb,
                target: Target::Resource {
                    namespace: &resource.namespace,
                    group: &resource.group,
                    resource: &resource.resource,
                    subresource: &resource.subresource,
                    name: &resource.name,
                },
            },
        };
        match self.authorizer.decide(&self.user, &attributes) {
            Verdict::Allowed(reason) => Decision { allowed: true, reason },
            Verdict::Denied(reason) => Decision { allowed: false, reason },
        }
    }

    fn of_service_account(&self, namespace: &str, name: &str) -> Arc<dyn Authority> {
        let user = Identity {
            user: service_account_user(namespace, name),
            groups: service_account_groups(namespace).into(),
            ..Identity::default()
        };
        Arc::new(Self { authorizer: self.authorizer.clone(), user })
    }
}

/// The type of `request`.
static REQUEST: LazyLock<Type> = LazyLock::new(|| {
    let kind = object("kubernetes.GroupVersionKind", texts(&["group", "version", "kind"]));
    let place = object("kubernetes.GroupVersionResource", texts(&["group", "version", "resource"]));
    let mut user = texts(&["username", "uid"]);
    user.push(("groups", Type::list(text())));
    user.push(("extra", Type::map(text(), Type::list(text()))));
    let mut fields = texts(&["subResource", "requestSubResource", "name", "namespace", "operation"]);
    fields.extend([
        ("kind", kind.clone()),
        ("resource", place.clone()),
        ("requestKind", kind),
        ("requestResource", place),
        ("userInfo", object("kubernetes.UserInfo", user)),
        ("dryRun", Type::of(TypeKind::Bool)),
        ("options", Type::of(TypeKind::Dyn)),
    ]);
    object("kubernetes.AdmissionRequest", fields)
});

/// The type of `namespaceObject`, which has less than a Namespace does.
static NAMESPACE: LazyLock<Type> = LazyLock::new(|| {
    let time = || Type::of(TypeKind::Timestamp);
    let mut metadata = texts(&["name", "generateName", "namespace", "uid", "resourceVersion"]);
    metadata.extend([
        ("labels", Type::map(text(), text())),
        ("annotations", Type::map(text(), text())),
        ("creationTimestamp", time()),
        ("deletionTimestamp", time()),
        ("deletionGracePeriodSeconds", Type::of(TypeKind::Int)),
        ("generation", Type::of(TypeKind::Int)),
        ("finalizers", Type::list(text())),
    ]);
    let mut condition = texts(&["type", "status", "reason", "message"]);
    condition.push(("lastTransitionTime", time()));
    let conditions = Type::list(object("kubernetes.NamespaceCondition", condition));
    let spec = object("kubernetes.NamespaceSpec", vec![("finalizers", Type::list(text()))]);
    let status = object("kubernetes.NamespaceStatus", vec![("phase", text()), ("conditions", conditions)]);
    let metadata = object("kubernetes.NamespaceMetadata", metadata);
    object("kubernetes.Namespace", vec![("metadata", metadata), ("spec", spec), ("status", status)])
});

fn text() -> Type {
    Type::of(TypeKind::String)
}

fn texts(names: &[&'static str]) -> Vec<(&'static str, Type)> {
    names.iter().map(|name| (*name, text())).collect()
}

fn object(name: &str, fields: Vec<(&str, Type)>) -> Type {
    let field = |(name, kind): (&str, Type)| (name.to_owned(), Field { name: name.to_owned(), kind });
    let fields: BTreeMap<_, _> = fields.into_iter().map(field).collect();
    Type::of(TypeKind::Object(Arc::new(ObjectType::new(name.to_owned(), fields))))
}
