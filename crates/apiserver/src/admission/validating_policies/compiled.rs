//! A policy and a binding, read once from each version, and the evaluation of a policy.

use serde_json::Value;

use crate::admission::conditions;
use crate::admission::expressions::{self, Environment, Results, evaluate};
use crate::admission::policy::{BindingHead, PolicyHead};
use crate::admission::subject::Subject;
use crate::cel::{self, Budget, EvalError, Program, Scope, Value as CelValue};
use crate::edit::{list, text};

/// Largest message that a `messageExpression` may make, in bytes.
const MAX_MESSAGE: usize = 5 * 1024;

/// A ValidatingAdmissionPolicyBinding.
pub(super) struct Bound {
    pub(super) head: BindingHead,
    pub(super) actions: Vec<Action>,
    /// The same, as they are written.
    pub(super) action_names: Value,
}

/// What a binding does about a validation that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Refuse the write.
    Deny,
    /// Warn the user.
    Warn,
    /// Add it to the audit event.
    Audit,
}

impl Bound {
    pub(super) fn read(binding: &Value) -> Self {
        let spec = &binding["spec"];
        let action = |action: &Value| match text(action) {
            "Deny" => Some(Action::Deny),
            "Warn" => Some(Action::Warn),
            "Audit" => Some(Action::Audit),
            _ => None,
        };
        Self {
            head: BindingHead::read(binding),
            actions: list(&spec["validationActions"]).iter().filter_map(action).collect(),
            action_names: spec["validationActions"].clone(),
        }
    }
}

/// A ValidatingAdmissionPolicy with its compiled expressions.
pub(super) struct Compiled {
    pub(super) head: PolicyHead,
    validations: Vec<Validation>,
    annotations: Vec<Annotation>,
}

struct Validation {
    expression: String,
    program: Result<Program, String>,
    message: String,
    message_program: Option<Result<Program, String>>,
    reason: Option<String>,
}

struct Annotation {
    key: String,
    expression: String,
    program: Result<Program, String>,
}

/// A result of evaluating a policy other than success.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A validation that does not hold or cannot be evaluated.
    Failed {
        /// Its position in the policy.
        index: usize,
        /// The reason that the policy gives.
        reason: Option<String>,
        message: String,
    },
    /// An annotation of the audit event.
    Annotation(String, String),
    /// An annotation that cannot be made, which refuses the write.
    AnnotationFailed(String),
}

/// The first bytes of an annotation's value, as many as Kubernetes keeps.
fn shortened(value: &str) -> &str {
    const MOST: usize = 10 << 10;
    &value[..value.floor_char_boundary(MOST)]
}

impl Compiled {
    pub(super) fn read(policy: &Value) -> Self {
        cel::batch(|| Self::compile(policy))
    }

    fn compile(policy: &Value) -> Self {
        let spec = &policy["spec"];
        let head = PolicyHead::compile(policy);
        let (with, without) = (
            expressions::variables(head.has_params(), true),
            expressions::variables(head.has_params(), false),
        );
        let compile = |expression: &str, results| {
            expressions::compile(expression, &with, Some(&head.variables), results)
        };
        let validation = |validation: &Value| {
            let expression = text(&validation["expression"]).to_owned();
            let by = text(&validation["messageExpression"]);
            let by = (!by.is_empty())
                .then(|| expressions::compile(by, &without, Some(&head.variables), Results::String));
            Validation {
                program: compile(&expression, Results::Bool),
                expression,
                message: text(&validation["message"]).trim().to_owned(),
                message_program: by,
                reason: validation["reason"].as_str().map(str::to_owned),
            }
        };
        let annotation = |annotation: &Value| {
            let expression = text(&annotation["valueExpression"]).to_owned();
            Annotation {
                key: text(&annotation["key"]).to_owned(),
                program: compile(&expression, Results::StringOrNull),
                expression,
            }
        };
        let (validations, annotations) = (
            list(&spec["validations"]).iter().map(validation).collect(),
            list(&spec["auditAnnotations"]).iter().map(annotation).collect(),
        );
        Self { validations, annotations, head }
    }

    /// Evaluates the policy for a write with parameters, null for none.
    pub(super) fn evaluate(
        &self,
        environment: &Environment,
        subject: &Subject<'_>,
        params: &Value,
    ) -> Vec<Outcome> {
        let scope = match environment.scope(subject, params, &self.head.variables) {
            Ok(scope) => scope,
            Err(error) => return self.error(0, error.to_string()).into_iter().collect(),
        };
        match conditions::hold(&self.head.conditions, &scope) {
            Ok(true) => {}
            Ok(false) => return Vec::new(),
            Err(why) => return self.error(0, why).into_iter().collect(),
        }
        let mut budget = Budget::default();
        let mut outcomes = Vec::new();
        for (index, validation) in self.validations.iter().enumerate() {
            match evaluate(&validation.program, &validation.expression, &scope, &mut budget) {
                Ok(CelValue::Bool(true)) => {}
                Ok(_) => outcomes.extend(self.failed(index, validation, &scope, &mut budget)),
                // Nothing that was found before counts: the policy as a whole could not be evaluated.
                Err(EvalError::BudgetExhausted) => {
                    return self.error(0, EvalError::BudgetExhausted.to_string()).into_iter().collect();
                }
                Err(error) => outcomes.extend(self.error(index, error.to_string())),
            }
        }
        self.annotate(&scope, &mut outcomes);
        outcomes
    }

    fn error(&self, index: usize, message: String) -> Option<Outcome> {
        (!self.head.ignores_failures).then_some(Outcome::Failed { index, reason: None, message })
    }

    /// A validation that does not hold, with its message: the one its expression makes, its own, or the expression.
    fn failed<'a>(
        &'a self,
        index: usize,
        validation: &'a Validation,
        scope: &Scope<'a>,
        budget: &mut Budget,
    ) -> Option<Outcome> {
        let made = validation.message_program.as_ref().map(|program| evaluate(program, "", scope, budget));
        let made = match made {
            Some(Err(EvalError::BudgetExhausted)) => {
                let message = format!("failed messageExpression: {}", EvalError::BudgetExhausted);
                return self.error(index, message);
            }
            Some(Ok(value)) => value.as_str().unwrap_or_default().trim().to_owned(),
            // A message that cannot be made must not hide that the validation does not hold.
            None | Some(Err(_)) => String::new(),
        };
        let is_usable = !made.is_empty() && made.len() <= MAX_MESSAGE && !made.contains('\n');
        let message = match (is_usable, validation.message.as_str()) {
            (true, _) => made,
            (false, "") => format!("failed expression: {}", validation.expression.trim()),
            (false, own) => own.to_owned(),
        };
        let reason = Some(validation.reason.clone().unwrap_or_else(|| "Invalid".to_owned()));
        Some(Outcome::Failed { index, reason, message })
    }

    fn annotate<'a>(&'a self, scope: &Scope<'a>, outcomes: &mut Vec<Outcome>) {
        let mut budget = Budget::default();
        for annotation in &self.annotations {
            match evaluate(&annotation.program, &annotation.expression, scope, &mut budget) {
                Ok(CelValue::String(value)) if !value.trim().is_empty() => {
                    let value = shortened(value.trim()).to_owned();
                    outcomes.push(Outcome::Annotation(annotation.key.clone(), value));
                }
                Ok(_) => {}
                Err(_) if self.head.ignores_failures => {}
                Err(error) => outcomes.push(Outcome::AnnotationFailed(error.to_string())),
            }
        }
    }
}
