//! The Deployment's status: replica counts and the Available and ReplicaFailure conditions.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Action, Sets, available, sizes};

/// The status by the ReplicaSets' statuses: counts, Available and ReplicaFailure. Other conditions are kept.
pub fn calculate(sets: &Sets<'_>, now: Timestamp) -> DeploymentStatus {
    let before = sets.deployment.status.clone().unwrap_or_default();
    let existing = |set: &_| {
        let set: &k8s_openapi::api::apps::v1::ReplicaSet = set;
        set.status.as_ref().map_or(0, |s| s.replicas)
    };
    let ready = sets.all().filter_map(|s| s.status.as_ref()?.ready_replicas).sum();
    let is_available: i32 = sets.all().map(|s| available(s)).sum();
    let count = |n: i32| (n > 0).then_some(n);
    let mut status = DeploymentStatus {
        observed_generation: sets.deployment.metadata.generation,
        replicas: count(sets.all().map(|s| existing(s)).sum()),
        updated_replicas: count(sets.new.as_ref().map_or(0, |s| existing(s))),
        ready_replicas: count(ready),
        available_replicas: count(is_available),
        unavailable_replicas: count(sizes(sets.all()) - is_available),
        collision_count: before.collision_count,
        conditions: before.conditions,
        ..Default::default()
    };
    let condition = if is_available >= sets.replicas() - sets.leeway().1 {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut status, "Available", condition.0, condition.1, condition.2.to_owned(), now);
    copy_failure(sets, &mut status);
    status
}

/// Copies the ReplicaFailure condition of a ReplicaSet that cannot create its Pods, the new ReplicaSet's first.
fn copy_failure(sets: &Sets<'_>, status: &mut DeploymentStatus) {
    let failures = sets.new.iter().chain(&sets.old).filter_map(|s| {
        let conditions = s.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|c| c.type_ == "ReplicaFailure")
    });
    let failure = failures.into_iter().next();
    let conditions = status.conditions.get_or_insert_default();
    let Some(failure) = failure else {
        conditions.retain(|c| c.type_ != "ReplicaFailure");
        return;
    };
    if conditions.iter().any(|c| c.type_ == "ReplicaFailure" && c.message == failure.message) {
        return;
    }
    conditions.retain(|c| c.type_ != "ReplicaFailure");
    conditions.push(DeploymentCondition {
        type_: failure.type_.clone(),
        status: failure.status.clone(),
        reason: failure.reason.clone(),
        message: failure.message.clone(),
        last_transition_time: failure.last_transition_time.clone(),
        last_update_time: failure.last_transition_time.clone(),
    });
}

/// The condition of this type, if the status has one.
pub fn get<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

/// Sets a condition unless it has this status and reason already. `lastTransitionTime` changes only with the status.
pub fn set(
    status: &mut DeploymentStatus,
    kind: &str,
    value: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) {
    let same = |c: &DeploymentCondition| c.status == value && c.reason.as_deref() == Some(reason);
    if !get(status, kind).is_some_and(same) {
        renew(status, kind, value, reason, message, now);
    }
}

/// Sets a condition and its `lastUpdateTime`, even if its status and reason do not change.
pub fn renew(
    status: &mut DeploymentStatus,
    kind: &str,
    value: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) {
    // Times in objects are whole seconds; a fraction would read back as another time.
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    let since = get(status, kind).filter(|c| c.status == value).and_then(|c| c.last_transition_time.clone());
    let condition = DeploymentCondition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: since.or_else(|| Some(now.clone())),
        last_update_time: Some(now),
    };
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|c| c.type_ == kind) {
        Some(present) => *present = condition,
        None => conditions.push(condition),
    }
}

/// Whether the rollout is complete: all Pods are of the current template and available, and no old ones are left.
pub fn is_complete(sets: &Sets<'_>, status: &DeploymentStatus) -> bool {
    let wanted = sets.replicas();
    let all = |n: Option<i32>| n.unwrap_or_default() == wanted;
    all(status.updated_replicas) && all(status.replicas) && all(status.available_replicas)
}

/// The action that writes the status, or `None` if the Deployment has it already.
pub fn changed(deployment: &Deployment, mut status: DeploymentStatus) -> Option<Action> {
    status.conditions = status.conditions.filter(|c| !c.is_empty());
    (deployment.status.as_ref() != Some(&status)).then(|| Action::Status(Box::new(status)))
}
