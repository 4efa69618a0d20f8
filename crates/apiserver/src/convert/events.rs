//! Events in their two forms. core/v1 is what is stored; events.k8s.io/v1 says the same with other names.

use serde_json::Value;

use super::{Form, Stored};

/// Names in events.k8s.io/v1 and in core/v1.
const RENAMED: &[(&str, &str)] = &[
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// Events of the group `events.k8s.io`.
#[derive(Debug)]
pub(crate) struct EventForm;

impl Form for EventForm {
    fn stored_as(&self) -> (&'static str, &'static str) {
        ("", "v1")
    }

    fn to_stored(&self, event: Value) -> Stored {
        let object = rename(event, |name| RENAMED.iter().find(|(new, _)| *new == name).map(|(_, old)| *old));
        Stored { object, ..Stored::default() }
    }

    fn show(&self, event: Value) -> Value {
        rename(event, |name| RENAMED.iter().find(|(_, old)| *old == name).map(|(new, _)| *new))
    }
}

fn rename(event: Value, other: impl Fn(&str) -> Option<&'static str>) -> Value {
    let Value::Object(map) = event else { return event };
    let fields = map.into_iter().map(|(name, value)| (other(&name).map_or(name, str::to_owned), value));
    Value::Object(fields.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_survives_both_ways() {
        let core = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "a"}, "message": "m", "reason": "r",
            "involvedObject": {"kind": "Pod"}, "count": 2, "reportingComponent": "c", "reportingInstance": "i",
        });
        let new = EventForm.show(core.clone());
        assert_eq!(
            (&new["note"], &new["regarding"]["kind"], &new["deprecatedCount"]),
            (&json!("m"), &json!("Pod"), &json!(2))
        );
        assert_eq!(EventForm.to_stored(new).object, core);
    }
}
