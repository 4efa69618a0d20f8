//! Resolution of the cluster's names. Pure.
//!
//! | name | resolves to |
//! |---|---|
//! | `SERVICE.NAMESPACE.svc.DOMAIN` | the Service's address, or its endpoints where it is headless |
//! | `HOST.SERVICE.NAMESPACE.svc.DOMAIN` | one endpoint of a headless Service |
//! | `_PORT._PROTOCOL.SERVICE.NAMESPACE.svc.DOMAIN` | SRV: port and host |
//! | `10-0-0-1.NAMESPACE.pod.DOMAIN` | that address |
//! | `DOMAIN` | SOA and NS: who has its records, `ns.dns.DOMAIN` |
//! | `dns-version.DOMAIN` | TXT: the version of Kubernetes' DNS specification that this follows |
//! | `SERVICE.service.consul` | the Service in the asker's namespace, else in `default`, else the only one of that name |
//! | `PORT.SERVICE.service.consul` | the same, and as SRV only its port of that name, as Consul does by tag |
//! | `host.docker.internal` and its like | the node |
//!
//! A Service has further names (`yado.dev/aliases`), which may hold underscores and dots; they stand wherever SERVICE
//! does. All names are in lower case here: letters differ in nothing else.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::Ipv4Net;
use yado_types::key::ObjectKey;

use super::message::{Answer, Code, Data, Name, Query, Record, name_server, record_type};
use crate::index::{Endpoint, Protocol, ServiceEntry, Snapshot};

/// `ExternalName` Services that lead from one to the next: more is a circle.
const CHAIN: usize = 8;
/// Endpoints change, so nothing is remembered for long.
const TTL: u32 = 5;

/// The version of the DNS specification of Kubernetes.
const SPECIFICATION: &str = "1.1.0";

/// The zone of a cluster.
pub struct Zone {
    /// The cluster's domain, such as `cluster.local`.
    pub domain: Name,
    /// Ranges whose reverse names (`in-addr.arpa`) belong to the zone.
    pub ranges: Vec<Ipv4Net>,
    /// The node's address as its Pods reach it.
    pub host: Ipv4Addr,
}

/// Names that programs written for other container engines call their machine by.
const HOST: [&str; 3] = ["host.docker.internal", "gateway.docker.internal", "host.containers.internal"];

/// How a query is answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// With this response.
    Answer(Answer),
    /// With this response and the addresses of a name outside the zone, which an alias refers to.
    Follow(Answer, Name),
    /// By an upstream resolver: the name is outside the zone.
    Forward,
}

/// What a name of the zone refers to.
enum Lookup<'a> {
    Service(&'a ObjectKey, &'a ServiceEntry),
    Endpoint(Ipv4Addr),
    Port(&'a ObjectKey, &'a ServiceEntry, usize),
    /// A Service of which only one port is asked for.
    Tagged(&'a ObjectKey, &'a ServiceEntry, usize),
    Address(Ipv4Addr),
    /// The name of the whole zone.
    Apex,
    Text(&'static str),
    /// A name above others, without records of its own.
    Branch,
    Nothing,
}

impl Zone {
    /// Decides on a query from a Pod of `namespace`, where that is known.
    pub fn decide(&self, snapshot: &Snapshot, query: &Query, namespace: Option<&str>) -> Decision {
        let mut decision = self.look_up(snapshot, query, namespace);
        let mut chain = Vec::new();
        // A name of ours that leads to another one of ours is answered whole.
        while let Decision::Follow(answer, target) = decision {
            chain.extend(answer.answers);
            let mut next = query.clone();
            next.name.clone_from(&target);
            decision = match self.look_up(snapshot, &next, namespace) {
                Decision::Forward => return Decision::Follow(Answer::of(Code::NoError, chain), target),
                _ if chain.len() == CHAIN => Decision::Answer(Answer::of(Code::ServerFailure, Vec::new())),
                Decision::Answer(found) => {
                    chain.extend(found.answers);
                    return Decision::Answer(Answer { answers: chain, ..found });
                }
                follow => follow,
            };
        }
        decision
    }

    fn look_up(&self, snapshot: &Snapshot, query: &Query, namespace: Option<&str>) -> Decision {
        let labels: Vec<&str> = query.name.iter().map(String::as_str).collect();
        let domain: Vec<&str> = self.domain.iter().map(String::as_str).collect();
        if let Some(own) = labels.strip_suffix(&domain[..]) {
            let found = match own {
                [] => Lookup::Apex,
                ["dns-version"] => Lookup::Text(SPECIFICATION),
                ["ns", "dns"] => Lookup::Address(self.host),
                ["dns"] => Lookup::Branch,
                own => cluster_name(snapshot, own),
            };
            return self.answer(query, &self.domain, found);
        }
        if let [own @ .., "consul"] = &labels[..] {
            return self.answer(query, &["consul".to_owned()].into(), consul_name(snapshot, own, namespace));
        }
        if HOST.contains(&labels.join(".").as_str()) {
            return self.answer(query, &["internal".to_owned()].into(), Lookup::Address(self.host));
        }
        if let [d, c, b, a, "in-addr", "arpa"] = labels[..] {
            let address: Option<Ipv4Addr> = format!("{a}.{b}.{c}.{d}").parse().ok();
            if let Some(address) = address.filter(|a| self.ranges.iter().any(|r| r.contains(a))) {
                return Decision::Answer(self.reverse(snapshot, query, address));
            }
        }
        Decision::Forward
    }

    fn answer(&self, query: &Query, zone: &Name, found: Lookup<'_>) -> Decision {
        let mut answer = Answer::of(Code::NoError, Vec::new());
        let record = |data| Record { name: query.name.clone(), ttl: TTL, data };
        let wants = |kind| query.kind == kind || query.kind == record_type::ANY;
        let tagged = matches!(found, Lookup::Tagged(..));
        match found {
            Lookup::Service(_, ServiceEntry { external_name: Some(target), .. }) => {
                let target: Name =
                    target.trim_end_matches('.').split('.').map(str::to_ascii_lowercase).collect();
                answer.answers.push(record(Data::Cname(target.clone())));
                if query.kind != record_type::CNAME {
                    return Decision::Follow(answer, target);
                }
            }
            Lookup::Service(key, service) => {
                if wants(record_type::A) {
                    answer.answers.extend(addresses(service).into_iter().map(Data::A).map(record));
                }
                if wants(record_type::SRV) {
                    (0..service.ports.len()).for_each(|i| self.add_srv(&mut answer, query, key, service, i));
                }
            }
            Lookup::Port(key, service, index) | Lookup::Tagged(key, service, index) => {
                if tagged && wants(record_type::A) {
                    answer.answers.extend(addresses(service).into_iter().map(Data::A).map(record));
                }
                if wants(record_type::SRV) {
                    self.add_srv(&mut answer, query, key, service, index);
                }
            }
            Lookup::Endpoint(address) | Lookup::Address(address) => {
                if wants(record_type::A) {
                    answer.answers.push(record(Data::A(address)));
                }
            }
            Lookup::Apex => {
                if wants(record_type::SOA) {
                    answer.answers.push(record(Data::Soa { zone: zone.clone() }));
                }
                if wants(record_type::NS) {
                    let server = name_server(zone);
                    answer.answers.push(record(Data::Ns(server.clone())));
                    answer.additional.push(Record { name: server, ttl: TTL, data: Data::A(self.host) });
                }
            }
            Lookup::Text(text) => {
                if wants(record_type::TXT) {
                    answer.answers.push(record(Data::Txt(text.to_owned())));
                }
            }
            Lookup::Branch => {}
            Lookup::Nothing => answer.code = Code::NoSuchName,
        }
        if answer.answers.is_empty() {
            answer.authority.push(Record {
                name: zone.clone(),
                ttl: TTL,
                data: Data::Soa { zone: zone.clone() },
            });
        }
        Decision::Answer(answer)
    }

    /// SRV records of a port, with the addresses of their targets.
    fn add_srv(
        &self,
        answer: &mut Answer,
        query: &Query,
        key: &ObjectKey,
        service: &ServiceEntry,
        index: usize,
    ) {
        let port = &service.ports[index];
        let mut add = |port: u16, target: Name, address: Ipv4Addr| {
            let data = Data::Srv { port, target: target.clone() };
            answer.answers.push(Record { name: query.name.clone(), ttl: TTL, data });
            answer.additional.push(Record { name: target, ttl: TTL, data: Data::A(address) });
        };
        if service.headless {
            for endpoint in port.endpoints.iter() {
                if let IpAddr::V4(address) = endpoint.address {
                    let host = host_label(endpoint);
                    add(endpoint.port, [&[host][..], &self.service_name(key)].concat(), address);
                }
            }
        } else if let Some(address) = addresses(service).first() {
            add(port.port, self.service_name(key), *address);
        }
    }

    fn service_name(&self, key: &ObjectKey) -> Name {
        let own = [key.name.clone(), key.namespace.clone(), "svc".to_owned()];
        [&own[..], &self.domain].concat()
    }

    fn reverse(&self, snapshot: &Snapshot, query: &Query, address: Ipv4Addr) -> Answer {
        let ip = IpAddr::V4(address);
        let name = snapshot.services.iter().find_map(|(key, service)| {
            if service.cluster_ips.contains(&ip) {
                return Some(self.service_name(key));
            }
            let endpoint = endpoints(service).find(|e| service.headless && e.address == ip)?;
            Some([&[host_label(endpoint)][..], &self.service_name(key)].concat())
        });
        let record = |name| Record { name: query.name.clone(), ttl: TTL, data: Data::Ptr(name) };
        let code = if name.is_some() { Code::NoError } else { Code::NoSuchName };
        Answer::of(code, name.into_iter().filter(|_| query.kind == record_type::PTR).map(record).collect())
    }
}

/// `own` is what stands before the cluster's domain.
fn cluster_name<'a>(snapshot: &'a Snapshot, own: &[&str]) -> Lookup<'a> {
    match own {
        ["svc" | "pod"] => Lookup::Branch,
        [address, _namespace, "pod"] => match address.replace('-', ".").parse() {
            Ok(address) => Lookup::Address(address),
            Err(_) => Lookup::Nothing,
        },
        [_, "pod"] => Lookup::Branch,
        [namespace, "svc"] => match snapshot.services.keys().any(|key| key.namespace == *namespace) {
            true => Lookup::Branch,
            false => Lookup::Nothing,
        },
        [inner @ .., namespace, "svc"] => named(snapshot, namespace, inner),
        _ => Lookup::Nothing,
    }
}

/// What `labels` mean in a namespace: a Service or something within it. Of the names that they may end in, the
/// shortest is a Service's own, and every other an alias with dots.
fn named<'a>(snapshot: &'a Snapshot, namespace: &str, labels: &[&str]) -> Lookup<'a> {
    for at in (0..labels.len()).rev() {
        if let Some((key, service)) = service(snapshot, namespace, &labels[at..].join(".")) {
            return within_service(key, service, &labels[..at]);
        }
        if snapshot.aliases.is_empty() {
            break;
        }
    }
    Lookup::Nothing
}

/// The Service of this name or alias.
fn service<'a>(
    snapshot: &'a Snapshot,
    namespace: &str,
    name: &str,
) -> Option<(&'a ObjectKey, &'a Arc<ServiceEntry>)> {
    let key = ObjectKey::new(namespace, name);
    let own = snapshot.services.get_key_value(&key);
    own.or_else(|| snapshot.services.get_key_value(snapshot.aliases.get(&key)?))
}

/// Consul's own form `_NAME._PROTOCOL.service.consul` and a datacenter before `consul` are understood too.
fn consul_name<'a>(snapshot: &'a Snapshot, own: &[&str], namespace: Option<&str>) -> Lookup<'a> {
    let name = match own {
        [name @ .., "service"] | [name @ .., "service", _] => name,
        [] => return Lookup::Branch,
        _ => return Lookup::Nothing,
    };
    let found = match name {
        [] => return Lookup::Branch,
        // A name may begin with an underscore, too, but hardly twice.
        [name, tag] if name.starts_with('_') && tag.starts_with('_') => {
            (anywhere(snapshot, &name[1..], namespace), Some(&tag[1..]))
        }
        [tag, rest @ ..] => match anywhere(snapshot, &name.join("."), namespace) {
            None if !rest.is_empty() => (anywhere(snapshot, &rest.join("."), namespace), Some(*tag)),
            found => (found, None),
        },
    };
    let (Some((key, service)), tag) = found else { return Lookup::Nothing };
    match tag {
        // Of Consul's two readings of the second label, a protocol leaves all ports.
        None | Some("tcp" | "udp") => Lookup::Service(key, service),
        Some(tag) => {
            let port = service.ports.iter().position(|port| port.name == tag);
            port.map_or(Lookup::Nothing, |index| Lookup::Tagged(key, service, index))
        }
    }
}

/// The Service of this name in the asker's namespace, else in `default`, else the only one of that name.
fn anywhere<'a>(
    snapshot: &'a Snapshot,
    name: &str,
    namespace: Option<&str>,
) -> Option<(&'a ObjectKey, &'a Arc<ServiceEntry>)> {
    let near = namespace.and_then(|near| service(snapshot, near, name));
    near.or_else(|| service(snapshot, "default", name)).or_else(|| {
        let own = snapshot.services.keys().filter(|key| key.name == name);
        let aliased = snapshot.aliases.iter().filter(|(alias, _)| alias.name == name).map(|(_, key)| key);
        let mut all = own.chain(aliased);
        let only = all.next().filter(|first| all.all(|other| other == *first))?;
        snapshot.services.get_key_value(only)
    })
}

fn within_service<'a>(key: &'a ObjectKey, service: &'a Arc<ServiceEntry>, inner: &[&str]) -> Lookup<'a> {
    match inner {
        [] => Lookup::Service(key, service),
        [port, protocol] => {
            let (Some(port), Some(protocol)) = (port.strip_prefix('_'), protocol.strip_prefix('_')) else {
                return Lookup::Nothing;
            };
            let protocol = match protocol {
                "tcp" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                _ => return Lookup::Nothing,
            };
            let index = service.ports.iter().position(|p| p.name == port && p.protocol == protocol);
            index.map_or(Lookup::Nothing, |i| Lookup::Port(key, service, i))
        }
        [host] if service.headless => {
            let address =
                endpoints(service).filter(|e| host_label(e) == **host).find_map(|e| match e.address {
                    IpAddr::V4(address) => Some(address),
                    IpAddr::V6(_) => None,
                });
            address.map_or(Lookup::Nothing, Lookup::Endpoint)
        }
        _ => Lookup::Nothing,
    }
}

/// A Service's addresses; those of its endpoints where it is headless.
fn addresses(service: &ServiceEntry) -> Vec<Ipv4Addr> {
    let v4 = |address: &IpAddr| if let IpAddr::V4(a) = address { Some(*a) } else { None };
    if !service.headless {
        return service.cluster_ips.iter().filter_map(v4).collect();
    }
    let mut all: Vec<_> = endpoints(service).filter_map(|e| v4(&e.address)).collect();
    all.sort();
    all.dedup();
    all
}

/// The endpoints of a headless Service, whether it names ports or not.
fn endpoints(service: &ServiceEntry) -> impl Iterator<Item = &Endpoint> {
    service.ports.iter().flat_map(|p| p.endpoints.iter()).chain(service.portless.iter())
}

/// The label of one endpoint: its host name, or its address with dashes.
fn host_label(endpoint: &Endpoint) -> String {
    endpoint.hostname.clone().unwrap_or_else(|| endpoint.address.to_string().replace(['.', ':'], "-"))
}

#[cfg(test)]
mod tests {
    use super::super::message::{parse, query};
    use super::*;
    use crate::index::PortEntry;

    fn snapshot() -> Snapshot {
        let endpoint = |last, hostname: Option<&str>| Endpoint {
            address: Ipv4Addr::new(10, 192, 0, last).into(),
            port: 6379,
            hostname: hostname.map(str::to_owned),
        };
        let port = |endpoints: Vec<Endpoint>| PortEntry {
            name: "redis".into(),
            protocol: Protocol::Tcp,
            port: 6379,
            node_port: None,
            endpoints: endpoints.into(),
        };
        let plain = ServiceEntry {
            cluster_ips: vec![Ipv4Addr::new(10, 96, 0, 5).into()],
            ports: vec![port(vec![endpoint(9, None)])],
            ..Default::default()
        };
        let headless = ServiceEntry {
            headless: true,
            ports: vec![port(vec![endpoint(2, None), endpoint(3, Some("db-0"))])],
            ..Default::default()
        };
        let aliased = ServiceEntry {
            cluster_ips: vec![Ipv4Addr::new(10, 96, 0, 7).into()],
            aliases: vec!["my_db".into(), "my.app".into()],
            ..plain.clone()
        };
        let portless = ServiceEntry {
            headless: true,
            portless: vec![endpoint(21, None), endpoint(22, Some("w-0"))].into(),
            aliases: vec!["any_port".into()],
            ..Default::default()
        };
        let external = ServiceEntry { external_name: Some("db.example.com".into()), ..Default::default() };
        let to = |name: &str| ServiceEntry { external_name: Some(name.into()), ..Default::default() };
        let services = [
            ("web", "shop", plain.clone()),
            ("db", "shop", headless),
            ("my-db", "shop", aliased),
            ("any-port", "shop", portless),
            ("out", "shop", external),
            ("near", "shop", to("web.shop.svc.Cluster.local.")),
            ("farther", "shop", to("near.shop.svc.cluster.local")),
            ("outward", "shop", to("out.shop.svc.cluster.local")),
            ("nowhere", "shop", to("gone.shop.svc.cluster.local")),
            ("circle", "shop", to("circle.shop.svc.cluster.local")),
        ];
        let more = [("web", "default", ServiceEntry { cluster_ips: vec![], ..plain })];
        let all = services.into_iter().chain(more);
        let services: std::collections::BTreeMap<_, _> =
            all.map(|(n, ns, s)| (ObjectKey::new(ns, n), Arc::new(s))).collect();
        Snapshot { aliases: crate::routing::aliases(&services), services, ..Default::default() }
    }

    fn check(name: &str, kind: u16, namespace: Option<&str>, expect: &str) {
        let zone = Zone {
            domain: vec!["cluster".into(), "local".into()],
            ranges: vec![Ipv4Net::new_assert(Ipv4Addr::new(10, 192, 0, 0), 16)],
            host: Ipv4Addr::new(10, 192, 0, 1),
        };
        let labels = name.split('.').map(str::to_owned).collect();
        let query = parse(&query(1, &labels, kind)).expect("a query");
        let text = match zone.decide(&snapshot(), &query, namespace) {
            Decision::Forward => "forward".to_owned(),
            Decision::Follow(answer, target) => {
                format!("follow {} {}", answer.answers.len(), target.join("."))
            }
            Decision::Answer(answer) => {
                let data = answer.answers.iter().map(|r| match &r.data {
                    Data::A(a) => a.to_string(),
                    Data::Srv { port, target } => format!("{port} {}", target.join(".")),
                    Data::Ptr(name) | Data::Ns(name) => name.join("."),
                    Data::Txt(text) => text.clone(),
                    Data::Soa { zone } => format!("SOA {}", zone.join(".")),
                    Data::Cname(name) => format!("-> {}", name.join(".")),
                    other => format!("{other:?}"),
                });
                format!("{:?} {}", answer.code, data.collect::<Vec<_>>().join(", ")).trim().to_owned()
            }
        };
        assert_eq!(text, expect, "{name}");
    }

    #[test]
    fn names_stand_for_what_the_table_says() {
        use record_type::{A, AAAA, ANY, CNAME, NS, PTR, SOA, SRV, TXT};
        for (name, kind, expect) in [
            ("web.shop.svc.cluster.local", A, "NoError 10.96.0.5"),
            ("web.shop.svc.cluster.local", AAAA, "NoError"),
            ("WEB.shop.svc.cluster.local", A, "NoError 10.96.0.5"),
            ("gone.shop.svc.cluster.local", A, "NoSuchName"),
            ("web.shop.svc.cluster.local.shop.svc.cluster.local", A, "NoSuchName"),
            ("shop.svc.cluster.local", A, "NoError"),
            ("db.shop.svc.cluster.local", A, "NoError 10.192.0.2, 10.192.0.3"),
            ("db-0.db.shop.svc.cluster.local", A, "NoError 10.192.0.3"),
            ("10-192-0-2.db.shop.svc.cluster.local", A, "NoError 10.192.0.2"),
            ("db-9.db.shop.svc.cluster.local", A, "NoSuchName"),
            ("_redis._tcp.web.shop.svc.cluster.local", SRV, "NoError 6379 web.shop.svc.cluster.local"),
            (
                "_redis._tcp.db.shop.svc.cluster.local",
                SRV,
                "NoError 6379 10-192-0-2.db.shop.svc.cluster.local, 6379 db-0.db.shop.svc.cluster.local",
            ),
            ("_redis._udp.web.shop.svc.cluster.local", SRV, "NoSuchName"),
            ("out.shop.svc.cluster.local", A, "follow 1 db.example.com"),
            ("out.shop.svc.cluster.local", CNAME, "NoError -> db.example.com"),
            ("outward.shop.svc.cluster.local", A, "follow 2 db.example.com"),
            ("near.shop.svc.cluster.local", A, "NoError -> web.shop.svc.cluster.local, 10.96.0.5"),
            ("near.shop.svc.cluster.local", AAAA, "NoError -> web.shop.svc.cluster.local"),
            (
                "farther.shop.svc.cluster.local",
                A,
                "NoError -> near.shop.svc.cluster.local, -> web.shop.svc.cluster.local, 10.96.0.5",
            ),
            ("nowhere.shop.svc.cluster.local", A, "NoSuchName -> gone.shop.svc.cluster.local"),
            ("circle.shop.svc.cluster.local", A, "ServerFailure"),
            ("10-192-0-7.shop.pod.cluster.local", A, "NoError 10.192.0.7"),
            ("3.0.192.10.in-addr.arpa", PTR, "NoError db-0.db.shop.svc.cluster.local"),
            ("4.0.192.10.in-addr.arpa", PTR, "NoSuchName"),
            ("8.8.8.8.in-addr.arpa", PTR, "forward"),
            ("example.com", A, "forward"),
            ("cluster.local", SOA, "NoError SOA cluster.local"),
            ("cluster.local", NS, "NoError ns.dns.cluster.local"),
            ("cluster.local", ANY, "NoError SOA cluster.local, ns.dns.cluster.local"),
            ("cluster.local", A, "NoError"),
            ("ns.dns.cluster.local", A, "NoError 10.192.0.1"),
            ("dns.cluster.local", A, "NoError"),
            ("dns-version.cluster.local", TXT, "NoError 1.1.0"),
            ("dns-version.cluster.local", A, "NoError"),
            ("svc.cluster.local", SOA, "NoError"),
            // Names that are no DNS labels stand wherever the Service's own does.
            ("my_db.shop.svc.cluster.local", A, "NoError 10.96.0.7"),
            ("My_DB.shop.svc.cluster.local", AAAA, "NoError"),
            ("My.App.shop.svc.cluster.local", A, "NoError 10.96.0.7"),
            ("app.shop.svc.cluster.local", A, "NoSuchName"),
            ("my_db.default.svc.cluster.local", A, "NoSuchName"),
            ("_redis._tcp.my_db.shop.svc.cluster.local", SRV, "NoError 6379 my-db.shop.svc.cluster.local"),
            ("_redis._tcp.my.app.shop.svc.cluster.local", SRV, "NoError 6379 my-db.shop.svc.cluster.local"),
            // Without ports a name stands for the Pods.
            ("any-port.shop.svc.cluster.local", A, "NoError 10.192.0.21, 10.192.0.22"),
            ("any_port.shop.svc.cluster.local", A, "NoError 10.192.0.21, 10.192.0.22"),
            ("w-0.any-port.shop.svc.cluster.local", A, "NoError 10.192.0.22"),
            ("any-port.shop.svc.cluster.local", SRV, "NoError"),
            ("22.0.192.10.in-addr.arpa", PTR, "NoError w-0.any-port.shop.svc.cluster.local"),
            ("host.docker.internal", A, "NoError 10.192.0.1"),
            ("docker.internal", A, "forward"),
        ] {
            check(name, kind, None, expect);
        }
    }

    #[test]
    fn consul_names_look_near_the_asker_first() {
        use record_type::{A, SRV};
        check("web.service.consul", A, Some("shop"), "NoError 10.96.0.5");
        check("web.service.consul", A, None, "NoError");
        check("web.service.dc1.consul", A, Some("shop"), "NoError 10.96.0.5");
        check("db.service.consul", A, Some("other"), "NoError 10.192.0.2, 10.192.0.3");
        check("web.service.consul", SRV, Some("shop"), "NoError 6379 web.shop.svc.cluster.local");
        check("none.service.consul", A, None, "NoSuchName");
        check("my_db.service.consul", A, Some("other"), "NoError 10.96.0.7");
        check("my.app.service.dc1.consul", A, Some("shop"), "NoError 10.96.0.7");
        check("my_db.service.consul", SRV, Some("shop"), "NoError 6379 my-db.shop.svc.cluster.local");
        check("any_port.service.consul", A, None, "NoError 10.192.0.21, 10.192.0.22");
        check("redis.web.service.consul", A, Some("shop"), "NoError 10.96.0.5");
        check("redis.web.service.consul", SRV, Some("shop"), "NoError 6379 web.shop.svc.cluster.local");
        check("none.web.service.consul", SRV, Some("shop"), "NoSuchName");
        check("_web._tcp.service.consul", SRV, Some("shop"), "NoError 6379 web.shop.svc.cluster.local");
        check("_web._redis.service.consul", SRV, Some("shop"), "NoError 6379 web.shop.svc.cluster.local");
        check("out.service.consul", A, Some("shop"), "follow 1 db.example.com");
        check("consul", A, None, "NoError");
    }
}
