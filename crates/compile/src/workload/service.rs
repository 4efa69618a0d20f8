//! Services and the Ingress of a workload, by which it is reached from inside and outside the cluster.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1::{ContainerPort, Service, ServicePort, ServiceSpec},
        networking::v1::{
            HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule,
            IngressServiceBackend, IngressSpec, ServiceBackendPort,
        },
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use yado_types::{labels, names};

use super::Workload;

/// A port of a process and of its Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The port of the Service.
    pub service: u16,
    /// The port that the process listens on.
    pub container: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Its name: `http`, `tcp-6379`.
    pub name: String,
}

/// A port that is reachable from outside the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedPort {
    /// The external port; `None` for any port. A `local` port then has the number of the process's port.
    pub port: Option<u16>,
    /// The port that the process listens on.
    pub target: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Whether it is published on the loopback address only, as in `127.0.0.1:8080:80`.
    pub local: bool,
}

impl Port {
    /// A port named after its protocol and Service port, such as `tcp-6379`.
    pub fn new(service: u16, container: u16, protocol: &str) -> Self {
        let name = format!("{}-{service}", protocol.to_lowercase());
        Port { service, container, protocol: protocol.into(), name }
    }

    pub(super) fn of_container(&self) -> ContainerPort {
        ContainerPort {
            container_port: self.container.into(),
            name: Some(self.name.clone()),
            protocol: Some(self.protocol.clone()),
            ..ContainerPort::default()
        }
    }

    fn of_service(&self) -> ServicePort {
        ServicePort {
            name: Some(self.name.clone()),
            port: self.service.into(),
            protocol: Some(self.protocol.clone()),
            target_port: Some(IntOrString::Int(self.container.into())),
            ..ServicePort::default()
        }
    }
}

impl PublishedPort {
    /// The name of the Service that publishes this port of `workload`.
    pub fn service(&self, workload: &str) -> String {
        let suffix = match (self.local, self.port) {
            (true, _) => "local",
            (false, None) => "ports",
            (false, Some(_)) => "public",
        };
        format!("{workload}-{suffix}")
    }

    /// The external port; `None` if the cluster chooses one. A port chosen by the cluster is open on every address, so a
    /// local port has the number of the process's port.
    pub fn outside(&self) -> Option<u16> {
        self.port.or(self.local.then_some(self.target))
    }

    fn of_service(&self) -> ServicePort {
        let outside = self.outside().unwrap_or(self.target);
        Port::new(outside, self.target, &self.protocol).of_service()
    }
}

impl Workload {
    /// The internal Services: one for the workload's own name and one for each alias that is a valid Service name.
    pub(super) fn named_services(&self) -> impl Iterator<Item = Service> {
        let valid = |name: &&String| names::dns_1035_label(name).is_ok();
        let others = self.aliases.iter().filter(|a| !valid(a)).chain(&self.dns_aliases);
        let others: Vec<String> = others.cloned().collect();
        let own = self.service.iter().map(|name| {
            let mut service = self.internal(name);
            if !others.is_empty() {
                let aliases = BTreeMap::from([(labels::ALIASES.to_string(), others.join(","))]);
                service.metadata.annotations = Some(aliases);
            }
            service
        });
        let mut aliases: Vec<&String> =
            self.aliases.iter().filter(valid).filter(|a| Some(*a) != self.service.as_ref()).collect();
        aliases.sort();
        aliases.dedup();
        let aliases = aliases.into_iter().map(|alias| self.internal(alias));
        own.chain(aliases).collect::<Vec<_>>().into_iter()
    }

    /// An internal Service. Without known ports it is headless, so that every port is reachable by its name, and it
    /// publishes Pods that are not ready, since there is no port to probe.
    fn internal(&self, name: &str) -> Service {
        let ports: Vec<ServicePort> = self.ports.iter().map(Port::of_service).collect();
        let unknown = ports.is_empty();
        let headless = unknown || self.headless;
        Service {
            metadata: self.metadata(name),
            spec: Some(ServiceSpec {
                cluster_ip: headless.then(|| "None".into()),
                publish_not_ready_addresses: unknown.then_some(true),
                ports: (!unknown).then_some(ports),
                selector: Some(self.selector()),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        }
    }

    /// The Services that publish ports: one for each scope (public, local, any port), since they differ in type.
    pub(super) fn published_services(&self) -> impl Iterator<Item = Service> {
        let mut services: BTreeMap<String, Service> = BTreeMap::new();
        for published in &self.published {
            let name = published.service(self.publish_as.as_ref().unwrap_or(&self.name));
            let metadata = self.metadata(&name);
            let service = services.entry(name).or_insert_with(|| self.outer(published, metadata));
            let ports = service.spec.get_or_insert_default().ports.get_or_insert_default();
            let port = published.of_service();
            // The same port written twice, as `80:80` beside `0.0.0.0:80:80`, is one.
            if ports.iter().all(|p| (p.port, &p.protocol) != (port.port, &port.protocol)) {
                ports.push(port);
            }
        }
        services.into_values()
    }

    /// Whether the router may serve this container port to every client, which it may not if the port is published on
    /// the loopback address only.
    pub fn is_open(&self, target: u16) -> bool {
        let mut of_port = self.published.iter().filter(|p| p.target == target).peekable();
        of_port.peek().is_none() || of_port.any(|p| !p.local)
    }

    fn outer(&self, published: &PublishedPort, metadata: ObjectMeta) -> Service {
        let type_ = if published.outside().is_some() { "LoadBalancer" } else { "NodePort" };
        let local = published.local;
        Service {
            metadata,
            spec: Some(ServiceSpec {
                type_: Some(type_.into()),
                // A node port would be open on every address of the node.
                allocate_load_balancer_node_ports: local.then_some(false),
                load_balancer_source_ranges: local.then(|| vec!["127.0.0.0/8".into()]),
                selector: Some(self.selector()),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        }
    }

    pub(super) fn ingress(&self) -> Option<Ingress> {
        let service = self.service.as_ref()?;
        let first = self.web_port.or(self.ports.first().map(|p| p.service))?;
        let target = self.ports.iter().find(|p| p.service == first).map_or(first, |p| p.container);
        if !self.is_open(target) {
            return None;
        }
        let rule = |host: &String| {
            let port = ServiceBackendPort { number: Some(first.into()), name: None };
            let backend = IngressServiceBackend { name: service.clone(), port: Some(port) };
            let path = HTTPIngressPath {
                path: Some("/".into()),
                path_type: "Prefix".into(),
                backend: IngressBackend { service: Some(backend), resource: None },
            };
            IngressRule { host: Some(host.clone()), http: Some(HTTPIngressRuleValue { paths: vec![path] }) }
        };
        let rules: Vec<IngressRule> = self.hosts.iter().map(rule).collect();
        (!rules.is_empty()).then(|| Ingress {
            metadata: self.metadata(&self.name),
            spec: Some(IngressSpec { rules: Some(rules), ..IngressSpec::default() }),
            ..Ingress::default()
        })
    }
}
