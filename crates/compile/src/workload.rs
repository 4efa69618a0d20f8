//! What one process type of an application becomes: a Deployment, a Service where it has ports, an Ingress where it
//! has a host name. Every front end that has processes goes through here, so that all of them agree on names, labels
//! and probes.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec},
        core::v1::{
            Container, ContainerPort, PodSpec, PodTemplateSpec, Probe, Service, ServicePort, ServiceSpec,
            TCPSocketAction,
        },
        networking::v1::{
            HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule,
            IngressServiceBackend, IngressSpec, ServiceBackendPort,
        },
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use serde::Serialize;
use serde_json::Value;
use yado_types::labels;

/// One process type, with the parts of a Pod that its front end decides.
#[derive(Debug, Clone)]
pub struct Workload {
    /// The application, a DNS label.
    pub app: String,
    /// The process type, a DNS label.
    pub component: String,
    /// The app that the user asked for, which may be the application itself or one that depends on it.
    pub part_of: String,
    /// The Deployment's name.
    pub name: String,
    /// The name others connect to, where there is one.
    pub service: Option<String>,
    /// How many.
    pub replicas: i32,
    /// The Pod's spec but for `containers`.
    pub pod: PodSpec,
    /// The container but for its ports and probe.
    pub container: Container,
    /// What it listens on; the first one shows that it is ready.
    pub ports: Vec<Port>,
    /// The host name of its first port's web page, where it is published.
    pub host: Option<String>,
    /// Annotations of the Deployment.
    pub annotations: BTreeMap<String, String>,
}

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

impl Workload {
    /// The objects: the Service first, so that its name resolves when the first process asks for it.
    pub fn objects(self) -> Vec<Value> {
        let mut objects = Vec::new();
        if let Some(service) = self.service.clone().filter(|_| !self.ports.is_empty()) {
            objects.push(value(self.service(&service)));
            if let Some(host) = &self.host {
                objects.push(value(self.ingress(&service, host)));
            }
        }
        objects.insert(objects.len().min(1), value(self.deployment()));
        objects
    }

    /// Labels that never change in a process type's life, and so may select its Pods.
    fn selector(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (labels::APP_NAME.into(), self.app.clone()),
            (labels::APP_COMPONENT.into(), self.component.clone()),
        ])
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let mut all = self.selector();
        all.insert(labels::APP_PART_OF.into(), self.part_of.clone());
        all.insert(labels::APP_MANAGED_BY.into(), labels::MANAGED_BY_YADO.into());
        all
    }

    fn metadata(&self, name: &str) -> ObjectMeta {
        ObjectMeta { name: Some(name.into()), labels: Some(self.labels()), ..ObjectMeta::default() }
    }

    fn deployment(&self) -> Deployment {
        let mut container = self.container.clone();
        let ports: Vec<ContainerPort> = self.ports.iter().map(Port::of_container).collect();
        container.ports = (!ports.is_empty()).then_some(ports);
        container.readiness_probe = self.ports.iter().find(|p| p.protocol == "TCP").map(ready_when_listening);
        let annotations = (!self.annotations.is_empty()).then(|| self.annotations.clone());
        Deployment {
            metadata: ObjectMeta { annotations, ..self.metadata(&self.name) },
            spec: Some(DeploymentSpec {
                replicas: Some(self.replicas),
                selector: LabelSelector { match_labels: Some(self.selector()), ..LabelSelector::default() },
                template: PodTemplateSpec {
                    metadata: Some(ObjectMeta { labels: Some(self.labels()), ..ObjectMeta::default() }),
                    spec: Some(PodSpec { containers: vec![container], ..self.pod.clone() }),
                },
                ..DeploymentSpec::default()
            }),
            ..Deployment::default()
        }
    }

    fn service(&self, name: &str) -> Service {
        let ports = self.ports.iter().map(Port::of_service).collect();
        Service {
            metadata: self.metadata(name),
            spec: Some(ServiceSpec {
                ports: Some(ports),
                selector: Some(self.selector()),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        }
    }

    fn ingress(&self, service: &str, host: &str) -> Ingress {
        let port = ServiceBackendPort { number: Some(self.ports[0].service.into()), name: None };
        let backend = IngressServiceBackend { name: service.into(), port: Some(port) };
        let path = HTTPIngressPath {
            path: Some("/".into()),
            path_type: "Prefix".into(),
            backend: IngressBackend { service: Some(backend), resource: None },
        };
        let rule =
            IngressRule { host: Some(host.into()), http: Some(HTTPIngressRuleValue { paths: vec![path] }) };
        Ingress {
            metadata: self.metadata(&self.name),
            spec: Some(IngressSpec { rules: Some(vec![rule]), ..IngressSpec::default() }),
            ..Ingress::default()
        }
    }
}

impl Port {
    /// A port named after what others connect to, such as `tcp-6379`.
    pub fn new(service: u16, container: u16, protocol: &str) -> Self {
        let name = format!("{}-{service}", protocol.to_lowercase());
        Port { service, container, protocol: protocol.into(), name }
    }

    fn of_container(&self) -> ContainerPort {
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

/// Ready when something listens. Asked every second instead of every ten, as a start is waited for.
fn ready_when_listening(port: &Port) -> Probe {
    Probe {
        tcp_socket: Some(TCPSocketAction { port: IntOrString::Int(port.container.into()), host: None }),
        period_seconds: Some(1),
        ..Probe::default()
    }
}

/// A typed object as JSON.
fn value(object: impl Serialize) -> Value {
    // Kubernetes' types have string keys and no floats, so they are always JSON.
    serde_json::to_value(object).unwrap_or_default()
}
