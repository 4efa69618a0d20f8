//! Requests for aggregated API servers: who asks is told in headers, which they believe by the front proxy's certificate.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{Response, Uri};
use hyper::upgrade::OnUpgrade;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rand::seq::IndexedRandom;
use serde_json::Value;

use super::Aggregated;
use super::availability::{endpoints, host};
use crate::content::{Body, BoxError};
use crate::edit::text;
use crate::identity::Identity;
use crate::proxy::handed_on;
use crate::server::Inner;
use crate::status::{Failure, Result};
use crate::tls::{self, Client, Trust};

/// A server that does not take a connection within this time is taken for unreachable.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Headers that say who asks. Those of a client are never handed on.
const REMOTE: &str = "x-remote-";
/// Characters of an extra key that no header's name can hold.
const NOT_IN_NAMES: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

impl Inner {
    /// The certificate with which aggregated servers are spoken to.
    pub(super) fn front_proxy(&self) -> Option<Client<'_>> {
        self.config.front_proxy.as_ref().map(|proxy| (&*proxy.certificate, &*proxy.key))
    }

    /// Has an aggregated server, which the `spec` of its APIService names, answer a request as `who`.
    pub(crate) async fn ask_aggregated<B>(
        &self,
        service: &Aggregated,
        spec: &Value,
        who: &Identity,
        parts: &mut Parts,
        body: B,
    ) -> Result<Response<Body>>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let unavailable = |why: &dyn std::fmt::Display| {
            tracing::debug!(group = %service.group, version = %service.version, %why, "an aggregated API server is not available");
            let message = "the server is currently unable to handle the request";
            Failure::new(503, "ServiceUnavailable", message)
        };
        if !service.is_available {
            return Err(unavailable(&"its last check failed"));
        }
        self.fresh().await?;
        let addresses = endpoints(self, spec).map_err(|found| unavailable(&found.message))?;
        let address = addresses.choose(&mut rand::rng()).copied();
        let address = address.ok_or_else(|| unavailable(&"it has no endpoint"))?;
        let trust = match spec["insecureSkipTLSVerify"] == true {
            true => Trust::Anybody,
            false => Trust::bundle(text(&spec["caBundle"])).map_err(|e| unavailable(&e))?,
        };
        let upgrade = parts.headers.contains_key(UPGRADE).then(|| parts.extensions.remove::<OnUpgrade>());
        let host = host(spec);
        let request = request(parts, who, &host, upgrade.is_some(), body)?;
        let stream = tokio::select! {
            stream = tls::connect((&host, address.port()), Some(address), trust, self.front_proxy()) => {
                stream.map_err(|e| unavailable(&e))?
            }
            () = self.clock.sleep(DIAL_TIMEOUT) => return Err(unavailable(&"it does not answer")),
        };
        self.relay(stream, request, upgrade.flatten(), unavailable).await
    }
}

/// The request that an aggregated server gets.
fn request<B>(
    parts: &Parts,
    who: &Identity,
    host: &str,
    switches: bool,
    body: B,
) -> Result<http::Request<B>> {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let uri: Uri = path.parse().map_err(Failure::internal)?;
    let mut request = http::Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = uri;
    let mut headers = handed_on(&parts.headers, switches);
    headers.remove(AUTHORIZATION);
    let of_the_client: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("impersonate-") || name.as_str().starts_with(REMOTE))
        .cloned()
        .collect();
    for name in of_the_client {
        headers.remove(name);
    }
    identify(&mut headers, who)?;
    headers.insert(HOST, HeaderValue::try_from(host).map_err(Failure::internal)?);
    *request.headers_mut() = headers;
    Ok(request)
}

/// Adds the headers that say who asks.
fn identify(headers: &mut HeaderMap, who: &Identity) -> Result<()> {
    let value = |text: &str| HeaderValue::try_from(text).map_err(Failure::internal);
    headers.insert("x-remote-user", value(&who.user)?);
    if !who.uid.is_empty() {
        headers.insert("x-remote-uid", value(&who.uid)?);
    }
    for group in &who.groups {
        headers.append("x-remote-group", value(group)?);
    }
    for (key, values) in &who.extra {
        let name = format!("x-remote-extra-{}", utf8_percent_encode(key, NOT_IN_NAMES));
        let name = HeaderName::try_from(name).map_err(Failure::internal)?;
        for text in values {
            headers.append(name.clone(), value(text)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_who_asks_and_nothing_that_the_client_says_of_it() {
        let mut original = http::Request::get("https://h/apis/metrics.k8s.io/v1beta1/nodes?limit=5");
        for (name, value) in [
            ("authorization", "Bearer secret"),
            ("x-remote-user", "system:admin"),
            ("x-remote-extra-scopes", "all"),
            ("impersonate-user", "bob"),
            ("accept", "application/json"),
            ("connection", "close"),
        ] {
            original = original.header(name, value);
        }
        let (parts, ()) = original.body(()).expect("a request").into_parts();
        let mut who =
            Identity { user: "jane".into(), groups: vec!["a".into(), "b".into()], ..Identity::default() };
        who.extra.insert("example.com/key".into(), vec!["v".into()]);
        let made = request(&parts, &who, "metrics-server.kube-system.svc", false, ()).expect("a request");
        assert_eq!(made.uri(), "/apis/metrics.k8s.io/v1beta1/nodes?limit=5");
        let mut headers: Vec<String> = made
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or_default()))
            .collect();
        headers.sort_unstable();
        assert_eq!(
            headers,
            [
                "accept: application/json",
                "host: metrics-server.kube-system.svc",
                "x-remote-extra-example.com%2fkey: v",
                "x-remote-group: a",
                "x-remote-group: b",
                "x-remote-user: jane",
            ]
        );
    }
}
