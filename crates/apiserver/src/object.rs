//! Objects as they are kept in memory, and what is read from and written to their metadata.

use std::borrow::Cow;
use std::sync::OnceLock;

use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use yado_types::selector::{FieldSelector, LabelSelector};

use crate::request::ListOptions;
use crate::resource::Resource;
use crate::status::{Failure, Result};

/// One version of an object: decoded for whoever looks into it, and as the bytes that every reader gets.
#[derive(Debug)]
pub struct Object {
    /// With `metadata.resourceVersion`.
    pub value: Value,
    /// `value` as JSON; shared by every answer and event that shows this version.
    pub json: Bytes,
    /// The store's revision that wrote it.
    pub revision: u64,
}

impl Object {
    /// Reads an object as it lies in the store, which has no resourceVersion in it.
    pub fn decode(stored: &[u8], revision: u64) -> Result<Self, serde_json::Error> {
        Ok(Self::new(serde_json::from_slice(stored)?, stored, revision))
    }

    /// The same where the decoded form is at hand.
    pub fn new(mut value: Value, stored: &[u8], revision: u64) -> Self {
        set_meta(&mut value, "resourceVersion", revision.to_string().into());
        let json = splice_revision(stored, revision).unwrap_or_else(|| encode(&value));
        Self { value, json, revision }
    }

    /// The object as it was, under the revision at which it went.
    pub fn at_revision(&self, revision: u64) -> Self {
        let mut value = self.value.clone();
        set_meta(&mut value, "resourceVersion", revision.to_string().into());
        let json = encode(&value);
        Self { value, json, revision }
    }

    /// Its metadata.
    pub fn meta(&self) -> &Value {
        &self.value["metadata"]
    }
}

/// JSON of a value.
pub fn encode(value: &Value) -> Bytes {
    // Writing a Value cannot fail: its keys are strings and memory does not refuse.
    Bytes::from(serde_json::to_vec(value).unwrap_or_default())
}

/// The bytes of an object for the store: apiVersion, kind and metadata first, so that a resourceVersion can be put in
/// later without decoding.
pub fn encode_for_store(value: &mut Value) -> Bytes {
    if let Some(map) = value.as_object_mut() {
        let mut ordered = Map::with_capacity(map.len());
        for key in ["apiVersion", "kind", "metadata"] {
            if let Some(v) = map.shift_remove(key) {
                ordered.insert(key.into(), v);
            }
        }
        ordered.append(map);
        *map = ordered;
        if let Some(meta) = map.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.shift_remove("resourceVersion");
        }
    }
    encode(value)
}

fn splice_revision(stored: &[u8], revision: u64) -> Option<Bytes> {
    const BEFORE: &[u8] = b"\"metadata\":{";
    // Nothing but apiVersion and kind comes before, and their values hold no quote.
    if !stored.starts_with(b"{\"apiVersion\":\"") {
        return None;
    }
    let head = &stored[..stored.len().min(256)];
    let at = head.windows(BEFORE.len()).position(|w| w == BEFORE)? + BEFORE.len();
    let comma = stored.get(at).is_some_and(|b| *b != b'}');
    let mut json = BytesMut::with_capacity(stored.len() + 48);
    json.put_slice(&stored[..at]);
    json.put_slice(format!("\"resourceVersion\":\"{revision}\"{}", if comma { "," } else { "" }).as_bytes());
    json.put_slice(&stored[at..]);
    Some(json.freeze())
}

/// Sets a field of the metadata, making the metadata where there is none.
pub fn set_meta(value: &mut Value, field: &str, to: Value) {
    if !value["metadata"].is_object() {
        value["metadata"] = json!({});
    }
    value["metadata"][field] = to;
}

/// Removes a field of the metadata.
pub fn remove_meta(value: &mut Value, field: &str) -> Option<Value> {
    value.get_mut("metadata")?.as_object_mut()?.shift_remove(field)
}

/// A text of the metadata; empty where it is absent.
pub fn meta<'a>(value: &'a Value, field: &str) -> &'a str {
    value["metadata"][field].as_str().unwrap_or_default()
}

/// Its deletion was asked for.
pub fn is_terminating(value: &Value) -> bool {
    value["metadata"]["deletionTimestamp"].is_string()
}

/// It has finalizers.
pub fn has_finalizers(value: &Value) -> bool {
    value["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty())
}

/// A moment as Kubernetes writes it: seconds, UTC.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The part of an object that `as=PartialObjectMetadata` asks for.
pub fn metadata_only(value: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": value["metadata"]})
}

/// Which objects of a collection a request means.
#[derive(Clone, Debug)]
pub struct Selection {
    resource: &'static Resource,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    /// Refuses fields that the kind does not offer for selection.
    pub fn new(resource: &'static Resource, options: &ListOptions) -> Result<Self> {
        let resource = resource.stored();
        for path in options.fields.paths() {
            if !fields(resource).contains(&path) {
                return Err(Failure::bad_request(format!(
                    "Unable to find \"{}\" that match label selector \"\", field selector \"{path}\": field label not \
                     supported: {path}",
                    resource.api_version() + ", Resource=" + resource.plural,
                )));
            }
        }
        Ok(Self { resource, labels: options.labels.clone(), fields: options.fields.clone() })
    }

    /// Every object is meant.
    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The only name that can be meant, if the selection says so.
    pub fn name(&self) -> Option<&str> {
        self.fields.required("metadata.name")
    }

    /// Whether an object is meant.
    pub fn matches(&self, value: &Value) -> bool {
        let labels = &value["metadata"]["labels"];
        (self.labels.is_empty() || self.labels.matches_with(|key| labels[key].as_str()))
            && (self.fields.is_empty() || self.fields.matches_with(|path| field(self.resource, value, path)))
    }
}

/// Fields by which objects of a kind can be selected.
fn fields(resource: &Resource) -> &'static [&'static str] {
    match resource.kind {
        "Pod" => &[
            "metadata.name",
            "metadata.namespace",
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        "Event" => &[
            "metadata.name",
            "metadata.namespace",
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        "Secret" => &["metadata.name", "metadata.namespace", "type"],
        "Service" => &["metadata.name", "metadata.namespace", "spec.clusterIP", "spec.type"],
        "Namespace" => &["metadata.name", "metadata.namespace", "status.phase"],
        "Node" => &["metadata.name", "metadata.namespace", "spec.unschedulable"],
        "ReplicaSet" | "ReplicationController" => &["metadata.name", "metadata.namespace", "status.replicas"],
        "Job" => &["metadata.name", "metadata.namespace", "status.successful"],
        _ => &["metadata.name", "metadata.namespace"],
    }
}

fn field<'a>(resource: &Resource, value: &'a Value, path: &str) -> Cow<'a, str> {
    match (resource.kind, path) {
        ("Event", "source") => {
            let source = value["source"]["component"].as_str().filter(|s| !s.is_empty());
            return source.or(value["reportingComponent"].as_str()).unwrap_or_default().into();
        }
        ("Pod", "status.podIPs") => return value["status"]["podIP"].as_str().unwrap_or_default().into(),
        ("Pod", "spec.hostNetwork") | ("Node", "spec.unschedulable") => {
            let last = path.rsplit('.').next().unwrap_or_default();
            return value["spec"][last].as_bool().unwrap_or(false).to_string().into();
        }
        _ => {}
    }
    let found = path.split('.').try_fold(value, |v, word| v.get(word));
    match found {
        Some(Value::String(s)) => s.as_str().into(),
        None | Some(Value::Null) => "".into(),
        Some(other) => other.to_string().into(),
    }
}

/// One change of one object, as every watcher of its collection sees it.
#[derive(Debug)]
pub struct Change {
    /// The revision that made it.
    pub revision: u64,
    /// The object after it; the object as it was, under the new revision, where it went.
    pub object: std::sync::Arc<Object>,
    /// The object before it.
    pub previous: Option<std::sync::Arc<Object>>,
    /// It went.
    pub deleted: bool,
    frames: [OnceLock<Bytes>; 3],
}

/// What an event says of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// It is new to the watcher.
    Added,
    /// It was changed.
    Modified,
    /// It is gone, or no longer meant by the watcher's selection.
    Deleted,
}

impl EventType {
    /// The word in events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

impl Change {
    /// A change.
    pub fn new(
        revision: u64,
        object: std::sync::Arc<Object>,
        previous: Option<std::sync::Arc<Object>>,
        deleted: bool,
    ) -> Self {
        Self { revision, object, previous, deleted, frames: Default::default() }
    }

    /// What a watcher with this selection is told, if anything.
    pub fn event(&self, selection: &Selection) -> Option<EventType> {
        if selection.is_everything() {
            return Some(match (&self.previous, self.deleted) {
                (_, true) => EventType::Deleted,
                (None, _) => EventType::Added,
                (Some(_), _) => EventType::Modified,
            });
        }
        let before = self.previous.as_ref().is_some_and(|p| selection.matches(&p.value));
        let after = !self.deleted && selection.matches(&self.object.value);
        match (before, after) {
            (false, false) => None,
            (false, true) => Some(EventType::Added),
            (true, true) => Some(EventType::Modified),
            (true, false) => Some(EventType::Deleted),
        }
    }

    /// The object that an event of this type shows: one that left the selection is shown as it was before.
    pub fn shown(&self, event: EventType) -> Cow<'_, Object> {
        match (&self.previous, event) {
            (Some(previous), EventType::Deleted) if !self.deleted => {
                Cow::Owned(previous.at_revision(self.revision))
            }
            _ => Cow::Borrowed(&*self.object),
        }
    }

    /// The event as a line of a watch; made once and shared by all watchers.
    pub fn frame(&self, event: EventType) -> Bytes {
        self.frames[event as usize].get_or_init(|| frame(event.name(), &self.shown(event).json)).clone()
    }
}

impl Clone for Object {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), json: self.json.clone(), revision: self.revision }
    }
}

/// A line of a watch.
pub fn frame(event: &str, object: &[u8]) -> Bytes {
    let mut line = BytesMut::with_capacity(object.len() + 40);
    line.put_slice(b"{\"type\":\"");
    line.put_slice(event.as_bytes());
    line.put_slice(b"\",\"object\":");
    line.put_slice(object);
    line.put_slice(b"}\n");
    line.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_put_in_without_decoding() {
        let rows = [
            json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a", "resourceVersion": "3"}, "data": {}}),
            json!({"apiVersion": "v1", "data": {"x": "\"metadata\":{"}, "metadata": {}, "kind": "ConfigMap"}),
            json!({"data": {"metadata": {"x": 1}}, "metadata": {"name": "é"}}),
        ];
        for mut value in rows {
            let stored = encode_for_store(&mut value);
            let object = Object::decode(&stored, 7).expect("JSON");
            assert_eq!(serde_json::from_slice::<Value>(&object.json).expect("JSON"), object.value);
            assert_eq!(meta(&object.value, "resourceVersion"), "7");
        }
    }
}
