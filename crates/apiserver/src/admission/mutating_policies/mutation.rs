//! A policy that changes objects, read once from each version, and what one of its mutations makes of an object.

use serde_json::{Map, Value, json};

use crate::admission::Review;
use crate::admission::expressions::{self, Environment, Results, evaluate};
use crate::admission::policy::PolicyHead;
use crate::admission::subject::{Subject, accept, body_kind};
use crate::apply::merge_configuration;
use crate::cel::constructed::Constructed;
use crate::cel::json::to_json;
use crate::cel::{self, Budget, Composition, EvalError, Program, Value as CelValue};
use crate::edit::{list, text};
use crate::patch::{self, PatchError};
use crate::resource::Resource;
use crate::schema::{self, FieldValidation, Kind, Parsed};
use crate::status::Failure;

/// A MutatingAdmissionPolicy with its compiled expressions.
pub(super) struct Compiled {
    pub(super) head: PolicyHead,
    /// It wants to see what others make of the object after it.
    pub(super) is_repeated: bool,
    pub(super) mutations: Vec<Mutation>,
}

impl Compiled {
    pub(super) fn read(policy: &Value) -> Self {
        cel::batch(|| {
            let (spec, head) = (&policy["spec"], PolicyHead::compile(policy));
            let known = expressions::variables(head.has_params(), true);
            let mutation = |mutation: &Value| Mutation::compile(mutation, &known, &head.variables);
            Self {
                is_repeated: text(&spec["reinvocationPolicy"]) == "IfNeeded",
                mutations: list(&spec["mutations"]).iter().map(mutation).collect(),
                head,
            }
        })
    }
}

/// One mutation of a policy.
pub(super) struct Mutation {
    kind: PatchKind,
    expression: String,
    program: Result<Program, String>,
}

#[derive(Clone, Copy)]
enum PatchKind {
    /// The object that is merged into the one under review.
    Configuration,
    /// The operations of a JSON patch.
    Operations,
}

/// Why a mutation changes nothing.
pub(super) enum Problem {
    /// The policy fails, which its failure policy may ignore.
    Policy(String),
    /// The request fails.
    Request(Failure),
}

impl From<EvalError> for Problem {
    fn from(error: EvalError) -> Self {
        Self::Policy(error.to_string())
    }
}

impl Mutation {
    fn compile(mutation: &Value, known: &[(String, cel::Type)], variables: &Composition) -> Self {
        let (kind, field, results) = match text(&mutation["patchType"]) {
            "JSONPatch" => (PatchKind::Operations, "jsonPatch", Results::Patch),
            _ => (PatchKind::Configuration, "applyConfiguration", Results::Object),
        };
        let expression = text(&mutation[field]["expression"]).trim().to_owned();
        let program = expressions::compile(&expression, known, Some(variables), results);
        Self { kind, expression, program }
    }

    /// What the mutation makes of `object`. A patch whose test fails makes nothing of it.
    pub(super) async fn apply(
        &self,
        review: &Review<'_>,
        matched: &Resource,
        environment: &Environment,
        (params, variables): (&Value, &Composition),
        object: &Value,
    ) -> Result<Value, Problem> {
        let subject = Subject::of(review, matched, Some(object)).await;
        let subject = subject.map_err(|failure| Problem::Policy(failure.message))?;
        let patch = self.evaluate(environment, &subject, params, variables)?;
        let seen = subject.object().cloned().unwrap_or_default();
        match self.kind {
            PatchKind::Configuration => merged(review, matched, seen, patch, object).await,
            PatchKind::Operations => patched(review, matched, seen, &patch, object).await,
        }
    }

    /// The JSON of the patch.
    fn evaluate(
        &self,
        environment: &Environment,
        subject: &Subject<'_>,
        params: &Value,
        variables: &Composition,
    ) -> Result<Value, Problem> {
        let scope = environment.scope(subject, params, variables)?;
        let value = evaluate(&self.program, &self.expression, &scope, &mut Budget::default())?;
        match &value {
            CelValue::Object(object) => {
                object.check_names().map_err(mismatch)?;
                Ok(to_json(&value)?)
            }
            CelValue::List(operations) => {
                let operations = operations.iter().map(|operation| match operation? {
                    CelValue::Object(operation) => self::operation(&operation),
                    _ => Err(EvalError::NoSuchOverload.into()),
                });
                operations.collect::<Result<_, _>>().map(Value::Array)
            }
            _ => Err(EvalError::NoSuchOverload.into()),
        }
    }
}

fn mismatch(why: String) -> Problem {
    Problem::Policy(format!("type mismatch: {why}"))
}

/// An operation of a JSON patch as JSON: members that are not set are empty, as in Kubernetes.
fn operation(operation: &Constructed<'_>) -> Result<Value, Problem> {
    let mut members = Map::from_iter(["op", "path"].map(|name| (name.to_owned(), json!(""))));
    for (name, value) in &operation.fields {
        if let CelValue::Object(object) = value {
            object.check_names().map_err(mismatch)?;
        }
        members.insert((*name).to_owned(), to_json(value)?);
    }
    Ok(Value::Object(members))
}

/// The object after a configuration was merged into what the policy sees of it.
async fn merged(
    review: &Review<'_>,
    matched: &Resource,
    mut seen: Value,
    mut configuration: Value,
    object: &Value,
) -> Result<Value, Problem> {
    let ctx = review.ctx;
    let failed = |why: String| Problem::Policy(format!("error applying patch: {why}"));
    if let Some(configuration) = configuration.as_object_mut() {
        for field in ["apiVersion", "kind"] {
            configuration.insert(field.into(), seen[field].clone());
        }
    }
    let own = body_kind(ctx).map_err(Problem::Request)?.unwrap_or(&matched.schema);
    // The table of fields is that of the stored version: of another with other fields nothing is known until it is converted.
    let kind = if matched.form.is_some_and(|form| form.schema().is_some()) { None } else { Some(own) };
    if let Some(kind) = kind {
        check_fields(kind, &configuration)
            .map_err(|why| failed(format!("failed to convert patch object to typed object: {why}")))?;
    }
    merge_configuration(kind, &mut seen, &configuration).map_err(failed)?;
    let validation = if kind.is_some() { FieldValidation::Ignore } else { FieldValidation::Strict };
    let accepted = accept(ctx, matched, seen, object, validation).await;
    accepted.map_err(|failure| failed(failure.message))
}

/// Refuses fields of a configuration that its kind has not, and values of other types, as the structured merge of Kubernetes does.
fn check_fields(kind: &Kind, configuration: &Value) -> Result<(), String> {
    let parsed = Parsed { value: configuration.clone(), duplicates: Vec::new() };
    let (_, unknown) = schema::decode(kind, parsed, FieldValidation::Warn).map_err(|error| error.problem)?;
    let path = |warning: &String| {
        let path = warning.trim_start_matches("unknown field ").trim_matches('"');
        format!(".{path}: field not declared in schema")
    };
    match unknown.as_slice() {
        [] => Ok(()),
        [only] => Err(path(only)),
        several => {
            Err(several.iter().fold("errors:".to_owned(), |all, one| format!("{all}\n  {}", path(one))))
        }
    }
}

/// The object after a JSON patch of what the policy sees of it.
async fn patched(
    review: &Review<'_>,
    matched: &Resource,
    mut seen: Value,
    operations: &Value,
    object: &Value,
) -> Result<Value, Problem> {
    match patch::json_patch(&mut seen, operations) {
        Ok(()) => {}
        Err(PatchError::Operation { is_failed_test: true, .. }) => return Ok(object.clone()),
        Err(error) => return Err(Problem::Policy(format!("JSON Patch: {error}"))),
    }
    let accepted = accept(review.ctx, matched, seen, object, FieldValidation::Strict).await;
    accepted.map_err(|failure| Problem::Request(Failure::internal(failure.message)))
}
