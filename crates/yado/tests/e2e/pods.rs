//! Pods as their users know them: what a manifest asks for, what is said when it cannot be had, what outlives what.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use super::cluster::Cluster;

const STATE: &str = "jsonpath={.status.containerStatuses[0].state.*.reason}";

/// What a command says in a Pod.
fn exec(cluster: &Cluster, pod: &str, script: &str) -> String {
    cluster.ok(&["exec", pod, "--", "sh", "-c", script])
}

fn wait_ready(cluster: &Cluster, pod: &str) {
    cluster.ok(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=180s"]);
}

const WEB: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: map}
data: {color: red}
---
apiVersion: v1
kind: Secret
metadata: {name: key}
stringData: {password: hunter2}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  hostAliases: [{ip: 192.0.2.9, hostnames: [far]}]
  initContainers:
  - {name: init, image: busybox, command: [sh, -c, "echo made > /work/file"], volumeMounts: [{name: work, mountPath: /work}]}
  containers:
  - name: c
    image: busybox
    command: [sh, -c, "trap 'echo bye; exit 0' TERM; cp /work/file /tmp/index.html; httpd -p 8080 -h /tmp; echo up $(WHO); while :; do sleep 0.1; done"]
    ports: [{containerPort: 8080, name: http}]
    env:
    - {name: WHO, value: "me-$(color)"}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: key, key: password}}}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    envFrom: [{configMapRef: {name: map}}]
    startupProbe: {exec: {command: [test, -e, /tmp/index.html]}}
    readinessProbe: {httpGet: {port: http, path: /}}
    lifecycle: {preStop: {exec: {command: [sh, -c, "echo hooked > /proc/1/fd/1"]}}}
    securityContext: {runAsUser: 0, allowPrivilegeEscalation: false, capabilities: {drop: [NET_RAW]}}
    volumeMounts:
    - {name: work, mountPath: /work}
    - {name: all, mountPath: /etc/all}
    - {name: all, mountPath: /etc/one, subPath: color}
  volumes:
  - {name: work, emptyDir: {}}
  - name: all
    projected:
      defaultMode: 0440
      sources:
      - configMap: {name: map}
      - secret: {name: key}
      - downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}
"#;

#[test]
fn a_pod_has_what_its_manifest_asks_for() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    cluster.apply(WEB);
    wait_ready(&cluster, "web");
    let rows = [
        ("echo $WHO $PASSWORD $color", "me-red hunter2 red\n"),
        ("wget -qO- http://$IP:8080/", "made\n"),
        ("cat /etc/all/color /etc/all/password /etc/all/labels /etc/one", "redhunter2app=\"web\"red"),
        (
            "stat -Lc %a /etc/all/password; touch /etc/all/x 2>&1",
            "440\ntouch: /etc/all/x: Read-only file system\n",
        ),
        ("grep -c far /etc/hosts; hostname; grep ^options /etc/resolv.conf", "1\nweb\noptions ndots:5\n"),
        ("mount | grep -c 'tmpfs on /etc/all '; grep NoNewPrivs /proc/self/status", "1\nNoNewPrivs:\t1\n"),
    ];
    for (script, expect) in rows {
        let output = cluster.kubectl(&["exec", "web", "-c", "c", "--", "sh", "-c", script]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), expect, "{script}");
    }
    cluster.ok(&["patch", "configmap", "map", "-p", r#"{"data":{"color":"green"}}"#]);
    cluster
        .until("the file is new", || (exec(&cluster, "web", "cat /etc/all/color") == "green").then_some(()));
    cluster.ok(&["label", "pod", "web", "tier=front"]);
    let labels = "app=\"web\"\ntier=\"front\"";
    cluster.until("the labels are new", || {
        (exec(&cluster, "web", "cat /etc/all/labels") == labels).then_some(())
    });

    let follow = cluster.command("kubectl").args(["logs", "-f", "web"]).stdout(Stdio::piped()).spawn();
    let mut follow = follow.expect("logs");
    let mut said = BufReader::new(follow.stdout.take().expect("its output"));
    let mut text = String::new();
    said.read_line(&mut text).expect("the first line");
    cluster.ok(&["delete", "pod", "web", "--timeout=180s"]);
    said.read_to_string(&mut text).expect("the rest");
    follow.wait().expect("its end");
    assert_eq!(text, "up me-red\nhooked\nbye\n");
    let left = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let data = cluster.data.path().display().to_string();
    assert!(!left.lines().any(|l| l.contains(&data) && l.contains("/volumes/")), "{left}");
}

/// A Pod of one container, and what its users are told.
struct Row {
    name: &'static str,
    container: &'static str,
    state: &'static str,
    event: &'static str,
}

const CANNOT: &[Row] = &[
    Row {
        name: "crash",
        container: "command: [sh, -c, exit 7]",
        state: "CrashLoopBackOff",
        event: "Back-off restarting failed container c in pod crash_default",
    },
    Row {
        name: "program",
        container: "command: [nonexistent]",
        state: "CrashLoopBackOff",
        event: "exec: \"nonexistent\": executable file not found in $PATH",
    },
    Row {
        name: "script",
        container: "command: [/usr/share/doc/busybox-static/copyright]",
        state: "CrashLoopBackOff",
        event: "exec: \"/usr/share/doc/busybox-static/copyright\": permission denied",
    },
    Row {
        name: "secret",
        container: "command: [sleep, '1000'], env: [{name: X, valueFrom: {secretKeyRef: {name: late, key: k}}}]",
        state: "CreateContainerConfigError",
        event: "Error: secret \"late\" not found",
    },
    Row {
        name: "never",
        container: "imagePullPolicy: Never, image: none",
        state: "ErrImageNeverPull",
        event: "Container image \"none\" is not present with pull policy of Never",
    },
    Row {
        name: "root",
        container: "securityContext: {runAsNonRoot: true}",
        state: "CreateContainerConfigError",
        event: "Error: container has runAsNonRoot and image will run as root",
    },
];

#[test]
fn a_pod_that_cannot_run_says_why() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    for Row { name, container, .. } in CANNOT {
        let image = if container.contains("image:") { "" } else { "image: busybox, " };
        let head = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n");
        cluster.apply(&format!("{head}spec: {{containers: [{{name: c, {image}{container}}}]}}\n"));
    }
    for Row { name, state, event, .. } in CANNOT {
        cluster.until(name, || (cluster.ok(&["get", "pod", name, "-o", STATE]) == *state).then_some(()));
        cluster.until(event, || cluster.ok(&["describe", "pod", name]).contains(event).then_some(()));
    }
    let last = "jsonpath={.status.containerStatuses[0].lastState.terminated.exitCode}";
    assert_eq!(cluster.ok(&["get", "pod", "crash", "-o", last]), "7");
    // What was missing comes: nobody waits for a back-off.
    cluster.ok(&["create", "secret", "generic", "late", "--from-literal=k=v"]);
    wait_ready(&cluster, "secret");
}

const KEEPER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: keeper}
spec:
  containers:
  - {name: c, image: busybox, command: [sh, -c, "echo $$ >> /work/runs; exec sleep 100000"], volumeMounts: [{name: work, mountPath: /work}]}
  volumes: [{name: work, emptyDir: {}}]
---
apiVersion: v1
kind: Pod
metadata: {name: short}
spec:
  restartPolicy: Never
  containers: [{name: c, image: busybox, command: [sh, -c, "while ! [ -e /work/go ]; do sleep 0.05; done; echo over; exit 3"], volumeMounts: [{name: work, mountPath: /work}]}]
  volumes: [{name: work, hostPath: {path: DATA/shared, type: DirectoryOrCreate}}]
"#;

#[test]
fn containers_outlive_yado_and_volumes_outlive_sandboxes() {
    let Some(mut cluster) = Cluster::start(&["busybox.tar"]) else { return };
    let data = cluster.data.path().display().to_string();
    cluster.apply(&KEEPER.replace("DATA", &data));
    wait_ready(&cluster, "keeper");
    wait_ready(&cluster, "short");
    let about = "jsonpath={.metadata.uid} {.status.podIP} {.status.containerStatuses[0].containerID} \
                 {.status.containerStatuses[0].state.running.startedAt}";
    let before = cluster.ok(&["get", "pod", "keeper", "-o", about]);
    cluster.stop();
    // It ends while nobody looks; its exit code and its log are not lost.
    std::fs::write(cluster.data.path().join("shared/go"), "").expect("a file");
    // The machine has another name by now; the node keeps its own, and with it its Pods.
    cluster.restart_on_host("renamed");
    assert_eq!(cluster.ok(&["get", "pod", "keeper", "-o", about]), before);
    assert_eq!(cluster.ok(&["get", "nodes", "-o", "name"]), "node/node-1\n");
    let code = "jsonpath={.status.phase} {.status.containerStatuses[0].state.terminated.exitCode}";
    cluster.until("its exit code is known", || {
        (cluster.ok(&["get", "pod", "short", "-o", code]) == "Failed 3").then_some(())
    });
    cluster.until("its log is there", || (cluster.ok(&["logs", "short"]) == "over\n").then_some(()));

    let uid = before.split(' ').next().expect("a uid");
    for pid in processes_of(uid) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    let restarts =
        "jsonpath={.status.containerStatuses[0].restartCount}/{.status.containerStatuses[0].ready}";
    cluster.until("it runs again", || {
        (cluster.ok(&["get", "pod", "keeper", "-o", restarts]) == "1/true").then_some(())
    });
    cluster.until("it has run twice", || {
        (exec(&cluster, "keeper", "wc -l < /work/runs").trim() == "2").then_some(())
    });
    let address = cluster.ok(&["get", "pod", "keeper", "-o", "jsonpath={.status.podIP}"]);
    assert_eq!(Some(address.as_str()), before.split(' ').nth(1));
}

const ALONE: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: alone, labels: {app: taken}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: busybox, command: [sleep, "100000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: once}
spec:
  restartPolicy: Never
  containers: [{name: c, image: busybox, command: [sleep, "100000"]}]
"#;

const TAKER: &str = r#"
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: taker}
spec:
  replicas: 1
  selector: {matchLabels: {app: taken}}
  template:
    metadata: {labels: {app: taken}}
    spec: {containers: [{name: c, image: busybox, command: [sleep, "100000"]}]}
"#;

#[test]
fn pods_change_hands_and_images_and_run_once_at_most() {
    let Some(mut cluster) = Cluster::start(&["busybox.tar"]) else { return };
    cluster.apply(ALONE);
    wait_ready(&cluster, "alone");
    wait_ready(&cluster, "once");
    cluster.ok(&["set", "image", "pod/alone", "c=busybox:latest"]);
    let about = "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}";
    cluster.until("another image runs", || {
        (cluster.ok(&["get", "pod", "alone", "-o", about]) == "1 true").then_some(())
    });
    cluster.apply(TAKER);
    let owner = "jsonpath={.items[*].metadata.ownerReferences[*].name}";
    cluster.until("it is taken in", || {
        (cluster.ok(&["get", "pods", "-l", "app=taken", "-o", owner]) == "taker").then_some(())
    });
    cluster.ok(&["delete", "rs", "taker", "--cascade=orphan"]);
    assert_eq!(cluster.ok(&["get", "pods", "-l", "app=taken", "-o", "name"]), "pod/alone\n");
    assert_eq!(cluster.ok(&["get", "pods", "-l", "app=taken", "-o", owner]), "");

    // As when the machine stops: nobody is left who could say how it ended.
    let uid = cluster.ok(&["get", "pod", "once", "-o", "jsonpath={.metadata.uid}"]);
    cluster.kill();
    for pid in processes_of(&uid) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    // A data directory of before names were kept in it knows the name by its Node object.
    std::fs::remove_file(cluster.data.path().join("node-name")).expect("to remove");
    cluster.restart_on_host("renamed");
    let end = "jsonpath={.status.phase} {.status.containerStatuses[0].state.terminated.reason} \
               {.status.containerStatuses[0].restartCount}";
    cluster.until("it does not run again", || {
        (cluster.ok(&["get", "pod", "once", "-o", end]) == "Failed ContainerStatusUnknown 0").then_some(())
    });
}

/// The shim of a Pod.
fn processes_of(uid: &str) -> Vec<i32> {
    let all = std::fs::read_dir("/proc").expect("/proc").flatten();
    all.filter_map(|entry| {
        let pid = entry.file_name().to_string_lossy().parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        (line.contains("shim") && line.contains(uid)).then_some(pid)
    })
    .collect()
}

const LONG: &str = "some-company-order-history-export-service-with-a-long-name-01xy";

#[test]
fn long_names_run_and_gated_pods_wait_until_they_are_let_go() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    let longest = "p".repeat(253);
    let serve = "hostname > /tmp/index.html; exec httpd -f -p 8000 -h /tmp";
    cluster.apply(&format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {LONG}}}
spec:
  selector: {{matchLabels: {{app: long}}}}
  template:
    metadata: {{labels: {{app: long}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{{name: c, image: busybox, imagePullPolicy: Never, command: [sh, -c, "{serve}"], ports: [{{containerPort: 8000}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: long}}
spec: {{selector: {{app: long}}, ports: [{{name: web, port: 80, targetPort: 8000}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: {longest}}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{{name: c, image: busybox, imagePullPolicy: Never, command: [sh, -c, "echo named $(hostname); exec sleep 1000"]}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: gated}}
spec:
  terminationGracePeriodSeconds: 0
  schedulingGates: [{{name: example.com/quota}}]
  containers: [{{name: c, image: busybox, imagePullPolicy: Never, command: [sh, -c, "{serve}"]}}]
"#
    ));
    let gated = cluster.ok(&["get", "pod", "gated"]);
    assert!(gated.contains("SchedulingGated"), "{gated}");
    cluster.ok(&["rollout", "status", &format!("deployment/{LONG}"), "--timeout=180s"]);
    let name = cluster.ok(&["get", "pods", "-l", "app=long", "-o", "name"]);
    assert_eq!(name.trim().len(), "pod/".len() + 63, "{name}");
    wait_ready(&cluster, &longest);
    cluster.until("the host name of the longest name", || {
        cluster.ok(&["logs", &longest]).contains(&format!("named {}", &longest[..63])).then_some(())
    });
    assert!(cluster.ok(&["get", "pod", "gated"]).contains("SchedulingGated"));
    let lift = r#"[{"op": "remove", "path": "/spec/schedulingGates"}]"#;
    cluster.ok(&["patch", "pod", "gated", "--type=json", "-p", lift]);
    wait_ready(&cluster, "gated");

    // Both answer through the API server, too.
    let proxied = |kind: &str, name: &str| {
        let path = format!("/api/v1/namespaces/default/{kind}/{name}/proxy/index.html");
        cluster.until(&path, || {
            let output = cluster.kubectl(&["get", "--raw", &path]);
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        })
    };
    assert_eq!(proxied("pods", "gated:8000"), "gated");
    assert_eq!(format!("pod/{}", proxied("services", "long:web")), name.trim());
    let metrics = cluster.ok(&["get", "--raw", "/metrics"]);
    assert!(metrics.contains("verb=\"CONNECT\""), "{metrics}");
}
