//! Secrets.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::edit::{fill, map_at, text};
use crate::kinds::data::{MAX_DATA, decoded_len, entries, immutable};
use crate::kinds::strategy::Strategy;
use crate::schema::validate::{Errors, Path};
use crate::status::Result;
use crate::table::Column;
use crate::table::format::{age, count};
use crate::write::context::WriteContext;

/// The annotation that names the ServiceAccount of a token.
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

#[derive(Debug)]
pub struct Secret;

impl Strategy for Secret {
    fn is_secret(&self) -> bool {
        true
    }

    fn prepare_for_create(&self, _ctx: &WriteContext<'_>, object: &mut Value) -> Result<()> {
        merge_string_data(object);
        Ok(())
    }

    fn prepare_for_update(&self, _ctx: &WriteContext<'_>, new: &mut Value, _old: &Value) -> Result<()> {
        merge_string_data(new);
        Ok(())
    }

    fn default_object(&self, object: &mut Map<String, Value>) {
        fill(object, "type", "Opaque");
    }

    fn validate(&self, object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        let at = root.field("data");
        if entries(object, "data", decoded_len, errors) > MAX_DATA {
            errors.too_long(&at, MAX_DATA);
        }
        let needed: &[&str] = match text(&object["type"]) {
            "kubernetes.io/dockercfg" => &[".dockercfg"],
            "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
            "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
            "kubernetes.io/tls" => &["tls.crt", "tls.key"],
            "kubernetes.io/service-account-token" => {
                // The token controller fills in the rest.
                if text(&object["metadata"]["annotations"][ACCOUNT_NAME]).is_empty() {
                    errors.required(&root.field("metadata").field("annotations").key(ACCOUNT_NAME), "");
                }
                &[]
            }
            "kubernetes.io/basic-auth" => {
                if object["data"]["username"].is_null() && object["data"]["password"].is_null() {
                    errors.required(&at.key("username"), "");
                    errors.required(&at.key("password"), "");
                }
                &[]
            }
            _ => &[],
        };
        for key in needed.iter().filter(|key| object["data"][**key].is_null()) {
            errors.required(&at.key(key), "");
        }
        if old.is_some_and(|old| old["type"] != object["type"]) {
            errors.invalid(&root.field("type"), &object["type"], "field is immutable");
        }
        immutable(object, old, &["data"], errors);
    }

    fn selectable_fields(&self) -> Vec<&str> {
        vec!["type"]
    }

    fn columns(&self) -> &[Column] {
        const { &[Column::NAME, Column::text("Type"), Column::integer("Data"), Column::AGE] }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (name, entries) = (object["metadata"]["name"].clone(), json!(count(&object["data"])));
        vec![name, object["type"].clone(), entries, json!(age(object, now))]
    }
}

/// `stringData` is another form to write `data` in, and is never read back.
fn merge_string_data(object: &mut Value) {
    let taken = object.as_object_mut().and_then(|map| map.shift_remove("stringData"));
    let Some(Value::Object(texts)) = taken else { return };
    let Some(data) = map_at(object, &["data"]) else { return };
    for (key, value) in texts {
        data.insert(key, STANDARD.encode(text(&value)).into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_data_and_win() {
        for (mut secret, expect) in [
            (json!({"stringData": {"a": "x"}}), json!({"data": {"a": "eA=="}})),
            (
                json!({"data": {"a": "", "b": "eQ=="}, "stringData": {"a": "x"}}),
                json!({"data": {"a": "eA==", "b": "eQ=="}}),
            ),
            (json!({"data": {"a": "eA=="}}), json!({"data": {"a": "eA=="}})),
        ] {
            merge_string_data(&mut secret);
            assert_eq!(secret, expect);
        }
    }
}
