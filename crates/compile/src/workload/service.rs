//! By which names and ports a workload is reached: inside, and from outside.

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

/// One port of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// What others connect to on the Service.
    pub service: u16,
    /// What the process listens on.
    pub container: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Its name: `http`, `tcp-6379`.
    pub name: String,
}

/// A port that is reached from outside the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedPort {
    /// The port outside; `None` where any will do, which for a `local` one is that of the process.
    pub port: Option<u16>,
    /// What the process listens on.
    pub target: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Only from the machine itself, as `127.0.0.1:8080:80` says.
    pub local: bool,
}

impl Port {
    /// A port named after what others connect to, such as `tcp-6379`.
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
    /// The name of the Service of `workload` that publishes it.
    pub fn service(&self, workload: &str) -> String {
        let suffix = match (self.local, self.port) {
            (true, _) => "local",
            (false, None) => "ports",
            (false, Some(_)) => "public",
        };
        format!("{workload}-{suffix}")
    }

    /// The port outside; `None` where the cluster chooses one. A port that it chooses is open on every address, so a
    /// local one is that of the process.
    pub fn outside(&self) -> Option<u16> {
        self.port.or(self.local.then_some(self.target))
    }

    fn of_service(&self) -> ServicePort {
        let outside = self.outside().unwrap_or(self.target);
        Port::new(outside, self.target, &self.protocol).of_service()
    }
}

impl Workload {
    /// The Services by whose names others inside find it: one for its own name and one for each alias that can be a
    /// Service's.
    pub(super) fn named_services(&self) -> impl Iterator<Item = Service> {
        let valid = |name: &&String| names::dns_1035_label(name).is_ok();
        let others = self.aliases.iter().filter(|a| !valid(a)).chain(&self.by_name_server);
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

    /// A Service inside. Where no port is known it is headless, so that every port can be reached by its name; and it
    /// names Pods before they are ready, as there is no port by which to say that they are.
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

    /// The Services by which it is reached from outside: one for each kind of reach, as each has its own type.
    pub(super) fn published_services(&self) -> impl Iterator<Item = Service> {
        let mut services: BTreeMap<String, Service> = BTreeMap::new();
        for published in &self.published {
            let name = published.service(self.outer.as_ref().unwrap_or(&self.name));
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

    /// Whether the router may serve this port of the container to everybody: not if it is published, but to the
    /// machine itself only.
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
