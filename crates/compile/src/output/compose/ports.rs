//! Writes names and ports of a service, from the Services that select its Pods.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use yado_types::labels;

use super::{Writer, controller::PodController};
use crate::workload::{known_ports, name::sanitised};

/// How a service is reached.
#[derive(Debug, Clone, Default)]
pub(super) struct Reach {
    /// Aliases.
    pub aliases: BTreeSet<String>,
    pub ports: Vec<Value>,
    pub expose: Vec<Value>,
    /// Whether its name resolves to the addresses of the Pods although its ports are known.
    pub headless: bool,
}

impl Writer<'_> {
    /// Names and ports by which `shape` is reached.
    pub(super) fn reach(&mut self, controller: &PodController, built: bool) -> Reach {
        let mut reach = Reach::default();
        let mut published: Vec<(u16, String, Value)> = Vec::new();
        let pod = controller.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
        let container = controller.template.spec.as_ref().and_then(|s| s.containers.first());
        let services: Vec<Service> = self.selecting(&pod).cloned().collect();
        for service in services {
            let name = service.metadata.name.clone().unwrap_or_default();
            self.used.insert(format!("{}/{name}", service.metadata.namespace.as_deref().unwrap_or_default()));
            let spec = service.spec.clone().unwrap_or_default();
            let outer = matches!(spec.type_.as_deref(), Some("LoadBalancer" | "NodePort"));
            let generated = ["public", "local", "ports"].iter().any(|s| name.ends_with(&format!("-{s}")));
            let own = name.starts_with(controller.metadata.name.as_deref().unwrap_or_default())
                || service
                    .metadata
                    .labels
                    .as_ref()
                    .and_then(|l| l.get(labels::APP_MANAGED_BY))
                    .map(String::as_str)
                    == Some(labels::MANAGED_BY_YADO);
            // A Service that only publishes ports is not an alias.
            if !(outer && generated && own) {
                reach.aliases.insert(name.clone());
            }
            reach.headless |= spec.cluster_ip.as_deref() == Some("None")
                && spec.ports.iter().flatten().next().is_some()
                && service.metadata.name == controller.metadata.name;
            if let Some(more) = service.metadata.annotations.as_ref().and_then(|a| a.get(labels::ALIASES)) {
                let project = self.namespace();
                let written =
                    more.split(',').filter(|name| !is_container(name, project, &controller.service));
                reach.aliases.extend(written.map(Into::into));
            }
            let local = spec.load_balancer_source_ranges.iter().flatten().any(|r| r.starts_with("127."));
            for port in spec.ports.iter().flatten() {
                let target = target(&port.target_port, port.port, container);
                let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
                if outer {
                    let outside = match spec.type_.as_deref() {
                        Some("NodePort") => port.node_port,
                        _ => Some(port.port),
                    };
                    published.push((target, protocol.clone(), short(outside, target, &protocol, local)));
                } else if i32::from(target) != port.port {
                    self.warn(
                        controller,
                        format!(
                            "port {} of {name} leads to {target}: others have to connect to {target}",
                            port.port
                        ),
                    );
                }
            }
        }
        reach.aliases.remove(&controller.service);
        self.listed(controller, built, container, published, &mut reach);
        reach
    }

    /// The Services that select Pods with these labels, in order.
    fn selecting<'w>(&'w self, pod: &'w BTreeMap<String, String>) -> impl Iterator<Item = &'w Service> {
        let component = pod.get(labels::APP_COMPONENT).map(String::as_str).unwrap_or_default();
        let own = self.by_component.get(component).into_iter().flatten();
        let any = self.by_component.get("").into_iter().flatten().filter(move |_| !component.is_empty());
        let mut places: Vec<usize> = own.chain(any).copied().collect();
        places.sort_unstable();
        places.into_iter().map(|place| &self.named[place].0).filter(|service| selects(service, pod))
    }

    /// Whether Pods of `shape` are found by `name`.
    pub(super) fn is_found_as(&self, controller: &PodController, name: &str) -> bool {
        let pod = controller.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
        self.selecting(&pod).any(|service| {
            let aliases = service.metadata.annotations.as_ref().and_then(|a| a.get(labels::ALIASES));
            service.metadata.name.as_deref() == Some(name)
                || aliases.is_some_and(|all| all.split(',').any(|alias| alias == name))
        })
    }

    /// Sorts published ports as in the container, and exposes the other ports.
    fn listed(
        &mut self,
        controller: &PodController,
        built: bool,
        container: Option<&Container>,
        mut published: Vec<(u16, String, Value)>,
        reach: &mut Reach,
    ) {
        let own: Vec<(u16, String)> = container
            .iter()
            .flat_map(|c| c.ports.iter().flatten())
            .filter_map(|p| {
                Some((
                    u16::try_from(p.container_port).ok()?,
                    p.protocol.clone().unwrap_or_else(|| "TCP".into()),
                ))
            })
            .collect();
        let place = |port: &(u16, String, Value)| {
            own.iter().position(|(p, protocol)| *p == port.0 && *protocol == port.1).unwrap_or(usize::MAX)
        };
        published.sort_by_key(place);
        let image = container.and_then(|c| c.image.as_deref()).unwrap_or_default();
        let known = if built { &[] } else { known_ports::of_image(image) };
        let unpublished: Vec<&(u16, String)> = own
            .iter()
            .filter(|(port, protocol)| !published.iter().any(|(p, pr, _)| p == port && pr == protocol))
            .collect();
        // Ports known from the image need not be exposed, unless a probe depends on them.
        let told = container.is_some_and(|c| c.command.is_some() || c.args.is_some());
        let asked = container.and_then(|c| c.startup_probe.as_ref()).is_some_and(|p| p.tcp_socket.is_some());
        let implied = unpublished.iter().all(|(port, protocol)| protocol == "TCP" && known.contains(port));
        if !implied || told && asked && published.is_empty() {
            for (port, protocol) in unpublished {
                let suffix =
                    if protocol == "TCP" { String::new() } else { format!("/{}", protocol.to_lowercase()) };
                reach.expose.push(format!("{port}{suffix}").into());
            }
        }
        for host in container.iter().flat_map(|c| c.ports.iter().flatten()).filter(|p| p.host_port.is_some())
        {
            let protocol = host.protocol.clone().unwrap_or_else(|| "TCP".into());
            let target = u16::try_from(host.container_port).unwrap_or_default();
            published.push((target, protocol.clone(), short(host.host_port, target, &protocol, false)));
        }
        reach.ports = published.into_iter().map(|(_, _, port)| port).collect();
        if controller.template.spec.as_ref().is_some_and(|s| s.host_network == Some(true)) {
            reach.ports.clear();
        }
    }
}

/// Whether `name` is the default container name of `service`: `PROJECT-SERVICE-1`.
fn is_container(name: &str, project: &str, service: &str) -> bool {
    let words = name.rsplit_once(['-', '_']).filter(|(_, n)| n.bytes().all(|b| b.is_ascii_digit()));
    let start = words.and_then(|(start, _)| start.strip_suffix(service)?.strip_suffix(['-', '_']));
    start.is_some_and(|start| sanitised(start, 63) == project)
}

fn selects(service: &Service, pod: &BTreeMap<String, String>) -> bool {
    let Some(spec) = &service.spec else { return false };
    // An alias shared by several services has its own label.
    let shared = |key: &String| key.starts_with("alias.yado.dev/");
    spec.selector
        .as_ref()
        .is_some_and(|s| !s.is_empty() && s.iter().all(|(k, v)| pod.get(k) == Some(v) && !shared(k)))
}

fn target(target: &Option<IntOrString>, port: i32, container: Option<&Container>) -> u16 {
    let number = match target {
        Some(IntOrString::Int(n)) => *n,
        Some(IntOrString::String(name)) => container
            .and_then(|c| c.ports.as_ref()?.iter().find(|p| p.name.as_ref() == Some(name)))
            .map_or(port, |p| p.container_port),
        None => port,
    };
    u16::try_from(number).unwrap_or_default()
}

/// The short form: `8080:80`, `127.0.0.1:8080:80/udp`, or `80` if the machine chooses the port.
fn short(outside: Option<i32>, target: u16, protocol: &str, local: bool) -> Value {
    let address = if local { "127.0.0.1:" } else { "" };
    let outside = match outside {
        Some(port) => format!("{address}{port}:"),
        None if local => format!("{address}:"),
        None => String::new(),
    };
    let suffix = if protocol == "TCP" { String::new() } else { format!("/{}", protocol.to_lowercase()) };
    json!(format!("{outside}{target}{suffix}"))
}
