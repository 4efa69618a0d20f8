//! Images that services build.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    super::model::{Build, Content, Project, Service},
    Lowering,
    dockerfile::{self, Dockerfile},
    names,
};
use crate::{
    BuildMethod, BuildRequest, WEB_PORT, detect,
    procfile::{self, Process},
    source::Source,
    workload::name::sanitised,
};

/// The image a service runs: as written, else one that is made here under a name of its own.
pub(super) fn image(service: &Service, app: &str) -> String {
    match service.image.as_deref().map(str::trim).filter(|i| !i.is_empty()) {
        Some(image) => image.into(),
        None => {
            let name = sanitised(&names::component(&service.name), 63);
            format!("yado.local/{app}-{name}:latest")
        }
    }
}

/// What the service's Dockerfile says, where it is here.
pub(super) fn dockerfile(service: &Service) -> Dockerfile {
    let Some(build) = &service.build else { return Dockerfile::default() };
    match &build.dockerfile_inline {
        Some(text) => dockerfile::read(text, build.target.as_deref(), &build.args),
        None => Source::read(&path(build)).map_or_else(
            |_| Dockerfile::default(),
            |source| dockerfile::read(&source.text, build.target.as_deref(), &build.args),
        ),
    }
}

fn path(build: &Build) -> PathBuf {
    let file = build.dockerfile.as_deref().unwrap_or("Dockerfile");
    Path::new(&build.context).join(file)
}

/// A context that has no Dockerfile but sources whose language shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sources {
    /// The language.
    pub language: Option<String>,
    /// Process types and commands that no Procfile says.
    pub processes: Vec<(String, String)>,
    /// What the service runs, where it does not say so itself.
    pub start: Option<Vec<String>>,
}

/// The sources that a service is built from without a Dockerfile.
pub(super) fn sources(service: &Service) -> Option<Sources> {
    let build = service.build.as_ref()?;
    let context = Path::new(&build.context);
    let written = build.dockerfile.is_some() || build.dockerfile_inline.is_some();
    if written || !context.is_dir() || path(build).exists() {
        return None;
    }
    let language = detect::app_type(context).and_then(detect::language);
    let procfile = context.join("Procfile");
    if procfile.is_file() {
        let processes = procfile::parse_file(&procfile).ok()?;
        let web = processes.iter().find(|p| p.name == "web").or(processes.first());
        let start = web.map(Process::argv);
        return Some(Sources { language: language.map(Into::into), processes: Vec::new(), start });
    }
    let language = language?;
    let hints = detect::Hints { name: service.name.clone(), ..detect::Hints::default() };
    let (processes, start) = match detect::start(context, language, &hints) {
        detect::Start::Command(command) => {
            let process = Process { at: build.at.clone(), name: "web".into(), command: command.clone() };
            (vec![("web".into(), command)], Some(process.argv()))
        }
        detect::Start::Image => (Vec::new(), None),
        detect::Start::Unknown(_) if service.command.is_some() || service.entrypoint.is_some() => {
            (Vec::new(), None)
        }
        detect::Start::Unknown(_) => return None,
    };
    Some(Sources { language: Some(language.into()), processes, start })
}

/// The port that a service built from sources is told to listen on, in `PORT`, unless it says so itself.
pub(super) fn told_port(service: &Service) -> Option<u16> {
    let tcp = service.ports.iter().filter(|p| p.protocol == "tcp").map(|p| p.target);
    let port = tcp.chain(service.expose.iter().map(|p| p.port)).next().unwrap_or(WEB_PORT);
    (!service.environment.contains_key("PORT") && sources(service).is_some()).then_some(port)
}

impl Lowering<'_> {
    /// Asks for the service's image, once for all services that share it.
    pub(super) fn build(&mut self, service: &Service) {
        let Some(build) = &service.build else { return };
        self.build_remarks(service, build);
        let image = image(service, &self.names.app);
        if self.compiled.builds.iter().any(|b| b.image == image) {
            return;
        }
        let remote = build.context.contains("://") || build.context.starts_with("git@");
        let context = PathBuf::from(&build.context);
        if !remote && !context.is_dir() {
            let sentence =
                format!("there is no directory {} to build {} from", context.display(), service.name);
            self.found.warn(&build.at, sentence);
        }
        let method = match sources(service) {
            Some(sources) => BuildMethod::Source { language: sources.language, processes: sources.processes },
            None => self.by_dockerfile(build),
        };
        let excluded = self.excluded.clone();
        self.compiled.builds.push(BuildRequest {
            name: service.name.clone(),
            context,
            image,
            method,
            excluded,
        });
    }

    fn by_dockerfile(&self, build: &Build) -> BuildMethod {
        BuildMethod::Dockerfile {
            file: build.dockerfile.as_ref().map(PathBuf::from),
            inline: build.dockerfile_inline.clone(),
            target: build.target.clone(),
            args: build.args.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        }
    }

    fn build_remarks(&mut self, service: &Service, build: &Build) {
        let without: [(&str, bool); 20] = [
            ("additional_contexts", !build.additional_contexts.is_empty()),
            ("cache_from", !build.cache_from.is_empty()),
            ("cache_to", !build.cache_to.is_empty()),
            ("entitlements", !build.entitlements.is_empty()),
            ("extra_hosts", !build.extra_hosts.is_empty()),
            ("isolation", build.isolation.is_some()),
            ("labels", !build.labels.is_empty()),
            ("network", build.network.is_some()),
            ("no_cache", build.no_cache == Some(true)),
            ("no_cache_filter", !build.no_cache_filter.is_empty()),
            ("platforms", !build.platforms.is_empty()),
            ("privileged", build.privileged == Some(true)),
            ("provenance", build.provenance.is_some()),
            ("pull", build.pull == Some(true)),
            ("sbom", build.sbom.is_some()),
            ("secrets", !build.secrets.is_empty()),
            ("shm_size", build.shm_size.is_some()),
            ("ssh", !build.ssh.is_empty()),
            ("tags", !build.tags.is_empty()),
            ("ulimits", !build.ulimits.is_empty()),
        ];
        let names: Vec<&str> = without.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
        if !names.is_empty() {
            let sentence = format!("of build, {} has no effect here", names.join(", "));
            self.found.warn(service.place("build"), sentence);
        }
        let by_hand: [(&str, bool); 4] = [
            ("dockerfile", build.dockerfile.is_some()),
            ("dockerfile_inline", build.dockerfile_inline.is_some()),
            ("target", build.target.is_some()),
            ("args", !build.args.is_empty()),
        ];
        let names: Vec<&str> = by_hand.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
        if !names.is_empty() {
            let sentence = format!(
                "of build, {} has no effect here, as Dockerfiles are not built yet: who builds {} elsewhere has to build with it",
                names.join(", "),
                image(service, &self.names.app)
            );
            self.found.warn(service.place("build"), sentence);
        }
    }
}

/// The files of a project that may hold secrets: env files and those of its secrets, be they in use or not.
pub(super) fn secret_files(project: &Project) -> Arc<[PathBuf]> {
    let services = project.services.values().chain(project.disabled.values());
    let mut files: Vec<PathBuf> = services.flat_map(|s| s.env_files.iter().cloned()).collect();
    files.extend(project.env_files.iter().cloned());
    files.extend(project.secrets.values().filter_map(|secret| match &secret.content {
        Content::File(path) => Some(path.clone()),
        _ => None,
    }));
    files.sort();
    files.dedup();
    files.into()
}
