//! What a request must look like to be passed on, and the head that the app is sent. Pure.
//!
//! Two servers that read one request differently are an attack's way in. So what has two readings is refused, and
//! what concerns only one connection stays on that connection.

use std::net::IpAddr;

use bytes::{BufMut, BytesMut};
use http::header::{self, HeaderMap, HeaderName};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{Method, StatusCode, Uri, Version};

use super::forwarded::{self, Peer};
use super::path;

/// Why the router rejects a request: the status and the message of its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestError(pub StatusCode, pub &'static str);

/// How the end of a request's body is told to the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// There is no body.
    None,
    /// Its length in bytes.
    Length(u64),
    /// Its length is not known beforehand.
    Chunked,
}

/// The host a request is for: in lower case, without port; empty where HTTP/1.0 names none. The request's path is
/// brought to its normal form.
pub fn accept(request: &mut Parts) -> Result<String, RequestError> {
    let refuse = |why| Err(RequestError(StatusCode::BAD_REQUEST, why));
    if request.method == Method::CONNECT {
        return Err(RequestError(StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not served here\n"));
    }
    check_coding(&request.headers)?;
    check_target(request)?;
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let named = match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return refuse("the request has more than one Host\n"),
        (Some(host), None) => match host.to_str().ok().and_then(split_host) {
            Some(host) => Some(host),
            None => return refuse("the Host is not a valid name\n"),
        },
        (None, _) => None,
    };
    let target = match request.uri.authority().map(|a| split_host(a.as_str())) {
        Some(None) => return refuse("the host of the request line is not a valid name\n"),
        Some(target) => target,
        None => None,
    };
    match (named, target) {
        (Some((name, port)), Some((other, other_port)))
            if !name.eq_ignore_ascii_case(other) || port.unwrap_or(80) != other_port.unwrap_or(80) =>
        {
            refuse("the Host is not the one of the request line\n")
        }
        (_, Some((host, _))) | (Some((host, _)), None) => Ok(host.to_ascii_lowercase()),
        (None, None) if request.version == Version::HTTP_10 => Ok(String::new()),
        (None, None) => refuse("the request has no Host\n"),
    }
}

/// Refuses every transfer coding but a single `chunked`: others cannot be decoded here, and a coding that is named twice
/// is read as one by some servers and as two by others.
fn check_coding(headers: &HeaderMap) -> Result<(), RequestError> {
    if !headers.contains_key(header::TRANSFER_ENCODING) {
        return Ok(());
    }
    if headers.contains_key(header::CONTENT_LENGTH) {
        let why = "the request has both Content-Length and Transfer-Encoding\n";
        return Err(RequestError(StatusCode::BAD_REQUEST, why));
    }
    let lines = headers.get_all(header::TRANSFER_ENCODING).iter();
    let codings = lines.map(|line| line.to_str().unwrap_or_default()).flat_map(|line| line.split(','));
    let (mut chunked, mut others) = (0, 0);
    codings.for_each(|c| if c.trim().eq_ignore_ascii_case("chunked") { chunked += 1 } else { others += 1 });
    match (chunked, others) {
        (1, 0) => Ok(()),
        (1, _) => Err(RequestError(
            StatusCode::NOT_IMPLEMENTED,
            "the only transfer coding that is served is chunked\n",
        )),
        _ => {
            Err(RequestError(StatusCode::BAD_REQUEST, "the request does not name the chunked coding once\n"))
        }
    }
}

/// Refuses request targets that are neither a path, nor a URI of HTTP, nor the asterisk of OPTIONS, and brings the path
/// to its normal form.
fn check_target(request: &mut Parts) -> Result<(), RequestError> {
    let refuse = |why| Err(RequestError(StatusCode::BAD_REQUEST, why));
    match (request.uri.scheme_str(), request.uri.authority()) {
        (None, None) | (Some("http" | "https"), Some(_)) => {}
        _ => return refuse("the request target is neither a path nor a URI of HTTP\n"),
    }
    let path = request.uri.path();
    if path == "*" {
        return match request.method {
            Method::OPTIONS => Ok(()),
            _ => refuse("only OPTIONS may ask for *\n"),
        };
    }
    let normal = match path::normalize(path)? {
        std::borrow::Cow::Borrowed(_) => return Ok(()),
        std::borrow::Cow::Owned(normal) => normal,
    };
    let target = match request.uri.query() {
        Some(query) => format!("{normal}?{query}"),
        None => normal,
    };
    let mut uri = std::mem::take(&mut request.uri).into_parts();
    uri.path_and_query = PathAndQuery::try_from(target).ok();
    match Uri::from_parts(uri) {
        Ok(uri) => request.uri = uri,
        Err(_) => return refuse("the path is not valid\n"),
    }
    Ok(())
}

/// The name and the port of a host; `None` where it holds what no host may.
fn split_host(host: &str) -> Option<(&str, Option<u16>)> {
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) && (!name.contains(':') || name.ends_with(']')) => (name, port),
        _ => (host, ""),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b);
    let port = if port.is_empty() { None } else { Some(port.parse().ok()?) };
    name.bytes().all(good).then_some((name, port))
}

/// The protocol that the client asks to change to, if it does. HTTP/1.0 cannot (RFC 9110, 7.8), and HTTP/2 over a tunnel
/// would carry requests that nobody here has looked at.
pub fn upgrade(request: &Parts) -> Option<String> {
    if request.version != Version::HTTP_11 {
        return None;
    }
    let protocol = request.headers.get(header::UPGRADE)?.to_str().ok()?;
    let asks = connection_options(&request.headers).any(|option| option.eq_ignore_ascii_case("upgrade"));
    let is_http = |p: &str| p.trim().to_ascii_lowercase().starts_with("h2");
    (asks && !protocol.split(',').any(is_http)).then(|| protocol.to_owned())
}

/// Whether the client waits for an interim 100 before it sends its body. HTTP/1.0 has none.
pub fn expects_continue(request: &Parts) -> bool {
    let expects = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    request.version == Version::HTTP_11 && request.headers.get(header::EXPECT).is_some_and(expects)
}

/// What `Connection` lists.
pub fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    lines.flat_map(|v| v.split(',')).map(str::trim)
}

/// Whether a header concerns one connection only (RFC 9110, 7.6.1), whether `Connection` lists it or not.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "upgrade"
            | "http2-settings"
    )
}

/// What a request is sent to the app with.
pub struct Sending<'a> {
    /// The peer of the client's connection.
    pub peer: Peer,
    /// The client's address as far as it is known.
    pub origin: IpAddr,
    /// How the end of the body is told.
    pub framing: BodyFraming,
    /// The protocol to change to.
    pub upgrade: Option<&'a str>,
}

/// The head of the HTTP/1.1 request that the app is sent: origin form, the Host kept, who asked for what, and nothing that
/// concerns the client's connection.
pub fn encode_head(request: &Parts, sending: &Sending<'_>) -> BytesMut {
    let headers = &request.headers;
    let host = request.uri.authority().map(Authority::as_str).map(str::as_bytes);
    let host = host.or_else(|| headers.get(header::HOST).map(|v| v.as_bytes())).unwrap_or_default();
    let mut out = BytesMut::with_capacity(512 + 64 * headers.len());
    out.put_slice(request.method.as_str().as_bytes());
    out.put_slice(b" ");
    out.put_slice(request.uri.path_and_query().map_or("/", PathAndQuery::as_str).as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
    // HTTP/1.0 may do without a Host, HTTP/1.1 may not.
    forwarded::line(&mut out, "host", &[host]);
    let listed: Vec<&str> = connection_options(headers)
        .filter(|o| {
            !["close", "keep-alive", "upgrade", "te"].iter().any(|known| o.eq_ignore_ascii_case(known))
        })
        .collect();
    for (name, value) in headers {
        if passes(name, request, sending.framing)
            && !listed.iter().any(|option| option.eq_ignore_ascii_case(name.as_str()))
        {
            forwarded::line(&mut out, name.as_str(), &[value.as_bytes()]);
        }
    }
    if request.version == Version::HTTP_2 {
        cookies(&mut out, headers);
    }
    match sending.framing {
        BodyFraming::Length(length) => {
            forwarded::line(&mut out, "content-length", &[length.to_string().as_bytes()]);
        }
        BodyFraming::Chunked => forwarded::line(&mut out, "transfer-encoding", &[b"chunked"]),
        // Without a length some servers wait for a body of these methods.
        BodyFraming::None if [Method::POST, Method::PUT, Method::PATCH].contains(&request.method) => {
            forwarded::line(&mut out, "content-length", &[b"0"]);
        }
        BodyFraming::None => {}
    }
    forwarded::write(&mut out, headers, host, sending.peer, sending.origin);
    if let Some(protocol) = sending.upgrade {
        forwarded::line(&mut out, "connection", &[b"upgrade"]);
        forwarded::line(&mut out, "upgrade", &[protocol.as_bytes()]);
    }
    out.put_slice(b"\r\n");
    out
}

/// Whether a header goes on as it is.
fn passes(name: &HeaderName, request: &Parts, framing: BodyFraming) -> bool {
    match name.as_str() {
        // Written by what was decided about them.
        "host" | "content-length" | "transfer-encoding" => false,
        // HTTP/2 has no interim answer that could be passed on here; HTTP/1.0 has none at all.
        "expect" => request.version == Version::HTTP_11 && framing != BodyFraming::None,
        "trailer" => framing == BodyFraming::Chunked,
        "cookie" => request.version != Version::HTTP_2,
        text if text.contains('_') => !stands_in(text, &request.headers),
        text => !is_hop_by_hop(name) && !forwarded::is_forwarding(text),
    }
}

/// Whether an app that reads headers as CGI names them (`HTTP_X_REAL_IP`) could take this one, which has an underscore, for
/// another that the router vouches for or that the request has as well.
fn stands_in(name: &str, headers: &HeaderMap) -> bool {
    let other = name.replace('_', "-");
    let framing = ["host", "content-length", "transfer-encoding", "expect", "trailer"];
    forwarded::is_forwarding(&other)
        || framing.contains(&other.as_str())
        || headers.contains_key(&other)
        || other.parse().is_ok_and(|other| is_hop_by_hop(&other))
}

/// HTTP/2 may send the cookies one by one; HTTP/1 has them on one line (RFC 9113, 8.2.3).
fn cookies(out: &mut BytesMut, headers: &HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    let Some(first) = cookies.next() else { return };
    out.put_slice(b"cookie: ");
    out.put_slice(first.as_bytes());
    for cookie in cookies {
        out.put_slice(b"; ");
        out.put_slice(cookie.as_bytes());
    }
    out.put_slice(b"\r\n");
}

/// Whether a trailer may be passed on: none that says how a message is framed, routed or where it came from (RFC 9110,
/// 6.5.1), since apps may merge trailers into the headers.
pub fn is_trailer(name: &HeaderName) -> bool {
    let text = name.as_str();
    let refused = [
        "host",
        "content-length",
        "transfer-encoding",
        "trailer",
        "expect",
        "authorization",
        "cookie",
        "set-cookie",
        "content-type",
        "content-encoding",
        "content-range",
    ];
    let hyphened = text.replace('_', "-");
    !refused.contains(&hyphened.as_str()) && !is_hop_by_hop(name) && !forwarded::is_forwarding(&hyphened)
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
        let chunked = ("transfer-encoding", "chunked");
        let rows: &[Row] = &[
            ("GET", "/", &[("host", "A.test:8080")], Ok("a.test")),
            ("GET", "/", &[("host", "a.test.")], Ok("a.test")),
            ("GET", "/", &[("host", "[::1]:80")], Ok("[::1]")),
            ("GET", "/", &[("host", "a"), ("host", "b")], Err(400)),
            ("GET", "/", &[], Err(400)),
            ("GET", "/", &[("host", "a/b")], Err(400)),
            ("GET", "/", &[("host", "a:99999")], Err(400)),
            ("GET", "http://a.test/x", &[("host", "a.test")], Ok("a.test")),
            ("GET", "http://a.test:80/x", &[("host", "A.test")], Ok("a.test")),
            ("GET", "http://a.test/x", &[("host", "b.test")], Err(400)),
            ("GET", "http://a.test/x", &[("host", "a.test:81")], Err(400)),
            ("GET", "http://x@a.test/x", &[("host", "x@a.test")], Err(400)),
            ("GET", "ftp://a.test/x", &[("host", "a.test")], Err(400)),
            ("GET", "a.test", &[("host", "a.test")], Err(400)),
            ("OPTIONS", "*", &[("host", "a.test")], Ok("a.test")),
            ("GET", "*", &[("host", "a.test")], Err(400)),
            ("GET", "/a/..%2fb", &[("host", "a.test")], Err(400)),
            ("POST", "/", &[("host", "a"), ("content-length", "1"), chunked], Err(400)),
            ("POST", "/", &[("host", "a"), chunked], Ok("a")),
            ("POST", "/", &[("host", "a"), ("transfer-encoding", " Chunked ")], Ok("a")),
            ("POST", "/", &[("host", "a"), chunked, chunked], Err(400)),
            ("POST", "/", &[("host", "a"), ("transfer-encoding", "chunked, chunked")], Err(400)),
            ("POST", "/", &[("host", "a"), ("transfer-encoding", "gzip, chunked")], Err(501)),
            ("POST", "/", &[("host", "a"), ("transfer-encoding", "identity")], Err(400)),
            ("POST", "/", &[("host", "a"), ("transfer-encoding", "")], Err(400)),
            ("CONNECT", "a.test:443", &[("host", "a.test:443")], Err(405)),
        ];
        for (method, uri, headers, expect) in rows {
            let found = accept(&mut parts(method, uri, headers)).map_err(|r| r.0.as_u16());
            assert_eq!(found.as_deref().map_err(|c| *c), *expect, "{method} {uri} {headers:?}");
        }
    }

    /// The request line and the headers that an app is sent, without those that say who asked.
    fn sent(mut request: Parts, framing: BodyFraming) -> Vec<String> {
        accept(&mut request).expect("a request that is passed on");
        let upgrade = upgrade(&request);
        let peer = Peer { address: [9, 9, 9, 9].into(), port: 8080, trusted: false };
        let sending = Sending { peer, origin: peer.address, framing, upgrade: upgrade.as_deref() };
        let head = String::from_utf8(encode_head(&request, &sending).to_vec()).expect("text");
        let (head, end) = head.split_at(head.len() - 4);
        assert_eq!(end, "\r\n\r\n");
        head.split("\r\n")
            .filter(|l| !l.starts_with("x-forwarded") && !l.contains("real-ip"))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn a_request_goes_on_without_what_concerns_its_connection() {
        type Row<'a> = (&'a [(&'a str, &'a str)], BodyFraming, &'a [&'a str]);
        let (none, chunked) = (BodyFraming::None, BodyFraming::Chunked);
        let rows: &[Row] = &[
            (
                &[("connection", "close, x-secret, host"), ("x-secret", "1"), ("x-kept", "2")],
                none,
                &["x-kept: 2"],
            ),
            (&[("te", "trailers"), ("proxy-authorization", "x"), ("keep-alive", "5")], none, &[]),
            (
                &[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")],
                none,
                &["connection: upgrade", "upgrade: websocket"],
            ),
            (&[("upgrade", "websocket")], none, &[]),
            (&[("connection", "upgrade"), ("upgrade", "h2c")], none, &[]),
            (&[("connection", "upgrade"), ("upgrade", "websocket, H2C")], none, &[]),
            (&[("content-length", "5")], BodyFraming::Length(5), &["content-length: 5"]),
            (
                &[("connection", "content-length"), ("content-length", "5")],
                BodyFraming::Length(5),
                &["content-length: 5"],
            ),
            (
                &[("transfer-encoding", "chunked"), ("trailer", "x-sum")],
                chunked,
                &["trailer: x-sum", "transfer-encoding: chunked"],
            ),
            (&[("expect", "100-continue")], chunked, &["expect: 100-continue", "transfer-encoding: chunked"]),
            (&[("expect", "100-continue")], none, &[]),
            (
                &[("x_forwarded_for", "1.2.3.4"), ("x_real_ip", "1"), ("forwarded_", "x")],
                none,
                &["forwarded_: x"],
            ),
            (
                &[("content_length", "5"), ("transfer_encoding", "chunked"), ("my_key", "x")],
                none,
                &["my_key: x"],
            ),
            (&[("x-user", "me"), ("x_user", "root")], none, &["x-user: me"]),
            (&[("proxy_authorization", "x")], none, &[]),
        ];
        for (headers, framing, expect) in rows {
            let mut all = vec![("host", "a.test")];
            all.extend(*headers);
            let lines = sent(parts("GET", "/x?y=1", &all), *framing);
            assert_eq!(lines[..2], ["GET /x?y=1 HTTP/1.1", "host: a.test"]);
            assert_eq!(lines[2..], **expect, "{headers:?}");
        }
    }

    #[test]
    fn a_request_goes_on_in_origin_form_and_with_the_normal_path() {
        for (method, uri, expect) in [
            ("GET", "http://a.test/x?y=1", &["GET /x?y=1 HTTP/1.1", "host: a.test"] as &[_]),
            ("GET", "http://a.test", &["GET / HTTP/1.1", "host: a.test"]),
            ("GET", "/a/../b//c?d=/../e", &["GET /b/c?d=/../e HTTP/1.1", "host: a.test"]),
            ("POST", "/", &["POST / HTTP/1.1", "host: a.test", "content-length: 0"]),
            ("OPTIONS", "*", &["OPTIONS * HTTP/1.1", "host: a.test"]),
        ] {
            let request = parts(method, uri, &[("host", "a.test")]);
            assert_eq!(sent(request, BodyFraming::None), expect, "{method} {uri}");
        }
    }

    #[test]
    fn cookies_of_http_2_go_on_one_line() {
        let mut request = parts("GET", "http://a.test/", &[("cookie", "a=1"), ("cookie", "b=2")]);
        request.version = Version::HTTP_2;
        assert_eq!(sent(request, BodyFraming::None), ["GET / HTTP/1.1", "host: a.test", "cookie: a=1; b=2"]);
    }
}
