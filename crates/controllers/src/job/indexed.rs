//! Indexed Jobs: each completion has an index, which its Pod gets as a label, an annotation and a variable.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use yado_types::pod::phase;

/// Label and annotation with a Pod's index.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// The completion index in a Pod's annotation.
pub fn index(pod: &Pod) -> Option<usize> {
    pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok()
}

/// Completed indexes: those of succeeded Pods, and those in `remembered`, the status's `completedIndexes`, whose Pods may
/// have been deleted.
pub fn done(pods: &[Arc<Pod>], remembered: Option<&str>) -> BTreeSet<usize> {
    let mut all = parse(remembered.unwrap_or_default());
    all.extend(pods.iter().filter(|p| phase(p) == "Succeeded").filter_map(|p| index(p)));
    all
}

/// Formats indexes as in `completedIndexes`: `0,2-4,7`.
pub fn text(indexes: &BTreeSet<usize>) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &i in indexes {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == i => *last = i,
            _ => ranges.push((i, i)),
        }
    }
    let show = |(first, last): (usize, usize)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    };
    ranges.into_iter().map(show).collect::<Vec<_>>().join(",")
}

/// Maximum number of indexes read from one range of a status, so that a range that somebody forged takes little memory.
const MAX_INDEXES: usize = 100_000;

fn parse(text: &str) -> BTreeSet<usize> {
    let mut all = BTreeSet::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            all.extend((first..=last).take(MAX_INDEXES));
        }
    }
    all
}

/// Adds an index to a Pod: name prefix, host name, label, annotation, and the variable in each container.
pub fn with_index(mut pod: Pod, job: &str, index: usize) -> Pod {
    let meta = &mut pod.metadata;
    meta.generate_name = Some(format!("{job}-{index}-"));
    meta.annotations.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    meta.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(format!("{job}-{index}"));
    spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()).for_each(add_variable);
    pod
}

fn add_variable(container: &mut Container) {
    let env = container.env.get_or_insert_default();
    if env.iter().any(|v| v.name == VARIABLE) {
        return;
    }
    let field =
        ObjectFieldSelector { field_path: format!("metadata.annotations['{INDEX}']"), ..Default::default() };
    env.push(EnvVar {
        name: VARIABLE.to_owned(),
        value_from: Some(EnvVarSource { field_ref: Some(field), ..Default::default() }),
        ..Default::default()
    });
}
