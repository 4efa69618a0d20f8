//! Addresses and node ports of Services.
//!
//! Each address and port of a Service has a key of its own in the store, written and deleted in the very transaction
//! that writes the Service, and compared with absence there. So nothing is held twice or leaks, whoever writes at the
//! same time and whenever the process dies; what is free is read off the Services themselves.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use ipnet::Ipv4Net;
use rand::Rng;
use serde_json::{Value, json};

use super::{has_node_ports, type_of};
use crate::edit::{copy, existing_at, list, objects, text};
use crate::object::meta;
use crate::resource;
use crate::status::{Failure, Result};
use crate::write::context::WriteContext;

const ADDRESSES: &str = "/registry/addresses/";
const NODE_PORTS: &str = "/registry/nodeports/";

/// The low addresses of the range are left to Services that name theirs, as in Kubernetes.
const MAX_RESERVED: u32 = 256;

/// Prefix lengths that a range of Service addresses may have: a range has to contain addresses that can be allocated.
pub const PREFIX_LENGTHS: RangeInclusive<u8> = 8..=30;

/// The address at this offset in a range.
pub fn nth_address(range: Ipv4Net, offset: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(range.network().to_bits() + offset)
}

/// Whether an address of the range can be allocated: the first and the last one cannot.
fn is_allocatable(range: Ipv4Net, address: Ipv4Addr) -> bool {
    range.contains(&address) && address != range.network() && address != range.broadcast()
}

/// Keys of what a Service holds.
pub fn holdings(service: &Value) -> BTreeSet<String> {
    let spec = &service["spec"];
    let addresses = list(&spec["clusterIPs"]).iter().chain([&spec["clusterIP"]]);
    let addresses = addresses.filter_map(Value::as_str).filter(|a| !a.is_empty() && *a != "None");
    let ports = list(&spec["ports"]).iter().map(|p| &p["nodePort"]);
    let ports = ports.chain([&spec["healthCheckNodePort"]]).filter_map(Value::as_u64).filter(|p| *p != 0);
    addresses.map(|a| format!("{ADDRESSES}{a}")).chain(ports.map(|p| format!("{NODE_PORTS}{p}"))).collect()
}

/// An update that does not speak of addresses and node ports keeps them; one to a type without them gives them up.
pub fn keep_held(new: &mut Value, old: &Value) {
    let (old_spec, kind) = (&old["spec"], type_of(new).to_owned());
    let Some(spec) = existing_at(new, &["spec"]) else { return };
    if kind == "ExternalName" {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if spec.get(field) == old_spec.get(field) {
                spec.shift_remove(field);
            }
        }
    } else if spec.get("clusterIP").is_none_or(|address| text(address).is_empty())
        && old_spec["clusterIP"].is_string()
    {
        copy(old_spec, spec, "clusterIP");
        copy(old_spec, spec, "clusterIPs");
    }
    let wants =
        has_node_ports(&kind) && spec.get("allocateLoadBalancerNodePorts").is_none_or(|given| given != false);
    for port in objects(spec, "ports") {
        let protocol = |p: Option<&Value>| p.and_then(Value::as_str).unwrap_or("TCP").to_owned();
        let same = list(&old_spec["ports"]).iter().find(|old| {
            old.get("port") == port.get("port")
                && protocol(old.get("protocol")) == protocol(port.get("protocol"))
        });
        let held = same.and_then(|old| node_port_of(old.get("nodePort")));
        match (wants, node_port_of(port.get("nodePort")), held) {
            (true, None, Some(held)) => _ = port.insert("nodePort".into(), held.into()),
            // One that only stops to be given ports by itself keeps those that it names.
            (false, Some(given), Some(held)) if given == held && !has_node_ports(&kind) => {
                _ = port.shift_remove("nodePort");
            }
            _ => {}
        }
    }
}

/// The node port in a field. Clients in Go write 0 where none is set.
fn node_port_of(field: Option<&Value>) -> Option<u64> {
    field.and_then(Value::as_u64).filter(|port| *port != 0)
}

/// Gives a Service what it needs and does not have; refuses what it asks for and others hold.
pub fn allocate(ctx: &WriteContext<'_>, service: &mut Value, old: Option<&Value>) -> Result<()> {
    let kind = type_of(service).to_owned();
    // Writes of a subresource change nothing that is allocated.
    if ctx.subresource.is_some() || kind == "ExternalName" {
        return Ok(());
    }
    let name = meta(service, "name").to_owned();
    let Some(spec) = existing_at(service, &["spec"]) else { return Ok(()) };
    let services = resource::find("", "v1", "services").ok_or_else(Failure::no_such_resource)?;
    let mut held = Held { mine: old.map(holdings).unwrap_or_default(), taken: BTreeSet::new() };
    for other in ctx.server.collection(services)?.list("", None, 0, |_| true).objects {
        held.taken.extend(other.derive(holdings));
    }
    let refuse = |Refused { field, message }: Refused| {
        if field.is_empty() {
            return Failure::internal(message);
        }
        Failure::invalid("", "Service", &name, [(field, "FieldValueInvalid".to_owned(), message)])
    };
    let config = &ctx.server.config;
    let first = spec.get("clusterIPs").and_then(|addresses| addresses.get(0));
    let given = spec.get("clusterIP").or(first).map(text).unwrap_or_default().to_owned();
    let address = held.address(config.service_cidr, given).map_err(refuse)?;
    spec.insert("clusterIPs".into(), json!([address]));
    spec.insert("clusterIP".into(), address.into());
    for (field, value) in [("ipFamilies", json!(["IPv4"])), ("ipFamilyPolicy", json!("SingleStack"))] {
        if spec.get(field).is_none_or(|given| given.as_array().map_or(given.is_null(), Vec::is_empty)) {
            spec.insert(field.into(), value);
        }
    }
    if !has_node_ports(&kind) {
        return Ok(());
    }
    let only_named = kind == "LoadBalancer"
        && spec.get("allocateLoadBalancerNodePorts").is_some_and(|given| given == false);
    for (i, port) in objects(spec, "ports").enumerate() {
        let wanted = node_port_of(port.get("nodePort"));
        if only_named && wanted.is_none() {
            continue;
        }
        let field = format!("spec.ports[{i}].nodePort");
        let number = held.node_port(&config.node_ports, wanted, field).map_err(refuse)?;
        port.insert("nodePort".into(), number.into());
    }
    Ok(())
}

/// Keys of what this Service held before, and of what any Service holds.
struct Held {
    mine: BTreeSet<String>,
    taken: BTreeSet<String>,
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

/// Why something is not given. Without a field: there is nothing left to give.
struct Refused {
    field: String,
    message: String,
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
}
