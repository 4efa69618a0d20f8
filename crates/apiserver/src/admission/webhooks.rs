//! Admission webhooks: which of them are asked about a write, what they are asked, and what their answers do.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::conditions::{self, Condition, Conditions};
use super::expressions::{Environment, NOTHING};
use super::matching::{rules_match, selectors_match};
use super::policy::{all, is_empty};
use super::reinvocation::Reinvocation;
use super::request::request;
use super::subject::{Matched, Subject, accept};
use super::{GROUP, Plugin, Review, is_configurable};
use crate::audit::Level;
use crate::edit::{list, text};
use crate::object::meta;
use crate::patch;
use crate::resource::{self, Resource};
use crate::schema::{self, FieldValidation};
use crate::server::Inner;
use crate::status::{Failure, Result};
use crate::webhook::{CallError, Endpoint};
use crate::write::context::WriteContext;
use crate::write::create::uid;

/// How long a webhook may take where its configuration does not say. As in Kubernetes.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest patch that is taken, in bytes: an object in the store is not larger either.
const MAX_PATCH: usize = 1 << 20;

/// The beginning of the key of the annotation that has a patch.
const PATCH: &str = "patch";

/// The webhooks of `MutatingWebhookConfiguration` and `ValidatingWebhookConfiguration` objects.
pub(super) struct Webhooks;

/// Which of the two kinds of configuration.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Mutating,
    Validating,
}

impl Phase {
    fn resource(self) -> Option<&'static Arc<Resource>> {
        let plural = match self {
            Self::Mutating => "mutatingwebhookconfigurations",
            Self::Validating => "validatingwebhookconfigurations",
        };
        resource::find(GROUP, "v1", plural)
    }

    /// All webhooks, in the order of their configurations' names.
    fn hooks(self, server: &Inner) -> Vec<Hook> {
        let mut hooks = Vec::new();
        for configuration in all(server, self.resource()) {
            let conditions = configuration.derive(conditions::of);
            let configuration = configuration.value();
            for at in 0..list(&configuration["webhooks"]).len() {
                let (configuration, conditions) = (configuration.clone(), conditions.clone());
                hooks.push(Hook { phase: self, configuration, conditions, at, index: hooks.len() });
            }
        }
        hooks
    }
}

/// A webhook of a configuration.
struct Hook {
    phase: Phase,
    configuration: Arc<Value>,
    conditions: Conditions,
    /// Its place in the configuration.
    at: usize,
    /// Its place among all webhooks of the phase, by which annotations of audit events name it.
    index: usize,
}

impl Hook {
    /// The webhook as it is configured.
    fn spec(&self) -> &Value {
        &self.configuration["webhooks"][self.at]
    }

    fn name(&self) -> &str {
        text(&self.spec()["name"])
    }

    fn conditions(&self) -> &[Condition] {
        self.conditions.get(self.at).map_or(&[], Vec::as_slice)
    }

    /// The key of an annotation about it, in the words of Kubernetes.
    fn annotation(&self, prefix: &str, round: u8) -> String {
        let kind = match self.phase {
            Phase::Mutating => "mutation",
            Phase::Validating => "validating",
        };
        let kind = if prefix == PATCH { "" } else { kind };
        format!("{prefix}{kind}.webhook.admission.k8s.io/round_{round}_index_{}", self.index)
    }
}

#[async_trait]
impl Plugin for Webhooks {
    fn handles(&self, ctx: &WriteContext<'_>, _namespace: &str) -> bool {
        let is_any = |phase: Phase| !is_empty(ctx.server, phase.resource());
        is_configurable(ctx) && (is_any(Phase::Mutating) || is_any(Phase::Validating))
    }

    fn mutates(&self) -> bool {
        true
    }

    async fn mutate(
        &self,
        review: &Review<'_>,
        object: &mut Value,
        reinvocation: &mut Reinvocation,
    ) -> Result<()> {
        let again = &mut reinvocation.webhooks;
        again.begin(object);
        for hook in Phase::Mutating.hooks(review.ctx.server) {
            let name = format!("{}/{}", meta(&hook.configuration, "name"), hook.at);
            if !again.is_wanted(&name) {
                continue;
            }
            if let Some(has_changed) = one(review, &hook, again.round(), object).await? {
                again.done(name, has_changed, text(&hook.spec()["reinvocationPolicy"]) == "IfNeeded");
            }
        }
        again.end(object);
        Ok(())
    }

    /// Mutating webhooks are asked about deletions too, of which they can change nothing.
    async fn mutate_deletion(&self, review: &Review<'_>) -> Result<()> {
        for hook in Phase::Mutating.hooks(review.ctx.server) {
            let Some((matched, subject)) = question(review, &hook, None).await? else { continue };
            let patch = ask(review, &hook, 0, &matched, &subject).await?;
            if patch.is_some_and(|patch| !list(&patch).is_empty()) {
                return Err(Failure::internal(format!(
                    "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
                    hook.name()
                )));
            }
        }
        Ok(())
    }

    async fn validate(&self, review: &Review<'_>, object: Option<&Value>) -> Result<()> {
        let hooks = Phase::Validating.hooks(review.ctx.server);
        let mut questions = Vec::new();
        for hook in &hooks {
            let question = question(review, hook, object).await?;
            questions.extend(question.map(|(matched, subject)| (hook, matched, subject)));
        }
        // They cannot see each other's answers, so they are asked at once; the first refusal in their order counts.
        let asked = questions.iter().map(|(hook, matched, subject)| ask(review, hook, 0, matched, subject));
        for answered in futures::future::join_all(asked).await {
            answered?;
        }
        Ok(())
    }
}

/// Asks one mutating webhook and applies its patch. Returns whether that changed the object, if it was asked.
async fn one(review: &Review<'_>, hook: &Hook, round: u8, object: &mut Value) -> Result<Option<bool>> {
    let Some((matched, subject)) = question(review, hook, Some(object)).await? else { return Ok(None) };
    let (ctx, name) = (review.ctx, hook.name());
    let of = json!({"configuration": hook.configuration["metadata"]["name"], "webhook": name});
    let note = |is_mutated: bool| {
        let mut value = of.clone();
        value["mutated"] = is_mutated.into();
        ctx.annotate(&hook.annotation("", round), &value.to_string());
    };
    let asked = ask(review, hook, round, &matched, &subject).await.inspect_err(|_| note(false))?;
    let Some(change) = asked else {
        note(false);
        return Ok(Some(false));
    };
    let mut patched = subject.object().cloned().unwrap_or_default();
    patch::json_patch(&mut patched, &change).map_err(|error| {
        Failure::internal(format!("admission webhook {name:?}: its patch cannot be applied: {error}"))
    })?;
    // What it made of the object must be one of the kind still: types, unknown fields, zero values.
    let accepted = accept(ctx, &matched, patched, object, FieldValidation::Ignore).await;
    let accepted = accepted.map_err(|failure| {
        Failure::internal(format!("admission webhook {name:?} broke the object: {}", failure.message))
    })?;
    let has_changed = accepted != *object;
    note(has_changed);
    if let Some(record) = ctx.audit.filter(|_| !list(&change).is_empty()) {
        let mut value = of;
        value["patch"] = change;
        value["patchType"] = "JSONPatch".into();
        // It tells of the object, which not every event does.
        record.annotate_at(Level::Request, &hook.annotation(PATCH, round), &value.to_string());
    }
    *object = accepted;
    Ok(Some(has_changed))
}

/// What a webhook is asked about a write: the resource by which its rules name it, and the objects in that version. `None` where it
/// is not asked.
async fn question<'v>(
    review: &Review<'v>,
    hook: &Hook,
    object: Option<&'v Value>,
) -> Result<Option<(Matched<'v>, Subject<'v>)>> {
    let (webhook, conditions) = (hook.spec(), hook.conditions());
    if !selectors_match(review, webhook, object)? {
        return Ok(None);
    }
    let is_exact = text(&webhook["matchPolicy"]) == "Exact";
    let Some(matched) = rules_match(review, list(&webhook["rules"]), is_exact) else { return Ok(None) };
    let subject = Subject::of(review, &matched, object).await?;
    if conditions.is_empty() {
        return Ok(Some((matched, subject)));
    }
    let environment = Environment::of(review, &matched);
    let held = environment
        .scope(&subject, &Value::Null, &NOTHING)
        .map_err(|error| error.to_string())
        .and_then(|scope| conditions::hold(conditions, &scope));
    match held {
        Ok(true) => Ok(Some((matched, subject))),
        Ok(false) => Ok(None),
        Err(_) if text(&webhook["failurePolicy"]) == "Ignore" => Ok(None),
        Err(why) => {
            let why = format!("webhook {:?}: {why}", hook.name());
            Err(Failure::forbidden(review.ctx.requested, review.name, &why))
        }
    }
}

/// Asks a webhook. Returns its patch, if it has one.
///
/// # Errors
/// Its refusal; or why it could not be asked, where its failure policy is `Fail`.
async fn ask(
    review: &Review<'_>,
    hook: &Hook,
    round: u8,
    matched: &Resource,
    subject: &Subject<'_>,
) -> Result<Option<Value>> {
    let (ctx, webhook, name) = (review.ctx, hook.spec(), hook.name());
    if ctx.dry_run && !matches!(text(&webhook["sideEffects"]), "None" | "NoneOnDryRun") {
        let why = format!("admission webhook {name:?} does not support dry run");
        return Err(Failure::bad_request(why));
    }
    let id = uid(&mut rand::rng());
    let request = admission_review(review, matched, &id, subject);
    let timeout = webhook["timeoutSeconds"].as_u64().map_or(DEFAULT_TIMEOUT, Duration::from_secs);
    let answered = async {
        let endpoint = Endpoint::of(ctx.server, &webhook["clientConfig"])?;
        let answer = endpoint.call(ctx.server, timeout, &request).await;
        answer.map_err(|error| CallError(format!("failed to call webhook: {error}")))
    };
    match answered.await.and_then(|answer| Verdict::read(&answer, &id)) {
        Ok(verdict) => {
            ctx.warn(verdict.warnings);
            for (key, value) in verdict.annotations {
                ctx.annotate(&format!("{name}/{key}"), &value);
            }
            match verdict.refusal {
                Some((code, message)) => Err(refusal(name, code, &message)),
                None => Ok(verdict.patch),
            }
        }
        Err(error) if text(&webhook["failurePolicy"]) == "Ignore" => {
            tracing::warn!(webhook = name, %error, "an admission webhook failed and is passed over, as its policy says");
            ctx.annotate(&hook.annotation("failed-open.", round), name);
            Ok(None)
        }
        Err(error) => Err(Failure::internal(format!("failed calling webhook \"{name}\": {error}"))),
    }
}

fn refusal(name: &str, code: u16, message: &str) -> Failure {
    let text = match message.is_empty() {
        true => format!("admission webhook \"{name}\" denied the request without explanation"),
        false => format!("admission webhook \"{name}\" denied the request: {message}"),
    };
    // Reasons are of a fixed set here; what a webhook calls its own is in the message.
    let reason = match code {
        400 => "BadRequest",
        409 => "Conflict",
        422 => "Invalid",
        429 => "TooManyRequests",
        500.. => "InternalError",
        _ => "Forbidden",
    };
    Failure::new(code, reason, text)
}

/// The decoded response of a webhook.
struct Verdict {
    /// Code and message of a refusal.
    refusal: Option<(u16, String)>,
    patch: Option<Value>,
    warnings: Vec<String>,
    /// What the audit log is told.
    annotations: Vec<(String, String)>,
}

impl Verdict {
    fn read(answer: &Value, id: &str) -> Result<Self, CallError> {
        let response = &answer["response"];
        if !response.is_object() {
            return Err(CallError("webhook response is absent".into()));
        }
        if text(&response["uid"]) != id {
            return Err(CallError(format!("expected response.uid={id:?}, got {:?}", text(&response["uid"]))));
        }
        let status = &response["status"];
        let code =
            status["code"].as_u64().and_then(|code| u16::try_from(code).ok()).filter(|code| *code >= 400);
        let refusal = || {
            let message = match text(&status["message"]) {
                "" => text(&status["reason"]),
                message => message,
            };
            (code.unwrap_or(403), message.to_owned())
        };
        let patch = match (text(&response["patchType"]), text(&response["patch"])) {
            (_, "") => None,
            ("JSONPatch", encoded) => {
                let bytes = STANDARD
                    .decode(encoded)
                    .map_err(|e| CallError(format!("its patch is not base64: {e}")))?;
                if bytes.len() > MAX_PATCH {
                    return Err(CallError(format!("its patch has more than {MAX_PATCH} bytes")));
                }
                let patch = schema::parse_json(&bytes).map_err(|e| CallError(format!("its patch: {e}")))?;
                Some(patch.value)
            }
            (other, _) => return Err(CallError(format!("unsupported patch type {other:?}"))),
        };
        let warnings = list(&response["warnings"]).iter().map(|warning| text(warning).to_owned()).collect();
        let allowed = response["allowed"] == true;
        let annotations = response["auditAnnotations"].as_object().into_iter().flatten();
        let annotations = annotations.map(|(key, value)| (key.clone(), text(value).to_owned())).collect();
        Ok(Self {
            refusal: (!allowed).then(refusal),
            patch: patch.filter(|_| allowed),
            warnings,
            annotations,
        })
    }
}

/// The AdmissionReview that is sent.
fn admission_review(review: &Review<'_>, matched: &Resource, id: &str, subject: &Subject<'_>) -> Value {
    let mut request = request(review, matched);
    request.insert("uid".into(), id.into());
    request.insert("object".into(), subject.object().cloned().unwrap_or_default());
    request.insert("oldObject".into(), subject.old().cloned().unwrap_or_default());
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_or_refused() {
        let patch = STANDARD.encode(r#"[{"op": "add", "path": "/a", "value": 1}]"#);
        for (answer, expect) in [
            (json!({"response": {"uid": "1", "allowed": true}}), "allowed"),
            (json!({"response": {"uid": "1", "allowed": false, "status": {"message": "no"}}}), "403 no"),
            (
                json!({"response": {"uid": "1", "allowed": false, "status": {"code": 422, "reason": "Odd"}}}),
                "422 Odd",
            ),
            (json!({"response": {"uid": "2", "allowed": true}}), "expected response.uid=\"1\", got \"2\""),
            (json!({}), "webhook response is absent"),
            (
                json!({"response": {"uid": "1", "allowed": true, "patchType": "JSONPatch", "patch": patch}}),
                "patched",
            ),
            (
                json!({"response": {"uid": "1", "allowed": true, "patchType": "Merge", "patch": patch}}),
                "unsupported patch type \"Merge\"",
            ),
            (
                json!({"response": {"uid": "1", "allowed": true, "patchType": "JSONPatch", "patch": "%"}}),
                "its patch is not base64: Invalid symbol 37, offset 0.",
            ),
        ] {
            let shown = match Verdict::read(&answer, "1") {
                Ok(Verdict { refusal: Some((code, message)), .. }) => format!("{code} {message}"),
                Ok(Verdict { patch: Some(_), .. }) => "patched".into(),
                Ok(_) => "allowed".into(),
                Err(error) => error.to_string(),
            };
            assert_eq!(shown, expect, "{answer}");
        }
    }
}
