//! Definitions of types.

use k8s_openapi::api::{
    admissionregistration, apps, autoscaling, batch, certificates, coordination, core, discovery, events,
    flowcontrol, networking, node, rbac, scheduling, storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, ObjectMeta, Status};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1 as registration;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::schema::{Field, KINDS, Kind, ListType, message};

/// What a reference to a definition begins with.
pub const PREFIX: &str = "#/components/schemas/";
const EXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.";
const REGISTRATION: &str = "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.";
/// The prefix of the definitions that all groups share.
pub const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// The name of a kind's definition: `io.k8s.api.core.v1.Pod`, `com.example.stable.v1.CronTab`.
pub fn definition_name(kind: &Kind) -> String {
    if kind.is_other_version() {
        let group = kind.group.split('.').next().unwrap_or_default();
        return format!("io.k8s.api.{group}.{}.{}", kind.version, kind.kind);
    }
    if kind.custom.is_some() {
        let group: Vec<&str> = kind.group.rsplit('.').collect();
        return format!("{}.{}.{}", group.join("."), kind.version, kind.kind);
    }
    let message = kind.message;
    let prefixes =
        [("meta.v1.", META), ("apiextensions.v1.", EXTENSIONS), ("apiregistration.v1.", REGISTRATION)];
    let own =
        prefixes.iter().find_map(|(short, long)| Some(format!("{long}{}", message.strip_prefix(short)?)));
    own.unwrap_or_else(|| format!("io.k8s.api.{message}"))
}

/// The name of the definition of a kind's lists: `io.k8s.api.core.v1.PodList`.
pub fn list_name(kind: &Kind) -> String {
    // A custom kind may call its lists as it likes; its definition bears their name all the same.
    let name = definition_name(kind);
    let prefix = name.strip_suffix(&*kind.kind).unwrap_or(&name);
    format!("{prefix}{}", kind.list_kind())
}

fn list_schema(kind: &Kind) -> Value {
    let reference = |name: &str| json!({"allOf": [{"$ref": format!("{PREFIX}{name}")}], "default": {}});
    json!({
        "type": "object",
        "description": format!("{} is a list of {}.", kind.list_kind(), kind.kind),
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": "The group and version of the list's kind."},
            "kind": {"type": "string", "description": "The list's kind."},
            "metadata": reference(&format!("{META}ListMeta")),
            "items": {"type": "array", "description": "The objects.", "items": reference(&definition_name(kind))},
        },
        "x-kubernetes-group-version-kind":
            [{"group": kind.group, "version": kind.version, "kind": kind.list_kind()}],
    })
}

/// `core.v1.Pod` for `io.k8s.api.core.v1.Pod`.
fn message_name(definition: &str) -> Option<String> {
    let prefixes = [
        (META, "meta.v1."),
        (EXTENSIONS, "apiextensions.v1."),
        (REGISTRATION, "apiregistration.v1."),
        ("io.k8s.api.", ""),
    ];
    prefixes.iter().find_map(|(long, short)| Some(format!("{short}{}", definition.strip_prefix(long)?)))
}

fn add<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

/// The Rust type of a message; only stored kinds and their subresources have definitions of their own.
fn add_message(name: &str, generator: &mut SchemaGenerator) {
    let add_it = match name {
        "core.v1.ConfigMap" => add::<core::v1::ConfigMap>,
        "core.v1.Endpoints" => add::<core::v1::Endpoints>,
        "core.v1.Event" => add::<core::v1::Event>,
        "core.v1.LimitRange" => add::<core::v1::LimitRange>,
        "core.v1.Namespace" => add::<core::v1::Namespace>,
        "core.v1.Node" => add::<core::v1::Node>,
        "core.v1.PersistentVolume" => add::<core::v1::PersistentVolume>,
        "core.v1.PersistentVolumeClaim" => add::<core::v1::PersistentVolumeClaim>,
        "core.v1.Pod" => add::<core::v1::Pod>,
        "core.v1.PodTemplate" => add::<core::v1::PodTemplate>,
        "core.v1.ReplicationController" => add::<core::v1::ReplicationController>,
        "core.v1.ResourceQuota" => add::<core::v1::ResourceQuota>,
        "core.v1.Secret" => add::<core::v1::Secret>,
        "core.v1.Service" => add::<core::v1::Service>,
        "core.v1.ServiceAccount" => add::<core::v1::ServiceAccount>,
        "admissionregistration.v1.MutatingWebhookConfiguration" => {
            add::<admissionregistration::v1::MutatingWebhookConfiguration>
        }
        "admissionregistration.v1.MutatingAdmissionPolicy" => {
            add::<admissionregistration::v1::MutatingAdmissionPolicy>
        }
        "admissionregistration.v1.MutatingAdmissionPolicyBinding" => {
            add::<admissionregistration::v1::MutatingAdmissionPolicyBinding>
        }
        "admissionregistration.v1.ValidatingAdmissionPolicy" => {
            add::<admissionregistration::v1::ValidatingAdmissionPolicy>
        }
        "admissionregistration.v1.ValidatingAdmissionPolicyBinding" => {
            add::<admissionregistration::v1::ValidatingAdmissionPolicyBinding>
        }
        "admissionregistration.v1.ValidatingWebhookConfiguration" => {
            add::<admissionregistration::v1::ValidatingWebhookConfiguration>
        }
        "apiextensions.v1.CustomResourceDefinition" => add::<v1::CustomResourceDefinition>,
        "apiregistration.v1.APIService" => add::<registration::APIService>,
        "apps.v1.ControllerRevision" => add::<apps::v1::ControllerRevision>,
        "apps.v1.DaemonSet" => add::<apps::v1::DaemonSet>,
        "apps.v1.Deployment" => add::<apps::v1::Deployment>,
        "apps.v1.ReplicaSet" => add::<apps::v1::ReplicaSet>,
        "apps.v1.StatefulSet" => add::<apps::v1::StatefulSet>,
        "batch.v1.CronJob" => add::<batch::v1::CronJob>,
        "batch.v1.Job" => add::<batch::v1::Job>,
        "autoscaling.v1.Scale" => add::<autoscaling::v1::Scale>,
        "certificates.v1.CertificateSigningRequest" => add::<certificates::v1::CertificateSigningRequest>,
        "coordination.v1.Lease" => add::<coordination::v1::Lease>,
        "discovery.v1.EndpointSlice" => add::<discovery::v1::EndpointSlice>,
        "events.v1.Event" => add::<events::v1::Event>,
        "flowcontrol.v1.FlowSchema" => add::<flowcontrol::v1::FlowSchema>,
        "flowcontrol.v1.PriorityLevelConfiguration" => add::<flowcontrol::v1::PriorityLevelConfiguration>,
        "networking.v1.Ingress" => add::<networking::v1::Ingress>,
        "networking.v1.IngressClass" => add::<networking::v1::IngressClass>,
        "networking.v1.NetworkPolicy" => add::<networking::v1::NetworkPolicy>,
        "rbac.v1.ClusterRole" => add::<rbac::v1::ClusterRole>,
        "rbac.v1.ClusterRoleBinding" => add::<rbac::v1::ClusterRoleBinding>,
        "rbac.v1.Role" => add::<rbac::v1::Role>,
        "rbac.v1.RoleBinding" => add::<rbac::v1::RoleBinding>,
        "scheduling.v1.PriorityClass" => add::<scheduling::v1::PriorityClass>,
        "node.v1.RuntimeClass" => add::<node::v1::RuntimeClass>,
        "storage.v1.StorageClass" => add::<storage::v1::StorageClass>,
        _ => return,
    };
    add_it(generator);
}

/// The definitions that these kinds need.
pub fn schemas(kinds: &[&Kind]) -> Map<String, Value> {
    let mut generator = SchemaSettings::openapi3().into_generator();
    for add_shared in [add::<DeleteOptions>, add::<ListMeta>, add::<Status>] {
        add_shared(&mut generator);
    }
    for kind in kinds {
        match kind.custom {
            Some(_) => add::<ObjectMeta>(&mut generator),
            None => add_message(kind.message, &mut generator),
        }
        if kind.subresources.iter().any(|s| s == "scale") {
            add_message("autoscaling.v1.Scale", &mut generator);
        }
    }
    let mut all = generator.take_definitions(true);
    for (name, schema) in &mut all {
        complete(name, schema);
    }
    for kind in kinds {
        if let Some(custom) = &kind.custom {
            let schema: Option<Value> = serde_json::from_slice(custom.written()).ok();
            all.insert(definition_name(kind), own_schema(kind, schema));
        }
        if let Some(form) = kind.form.filter(|_| kind.is_other_version()) {
            let stored = || all.get(&format!("io.k8s.api.{}", kind.message)).cloned();
            let schema = form.schema().or_else(stored);
            all.insert(definition_name(kind), own_schema(kind, schema));
        }
    }
    for kind in kinds {
        all.insert(list_name(kind), list_schema(kind));
    }
    let patch = json!({"type": "object", "description": "A patch; its content type says of which kind."});
    all.insert(format!("{META}Patch"), patch);
    all
}

/// The schema of a kind that has no type of its own in the table, with what every object has. Without one it takes anything.
fn own_schema(kind: &Kind, schema: Option<Value>) -> Value {
    let mut schema = schema.unwrap_or_else(|| json!({"type": "object"}));
    let gvk = json!([{"group": kind.group, "version": kind.version, "kind": kind.kind}]);
    let own = [
        (
            "apiVersion",
            json!({"type": "string", "description": "The group and version of the object's kind."}),
        ),
        ("kind", json!({"type": "string", "description": "The object's kind."})),
        ("metadata", json!({"allOf": [{"$ref": format!("{PREFIX}{META}ObjectMeta")}], "default": {}})),
    ];
    let Some(map) = schema.as_object_mut() else { return schema };
    map.insert("x-kubernetes-group-version-kind".into(), gvk);
    let properties = map.entry("properties").or_insert_with(|| json!({}));
    for (name, described) in own {
        if let Some(properties) = properties.as_object_mut() {
            properties.insert(name.into(), described);
        }
    }
    schema
}

fn complete(name: &str, schema: &mut Value) {
    let Value::Object(object) = schema else { return };
    if object.remove("x-kubernetes-int-or-string").is_some() {
        let number = if name.ends_with("Quantity") { "number" } else { "integer" };
        object.insert("oneOf".into(), json!([{"type": "string"}, {"type": number}]));
        if !name.ends_with("Quantity") {
            object.insert("format".into(), "int-or-string".into());
        }
    }
    let Some(name) = message_name(name) else { return };
    let Some(message) = message(&name) else { return };
    if message.atomic {
        object.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
    let known: Vec<Value> = KINDS
        .iter()
        .filter(|k| k.message == name && !k.is_other_version())
        .map(|k| json!({"group": k.group, "version": k.version, "kind": k.kind}))
        .collect();
    if !known.is_empty() {
        object.insert("x-kubernetes-group-version-kind".into(), known.into());
    }
    let properties = object.get_mut("properties").and_then(Value::as_object_mut);
    for (key, property) in properties.into_iter().flatten() {
        let Value::Object(property) = property else { continue };
        wrap_reference(property);
        if let Some(Value::Object(items)) = property.get_mut("items") {
            wrap_reference(items);
        }
        if let Some(Value::Object(values)) = property.get_mut("additionalProperties") {
            wrap_reference(values);
        }
        if let Some(field) = message.field(key) {
            extend(property, field);
        }
    }
}

/// OpenAPI 3.0 ignores what stands beside a `$ref`, so Kubernetes puts it into an `allOf`.
fn wrap_reference(schema: &mut Map<String, Value>) {
    if let Some(target) = schema.remove("$ref") {
        debug_assert!(target.as_str().is_some_and(|t| t.starts_with(PREFIX)));
        schema.insert("allOf".into(), json!([{"$ref": target}]));
        schema.insert("default".into(), json!({}));
    }
}

/// Adds list types and merge keys, which `k8s-openapi` does not carry.
fn extend(property: &mut Map<String, Value>, field: &Field) {
    let mut set = |key: &str, value: Value| {
        property.insert(format!("x-kubernetes-{key}"), value);
    };
    let is_list = field.shape == crate::schema::Shape::List;
    match field.list_type {
        ListType::Atomic if is_list => set("list-type", "atomic".into()),
        ListType::Atomic => set("map-type", "atomic".into()),
        ListType::Set => set("list-type", "set".into()),
        ListType::Map(keys) => {
            set("list-type", "map".into());
            set("list-map-keys", json!(keys));
        }
        ListType::Default => {}
    }
    let strategy = match (field.merges, field.retain_keys) {
        (true, true) => "merge,retainKeys",
        (true, false) => "merge",
        (false, true) => "retainKeys",
        (false, false) => return,
    };
    set("patch-strategy", strategy.into());
    if let Some(key) = field.merge_key {
        set("patch-merge-key", key.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Inner, Message, Shape};

    /// How the table sees a property that `k8s-openapi` describes.
    fn describe(property: &Value) -> String {
        if let Some(target) = property["allOf"][0]["$ref"].as_str() {
            let name = target.trim_start_matches(PREFIX);
            return match message_name(name) {
                Some(union) if message(&union).is_some_and(|m| m.union) => union,
                _ if name.ends_with(".IntOrString") => "IntOrString".into(),
                _ if name.ends_with(".Quantity") => "Quantity".into(),
                _ if name.ends_with(".MicroTime") => "MicroTime".into(),
                _ if name.ends_with(".Time") => "Time".into(),
                Some(message)
                    if ["FieldsV1", "RawExtension", ".JSON"].iter().any(|any| name.ends_with(any)) =>
                {
                    drop(message);
                    "Any".into()
                }
                message => message.unwrap_or_else(|| "Any".into()),
            };
        }
        match (property["type"].as_str().unwrap_or(""), property["format"].as_str().unwrap_or("")) {
            ("array", _) => format!("[]{}", describe(&property["items"])),
            ("object", _) => format!("{{}}{}", describe(&property["additionalProperties"])),
            ("integer", "int32") => "Int32".into(),
            ("integer", _) => "Int64".into(),
            ("string", "byte") => "Bytes".into(),
            ("string", _) => "String".into(),
            ("boolean", _) => "Bool".into(),
            ("number", _) => "Double".into(),
            other => format!("{other:?}"),
        }
    }

    fn describe_field(field: &Field) -> String {
        let inner = match field.inner {
            Inner::Message(reference) => reference.get().name.to_owned(),
            Inner::Strings => "[]String".into(),
            other => format!("{other:?}"),
        };
        match field.shape {
            Shape::Single => inner,
            Shape::List => format!("[]{inner}"),
            Shape::Map => format!("{{}}{inner}"),
        }
    }

    fn compare(message: &'static Message, schema: &Value) {
        let mut properties = schema["properties"].as_object().cloned().unwrap_or_default();
        if message.typed {
            properties.remove("apiVersion");
            properties.remove("kind");
        }
        for field in message.fields() {
            let property = properties.remove(field.name);
            let described = property.as_ref().map(describe);
            assert_eq!(described, Some(describe_field(field)), "{}.{}", message.name, field.name);
        }
        assert!(properties.is_empty(), "{}: not in the table: {properties:?}", message.name);
    }

    #[test]
    fn the_table_of_fields_agrees_with_k8s_openapi() {
        let stored: Vec<&Kind> = KINDS.iter().filter(|k| k.is_stored()).map(|k| &**k).collect();
        let all = schemas(&stored);
        let mut compared = 0;
        for (name, schema) in &all {
            if let Some(message) = message_name(name).and_then(|name| message(&name)).filter(|m| !m.union) {
                compare(message, schema);
                compared += 1;
            }
        }
        assert!(compared > 200, "only {compared} types compared");
    }
}
