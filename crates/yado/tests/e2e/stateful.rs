//! StatefulSets with `kubectl`: names, order, claims, updates, and what a deletion leaves.

use crate::cluster::{Cluster, demo_image};
use crate::dev::Dev;
use crate::flow;
use crate::kubectl::check;

const SET: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: sql, port: 5432}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 3
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: c
        image: busybox
        imagePullPolicy: Never
        command: [sh, -c, "[ -e /data/name ] || hostname > /data/name; exec sleep 1000"]
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data, labels: {tier: disk}}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
"#;

#[test]
fn k42_a_stateful_set_keeps_names_claims_and_order() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    cluster.apply(SET);
    check(
        &cluster,
        &[
            ("rollout status sts/db --timeout=180s", &["partitioned roll out complete: 3 new pods"]),
            ("get sts db", &["READY", "3/3"]),
            ("get pods -l app=db -o name", &["pod/db-0\npod/db-1\npod/db-2\n"]),
            (
                "describe sts db",
                &[
                    "3 desired | 3 total",
                    "create Claim data-db-0 Pod db-0 in StatefulSet db success",
                    "create Pod db-2 in StatefulSet db successful",
                ],
            ),
            ("get pods -l apps.kubernetes.io/pod-index=1 -o name", &["pod/db-1\n"]),
            ("get pods -l statefulset.kubernetes.io/pod-name=db-2 -o name", &["pod/db-2\n"]),
            ("get pvc -l app=db,tier=disk", &["data-db-0", "data-db-1", "data-db-2", "!Pending"]),
            ("exec db-1 -- cat /data/name", &["db-1\n"]),
            ("exec db-0 -- hostname -f", &["db-0.db.default.svc.cluster.local"]),
            ("exec db-0 -- nslookup -type=a db-2.db.default.svc.cluster.local", &["Address", "!NXDOMAIN"]),
            ("exec db-0 -- nslookup -type=srv _sql._tcp.db.default.svc.cluster.local", &["db-1.db.default"]),
            ("get sts db -o jsonpath={.status}", &["\"currentReplicas\":3", "\"availableReplicas\":3"]),
        ],
    );
    check(
        &cluster,
        &[
            // A Pod that is deleted comes back with its name and its claim.
            ("delete pod db-1 --timeout=180s", &["\"db-1\" deleted"]),
            ("rollout status sts/db --timeout=180s", &["3 new pods"]),
            ("exec db-1 -- cat /data/name", &["db-1\n"]),
            ("scale sts db --replicas=1", &["scaled"]),
            ("wait --for=delete pod/db-2 pod/db-1 --timeout=180s", &[]),
            ("get pods -l app=db -o name", &["pod/db-0\n", "!db-1"]),
            ("get pvc", &["data-db-0", "data-db-1", "data-db-2"]),
            ("scale sts/db --replicas=2", &["scaled"]),
            ("rollout status sts/db --timeout=180s", &["2 new pods"]),
        ],
    );
    check(
        &cluster,
        &[
            ("set env sts/db A=b", &["env updated"]),
            ("rollout status sts/db --timeout=180s", &["2 new pods"]),
            ("exec db-1 -- env", &["A=b\n"]),
            ("rollout history sts/db", &["REVISION", "1", "2"]),
            ("get controllerrevisions -o wide", &["statefulset.apps/db", "REVISION"]),
            ("rollout undo sts/db", &["rolled back"]),
            ("rollout status sts/db --timeout=180s", &["2 new pods"]),
            ("set env sts/db --list", &["!A=b"]),
            ("rollout history sts/db", &["2", "3"]),
            ("rollout restart sts/db", &["restarted"]),
            ("rollout status sts/db --timeout=180s", &["2 new pods"]),
            // A canary: the Pods below the partition keep their template, also when they are made anew.
            (
                "patch sts db -p '{\"spec\":{\"updateStrategy\":{\"rollingUpdate\":{\"partition\":1}}}}'",
                &["patched"],
            ),
            ("set env sts/db A=c", &["env updated"]),
            ("rollout status sts/db --timeout=180s", &["1 new pods have been updated"]),
            ("exec db-1 -- env", &["A=c\n"]),
            ("delete pod db-0 --timeout=180s", &["deleted"]),
            ("wait --for=jsonpath={.status.readyReplicas}=2 sts/db --timeout=180s", &["condition met"]),
            ("exec db-0 -- env", &["!A=c"]),
            (
                "patch sts db -p '{\"spec\":{\"updateStrategy\":{\"rollingUpdate\":{\"partition\":0}}}}'",
                &["patched"],
            ),
            ("rollout status sts/db --timeout=180s", &["2 new pods"]),
            ("exec db-0 -- env", &["A=c\n"]),
        ],
    );
    check(
        &cluster,
        &[
            ("delete sts db --cascade=orphan --timeout=180s", &["\"db\" deleted"]),
            ("get pods -l app=db -o name", &["pod/db-0\npod/db-1\n"]),
            ("get controllerrevisions", &["<none>"]),
        ],
    );
    cluster.apply(SET);
    check(
        &cluster,
        &[
            ("rollout status sts/db --timeout=180s", &["3 new pods"]),
            // The revision of its template was adopted, and became the newest.
            ("get controllerrevisions", &["statefulset.apps/db", "!<none>"]),
            ("delete sts db --timeout=180s", &["\"db\" deleted"]),
            ("wait --for=delete pod -l app=db --timeout=180s", &[]),
            ("get pvc", &["data-db-0", "data-db-1", "data-db-2"]),
            ("get controllerrevisions", &["No resources found"]),
        ],
    );
}

const CLAIMS_GO: &str = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: cache}
spec:
  replicas: 3
  podManagementPolicy: Parallel
  persistentVolumeClaimRetentionPolicy: {whenDeleted: Delete, whenScaled: Delete}
  ordinals: {start: 5}
  minReadySeconds: 1
  selector: {matchLabels: {app: cache}}
  template:
    metadata: {labels: {app: cache}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: c, image: busybox, imagePullPolicy: Never, command: [sleep, "1000"], volumeMounts: [{name: data, mountPath: /data}]}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
"#;
const BROKEN: &str = r#"
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: broken}
spec:
  replicas: 2
  selector: {matchLabels: {app: broken}}
  template:
    metadata: {labels: {app: broken}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: c
        image: busybox
        imagePullPolicy: Never
        command: [sh, -c, "[ \"$OK\" = no ] || exec sleep 1000; exit 1"]
        readinessProbe: {exec: {command: ["true"]}, periodSeconds: 1}
"#;

#[test]
fn claims_go_with_their_pods_and_a_broken_rollout_waits() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    cluster.apply(CLAIMS_GO);
    cluster.apply(BROKEN);
    check(
        &cluster,
        &[
            (
                "wait --for=jsonpath={.status.availableReplicas}=3 sts/cache --timeout=180s",
                &["condition met"],
            ),
            ("get pods -l app=cache -o name", &["pod/cache-5\npod/cache-6\npod/cache-7\n"]),
            ("get pvc data-cache-6 -o jsonpath={.metadata.ownerReferences}", &["\"kind\":\"StatefulSet\""]),
            ("scale sts cache --replicas=1", &["scaled"]),
            ("wait --for=delete pvc/data-cache-6 pvc/data-cache-7 --timeout=180s", &[]),
            ("get pvc -o name", &["data-cache-5", "!data-cache-6"]),
            ("scale sts cache --replicas=2", &["scaled"]),
            (
                "wait --for=jsonpath={.status.availableReplicas}=2 sts/cache --timeout=180s",
                &["condition met"],
            ),
            ("get pvc -o name", &["data-cache-5", "data-cache-6"]),
            ("delete sts cache --timeout=180s", &["\"cache\" deleted"]),
            ("wait --for=delete pvc --all --timeout=180s", &[]),
            ("get pvc", &["No resources found"]),
        ],
    );
    check(
        &cluster,
        &[
            ("rollout status sts/broken --timeout=180s", &["2 new pods"]),
            ("set env sts/broken OK=no", &["env updated"]),
            ("wait --for=condition=Ready=False pod/broken-1 --timeout=180s", &["condition met"]),
            ("get pod broken-0", &["1/1"]),
            ("^rollout status sts/broken --timeout=1s", &["Waiting for"]),
            // As in Kubernetes: the template is mended, and the Pod that cannot become ready has to be deleted.
            ("rollout undo sts/broken", &["rolled back"]),
            ("delete pod broken-1 --timeout=180s", &["deleted"]),
            ("rollout status sts/broken --timeout=180s", &["2 new pods"]),
            ("delete sts broken --cascade=foreground --timeout=180s", &["\"broken\" deleted"]),
            ("get pods", &["No resources found"]),
        ],
    );
}

#[test]
fn yado_deploys_stateful_sets_of_manifests_and_keeps_their_claims() {
    let Some(dev) = Dev::new() else { return };
    let images = dev.data.path().join("images");
    std::fs::create_dir_all(&images).expect("a folder");
    std::fs::copy(demo_image("busybox.tar"), images.join("busybox.tar")).expect("the image");
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("shop");
    std::fs::create_dir(&place).expect("a folder");
    let write = |text: &str| std::fs::write(place.join("db.yaml"), text).expect("a manifest");
    let dir = place.display().to_string();
    let run =
        |line: &str, code: i32, expect: &[&str]| flow::check(&dev, &line.replace("DIR", &dir), code, expect);
    write(SET);
    run("infra --http-port 8081", 0, &["the engine runs"]);
    run("deploy DIR", 0, &["+ StatefulSet db", "2 added, 0 changed, 0 destroyed"]);
    run("deploy DIR", 0, &["0 added, 0 changed, 0 destroyed"]);
    run("ps -A", 0, &["db-0", "db-1", "db-2"]);
    run("status", 0, &["shop"]);
    // Pods below a partition stay as they are, and the deployment is complete.
    let canary =
        SET.replace("  replicas: 3", "  replicas: 2\n  updateStrategy: {rollingUpdate: {partition: 1}}");
    write(&canary.replace("sleep 1000", "sleep 2000"));
    run("deploy DIR", 0, &["~ StatefulSet db", "0 added, 1 changed, 0 destroyed"]);
    // What no update may change makes it anew, on the same claims.
    write(&SET.replace("  serviceName: db", "  podManagementPolicy: Parallel\n  serviceName: db"));
    run("deploy DIR", 0, &["recreated", "0 added, 1 changed, 0 destroyed"]);
    run("down shop", 0, &["- StatefulSet db", "PersistentVolumeClaim data-db-0", "stays"]);
    run("down shop --volumes", 0, &["- PersistentVolumeClaim data-db-0", "!stays"]);
    run("status", 0, &["nothing is deployed"]);
}
