//! A Secret's `stringData` is a way to write `data`, and is never read back.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

pub(super) fn merge_string_data(object: &mut Value) {
    let taken = object.as_object_mut().and_then(|map| map.shift_remove("stringData"));
    let Some(Value::Object(texts)) = taken else { return };
    if !object["data"].is_object() {
        object["data"] = json!({});
    }
    for (key, text) in texts {
        object["data"][key] = STANDARD.encode(text.as_str().unwrap_or_default()).into();
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
