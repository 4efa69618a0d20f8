//! Handlers of probes and lifecycle hooks: a command, an HTTP request, a TCP connection, a gRPC health check, a pause.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Pod, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;

use super::{grpc, http};
use crate::handle::PodHandle;
use crate::shared::Shared;

/// Output of a command that is kept for the event; Kubernetes' limit.
const OUTPUT_LIMIT: usize = 10 << 10;

/// The handler of a probe or a lifecycle hook, with ports resolved to numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Handler {
    Command(Vec<String>),
    Http(http::Request),
    Tcp {
        host: Option<String>,
        port: u16,
    },
    /// A gRPC server's health: of one service, or of all where it is empty.
    Grpc {
        port: u16,
        service: String,
    },
    Sleep(Duration),
}

impl Handler {
    /// The handler of a probe; an error says why it is not valid.
    pub(crate) fn of_probe(probe: &Probe, container: &Container) -> Result<Self, String> {
        if let Some(exec) = &probe.exec {
            return Ok(Self::Command(exec.command.clone().unwrap_or_default()));
        }
        if let Some(get) = &probe.http_get {
            return http_get(get, container);
        }
        if let Some(tcp) = &probe.tcp_socket {
            return tcp_socket(tcp, container);
        }
        if let Some(check) = &probe.grpc {
            let port = u16::try_from(check.port).ok().filter(|n| *n > 0);
            let port = port.ok_or_else(|| format!("invalid port number: {}", check.port))?;
            return Ok(Self::Grpc { port, service: check.service.clone().unwrap_or_default() });
        }
        Err("a probe must have exec, httpGet, tcpSocket or grpc".into())
    }

    /// The handler of a lifecycle hook; an error says why it is not valid.
    pub(crate) fn of_hook(hook: &LifecycleHandler, container: &Container) -> Result<Self, String> {
        if let Some(exec) = &hook.exec {
            return Ok(Self::Command(exec.command.clone().unwrap_or_default()));
        }
        if let Some(get) = &hook.http_get {
            return http_get(get, container);
        }
        if let Some(sleep) = &hook.sleep {
            return Ok(Self::Sleep(Duration::from_secs(sleep.seconds.max(0).unsigned_abs())));
        }
        if let Some(tcp) = &hook.tcp_socket {
            return tcp_socket(tcp, container);
        }
        Err("a lifecycle hook must have exec, httpGet or sleep".into())
    }

    /// Runs the handler once, for at most `timeout`. An error is the reason for the failure, in one sentence.
    pub(crate) async fn run(
        &self,
        shared: &Shared,
        handle: &PodHandle,
        pod: &Pod,
        container: &Container,
        timeout: Duration,
    ) -> Result<(), String> {
        let address = || {
            let address = shared.ports_address(pod, handle.state().record.address);
            address.ok_or_else(|| "the Pod has no address".to_owned())
        };
        match self {
            Self::Command(args) => command(handle, container, args, timeout).await,
            Self::Http(request) => match address() {
                Ok(address) => bounded(timeout, http::get(request, address)).await,
                Err(e) => Err(e),
            },
            Self::Tcp { host, port } => match address() {
                Ok(address) => bounded(timeout, connect(host.as_deref(), address, *port)).await,
                Err(e) => Err(e),
            },
            Self::Grpc { port, service } => match address() {
                Ok(address) => bounded(timeout, grpc::check(address, *port, service)).await,
                Err(e) => Err(e),
            },
            Self::Sleep(duration) => {
                shared.clock.sleep((*duration).min(timeout)).await;
                Ok(())
            }
        }
    }
}

async fn bounded(timeout: Duration, work: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let late = |_| Err(format!("no answer within {timeout:?} (context deadline exceeded)"));
    tokio::time::timeout(timeout, work).await.unwrap_or_else(late)
}

async fn command(
    handle: &PodHandle,
    container: &Container,
    args: &[String],
    timeout: Duration,
) -> Result<(), String> {
    let (sandbox, id) =
        handle.state().running(&container.name).ok_or_else(|| "the container does not run".to_owned())?;
    let output = sandbox.exec_sync(&id, args.to_vec(), timeout, OUTPUT_LIMIT).await;
    let output = output.map_err(|error| match error {
        yado_oci::runtime::Error::ExecTimeout(t) => {
            format!("command timed out: {args:?} timed out after {t:?}")
        }
        other => other.to_string(),
    })?;
    if output.code == 0 {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    Err(if said.is_empty() { format!("command exited with code {}", output.code) } else { said })
}

async fn connect(host: Option<&str>, address: IpAddr, port: u16) -> Result<(), String> {
    let host = host.map_or_else(|| address.to_string(), str::to_owned);
    let result = TcpStream::connect((host.as_str(), port)).await;
    result.map(drop).map_err(|error| format!("dial tcp {host}:{port}: connect: {}", plain(&error)))
}

/// An I/O error without the number that Rust appends.
pub(crate) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

fn http_get(get: &HTTPGetAction, container: &Container) -> Result<Handler, String> {
    let headers = get.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone()));
    Ok(Handler::Http(http::Request {
        tls: get.scheme.as_deref() == Some("HTTPS"),
        host: get.host.clone().filter(|h| !h.is_empty()),
        port: port(&get.port, container)?,
        path: get.path.clone().filter(|p| !p.is_empty()).unwrap_or_else(|| "/".into()),
        headers: headers.collect(),
    }))
}

fn tcp_socket(tcp: &TCPSocketAction, container: &Container) -> Result<Handler, String> {
    Ok(Handler::Tcp { host: tcp.host.clone().filter(|h| !h.is_empty()), port: port(&tcp.port, container)? })
}

fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name));
            named.map(|p| p.container_port).or_else(|| name.parse().ok())
        }
    };
    let number = number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
    number.ok_or_else(|| match port {
        IntOrString::Int(n) => format!("invalid port number: {n}"),
        IntOrString::String(name) => {
            format!("couldn't find port: {name:?} in container {:?}", container.name)
        }
    })
}
