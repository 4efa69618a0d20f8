//! A request's line and headers, read into one typed value before anything acts on it.

mod aggregated;
mod options;
mod query;

pub use aggregated::{AggregatedRequest, AskedResource};
pub use options::{DeleteOptions, ListOptions, Propagation, VersionMatch, WatchOptions, WriteOptions};
pub use query::Query;

use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, Method};

use crate::content::YAML;
use crate::proxy::ProxyRequest;
use std::sync::Arc;

use crate::resource::{Resource, Resources, Subresource};
use crate::status::{Failure, Result};
use crate::table::IncludeObject;

/// A parsed request.
#[derive(Debug)]
pub enum Request {
    /// Something about the server itself.
    Server(ServerRequest),
    /// An object or a collection of them.
    Api(Box<ApiRequest>),
    /// Whatever an aggregated API server answers.
    Aggregated(AggregatedRequest),
}

/// Paths that are no resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerRequest {
    /// `/`, the list of paths.
    Root,
    /// `/version`.
    Version,
    /// `/healthz`, `/livez`, `/readyz`.
    Health,
    /// `/metrics`.
    Metrics,
    /// `/api`.
    CoreVersions,
    /// `/apis`.
    Groups,
    /// `/apis/GROUP`.
    Group(String),
    /// `/api/v1` and `/apis/GROUP/VERSION`.
    Resources {
        /// Empty for the core group.
        group: String,
        /// `v1`.
        version: String,
    },
    /// `/openapi/v2`.
    OpenApiV2,
    /// `/openapi/v3`.
    OpenApiIndex,
    /// `/openapi/v3/...`.
    OpenApi {
        /// The document's group; empty for the core group.
        group: String,
        /// The document's version.
        version: String,
    },
    /// `/.well-known/openid-configuration`: how to verify tokens of ServiceAccounts.
    OpenIdConfiguration,
    /// `/openid/v1/jwks`: the public keys of these tokens.
    JsonWebKeys,
}

impl ServerRequest {
    /// The answer is an object, which is written in JSON or YAML.
    fn is_object(&self) -> bool {
        match self {
            Self::Version | Self::CoreVersions | Self::Groups | Self::Group(_) | Self::Resources { .. } => {
                true
            }
            Self::Root
            | Self::Health
            | Self::Metrics
            | Self::OpenApiV2
            | Self::OpenApiIndex
            | Self::OpenApi { .. }
            | Self::OpenIdConfiguration
            | Self::JsonWebKeys => false,
        }
    }

    /// Its path, in which capitals stand for what differs.
    pub fn path(&self) -> &'static str {
        match self {
            Self::Root => "/",
            Self::Version => "/version",
            Self::Health => "/healthz",
            Self::Metrics => "/metrics",
            Self::CoreVersions => "/api",
            Self::Groups => "/apis",
            Self::Group(_) => "/apis/GROUP",
            Self::Resources { .. } => "/apis/GROUP/VERSION",
            Self::OpenApiV2 => "/openapi/v2",
            Self::OpenApiIndex => "/openapi/v3",
            Self::OpenApi { .. } => "/openapi/v3/GROUP/VERSION",
            Self::OpenIdConfiguration => "/.well-known/openid-configuration",
            Self::JsonWebKeys => "/openid/v1/jwks",
        }
    }
}

/// A request on the API.
#[derive(Debug)]
pub struct ApiRequest {
    /// The addressed collection.
    pub resource: Arc<Resource>,
    /// The part of the object.
    pub subresource: Option<Subresource>,
    /// Empty for all Namespaces and for kinds without one.
    pub namespace: String,
    /// Empty for the collection.
    pub name: String,
    /// The verb, with its options.
    pub verb: Verb,
    /// The form of objects in the answer.
    pub form: Form,
}

/// A verb with its options.
#[derive(Debug)]
pub enum Verb {
    /// One object; of at least this revision if given.
    Get {
        /// The oldest revision that will do.
        resource_version: Option<u64>,
    },
    /// A collection.
    List(ListOptions),
    /// Changes of a collection, or of one object.
    Watch(WatchOptions),
    /// A new object.
    Create(WriteOptions),
    /// The whole object.
    Update(WriteOptions),
    /// A part of the object.
    Patch(PatchKind, WriteOptions),
    /// Options of the query; the body may hold more.
    Delete(DeleteOptions),
    /// Every object of a selection.
    DeleteCollection(ListOptions, DeleteOptions),
    /// A stream to or from the object's node: the parameters as they came.
    Connect(Query),
    /// A request to a port of the object.
    Proxy(ProxyRequest),
}

impl Verb {
    /// The word that authorisation rules use.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Get { .. } => "get",
            Self::List(_) => "list",
            Self::Watch(_) => "watch",
            Self::Create(_) => "create",
            Self::Update(_) => "update",
            Self::Patch(..) => "patch",
            Self::Delete(_) => "delete",
            Self::DeleteCollection(..) => "deletecollection",
            Self::Connect(_) => "get",
            Self::Proxy(asked) => asked.verb,
        }
    }

    /// Everything is done but writing.
    pub fn is_dry_run(&self) -> bool {
        match self {
            Self::Create(options) | Self::Update(options) | Self::Patch(_, options) => options.dry_run,
            Self::Delete(options) | Self::DeleteCollection(_, options) => options.dry_run,
            Self::Get { .. } | Self::List(_) | Self::Watch(_) | Self::Connect(_) | Self::Proxy(_) => false,
        }
    }
}

/// How the body of a PATCH is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' own: lists are merged by key.
    Strategic,
    /// Server-side apply; the body is YAML or JSON.
    Apply,
}

/// The form of objects in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As they are.
    Object,
    /// Rows of columns.
    Table(IncludeObject),
    /// Their metadata alone.
    Metadata,
}

impl Request {
    /// Reads a request. Its path decides which of `served` is meant, its method what to do with it.
    pub fn parse(
        served: &Resources,
        method: &Method,
        path: &str,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Self> {
        let (path, proxied) = split_proxied(path);
        let segments = segments(path)?;
        let words: Vec<&str> = segments.iter().map(String::as_str).collect();
        let get = |request: ServerRequest| {
            if !matches!(*method, Method::GET | Method::HEAD) {
                Err(Failure::method_not_allowed())
            } else if request.is_object() && !accepts_objects(headers) {
                Err(Failure::not_acceptable())
            } else {
                Ok(Self::Server(request))
            }
        };
        if let Some(asked) = AggregatedRequest::parse(served, &words, method, query) {
            return Ok(Self::Aggregated(asked));
        }
        if let Some(proxied) = proxied {
            return Self::parse_proxied(served, &words, proxied, method, query);
        }
        match words.as_slice() {
            [] => get(ServerRequest::Root),
            ["version"] => get(ServerRequest::Version),
            ["healthz" | "livez" | "readyz", ..] => get(ServerRequest::Health),
            ["metrics"] => get(ServerRequest::Metrics),
            [".well-known", "openid-configuration"] => get(ServerRequest::OpenIdConfiguration),
            ["openid", "v1", "jwks"] => get(ServerRequest::JsonWebKeys),
            ["api"] => get(ServerRequest::CoreVersions),
            ["apis"] => get(ServerRequest::Groups),
            ["api", version] => {
                get(ServerRequest::Resources { group: String::new(), version: (*version).into() })
            }
            ["apis", group] => get(ServerRequest::Group((*group).into())),
            ["apis", group, version] => {
                get(ServerRequest::Resources { group: (*group).into(), version: (*version).into() })
            }
            ["openapi", "v2"] => get(ServerRequest::OpenApiV2),
            ["openapi", "v3"] => get(ServerRequest::OpenApiIndex),
            ["openapi", "v3", "api", version] => {
                get(ServerRequest::OpenApi { group: String::new(), version: (*version).into() })
            }
            ["openapi", "v3", "apis", group, version] => {
                get(ServerRequest::OpenApi { group: (*group).into(), version: (*version).into() })
            }
            ["api", version, rest @ ..] => {
                Self::parse_api((served, "", version), rest, method, query, headers)
            }
            ["apis", group, version, rest @ ..] => {
                Self::parse_api((served, group, version), rest, method, query, headers)
            }
            _ => Err(Failure::no_such_resource()),
        }
    }

    /// Whether its response is a stream that lasts as long as its client likes.
    pub fn is_long(&self) -> bool {
        match self {
            Self::Api(r) => self.is_stream() || matches!(r.verb, Verb::Watch(_)),
            Self::Aggregated(asked) => asked.verb == "watch",
            Self::Server(_) => false,
        }
    }

    /// Whether it opens a stream to a node or to a program in a Pod, which lasts as long as its client likes.
    pub fn is_stream(&self) -> bool {
        matches!(self, Self::Api(r) if matches!(r.verb, Verb::Connect(_) | Verb::Proxy(_)))
    }

    fn parse_proxied(
        served: &Resources,
        words: &[&str],
        path: &str,
        method: &Method,
        query: Option<&str>,
    ) -> Result<Self> {
        let verb = match *method {
            Method::GET | Method::HEAD | Method::OPTIONS => "get",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => return Err(Failure::method_not_allowed()),
        };
        let rest = words.get(2..).unwrap_or_default();
        let target = Target::parse(served, "", "v1", rest).ok_or_else(Failure::no_such_resource)?;
        let asked = ProxyRequest { verb, path: path.to_owned(), query: query.map(str::to_owned) };
        let Target { resource, subresource, namespace, name } = target;
        let (verb, form) = (Verb::Proxy(asked), Form::Object);
        Ok(Self::Api(Box::new(ApiRequest { resource, subresource, namespace, name, verb, form })))
    }

    fn parse_api(
        (served, group, version): (&Resources, &str, &str),
        rest: &[&str],
        method: &Method,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Self> {
        let target = Target::parse(served, group, version, rest).ok_or_else(Failure::no_such_resource)?;
        let query = Query::parse(query.unwrap_or_default());
        let wanted = form(headers, &query);
        let verb = target.verb(method, query, headers)?;
        if matches!(verb, Verb::Watch(_)) && wants_yaml(headers) {
            // YAML has no way to tell where an event ends.
            return Err(Failure::not_acceptable());
        }
        // What a node streams has the node's own type.
        let form = if matches!(verb, Verb::Connect(_)) { Form::Object } else { wanted? };
        let Target { resource, subresource, namespace, name } = target;
        Ok(Self::Api(Box::new(ApiRequest { resource, subresource, namespace, name, verb, form })))
    }
}

/// The part of a path up to `/proxy`, and what follows, which is for another program to read: it may be anything.
fn split_proxied(path: &str) -> (&str, Option<&str>) {
    // Asked of every request: nothing is allocated.
    let mut words = [""; 8];
    words.iter_mut().zip(path.split('/')).for_each(|(word, found)| *word = found);
    let named = match words.as_slice() {
        ["", "api", "v1", "namespaces", _, "pods" | "services", _, "proxy", ..] => 7,
        ["", "api", "v1", "nodes", _, "proxy", ..] => 5,
        _ => return (path, None),
    };
    // `named` is the place of `proxy`, and so many slashes are before it.
    let end = path.match_indices('/').nth(named - 1).map_or(path.len(), |(at, _)| at + "/proxy".len());
    let (head, rest) = path.split_at(end.min(path.len()));
    (head, Some(rest))
}

/// The decoded segments of a path; one slash may end it. No segment is empty, stands for another place (`.`, `..`) or
/// holds a slash: none of them names anything, and a key of the store is made of them.
fn segments(path: &str) -> Result<Vec<String>> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok(Vec::new());
    }
    let decode = |segment: &str| {
        let decoded = query::percent_decode(segment, false)
            .ok_or_else(|| Failure::bad_request("the path is not valid UTF-8 after percent-decoding"))?;
        let names_nothing = matches!(decoded.as_str(), "" | "." | "..") || decoded.contains(['/', '\0']);
        if names_nothing { Err(Failure::no_such_resource()) } else { Ok(decoded) }
    };
    path.split('/').map(decode).collect()
}

struct Target {
    resource: Arc<Resource>,
    subresource: Option<Subresource>,
    namespace: String,
    name: String,
}

impl Target {
    fn parse(served: &Resources, group: &str, version: &str, rest: &[&str]) -> Option<Self> {
        let find = |plural: &str| served.find(group, version, plural).cloned();
        let (namespace, resource, rest) = match rest {
            // A Namespace's own parts, where the third word is no resource of Namespaces.
            ["namespaces", _, sub] if group.is_empty() && matches!(*sub, "status" | "finalize") => {
                ("", find("namespaces")?, &rest[1..])
            }
            ["namespaces", namespace, plural, rest @ ..] => (*namespace, find(plural)?, rest),
            [plural, rest @ ..] => ("", find(plural)?, rest),
            [] => return None,
        };
        let (name, subresource) = match rest {
            [] => ("", None),
            [name] => (*name, None),
            [name, sub] => (*name, Some(Subresource::find(sub).filter(|s| resource.has(*s))?)),
            _ => return None,
        };
        if resource.namespaced == namespace.is_empty() && !(resource.namespaced && name.is_empty()) {
            return None;
        }
        Some(Self { resource, subresource, namespace: namespace.into(), name: name.into() })
    }

    fn verb(&self, method: &Method, query: Query, headers: &HeaderMap) -> Result<Verb> {
        use Subresource::{Attach, Exec, Log, PortForward};
        if let Some(Log | Exec | Attach | PortForward) = self.subresource {
            let only_read = self.subresource == Some(Log);
            return match *method {
                Method::GET => Ok(Verb::Connect(query)),
                Method::POST if !only_read => Ok(Verb::Connect(query)),
                _ => Err(Failure::method_not_allowed()),
            };
        }
        if self.subresource == Some(Subresource::Proxy) {
            // Its path is recognised as it is written, before anything is decoded.
            return Err(Failure::no_such_resource());
        }
        let agent = headers.get(USER_AGENT).and_then(|a| a.to_str().ok()).unwrap_or_default();
        let verb = match (method, self.name.is_empty()) {
            (&Method::GET | &Method::HEAD, true) if query.is_true("watch") => {
                Verb::Watch(WatchOptions::read(&query)?)
            }
            (&Method::GET | &Method::HEAD, true) => Verb::List(ListOptions::read(&query)?),
            // `watch` on a single object: the collection narrowed to it.
            (&Method::GET, false) if query.is_true("watch") => Verb::Watch(WatchOptions::read(&query)?),
            (&Method::GET | &Method::HEAD, false) => {
                Verb::Get { resource_version: query.revision("resourceVersion")? }
            }
            (&Method::POST, true) => Verb::Create(WriteOptions::read(&query, agent)?),
            (&Method::POST, false) if self.subresource.is_some() => {
                Verb::Create(WriteOptions::read(&query, agent)?)
            }
            (&Method::PUT, false) => Verb::Update(WriteOptions::read(&query, agent)?),
            (&Method::PATCH, false) => {
                Verb::Patch(patch_kind(&self.resource, headers)?, WriteOptions::read(&query, agent)?)
            }
            (&Method::DELETE, false) => Verb::Delete(DeleteOptions::read(&query)?),
            (&Method::DELETE, true) => {
                Verb::DeleteCollection(ListOptions::read(&query)?, DeleteOptions::read(&query)?)
            }
            _ => return Err(Failure::method_not_allowed()),
        };
        let offered = match self.subresource {
            Some(subresource) => subresource.verbs(),
            None => self.resource.verbs(),
        };
        if !offered.contains(&verb.name()) {
            return Err(Failure::method_not_allowed());
        }
        if self.resource.namespaced && self.namespace.is_empty() && matches!(verb, Verb::Create(_)) {
            return Err(Failure::bad_request("an empty namespace may not be set during creation"));
        }
        Ok(verb)
    }
}

/// Custom kinds have no strategic merge patch: its rules are those of built-in types.
fn patch_kind(resource: &Resource, headers: &HeaderMap) -> Result<PatchKind> {
    const ALL: &str =
        "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
    let is_custom = resource.custom.is_some();
    let kind = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match kind.split(';').next().unwrap_or_default().trim() {
        "application/json-patch+json" => Ok(PatchKind::Json),
        "application/merge-patch+json" => Ok(PatchKind::Merge),
        "application/strategic-merge-patch+json" if !is_custom => Ok(PatchKind::Strategic),
        "application/apply-patch+yaml" | "application/apply-patch+json" => Ok(PatchKind::Apply),
        _ if is_custom => Err(Failure::unsupported_media_type(ALL)),
        _ => {
            let all = format!("{ALL}, application/strategic-merge-patch+json");
            Err(Failure::unsupported_media_type(&all))
        }
    }
}

/// Media ranges of an Accept header, the preferred first: without those whose weight is 0, by weight, then as written.
fn accepted(headers: &HeaderMap) -> Vec<(String, Vec<(String, String)>)> {
    let mut ranges = Vec::new();
    let texts = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok());
    for range in texts.flat_map(|text| text.split(',')).map(str::trim).filter(|r| !r.is_empty()) {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let parameters: Vec<(String, String)> = parts
            .filter_map(|p| p.split_once('='))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let weight = parameters.iter().find(|(name, _)| name == "q");
        let weight = weight.map_or(1.0, |(_, q)| q.parse::<f32>().unwrap_or(0.0));
        if weight > 0.0 {
            ranges.push((weight, media, parameters));
        }
    }
    ranges.sort_by(|a, b| b.0.total_cmp(&a.0));
    ranges.into_iter().map(|(_, media, parameters)| (media, parameters)).collect()
}

fn takes_json(media: &str) -> bool {
    matches!(media, "application/json" | "application/*" | "*/*")
}

fn takes_objects(media: &str) -> bool {
    takes_json(media) || media == YAML
}

/// Whether an answer in JSON or YAML can be taken; a request without an Accept header takes anything.
fn accepts_objects(headers: &HeaderMap) -> bool {
    !headers.contains_key(ACCEPT) || accepted(headers).iter().any(|(media, _)| takes_objects(media))
}

/// Whether the client prefers YAML to JSON.
pub fn wants_yaml(headers: &HeaderMap) -> bool {
    let names_yaml = |value: &http::HeaderValue| {
        value.as_bytes().windows(4).any(|part| part.eq_ignore_ascii_case(b"yaml"))
    };
    headers.get_all(ACCEPT).iter().any(names_yaml)
        && accepted(headers)
            .iter()
            .find(|(media, _)| takes_objects(media))
            .is_some_and(|(media, _)| media == YAML)
}

/// The first form in the Accept header that is served.
pub(crate) fn form(headers: &HeaderMap, query: &Query) -> Result<Form> {
    if headers.get_all(ACCEPT).iter().all(|v| v.is_empty()) {
        return Ok(Form::Object);
    }
    for (media, parameters) in accepted(headers).iter().filter(|(media, _)| takes_objects(media)) {
        let value = |name: &str| parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        // A range of types asks for no form of its own.
        let kind = value("as").filter(|_| matches!(media.as_str(), "application/json" | YAML));
        match (kind, value("v")) {
            (None, _) => return Ok(Form::Object),
            (Some("Table"), Some("v1") | None) => return included(query).map(Form::Table),
            (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("v1") | None) => {
                return Ok(Form::Metadata);
            }
            _ => {}
        }
    }
    Err(Failure::not_acceptable())
}

fn included(query: &Query) -> Result<IncludeObject> {
    let text = query.get("includeObject").unwrap_or_default();
    IncludeObject::parse(text)
        .ok_or_else(|| Failure::bad_request(format!("unrecognized includeObject value: {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn show(line: &str, accept: &str) -> String {
        let (method, target) = line.split_once(' ').expect("METHOD TARGET");
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("header"));
        headers.insert(CONTENT_TYPE, "application/merge-patch+json".parse().expect("header"));
        match Request::parse(
            &crate::resource::BUILT_IN,
            &method.parse().expect("method"),
            path,
            query,
            &headers,
        ) {
            Ok(Request::Server(request)) => format!("{request:?}"),
            Ok(Request::Aggregated(asked)) => format!("{asked:?}"),
            Ok(Request::Api(r)) => format!(
                "{} {} [{}] [{}] {:?} {:?}",
                r.verb.name(),
                r.resource.qualified(),
                r.namespace,
                r.name,
                r.subresource,
                r.form
            ),
            Err(failure) => format!("{} {failure}", failure.code),
        }
    }

    fn check(rows: &[&str], accept: &str, expect: Expect) {
        let text: String = rows.iter().map(|row| format!("{row} -> {}\n", show(row, accept))).collect();
        expect.assert_eq(&text);
    }

    #[test]
    fn paths_and_methods() {
        check(
            &[
                "GET /api/v1/namespaces/d/pods/p",
                "GET /api/v1/pods",
                "GET /api/v1/pods?watch=1",
                "GET /api/v1/pods/p",
                "POST /api/v1/pods",
                "GET /api/v1/nodes/n/status",
                "PUT /api/v1/namespaces/d/finalize",
                "GET /api/v1/namespaces/d",
                "PATCH /apis/apps/v1/namespaces/d/deployments/x/scale",
                "POST /api/v1/namespaces/d/pods/p/binding",
                "GET /api/v1/namespaces/d/pods/p/log?follow=true",
                "POST /api/v1/namespaces/d/pods/p/exec?command=ls",
                "GET /api/v1/namespaces/d/configmaps/c/status",
                "DELETE /apis/apps/v1/namespaces/d/deployments?labelSelector=a%3Db",
                "GET /apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                "GET /apis/apps/v1",
                "GET /openapi/v3/apis/apps/v1",
                "POST /version",
                "GET /.well-known/openid-configuration",
                "GET /openid/v1/jwks",
                "GET /nowhere",
                "GET /api/v1/namespaces/d/pods/",
                "GET //api//v1//pods",
                "GET /api/v1/namespaces/../secrets",
                "GET /api/v1/namespaces/%2e%2E/secrets",
                "GET /api/v1/namespaces/./pods",
                "GET /api/v1/namespaces/d/secrets/..%2fx",
                "GET /api/v1/namespaces/a%2Fb/pods/c",
                "GET /api/v1/nodes/%00",
                "GET /api/v1/nodes/%ff",
                "GET /",
                "GET //",
                "GET /api/v1/namespaces/d/pods/p:80/proxy/a%2Fb/../c//d?x=1",
                "POST /api/v1/namespaces/d/services/http:web:80/proxy",
                "DELETE /api/v1/namespaces/d/pods/p/proxy/",
                "GET /api/v1/nodes/n/proxy/pods",
                "GET /api/v1/nodes/https:n:10250/proxy/stats/summary?only_cpu_and_memory=true",
                "GET /api/v1/nodes/n/proxy",
                "GET /api/v1/namespaces/../pods/p/proxy/",
                "GET /api/v1/namespaces/d/configmaps/c/proxy/",
                "GET /api/v1/namespaces/d/pods/p/prox%79",
            ],
            "*/*",
            expect![[r#"
                GET /api/v1/namespaces/d/pods/p -> get pods [d] [p] None Object
                GET /api/v1/pods -> list pods [] [] None Object
                GET /api/v1/pods?watch=1 -> watch pods [] [] None Object
                GET /api/v1/pods/p -> 404 the server could not find the requested resource
                POST /api/v1/pods -> 400 an empty namespace may not be set during creation
                GET /api/v1/nodes/n/status -> get nodes [] [n] Some(Status) Object
                PUT /api/v1/namespaces/d/finalize -> update namespaces [] [d] Some(Finalize) Object
                GET /api/v1/namespaces/d -> get namespaces [] [d] None Object
                PATCH /apis/apps/v1/namespaces/d/deployments/x/scale -> patch deployments.apps [d] [x] Some(Scale) Object
                POST /api/v1/namespaces/d/pods/p/binding -> create pods [d] [p] Some(Binding) Object
                GET /api/v1/namespaces/d/pods/p/log?follow=true -> get pods [d] [p] Some(Log) Object
                POST /api/v1/namespaces/d/pods/p/exec?command=ls -> get pods [d] [p] Some(Exec) Object
                GET /api/v1/namespaces/d/configmaps/c/status -> 404 the server could not find the requested resource
                DELETE /apis/apps/v1/namespaces/d/deployments?labelSelector=a%3Db -> deletecollection deployments.apps [d] [] None Object
                GET /apis/authorization.k8s.io/v1/selfsubjectaccessreviews -> 405 the server does not allow this method on the requested resource
                POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews -> create selfsubjectaccessreviews.authorization.k8s.io [] [] None Object
                GET /apis/apps/v1 -> Resources { group: "apps", version: "v1" }
                GET /openapi/v3/apis/apps/v1 -> OpenApi { group: "apps", version: "v1" }
                POST /version -> 405 the server does not allow this method on the requested resource
                GET /.well-known/openid-configuration -> OpenIdConfiguration
                GET /openid/v1/jwks -> JsonWebKeys
                GET /nowhere -> 404 the server could not find the requested resource
                GET /api/v1/namespaces/d/pods/ -> list pods [d] [] None Object
                GET //api//v1//pods -> 404 the server could not find the requested resource
                GET /api/v1/namespaces/../secrets -> 404 the server could not find the requested resource
                GET /api/v1/namespaces/%2e%2E/secrets -> 404 the server could not find the requested resource
                GET /api/v1/namespaces/./pods -> 404 the server could not find the requested resource
                GET /api/v1/namespaces/d/secrets/..%2fx -> 404 the server could not find the requested resource
                GET /api/v1/namespaces/a%2Fb/pods/c -> 404 the server could not find the requested resource
                GET /api/v1/nodes/%00 -> 404 the server could not find the requested resource
                GET /api/v1/nodes/%ff -> 400 the path is not valid UTF-8 after percent-decoding
                GET / -> Root
                GET // -> Root
                GET /api/v1/namespaces/d/pods/p:80/proxy/a%2Fb/../c//d?x=1 -> get pods [d] [p:80] Some(Proxy) Object
                POST /api/v1/namespaces/d/services/http:web:80/proxy -> create services [d] [http:web:80] Some(Proxy) Object
                DELETE /api/v1/namespaces/d/pods/p/proxy/ -> delete pods [d] [p] Some(Proxy) Object
                GET /api/v1/nodes/n/proxy/pods -> get nodes [] [n] Some(Proxy) Object
                GET /api/v1/nodes/https:n:10250/proxy/stats/summary?only_cpu_and_memory=true -> get nodes [] [https:n:10250] Some(Proxy) Object
                GET /api/v1/nodes/n/proxy -> get nodes [] [n] Some(Proxy) Object
                GET /api/v1/namespaces/../pods/p/proxy/ -> 404 the server could not find the requested resource
                GET /api/v1/namespaces/d/configmaps/c/proxy/ -> 404 the server could not find the requested resource
                GET /api/v1/namespaces/d/pods/p/prox%79 -> 404 the server could not find the requested resource
            "#]],
        );
    }

    #[test]
    fn forms() {
        for (accept, expect) in [
            ("application/json", "Object"),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                "Table(Metadata)",
            ),
            ("application/vnd.kubernetes.protobuf,application/json", "Object"),
            ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", "Metadata"),
            ("application/vnd.kubernetes.protobuf", "406"),
            ("application/xml", "406"),
            ("text/html", "406"),
            ("text/html, application/*;q=0.1", "Object"),
            ("text/html,application/xhtml+xml,*/*;q=0.8", "Object"),
            ("application/json;q=0", "406"),
            ("application/json;q=0, */*;q=0.1", "Object"),
            ("application/json;q=0.5, application/json;as=Table;v=v1;g=meta.k8s.io", "Table(Metadata)"),
            ("application/json;as=Table;v=v2;g=meta.k8s.io", "406"),
            ("application/json;as=Other", "406"),
            ("application/yaml", "Object"),
            ("application/yaml;as=Table;v=v1;g=meta.k8s.io", "Table(Metadata)"),
            ("APPLICATION/JSON;stream=watch;charset=utf-8", "Object"),
            ("", "Object"),
            ("nonsense", "406"),
        ] {
            let shown = show("GET /api/v1/pods", accept);
            assert!(shown.contains(expect), "{accept} -> {shown}");
        }
        for (line, accept, expect) in [
            ("GET /version", "application/xml", "406"),
            ("GET /apis/apps/v1", "text/html", "406"),
            (
                "GET /api",
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
                "CoreVersions",
            ),
            ("GET /healthz", "text/plain", "Health"),
            ("GET /api/v1/namespaces/d/pods/p/log", "text/plain", "Some(Log)"),
            ("POST /api/v1/namespaces/d/pods", "application/xml", "406"),
            ("GET /api/v1/pods?watch=1", "application/yaml", "406"),
            ("GET /apis/apps/v1", "application/yaml", "Resources"),
        ] {
            let shown = show(line, accept);
            assert!(shown.contains(expect), "{line} {accept} -> {shown}");
        }
    }
}
