//! What the node does for a Pod, and what it refuses: postStart hooks, volumes that are made, limits of disk, admission.

use std::process::Command;

use super::cluster::{Cluster, YADO, demo_image};

/// `hooked` waits for a file before it comes up; `app` comes after it. The others have hooks that end at once.
const HOOKED: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: held}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: hooked
    image: busybox
    command: [sleep, "100000"]
    lifecycle: {postStart: {exec: {command: [sh, -c, "until [ -e /tmp/go ]; do sleep 0.05; done"]}}}
  - {name: app, image: busybox, command: [sleep, "100000"]}
---
apiVersion: v1
kind: Pod
metadata: {name: failing}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: busybox
    command: [sleep, "100000"]
    lifecycle: {postStart: {exec: {command: [sh, -c, "echo no luck; exit 3"]}}}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: quick}
spec:
  replicas: 6
  selector: {matchLabels: {app: quick}}
  template:
    metadata: {labels: {app: quick}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: c, image: busybox, command: [sleep, "100000"], lifecycle: {postStart: {exec: {command: ["true"]}}}}
"#;

#[test]
fn a_container_is_held_back_until_its_post_start_hook_has_ended() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    cluster.apply(HOOKED);
    let of = |pod: &str, path: &str| cluster.ok(&["get", "pod", pod, "-o", &format!("jsonpath={path}")]);
    // While its hook runs one can look into the container, and no more than that.
    cluster.until("the process runs", || {
        cluster.kubectl(&["exec", "held", "-c", "hooked", "--", "true"]).status.success().then_some(())
    });
    let waiting = "{.status.phase} {.status.containerStatuses[*].state.waiting.reason} \
                   {.status.containerStatuses[*].ready} {.status.containerStatuses[1].containerID}";
    assert_eq!(of("held", waiting), "Pending ContainerCreating ContainerCreating false false ");
    cluster.ok(&["exec", "held", "-c", "hooked", "--", "touch", "/tmp/go"]);
    cluster.ok(&["wait", "--for=condition=Ready", "pod/held", "--timeout=180s"]);
    cluster.ok(&["wait", "--for=jsonpath={.status.readyReplicas}=6", "rs/quick", "--timeout=180s"]);
    let restarts = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
    assert_eq!(cluster.ok(&["get", "pods", "-l", "app=quick", "-o", restarts]), "0 0 0 0 0 0");
    cluster.until("the failure is told", || {
        cluster.ok(&["describe", "pod", "failing"]).contains("PostStartHook failed: no luck").then_some(())
    });
    cluster.until("it is started again", || {
        (of("failing", "{.status.containerStatuses[0].restartCount}") != "0").then_some(())
    });
    assert_eq!(of("failing", "{.status.phase} {.status.containerStatuses[0].ready}"), "Running false");
}

const VOLUMES: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: made}
spec:
  volumes: [{name: h, hostPath: {path: DATA/not/there}}]
  containers:
  - name: c
    image: volumes
    imagePullPolicy: Never
    command: [sh, -c, "touch /data/x /usr/share/doc/x && ls /usr/share/doc > /h/list && sleep 100000"]
    securityContext: {readOnlyRootFilesystem: true}
    volumeMounts: [{name: h, mountPath: /h}]
"#;

/// The busybox image with these settings besides, as an archive.
fn image_with(cluster: &Cluster, name: &str, settings: &str) -> std::path::PathBuf {
    let dir = cluster.data.path().join(name);
    std::fs::create_dir(&dir).expect("a folder");
    let tar = |args: &[&str]| {
        assert!(Command::new("tar").current_dir(&dir).args(args).status().expect("tar").success())
    };
    tar(&["xf", &demo_image("busybox.tar").to_string_lossy()]);
    let manifest = std::fs::read_to_string(dir.join("manifest.json")).expect("a manifest");
    let mut digests = manifest.split('"').filter(|word| word.starts_with("blobs/"));
    let (config, layer) = digests.next().zip(digests.next()).expect("configuration and layer");
    let text = std::fs::read_to_string(dir.join(config)).expect("a configuration");
    std::fs::write(
        dir.join("config.json"),
        text.replace("\"config\":{", &format!("\"config\":{{{settings},")),
    )
    .expect("a file");
    let manifest =
        format!(r#"[{{"Config":"config.json","RepoTags":["{name}:latest"],"Layers":["{layer}"]}}]"#);
    std::fs::write(dir.join("manifest.json"), manifest).expect("a file");
    tar(&["cf", "image.tar", "manifest.json", "config.json", layer]);
    dir.join("image.tar")
}

#[test]
fn directories_are_made_for_host_paths_and_for_volumes_of_images() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    let archive = image_with(&cluster, "volumes", r#""Volumes":{"/data":{},"/usr/share/doc":{},"/h":{}}"#);
    let imported = cluster.command(YADO).args(["image", "import"]).arg(archive).output().expect("yado");
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    let data = cluster.data.path().display().to_string();
    cluster.apply(&VOLUMES.replace("DATA", &data));
    cluster.ok(&["wait", "--for=condition=Ready", "pod/made", "--timeout=180s"]);
    let list = cluster.data.path().join("not/there/list");
    // It is filled with what the image has there, and with what the container writes.
    cluster.until("the list is there", || {
        (std::fs::read_to_string(&list).ok()? == "busybox-static\nx\n").then_some(())
    });
    let uid = cluster.ok(&["get", "pod", "made", "-o", "jsonpath={.metadata.uid}"]);
    let volumes = cluster.data.path().join("pods/pods").join(&uid).join("volumes");
    assert!(volumes.exists(), "{}", volumes.display());
    cluster.ok(&["delete", "pod", "made", "--grace-period=1", "--timeout=180s"]);
    assert!(!volumes.exists());
}

const LIMITED: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: volume}
spec:
  volumes: [{name: e, emptyDir: {sizeLimit: 5Mi}}]
  containers:
  - {name: c, image: busybox, command: [sh, -c, "dd if=/dev/zero of=/e/x bs=1M count=20; sleep 100000"], volumeMounts: [{name: e, mountPath: /e}]}
---
apiVersion: v1
kind: Pod
metadata: {name: layer}
spec:
  containers:
  - name: c
    image: busybox
    command: [sh, -c, "dd if=/dev/zero of=/x bs=1M count=20; sleep 100000"]
    resources: {limits: {ephemeral-storage: 5Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: below}
spec:
  containers:
  - name: c
    image: busybox
    command: [sh, -c, "dd if=/dev/zero of=/x bs=1M count=4; sleep 100000"]
    resources: {limits: {ephemeral-storage: 20Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: elsewhere}
spec:
  nodeName: node-1
  nodeSelector: {disk: ssd}
  containers: [{name: c, image: busybox, command: [sleep, "100000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  nodeName: node-1
  containers: [{name: c, image: busybox, command: [sleep, "100000"], resources: {requests: {cpu: 4k}}}]
"#;

#[test]
fn pods_beyond_the_node_are_rejected_and_pods_beyond_their_disk_are_evicted() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    cluster.apply(LIMITED);
    let rows = [
        ("elsewhere", "NodeAffinity", "Pod was rejected: Predicate NodeAffinity failed"),
        ("greedy", "OutOfcpu", "Pod was rejected: Node didn't have enough resource: cpu, requested: 4000000"),
        ("volume", "Evicted", "Usage of EmptyDir volume \"e\" exceeds the limit \"5Mi\"."),
        ("layer", "Evicted", "Pod ephemeral local storage usage exceeds the total limit of containers 5Mi."),
    ];
    for (pod, reason, message) in rows {
        let of = |path: &str| cluster.ok(&["get", "pod", pod, "-o", &format!("jsonpath={path}")]);
        cluster.until(reason, || {
            (of("{.status.phase} {.status.reason}") == format!("Failed {reason}")).then_some(())
        });
        assert!(of("{.status.message}").starts_with(message), "{}", of("{.status.message}"));
        cluster.until("the event", || cluster.ok(&["describe", "pod", pod]).contains(reason).then_some(()));
    }
    let ended = "{.status.containerStatuses[0].state.terminated.exitCode}";
    cluster.until("it is stopped", || {
        (!cluster.ok(&["get", "pod", "volume", "-o", &format!("jsonpath={ended}")]).is_empty()).then_some(())
    });
    let phase = cluster.ok(&["get", "pod", "below", "-o", "jsonpath={.status.phase}"]);
    assert_eq!(phase, "Running");
}
