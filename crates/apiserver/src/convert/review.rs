//! Conversion webhooks: what they are asked, and which answers are taken.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::edit::{list, text};
use crate::object::meta;
use crate::schema::validate_labels;
use crate::server::Inner;
use crate::status::{Failure, Result};
use crate::webhook::Endpoint;
use crate::write::create::uid;

/// How long a webhook may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Versions of ConversionReview that are spoken here.
pub(crate) const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

impl Inner {
    /// Asks a webhook, given as `spec.conversion.webhook`, to convert objects to the version `wanted`; one request for all.
    ///
    /// # Errors
    /// 500 with Kubernetes' words where it cannot be asked, refuses, or answers with other objects than it was given.
    pub(super) async fn review_conversion(
        &self,
        webhook: &Value,
        wanted: &str,
        objects: Vec<Value>,
    ) -> Result<Vec<Value>> {
        let of = objects.first().map(kind_of).unwrap_or_default();
        let fail = |why: String| Failure::new(500, "", format!("conversion webhook for {of} {why}"));
        let version = list(&webhook["conversionReviewVersions"]).iter().map(text);
        let version = version.into_iter().find(|version| REVIEW_VERSIONS.contains(version));
        let version =
            version.ok_or_else(|| Failure::new(500, "", "no supported conversion review versions"))?;
        let id = uid(&mut rand::rng());
        let review = json!({
            "apiVersion": format!("apiextensions.k8s.io/{version}"), "kind": "ConversionReview",
            "request": {"uid": id, "desiredAPIVersion": wanted, "objects": objects},
        });
        let answered = async {
            let endpoint = Endpoint::of(self, &webhook["clientConfig"])?;
            endpoint.call(self, TIMEOUT, &review).await
        };
        let answer = answered.await.map_err(|error| fail(format!("failed: {error}")))?;
        let converted = read(answer, version, &id).map_err(|why| fail(format!("failed: {why}")))?;
        if converted.len() != objects.len() {
            let why = format!("returned {} objects, expected {}", converted.len(), objects.len());
            return Err(fail(why));
        }
        let is_list = objects.len() > 1;
        let pairs = objects.iter().zip(converted).enumerate();
        let taken = pairs.map(|(at, (original, converted))| {
            taken(original, converted, wanted).map_err(|problem| fail(problem.said_of(is_list.then_some(at))))
        });
        taken.collect()
    }
}

/// `stable.example.com/v1, Kind=CronTab`.
fn kind_of(object: &Value) -> String {
    format!("{}, Kind={}", text(&object["apiVersion"]), text(&object["kind"]))
}

/// The objects of an answer.
fn read(mut answer: Value, version: &str, id: &str) -> Result<Vec<Value>, String> {
    let (expected, found) =
        (format!("apiextensions.k8s.io/{version}, Kind=ConversionReview"), kind_of(&answer));
    // Webhooks of the beta need name neither.
    let is_strict = version == "v1";
    if is_strict && found != expected {
        return Err(format!("expected webhook response of {expected}, got {found}"));
    }
    let response = &mut answer["response"];
    if !response.is_object() {
        return Err("no response provided".into());
    }
    if is_strict && text(&response["uid"]) != id {
        return Err(format!("expected response.uid={id:?}, got {:?}", text(&response["uid"])));
    }
    let result = &response["result"];
    match (text(&result["status"]), text(&result["message"])) {
        ("Success", _) => {}
        (status, "") => return Err(format!("response.result.status was '{status}', not 'Success'")),
        (_, message) => return Err(message.to_owned()),
    }
    match response["convertedObjects"].take() {
        Value::Array(converted) => Ok(converted),
        _ => Ok(Vec::new()),
    }
}

/// Why a converted object is not taken.
#[derive(Debug)]
enum Problem {
    Object(String),
    Metadata(String),
}

impl Problem {
    /// The sentence about the object at that place of a list, or about the only one.
    fn said_of(&self, at: Option<usize>) -> String {
        match (self, at) {
            (Self::Object(why), None) => format!("returned invalid object: {why}"),
            (Self::Object(why), Some(at)) => {
                format!("returned invalid converted object at index {at}: {why}")
            }
            (Self::Metadata(why), None) => format!("returned invalid metadata: {why}"),
            (Self::Metadata(why), Some(at)) => {
                format!("returned invalid metadata in object at index {at}: {why}")
            }
        }
    }
}

/// A converted object with the metadata of the original one, of which a webhook may change labels and annotations only.
fn taken(original: &Value, mut converted: Value, wanted: &str) -> Result<Value, Problem> {
    let given = text(&converted["apiVersion"]);
    if given != wanted {
        let why = format!("invalid groupVersion (expected {wanted}, received {given})");
        return Err(Problem::Object(why));
    }
    let (kind, given) = (text(&original["kind"]), text(&converted["kind"]));
    if given != kind {
        return Err(Problem::Object(format!("invalid kind (expected {kind}, received {given})")));
    }
    for (field, word) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let (before, after) = (meta(original, field), meta(&converted, field));
        if before != after {
            return Err(Problem::Object(format!("must have the same {word}: {before} != {after}")));
        }
    }
    let mut metadata = original["metadata"].as_object().cloned().unwrap_or_default();
    let Some(given) = converted["metadata"].as_object() else {
        return Err(Problem::Metadata("missing metadata in converted object".into()));
    };
    for field in ["labels", "annotations"] {
        match given.get(field) {
            None | Some(Value::Null) => _ = metadata.shift_remove(field),
            Some(Value::Object(texts)) => {
                check_texts(field, texts)?;
                metadata.insert(field.to_owned(), Value::Object(texts.clone()));
            }
            Some(_) => {
                return Err(Problem::Metadata(format!("invalid metadata.{field} in converted object")));
            }
        }
    }
    let metadata = Value::Object(metadata);
    let is_changed = ["labels", "annotations"].iter().any(|f| metadata[f] != original["metadata"][f]);
    let errors = if is_changed { validate_labels(&metadata) } else { Vec::new() };
    if !errors.is_empty() {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        return Err(Problem::Metadata(errors.join(", ")));
    }
    if let Some(map) = converted.as_object_mut() {
        map.insert("metadata".into(), metadata);
    }
    Ok(converted)
}

fn check_texts(field: &str, texts: &Map<String, Value>) -> Result<(), Problem> {
    match texts.iter().find(|(_, value)| !value.is_string()) {
        None => Ok(()),
        Some((key, _)) => {
            let why = format!("metadata.{field}[{key}] must be a string in converted object");
            Err(Problem::Metadata(why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(response: Value) -> Value {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": response})
    }

    #[test]
    fn answers_are_read_or_refused() {
        let success = json!({"status": "Success"});
        let rows = [
            (answer(json!({"uid": "1", "result": success, "convertedObjects": [{}]})), "v1", "1 objects"),
            (answer(json!({"uid": "1", "result": success})), "v1", "0 objects"),
            (
                json!({"response": {"uid": "1", "result": success}}),
                "v1",
                "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got , Kind=",
            ),
            (json!({"response": {"result": success, "convertedObjects": [{}, {}]}}), "v1beta1", "2 objects"),
            (answer(json!({"uid": "2", "result": success})), "v1", "expected response.uid=\"1\", got \"2\""),
            (answer(Value::Null), "v1", "no response provided"),
            (answer(json!({"uid": "1"})), "v1", "response.result.status was '', not 'Success'"),
            (answer(json!({"uid": "1", "result": {"status": "Failed", "message": "no"}})), "v1", "no"),
        ];
        for (answer, version, expect) in rows {
            let shown = read(answer.clone(), version, "1");
            let shown = shown.map_or_else(|why| why, |objects| format!("{} objects", objects.len()));
            assert_eq!(shown, expect, "{answer} {version}");
        }
    }

    #[test]
    fn a_webhook_changes_no_more_of_the_metadata_than_labels_and_annotations() {
        let object = |version: &str, kind: &str, metadata: Value| json!({"apiVersion": version, "kind": kind, "metadata": metadata});
        let original =
            object("e/v1", "K", json!({"name": "a", "uid": "1", "labels": {"a": "b"}, "generation": 3}));
        let rows = [
            (
                object("e/v2", "K", json!({"name": "a", "uid": "1", "labels": {"c": "d"}, "generation": 9})),
                r#"{"name":"a","uid":"1","labels":{"c":"d"},"generation":3}"#,
            ),
            (
                object("e/v2", "K", json!({"name": "a", "uid": "1"})),
                r#"{"name":"a","uid":"1","generation":3}"#,
            ),
            (
                object("e/v1", "K", json!({})),
                "returned invalid object: invalid groupVersion (expected e/v2, received e/v1)",
            ),
            (
                object("e/v2", "L", json!({})),
                "returned invalid object: invalid kind (expected K, received L)",
            ),
            (
                object("e/v2", "K", json!({"name": "b", "uid": "1"})),
                "returned invalid object: must have the same name: a != b",
            ),
            (
                object("e/v2", "K", json!({"name": "a", "uid": "2"})),
                "returned invalid object: must have the same UID: 1 != 2",
            ),
            (
                object("e/v2", "K", json!({"name": "a", "uid": "1", "labels": {"x": 1}})),
                "returned invalid metadata: metadata.labels[x] must be a string in converted object",
            ),
            (
                object("e/v2", "K", json!({"name": "a", "uid": "1", "labels": {"/": "1"}})),
                "returned invalid metadata: metadata.labels: Invalid value",
            ),
        ];
        for (converted, expect) in rows {
            let shown = match taken(&original, converted.clone(), "e/v2") {
                Ok(object) => object["metadata"].to_string(),
                Err(problem) => problem.said_of(None),
            };
            assert!(shown.starts_with(expect), "{converted}: {shown}");
        }
    }
}
