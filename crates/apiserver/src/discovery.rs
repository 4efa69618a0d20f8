//! Discovery: version, health, groups and resources, OpenAPI.

use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH};
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::aggregation;
use crate::content::{self, Body};
use crate::metrics;
use crate::object::encode;
use crate::openapi::{self, v2::Encoding};
use crate::request::ServerRequest;
use crate::resource::{Resource, Resources};
use crate::schema::{Name, api_version};
use crate::server::{Inner, off_worker};
use crate::status::{Failure, Result};
use crate::tokens::{ALGORITHM, Issuer};

/// The version of Kubernetes whose API is served.
pub const KUBERNETES_VERSION: (&str, &str) = ("1", "36");

const JSON: &str = "application/json";

/// Answers a request on the server itself.
pub(crate) fn answer(server: &Inner, asked: &ServerRequest, headers: &HeaderMap) -> Result<Response<Body>> {
    let served = server.registry.current();
    let value = match asked {
        ServerRequest::Root => json!({"paths": paths(&served)}),
        ServerRequest::Version => version(),
        ServerRequest::Health => return Ok(health(server)),
        ServerRequest::Metrics => {
            let mut response = content::json(200, Body::Full(Some(server.metrics_text().into())));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::MEDIA_TYPE));
            return Ok(response);
        }
        ServerRequest::CoreVersions => match aggregated(headers) {
            Some(version) => {
                let core = [(Name::Borrowed(""), vec![Name::Borrowed("v1")])];
                return Ok(aggregated_answer(&served, version, &core, headers));
            }
            None => core_versions(),
        },
        ServerRequest::Groups => match aggregated(headers) {
            Some(version) => return Ok(aggregated_answer(&served, version, &served.groups(), headers)),
            None => {
                let groups: Vec<_> = served.groups().iter().map(|(g, versions)| group(g, versions)).collect();
                json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
            }
        },
        ServerRequest::Group(name) => {
            let groups = served.groups();
            let (name, versions) =
                groups.iter().find(|(g, _)| g == name).ok_or_else(Failure::no_such_resource)?;
            let mut group = group(name, versions);
            group["kind"] = "APIGroup".into();
            group["apiVersion"] = "v1".into();
            group
        }
        ServerRequest::Resources { group, version } => resource_list(&served, group, version)?,
        ServerRequest::OpenApiV2 => return Ok(openapi_v2(&served, headers)),
        ServerRequest::OpenApiIndex => openapi::index(&served),
        ServerRequest::OpenIdConfiguration => {
            return Ok(open_id(&open_id_configuration(server), "application/json"));
        }
        ServerRequest::JsonWebKeys => {
            return Ok(open_id(&server.issuer.keys.json_web_keys(), "application/jwk-set+json"));
        }
        ServerRequest::OpenApi { group, version } => {
            let tag = openapi::tag(&served, group, version).ok_or_else(Failure::no_such_resource)?;
            let make = || openapi::document(&served, group, version).unwrap_or_default();
            return Ok(tagged(&tag, JSON, make, headers));
        }
    };
    Ok(content::value(200, &value))
}

fn paths(served: &Resources) -> Vec<String> {
    let first = ["/.well-known/openid-configuration", "/api", "/api/v1", "/apis"];
    let mut paths: Vec<String> = first.map(str::to_owned).into();
    for (group, versions) in served.groups() {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
    }
    let last = ["/healthz", "/livez", "/metrics", "/openapi/v3", "/openid/v1/jwks", "/readyz", "/version"];
    paths.extend(last.map(str::to_owned));
    paths
}

/// The part of OpenID Connect Discovery 1.0 by which others verify tokens of ServiceAccounts.
fn open_id_configuration(server: &Inner) -> Value {
    let Issuer { url, .. } = &server.issuer;
    let base = server.config.advertise.map_or_else(|| url.clone(), |address| format!("https://{address}"));
    json!({
        "issuer": url, "jwks_uri": format!("{base}{}", ServerRequest::JsonWebKeys.path()),
        "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
    })
}

/// A document about tokens, which may be kept for an hour, as with kube-apiserver.
fn open_id(value: &Value, media: &'static str) -> Response<Body> {
    let mut response = content::value(200, value);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

fn version() -> Value {
    let (major, minor) = KUBERNETES_VERSION;
    json!({
        "major": major, "minor": minor,
        "gitVersion": format!("v{major}.{minor}.0+yado.{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, architecture()),
    })
}

/// Go's word for this machine's architecture.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn health(server: &Inner) -> Response<Body> {
    let (code, text) = match () {
        () if server.stop.is_cancelled() => (503, "shutting down"),
        () if !server.cache.is_fed() => (503, "the store cannot be read"),
        () => (200, "ok"),
    };
    let mut response = content::json(code, Body::Full(Some(text.into())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn core_versions() -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
    })
}

fn group(name: &str, versions: &[Name]) -> Value {
    let version = |version: &Name| json!({"groupVersion": api_version(name, version), "version": version});
    let versions: Vec<_> = versions.iter().map(version).collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

fn resource_list(served: &Resources, group: &str, version: &str) -> Result<Value> {
    let mut resources = Vec::new();
    for r in served.of_version(group, version) {
        let mut row = json!({
            "name": r.plural, "singularName": r.singular, "namespaced": r.namespaced, "kind": r.kind, "verbs": r.verbs(),
        });
        if !r.short_names.is_empty() {
            row["shortNames"] = json!(r.short_names);
        }
        if !r.categories.is_empty() {
            row["categories"] = json!(r.categories);
        }
        resources.push(row);
        for s in &r.subresources {
            let mut row = json!({
                "name": format!("{}/{}", r.plural, s.name()), "singularName": "", "namespaced": r.namespaced,
                "kind": r.kind, "verbs": s.verbs(),
            });
            if let Some((group, version, kind)) = s.kind(&r.plural) {
                row["kind"] = kind.into();
                if !group.is_empty() {
                    row["group"] = group.into();
                    row["version"] = version.into();
                }
            }
            resources.push(row);
        }
    }
    if resources.is_empty() {
        return Err(Failure::no_such_resource());
    }
    Ok(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version(group, version),
        "resources": resources,
    }))
}

/// The version of aggregated discovery that the client asks for, if it does.
fn aggregated(headers: &HeaderMap) -> Option<&'static str> {
    let accept = headers.get(ACCEPT)?.to_str().ok()?;
    for media in accept.split(',') {
        let has = |word: &str| media.split(';').any(|p| p.trim() == word);
        if has("g=apidiscovery.k8s.io") && has("as=APIGroupDiscoveryList") {
            match () {
                () if has("v=v2") => return Some("v2"),
                () if has("v=v2beta1") => return Some("v2beta1"),
                () => {}
            }
        } else if media.trim() == "application/json" {
            return None;
        }
    }
    None
}

fn aggregated_answer(
    served: &Resources,
    version: &'static str,
    groups: &[(Name, Vec<Name>)],
    headers: &HeaderMap,
) -> Response<Body> {
    let items: Vec<_> = groups
        .iter()
        .map(|(group, versions)| {
            let version = |version: &Name| {
                if let Some(service) = served.aggregated(group, version) {
                    let freshness = if service.is_available { "Current" } else { "Stale" };
                    let resources = aggregation::discovered(service);
                    return json!({"version": version, "resources": resources, "freshness": freshness});
                }
                let resources = served.of_version(group, version).map(|r| aggregated_resource(r));
                json!({"version": version, "resources": resources.collect::<Vec<_>>(), "freshness": "Current"})
            };
            let versions: Vec<_> = versions.iter().map(version).collect();
            let mut metadata = json!({"creationTimestamp": null});
            if !group.is_empty() {
                metadata["name"] = json!(group);
            }
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {},
        "items": items,
    });
    let list: Vec<u8> = encode(&list).into();
    let tag = hex::encode_upper(Sha256::digest(&list));
    let mut response = tagged(&tag, JSON, || list, headers);
    if response.status() == StatusCode::OK {
        let kind = match version {
            "v2" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            _ => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    response.headers_mut().insert(http::header::VARY, HeaderValue::from_static("Accept"));
    response
}

fn aggregated_resource(r: &Resource) -> Value {
    let kind =
        |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let own = kind(&r.group, &r.version, &r.kind);
    let mut row = json!({
        "resource": r.plural, "responseKind": own, "scope": if r.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": r.singular, "verbs": r.verbs(),
    });
    if !r.short_names.is_empty() {
        row["shortNames"] = json!(r.short_names);
    }
    if !r.categories.is_empty() {
        row["categories"] = json!(r.categories);
    }
    let subresources: Vec<_> = r
        .subresources
        .iter()
        .map(|s| {
            let response = s.kind(&r.plural).map_or_else(|| own.clone(), |(g, v, k)| kind(g, v, k));
            json!({"subresource": s.name(), "responseKind": response, "verbs": s.verbs()})
        })
        .collect();
    if !subresources.is_empty() {
        row["subresources"] = subresources.into();
    }
    row
}

/// OpenAPI v2, in JSON or as Go clients ask for it.
fn openapi_v2(served: &Resources, headers: &HeaderMap) -> Response<Body> {
    const ASKED: [&str; 2] = [
        "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
        "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
    ];
    // Not the first type that is asked for: an `@` has no place in one, and clients refuse it.
    const PROTOBUF: &str = ASKED[1];
    let accepted = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let (encoding, media) = match ASKED.iter().any(|asked| accepted.contains(asked)) {
        true => (Encoding::Protobuf, PROTOBUF),
        false => (Encoding::Json, JSON),
    };
    let make = || off_worker(usize::MAX, || openapi::v2::document(served, encoding));
    tagged(&openapi::v2::tag(served, encoding), media, make, headers)
}

/// An answer with an ETag; 304 where the client has it, and then nothing is made.
fn tagged(
    tag: &str,
    media: &'static str,
    make: impl FnOnce() -> Vec<u8>,
    asked: &HeaderMap,
) -> Response<Body> {
    let tag = format!("\"{tag}\"");
    let known = asked.get(IF_NONE_MATCH).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains(&tag));
    let body = if known { Body::empty() } else { Body::Full(Some(make().into())) };
    let mut response = content::json(if known { 304 } else { 200 }, body);
    let headers = response.headers_mut();
    // Without a Content-Type where nothing is sent: clients would take it for that of what they have.
    headers.remove(CONTENT_TYPE);
    if !known {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    }
    // Letters and digits in quotes are a valid header.
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    response
}
