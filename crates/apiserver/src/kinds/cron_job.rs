//! CronJobs.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use yado_types::cron::Schedule;
use yado_types::time_zone;

use crate::edit::{fill, text, within};
use crate::kinds::job;
use crate::kinds::pod_template::{CONTAINERS, IMAGES, SELECTOR, default_template, with_template};
use crate::kinds::strategy::Strategy;
use crate::schema::validate::{Errors, Path};
use crate::table::Column;
use crate::table::format::{age, count, selector, since, text_or};

/// Characters of a name: its Jobs have a hyphen and the minute after it, and names of Jobs are labels.
const MOST_NAME: usize = 52;
/// Characters of each part of the name of a time zone.
const MOST_ZONE_PART: usize = 14;

#[derive(Debug)]
pub struct CronJob;

impl Strategy for CronJob {
    fn counts_generations(&self) -> bool {
        true
    }

    fn default_object(&self, object: &mut Map<String, Value>) {
        let Some(spec) = within(object, "spec") else { return };
        fill(spec, "concurrencyPolicy", "Allow");
        fill(spec, "suspend", false);
        fill(spec, "successfulJobsHistoryLimit", 3);
        fill(spec, "failedJobsHistoryLimit", 1);
        if let Some(job) = within(spec, "jobTemplate").and_then(|template| within(template, "spec")) {
            job::default_failure_policy(job);
            default_template(job);
        }
    }

    fn validate(&self, object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        let (spec, at) = (&object["spec"], root.field("spec"));
        schedule(spec, &at, errors);
        errors.at_least(&at.field("startingDeadlineSeconds"), &spec["startingDeadlineSeconds"], 0);
        // The database of time zones may have changed since the object was written.
        if old.is_none_or(|old| old["spec"]["timeZone"] != spec["timeZone"]) {
            zone(&spec["timeZone"], &at.field("timeZone"), errors);
        }
        let policy = text(&spec["concurrencyPolicy"]);
        errors.supported(&at.field("concurrencyPolicy"), policy, &["Allow", "Forbid", "Replace"]);
        template(&spec["jobTemplate"]["spec"], &at, errors);
        for field in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
            errors.at_least(&at.field(field), &spec[field], 0);
        }
        let name = text(&object["metadata"]["name"]);
        if old.is_none() && name.len() > MOST_NAME {
            let metadata = root.field("metadata");
            let detail = format!("must be no more than {MOST_NAME} characters");
            errors.invalid_text(&metadata.field("name"), name, &detail);
        }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        job::warnings(&object["spec"]["jobTemplate"]["spec"], "spec.jobTemplate.spec")
    }

    fn columns(&self) -> &[Column] {
        const {
            &[
                Column::NAME,
                Column::text("Schedule"),
                Column::text("Timezone"),
                Column::text("Suspend"),
                Column::integer("Active"),
                Column::text("Last Schedule"),
                Column::AGE,
                CONTAINERS,
                IMAGES,
                SELECTOR,
            ]
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let suspended = match spec["suspend"].as_bool() {
            Some(true) => "True",
            Some(false) => "False",
            None => "<unset>",
        };
        let last = &status["lastScheduleTime"];
        let last = if last.is_null() { "<none>".to_owned() } else { since(last, now) };
        let cells = [
            object["metadata"]["name"].clone(),
            spec["schedule"].clone(),
            json!(text_or(&spec["timeZone"], "<none>")),
            json!(suspended),
            json!(count(&status["active"])),
            json!(last),
            json!(age(object, now)),
        ];
        let job = &spec["jobTemplate"]["spec"];
        with_template(&cells, &job["template"], selector(&job["selector"]))
    }
}

fn schedule(spec: &Value, at: &Path<'_>, errors: &mut Errors) {
    let (schedule, at) = (text(&spec["schedule"]), at.field("schedule"));
    if schedule.is_empty() {
        errors.required(&at, "");
        return;
    }
    // The parser knows a time zone before the fields, which CronJobs may not have there.
    let named = ["TZ=", "CRON_TZ="].iter().find_map(|prefix| schedule.strip_prefix(prefix));
    let fields = named.map_or(schedule, |named| named.split_once(' ').map_or("", |(_, rest)| rest.trim()));
    if let Err(why) = Schedule::parse(fields) {
        errors.invalid_text(&at, schedule, &why.to_string());
    }
    if schedule.contains("TZ") {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.invalid_text(&at, schedule, detail);
    }
}

fn zone(zone: &Value, at: &Path<'_>, errors: &mut Errors) {
    let Some(name) = zone.as_str() else { return };
    let is_part = |part: &str| {
        let known = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
        let length = (1..=MOST_ZONE_PART).contains(&part.len());
        !matches!(part, "." | "..") && !part.starts_with('-') && length && part.bytes().all(known)
    };
    if name.is_empty() {
        errors.invalid_text(at, name, "timeZone must be nil or non-empty string");
    } else if !name.split('/').all(is_part) {
        errors.invalid_text(at, name, &format!("unknown time zone {name}"));
    } else if name.eq_ignore_ascii_case("Local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.invalid_text(at, name, detail);
        // The name is one to Go, if it is written so.
        if name != "Local" {
            errors.invalid_text(at, name, &format!("unknown time zone {name}"));
        }
    } else if let Err(why) = time_zone::find(name) {
        errors.invalid_text(at, name, &why);
    }
}

/// The selector of each Job is made when it is created.
fn template(job: &Value, at: &Path<'_>, errors: &mut Errors) {
    let template_at = at.field("jobTemplate");
    let at = template_at.field("spec");
    job::validate_spec(job, &at, errors);
    if !job["selector"].is_null() {
        errors.invalid(&at.field("selector"), &job["selector"], "`selector` will be auto-generated");
    }
    if job["manualSelector"] == true {
        errors.unsupported(&at.field("manualSelector"), "true", &["nil", "false"]);
    }
}
