//! Compiles applications of type `docker-external`: an image with flags of `docker run`.

use std::{collections::BTreeMap, path::Path};

use k8s_openapi::api::core::v1::{Container, PodSpec};
use yado_types::{labels, links};

use super::{Lowering, Settings, Text, UnlinkedWorkload, dns_name, env_vars};
use crate::{
    ExternalEndpoint,
    diagnostic::Findings,
    docker_run::{self, Restart, RunCommand},
    workload::{Port, Workload, known_ports, name::is_service_name, pod::PodFragment},
};

/// Container ports on which images conventionally serve web pages.
const HTTP_PORTS: [u16; 6] = [80, 3000, 5000, 8000, 8080, 8888];

impl Lowering<'_> {
    pub(super) fn docker_external(&mut self, settings: Settings) {
        // As in Otto, the default image is the name of the application.
        let image = settings.image.as_ref().map_or_else(|| self.app.name.value.clone(), |i| i.value.clone());
        let container = Container {
            name: "app".into(),
            image: Some(image.clone()),
            image_pull_policy: Some("IfNotPresent".into()),
            ..Container::default()
        };
        for key in [&settings.run_command, &settings.python_entrypoint].into_iter().flatten() {
            self.found.warn(&key.at, "has no effect: the image defines the command");
        }
        let args = settings.run_args.as_ref();
        let at = args.map_or_else(|| self.app.name.at.clone(), |a| a.at.clone());
        let mut run = self.run_args(args, PodFragment::new(container, PodSpec::default()));
        let mut ports = ports_of(&mut run, settings.port);
        if ports.is_empty() {
            ports = known_ports::of_image(&image).iter().map(|p| Port::new(*p, *p, "TCP")).collect();
        }
        let pod_annotations = run.part.annotations();
        let (mut container, pod) = (run.part.container, run.part.pod);
        // A customization "env" takes precedence over the flags, since it is more specific.
        let env: BTreeMap<String, String> = run.env.into_iter().chain(settings.env).collect();
        container.env = Some(env_vars(env)).filter(|e| !e.is_empty());
        let http = ports.iter().position(|p| HTTP_PORTS.contains(&p.container) && p.protocol == "TCP");
        if let Some(place) = http {
            ports.swap(0, place);
        }
        let http = http.is_some();
        // A dependency serves the applications that name it; publishing its ports would only cause conflicts.
        let published = if self.host.is_some() { run.published } else { Vec::new() };
        let mut aliases = self.aliases();
        aliases.extend(run.aliases);
        let mut workload = Workload {
            app: self.name.clone(),
            component: "app".into(),
            part_of: self.part_of.into(),
            name: self.name.clone(),
            service: Some(self.name.clone()),
            aliases,
            replicas: settings.scale.get("app").map_or(1, |s| s.replicas),
            pod,
            container,
            ports,
            published,
            claims: run.claims,
            annotations: self.annotations(),
            pod_annotations,
            ..Workload::default()
        };
        self.reached(&mut workload, http);
        self.push(workload, run.links, &at);
    }

    /// Adds the host name of a web page at the first port, unless that is published on the loopback address only, and the
    /// published ports.
    fn reached(&mut self, workload: &mut Workload, page: bool) {
        let open = page && workload.ports.first().is_some_and(|p| workload.is_open(p.container));
        let host = self.host.clone().filter(|_| open);
        self.compiled.host = host.clone().or(self.compiled.host.take());
        workload.hosts = host.clone().into_iter().collect();
        self.compiled.published.extend(workload.published.iter().map(|p| {
            let web = HTTP_PORTS.contains(&p.target);
            ExternalEndpoint {
                component: "app".into(),
                service: p.service(&self.name),
                port: p.outside(),
                target: p.target,
                protocol: p.protocol.clone(),
                web,
                host: host.clone().filter(|_| web && !p.local),
            }
        }));
    }

    /// Parses `run_args` and applies them to `part`.
    fn run_args(&mut self, args: Option<&Text>, part: PodFragment) -> RunCommand {
        let Some(args) = args else { return RunCommand { part, ..RunCommand::default() } };
        let context = docker_run::Context { directory: &self.app.directory, env: &self.options.env };
        let read = docker_run::split(&args.value)
            .map_err(|mistake| vec![mistake.to_string()])
            .map(|words| words.into_iter().map(|w| self.in_own_directory(w)).collect::<Vec<_>>())
            .and_then(|words| docker_run::parse_flags(&words, part, context));
        match read {
            Ok(run) => {
                for warning in run.warnings.iter().cloned().chain(beyond_one_pod(&run)) {
                    self.found.warn(&args.at, format!("run_args: {warning}"));
                }
                run
            }
            Err(mistakes) => {
                for mistake in mistakes {
                    self.found.error(&args.at, format!("run_args: {mistake}"));
                }
                RunCommand::default()
            }
        }
    }

    /// Replaces the paths of the application's directory on Otto's machines in a flag: `/vagrant`, and
    /// `/otto-deps/NAME-ID` for a dependency.
    fn in_own_directory(&self, word: String) -> String {
        let (flag, value) = match word.split_once('=').filter(|(flag, _)| flag.starts_with("--")) {
            Some((flag, value)) => (format!("{flag}="), value.to_string()),
            None => (String::new(), word),
        };
        let ends = |rest: &str| rest.is_empty() || rest.starts_with(['/', ':']);
        let rest = match value.strip_prefix("/otto-deps/") {
            Some(rest) => {
                let own = rest.split(['/', ':']).next().unwrap_or_default();
                own.starts_with(&self.app.name.value).then(|| &rest[own.len()..])
            }
            None => value.strip_prefix("/vagrant").filter(|rest| ends(rest)),
        };
        match rest {
            Some(rest) => format!("{flag}{}{rest}", absolute(&self.app.directory)),
            None => format!("{flag}{value}"),
        }
    }
}

fn absolute(directory: &Path) -> String {
    let path = directory.canonicalize().unwrap_or_else(|_| directory.into());
    path.to_string_lossy().into_owned()
}

/// The ports of the Service. On Otto's machines the application was reached at its published ports, so these are included.
fn ports_of(run: &mut RunCommand, also: Option<u16>) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    for published in &run.published {
        let port =
            Port::new(published.port.unwrap_or(published.target), published.target, &published.protocol);
        if ports.iter().all(|p| (p.service, &p.protocol) != (port.service, &port.protocol)) {
            ports.push(port);
        }
    }
    for port in std::mem::take(&mut run.ports) {
        if ports.iter().all(|p| (p.container, &p.protocol) != (port.container, &port.protocol)) {
            ports.push(port);
        }
    }
    if let Some(port) = also.filter(|p| ports.iter().all(|known| known.container != *p)) {
        ports.push(Port::new(port, port, "TCP"));
    }
    ports
}

/// Warnings about flags that refer to other containers.
fn beyond_one_pod(run: &RunCommand) -> Vec<String> {
    let mut all = Vec::new();
    for (container, _) in &run.volumes_from {
        all.push(format!(
            "--volumes-from {container} has no effect: each application has volumes of its own"
        ));
    }
    for container in &run.joins {
        all.push(format!(
            "sharing with container {container} has no effect: each application has a Pod of its own"
        ));
    }
    if run.publish_all {
        all.push("-P has no effect: name the ports, as -p OUTSIDE:INSIDE".into());
    }
    if matches!(run.restart, Some(Restart::No | Restart::OnFailure(_))) {
        all.push("--restart has no effect: it is always started again".into());
    }
    all
}

/// Adds the variables of links to each workload, and the alias of the link to each target.
pub(super) fn link(made: &mut [UnlinkedWorkload], found: &mut Findings) {
    for place in 0..made.len() {
        let mut unknown = BTreeMap::new();
        for (target, alias) in std::mem::take(&mut made[place].links) {
            let (own, at) = (made[place].workload.name.clone(), made[place].at.clone());
            let name = dns_name(&target);
            let Some(other) = made.iter_mut().find(|m| m.workload.service.as_deref() == Some(&name)) else {
                let sentence = format!(
                    "run_args: --link {target} finds nothing: there is no application {target} among those that are compiled"
                );
                found.warn(&at, sentence);
                continue;
            };
            if alias != name && !other.workload.aliases.contains(&alias) {
                other.workload.aliases.push(alias.clone());
            }
            let env = other.workload.container.env.clone().unwrap_or_default();
            let plain = env.iter().filter_map(|e| Some((e.name.as_str(), e.value.as_deref()?)));
            let address = if is_service_name(&alias) { &alias } else { &name };
            let ports = other.workload.ports.iter().map(|p| (p.container, p.protocol.as_str()));
            let variables = links::variables(&own, address, ports, plain);
            if let (true, Some(image)) = (other.workload.ports.is_empty(), &other.workload.container.image) {
                unknown.insert(address.clone(), image.clone());
            }
            let env = made[place].workload.container.env.get_or_insert_default();
            for (name, value) in variables {
                if !env.iter().any(|e| e.name == name) {
                    env.push(k8s_openapi::api::core::v1::EnvVar {
                        name,
                        value: Some(value),
                        value_from: None,
                    });
                }
            }
            env.sort_by(|a, b| a.name.cmp(&b.name));
        }
        if !unknown.is_empty() {
            let workload = &mut made[place].workload;
            let links = serde_json::json!({ &workload.container.name: unknown }).to_string();
            workload.pod_annotations.insert(labels::LINKS.into(), links);
        }
    }
}
