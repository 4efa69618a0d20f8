//! `deploy`, limits and devices.

use indexmap::IndexMap;

use crate::{
    compose::{
        fields::{self, Fields},
        load::Loader,
        model::{Blkio, Deploy, DeviceRequest, Resources, RestartPolicy, Ulimit, UpdateConfig},
    },
    yaml::{Node, Value},
};

/// Reads `deploy`.
pub(super) fn read(node: &Node, path: String, loader: &mut Loader) -> Option<Deploy> {
    if node.is_null() {
        return None;
    }
    let mut f = Fields::open(node, path, loader)?;
    let mut deploy = Deploy {
        mode: f
            .word("mode", &["replicated", "global", "replicated-job", "global-job", ""], loader)
            .filter(|m| !m.is_empty()),
        endpoint_mode: f.text("endpoint_mode", loader),
        replicas: f.count("replicas", loader),
        labels: f.labels("labels", loader),
        update: f.node("update_config").and_then(|(node, path)| update(node, path, loader)),
        rollback: f.node("rollback_config").and_then(|(node, path)| update(node, path, loader)),
        restart: f.node("restart_policy").and_then(|(node, path)| restart(node, path, loader)),
        ..Deploy::default()
    };
    if let Some(mut f) = f.node("resources").and_then(|(node, path)| Fields::open(node, path, loader)) {
        deploy.limits = f.node("limits").and_then(|(node, path)| resources(node, path, false, loader));
        deploy.reservations =
            f.node("reservations").and_then(|(node, path)| resources(node, path, true, loader));
        f.close(loader);
    }
    if let Some(mut f) = f.node("placement").and_then(|(node, path)| Fields::open(node, path, loader)) {
        deploy.constraints = f.texts("constraints", loader);
        deploy.spread = f.list("preferences", loader, |node, path, loader| {
            let mut f = Fields::open(node, path.into(), loader)?;
            let spread = f.text("spread", loader);
            f.close(loader);
            spread
        });
        deploy.max_replicas_per_node = f.count("max_replicas_per_node", loader);
        f.close(loader);
    }
    f.close(loader);
    Some(deploy)
}

fn update(node: &Node, path: String, loader: &mut Loader) -> Option<UpdateConfig> {
    let mut f = Fields::open(node, path, loader)?;
    let update = UpdateConfig {
        parallelism: f.count("parallelism", loader),
        delay: f.duration("delay", loader),
        failure_action: f.text("failure_action", loader),
        monitor: f.duration("monitor", loader),
        max_failure_ratio: f.number("max_failure_ratio", loader),
        order: f.word("order", &["start-first", "stop-first"], loader),
    };
    f.close(loader);
    Some(update)
}

fn restart(node: &Node, path: String, loader: &mut Loader) -> Option<RestartPolicy> {
    let mut f = Fields::open(node, path, loader)?;
    let policy = RestartPolicy {
        condition: f.text("condition", loader),
        delay: f.duration("delay", loader),
        max_attempts: f.count("max_attempts", loader),
        window: f.duration("window", loader),
    };
    f.close(loader);
    Some(policy)
}

fn resources(node: &Node, path: String, reserved: bool, loader: &mut Loader) -> Option<Resources> {
    let mut f = Fields::open(node, path, loader)?;
    let mut resources = Resources {
        cpus: f.number("cpus", loader),
        memory: f.node("memory").and_then(|(node, path)| {
            fields::text(node, &path, loader)?;
            u64::try_from(fields::signed_bytes(node, &path, loader)?).ok()
        }),
        ..Resources::default()
    };
    if reserved {
        resources.devices =
            f.node("devices").map(|(n, path)| device_requests(n, &path, true, loader)).unwrap_or_default();
        resources.generic = f.list("generic_resources", loader, generic);
    } else {
        resources.pids = f.int("pids", loader);
    }
    f.close(loader);
    Some(resources)
}

fn generic(node: &Node, path: &str, loader: &mut Loader) -> Option<(String, i64)> {
    let mut f = Fields::open(node, path.into(), loader)?;
    let inner = f.node("discrete_resource_spec");
    f.close(loader);
    let (node, path) = inner?;
    let mut f = Fields::open(node, path, loader)?;
    let resource = (f.text("kind", loader), f.int("value", loader));
    f.close(loader);
    Some((resource.0?, resource.1?))
}

/// Reads `gpus`: `all` or a list.
pub(super) fn gpus(node: &Node, path: &str, loader: &mut Loader) -> Vec<DeviceRequest> {
    let all = DeviceRequest { capabilities: vec!["gpu".into()], count: Some(-1), ..DeviceRequest::default() };
    match &node.value {
        Value::Scalar(scalar) if scalar.text == "all" => vec![all],
        Value::Scalar(_) => {
            fields::wrong(node, path, "all or a list", loader);
            Vec::new()
        }
        _ => {
            let mut requests = device_requests(node, path, false, loader);
            for request in requests.iter_mut().filter(|r| r.capabilities.is_empty()) {
                request.capabilities = all.capabilities.clone();
            }
            requests
        }
    }
}

/// Reads a list of requests for devices.
fn device_requests(
    node: &Node,
    path: &str,
    needs_capabilities: bool,
    loader: &mut Loader,
) -> Vec<DeviceRequest> {
    let items = fields::list(node, path, loader).iter().enumerate();
    items
        .filter_map(|(i, item)| device_request(item, format!("{path}[{i}]"), needs_capabilities, loader))
        .collect()
}

fn device_request(
    node: &Node,
    path: String,
    needs_capabilities: bool,
    loader: &mut Loader,
) -> Option<DeviceRequest> {
    let mut f = Fields::open(node, path, loader)?;
    let count = f.node("count").and_then(|(node, path)| match node.printed().as_deref() {
        Some("all") => Some(-1),
        _ => fields::int(node, &path, loader),
    });
    let mut request = DeviceRequest {
        capabilities: f.texts("capabilities", loader),
        count,
        device_ids: f.texts("device_ids", loader),
        driver: f.text("driver", loader),
        options: f.labels("options", loader),
    };
    let path = f.path.clone();
    f.close(loader);
    if needs_capabilities && node.get("capabilities").is_none() {
        loader.found.error(&node.at, format!("{path} needs capabilities, such as [gpu]"));
    }
    match (request.count.is_some(), request.device_ids.is_empty()) {
        (true, false) => {
            loader.found.error(&node.at, format!("{path} has both count and device_ids: choose one"))
        }
        (false, true) => request.count = Some(-1),
        _ => {}
    }
    Some(request)
}

/// Reads `ulimits`: a number for both limits, or `soft` and `hard`.
pub(super) fn ulimits(node: &Node, path: &str, loader: &mut Loader) -> IndexMap<String, Ulimit> {
    let mut all = IndexMap::new();
    for (name, entry) in fields::mapping(node, path, loader).into_iter().flatten() {
        let path = format!("{path}.{name}");
        let limit = if entry.value.as_mapping().is_some() {
            let Some(mut f) = Fields::open(&entry.value, path.clone(), loader) else { continue };
            let limits = (f.int("soft", loader), f.int("hard", loader));
            f.close(loader);
            let (Some(soft), Some(hard)) = limits else {
                if entry.value.get("soft").is_none() || entry.value.get("hard").is_none() {
                    loader.found.error(&entry.at, format!("{path} needs both soft and hard"));
                }
                continue;
            };
            Ulimit { soft, hard }
        } else {
            let Some(both) = fields::int(&entry.value, &path, loader) else { continue };
            Ulimit { soft: both, hard: both }
        };
        all.insert(name.clone(), limit);
    }
    all
}

/// Reads `blkio_config`.
pub(super) fn blkio(node: &Node, path: String, loader: &mut Loader) -> Option<Blkio> {
    let mut f = Fields::open(node, path, loader)?;
    let rate = |node: &Node, path: &str, loader: &mut Loader| {
        let mut f = Fields::open(node, path.into(), loader)?;
        let limit = (f.text("path", loader), f.bytes("rate", loader));
        f.close(loader);
        Some((limit.0?, limit.1?))
    };
    let blkio = Blkio {
        weight: f.int("weight", loader),
        weight_device: f.list("weight_device", loader, |node, path, loader| {
            let mut f = Fields::open(node, path.into(), loader)?;
            let weight = (f.text("path", loader), f.int("weight", loader));
            f.close(loader);
            Some((weight.0?, weight.1?))
        }),
        device_read_bps: f.list("device_read_bps", loader, rate),
        device_read_iops: f.list("device_read_iops", loader, rate),
        device_write_bps: f.list("device_write_bps", loader, rate),
        device_write_iops: f.list("device_write_iops", loader, rate),
    };
    f.close(loader);
    Some(blkio)
}
