//! Compiles applications to objects.
//!
//! | an application | becomes |
//! |---|---|
//! | with a Procfile | an image to build and, per process type, a Deployment `NAME-TYPE`; a Job `NAME-release` for `release` |
//! | in a supported language, without one | the same with the single process type `web`, whose command [`crate::detect`] finds |
//! | its `web` process, else its first | a Service `NAME`: port 80 for `web`, else the port in `customization { port }` |
//! | that is the compiled one, with `web` | an Ingress for `NAME.localhost` |
//! | of type `docker-external` | a Deployment `NAME` of that image, and a Service `NAME` with the published ports |
//!
//! So an application reaches its dependency `redis-leader` as `redis-leader` and, as in Otto, as
//! `redis-leader.service.consul`, which the engine's name server answers in place of Consul.

mod docker;
mod processes;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::EnvVar;
use yado_types::names;

use super::{
    Text,
    load::{App, Tree},
    settings::{self, Settings},
};
use crate::{
    Compiled, Diagnostics, Event, Object, Options,
    diagnostic::{Findings, Position},
    workload::{Workload, name::sanitised},
};

/// Annotation of a Deployment with the identity in the application's `.ottoid`.
const OTTO_ID: &str = "yado.dev/otto-id";

/// Supported application types. `custom` and `scriptpack` need a Procfile.
const TYPES: [&str; 13] = [
    "custom",
    "docker-external",
    "go",
    "java",
    "node",
    "php",
    "python",
    "rails",
    "ruby",
    "rust",
    "scriptpack",
    "static",
    "wordpress",
];

/// The rule of application names, for messages.
const NAME_RULE: &str = "letters a to z, digits and hyphens, at most 63, with a letter first";

/// Default infrastructure in events. Otto's flavor `simple`, one machine for everything, describes the engine; Otto's
/// default `aws` does not.
const INFRASTRUCTURE: &str = "yado (simple)";

/// Infrastructure types for which Otto provisioned machines or planned to. Any other name was chosen by the user.
const CLOUDS: [&str; 7] = ["aws", "azure", "digitalocean", "gce", "google", "openstack", "vsphere"];

pub(super) fn compile(tree: Tree, options: &Options) -> Result<Compiled, Diagnostics> {
    let mut found = Findings { warnings: tree.warnings, ..Findings::default() };
    let mut compiled = Compiled::default();
    let Some(root) = tree.apps.last() else { return Err(Diagnostics(Vec::new())) };
    let part_of = dns_name(&root.name.value);
    let last = tree.apps.len() - 1;
    tell_of(root, options, &mut found);
    let mut made: Vec<UnlinkedWorkload> = Vec::new();
    for (place, app) in tree.apps.iter().enumerate() {
        let part = match place == last {
            true => "main application".to_string(),
            false => format!("dependency '{}'", app.name.value),
        };
        options.events.emit(&Event::CompilingPart { part });
        let mut lowering = Lowering {
            app,
            options,
            name: app_name(app, &mut found),
            part_of: &part_of,
            host: (place == last).then(|| format!("{part_of}.{}", options.domain)),
            found: &mut found,
            compiled: &mut compiled,
            made: &mut made,
        };
        lowering.run();
        if place != last {
            compiled.dependencies.push(dns_name(&app.name.value));
        }
    }
    docker::link(&mut made, &mut found);
    for made in made {
        let (group, source) = (made.group, made.source);
        let values = made.before.into_iter().chain(made.workload.objects());
        compiled.objects.extend(values.map(|value| Object {
            value,
            group: group.clone(),
            source: source.clone(),
        }));
    }
    distinct_objects(&compiled, root, &mut found);
    compiled.app = part_of;
    compiled.app_type = root.app_type.clone();
    compiled.directory = root.directory.clone();
    let appfile = super::load::is_appfile(&root.path);
    compiled.missing_id = (appfile && root.id.is_none()).then(|| root.directory.join(crate::model::ID_FILE));
    compiled.warnings = found.finish()?;
    Ok(compiled)
}

/// Emits the events of the compiled application, with Otto's defaults, and warns about settings without effect.
fn tell_of(root: &App, options: &Options, found: &mut Findings) {
    let project = root.file.project.as_ref();
    let named = project.and_then(|p| p.infrastructure.as_ref());
    let infrastructure =
        named.and_then(|n| root.file.infrastructures.iter().find(|i| i.name.value == n.value));
    let shown = infrastructure.map_or_else(
        || INFRASTRUCTURE.to_string(),
        |i| {
            if i.flavor.is_empty() {
                i.infra_type.clone()
            } else {
                format!("{} ({})", i.infra_type, i.flavor)
            }
        },
    );
    options.events.emit(&Event::Compiling {
        application: root.name.value.clone(),
        app_type: root.app_type.clone(),
        project: project.and_then(|p| p.name.as_ref()).unwrap_or(&root.name).value.clone(),
        infrastructure: shown,
    });
    options.events.emit(&Event::CompilingPart { part: "infra".into() });
    let mut foundations = vec!["consul"];
    if let Some(infrastructure) = infrastructure {
        if CLOUDS.contains(&infrastructure.infra_type.as_str()) {
            let sentence = format!(
                "nothing is set up at {}: the app runs where its objects are applied, on this machine's engine or on a cluster of yours",
                infrastructure.infra_type
            );
            found.warn(&infrastructure.name.at, sentence);
        }
        for foundation in &infrastructure.foundations {
            if foundation.name != "consul" {
                let sentence = format!("foundation \"{}\" is not set up: there is consul", foundation.name);
                found.warn(&foundation.at, sentence);
                foundations.retain(|f| *f != foundation.name);
            } else if let Some(setting) = foundation.settings.first() {
                let sentence = format!(
                    "{} has no effect: names such as NAME.service.consul are answered by the engine, so there is no Consul to set up",
                    setting.key
                );
                found.warn(&setting.at, sentence);
            }
        }
    }
    for foundation in foundations {
        options.events.emit(&Event::CompilingPart { part: format!("foundation: {foundation}") });
    }
}

/// The name as a DNS label that starts with a letter.
fn dns_name(name: &str) -> String {
    sanitised(name, 63)
}

/// The application's name in its objects, with a warning if it differs from the written one.
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

/// Reports process types whose objects have the same name: `a` of `b-c`, and `c-a` of `b`.
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

/// A workload whose links are not resolved yet.
struct UnlinkedWorkload {
    workload: Workload,
    /// Objects that have to be created before it.
    before: Vec<serde_json::Value>,
    /// Link targets and their aliases.
    links: Vec<(String, String)>,
    /// Position of the links.
    at: Position,
    group: String,
    source: std::path::PathBuf,
}

struct Lowering<'a> {
    app: &'a App,
    options: &'a Options,
    name: String,
    part_of: &'a str,
    /// The host name, for the compiled application only.
    host: Option<String>,
    found: &'a mut Findings,
    compiled: &'a mut Compiled,
    made: &'a mut Vec<UnlinkedWorkload>,
}

impl Lowering<'_> {
    fn run(&mut self) {
        let settings = settings::read(&self.app.file, &self.app.app_type, self.found);
        if super::is_docker(&self.app.app_type) {
            self.check_scale(&settings, &["app"]);
            return self.docker_external(settings);
        }
        self.sources(settings);
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

    /// Aliases: the written name, if it is not a valid object name.
    fn aliases(&self) -> Vec<String> {
        Some(self.app.name.value.clone()).filter(|written| *written != self.name).into_iter().collect()
    }

    fn push(&mut self, workload: Workload, links: Vec<(String, String)>, at: &Position) {
        self.made.push(UnlinkedWorkload {
            workload,
            before: Vec::new(),
            links,
            at: at.clone(),
            group: self.name.clone(),
            source: self.app.path.clone(),
        });
    }

    fn type_at(&self) -> &Position {
        let written: Option<&Text> = self.app.file.application.as_ref().and_then(|a| a.app_type.as_ref());
        written.map_or(&self.app.name.at, |t| &t.at)
    }
}

fn env_vars(env: BTreeMap<String, String>) -> Vec<EnvVar> {
    env.into_iter().map(|(name, value)| EnvVar { name, value: Some(value), value_from: None }).collect()
}
