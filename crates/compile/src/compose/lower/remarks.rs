//! Fields that are understood and have no effect: each draws a warning with its place.

use super::super::model::Service;
use crate::diagnostic::Findings;

/// Warns of what `service` says in vain.
pub(super) fn without_effect(service: &Service, found: &mut Findings) {
    let logging = service.logging.as_ref();
    let usual = |d: &str| ["json-file", "local", "journald", ""].contains(&d);
    let logs =
        logging.is_some_and(|l| !l.options.is_empty() || l.driver.as_deref().is_some_and(|d| !usual(d)));
    let fields: [(&str, bool, &str); 29] = [
        ("blkio_config", service.blkio.is_some(), "Pods share a disk evenly"),
        ("cgroup", service.cgroup.is_some(), "a Pod has its own"),
        ("cgroup_parent", service.cgroup_parent.is_some(), "the node manages the cgroups of Pods"),
        ("cpu_count", service.cpu_count.is_some(), "write cpus"),
        ("cpu_percent", service.cpu_percent.is_some(), "write cpus"),
        ("cpu_rt_period", service.cpu_rt_period.is_some(), "Pods have no real time"),
        ("cpu_rt_runtime", service.cpu_rt_runtime.is_some(), "Pods have no real time"),
        ("credential_spec", service.credential_spec.is_some(), "it is for Windows"),
        ("develop", service.develop.is_some(), "yado dev shows the sources of what it builds as they are"),
        ("device_cgroup_rules", !service.device_cgroup_rules.is_empty(), "write devices"),
        ("domainname", service.domainname.is_some(), "a Pod's domain is its namespace's"),
        ("ipc", odd_ipc(service), "containers of a Pod share their memory, others do not"),
        ("isolation", service.isolation.is_some(), "it is for Windows"),
        ("logging", logs, "a Pod's output is kept by its node, for yado logs"),
        ("mac_address", service.mac_address.is_some(), "a Pod's address is assigned by the cluster"),
        ("mem_swappiness", service.mem_swappiness.is_some(), "Pods do not swap"),
        ("memswap_limit", service.memswap_limit.is_some_and(|l| l >= 0), "Pods do not swap"),
        (
            "models",
            !service.models.is_empty(),
            "models are not supported: name a service that runs the model",
        ),
        ("oom_kill_disable", service.oom_kill_disable == Some(true), "a Pod over its memory limit is killed"),
        ("oom_score_adj", service.oom_score_adj.is_some(), "it is derived from requests and limits"),
        ("provider", service.provider.is_some(), "Docker's plugins are not supported"),
        ("pull_refresh_after", service.pull_refresh_after.is_some(), "write pull_policy: always"),
        ("storage_opt", service.storage_opt.keys().any(|k| k != "size"), "only size is supported"),
        ("use_api_socket", service.use_api_socket == Some(true), "there is no Docker API"),
        (
            "userns_mode",
            service.userns_mode.as_deref().is_some_and(|m| m != "host" && !m.is_empty()),
            "only host is supported",
        ),
        ("uts", service.uts.is_some(), "a Pod's host name is its own"),
        ("attach", service.attach == Some(false), "yado logs shows what it is asked for"),
        ("cpu_period", service.cpu_period.is_some() && service.cpu_quota.is_none(), "write cpu_quota, too"),
        (
            "pid",
            service.pid.as_deref().is_some_and(|p| p != "host" && !p.contains(':')),
            "only host and service:NAME are supported",
        ),
    ];
    for (field, there, reason) in fields {
        if there {
            found.warn(service.place(field), format!("{field} has no effect: {reason}"));
        }
    }
    networks(service, found);
    hosts_of_others(service, found);
    let restart = service.deploy.as_ref().and_then(|d| d.restart.as_ref());
    if restart.is_some_and(|r| r.delay.is_some() || r.window.is_some()) {
        let sentence =
            "delay and window of restart_policy have no effect: each restart waits longer than the last";
        found.warn(service.place("deploy.restart_policy"), sentence);
    }
    if restart.is_some() && service.restart.is_some() {
        let sentence = "restart_policy has no effect beside restart: write only one";
        found.warn(service.place("deploy.restart_policy"), sentence);
    }
}

/// Warns of host names that are written for another router: labels of Traefik and of Caddy's plug-in for Docker, and the
/// variables of nginx-proxy. They are not routed here either, as the router knows nothing of what guards them there.
fn hosts_of_others(service: &Service, found: &mut Findings) {
    let deploy = service.deploy.iter().flat_map(|d| &d.labels).map(|l| ("deploy.labels", l));
    for (field, (key, value)) in service.labels.iter().map(|l| ("labels", l)).chain(deploy) {
        let hosts = hosts_of_label(key, value);
        if !hosts.is_empty() {
            found.warn(service.place(field), not_routed(&hosts, &format!("label {key}")));
        }
    }
    if let Some(value) = service.environment.get("VIRTUAL_HOST") {
        let hosts: Vec<&str> = value.split(',').map(str::trim).filter(|h| !h.is_empty()).collect();
        if !hosts.is_empty() {
            found.warn(service.place("environment"), not_routed(&hosts, "variable VIRTUAL_HOST"));
        }
    }
}

fn not_routed(hosts: &[&str], what: &str) -> String {
    let are = if hosts.len() == 1 { "is" } else { "are" };
    format!(
        "{} {are} not routed: nothing here reads the {what}; publish the port and add the host to its Ingress in {}",
        hosts.join(" and "),
        crate::output::overlay::FILE
    )
}

/// The host names in a label of another router.
fn hosts_of_label<'a>(key: &str, value: &'a str) -> Vec<&'a str> {
    let traefik = key.starts_with("traefik.");
    let rule = key.rsplit('.').next() == Some("rule");
    if traefik && rule {
        // Version 2 writes Host(`a`, `b`) and HostSNI(`a`), version 1 wrote Host:a,b;PathPrefix:/c.
        let quoted = value.match_indices("Host").flat_map(|(at, _)| {
            let rest = value[at..].split_once('(').and_then(|(_, rest)| rest.split_once(')'));
            let names = rest.map(|(names, _)| names).unwrap_or_default();
            names.split(',').map(|name| name.trim_matches([' ', '`', '"', '\'']))
        });
        let old = value.split(';').filter_map(|part| part.trim().strip_prefix("Host:"));
        let old = old.flat_map(|names| names.split(',').map(str::trim));
        return quoted.chain(old).filter(|name| name.contains(|c: char| c.is_ascii_alphanumeric())).collect();
    }
    let numbered = key.strip_prefix("caddy_").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
    if key == "caddy" || numbered {
        return value.split([',', ' ']).filter(|name| name.contains('.')).collect();
    }
    Vec::new()
}

/// Whether the service's name leads to the address of each of its Pods.
pub(super) fn is_dnsrr(service: &Service) -> bool {
    service.deploy.as_ref().and_then(|d| d.endpoint_mode.as_deref()) == Some("dnsrr")
}

fn odd_ipc(service: &Service) -> bool {
    service.ipc.as_deref().is_some_and(|i| {
        !["host", "private", "shareable", "none", ""].contains(&i)
            && !i.starts_with("service:")
            && !i.starts_with("container:")
    })
}

/// Warns of what a service asks of its networks in vain: the rest, such as its aliases, is kept.
fn networks(service: &Service, found: &mut Findings) {
    for (key, attachment) in &service.networks {
        let fields = [
            ("ipv4_address", attachment.ipv4_address.is_some()),
            ("ipv6_address", attachment.ipv6_address.is_some()),
            ("mac_address", attachment.mac_address.is_some()),
            ("link_local_ips", !attachment.link_local_ips.is_empty()),
            ("interface_name", attachment.interface_name.is_some()),
            ("driver_opts", !attachment.driver_opts.is_empty()),
        ];
        let fields: Vec<&str> = fields.iter().filter(|(_, there)| *there).map(|(field, _)| *field).collect();
        if !fields.is_empty() {
            let have = if fields.len() == 1 { "has" } else { "have" };
            let sentence = format!(
                "{} of network {key} {have} no effect: a Pod's address and device are assigned by the cluster, so use names",
                fields.join(", ")
            );
            found.warn(&attachment.at, sentence);
        }
    }
}
