//! Rules of Services of type LoadBalancer: which of them this node publishes, and which clients may use them. The ports
//! themselves are published by [`crate::balancer`].

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use yado_types::labels::LOAD_BALANCER_SOURCE_RANGES;

use crate::address_range::parse_range;

/// The clients that may use a Service from outside the cluster: through its published ports, its node ports, its external
/// addresses and the router. All Pods may use its virtual address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Callers {
    /// All clients.
    #[default]
    All,
    /// Clients with addresses in these ranges (`loadBalancerSourceRanges`).
    Of(Vec<Ipv4Net>),
}

impl Callers {
    /// Whether a client with this address is allowed.
    pub fn admits(&self, caller: IpAddr) -> bool {
        let Self::Of(ranges) = self else { return true };
        let caller = match caller.to_canonical() {
            IpAddr::V4(address) => address,
            // Loopback addresses of both families mean this machine.
            IpAddr::V6(address) if address.is_loopback() => Ipv4Addr::LOCALHOST,
            IpAddr::V6(_) => return false,
        };
        ranges.iter().any(|range| range.contains(&caller))
    }
}

/// Whether this node publishes the ports of a Service.
pub fn is_ours(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none()
}

/// Address ranges of the clients that may use a Service of type LoadBalancer; empty for all clients. The field takes
/// precedence over the older annotation.
///
/// # Errors
///
/// A sentence about the first range that is not valid.
pub fn sources(service: &Service) -> Result<Vec<Ipv4Net>, String> {
    let Some(spec) = service.spec.as_ref().filter(|spec| spec.type_.as_deref() == Some("LoadBalancer"))
    else {
        return Ok(Vec::new());
    };
    let field: Vec<&str> = spec.load_balancer_source_ranges.iter().flatten().map(String::as_str).collect();
    let annotation = service.metadata.annotations.as_ref().and_then(|a| a.get(LOAD_BALANCER_SOURCE_RANGES));
    let annotation = annotation.into_iter().flat_map(|text| text.split(','));
    let (name, ranges): (_, Vec<&str>) = match field.is_empty() {
        false => ("loadBalancerSourceRanges", field),
        true => (LOAD_BALANCER_SOURCE_RANGES, annotation.filter(|part| !part.trim().is_empty()).collect()),
    };
    let parse = |text: &str| {
        parse_range(text.trim()).ok_or_else(|| {
            format!("{name}: {text} is not a valid range of IPv4 addresses; write it like 10.0.0.0/8")
        })
    };
    ranges.into_iter().map(parse).collect()
}

/// The clients that may use a Service from outside the cluster. If a range is not valid, no client may.
pub fn callers(service: &Service) -> Callers {
    match sources(service) {
        Ok(ranges) if ranges.is_empty() => Callers::All,
        Ok(ranges) => Callers::Of(ranges),
        Err(_) => Callers::Of(Vec::new()),
    }
}
