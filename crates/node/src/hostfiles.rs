//! `/etc/hosts`, `/etc/resolv.conf` and the host name of a Pod; pure.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use yado_types::labels;

/// Search domains are cut at this number and length, as Kubernetes does; resolvers ignore more.
const MOST_SEARCHES: usize = 32;
/// The same in characters.
const MOST_SEARCH_CHARACTERS: usize = 2048;
/// Nameservers that resolvers look at.
const MOST_NAMESERVERS: usize = 3;

/// The cluster's DNS.
#[derive(Clone, Debug)]
pub(crate) struct ClusterDns {
    pub server: IpAddr,
    pub domain: String,
}

/// The Pod's host name: `hostname`, or its name cut to what a host name may be.
pub(crate) fn hostname(pod: &Pod, node_name: &str) -> String {
    let spec = pod.spec.as_ref();
    if let Some(name) = spec.and_then(|s| s.hostname_override.as_deref()).filter(|n| !n.is_empty()) {
        return name.to_owned();
    }
    if spec.and_then(|s| s.host_network) == Some(true) {
        return node_name.to_owned();
    }
    let own = spec.and_then(|s| s.hostname.as_deref()).filter(|h| !h.is_empty());
    let name = own.or(pod.metadata.name.as_deref()).unwrap_or_default();
    let cut: String = name.chars().take(63).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// The fully qualified name, where the Pod has a subdomain.
fn qualified(pod: &Pod, hostname: &str, domain: &str) -> Option<String> {
    let subdomain = pod.spec.as_ref()?.subdomain.as_deref().filter(|s| !s.is_empty())?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    Some(format!("{hostname}.{subdomain}.{namespace}.svc.{domain}"))
}

/// What `uname -n` says in the Pod.
pub(crate) fn uts_name(pod: &Pod, node_name: &str, domain: &str) -> String {
    let short = hostname(pod, node_name);
    match qualified(pod, &short, domain) {
        Some(long)
            if pod.spec.as_ref().and_then(|s| s.set_hostname_as_fqdn) == Some(true) && long.len() <= 64 =>
        {
            long
        }
        _ => short,
    }
}

/// `/etc/hosts`, for a Pod on the `node` of this name and address. On the host's network the host's own file is the
/// start.
pub(crate) fn hosts(
    pod: &Pod,
    address: Option<IpAddr>,
    host_file: &str,
    dns: &ClusterDns,
    node: (&str, IpAddr),
) -> String {
    let (node, node_address) = node;
    let spec = pod.spec.clone().unwrap_or_default();
    let mut out = if spec.host_network == Some(true) {
        let newline = if host_file.is_empty() || host_file.ends_with('\n') { "" } else { "\n" };
        format!("{host_file}{newline}")
    } else {
        let mut out = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                       fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
            .to_owned();
        if let Some(address) = address {
            let short = hostname(pod, node);
            match qualified(pod, &short, &dns.domain) {
                Some(long) => out.push_str(&format!("{address}\t{long}\t{short}\n")),
                None => out.push_str(&format!("{address}\t{short}\n")),
            }
        }
        out
    };
    let aliases = spec.host_aliases.unwrap_or_default();
    if !aliases.is_empty() {
        out.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        let names = alias.hostnames.unwrap_or_default();
        out.push_str(&format!("{}\t{}\n", alias.ip, names.join("\t")));
    }
    let gateway = pod.metadata.annotations.as_ref().and_then(|a| a.get(labels::HOST_GATEWAY));
    let names: Vec<&str> =
        gateway.iter().flat_map(|names| names.split(',')).map(str::trim).filter(|n| is_host(n)).collect();
    if !names.is_empty() {
        out.push_str(&format!("\n# The node, by the annotation {}.\n", labels::HOST_GATEWAY));
        out.push_str(&format!("{node_address}\t{}\n", names.join("\t")));
    }
    out
}

/// Whether a name is one word of `/etc/hosts`.
fn is_host(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

/// `/etc/resolv.conf`, given the host's own.
pub(crate) fn resolv_conf(spec: &PodSpec, namespace: &str, dns: &ClusterDns, host_file: &str) -> String {
    let mut conf = ResolvConf::default();
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let host_network = spec.host_network == Some(true);
    match policy {
        "None" => {}
        "ClusterFirst" if !host_network => conf.cluster(namespace, dns, host_file),
        "ClusterFirstWithHostNet" => conf.cluster(namespace, dns, host_file),
        _ => conf = ResolvConf::parse(host_file),
    }
    if let Some(own) = &spec.dns_config {
        conf.nameservers.extend(own.nameservers.iter().flatten().cloned());
        conf.searches.extend(own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            conf.options.retain(|(n, _)| n != name);
            conf.options.push((name.clone(), option.value.clone()));
        }
    }
    conf.to_text()
}

#[derive(Default)]
struct ResolvConf {
    nameservers: Vec<String>,
    searches: Vec<String>,
    options: Vec<(String, Option<String>)>,
}

impl ResolvConf {
    fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => conf.nameservers.extend(words.next().map(str::to_owned)),
                Some("search" | "domain") => conf.searches = words.map(str::to_owned).collect(),
                Some("options") => conf.options.extend(words.map(|w| match w.split_once(':') {
                    Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                    None => (w.to_owned(), None),
                })),
                _ => {}
            }
        }
        conf
    }

    fn cluster(&mut self, namespace: &str, dns: &ClusterDns, host_file: &str) {
        let domain = &dns.domain;
        self.nameservers = vec![dns.server.to_string()];
        self.searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
        self.searches.extend(Self::parse(host_file).searches.into_iter().filter(|s| s != "."));
        self.options = vec![("ndots".into(), Some("5".into()))];
    }

    fn to_text(&self) -> String {
        let mut out = String::new();
        let mut searches: Vec<&str> = Vec::new();
        let mut length = 0;
        for search in &self.searches {
            length += search.len() + 1;
            if searches.len() == MOST_SEARCHES || length > MOST_SEARCH_CHARACTERS {
                break;
            }
            if !searches.contains(&search.as_str()) {
                searches.push(search);
            }
        }
        if !searches.is_empty() {
            out.push_str(&format!("search {}\n", searches.join(" ")));
        }
        let mut servers: Vec<&String> = Vec::new();
        for server in &self.nameservers {
            if servers.len() < MOST_NAMESERVERS && !servers.contains(&server) {
                servers.push(server);
                out.push_str(&format!("nameserver {server}\n"));
            }
        }
        if !self.options.is_empty() {
            let options: Vec<_> = self
                .options
                .iter()
                .map(|(name, value)| value.as_ref().map_or_else(|| name.clone(), |v| format!("{name}:{v}")))
                .collect();
            out.push_str(&format!("options {}\n", options.join(" ")));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    const HOST: &str = "# the host's\nnameserver 192.0.2.53\nsearch example.com\noptions timeout:1 rotate\n";

    fn dns() -> ClusterDns {
        ClusterDns { server: [10, 96, 0, 10].into(), domain: "cluster.local".into() }
    }

    fn check_resolv(spec: Value, expect: Expect) {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let spec: PodSpec = serde_json::from_value(spec).expect("a Pod specification");
        expect.assert_eq(&resolv_conf(&spec, "shop", &dns(), HOST));
    }

    #[test]
    fn resolv_conf_follows_the_policy() {
        let cluster = expect![[r#"
            search shop.svc.cluster.local svc.cluster.local cluster.local example.com
            nameserver 10.96.0.10
            options ndots:5
        "#]];
        check_resolv(
            json!({}),
            expect![[r#"
            search shop.svc.cluster.local svc.cluster.local cluster.local example.com
            nameserver 10.96.0.10
            options ndots:5
        "#]],
        );
        check_resolv(json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}), cluster);
        let hosts = expect![[r#"
            search example.com
            nameserver 192.0.2.53
            options timeout:1 rotate
        "#]];
        check_resolv(
            json!({"hostNetwork": true}),
            expect![[r#"
            search example.com
            nameserver 192.0.2.53
            options timeout:1 rotate
        "#]],
        );
        check_resolv(json!({"dnsPolicy": "Default"}), hosts);
        check_resolv(
            json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "options": [{"name": "use-vc"}]}}),
            expect![[r#"
                nameserver 1.1.1.1
                options use-vc
            "#]],
        );
        check_resolv(
            json!({"dnsConfig": {"searches": ["corp"], "options": [{"name": "ndots", "value": "1"}]}}),
            expect![[r#"
                search shop.svc.cluster.local svc.cluster.local cluster.local example.com corp
                nameserver 10.96.0.10
                options ndots:1
            "#]],
        );
    }

    fn check_hosts(spec: Value, uts: &str, expect: Expect) {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let gateway = "host.docker.internal, gw,\n6.6.6.6 evil";
        let metadata =
            json!({"name": "web-1", "namespace": "shop", "annotations": {labels::HOST_GATEWAY: gateway}});
        let pod: Pod = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a Pod");
        assert_eq!(uts_name(&pod, "node-1", "cluster.local"), uts);
        let node = ("node-1", [192, 0, 2, 1].into());
        let all = hosts(&pod, Some([10, 244, 0, 5].into()), "127.0.0.1 localhost", &dns(), node);
        let own: Vec<_> = all.lines().filter(|l| !l.contains("ip6-")).collect();
        expect.assert_eq(&own.join("\n"));
    }

    #[test]
    fn hosts_name_the_pod_and_its_aliases() {
        check_hosts(
            json!({}),
            "web-1",
            expect![[r#"
            # Kubernetes-managed hosts file.
            127.0.0.1	localhost
            10.244.0.5	web-1

            # The node, by the annotation yado.dev/host-gateway.
            192.0.2.1	host.docker.internal	gw"#]],
        );
        check_hosts(
            json!({"hostname": "a", "subdomain": "db", "setHostnameAsFQDN": true,
                   "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["x", "y"]}]}),
            "a.db.shop.svc.cluster.local",
            expect![[r#"
                # Kubernetes-managed hosts file.
                127.0.0.1	localhost
                10.244.0.5	a.db.shop.svc.cluster.local	a

                # Entries added by HostAliases.
                1.2.3.4	x	y

                # The node, by the annotation yado.dev/host-gateway.
                192.0.2.1	host.docker.internal	gw"#]],
        );
        check_hosts(
            json!({"hostNetwork": true}),
            "node-1",
            expect![[r#"
                127.0.0.1 localhost

                # The node, by the annotation yado.dev/host-gateway.
                192.0.2.1	host.docker.internal	gw"#]],
        );
    }
}
