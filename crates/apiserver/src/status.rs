//! Failures of requests, as the `Status` object that every Kubernetes client reads.

use serde_json::{Map, Value, json};

use crate::resource::Resource;

/// A request's failure. Its text is what `kubectl` prints after `Error from server (REASON): `.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// HTTP status code.
    pub code: u16,
    /// Kubernetes' machine-readable word, such as `NotFound`.
    pub reason: &'static str,
    /// One sentence.
    pub message: String,
    /// The `details` of the Status: what object, which fields.
    pub details: Option<Box<Map<String, Value>>>,
    /// The token with which a list whose revision is gone can be continued.
    pub continue_with: Option<Box<str>>,
}

/// The result of anything a request asks for.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A failure that concerns no particular object.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, continue_with: None }
    }

    fn about(code: u16, reason: &'static str, message: String, resource: &Resource, name: &str) -> Self {
        Self::new(code, reason, message).with_details(&resource.group, &resource.plural, name)
    }

    fn with_details(mut self, group: &str, kind: &str, name: &str) -> Self {
        let mut details = Map::new();
        for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
            if !value.is_empty() {
                details.insert(key.into(), value.into());
            }
        }
        self.details = Some(Box::new(details));
        self
    }

    /// No such object.
    pub fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", resource.qualified());
        Self::about(404, "NotFound", message, resource, name)
    }

    /// No such path, group or resource.
    pub fn no_such_resource() -> Self {
        // Clients tell it from a missing object by details without a name, and stumble where there are none.
        Self::new(404, "NotFound", "the server could not find the requested resource")
            .with_details("", "", "")
    }

    /// A create of what exists.
    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", resource.qualified());
        Self::about(409, "AlreadyExists", message, resource, name)
    }

    /// An update that `why` forbids for now.
    pub fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", resource.qualified());
        Self::about(409, "Conflict", message, resource, name)
    }

    /// An update that was computed from an outdated object.
    pub fn modified(resource: &Resource, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// Refused by a rule of the server.
    pub fn forbidden(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("{} \"{name}\" is forbidden: {why}", resource.qualified());
        Self::about(403, "Forbidden", message, resource, name)
    }

    /// Refused by authorisation.
    pub fn denied(message: String) -> Self {
        Self::new(403, "Forbidden", message)
    }

    /// Refused by authorisation, for a resource that need not be served; `sentence` says what its user cannot do.
    pub fn denied_resource(group: &str, plural: &str, name: &str, sentence: &str) -> Self {
        let dot = if group.is_empty() { "" } else { "." };
        let named = if name.is_empty() { String::new() } else { format!(" {name:?}") };
        let message = format!("{plural}{dot}{group}{named} is forbidden: {sentence}");
        Self::new(403, "Forbidden", message).with_details(group, plural, name)
    }

    /// The request makes no sense by itself.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// The object breaks rules of its kind: one cause for each field, given as (field, reason, message), where the
    /// message begins with Kubernetes' words for the reason (`Required value`).
    pub fn invalid(
        group: &str,
        kind: &str,
        name: &str,
        causes: impl IntoIterator<Item = (String, String, String)>,
    ) -> Self {
        let causes: Vec<_> = causes.into_iter().collect();
        let mut texts: Vec<_> =
            causes.iter().map(|(field, _, message)| format!("{field}: {message}")).collect();
        texts.dedup();
        let text = if texts.len() == 1 { texts.remove(0) } else { format!("[{}]", texts.join(", ")) };
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut failure = Self::new(422, "Invalid", format!("{qualified} \"{name}\" is invalid: {text}"))
            .with_details(group, kind, name);
        if let Some(details) = &mut failure.details {
            let causes = causes.iter().map(
                |(field, reason, message)| json!({"reason": reason, "message": message, "field": field}),
            );
            details.insert("causes".into(), causes.collect());
        }
        failure
    }

    /// History older than what is kept was asked for.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// The next part of a list was asked for at a revision that is no longer kept; `token` lists the rest as it is now.
    pub fn continue_expired(token: &str) -> Self {
        let failure = Self::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list \
             without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
             results. Continuing with the provided token results in an inconsistent list - objects that were created, \
             modified, or deleted between the time the first chunk was returned and now may show up in the list.",
        );
        Self { continue_with: Some(token.into()), ..failure }
    }

    /// A watch cannot go on from where its client is.
    pub fn too_old(asked: u64, oldest: u64) -> Self {
        Self::expired(format!("too old resource version: {asked} ({oldest})"))
    }

    /// A revision that this server has not seen within the time it waits for it.
    pub fn too_new(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let mut failure = Self::new(504, "Timeout", message);
        let causes = json!([{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]);
        failure.details = Some(Box::new(
            [("causes".into(), causes), ("retryAfterSeconds".into(), 1.into())].into_iter().collect(),
        ));
        failure
    }

    /// The verb does not exist here.
    pub fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    /// No media type that both sides know.
    pub fn not_acceptable() -> Self {
        Self::new(
            406,
            "NotAcceptable",
            "only the following media types are accepted: application/json, \
             application/json;as=Table;v=v1;g=meta.k8s.io, application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io, \
             application/yaml",
        )
    }

    /// A body in a format that is not read here.
    pub fn unsupported_media_type(accepted: &str) -> Self {
        Self::new(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {accepted}"
            ),
        )
    }

    /// A request that flow control does not let through; its client may come back after so many seconds.
    pub fn too_many_requests(retry_after: u64) -> Self {
        let mut failure = Self::new(429, "TooManyRequests", "Too many requests, please try again later.");
        failure.details =
            Some(Box::new([("retryAfterSeconds".into(), retry_after.into())].into_iter().collect()));
        failure
    }

    /// A body over the limit, in bytes.
    pub fn too_large(limit: usize) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {limit}"))
    }

    /// A fault of the server.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {error}"))
    }

    /// The `Status` object.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason,
        });
        if let Some(details) = &self.details {
            status["details"] = Value::Object((**details).clone());
        }
        if let Some(token) = &self.continue_with {
            status["metadata"]["continue"] = (**token).into();
        }
        status["code"] = self.code.into();
        status
    }
}

impl From<crate::cache::FeedEnded> for Failure {
    fn from(ended: crate::cache::FeedEnded) -> Self {
        Self::new(503, "ServiceUnavailable", ended.to_string())
    }
}

impl From<yado_store::Error> for Failure {
    fn from(error: yado_store::Error) -> Self {
        use yado_store::Error::{Closed, Compacted, DiskFull, Full, FutureRevision, TooLarge, Unavailable};
        match error {
            Compacted { .. } => Self::expired(
                "The provided continue parameter is too old to display a consistent list result. You must start a new \
                 list without the continue parameter.",
            ),
            FutureRevision { requested, current } => Self::too_new(requested, current),
            TooLarge { .. } => {
                Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: {error}"))
            }
            DiskFull { .. } | Full { .. } => Self::new(507, "InsufficientStorage", error.to_string()),
            Unavailable { .. } => Self::new(503, "ServiceUnavailable", error.to_string()),
            Closed => Self::new(503, "ServiceUnavailable", "the server is shutting down"),
            other => Self::internal(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::find;

    #[test]
    fn failures_read_as_kubernetes_words_them() {
        let deployments = find("apps", "v1", "deployments").expect("served");
        let required = ("spec.selector".into(), "FieldValueRequired".into(), "Required value".into());
        for (failure, expect) in [
            (Failure::not_found(deployments, "x"), r#"404 NotFound deployments.apps "x" not found"#),
            (
                Failure::already_exists(deployments, "x"),
                r#"409 AlreadyExists deployments.apps "x" already exists"#,
            ),
            (
                Failure::modified(deployments, "x"),
                "409 Conflict Operation cannot be fulfilled on deployments.apps \"x\": the object has been modified; \
                 please apply your changes to the latest version and try again",
            ),
            (
                Failure::invalid("apps", "Deployment", "x", [required]),
                r#"422 Invalid Deployment.apps "x" is invalid: spec.selector: Required value"#,
            ),
        ] {
            assert_eq!(format!("{} {} {failure}", failure.code, failure.reason), expect);
            assert_eq!(failure.status()["details"]["name"], "x");
        }
    }
}
