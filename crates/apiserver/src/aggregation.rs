//! Groups and versions that other API servers serve: which there are, whether they answer, and how requests reach them.
//!
//! ```text
//! [APIService] -> Service -> endpoints -> discovery answers? -> condition Available
//!                                                          `-> registry: requests are handed on ([`hand_on`])
//! [registry of kinds] -> an APIService for each group and version that this server serves itself
//! ```

mod availability;
mod hand_on;
mod local;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};

use crate::edit::{list, text};
use crate::object::{Object, meta, time};
use crate::request::DeleteOptions;
use crate::resource::{self, Priorities, Resource};
use crate::schema::Name;
use crate::server::Inner;
use crate::status::{Failure, Result};
use crate::usage_metrics;
use crate::write::Decision;
use crate::write::context::{Operation, WriteContext};
use availability::{Checked, Finding};
pub use local::priority;

/// Between checks of a server that answers, and of one that does not. The first is Kubernetes' own.
const CHECK_EVERY: Duration = Duration::from_secs(30);
const RETRY_EVERY: Duration = Duration::from_secs(5);
/// Between a change and the pass over all APIServices that it causes, so that many changes cause one.
const SETTLE: Duration = Duration::from_millis(200);

/// Who answers requests for an aggregated group and version.
#[derive(Debug)]
pub enum Provider {
    /// The server that an APIService names, by its `spec`.
    Server(Value),
    /// [`crate::usage_metrics`], while no APIService names another.
    UsageMetrics,
}

/// A group and version whose kinds are not in the registry.
#[derive(Debug)]
pub struct Aggregated {
    /// The API group.
    pub group: Name,
    /// The version within the group.
    pub version: Name,
    /// Which server answers.
    pub provider: Provider,
    /// Whether it answered when it was asked last.
    pub is_available: bool,
    /// Its discovery: the resources of an `APIResourceList`.
    pub resources: Vec<Value>,
    /// `serverRelativeURL` of its OpenAPI document, if it has one.
    pub openapi: Option<String>,
}

/// The priority of `metrics.k8s.io/v1beta1` among groups; that of metrics-server's APIService.
const METRICS_PRIORITY: (i64, i64) = (100, 100);

/// Keeps APIServices and the registry in step until the server ends.
pub(crate) async fn run(server: Arc<Inner>) {
    let subscribe =
        |resource: Option<&'static Arc<Resource>>| Some(server.collection(resource?).ok()?.subscribe());
    let changes = (
        subscribe(services()),
        subscribe(resource::find("", "v1", "services")),
        subscribe(resource::find("discovery.k8s.io", "v1", "endpointslices")),
    );
    // All are built in.
    let (Some(mut registered), Some(mut reached), Some(mut endpoints)) = changes else { return };
    let mut registry = server.registry.subscribe();
    let mut checked = Checks::default();
    loop {
        for change in [&mut registered, &mut reached, &mut endpoints, &mut registry] {
            change.borrow_and_update();
        }
        let due = match checked.reconcile(&server).await {
            Ok(true) => CHECK_EVERY,
            Ok(false) => RETRY_EVERY,
            Err(failure) => {
                tracing::warn!(%failure, "APIServices are not up to date; the next attempt follows");
                RETRY_EVERY
            }
        };
        // Where other Services lead matters to nobody.
        let has_others = !checked.0.is_empty();
        let ended = tokio::select! {
            () = server.stop.cancelled() => return,
            ended = registered.changed() => ended,
            ended = registry.changed() => ended,
            ended = reached.changed(), if has_others => ended,
            ended = endpoints.changed(), if has_others => ended,
            () = server.clock.sleep(due) => Ok(()),
        };
        if ended.is_err() {
            return;
        }
        tokio::select! {
            () = server.stop.cancelled() => return,
            () = server.clock.sleep(SETTLE) => {}
        }
    }
}

fn services() -> Option<&'static Arc<Resource>> {
    resource::find("apiregistration.k8s.io", "v1", "apiservices")
}

/// Outcomes of the last checks, by the names of APIServices.
#[derive(Default)]
struct Checks(BTreeMap<String, Checked>);

impl Checks {
    /// One pass over all APIServices. Returns whether all of them are available. Their conditions are written after the
    /// registry knows what they say: a client that waits for one is served by it.
    async fn reconcile(&mut self, server: &Inner) -> Result<bool> {
        let resource = services().ok_or_else(Failure::no_such_resource)?;
        local::register(server, resource).await?;
        let present = server.collection(resource)?.list("", None, 0, |_| true).objects;
        let (mut findings, mut others, mut priorities) = (Vec::new(), Vec::new(), Priorities::new());
        let served = server.registry.current();
        for object in &present {
            let spec = object.value()["spec"].clone();
            let (group, version) = (text(&spec["group"]), text(&spec["version"]));
            let of = |field: &str| spec[field].as_i64().unwrap_or(0);
            let key = (Name::from(group.to_owned()), Name::from(version.to_owned()));
            priorities.insert(key.clone(), (of("groupPriorityMinimum"), of("versionPriority")));
            let is_own = served.of_version(group, version).next().is_some();
            if !spec["service"].is_object() || is_own {
                findings.push((object, Finding::local()));
            } else {
                others.push((object, key, spec));
            }
        }
        // All at once: one that does not answer holds up no other.
        let checks = others.iter().map(|(object, _, spec)| {
            let last = self.0.remove(meta(&object.value(), "name"));
            availability::check(server, spec, last)
        });
        let checked = join_all(checks.collect::<Vec<_>>()).await;
        let (mut next, mut aggregated) = (BTreeMap::new(), Vec::new());
        for ((object, (group, version), spec), checked) in others.into_iter().zip(checked) {
            findings.push((object, checked.finding.clone()));
            aggregated.push(Arc::new(Aggregated {
                group,
                version,
                provider: Provider::Server(spec),
                is_available: checked.finding.is_available(),
                resources: checked.resources.clone(),
                openapi: checked.openapi.clone(),
            }));
            next.insert(meta(&object.value(), "name").to_owned(), checked);
        }
        self.0 = next;
        add_usage_metrics(&mut aggregated, &mut priorities);
        server.registry.aggregate(aggregated, priorities);
        for (object, finding) in &findings {
            write_condition(server, resource, object, finding).await?;
        }
        Ok(findings.iter().all(|(_, finding)| finding.is_available()))
    }
}

/// Adds this server's own `metrics.k8s.io` where no APIService names another.
fn add_usage_metrics(aggregated: &mut Vec<Arc<Aggregated>>, priorities: &mut Priorities) {
    let (group, version) = (Name::from(usage_metrics::GROUP), Name::from(usage_metrics::VERSION));
    let key = (group.clone(), version.clone());
    if priorities.contains_key(&key) {
        return;
    }
    priorities.insert(key, METRICS_PRIORITY);
    aggregated.push(Arc::new(Aggregated {
        group,
        version,
        provider: Provider::UsageMetrics,
        is_available: true,
        resources: usage_metrics::resources(),
        openapi: None,
    }));
}

/// Writes the condition `Available` where it differs from what was found.
async fn write_condition(
    server: &Inner,
    resource: &Resource,
    object: &Object,
    found: &Finding,
) -> Result<()> {
    let now = time(server.clock.now());
    if with_condition(&object.value(), found, &now).is_none() {
        return Ok(());
    }
    let ctx = WriteContext::internal(server, resource, Operation::Update);
    let name = meta(&object.value(), "name").to_owned();
    let written = server.modify(&ctx, ("", &name), 0, |current| {
        let next = with_condition(&current.value(), found, &now);
        Ok(next.map_or(Decision::Keep, Decision::Put))
    });
    match written.await {
        Ok(_) => Ok(()),
        Err(failure) if failure.code == 404 => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// An APIService with the condition `Available`; `None` where it has it already.
fn with_condition(service: &Value, found: &Finding, now: &str) -> Option<Value> {
    let present = list(&service["status"]["conditions"]).iter().find(|c| c["type"] == "Available");
    let status = if found.is_available() { "True" } else { "False" };
    let is_same =
        |c: &Value| c["status"] == status && c["reason"] == found.reason && c["message"] == *found.message;
    if present.is_some_and(is_same) {
        return None;
    }
    let since = present.filter(|c| c["status"] == status).map(|c| c["lastTransitionTime"].clone());
    let mut next = service.clone();
    let others = list(&service["status"]["conditions"]).iter().filter(|c| c["type"] != "Available").cloned();
    let condition = json!({
        "type": "Available", "status": status, "lastTransitionTime": since.unwrap_or_else(|| now.into()),
        "reason": found.reason, "message": found.message,
    });
    let conditions: Vec<Value> = others.chain([condition]).collect();
    next.as_object_mut()?.insert("status".into(), json!({"conditions": conditions}));
    Some(next)
}

/// Deletes an APIService that this server registered for itself.
async fn delete(server: &Inner, resource: &Resource, name: &str) -> Result<()> {
    let ctx = WriteContext::internal(server, resource, Operation::Delete);
    match server.delete_object(&ctx, "", name, &DeleteOptions::default()).await {
        Ok(_) => Ok(()),
        Err(failure) if failure.code == 404 => Ok(()),
        Err(failure) => Err(failure),
    }
}

/// The resources of a group and version as aggregated discovery shows them.
pub(crate) fn discovered(service: &Aggregated) -> Vec<Value> {
    let kind = |row: &Value| {
        let of = |field: &str, own: &str| match text(&row[field]) {
            "" => own.to_owned(),
            given => given.to_owned(),
        };
        let (group, version) = (of("group", &service.group), of("version", &service.version));
        json!({"group": group, "version": version, "kind": row["kind"]})
    };
    let mut parts: HashMap<&str, Vec<Value>> = HashMap::new();
    for row in &service.resources {
        if let Some((plural, part)) = text(&row["name"]).split_once('/') {
            let shown = json!({"subresource": part, "responseKind": kind(row), "verbs": row["verbs"]});
            parts.entry(plural).or_default().push(shown);
        }
    }
    let whole = service.resources.iter().filter(|row| !text(&row["name"]).contains('/'));
    let shown = whole.map(|row| {
        let mut shown = json!({
            "resource": row["name"], "responseKind": kind(row), "singularResource": row["singularName"],
            "scope": if row["namespaced"] == true { "Namespaced" } else { "Cluster" }, "verbs": row["verbs"],
        });
        if let Some(map) = shown.as_object_mut() {
            for field in ["shortNames", "categories"] {
                if let Some(given) = row.get(field) {
                    map.insert(field.into(), given.clone());
                }
            }
            if let Some(parts) = parts.remove(text(&row["name"])) {
                map.insert("subresources".into(), parts.into());
            }
        }
        shown
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_changes_when_what_is_found_does() {
        let found = Finding::local();
        let first = with_condition(&json!({"metadata": {}}), &found, "t1").expect("a change");
        assert_eq!(first["status"]["conditions"][0]["lastTransitionTime"], "t1");
        assert_eq!(with_condition(&first, &found, "t2"), None);
        let lost = Finding { reason: "ServiceNotFound", message: "gone".into() };
        let second = with_condition(&first, &lost, "t2").expect("a change");
        assert_eq!(second["status"]["conditions"][0]["status"], "False");
        let other = Finding { reason: "MissingEndpoints", message: "none".into() };
        let third = with_condition(&second, &other, "t3").expect("a change");
        assert_eq!(third["status"]["conditions"][0]["lastTransitionTime"], "t2");
    }

    #[test]
    fn a_list_of_resources_becomes_aggregated_discovery() {
        let service = Aggregated {
            group: "metrics.k8s.io".into(),
            version: "v1beta1".into(),
            provider: Provider::UsageMetrics,
            is_available: true,
            resources: vec![
                json!({"name": "pods", "singularName": "", "namespaced": true, "kind": "PodMetrics", "verbs": ["get", "list"]}),
                json!({"name": "pods/status", "kind": "Other", "group": "g", "version": "v1", "verbs": ["get"]}),
            ],
            openapi: None,
        };
        let kind = json!({"group": "metrics.k8s.io", "version": "v1beta1", "kind": "PodMetrics"});
        let part = json!({"subresource": "status", "responseKind": {"group": "g", "version": "v1", "kind": "Other"}, "verbs": ["get"]});
        assert_eq!(
            discovered(&service),
            [json!({
                "resource": "pods", "responseKind": kind, "singularResource": "", "scope": "Namespaced",
                "verbs": ["get", "list"], "subresources": [part],
            })]
        );
    }
}
