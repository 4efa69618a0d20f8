//! Indexed Jobs: each completion has an index, which its Pod gets as a label, an annotation and a variable. Where failures
//! are counted by index, each Pod carries the number of them in annotations, so that they are known when Pods are gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::PodFailurePolicy;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use super::backoff::ended_at;
use super::policy;

/// Label and annotation with a Pod's index.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Annotation with the number of failures of a Pod's index before it.
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// Annotation with the number of failures of a Pod's index before it that were ignored.
const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
const VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// Characters of a name before those that the server appends.
const MOST_PREFIX: usize = 58;

/// The completion index in a Pod's annotation.
pub fn index(pod: &Pod) -> Option<usize> {
    number(pod, INDEX)
}

/// The number of failures of a Pod's index before it that counted.
pub fn failures(pod: &Pod) -> i32 {
    number(pod, FAILURES).unwrap_or_default()
}

/// The number of failures of a Pod's index, with its own and with those that were ignored.
pub fn all_failures(pod: &Pod) -> u32 {
    let before = i64::from(failures(pod)) + i64::from(number::<i32>(pod, IGNORED).unwrap_or_default());
    u32::try_from(before.max(0) + 1).unwrap_or(u32::MAX)
}

fn number<N: std::str::FromStr>(pod: &Pod, annotation: &str) -> Option<N> {
    pod.metadata.annotations.as_ref()?.get(annotation)?.parse().ok()
}

/// The failed Pods that stand for the failures of their indexes until those have other Pods: of each index the one with the
/// most failures, and the last of these.
pub fn last_of_each<'a>(failed: impl Iterator<Item = &'a Arc<Pod>>) -> BTreeMap<usize, Arc<Pod>> {
    let mut last: BTreeMap<usize, Arc<Pod>> = BTreeMap::new();
    for pod in failed {
        let Some(index) = index(pod) else { continue };
        let rank = |pod: &Pod| (all_failures(pod), ended_at(pod));
        if last.get(&index).is_none_or(|other| rank(other) <= rank(pod)) {
            last.insert(index, pod.clone());
        }
    }
    last
}

/// Adds an index to a Pod: name prefix, host name, label, annotation, and the variable in each container.
pub fn with_index(mut pod: Pod, job: &str, index: usize) -> Pod {
    let meta = &mut pod.metadata;
    let suffix = format!("-{index}-");
    let room = MOST_PREFIX.saturating_sub(suffix.len()).min(job.len());
    let end = (0..=room).rev().find(|end| job.is_char_boundary(*end)).unwrap_or_default();
    meta.generate_name = Some(format!("{}{suffix}", &job[..end]));
    meta.annotations.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    meta.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(format!("{job}-{index}"));
    spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()).for_each(add_variable);
    pod
}

/// Writes the failures of a Pod's index into its annotations: those of the Pod that it replaces, and that Pod's own.
pub fn with_failures(mut pod: Pod, replaced: Option<&Pod>, policy: Option<&PodFailurePolicy>) -> Pod {
    let (mut counted, mut ignored) = (0, 0);
    if let Some(replaced) = replaced {
        (counted, ignored) = (failures(replaced), number(replaced, IGNORED).unwrap_or_default());
        let own = if policy::failure(policy, replaced).counts() { &mut counted } else { &mut ignored };
        *own = i32::saturating_add(*own, 1);
    }
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(FAILURES.to_owned(), counted.to_string());
    if ignored > 0 {
        annotations.insert(IGNORED.to_owned(), ignored.to_string());
    }
    pod
}

fn add_variable(container: &mut Container) {
    let env = container.env.get_or_insert_default();
    if env.iter().any(|v| v.name == VARIABLE) {
        return;
    }
    let field =
        ObjectFieldSelector { field_path: format!("metadata.labels['{INDEX}']"), ..Default::default() };
    env.push(EnvVar {
        name: VARIABLE.to_owned(),
        value_from: Some(EnvVarSource { field_ref: Some(field), ..Default::default() }),
        ..Default::default()
    });
}
