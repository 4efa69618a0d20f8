//! Requests for aggregated API servers, of whose resources nothing is known here but their paths.

use std::sync::Arc;

use http::Method;

use super::Query;
use crate::aggregation::Aggregated;
use crate::resource::Resources;

/// A request that is handed on.
#[derive(Debug)]
pub struct AggregatedRequest {
    /// The server that answers it.
    pub service: Arc<Aggregated>,
    /// The verb of authorisation.
    pub verb: &'static str,
    /// The resource of authorisation; `None` for discovery and OpenAPI, whose path counts.
    pub resource: Option<AskedResource>,
}

/// A resource as a path names it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AskedResource {
    /// Empty for all Namespaces and for kinds without one.
    pub namespace: String,
    /// The plural.
    pub resource: String,
    /// Empty for the collection.
    pub name: String,
    /// Empty for the object itself.
    pub subresource: String,
}

impl AggregatedRequest {
    /// Reads the words of a path; `None` where no aggregated server answers it.
    pub fn parse(served: &Resources, words: &[&str], method: &Method, query: Option<&str>) -> Option<Self> {
        let (group, version, rest) = match words {
            ["apis", group, version, rest @ ..] => (group, version, rest),
            ["openapi", "v3", "apis", group, version] => (group, version, &[][..]),
            _ => return None,
        };
        let service = served.aggregated(group, version)?.clone();
        let resource = AskedResource::parse(rest);
        let is_one = resource.as_ref().is_some_and(|of| !of.name.is_empty());
        let watches = || Query::parse(query.unwrap_or_default()).is_true("watch");
        let verb = match *method {
            _ if resource.is_none() => "get",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if is_one => "delete",
            Method::DELETE => "deletecollection",
            _ if watches() => "watch",
            _ if is_one => "get",
            _ => "list",
        };
        Some(Self { service, verb, resource })
    }
}

impl AskedResource {
    /// As Kubernetes reads paths of any resource.
    fn parse(words: &[&str]) -> Option<Self> {
        let (namespace, words) = match words {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            all => ("", all),
        };
        let at = |place: usize| words.get(place).copied().unwrap_or_default().to_owned();
        let resource = words.first()?;
        Some(Self {
            namespace: namespace.to_owned(),
            resource: (*resource).to_owned(),
            name: at(1),
            subresource: at(2),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_without_knowing_the_resources() {
        for (path, expect) in [
            ("nodes", Some(["", "nodes", "", ""])),
            ("nodes/n", Some(["", "nodes", "n", ""])),
            ("namespaces/d/pods", Some(["d", "pods", "", ""])),
            ("namespaces/d/pods/p/status", Some(["d", "pods", "p", "status"])),
            ("namespaces/d", Some(["", "namespaces", "d", ""])),
            ("", None),
        ] {
            let words: Vec<&str> = path.split('/').filter(|word| !word.is_empty()).collect();
            let found = AskedResource::parse(&words);
            let shown = found.as_ref().map(|of| [&*of.namespace, &*of.resource, &*of.name, &*of.subresource]);
            assert_eq!(shown, expect, "{path}");
        }
    }
}
