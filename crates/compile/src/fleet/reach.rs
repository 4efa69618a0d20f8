//! Services of groups of units: all instances of a template, or all units whose containers have the same name.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use yado_types::labels;

use super::lower::{MainProcess, PlannedUnit, UnitSet, listened};
use crate::{
    ExternalEndpoint,
    diagnostic::Findings,
    workload::{Port, PublishedPort, Workload, known_ports},
};

/// The Services and the Ingress of the group of `one`, which select all Pods of the group, and for each port that it
/// publishes under a fixed number a Service that selects the Pods that publish the same number.
pub fn shared(workload: &Workload, one: &PlannedUnit, set: &UnitSet<'_>, found: &mut Findings) -> Vec<Value> {
    let MainProcess::Container(run) = &one.main else { return Vec::new() };
    if run.part.pod.host_network == Some(true) {
        return Vec::new();
    }
    if run.publish_all && run.ports.is_empty() && workload.ports.is_empty() {
        let sentence = "-P publishes nothing, as the ports of the image are not known here: add -p PORT";
        found.warn(&one.unit.at, sentence);
    }
    let group = Workload {
        component: one.group.clone(),
        name: one.group.clone(),
        service: (one.group != one.object).then(|| one.group.clone()),
        aliases: Vec::new(),
        published: Vec::new(),
        hosts: hosts(one, set),
        web_port: web_port_of_group(one, set),
        ports: ports_of_group(workload, one, set),
        ..workload.clone()
    };
    // The backend of the Ingress is the Service of the group, which for a single unit is the unit's own.
    let group = Workload { service: group.service.or(workload.service.clone()), ..group };
    let mixed = group.ports != workload.ports;
    let selector = json!({labels::APP_NAME: set.settings.app, labels::UNIT_GROUP: one.group});
    let own_service = |object: &Value| object["metadata"]["name"] == one.object.as_str();
    let mut objects = Vec::new();
    for mut object in reaching(group).into_iter().filter(|o| o["kind"] != "Service" || !own_service(o)) {
        if object["kind"] == "Service" {
            object["spec"]["selector"] = selector.clone();
            if mixed {
                by_name(&mut object);
            }
        }
        objects.push(object);
    }
    for port in run.published.iter().filter(|p| p.port.is_some()) {
        let outer = Workload {
            publish_as: Some(publish_name(one, port)),
            service: None,
            aliases: Vec::new(),
            published: vec![port.clone()],
            hosts: Vec::new(),
            ..workload.clone()
        };
        for mut object in reaching(outer) {
            object["spec"]["selector"] = selector.clone();
            if let Some(label) = label_of(one, port) {
                object["spec"]["selector"][label] = port.target.to_string().into();
            }
            add(&mut objects, object);
        }
    }
    objects
}

/// The Services and the Ingress of a workload, without the label of a process type.
fn reaching(workload: Workload) -> Vec<Value> {
    let mut objects = workload.objects();
    objects.retain(|o| o["kind"] == "Service" || o["kind"] == "Ingress");
    for object in &mut objects {
        if let Some(labels) = object["metadata"]["labels"].as_object_mut() {
            labels.retain(|key, _| key != labels::APP_COMPONENT && !key.starts_with(labels::PUBLISHES));
        }
    }
    objects
}

/// Adds a Service, or its ports to an existing Service of the same name.
fn add(objects: &mut Vec<Value>, object: Value) {
    let same =
        |o: &&mut Value| o["kind"] == object["kind"] && o["metadata"]["name"] == object["metadata"]["name"];
    let Some(known) = objects.iter_mut().find(same) else { return objects.push(object) };
    let ports = object["spec"]["ports"].as_array().cloned().unwrap_or_default();
    if let Some(all) = known["spec"]["ports"].as_array_mut() {
        for port in ports.into_iter().filter(|p| !all.contains(p)).collect::<Vec<_>>() {
            all.push(port);
        }
    }
}

/// Makes the ports of a Service target container ports by name, so that Pods without such a port are excluded.
fn by_name(service: &mut Value) {
    for port in service["spec"]["ports"].as_array_mut().into_iter().flatten() {
        port["targetPort"] = port["name"].clone();
    }
}

/// The ports of all running units of the group, which may differ.
fn ports_of_group(workload: &Workload, one: &PlannedUnit, set: &UnitSet<'_>) -> Vec<Port> {
    let mut ports = workload.ports.clone();
    for port in members(one, set).filter_map(PlannedUnit::container).flat_map(listened) {
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    ports.sort_by_key(|p| (p.container, p.protocol.clone()));
    if ports.len() == workload.ports.len() { workload.ports.clone() } else { ports }
}

/// Started units of the group of `one`.
fn members<'a>(one: &'a PlannedUnit, set: &'a UnitSet<'_>) -> impl Iterator<Item = &'a PlannedUnit> {
    let started =
        |unit: &&PlannedUnit| set.settings.started.as_ref().is_none_or(|s| s.contains(unit.unit.name.full()));
    set.units.iter().filter(|u| u.group == one.group).filter(started)
}

/// The name prefix of the Service that publishes `port` of `one`. It contains the external number, since units of a group
/// may publish different numbers.
fn publish_name(one: &PlannedUnit, port: &PublishedPort) -> String {
    match port.port {
        None => one.object.clone(),
        Some(_) if one.group == one.object => one.group.clone(),
        Some(number) => format!("{}-{}", one.group, numbered(number, &port.protocol)),
    }
}

/// `8080`, `53-udp`
fn numbered(number: u16, protocol: &str) -> String {
    if protocol == "TCP" { number.to_string() } else { format!("{number}-{}", protocol.to_lowercase()) }
}

/// The label by which the Service of a published port selects Pods, if it does not select the whole group.
fn label_of(one: &PlannedUnit, port: &PublishedPort) -> Option<String> {
    let number = port.port.filter(|_| one.group != one.object)?;
    let reach = if port.local { "local" } else { "public" };
    Some(format!("{}{}-{reach}", labels::PUBLISHES, numbered(number, &port.protocol)))
}

/// The labels of the Pods of `one` for the external ports that they publish.
pub fn labels_of(one: &PlannedUnit) -> BTreeMap<String, String> {
    let published = one.container().into_iter().flat_map(|run| &run.published);
    published.filter_map(|p| Some((label_of(one, p)?, p.target.to_string()))).collect()
}

/// The ports of `one` that are published under a number chosen by the cluster, and so not shared with other units.
pub fn anywhere(one: &PlannedUnit, ports: &[Port]) -> Vec<PublishedPort> {
    let Some(run) = one.container() else { return Vec::new() };
    let mut published: Vec<PublishedPort> =
        run.published.iter().filter(|p| p.port.is_none()).cloned().collect();
    if run.publish_all {
        published.extend(ports.iter().map(|p| PublishedPort {
            port: None,
            target: p.container,
            protocol: p.protocol.clone(),
            local: false,
        }));
    }
    published
}

/// The port of the group's Service that serves web pages: that of the first unit that has one.
fn web_port_of_group(one: &PlannedUnit, set: &UnitSet<'_>) -> Option<u16> {
    members(one, set).chain([one]).find_map(web_port).map(|(_, target)| target)
}

/// The published port that may serve web pages, and its container port.
fn web_port(one: &PlannedUnit) -> Option<(Option<u16>, u16)> {
    let MainProcess::Container(run) = &one.main else { return None };
    let web = |p: &&PublishedPort| {
        p.protocol == "TCP"
            && !p.local
            && known_ports::may_be_http(p.target)
            && p.port.is_none_or(known_ports::may_be_http)
    };
    run.published.iter().find(web).map(|p| (p.port, p.target))
}

/// Host names of the Ingress: that of the group, and that of the project for its first group.
fn hosts(one: &PlannedUnit, set: &UnitSet<'_>) -> Vec<String> {
    if web_port(one).is_none() {
        return Vec::new();
    }
    let (app, domain) = (&set.settings.app, &set.settings.domain);
    let mut hosts = vec![format!("{}.{app}.{domain}", one.group)];
    let first = set.units.iter().find(|u| web_port(u).is_some());
    if set.settings.started.is_none() && first.is_some_and(|f| f.group == one.group) {
        hosts.insert(0, format!("{app}.{domain}"));
    }
    hosts
}

/// The external endpoints of `one`.
pub fn published_of(one: &PlannedUnit, set: &UnitSet<'_>) -> Vec<ExternalEndpoint> {
    let MainProcess::Container(run) = &one.main else { return Vec::new() };
    if run.part.pod.host_network == Some(true) {
        return Vec::new();
    }
    let web = web_port(one);
    let host = hosts(one, set).into_iter().next();
    run.published
        .iter()
        .map(|p| ExternalEndpoint {
            component: one.group.clone(),
            service: p.service(&publish_name(one, p)),
            port: p.outside(),
            target: p.target,
            protocol: p.protocol.clone(),
            web: web == Some((p.port, p.target)),
            host: host.clone().filter(|_| web == Some((p.port, p.target))),
        })
        .collect()
}
