//! One service out of a tree: [`read`] goes through every field of the specification, and those of versions 1 and 2.

mod build;
mod deploy;
mod short;
mod sources;

use indexmap::IndexMap;

use super::{
    fields::{self, Fields},
    load::{Environment, Loader},
    model::*,
    units,
};
use crate::{
    diagnostic::Position,
    yaml::{Entry, Node, Value, scalar::ScalarMeaning},
};

/// Fields whose own fields have places in [`Service::places`].
const NESTED: [&str; 6] =
    ["build", "deploy", "deploy.resources", "deploy.placement", "healthcheck", "logging"];

/// Reads the service `name`. `environment` gives names without a value theirs.
pub(super) fn read(
    name: &str,
    entry: &Entry,
    environment: &Environment,
    loader: &mut Loader,
) -> Option<Service> {
    let mut fields = Fields::open(&entry.value, format!("services.{name}"), loader)?;
    let mut service = Service { name: name.into(), at: entry.at.clone(), ..Service::default() };
    places(&entry.value, &mut service);
    process(&mut fields, &mut service, loader);
    resources(&mut fields, &mut service, loader);
    isolation(&mut fields, &mut service, loader);
    network(&mut fields, &mut service, loader);
    storage(&mut fields, &mut service, loader);
    life(&mut fields, &mut service, environment, loader);
    sources::read(&mut fields, &mut service, environment, loader);
    old(&mut fields, &mut service, loader);
    // What was extended is gone from the tree; what is left had a mistake.
    fields.entry("extends");
    fields.close(loader);
    Some(service)
}

fn places(node: &Node, service: &mut Service) {
    let mut add = |path: &str, node: &Node| {
        for (key, entry) in node.as_mapping().into_iter().flatten().filter(|(key, _)| !key.starts_with("x-"))
        {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            service.places.insert(path, entry.at.clone());
        }
    };
    add("", node);
    for path in NESTED {
        if let Some(node) = node.find(path.split('.')) {
            add(path, node);
        }
    }
}

/// What runs, as whom, with which words.
fn process(f: &mut Fields<'_>, service: &mut Service, loader: &mut Loader) {
    service.image = f.text("image", loader);
    let empty =
        |node: &&Node| matches!(&node.value, Value::Scalar(s) if s.text.is_empty() && !node.is_null());
    service.empty_image = f.node("image").map(|(node, _)| node).filter(empty).map(|node| node.at.clone());
    service.command = command(f, "command", loader);
    service.entrypoint = command(f, "entrypoint", loader);
    service.working_dir = f.text("working_dir", loader);
    service.user = f.text("user", loader);
    service.group_add = f.list("group_add", loader, fields::text_or_number);
    service.hostname = f.text("hostname", loader);
    service.domainname = f.text("domainname", loader);
    service.container_name = f.text("container_name", loader);
    service.platform = f.text("platform", loader);
    service.pull_policy = f.text("pull_policy", loader);
    service.pull_refresh_after = f.text("pull_refresh_after", loader);
    service.runtime = f.text("runtime", loader);
    service.init = f.bool("init", loader);
    if let Some((node, _)) = f.node("exclude_from_hc") {
        let at = node.at.clone();
        let sentence =
            "exclude_from_hc, a field of Coolify, has no effect: each service's health is told by itself";
        loader.found.warn(&at, sentence);
    }
    service.tty = f.bool("tty", loader);
    service.stdin_open = f.bool("stdin_open", loader);
    service.attach = f.bool("attach", loader);
    service.annotations = f.labels("annotations", loader);
    service.provider = f.node("provider").and_then(|(node, path)| provider(node, path, loader));
    if let Some((node, path)) = f.node("models") {
        service.models = models(node, &path, loader);
    }
}

/// A command as a list, or as text that is split as a shell would.
fn command(f: &mut Fields<'_>, key: &'static str, loader: &mut Loader) -> Option<Vec<String>> {
    let (node, path) = f.node(key)?;
    words(node, &path, loader)
}

pub(super) fn words(node: &Node, path: &str, loader: &mut Loader) -> Option<Vec<String>> {
    match &node.value {
        Value::Sequence(items) => {
            let numbered = items.iter().enumerate();
            Some(numbered.filter_map(|(i, n)| fields::text(n, &format!("{path}[{i}]"), loader)).collect())
        }
        Value::Scalar(_) if node.is_null() => None,
        _ => {
            let text = fields::text(node, path, loader)?;
            let split = units::shell_words(&text)
                .map_err(|reason| loader.found.error(&node.at, format!("{path} {reason}")))
                .ok()?;
            if let Some(rest) = split.left_out.filter(|rest| rest != ";") {
                let start: String = rest.chars().take(30).collect();
                let sentence =
                    format!("{path} ends before {start:?}, as no shell reads it: write sh -c \"...\"");
                loader.found.warn(&node.at, sentence);
            }
            Some(split.words)
        }
    }
}

fn provider(node: &Node, path: String, loader: &mut Loader) -> Option<Provider> {
    let mut f = Fields::open(node, path, loader)?;
    let kind = f.text("type", loader);
    let mut options = IndexMap::new();
    if let Some((node, path)) = f.node("options") {
        for (key, entry) in fields::mapping(node, &path, loader).into_iter().flatten() {
            let path = format!("{path}.{key}");
            let values = match &entry.value.value {
                Value::Sequence(items) => items.as_slice(),
                _ => std::slice::from_ref(&entry.value),
            };
            let texts = values.iter().filter_map(|v| fields::scalar_text(v, &path, loader).flatten());
            options.insert(key.clone(), texts.collect());
        }
    }
    let (at, path) = (f.at.clone(), f.path.clone());
    f.close(loader);
    let Some(kind) = kind else {
        loader.found.error(&at, format!("{path} needs a type"));
        return None;
    };
    Some(Provider { kind, options })
}

fn models(node: &Node, path: &str, loader: &mut Loader) -> IndexMap<String, ModelReference> {
    if node.as_sequence().is_some() {
        let names = fields::texts(node, path, loader);
        return names.into_iter().map(|name| (name, ModelReference::default())).collect();
    }
    let mut all = IndexMap::new();
    for (name, entry) in fields::mapping(node, path, loader).into_iter().flatten() {
        let mut reference = ModelReference::default();
        if !entry.value.is_null() {
            let Some(mut f) = Fields::open(&entry.value, format!("{path}.{name}"), loader) else { continue };
            reference.endpoint_var = f.text("endpoint_var", loader);
            reference.model_var = f.text("model_var", loader);
            f.close(loader);
        }
        all.insert(name.clone(), reference);
    }
    all
}

/// How much of the machine it may have.
fn resources(f: &mut Fields<'_>, service: &mut Service, loader: &mut Loader) {
    service.blkio = f.node("blkio_config").and_then(|(node, path)| deploy::blkio(node, path, loader));
    service.cpu_count = f.int("cpu_count", loader);
    service.cpu_percent = f.number("cpu_percent", loader);
    service.cpu_period = duration_or_int(f, "cpu_period", loader);
    service.cpu_quota = f.int("cpu_quota", loader);
    service.cpu_rt_period = duration_or_int(f, "cpu_rt_period", loader);
    service.cpu_rt_runtime = duration_or_int(f, "cpu_rt_runtime", loader);
    service.cpu_shares = f.int("cpu_shares", loader);
    service.cpus = f.number("cpus", loader);
    service.cpuset = f.text("cpuset", loader);
    service.mem_limit = f.bytes("mem_limit", loader);
    service.mem_reservation = f.bytes("mem_reservation", loader);
    service.mem_swappiness = f.int("mem_swappiness", loader);
    service.memswap_limit =
        f.node("memswap_limit").and_then(|(n, path)| fields::signed_bytes(n, &path, loader));
    service.oom_kill_disable = f.bool("oom_kill_disable", loader);
    service.oom_score_adj = f.int("oom_score_adj", loader);
    service.pids_limit = f.int("pids_limit", loader);
    service.shm_size = f.bytes("shm_size", loader);
    if let Some((node, path)) = f.node("ulimits") {
        service.ulimits = deploy::ulimits(node, &path, loader);
    }
    if let Some((node, path)) = f.node("gpus") {
        service.gpus = deploy::gpus(node, &path, loader);
    }
}

/// Microseconds, or a duration such as `1400us`.
fn duration_or_int(f: &mut Fields<'_>, key: &'static str, loader: &mut Loader) -> Option<i64> {
    let (node, path) = f.node(key)?;
    if node.meaning() == Some(ScalarMeaning::Text) {
        let duration = node.printed().and_then(|t| units::duration(&t));
        if let Some(micros) = duration.and_then(|d| i64::try_from(d.as_micros()).ok()) {
            return Some(micros);
        }
    }
    fields::int(node, &path, loader)
}

/// What it may do on the machine.
fn isolation(f: &mut Fields<'_>, service: &mut Service, loader: &mut Loader) {
    service.cap_add = f.texts("cap_add", loader);
    service.cap_drop = f.texts("cap_drop", loader);
    service.cgroup = f.word("cgroup", &["host", "private"], loader);
    service.cgroup_parent = f.text("cgroup_parent", loader);
    service.device_cgroup_rules = f.texts("device_cgroup_rules", loader);
    service.devices = unique(f.list("devices", loader, short::device), |d| d.target.clone());
    service.ipc = f.text("ipc", loader);
    service.isolation = f.text("isolation", loader);
    service.pid =
        f.node("pid").filter(|(n, _)| !n.is_null()).and_then(|(n, path)| fields::text(n, &path, loader));
    service.privileged = f.bool("privileged", loader);
    service.read_only = f.bool("read_only", loader);
    service.security_opt = f.texts("security_opt", loader);
    service.storage_opt = f.options("storage_opt", loader);
    service.sysctls = f.labels("sysctls", loader);
    service.use_api_socket = f.bool("use_api_socket", loader);
    service.userns_mode = f.text("userns_mode", loader);
    service.uts = f.text("uts", loader);
    service.credential_spec = f.node("credential_spec").and_then(|(node, path)| {
        let mut f = Fields::open(node, path, loader)?;
        let spec = CredentialSpec {
            config: f.text("config", loader),
            file: f.text("file", loader),
            registry: f.text("registry", loader),
        };
        f.close(loader);
        Some(spec)
    });
}

/// Whom it reaches and who reaches it.
fn network(f: &mut Fields<'_>, service: &mut Service, loader: &mut Loader) {
    service.dns = f.text_or_list("dns", loader);
    service.dns_opt = f.texts("dns_opt", loader);
    service.dns_search = f.text_or_list("dns_search", loader);
    let exposed = f.list("expose", loader, short::exposed).into_iter().flatten().collect();
    service.expose = unique(exposed, |e: &Exposed| (e.port, e.protocol.clone()));
    service.external_links = f.list("external_links", loader, short::link);
    service.links = f.list("links", loader, short::link);
    if let Some((node, path)) = f.node("extra_hosts") {
        service.extra_hosts = short::extra_hosts(node, &path, loader);
    }
    service.mac_address = f.text("mac_address", loader);
    service.network_mode = f.text("network_mode", loader).map(|mode| network_mode(&mode));
    if let Some((node, path)) = f.node("networks") {
        service.networks = attachments(node, &path, loader);
    }
    let ports = f.list("ports", loader, short::ports).into_iter().flatten().collect();
    service.ports =
        unique(ports, |p: &PortMapping| (p.host_ip.clone(), p.published, p.target, p.protocol.clone()));
}

pub(super) fn network_mode(mode: &str) -> NetworkMode {
    match (mode, mode.split_once(':')) {
        ("none", _) => NetworkMode::None,
        ("host", _) => NetworkMode::Host,
        ("bridge" | "default" | "", _) => NetworkMode::Bridge,
        (_, Some(("service", name))) => NetworkMode::Service(name.into()),
        (_, Some(("container", name))) => NetworkMode::Container(name.into()),
        _ => NetworkMode::Network(mode.into()),
    }
}

fn attachments(node: &Node, path: &str, loader: &mut Loader) -> IndexMap<String, Attachment> {
    let mut all = IndexMap::new();
    if let Some(items) = node.as_sequence() {
        for (i, item) in items.iter().enumerate() {
            if let Some(name) = fields::text(item, &format!("{path}[{i}]"), loader) {
                all.insert(name, Attachment { at: item.at.clone(), ..Attachment::default() });
            }
        }
        return all;
    }
    for (name, entry) in fields::mapping(node, path, loader).into_iter().flatten() {
        let mut attachment = Attachment { at: entry.at.clone(), ..Attachment::default() };
        if !entry.value.is_null() {
            let Some(mut f) = Fields::open(&entry.value, format!("{path}.{name}"), loader) else { continue };
            attachment.aliases = f.texts("aliases", loader);
            attachment.interface_name = f.text("interface_name", loader);
            attachment.ipv4_address = f.text("ipv4_address", loader);
            attachment.ipv6_address = f.text("ipv6_address", loader);
            attachment.link_local_ips = f.texts("link_local_ips", loader);
            attachment.mac_address = f.text("mac_address", loader);
            attachment.driver_opts = f.options("driver_opts", loader);
            attachment.priority = f.int("priority", loader);
            attachment.gw_priority = f.int("gw_priority", loader);
            f.close(loader);
        }
        all.insert(name.clone(), attachment);
    }
    all
}

/// What it keeps and reads.
fn storage(f: &mut Fields<'_>, service: &mut Service, loader: &mut Loader) {
    service.volumes = unique(f.list("volumes", loader, short::mount), |m| m.target.clone());
    service.volumes_from = f.list("volumes_from", loader, short::volumes_from);
    service.tmpfs = f.text_or_list("tmpfs", loader);
    let configs = f.list("configs", loader, short::file_reference);
    service.configs = unique(configs, |c| c.target.clone().unwrap_or_else(|| format!("/{}", c.source)));
    let secrets = f.list("secrets", loader, short::file_reference);
    service.secrets =
        unique(secrets, |s| s.target.clone().unwrap_or_else(|| format!("/run/secrets/{}", s.source)));
    service.volume_driver = f.text("volume_driver", loader);
}

/// When it starts and ends, how many there are, and how it shows that it is well.
fn life(f: &mut Fields<'_>, service: &mut Service, environment: &Environment, loader: &mut Loader) {
    service.build = f.node("build").and_then(|(node, path)| build::read(node, path, environment, loader));
    service.develop = f.node("develop").and_then(|(node, path)| build::develop(node, path, loader));
    service.deploy = f.node("deploy").and_then(|(node, path)| deploy::read(node, path, loader));
    service.scale = f.count("scale", loader);
    if let Some((node, path)) = f.node("depends_on") {
        service.depends_on = dependencies(node, &path, loader);
    }
    service.healthcheck = f.node("healthcheck").and_then(|(node, path)| healthcheck(node, path, loader));
    service.restart = f.node("restart").and_then(|(node, path)| restart(node, &path, loader));
    service.stop_grace_period = f.duration("stop_grace_period", loader);
    service.stop_signal = f.text("stop_signal", loader);
    service.profiles = f.texts("profiles", loader);
    service.pre_start = f.list("pre_start", loader, build::hook);
    service.post_start = f.list("post_start", loader, build::hook);
    service.pre_stop = f.list("pre_stop", loader, build::hook);
    service.logging = f.node("logging").and_then(|(node, path)| {
        let mut f = Fields::open(node, path, loader)?;
        let logging = Logging { driver: f.text("driver", loader), options: f.options("options", loader) };
        f.close(loader);
        Some(logging)
    });
}

fn dependencies(node: &Node, path: &str, loader: &mut Loader) -> IndexMap<String, Dependency> {
    let started = |at: &Position| Dependency { at: at.clone(), required: true, ..Dependency::default() };
    let mut all = IndexMap::new();
    if let Some(items) = node.as_sequence() {
        for (i, item) in items.iter().enumerate() {
            if let Some(name) = fields::text(item, &format!("{path}[{i}]"), loader) {
                all.insert(name, started(&item.at));
            }
        }
        return all;
    }
    for (name, entry) in fields::mapping(node, path, loader).into_iter().flatten() {
        let mut dependency = started(&entry.at);
        // Two lists laid over each other have names with nothing.
        if !entry.value.is_null() {
            let Some(mut f) = Fields::open(&entry.value, format!("{path}.{name}"), loader) else { continue };
            let words = ["service_started", "service_healthy", "service_completed_successfully"];
            dependency.condition = match f.word("condition", &words, loader).as_deref() {
                Some("service_healthy") => Condition::Healthy,
                Some("service_completed_successfully") => Condition::Completed,
                _ => Condition::Started,
            };
            dependency.restart = f.bool("restart", loader).unwrap_or_default();
            dependency.required = f.bool("required", loader).unwrap_or(true);
            f.close(loader);
        }
        all.insert(name.clone(), dependency);
    }
    all
}

fn healthcheck(node: &Node, path: String, loader: &mut Loader) -> Option<Healthcheck> {
    let mut f = Fields::open(node, path, loader)?;
    let mut check = Healthcheck { at: node.at.clone(), ..Healthcheck::default() };
    if let Some((node, path)) = f.node("test") {
        check.test = match &node.value {
            Value::Sequence(_) => fields::list(node, &path, loader)
                .iter()
                .filter_map(|n| fields::text(n, &path, loader))
                .collect(),
            _ => fields::text(node, &path, loader)
                .into_iter()
                .flat_map(|t| ["CMD-SHELL".to_string(), t])
                .collect(),
        };
        let first = check.test.first().map(String::as_str);
        if !matches!(first, None | Some("CMD" | "CMD-SHELL" | "NONE")) {
            let sentence = format!("{path} is a list, so it has to begin with CMD, CMD-SHELL or NONE");
            loader.found.error(&node.at, sentence);
        }
    }
    check.interval = f.duration("interval", loader);
    check.timeout = f.duration("timeout", loader);
    check.start_period = f.duration("start_period", loader);
    check.start_interval = f.duration("start_interval", loader);
    check.retries = f.count("retries", loader);
    let disabled = f.bool("disable", loader).unwrap_or_default();
    check.disable = disabled || check.test.first().is_some_and(|t| t == "NONE");
    f.close(loader);
    Some(check)
}

fn restart(node: &Node, path: &str, loader: &mut Loader) -> Option<Restart> {
    let text = fields::text(node, path, loader)?;
    let attempts = |text: &str| text.strip_prefix("on-failure:").and_then(|n| n.parse().ok());
    match text.as_str() {
        "no" | "" => Some(Restart::No),
        "always" => Some(Restart::Always),
        "unless-stopped" => Some(Restart::UnlessStopped),
        "on-failure" => Some(Restart::OnFailure(None)),
        other => {
            let found = attempts(other).map(|n| Restart::OnFailure(Some(n)));
            if found.is_none() {
                let sentence = format!(
                    "{path} has to be no, always, unless-stopped, on-failure or on-failure:3, not {other:?}"
                );
                loader.found.error(&node.at, sentence);
            }
            found
        }
    }
}

/// Fields that later versions have renamed.
fn old(f: &mut Fields<'_>, service: &mut Service, loader: &mut Loader) {
    let said = |f: &Fields<'_>, key: &str, now: &str, loader: &mut Loader, entry: &Entry| {
        let sentence = format!("{}.{key} is of version 1: today it is {now}", f.path);
        loader.found.warn(&entry.at, sentence);
    };
    if let Some(entry) = f.entry("net") {
        said(f, "net", "network_mode", loader, entry);
        service.network_mode = fields::text(&entry.value, "net", loader).map(|mode| network_mode(&mode));
    }
    if let Some(entry) = f.entry("dockerfile") {
        said(f, "dockerfile", "build.dockerfile", loader, entry);
        let dockerfile = fields::text(&entry.value, "dockerfile", loader);
        if let Some(build) = &mut service.build {
            build.dockerfile = dockerfile;
        }
    }
    for key in ["log_driver", "log_opt"] {
        if let Some(entry) = f.entry(key) {
            said(f, key, "logging", loader, entry);
            let logging = service.logging.get_or_insert_default();
            if key == "log_driver" {
                logging.driver = fields::text(&entry.value, key, loader);
            } else {
                let all = fields::pairs(&entry.value, key, loader);
                logging.options = all.into_iter().map(|(k, v)| (k, v.unwrap_or_default())).collect();
            }
        }
    }
}

/// Of items with one key the last, in the place of the first.
fn unique<T, K: Eq + std::hash::Hash>(items: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut all: IndexMap<K, T> = IndexMap::new();
    for item in items {
        all.insert(key(&item), item);
    }
    all.into_values().collect()
}
