//! Validation of a project: active services, their dependencies, and references between sections.

use std::collections::{HashMap, HashSet};

use super::model::*;
use crate::diagnostic::Findings;

/// Moves inactive services to `disabled`, adds implied settings, and checks all references.
pub(super) fn check(project: &mut Project, profiles: &[String], found: &mut Findings) {
    let on = |service: &Service| {
        service.profiles.is_empty()
            || service.profiles.iter().any(|p| profiles.contains(p))
            || profiles.iter().any(|p| p == "*")
    };
    let (services, disabled) = std::mem::take(&mut project.services).into_iter().partition(|(_, s)| on(s));
    (project.services, project.disabled) = (services, disabled);
    let names: Vec<String> = project.services.keys().cloned().collect();
    for service in project.services.values_mut() {
        complete(service, &names);
    }
    let default = project.services.values().any(|s| s.networks.contains_key("default"));
    if default && !project.networks.contains_key("default") {
        // In version 1, all services use Docker's default network.
        let name = if project.version_1 { "bridge".into() } else { format!("{}_default", project.name) };
        project.networks.insert("default".into(), Network { name, ..Network::default() });
    }
    for service in project.services.values() {
        image(service, found);
        references(service, project, found);
        needs(service, project, found);
        limits(service, found);
        mounts(service, found);
    }
    cycles(project, found);
}

/// Adds the settings that are implied by other fields of a service.
fn complete(service: &mut Service, names: &[String]) {
    // Version 1 has no `service:`; `container:` names a service there.
    if let Some(NetworkMode::Container(name)) = &service.network_mode
        && names.contains(name)
    {
        service.network_mode = Some(NetworkMode::Service(name.clone()));
    }
    if service.networks.is_empty() && service.network_mode.is_none() && service.provider.is_none() {
        let attachment = Attachment { at: service.at.clone(), ..Attachment::default() };
        service.networks.insert("default".into(), attachment);
    }
    if let Some(image) = service.image.clone() {
        for hook in &mut service.pre_start {
            hook.image.get_or_insert_with(|| image.clone());
        }
    }
    let mut implied: Vec<(String, &'static str, crate::Position)> = Vec::new();
    implied.extend(service.links.iter().map(|l| (l.target.clone(), "links", l.at.clone())));
    if let Some(NetworkMode::Service(name)) = &service.network_mode {
        implied.push((name.clone(), "network_mode", service.place("network_mode").clone()));
    }
    let shared = [("ipc", &service.ipc), ("pid", &service.pid), ("uts", &service.uts)];
    for (field, value) in shared {
        if let Some(name) = value.as_deref().and_then(|v| v.strip_prefix("service:")) {
            implied.push((name.into(), field, service.place(field).clone()));
        }
    }
    let from = service.volumes_from.iter().filter(|v| !v.container);
    implied.extend(from.map(|v| (v.source.clone(), "volumes_from", v.at.clone())));
    for (name, field, at) in implied {
        service.depends_on.entry(name).or_insert(Dependency {
            at,
            restart: field != "volumes_from",
            required: true,
            implied_by: Some(field),
            ..Dependency::default()
        });
    }
}

fn image(service: &Service, found: &mut Findings) {
    // A field that could not be read has been reported already.
    let read = service.image.is_some() || !service.has("image") || service.empty_image.is_some();
    if read && service.image.is_none() && !service.has("build") && !service.has("provider") {
        let at = service.empty_image.as_ref().unwrap_or(&service.at);
        let sentence = format!("services.{} has neither image nor build: say what it runs", service.name);
        found.error(at, sentence);
    }
    if let Some(build) = &service.build {
        if build.dockerfile.is_some() && build.dockerfile_inline.is_some() {
            let sentence = format!(
                "services.{}.build has both dockerfile and dockerfile_inline: choose one",
                service.name
            );
            found.error(&build.at, sentence);
        }
        let other =
            service.platform.as_ref().filter(|p| !build.platforms.is_empty() && !build.platforms.contains(p));
        if let Some(platform) = other {
            let sentence = format!("services.{}.build.platforms has to name {platform} too", service.name);
            found.error(service.place("build.platforms"), sentence);
        }
    }
}

/// Checks references to networks, volumes, configs, secrets and models.
fn references(service: &Service, project: &Project, found: &mut Findings) {
    let name = &service.name;
    let mut missing = |at: &crate::Position, kind: &str, key: &str| {
        let sentence = format!("services.{name} uses the {kind} {key}, which {kind}s does not declare");
        found.error(at, sentence);
    };
    for (key, attachment) in service.networks.iter().filter(|(k, _)| !project.networks.contains_key(*k)) {
        missing(&attachment.at, "network", key);
    }
    for mount in service.volumes.iter().filter(|m| m.kind == MountKind::Volume) {
        if let Some(source) = mount.source.as_ref().filter(|s| !project.volumes.contains_key(*s)) {
            missing(&mount.at, "volume", source);
        }
    }
    for config in service.configs.iter().filter(|c| !project.configs.contains_key(&c.source)) {
        missing(&config.at, "config", &config.source);
    }
    let build = service.build.iter().flat_map(|b| &b.secrets);
    for secret in service.secrets.iter().chain(build).filter(|s| !project.secrets.contains_key(&s.source)) {
        missing(&secret.at, "secret", &secret.source);
    }
    for key in service.models.keys().filter(|k| !project.models.contains_key(*k)) {
        missing(service.place("models"), "model", key);
    }
    if service.network_mode.is_some() && !service.networks.is_empty() {
        let sentence = format!("services.{name} has both network_mode and networks: choose one");
        found.error(service.place("network_mode"), sentence);
    }
}

/// Checks references to services.
fn needs(service: &Service, project: &Project, found: &mut Findings) {
    for (name, dependency) in &service.depends_on {
        if project.services.contains_key(name) {
            continue;
        }
        let field = dependency.implied_by.unwrap_or("depends_on");
        let sentence = match project.disabled.get(name) {
            Some(_) if !dependency.required => continue,
            Some(off) => format!(
                "services.{}.{field} names {name}, which is off: turn on its profile {}, or add required: false",
                service.name,
                off.profiles.join(" or ")
            ),
            None => {
                format!(
                    "services.{}.{field} names {name}, which is not a service of this project",
                    service.name
                )
            }
        };
        found.error(&dependency.at, sentence);
    }
}

/// Checks settings that can be written in two fields.
fn limits(service: &Service, found: &mut Findings) {
    let name = &service.name;
    let Some(deploy) = &service.deploy else {
        return unique_name(service, found);
    };
    let mut differ = |field: &str, other: &str| {
        let sentence = format!("services.{name}.{field} and {other} say different things: write only one");
        found.error(service.place(field), sentence);
    };
    if service.scale.is_some() && deploy.replicas.is_some() && service.scale != deploy.replicas {
        differ("scale", "deploy.replicas");
    }
    if let Some(limits) = &deploy.limits {
        if service.cpus.is_some_and(|c| c != 0.0) && limits.cpus != service.cpus {
            differ("cpus", "deploy.resources.limits.cpus");
        }
        if service.mem_limit.is_some() && limits.memory != service.mem_limit {
            differ("mem_limit", "deploy.resources.limits.memory");
        }
        if service.pids_limit.is_some_and(|p| p != 0) && limits.pids != service.pids_limit {
            differ("pids_limit", "deploy.resources.limits.pids");
        }
    }
    if let Some(reservations) = &deploy.reservations
        && service.mem_reservation.is_some()
        && reservations.memory != service.mem_reservation
    {
        differ("mem_reservation", "deploy.resources.reservations.memory");
    }
    unique_name(service, found);
}

fn unique_name(service: &Service, found: &mut Findings) {
    let replicas = service.replicas();
    if let Some(container) = service.container_name.as_ref().filter(|_| replicas > 1) {
        let sentence = format!(
            "services.{} cannot be {replicas} containers that are all called {container}",
            service.name
        );
        found.error(service.place("container_name"), sentence);
    }
}

fn mounts(service: &Service, found: &mut Findings) {
    let mut seen: HashSet<&str> = HashSet::new();
    let tmpfs = service.tmpfs.iter().map(|t| (t.split(':').next().unwrap_or(t), service.place("tmpfs")));
    for (target, at) in tmpfs.chain(service.volumes.iter().map(|m| (m.target.as_str(), &m.at))) {
        if !seen.insert(target) {
            found.error(at, format!("services.{} mounts two things at {target}", service.name));
        }
    }
}

/// Reports dependency cycles.
fn cycles(project: &Project, found: &mut Findings) {
    let mut state: HashMap<&str, Visit> = HashMap::new();
    for name in project.services.keys() {
        if !state.contains_key(name.as_str()) {
            visit(project, name, &mut state, found);
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Visit {
    Begun,
    Done,
}

/// Visits the dependencies of `first` depth-first. It uses a list instead of recursion, since a chain of services may be
/// as long as a file.
fn visit<'p>(
    project: &'p Project,
    first: &'p str,
    state: &mut HashMap<&'p str, Visit>,
    found: &mut Findings,
) {
    // The services of the chain, and the number of visited dependencies of each.
    let mut chain: Vec<(&str, usize)> = vec![(first, 0)];
    state.insert(first, Visit::Begun);
    while let Some((name, next)) = chain.last_mut() {
        let need = project.services.get(*name).and_then(|s| s.depends_on.get_index(*next));
        *next += 1;
        let Some((needed, dependency)) = need else {
            state.insert(name, Visit::Done);
            chain.pop();
            continue;
        };
        match state.get(needed.as_str()) {
            Some(Visit::Begun) => {
                let from = chain.iter().position(|(c, _)| c == needed).unwrap_or(0);
                let names: Vec<&str> =
                    chain[from..].iter().map(|(c, _)| *c).chain([needed.as_str()]).collect();
                found.error(&dependency.at, format!("services wait for each other: {}", names.join(" -> ")));
            }
            None if project.services.contains_key(needed) => {
                state.insert(needed, Visit::Begun);
                chain.push((needed, 0));
            }
            _ => {}
        }
    }
}
