//! Compiles applications that are built from sources, with the processes of a Procfile or the default of their language.

use std::collections::BTreeMap;

use base64::Engine as _;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, SecretKeySelector};
use serde_json::json;
use yado_types::{labels, names};

use super::{Lowering, NAME_RULE, Settings, TYPES, dns_name, env_vars};
use crate::{
    BuildMethod, BuildRequest, WEB_PORT,
    detect::{self, Hints, Start},
    diagnostic::Position,
    other_tools,
    procfile::Process,
    workload::{Port, Workload, WorkloadKind},
};

/// The process type that Heroku runs once, before the others of a release are started.
const RELEASE: &str = "release";

/// A process type to compile; without a command it runs the default command of the image.
struct Type {
    at: Position,
    name: String,
    command: Option<Vec<String>>,
}

impl Type {
    fn of(process: &Process) -> Type {
        Type { at: process.at.clone(), name: process.name.clone(), command: Some(process.argv()) }
    }
}

impl Lowering<'_> {
    pub(super) fn sources(&mut self, settings: Settings) {
        let language = detect::language(&self.app.app_type);
        if let Some(language) = language {
            for (file, sentence) in detect::differences(&self.app.directory, language) {
                self.found.warn(&Position::of_file(&self.app.directory.join(file)), sentence);
            }
        }
        let (types, processes): (Vec<Type>, Vec<(String, String)>) = match &self.app.processes {
            Some(processes) => {
                for key in [&settings.run_command, &settings.python_entrypoint].into_iter().flatten() {
                    self.found.warn(&key.at, "has no effect: the Procfile says how it is started");
                }
                // The builder reads the Procfile of the directory itself, and no other.
                let others = if self.app.directory.join("Procfile").is_file() { &[][..] } else { processes };
                let others = others.iter().map(|p| (p.name.clone(), p.command.clone())).collect();
                (processes.iter().map(Type::of).collect(), others)
            }
            None => {
                let Some((web, command)) = self.started(language, &settings) else { return };
                (vec![web], command.map(|c| ("web".to_string(), c)).into_iter().collect())
            }
        };
        self.warn_of_other_tools(language);
        let secrets = self.secrets();
        let first = self.made.len();
        self.types(&types, &settings);
        if let Some(made) = self.made.get_mut(first) {
            made.before.extend(secrets);
        }
        let method = BuildMethod::Source { language: language.map(str::to_string), processes };
        let image = self.image();
        self.compiled.builds.push(BuildRequest {
            name: self.name.clone(),
            context: self.app.directory.clone(),
            image,
            method,
            excluded: self.options.env_files.clone().into(),
        });
    }

    /// Warns about build files of other tools, which are not used.
    fn warn_of_other_tools(&mut self, language: Option<&str>) {
        let all = other_tools::all_in(&self.app.directory);
        let Some(first) = all.first() else { return };
        let how = match (language, &self.app.processes) {
            (Some(language), _) => format!("its sources in {language}"),
            (None, _) => "its Procfile".into(),
        };
        let sentence = format!(
            "is not used: {} is built from {how}, as {} is not supported yet",
            self.name,
            other_tools::listed(&all)
        );
        self.found.warn(&Position::of_file(&self.app.directory.join(first.file)), sentence);
    }

    /// The `web` process of an application without a Procfile; `None`, with a warning, if it cannot be detected.
    fn started(&mut self, language: Option<&str>, settings: &Settings) -> Option<(Type, Option<String>)> {
        let at = self.type_at().clone();
        let app_type = &self.app.app_type;
        let program = || detect::go_program(&self.app.directory);
        // Otto's template variable for the compiled program.
        let command = |value: &crate::appfile::Text| {
            ["{{ dep_binary_path }}", "{{dep_binary_path}}"]
                .iter()
                .fold(value.value.clone(), |text, template| text.replace(template, &program()))
        };
        let hints = Hints {
            name: self.app.name.value.clone(),
            run_command: settings.run_command.as_ref().map(command).filter(|c| !c.trim().is_empty()),
            python_entrypoint: settings.python_entrypoint.as_ref().map(|t| t.value.clone()),
        };
        let reason = match language.map(|language| detect::start(&self.app.directory, language, &hints)) {
            Some(Start::Command(command)) => {
                if command.starts_with("gunicorn ") && !detect::python_needs(&self.app.directory, "gunicorn")
                {
                    let sentence = "is served by gunicorn, which no list of requirements names: add it to requirements.txt";
                    self.found.warn(settings.python_entrypoint.as_ref().map_or(&at, |t| &t.at), sentence);
                }
                let process = Process { at, name: "web".into(), command: command.clone() };
                return Some((Type::of(&process), Some(command)));
            }
            Some(Start::Image) => return Some((Type { at, name: "web".into(), command: None }, None)),
            Some(Start::Unknown(reason)) => format!("{reason}, and there is no Procfile"),
            None if TYPES.contains(&app_type.as_str()) => {
                format!("an application of type {app_type} is started by its Procfile, and there is none")
            }
            None => {
                format!(
                    "type \"{app_type}\" is unknown (known are {}), and there is no Procfile",
                    TYPES.join(", ")
                )
            }
        };
        let sentence = format!(
            "no process of {} is started: {reason}; add one with a line like web: COMMAND",
            self.name
        );
        self.found.warn(&at, sentence);
        None
    }

    fn types(&mut self, types: &[Type], settings: &Settings) {
        let names: Vec<&str> = types.iter().map(|t| t.name.as_str()).filter(|n| *n != RELEASE).collect();
        self.check_scale(settings, &names);
        for (name, at, _) in &self.app.app_json.formation {
            if !names.contains(&name.as_str()) {
                self.found
                    .warn(at, format!("formation of {name} has no effect: there is no such process type"));
            }
        }
        let primary = names.iter().find(|n| **n == "web").or(names.first()).copied();
        let (once, always): (Vec<&Type>, Vec<&Type>) = types.iter().partition(|t| t.name == RELEASE);
        for process in once.into_iter().chain(always) {
            let is_primary = primary == Some(process.name.as_str());
            let ports = self.ports_of(process, is_primary, settings);
            let waits = types.iter().any(|t| t.name == RELEASE) && process.name != RELEASE;
            self.process(process, is_primary, ports, settings, waits);
        }
        let reachable = names.contains(&"web") || settings.port.is_some();
        if let (Some(first), false, None) = (types.iter().find(|t| t.name != RELEASE), reachable, &self.host)
        {
            let sentence = format!(
                "nothing can connect to {}: write customization {{ port = ... }} in its Appfile, or name the process web",
                self.name
            );
            self.found.warn(&first.at, sentence);
        }
    }

    fn ports_of(&self, process: &Type, is_primary: bool, settings: &Settings) -> Vec<Port> {
        let web = process.name == "web";
        let port = settings.port.filter(|_| is_primary).or(web.then_some(WEB_PORT));
        // The Service serves web pages on port 80, whatever port the process listens on.
        let port = port.map(|port| match web {
            true => Port { name: "http".into(), ..Port::new(80, port, "TCP") },
            false => Port::new(port, port, "TCP"),
        });
        port.into_iter().collect()
    }

    fn process(
        &mut self,
        process: &Type,
        is_primary: bool,
        ports: Vec<Port>,
        settings: &Settings,
        waits: bool,
    ) {
        let component = dns_name(&process.name);
        let name = format!("{}-{component}", self.name);
        // An invalid application name has been reported already.
        if names::dns_label(&self.name).is_ok() && names::dns_label(&name).is_err() {
            let sentence = format!("process type {} makes the name {name}: use {NAME_RULE}", process.name);
            return self.found.error(&process.at, sentence);
        }
        let container = Container {
            name: component.clone(),
            image: Some(self.image()),
            // The image is built locally and is not in a registry.
            image_pull_policy: Some("Never".into()),
            command: process.command.clone(),
            env: self.env(settings, ports.first()),
            ..Container::default()
        };
        let host = self.host.clone().filter(|_| process.name == "web");
        self.compiled.host = host.clone().or(self.compiled.host.take());
        let service = (is_primary && !ports.is_empty()).then(|| self.name.clone());
        let release = process.name == RELEASE;
        let workload = Workload {
            app: self.name.clone(),
            component,
            part_of: self.part_of.into(),
            name,
            // A failed release is not retried: the user has to decide.
            kind: if release {
                WorkloadKind::Job { retries: 0, parallelism: None }
            } else {
                WorkloadKind::Deployment
            },
            aliases: if service.is_some() { self.aliases() } else { Vec::new() },
            service,
            replicas: if release { 1 } else { self.replicas(&process.name, settings) },
            container,
            ports,
            hosts: host.into_iter().collect(),
            depends_on: waits.then(|| (RELEASE.to_string(), "completed".to_string())).into_iter().collect(),
            annotations: self.annotations(),
            ..Workload::default()
        };
        self.push(workload, Vec::new(), &process.at);
    }

    fn replicas(&self, process: &str, settings: &Settings) -> i32 {
        let formation = self.app.app_json.formation.iter().rev().find(|(name, ..)| name == process);
        settings.scale.get(process).map(|s| s.replicas).or(formation.map(|(.., n)| *n)).unwrap_or(1)
    }

    fn image(&self) -> String {
        format!("yado.local/{}:latest", self.name)
    }

    /// The environment: variables of the app.json, overridden by the Appfile, then the port, and references to secrets.
    fn env(&self, settings: &Settings, port: Option<&Port>) -> Option<Vec<EnvVar>> {
        let json = &self.app.app_json;
        let mut env: BTreeMap<String, String> =
            json.env.clone().into_iter().chain(settings.env.clone()).collect();
        if let Some(port) = port {
            env.entry("PORT".into()).or_insert_with(|| port.container.to_string());
        }
        let mut all = env_vars(env);
        for name in json.secrets.keys().filter(|name| !settings.env.contains_key(*name)) {
            let reference = SecretKeySelector {
                name: self.secret_name(),
                key: name.clone(),
                ..SecretKeySelector::default()
            };
            let value_from =
                Some(EnvVarSource { secret_key_ref: Some(reference), ..EnvVarSource::default() });
            all.push(EnvVar { name: name.clone(), value: None, value_from });
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        (!all.is_empty()).then_some(all)
    }

    fn secret_name(&self) -> String {
        format!("{}-env", self.name)
    }

    /// The Secret with the variables that are generated or taken from the caller.
    fn secrets(&self) -> Option<serde_json::Value> {
        let secrets = &self.app.app_json.secrets;
        let encode = |value: &String| base64::engine::general_purpose::STANDARD.encode(value);
        let data: serde_json::Map<String, serde_json::Value> =
            secrets.iter().map(|(name, value)| (name.clone(), encode(value).into())).collect();
        (!data.is_empty()).then(|| {
            json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {
                    "name": self.secret_name(),
                    "labels": {
                        labels::APP_NAME: self.name,
                        labels::APP_PART_OF: self.part_of,
                        labels::APP_MANAGED_BY: labels::MANAGED_BY_YADO,
                    },
                },
                "type": "Opaque",
                "data": data,
            })
        })
    }
}
