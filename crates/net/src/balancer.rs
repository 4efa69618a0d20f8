//! Services of type LoadBalancer, whose ports answer on every address of this node, and Pods with a `hostPort`.
//!
//! ```text
//! [Service], [Pod] --arbitrate--> published in the routing index --> [Service].status.loadBalancer
//!                            \--> refused: a condition and an event that say who has the port
//! ```
//!
//! Watches Services and Pods; writes the Services' status and events. A port belongs to one: the oldest object that asks
//! for it, unless a program of the machine listens on it. What is published is reserved with the system as well, so that
//! a program that wants the port later is told that it is taken and does not listen in vain.

mod reserve;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::Resource;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use yado_reconcile::events::{EventType, Recorder};
use yado_reconcile::{Clock, Informer, Informers, Next, ObjectKey, Queue, Tasks, run};
use yado_types::labels::PUBLISHED;

use crate::host_ports;
use crate::index::{Endpoint, HostPort, Protocol};
use crate::load_balancer::{is_ours, sources};
use crate::routing::Routing;
use reserve::Reservations;

/// How soon a port that a program of the machine has is asked for again: nothing tells when it is free, and whoever has
/// just stopped that program waits for it.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// The object that requests a port of the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PortOwner {
    Service(ObjectKey),
    Pod(ObjectKey),
}

impl PortOwner {
    /// What it does with a port, after "port 80/TCP is".
    fn has(&self) -> String {
        match self {
            Self::Service(key) => format!("published by the older Service {key}"),
            Self::Pod(key) => format!("the hostPort of the older Pod {key}"),
        }
    }

    /// What its author can do instead.
    fn advice(&self) -> &'static str {
        match self {
            Self::Service(_) => "publish another port",
            Self::Pod(_) => "choose another hostPort",
        }
    }
}

/// The ports of the node that an object requests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct PortClaim {
    /// When the object was created: the older one is served first; of two objects of the same second, the one that has its
    /// ports already.
    since: Option<Timestamp>,
    is_new: bool,
    owner: PortOwner,
    /// The requested ports, or why none of them can be published.
    ports: Result<Vec<HostPort>, String>,
}

fn claim(key: &ObjectKey, service: &Service) -> Option<PortClaim> {
    let spec = service.spec.as_ref().filter(|spec| is_ours(spec))?;
    let port = |port: &k8s_openapi::api::core::v1::ServicePort| {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        match (Protocol::parse(Some(protocol)), u16::try_from(port.port)) {
            (Some(protocol), Ok(port)) => Ok(HostPort::everywhere(protocol, port)),
            _ => Err(format!("port {}/{protocol} cannot be published: only TCP and UDP can", port.port)),
        }
    };
    let ports = sources(service).and_then(|_| spec.ports.iter().flatten().map(port).collect());
    Some(PortClaim {
        since: service.metadata.creation_timestamp.as_ref().map(|t| t.0),
        is_new: shown(service).is_empty(),
        owner: PortOwner::Service(key.clone()),
        ports,
    })
}

fn claim_of_pod(pod: &Pod, ports: &Result<Vec<(HostPort, Endpoint)>, String>) -> PortClaim {
    PortClaim {
        since: pod.metadata.creation_timestamp.as_ref().map(|t| t.0),
        is_new: false,
        owner: PortOwner::Pod(ObjectKey::of(&pod.metadata)),
        ports: ports.as_ref().map(|all| all.iter().map(|(port, _)| *port).collect()).map_err(Clone::clone),
    }
}

type Outcomes = BTreeMap<PortOwner, Result<(), String>>;

/// Who gets all its ports, why the others get none, and the ports in use. `reserve` asks the system for a port. Pure
/// but for that.
fn arbitrate(
    mut claims: Vec<PortClaim>,
    node_ports: &BTreeMap<HostPort, ObjectKey>,
    mut reserve: impl FnMut(HostPort) -> Result<(), String>,
) -> (Outcomes, BTreeSet<HostPort>) {
    claims.sort();
    let mut taken: BTreeMap<HostPort, PortOwner> = BTreeMap::new();
    let mut outcomes = BTreeMap::new();
    for PortClaim { owner, ports, .. } in claims {
        let advice = owner.advice();
        let outcome = ports.and_then(|ports| {
            for port in &ports {
                if let Some((_, other)) = taken.iter().find(|(held, _)| held.collides(port)) {
                    return Err(format!("port {port} is {} already; remove that or {advice}", other.has()));
                }
                let node_port = node_ports.get(&HostPort::everywhere(port.protocol, port.port));
                if let Some(other) = node_port.filter(|other| owner != PortOwner::Service((*other).clone())) {
                    return Err(format!("port {port} is the nodePort of Service {other}; {advice}"));
                }
                reserve(*port)?;
            }
            taken.extend(ports.into_iter().map(|port| (port, owner.clone())));
            Ok(())
        });
        outcomes.insert(owner, outcome);
    }
    (outcomes, taken.into_keys().collect())
}

fn node_ports(services: &[Arc<Service>]) -> BTreeMap<HostPort, ObjectKey> {
    let mut all = BTreeMap::new();
    for service in services {
        for port in service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()) {
            let protocol = Protocol::parse(port.protocol.as_deref());
            let number = port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0);
            if let (Some(protocol), Some(number)) = (protocol, number) {
                all.insert(HostPort::everywhere(protocol, number), ObjectKey::of(&service.metadata));
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
    let loopback = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
    let sources = sources(service).unwrap_or_default();
    let only_here = !sources.is_empty() && sources.iter().all(|s| loopback.contains(s));
    Some(if only_here { Ipv4Addr::LOCALHOST.to_string() } else { node.to_string() })
}

/// The conditions that the status should have, others' kept; `None` where it has them. A Service that asks for no ports
/// has no such condition.
fn conditions(
    service: &Service,
    outcome: Option<&Result<(), String>>,
    now: Timestamp,
) -> Option<Vec<Condition>> {
    let old = service.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let before = old.iter().find(|c| c.type_ == PUBLISHED);
    let wanted = outcome.map(|outcome| match outcome {
        Ok(()) => ("True", "Published", String::new()),
        Err(why) => ("False", "PortUnavailable", why.clone()),
    });
    let same = match (&wanted, before) {
        (Some((status, _, message)), Some(there)) => there.status == *status && there.message == *message,
        (None, None) => true,
        _ => false,
    };
    if same {
        return None;
    }
    let mut all: Vec<Condition> = old.iter().filter(|c| c.type_ != PUBLISHED).cloned().collect();
    all.extend(wanted.map(|(status, reason, message)| Condition {
        type_: PUBLISHED.into(),
        status: status.into(),
        reason: reason.into(),
        message,
        last_transition_time: match before.filter(|there| there.status == status) {
            Some(there) => there.last_transition_time.clone(),
            None => Time(now),
        },
        observed_generation: None,
    }));
    Some(all)
}

/// Whether anything is to be done for a Service: it asks for a balancer, or its status still shows one.
fn concerns(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.load_balancer_class.is_none())
        && (service.spec.as_ref().is_some_and(is_ours)
            || !shown(service).is_empty()
            || has_condition(service))
}

fn has_condition(service: &Service) -> bool {
    let status = service.status.as_ref();
    status.is_some_and(|s| s.conditions.iter().flatten().any(|c| c.type_ == PUBLISHED))
}

struct Balancer {
    clock: Arc<dyn Clock>,
    services: Arc<Informer<Service>>,
    pods: Arc<Informer<Pod>>,
    client: kube::Client,
    routing: Arc<Routing>,
    recorder: Recorder,
    node: IpAddr,
    node_name: String,
    state: tokio::sync::Mutex<State>,
}

struct State {
    reservations: Reservations,
    /// What each object was told last, so that it is told once.
    told: Outcomes,
}

/// Publishes Services and ports of Pods until the tasks are stopped.
pub fn start(
    informers: &Informers,
    routing: Arc<Routing>,
    config: &crate::Config,
    clock: Arc<dyn Clock>,
    tasks: &Tasks,
) {
    let services = informers.all::<Service>();
    let queue: Arc<Queue<()>> = Queue::new(clock.clone());
    services.feed_queue(&queue, |change| {
        change.old.iter().chain(&change.new).any(|service| concerns(service)).then_some(())
    });
    let pods = informers.all::<Pod>();
    let node_name = config.node_name.clone();
    pods.feed_queue(&queue, move |change| {
        let wants = |pod: &Arc<Pod>| host_ports::wanted(pod, &node_name);
        let (old, new) = (change.old.as_ref().and_then(wants), change.new.as_ref().and_then(wants));
        (old != new).then_some(())
    });
    let client = informers.client().clone();
    let recorder =
        Recorder::new(client.clone(), "service-controller", &config.node_name, clock.clone(), tasks);
    let reservations = Reservations::new(config.own_ports.clone());
    let state = tokio::sync::Mutex::new(State { reservations, told: BTreeMap::new() });
    let node = config.node_address;
    let node_name = config.node_name.clone();
    let balancer =
        Arc::new(Balancer { clock, services, pods, client, routing, recorder, node, node_name, state });
    run(tasks, "load balancers", &queue, 1, move |()| {
        let balancer = balancer.clone();
        async move { balancer.reconcile().await }
    });
}

impl Balancer {
    async fn reconcile(&self) -> Result<Next, kube::Error> {
        self.services.synced().await;
        self.pods.synced().await;
        let services = self.services.list();
        let pods = self.pods.list();
        let wanted: Vec<_> =
            pods.iter().filter_map(|pod| Some((pod, host_ports::wanted(pod, &self.node_name)?))).collect();
        let claims = services.iter().filter_map(|s| claim(&ObjectKey::of(&s.metadata), s));
        let claims = claims.chain(wanted.iter().map(|(pod, ports)| claim_of_pod(pod, ports))).collect();
        let mut state = self.state.lock().await;
        let mut blocked = false;
        let (outcomes, ports) = arbitrate(claims, &node_ports(&services), |port| {
            let reserved = state.reservations.reserve(port);
            blocked |= reserved.is_err();
            reserved
        });
        let granted = |owner: &PortOwner| outcomes.get(owner).is_some_and(Result::is_ok);
        let of_services = outcomes.keys().filter(|owner| granted(owner)).filter_map(|owner| match owner {
            PortOwner::Service(key) => Some(key.clone()),
            PortOwner::Pod(_) => None,
        });
        let of_pods = wanted
            .iter()
            .filter(|(pod, _)| granted(&PortOwner::Pod(ObjectKey::of(&pod.metadata))))
            .flat_map(|(_, ports)| ports.iter().flatten().cloned());
        self.routing.publish(of_services.collect(), of_pods.collect()).await;
        // Only now, when nothing leads there any more, may others have what is not asked for.
        state.reservations.keep(&ports);
        let mut failed = None;
        for service in services.iter().filter(|service| concerns(service)) {
            let owner = PortOwner::Service(ObjectKey::of(&service.metadata));
            let outcome = outcomes.get(&owner);
            if let Err(error) = self.show(service, outcome).await {
                failed = Some(error);
            }
            if let Some(news) = news(owner, outcome, &mut state.told) {
                self.tell(service, news);
            }
        }
        for (pod, _) in wanted {
            let owner = PortOwner::Pod(ObjectKey::of(&pod.metadata));
            let outcome = outcomes.get(&owner);
            if let Some(News { outcome: Err(why), .. }) = news(owner, outcome, &mut state.told) {
                let message = format!("Error opening host ports: {why}");
                let object = pod.object_ref(&());
                self.recorder.event(&object, EventType::Warning, "HostPortFailed", message);
            }
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
        let conditions = conditions(service, outcome, self.clock.now());
        let same = shown(service) == wanted.as_deref().into_iter().collect::<Vec<_>>();
        if same && conditions.is_none() {
            return Ok(());
        }
        let ingress = wanted.map(|ip| json!([{"ip": ip}]));
        let mut patch = json!({"status": {"loadBalancer": {"ingress": ingress}}});
        if let Some(conditions) = conditions {
            patch["status"]["conditions"] = json!(conditions);
        }
        let key = ObjectKey::of(&service.metadata);
        let api = Api::<Service>::namespaced(self.client.clone(), &key.namespace);
        match api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(()),
            // It went meanwhile.
            Err(kube::Error::Api(e)) if e.code == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn tell(&self, service: &Service, News { outcome, is_first }: News<'_>) {
        let object = service.object_ref(&());
        match outcome {
            Err(why) => {
                let message = format!("Error syncing load balancer: {why}");
                self.recorder.event(&object, EventType::Warning, "SyncLoadBalancerFailed", message);
            }
            // After a restart there is nothing new to say.
            Ok(()) if is_first && !shown(service).is_empty() => {}
            Ok(()) => {
                let message = "Ensured load balancer";
                self.recorder.event(&object, EventType::Normal, "EnsuredLoadBalancer", message);
            }
        }
    }
}

/// An outcome that an object was not told yet, and whether it is the first.
struct News<'a> {
    outcome: &'a Result<(), String>,
    is_first: bool,
}

fn news<'a>(
    owner: PortOwner,
    outcome: Option<&'a Result<(), String>>,
    told: &mut Outcomes,
) -> Option<News<'a>> {
    let outcome = outcome?;
    let before = told.insert(owner, outcome.clone());
    (before.as_ref() != Some(outcome)).then_some(News { outcome, is_first: before.is_none() })
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

    fn name(owner: &PortOwner) -> String {
        let (PortOwner::Service(key) | PortOwner::Pod(key)) = owner;
        key.name.clone()
    }

    /// `busy` are ports that a program of the machine has.
    fn check(services: &[Arc<Service>], busy: &[u16], expect: &[&str]) {
        let claims = services.iter().filter_map(|s| claim(&ObjectKey::of(&s.metadata), s)).collect();
        let (outcomes, _) =
            arbitrate(claims, &node_ports(services), |port| match busy.contains(&port.port) {
                true => Err("nginx".into()),
                false => Ok(()),
            });
        let said: Vec<String> = outcomes
            .iter()
            .map(|(key, outcome)| match outcome {
                Ok(()) => name(key),
                Err(why) => format!("{}: {why}", name(key)),
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
                "r: loadBalancerSourceRanges: ::1/128 is not a valid range of IPv4 addresses; write it like 10.0.0.0/8",
                "s: port 5/SCTP cannot be published: only TCP and UDP can",
            ],
        );
    }

    #[test]
    fn the_condition_says_whether_its_ports_are_its_own() {
        let now = Timestamp::from_second(9).expect("a time");
        let check = |there: Value, outcome: Option<Result<(), String>>, expect: Option<&str>| {
            let mut service = (*balancer("s", 1, json!({"port": 80}))).clone();
            service.status = serde_json::from_value(json!({"conditions": there})).expect("a status");
            let written = conditions(&service, outcome.as_ref(), now).map(|all| {
                let shown = |c: &Condition| format!("{}={} {}", c.type_, c.status, c.message);
                all.iter().map(shown).collect::<Vec<_>>().join(", ")
            });
            assert_eq!(written.as_deref().map(str::trim_end), expect);
        };
        let condition = |kind: &str, status: &str, message: &str| json!({"type": kind, "status": status, "reason": "r", "message": message, "lastTransitionTime": "1970-01-01T00:00:01Z"});
        let refused = || Some(Err("nginx has it".to_owned()));
        check(json!([]), refused(), Some("yado.dev/Published=False nginx has it"));
        check(json!([condition(PUBLISHED, "False", "nginx has it")]), refused(), None);
        check(
            json!([condition(PUBLISHED, "False", "nginx has it")]),
            Some(Ok(())),
            Some("yado.dev/Published=True"),
        );
        check(
            json!([condition("Other", "True", "m"), condition(PUBLISHED, "True", "")]),
            None,
            Some("Other=True m"),
        );
        check(json!([condition("Other", "True", "m")]), None, None);
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

    #[test]
    fn host_ports_are_had_by_one_at_each_address() {
        let claim = |name: &str, second, address: Option<&str>| PortClaim {
            since: Some(Timestamp::from_second(second).expect("a time")),
            is_new: false,
            owner: PortOwner::Pod(ObjectKey::new("n", name)),
            ports: Ok(vec![HostPort {
                address: address.map(|a| a.parse().expect("an address")),
                protocol: Protocol::Tcp,
                port: 80,
            }]),
        };
        let old = balancer("web", 1, json!({"port": 80}));
        let node = service("node", 1, json!({"type": "NodePort", "ports": [{"port": 9, "nodePort": 80}]}));
        let one = || claim("one", 2, Some("127.0.0.1"));
        let other = || claim("other", 3, Some("192.0.2.1"));
        let all = || claim("all", 4, None);
        let taken_one = "all: port 80/TCP is the hostPort of the older Pod n/one already; remove that or choose \
             another hostPort";
        let published = "one: port 127.0.0.1:80/TCP is published by the older Service n/web already; remove that or \
             choose another hostPort";
        let node_port = "all: port 80/TCP is the nodePort of Service n/node; choose another hostPort";
        for (services, claims, expect) in [
            (vec![], vec![one(), other()], vec!["one", "other"]),
            (vec![], vec![all(), one()], vec![taken_one, "one"]),
            (vec![old], vec![one()], vec!["web", published]),
            (vec![node], vec![all()], vec![node_port]),
        ] {
            let of_services = services.iter().filter_map(|s| super::claim(&ObjectKey::of(&s.metadata), s));
            let claims = of_services.chain(claims).collect();
            let (outcomes, _) = arbitrate(claims, &node_ports(&services), |_| Ok(()));
            let said: Vec<String> = outcomes
                .iter()
                .map(|(owner, outcome)| match outcome {
                    Ok(()) => name(owner),
                    Err(why) => format!("{}: {why}", name(owner)),
                })
                .collect();
            assert_eq!(said, expect);
        }
    }
}
