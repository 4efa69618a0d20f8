//! `meta.k8s.io/v1` Tables: the columns that kubectl prints. Pure over objects as JSON and the time.

mod format;
mod pod;
mod rbac;
mod rows;
mod volume;
mod workload;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::schema::Kind;

/// What each row carries of its object; the `includeObject` parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// A `PartialObjectMetadata`.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl IncludeObject {
    /// Reads the query parameter; empty is `Metadata`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "" | "Metadata" => Self::Metadata,
            "None" => Self::None,
            "Object" => Self::Object,
            _ => return None,
        })
    }
}

/// A column: its name and type; `wide` ones show with `-o wide` only.
#[derive(Clone, Copy)]
struct Column {
    name: &'static str,
    kind: &'static str,
    wide: bool,
}

const fn text(name: &'static str) -> Column {
    Column { name, kind: "string", wide: false }
}

const fn wide(name: &'static str) -> Column {
    Column { name, kind: "string", wide: true }
}

const fn integer(name: &'static str) -> Column {
    Column { name, kind: "integer", wide: false }
}

const NAME: Column = text("Name");
const AGE: Column = text("Age");

#[rustfmt::skip]
fn kind_columns(kind: &Kind) -> Vec<Column> {
    match kind.message {
        "core.v1.Pod" => vec![NAME, text("Ready"), text("Status"), text("Restarts"), AGE, wide("IP"), wide("Node"),
            wide("Nominated Node"), wide("Readiness Gates")],
        "apps.v1.Deployment" => vec![NAME, text("Ready"), integer("Up-to-date"), integer("Available"), AGE,
            wide("Containers"), wide("Images"), wide("Selector")],
        "apps.v1.ReplicaSet" => vec![NAME, integer("Desired"), integer("Current"), integer("Ready"), AGE,
            wide("Containers"), wide("Images"), wide("Selector")],
        "core.v1.ReplicationController" => vec![NAME, integer("Desired"), integer("Current"), integer("Ready"), AGE,
            wide("Containers"), wide("Images"), wide("Selector")],
        "apps.v1.DaemonSet" => vec![NAME, integer("Desired"), integer("Current"), integer("Ready"),
            integer("Up-to-date"), integer("Available"), text("Node Selector"), AGE, wide("Containers"),
            wide("Images"), wide("Selector")],
        "apps.v1.ControllerRevision" => vec![NAME, text("Controller"), integer("Revision"), AGE],
        "batch.v1.Job" => vec![NAME, text("Status"), text("Completions"), text("Duration"), AGE, wide("Containers"),
            wide("Images"), wide("Selector")],
        "core.v1.PersistentVolume" => vec![NAME, text("Capacity"), text("Access Modes"), text("Reclaim Policy"),
            text("Status"), text("Claim"), text("StorageClass"), text("VolumeAttributesClass"), text("Reason"), AGE,
            wide("VolumeMode")],
        "core.v1.PersistentVolumeClaim" => vec![NAME, text("Status"), text("Volume"), text("Capacity"),
            text("Access Modes"), text("StorageClass"), text("VolumeAttributesClass"), AGE, wide("VolumeMode")],
        "core.v1.PodTemplate" => vec![NAME, text("Containers"), text("Images"), text("Pod Labels")],
        "storage.v1.StorageClass" => vec![NAME, text("Provisioner"), text("ReclaimPolicy"), text("VolumeBindingMode"),
            text("AllowVolumeExpansion"), AGE],
        "networking.v1.NetworkPolicy" => vec![NAME, text("Pod-Selector"), AGE],
        "core.v1.Service" => vec![NAME, text("Type"), text("Cluster-IP"), text("External-IP"), text("Port(s)"), AGE,
            wide("Selector")],
        "core.v1.Node" => vec![NAME, text("Status"), text("Roles"), AGE, text("Version"), wide("Internal-IP"),
            wide("External-IP"), wide("OS-Image"), wide("Kernel-Version"), wide("Container-Runtime")],
        "core.v1.Namespace" => vec![NAME, text("Status"), AGE],
        "core.v1.ConfigMap" => vec![NAME, integer("Data"), AGE],
        "core.v1.Secret" => vec![NAME, text("Type"), integer("Data"), AGE],
        "core.v1.ServiceAccount" => vec![NAME, integer("Secrets"), AGE],
        "core.v1.Endpoints" => vec![NAME, text("Endpoints"), AGE],
        "discovery.v1.EndpointSlice" => vec![NAME, text("AddressType"), text("Ports"), text("Endpoints"), AGE],
        "core.v1.Event" | "events.v1.Event" => vec![text("Last Seen"), text("Type"), text("Reason"), text("Object"),
            wide("Subobject"), wide("Source"), text("Message"), wide("First Seen"), wide("Count"), wide("Name")],
        "networking.v1.Ingress" => vec![NAME, text("Class"), text("Hosts"), text("Address"), text("Ports"), AGE],
        "networking.v1.IngressClass" => vec![NAME, text("Controller"), text("Parameters"), AGE],
        "rbac.v1.RoleBinding" | "rbac.v1.ClusterRoleBinding" => vec![NAME, text("Role"), AGE, wide("Users"),
            wide("Groups"), wide("ServiceAccounts")],
        "coordination.v1.Lease" => vec![NAME, text("Holder"), AGE],
        _ => vec![NAME, text("Created At")],
    }
}

/// `columnDefinitions` of the kind's Tables.
pub fn columns(kind: &Kind) -> Value {
    let column = |c: &Column| {
        let (format, description) = match c.name {
            "Name" => ("name", "The name of the object, unique within its namespace."),
            "Age" => ("", "The time since the object was created."),
            _ => ("", ""),
        };
        let name = c.name;
        json!({
            "name": name, "type": c.kind, "format": format, "description": description,
            "priority": i32::from(c.wide),
        })
    };
    kind_columns(kind).iter().map(column).collect()
}

/// One entry of `rows`.
pub fn row(kind: &Kind, object: &Value, include: IncludeObject, now: Timestamp) -> Value {
    let cells = rows::cells(kind, object, now);
    match include {
        IncludeObject::None => json!({"cells": cells}),
        IncludeObject::Metadata => json!({
            "cells": cells,
            "object": {
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"],
            },
        }),
        IncludeObject::Object => json!({"cells": cells, "object": object}),
    }
}

/// A whole Table. `metadata` is the list's (or, for a single object, its `resourceVersion`); `with_columns` is false for
/// every watch event but the first.
pub fn table<'a>(
    kind: &Kind,
    objects: impl IntoIterator<Item = &'a Value>,
    metadata: Value,
    include: IncludeObject,
    now: Timestamp,
    with_columns: bool,
) -> Value {
    let rows: Vec<Value> = objects.into_iter().map(|o| row(kind, o, include, now)).collect();
    let columns = if with_columns { columns(kind) } else { Value::Array(Vec::new()) };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": columns,
        "rows": rows,
    })
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
