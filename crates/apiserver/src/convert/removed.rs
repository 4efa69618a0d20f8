//! Kinds in API versions that Kubernetes has removed: served as they were, stored as those of today.

use serde_json::{Map, Value, json};
use yado_types::api_versions::{self, FieldDiagnostics};

use super::{Deprecation, Form, Stored};
use crate::edit::{existing_at, fill, text, within};
use crate::schema::Kind;

/// A kind in a removed version.
#[derive(Debug)]
struct Removed {
    /// Group and version.
    version: (&'static str, &'static str),
    kind: &'static str,
    /// Group and version of today's kind.
    today: (&'static str, &'static str),
    lifecycle: Deprecation,
    /// Fills in the defaults that differ from today's.
    default: fn(&mut Map<String, Value>),
    /// Whether fields have other names than today's.
    is_renamed: bool,
}

impl Form for Removed {
    fn stored_as(&self) -> (&'static str, &'static str) {
        self.today
    }

    fn to_stored(&self, object: Value) -> Stored {
        let mut found = FieldDiagnostics::default();
        let object = api_versions::modernise(object, &mut found);
        let warnings = found.warnings.into_iter().map(|w| format!("{}: {}", w.path.join("."), w.sentence));
        let errors = found.errors.into_iter().map(|e| (e.path.join("."), e.sentence));
        Stored { object: object.unwrap_or_default(), warnings: warnings.collect(), errors: errors.collect() }
    }

    fn show(&self, mut object: Value) -> Value {
        if self.is_renamed {
            backends_of_ingress(&mut object);
        }
        object
    }

    fn default_stored(&self, object: &mut Value) {
        if let Some(object) = object.as_object_mut() {
            (self.default)(object);
        }
    }

    fn deprecation(&self) -> Option<Deprecation> {
        Some(self.lifecycle)
    }

    fn schema(&self) -> Option<Value> {
        self.is_renamed.then(ingress_schema)
    }
}

/// The removed versions of these kinds, in the order in which discovery shows them: last of all.
pub(crate) fn removed_kinds(today: &[Kind]) -> Vec<Kind> {
    REMOVED.iter().filter_map(|removed| kind_in(today, removed.version, removed.kind, removed)).collect()
}

/// One of today's kinds in another version, shown in this form.
pub(super) fn kind_in(
    today: &[Kind],
    (group, version): (&'static str, &'static str),
    kind: &str,
    form: &'static dyn Form,
) -> Option<Kind> {
    let stored = form.stored_as();
    let kind = today.iter().find(|k| k.kind == kind && (&*k.group, &*k.version) == stored)?;
    Some(Kind {
        group: group.into(),
        version: version.into(),
        kind: kind.kind.clone(),
        plural: kind.plural.clone(),
        singular: kind.singular.clone(),
        namespaced: kind.namespaced,
        // Short names and categories mean today's kind.
        short_names: Vec::new(),
        categories: Vec::new(),
        subresources: kind.subresources.clone(),
        storage: kind.storage,
        form: Some(form),
        message: kind.message,
        custom: None,
        built_in: kind.built_in,
    })
}

const APPS_V1: (&str, &str) = ("apps", "v1");
const BATCH_V1: (&str, &str) = ("batch", "v1");
const NETWORKING_V1: (&str, &str) = ("networking.k8s.io", "v1");
const RBAC_V1: (&str, &str) = ("rbac.authorization.k8s.io", "v1");
const APPS_BETA_1: (&str, &str) = ("apps", "v1beta1");
const APPS_BETA_2: (&str, &str) = ("apps", "v1beta2");
const BATCH_BETA: (&str, &str) = ("batch", "v1beta1");
const NETWORKING_BETA: (&str, &str) = ("networking.k8s.io", "v1beta1");
const RBAC_BETA: (&str, &str) = ("rbac.authorization.k8s.io", "v1beta1");
const EXTENSIONS_BETA: (&str, &str) = ("extensions", "v1beta1");

const fn removed(
    version: (&'static str, &'static str),
    kind: &'static str,
    today: (&'static str, &'static str),
    [deprecated, removed]: [&'static str; 2],
    default: fn(&mut Map<String, Value>),
) -> Removed {
    Removed {
        version,
        kind,
        today,
        lifecycle: Deprecation { deprecated, removed },
        default,
        is_renamed: false,
    }
}

/// Releases are those of Kubernetes' own warnings.
#[rustfmt::skip]
static REMOVED: [Removed; 20] = [
    removed(APPS_BETA_2, "DaemonSet", APPS_V1, ["1.9", "1.16"], nothing),
    removed(APPS_BETA_2, "Deployment", APPS_V1, ["1.9", "1.16"], nothing),
    removed(APPS_BETA_2, "ReplicaSet", APPS_V1, ["1.9", "1.16"], nothing),
    removed(APPS_BETA_2, "StatefulSet", APPS_V1, ["1.9", "1.16"], nothing),
    removed(APPS_BETA_2, "ControllerRevision", APPS_V1, ["1.9", "1.16"], nothing),
    removed(APPS_BETA_1, "Deployment", APPS_V1, ["1.8", "1.16"], deployment_of_apps),
    removed(APPS_BETA_1, "StatefulSet", APPS_V1, ["1.8", "1.16"], updated_on_delete),
    removed(APPS_BETA_1, "ControllerRevision", APPS_V1, ["1.8", "1.16"], nothing),
    removed(BATCH_BETA, "CronJob", BATCH_V1, ["1.21", "1.25"], nothing),
    Removed { is_renamed: true, ..removed(NETWORKING_BETA, "Ingress", NETWORKING_V1, ["1.19", "1.22"], nothing) },
    removed(NETWORKING_BETA, "IngressClass", NETWORKING_V1, ["1.19", "1.22"], nothing),
    removed(RBAC_BETA, "ClusterRole", RBAC_V1, ["1.17", "1.22"], nothing),
    removed(RBAC_BETA, "ClusterRoleBinding", RBAC_V1, ["1.17", "1.22"], nothing),
    removed(RBAC_BETA, "Role", RBAC_V1, ["1.17", "1.22"], nothing),
    removed(RBAC_BETA, "RoleBinding", RBAC_V1, ["1.17", "1.22"], nothing),
    removed(EXTENSIONS_BETA, "DaemonSet", APPS_V1, ["1.8", "1.16"], updated_on_delete),
    removed(EXTENSIONS_BETA, "Deployment", APPS_V1, ["1.8", "1.16"], deployment_of_extensions),
    removed(EXTENSIONS_BETA, "ReplicaSet", APPS_V1, ["1.8", "1.16"], labels),
    Removed { is_renamed: true, ..removed(EXTENSIONS_BETA, "Ingress", NETWORKING_V1, ["1.14", "1.22"], nothing) },
    removed(EXTENSIONS_BETA, "NetworkPolicy", NETWORKING_V1, ["1.9", "1.16"], nothing),
];

fn nothing(_object: &mut Map<String, Value>) {}

/// An object without labels has those of its template.
fn labels(object: &mut Map<String, Value>) {
    let template = object.get("spec").and_then(|spec| spec.pointer("/template/metadata/labels"));
    let Some(template) = template.filter(|labels| labels.is_object()).cloned() else { return };
    let Some(metadata) = within(object, "metadata") else { return };
    if metadata.get("labels").and_then(Value::as_object).is_none_or(Map::is_empty) {
        metadata.insert("labels".into(), template);
    }
}

/// All old ReplicaSets are kept, nothing is given up, and Pods are replaced one by one.
fn deployment_of_extensions(object: &mut Map<String, Value>) {
    labels(object);
    let Some(spec) = within(object, "spec") else { return };
    fill(spec, "revisionHistoryLimit", i32::MAX);
    fill(spec, "progressDeadlineSeconds", i32::MAX);
    let Some(strategy) = within(spec, "strategy") else { return };
    fill(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate"
        && let Some(rolling) = within(strategy, "rollingUpdate")
    {
        fill(rolling, "maxUnavailable", 1);
        fill(rolling, "maxSurge", 1);
    }
}

fn deployment_of_apps(object: &mut Map<String, Value>) {
    labels(object);
    if let Some(spec) = within(object, "spec") {
        fill(spec, "revisionHistoryLimit", 2);
    }
}

/// Pods of older templates stay until they are deleted: DaemonSets and StatefulSets of their first versions.
fn updated_on_delete(object: &mut Map<String, Value>) {
    labels(object);
    if let Some(spec) = within(object, "spec")
        && let Some(strategy) = within(spec, "updateStrategy")
    {
        fill(strategy, "type", "OnDelete");
    }
}

/// The schema of an Ingress before v1.
fn ingress_schema() -> Value {
    let of = |name: &str| json!({"$ref": format!("#/components/schemas/io.k8s.api.{name}")});
    let text = json!({"type": "string"});
    let object = |properties: Value| json!({"type": "object", "properties": properties});
    let list = |items: Value| json!({"type": "array", "items": items, "x-kubernetes-list-type": "atomic"});
    let port = json!({"oneOf": [{"type": "string"}, {"type": "integer"}], "format": "int-or-string"});
    let backend = object(json!({
        "serviceName": text, "servicePort": port, "resource": {"allOf": [of("core.v1.TypedLocalObjectReference")]},
    }));
    let path = object(json!({"path": text, "pathType": text, "backend": backend}));
    let rule = object(json!({"host": text, "http": object(json!({"paths": list(path)}))}));
    let spec = object(json!({
        "backend": backend, "ingressClassName": text, "rules": list(rule), "tls": list(of("networking.v1.IngressTLS")),
    }));
    object(json!({"spec": spec, "status": {"allOf": [of("networking.v1.IngressStatus")]}}))
}

/// Writes the backends of an Ingress as versions before v1 have them.
fn backends_of_ingress(ingress: &mut Value) {
    let Some(spec) = existing_at(ingress, &["spec"]) else { return };
    if let Some(backend) = spec.shift_remove("defaultBackend") {
        spec.insert("backend".into(), backend_before_v1(&backend));
    }
    let rules = spec.get_mut("rules").and_then(Value::as_array_mut);
    for rule in rules.into_iter().flatten() {
        let paths = rule.pointer_mut("/http/paths").and_then(Value::as_array_mut);
        for path in paths.into_iter().flatten().filter_map(Value::as_object_mut) {
            if let Some(backend) = path.get_mut("backend") {
                *backend = backend_before_v1(backend);
            }
            // The clients of these versions know no other, and would take it away again.
            if path.get("pathType").is_some_and(|of| of == "ImplementationSpecific") {
                path.shift_remove("pathType");
            }
        }
    }
}

fn backend_before_v1(backend: &Value) -> Value {
    let mut old = Map::new();
    let service = &backend["service"];
    if service.is_object() {
        old.insert("serviceName".into(), text(&service["name"]).into());
        let port = match text(&service["port"]["name"]) {
            "" => service["port"]["number"].clone(),
            name => name.into(),
        };
        old.insert("servicePort".into(), port);
    }
    if let Some(resource) = backend.get("resource") {
        old.insert("resource".into(), resource.clone());
    }
    Value::Object(old)
}
