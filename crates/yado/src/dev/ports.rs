//! The ports of a `yado dev`.

use std::io;

use anyhow::Result;
use serde_json::Value;
use yado_cli::args::{DevStart, Global};
use yado_compile::Compiled;
use yado_net::router::forwarded::TrustedProxies;
use yado_types::labels;
use yado_types::sysctls::AllowedSysctls;

use crate::engine::{Ports, Settings};

/// The router's port where nothing else wants it.
const HTTP: u16 = 8080;
/// Ports tried after it: a machine on which so many are taken has none to give.
const TRIED: u16 = 100;

/// Takes the ports: the router's as asked for, or else the first from 8080 that nobody uses and the app does not
/// publish itself.
pub async fn take(global: &Global, args: &DevStart, compiled: &Compiled) -> Result<(Ports, Settings)> {
    if let Some(port) = args.http_port {
        let settings = settings(global, args, compiled, port);
        return Ok((Ports::bind(&settings).await?, settings));
    }
    let published: Vec<u16> = compiled.published.iter().filter_map(|p| p.port).collect();
    let mut candidates = candidates(&published);
    loop {
        let settings = settings(global, args, compiled, candidates.next().unwrap_or(0));
        match Ports::bind(&settings).await {
            Err(error) if settings.http_port != 0 && is_taken(&error) => {}
            bound => return Ok((bound?, settings)),
        }
    }
}

/// Ports to try, without those that the app publishes itself.
fn candidates(published: &[u16]) -> impl Iterator<Item = u16> {
    (HTTP..HTTP + TRIED).filter(|port| !published.contains(port))
}

fn is_taken(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<yado_net::Error>(),
        Some(yado_net::Error::Http { source, .. }) if source.kind() == io::ErrorKind::AddrInUse
    )
}

fn settings(global: &Global, args: &DevStart, compiled: &Compiled, http_port: u16) -> Settings {
    Settings {
        api_port: args.api_port,
        http_port,
        node_name: None,
        trusted_proxies: TrustedProxies::default(),
        allowed_sysctls: allowed_sysctls(compiled),
        allow_host_image: compiled.objects.iter().any(|object| asks_for_host(&object.value)),
        secrets_key: None,
        audit: None,
        kubeconfig: global.kubeconfig.clone(),
        login: None,
    }
}

/// The kernel parameters that its Pods set: whoever starts that here, on this machine, allows it.
fn allowed_sysctls(compiled: &Compiled) -> AllowedSysctls {
    fn collect<'a>(value: &'a Value, names: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                let sysctls = fields.get("sysctls").and_then(Value::as_array).into_iter().flatten();
                names.extend(sysctls.filter_map(|sysctl| sysctl["name"].as_str()));
                fields.values().for_each(|value| collect(value, names));
            }
            Value::Array(all) => all.iter().for_each(|value| collect(value, names)),
            _ => {}
        }
    }
    let mut names = Vec::new();
    compiled.objects.iter().for_each(|object| collect(&object.value, &mut names));
    AllowedSysctls::names(names)
}

/// Whether a Pod in it runs programs of this machine: whoever starts that here, on this machine, allows it.
fn asks_for_host(object: &Value) -> bool {
    match object {
        Value::Object(fields) => {
            fields.contains_key(labels::HOST_IMAGE_ALLOWED) || fields.values().any(asks_for_host)
        }
        Value::Array(all) => all.iter().any(asks_for_host),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_router_leaves_published_ports_to_the_app() {
        let first = |published: &[u16]| candidates(published).next();
        assert_eq!(first(&[]), Some(8080));
        assert_eq!(first(&[80]), Some(8080));
        assert_eq!(first(&[8080, 8081]), Some(8082));
    }
}
