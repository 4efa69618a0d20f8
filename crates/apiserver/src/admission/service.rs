//! Addresses and node ports of Services.
//!
//! What a Service holds is a key of its own in the store, written and deleted in the very transaction that writes the
//! Service, and compared with absence there. So nothing is held twice or leaks, whoever writes at the same time and
//! whenever the process dies; what is free is read off the Services themselves.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use ipnet::Ipv4Net;
use rand::Rng;
use serde_json::{Value, json};
use yado_types::labels::LOAD_BALANCER_SOURCE_RANGES;

use crate::object::meta;
use crate::resource::Resource;
use crate::server::Inner;
use crate::status::{Failure, Result};

const ADDRESSES: &str = "/registry/addresses/";
const NODE_PORTS: &str = "/registry/nodeports/";
/// The low addresses of the range are left to Services that name theirs, as in Kubernetes.
const MAX_RESERVED: u32 = 256;

/// Prefix lengths that a range of Service addresses may have: a range has to contain addresses that can be allocated.
pub(crate) const PREFIX_LENGTHS: RangeInclusive<u8> = 8..=30;

/// The address at this offset in a range.
pub(crate) fn nth_address(range: Ipv4Net, offset: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(range.network().to_bits() + offset)
}

/// Whether an address of the range can be allocated: the first and the last one cannot.
fn is_allocatable(range: Ipv4Net, address: Ipv4Addr) -> bool {
    range.contains(&address) && address != range.network() && address != range.broadcast()
}

/// Keys of what a Service holds.
pub(crate) fn holdings(service: &Value) -> BTreeSet<String> {
    let spec = &service["spec"];
    let addresses = spec["clusterIPs"].as_array().into_iter().flatten().chain([&spec["clusterIP"]]);
    let addresses = addresses.filter_map(Value::as_str).filter(|a| !a.is_empty() && *a != "None");
    let ports = spec["ports"].as_array().into_iter().flatten().map(|p| &p["nodePort"]);
    let ports = ports.chain([&spec["healthCheckNodePort"]]).filter_map(Value::as_u64).filter(|p| *p != 0);
    addresses.map(|a| format!("{ADDRESSES}{a}")).chain(ports.map(|p| format!("{NODE_PORTS}{p}"))).collect()
}

/// An update that does not speak of addresses and node ports keeps them; one that makes a Service of a type without
/// them gives them up.
pub(super) fn keep_held(new: &mut Value, old: &Value) {
    let (old_spec, kind) = (&old["spec"], type_of(new).to_owned());
    let spec = &mut new["spec"];
    if !spec.is_object() {
        return;
    }
    if kind == "ExternalName" {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if spec[field] == old_spec[field] {
                _ = spec.as_object_mut().map(|s| s.shift_remove(field));
            }
        }
    } else if spec["clusterIP"].as_str().unwrap_or_default().is_empty() && old_spec["clusterIP"].is_string() {
        spec["clusterIP"] = old_spec["clusterIP"].clone();
        spec["clusterIPs"] = old_spec["clusterIPs"].clone();
    }
    let empty = Vec::new();
    let old_ports = old_spec["ports"].as_array().unwrap_or(&empty);
    let wants = has_node_ports(&kind) && spec["allocateLoadBalancerNodePorts"] != false;
    // Not by an index, which would make a field of null where there is none.
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let protocol = |p: &Value| p["protocol"].as_str().unwrap_or("TCP").to_owned();
        let same = old_ports.iter().find(|o| o["port"] == port["port"] && protocol(o) == protocol(port));
        let held = same.and_then(|o| o["nodePort"].as_u64()).filter(|p| *p != 0);
        let given = port["nodePort"].as_u64().filter(|p| *p != 0);
        match (wants, given, held) {
            (true, None, Some(held)) => port["nodePort"] = held.into(),
            // One that only stops to be given ports by itself keeps those that it names.
            (false, Some(given), Some(held)) if given == held && !has_node_ports(&kind) => {
                _ = port.as_object_mut().map(|p| p.shift_remove("nodePort"));
            }
            _ => {}
        }
    }
}

/// Domains of annotations by which load balancers of clouds and add-ons are told what to do.
const BALANCER_DOMAINS: [&str; 12] = [
    "cloud.google.com/",
    "dns.alpha.kubernetes.io/",
    "external-dns.alpha.kubernetes.io/",
    "kube-vip.io/",
    "load-balancer.hetzner.cloud/",
    "loadbalancer.openstack.org/",
    "metallb.io/",
    "metallb.universe.tf/",
    "networking.gke.io/",
    "oci.oraclecloud.com/",
    "service.alpha.kubernetes.io/",
    "service.beta.kubernetes.io/",
];

/// A warning for each annotation that asks a load balancer for something that this cluster's does not do. The ranges
/// that may use it are followed.
pub(super) fn unfollowed_annotations(service: &Value) -> Vec<String> {
    let annotations = service["metadata"]["annotations"].as_object().into_iter().flatten();
    let unfollowed = annotations.map(|(key, _)| key).filter(|key| {
        let of_balancer = BALANCER_DOMAINS.iter().any(|domain| key.starts_with(domain))
            || (key.starts_with("service.kubernetes.io/") && key.contains("load-balancer"))
            || key.starts_with("service.kubernetes.io/loadbalance");
        of_balancer && *key != LOAD_BALANCER_SOURCE_RANGES
    });
    unfollowed
        .map(|key| format!("metadata.annotations[{key}]: this cluster's load balancer does not act on it"))
        .collect()
}

fn type_of(service: &Value) -> &str {
    service["spec"]["type"].as_str().filter(|t| !t.is_empty()).unwrap_or("ClusterIP")
}

fn has_node_ports(kind: &str) -> bool {
    matches!(kind, "NodePort" | "LoadBalancer")
}

/// Gives a Service what it needs and does not have; refuses what it asks for and others hold.
pub(super) fn allocate(
    server: &Inner,
    resource: &Resource,
    service: &mut Value,
    old: Option<&Value>,
) -> Result<()> {
    let kind = type_of(service).to_owned();
    if kind == "ExternalName" || !service["spec"].is_object() {
        return Ok(());
    }
    let mut held = Held { mine: old.map(holdings).unwrap_or_default(), taken: BTreeSet::new() };
    for other in server.collection(resource)?.list("", None, 0, |_| true).objects {
        held.taken.extend(other.derive(holdings));
    }
    let name = meta(service, "name").to_owned();
    let refuse = |Refused { field, message }: Refused| {
        if field.is_empty() {
            return Failure::internal(message);
        }
        Failure::invalid("", "Service", &name, [(field, "FieldValueInvalid".to_owned(), message)])
    };
    let spec = &mut service["spec"];
    let given = spec["clusterIP"].as_str().or(spec["clusterIPs"][0].as_str()).unwrap_or_default().to_owned();
    let address = held.address(server.config.service_cidr, given).map_err(refuse)?;
    spec["clusterIPs"] = json!([address]);
    spec["clusterIP"] = address.into();
    for (field, value) in [("ipFamilies", json!(["IPv4"])), ("ipFamilyPolicy", json!("SingleStack"))] {
        if spec[field].as_array().map_or(spec[field].is_null(), Vec::is_empty) {
            spec[field] = value;
        }
    }
    if !has_node_ports(&kind) {
        return Ok(());
    }
    let only_named = kind == "LoadBalancer" && spec["allocateLoadBalancerNodePorts"] == false;
    let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
    for (i, port) in ports.into_iter().flatten().enumerate() {
        let wanted = port["nodePort"].as_u64().filter(|p| *p != 0);
        if only_named && wanted.is_none() {
            continue;
        }
        let field = format!("spec.ports[{i}].nodePort");
        port["nodePort"] = held.node_port(&server.config.node_ports, wanted, field).map_err(refuse)?.into();
    }
    Ok(())
}

/// Keys of what this Service held before, and of what any Service holds.
struct Held {
    mine: BTreeSet<String>,
    taken: BTreeSet<String>,
}

/// Why something is not given. Without a field: there is nothing left to give.
struct Refused {
    field: String,
    message: String,
}

impl Held {
    /// The address for a Service that asks for `given`, or for any where that is empty.
    fn address(&self, cidr: Ipv4Net, given: String) -> Result<String, Refused> {
        let refuse = |why: String| Refused {
            field: "spec.clusterIPs".into(),
            message: format!("Invalid value: [\"{given}\"]: failed to allocate IP {given}: {why}"),
        };
        let key = format!("{ADDRESSES}{given}");
        match given.as_str() {
            "" => free_address(cidr, &self.taken, &mut rand::rng()).map(|a| a.to_string()).ok_or_else(|| {
                Refused {
                    field: String::new(),
                    message: format!(
                        "no address of {cidr} is free: delete Services or make the range larger"
                    ),
                }
            }),
            "None" => Ok(given),
            _ if self.mine.contains(&key) => Ok(given),
            _ if !given.parse().is_ok_and(|a| is_allocatable(cidr, a)) => Err(refuse(format!(
                "the provided IP ({given}) is not in the valid range. The range of valid IPs is {cidr}"
            ))),
            _ if self.taken.contains(&key) => Err(refuse("provided IP is already allocated".into())),
            _ => Ok(given),
        }
    }

    /// The port for one that asks for `wanted`, or for any.
    fn node_port(
        &mut self,
        range: &RangeInclusive<u16>,
        wanted: Option<u64>,
        field: String,
    ) -> Result<u64, Refused> {
        let key = |p: u64| format!("{NODE_PORTS}{p}");
        let (first, last) = (*range.start(), *range.end());
        let Some(wanted) = wanted else {
            let start = rand::rng().random_range(first..=last);
            let mut candidates = (start..=last).chain(first..start).map(u64::from);
            let free = candidates.find(|p| !self.taken.contains(&key(*p))).ok_or_else(|| Refused {
                field: String::new(),
                message: format!("no port of {first}-{last} is free: delete Services with node ports"),
            })?;
            self.taken.insert(key(free));
            return Ok(free);
        };
        let refuse = |why: String| Err(Refused { field, message: format!("Invalid value: {wanted}: {why}") });
        if self.mine.contains(&key(wanted)) {
            Ok(wanted)
        } else if !u16::try_from(wanted).is_ok_and(|p| range.contains(&p)) {
            refuse(format!(
                "provided port is not in the valid range. The range of valid ports is {first}-{last}"
            ))
        } else if self.taken.contains(&key(wanted)) {
            refuse("provided port is already allocated".into())
        } else {
            Ok(wanted)
        }
    }
}

/// An address nobody holds: at random from the upper part of the range, so that an address that was just given up is
/// not soon somebody else's; from the lower part where that is full.
fn free_address(cidr: Ipv4Net, taken: &BTreeSet<String>, random: &mut impl Rng) -> Option<Ipv4Addr> {
    let size = cidr.hostmask().to_bits() + 1;
    let last = size - 2;
    let reserved = (size / 16).min(MAX_RESERVED).min(last);
    let start = random.random_range(reserved.max(1)..=last);
    (start..=last)
        .chain(reserved.max(1)..start)
        .chain(1..reserved)
        .map(|n| nth_address(cidr, n))
        .find(|a| !taken.contains(&format!("{ADDRESSES}{a}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_given_once() {
        let cidr: Ipv4Net = "10.1.2.64/27".parse().expect("a range");
        let mut taken = BTreeSet::new();
        while let Some(address) = free_address(cidr, &taken, &mut rand::rng()) {
            assert!(is_allocatable(cidr, address));
            assert!(taken.insert(format!("{ADDRESSES}{address}")));
        }
        assert_eq!(taken.len(), 30);
    }

    #[test]
    fn updates_keep_or_give_up_what_is_held() {
        let old = json!({"spec": {
            "type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}]}});
        for (spec, expect) in [
            (json!({"type": "NodePort", "ports": [{"port": 80}]}), "10.0.0.1 30001"),
            (json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30002}]}), "10.0.0.1 30002"),
            (json!({"type": "NodePort", "ports": [{"port": 81}]}), "10.0.0.1"),
            (json!({"type": "ClusterIP", "ports": [{"port": 80, "nodePort": 30001}]}), "10.0.0.1"),
            (
                json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": true, "ports": [{"port": 80}]}),
                "10.0.0.1 30001",
            ),
            // Without allocation only the ports that are named are held.
            (
                json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}]}),
                "10.0.0.1",
            ),
            (
                json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
                    "ports": [{"port": 80, "nodePort": 30001}]}),
                "10.0.0.1 30001",
            ),
            (json!({"type": "ExternalName", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]}), ""),
        ] {
            let mut new = json!({"spec": spec});
            keep_held(&mut new, &old);
            let held: Vec<_> =
                holdings(&new).iter().filter_map(|k| k.rsplit('/').next().map(str::to_owned)).collect();
            assert_eq!(held.join(" "), expect, "{new}");
        }
    }

    #[test]
    fn annotations_of_other_balancers_draw_a_warning_each() {
        let service = json!({"metadata": {"annotations": {
            "service.beta.kubernetes.io/aws-load-balancer-internal": "true",
            "service.beta.kubernetes.io/load-balancer-source-ranges": "192.0.2.0/24",
            "metallb.universe.tf/address-pool": "p",
            "service.kubernetes.io/topology-mode": "Auto",
            "example.com/load-balancer": "x",
        }}});
        assert_eq!(
            unfollowed_annotations(&service),
            [
                "metadata.annotations[service.beta.kubernetes.io/aws-load-balancer-internal]: this cluster's load \
                 balancer does not act on it",
                "metadata.annotations[metallb.universe.tf/address-pool]: this cluster's load balancer does not act on it",
            ]
        );
        assert!(unfollowed_annotations(&json!({"metadata": {}})).is_empty());
    }
}
