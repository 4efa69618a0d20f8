//! Version 1, in which a file is nothing but services.

use super::fields;
use crate::yaml::{Entry, Mapping, Node, Value};

/// Whether a document is of version 1: it has no `services`, and every entry is something to run.
pub(super) fn is_version_1(document: &Node) -> bool {
    let Some(mapping) = document.as_mapping() else { return false };
    const NEWER: [&str; 8] =
        ["services", "include", "networks", "volumes", "configs", "secrets", "models", "name"];
    if NEWER.iter().any(|key| mapping.contains_key(*key)) || mapping.contains_key("apiVersion") {
        return false;
    }
    let mut services =
        mapping.iter().filter(|(key, _)| !key.starts_with("x-") && *key != "version").peekable();
    const RUN: [&str; 4] = ["image", "build", "extends", "dockerfile"];
    services.peek().is_some() && services.all(|(_, e)| RUN.iter().any(|f| e.value.get(f).is_some()))
}

/// Puts the services of a version 1 document where later versions have them, and declares the volumes that its services
/// name, which then needed no declaration.
pub(super) fn to_services(document: &mut Node) {
    if !is_version_1(document) {
        return;
    }
    let at = document.at.clone();
    let Some(all) = document.as_mapping_mut() else { return };
    let mut services = Mapping::new();
    let mut volumes = Mapping::new();
    for (key, mut entry) in std::mem::take(all) {
        if key.starts_with("x-") || key == "version" {
            all.insert(key, entry);
            continue;
        }
        if let Some(service) = entry.value.as_mapping_mut() {
            declare_volumes(service, &mut volumes);
        }
        services.insert(key, entry);
    }
    let entry = |mapping| Entry { at: at.clone(), plain: true, value: Node::mapping(&at, mapping) };
    all.insert("services".into(), entry(services));
    if !volumes.is_empty() {
        all.insert("volumes".into(), entry(volumes));
    }
}

fn declare_volumes(service: &Mapping, volumes: &mut Mapping) {
    let listed = service.get("volumes").and_then(|v| v.value.as_sequence()).unwrap_or_default();
    for volume in listed {
        let Value::Scalar(scalar) = &volume.value else { continue };
        let Some((name, _)) = scalar.text.split_once(':') else { continue };
        if fields::is_path(&scalar.text) || volumes.contains_key(name) {
            continue;
        }
        volumes
            .insert(name.into(), Entry { at: volume.at.clone(), plain: true, value: Node::null(&volume.at) });
    }
}
