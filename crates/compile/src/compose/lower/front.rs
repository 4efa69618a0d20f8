//! Which service of a project a person would open: it has the project's own host name, and its address is told first.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::model::{NetworkMode, Project, Service},
    ports::{self, Exposure},
};
use crate::workload::known_ports;

/// Last parts of names of images and services whose page is for those who run a project, not for whom it is run.
const TOOLS: [&str; 41] = [
    "adminer",
    "akhq",
    "alertmanager",
    "cadvisor",
    "cassandra",
    "clickhouse-server",
    "consul",
    "couchdb",
    "dozzle",
    "elasticsearch",
    "elasticvue",
    "etcd",
    "flower",
    "grafana",
    "influxdb",
    "jaeger",
    "kafdrop",
    "kafka-ui",
    "keycloak",
    "kibana",
    "localstack",
    "mailcatcher",
    "maildev",
    "mailhog",
    "mailpit",
    "minio",
    "mongo-express",
    "neo4j",
    "opensearch",
    "pgadmin",
    "pgadmin4",
    "phpmyadmin",
    "portainer",
    "portainer-ce",
    "prometheus",
    "rabbitmq",
    "redis-commander",
    "redisinsight",
    "registry",
    "vault",
    "zipkin",
];

/// Names that people give to what is opened first.
const FRONTS: [&str; 16] = [
    "app", "caddy", "client", "front", "frontend", "gateway", "haproxy", "ingress", "nginx", "proxy", "site",
    "traefik", "ui", "web", "webapp", "www",
];

/// The service that a person would open; among equals the one that is written first.
///
/// A page that everybody reaches comes before one that only this machine does; a project's own page before a tool's;
/// then what is at port 80; then what no other page needs, as a browser's first request goes to what calls the rest.
pub(super) fn front<'p>(project: &'p Project, joins: &BTreeMap<String, String>) -> Option<&'p Service> {
    let pages: Vec<(&Service, Exposure)> = project
        .services
        .values()
        .filter(|s| !joins.contains_key(&s.name) && !matches!(s.network_mode, Some(NetworkMode::Host)))
        .filter_map(|s| ports::page(s).map(|(_, reach)| (s, reach)))
        .collect();
    let needed: BTreeSet<&str> = pages
        .iter()
        .filter(|(service, _)| !is_tool(service))
        .flat_map(|(service, _)| service.depends_on.keys().map(String::as_str))
        .collect();
    let rank = |(service, reach): &&(&Service, Exposure)| {
        let at_80 = service.ports.iter().any(|p| p.published == Some(80) && p.protocol == "tcp");
        let named = FRONTS.contains(&service.name.to_ascii_lowercase().as_str());
        (*reach, is_tool(service), !at_80, needed.contains(service.name.as_str()), !named)
    };
    pages.iter().min_by_key(rank).map(|(service, _)| *service)
}

fn is_tool(service: &Service) -> bool {
    let image = service.image.as_deref().map(known_ports::base).unwrap_or_default();
    [image, service.name.as_str()].iter().any(|name| TOOLS.contains(&name.to_ascii_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::{Options, compile};

    #[test]
    fn the_project_has_the_address_of_what_a_person_would_open() {
        for (services, host) in [
            // The order decides among equals.
            ("a: {image: a, ports: ['1:80']}\n  b: {image: b, ports: ['2:80']}", Some("a")),
            // A tool's page, or that of a store, only where there is no other.
            (
                "db: {image: adminer, ports: ['8080:8080']}\n  shop: {image: s, ports: ['9000:9000']}",
                Some("shop"),
            ),
            (
                "q: {image: 'rabbitmq:3-management', ports: ['15672:15672']}\n  shop: {image: s, ports: ['9000:9000']}",
                Some("shop"),
            ),
            ("db: {image: 'adminer:4', ports: ['8080:8080']}", Some("db")),
            // Port 80 outside is what an address without a port means.
            ("a: {image: a, ports: ['8000:8000']}\n  b: {image: b, ports: ['80:8000']}", Some("b")),
            // The page that calls the others, not one that is called.
            (
                "api: {image: a, ports: ['8000:8000']}\n  site: {image: b, ports: ['3000:3000'], depends_on: [api]}",
                Some("site"),
            ),
            ("api: {image: a, ports: ['8000:8000']}\n  web: {image: b, ports: ['3000:3000']}", Some("web")),
            // What only this machine reaches is not routed.
            ("web: {image: a, ports: ['127.0.0.1:80:80']}\n  b: {image: b, ports: ['8000:8000']}", Some("b")),
            ("web: {image: a, ports: ['127.0.0.1:80:80', '[::1]:81:80']}", None),
            ("web: {image: a, ports: ['127.0.0.1:80:80', '81:80']}", Some("web")),
            // A debugger's port is no page.
            ("app: {image: a, ports: ['9229:9229', '3000:3000']}", Some("app")),
            ("app: {image: a, ports: ['9229:9229']}", None),
            ("db: {image: postgres, ports: ['5432:5432']}", None),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("compose.yaml");
            fs::write(&file, format!("name: shop\nservices:\n  {services}\n")).unwrap();
            let compiled = compile(&file, &Options::default()).unwrap_or_else(|e| panic!("{services}: {e}"));
            let whole = compiled.objects.iter().find(|o| {
                let rules = o.value["spec"]["rules"].as_array();
                o.kind() == "Ingress"
                    && rules.is_some_and(|r| r.iter().any(|r| r["host"] == "shop.localhost"))
            });
            assert_eq!(whole.map(|o| o.name()), host, "{services}");
            assert_eq!(compiled.host.as_deref(), host.map(|_| "shop.localhost"), "{services}");
        }
    }
}
