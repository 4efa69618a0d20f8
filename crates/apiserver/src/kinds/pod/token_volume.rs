//! The volume with which a Pod reaches the API: a token of its ServiceAccount, the server's CA certificate and the name of
//! its Namespace.

use serde_json::{Map, Value, json};

use crate::edit::{list, objects, text};
use crate::tokens::POD_TOKEN_SECONDS;

/// Where clients look for it.
const PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// What names of these volumes begin with; the rest is random.
pub const NAME_PREFIX: &str = "kube-api-access-";

/// Mounts the volume in each container that has nothing else at its path, unless the Pod or its account declines it. The
/// volume is made where the Pod brings none of that kind; `name` is then its name.
pub fn mount(spec: &mut Map<String, Value>, account: &Value, name: String) {
    let wanted = spec.get("automountServiceAccountToken").unwrap_or(&Value::Null);
    let wanted = wanted.as_bool().or(account["automountServiceAccountToken"].as_bool());
    if wanted == Some(false) {
        return;
    }
    let volumes = spec.get("volumes").map_or(&[][..], list);
    let own = volumes.iter().map(|volume| text(&volume["name"])).find(|name| name.starts_with(NAME_PREFIX));
    let (brought, name) = (own.is_some(), own.map_or(name, str::to_owned));
    let mut is_used = false;
    for key in ["initContainers", "containers"] {
        for container in objects(spec, key) {
            let mounts = container.entry("volumeMounts").or_insert(Value::Null);
            if list(mounts).iter().any(|mount| mount["mountPath"] == PATH) {
                continue;
            }
            if push(mounts, json!({"name": name, "readOnly": true, "mountPath": PATH})) {
                is_used = true;
            }
        }
    }
    if is_used && !brought {
        push(spec.entry("volumes").or_insert(Value::Null), volume(&name));
    }
}

/// Appends to a list, made where there is none. False where something else is in its place, which decoding excludes.
fn push(list: &mut Value, item: Value) -> bool {
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().map(|list| list.push(item)).is_some()
}

fn volume(name: &str) -> Value {
    json!({
        "name": name,
        "projected": {
            "defaultMode": 0o644,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": POD_TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [
                    {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
                ]}},
            ],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which volume each container has at the path, and the names of the Pod's volumes.
    fn shown(spec: &Value) -> String {
        let mut words = Vec::new();
        for container in list(&spec["initContainers"]).iter().chain(list(&spec["containers"])) {
            let at_path = list(&container["volumeMounts"]).iter().filter(|mount| mount["mountPath"] == PATH);
            words.push(at_path.map(|mount| text(&mount["name"])).collect::<Vec<_>>().join("+"));
        }
        let volumes: Vec<&str> = list(&spec["volumes"]).iter().map(|volume| text(&volume["name"])).collect();
        format!("{} [{}]", words.join(","), volumes.join(","))
    }

    #[test]
    fn containers_get_the_volume_unless_it_is_declined() {
        let other = json!([{"name": "v", "mountPath": PATH}]);
        for (spec, account, expect) in [
            (json!({"containers": [{}]}), json!({}), "new [new]"),
            (json!({"containers": [{}], "volumes": [{"name": "v"}]}), json!({}), "new [v,new]"),
            (json!({"containers": [{}, {}], "initContainers": [{}]}), json!({}), "new,new,new [new]"),
            (json!({"containers": [{"volumeMounts": other}, {}]}), json!({}), "v,new [new]"),
            (json!({"containers": [{"volumeMounts": other}]}), json!({}), "v []"),
            (
                json!({"containers": [{}], "volumes": [{"name": "kube-api-access-x"}]}),
                json!({}),
                "kube-api-access-x [kube-api-access-x]",
            ),
            (json!({"containers": [{}]}), json!({"automountServiceAccountToken": false}), " []"),
            (
                json!({"containers": [{}], "automountServiceAccountToken": true}),
                json!({"automountServiceAccountToken": false}),
                "new [new]",
            ),
            (json!({"containers": [{}], "automountServiceAccountToken": false}), json!({}), " []"),
        ] {
            let mut pod = spec.clone();
            mount(pod.as_object_mut().expect("an object"), &account, "new".into());
            assert_eq!(shown(&pod), expect, "{spec} {account}");
        }
    }
}
