//! Indexed Jobs: each completion has a number, and its Pod is told it.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use yado_types::pod::phase;

/// Label and annotation with a Pod's index.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// A Pod's index.
pub fn index(pod: &Pod) -> Option<usize> {
    pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok()
}

/// Indexes that have succeeded, by the Pods and by what the status remembers of those that are gone.
pub fn done(pods: &[Arc<Pod>], remembered: Option<&str>) -> BTreeSet<usize> {
    let mut all = parse(remembered.unwrap_or_default());
    all.extend(pods.iter().filter(|p| phase(p) == "Succeeded").filter_map(|p| index(p)));
    all
}

/// `0,2-4,7`.
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

/// A Job has so many indexes at most; a longer range is no Job's own status.
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

/// The Pod of an index: it can read it, and is called by it.
pub fn with_index(mut pod: Pod, job: &str, index: usize) -> Pod {
    let meta = &mut pod.metadata;
    meta.generate_name = Some(format!("{job}-{index}-"));
    meta.annotations.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    meta.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(format!("{job}-{index}"));
    spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()).for_each(tell);
    pod
}

fn tell(container: &mut Container) {
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
