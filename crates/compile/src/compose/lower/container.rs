//! One service as a container, with what it asks of its Pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVar, ExecAction, Lifecycle, LifecycleHandler};

use yado_types::links;

use super::{
    super::model::{Hook, NetworkMode, Service},
    Lowering, build, deploy, health, remarks,
};
use crate::{
    diagnostic::Findings,
    workload::{
        amount,
        name::sanitised,
        pod::{ContainerMount, MountSource, PodFragment, Tmpfs, Unsupported, escape_references},
    },
};

/// Docker kills what has not ended this many seconds after it was asked to.
const STOP_GRACE: i64 = 10;

impl Lowering<'_> {
    /// Writes `service` into `part`.
    pub(super) fn container(&mut self, service: &Service, part: &mut PodFragment) {
        part.container.name = self.names.of(&service.name).object.clone();
        let image = build::image(service, &self.names.app);
        part.container.image = Some(image);
        part.container.image_pull_policy = Some(pull_policy(service, &mut self.found));
        self.environment(service, part);
        let found = &mut self.found;
        command(service, &mut part.container, found);
        part.container.working_dir.clone_from(&service.working_dir);
        part.container.tty = service.tty.filter(|t| *t);
        part.container.stdin = service.stdin_open.filter(|t| *t);
        part.restart(deploy::restart(service));
        security(service, part, found);
        system(service, part, found);
        network(service, part, found);
        // Nobody answers at an address that a service asked for in vain.
        let fixed = &self.fixed;
        if let Some(dns) = part.pod.dns_config.as_mut() {
            dns.nameservers.iter_mut().for_each(|all| all.retain(|s| !fixed.contains_key(s.as_str())));
            dns.nameservers = dns.nameservers.take().filter(|all| !all.is_empty());
        }
        deploy::resources(service, part, found);
        deploy::placement(service, part, found);
        health::probe(service, part, found);
        hooks(service, part, found);
        for (key, value) in service.labels.iter().chain(&service.annotations) {
            part.label(key, value);
        }
        self.mounts(service, part);
        self.file_mounts(service, part);
        remarks::without_effect(service, &mut self.found);
    }

    /// The service's own variables after those of its links.
    fn environment(&mut self, service: &Service, part: &mut PodFragment) {
        let mut env: BTreeMap<String, String> = BTreeMap::new();
        let mut order = Vec::new();
        let mut set = |name: &str, value: &str| {
            if env.insert(name.into(), value.into()).is_none() {
                order.push(name.to_string());
            }
        };
        // Only version 1 tells a container of its links by variables. In later ones DB_PORT would be taken for a number.
        for link in service.links.iter().filter(|_| self.project.version_1) {
            let Some(target) = self.project.services.get(&link.target) else { continue };
            let own = target.environment.iter().map(|(n, v)| (n.as_str(), v.as_str()));
            let host = self.joins.get(&link.target).unwrap_or(&link.target);
            let own_name = service.container_name.as_deref().unwrap_or(&service.name);
            let ports = &self.ports[host].exposed;
            if let (true, Some(image)) = (ports.is_empty(), &target.image) {
                part.link(&link.alias, image);
            }
            let ports = ports.iter().map(|p| (p.container, p.protocol.as_str()));
            for (name, value) in links::variables(own_name, &link.alias, ports, own) {
                set(&name, &value);
            }
        }
        if let Some(port) = build::told_port(service) {
            set("PORT", &port.to_string());
        }
        // What is written wins over what follows from links.
        for (name, value) in &service.environment {
            set(name, value);
        }
        let known = |name: &str| env.contains_key(name);
        let vars: Vec<EnvVar> = order
            .iter()
            .filter(|name| !name.is_empty())
            .map(|name| EnvVar {
                name: name.clone(),
                value: Some(escape_references(&env[name], &known)),
                value_from: None,
            })
            .collect();
        part.container.env = (!vars.is_empty()).then_some(vars);
    }
}

fn command(service: &Service, container: &mut Container, found: &mut Findings) {
    let env: Vec<&str> = container.env.iter().flatten().map(|e| e.name.as_str()).collect();
    let words = |words: &Vec<String>| -> Vec<String> {
        words.iter().map(|w| escape_references(w, &|name| env.contains(&name))).collect()
    };
    let args = service.command.as_ref().map(words).filter(|c| !c.is_empty());
    match service.entrypoint.as_ref().map(words) {
        // The image's entry point is taken away, so the command's first word is run.
        Some(entry) if entry.iter().all(String::is_empty) => {
            if args.is_none() {
                let sentence = "an empty entrypoint has no effect without a command";
                found.warn(service.place("entrypoint"), sentence);
            }
            container.command = args;
        }
        Some(entry) => (container.command, container.args) = (Some(entry), args),
        None => {
            if args.is_none() && service.command.is_some() {
                found
                    .warn(service.place("command"), "an empty command has no effect: the image's own is run");
            }
            container.args = args;
            let sources = build::sources(service).filter(|_| container.args.is_none());
            container.command = sources.and_then(|s| s.start);
        }
    }
}

fn pull_policy(service: &Service, found: &mut Findings) -> String {
    let written = service.pull_policy.as_deref().unwrap_or("missing");
    let policy = match written {
        "always" => "Always",
        "never" | "build" => "Never",
        "missing" | "if_not_present" => {
            // An image that is made here and has no name of its own is in no registry.
            if service.build.is_some() && service.image.is_none() { "Never" } else { "IfNotPresent" }
        }
        _ => {
            let sentence =
                format!("pull_policy {written} has no effect: the image is pulled where it is missing");
            found.warn(service.place("pull_policy"), sentence);
            "IfNotPresent"
        }
    };
    policy.into()
}

fn security(service: &Service, part: &mut PodFragment, found: &mut Findings) {
    if service.privileged == Some(true) {
        part.security().privileged = Some(true);
    }
    if service.read_only == Some(true) {
        part.security().read_only_root_filesystem = Some(true);
    }
    if let Some(user) = service.user.as_deref().filter(|u| !u.is_empty()) {
        part.user(user);
    }
    service.cap_add.iter().for_each(|c| part.capability(true, c));
    service.cap_drop.iter().for_each(|c| part.capability(false, c));
    for option in &service.security_opt {
        remark(part.security_opt(option), service, "security_opt", found);
    }
    for group in &service.group_add {
        remark(part.group(group), service, "group_add", found);
    }
    for device in &service.devices {
        let sentence = part.device(&format!("{}:{}", device.source, device.target));
        remark(sentence, service, "devices", found);
    }
}

/// What the kernel is told.
fn system(service: &Service, part: &mut PodFragment, found: &mut Findings) {
    for (key, value) in &service.sysctls {
        remark(part.sysctl(key, value), service, "sysctls", found);
    }
    service.ulimits.iter().for_each(|(k, l)| part.ulimit(k, l.soft, l.hard));
    if let Some(size) = service.shm_size.and_then(|s| amount::memory(&s.to_string())) {
        let source = MountSource::Tmpfs(Tmpfs::sized(Some(size)));
        part.mount(ContainerMount {
            source,
            path: "/dev/shm".into(),
            read_only: false,
            sub_path: None,
            propagation: None,
        });
    }
    if let Some(signal) = &service.stop_signal {
        remark(part.stop_signal(signal), service, "stop_signal", found);
    }
    let grace = service.stop_grace_period.map_or(STOP_GRACE, |d| d.as_millis().div_ceil(1000) as i64);
    part.pod.termination_grace_period_seconds = Some(grace);
    if service.pid.as_deref() == Some("host") {
        part.pod.host_pid = Some(true);
    }
    if service.ipc.as_deref() == Some("host") {
        part.pod.host_ipc = Some(true);
    }
    if service.userns_mode.as_deref() == Some("host") {
        part.pod.host_users = Some(true);
    }
    if let Some(platform) = &service.platform {
        part.platform(platform);
    }
    part.pod.runtime_class_name =
        service.runtime.clone().filter(|r| !["runc", "crun", "io.containerd.runc.v2"].contains(&r.as_str()));
}

fn network(service: &Service, part: &mut PodFragment, found: &mut Findings) {
    match &service.network_mode {
        Some(NetworkMode::Host) => part.host_network(),
        Some(NetworkMode::Network(name)) => found.warn(
            service.place("network_mode"),
            format!(
                "network_mode: {name} gives no names: others in network {name} reach the service as SERVICE.PROJECT"
            ),
        ),
        _ => {}
    }
    if let Some(hostname) = &service.hostname {
        let label = hostname.split('.').next().unwrap_or(hostname);
        let name = host_name(label);
        if name != *hostname && !name.is_empty() {
            let sentence = format!("hostname {hostname} is {name}, as host names of Pods are one DNS label");
            found.warn(service.place("hostname"), sentence);
        }
        part.pod.hostname = Some(name).filter(|n| !n.is_empty());
    }
    for (host, address) in &service.extra_hosts {
        remark(part.extra_host(host, address), service, "extra_hosts", found);
    }
    for server in &service.dns {
        part.dns().nameservers.get_or_insert_default().push(server.clone());
    }
    for domain in service.dns_search.iter().filter(|d| *d != ".") {
        part.dns().searches.get_or_insert_default().push(domain.clone());
    }
    service.dns_opt.iter().for_each(|o| part.dns_option(o));
}

/// A label of a host name as Pods may have it. It may begin with a digit, unlike the names of objects.
pub(super) fn host_name(label: &str) -> String {
    let lower = label.to_ascii_lowercase();
    if yado_types::names::dns_label(&lower).is_ok() { lower } else { sanitised(label, 63) }
}

fn hooks(service: &Service, part: &mut PodFragment, found: &mut Findings) {
    let lifecycle = |hooks: &[Hook], field: &str, found: &mut Findings| {
        let first = hooks.first()?;
        if hooks.len() > 1 {
            found.warn(&hooks[1].at, format!("only the first of {field} has an effect: join them in one"));
        }
        let odd = first.user.is_some() || first.privileged == Some(true) || first.working_dir.is_some();
        if odd || !first.environment.is_empty() {
            let sentence = format!("{field} runs as the container does: only command has an effect");
            found.warn(&first.at, sentence);
        }
        let exec = Some(ExecAction { command: Some(first.command.clone()) });
        Some(LifecycleHandler { exec, ..LifecycleHandler::default() })
    };
    let post_start = lifecycle(&service.post_start, "post_start", found);
    let pre_stop = lifecycle(&service.pre_stop, "pre_stop", found);
    if post_start.is_some() || pre_stop.is_some() {
        let own: &mut Lifecycle = part.container.lifecycle.get_or_insert_default();
        own.post_start = post_start;
        own.pre_stop = pre_stop;
    }
    for (place, hook) in service.pre_start.iter().enumerate() {
        let env: Vec<EnvVar> = hook
            .environment
            .iter()
            .map(|(name, value)| EnvVar { name: name.clone(), value: Some(value.clone()), value_from: None })
            .collect();
        let mut init = PodFragment::default();
        init.container = Container {
            name: format!("pre-start-{}", place + 1),
            image: hook.image.clone().or_else(|| part.container.image.clone()),
            command: Some(hook.command.clone()),
            env: (!env.is_empty()).then_some(env).or_else(|| part.container.env.clone()),
            working_dir: hook.working_dir.clone(),
            ..Container::default()
        };
        if hook.privileged == Some(true) {
            init.security().privileged = Some(true);
        }
        if hook.user.is_some() || hook.per_replica.is_some() {
            found.warn(&hook.at, "user and per_replica of pre_start have no effect");
        }
        part.pod.init_containers.get_or_insert_default().push(init.container);
    }
}

/// Passes on what a part of a Pod says of a field.
pub(super) fn remark(remark: Option<Unsupported>, service: &Service, field: &str, found: &mut Findings) {
    match remark {
        Some(Unsupported::Warning(sentence)) => found.warn(service.place(field), sentence),
        Some(Unsupported::Error(sentence)) => found.error(service.place(field), sentence),
        None => {}
    }
}
