//! PriorityClasses.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::edit::{fill, text};
use crate::kinds::strategy::Strategy;
use crate::object::{Object, meta};
use crate::resource;
use crate::schema::validate::{Errors, Path};
use crate::server::Inner;
use crate::status::{Failure, Result};
use crate::table::Column;
use crate::table::format::age;
use crate::write::context::WriteContext;

/// Names with this prefix are the cluster's own.
const SYSTEM_PREFIX: &str = "system-";
/// The largest value that users may give.
const MAX_VALUE: i64 = 1_000_000_000;
/// The classes that every cluster has, with their values.
pub const SYSTEM: [(&str, i64); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

#[derive(Debug)]
pub struct PriorityClass;

impl Strategy for PriorityClass {
    fn counts_generations(&self) -> bool {
        true
    }

    fn default_object(&self, object: &mut Map<String, Value>) {
        fill(object, "preemptionPolicy", "PreemptLowerPriority");
    }

    fn after_defaults(&self, ctx: &WriteContext<'_>, class: &mut Value, _old: Option<&Value>) -> Result<()> {
        let name = meta(class, "name");
        let other = default_class(ctx.server).filter(|_| class["globalDefault"] == true);
        let other = other.map(|other| meta(&other, "name").to_owned()).filter(|other| other != name);
        let Some(other) = other else { return Ok(()) };
        let why = format!("PriorityClass {other} is already marked as default. Only one default can exist");
        Err(Failure::forbidden(ctx.resource, name, &why))
    }

    fn validate(&self, class: &Value, old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        let (name, value) = (meta(class, "name"), class["value"].as_i64().unwrap_or_default());
        let at = root.field("value");
        match SYSTEM.iter().find(|(system, _)| *system == name) {
            Some((_, expected)) if value != *expected => {
                errors.forbidden(&at, &format!("value of {name} must be {expected}"));
            }
            None if name.starts_with(SYSTEM_PREFIX) => {
                let detail = "priority class names with 'system-' prefix are reserved for system use only";
                errors.forbidden(&root.field("metadata").field("name"), detail);
            }
            None if value > MAX_VALUE => {
                let detail = format!("maximum allowed value of a user defined priority is {MAX_VALUE}");
                errors.forbidden(&at, &detail);
            }
            _ => {}
        }
        let policies = ["Never", "PreemptLowerPriority"];
        errors.one_of(&root.field("preemptionPolicy"), &class["preemptionPolicy"], &policies);
        let Some(old) = old else { return };
        if class["value"] != old["value"] {
            errors.forbidden(&at, "may not be changed in an update.");
        }
        if class["preemptionPolicy"] != old["preemptionPolicy"] {
            errors.invalid(&root.field("preemptionPolicy"), &class["preemptionPolicy"], "field is immutable");
        }
    }

    fn columns(&self) -> &[Column] {
        const {
            &[
                Column::NAME,
                Column::integer("Value"),
                Column::text("Global-Default"),
                Column::AGE,
                Column::text("PreemptionPolicy"),
            ]
        }
    }

    fn cells(&self, class: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            class["metadata"]["name"].clone(),
            class["value"].clone(),
            json!(class["globalDefault"] == true),
            json!(age(class, now)),
            json!(text(&class["preemptionPolicy"])),
        ]
    }
}

/// The class of Pods that name none, if there is one.
pub fn default_class(server: &Inner) -> Option<std::sync::Arc<Value>> {
    let classes = resource::find("scheduling.k8s.io", "v1", "priorityclasses")?;
    let facts =
        |class: &Object| class.derive(|class| (class["globalDefault"] == true, class["value"].as_i64()));
    let found = server.collection(classes).ok()?.list("", None, 0, |class| facts(class).0).objects;
    // Where two were made at once, the lower one counts.
    found.iter().min_by_key(|class| facts(class).1).map(|class| class.value())
}

/// The object of a class that every cluster has.
pub fn system_class(name: &str, value: i64) -> Value {
    json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value,
        "description": "Used for Pods that the cluster cannot work without.",
    })
}
