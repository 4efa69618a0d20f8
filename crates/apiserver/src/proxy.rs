//! `pods/proxy`, `services/proxy` and `nodes/proxy`: HTTP requests handed on to a port of a Pod, of one of a Service's Pods
//! or of a node, whose own API is its default.
//!
//! The server dials the address itself, as kube-apiserver does, and never one by which the machine reaches itself or its
//! neighbours (loopback and others of the kind), whatever an object says.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderName, HeaderValue, LOCATION, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use yado_types::address::forbidden_destination;

use crate::auth::Identity;
use crate::content::{self, Body, BoxError};
use crate::node_proxy::NodeStream;
use crate::request::{ApiRequest, Query};
use crate::server::Inner;
use crate::status::{Failure, Result};

/// A Pod that does not take a connection within this time is taken for unreachable.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Headers between two neighbours, which are not handed on (RFC 9110, 7.6.1).
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// A request to be proxied to a Pod or Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyRequest {
    /// The verb of authorisation that the method stands for.
    pub verb: &'static str,
    /// The path behind `/proxy`, as it came; empty where not even a slash follows.
    pub path: String,
    /// The query, as it came.
    pub query: Option<String>,
}

/// Where a proxied request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyTarget {
    /// A program that listens there.
    Address(SocketAddr),
    /// The API of the node of this name.
    Node(String),
}

impl fmt::Display for ProxyTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Node(name) => f.write_str(name),
        }
    }
}

/// `NAME`, `NAME:PORT` or `SCHEME:NAME:PORT`.
#[derive(Debug, PartialEq, Eq)]
struct Target<'a> {
    is_https: bool,
    name: &'a str,
    /// A number, or a name; empty for the only one.
    port: &'a str,
}

impl<'a> Target<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        match parts.as_slice() {
            [name] => Ok(Self { is_https: false, name, port: "" }),
            [name, port] | ["" | "http", name, port] => Ok(Self { is_https: false, name, port }),
            ["https", name, port] => Ok(Self { is_https: true, name, port }),
            _ => Err(Failure::bad_request(format!("invalid proxy target {text:?}: it is NAME:PORT"))),
        }
    }
}

impl Inner {
    pub(crate) async fn proxy<B>(
        &self,
        r: &ApiRequest,
        asked: &ProxyRequest,
        who: &Identity,
        parts: &mut Parts,
        body: B,
    ) -> Result<Response<Body>>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        self.fresh().await?;
        if asked.path.is_empty() {
            // Relative links of what is answered would miss their directory.
            return redirect(parts);
        }
        let before = parts.uri.path()[..prefix(parts, asked)].to_owned();
        let (asked, warnings) = self.admit_proxied(r, asked, who, parts).await?;
        let target = Target::parse(&r.name)?;
        let object = self.find(&r.resource, &r.namespace, target.name)?.value();
        let to = r.resource.strategy().proxy_target(self, &object, target.port)?;
        match &to {
            ProxyTarget::Address(address) if forbidden_destination(address.ip()).is_some() => {
                return Err(Failure::denied(format!(
                    "address {address} is not that of a Pod and is not dialled"
                )));
            }
            // A node's own API is reached over a connection that is private to the two.
            ProxyTarget::Address(_) if target.is_https => {
                return Err(Failure::bad_request("proxying to HTTPS ports is not served here; use http"));
            }
            ProxyTarget::Address(_) | ProxyTarget::Node(_) => {}
        }
        let upgrade = parts.headers.contains_key(UPGRADE).then(|| parts.extensions.remove::<OnUpgrade>());
        let request = request(&asked, parts, &to, upgrade.is_some(), body)?;
        let mut response = self.exchange(&to, request, upgrade.flatten(), &before).await?;
        content::warn(&mut response, &warnings);
        Ok(response)
    }

    /// The request as admission leaves it, which may change its path, and warnings for its response.
    async fn admit_proxied(
        &self,
        r: &ApiRequest,
        asked: &ProxyRequest,
        who: &Identity,
        parts: &Parts,
    ) -> Result<(ProxyRequest, Vec<String>)> {
        let mut query = Query::default();
        query.push("path", asked.path.trim_start_matches('/'));
        let (admitted, warnings) = self.admit_connection(r, who, parts, &query).await?;
        let mut asked = asked.clone();
        if let Cow::Owned(admitted) = admitted {
            asked.path = format!("/{}", admitted.get("path").unwrap_or_default().trim_start_matches('/'));
        }
        Ok((asked, warnings))
    }

    /// Sends a request and hands its answer back.
    async fn exchange<B>(
        &self,
        to: &ProxyTarget,
        request: http::Request<B>,
        client: Option<OnUpgrade>,
        prefix: &str,
    ) -> Result<Response<Body>>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let unreachable = |error: &dyn fmt::Display| {
            let why = format!("error trying to reach {to}: {error}");
            Failure::new(503, "ServiceUnavailable", why)
        };
        let dial = async {
            let stream: Box<dyn NodeStream> = match to {
                ProxyTarget::Address(address) => Box::new(TcpStream::connect(address).await?),
                ProxyTarget::Node(name) => self.nodes.dial(name).await?,
            };
            io::Result::Ok(stream)
        };
        let stream = tokio::select! {
            stream = dial => stream.map_err(|e| unreachable(&e))?,
            () = self.clock.sleep(DIAL_TIMEOUT) => return Err(unreachable(&"it does not answer")),
        };
        let mut response = self.relay(stream, request, client, unreachable).await?;
        let place = response.headers().get(LOCATION).and_then(|l| l.to_str().ok());
        let place = place.filter(|place| place.starts_with('/') && !place.starts_with("//"));
        if let Some(Ok(place)) = place.map(|place| HeaderValue::try_from(format!("{prefix}{place}"))) {
            response.headers_mut().insert(LOCATION, place);
        }
        Ok(response)
    }

    /// Sends a request over a connection and hands its answer back; after a switch of protocols, `client` is joined with it.
    pub(crate) async fn relay<S, B>(
        &self,
        stream: S,
        request: http::Request<B>,
        client: Option<OnUpgrade>,
        unreachable: impl Fn(&dyn std::fmt::Display) -> Failure,
    ) -> Result<Response<Body>>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| unreachable(&e))?;
        let stop = self.stop.clone().cancelled_owned();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop => {}
                // Its errors reach whoever reads the answer.
                _ = connection.with_upgrades() => {}
            }
        });
        let mut answer = sender.send_request(request).await.map_err(|e| unreachable(&e))?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = answer.status();
        let switches = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = handed_on(answer.headers(), switches);
        match (switches, client) {
            (true, Some(client)) => self.tunnel(client, hyper::upgrade::on(&mut answer)),
            (true, None) => return Err(unreachable(&"it switched protocols unasked")),
            (false, _) => *response.body_mut() = Body::from_incoming(answer.into_body()),
        }
        Ok(response)
    }
}

/// The length of the path up to what is handed on.
fn prefix(parts: &Parts, asked: &ProxyRequest) -> usize {
    parts.uri.path().len().saturating_sub(asked.path.len())
}

fn redirect(parts: &Parts) -> Result<Response<Body>> {
    let query = parts.uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    let place = HeaderValue::try_from(format!("{}/{query}", parts.uri.path())).map_err(Failure::internal)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(LOCATION, place);
    Ok(response)
}

/// The request that the other side gets: its credentials stay here.
fn request<B>(
    asked: &ProxyRequest,
    parts: &Parts,
    to: &ProxyTarget,
    switches: bool,
    body: B,
) -> Result<http::Request<B>> {
    let query = asked.query.as_ref().map(|q| format!("?{q}")).unwrap_or_default();
    let mut request = http::Request::builder()
        .method(parts.method.clone())
        .uri(format!("{}{query}", asked.path))
        .body(body)
        .map_err(|e| Failure::bad_request(format!("the path behind /proxy cannot be handed on: {e}")))?;
    let mut headers = handed_on(&parts.headers, switches);
    headers.remove(AUTHORIZATION);
    let impersonation: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in impersonation {
        headers.remove(name);
    }
    let host = parts.headers.get(HOST).cloned();
    let host = host.or_else(|| HeaderValue::try_from(parts.uri.authority()?.as_str()).ok());
    if let Some(host) = host {
        headers.insert("x-forwarded-host", host);
    }
    let uri = HeaderValue::try_from(parts.uri.path()).map_err(Failure::internal)?;
    headers.insert("x-forwarded-uri", uri);
    headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    headers.insert(HOST, HeaderValue::try_from(to.to_string()).map_err(Failure::internal)?);
    *request.headers_mut() = headers;
    Ok(request)
}

/// The headers that go on to the other side; with `switches`, those by which the protocol is changed too.
pub(crate) fn handed_on(headers: &HeaderMap, switches: bool) -> HeaderMap {
    let named: Vec<String> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let mut kept = HeaderMap::new();
    for (name, value) in headers {
        let stays = HOP_BY_HOP.contains(&name.as_str()) || named.iter().any(|n| n == name.as_str());
        if !stays {
            kept.append(name.clone(), value.clone());
        }
    }
    if switches && let Some(upgrade) = headers.get(UPGRADE) {
        kept.insert(UPGRADE, upgrade.clone());
        kept.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::{BodyExt, Full};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use yado_store::{Embedded, Store};
    use yado_types::clock::SystemClock;

    use super::*;
    use crate::node_proxy::NoNodes;
    use crate::server::{ApiServer, Config};

    #[tokio::test]
    async fn requests_and_answers_are_handed_on() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Arc::new(Embedded::open(yado_store::Config::new(directory.path())).expect("a store"));
        let server =
            ApiServer::new(Config::default(), store.clone(), SystemClock::shared(), Arc::new(NoNodes)).await;
        let server = server.expect("a server");
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let app = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut heard = Vec::new();
            while !heard.ends_with(b"hello") {
                assert_ne!(stream.read_buf(&mut heard).await.expect("a request"), 0);
            }
            let answer = "HTTP/1.1 302 Found\r\nLocation: /next\r\nX-App: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 3\r\n\r\nbye";
            stream.write_all(answer.as_bytes()).await.expect("it is open");
            String::from_utf8_lossy(&heard).into_owned()
        });
        let uri = "https://h:6443/api/v1/namespaces/d/pods/p:80/proxy/a?b=c";
        let original = http::Request::post(uri).header("content-length", "5").body(()).expect("a request");
        let (parts, ()) = original.into_parts();
        let asked = ProxyRequest { verb: "create", path: "/a".into(), query: Some("b=c".into()) };
        let body = Full::new(Bytes::from_static(b"hello"));
        let to = ProxyTarget::Address(address);
        let made = request(&asked, &parts, &to, false, body).expect("a request");
        let before = &parts.uri.path()[..prefix(&parts, &asked)];
        let answer = server.inner.exchange(&to, made, None, before).await.expect("an answer");
        assert_eq!(answer.status(), 302);
        assert_eq!(answer.headers()["location"], "/api/v1/namespaces/d/pods/p:80/proxy/next");
        assert_eq!(answer.headers()["x-app"], "1");
        assert!(!answer.headers().contains_key("keep-alive"));
        assert_eq!(answer.into_body().collect().await.expect("a body").to_bytes(), "bye");
        let heard = app.await.expect("a request came");
        assert!(heard.starts_with("POST /a?b=c HTTP/1.1\r\n"), "{heard}");
        assert!(heard.contains("x-forwarded-host: h:6443\r\n"), "{heard}");
        server.shutdown().await;
        store.close().await;
    }

    #[test]
    fn targets_have_a_name_and_a_port() {
        for (target, expect) in [
            ("p:81", "p 81"),
            ("http:p:81", "p 81"),
            (":p:web", "p web"),
            ("p", "p "),
            ("https:p:81", "https p 81"),
            ("a:b:c:d", "invalid proxy target \"a:b:c:d\": it is NAME:PORT"),
        ] {
            let scheme = |https| if https { "https " } else { "" };
            let show = |t: Target<'_>| format!("{}{} {}", scheme(t.is_https), t.name, t.port);
            let shown = Target::parse(target).map(show);
            assert_eq!(shown.unwrap_or_else(|failure| failure.to_string()), expect, "{target}");
        }
    }

    #[test]
    fn only_addresses_that_pods_can_have_are_dialled() {
        for (address, expect) in [
            ("10.1.2.3", true),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("::127.0.0.1", false),
            ("0.0.0.1", false),
            ("fe80::1", false),
            ("fd00::1", true),
        ] {
            let forbidden = forbidden_destination(address.parse().expect("an address"));
            assert_eq!(forbidden.is_none(), expect, "{address}");
        }
    }

    #[test]
    fn a_pod_gets_no_credentials_and_no_hop_by_hop_headers() {
        let uri = "/api/v1/namespaces/d/pods/p:80/proxy/a%2Fb/../c?x=%20";
        let mut original = http::Request::get(uri);
        for (name, value) in [
            ("host", "127.0.0.1:6443"),
            ("authorization", "Bearer secret"),
            ("impersonate-user", "bob"),
            ("connection", "close, x-own"),
            ("x-own", "1"),
            ("te", "trailers"),
            ("cookie", "a=b"),
        ] {
            original = original.header(name, value);
        }
        let (parts, ()) = original.body(()).expect("a request").into_parts();
        let asked = ProxyRequest { verb: "get", path: "/a%2Fb/../c".into(), query: Some("x=%20".into()) };
        let to = ProxyTarget::Address(([10, 1, 2, 3], 80).into());
        let made = request(&asked, &parts, &to, false, ()).expect("a request");
        assert_eq!(made.uri(), "/a%2Fb/../c?x=%20");
        let mut names: Vec<_> = made.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["cookie", "host", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-uri"]);
        assert_eq!(made.headers()["host"], "10.1.2.3:80");
    }
}
