//! Which backend a request belongs to. Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use ipnet::Ipv4Net;
use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend};
use yado_types::key::ObjectKey;

use super::upstream::Upstream;
use crate::index::{Callers, Snapshot};
use crate::policy::Isolation;

/// All routes of one generation.
#[derive(Default)]
pub struct Routes {
    hosts: HashMap<String, Paths>,
    /// By what follows `*.`; the star stands for one label.
    wildcards: HashMap<String, Paths>,
    any_host: Paths,
    default: Option<Arc<Backend>>,
    isolation: Arc<Isolation>,
    pod_range: Option<Ipv4Net>,
}

/// The paths of one host: exact ones, then prefixes, the longest first.
#[derive(Default)]
struct Paths {
    exact: HashMap<String, Arc<Backend>>,
    prefixes: Vec<(String, Arc<Backend>)>,
}

/// The endpoints of a Service's port.
pub struct Backend {
    /// For sentences about it: `namespace/service`.
    pub name: String,
    /// Who may come.
    pub callers: Callers,
    upstreams: Vec<Arc<Upstream>>,
    turn: AtomicUsize,
    budget: AtomicU32,
}

/// What sending a request once more costs, where each request earns 1: at most one in five goes twice, so an app that
/// closes connections because it drowns is not given twice the load.
const REPEAT_COST: u32 = 5;
/// What can be saved up: a restart breaks some requests at once, and all of those may go to another endpoint.
const BUDGET: u32 = 500;

impl Backend {
    /// Every endpoint once, starting with the one whose turn it is.
    pub fn in_turn(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        let count = self.upstreams.len();
        let start = if count < 2 { 0 } else { self.turn.fetch_add(1, Ordering::Relaxed) % count };
        self.upstreams[start..].iter().chain(&self.upstreams[..start])
    }

    /// Counts a request.
    pub fn earn(&self) {
        // Mostly it is full, and then one load is all that a request costs.
        if self.budget.load(Ordering::Relaxed) < BUDGET {
            self.budget.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether a request that may have been received may be sent once more.
    pub fn spend(&self) -> bool {
        let spend = |saved: u32| saved.checked_sub(REPEAT_COST);
        self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }
}

impl Routes {
    /// The routes for a state of the index; `upstream` gives the connections of an endpoint. Where two Ingresses want
    /// the same host and path, the older one has it.
    pub fn of(snapshot: &Snapshot, upstream: impl FnMut(SocketAddr) -> Arc<Upstream>) -> Self {
        let mut backends = Backends { snapshot, upstream, made: BTreeMap::new() };
        let (isolation, pod_range) = (snapshot.isolation.clone(), snapshot.pod_range);
        let mut routes = Self { isolation, pod_range, ..Self::default() };
        let mut ingresses: Vec<_> = snapshot.ingresses.iter().collect();
        ingresses
            .sort_by_key(|(key, i)| (i.metadata.creation_timestamp.clone().map(|t| t.0), (*key).clone()));
        for (key, ingress) in ingresses {
            routes.add(key, ingress, &mut backends);
        }
        let all =
            routes.hosts.values_mut().chain(routes.wildcards.values_mut()).chain([&mut routes.any_host]);
        // Stable: of equally long prefixes the one that came first stays first.
        all.for_each(|paths| paths.prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len())));
        routes
    }

    fn add<F: FnMut(SocketAddr) -> Arc<Upstream>>(
        &mut self,
        key: &ObjectKey,
        ingress: &Ingress,
        backends: &mut Backends<'_, F>,
    ) {
        let Some(spec) = &ingress.spec else { return };
        if let (None, Some(backend)) = (&self.default, &spec.default_backend) {
            self.default = Some(backends.get(&key.namespace, backend));
        }
        for rule in spec.rules.iter().flatten() {
            let host = rule.host.as_deref().unwrap_or_default().to_ascii_lowercase();
            let paths = match (host.strip_prefix("*."), host.is_empty()) {
                (_, true) => &mut self.any_host,
                (Some(parent), _) => self.wildcards.entry(parent.to_owned()).or_default(),
                (None, _) => self.hosts.entry(host).or_default(),
            };
            for path in rule.http.iter().flat_map(|http| &http.paths) {
                paths.add(path, backends.get(&key.namespace, &path.backend));
            }
        }
    }

    /// Whether NetworkPolicies let a client come to an endpoint. The packet filter sees only the router, which is the
    /// node, so a Pod is judged here; whoever comes from outside is let in with the node.
    pub fn admits(&self, client: IpAddr, endpoint: SocketAddr) -> bool {
        match (client.to_canonical(), endpoint.ip()) {
            (IpAddr::V4(client), IpAddr::V4(address))
                if self.pod_range.is_some_and(|range| range.contains(&client)) =>
            {
                self.isolation.admits(client, (address, endpoint.port()))
            }
            _ => true,
        }
    }

    /// The backend for a host (in lower case, without port) and a path.
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<Backend>> {
        let exact = self.hosts.get(host).and_then(|paths| paths.find(path));
        // The star stands for one label, and an empty one is none.
        let parent = host.split_once('.').filter(|(label, _)| !label.is_empty()).map(|(_, parent)| parent);
        let wildcard = || self.wildcards.get(parent?)?.find(path);
        exact.or_else(wildcard).or_else(|| self.any_host.find(path)).or(self.default.as_ref())
    }
}

impl Paths {
    fn add(&mut self, rule: &HTTPIngressPath, backend: Arc<Backend>) {
        let path = rule.path.clone().filter(|p| !p.is_empty()).unwrap_or_else(|| "/".to_owned());
        if rule.path_type == "Exact" {
            self.exact.entry(path).or_insert(backend);
        } else {
            // A prefix is one of whole elements, so a slash at its end says nothing.
            self.prefixes.push((path.trim_end_matches('/').to_owned(), backend));
        }
    }

    fn find(&self, path: &str) -> Option<&Arc<Backend>> {
        let is_prefix =
            |prefix: &str| path.strip_prefix(prefix).is_some_and(|r| r.is_empty() || r.starts_with('/'));
        self.exact
            .get(path)
            .or_else(|| self.prefixes.iter().find(|(p, _)| is_prefix(p)).map(|(_, backend)| backend))
    }
}

/// Makes each backend once, so that all paths to it share its turns.
struct Backends<'a, F> {
    snapshot: &'a Snapshot,
    upstream: F,
    made: BTreeMap<(String, String, u16), Arc<Backend>>,
}

impl<F: FnMut(SocketAddr) -> Arc<Upstream>> Backends<'_, F> {
    fn get(&mut self, namespace: &str, backend: &IngressBackend) -> Arc<Backend> {
        let empty = Default::default();
        let service = backend.service.as_ref().unwrap_or(&empty);
        let port = service.port.as_ref();
        let name = port.and_then(|p| p.name.clone()).unwrap_or_default();
        let number = port.and_then(|p| p.number).and_then(|n| u16::try_from(n).ok()).unwrap_or_default();
        let key = ObjectKey::new(namespace, &service.name);
        let made = self.made.entry((key.to_string(), name.clone(), number));
        let (snapshot, upstream) = (self.snapshot, &mut self.upstream);
        let make = || {
            let endpoints =
                snapshot.port(&key, &name, number).map(|p| p.endpoints.clone()).unwrap_or_default();
            let addresses =
                endpoints.iter().filter(|e| e.port != 0).map(|e| SocketAddr::new(e.address, e.port));
            Arc::new(Backend {
                name: key.to_string(),
                callers: snapshot.services.get(&key).map(|s| s.callers.clone()).unwrap_or_default(),
                upstreams: addresses.map(upstream).collect(),
                // Otherwise the first endpoint would get one request more at each change.
                turn: AtomicUsize::new(snapshot.generation as usize),
                budget: AtomicU32::new(BUDGET),
            })
        };
        made.or_insert_with(make).clone()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_are_repeated_within_a_budget() {
        let backend = Backend {
            name: String::new(),
            callers: Callers::All,
            upstreams: Vec::new(),
            turn: AtomicUsize::new(0),
            budget: AtomicU32::new(BUDGET),
        };
        assert_eq!((0..1000).filter(|_| backend.spend()).count(), 100);
        (0..REPEAT_COST).for_each(|_| backend.earn());
        assert!(backend.spend() && !backend.spend());
        (0..10_000).for_each(|_| backend.earn());
        assert_eq!((0..1000).filter(|_| backend.spend()).count(), 100);
    }

    fn ingress(name: &str, spec: serde_json::Value) -> (ObjectKey, Arc<Ingress>) {
        let object = json!({"metadata": {"namespace": "n", "name": name}, "spec": spec});
        (ObjectKey::new("n", name), Arc::new(serde_json::from_value(object).expect("an Ingress")))
    }

    fn path(path: &str, kind: &str, service: &str) -> serde_json::Value {
        json!({"path": path, "pathType": kind, "backend": {"service": {"name": service, "port": {"number": 80}}}})
    }

    fn rule(host: &str, paths: Vec<serde_json::Value>) -> serde_json::Value {
        json!({"host": host, "http": {"paths": paths}})
    }

    #[test]
    fn requests_go_by_host_and_then_by_the_longest_path() {
        let rules = json!({"rules": [
            rule("a.test", vec![
                path("/", "Prefix", "root"), path("/api/", "Prefix", "api"), path("/api/v1", "Prefix", "v1"),
                path("/api", "Exact", "exact"),
            ]),
            rule("*.b.test", vec![path("", "ImplementationSpecific", "wild")]),
            rule("only.test", vec![path("/x", "Prefix", "x")]),
            {"http": {"paths": [path("/any", "Prefix", "any")]}},
        ]});
        let later = json!({"rules": [rule("a.test", vec![path("/api", "Exact", "late")])]});
        let snapshot =
            Snapshot { ingresses: [ingress("a", rules), ingress("b", later)].into(), ..Default::default() };
        let routes = Routes::of(&snapshot, |address| Upstream::new(address).0);
        for (host, path, expect) in [
            ("a.test", "/", Some("n/root")),
            ("a.test", "/other", Some("n/root")),
            ("a.test", "/api", Some("n/exact")),
            ("a.test", "/api/", Some("n/api")),
            ("a.test", "/apix", Some("n/root")),
            ("a.test", "/api/v1/things", Some("n/v1")),
            ("w.b.test", "/q", Some("n/wild")),
            ("b.test", "/q", None),
            ("v.w.b.test", "/q", None),
            (".b.test", "/q", None),
            ("..b.test", "/q", None),
            ("only.test", "/y", None),
            ("only.test", "/any/y", Some("n/any")),
            ("none.test", "/any", Some("n/any")),
            ("none.test", "/", None),
        ] {
            assert_eq!(routes.find(host, path).map(|b| b.name.as_str()), expect, "{host}{path}");
        }
        let fallback = json!({"defaultBackend": {"service": {"name": "d", "port": {"name": "http"}}}});
        let snapshot = Snapshot { ingresses: [ingress("d", fallback)].into(), ..Default::default() };
        let routes = Routes::of(&snapshot, |address| Upstream::new(address).0);
        assert_eq!(routes.find("x", "/").map(|b| b.name.as_str()), Some("n/d"));
    }
}
