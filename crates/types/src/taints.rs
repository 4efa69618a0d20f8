//! Taints and tolerations.

use k8s_openapi::api::core::v1::Toleration;

/// Keeps new Pods away.
pub const NO_SCHEDULE: &str = "NoSchedule";
/// Keeps new Pods away where others will do.
pub const PREFER_NO_SCHEDULE: &str = "PreferNoSchedule";
/// Keeps new Pods away and sends those that are there off.
pub const NO_EXECUTE: &str = "NoExecute";

/// Whether a toleration bears a taint: an empty key with `Exists` bears all keys, an empty effect all effects.
pub fn tolerates(toleration: &Toleration, key: &str, value: &str, effect: &str) -> bool {
    let given = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    if given(&toleration.effect).is_some_and(|e| e != effect) {
        return false;
    }
    if given(&toleration.key).is_some_and(|k| k != key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "" | "Equal" => {
            given(&toleration.key).is_some() && toleration.value.as_deref().unwrap_or_default() == value
        }
        _ => false,
    }
}
