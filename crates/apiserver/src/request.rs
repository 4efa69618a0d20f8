//! A request's line and headers, read into one typed value before anything acts on it.

mod options;
mod query;

pub use options::{DeleteOptions, ListOptions, Propagation, VersionMatch, WatchOptions, WriteOptions};
pub use query::Query;

use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, Method};

use crate::resource::{self, Resource, Subresource};
use crate::status::{Failure, Result};
use crate::table::IncludeObject;

/// What is asked for.
#[derive(Debug)]
pub enum Request {
    /// Something about the server itself.
    Server(ServerRequest),
    /// An object or a collection of them.
    Api(Box<ApiRequest>),
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
}

/// A request on the API.
#[derive(Debug)]
pub struct ApiRequest {
    /// The addressed collection.
    pub resource: &'static Resource,
    /// The part of the object.
    pub subresource: Option<Subresource>,
    /// Empty for all Namespaces and for kinds without one.
    pub namespace: String,
    /// Empty for the collection.
    pub name: String,
    /// What to do.
    pub verb: Verb,
    /// The form of objects in the answer.
    pub form: Form,
}

/// What to do, with its options.
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
    /// Reads a request. Its path decides what is meant, its method what to do with it.
    pub fn parse(method: &Method, path: &str, query: Option<&str>, headers: &HeaderMap) -> Result<Self> {
        let segments = path
            .split('/')
            .filter(|s| !s.is_empty())
            .map(|s| query::percent_decode(s, false))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| Failure::bad_request("the path is not valid UTF-8 after percent-decoding"))?;
        let words: Vec<&str> = segments.iter().map(String::as_str).collect();
        let get = |request| {
            if matches!(*method, Method::GET | Method::HEAD) {
                Ok(Self::Server(request))
            } else {
                Err(Failure::method_not_allowed())
            }
        };
        match words.as_slice() {
            [] => get(ServerRequest::Root),
            ["version"] => get(ServerRequest::Version),
            ["healthz" | "livez" | "readyz", ..] => get(ServerRequest::Health),
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
            ["api", version, rest @ ..] => Self::parse_api("", version, rest, method, query, headers),
            ["apis", group, version, rest @ ..] => {
                Self::parse_api(group, version, rest, method, query, headers)
            }
            _ => Err(Failure::no_such_resource()),
        }
    }

    fn parse_api(
        group: &str,
        version: &str,
        rest: &[&str],
        method: &Method,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Self> {
        let target = Target::parse(group, version, rest).ok_or_else(Failure::no_such_resource)?;
        let query = Query::parse(query.unwrap_or_default());
        let form = form(headers, &query)?;
        let verb = target.verb(method, query, headers)?;
        let Target { resource, subresource, namespace, name } = target;
        Ok(Self::Api(Box::new(ApiRequest { resource, subresource, namespace, name, verb, form })))
    }
}

struct Target {
    resource: &'static Resource,
    subresource: Option<Subresource>,
    namespace: String,
    name: String,
}

impl Target {
    fn parse(group: &str, version: &str, rest: &[&str]) -> Option<Self> {
        let find = |plural| resource::find(group, version, plural);
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
            (&Method::PATCH, false) => Verb::Patch(patch_kind(headers)?, WriteOptions::read(&query, agent)?),
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

fn patch_kind(headers: &HeaderMap) -> Result<PatchKind> {
    let kind = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match kind.split(';').next().unwrap_or_default().trim() {
        "application/json-patch+json" => Ok(PatchKind::Json),
        "application/merge-patch+json" => Ok(PatchKind::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchKind::Strategic),
        "application/apply-patch+yaml" | "application/apply-patch+json" => Ok(PatchKind::Apply),
        _ => Err(Failure::unsupported_media_type(
            "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml, \
             application/strategic-merge-patch+json",
        )),
    }
}

/// The first form in the Accept header that is known here. Weights are not looked at, as in Kubernetes.
fn form(headers: &HeaderMap, query: &Query) -> Result<Form> {
    let Some(accept) = headers.get(ACCEPT).and_then(|v| v.to_str().ok()) else {
        return Ok(Form::Object);
    };
    for media in accept.split(',') {
        let mut parts = media.split(';').map(str::trim);
        if !matches!(parts.next(), Some("application/json" | "*/*" | "application/*" | "")) {
            continue;
        }
        let (mut kind, mut version) = (None, None);
        for parameter in parts {
            match parameter.split_once('=') {
                Some(("as", value)) => kind = Some(value),
                Some(("v", value)) => version = Some(value),
                _ => {}
            }
        }
        match (kind, version) {
            (None, _) => return Ok(Form::Object),
            (Some("Table"), Some("v1") | None) => return included(query).map(Form::Table),
            (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("v1") | None) => {
                return Ok(Form::Metadata);
            }
            _ => {}
        }
    }
    // Streams and plain text ignore the header; kubectl asks them with `*/*`, browsers with types of their own.
    if accept.contains("application/vnd.kubernetes.protobuf") {
        Err(Failure::not_acceptable())
    } else {
        Ok(Form::Object)
    }
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
        match Request::parse(&method.parse().expect("method"), path, query, &headers) {
            Ok(Request::Server(request)) => format!("{request:?}"),
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
                "GET /nowhere",
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
                GET /nowhere -> 404 the server could not find the requested resource
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
        ] {
            let shown = show("GET /api/v1/pods", accept);
            assert!(shown.contains(expect), "{accept} -> {shown}");
        }
    }
}
