//! Objects that every cluster has from the start.

use futures::{FutureExt, TryFutureExt, future};
use serde_json::{Value, json};

use crate::apply::Writer;
use crate::flow_control::ensure;
use crate::kinds::priority_class;
use crate::kinds::service::nth_address;
use crate::kinds::storage_class;
use crate::object::{Object, meta};
use crate::pki::FRONT_PROXY_NAME;
use crate::rbac::{self, Reconciled};
use crate::request::DeleteOptions;
use crate::resource;
use crate::schema::RBAC_GROUP;
use crate::server::Inner;
use crate::status::{Failure, Result};
use crate::write::Decision;
use crate::write::context::{Operation, WriteContext};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
const MANAGER: &str = "yado-apiserver";

/// Creates what every cluster has where it is missing: the Namespaces first, then everything else at once, since the store
/// commits writes that come together in one step.
pub(crate) async fn run(server: &Inner) -> Result<()> {
    let namespace = |name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let namespaces = NAMESPACES.into_iter().map(|name| create(server, "", "namespaces", namespace(name)));
    future::try_join_all(namespaces).await?;
    let classes = priority_class::SYSTEM.into_iter().map(|(name, value)| {
        create(server, "scheduling.k8s.io", "priorityclasses", priority_class::system_class(name, value))
    });
    let others = [
        api_service(server).boxed(),
        future::try_join_all(classes).map_ok(drop).boxed(),
        first_storage_class(server).boxed(),
        default_roles(server).boxed(),
        ensure::defaults(server).boxed(),
        authentication_of_extensions(server).boxed(),
    ];
    future::try_join_all(others).await.map(drop)
}

/// The Service `kubernetes` by which Pods reach this server, and its one endpoint.
async fn api_service(server: &Inner) -> Result<()> {
    let port = server.config.advertise.map_or(443, |a| a.port());
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": nth_address(server.config.service_cidr, 1).to_string(),
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
        },
    });
    let Some(advertise) = server.config.advertise else {
        return create(server, "", "services", service).await;
    };
    let metadata = json!({
        "name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"},
    });
    let ports = json!([{"name": "https", "port": port, "protocol": "TCP"}]);
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata, "addressType": "IPv4",
        "endpoints": [{"addresses": [advertise.ip().to_string()], "conditions": {"ready": true}}], "ports": ports,
    });
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{"addresses": [{"ip": advertise.ip().to_string()}], "ports": ports}],
    });
    let parts = [
        create(server, "", "services", service).boxed(),
        put(server, "discovery.k8s.io", "endpointslices", slice).boxed(),
        put(server, "", "endpoints", endpoints).boxed(),
    ];
    future::try_join_all(parts).await.map(drop)
}

/// Publishes the authorities by which aggregated API servers know requests that are handed on to them, and who may read that.
async fn authentication_of_extensions(server: &Inner) -> Result<()> {
    const NAME: &str = "extension-apiserver-authentication";
    let Some(proxy) = &server.config.front_proxy else { return Ok(()) };
    let names = |names: &[&str]| json!(names).to_string();
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME, "namespace": "kube-system"},
        "data": {
            "client-ca-file": proxy.client_authority,
            "requestheader-client-ca-file": proxy.authority,
            "requestheader-allowed-names": names(&[FRONT_PROXY_NAME]),
            "requestheader-username-headers": names(&["X-Remote-User"]),
            "requestheader-uid-headers": names(&["X-Remote-Uid"]),
            "requestheader-group-headers": names(&["X-Remote-Group"]),
            "requestheader-extra-headers-prefix": names(&["X-Remote-Extra-"]),
        },
    });
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {
            "name": format!("{NAME}-reader"), "namespace": "kube-system",
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        },
        "rules": [{
            "apiGroups": [""], "resources": ["configmaps"], "resourceNames": [NAME], "verbs": ["get", "list", "watch"],
        }],
    });
    let parts =
        [put(server, "", "configmaps", map).boxed(), create(server, RBAC_GROUP, "roles", role).boxed()];
    future::try_join_all(parts).await.map(drop)
}

/// Creates the default roles and bindings, and adds to those that exist what they lack.
async fn default_roles(server: &Inner) -> Result<()> {
    future::try_join_all(rbac::defaults::objects().map(|object| default_role(server, object))).await.map(drop)
}

async fn default_role(server: &Inner, expected: Value) -> Result<()> {
    let plural = if expected["kind"] == "ClusterRole" { "clusterroles" } else { "clusterrolebindings" };
    let name = meta(&expected, "name").to_owned();
    let resource = resource::find(RBAC_GROUP, "v1", plural).ok_or_else(Failure::no_such_resource)?;
    let existing = server.find(resource, "", &name).ok().map(|object| object.value());
    match rbac::reconcile(existing.as_deref(), &expected) {
        Reconciled::Keep => Ok(()),
        Reconciled::Create => create(server, RBAC_GROUP, plural, expected).await,
        Reconciled::Update(next) => put(server, RBAC_GROUP, plural, next).await,
        Reconciled::Recreate => {
            let ctx = WriteContext::internal(server, resource, Operation::Delete);
            server.delete_object(&ctx, "", &name, &DeleteOptions::default()).await?;
            create(server, RBAC_GROUP, plural, expected).await
        }
    }
}

/// Makes the class that claims get by default, unless somebody has chosen classes of their own.
async fn first_storage_class(server: &Inner) -> Result<()> {
    let classes = resource::find("storage.k8s.io", "v1", "storageclasses");
    let classes = server.collection(classes.ok_or_else(Failure::no_such_resource)?)?;
    if !classes.list("", None, 1, |_| true).objects.is_empty() {
        return Ok(());
    }
    create(server, "storage.k8s.io", "storageclasses", storage_class::local_class()).await
}

async fn create(server: &Inner, group: &str, plural: &str, object: Value) -> Result<()> {
    let resource = resource::find(group, "v1", plural).ok_or_else(Failure::no_such_resource)?;
    let namespace = meta(&object, "namespace").to_owned();
    if server.find(resource, &namespace, meta(&object, "name")).is_ok() {
        return Ok(());
    }
    let writer = Writer { manager: MANAGER, subresource: "", time: server.clock.now(), conversions: None };
    let ctx = WriteContext::internal(server, resource, Operation::Create);
    server.create_object(&ctx, &namespace, (object, 0), Some(writer)).await.map(drop)
}

/// Creates an object, or makes it what it should be.
async fn put(server: &Inner, group: &str, plural: &str, object: Value) -> Result<()> {
    let resource = resource::find(group, "v1", plural).ok_or_else(Failure::no_such_resource)?;
    create(server, group, plural, object.clone()).await?;
    let writer = Writer { manager: MANAGER, subresource: "", time: server.clock.now(), conversions: None };
    let place = (meta(&object, "namespace"), meta(&object, "name"));
    let ctx = WriteContext::internal(server, resource, Operation::Update);
    let replaced = server.modify(&ctx, place, 0, |current: &Object| -> Result<Decision> {
        server.replace(&ctx, current, object.clone(), Some(writer))
    });
    replaced.await.map(drop)
}
