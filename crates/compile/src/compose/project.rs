//! The whole project out of a tree: services, and what they share.

use indexmap::IndexMap;

use super::{
    fields::{self, Fields},
    load::{Environment, Loader},
    model::*,
    service,
};
use crate::yaml::{Entry, Mapping, Node};

/// What a tree says; which services are on, and whether all fits together, is for [`super::check`].
pub(super) fn read(tree: &Node, name: String, environment: &Environment, loader: &mut Loader) -> Project {
    let mut project = Project { name, ..Project::default() };
    let Some(mut f) = Fields::open(tree, String::new(), loader) else { return project };
    // The name was read before everything else, since variables may name it.
    f.entry("name");
    // The version has had no meaning since 2.x and 3.x became one.
    if let Some(entry) = f.entry("version") {
        fields::text_or_number(&entry.value, "version", loader);
    }
    each(&mut f, "services", false, loader, |name, entry, loader| {
        let service = service::read(name, entry, environment, loader)?;
        project.services.insert(name.into(), service);
        Some(())
    });
    project.networks = each(&mut f, "networks", true, loader, |key, entry, loader| {
        network(key, entry, &project.name, loader)
    });
    project.volumes =
        each(&mut f, "volumes", true, loader, |key, entry, loader| volume(key, entry, &project.name, loader));
    for kind in ["configs", "secrets"] {
        let all = each(&mut f, kind, false, loader, |key, entry, loader| {
            file_object(kind, key, entry, &project.name, environment, loader)
        });
        if kind == "configs" { project.configs = all } else { project.secrets = all }
    }
    project.models = each(&mut f, "models", false, loader, |key, entry, loader| {
        let mut f = Fields::open(&entry.value, format!("models.{key}"), loader)?;
        let model = Model {
            at: entry.at.clone(),
            name: f.text("name", loader),
            model: f.text("model", loader).unwrap_or_default(),
            context_size: f.int("context_size", loader),
            runtime_flags: f.texts("runtime_flags", loader),
        };
        f.close(loader);
        if model.model.is_empty() {
            loader.found.error(&entry.at, format!("models.{key} needs a model"));
        }
        Some(model)
    });
    f.close(loader);
    contents(&mut project);
    project
}

/// Files whose content a mount says, as Coolify lets one write it: configs that nobody has named.
fn contents(project: &mut Project) {
    for service in project.services.values_mut() {
        let (files, others) =
            std::mem::take(&mut service.volumes).into_iter().partition(|m| m.content.is_some());
        service.volumes = others;
        let files: Vec<Mount> = files;
        for file in files {
            let name = file.target.rsplit('/').next().unwrap_or_default();
            let mut key = format!("{}-{name}", service.name);
            while project.configs.contains_key(&key) {
                key.push_str("-2");
            }
            let content = Content::Inline(file.content.unwrap_or_default());
            let config = FileObject { at: file.at.clone(), content, ..FileObject::default() };
            project.configs.insert(key.clone(), config);
            let target = Some(file.target);
            service.configs.push(FileReference {
                at: file.at,
                source: key,
                target,
                ..FileReference::default()
            });
        }
    }
}

/// Reads each entry of a section whose keys are names.
fn each<T>(
    f: &mut Fields<'_>,
    section: &'static str,
    may_be_empty: bool,
    loader: &mut Loader,
    mut read: impl FnMut(&str, &Entry, &mut Loader) -> Option<T>,
) -> IndexMap<String, T> {
    let Some(entry) = f.entry(section) else { return IndexMap::new() };
    let Some(mapping) = fields::mapping(&entry.value, section, loader) else {
        loader.dropped = true;
        return IndexMap::new();
    };
    let mut all = IndexMap::new();
    for (key, entry) in mapping {
        if key.starts_with("x-") && entry.value.as_mapping().is_none() {
            continue;
        }
        let odd = key.is_empty()
            || !key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if odd {
            let sentence =
                format!("{key:?} is not a valid name in {section}: use letters, digits, '.', '_' and '-'");
            loader.found.error(&entry.at, sentence);
            loader.dropped = true;
            continue;
        }
        if entry.value.is_null() && !may_be_empty {
            fields::wrong(&entry.value, &format!("{section}.{key}"), "a mapping", loader);
            loader.dropped = true;
            continue;
        }
        match read(key, entry, loader) {
            Some(value) => drop(all.insert(key.clone(), value)),
            None => loader.dropped = true,
        }
    }
    all
}

/// `external: true`, or version 2's `external: {name: ...}`, with the name.
struct External {
    external: bool,
    name: Option<String>,
}

fn external(f: &mut Fields<'_>, loader: &mut Loader) -> External {
    let name = f.text("name", loader);
    let Some((node, path)) = f.node("external") else { return External { external: false, name } };
    if node.as_mapping().is_none() {
        return External { external: fields::bool(node, &path, loader).unwrap_or_default(), name };
    }
    let Some(mut inner) = Fields::open(node, path.clone(), loader) else {
        return External { external: true, name };
    };
    let old = inner.text("name", loader);
    inner.close(loader);
    if let (Some(name), Some(old)) = (&name, &old)
        && name != old
    {
        loader.found.error(
            &node.at,
            format!("{path}.name is {old}, but the name is {name} already: write only name"),
        );
    }
    External { external: true, name: name.or(old) }
}

impl External {
    fn name(self, key: &str, project: &str) -> String {
        let default = if self.external { key.to_string() } else { format!("{project}_{key}") };
        self.name.unwrap_or(default)
    }
}

fn network(key: &str, entry: &Entry, project: &str, loader: &mut Loader) -> Option<Network> {
    let mut network =
        Network { at: entry.at.clone(), name: format!("{project}_{key}"), ..Network::default() };
    if entry.value.is_null() {
        return Some(network);
    }
    let mut f = Fields::open(&entry.value, format!("networks.{key}"), loader)?;
    let external = external(&mut f, loader);
    network.external = external.external;
    network.name = external.name(key, project);
    network.driver = f.text("driver", loader);
    network.driver_opts = f.options("driver_opts", loader);
    network.internal = f.bool("internal", loader).unwrap_or_default();
    network.attachable = f.bool("attachable", loader).unwrap_or_default();
    network.enable_ipv4 = f.bool("enable_ipv4", loader);
    network.enable_ipv6 = f.bool("enable_ipv6", loader);
    network.labels = f.labels("labels", loader);
    if let Some(mut f) = f.node("ipam").and_then(|(node, path)| Fields::open(node, path, loader)) {
        network.ipam_driver = f.text("driver", loader);
        network.ipam_options = f.options("options", loader);
        network.ipam_config = f.list("config", loader, |node, path, loader| {
            let mut f = Fields::open(node, path.into(), loader)?;
            let pool = IpamPool {
                subnet: f.text("subnet", loader),
                gateway: f.text("gateway", loader),
                ip_range: f.text("ip_range", loader),
                aux_addresses: f.options("aux_addresses", loader),
            };
            f.close(loader);
            Some(pool)
        });
        f.close(loader);
    }
    f.close(loader);
    Some(network)
}

fn volume(key: &str, entry: &Entry, project: &str, loader: &mut Loader) -> Option<Volume> {
    let mut volume = Volume { at: entry.at.clone(), name: format!("{project}_{key}"), ..Volume::default() };
    if entry.value.is_null() {
        return Some(volume);
    }
    let mut f = Fields::open(&entry.value, format!("volumes.{key}"), loader)?;
    let external = external(&mut f, loader);
    volume.external = external.external;
    volume.name = external.name(key, project);
    volume.driver = f.text("driver", loader);
    volume.driver_opts = f.options("driver_opts", loader);
    volume.labels = f.labels("labels", loader);
    f.close(loader);
    // A bind by the local driver is relative to the file, as every path is.
    let bind = volume.driver_opts.get("o").is_some_and(|o| o.split(',').any(|o| o == "bind" || o == "rbind"));
    let at = entry.value.place(["driver_opts", "device"]).clone();
    if let Some(device) = volume.driver_opts.get_mut("device").filter(|d| bind && fields::is_path(d)) {
        *device = loader.resolve(&at, device).to_string_lossy().into_owned();
    }
    if volume.external {
        conflict(&format!("volumes.{key}"), entry, loader);
    }
    Some(volume)
}

/// Complains about what is said of something that others make.
fn conflict(path: &str, entry: &Entry, loader: &mut Loader) {
    let empty = Mapping::new();
    let written = entry.value.as_mapping().unwrap_or(&empty);
    for (key, entry) in
        written.iter().filter(|(k, _)| !matches!(k.as_str(), "name" | "external") && !k.starts_with("x-"))
    {
        loader.found.error(&entry.at, format!("{path} is external, so {key} cannot be said here"));
    }
}

fn file_object(
    kind: &str,
    key: &str,
    entry: &Entry,
    project: &str,
    environment: &Environment,
    loader: &mut Loader,
) -> Option<FileObject> {
    let path = format!("{kind}.{key}");
    let mut f = Fields::open(&entry.value, path.clone(), loader)?;
    let external = external(&mut f, loader);
    let file = f.path("file", loader);
    let variable = f.text("environment", loader);
    // An empty file may be meant.
    let content = f.node("content").filter(|_| kind == "configs");
    let content = content.and_then(|(node, path)| fields::text(node, &path, loader));
    let mut object = FileObject {
        at: entry.at.clone(),
        labels: f.labels("labels", loader),
        driver: if kind == "secrets" { f.text("driver", loader) } else { None },
        driver_opts: if kind == "secrets" { f.options("driver_opts", loader) } else { IndexMap::new() },
        template_driver: f.text("template_driver", loader),
        ..FileObject::default()
    };
    f.close(loader);
    let one_of = if kind == "configs" { "file, environment or content" } else { "file or environment" };
    let written = [file.is_some(), variable.is_some(), content.is_some()].iter().filter(|w| **w).count();
    if written > 1 {
        loader.found.error(&entry.at, format!("{path} has more than one of {one_of}: choose one"));
    } else if written == 0 && !external.external && object.driver.is_none() {
        loader.found.error(&entry.at, format!("{path} needs {one_of}, or external: true"));
    }
    object.content = match (file, variable, content) {
        (Some(file), _, _) => Content::File(file),
        (_, Some(variable), _) => {
            let value = environment.get(&variable).or_else(|| loader.environment.get(&variable)).cloned();
            Content::Environment(variable, value)
        }
        (_, _, Some(content)) => Content::Inline(content),
        _ => Content::External,
    };
    object.name = external.name(key, project);
    Some(object)
}
