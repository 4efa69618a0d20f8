//! CustomResourceDefinitions: which of them are served, under which names, and what becomes of their objects at the end.
//!
//! ```text
//! [CustomResourceDefinition] -> names accepted? -> conditions, acceptedNames
//!                                             `-> registry of kinds
//!          deleted -> its objects are deleted -> its finalizer is removed
//! ```
//!
//! The deciding is pure; one loop watches the definitions, writes their status and keeps the registry.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::edit::text;
use crate::object::{Object, is_terminating, meta, time};
use crate::request::DeleteOptions;
use crate::resource::{self, Resource};
use crate::schema::kinds_of;
use crate::server::Inner;
use crate::status::{Failure, Result};
use crate::write::Decision;
use crate::write::context::{Operation, WriteContext};

/// The finalizer by which a definition waits until its objects are gone.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
/// Until the next attempt at what failed.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Serves what is established already, before the first request comes.
pub(crate) fn serve_established(server: &Inner) -> Result<Served> {
    let mut served = Served::default();
    served.publish(server, &all(server)?);
    Ok(served)
}

/// Keeps the registry in step with the definitions until the server ends.
pub(crate) async fn run(server: Arc<Inner>, mut served: Served) {
    let Ok(collection) = definitions().and_then(|definitions| server.collection(definitions)) else { return };
    let mut changed = collection.subscribe();
    loop {
        changed.borrow_and_update();
        let done = served.reconcile(&server).await;
        if let Err(failure) = &done {
            tracing::warn!(%failure, "CustomResourceDefinitions are not up to date; the next attempt follows");
        }
        // Objects of a definition that is being deleted may have finalizers of their own: they go without a change here.
        let waits = done.is_err() || served.is_ending;
        tokio::select! {
            () = server.stop.cancelled() => return,
            ended = changed.changed() => if ended.is_err() { return },
            () = server.clock.sleep(RETRY_DELAY), if waits => {}
        }
    }
}

fn definitions() -> Result<&'static Arc<Resource>> {
    resource::find("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        .ok_or_else(Failure::no_such_resource)
}

/// All definitions.
fn all(server: &Inner) -> Result<Vec<Arc<Object>>> {
    Ok(server.collection(definitions()?)?.list("", None, 0, |_| true).objects)
}

/// Properties of a definition that each pass over all definitions needs, read once from each version: definitions are
/// large, and there may be hundreds of them.
#[derive(Clone)]
struct Facts {
    name: Arc<str>,
    uid: Arc<str>,
    group: Arc<str>,
    /// The names that it has.
    accepted: Arc<Value>,
    has_conflict: bool,
    is_established: bool,
    is_terminating: bool,
}

impl Facts {
    fn of(definition: &Value) -> Self {
        Self {
            name: meta(definition, "name").into(),
            uid: meta(definition, "uid").into(),
            group: text(&definition["spec"]["group"]).into(),
            accepted: Arc::new(definition["status"]["acceptedNames"].clone()),
            has_conflict: !is_true(definition, "NamesAccepted"),
            is_established: is_true(definition, "Established"),
            is_terminating: is_terminating(definition),
        }
    }
}

/// The resources that are served for each definition.
#[derive(Default)]
pub(crate) struct Served {
    /// By the definition's name, with the revision of the object that they were made of.
    by_definition: BTreeMap<Arc<str>, (u64, Vec<Arc<Resource>>)>,
    /// Revisions of definitions, by name, whose status was found to be up to date.
    settled: BTreeMap<Arc<str>, u64>,
    /// A definition waits for its objects to go.
    is_ending: bool,
}

impl Served {
    async fn reconcile(&mut self, server: &Inner) -> Result<()> {
        self.write_statuses(server).await?;
        let present = all(server)?;
        self.publish(server, &present);
        self.is_ending = false;
        for object in present.iter().filter(|object| object.derive(Facts::of).is_terminating) {
            self.is_ending |= !end(server, &object.value()).await?;
        }
        Ok(())
    }

    /// Brings the status of what has changed up to date. Names that others hold may have become free, so those are tried
    /// again each time; names that were accepted nobody else can take.
    async fn write_statuses(&mut self, server: &Inner) -> Result<()> {
        let now = time(server.clock.now());
        let ctx = WriteContext::internal(server, definitions()?, Operation::Update);
        let mut settled = BTreeMap::new();
        for object in all(server)? {
            let own = object.derive(Facts::of);
            if !own.has_conflict && self.settled.get(&own.name) == Some(&object.revision) {
                settled.insert(own.name, object.revision);
                continue;
            }
            let others: Vec<Facts> = all(server)?.iter().map(|other| other.derive(Facts::of)).collect();
            let rivals = others.iter().filter(|other| other.group == own.group && other.uid != own.uid);
            let rivals: Vec<&Value> = rivals.map(|other| &*other.accepted).collect();
            let decide = |current: &Object| {
                let current = current.value();
                let next = with_status(&current, &rivals, &now);
                Ok(if next == *current { Decision::Keep } else { Decision::Put(next) })
            };
            match server.modify(&ctx, ("", &own.name), 0, decide).await {
                Ok(outcome) => _ = settled.insert(own.name, outcome.object().revision),
                Err(failure) if failure.code == 404 => {}
                Err(failure) => return Err(failure),
            }
        }
        self.settled = settled;
        Ok(())
    }

    /// Makes the registry what the definitions say.
    fn publish(&mut self, server: &Inner, present: &[Arc<Object>]) {
        let mut next = BTreeMap::new();
        for object in present {
            let Facts { name, is_established: true, .. } = object.derive(Facts::of) else { continue };
            let resources = match self.by_definition.remove(&name) {
                Some((revision, resources)) if revision == object.revision => resources,
                _ => {
                    let kinds = kinds_of(&object.value());
                    kinds.into_iter().map(|kind| Arc::new(Resource::of(Arc::new(kind)))).collect()
                }
            };
            next.insert(name, (object.revision, resources));
        }
        self.by_definition = next;
        server.registry.serve(self.by_definition.values().flat_map(|(_, resources)| resources).cloned());
    }
}

/// Deletes the objects of a definition; `true` once none is left and the definition may go.
async fn end(server: &Inner, definition: &Value) -> Result<bool> {
    if !has_finalizer(definition) {
        return Ok(true);
    }
    let kind = kinds_of(&with_storage_version_only(definition)).into_iter().next();
    let mut left = 0;
    if let Some(kind) = kind.filter(|_| is_true(definition, "Established")) {
        let resource = Resource::of(Arc::new(kind));
        for object in server.collection(&resource)?.list("", None, 0, |_| true).objects {
            let value = object.value();
            let (namespace, name) = (meta(&value, "namespace"), meta(&value, "name"));
            let ctx = WriteContext::internal(server, &resource, Operation::Delete);
            match server.delete_object(&ctx, namespace, name, &DeleteOptions::default()).await {
                Ok(_) => {}
                Err(failure) if failure.code == 404 => {}
                Err(failure) => return Err(failure),
            }
        }
        left = server.collection(&resource)?.list("", None, 0, |_| true).objects.len();
    }
    if left > 0 {
        return Ok(false);
    }
    let name = meta(definition, "name");
    let ctx = WriteContext::internal(server, definitions()?, Operation::Update);
    let removed = server.modify(&ctx, ("", name), 0, |current| {
        let mut next = Value::clone(&current.value());
        if let Some(finalizers) = next["metadata"]["finalizers"].as_array_mut() {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        let is_free = next["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty);
        Ok(if is_free { Decision::Delete } else { Decision::Put(next) })
    });
    match removed.await {
        Ok(_) => Ok(true),
        Err(failure) if failure.code == 404 => Ok(true),
        Err(failure) => Err(failure),
    }
}

/// A definition as if it had its storage version only, and that were served. By it, objects are deleted as they lie in the
/// store: a conversion webhook may be gone already.
fn with_storage_version_only(definition: &Value) -> Value {
    let mut definition = definition.clone();
    if let Some(versions) = definition["spec"]["versions"].as_array_mut() {
        versions.retain(|version| version["storage"] == true);
        for version in versions.iter_mut().filter_map(Value::as_object_mut) {
            version.insert("served".into(), true.into());
        }
    }
    definition
}

fn has_finalizer(definition: &Value) -> bool {
    definition["metadata"]["finalizers"].as_array().is_some_and(|f| f.iter().any(|f| f == FINALIZER))
}

/// Whether a condition of a definition holds.
pub(crate) fn is_true(definition: &Value, condition: &str) -> bool {
    let conditions = definition["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == condition && c["status"] == "True")
}

/// A definition with its names accepted or not; `rivals` are the names that others of its group have.
fn with_status(definition: &Value, rivals: &[&Value], now: &str) -> Value {
    let mut next = definition.clone();
    let spec = &definition["spec"];
    let (accepted, conflict) = accept(&spec["names"], &definition["status"]["acceptedNames"], rivals);
    let mut status = definition["status"].as_object().cloned().unwrap_or_default();
    status.insert("acceptedNames".into(), accepted);
    let mut stored: Vec<Value> =
        status.get("storedVersions").and_then(Value::as_array).cloned().unwrap_or_default();
    let versions = spec["versions"].as_array().into_iter().flatten();
    for version in versions.filter(|v| v["storage"] == true) {
        if !stored.contains(&version["name"]) {
            stored.push(version["name"].clone());
        }
    }
    status.insert("storedVersions".into(), stored.into());
    let generation = &definition["metadata"]["generation"];
    let mut conditions = Conditions { list: definition["status"]["conditions"].clone(), now, generation };
    let names = match &conflict {
        None => ("True", "NoConflicts", "no conflicts found"),
        Some((reason, message)) => ("False", *reason, message.as_str()),
    };
    conditions.set("NamesAccepted", names);
    // What was established once stays so: its objects are served until it goes.
    let established = is_true(definition, "Established");
    match (established || conflict.is_none(), conflict.is_some()) {
        (true, _) => {
            let known = "the initial names have been accepted";
            conditions.set("Established", ("True", "InitialNamesAccepted", known));
        }
        (false, _) => conditions.set("Established", ("False", "NotAccepted", "not all names are accepted")),
    }
    if is_terminating(definition) {
        let message = "CustomResource deletion is in progress";
        conditions.set("Terminating", ("True", "InstanceDeletionInProgress", message));
    }
    status.insert("conditions".into(), conditions.list);
    if let Some(next) = next.as_object_mut() {
        next.insert("status".into(), status.into());
    }
    next
}

/// The names that a definition gets: those it asks for, but for what others of its group have; and why it does not get
/// all of them.
fn accept(wanted: &Value, present: &Value, rivals: &[&Value]) -> (Value, Option<(&'static str, String)>) {
    let names_of = |names: &Value| -> Vec<String> {
        let short = names["shortNames"].as_array().into_iter().flatten();
        let single = [&names["plural"], &names["singular"]];
        single.into_iter().chain(short).filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let kinds_of = |names: &Value| -> Vec<String> {
        [&names["kind"], &names["listKind"]]
            .into_iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let taken: Vec<String> = rivals.iter().flat_map(|names| names_of(names)).collect();
    let taken_kinds: Vec<String> = rivals.iter().flat_map(|names| kinds_of(names)).collect();
    let mut accepted = present.as_object().cloned().unwrap_or_default();
    let mut conflict = None;
    for (field, reason, taken) in [
        ("plural", "PluralConflict", &taken),
        ("singular", "SingularConflict", &taken),
        ("kind", "KindConflict", &taken_kinds),
        ("listKind", "ListKindConflict", &taken_kinds),
    ] {
        let Some(name) = wanted[field].as_str() else { continue };
        match taken.iter().any(|other| other == name) {
            false => _ = accepted.insert(field.into(), name.into()),
            true => conflict = conflict.or_else(|| Some((reason, format!("\"{name}\" is already in use")))),
        }
    }
    let short: Vec<&str> =
        wanted["shortNames"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    match short.iter().find(|name| taken.iter().any(|other| other == *name)) {
        Some(name) => {
            let message = format!("\"{name}\" is already in use");
            conflict = conflict.or(Some(("ShortNamesConflict", message)));
        }
        None if short.is_empty() => _ = accepted.shift_remove("shortNames"),
        None => _ = accepted.insert("shortNames".into(), json!(short)),
    }
    match &wanted["categories"] {
        Value::Null => _ = accepted.shift_remove("categories"),
        categories => _ = accepted.insert("categories".into(), categories.clone()),
    }
    (accepted.into(), conflict)
}

/// Conditions that are being brought up to date.
struct Conditions<'a> {
    list: Value,
    now: &'a str,
    generation: &'a Value,
}

impl Conditions<'_> {
    /// Sets a condition's status, reason and message. The time of its last transition stays where the status does.
    fn set(&mut self, name: &str, (status, reason, message): (&str, &str, &str)) {
        let mut list = self.list.as_array().cloned().unwrap_or_default();
        let present = list.iter_mut().find(|c| c["type"] == name);
        let since =
            present.as_ref().filter(|c| c["status"] == status).map(|c| c["lastTransitionTime"].clone());
        let condition = json!({
            "lastTransitionTime": since.unwrap_or_else(|| self.now.into()), "message": message,
            "observedGeneration": self.generation, "reason": reason, "status": status, "type": name,
        });
        match present {
            Some(present) => *present = condition,
            None => list.push(condition),
        }
        self.list = list.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(uid: &str, plural: &str, kind: &str, short: &[&str]) -> Value {
        json!({
            "metadata": {"name": format!("{plural}.example.com"), "uid": uid, "generation": 1},
            "spec": {
                "group": "example.com",
                "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind,
                    "listKind": format!("{kind}List"), "shortNames": short},
                "versions": [{"name": "v1", "served": true, "storage": true}],
            },
        })
    }

    #[test]
    fn names_are_accepted_once_in_a_group() {
        let first = with_status(&definition("1", "widgets", "Widget", &["w"]), &[], "now");
        for (second, expect) in [
            (definition("2", "gadgets", "Gadget", &["g"]), "NoConflicts True"),
            (definition("2", "widgets", "Gadget", &["g"]), "PluralConflict False"),
            (definition("2", "gadgets", "Widget", &["g"]), "SingularConflict False"),
            (definition("2", "gadgets", "Gadget", &["w"]), "ShortNamesConflict False"),
        ] {
            let rivals = [&first["status"]["acceptedNames"]];
            let status = with_status(&second, &rivals, "now")["status"].clone();
            let established = &status["conditions"][1];
            let reason = status["conditions"][0]["reason"].as_str().unwrap_or_default();
            let shown = format!("{reason} {}", established["status"].as_str().unwrap_or_default());
            assert_eq!(shown, expect, "{second}");
        }
        assert_eq!(first["status"]["storedVersions"], json!(["v1"]));
        assert_eq!(first["status"]["acceptedNames"]["shortNames"], json!(["w"]));
        // Nothing changes the second time.
        assert_eq!(with_status(&first, &[], "later"), first);
    }
}
