//! Version 1, in which a file is nothing but services.

use super::fields;
use crate::yaml::{Entry, Mapping, Node, Value};

/// Whether a document is of version 1 beyond doubt: it has no `services`, and every entry is something to run.
pub(super) fn is_version_1(document: &Node) -> bool {
    const RUN: [&str; 4] = ["image", "build", "extends", "dockerfile"];
    is_fragment(document)
        && services(document).all(|(_, entry)| RUN.iter().any(|field| entry.value.get(field).is_some()))
}

/// Whether a document can be a part of a version 1 project: mappings by the names of services, and nothing that came
/// with later versions. What is laid over a file of version 1, and what one extends, need not say what to run.
pub(super) fn is_fragment(document: &Node) -> bool {
    const NEWER: [&str; 9] =
        ["services", "include", "networks", "volumes", "configs", "secrets", "models", "name", "apiVersion"];
    let newer = |mapping: &Mapping| NEWER.iter().any(|key| mapping.contains_key(*key));
    document.as_mapping().is_some_and(|mapping| !newer(mapping))
        && services(document).next().is_some()
        && services(document).all(|(_, entry)| entry.value.as_mapping().is_some())
}

/// The services of a version 1 document.
fn services(document: &Node) -> impl Iterator<Item = (&String, &Entry)> {
    let entries = document.as_mapping().into_iter().flatten();
    entries.filter(|(key, _)| !key.starts_with("x-") && *key != "version")
}

/// Puts the services of a version 1 document where later versions have them, and declares the volumes that its services
/// name, which then needed no declaration.
pub(super) fn to_services(document: &mut Node) {
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
