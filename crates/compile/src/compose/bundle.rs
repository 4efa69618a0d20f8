//! Distributed application bundles (`.dab`): what `docker-compose bundle` wrote and `docker stack deploy` read, in JSON.

use std::path::Path;

use indexmap::IndexMap;

use super::{
    absolute,
    fields::{self, Fields},
    load::Loader,
    model::{Attachment, Network, PortMapping, Project, Service},
    normalise, parent,
};
use crate::{
    Options,
    diagnostic::{Diagnostic, Diagnostics},
    source::Source,
    yaml::{self, Entry, Node},
};

/// Reads the bundle at `path`. The project has the name of the file.
pub(super) fn read(path: &Path, options: &Options) -> Result<Project, Diagnostics> {
    let source = Source::read(path)?;
    // JSON is read as YAML, which keeps positions.
    let mut documents = yaml::read(&source)?;
    if documents.len() != 1 {
        return Err(Diagnostic::of_file(path, "is not a valid bundle: it has to be one JSON object").into());
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = options.project.clone().unwrap_or_else(|| normalise(&stem));
    let mut project =
        Project { name, directory: absolute(parent(path)), files: vec![path.into()], ..Project::default() };
    let mut loader = Loader::default();
    bundle(&documents.remove(0), &mut project, &mut loader);
    project.warnings = loader.found.finish()?;
    Ok(project)
}

fn bundle(document: &Node, project: &mut Project, loader: &mut Loader) {
    let Some(mut f) = Fields::open(document, "the bundle".into(), loader) else { return };
    if let Some((node, _)) = f.node("Version").or_else(|| f.node("version")) {
        let version = node.printed().unwrap_or_default();
        if version != "0.1" {
            loader
                .found
                .error(&node.at, format!("the bundle has version {version:?}, but only 0.1 is known"));
        }
    }
    let services = f.node("Services").or_else(|| f.node("services"));
    f.close(loader);
    let Some((node, path)) = services else {
        loader.found.error(&document.at, "the bundle has no Services, so there is nothing to run");
        return;
    };
    for (name, entry) in fields::mapping(node, &path, loader).into_iter().flatten() {
        let Some(service) = service(name, entry, loader) else { continue };
        for (network, attachment) in &service.networks {
            project.networks.entry(network.clone()).or_insert_with(|| Network {
                at: attachment.at.clone(),
                name: format!("{}_{network}", project.name),
                ..Network::default()
            });
        }
        project.services.insert(name.clone(), service);
    }
}

fn service(name: &str, entry: &Entry, loader: &mut Loader) -> Option<Service> {
    let mut f = Fields::open(&entry.value, format!("Services.{name}"), loader)?;
    let image = f.text("Image", loader);
    if image.is_none() && entry.value.get("Image").is_none() {
        loader.found.error(&entry.at, format!("Services.{name} needs an Image"));
    }
    let list = |texts: Vec<String>| Some(texts).filter(|t| !t.is_empty());
    let env = f.node("Env").map(|(node, path)| fields::pairs(node, &path, loader)).unwrap_or_default();
    let networks = f.texts("Networks", loader);
    let networks_at = entry.value.place(["Networks"]).clone();
    let mut service = Service {
        name: name.into(),
        at: entry.at.clone(),
        image,
        // Command in a bundle corresponds to entrypoint.
        entrypoint: list(f.texts_twice("Command", loader)),
        command: list(f.texts_twice("Args", loader)),
        environment: env.into_iter().filter_map(|(k, v)| Some((k, v?))).collect(),
        labels: f.labels("Labels", loader),
        ports: f.list("Ports", loader, port),
        working_dir: f.text("WorkingDir", loader),
        user: f.text("User", loader),
        networks: IndexMap::new(),
        ..Service::default()
    };
    let networks = if networks.is_empty() { vec!["default".to_string()] } else { networks };
    for network in networks {
        service.networks.insert(network, Attachment { at: networks_at.clone(), ..Attachment::default() });
    }
    for (field, at) in f.written() {
        let known = match field.as_str() {
            "Image" => "image",
            "Command" => "entrypoint",
            "Args" => "command",
            "Env" => "environment",
            "Labels" => "labels",
            "Ports" => "ports",
            "WorkingDir" => "working_dir",
            "User" => "user",
            "Networks" => "networks",
            _ => continue,
        };
        service.places.insert(known.into(), at.at.clone());
    }
    f.close(loader);
    Some(service)
}

/// Reads `{"Protocol": "tcp", "Port": 80}`. The cluster chooses the published port.
fn port(node: &Node, path: &str, loader: &mut Loader) -> Option<PortMapping> {
    let mut f = Fields::open(node, path.into(), loader)?;
    let port = f.int("Port", loader);
    let protocol = f.text("Protocol", loader).unwrap_or_else(|| "tcp".into()).to_lowercase();
    f.close(loader);
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        loader.found.error(&node.at, format!("{path}.Protocol has to be tcp, udp or sctp, not {protocol:?}"));
    }
    let target = u16::try_from(port?).ok().filter(|p| *p > 0);
    if target.is_none() {
        loader.found.error(&node.at, format!("{path}.Port has to be between 1 and 65535"));
    }
    Some(PortMapping { at: node.at.clone(), target: target?, protocol, ..PortMapping::default() })
}
