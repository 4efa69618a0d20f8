//! What a request must look like to be passed on, and what is changed in it. Pure.
//!
//! Two servers that read one request differently are an attack's way in. So what has two readings is refused, and
//! what concerns only one connection stays on that connection.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode, Uri, Version};

/// Who sent a request.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// The other end of the connection.
    pub address: IpAddr,
    /// The port it came to.
    pub port: u16,
}

/// Why a request goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal(pub StatusCode, pub &'static str);

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Headers that concern one connection (RFC 9110 section 7.6.1), whether `Connection` lists them or not.
static HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
];

/// The host a request is for: in lower case, without port; empty where HTTP/1.0 names none.
pub fn host(request: &Parts) -> Result<String, Refusal> {
    let refuse = |why| Err(Refusal(StatusCode::BAD_REQUEST, why));
    if request.method == Method::CONNECT {
        return Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not served here\n"));
    }
    let headers = &request.headers;
    if headers.contains_key(header::TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH) {
        return refuse("the request has both Content-Length and Transfer-Encoding\n");
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let named = match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return refuse("the request has more than one Host\n"),
        (Some(host), None) => match host.to_str() {
            Ok(host) => Some(host),
            Err(_) => return refuse("the Host is no name\n"),
        },
        (None, _) => None,
    };
    let authority = request.uri.authority().map(|a| a.as_str());
    match (named, authority) {
        (Some(named), Some(authority)) if !named.eq_ignore_ascii_case(authority) => {
            refuse("the Host is not the one of the request line\n")
        }
        (Some(host), _) | (None, Some(host)) => match plain(host) {
            Some(host) => Ok(host.to_ascii_lowercase()),
            None => refuse("the Host is no name\n"),
        },
        (None, None) if request.version == Version::HTTP_10 => Ok(String::new()),
        (None, None) => refuse("the request has no Host\n"),
    }
}

/// The host without its port; `None` where it holds what no host may.
fn plain(host: &str) -> Option<&str> {
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) && (!name.contains(':') || name.ends_with(']')) => name,
        _ => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b);
    name.bytes().all(good).then_some(name)
}

/// The protocol that the client asks to change to, if it does. HTTP/1.0 cannot (RFC 9110 section 7.8), and HTTP/2
/// over a tunnel would carry requests that nobody here has looked at.
pub fn upgrade(request: &Parts) -> Option<HeaderValue> {
    if request.version != Version::HTTP_11 {
        return None;
    }
    let asks = request.headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    let asks = asks.flat_map(|v| v.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    let protocol = request.headers.get(header::UPGRADE).filter(|_| asks)?;
    let is_http = |p: &str| p.trim().to_ascii_lowercase().starts_with("h2");
    let text = protocol.to_str().ok()?;
    (!text.split(',').any(is_http)).then(|| protocol.clone())
}

/// Removes what concerns the connection it came on, with everything that `Connection` lists.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let listed = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
        let listed: Vec<HeaderName> =
            listed.flat_map(|v| v.split(',')).filter_map(|name| name.trim().parse().ok()).collect();
        for name in listed {
            // Not even a client's `Connection: host` takes away what routes were chosen by.
            if name != header::HOST && name != header::CONTENT_LENGTH && name != header::TRANSFER_ENCODING {
                headers.remove(name);
            }
        }
    }
    HOP_BY_HOP.iter().for_each(|name| _ = headers.remove(name));
}

/// Prepares a request for an endpoint: origin form, the Host kept, and who asked for what.
pub fn prepare(request: &mut Parts, client: Client) {
    let upgrade = upgrade(request);
    remove_hop_by_hop(&mut request.headers);
    if let Some(protocol) = upgrade {
        request.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        request.headers.insert(header::UPGRADE, protocol);
    }
    if request.uri.authority().is_some() {
        let authority = request.uri.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
        if let Some(authority) = authority {
            request.headers.entry(header::HOST).or_insert(authority);
        }
        let origin = request.uri.path_and_query().map_or("/", |p| p.as_str());
        // A path and query taken from a URI is one again.
        request.uri = origin.parse().unwrap_or_else(|_| Uri::from_static("/"));
    }
    request.version = Version::HTTP_11;
    let headers = &mut request.headers;
    let address = client.address.to_string();
    let chain = headers.get_all(&X_FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok()).collect::<Vec<_>>();
    let chain = if chain.is_empty() { address.clone() } else { format!("{}, {address}", chain.join(", ")) };
    let mut set = |name, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    set(X_FORWARDED_FOR, &chain);
    set(X_REAL_IP, &address);
    set(X_FORWARDED_PROTO, "http");
    set(X_FORWARDED_PORT, &client.port.to_string());
    match headers.get(header::HOST).cloned() {
        Some(host) => _ = headers.insert(X_FORWARDED_HOST, host),
        // HTTP/1.0 may do without; the HTTP/1.1 that the endpoint is spoken to in may not.
        None => _ = headers.insert(header::HOST, HeaderValue::from_static("")),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn what_has_two_readings_is_refused() {
        type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], Result<&'a str, u16>);
        let rows: &[Row] = &[
            ("GET", "/", &[("host", "A.test:8080")], Ok("a.test")),
            ("GET", "/", &[("host", "a.test.")], Ok("a.test")),
            ("GET", "/", &[("host", "[::1]:80")], Ok("[::1]")),
            ("GET", "/", &[("host", "a"), ("host", "b")], Err(400)),
            ("GET", "/", &[], Err(400)),
            ("GET", "/", &[("host", "a/b")], Err(400)),
            ("GET", "http://a.test/x", &[("host", "a.test")], Ok("a.test")),
            ("GET", "http://a.test/x", &[("host", "b.test")], Err(400)),
            (
                "POST",
                "/",
                &[("host", "a"), ("content-length", "1"), ("transfer-encoding", "chunked")],
                Err(400),
            ),
            ("CONNECT", "a.test:443", &[("host", "a.test:443")], Err(405)),
        ];
        for (method, uri, headers, expect) in rows {
            let found = host(&parts(method, uri, headers)).map_err(|r| r.0.as_u16());
            assert_eq!(found.as_deref().map_err(|c| *c), *expect, "{method} {uri} {headers:?}");
        }
    }

    #[test]
    fn a_request_goes_on_in_origin_form_with_who_asked() {
        let mut request = parts(
            "GET",
            "http://a.test/x?y=1",
            &[
                ("connection", "close, x-secret, host"),
                ("x-secret", "1"),
                ("te", "trailers"),
                ("host", "a.test"),
                ("x-forwarded-for", "1.2.3.4"),
                ("x-forwarded-proto", "https"),
            ],
        );
        prepare(&mut request, Client { address: [9, 9, 9, 9].into(), port: 8080 });
        assert_eq!(request.uri, "/x?y=1");
        let mut headers: Vec<_> =
            request.headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap_or_default())).collect();
        headers.sort();
        assert_eq!(
            headers,
            [
                "host: a.test",
                "x-forwarded-for: 1.2.3.4, 9.9.9.9",
                "x-forwarded-host: a.test",
                "x-forwarded-port: 8080",
                "x-forwarded-proto: http",
                "x-real-ip: 9.9.9.9"
            ]
        );
        let mut upgrading = parts(
            "GET",
            "/",
            &[("host", "a"), ("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")],
        );
        prepare(&mut upgrading, Client { address: [9, 9, 9, 9].into(), port: 80 });
        assert_eq!(upgrading.headers[header::CONNECTION], "upgrade");
        assert_eq!(upgrading.headers[header::UPGRADE], "websocket");
        for protocol in ["h2c", "websocket, H2C"] {
            let headers = [("host", "a"), ("connection", "upgrade"), ("upgrade", protocol)];
            let mut tunnelling = parts("GET", "/", &headers);
            prepare(&mut tunnelling, Client { address: [9, 9, 9, 9].into(), port: 80 });
            assert!(!tunnelling.headers.contains_key(header::UPGRADE), "{protocol}");
        }
    }
}
