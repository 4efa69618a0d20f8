//! What services listen on: from what is written, from what images are known for, and from what others ask of them.

use indexmap::IndexMap;
use yado_types::names;

use super::{
    super::model::{self, Project, Service},
    Lowering, build,
};
use crate::{
    ExternalEndpoint,
    workload::{Port, PublishedPort, Readiness, Workload, known_ports},
};

/// The ports of one service inside the project.
#[derive(Debug, Clone, Default)]
pub(super) struct ServicePorts {
    /// Ports of its Service; none where any may be in use.
    pub ports: Vec<Port>,
    /// Ports that its image says, beside those, for the variables of links.
    pub exposed: Vec<Port>,
}

/// What each service of the project listens on.
pub(super) fn inside(project: &Project) -> IndexMap<String, ServicePorts> {
    let mut all: IndexMap<String, ServicePorts> = IndexMap::new();
    for service in project.services.values() {
        let mut ports = Vec::new();
        for port in &service.ports {
            add(&mut ports, port.target, &port.protocol);
        }
        for port in &service.expose {
            add(&mut ports, port.port, &port.protocol);
        }
        let image = service.image.as_deref().filter(|_| service.build.is_none());
        image.into_iter().flat_map(known_ports::of_image).for_each(|p| add(&mut ports, *p, "tcp"));
        let mut exposed = ports.clone();
        build::dockerfile(service).exposed.iter().for_each(|(p, protocol)| add(&mut exposed, *p, protocol));
        // A Service passes only the ports that it lists. So where it lists any, all that may be asked for are listed;
        // where none is known it is headless, and passes all.
        let ports = if ports.is_empty() { ports } else { exposed.clone() };
        all.insert(service.name.clone(), ServicePorts { ports, exposed });
    }
    for service in project.services.values() {
        for (target, port) in asked_for(project, service) {
            if let Some(inside) = all.get_mut(&target).filter(|i| !i.ports.is_empty()) {
                // An address such as udp://dns:53 says no more than is known.
                if inside.ports.iter().any(|p| p.container == port) {
                    continue;
                }
                add(&mut inside.ports, port, "tcp");
            }
        }
    }
    all
}

fn add(ports: &mut Vec<Port>, port: u16, protocol: &str) {
    let protocol = protocol.to_uppercase();
    if ports.iter().all(|p| (p.container, &p.protocol) != (port, &protocol)) {
        ports.push(Port::new(port, port, &protocol));
    }
}

/// `NAME:PORT` in what `service` is told: in its environment, command and health check.
fn asked_for(project: &Project, service: &Service) -> Vec<(String, u16)> {
    let words = service.environment.values().chain(service.command.iter().flatten());
    let words = words.chain(service.entrypoint.iter().flatten());
    let mut all = Vec::new();
    for word in words {
        for (place, _) in word.match_indices(':') {
            let digits = word[place + 1..].split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
            let Some(port) = digits.parse::<u16>().ok().filter(|p| *p > 0) else { continue };
            let before =
                word[..place].rsplit(|c: char| !(c.is_ascii_alphanumeric() || "_.-".contains(c))).next();
            let Some(before) = before.filter(|b| project.services.contains_key(*b)) else { continue };
            all.push((before.to_string(), port));
        }
    }
    all
}

/// When a service without a health check is ready. One port tells; of several, only that of the web page, as some of
/// them may never be listened on.
pub(super) fn ready(service: &Service, inside: &ServicePorts) -> Readiness {
    if service.healthcheck.as_ref().is_some_and(|h| h.disable) {
        return Readiness::Started;
    }
    let mut written: Vec<u16> =
        service.ports.iter().filter(|p| p.protocol == "tcp").map(|p| p.target).collect();
    if written.is_empty() {
        written.extend(service.expose.iter().filter(|p| p.protocol == "tcp").map(|p| p.port));
        // `expose` opens nothing, so nobody notices where it is wrong. The Dockerfile knows better.
        let built = build::dockerfile(service).exposed;
        if !built.is_empty() && !built.iter().any(|(port, _)| written.contains(port)) {
            return Readiness::Started;
        }
    }
    written.sort_unstable();
    written.dedup();
    match written[..] {
        [port] => Readiness::ListeningOn(port),
        [] if service.image.is_some() && service.command.is_none() && service.entrypoint.is_none() => {
            // Well-known images listen where they are known to, if only one port is known.
            let mut known = inside.ports.iter().filter(|p| p.protocol == "TCP");
            match (known.next(), known.next()) {
                (Some(port), None) => Readiness::ListeningOn(port.container),
                _ => Readiness::Started,
            }
        }
        _ => page(service).map_or(Readiness::Started, |(port, _)| Readiness::ListeningOn(port)),
    }
}

/// Who reaches a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Exposure {
    /// Everybody who reaches the node.
    Public,
    /// Only programs of the node itself: it is published on a loopback address.
    Loopback,
}

/// The published port of the container that is a web page's, if any is: rather one that everybody reaches.
pub(super) fn page(service: &Service) -> Option<(u16, Exposure)> {
    let image = service.image.as_deref().unwrap_or_default();
    let known = known_ports::of_image(image);
    let web = |port: u16| known_ports::may_be_http(port) && (!known.contains(&port) || !is_database(image));
    let reach = |p: &model::PortMapping| if outside(p).local { Exposure::Loopback } else { Exposure::Public };
    let pages = service.ports.iter().filter(|p| p.protocol == "tcp" && web(p.target));
    pages.map(|p| (p.target, reach(p))).min_by_key(|(_, reach)| *reach)
}

/// Images whose ports speak something of their own, whatever the number.
fn is_database(image: &str) -> bool {
    known_ports::of_image(image).first().is_some_and(|p| !known_ports::may_be_http(*p))
}

pub(super) fn outside(port: &model::PortMapping) -> PublishedPort {
    PublishedPort {
        // Docker takes 0 as any.
        port: port.published.filter(|p| *p > 0),
        target: port.target,
        protocol: port.protocol.to_uppercase(),
        local: address(port).is_some_and(is_local),
    }
}

fn address(port: &model::PortMapping) -> Option<&str> {
    port.host_ip.as_deref().map(|a| a.trim_start_matches('[').trim_end_matches(']'))
}

fn is_local(address: &str) -> bool {
    address.starts_with("127.") || address == "::1" || address == "localhost"
}

impl Lowering<'_> {
    /// What the service publishes.
    pub(super) fn publish(&mut self, service: &Service) -> Vec<PublishedPort> {
        let mut all = Vec::new();
        for port in &service.ports {
            if let Some(address) =
                address(port).filter(|a| !is_local(a) && !["0.0.0.0", "::", "", "*"].contains(a))
            {
                let sentence = format!(
                    "port {} is reached at every address of the node, not at {address} alone",
                    port.published.unwrap_or(port.target)
                );
                self.found.warn(&port.at, sentence);
            }
            let published = outside(port);
            if published.local && published.port.is_none() {
                let sentence = format!(
                    "port {0} is published at {0} of the machine itself: only ports that everybody reaches are chosen freely",
                    port.target
                );
                self.found.warn(&port.at, sentence);
            }
            if !all.contains(&published) {
                all.push(published);
            }
        }
        // On the node's own network a port is where the process listens.
        if matches!(service.network_mode, Some(super::NetworkMode::Host)) && !all.is_empty() {
            let sentence =
                "ports have no effect with network_mode: host, where processes listen on the node itself";
            self.found.warn(service.place("ports"), sentence);
            all.clear();
        }
        all
    }

    /// The web page of a service: SERVICE.PROJECT.DOMAIN, and PROJECT.DOMAIN of the one that a person would open. What
    /// only the machine itself reaches is not routed, as the router answers everybody.
    pub(super) fn web(&mut self, service: &Service, workload: &mut Workload) {
        let page = page(service).filter(|_| !workload.published.is_empty());
        let Some((port, Exposure::Public)) = page else { return };
        let (app, domain) = (&self.names.app, &self.options.domain);
        let is_first = self.front.as_ref() == Some(&service.name);
        let whole = format!("{app}.{domain}");
        let own = format!("{}.{whole}", workload.name);
        workload.hosts.extend([whole.clone()].into_iter().filter(|_| is_first));
        workload.hosts.extend([own].into_iter().filter(|h| names::dns_subdomain(h).is_ok()));
        workload.web_port = Some(port);
        if is_first {
            self.compiled.host = Some(whole);
        }
    }

    /// Lists what is published: the ports of the service that a person would open, then the others as written.
    pub(super) fn published(&mut self) {
        let front = self.front.as_ref().and_then(|name| self.project.services.get(name));
        let others = self.project.services.values().filter(|s| front.is_none_or(|f| f.name != s.name));
        for service in front.into_iter().chain(others) {
            if self.joins.contains_key(&service.name)
                || matches!(service.network_mode, Some(super::NetworkMode::Host))
            {
                continue;
            }
            let names = self.names.of(&service.name);
            let page = page(service);
            for port in &service.ports {
                let outside = outside(port);
                let web = page.filter(|(target, _)| *target == outside.target && port.protocol == "tcp");
                let routed = web.is_some_and(|(_, reach)| reach == Exposure::Public);
                self.compiled.published.push(ExternalEndpoint {
                    component: super::names::component(&service.name),
                    service: outside.service(names.publish_as.as_ref().unwrap_or(&names.object)),
                    port: outside.outside(),
                    target: outside.target,
                    web: web.is_some(),
                    host: routed
                        .then(|| format!("{}.{}.{}", names.object, self.names.app, self.options.domain)),
                    protocol: outside.protocol,
                });
            }
        }
    }
}
