//! A common form of the objects that run Pods.

use std::path::PathBuf;

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
    batch::v1::Job,
    core::v1::{Pod, PodTemplateSpec, ReplicationController},
};
use k8s_openapi::apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString};
use yado_types::labels;

use super::typed;
use crate::{Compiled, Object};

/// An object that runs Pods: a Deployment, DaemonSet, Job, StatefulSet, ReplicaSet, ReplicationController or Pod.
#[derive(Debug, Clone)]
pub(super) struct PodController {
    /// The name of the compose service.
    pub service: String,
    /// The object's own metadata.
    pub metadata: ObjectMeta,
    pub template: PodTemplateSpec,
    pub replicas: i32,
    pub runs: RunMode,
    pub update: Option<RolloutStrategy>,
    pub source: PathBuf,
}

impl PodController {
    /// An annotation of its Pods; empty if there is none.
    pub fn annotation(&self, key: &str) -> &str {
        let annotations = self.template.metadata.as_ref().and_then(|m| m.annotations.as_ref());
        annotations.and_then(|a| a.get(key)).map_or("", String::as_str)
    }
}

/// How Pods are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunMode {
    Always,
    Everywhere,
    /// Until success, with this number of retries.
    Once(i32),
}

/// How a new version replaces the old one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RolloutStrategy {
    Recreate,
    By { surge: i32, unavailable: i32, watch: i32 },
}

/// All objects that run Pods, in order.
pub(super) fn controllers(compiled: &Compiled) -> Vec<PodController> {
    let mut all: Vec<PodController> = compiled.objects.iter().filter_map(controller).collect();
    // The name of a service is that in the original file, if those names are unique.
    let names: Vec<String> = all.iter().map(|s| written_name(s, compiled)).collect();
    let unique = names.iter().collect::<std::collections::BTreeSet<_>>().len() == names.len();
    for (controller, name) in all.iter_mut().zip(names) {
        if unique {
            controller.service = name;
        }
    }
    all
}

/// The component for a service of a compose file, else the object's name.
fn written_name(controller: &PodController, compiled: &Compiled) -> String {
    let label = |key: &str| controller.template.metadata.as_ref()?.labels.as_ref()?.get(key).cloned();
    match (compiled.namespace.is_some(), label(labels::APP_COMPONENT)) {
        (true, Some(component)) => component,
        _ => controller.service.clone(),
    }
}

fn controller(object: &Object) -> Option<PodController> {
    let base = |metadata: ObjectMeta, template, replicas: Option<i32>, runs, update| PodController {
        service: object.name().into(),
        metadata,
        template,
        replicas: replicas.unwrap_or(1),
        runs,
        update,
        source: object.source.clone(),
    };
    Some(match object.kind() {
        "Deployment" => {
            let all: Deployment = typed(object)?;
            let spec = all.spec?;
            let update = spec.strategy.as_ref().and_then(|s| match s.type_.as_deref() {
                Some("Recreate") => Some(RolloutStrategy::Recreate),
                _ => s.rolling_update.as_ref().map(|r| RolloutStrategy::By {
                    surge: number(&r.max_surge),
                    unavailable: number(&r.max_unavailable),
                    watch: spec.min_ready_seconds.unwrap_or(0),
                }),
            });
            base(all.metadata, spec.template, spec.replicas, RunMode::Always, update)
        }
        "DaemonSet" => {
            let all: DaemonSet = typed(object)?;
            let spec = all.spec?;
            let update = spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref()).map(|r| {
                RolloutStrategy::By {
                    surge: number(&r.max_surge),
                    unavailable: number(&r.max_unavailable),
                    watch: spec.min_ready_seconds.unwrap_or(0),
                }
            });
            base(all.metadata, spec.template, None, RunMode::Everywhere, update)
        }
        "Job" => {
            let all: Job = typed(object)?;
            let spec = all.spec?;
            let runs = RunMode::Once(spec.backoff_limit.unwrap_or(6));
            base(all.metadata, spec.template, spec.completions, runs, None)
        }
        "StatefulSet" => {
            let all: StatefulSet = typed(object)?;
            let spec = all.spec?;
            base(all.metadata, spec.template, spec.replicas, RunMode::Always, None)
        }
        "ReplicaSet" => {
            let all: ReplicaSet = typed(object)?;
            let spec = all.spec?;
            base(all.metadata, spec.template?, spec.replicas, RunMode::Always, None)
        }
        "ReplicationController" => {
            let all: ReplicationController = typed(object)?;
            let spec = all.spec?;
            base(all.metadata, spec.template?, spec.replicas, RunMode::Always, None)
        }
        "Pod" => {
            let all: Pod = typed(object)?;
            let runs = match all.spec.as_ref().and_then(|s| s.restart_policy.as_deref()) {
                Some("Never") => RunMode::Once(0),
                Some("OnFailure") => RunMode::Once(6),
                _ => RunMode::Always,
            };
            let template = PodTemplateSpec { metadata: Some(all.metadata.clone()), spec: all.spec };
            base(all.metadata, template, None, runs, None)
        }
        _ => return None,
    })
}

/// A number of Pods; a percentage counts as at least one.
fn number(value: &Option<IntOrString>) -> i32 {
    match value {
        Some(IntOrString::Int(n)) => *n,
        Some(IntOrString::String(share)) if !share.starts_with('0') => 1,
        _ => 0,
    }
}
