//! Services of type LoadBalancer: their ports answer on every address of this node.
//!
//! ```text
//! [Service] --arbitrate--> published in the routing index --> [Service].status.loadBalancer
//!                     \--> refused: an event that says who has the port
//! ```
//!
//! Watches Services; writes their status and events. A port belongs to one: the oldest Service that asks for it, unless
//! a program of the machine listens on it. What is published is reserved with the system as well, so that a program
//! that wants the port later is told that it is taken and does not listen in vain.

mod reserve;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use kube::Resource;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use yado_reconcile::events::{EventType, Recorder};
use yado_reconcile::{Clock, Next, ObjectKey, Queue, Tasks, Watch, Watches, run};

use crate::index::Protocol;
use crate::routing::Routing;
use crate::slot::Cidr;
use reserve::Reservations;

/// How soon a port that a program of the machine has is asked for again: nothing tells when it is free.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// A port of the node.
pub type Port = (Protocol, u16);

/// Whether a Service is one that this node publishes.
pub fn is_ours(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none()
}

/// Who may come, or a sentence about the range that nobody can come from.
pub fn sources(spec: &ServiceSpec) -> Result<Vec<Cidr>, String> {
    let ranges = spec.load_balancer_source_ranges.iter().flatten();
    let parse = |text: &String| {
        text.trim().parse().map_err(|()| {
            format!(
                "loadBalancerSourceRanges: {text} is no range of IPv4 addresses; write it like 10.0.0.0/8"
            )
        })
    };
    ranges.map(parse).collect()
}

/// What a Service asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    /// The older comes first; of two that are of the same second, the one that has its ports already.
    since: Option<Timestamp>,
    is_new: bool,
    key: ObjectKey,
    /// Or why it cannot be published at all.
    ports: Result<Vec<Port>, String>,
}

fn claim(key: &ObjectKey, service: &Service) -> Option<Claim> {
    let spec = service.spec.as_ref().filter(|spec| is_ours(spec))?;
    let port = |port: &k8s_openapi::api::core::v1::ServicePort| {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        match (Protocol::parse(Some(protocol)), u16::try_from(port.port)) {
            (Some(protocol), Ok(port)) => Ok((protocol, port)),
            _ => Err(format!("port {}/{protocol} cannot be published: only TCP and UDP can", port.port)),
        }
    };
    let ports = sources(spec).and_then(|_| spec.ports.iter().flatten().map(port).collect());
    Some(Claim {
        since: service.metadata.creation_timestamp.as_ref().map(|t| t.0),
        is_new: shown(service).is_empty(),
        key: key.clone(),
        ports,
    })
}

type Outcomes = BTreeMap<ObjectKey, Result<(), String>>;

/// Who gets all its ports, why the others get none, and the ports in use. `reserve` asks the system for a port. Pure
/// but for that.
fn arbitrate(
    mut claims: Vec<Claim>,
    node_ports: &BTreeMap<Port, ObjectKey>,
    mut reserve: impl FnMut(Port) -> Result<(), String>,
) -> (Outcomes, BTreeSet<Port>) {
    claims.sort();
    let mut taken: BTreeMap<Port, ObjectKey> = BTreeMap::new();
    let mut outcomes = BTreeMap::new();
    for Claim { key, ports, .. } in claims {
        let outcome = ports.and_then(|ports| {
            for port in &ports {
                if let Some(other) = taken.get(port) {
                    return Err(format!(
                        "port {} is published by the older Service {other} already; remove that or publish another port",
                        shown_port(*port)
                    ));
                }
                if let Some(other) = node_ports.get(port).filter(|other| **other != key) {
                    return Err(format!(
                        "port {} is the nodePort of Service {other}; publish another port",
                        shown_port(*port)
                    ));
                }
                reserve(*port)?;
            }
            taken.extend(ports.into_iter().map(|port| (port, key.clone())));
            Ok(())
        });
        outcomes.insert(key, outcome);
    }
    (outcomes, taken.into_keys().collect())
}

fn shown_port((protocol, port): Port) -> String {
    format!("{port}/{}", if protocol == Protocol::Tcp { "TCP" } else { "UDP" })
}

fn node_ports(services: &[Arc<Service>]) -> BTreeMap<Port, ObjectKey> {
    let mut all = BTreeMap::new();
    for service in services {
        for port in service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()) {
            let protocol = Protocol::parse(port.protocol.as_deref());
            let number = port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0);
            if let (Some(protocol), Some(number)) = (protocol, number) {
                all.insert((protocol, number), ObjectKey::of(&service.metadata));
            }
        }
    }
    all
}

/// The addresses that a Service's status says it is reached at.
fn shown(service: &Service) -> Vec<&str> {
    let balancer = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let ingress = balancer.into_iter().flat_map(|b| b.ingress.iter().flatten());
    ingress.filter_map(|i| i.ip.as_deref().or(i.hostname.as_deref())).collect()
}

/// What it should say.
fn wanted(service: &Service, outcome: Option<&Result<(), String>>, node: IpAddr) -> Option<String> {
    outcome?.as_ref().ok()?;
    let loopback = Cidr { address: Ipv4Addr::new(127, 0, 0, 0), prefix: 8 };
    let sources = service.spec.as_ref().and_then(|spec| sources(spec).ok()).unwrap_or_default();
    let only_here = !sources.is_empty() && sources.iter().all(|s| s.prefix >= 8 && loopback.overlaps(*s));
    Some(if only_here { Ipv4Addr::LOCALHOST.to_string() } else { node.to_string() })
}

/// Whether anything is to be done for a Service: it asks for a balancer, or its status still shows one.
fn concerns(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.load_balancer_class.is_none())
        && (service.spec.as_ref().is_some_and(is_ours) || !shown(service).is_empty())
}

struct Balancer {
    services: Arc<Watch<Service>>,
    client: kube::Client,
    routing: Arc<Routing>,
    recorder: Recorder,
    node: IpAddr,
    state: tokio::sync::Mutex<State>,
}

struct State {
    reservations: Reservations,
    /// What each Service was told last, so that it is told once.
    told: Outcomes,
}

/// Publishes Services until the tasks are stopped.
pub fn start(
    watches: &Watches,
    routing: Arc<Routing>,
    config: &crate::Config,
    clock: Arc<dyn Clock>,
    tasks: &Tasks,
) {
    let services = watches.all::<Service>();
    let queue: Arc<Queue<()>> = Queue::new(clock.clone());
    services.feed_queue(&queue, |change| {
        change.old.iter().chain(&change.new).any(|service| concerns(service)).then_some(())
    });
    let client = watches.client().clone();
    let recorder = Recorder::new(client.clone(), "service-controller", &config.node_name, clock, tasks);
    let reservations = Reservations::new(config.own_ports.clone());
    let state = tokio::sync::Mutex::new(State { reservations, told: BTreeMap::new() });
    let node = config.node_address;
    let balancer = Arc::new(Balancer { services, client, routing, recorder, node, state });
    run(tasks, "load balancers", &queue, 1, move |()| {
        let balancer = balancer.clone();
        async move { balancer.reconcile().await }
    });
}

impl Balancer {
    async fn reconcile(&self) -> Result<Next, kube::Error> {
        self.services.synced().await;
        let services = self.services.list();
        let claims = services.iter().filter_map(|s| claim(&ObjectKey::of(&s.metadata), s)).collect();
        let mut state = self.state.lock().await;
        let mut blocked = false;
        let (outcomes, ports) = arbitrate(claims, &node_ports(&services), |port| {
            let reserved = state.reservations.reserve(port);
            blocked |= reserved.is_err();
            reserved
        });
        let granted = outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).map(|(key, _)| key.clone());
        self.routing.publish(granted.collect()).await;
        // Only now, when nothing leads there any more, may others have what is not asked for.
        state.reservations.keep(&ports);
        let mut failed = None;
        for service in services.iter().filter(|service| concerns(service)) {
            let outcome = outcomes.get(&ObjectKey::of(&service.metadata));
            if let Err(error) = self.show(service, outcome).await {
                failed = Some(error);
            }
            self.tell(service, outcome, &mut state.told);
        }
        state.told.retain(|key, _| outcomes.contains_key(key));
        match failed {
            Some(error) => Err(error),
            None if blocked => Ok(Next::After(ASK_AGAIN)),
            None => Ok(Next::Wait),
        }
    }

    /// Brings the status up to date.
    async fn show(&self, service: &Service, outcome: Option<&Result<(), String>>) -> Result<(), kube::Error> {
        let wanted = wanted(service, outcome, self.node);
        if shown(service) == wanted.as_deref().into_iter().collect::<Vec<_>>() {
            return Ok(());
        }
        let ingress = wanted.map(|ip| json!([{"ip": ip}]));
        let patch = json!({"status": {"loadBalancer": {"ingress": ingress}}});
        let key = ObjectKey::of(&service.metadata);
        let api = Api::<Service>::namespaced(self.client.clone(), &key.namespace);
        match api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            // It went meanwhile.
            Err(kube::Error::Api(e)) if e.code == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn tell(&self, service: &Service, outcome: Option<&Result<(), String>>, told: &mut Outcomes) {
        let Some(outcome) = outcome else { return };
        let before = told.insert(ObjectKey::of(&service.metadata), outcome.clone());
        if before.as_ref() == Some(outcome) {
            return;
        }
        let object = service.object_ref(&());
        match outcome {
            Err(why) => {
                let message = format!("Error syncing load balancer: {why}");
                self.recorder.event(&object, EventType::Warning, "SyncLoadBalancerFailed", message);
            }
            // After a restart there is nothing new to say.
            Ok(()) if before.is_none() && !shown(service).is_empty() => {}
            Ok(()) => {
                let message = "Ensured load balancer";
                self.recorder.event(&object, EventType::Normal, "EnsuredLoadBalancer", message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(name: &str, second: i64, spec: Value) -> Arc<Service> {
        let created = Timestamp::from_second(second).expect("a time").to_string();
        let object = json!({
            "metadata": {"name": name, "namespace": "n", "creationTimestamp": created}, "spec": spec,
        });
        Arc::new(serde_json::from_value(object).expect("a Service"))
    }

    fn balancer(name: &str, second: i64, port: Value) -> Arc<Service> {
        service(name, second, json!({"type": "LoadBalancer", "ports": [port]}))
    }

    /// `busy` are ports that a program of the machine has.
    fn check(services: &[Arc<Service>], busy: &[u16], expect: &[&str]) {
        let claims = services.iter().filter_map(|s| claim(&ObjectKey::of(&s.metadata), s)).collect();
        let (outcomes, _) =
            arbitrate(claims, &node_ports(services), |(_, port)| match busy.contains(&port) {
                true => Err("nginx".into()),
                false => Ok(()),
            });
        let said: Vec<String> = outcomes
            .iter()
            .map(|(key, outcome)| match outcome {
                Ok(()) => key.name.clone(),
                Err(why) => format!("{}: {why}", key.name),
            })
            .collect();
        assert_eq!(said, expect);
    }

    #[test]
    fn the_oldest_has_a_port_and_the_others_are_told_why_not() {
        let taken = "port 80/TCP is published by the older Service n/old already; remove that or publish another port";
        check(
            &[
                balancer("new", 9, json!({"port": 80})),
                balancer("old", 1, json!({"port": 80})),
                balancer("dns", 9, json!({"port": 80, "protocol": "UDP"})),
            ],
            &[],
            &["dns", &format!("new: {taken}"), "old"],
        );
        // What the older cannot have, the newer is not kept from.
        check(
            &[
                service("old", 1, json!({"type": "LoadBalancer", "ports": [{"port": 80}, {"port": 81}]})),
                balancer("new", 9, json!({"port": 80})),
            ],
            &[81],
            &["new", "old: nginx"],
        );
        check(
            &[
                balancer("a", 1, json!({"port": 30080})),
                balancer("b", 1, json!({"port": 8080, "nodePort": 30080})),
                balancer("own", 1, json!({"port": 30081, "nodePort": 30081})),
                service("inside", 1, json!({"type": "ClusterIP", "ports": [{"port": 8080}]})),
                balancer("s", 1, json!({"port": 5, "protocol": "SCTP"})),
                service(
                    "r",
                    1,
                    json!({"type": "LoadBalancer", "ports": [{"port": 6}],
                    "loadBalancerSourceRanges": ["127.0.0.0/8", "::1/128"]}),
                ),
                service(
                    "else",
                    1,
                    json!({"type": "LoadBalancer", "loadBalancerClass": "x/y", "ports": [{"port": 7}]}),
                ),
            ],
            &[],
            &[
                "a: port 30080/TCP is the nodePort of Service n/b; publish another port",
                "b",
                "own",
                "r: loadBalancerSourceRanges: ::1/128 is no range of IPv4 addresses; write it like 10.0.0.0/8",
                "s: port 5/SCTP cannot be published: only TCP and UDP can",
            ],
        );
    }

    #[test]
    fn the_status_says_where_it_is_reached() {
        let node: IpAddr = [192, 0, 2, 7].into();
        let of = |ranges: Value, outcome: Option<&Result<(), String>>| {
            let spec = json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ranges});
            wanted(&service("s", 1, spec), outcome, node)
        };
        assert_eq!(of(json!([]), Some(&Ok(()))).as_deref(), Some("192.0.2.7"));
        assert_eq!(of(json!(["127.0.0.0/8"]), Some(&Ok(()))).as_deref(), Some("127.0.0.1"));
        assert_eq!(of(json!(["127.0.0.0/8", "10.0.0.0/8"]), Some(&Ok(()))).as_deref(), Some("192.0.2.7"));
        assert_eq!(of(json!(["0.0.0.0/0"]), Some(&Ok(()))).as_deref(), Some("192.0.2.7"));
        assert_eq!(of(json!([]), Some(&Err(String::new()))), None);
        assert_eq!(of(json!([]), None), None);
    }
}
