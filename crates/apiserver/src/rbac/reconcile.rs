//! Reconciliation of default roles and bindings at start-up.
//!
//! Additions of administrators stay; removed rules and subjects are restored, unless the annotation below forbids it.

use serde_json::{Map, Value};

use super::escalation::missing;
use super::rule::Rule;

/// With the value `false` it keeps an object as its administrator left it.
pub const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// The outcome of reconciling one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Reconciled {
    /// It is as it should be, or must not be touched.
    Keep,
    /// It has to be made.
    Create,
    /// It becomes this.
    Update(Value),
    /// It has to be deleted and made anew, since a binding's role cannot be changed.
    Recreate,
}

/// Compares a role or binding with what it should hold at least.
pub fn reconcile(existing: Option<&Value>, expected: &Value) -> Reconciled {
    let Some(existing) = existing else { return Reconciled::Create };
    if existing["metadata"]["annotations"][AUTOUPDATE] == "false" {
        return Reconciled::Keep;
    }
    if !expected["roleRef"].is_null() && expected["roleRef"] != existing["roleRef"] {
        return Reconciled::Recreate;
    }
    let mut next = existing.clone();
    for key in ["labels", "annotations"] {
        add_missing_keys(&mut next, key, &expected["metadata"][key]);
    }
    if expected["aggregationRule"].is_null() {
        let held = Rule::read_all(existing);
        let absent = missing(&held.iter().collect::<Vec<_>>(), &Rule::read_all(expected));
        append(&mut next, "rules", Rule::merged(absent).iter().map(Rule::to_value).collect());
    } else {
        let selectors = |role: &Value| list(&role["aggregationRule"]["clusterRoleSelectors"]).to_vec();
        let known = selectors(existing);
        let absent: Vec<Value> = selectors(expected).into_iter().filter(|s| !known.contains(s)).collect();
        if !absent.is_empty() && !next["aggregationRule"].is_object() {
            next["aggregationRule"] = Value::Object(Map::new());
        }
        if !absent.is_empty() {
            append(&mut next["aggregationRule"], "clusterRoleSelectors", absent);
        }
    }
    let known = list(&existing["subjects"]);
    let absent = list(&expected["subjects"]).iter().filter(|s| !known.contains(s)).cloned().collect();
    append(&mut next, "subjects", absent);
    if next == *existing { Reconciled::Keep } else { Reconciled::Update(next) }
}

fn add_missing_keys(object: &mut Value, key: &str, expected: &Value) {
    for (name, value) in expected.as_object().into_iter().flatten() {
        let map = &mut object["metadata"][key];
        if !map.is_object() {
            *map = Value::Object(Map::new());
        }
        if map[name.as_str()].is_null() {
            map[name.as_str()] = value.clone();
        }
    }
}

fn append(object: &mut Value, key: &str, more: Vec<Value>) {
    if more.is_empty() {
        return;
    }
    match object[key].as_array_mut() {
        Some(list) => list.extend(more),
        None => object[key] = more.into(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
