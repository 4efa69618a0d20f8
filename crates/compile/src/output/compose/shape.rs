//! What runs Pods, whatever its kind.

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

/// One thing that runs Pods.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// The compose service's name.
    pub service: String,
    /// The object's own metadata.
    pub metadata: ObjectMeta,
    pub template: PodTemplateSpec,
    pub replicas: i32,
    pub runs: Runs,
    pub update: Option<Rolling>,
    pub source: PathBuf,
}

impl Shape {
    /// An annotation of its Pods; nothing where they have none of that key.
    pub fn annotation(&self, key: &str) -> &str {
        let annotations = self.template.metadata.as_ref().and_then(|m| m.annotations.as_ref());
        annotations.and_then(|a| a.get(key)).map_or("", String::as_str)
    }
}

/// How Pods are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Runs {
    Always,
    Everywhere,
    /// Until it ends well, after at most so many failures.
    Once(i32),
}

/// How a new version takes the old one's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rolling {
    Recreate,
    By { surge: i32, unavailable: i32, watch: i32 },
}

/// All that run Pods, in the order of the objects.
pub(super) fn shapes(compiled: &Compiled) -> Vec<Shape> {
    let mut all: Vec<Shape> = compiled.objects.iter().filter_map(shape).collect();
    // A service's name is as it was written, if that tells all apart.
    let names: Vec<String> = all.iter().map(|s| written_name(s, compiled)).collect();
    let unique = names.iter().collect::<std::collections::BTreeSet<_>>().len() == names.len();
    for (shape, name) in all.iter_mut().zip(names) {
        if unique {
            shape.service = name;
        }
    }
    all
}

/// The component where it is the service of a compose file, else the object's name.
fn written_name(shape: &Shape, compiled: &Compiled) -> String {
    let label = |key: &str| shape.template.metadata.as_ref()?.labels.as_ref()?.get(key).cloned();
    match (compiled.namespace.is_some(), label(labels::APP_COMPONENT)) {
        (true, Some(component)) => component,
        _ => shape.service.clone(),
    }
}

fn shape(object: &Object) -> Option<Shape> {
    let base = |metadata: ObjectMeta, template, replicas: Option<i32>, runs, update| Shape {
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
                Some("Recreate") => Some(Rolling::Recreate),
                _ => s.rolling_update.as_ref().map(|r| Rolling::By {
                    surge: number(&r.max_surge),
                    unavailable: number(&r.max_unavailable),
                    watch: spec.min_ready_seconds.unwrap_or(0),
                }),
            });
            base(all.metadata, spec.template, spec.replicas, Runs::Always, update)
        }
        "DaemonSet" => {
            let all: DaemonSet = typed(object)?;
            let spec = all.spec?;
            let update =
                spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref()).map(|r| Rolling::By {
                    surge: number(&r.max_surge),
                    unavailable: number(&r.max_unavailable),
                    watch: spec.min_ready_seconds.unwrap_or(0),
                });
            base(all.metadata, spec.template, None, Runs::Everywhere, update)
        }
        "Job" => {
            let all: Job = typed(object)?;
            let spec = all.spec?;
            let runs = Runs::Once(spec.backoff_limit.unwrap_or(6));
            base(all.metadata, spec.template, spec.completions, runs, None)
        }
        "StatefulSet" => {
            let all: StatefulSet = typed(object)?;
            let spec = all.spec?;
            base(all.metadata, spec.template, spec.replicas, Runs::Always, None)
        }
        "ReplicaSet" => {
            let all: ReplicaSet = typed(object)?;
            let spec = all.spec?;
            base(all.metadata, spec.template?, spec.replicas, Runs::Always, None)
        }
        "ReplicationController" => {
            let all: ReplicationController = typed(object)?;
            let spec = all.spec?;
            base(all.metadata, spec.template?, spec.replicas, Runs::Always, None)
        }
        "Pod" => {
            let all: Pod = typed(object)?;
            let once = all.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
            let runs = match once {
                Some("Never") => Runs::Once(0),
                Some("OnFailure") => Runs::Once(6),
                _ => Runs::Always,
            };
            let template = PodTemplateSpec { metadata: Some(all.metadata.clone()), spec: all.spec };
            base(all.metadata, template, None, runs, None)
        }
        _ => return None,
    })
}

/// A number of Pods; a share of them is at least one.
fn number(value: &Option<IntOrString>) -> i32 {
    match value {
        Some(IntOrString::Int(n)) => *n,
        Some(IntOrString::String(share)) if !share.starts_with('0') => 1,
        _ => 0,
    }
}
