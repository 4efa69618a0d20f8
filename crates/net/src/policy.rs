//! NetworkPolicies. Pure: objects in, an [`Isolation`] out, which the packet filter applies.
//!
//! A Pod that no policy selects is open, and without any policy the packet filter has no rule for this. A Pod that one
//! selects takes (or makes) only those connections that some policy allows; answers to them always pass, and so does
//! what a Pod says to itself and what the node and its own programs say to a Pod, such as probes. The node is no Pod: a
//! Pod whose egress is restricted reaches the node's programs only where a rule is for every peer or for a block that
//! holds the node's address.
//!
//! The HTTP router connects as the node, so it asks [`Isolation::admits`] itself for requests that come from a Pod.
//!
//! Names are asked of the node, too. Policies name the server of names as other clusters have it, as Pods in
//! `kube-system` with the label `k8s-app: kube-dns`; so it is taken for one here ([`NameServer`]).

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as ApiSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use yado_types::selector::LabelSelector;

use crate::address_range::parse_range;
use crate::protocol::Protocol;

/// Which Pods take or make only some connections. Chains and sets are named after what is in them, so that the replicas
/// of a workload share them, and a change is another name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Isolation {
    /// Sets of peer addresses by name.
    pub sets: BTreeMap<String, BTreeSet<Ipv4Addr>>,
    /// Lists of allowed connections by name.
    pub chains: BTreeMap<String, Vec<AllowedTraffic>>,
    /// Addresses of Pods whose incoming connections are restricted, with the name of their chain.
    pub ingress: BTreeMap<Ipv4Addr, String>,
    /// Addresses of Pods whose outgoing connections are restricted, with the name of their chain.
    pub egress: BTreeMap<Ipv4Addr, String>,
}

impl Isolation {
    /// Whether no Pod is restricted.
    pub fn is_empty(&self) -> bool {
        self.ingress.is_empty() && self.egress.is_empty()
    }

    /// Whether ingress policies allow a TCP connection from the address `from` to a Pod's address and port. The router asks
    /// this for connections that it forwards.
    pub fn admits(&self, from: Ipv4Addr, (to, port): (Ipv4Addr, u16)) -> bool {
        let Some(chain) = self.ingress.get(&to).filter(|_| from != to) else { return true };
        self.chains.get(chain).into_iter().flatten().any(|allowed| {
            let peer = match &allowed.peers {
                Peers::All => true,
                Peers::Set(name) => self.sets.get(name).is_some_and(|set| set.contains(&from)),
                Peers::Range(range, except) => {
                    range.contains(&from) && !except.iter().any(|hole| hole.contains(&from))
                }
            };
            let at_port = match allowed.ports {
                None => true,
                Some((protocol, ports)) => {
                    protocol == Protocol::Tcp.number()
                        && ports.is_none_or(|(first, last)| (first..=last).contains(&port))
                }
            };
            peer && at_port
        })
    }
}

/// The cluster's DNS server. Egress rules treat it as a Pod of [`NAME_SERVER_NAMESPACE`] with the label
/// [`NAME_SERVER_LABEL`] at port 53.
#[derive(Clone, Copy, Debug)]
pub struct NameServer {
    /// The node's address in the Pod network.
    pub address: Ipv4Addr,
}

/// Namespace in which other clusters run their DNS server.
pub const NAME_SERVER_NAMESPACE: &str = "kube-system";
/// Label of the DNS server's Pods in other clusters.
pub const NAME_SERVER_LABEL: (&str, &str) = ("k8s-app", "kube-dns");
const NAME_SERVER_PORT: u16 = 53;

/// Allowed connections: from (or to) these peers, to these ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AllowedTraffic {
    /// The allowed peers.
    pub peers: Peers,
    /// Protocol number, and the first and last port of a range if not all ports are allowed; `None` allows all protocols.
    pub ports: Option<(u8, Option<(u16, u16)>)>,
}

/// The peers of an isolated Pod that a rule allows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peers {
    /// All addresses.
    All,
    /// The addresses in the set of this name.
    Set(String),
    /// The addresses of a range, except those of the other ranges.
    Range(Ipv4Net, Vec<Ipv4Net>),
}

/// The direction of a rule, as seen from the isolated Pod.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Direction {
    Ingress,
    Egress,
}

/// The objects that policies refer to.
struct PolicyContext<'a> {
    pods: Vec<Member<'a>>,
    name_server: NameServer,
    name_server_labels: BTreeMap<String, String>,
    namespaces: BTreeMap<&'a str, &'a BTreeMap<String, String>>,
}

/// A Pod with an address of its own.
struct Member<'a> {
    pod: &'a Pod,
    address: Ipv4Addr,
    namespace: &'a str,
    labels: &'a BTreeMap<String, String>,
}

/// Computes the effect of all policies.
pub fn isolate(
    policies: &[Arc<NetworkPolicy>],
    pods: &[Arc<Pod>],
    namespaces: &[Arc<Namespace>],
    name_server: NameServer,
) -> Isolation {
    static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();
    let mut isolation = Isolation::default();
    if policies.is_empty() {
        return isolation;
    }
    let named = namespaces.iter().map(|namespace| {
        let labels = namespace.metadata.labels.as_ref().unwrap_or(&NO_LABELS);
        (namespace.metadata.name.as_deref().unwrap_or_default(), labels)
    });
    let (key, value) = NAME_SERVER_LABEL;
    let context = PolicyContext {
        pods: pods.iter().filter_map(|pod| member(pod)).collect(),
        name_server,
        name_server_labels: [(key.to_owned(), value.to_owned())].into(),
        namespaces: named.collect(),
    };
    // Every compose project has a policy that selects all of its Pods, and each looks at all Pods there are. What one
    // allows is the same for all that it selects, unless it names ports by what they are called there.
    let mut same: BTreeMap<(usize, Direction), Vec<AllowedTraffic>> = BTreeMap::new();
    for pod in &context.pods {
        let selecting: Vec<(usize, &NetworkPolicy)> = policies
            .iter()
            .map(AsRef::as_ref)
            .enumerate()
            .filter(|(_, policy)| selects(policy, pod))
            .collect();
        for direction in [Direction::Ingress, Direction::Egress] {
            let of_direction: Vec<_> =
                selecting.iter().filter(|(_, policy)| restricts(policy, direction)).collect();
            if of_direction.is_empty() {
                continue;
            }
            let mut allowed: Vec<AllowedTraffic> = Vec::new();
            for (place, policy) in of_direction {
                let mut of_pod = || allows(policy, direction, pod, &context, &mut isolation.sets);
                if direction == Direction::Ingress && names_ports(policy) {
                    allowed.extend(of_pod());
                } else {
                    allowed.extend(same.entry((*place, direction)).or_insert_with(of_pod).iter().cloned());
                }
            }
            allowed.sort();
            allowed.dedup();
            let name = named_after(if direction == Direction::Ingress { "i" } else { "o" }, &allowed);
            let pods =
                if direction == Direction::Ingress { &mut isolation.ingress } else { &mut isolation.egress };
            pods.insert(pod.address, name.clone());
            isolation.chains.insert(name, allowed);
        }
    }
    isolation
}

fn member(pod: &Pod) -> Option<Member<'_>> {
    static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();
    let host_network = pod.spec.as_ref().and_then(|s| s.host_network) == Some(true);
    let address = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok();
    let address = address.filter(|_| !host_network && !yado_types::pod::is_ended(pod))?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    Some(Member { pod, address, namespace, labels: pod.metadata.labels.as_ref().unwrap_or(&NO_LABELS) })
}

/// A selector that cannot be read selects nothing: the API server refuses such.
fn matches(selector: &ApiSelector, labels: &BTreeMap<String, String>) -> bool {
    LabelSelector::from_api(selector).is_ok_and(|selector| selector.matches(labels))
}

fn selects(policy: &NetworkPolicy, pod: &Member<'_>) -> bool {
    policy.metadata.namespace.as_deref() == Some(pod.namespace)
        && policy.spec.as_ref().is_some_and(|spec| {
            spec.pod_selector.as_ref().is_none_or(|selector| matches(selector, pod.labels))
        })
}

/// Whether a policy says anything about a direction: by its types, and where it names none, about what comes in, and about
/// what goes out if it has rules for that.
fn restricts(policy: &NetworkPolicy, direction: Direction) -> bool {
    let Some(spec) = &policy.spec else { return false };
    let name = if direction == Direction::Ingress { "Ingress" } else { "Egress" };
    match spec.policy_types.as_deref() {
        Some(types) if !types.is_empty() => types.iter().any(|t| t == name),
        _ => direction == Direction::Ingress || spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
    }
}

/// Whether a policy's ports of ingress have names, whose numbers each Pod says itself.
fn names_ports(policy: &NetworkPolicy) -> bool {
    let rules = policy.spec.iter().flat_map(|spec| spec.ingress.iter().flatten());
    let mut ports = rules.flat_map(|rule| rule.ports.iter().flatten());
    ports.any(|port| matches!(port.port, Some(IntOrString::String(_))))
}

/// What one policy lets a Pod take or make.
fn allows(
    policy: &NetworkPolicy,
    direction: Direction,
    pod: &Member<'_>,
    context: &PolicyContext<'_>,
    sets: &mut BTreeMap<String, BTreeSet<Ipv4Addr>>,
) -> Vec<AllowedTraffic> {
    type Rule<'a> = (Option<&'a Vec<NetworkPolicyPeer>>, Option<&'a Vec<NetworkPolicyPort>>);
    let Some(spec) = &policy.spec else { return Vec::new() };
    let rules: Vec<Rule<'_>> = match direction {
        Direction::Ingress => {
            spec.ingress.iter().flatten().map(|r| (r.from.as_ref(), r.ports.as_ref())).collect()
        }
        Direction::Egress => {
            spec.egress.iter().flatten().map(|r| (r.to.as_ref(), r.ports.as_ref())).collect()
        }
    };
    let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
    let mut all = Vec::new();
    for (peers, ports) in rules {
        let ports: Vec<Option<&NetworkPolicyPort>> = match ports {
            Some(ports) if !ports.is_empty() => ports.iter().map(Some).collect(),
            _ => vec![None],
        };
        for port in ports {
            match peers {
                Some(peers) if !peers.is_empty() => {
                    for peer in peers {
                        all.extend(allowed(peer, port, direction, namespace, pod, context, sets));
                    }
                }
                // To anybody, a port's name means nothing where one goes.
                _ => all.extend(
                    numbers(port, (direction == Direction::Ingress).then_some(pod.pod))
                        .map(|ports| AllowedTraffic { peers: Peers::All, ports }),
                ),
            }
        }
    }
    all
}

/// What one peer and one port of a rule let pass.
fn allowed(
    peer: &NetworkPolicyPeer,
    port: Option<&NetworkPolicyPort>,
    direction: Direction,
    namespace: &str,
    pod: &Member<'_>,
    context: &PolicyContext<'_>,
    sets: &mut BTreeMap<String, BTreeSet<Ipv4Addr>>,
) -> Vec<AllowedTraffic> {
    let own = (direction == Direction::Ingress).then_some(pod.pod);
    if let Some(block) = &peer.ip_block {
        let except = block.except.iter().flatten().filter_map(|text| parse_range(text)).collect();
        let range = parse_range(&block.cidr).map(|cidr| Peers::Range(cidr, except));
        let ports = numbers(port, own);
        return range.zip(ports).map(|(peers, ports)| AllowedTraffic { peers, ports }).into_iter().collect();
    }
    let is_peer = |of: &str, labels: &BTreeMap<String, String>| {
        let near = match &peer.namespace_selector {
            Some(selector) => context.namespaces.get(of).is_some_and(|l| matches(selector, l)),
            None => of == namespace,
        };
        near && peer.pod_selector.as_ref().is_none_or(|selector| matches(selector, labels))
    };
    // A port's name is what the Pod that is called means by it.
    let mut by_ports: BTreeMap<_, BTreeSet<Ipv4Addr>> = BTreeMap::new();
    if direction == Direction::Egress && is_peer(NAME_SERVER_NAMESPACE, &context.name_server_labels) {
        for ports in name_server_ports(port) {
            by_ports.entry(Some(ports)).or_default().insert(context.name_server.address);
        }
    }
    for member in context.pods.iter().filter(|member| is_peer(member.namespace, member.labels)) {
        if let Some(ports) = numbers(port, own.or(Some(member.pod))) {
            by_ports.entry(ports).or_default().insert(member.address);
        }
    }
    let set = |(ports, addresses): (_, BTreeSet<Ipv4Addr>)| {
        let name = named_after("p", &addresses);
        sets.insert(name.clone(), addresses);
        AllowedTraffic { peers: Peers::Set(name), ports }
    };
    by_ports.into_iter().map(set).collect()
}

/// Those of the name server's ports that a port of a rule means.
fn name_server_ports(port: Option<&NetworkPolicyPort>) -> Vec<(u8, Option<(u16, u16)>)> {
    let protocols = [("UDP", "dns"), ("TCP", "dns-tcp")];
    let means = |(protocol, name): &(&str, &str)| {
        let Some(port) = port else { return true };
        let first = match &port.port {
            None => return port.protocol.as_deref().unwrap_or("TCP") == *protocol,
            Some(IntOrString::Int(first)) => *first,
            Some(IntOrString::String(given)) if given == name => i32::from(NAME_SERVER_PORT),
            Some(IntOrString::String(_)) => return false,
        };
        let range = first..=port.end_port.unwrap_or(first);
        port.protocol.as_deref().unwrap_or("TCP") == *protocol && range.contains(&i32::from(NAME_SERVER_PORT))
    };
    let number = |protocol: &str| if protocol == "UDP" { Protocol::Udp } else { Protocol::Tcp }.number();
    let meant = protocols.iter().filter(|protocol| means(protocol));
    meant.map(|(protocol, _)| (number(protocol), Some((NAME_SERVER_PORT, NAME_SERVER_PORT)))).collect()
}

type Numbers = Option<(u8, Option<(u16, u16)>)>;

/// A port of a rule in numbers; `None` where `called`, the Pod whose port it is, has none of that name.
fn numbers(port: Option<&NetworkPolicyPort>, called: Option<&Pod>) -> Option<Numbers> {
    let Some(port) = port else { return Some(None) };
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let number = match protocol {
        "TCP" => 6,
        "UDP" => 17,
        "SCTP" => 132,
        _ => return None,
    };
    let first = match &port.port {
        None => return Some(Some((number, None))),
        Some(IntOrString::Int(first)) => u16::try_from(*first).ok()?,
        Some(IntOrString::String(name)) => {
            let containers = called?.spec.iter().flat_map(|spec| &spec.containers);
            let mut ports = containers.flat_map(|c| c.ports.iter().flatten());
            let is_it = |p: &&k8s_openapi::api::core::v1::ContainerPort| {
                p.name.as_ref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol
            };
            u16::try_from(ports.find(is_it)?.container_port).ok()?
        }
    };
    let last = port.end_port.and_then(|last| u16::try_from(last).ok()).unwrap_or(first);
    Some(Some((number, Some((first, last)))))
}

fn named_after(kind: &str, content: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    format!("{kind}{:016x}", hasher.finish())
}

/// A Pod's address and what else of it policies look at: whether a change of it is one to look at again.
pub fn aspects(pod: &Pod) -> Option<(IpAddr, &BTreeMap<String, String>)> {
    member(pod).map(|member| (IpAddr::V4(member.address), member.labels))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    fn pods() -> Vec<Arc<Pod>> {
        let pod = |namespace: &str, app: &str, last: u8, spec: Value| {
            let object = json!({
                "metadata": {"namespace": namespace, "name": app, "labels": {"app": app}},
                "spec": spec, "status": {"podIP": format!("10.0.0.{last}"), "phase": "Running"},
            });
            Arc::new(serde_json::from_value(object).expect("a Pod"))
        };
        let port =
            |n: u16| json!({"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": n}]}]});
        vec![
            pod("shop", "web", 1, port(8080)),
            pod("shop", "db", 2, port(5432)),
            pod("shop", "web", 3, port(8080)),
            pod("ops", "probe", 4, port(9000)),
            pod("shop", "host", 9, json!({"hostNetwork": true, "containers": []})),
        ]
    }

    const NAME_SERVER: NameServer = NameServer { address: Ipv4Addr::new(10, 0, 0, 254) };

    fn check(specs: &[Value], expect: Expect) {
        let policy = |spec: &Value| {
            let object = json!({"metadata": {"namespace": "shop", "name": "p"}, "spec": spec});
            Arc::new(serde_json::from_value(object).expect("a NetworkPolicy"))
        };
        let namespace = |name: &str| {
            let object = json!({"metadata": {"name": name, "labels": {"name": name}}});
            Arc::new(serde_json::from_value(object).expect("a Namespace"))
        };
        let policies: Vec<_> = specs.iter().map(policy).collect();
        let namespaces = ["shop", "ops", "kube-system"].map(namespace);
        let isolation = isolate(&policies, &pods(), &namespaces, NAME_SERVER);
        let shown = |allowed: &AllowedTraffic| {
            let peers = match &allowed.peers {
                Peers::All => "all".to_owned(),
                Peers::Set(name) => format!("{:?}", isolation.sets[name]),
                Peers::Range(cidr, except) => {
                    let except: Vec<_> = except.iter().map(ToString::to_string).collect();
                    format!("{cidr} but {except:?}")
                }
            };
            format!("{peers} {:?}", allowed.ports)
        };
        let mut lines = Vec::new();
        for (direction, pods) in [("in", &isolation.ingress), ("out", &isolation.egress)] {
            for (address, chain) in pods {
                let mut all: Vec<_> = isolation.chains[chain].iter().map(shown).collect();
                all.sort();
                lines.push(format!("{direction} {address}: {}\n", all.join("; ")));
            }
        }
        expect.assert_eq(&lines.concat());
    }

    #[test]
    fn policies_say_who_may_talk_to_whom() {
        check(&[], expect![""]);
        let web = json!({"matchLabels": {"app": "web"}});
        let db = json!({"matchLabels": {"app": "db"}});
        // Nobody reaches anything in the namespace.
        check(
            &[json!({"podSelector": {}})],
            expect![[r#"
            in 10.0.0.1: 
            in 10.0.0.2: 
            in 10.0.0.3: 
        "#]],
        );
        // The database is there for the web only, by the name of its port; the other direction stays open.
        check(
            &[json!({"podSelector": db, "ingress": [
                {"from": [{"podSelector": web}], "ports": [{"port": "http"}, {"port": 53, "protocol": "UDP"}]}]})],
            expect![[r#"
                in 10.0.0.2: {10.0.0.1, 10.0.0.3} Some((17, Some((53, 53)))); {10.0.0.1, 10.0.0.3} Some((6, Some((5432, 5432))))
            "#]],
        );
        // Policies add up; another namespace, whole and in part; ranges; any port of a protocol.
        check(
            &[
                json!({"podSelector": db, "policyTypes": ["Ingress"], "ingress": [
                    {"from": [{"namespaceSelector": {"matchLabels": {"name": "ops"}}}]}]}),
                json!({"podSelector": db, "ingress": [
                    {"from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}},
                        {"namespaceSelector": {}, "podSelector": web}], "ports": [{"port": 1, "endPort": 9}, {"protocol": "TCP"}]}]}),
            ],
            expect![[r#"
                in 10.0.0.2: 192.0.2.0/24 but ["192.0.2.128/25"] Some((6, None)); 192.0.2.0/24 but ["192.0.2.128/25"] Some((6, Some((1, 9)))); {10.0.0.1, 10.0.0.3} Some((6, None)); {10.0.0.1, 10.0.0.3} Some((6, Some((1, 9)))); {10.0.0.4} None
            "#]],
        );
        // What goes out: a name means what the other side means by it.
        check(
            &[json!({"podSelector": web, "policyTypes": ["Egress"], "egress": [
                {"to": [{"podSelector": {}}, {"namespaceSelector": {}}], "ports": [{"port": "http"}]},
                {"ports": [{"port": 443}, {"port": "http"}]}]})],
            expect![[r#"
                out 10.0.0.1: all Some((6, Some((443, 443)))); {10.0.0.1, 10.0.0.3} Some((6, Some((8080, 8080)))); {10.0.0.2} Some((6, Some((5432, 5432)))); {10.0.0.4} Some((6, Some((9000, 9000))))
                out 10.0.0.3: all Some((6, Some((443, 443)))); {10.0.0.1, 10.0.0.3} Some((6, Some((8080, 8080)))); {10.0.0.2} Some((6, Some((5432, 5432)))); {10.0.0.4} Some((6, Some((9000, 9000))))
            "#]],
        );
        check(
            &[json!({"podSelector": db, "ingress": [{}], "policyTypes": ["Ingress", "Egress"]})],
            expect![[r#"
                in 10.0.0.2: all None
                out 10.0.0.2: 
            "#]],
        );
    }

    #[test]
    fn names_are_asked_where_a_rule_means_their_server() {
        let out = |rules: Value| json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Egress"], "egress": rules});
        let server = json!({"namespaceSelector": {"matchLabels": {"name": "kube-system"}},
            "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}});
        check(
            &[out(json!([{"to": [server], "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53}]}]))],
            expect![[r#"
                out 10.0.0.2: {10.0.0.254} Some((17, Some((53, 53)))); {10.0.0.254} Some((6, Some((53, 53))))
            "#]],
        );
        check(
            &[out(json!([{"to": [server], "ports": [{"port": "dns", "protocol": "UDP"}, {"port": 443}]}]))],
            expect![[r#"
                out 10.0.0.2: {10.0.0.254} Some((17, Some((53, 53))))
            "#]],
        );
        check(
            &[out(
                json!([{"to": [{"namespaceSelector": {}}], "ports": [{"port": 1, "endPort": 100, "protocol": "UDP"}]}]),
            )],
            expect![[r#"
                out 10.0.0.2: {10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4} Some((17, Some((1, 100)))); {10.0.0.254} Some((17, Some((53, 53))))
            "#]],
        );
        // Another namespace's Pods; only what comes in.
        check(
            &[out(json!([{"to": [{"podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}]}]))],
            expect![[r#"
                out 10.0.0.2: 
            "#]],
        );
    }

    #[test]
    fn what_the_router_passes_on_is_judged_by_its_sender() {
        let policy = json!({"metadata": {"namespace": "shop", "name": "p"}, "spec": {
            "podSelector": {"matchLabels": {"app": "db"}}, "ingress": [
                {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": "http"}]},
                {"from": [{"ipBlock": {"cidr": "10.0.1.0/24", "except": ["10.0.1.8/29"]}}]},
                {"from": [{"ipBlock": {"cidr": "10.0.2.0/24"}}], "ports": [{"protocol": "UDP"}]}]}});
        let policy = Arc::new(serde_json::from_value(policy).expect("a NetworkPolicy"));
        let isolation = isolate(&[policy], &pods(), &[], NAME_SERVER);
        let address = |text: &str| text.parse::<Ipv4Addr>().expect("an address");
        for (from, to, port, admitted) in [
            ("10.0.0.1", "10.0.0.2", 5432, true),
            ("10.0.0.1", "10.0.0.2", 80, false),
            ("10.0.0.4", "10.0.0.2", 5432, false),
            ("10.0.0.99", "10.0.0.2", 5432, false),
            ("10.0.0.2", "10.0.0.2", 80, true),
            ("10.0.1.1", "10.0.0.2", 80, true),
            ("10.0.1.9", "10.0.0.2", 80, false),
            ("10.0.2.1", "10.0.0.2", 80, false),
            ("10.0.0.4", "10.0.0.1", 80, true),
        ] {
            assert_eq!(
                isolation.admits(address(from), (address(to), port)),
                admitted,
                "{from} to {to}:{port}"
            );
        }
    }
}
