use expect_test::{Expect, expect};
use serde_json::{Value, json};
use yado_types::quantity::Quantity;

use super::*;

/// ConfigMaps and Secrets by name.
pub(crate) struct Given {
    pub config_maps: Vec<ConfigMap>,
    pub secrets: Vec<Secret>,
    pub claims: Vec<PersistentVolumeClaim>,
    pub volumes: Vec<PersistentVolume>,
}

impl Sources for Given {
    fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>> {
        self.config_maps.iter().find(|c| c.metadata.name.as_deref() == Some(name)).cloned().map(Arc::new)
    }

    fn secret(&self, name: &str) -> Option<Arc<Secret>> {
        self.secrets.iter().find(|s| s.metadata.name.as_deref() == Some(name)).cloned().map(Arc::new)
    }

    fn claim(&self, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        self.claims.iter().find(|c| c.metadata.name.as_deref() == Some(name)).cloned().map(Arc::new)
    }

    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
        self.volumes.iter().find(|v| v.metadata.name.as_deref() == Some(name)).cloned().map(Arc::new)
    }
}

/// Two objects that tests refer to.
pub(crate) fn given() -> Given {
    let map = json!({"metadata": {"name": "map"}, "data": {"color": "red", "size": "9"}, "binaryData": {"raw": "AAE="}});
    let secret = json!({"metadata": {"name": "key"}, "data": {"password": "aHVudGVyMg=="}});
    Given {
        config_maps: vec![serde_json::from_value(map).expect("a ConfigMap")],
        secrets: vec![serde_json::from_value(secret).expect("a Secret")],
        claims: Vec::new(),
        volumes: Vec::new(),
    }
}

pub(crate) fn facts() -> Facts {
    Facts {
        node_name: "node-1".into(),
        host_ip: [192, 0, 2, 1].into(),
        pod_ip: Some([10, 0, 0, 5].into()),
        allocatable_cpu: Quantity::from_units(4),
        allocatable_memory: Quantity::from_units(1 << 30),
    }
}

fn check(container: Value, expect: Expect) {
    let mut container = container;
    container["name"] = json!("c");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "web", "x.io/y": "z"}},
        "spec": {"containers": [container], "enableServiceLinks": true, "serviceAccountName": "sa"},
    }))
    .expect("a Pod");
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "redis-leader", "namespace": "n"},
        "spec": {"clusterIP": "10.96.0.7", "ports": [{"name": "db", "port": 6379}]},
    }))
    .expect("a Service");
    let (given, facts, services) = (given(), facts(), [Arc::new(service)]);
    let scope = Scope { pod: &pod, facts: &facts, sources: &given, services: &services };
    let container = &pod.spec.as_ref().expect("a specification").containers[0];
    let said = match of(container, &scope) {
        Ok(all) => all.iter().map(|(n, v)| format!("{n}={}\n", v.display())).collect(),
        Err(error) => format!("{error}\n"),
    };
    let said: String =
        said.lines().filter(|l| !l.starts_with("REDIS_LEADER_PORT_")).map(|l| format!("{l}\n")).collect();
    expect.assert_eq(&said);
}

#[test]
fn variables_come_from_everywhere() {
    check(
        json!({
            "envFrom": [{"configMapRef": {"name": "map"}}, {"prefix": "S_", "secretRef": {"name": "key"}},
                        {"configMapRef": {"name": "none", "optional": true}}],
            "env": [
                {"name": "color", "value": "blue"},
                {"name": "BOTH", "value": "$(color)-$(size)-$(NONE)-$$(color)-$x-$("},
                {"name": "HOST", "value": "$(REDIS_LEADER_SERVICE_HOST)"},
                {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "key", "key": "password"}}},
                {"name": "SIZE", "valueFrom": {"configMapKeyRef": {"name": "map", "key": "size"}}},
                {"name": "GONE", "valueFrom": {"configMapKeyRef": {"name": "map", "key": "no", "optional": true}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['x.io/y']"}}},
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "requests.memory", "divisor": "1Mi"}}},
            ],
            "resources": {"requests": {"memory": "1500Ki"}},
        }),
        expect![[r#"
            REDIS_LEADER_PORT=tcp://10.96.0.7:6379
            REDIS_LEADER_SERVICE_HOST=10.96.0.7
            REDIS_LEADER_SERVICE_PORT=6379
            REDIS_LEADER_SERVICE_PORT_DB=6379
            color=blue
            size=9
            S_password=hunter2
            BOTH=blue-9-$(NONE)-$(color)-$x-$(
            HOST=10.96.0.7
            PASSWORD=hunter2
            SIZE=9
            IP=10.0.0.5
            LABEL=z
            NODE=node-1
            CPU=4
            MEMORY=2
        "#]],
    );
}

/// As in Kubernetes, a value that is no text reaches the program byte by byte; only a command line must be text.
#[test]
fn bytes_of_secrets_are_handed_on() {
    let raw = json!({"metadata": {"name": "raw"}, "data": {"key": "/wB4gA=="}});
    let given = Given { secrets: vec![serde_json::from_value(raw).expect("a Secret")], ..given() };
    let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "c",
        "envFrom": [{"secretRef": {"name": "raw"}}],
        "env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "raw", "key": "key"}}},
                {"name": "IN", "value": "<$(KEY)>"}]}]}}))
    .expect("a Pod");
    let scope = Scope { pod: &pod, facts: &facts(), sources: &given, services: &[] };
    let env = of(&pod.spec.as_ref().expect("a specification").containers[0], &scope).expect("variables");
    let bytes = |name: &str| {
        let (_, value) = env.iter().find(|(n, _)| n == name).expect("a variable");
        std::os::unix::ffi::OsStrExt::as_bytes(value.as_os_str())
    };
    assert_eq!([bytes("key"), bytes("KEY")], [b"\xff\0x\x80"; 2]);
    assert_eq!(bytes("IN"), b"<\xff\0x\x80>");
    assert_eq!(expand_text("$$(KEY) $(NONE)", &env), Ok("$(KEY) $(NONE)".into()));
    let refused = "\"-k=$(KEY)\" refers to a variable whose value is not UTF-8; only other variables can have such values";
    assert_eq!(expand_text("-k=$(KEY)", &env), Err(ConfigError(refused.into())));
}

#[test]
fn what_is_missing_is_named() {
    let refer = |kind: &str, name: &str, key: &str| json!({"env": [{"name": "X", "valueFrom": {kind: {"name": name, "key": key}}}]});
    check(
        refer("secretKeyRef", "none", "k"),
        expect![[r#"
        secret "none" not found
    "#]],
    );
    check(
        refer("secretKeyRef", "key", "k"),
        expect![[r#"
        couldn't find key k in Secret n/key
    "#]],
    );
    check(
        refer("configMapKeyRef", "none", "k"),
        expect![[r#"
        configmap "none" not found
    "#]],
    );
    check(
        json!({"envFrom": [{"secretRef": {"name": "none"}}]}),
        expect![[r#"
        secret "none" not found
    "#]],
    );
    check(
        json!({"env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "spec.nope"}}}]}),
        expect![[r#"
        unsupported fieldPath: spec.nope
    "#]],
    );
}
