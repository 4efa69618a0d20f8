//! Taints and tolerations.

use k8s_openapi::api::core::v1::Toleration;

/// Taint effect: Pods that do not tolerate the taint are not scheduled to the node.
pub const NO_SCHEDULE: &str = "NoSchedule";
/// Taint effect: Pods that do not tolerate the taint are scheduled to other nodes if possible.
pub const PREFER_NO_SCHEDULE: &str = "PreferNoSchedule";
/// Taint effect: Pods that do not tolerate the taint are not scheduled to the node, and are evicted from it.
pub const NO_EXECUTE: &str = "NoExecute";

/// Whether a toleration matches a taint. An empty key with the operator `Exists` matches all keys, an empty effect matches
/// all effects.
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
