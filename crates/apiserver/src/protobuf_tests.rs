use serde_json::json;

use super::*;

/// Writes messages as Go does, so that the tests say what is in them.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn varint(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    fn number(mut self, field: u64, n: i64) -> Self {
        self.varint(field << 3);
        self.varint(n as u64);
        self
    }

    fn bytes(mut self, field: u64, bytes: impl AsRef<[u8]>) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.as_ref().len() as u64);
        self.0.extend(bytes.as_ref());
        self
    }

    fn message(self, field: u64, inner: Writer) -> Self {
        self.bytes(field, inner.0)
    }
}

fn w() -> Writer {
    Writer::default()
}

fn envelope(api_version: &str, kind: &str, body: Writer) -> Vec<u8> {
    let unknown =
        w().message(1, w().bytes(1, api_version).bytes(2, kind)).message(2, body).bytes(3, "").bytes(4, "");
    [MAGIC, &unknown.0].concat()
}

fn check(api_version: &str, kind: &str, body: Writer, expect: Value) {
    let mut object = decode(&envelope(api_version, kind, body)).unwrap_or_else(|e| panic!("{kind}: {e}"));
    assert_eq!(object["apiVersion"], api_version);
    assert_eq!(object["kind"], kind);
    let map = object.as_object_mut().expect("an object");
    map.shift_remove("apiVersion");
    map.shift_remove("kind");
    assert_eq!(object, expect, "{kind}");
}

/// Go's encoding of an `ObjectMeta` that has only a name.
fn named(name: &str) -> Writer {
    let empty = ["generateName", "namespace", "selfLink", "uid", "resourceVersion"];
    let meta = empty.iter().enumerate().fold(w().bytes(1, name), |m, (i, _)| m.bytes(i as u64 + 2, ""));
    meta.number(7, 0).message(8, w())
}

#[test]
fn bodies_of_built_in_kinds() {
    check(
        "v1",
        "ConfigMap",
        w().message(1, named("c"))
            .message(2, w().bytes(1, "a").bytes(2, "1"))
            .message(2, w().bytes(1, "b"))
            .message(3, w().bytes(1, "bin").bytes(2, [0, 255])),
        json!({"metadata": {"name": "c"}, "data": {"a": "1", "b": ""}, "binaryData": {"bin": "AP8="}}),
    );
    let probe = w()
        .message(
            1,
            w().message(2, w().bytes(1, "/z").message(2, w().number(1, 1).number(2, 0).bytes(3, "web"))),
        )
        .number(2, 0)
        .number(3, 1);
    let container = w()
        .bytes(1, "c")
        .bytes(2, "")
        .message(6, w().bytes(1, "").number(2, 0).number(3, 80))
        .message(8, w().message(1, w().bytes(1, "cpu").message(2, w().bytes(1, "100m"))))
        .message(10, probe)
        .number(16, 0);
    let volume = w().bytes(1, "v").message(2, w().message(2, w().bytes(1, "").message(2, w().bytes(1, "0"))));
    check(
        "v1",
        "Pod",
        w().message(1, named("p"))
            .message(2, w().message(1, volume).message(2, container).number(4, 0).number(11, 0))
            .message(3, w()),
        json!({"metadata": {"name": "p"}, "spec": {
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "0"}}],
            "containers": [{"name": "c", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "100m"}},
                "livenessProbe": {"httpGet": {"path": "/z", "port": "web"}, "timeoutSeconds": 1}}],
            "terminationGracePeriodSeconds": 0}}),
    );
    check(
        "apps/v1",
        "DeleteOptions",
        w().number(1, 0).bytes(4, "Background"),
        json!({"gracePeriodSeconds": 0, "propagationPolicy": "Background"}),
    );
    check(
        "coordination.k8s.io/v1",
        "Lease",
        w().message(1, named("l")).message(
            2,
            w().bytes(1, "me").number(2, 15).message(4, w().number(1, 1_600_000_000).number(2, 5000)),
        ),
        json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "me", "leaseDurationSeconds": 15, "renewTime": "2020-09-13T12:26:40.000005Z"}}),
    );
    check(
        "apps/v1",
        "Deployment",
        w().message(1, named("d")).message(
            2,
            w().number(1, 0)
                .message(4, w().bytes(1, "").message(2, w().message(1, w().number(1, 0).number(2, 1)))),
        ),
        json!({"metadata": {"name": "d"}, "spec": {"replicas": 0, "strategy": {"rollingUpdate": {"maxUnavailable": 1}}}}),
    );
    check("autoscaling/v1", "Scale", w().message(2, w().number(1, 3)), json!({"spec": {"replicas": 3}}));
}

#[test]
fn what_is_no_body_is_refused() {
    let damaged = |message, number| ProtobufError::Damaged { message, number };
    let rows = [
        (b"{}".to_vec(), ProtobufError::NoEnvelope),
        (b"k8s\0".to_vec(), ProtobufError::NoEnvelope),
        (
            envelope("example.org/v1", "App", w()),
            ProtobufError::UnknownKind { api_version: "example.org/v1".into(), kind: "App".into() },
        ),
        (envelope("v1", "ConfigMap", Writer(vec![0x0a, 200])), damaged("core.v1.ConfigMap", 0)),
        (envelope("v1", "ConfigMap", w().number(1, 1)), damaged("core.v1.ConfigMap", 1)),
        (envelope("v1", "ConfigMap", w().message(1, w().bytes(1, [0xff]))), damaged("meta.v1.ObjectMeta", 1)),
    ];
    for (bytes, expect) in rows {
        assert_eq!(decode(&bytes), Err(expect));
    }
}

#[test]
fn no_bytes_make_it_panic() {
    let good = envelope("v1", "Pod", w().message(1, named("p")).message(2, w().number(4, 30)));
    for at in 0..good.len() {
        for flip in [1, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] ^= flip;
            // Any answer is fine; returning is the test.
            let _ = decode(&bad);
            let _ = decode(&bad[..at]);
        }
    }
}

#[test]
fn a_body_has_a_bounded_number_of_values() {
    let finalizers = (0..300_000).fold(w(), |meta, _| meta.bytes(14, ""));
    let error = decode(&envelope("v1", "ConfigMap", w().message(1, finalizers))).expect_err("it is too much");
    assert_eq!(error, ProtobufError::TooManyValues(TooManyValues));
}
