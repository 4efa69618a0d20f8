//! Delete: at once, or by asking those who hold the object (finalizers, a Pod's node, a Namespace's content).

use bytes::Bytes;
use http::{HeaderMap, Response};
use jiff::Timestamp;
use serde_json::{Value, json};
use yado_types::labels::{FINALIZER_FOREGROUND, FINALIZER_ORPHAN};

use super::update::may_go;
use super::{Decision, Outcome};
use crate::content::{self, Body};
use crate::object::{Object, is_terminating, meta, set_meta, time};
use crate::read::Found;
use crate::request::{ApiRequest, DeleteOptions, ListOptions, Propagation};
use crate::resource::Resource;
use crate::schema::{self, FieldValidation};
use crate::server::Inner;
use crate::status::{Failure, Result};
use crate::write::context::WriteContext;

impl Inner {
    pub(super) async fn delete(
        &self,
        ctx: &WriteContext<'_>,
        r: &ApiRequest,
        mut options: DeleteOptions,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Response<Body>> {
        read_body(&mut options, headers, body)?;
        let outcome = self.delete_object(ctx, &r.namespace, &r.name, &options).await?;
        let object = outcome.object();
        if matches!(outcome, Outcome::Deleted(_)) && !r.resource.strategy().returns_deleted() {
            return Ok(content::value(200, &gone(&r.resource, &r.name, meta(&object.value(), "uid"))));
        }
        let waits =
            !matches!(outcome, Outcome::Deleted(_)) && options.propagation == Some(Propagation::Foreground);
        Ok(self.answer(r, if waits { 202 } else { 200 }, object.clone()))
    }

    /// Deletes one object, or begins to. The options say whether it is a dry run, as those of a body may.
    pub(crate) async fn delete_object(
        &self,
        ctx: &WriteContext<'_>,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Outcome> {
        let (ctx, now) = (&WriteContext { dry_run: options.dry_run, ..*ctx }, self.clock.now());
        self.modify(ctx, (namespace, name), 0, |current| {
            ctx.resource.strategy().check_delete(ctx, &current.value())?;
            decide(ctx.resource, current, options, now)
        })
        .await
    }

    pub(super) async fn delete_collection(
        &self,
        ctx: &WriteContext<'_>,
        r: &ApiRequest,
        which: &ListOptions,
        mut options: DeleteOptions,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Response<Body>> {
        read_body(&mut options, headers, body)?;
        let found = self.select(r, which).await?;
        let mut deleted = Vec::with_capacity(found.objects.len());
        for object in &found.objects {
            let value = object.value();
            let (namespace, name) = (meta(&value, "namespace"), meta(&value, "name"));
            match self.delete_object(ctx, namespace, name, &options).await {
                Ok(outcome) => deleted.push(outcome.object().clone()),
                // Somebody else was faster.
                Err(failure) if failure.code == 404 => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(self.answer_list(r, Found { objects: deleted, metadata: found.metadata }))
    }
}

fn read_body(options: &mut DeleteOptions, headers: &HeaderMap, body: &Bytes) -> Result<()> {
    if body.is_empty() {
        return Ok(());
    }
    let kind = schema::find("", "v1", "DeleteOptions").ok_or_else(Failure::no_such_resource)?;
    let mut parsed = content::parse(headers, body)?;
    // Clients label options with the version of the resource they go to; their form is the same everywhere.
    if let Some(map) = parsed.value.as_object_mut() {
        map.shift_remove("apiVersion");
    }
    let (body, _) = content::decode(kind, parsed, FieldValidation::Ignore)?;
    options.merge_body(&body)
}

/// The Status that says what is gone.
fn gone(resource: &Resource, name: &str, uid: &str) -> Value {
    let mut details = json!({"name": name, "kind": resource.plural, "uid": uid});
    if !resource.group.is_empty() {
        details["group"] = json!(resource.group);
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// Decides the deletion of an object.
pub(super) fn decide(
    resource: &Resource,
    current: &Object,
    options: &DeleteOptions,
    now: Timestamp,
) -> Result<Decision> {
    let current = current.value();
    let (name, strategy) = (meta(&current, "name"), resource.strategy());
    for (word, field, wanted) in
        [("UID", "uid", &options.uid), ("ResourceVersion", "resourceVersion", &options.resource_version)]
    {
        let found = meta(&current, field);
        if let Some(wanted) = wanted.as_ref().filter(|w| *w != found) {
            let why = format!(
                "Precondition failed: {word} in precondition: {wanted}, {word} in object meta: {found}"
            );
            return Err(Failure::conflict(resource, name, &why));
        }
    }
    let mut next = Value::clone(&current);
    hold_for_dependants(&mut next, options.propagation.or_else(|| strategy.default_propagation()));
    let grace = strategy.grace_period(&current, options.grace_period);
    let was_terminating = is_terminating(&current);
    if !was_terminating || grace < current_grace(&current) {
        let at = now + jiff::SignedDuration::from_secs(grace.min(i64::from(u32::MAX) as u64) as i64);
        // A deletion is only ever brought forward.
        let at = time(at);
        let known = meta(&current, "deletionTimestamp");
        if !was_terminating || at.as_str() < known {
            set_meta(&mut next, "deletionTimestamp", at.into());
        }
        set_meta(&mut next, "deletionGracePeriodSeconds", grace.into());
        if let Some(generation) = next["metadata"]["generation"].as_i64().filter(|_| !was_terminating) {
            set_meta(&mut next, "generation", (generation + 1).into());
        }
    }
    strategy.begin_delete(&mut next);
    if may_go(resource, &next) {
        return Ok(Decision::Delete);
    }
    Ok(if next == *current { Decision::Keep } else { Decision::Put(next) })
}

fn current_grace(object: &Value) -> u64 {
    object["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or(0)
}

/// Sets the finalizer by which the garbage collector holds an object until its dependants went or were let go.
fn hold_for_dependants(object: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else { return };
    let mut finalizers: Vec<Value> = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    finalizers.retain(|f| f != FINALIZER_FOREGROUND && f != FINALIZER_ORPHAN);
    match propagation {
        Propagation::Background => {}
        Propagation::Foreground => finalizers.push(FINALIZER_FOREGROUND.into()),
        Propagation::Orphan => finalizers.push(FINALIZER_ORPHAN.into()),
    }
    if finalizers.is_empty() {
        crate::object::remove_meta(object, "finalizers");
    } else {
        set_meta(object, "finalizers", finalizers.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::find;

    fn check(plural: &str, mut object: Value, options: DeleteOptions, expect: &str) {
        let resource = find("", "v1", plural).expect("served");
        object["metadata"]["name"] = "x".into();
        let object = Object::unwritten(object, 5);
        let now: Timestamp = "2026-01-01T00:00:10Z".parse().expect("a time");
        let shown = match decide(resource, &object, &options, now) {
            Ok(Decision::Delete) => "delete".to_owned(),
            Ok(Decision::Keep) => "keep".to_owned(),
            Ok(Decision::Put(next)) => format!(
                "{} {} {}",
                meta(&next, "deletionTimestamp"),
                next["metadata"]["deletionGracePeriodSeconds"],
                next["metadata"]["finalizers"]
            ),
            Err(failure) => failure.to_string(),
        };
        assert_eq!(shown, expect, "{plural} {}", object.value());
    }

    #[test]
    fn deletions() {
        let options = DeleteOptions::default;
        let with = |propagation| DeleteOptions { propagation: Some(propagation), ..options() };
        let graced = |seconds| DeleteOptions { grace_period: Some(seconds), ..options() };
        let bound = || json!({"metadata": {}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 5}});
        let going = || {
            let mut pod = bound();
            pod["metadata"] =
                json!({"deletionTimestamp": "2026-01-01T00:00:12Z", "deletionGracePeriodSeconds": 5});
            pod
        };
        check("configmaps", json!({"metadata": {}}), options(), "delete");
        check(
            "configmaps",
            json!({"metadata": {"finalizers": ["a"]}}),
            options(),
            r#"2026-01-01T00:00:10Z 0 ["a"]"#,
        );
        check(
            "configmaps",
            json!({"metadata": {}}),
            with(Propagation::Orphan),
            r#"2026-01-01T00:00:10Z 0 ["orphan"]"#,
        );
        check(
            "configmaps",
            json!({"metadata": {"finalizers": ["orphan"]}}),
            with(Propagation::Foreground),
            r#"2026-01-01T00:00:10Z 0 ["foregroundDeletion"]"#,
        );
        check(
            "configmaps",
            json!({"metadata": {"finalizers": ["orphan"]}}),
            with(Propagation::Background),
            "delete",
        );
        check("pods", json!({"metadata": {}}), options(), "delete");
        check("pods", bound(), options(), "2026-01-01T00:00:15Z 5 null");
        check("pods", bound(), graced(0), "delete");
        check("pods", going(), options(), "keep");
        check("pods", going(), graced(1), "2026-01-01T00:00:11Z 1 null");
        check("pods", going(), graced(60), "keep");
        check("pods", going(), graced(0), "delete");
        check(
            "namespaces",
            json!({"metadata": {}, "spec": {"finalizers": ["kubernetes"]}}),
            options(),
            "2026-01-01T00:00:10Z 0 null",
        );
        check(
            "pods",
            json!({"metadata": {"uid": "1"}}),
            DeleteOptions { uid: Some("2".into()), ..options() },
            "Operation cannot be fulfilled on pods \"x\": Precondition failed: UID in precondition: 2, UID in object \
             meta: 1",
        );
    }
}
