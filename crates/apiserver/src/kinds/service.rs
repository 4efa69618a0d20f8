//! Services.

mod addresses;
mod columns;
mod defaults;
mod proxy;
mod validation;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use jiff::Timestamp;
use serde_json::{Map, Value};
use yado_types::labels::LOAD_BALANCER_SOURCE_RANGES;
use yado_types::names;

pub use addresses::{PREFIX_LENGTHS, nth_address};

use crate::kinds::strategy::{NameRule, Strategy};
use crate::schema::validate::Errors;
use crate::server::Inner;
use crate::status::Result;
use crate::table::Column;
use crate::write::context::WriteContext;

#[derive(Debug)]
pub struct Service;

impl Strategy for Service {
    fn name_rule(&self) -> NameRule {
        names::dns_1035_label
    }

    fn prepare_for_update(&self, _ctx: &WriteContext<'_>, new: &mut Value, old: &Value) -> Result<()> {
        addresses::keep_held(new, old);
        Ok(())
    }

    fn default_object(&self, service: &mut Map<String, Value>) {
        defaults::default_service(service);
    }

    fn after_defaults(&self, ctx: &WriteContext<'_>, service: &mut Value, old: Option<&Value>) -> Result<()> {
        addresses::allocate(ctx, service, old)
    }

    fn validate(&self, service: &Value, old: Option<&Value>, errors: &mut Errors) {
        validation::validate_service(service, old, errors);
    }

    fn warnings(&self, service: &Value) -> Vec<String> {
        unfollowed_annotations(service)
    }

    fn holdings(&self) -> Option<fn(&Value) -> BTreeSet<String>> {
        Some(addresses::holdings)
    }

    fn proxy_address(&self, server: &Inner, service: &Value, port: &str) -> Result<SocketAddr> {
        proxy::address(server, service, port)
    }

    fn selectable_fields(&self) -> Vec<&str> {
        vec!["spec.clusterIP", "spec.type"]
    }

    fn columns(&self) -> &[Column] {
        columns::COLUMNS
    }

    fn cells(&self, service: &Value, now: Timestamp) -> Vec<Value> {
        columns::cells(service, now)
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
fn unfollowed_annotations(service: &Value) -> Vec<String> {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
