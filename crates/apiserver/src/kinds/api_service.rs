//! APIServices: which server serves a group and version.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use yado_types::names;

use crate::edit::{existing, fill, list, text, within};
use crate::kinds::strategy::{NameRule, Strategy};
use crate::schema::validate::{Errors, Path};
use crate::table::Column;
use crate::table::format::age;

#[derive(Debug)]
pub struct ApiService;

impl Strategy for ApiService {
    /// That of the core group is called `v1.`.
    fn name_rule(&self) -> NameRule {
        names::path_segment
    }

    /// This server registers itself in one write. What others claim is corrected by the next check.
    fn drops_status(&self) -> bool {
        false
    }

    fn default_object(&self, object: &mut Map<String, Value>) {
        if let Some(spec) = within(object, "spec")
            && let Some(service) = existing(spec, "service")
        {
            fill(service, "port", 443);
        }
    }

    fn validate(&self, object: &Value, _old: Option<&Value>, errors: &mut Errors) {
        let (root, spec) = (Path::root(), &object["spec"]);
        let (at, name) = (root.field("spec"), text(&object["metadata"]["name"]));
        let (group, version) = (text(&spec["group"]), text(&spec["version"]));
        let expected = format!("{version}.{group}");
        if name != expected {
            let detail = format!("must be `spec.version+\".\"+spec.group`: {expected:?}");
            errors.invalid_text(&root.field("metadata").field("name"), name, &detail);
        }
        if !group.is_empty() {
            errors.check_text(&at.field("group"), group, names::dns_subdomain(group));
        } else if version != "v1" {
            let detail = "only v1 may have an empty group and it better be legacy kube";
            errors.required(&at.field("group"), detail);
        }
        errors.check_text(&at.field("version"), version, names::dns_1035_label(version));
        for (field, limit) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
            let given = spec[field].as_i64().unwrap_or(0);
            // The core group has the priority of 18000, and none above 20000.
            if given <= 0 || given > limit {
                let detail = format!("must be positive and less than {limit}");
                errors.invalid(&at.field(field), &given.into(), &detail);
            }
        }
        service(spec, &at, errors);
    }

    fn columns(&self) -> &[Column] {
        const { &[Column::NAME, Column::text("Service"), Column::text("Available"), Column::AGE] }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let service = &object["spec"]["service"];
        let shown = match service.is_object() {
            true => format!("{}/{}", text(&service["namespace"]), text(&service["name"])),
            false => "Local".to_owned(),
        };
        let available = list(&object["status"]["conditions"]).iter().find(|c| c["type"] == "Available");
        let available = match available {
            None => "Unknown".to_owned(),
            Some(condition) if condition["status"] == "True" => "True".to_owned(),
            Some(condition) => format!("{} ({})", text(&condition["status"]), text(&condition["reason"])),
        };
        vec![object["metadata"]["name"].clone(), json!(shown), json!(available), json!(age(object, now))]
    }
}

fn service(spec: &Value, at: &Path<'_>, errors: &mut Errors) {
    let (service, is_insecure) = (&spec["service"], spec["insecureSkipTLSVerify"] == true);
    let has_bundle = !text(&spec["caBundle"]).is_empty();
    if !service.is_object() {
        if is_insecure {
            let detail = "local APIServices may not have insecureSkipTLSVerify";
            errors.invalid(&at.field("insecureSkipTLSVerify"), &true.into(), detail);
        }
        if has_bundle {
            let detail = "local APIServices may not have a caBundle";
            errors.invalid(&at.field("caBundle"), &spec["caBundle"], detail);
        }
        return;
    }
    let service_at = at.field("service");
    for field in ["namespace", "name"] {
        if text(&service[field]).is_empty() {
            errors.required(&service_at.field(field), "");
        }
    }
    errors.port(&service_at.field("port"), &service["port"]);
    if is_insecure && has_bundle {
        let detail = "may not be true if caBundle is present";
        errors.invalid(&at.field("insecureSkipTLSVerify"), &true.into(), detail);
    }
}
