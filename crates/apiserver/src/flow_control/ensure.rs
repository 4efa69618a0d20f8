//! Keeps the default objects as Kubernetes keeps them, and the status of all FlowSchemas.
//!
//! ```text
//! [defaults] -> decide -> [FlowSchema, PriorityLevelConfiguration]
//! [FlowSchema] + [PriorityLevelConfiguration] -> with_status -> [FlowSchema].status: condition Dangling
//! ```

use std::sync::Arc;
use std::time::Duration;

use futures::future;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::defaults::{self, AUTOUPDATE, Kept};
use crate::apply::Writer;
use crate::edit::{list, map_at, text};
use crate::object::{Object, meta};
use crate::request::DeleteOptions;
use crate::resource::{self, Resource};
use crate::schema::FLOW_CONTROL_GROUP;
use crate::server::Inner;
use crate::status::{Failure, Result};
use crate::write::Decision;
use crate::write::context::{Operation, WriteContext};

/// Between looks at the default objects. As in Kubernetes.
const ENSURE_EVERY: Duration = Duration::from_secs(60);
/// After a change, so that a burst of changes is looked at once.
const SETTLE: Duration = Duration::from_millis(200);
const MANAGER: &str = "api-priority-and-fairness-config-producer-v1";

/// What has to be done with a default object.
#[derive(Debug, PartialEq)]
enum Step {
    /// Nothing.
    Keep,
    /// It has to be made.
    Create,
    /// It becomes this.
    Update(Value),
}

/// Compares an object with its default. A suggested object's spec is the server's as long as its annotation says so, or
/// nobody has changed it before the annotation was there; then the annotation is written.
fn decide(existing: Option<&Value>, expected: &Value, kept: Kept) -> Step {
    let Some(existing) = existing else { return Step::Create };
    let annotation =
        existing["metadata"]["annotations"][AUTOUPDATE].as_str().and_then(|text| text.parse().ok());
    let is_ours = match (kept, annotation) {
        (Kept::Mandatory, _) => true,
        (Kept::Suggested, Some(update)) => update,
        (Kept::Suggested, None) => existing["metadata"]["generation"] == 1,
    };
    let mut next = existing.clone();
    if annotation != Some(is_ours)
        && let Some(annotations) = map_at(&mut next, &["metadata", "annotations"])
    {
        annotations.insert(AUTOUPDATE.into(), is_ours.to_string().into());
    }
    if is_ours {
        next["spec"] = expected["spec"].clone();
        // The one part of a mandatory object that is its administrators'.
        if let Some(exempt) = existing["spec"].get("exempt").filter(|_| kept == Kept::Mandatory) {
            next["spec"]["exempt"] = exempt.clone();
        }
    }
    if next == *existing { Step::Keep } else { Step::Update(next) }
}

/// A FlowSchema whose status says whether its priority level exists; `None` where it says so already.
fn with_status(schema: &Value, level_exists: bool, now: Timestamp) -> Option<Value> {
    let level = text(&schema["spec"]["priorityLevelConfiguration"]["name"]);
    let references =
        format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    let (status, reason, message) = match level_exists {
        true => ("False", "Found", format!("{references} and it exists")),
        false => ("True", "NotFound", format!("{references} but there is no such object")),
    };
    let mut conditions = list(&schema["status"]["conditions"]).to_vec();
    let at = conditions.iter().position(|condition| condition["type"] == "Dangling");
    let known = at.map_or(&Value::Null, |at| &conditions[at]);
    if known["status"] == status && known["reason"] == reason && known["message"] == message.as_str() {
        return None;
    }
    // Seconds, as all timestamps of this type have.
    let since = Timestamp::from_second(now.as_second()).unwrap_or(now).to_string();
    let condition = json!({
        "type": "Dangling", "status": status, "lastTransitionTime": since, "reason": reason, "message": message,
    });
    match at {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
    let mut next = schema.clone();
    map_at(&mut next, &["status"])?.insert("conditions".into(), conditions.into());
    Some(next)
}

/// Keeps objects and statuses until the server ends.
pub(crate) async fn run(server: Arc<Inner>) {
    let control = server.flow_control.clone();
    loop {
        tokio::select! {
            () = server.stop.cancelled() => return,
            () = control.changed.notified() => server.clock.sleep(SETTLE).await,
            () = server.clock.sleep(ENSURE_EVERY) => {}
        }
        let done = async {
            defaults(&server).await?;
            remove_outdated(&server).await?;
            statuses(&server).await
        };
        if let Err(failure) = done.await {
            tracing::warn!(%failure, "the objects of flow control were not all written; the next attempt follows");
        }
    }
}

/// Makes the default objects what they should be. All at once: the store commits writes that come together in one step.
pub(crate) async fn defaults(server: &Inner) -> Result<()> {
    let all = defaults::priority_levels().chain(defaults::flow_schemas());
    future::try_join_all(all.map(|(object, kept)| ensure(server, object, kept))).await.map(drop)
}

async fn ensure(server: &Inner, expected: Value, kept: Kept) -> Result<()> {
    let resource = resource_of(&expected)?;
    let name = meta(&expected, "name").to_owned();
    let existing = server.find(resource, "", &name).ok().map(|object| object.value());
    let writer = Writer { manager: MANAGER, subresource: "", time: server.clock.now(), conversions: None };
    match decide(existing.as_deref(), &expected, kept) {
        Step::Keep => Ok(()),
        Step::Create => {
            let ctx = WriteContext::internal(server, resource, Operation::Create);
            server.create_object(&ctx, "", (expected, 0), Some(writer)).await.map(drop)
        }
        Step::Update(next) => {
            let ctx = WriteContext::internal(server, resource, Operation::Update);
            // It carries the version that was decided on: what was written since is looked at next time.
            let replaced = server.modify(&ctx, ("", &name), 0, |current: &Object| -> Result<Decision> {
                server.replace(&ctx, current, next.clone(), Some(writer))
            });
            replaced.await.map(drop)
        }
    }
}

/// Deletes objects that say that they are the server's, and no longer are, as those of an earlier version.
async fn remove_outdated(server: &Inner) -> Result<()> {
    let known: Vec<Value> =
        defaults::priority_levels().chain(defaults::flow_schemas()).map(|(object, _)| object).collect();
    for plural in ["prioritylevelconfigurations", "flowschemas"] {
        let resource = find(plural)?;
        for object in server.collection(resource)?.list("", None, 0, |_| true).objects {
            let object = object.value();
            let (name, is_ours) = (meta(&object, "name"), &object["metadata"]["annotations"][AUTOUPDATE]);
            let is_known = known.iter().any(|k| k["kind"] == object["kind"] && meta(k, "name") == name);
            if is_known || is_ours != "true" {
                continue;
            }
            let ctx = WriteContext::internal(server, resource, Operation::Delete);
            server.delete_object(&ctx, "", name, &DeleteOptions::default()).await?;
        }
    }
    Ok(())
}

async fn statuses(server: &Inner) -> Result<()> {
    let (schemas, levels) = (find("flowschemas")?, find("prioritylevelconfigurations")?);
    let status = |schema: &Value| {
        let level = text(&schema["spec"]["priorityLevelConfiguration"]["name"]);
        with_status(schema, server.find(levels, "", level).is_ok(), server.clock.now())
    };
    let all = server.collection(schemas)?.list("", None, 0, |_| true).objects;
    let outdated = all.iter().map(|schema| schema.value()).filter(|schema| status(schema).is_some());
    let writes = outdated.map(|schema| async move {
        let ctx = WriteContext::internal(server, schemas, Operation::Update);
        let written = server.modify(&ctx, ("", meta(&schema, "name")), 0, |current: &Object| {
            Ok(status(&current.value()).map_or(Decision::Keep, Decision::Put))
        });
        match written.await {
            Err(failure) if failure.code != 404 => Err(failure),
            _ => Ok(()),
        }
    });
    future::try_join_all(writes).await.map(drop)
}

fn resource_of(object: &Value) -> Result<&'static Arc<Resource>> {
    find(if object["kind"] == "FlowSchema" { "flowschemas" } else { "prioritylevelconfigurations" })
}

fn find(plural: &str) -> Result<&'static Arc<Resource>> {
    resource::find(FLOW_CONTROL_GROUP, "v1", plural).ok_or_else(Failure::no_such_resource)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_kept_as_their_annotation_says() {
        let expected = json!({"metadata": {"annotations": {AUTOUPDATE: "true"}}, "spec": {"a": 1}});
        let object = |annotation: Option<&str>, generation: u64, spec: u64| {
            let mut object = json!({"metadata": {"generation": generation}, "spec": {"a": spec}});
            if let Some(annotation) = annotation {
                object["metadata"]["annotations"] = json!({AUTOUPDATE: annotation});
            }
            object
        };
        use Kept::{Mandatory, Suggested};
        for (kept, annotation, generation, spec, expect) in [
            (Suggested, Some("true"), 3, 1, None),
            (Suggested, Some("true"), 3, 2, Some(("true", 1))),
            (Suggested, Some("false"), 1, 2, None),
            (Suggested, None, 1, 2, Some(("true", 1))),
            (Suggested, None, 2, 2, Some(("false", 2))),
            (Suggested, Some("nonsense"), 1, 1, Some(("true", 1))),
            (Mandatory, Some("false"), 2, 2, Some(("true", 1))),
            (Mandatory, Some("true"), 2, 1, None),
        ] {
            let existing = object(annotation, generation, spec);
            let expect = match expect {
                None => Step::Keep,
                Some((annotation, spec)) => Step::Update(object(Some(annotation), generation, spec)),
            };
            assert_eq!(decide(Some(&existing), &expected, kept), expect, "{kept:?} {existing}");
        }
        assert_eq!(decide(None, &expected, Suggested), Step::Create);
        // The part of an exempt level that its administrators may change.
        let exempt = |shares: u64| json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": shares}});
        let of = |spec: Value| json!({"metadata": {"annotations": {AUTOUPDATE: "true"}}, "spec": spec});
        assert_eq!(decide(Some(&of(exempt(9))), &of(exempt(0)), Mandatory), Step::Keep);
    }

    #[test]
    fn the_default_objects_are_valid_and_complete() {
        use crate::schema::{FieldValidation, decode, default_object, find, validate_object};
        for (object, kept) in defaults::priority_levels().chain(defaults::flow_schemas()) {
            let (kind, name) = (text(&object["kind"]), meta(&object, "name"));
            let kind = find(FLOW_CONTROL_GROUP, "v1", kind).expect("a kind");
            let (mut decoded, warnings) =
                decode(kind, object.clone().into(), FieldValidation::Strict).expect("valid");
            assert!(warnings.is_empty(), "{warnings:?}");
            default_object(kind, &mut decoded);
            assert_eq!(validate_object(kind, &decoded, None), [], "{name}");
            // Else every start would write it anew.
            assert_eq!(decide(Some(&decoded), &object, kept), Step::Keep, "{name}");
            // Every FlowSchema's priority level is one of them.
            let level = text(&object["spec"]["priorityLevelConfiguration"]["name"]);
            let has_level = defaults::priority_levels().any(|(of, _)| meta(&of, "name") == level);
            assert!(level.is_empty() || has_level, "{name}");
        }
    }

    #[test]
    fn the_status_says_whether_the_level_exists() {
        let now: Timestamp = "2026-01-01T00:00:00.5Z".parse().expect("a time");
        let schema = json!({"spec": {"priorityLevelConfiguration": {"name": "l"}}, "status": {"conditions": [{"type": "Other"}]}});
        let found = with_status(&schema, true, now).expect("a change");
        assert_eq!(
            found["status"]["conditions"][1],
            json!({
                "type": "Dangling", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z", "reason": "Found",
                "message": "This FlowSchema references the PriorityLevelConfiguration object named \"l\" and it exists",
            })
        );
        assert_eq!(with_status(&found, true, now), None);
        let dangling = with_status(&found, false, now).expect("a change");
        assert_eq!(dangling["status"]["conditions"][1]["reason"], "NotFound");
        assert_eq!(list(&dangling["status"]["conditions"]).len(), 2);
    }
}
