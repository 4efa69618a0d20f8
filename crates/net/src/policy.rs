//! NetworkPolicies: who may talk to whom. Pure: objects in, an [`Isolation`] out, which the packet filter applies.
//!
//! A Pod that no policy selects is open, and without any policy the packet filter has no rule for this. A Pod that one
//! selects takes (or makes) only those connections that some policy allows; answers to them always pass, and so does
//! what a Pod says to itself and what the node and its own programs say to a Pod: probes and the HTTP router. Names
//! are asked of the node, so they are never cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as ApiSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use yado_types::selector::LabelSelector;

use crate::slot::Cidr;

/// Which Pods take or make only some connections. Chains and sets are named after what is in them, so that the replicas
/// of a workload share them, and a change is another name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Isolation {
    /// Addresses of peers.
    pub sets: BTreeMap<String, BTreeSet<Ipv4Addr>>,
    /// What passes: any of these.
    pub chains: BTreeMap<String, Vec<Allowed>>,
    /// Pods that take only what their chain lets pass.
    pub ingress: BTreeMap<Ipv4Addr, String>,
    /// Pods that make only what their chain lets pass.
    pub egress: BTreeMap<Ipv4Addr, String>,
}

impl Isolation {
    /// Every Pod is open.
    pub fn is_empty(&self) -> bool {
        self.ingress.is_empty() && self.egress.is_empty()
    }
}

/// A connection that passes: from (or to) these peers, to these ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Allowed {
    /// The other side.
    pub peers: Peers,
    /// Protocol number, and with it the first and last port.
    pub ports: Option<(u8, Option<(u16, u16)>)>,
}

/// The other side of a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peers {
    /// Anybody.
    All,
    /// An address of this set.
    Set(String),
    /// An address of the first range, but of none of the others.
    Range(Cidr, Vec<Cidr>),
}

/// Which side of a connection a rule is about.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Ingress,
    Egress,
}

/// What policies are about.
struct Known<'a> {
    pods: Vec<Member<'a>>,
    namespaces: BTreeMap<&'a str, &'a BTreeMap<String, String>>,
}

/// A Pod with an address of its own.
struct Member<'a> {
    pod: &'a Pod,
    address: Ipv4Addr,
    namespace: &'a str,
    labels: &'a BTreeMap<String, String>,
}

/// What the policies ask for.
pub fn isolate(
    policies: &[Arc<NetworkPolicy>],
    pods: &[Arc<Pod>],
    namespaces: &[Arc<Namespace>],
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
    let known =
        Known { pods: pods.iter().filter_map(|pod| member(pod)).collect(), namespaces: named.collect() };
    for pod in &known.pods {
        let selecting: Vec<&NetworkPolicy> =
            policies.iter().map(AsRef::as_ref).filter(|policy| selects(policy, pod)).collect();
        for side in [Side::Ingress, Side::Egress] {
            let of_side: Vec<_> = selecting.iter().filter(|policy| restricts(policy, side)).collect();
            if of_side.is_empty() {
                continue;
            }
            let mut allowed: Vec<Allowed> = of_side
                .iter()
                .flat_map(|policy| allows(policy, side, pod, &known, &mut isolation.sets))
                .collect();
            allowed.sort();
            allowed.dedup();
            let name = named_after(if side == Side::Ingress { "i" } else { "o" }, &allowed);
            let pods = if side == Side::Ingress { &mut isolation.ingress } else { &mut isolation.egress };
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

/// Whether a policy says anything about a side: by its types, and where it names none, about what comes in, and about
/// what goes out if it has rules for that.
fn restricts(policy: &NetworkPolicy, side: Side) -> bool {
    let Some(spec) = &policy.spec else { return false };
    let name = if side == Side::Ingress { "Ingress" } else { "Egress" };
    match spec.policy_types.as_deref() {
        Some(types) if !types.is_empty() => types.iter().any(|t| t == name),
        _ => side == Side::Ingress || spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
    }
}

/// What one policy lets a Pod take or make.
fn allows(
    policy: &NetworkPolicy,
    side: Side,
    pod: &Member<'_>,
    known: &Known<'_>,
    sets: &mut BTreeMap<String, BTreeSet<Ipv4Addr>>,
) -> Vec<Allowed> {
    type Rule<'a> = (Option<&'a Vec<NetworkPolicyPeer>>, Option<&'a Vec<NetworkPolicyPort>>);
    let Some(spec) = &policy.spec else { return Vec::new() };
    let rules: Vec<Rule<'_>> = match side {
        Side::Ingress => spec.ingress.iter().flatten().map(|r| (r.from.as_ref(), r.ports.as_ref())).collect(),
        Side::Egress => spec.egress.iter().flatten().map(|r| (r.to.as_ref(), r.ports.as_ref())).collect(),
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
                        all.extend(allowed(peer, port, side, namespace, pod, known, sets));
                    }
                }
                // To anybody, a port's name means nothing where one goes.
                _ => all.extend(
                    numbers(port, (side == Side::Ingress).then_some(pod.pod))
                        .map(|ports| Allowed { peers: Peers::All, ports }),
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
    side: Side,
    namespace: &str,
    pod: &Member<'_>,
    known: &Known<'_>,
    sets: &mut BTreeMap<String, BTreeSet<Ipv4Addr>>,
) -> Vec<Allowed> {
    let own = (side == Side::Ingress).then_some(pod.pod);
    if let Some(block) = &peer.ip_block {
        let except = block.except.iter().flatten().filter_map(|text| text.parse().ok()).collect();
        let range = block.cidr.parse().ok().map(|cidr| Peers::Range(cidr, except));
        let ports = numbers(port, own);
        return range.zip(ports).map(|(peers, ports)| Allowed { peers, ports }).into_iter().collect();
    }
    let is_peer = |member: &&Member<'_>| {
        let near = match &peer.namespace_selector {
            Some(selector) => known.namespaces.get(member.namespace).is_some_and(|l| matches(selector, l)),
            None => member.namespace == namespace,
        };
        near && peer.pod_selector.as_ref().is_none_or(|selector| matches(selector, member.labels))
    };
    // A port's name is what the Pod that is called means by it.
    let mut by_ports: BTreeMap<_, BTreeSet<Ipv4Addr>> = BTreeMap::new();
    for member in known.pods.iter().filter(is_peer) {
        if let Some(ports) = numbers(port, own.or(Some(member.pod))) {
            by_ports.entry(ports).or_default().insert(member.address);
        }
    }
    let set = |(ports, addresses): (_, BTreeSet<Ipv4Addr>)| {
        let name = named_after("p", &addresses);
        sets.insert(name.clone(), addresses);
        Allowed { peers: Peers::Set(name), ports }
    };
    by_ports.into_iter().map(set).collect()
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
        let isolation = isolate(&policies, &pods(), &[namespace("shop"), namespace("ops")]);
        let shown = |allowed: &Allowed| {
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
        for (side, pods) in [("in", &isolation.ingress), ("out", &isolation.egress)] {
            for (address, chain) in pods {
                let mut all: Vec<_> = isolation.chains[chain].iter().map(shown).collect();
                all.sort();
                lines.push(format!("{side} {address}: {}\n", all.join("; ")));
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
}
