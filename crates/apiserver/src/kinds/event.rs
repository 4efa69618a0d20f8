//! Events of both groups: `events.k8s.io` calls the fields of the core group by other names.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::edit::text;
use crate::kinds::strategy::Strategy;
use crate::object::field_at;
use crate::schema::validate::{Errors, Path};
use crate::table::Column;
use crate::table::format::{number, since, text_or};

/// An Event of the core group, in whose form both are stored.
#[derive(Debug)]
pub struct Event;

impl Strategy for Event {
    fn validate(&self, object: &Value, _old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        let about = root.field("involvedObject");
        let (namespace, own) =
            (text(&object["involvedObject"]["namespace"]), text(&object["metadata"]["namespace"]));
        // Events about what has no namespace are kept in the default one.
        let fits = if namespace.is_empty() { matches!(own, "default" | "") } else { namespace == own };
        if !fits {
            errors.invalid_text(&about.field("namespace"), namespace, "does not match event.namespace");
        }
    }

    fn selectable_fields(&self) -> Vec<&str> {
        vec![
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
        ]
    }

    fn field<'a>(&self, object: &'a Value, path: &str) -> Cow<'a, str> {
        match path {
            "source" => {
                let source = text(&object["source"]["component"]);
                if source.is_empty() { text(&object["reportingComponent"]) } else { source }.into()
            }
            _ => field_at(object, path),
        }
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        cells(object, now)
    }
}

/// An Event of the group `events.k8s.io`, which is another form of one of the core group.
#[derive(Debug)]
pub struct NewEvent;

impl Strategy for NewEvent {
    fn selectable_fields(&self) -> Vec<&str> {
        vec![
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ]
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        cells(object, now)
    }
}

const COLUMNS: &[Column] = &[
    Column::text("Last Seen"),
    Column::text("Type"),
    Column::text("Reason"),
    Column::text("Object"),
    Column::wide("Subobject"),
    Column::wide("Source"),
    Column::text("Message"),
    Column::wide("First Seen"),
    Column::wide("Count"),
    Column::wide("Name"),
];

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let either = |a: &str, b: &str| if object[a].is_null() { &object[b] } else { &object[a] };
    let of_first = either("firstTimestamp", "deprecatedFirstTimestamp");
    let of_last = either("lastTimestamp", "deprecatedLastTimestamp");
    let first = since(if of_first.is_null() { &object["eventTime"] } else { of_first }, now);
    let series = &object["series"];
    let (last, times) = if !series.is_null() {
        (since(&series["lastObservedTime"], now), number(&series["count"]))
    } else {
        let last = if of_last.is_null() { first.clone() } else { since(of_last, now) };
        (last, number(either("count", "deprecatedCount")).max(1))
    };
    let target = either("involvedObject", "regarding");
    let kind = text_or(&target["kind"], "").to_lowercase();
    let about = match text_or(&target["name"], "") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let source = either("source", "deprecatedSource");
    let component =
        text_or(&source["component"], text_or(either("reportingComponent", "reportingController"), ""));
    let component = match text_or(&source["host"], "") {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    };
    vec![
        json!(last),
        json!(text_or(&object["type"], "")),
        json!(text_or(&object["reason"], "")),
        json!(about),
        json!(text_or(&target["fieldPath"], "")),
        json!(component),
        json!(text_or(either("message", "note"), "").trim()),
        json!(first),
        json!(times),
        object["metadata"]["name"].clone(),
    ]
}
