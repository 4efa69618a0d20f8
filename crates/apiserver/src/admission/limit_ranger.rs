//! LimitRanges: defaults and bounds of what the containers of a Namespace, its Pods and its claims may ask for.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};
use yado_types::quantity::Quantity;

use super::reinvocation::Reinvocation;
use super::{Plugin, Review};
use crate::edit::{list, map_at, objects, text, within};
use crate::kinds::pod_spec::amounts::{Amounts, amounts, of_pod, shown};
use crate::object::Object;
use crate::resource;
use crate::server::Inner;
use crate::status::{Failure, Result};
use crate::write::context::{Operation, WriteContext};

/// Annotation that lists the defaults that were filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

pub(super) struct LimitRanger;

/// Whether LimitRanges apply to the write: creates of Pods, and writes of claims.
fn is_bounded(ctx: &WriteContext<'_>) -> bool {
    let plural = &*ctx.resource.plural;
    let of_pods = plural == "pods" && ctx.operation == Operation::Create;
    let of_claims = plural == "persistentvolumeclaims" && ctx.operation != Operation::Delete;
    ctx.resource.group.is_empty() && ctx.subresource.is_none() && (of_pods || of_claims)
}

#[async_trait]
impl Plugin for LimitRanger {
    fn handles(&self, ctx: &WriteContext<'_>, namespace: &str) -> bool {
        is_bounded(ctx) && !ranges(ctx.server, namespace).is_empty()
    }

    fn mutates(&self) -> bool {
        true
    }

    async fn mutate(
        &self,
        review: &Review<'_>,
        object: &mut Value,
        _reinvocation: &mut Reinvocation,
    ) -> Result<()> {
        if review.ctx.resource.plural == "pods" {
            let items = items(review.ctx.server, review.namespace);
            fill_pod(object, items.iter().filter(|item| item["type"] == "Container"));
        }
        Ok(())
    }

    async fn validate(&self, review: &Review<'_>, object: Option<&Value>) -> Result<()> {
        let Some(object) = object else { return Ok(()) };
        let items = items(review.ctx.server, review.namespace);
        let broken: Vec<String> = match &*review.ctx.resource.plural {
            "pods" => items.iter().flat_map(|item| broken_by_pod(item, object)).collect(),
            _ => items.iter().flat_map(|item| broken_by_claim(item, object)).collect(),
        };
        match broken.as_slice() {
            [] => Ok(()),
            [only] => Err(Failure::forbidden(review.ctx.resource, review.name, only)),
            all => {
                Err(Failure::forbidden(review.ctx.resource, review.name, &format!("[{}]", all.join(", "))))
            }
        }
    }
}

/// The LimitRanges of a Namespace.
fn ranges(server: &Inner, namespace: &str) -> Vec<Arc<Object>> {
    let ranges = resource::find("", "v1", "limitranges").and_then(|ranges| server.collection(ranges).ok());
    ranges.map(|ranges| ranges.list(namespace, None, 0, |_| true).objects).unwrap_or_default()
}

/// The items of all LimitRanges of a Namespace.
fn items(server: &Inner, namespace: &str) -> Vec<Value> {
    ranges(server, namespace)
        .iter()
        .flat_map(|range| list(&range.value()["spec"]["limits"]).to_vec())
        .collect()
}

/// Fills in the requests and limits that the containers of a Pod leave open.
fn fill_pod<'a>(pod: &mut Value, items: impl Iterator<Item = &'a Value>) {
    let mut filled = Vec::new();
    for item in items {
        let Some(spec) = map_at(pod, &["spec"]) else { return };
        for containers in ["containers", "initContainers"] {
            for container in objects(spec, containers) {
                let name = container.get("name").map(text).unwrap_or_default().to_owned();
                let Some(resources) = within(container, "resources") else { continue };
                for (field, from) in [("requests", "defaultRequest"), ("limits", "default")] {
                    let added = fill_resources(resources, field, &item[from]);
                    if !added.is_empty() {
                        let kind = field.trim_end_matches('s');
                        let what = if containers == "containers" { "container" } else { "init container" };
                        filled.push(format!("{} {kind} for {what} {name}", added.join(", ")));
                    }
                }
            }
        }
    }
    if !filled.is_empty()
        && let Some(annotations) = map_at(pod, &["metadata", "annotations"])
    {
        let said = format!("LimitRanger plugin set: {}", filled.join("; "));
        annotations.insert(ANNOTATION.into(), said.into());
    }
}

fn fill_resources(resources: &mut Map<String, Value>, field: &str, defaults: &Value) -> Vec<String> {
    let Some(defaults) = defaults.as_object().filter(|defaults| !defaults.is_empty()) else {
        return Vec::new();
    };
    let Some(values) = within(resources, field) else { return Vec::new() };
    let mut added: Vec<String> = Vec::new();
    for (name, value) in defaults {
        if !values.contains_key(name) {
            values.insert(name.clone(), value.clone());
            added.push(name.clone());
        }
    }
    added.sort_unstable();
    added
}

/// The bounds of an item that a Pod breaks.
fn broken_by_pod(item: &Value, pod: &Value) -> Vec<String> {
    let spec = &pod["spec"];
    let of = |container: &Value| {
        (amounts(&container["resources"]["requests"]), amounts(&container["resources"]["limits"]))
    };
    let containers = || list(&spec["initContainers"]).iter().chain(list(&spec["containers"]));
    match text(&item["type"]) {
        "Container" => containers()
            .flat_map(|container| {
                let (requests, limits) = of(container);
                broken(item, "Container", &requests, &limits)
            })
            .collect(),
        "Pod" => broken(item, "Pod", &of_pod(spec, "requests"), &of_pod(spec, "limits")),
        _ => Vec::new(),
    }
}

/// The bounds of an item that a claim breaks. A claim has no limits, so its request is compared with both bounds.
fn broken_by_claim(item: &Value, claim: &Value) -> Vec<String> {
    if text(&item["type"]) != "PersistentVolumeClaim" {
        return Vec::new();
    }
    let storage = |amounts: Amounts| amounts.get("storage").copied();
    let request = storage(amounts(&claim["spec"]["resources"]["requests"])).unwrap_or_default();
    let low = storage(amounts(&item["min"])).filter(|min| request < *min).map(|min| ("minimum", min));
    let high = storage(amounts(&item["max"])).filter(|max| request > *max).map(|max| ("maximum", max));
    let say = |(which, bound): (&str, Quantity)| {
        let (bound, request) = (shown("storage", bound), shown("storage", request));
        format!("{which} storage usage per PersistentVolumeClaim is {bound}, but request is {request}")
    };
    low.into_iter().chain(high).map(say).collect()
}

/// The bounds of an item that these requests and limits do not keep, in Kubernetes' words.
fn broken(item: &Value, of: &str, requests: &Amounts, limits: &Amounts) -> Vec<String> {
    let mut found = Vec::new();
    for (name, min) in amounts(&item["min"]) {
        let head = format!("minimum {name} usage per {of} is {}", shown(&name, min));
        found.extend(match (requests.get(&name), limits.get(&name)) {
            (None, _) => Some(format!("{head}.  No request is specified")),
            (Some(request), _) if *request < min => {
                Some(format!("{head}, but request is {}", shown(&name, *request)))
            }
            (_, Some(limit)) if *limit < min => {
                Some(format!("{head}, but limit is {}", shown(&name, *limit)))
            }
            _ => None,
        });
    }
    for (name, max) in amounts(&item["max"]) {
        let head = format!("maximum {name} usage per {of} is {}", shown(&name, max));
        found.extend(match (limits.get(&name), requests.get(&name)) {
            (None, _) => Some(format!("{head}.  No limit is specified")),
            (Some(limit), _) if *limit > max => {
                Some(format!("{head}, but limit is {}", shown(&name, *limit)))
            }
            (_, Some(request)) if *request > max => {
                Some(format!("{head}, but request is {}", shown(&name, *request)))
            }
            _ => None,
        });
    }
    for (name, most) in amounts(&item["maxLimitRequestRatio"]) {
        let head = format!("{name} max limit to request ratio per {of} is {most}");
        found.extend(match (limits.get(&name), requests.get(&name)) {
            (None, _) => Some(format!("{head}, but no limit is specified")),
            (_, None) => Some(format!("{head}, but no request is specified")),
            (Some(limit), Some(request)) if request.milli() > 0 => {
                let ratio = limit.milli() as f64 / request.milli() as f64;
                let is_broken = ratio * 1000.0 > most.milli() as f64;
                is_broken.then(|| format!("{head}, but provided ratio is {ratio:.6}"))
            }
            _ => Some(format!("{head}, but request is 0")),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_get_what_they_leave_open() {
        let item = json!({"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}});
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [
            {"name": "a"}, {"name": "b", "resources": {"limits": {"cpu": "2"}, "requests": {"cpu": "2"}}}]}});
        fill_pod(&mut pod, std::iter::once(&item));
        let expect = [
            json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "1", "memory": "1Gi"}}),
            json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "2"}}),
        ];
        for (i, expect) in expect.iter().enumerate() {
            assert_eq!(pod["spec"]["containers"][i]["resources"], *expect);
        }
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container a; cpu, memory limit for container a; memory limit for \
             container b"
        );
    }

    #[test]
    fn bounds_are_kept_or_named() {
        let resources = |requests: Value, limits: Value| json!({"spec": {"containers": [{"name": "a", "resources": {"requests": requests, "limits": limits}}]}});
        for (item, pod, expect) in [
            (
                json!({"type": "Container", "max": {"cpu": "1"}}),
                resources(json!({}), json!({"cpu": "2"})),
                "maximum cpu usage per Container is 1, but limit is 2",
            ),
            (
                json!({"type": "Container", "max": {"cpu": "1"}}),
                resources(json!({}), json!({})),
                "maximum cpu usage per Container is 1.  No limit is specified",
            ),
            (
                json!({"type": "Container", "max": {"cpu": "2000m"}}),
                resources(json!({"cpu": "1"}), json!({"cpu": "2"})),
                "",
            ),
            (
                json!({"type": "Container", "min": {"memory": "1Gi"}}),
                resources(json!({"memory": "100Mi"}), json!({})),
                "minimum memory usage per Container is 1Gi, but request is 100Mi",
            ),
            (
                json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}),
                resources(json!({"cpu": "100m"}), json!({"cpu": "300m"})),
                "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
            ),
            (
                json!({"type": "Pod", "max": {"cpu": "1"}}),
                json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "600m"}}}, {"resources": {"limits": {"cpu": "600m"}}}]}}),
                "maximum cpu usage per Pod is 1, but limit is 1200m",
            ),
        ] {
            assert_eq!(broken_by_pod(&item, &pod).join("; "), expect, "{item} {pod}");
        }
        let item =
            json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}});
        for (size, expect) in [
            ("500Mi", "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 500Mi"),
            ("2Gi", ""),
            ("3Gi", "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"),
        ] {
            let claim = json!({"spec": {"resources": {"requests": {"storage": size}}}});
            assert_eq!(broken_by_claim(&item, &claim).join("; "), expect);
        }
    }
}
