//! The names and ports by which units are reached together: all instances of a template, all units whose container has
//! one name.

use serde_json::{Value, json};
use yado_types::labels;

use super::lower::{Process, Read, Set};
use crate::{
    Published,
    diagnostic::Findings,
    workload::{Workload, known_ports},
};

/// The Services and the Ingress of the group of `one`, which lead to all of the group's Pods.
pub fn shared(workload: &Workload, one: &Read, set: &Set<'_>, found: &mut Findings) -> Vec<Value> {
    let Process::Container(run) = &one.main else { return Vec::new() };
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
        published: published(one, workload),
        hosts: hosts(one, set),
        web_port: web_port(one).map(|(_, target)| target),
        ..workload.clone()
    };
    // An Ingress needs the Service it leads to; where the group is one unit that is the unit's own.
    let group = Workload { service: group.service.or(workload.service.clone()), ..group };
    let mut objects = Vec::new();
    for mut object in group.objects() {
        let kind = object["kind"].as_str().unwrap_or_default().to_string();
        let own_service = kind == "Service" && object["metadata"]["name"] == one.object.as_str();
        if !["Service", "Ingress"].contains(&kind.as_str()) || own_service {
            continue;
        }
        if let Some(labels) = object["metadata"]["labels"].as_object_mut() {
            labels.remove(labels::APP_COMPONENT);
        }
        if kind == "Service" {
            object["spec"]["selector"] =
                json!({labels::APP_NAME: set.settings.app, labels::UNIT_GROUP: one.group});
        }
        objects.push(object);
    }
    objects
}

fn published(one: &Read, workload: &Workload) -> Vec<crate::workload::PublishedPort> {
    let Process::Container(run) = &one.main else { return Vec::new() };
    let mut published = run.published.clone();
    if run.publish_all {
        published.extend(workload.ports.iter().map(|p| crate::workload::PublishedPort {
            port: None,
            target: p.container,
            protocol: p.protocol.clone(),
            local: false,
        }));
    }
    published
}

/// The published port that may be a web page's, and what it leads to.
fn web_port(one: &Read) -> Option<(Option<u16>, u16)> {
    let Process::Container(run) = &one.main else { return None };
    let web = |p: &&crate::workload::PublishedPort| {
        p.protocol == "TCP"
            && !p.local
            && known_ports::may_be_http(p.target)
            && p.port.is_none_or(known_ports::may_be_http)
    };
    run.published.iter().find(web).map(|p| (p.port, p.target))
}

/// Host names at which the router answers: that of the group, and of the project for its first group.
fn hosts(one: &Read, set: &Set<'_>) -> Vec<String> {
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

/// Where `one` is reached from outside.
pub fn published_of(one: &Read, set: &Set<'_>) -> Vec<Published> {
    let Process::Container(run) = &one.main else { return Vec::new() };
    if run.part.pod.host_network == Some(true) {
        return Vec::new();
    }
    let web = web_port(one);
    let host = hosts(one, set).into_iter().next();
    run.published
        .iter()
        .map(|p| Published {
            component: one.group.clone(),
            service: p.service(&one.group),
            port: p.port,
            target: p.target,
            protocol: p.protocol.clone(),
            host: host.clone().filter(|_| web == Some((p.port, p.target))),
        })
        .collect()
}
