//! Objects as they are kept in memory, and what is read from and written to their metadata.

use std::any::Any;
use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use yado_types::selector::{FieldSelector, LabelSelector};

use crate::edit::{fill, map_at};
use crate::request::ListOptions;
use crate::resource::Resource;
use crate::status::{Failure, Result};

/// One version of an object, kept as the bytes that the store holds.
///
/// The decoded form takes six to ten times the memory of the bytes, so it is kept only while the object is among the
/// most recently written ones (see [`Cache`](crate::cache::Cache)); everybody else decodes when they need it. What
/// selectors look at is extracted once and stays.
#[derive(Debug)]
pub struct Object {
    /// JSON without `metadata.resourceVersion`; shared with the store.
    stored: Bytes,
    /// Where in `stored` the resourceVersion belongs.
    splice: Splice,
    /// The store's revision that wrote it; 0 for an object that was not written (a dry run of a create).
    pub revision: u64,
    decoded: RwLock<Option<Arc<Value>>>,
    facts: OnceLock<Box<Facts>>,
    derived: OnceLock<Box<dyn Any + Send + Sync>>,
}

/// The beginning of every object in the store.
const API_VERSION: &[u8] = b"{\"apiVersion\":\"";

/// The place of the resourceVersion in an object's bytes.
#[derive(Clone, Copy, Debug)]
struct Splice {
    at: u32,
    /// Whether another field of the metadata follows.
    comma: bool,
}

impl Splice {
    fn of(stored: &[u8]) -> Option<Self> {
        const BEFORE: &[u8] = b"\"metadata\":{";
        // Nothing but apiVersion and kind comes before, and their values hold no quote.
        if !stored.starts_with(API_VERSION) {
            return None;
        }
        let head = &stored[..stored.len().min(256)];
        let at = head.windows(BEFORE.len()).position(|w| w == BEFORE)? + BEFORE.len();
        let comma = stored.get(at).is_some_and(|b| *b != b'}');
        Some(Self { at: u32::try_from(at).ok()?, comma })
    }
}

/// Labels and selectable fields of an object.
#[derive(Clone, Debug)]
struct Facts {
    /// [`Selection::fields_hash`] of the fields: those of a custom kind may change while the object stays.
    of: u64,
    labels: Box<[(Box<str>, Box<str>)]>,
    /// Texts of the kind's selectable [`fields`], in their order.
    fields: Box<[Box<str>]>,
}

impl Object {
    /// An object as it lies in the store, which has no resourceVersion in it.
    ///
    /// # Errors
    /// Where the bytes are not JSON.
    pub fn decode(stored: Bytes, revision: u64) -> Result<Self, serde_json::Error> {
        match Splice::of(&stored) {
            Some(splice) => {
                serde_json::from_slice::<IgnoredAny>(&stored)?;
                Ok(Self::assemble(stored, splice, revision, None))
            }
            None => Ok(Self::unwritten(serde_json::from_slice(&stored)?, revision)),
        }
    }

    /// The same where the decoded form is at hand.
    pub fn new(mut value: Value, stored: Bytes, revision: u64) -> Self {
        let Some(splice) = Splice::of(&stored) else { return Self::unwritten(value, revision) };
        set_meta(&mut value, "resourceVersion", revision.to_string().into());
        Self::assemble(stored, splice, revision, Some(value))
    }

    /// The version of a stored object, under the same revision, in another form.
    pub fn converted(mut value: Value, revision: u64) -> Self {
        map_at(&mut value, &["metadata"]);
        let stored = encode_for_store(&mut value);
        Self::new(value, stored, revision)
    }

    /// An object that is not in the store: the outcome of a dry run.
    pub fn unwritten(mut value: Value, revision: u64) -> Self {
        map_at(&mut value, &["metadata"]);
        let mut stored = encode_for_store(&mut value);
        let splice = Splice::of(&stored).unwrap_or_else(|| {
            // Every object that is served has apiVersion and metadata; this is for what a foreign tool wrote.
            _ = value.as_object_mut().map(|object| fill(object, "apiVersion", ""));
            stored = encode_for_store(&mut value);
            Splice::of(&stored).unwrap_or(Splice { at: 1, comma: true })
        });
        Self::assemble(stored, splice, revision, None)
    }

    fn assemble(stored: Bytes, splice: Splice, revision: u64, decoded: Option<Value>) -> Self {
        let decoded = RwLock::new(decoded.map(Arc::new));
        Self { stored, splice, revision, decoded, facts: OnceLock::new(), derived: OnceLock::new() }
    }

    /// The object as it was, under the revision at which it went.
    pub fn at_revision(&self, revision: u64) -> Self {
        Self::assemble(self.stored.clone(), self.splice, revision, None)
    }

    /// The decoded object, with `metadata.resourceVersion` where it has been written.
    pub fn value(&self) -> Arc<Value> {
        if let Some(decoded) = &*self.decoded.read() {
            return decoded.clone();
        }
        // It was JSON when the object was made.
        let mut value: Value = serde_json::from_slice(&self.stored).unwrap_or_default();
        if self.revision != 0 {
            set_meta(&mut value, "resourceVersion", self.revision.to_string().into());
        }
        Arc::new(value)
    }

    /// Its `apiVersion`, the first field of every object.
    pub fn api_version(&self) -> &str {
        // As `Splice::of` has it; the text is part of JSON.
        let rest = self.stored.get(API_VERSION.len()..).unwrap_or_default();
        let end = rest.iter().position(|b| *b == b'"').unwrap_or(rest.len());
        std::str::from_utf8(&rest[..end]).unwrap_or_default()
    }

    /// Gives up the decoded form.
    pub fn forget_value(&self) {
        *self.decoded.write() = None;
    }

    #[cfg(test)]
    pub(crate) fn is_decoded(&self) -> bool {
        self.decoded.read().is_some()
    }

    /// The object as JSON, as every client gets it.
    pub fn json(&self) -> Bytes {
        let mut json = BytesMut::with_capacity(self.json_len());
        self.write_json(&mut json);
        json.freeze()
    }

    /// Appends the object as JSON.
    pub fn write_json(&self, out: &mut BytesMut) {
        let (before, after) = self.stored.split_at(self.splice.at as usize);
        out.put_slice(before);
        if self.revision != 0 {
            out.put_slice(b"\"resourceVersion\":\"");
            out.put_slice(self.revision.to_string().as_bytes());
            out.put_slice(if self.splice.comma { b"\"," } else { b"\"" });
        }
        out.put_slice(after);
    }

    /// The length of [`Object::json`] in bytes.
    pub fn json_len(&self) -> usize {
        let added = match self.revision.checked_ilog10() {
            // `"resourceVersion":"` and the closing quote.
            Some(log) => 20 + log as usize + 1 + usize::from(self.splice.comma),
            None => 0,
        };
        self.stored.len() + added
    }

    /// Bytes of the object in the store.
    pub fn stored_len(&self) -> usize {
        self.stored.len()
    }

    /// A value that is computed from this version once and kept with it. An object has room for one such value:
    /// its kind's own. A second type is computed anew each time.
    pub fn derive<T: Clone + Send + Sync + 'static>(&self, compute: impl Fn(&Value) -> T) -> T {
        let kept = self.derived.get_or_init(|| Box::new(compute(&self.value())));
        kept.downcast_ref::<T>().cloned().unwrap_or_else(|| compute(&self.value()))
    }

    fn facts(&self, selection: &Selection) -> Cow<'_, Facts> {
        let read = || {
            let value = self.value();
            let labels = value["metadata"]["labels"].as_object().into_iter().flatten();
            let labels = labels.filter_map(|(k, v)| Some((k.as_str().into(), v.as_str()?.into())));
            let strategy = selection.resource.strategy();
            let fields = selection.places.iter().map(|path| Box::from(&*strategy.field(&value, path)));
            Facts { of: selection.fields_hash, labels: labels.collect(), fields: fields.collect() }
        };
        let kept = self.facts.get_or_init(|| Box::new(read()));
        if kept.of == selection.fields_hash { Cow::Borrowed(kept) } else { Cow::Owned(read()) }
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
    // Copied into exactly as many bytes as it has: while it is written, a text's buffer grows to up to twice as many, and
    // these are kept as long as the object.
    Bytes::copy_from_slice(&encode(value))
}

/// Sets a field of the metadata, making the metadata where there is none.
pub fn set_meta(value: &mut Value, field: &str, to: Value) {
    if let Some(metadata) = map_at(value, &["metadata"]) {
        metadata.insert(field.to_owned(), to);
    }
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
    resource: Arc<Resource>,
    labels: LabelSelector,
    fields: FieldSelector,
    /// The kind's selectable fields, in the order of their texts in [`Facts`].
    places: Vec<Box<str>>,
    /// A number that tells these fields from others.
    fields_hash: u64,
}

impl Selection {
    /// Refuses fields that the kind does not offer for selection.
    pub fn new(resource: &Arc<Resource>, options: &ListOptions) -> Result<Self> {
        let known = fields(resource);
        for path in options.fields.paths() {
            if !known.contains(&path) {
                return Err(Failure::bad_request(format!(
                    "Unable to find \"{}\" that match label selector \"\", field selector \"{path}\": field label not \
                     supported: {path}",
                    resource.api_version() + ", Resource=" + &resource.plural,
                )));
            }
        }
        let mut hasher = DefaultHasher::new();
        known.hash(&mut hasher);
        Ok(Self {
            fields_hash: hasher.finish(),
            resource: resource.clone(),
            labels: options.labels.clone(),
            fields: options.fields.clone(),
            places: known.into_iter().map(Box::from).collect(),
        })
    }

    /// Every object is meant.
    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The only name that can be meant, if the selection says so.
    pub fn name(&self) -> Option<&str> {
        self.fields.required("metadata.name")
    }

    /// Whether an object at this place of its collection can be meant, by its name and Namespace. Where it cannot, the
    /// object need not be decoded.
    pub fn may_mean(&self, place: &str) -> bool {
        let (namespace, name) = place.split_once('/').unwrap_or(("", place));
        let agrees = |path, text: &str| self.fields.required(path).is_none_or(|required| required == text);
        agrees("metadata.name", name) && agrees("metadata.namespace", namespace)
    }

    /// Whether an object is meant.
    pub fn matches(&self, object: &Object) -> bool {
        if self.is_everything() {
            return true;
        }
        let facts = object.facts(self);
        let label = |key: &str| facts.labels.iter().find(|(k, _)| **k == *key).map(|(_, v)| &**v);
        let field = |path: &str| {
            let at = self.places.iter().position(|known| **known == *path);
            Cow::Borrowed(at.map_or("", |at| &*facts.fields[at]))
        };
        (self.labels.is_empty() || self.labels.matches_with(label))
            && (self.fields.is_empty() || self.fields.matches_with(field))
    }
}

/// Fields by which objects of a kind can be selected.
fn fields(resource: &Resource) -> Vec<&str> {
    let mut fields = vec!["metadata.name", "metadata.namespace"];
    fields.extend(resource.strategy().selectable_fields());
    fields
}

/// The text at a path like `status.phase`; empty where there is none.
pub fn field_at<'a>(object: &'a Value, path: &str) -> Cow<'a, str> {
    let found = path.split('.').try_fold(object, |value, key| value.get(key));
    match found {
        Some(Value::String(text)) => text.as_str().into(),
        None | Some(Value::Null) => "".into(),
        Some(other) => other.to_string().into(),
    }
}

/// One change of one object, as every watcher of its collection sees it.
#[derive(Debug)]
pub struct Change {
    /// The object's place in its collection: `NAMESPACE/NAME`, or `NAME` where there are no Namespaces.
    place: Box<str>,
    /// The revision that made it.
    pub revision: u64,
    /// The object after it; the object as it was, under the new revision, where it went.
    pub object: Arc<Object>,
    /// The object before it.
    pub previous: Option<Arc<Object>>,
    /// It went.
    pub deleted: bool,
    frames: Mutex<[Option<Bytes>; 3]>,
}

/// The type of a watch event.
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
        place: &str,
        revision: u64,
        object: Arc<Object>,
        previous: Option<Arc<Object>>,
        deleted: bool,
    ) -> Self {
        Self { place: place.into(), revision, object, previous, deleted, frames: Default::default() }
    }

    /// The object's place in its collection.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The Namespace of the object; empty where its kind has none.
    pub fn namespace(&self) -> &str {
        self.place.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The event that a watcher with this selection gets, if any.
    pub fn event(&self, selection: &Selection) -> Option<EventType> {
        if selection.is_everything() {
            return Some(match (&self.previous, self.deleted) {
                (_, true) => EventType::Deleted,
                (None, _) => EventType::Added,
                (Some(_), _) => EventType::Modified,
            });
        }
        if !selection.may_mean(&self.place) {
            return None;
        }
        let before = self.previous.as_ref().is_some_and(|p| selection.matches(p));
        let after = !self.deleted && selection.matches(&self.object);
        match (before, after) {
            (false, false) => None,
            (false, true) => Some(EventType::Added),
            (true, true) => Some(EventType::Modified),
            (true, false) => Some(EventType::Deleted),
        }
    }

    /// The object that an event of this type shows: one that left the selection is shown as it was before.
    pub fn shown(&self, event: EventType) -> Arc<Object> {
        match (&self.previous, event) {
            (Some(previous), EventType::Deleted) if !self.deleted => {
                Arc::new(previous.at_revision(self.revision))
            }
            _ => self.object.clone(),
        }
    }

    /// The event as a line of a watch; made once and shared by all watchers that read it while it is new.
    pub fn frame(&self, event: EventType) -> Bytes {
        let make = || frame(event.name(), &self.shown(event).json());
        self.frames.lock()[event as usize].get_or_insert_with(make).clone()
    }

    /// Gives up the lines: a watcher that comes to this change late makes its own.
    pub fn forget_frames(&self) {
        *self.frames.lock() = Default::default();
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
            json!({"apiVersion": "v1", "kind": "ConfigMap"}),
        ];
        for mut value in rows {
            let stored = encode_for_store(&mut value);
            for revision in [7, 10, 99_999] {
                let read = Object::decode(stored.clone(), revision).expect("JSON");
                let written = Object::new(value.clone(), stored.clone(), revision);
                for object in [&read, &written, &read.at_revision(revision)] {
                    let json = object.json();
                    assert_eq!(json.len(), object.json_len(), "{value}");
                    assert_eq!(serde_json::from_slice::<Value>(&json).expect("JSON"), *object.value());
                    assert_eq!(meta(&object.value(), "resourceVersion"), revision.to_string());
                }
            }
        }
    }

    #[test]
    fn what_was_not_written_has_no_resource_version() {
        let object =
            Object::unwritten(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}), 0);
        assert_eq!(object.json(), r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}"#);
        assert_eq!(object.json_len(), object.json().len());
        assert_eq!(object.value()["metadata"], json!({"name": "a"}));
    }

    #[test]
    fn a_selection_means_the_same_of_a_decoded_and_of_a_forgotten_object() {
        let pods = crate::resource::find("", "v1", "pods").expect("served");
        let mut value = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "n", "labels": {"app": "web"}},
            "spec": {"nodeName": "node-1", "hostNetwork": true}, "status": {"phase": "Running"},
        });
        let stored = encode_for_store(&mut value);
        for (labels, fields, expect) in [
            ("", "", true),
            ("app=web", "", true),
            ("app!=web", "", false),
            ("!other", "", true),
            ("", "spec.nodeName=node-1", true),
            ("", "spec.nodeName=", false),
            ("app=web", "status.phase!=Running", false),
            ("", "spec.hostNetwork=true,metadata.namespace=n", true),
        ] {
            let options = ListOptions {
                labels: LabelSelector::parse(labels).expect(labels),
                fields: FieldSelector::parse(fields).expect(fields),
                ..ListOptions::default()
            };
            let selection = Selection::new(pods, &options).expect("offered");
            assert!(selection.may_mean("n/a"), "{labels} {fields}");
            let object = Object::new(value.clone(), stored.clone(), 3);
            assert_eq!(selection.matches(&object), expect, "{labels} {fields}");
            object.forget_value();
            assert_eq!(selection.matches(&object), expect, "{labels} {fields}");
            let read = Object::decode(stored.clone(), 3).expect("JSON");
            assert_eq!(selection.matches(&read), expect, "{labels} {fields}");
        }
    }

    #[test]
    fn a_place_decides_selections_by_name() {
        let pods = crate::resource::find("", "v1", "pods").expect("served");
        for (fields, place, expect) in [
            ("", "n/a", true),
            ("metadata.name=a", "n/a", true),
            ("metadata.name=a", "n/b", false),
            ("metadata.name=a", "a", true),
            ("metadata.name=a,metadata.namespace=n", "n/a", true),
            ("metadata.name=a,metadata.namespace=m", "n/a", false),
            ("metadata.namespace=", "a", true),
            ("metadata.name!=a", "n/a", true),
            ("status.phase=Running", "n/a", true),
        ] {
            let fields_of = FieldSelector::parse(fields).expect(fields);
            let options = ListOptions { fields: fields_of, ..ListOptions::default() };
            let selection = Selection::new(pods, &options).expect("offered");
            assert_eq!(selection.may_mean(place), expect, "{fields} {place}");
        }
    }
}
