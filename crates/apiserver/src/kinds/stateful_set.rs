//! StatefulSets.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use yado_types::names;

use crate::edit::{existing, existing_at, fill, list, objects, text, within};
use crate::kinds::persistent_volume_claim::{self, validate_claim_spec};
use crate::kinds::pod_template::{self, CONTAINERS, IMAGES, default_template};
use crate::kinds::rollout::{count_or_percent, is_zero, percent};
use crate::kinds::strategy::{NameRule, Strategy};
use crate::schema::validate::{Errors, Path};
use crate::table::Column;
use crate::table::format::{age, number};

/// Fields of the specification that an update may change.
const MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

#[derive(Debug)]
pub struct StatefulSet;

impl Strategy for StatefulSet {
    /// Its Pods are named after it, and their names are host names.
    fn name_rule(&self) -> NameRule {
        names::dns_label
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn default_object(&self, object: &mut Map<String, Value>) {
        if let Some(status) = within(object, "status") {
            fill(status, "replicas", 0);
            fill(status, "availableReplicas", 0);
        }
        let Some(spec) = within(object, "spec") else { return };
        fill(spec, "replicas", 1);
        fill(spec, "revisionHistoryLimit", 10);
        fill(spec, "serviceName", "");
        fill(spec, "podManagementPolicy", "OrderedReady");
        if let Some(strategy) = within(spec, "updateStrategy") {
            default_strategy(strategy);
        }
        if let Some(policy) = within(spec, "persistentVolumeClaimRetentionPolicy") {
            fill(policy, "whenDeleted", "Retain");
            fill(policy, "whenScaled", "Retain");
        }
        objects(spec, "volumeClaimTemplates").for_each(default_claim);
        default_template(spec);
    }

    fn validate(&self, object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        let (spec, at) = (&object["spec"], root.field("spec"));
        let policy = text(&spec["podManagementPolicy"]);
        if !matches!(policy, "OrderedReady" | "Parallel") {
            let detail = "must be 'OrderedReady' or 'Parallel'";
            errors.invalid_text(&at.field("podManagementPolicy"), policy, detail);
        }
        strategy(&spec["updateStrategy"], &at.field("updateStrategy"), errors);
        let retention_at = at.field("persistentVolumeClaimRetentionPolicy");
        for key in ["whenDeleted", "whenScaled"] {
            let policy = &spec["persistentVolumeClaimRetentionPolicy"][key];
            errors.one_of(&retention_at.field(key), policy, &["Retain", "Delete"]);
        }
        if old.is_none() {
            let templates_at = at.field("volumeClaimTemplates");
            for (i, claim) in list(&spec["volumeClaimTemplates"]).iter().enumerate() {
                validate_claim_spec(&claim["spec"], &templates_at.index(i).field("spec"), errors);
            }
        }
        for key in ["replicas", "minReadySeconds"] {
            errors.at_least(&at.field(key), &spec[key], 0);
        }
        errors.at_least(&at.field("ordinals").field("start"), &spec["ordinals"]["start"], 0);
        let service = text(&spec["serviceName"]);
        // What was stored before there was this rule may stay.
        if old.is_none() && !service.is_empty() {
            errors.check_text(&at.field("serviceName"), service, names::dns_label(service));
        }
        pod_template::selector_and_template(&with_claims(spec), "statefulset", "StatefulSet", &at, errors);
        if let Some(old) = old {
            fixed_fields(spec, &old["spec"], &at, errors);
        }
        status(&object["status"], old.map(|old| &old["status"]), &root.field("status"), errors);
    }

    fn columns(&self) -> &[Column] {
        const { &[Column::NAME, Column::text("Ready"), Column::AGE, CONTAINERS, IMAGES] }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let ready = format!("{}/{}", number(&status["readyReplicas"]), number(&spec["replicas"]));
        let [names, images] = pod_template::containers(&spec["template"]);
        vec![object["metadata"]["name"].clone(), json!(ready), json!(age(object, now)), names, images]
    }
}

fn default_strategy(strategy: &mut Map<String, Value>) {
    if !strategy.contains_key("type") {
        fill(strategy, "type", "RollingUpdate");
        within(strategy, "rollingUpdate");
    }
    if strategy["type"] == "RollingUpdate"
        && let Some(rolling) = existing(strategy, "rollingUpdate")
    {
        fill(rolling, "partition", 0);
        fill(rolling, "maxUnavailable", 1);
    }
}

/// Completes a template of claims as the claim that it becomes.
fn default_claim(claim: &mut Map<String, Value>) {
    fill(claim, "apiVersion", "v1");
    fill(claim, "kind", "PersistentVolumeClaim");
    persistent_volume_claim::PersistentVolumeClaim.default_object(claim);
}

fn strategy(strategy: &Value, at: &Path<'_>, errors: &mut Errors) {
    let (rolling, rolling_at) = (&strategy["rollingUpdate"], at.field("rollingUpdate"));
    match text(&strategy["type"]) {
        "OnDelete" if !rolling.is_null() => {
            errors.invalid(&rolling_at, rolling, "only allowed for updateStrategy 'RollingUpdate'");
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            errors.at_least(&rolling_at.field("partition"), &rolling["partition"], 0);
            let (unavailable, unavailable_at) =
                (&rolling["maxUnavailable"], rolling_at.field("maxUnavailable"));
            count_or_percent(unavailable, &unavailable_at, errors);
            if is_zero(unavailable) {
                errors.invalid(&unavailable_at, unavailable, "cannot be 0");
            }
            if percent(unavailable).is_some_and(|percent| percent > 100) {
                errors.invalid(&unavailable_at, unavailable, "must not be greater than 100%");
            }
        }
        _ => errors.invalid(at, strategy, "must be 'RollingUpdate' or 'OnDelete'"),
    }
}

/// The specification with a volume in its template for each template of claims: containers mount them by name.
fn with_claims(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let claims = list(&spec["volumeClaimTemplates"]).iter().map(|claim| text(&claim["metadata"]["name"]));
    let claims: Vec<String> = claims.filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if claims.is_empty() {
        return spec;
    }
    let Some(pod) = existing_at(&mut spec, &["template", "spec"]) else { return spec };
    let mut volumes = pod.get("volumes").map(list).unwrap_or_default().to_vec();
    for name in claims {
        let volume = json!({"name": name, "persistentVolumeClaim": {"claimName": name}});
        match volumes.iter_mut().find(|present| present["name"] == name) {
            Some(present) => *present = volume,
            None => volumes.push(volume),
        }
    }
    pod.insert("volumes".into(), volumes.into());
    spec
}

fn fixed_fields(spec: &Value, old: &Value, at: &Path<'_>, errors: &mut Errors) {
    let fixed = |spec: &Value| -> Map<String, Value> {
        let fields = spec.as_object().into_iter().flatten();
        let fixed = fields.filter(|(key, _)| !MUTABLE.contains(&key.as_str()));
        fixed.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    if fixed(spec) != fixed(old) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                      'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                      'minReadySeconds' are forbidden";
        errors.forbidden(at, detail);
    }
}

fn status(status: &Value, old: Option<&Value>, at: &Path<'_>, errors: &mut Errors) {
    let counts = ["replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    for key in counts.into_iter().chain(["observedGeneration", "collisionCount"]) {
        errors.at_least(&at.field(key), &status[key], 0);
    }
    let count = |key: &str| number(&status[key]);
    for key in counts {
        if count(key) > count("replicas") {
            errors.invalid(&at.field(key), &status[key], "cannot be greater than status.replicas");
        }
    }
    if count("availableReplicas") > count("readyReplicas") {
        let detail = "cannot be greater than status.readyReplicas";
        errors.invalid(&at.field("availableReplicas"), &status["availableReplicas"], detail);
    }
    let collisions = |status: &Value| number(&status["collisionCount"]);
    if old.is_some_and(|old| collisions(status) < collisions(old)) {
        errors.invalid(&at.field("collisionCount"), &json!(collisions(status)), "cannot be decremented");
    }
}
