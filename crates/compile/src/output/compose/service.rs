//! Writes one service for each container of a Pod: further containers share the network of the first.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use serde_json::{Map, Value, json};
use yado_types::{labels, pod::Restart};

use super::{
    Writer,
    controller::{PodController, RunMode},
    environment::{variables, words},
    escaped,
    volumes::Mounts,
};
use crate::{BuildMethod, BuildRequest, workload::pod};

/// Docker's default stop timeout in seconds.
const STOP_GRACE: i64 = 10;

impl Writer<'_> {
    /// Adds the services of an object that runs Pods.
    pub(super) fn services_of(&mut self, controller: &PodController, services: &mut Map<String, Value>) {
        let Some(pod) = controller.template.spec.clone() else { return };
        let annotations =
            controller.template.metadata.as_ref().and_then(|m| m.annotations.clone()).unwrap_or_default();
        let users: BTreeMap<String, String> = annotation(&annotations, labels::USERS);
        let restarts: BTreeMap<String, String> = annotation(&annotations, labels::RESTART);
        for (place, container) in pod.containers.iter().enumerate() {
            let first = place == 0;
            let name = if first {
                controller.service.clone()
            } else {
                self.further_name(controller, container, services)
            };
            let mut service = self.container(controller, &pod, container, first);
            if let Some(user) = users.get(&container.name) {
                service.insert("user".into(), escaped(user).into());
            }
            if matches!(controller.runs, RunMode::Always | RunMode::Everywhere) {
                let restart = restarts.get(&container.name).and_then(|text| text.parse().ok());
                restarted(restart.unwrap_or_default(), &mut service);
            }
            if first {
                self.of_pod(controller, &pod, &annotations, &mut service);
                self.before(controller, &pod, &mut service, services);
            } else {
                service.insert("network_mode".into(), format!("service:{}", controller.service).into());
            }
            services.insert(name, service.into());
        }
    }

    fn further_name(
        &self,
        controller: &PodController,
        container: &Container,
        services: &Map<String, Value>,
    ) -> String {
        let taken = services.contains_key(&container.name)
            || self.controllers.iter().any(|s| s.service == container.name);
        if taken || self.compiled.namespace.is_none() {
            format!("{}-{}", controller.service, container.name)
        } else {
            container.name.clone()
        }
    }

    fn container(
        &mut self,
        controller: &PodController,
        pod: &PodSpec,
        container: &Container,
        first: bool,
    ) -> Map<String, Value> {
        let mut service = Map::new();
        let image = container.image.clone().unwrap_or_default();
        let build = self.compiled.builds.iter().find(|b| b.image == image).cloned();
        service.insert("image".into(), escaped(&image).into());
        if let Some(build) = &build {
            service.insert("build".into(), self.build(controller, build));
        }
        match (container.image_pull_policy.as_deref(), &build) {
            (Some("Always"), _) => drop(service.insert("pull_policy".into(), "always".into())),
            (Some("Never"), _) => drop(service.insert("pull_policy".into(), "never".into())),
            _ => {}
        }
        let env = self.environment(controller, container);
        if let Some(command) = &container.command {
            service.insert("entrypoint".into(), words(command, &env));
        }
        if let Some(args) = &container.args {
            service.insert("command".into(), words(args, &env));
        }
        if !env.is_empty() {
            service.insert("environment".into(), variables(&env));
        }
        if let Some(directory) = &container.working_dir {
            service.insert("working_dir".into(), escaped(directory).into());
        }
        for (key, on) in [("tty", container.tty), ("stdin_open", container.stdin)] {
            if on == Some(true) {
                service.insert(key.into(), true.into());
            }
        }
        self.security(container, pod, &mut service);
        self.health(controller, container, &env, &mut service);
        let unchecked = controller.annotation(labels::NO_HEALTH_CHECK);
        if container.readiness_probe.is_none() && unchecked.split(',').any(|name| name == container.name) {
            service.insert("healthcheck".into(), json!({"disable": true}));
        }
        self.lifecycle(controller, container, &mut service);
        let mounts = self.mounts(controller, pod, container);
        of_mounts(mounts, &mut service);
        let deploy = self.deploy(controller, pod, container, first);
        if !deploy.is_empty() {
            service.insert("deploy".into(), deploy.into());
        }
        if first {
            self.reached(controller, build.is_some(), &mut service);
        }
        service
    }

    fn build(&mut self, controller: &PodController, build: &BuildRequest) -> Value {
        let mut section = json!({"context": escaped(&build.context.to_string_lossy())});
        match &build.method {
            BuildMethod::Dockerfile { file, inline, target, args } => {
                if let Some(file) = file {
                    section["dockerfile"] = escaped(&file.to_string_lossy()).into();
                }
                if let Some(inline) = inline {
                    section["dockerfile_inline"] = escaped(inline).into();
                }
                if let Some(target) = target {
                    section["target"] = escaped(target).into();
                }
                if !args.is_empty() {
                    section["args"] =
                        args.iter().map(|(k, v)| (k.clone(), Value::from(escaped(v)))).collect();
                }
            }
            BuildMethod::Source { .. } => {
                self.warn(
                    controller,
                    "its image is built from sources, which docker compose cannot: build and push it first",
                );
            }
        }
        section
    }

    fn security(&mut self, container: &Container, pod: &PodSpec, service: &mut Map<String, Value>) {
        let context = container.security_context.clone().unwrap_or_default();
        let whole = pod.security_context.clone().unwrap_or_default();
        for (key, on) in
            [("privileged", context.privileged), ("read_only", context.read_only_root_filesystem)]
        {
            if on == Some(true) {
                service.insert(key.into(), true.into());
            }
        }
        let user = context.run_as_user.or(whole.run_as_user);
        if let Some(user) = user {
            let group =
                context.run_as_group.or(whole.run_as_group).map_or(String::new(), |g| format!(":{g}"));
            service.insert("user".into(), format!("{user}{group}").into());
        }
        let capabilities = context.capabilities.unwrap_or_default();
        for (key, list) in [("cap_add", capabilities.add), ("cap_drop", capabilities.drop)] {
            if let Some(list) = list {
                service.insert(key.into(), list.into());
            }
        }
        let mut options: Vec<String> = Vec::new();
        match context.allow_privilege_escalation {
            Some(false) => options.push("no-new-privileges:true".into()),
            Some(true) => options.push("no-new-privileges:false".into()),
            None => {}
        }
        if context.seccomp_profile.is_some_and(|p| p.type_ == "Unconfined") {
            options.push("seccomp:unconfined".into());
        }
        match context.app_armor_profile {
            Some(profile) if profile.type_ == "Unconfined" => options.push("apparmor:unconfined".into()),
            Some(profile) => options.extend(profile.localhost_profile.map(|p| format!("apparmor:{p}"))),
            None => {}
        }
        if let Some(selinux) = context.se_linux_options {
            for (key, value) in [
                ("user", selinux.user),
                ("role", selinux.role),
                ("type", selinux.type_),
                ("level", selinux.level),
            ] {
                options.extend(value.map(|v| format!("label:{key}:{v}")));
            }
        }
        if context.proc_mount.as_deref() == Some("Unmasked") {
            options.push("systempaths=unconfined".into());
        }
        if !options.is_empty() {
            service.insert("security_opt".into(), options.into());
        }
    }

    fn lifecycle(
        &mut self,
        controller: &PodController,
        container: &Container,
        service: &mut Map<String, Value>,
    ) {
        let Some(lifecycle) = &container.lifecycle else { return };
        if let Some(signal) = &lifecycle.stop_signal {
            service.insert("stop_signal".into(), signal.clone().into());
        }
        for (key, handler) in [("post_start", &lifecycle.post_start), ("pre_stop", &lifecycle.pre_stop)] {
            let Some(handler) = handler else { continue };
            match handler.exec.as_ref().and_then(|e| e.command.clone()) {
                Some(command) => {
                    let command: Vec<String> = command.iter().map(|w| escaped(w)).collect();
                    service.insert(key.into(), json!([{"command": command}]));
                }
                None => self.warn(controller, format!("its {key} is left out, as it is not a command")),
            }
        }
    }

    /// Writes names, ports and networks.
    fn reached(&mut self, controller: &PodController, built: bool, service: &mut Map<String, Value>) {
        let reach = self.reach(controller, built);
        let container = controller.template.spec.as_ref().and_then(|s| s.containers.first());
        let probed = container.is_some_and(|c| c.readiness_probe.is_some() || c.startup_probe.is_some());
        let udp = |port: &&Value| port.as_str().is_some_and(|p| p.contains("/udp") || p.contains("/sctp"));
        let tcp = |ports: &[Value]| ports.iter().filter(|p| !udp(p)).count();
        // By default, a service is ready when it listens on its port.
        if !probed
            && !matches!(controller.runs, RunMode::Once(_))
            && !service.contains_key("healthcheck")
            && (tcp(&reach.ports) > 0 || tcp(&reach.expose) == 1)
        {
            service.insert("healthcheck".into(), json!({"disable": true}));
        }
        if reach.headless {
            let deploy = service.entry("deploy").or_insert_with(|| json!({}));
            deploy["endpoint_mode"] = "dnsrr".into();
        }
        if !reach.ports.is_empty() {
            service.insert("ports".into(), reach.ports.into());
        }
        if !reach.expose.is_empty() {
            service.insert("expose".into(), reach.expose.into());
        }
        if !self.external_links.is_empty() {
            service.insert("external_links".into(), self.external_links.clone().into());
        }
        let pod = controller.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
        let with = |prefix: &str| -> Vec<String> {
            pod.keys().filter_map(|k| k.strip_prefix(prefix)).map(Into::into).collect()
        };
        let own = format!("{}-", self.namespace());
        let mut networks = with("network.yado.dev/");
        for network in &mut networks {
            // Docker's default network has no aliases, unlike a network of the project.
            let key = if network == "bridge" { Some("default") } else { network.strip_prefix(&own) };
            *network = key.unwrap_or(network).to_string();
        }
        let none = networks.iter().any(|network| network == "none");
        let shared = self.shared_names(controller.metadata.name.as_deref().unwrap_or_default());
        if networks.is_empty() {
            networks.push("default".into());
            networks.extend(shared.keys().cloned());
        }
        let mut aliases: Vec<String> = reach.aliases.into_iter().collect();
        aliases.extend(with("alias.yado.dev/"));
        let mut attachments = Map::new();
        for (place, network) in networks.iter().enumerate() {
            if network != "default" {
                self.networks.entry(network.clone()).or_insert(Value::Null);
            }
            let mut names = if place == 0 { aliases.clone() } else { Vec::new() };
            names.extend(shared.get(network).into_iter().flatten().filter(|n| !aliases.contains(n)).cloned());
            let attachment = if names.is_empty() { Value::Null } else { json!({"aliases": names}) };
            attachments.insert(network.clone(), attachment);
        }
        let plain = attachments.len() == 1 && attachments.get("default") == Some(&Value::Null);
        let host = controller.template.spec.as_ref().is_some_and(|s| s.host_network == Some(true));
        if host {
            service.insert("network_mode".into(), "host".into());
            // On the host network there are no aliases, but the container name resolves.
            if let Some(alias) = aliases.first() {
                service.insert("container_name".into(), alias.clone().into());
            }
        } else if none {
            service.insert("network_mode".into(), "none".into());
        } else if !plain {
            service.insert("networks".into(), attachments.into());
        }
    }

    /// Writes settings of the Pod to the service of its first container.
    fn of_pod(
        &mut self,
        controller: &PodController,
        pod: &PodSpec,
        annotations: &BTreeMap<String, String>,
        service: &mut Map<String, Value>,
    ) {
        match controller.runs {
            RunMode::Always | RunMode::Everywhere => {}
            RunMode::Once(0) => drop(service.insert("restart".into(), "no".into())),
            RunMode::Once(retries) => {
                let most = u32::try_from(retries).ok().filter(|n| *n < i32::MAX as u32);
                service.insert("restart".into(), Restart::OnFailure(most).to_string().into());
            }
        }
        if pod.share_process_namespace == Some(true) {
            service.insert("init".into(), true.into());
        }
        for (key, on) in [("pid", pod.host_pid), ("ipc", pod.host_ipc), ("userns_mode", pod.host_users)] {
            if on == Some(true) {
                service.insert(key.into(), "host".into());
            }
        }
        if let Some(hostname) = &pod.hostname {
            service.insert("hostname".into(), hostname.clone().into());
        }
        let grace = pod.termination_grace_period_seconds.unwrap_or(30);
        if grace != STOP_GRACE {
            service.insert("stop_grace_period".into(), format!("{grace}s").into());
        }
        if let Some(runtime) = &pod.runtime_class_name {
            service.insert("runtime".into(), runtime.clone().into());
        }
        let selector = pod.node_selector.clone().unwrap_or_default();
        if let Some(os) = selector.get(labels::OS) {
            let platform = selector.get(labels::ARCH).map_or(os.clone(), |arch| format!("{os}/{arch}"));
            service.insert("platform".into(), platform.into());
        }
        names(pod, service);
        if let Some(context) = &pod.security_context {
            let sysctls: Map<String, Value> = context
                .sysctls
                .iter()
                .flatten()
                .map(|s| (s.name.clone(), escaped(&s.value).into()))
                .collect();
            if !sysctls.is_empty() {
                service.insert("sysctls".into(), sysctls.into());
            }
            let mut groups: Vec<String> =
                context.supplemental_groups.iter().flatten().map(ToString::to_string).collect();
            groups.extend(context.fs_group.map(|g| g.to_string()));
            if !groups.is_empty() {
                service.insert("group_add".into(), groups.into());
            }
        }
        self.annotated(controller, annotations, service);
    }

    /// A link by its alias and image: to the service with that image that has the alias.
    fn link(&self, (alias, image): (&String, &String)) -> Option<String> {
        let runs = |controller: &&PodController| {
            let pod = controller.template.spec.as_ref();
            pod.and_then(|pod| pod.containers.first()?.image.as_ref()) == Some(image)
        };
        let mut targets: Vec<_> = self.controllers.iter().filter(runs).collect();
        targets
            .sort_by_key(|controller| (!self.is_found_as(controller, alias), controller.service != *alias));
        targets.first().map(|controller| format!("{}:{alias}", controller.service))
    }

    fn annotated(
        &mut self,
        controller: &PodController,
        annotations: &BTreeMap<String, String>,
        service: &mut Map<String, Value>,
    ) {
        if let Some(gateway) = annotations.get(labels::HOST_GATEWAY) {
            let hosts = gateway.split(',').map(|host| Value::from(format!("{host}=host-gateway")));
            if let Some(known) = service.entry("extra_hosts").or_insert_with(|| json!([])).as_array_mut() {
                known.extend(hosts);
            }
        }
        let ulimits: BTreeMap<String, Value> = annotation(annotations, labels::ULIMITS);
        if !ulimits.is_empty() {
            service.insert("ulimits".into(), json!(ulimits));
        }
        let linked: BTreeMap<String, BTreeMap<String, String>> = annotation(annotations, labels::LINKS);
        let links: Vec<String> = linked.values().flatten().filter_map(|link| self.link(link)).collect();
        if !links.is_empty() {
            service.insert("links".into(), links.into());
        }
        let mut all: BTreeMap<String, String> = annotation(annotations, pod::LABELS);
        all.extend(
            annotations
                .iter()
                .filter(|(k, _)| pod::is_annotation_key(k))
                .map(|(k, v)| (k.clone(), v.clone())),
        );
        if !all.is_empty() {
            let all: Map<String, Value> =
                all.into_iter().map(|(k, v)| (escaped(&k), escaped(&v).into())).collect();
            service.insert("labels".into(), all.into());
        }
        let needed: BTreeMap<String, String> = annotation(annotations, labels::DEPENDS_ON);
        let mut depends_on = Map::new();
        for (component, condition) in needed {
            let target = self.controllers.iter().find(|s| component_of(s) == Some(&component));
            let Some(target) = target.map(|t| t.service.clone()) else {
                self.warn(controller, format!("it waits for {component}, which is not part of this project"));
                continue;
            };
            let condition = match condition.as_str() {
                labels::DEPENDS_ON_HEALTHY => "service_healthy",
                labels::DEPENDS_ON_COMPLETED => "service_completed_successfully",
                _ => "service_started",
            };
            depends_on.insert(target, json!({"condition": condition}));
        }
        if !depends_on.is_empty() {
            service.insert("depends_on".into(), depends_on.into());
        }
    }

    /// Writes init containers: as hooks if they came from hooks, else as services that have to complete first.
    fn before(
        &mut self,
        controller: &PodController,
        pod: &PodSpec,
        service: &mut Map<String, Value>,
        services: &mut Map<String, Value>,
    ) {
        let mut hooks = Vec::new();
        for init in pod.init_containers.iter().flatten() {
            if init.name.starts_with("pre-start-") {
                let mut hook =
                    json!({"command": init.command.iter().flatten().map(|w| escaped(w)).collect::<Vec<_>>()});
                if let Some(image) =
                    init.image.as_ref().filter(|i| Some(i.as_str()) != service["image"].as_str())
                {
                    hook["image"] = escaped(image).into();
                }
                if let Some(directory) = &init.working_dir {
                    hook["working_dir"] = escaped(directory).into();
                }
                let own = pod.containers.first().and_then(|c| c.env.as_ref());
                if init.env.is_some() && init.env.as_ref() != own {
                    let env = self.environment(controller, init);
                    hook["environment"] = variables(&env);
                }
                if init.security_context.as_ref().is_some_and(|s| s.privileged == Some(true)) {
                    hook["privileged"] = true.into();
                }
                hooks.push(hook);
                continue;
            }
            let name = format!("{}-{}", controller.service, init.name);
            let mut first = self.container(controller, pod, init, false);
            first.insert("restart".into(), "on-failure".into());
            services.insert(name.clone(), first.into());
            let after = json!({"condition": "service_completed_successfully"});
            let waits = service.entry("depends_on").or_insert_with(|| json!({}));
            waits[name] = after;
        }
        if !hooks.is_empty() {
            service.insert("pre_start".into(), hooks.into());
        }
    }
}

/// Writes the restart policy. A bound on restarts after success is only supported by `restart_policy`.
fn restarted(restart: Restart, service: &mut Map<String, Value>) {
    match restart {
        Restart::Always => drop(service.insert("restart".into(), "unless-stopped".into())),
        Restart::AtMost(most) => {
            let deploy = service.entry("deploy").or_insert_with(|| json!({}));
            deploy["restart_policy"] = json!({"condition": "any", "max_attempts": most});
        }
        other => drop(service.insert("restart".into(), other.to_string().into())),
    }
}

fn names(pod: &PodSpec, service: &mut Map<String, Value>) {
    let hosts: Vec<String> = pod
        .host_aliases
        .iter()
        .flatten()
        .flat_map(|a| a.hostnames.iter().flatten().map(move |h| format!("{h}={}", a.ip)))
        .collect();
    if !hosts.is_empty() {
        service.insert("extra_hosts".into(), hosts.into());
    }
    let Some(dns) = &pod.dns_config else { return };
    if let Some(servers) = &dns.nameservers {
        service.insert("dns".into(), servers.clone().into());
    }
    let searches: Vec<String> =
        dns.searches.iter().flatten().filter(|s| !s.ends_with(".svc.cluster.local")).cloned().collect();
    if !searches.is_empty() {
        service.insert("dns_search".into(), searches.into());
    }
    let options: Vec<String> = dns
        .options
        .iter()
        .flatten()
        .map(|o| {
            let name = o.name.clone().unwrap_or_default();
            o.value.as_ref().map_or(name.clone(), |v| format!("{name}:{v}"))
        })
        .collect();
    if !options.is_empty() {
        service.insert("dns_opt".into(), options.into());
    }
}

fn of_mounts(mounts: Mounts, service: &mut Map<String, Value>) {
    for (key, list) in [
        ("volumes", mounts.volumes),
        ("devices", mounts.devices),
        ("configs", mounts.configs),
        ("secrets", mounts.secrets),
    ] {
        if !list.is_empty() {
            service.insert(key.into(), list.into());
        }
    }
    if !mounts.tmpfs.is_empty() {
        service.insert("tmpfs".into(), mounts.tmpfs.into());
    }
    if let Some(size) = mounts.shm_size {
        service.insert("shm_size".into(), size.into());
    }
}

fn component_of(controller: &PodController) -> Option<&String> {
    controller.template.metadata.as_ref()?.labels.as_ref()?.get(labels::APP_COMPONENT)
}

/// A parsed JSON annotation; the default value if it is missing or malformed.
fn annotation<T: serde::de::DeserializeOwned + Default>(
    annotations: &BTreeMap<String, String>,
    key: &str,
) -> T {
    annotations.get(key).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}
