//! ConfigMaps.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::edit::text;
use crate::kinds::data::{MAX_DATA, decoded_len, entries, immutable};
use crate::kinds::strategy::Strategy;
use crate::schema::validate::{Errors, Path};
use crate::table::Column;
use crate::table::format::{age, count};

#[derive(Debug)]
pub struct ConfigMap;

impl Strategy for ConfigMap {
    fn validate(&self, object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        let size = entries(object, "data", |v| text(v).len(), errors)
            + entries(object, "binaryData", decoded_len, errors);
        let both = object["binaryData"].as_object().into_iter().flatten();
        for (name, _) in both.filter(|(name, _)| !object["data"][name.as_str()].is_null()) {
            let at = root.field("data");
            errors.invalid_text(&at.key(name), name, "duplicate of key present in binaryData");
        }
        if size > MAX_DATA {
            errors.too_long(&root, MAX_DATA);
        }
        immutable(object, old, &["data", "binaryData"], errors);
    }

    fn columns(&self) -> &[Column] {
        const { &[Column::NAME, Column::integer("Data"), Column::AGE] }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let entries = count(&object["data"]) + count(&object["binaryData"]);
        vec![object["metadata"]["name"].clone(), json!(entries), json!(age(object, now))]
    }
}
