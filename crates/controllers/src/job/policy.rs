//! What the policies of a Job say: what a failed Pod means for it, and when enough indexes have succeeded.

use k8s_openapi::api::batch::v1::{
    PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule, SuccessPolicy,
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};

use super::intervals::Intervals;

/// What a failed Pod means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It counts against the backoff limits.
    Counts,
    /// It does not count.
    Ignored,
    /// Its index has failed.
    FailsIndex,
    /// The Job has failed, with this message.
    FailsJob(String),
}

impl Failure {
    /// Whether the failure counts against the backoff limits.
    pub fn counts(&self) -> bool {
        *self != Self::Ignored
    }
}

/// What the failure of a Pod means by the first rule that it matches. Rules with actions that are unknown are passed over.
pub fn failure(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Failure {
    let rules = policy.iter().flat_map(|policy| &policy.rules).enumerate();
    for (i, rule) in rules {
        let Some(cause) = cause(rule, pod) else { continue };
        match rule.action.as_str() {
            "Ignore" => return Failure::Ignored,
            "Count" => return Failure::Counts,
            "FailIndex" => return Failure::FailsIndex,
            "FailJob" => return Failure::FailsJob(format!("{cause} matching FailJob rule at index {i}")),
            _ => {}
        }
    }
    Failure::Counts
}

/// Why a failed Pod matches a rule, if it does.
fn cause(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let of = |part: &Option<String>| part.clone().unwrap_or_default();
    let pod = format!("{}/{}", of(&pod.metadata.namespace), of(&pod.metadata.name));
    if let Some(requirement) = &rule.on_exit_codes {
        let ordinary = status.container_statuses.iter().flatten();
        let mut all = ordinary.chain(status.init_container_statuses.iter().flatten());
        let (name, code) = all.find_map(|container| exit_code(requirement, container))?;
        return Some(format!("Container {name} for pod {pod} failed with exit code {code}"));
    }
    let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
    let matches = |held: &&PodCondition| {
        let status = |wanted: &Option<String>| wanted.as_deref().unwrap_or("True") == held.status;
        patterns.iter().any(|pattern| pattern.type_ == held.type_ && status(&pattern.status))
    };
    let held = status.conditions.iter().flatten().find(matches);
    held.map(|held| format!("Pod {pod} has condition {}", held.type_))
}

/// The name of a container and the exit code by which it meets a requirement. Success never does.
fn exit_code<'a>(
    requirement: &PodFailurePolicyOnExitCodesRequirement,
    container: &'a ContainerStatus,
) -> Option<(&'a str, i32)> {
    let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
    let named = requirement.container_name.as_ref().is_none_or(|name| *name == container.name);
    let listed = requirement.values.contains(&code);
    let met = match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    };
    (named && met && code != 0).then_some((container.name.as_str(), code))
}

/// The message for the first rule of a success policy that the indexes which have succeeded meet.
pub fn success(policy: Option<&SuccessPolicy>, succeeded: &Intervals, completions: usize) -> Option<String> {
    if succeeded.is_empty() {
        return None;
    }
    let rules = policy.iter().flat_map(|policy| &policy.rules).enumerate();
    let mut met = rules.filter(|(_, rule)| {
        let enough = |n: usize| {
            rule.succeeded_count.and_then(|count| usize::try_from(count).ok()).is_some_and(|count| n >= count)
        };
        let Some(indexes) = &rule.succeeded_indexes else { return enough(succeeded.len()) };
        let wanted = Intervals::parse(indexes, completions);
        let common = wanted.common(succeeded);
        !wanted.is_empty() && (common == wanted.len() || enough(common))
    });
    met.next().map(|(i, _)| format!("Matched rules at index {i}"))
}
