//! What descriptions of other tools ask of the engine: volumes by claim, programs of the machine, users by name, limits,
//! signals, namespaces.

use std::io::{BufRead, BufReader, Read};

use crate::cluster::Cluster;

/// What a command says in a Pod's container.
fn exec(cluster: &Cluster, pod: &str, script: &str) -> String {
    cluster.ok(&["exec", pod, "--", "sh", "-c", script])
}

fn wait_ready(cluster: &Cluster, pod: &str) {
    cluster.ok(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=180s"]);
}

/// A Pod of busybox that waits for its end; `more` goes into its specification, `container` into its container.
fn pod(name: &str, annotations: &str, more: &str, container: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, annotations: {{{annotations}}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 5\n  {more}\n  containers:\n  - name: c\n    image: busybox\n    imagePullPolicy: \
         Never\n    command: [sh, -c, \"trap 'exit 0' TERM; while :; do sleep 0.1; done\"]\n    {container}\n"
    )
}

/// A Pod waits for its claim's volume, finds the image's content in it, and leaves what it wrote to the next one.
#[test]
fn volumes_by_claim() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    let place = cluster.data.path().join("elsewhere");
    let claim = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data, annotations: {yado.dev/copy-up: \
                 \"true\"}}\nspec: {accessModes: [ReadWriteOnce], storageClassName: \"\", volumeName: pv, resources: \
                 {requests: {storage: 1Mi}}}\n";
    let volume = format!(
        "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: pv}}\nspec: {{capacity: {{storage: 1Mi}}, \
         accessModes: [ReadWriteOnce], claimRef: {{namespace: default, name: data}}, hostPath: {{path: {}, type: \
         DirectoryOrCreate}}}}\n",
        place.display()
    );
    let with_volume = |name: &str, read_only: bool| {
        pod(
            name,
            "",
            &format!(
                "volumes: [{{name: v, persistentVolumeClaim: {{claimName: data, readOnly: {read_only}}}}}]"
            ),
            "volumeMounts: [{name: v, mountPath: /etc/apk}, {name: v, mountPath: /v}, {name: v, mountPath: /part, \
             subPath: a/b}]",
        )
    };
    // Bound by hand where nothing else binds.
    cluster.apply(claim);
    cluster.apply(&with_volume("first", false));
    cluster.apply(&volume);
    let bind = r#"{"status":{"phase":"Bound"}}"#;
    cluster.until("the claim is bound", || {
        let phase = cluster.ok(&["get", "pvc", "data", "-o", "jsonpath={.status.phase}"]);
        if phase != "Bound" {
            cluster.ok(&["patch", "pvc", "data", "--subresource=status", "--type=merge", "-p", bind]);
        }
        (phase == "Bound").then_some(())
    });
    wait_ready(&cluster, "first");
    exec(&cluster, "first", "echo kept > /v/file; echo inner > /part/file");
    cluster.ok(&["delete", "pod", "first"]);
    assert_eq!(std::fs::read_to_string(place.join("a/b/file")).expect("the file"), "inner\n");
    cluster.apply(&with_volume("second", true));
    wait_ready(&cluster, "second");
    let said = exec(&cluster, "second", "cat /v/file /v/a/b/file; touch /v/more 2>&1 | grep -o Read-only");
    assert_eq!(said, "kept\ninner\nRead-only\n");
}

/// A Pod runs programs of this machine where the node allows it, and is told why where it does not.
#[test]
fn programs_of_the_machine() {
    let host = "apiVersion: v1\nkind: Pod\nmetadata: {name: host}\nspec: {terminationGracePeriodSeconds: 1, containers: \
                [{name: c, image: host, imagePullPolicy: Always, command: [sleep, infinity]}]}\n";
    let Some(cluster) = Cluster::start_with(&["busybox.tar"], &["--allow-host-image"]) else { return };
    let label = cluster.ok(&["get", "nodes", "-l", "yado.dev/host-image=true", "-o", "name"]);
    assert_eq!(label, "node/node-1\n");
    cluster.apply(host);
    wait_ready(&cluster, "host");
    let first = |path: &str| std::fs::read_to_string(path).expect("a file").lines().next().map(str::to_owned);
    assert_eq!(
        exec(&cluster, "host", "head -n 1 /etc/passwd").trim().to_owned(),
        first("/etc/passwd").expect("a line")
    );
    let hidden = format!("ls -A {} 2>/dev/null | wc -l", cluster.data.path().display());
    assert_eq!(exec(&cluster, "host", &hidden), "0\n");
    exec(&cluster, "host", "touch /etc/yado-was-here");
    assert!(!std::path::Path::new("/etc/yado-was-here").exists());
    cluster.ok(&["delete", "pod", "host"]);
    drop(cluster);

    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    cluster.apply(host);
    cluster.until("it is refused", || {
        let waiting = cluster.ok(&[
            "get",
            "pod",
            "host",
            "-o",
            "jsonpath={.status.containerStatuses[0].state.waiting.*}",
        ]);
        (waiting.contains("ErrHostImageNotAllowed") && waiting.contains("--allow-host-image")).then_some(())
    });
    assert!(cluster.ok(&["get", "events"]).contains("does not allow"));
}

/// Users by name, limits, signals and namespaces are as described.
#[test]
fn users_limits_signals_and_namespaces() {
    let options = ["--allowed-unsafe-sysctls", "net.core.*"];
    let Some(cluster) = Cluster::start_with(&["busybox.tar"], &options) else { return };
    cluster.apply(&pod(
        "forbidden",
        "",
        "securityContext: {sysctls: [{name: kernel.msgmax, value: \"65536\"}]}",
        "",
    ));
    cluster.apply(&pod(
        "limited",
        r#"yado.dev/ulimits: '{"nofile": {"soft": 100, "hard": 200}}', yado.dev/users: '{"c": "0:7"}'"#,
        "securityContext: {sysctls: [{name: net.core.somaxconn, value: \"77\"}], runAsUser: 5}",
        "",
    ));
    cluster.apply(&pod("shared", "", "shareProcessNamespace: true\n  hostIPC: true", ""));
    cluster.apply(&pod("hosts", "", "hostPID: true\n  hostNetwork: true", ""));
    cluster.apply(&pod("wrong", r#"yado.dev/ulimits: '{"files": 1}'"#, "", ""));
    let usr1 = "lifecycle: {stopSignal: SIGUSR1}\n    command: [sh, -c, \"trap 'echo by USR1; exit 3' USR1; echo up; while \
                :; do sleep 0.1; done\"]";
    let signalled = pod("signalled", "", "os: {name: linux}", "")
        .replace("command: [sh, -c, \"trap 'exit 0' TERM; while :; do sleep 0.1; done\"]", usr1);
    cluster.apply(&signalled);
    for name in ["limited", "shared", "hosts", "signalled"] {
        wait_ready(&cluster, name);
    }
    let said =
        exec(&cluster, "limited", "ulimit -Sn; ulimit -Hn; id -g; id -u; cat /proc/sys/net/core/somaxconn");
    assert_eq!(said, "100\n200\n7\n0\n77\n");
    let link = |name: &str| {
        std::fs::read_link(format!("/proc/self/ns/{name}")).expect("a link").display().to_string()
    };
    let of = |pod: &str, name: &str| {
        exec(&cluster, pod, &format!("readlink /proc/self/ns/{name}")).trim().to_owned()
    };
    assert_eq!(of("shared", "ipc"), link("ipc"));
    assert_ne!(of("limited", "ipc"), link("ipc"));
    assert_eq!(of("hosts", "pid"), link("pid"));
    assert_ne!(of("shared", "pid"), link("pid"));
    assert_eq!(exec(&cluster, "shared", "cat /proc/1/comm").trim(), "pause");
    cluster.until("the forbidden parameter is refused", || {
        let status =
            cluster.ok(&["get", "pod", "forbidden", "-o", "jsonpath={.status.phase} {.status.reason}"]);
        (status == "Failed SysctlForbidden").then_some(())
    });
    cluster.until("the mistake is told", || {
        cluster.ok(&["get", "events"]).contains("files is not a valid limit").then_some(())
    });
    let mut logs = cluster
        .command("kubectl")
        .args(["logs", "-f", "signalled"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("kubectl");
    let mut said = BufReader::new(logs.stdout.take().expect("its output"));
    let mut text = String::new();
    said.read_line(&mut text).expect("its first line");
    cluster.ok(&["delete", "pod", "signalled", "--timeout=180s"]);
    said.read_to_string(&mut text).expect("the rest");
    logs.wait().expect("its end");
    assert!(text.contains("by USR1"), "{text}");
}
