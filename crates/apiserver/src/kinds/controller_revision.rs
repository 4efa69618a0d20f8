//! ControllerRevisions.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::edit::list;
use crate::kinds::strategy::Strategy;
use crate::schema::validate::{Errors, Path};
use crate::table::Column;
use crate::table::format::{age, number, text_or};

#[derive(Debug)]
pub struct ControllerRevision;

impl Strategy for ControllerRevision {
    fn validate(&self, object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        errors.at_least(&root.field("revision"), &object["revision"], 0);
        if old.is_some_and(|old| old["data"] != object["data"]) {
            errors.invalid(&root.field("data"), &object["data"], "field is immutable");
        }
    }

    fn columns(&self) -> &[Column] {
        const { &[Column::NAME, Column::text("Controller"), Column::integer("Revision"), Column::AGE] }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let revision = json!(number(&object["revision"]));
        vec![object["metadata"]["name"].clone(), json!(controller(object)), revision, json!(age(object, now))]
    }
}

/// `daemonset.apps/agent`.
fn controller(object: &Value) -> String {
    let owners = list(&object["metadata"]["ownerReferences"]);
    let Some(owner) = owners.iter().find(|o| o["controller"] == true) else { return "<none>".into() };
    let kind = text_or(&owner["kind"], "").to_lowercase();
    let group = text_or(&owner["apiVersion"], "").split_once('/').map(|(group, _)| format!(".{group}"));
    format!("{kind}{}/{}", group.unwrap_or_default(), text_or(&owner["name"], ""))
}
