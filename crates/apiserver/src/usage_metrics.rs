//! `metrics.k8s.io/v1beta1`: what Pods and nodes use, as `kubectl top` and autoscalers read it.
//!
//! ```text
//! [Node] --/stats/summary of each--> NodeMetrics, PodMetrics
//! ```
//!
//! Nothing is stored: each request asks the nodes, and what a node does not tell in time is left out, as metrics-server
//! does it. An APIService of that group and version, as metrics-server's own manifests bring one, takes its place.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use http::request::Parts;
use http::{Method, Response};
use http_body_util::{BodyExt, Limited};
use serde_json::{Value, json};

use crate::content::{self, Body};
use crate::edit::{list, text};
use crate::object::{Object, Selection, meta};
use crate::request::{AggregatedRequest, AskedResource, Form, ListOptions, Query, form};
use crate::resource::{self, Resource};
use crate::server::Inner;
use crate::status::{Failure, Result};

/// The API group.
pub const GROUP: &str = "metrics.k8s.io";
/// Its version.
pub const VERSION: &str = "v1beta1";
const API_VERSION: &str = "metrics.k8s.io/v1beta1";
/// Time for a node's answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a node's answer: some hundred for each container.
const MAX_SUMMARY: usize = 16 << 20;
/// Time over which nodes compute their rates.
const WINDOW: &str = "10s";

/// The resources of the group, as discovery lists them.
pub fn resources() -> Vec<Value> {
    let row = |name: &str, kind: &str, namespaced: bool| json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get", "list"]});
    vec![row("nodes", "NodeMetrics", false), row("pods", "PodMetrics", true)]
}

/// The two kinds of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measured {
    Nodes,
    Pods,
}

impl Measured {
    fn of(asked: &AskedResource) -> Option<Self> {
        match (&*asked.resource, &*asked.subresource, asked.namespace.is_empty()) {
            ("nodes", "", true) => Some(Self::Nodes),
            ("pods", "", _) => Some(Self::Pods),
            _ => None,
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Nodes => "NodeMetrics",
            Self::Pods => "PodMetrics",
        }
    }

    /// The objects that are measured.
    fn objects(self) -> Option<&'static Arc<Resource>> {
        resource::find("", "v1", if self == Self::Nodes { "nodes" } else { "pods" })
    }
}

impl Inner {
    /// Answers a request for the group.
    pub(crate) async fn usage_metrics(
        &self,
        asked: &AggregatedRequest,
        parts: &Parts,
    ) -> Result<Response<Body>> {
        let Some(of) = &asked.resource else {
            return Ok(content::value(
                200,
                &json!({
                    "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API_VERSION, "resources": resources(),
                }),
            ));
        };
        let kind = Measured::of(of).ok_or_else(Failure::no_such_resource)?;
        if !matches!(parts.method, Method::GET | Method::HEAD) || asked.verb == "watch" {
            return Err(Failure::method_not_allowed());
        }
        self.fresh().await?;
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let wanted = form(&parts.headers, &query)?;
        let objects = self.measured_objects(kind, of, &query)?;
        let summaries = self.summaries(kind, of, &objects).await?;
        let items: Vec<Value> = match kind {
            Measured::Nodes => objects.iter().filter_map(|o| node_metrics(o, &summaries)).collect(),
            Measured::Pods => {
                let pods = pods(&summaries);
                objects.iter().filter_map(|o| pod_metrics(o, &pods)).collect()
            }
        };
        let answer = match (wanted, items.first()) {
            (Form::Table(_), _) if of.name.is_empty() || !items.is_empty() => table(kind, &items),
            (_, Some(item)) if !of.name.is_empty() => item.clone(),
            (_, None) if !of.name.is_empty() => return Err(not_measured(kind, of)),
            _ => {
                json!({"kind": format!("{}List", kind.kind()), "apiVersion": API_VERSION, "metadata": {}, "items": items})
            }
        };
        Ok(content::value(200, &answer))
    }

    /// The Pods or nodes that a request is about.
    fn measured_objects(
        &self,
        kind: Measured,
        of: &AskedResource,
        query: &Query,
    ) -> Result<Vec<Arc<Object>>> {
        let resource = kind.objects().ok_or_else(Failure::no_such_resource)?;
        if of.name.is_empty() {
            let selection = Selection::new(resource, &ListOptions::read(query)?)?;
            return Ok(self.collection(resource)?.select(&of.namespace, 0, &selection).objects);
        }
        match self.find(resource, &of.namespace, &of.name) {
            Ok(object) => Ok(vec![object]),
            Err(failure) if failure.code == 404 => Err(not_measured(kind, of)),
            Err(failure) => Err(failure),
        }
    }

    /// What the nodes tell that these objects are on, by the nodes' names.
    async fn summaries(
        &self,
        kind: Measured,
        of: &AskedResource,
        objects: &[Arc<Object>],
    ) -> Result<HashMap<String, Value>> {
        let name = |o: &Arc<Object>| match kind {
            Measured::Nodes => meta(&o.value(), "name").to_owned(),
            Measured::Pods => text(&o.value()["spec"]["nodeName"]).to_owned(),
        };
        let mut nodes: Vec<String> = match (kind, of.name.is_empty()) {
            // Reading each Pod's node would decode all Pods.
            (Measured::Pods, true) => {
                let resource = Measured::Nodes.objects().ok_or_else(Failure::no_such_resource)?;
                let present = self.collection(resource)?.list("", None, 0, |_| true).objects;
                present.iter().map(|node| meta(&node.value(), "name").to_owned()).collect()
            }
            _ => objects.iter().map(name).filter(|name| !name.is_empty()).collect(),
        };
        nodes.sort_unstable();
        nodes.dedup();
        let asked = nodes.into_iter().map(|node| async {
            let summary = self.summary(&node).await;
            if let Err(failure) = &summary {
                tracing::debug!(%node, %failure, "a node did not tell what it uses");
            }
            Some((node, summary.ok()?))
        });
        Ok(join_all(asked).await.into_iter().flatten().collect())
    }

    async fn summary(&self, node: &str) -> Result<Value> {
        let read = async {
            let answer = self.hand_on(node, "/stats/summary?only_cpu_and_memory=true", None).await?;
            let body = Limited::new(answer.into_body(), MAX_SUMMARY).collect().await;
            serde_json::from_slice(&body.map_err(Failure::internal)?.to_bytes()).map_err(Failure::internal)
        };
        tokio::select! {
            summary = read => summary,
            () = self.clock.sleep(TIMEOUT) => Err(Failure::internal(format!("node \"{node}\" does not answer"))),
        }
    }
}

fn not_measured(kind: Measured, of: &AskedResource) -> Failure {
    let (plural, name) = match kind {
        Measured::Nodes => ("nodemetrics", of.name.clone()),
        Measured::Pods => ("podmetrics", format!("{}/{}", of.namespace, of.name)),
    };
    Failure::new(404, "NotFound", format!("{plural}.{GROUP} \"{name}\" not found"))
}

/// The Pods of all summaries, by their uids.
fn pods(summaries: &HashMap<String, Value>) -> HashMap<&str, &Value> {
    let all = summaries.values().flat_map(|summary| list(&summary["pods"]));
    all.map(|pod| (text(&pod["podRef"]["uid"]), pod)).collect()
}

/// An object of this group about a measured one.
fn metrics(kind: Measured, object: &Value, measured: &Value) -> Value {
    let at = &measured["cpu"]["time"];
    let mut metadata = json!({"name": meta(object, "name"), "creationTimestamp": at});
    if kind == Measured::Pods {
        metadata["namespace"] = meta(object, "namespace").into();
    }
    if object["metadata"]["labels"].is_object() {
        metadata["labels"] = object["metadata"]["labels"].clone();
    }
    json!({"kind": kind.kind(), "apiVersion": API_VERSION, "metadata": metadata, "timestamp": at, "window": WINDOW})
}

/// `NodeMetrics` of a node that has told its figures.
fn node_metrics(object: &Object, summaries: &HashMap<String, Value>) -> Option<Value> {
    let node = object.value();
    let measured = &summaries.get(meta(&node, "name"))?["node"];
    let mut shown = metrics(Measured::Nodes, &node, measured);
    shown["usage"] = usage(measured)?;
    Some(shown)
}

/// `PodMetrics` of a Pod whose node has told its figures.
fn pod_metrics(object: &Object, pods: &HashMap<&str, &Value>) -> Option<Value> {
    let pod = object.value();
    let measured = pods.get(meta(&pod, "uid"))?;
    let containers = list(&measured["containers"]).iter();
    let containers = containers.filter_map(|c| Some(json!({"name": c["name"], "usage": usage(c)?})));
    let mut shown = metrics(Measured::Pods, &pod, measured);
    shown["containers"] = containers.collect();
    Some(shown)
}

/// Quantities in the units of metrics-server: nanocores and KiB.
fn usage(measured: &Value) -> Option<Value> {
    let cpu = measured["cpu"]["usageNanoCores"].as_u64()?;
    let memory = measured["memory"]["workingSetBytes"].as_u64()?;
    Some(json!({"cpu": format!("{cpu}n"), "memory": format!("{}Ki", memory / 1024)}))
}

/// A Table; a Pod's figures are those of all its containers.
fn table(kind: Measured, items: &[Value]) -> Value {
    let column = |name: &str| {
        let format = if name == "Name" { "name" } else { "" };
        json!({"name": name, "type": "string", "format": format, "description": "", "priority": 0})
    };
    let columns: Vec<Value> = ["Name", "Cpu", "Memory", "Window"].map(column).into();
    let sum = |item: &Value, of: &str| -> String {
        let own = std::slice::from_ref(item);
        let parts = if kind == Measured::Pods { list(&item["containers"]) } else { own };
        let unit = if of == "cpu" { "n" } else { "Ki" };
        let number =
            |part: &Value| text(&part["usage"][of]).trim_end_matches(unit).parse::<u64>().unwrap_or(0);
        format!("{}{unit}", parts.iter().map(number).sum::<u64>())
    };
    let row = |item: &Value| {
        let object = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"]});
        let cells = json!([meta(item, "name"), sum(item, "cpu"), sum(item, "memory"), item["window"]]);
        json!({"cells": cells, "object": object})
    };
    let rows: Vec<Value> = items.iter().map(row).collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "columnDefinitions": columns, "rows": rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_node_become_metrics() {
        let figures = json!({
            "cpu": {"time": "2026-01-01T00:00:00Z", "usageNanoCores": 1500},
            "memory": {"workingSetBytes": 4096},
        });
        let mut container = figures.clone();
        container["name"] = "c".into();
        let mut pod = figures.clone();
        pod["podRef"] = json!({"uid": "u"});
        pod["containers"] = json!([container, container, {"name": "starts"}]);
        let summaries = HashMap::from([("n".to_owned(), json!({"node": figures, "pods": [pod]}))]);
        let object = |value: Value| Object::unwritten(value, 1);
        let node = object(json!({"metadata": {"name": "n", "labels": {"a": "b"}}}));
        let expect = json!({
            "kind": "NodeMetrics", "apiVersion": "metrics.k8s.io/v1beta1",
            "metadata": {"name": "n", "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"a": "b"}},
            "timestamp": "2026-01-01T00:00:00Z", "window": "10s", "usage": {"cpu": "1500n", "memory": "4Ki"},
        });
        assert_eq!(node_metrics(&node, &summaries), Some(expect));
        assert_eq!(node_metrics(&object(json!({"metadata": {"name": "other"}})), &summaries), None);
        let pods = pods(&summaries);
        let measured =
            pod_metrics(&object(json!({"metadata": {"name": "p", "namespace": "d", "uid": "u"}})), &pods);
        let measured = measured.expect("figures");
        assert_eq!(measured["metadata"]["namespace"], "d");
        let one = json!({"name": "c", "usage": {"cpu": "1500n", "memory": "4Ki"}});
        assert_eq!(measured["containers"], json!([one, one]));
        let table = table(Measured::Pods, &[measured]);
        assert_eq!(table["rows"][0]["cells"], json!(["p", "3000n", "8Ki", "10s"]));
        let gone = object(json!({"metadata": {"name": "p", "namespace": "d", "uid": "v"}}));
        assert_eq!(pod_metrics(&gone, &pods), None);
    }
}
