//! What is remembered of a deployed application, in the cluster itself: a ConfigMap `yado-app-NAME`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use yado_compile::ExternalEndpoint;
use yado_types::labels;

use crate::{apply::FIELD_MANAGER, connect::failed, source::Source};

/// Label of the ConfigMaps; its value is [`APP`].
const RECORD: &str = "yado.dev/record";
const APP: &str = "app";
/// Under which key the record is.
const KEY: &str = "record";

/// A deployed application.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// Its name.
    pub app: String,
    /// Its type (`ruby`, `docker-external`); empty where there is none.
    pub app_type: String,
    /// Its identity, from its `.ottoid`.
    pub id: Option<String>,
    /// Where its description is; none for one from standard input or the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// How often a deployment has changed it.
    pub revision: u64,
    /// The last revision that became ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub served: Option<u64>,
    /// Why the present revision did not become ready, if it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// When that last was.
    pub deployed_at: String,
    /// Whether it was deployed by itself, rather than only as what another app depends on.
    pub asked: bool,
    /// Apps that depend on it.
    pub needed_by: BTreeSet<String>,
    /// Applications that it depends on.
    pub dependencies: Vec<String>,
    /// Images that it runs.
    pub images: Vec<String>,
    /// The host name of its web page.
    pub host: Option<String>,
    /// Ports at which it is reached.
    pub published: Vec<Port>,
    /// What it consists of, in the order in which it was made.
    pub objects: Vec<Key>,
}

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    /// `apps/v1`.
    pub api_version: String,
    /// `Deployment`.
    pub kind: String,
    /// Where it says one itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub namespace: Option<String>,
    /// `web`.
    pub name: String,
}

impl Key {
    /// Of an object.
    pub fn of(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Key {
            api_version: text(&object["apiVersion"]),
            kind: text(&object["kind"]),
            namespace: object["metadata"]["namespace"].as_str().map(str::to_owned),
            name: text(&object["metadata"]["name"]),
        }
    }

    /// Whether both are one object, whichever version of its API each was written in.
    pub fn is(&self, other: &Key) -> bool {
        let group = |key: &Key| key.api_version.rsplit_once('/').map(|(group, _)| group.to_owned());
        self.kind == other.kind
            && self.name == other.name
            && self.namespace == other.namespace
            && group(self) == group(other)
    }

    /// As much of the object as it takes to name it.
    pub fn object(&self) -> Value {
        let mut metadata = json!({"name": self.name});
        if let Some(namespace) = &self.namespace {
            metadata["namespace"] = namespace.as_str().into();
        }
        json!({"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata})
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// A port that is reached from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// The process type.
    pub component: String,
    /// The Service.
    pub service: String,
    /// The port outside, where it is not for the cluster to choose.
    pub port: Option<u16>,
    /// The port of the process.
    pub target: u16,
    /// `TCP`.
    pub protocol: String,
    /// Whether it serves a web page; unknown in records of before.
    #[serde(default)]
    pub web: bool,
    /// The host name that leads to it.
    pub host: Option<String>,
}

impl From<&ExternalEndpoint> for Port {
    fn from(p: &ExternalEndpoint) -> Self {
        let (component, service) = (p.component.clone(), p.service.clone());
        let (protocol, host) = (p.protocol.clone(), p.host.clone());
        Port { component, service, port: p.port, target: p.target, protocol, web: p.web, host }
    }
}

impl From<&Port> for ExternalEndpoint {
    fn from(p: &Port) -> Self {
        let (component, service) = (p.component.clone(), p.service.clone());
        let (protocol, host) = (p.protocol.clone(), p.host.clone());
        ExternalEndpoint { component, service, port: p.port, target: p.target, protocol, web: p.web, host }
    }
}

impl Record {
    /// Whether anybody wants it: it was deployed by itself, or an app needs it. What is left of one that nobody wants
    /// is data.
    pub fn is_wanted(&self) -> bool {
        self.asked || !self.needed_by.is_empty()
    }
}

/// All records of a namespace, by name.
///
/// # Errors
///
/// They cannot be listed, or one is none.
pub async fn all(client: &Client, namespace: &str) -> anyhow::Result<Vec<Record>> {
    let found = listed(Api::namespaced(client.clone(), namespace)).await?;
    let mut records: Vec<Record> = found.into_iter().map(|(_, record)| record).collect();
    records.sort_by(|a: &Record, b| a.app.cmp(&b.app));
    Ok(records)
}

/// All records of a cluster, each with its namespace.
///
/// # Errors
///
/// They cannot be listed, or one is none.
pub async fn everywhere(client: &Client) -> anyhow::Result<Vec<(String, Record)>> {
    listed(Api::all(client.clone())).await
}

async fn listed(api: Api<ConfigMap>) -> anyhow::Result<Vec<(String, Record)>> {
    let listed = api.list(&ListParams::default().labels(&format!("{RECORD}={APP}"))).await;
    let listed = listed.map_err(failed("deployments cannot be listed"))?;
    let mut records = Vec::new();
    for map in listed {
        let name = map.metadata.name.unwrap_or_default();
        let text = map.data.and_then(|mut data| data.remove(KEY)).unwrap_or_default();
        let record = serde_json::from_str(&text);
        let record = record
            .map_err(|e| anyhow::anyhow!("ConfigMap {name} is not a valid record of a deployment: {e}"))?;
        records.push((map.metadata.namespace.unwrap_or_default(), record));
    }
    Ok(records)
}

fn map_name(app: &str) -> String {
    format!("yado-app-{app}")
}

/// Remembers.
///
/// # Errors
///
/// The API server refuses.
pub async fn write(client: &Client, namespace: &str, record: &Record) -> anyhow::Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let name = map_name(&record.app);
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {
            RECORD: APP,
            labels::APP_NAME: record.app,
            labels::APP_MANAGED_BY: labels::MANAGED_BY_YADO,
        }},
        "data": {KEY: serde_json::to_string_pretty(record)?},
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let written = api.patch(&name, &params, &Patch::Apply(map)).await;
    written.map_err(failed(format!("the record of {} cannot be written", record.app)))?;
    Ok(())
}

/// Forgets.
///
/// # Errors
///
/// The API server refuses.
pub async fn delete(client: &Client, namespace: &str, app: &str) -> anyhow::Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    match api.delete(&map_name(app), &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        deleted => deleted.map(drop).map_err(failed(format!("the record of {app} cannot be deleted"))),
    }
}
