//! Applications to objects.
//!
//! | an application | becomes |
//! |---|---|
//! | with a Procfile | an image to build and, per process type, a Deployment `NAME-TYPE` |
//! | its `web` process, else its first | a Service `NAME`: port 80 for `web`, else the port that `customization { port }` says |
//! | that was asked for, with `web` | an Ingress for `NAME.localhost` |
//! | of type `docker-external` | a Deployment `NAME` of that image, and a Service `NAME` with the published ports |
//!
//! So an application finds its dependency `redis-leader` as `redis-leader` and, as Otto's did, as
//! `redis-leader.service.consul`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVar, PodSpec};
use yado_types::names;

use super::{
    Text,
    load::{App, Tree},
    settings::{self, Settings},
};
use crate::{
    BuildHow, BuildRequest, Compiled, Diagnostics, Object, Options, WEB_PORT,
    diagnostic::Findings,
    docker_run::{self, Run},
    procfile::Process,
    workload::{Port, Workload, pod::Part},
};

/// Annotation of a Deployment: the identity in the application's `.ottoid`.
const OTTO_ID: &str = "yado.dev/otto-id";

/// Application types known. All but `docker-external` are started by their Procfile.
const TYPES: [&str; 11] =
    ["custom", "docker-external", "go", "java", "node", "php", "python", "rails", "ruby", "rust", "static"];

/// What a DNS label is, to whoever has to choose one.
const NAME_RULE: &str = "letters a to z, digits and hyphens, at most 63, with a letter first";

/// Container ports that a published image serves web pages on, by convention of the images themselves.
const HTTP_PORTS: [u16; 6] = [80, 3000, 5000, 8000, 8080, 8888];

pub(super) fn compile(tree: Tree, options: &Options) -> Result<Compiled, Diagnostics> {
    let mut found = Findings { warnings: tree.warnings, ..Findings::default() };
    let mut compiled = Compiled::default();
    let Some(root) = tree.apps.last() else { return Err(Diagnostics(Vec::new())) };
    let part_of = dns_name(&root.name.value);
    let last = tree.apps.len() - 1;
    for (place, app) in tree.apps.iter().enumerate() {
        let mut lowering = Lowering {
            app,
            name: app_name(app, &mut found),
            part_of: &part_of,
            host: (place == last).then(|| format!("{part_of}.{}", options.domain)),
            found: &mut found,
            compiled: &mut compiled,
        };
        lowering.run();
        if place != last {
            compiled.dependencies.push(dns_name(&app.name.value));
        }
    }
    distinct_objects(&compiled, root, &mut found);
    compiled.app = part_of;
    compiled.app_type = root.app_type.clone();
    compiled.directory = root.directory.clone();
    let appfile = root.path.file_name().is_some_and(|n| n != "Procfile");
    compiled.missing_id = (appfile && root.id.is_none()).then(|| root.directory.join(super::load::ID_FILE));
    compiled.warnings = found.finish()?;
    Ok(compiled)
}

/// The name as a DNS label that starts with a letter: lower case, every other character a hyphen.
fn dns_name(name: &str) -> String {
    let mut label = String::new();
    for c in name.chars() {
        let c = c.to_ascii_lowercase();
        let keep = c.is_ascii_lowercase() || c.is_ascii_digit();
        if keep || !label.ends_with('-') {
            label.push(if keep { c } else { '-' });
        }
    }
    let label = label.trim_matches('-');
    if label.starts_with(|c: char| c.is_ascii_digit()) { format!("app-{label}") } else { label.into() }
}

/// The application's name as its objects carry it, with a word where that is not as written.
fn app_name(app: &App, found: &mut Findings) -> String {
    let (written, name) = (&app.name.value, dns_name(&app.name.value));
    if names::dns_1035_label(&name).is_err() {
        let sentence = format!(
            "\"{written}\" cannot be an application's name, which is part of host names: use {NAME_RULE}"
        );
        found.error(&app.name.at, sentence);
    } else if name != *written {
        found.warn(
            &app.name.at,
            format!("application \"{written}\" is called {name}, as host names have to be"),
        );
    }
    name
}

/// Two process types may come out under one name: `a` of `b-c`, and `c-a` of `b`.
fn distinct_objects(compiled: &Compiled, root: &App, found: &mut Findings) {
    let mut seen = std::collections::HashSet::new();
    for object in &compiled.objects {
        if !seen.insert((object.kind(), object.name())) {
            let sentence = format!(
                "two process types both become {} {}: rename one, or one of their applications",
                object.kind(),
                object.name()
            );
            found.error(&root.name.at, sentence);
        }
    }
}

struct Lowering<'a> {
    app: &'a App,
    name: String,
    part_of: &'a str,
    /// The host name, for the application that was asked for.
    host: Option<String>,
    found: &'a mut Findings,
    compiled: &'a mut Compiled,
}

impl Lowering<'_> {
    fn run(&mut self) {
        let settings = settings::read(&self.app.file, &self.app.app_type, self.found);
        if self.app.app_type == "docker-external" {
            self.check_scale(&settings, &["app"]);
            self.docker_external(settings);
            return;
        }
        let Some(processes) = &self.app.processes else { return self.no_process() };
        self.procfile(processes, &settings);
    }

    fn no_process(&mut self) {
        let app_type = &self.app.app_type;
        let at = match self.app.file.application.as_ref().and_then(|a| a.app_type.as_ref()) {
            Some(written) => &written.at,
            None => &self.app.name.at,
        };
        let reason = if TYPES.contains(&app_type.as_str()) {
            format!("an application of type {app_type} is started by its Procfile, and there is none")
        } else {
            format!(
                "type \"{app_type}\" is unknown (known are {}), and there is no Procfile",
                TYPES.join(", ")
            )
        };
        let sentence =
            format!("nothing of {} is started: {reason}; add a line like web: COMMAND to one", self.name);
        self.found.warn(at, sentence);
    }

    fn procfile(&mut self, processes: &[Process], settings: &Settings) {
        let (run, once): (Vec<&Process>, Vec<&Process>) = processes.iter().partition(|p| p.name != "release");
        for process in once {
            self.found.warn(&process.at, "release is not run: nothing runs commands at a release yet");
        }
        let names: Vec<&str> = run.iter().map(|p| p.name.as_str()).collect();
        self.check_scale(settings, &names);
        let image = format!("yado.local/{}:latest", self.name);
        let primary = run.iter().find(|p| p.name == "web").or(run.first()).map(|p| &p.name);
        for process in &run {
            let is_primary = Some(&process.name) == primary;
            let ports = self.ports_of(process, is_primary, settings);
            self.process(process, is_primary, &image, ports, settings);
        }
        if let Some(first) = run.first() {
            let reachable = run.iter().any(|p| p.name == "web") || settings.port.is_some();
            if !reachable && self.host.is_none() {
                let sentence = format!(
                    "nothing can connect to {}: write customization {{ port = ... }} in its Appfile, or name the process web",
                    self.name
                );
                self.found.warn(&first.at, sentence);
            }
        }
        let context = self.app.directory.clone();
        let how = BuildHow::Source { language: None, processes: Vec::new() };
        self.compiled.builds.push(BuildRequest { name: self.name.clone(), context, image, how });
    }

    fn ports_of(&self, process: &Process, is_primary: bool, settings: &Settings) -> Vec<Port> {
        let web = process.name == "web";
        let port = settings.port.filter(|_| is_primary).or(web.then_some(WEB_PORT));
        // A web page is on port 80 of its name, wherever the process listens.
        let port = port.map(|port| match web {
            true => Port { name: "http".into(), ..Port::new(80, port, "TCP") },
            false => Port::new(port, port, "TCP"),
        });
        port.into_iter().collect()
    }

    fn process(
        &mut self,
        process: &Process,
        is_primary: bool,
        image: &str,
        ports: Vec<Port>,
        settings: &Settings,
    ) {
        let component = dns_name(&process.name);
        let name = format!("{}-{component}", self.name);
        // An application's name that is wrong has been reported.
        if names::dns_label(&self.name).is_ok() && names::dns_label(&name).is_err() {
            let sentence = format!("process type {} makes the name {name}: use {NAME_RULE}", process.name);
            return self.found.error(&process.at, sentence);
        }
        let mut env = settings.env.clone();
        if let Some(port) = ports.first() {
            env.entry("PORT".into()).or_insert_with(|| port.container.to_string());
        }
        let container = Container {
            name: component.clone(),
            image: Some(image.into()),
            // The image is made here and is in no registry.
            image_pull_policy: Some("Never".into()),
            command: Some(process.argv()),
            env: env_vars(env),
            ..Container::default()
        };
        let web = process.name == "web";
        let host = self.host.clone().filter(|_| web);
        self.compiled.host = host.clone().or(self.compiled.host.take());
        self.push(Workload {
            app: self.name.clone(),
            component,
            part_of: self.part_of.into(),
            name,
            service: (is_primary && !ports.is_empty()).then(|| self.name.clone()),
            replicas: settings.scale.get(&process.name).map_or(1, |s| s.replicas),
            pod: pod(),
            container,
            ports,
            hosts: host.into_iter().collect(),
            annotations: self.annotations(),
            ..Workload::default()
        });
    }

    fn docker_external(&mut self, settings: Settings) {
        let container = Container {
            name: "app".into(),
            // Otto ran the image of the application's own name where none was written.
            image: Some(settings.image.map_or_else(|| self.app.name.value.clone(), |i| i.value)),
            image_pull_policy: Some("IfNotPresent".into()),
            ..Container::default()
        };
        let mut run = self.run_args(settings.run_args.as_ref(), Part::new(container, pod()));
        // Otto's machines answered at the published port, so the name does, too.
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
        let pod_annotations = run.part.annotations();
        let (mut container, pod) = (run.part.container, run.part.pod);
        // A customization "env" is laid over the flags, as the more particular of the two.
        let env: BTreeMap<String, String> = run.env.into_iter().chain(settings.env).collect();
        if let Some(port) = settings.port.filter(|p| ports.iter().all(|known| known.container != *p)) {
            ports.push(Port::new(port, port, "TCP"));
        }
        container.env = env_vars(env);
        let http = ports.iter().position(|p| HTTP_PORTS.contains(&p.container) && p.protocol == "TCP");
        if let Some(place) = http {
            ports.swap(0, place);
        }
        let host = self.host.clone().filter(|_| http.is_some());
        self.compiled.host = host.clone().or(self.compiled.host.take());
        self.push(Workload {
            app: self.name.clone(),
            component: "app".into(),
            part_of: self.part_of.into(),
            name: self.name.clone(),
            service: Some(self.name.clone()),
            replicas: settings.scale.get("app").map_or(1, |s| s.replicas),
            pod,
            container,
            ports,
            hosts: host.into_iter().collect(),
            claims: run.claims,
            annotations: self.annotations(),
            pod_annotations,
            ..Workload::default()
        });
    }

    /// What `run_args` says, over `part`.
    fn run_args(&mut self, args: Option<&Text>, part: Part) -> Run {
        let Some(args) = args else { return Run { part, ..Run::default() } };
        let none = BTreeMap::new();
        let context = docker_run::Context { directory: &self.app.directory, env: &none };
        let read = docker_run::split(&args.value)
            .map_err(|mistake| vec![mistake.to_string()])
            .and_then(|words| docker_run::parse_flags(&words, part, context));
        match read {
            Ok(run) => {
                for warning in &run.warnings {
                    self.found.warn(&args.at, format!("run_args: {warning}"));
                }
                run
            }
            Err(mistakes) => {
                for mistake in mistakes {
                    self.found.error(&args.at, format!("run_args: {mistake}"));
                }
                Run::default()
            }
        }
    }

    fn check_scale(&mut self, settings: &Settings, known: &[&str]) {
        for (name, scale) in &settings.scale {
            if !known.contains(&name.as_str()) {
                let known = known.join(", ");
                self.found
                    .error(&scale.at, format!("there is no process type {name} to scale: there are {known}"));
            }
        }
    }

    fn annotations(&self) -> BTreeMap<String, String> {
        self.app.id.iter().map(|id| (OTTO_ID.to_string(), id.clone())).collect()
    }

    fn push(&mut self, workload: Workload) {
        for value in workload.objects() {
            self.compiled.objects.push(Object {
                value,
                group: self.name.clone(),
                source: self.app.path.clone(),
            });
        }
    }
}

/// What every application's Pod has: no key to the API, which none of them asked for.
fn pod() -> PodSpec {
    PodSpec { automount_service_account_token: Some(false), ..PodSpec::default() }
}

fn env_vars(env: BTreeMap<String, String>) -> Option<Vec<EnvVar>> {
    let vars: Vec<EnvVar> =
        env.into_iter().map(|(name, value)| EnvVar { name, value: Some(value), value_from: None }).collect();
    (!vars.is_empty()).then_some(vars)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_dns_labels() {
        for (written, expect) in [
            ("guestbook", "guestbook"),
            ("My App_2", "my-app-2"),
            ("2048", "app-2048"),
            ("--x--", "x"),
            ("é", ""),
        ] {
            assert_eq!(dns_name(written), expect, "{written}");
        }
    }
}
