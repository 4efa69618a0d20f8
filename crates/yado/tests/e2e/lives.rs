//! What becomes of Pods: one cluster, one Pod a row, what `kubectl` shows of it and what is seen inside.

use std::collections::BTreeSet;
use std::ffi::OsString;

use crate::cluster::Cluster;

/// A Pod: its `spec` in flow style, where `IMAGE` is a container's usual beginning; what is done to it once it is
/// there; and what `kubectl get -o jsonpath` and the printed STATUS, one of several, must come to.
struct Row {
    name: &'static str,
    spec: &'static str,
    run: &'static [&'static str],
    path: &'static str,
    expect: &'static str,
    status: &'static str,
}

const EXIT_CODE: &str = "{.status.phase} {.status.containerStatuses[0].state.terminated.exitCode}";
const RESTARTS: &str = "{.status.phase} {.status.containerStatuses[0].restartCount}";
/// A container that lives until it is told to end.
const WAITS: &str = "trap 'exit 0' TERM; while :; do sleep 0.1; done";

const ROWS: &[Row] = &[
    Row {
        name: "done",
        spec: "restartPolicy: Never, containers: [{IMAGE, command: ['true']}]",
        run: &[],
        path: EXIT_CODE,
        expect: "Succeeded 0",
        status: "Completed",
    },
    Row {
        name: "failed",
        spec: "restartPolicy: Never, containers: [{IMAGE, command: [sh, -c, exit 3]}]",
        run: &[],
        path: EXIT_CODE,
        expect: "Failed 3",
        status: "Error",
    },
    Row {
        name: "second-try",
        spec: "restartPolicy: OnFailure, volumes: [{name: w, emptyDir: {}}], containers: [{IMAGE, \
               command: [sh, -c, '[ -e /w/x ] && exit 0; touch /w/x; exit 1'], volumeMounts: [{name: w, mountPath: /w}]}]",
        run: &[],
        path: RESTARTS,
        expect: "Succeeded 1",
        status: "Completed",
    },
    Row {
        name: "memory",
        spec: "restartPolicy: Never, containers: [{IMAGE, resources: {limits: {memory: 16Mi}}, \
               command: [sh, -c, 'x=a; while :; do x=$x$x; done']}]",
        run: &[],
        path: "{.status.containerStatuses[0].state.terminated.reason}",
        expect: "OOMKilled",
        status: "OOMKilled",
    },
    Row {
        name: "unborn",
        spec: "restartPolicy: Never, initContainers: [{name: i, image: busybox, imagePullPolicy: Never, \
               command: [sh, -c, exit 4]}], containers: [{IMAGE, command: [sh, -c, 'WAITS']}]",
        run: &[],
        path: "{.status.phase} {.status.initContainerStatuses[0].state.terminated.exitCode}",
        expect: "Failed 4",
        status: "Init:Error",
    },
    Row {
        name: "unwell",
        spec: "terminationGracePeriodSeconds: 1, containers: [{IMAGE, command: [sh, -c, 'touch /tmp/well; WAITS'], \
               startupProbe: {exec: {command: [test, -e, /tmp/well]}, periodSeconds: 1, timeoutSeconds: 60, failureThreshold: 60}, \
               livenessProbe: {exec: {command: [test, -e, /tmp/well]}, periodSeconds: 1, timeoutSeconds: 60, failureThreshold: 1}}]",
        run: &["rm /tmp/well"],
        path: RESTARTS,
        expect: "Running 1",
        status: "Running",
    },
    Row {
        name: "never-up",
        spec: "restartPolicy: Never, terminationGracePeriodSeconds: 0, containers: [{IMAGE, command: [sleep, '1000'], \
               startupProbe: {tcpSocket: {port: 9}, periodSeconds: 1, failureThreshold: 1}}]",
        run: &[],
        path: EXIT_CODE,
        expect: "Failed 137",
        status: "Error",
    },
    Row {
        name: "in-time",
        spec: "activeDeadlineSeconds: 1, terminationGracePeriodSeconds: 0, containers: [{IMAGE, command: [sleep, '1000']}]",
        run: &[],
        path: "{.status.phase} {.status.reason}",
        expect: "Failed DeadlineExceeded",
        // A slow machine may not have started it by then, nor have begun to.
        status: "Error|DeadlineExceeded|ContainerCreating",
    },
    Row {
        name: "accompanied",
        spec: "restartPolicy: Never, initContainers: [{name: s, image: busybox, imagePullPolicy: Never, \
               restartPolicy: Always, command: [sh, -c, 'touch /tmp/up; WAITS'], \
               startupProbe: {exec: {command: [test, -e, /tmp/up]}, periodSeconds: 1, timeoutSeconds: 60, failureThreshold: 60}}], \
               containers: [{IMAGE, command: ['true']}]",
        run: &[],
        path: "{.status.phase} {.status.initContainerStatuses[0].state.terminated.exitCode}",
        expect: "Succeeded 0",
        status: "Completed",
    },
    Row {
        name: "too-big",
        spec: "containers: [{IMAGE, resources: {requests: {cpu: '1000'}}, command: ['true']}]",
        run: &[],
        path: "{.status.phase} {.status.conditions[?(@.type=='PodScheduled')].message}",
        expect: "Pending 0/1 nodes are available: 1 Insufficient cpu.",
        status: "Pending",
    },
    Row {
        name: "two",
        spec: "securityContext: {runAsUser: 1234, runAsGroup: 2345, fsGroup: 3456}, terminationGracePeriodSeconds: 0, \
               volumes: [{name: w, emptyDir: {}}], containers: [\
               {IMAGE, command: [sh, -c, 'id -u > /w/id; exec sleep 1000'], volumeMounts: [{name: w, mountPath: /w}], \
                readinessProbe: {exec: {command: [test, -s, /w/id]}, periodSeconds: 1, timeoutSeconds: 60}, \
                env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}, \
                      {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory}}}], \
                resources: {limits: {memory: 64Mi, cpu: 100m}}}, \
               {name: other, image: busybox, imagePullPolicy: Never, command: [sleep, '1000'], \
                securityContext: {readOnlyRootFilesystem: true}, volumeMounts: [{name: w, mountPath: /w, readOnly: true}]}]",
        run: &[],
        path: "{.status.containerStatuses[*].ready} {.status.qosClass}",
        expect: "true true Burstable",
        status: "Running",
    },
];

#[test]
fn what_becomes_of_pods() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    cluster.ok(&["create", "service", "clusterip", "backend", "--tcp=80:8080"]);
    for Row { name, spec, .. } in ROWS {
        let spec = spec.replace("IMAGE", "name: c, image: busybox, imagePullPolicy: Never");
        let spec = spec.replace("WAITS", &WAITS.replace('\'', "''"));
        cluster.apply(&format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"));
    }
    for Row { name, run, .. } in ROWS.iter().filter(|row| !row.run.is_empty()) {
        cluster.ok(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=180s"]);
        for command in *run {
            cluster.ok(&["exec", name, "--", "sh", "-c", command]);
        }
    }
    for Row { name, path, expect, status, .. } in ROWS {
        cluster.until(&format!("{name} is {expect}"), || {
            let path = format!("jsonpath={path}");
            (cluster.ok(&["get", "pod", name, "-o", &path]) == *expect).then_some(())
        });
        cluster.until(&format!("{name} is shown as {status}"), || {
            let line = cluster.ok(&["get", "pod", name, "--no-headers"]);
            let shown = line.split_whitespace().nth(2)?;
            status.split('|').any(|s| s == shown).then_some(())
        });
    }
    for (container, script, expect) in [
        ("c", "id -u; id -g; id -G", "1234\n2345\n2345 3456\n"),
        ("c", "echo $NODE $MEMORY; touch /w/mine; stat -c %g /w/mine", "node-1 67108864\n3456\n"),
        (
            "other",
            "cat /w/id; touch /w/x 2>&1; touch /x 2>&1",
            "1234\ntouch: /w/x: Read-only file system\ntouch: /x: Read-only file system\n",
        ),
        ("other", "echo $BACKEND_SERVICE_PORT ${BACKEND_SERVICE_HOST%.*.*}", "80 10."),
        // A process sees its container's and no others.
        ("c", "n=$(ls -d /proc/[0-9]* | wc -l); [ $n -lt 8 ] && echo few || echo $n", "few\n"),
    ] {
        let output = cluster.kubectl(&["exec", "two", "-c", container, "--", "sh", "-c", script]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text == expect || expect.ends_with('.') && text.starts_with(expect), "{script}: {text:?}");
    }
    // Those that are over are told apart from those that run, and go at once.
    let running = cluster.ok(&["get", "pods", "--field-selector=status.phase=Running", "-o", "name"]);
    assert_eq!(running, "pod/two\npod/unwell\n");
    cluster.ok(&["delete", "pods", "--all", "--timeout=180s"]);
}

const TEN: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: ten}
spec:
  replicas: 10
  selector: {matchLabels: {app: ten}}
  template:
    metadata: {labels: {app: ten}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: busybox, imagePullPolicy: Never, command: [sh, -c, \"trap 'exit 0' TERM; while :; do sleep 0.1; done\"]}]
";

/// Killed at any moment, the next start brings it to what was asked for: nothing twice, nothing left over.
#[test]
fn a_crash_at_any_moment() {
    let Some(mut cluster) = Cluster::start(&["busybox.tar"]) else { return };
    let sandboxes = |cluster: &Cluster| -> BTreeSet<OsString> {
        let all = std::fs::read_dir(cluster.data.path().join("pods/sandboxes"));
        all.into_iter().flatten().flatten().map(|entry| entry.file_name()).collect()
    };
    let settled = |cluster: &Cluster, count: usize| {
        cluster.until(&format!("{count} Pods run"), || {
            let ready = "jsonpath={.status.availableReplicas}";
            let ready = cluster.kubectl(&["get", "deployment", "ten", "-o", ready]).stdout;
            let ready: usize = String::from_utf8_lossy(&ready).parse().unwrap_or_default();
            let pods = cluster.ok(&["get", "pods", "-o", "name"]).lines().count();
            (ready == count && pods == count && sandboxes(cluster).len() == count).then_some(())
        });
    };
    cluster.apply(TEN);
    cluster.crash_and_restart();
    settled(&cluster, 10);
    for (i, args) in [
        &["scale", "deployment", "ten", "--replicas=3"][..],
        &["scale", "deployment", "ten", "--replicas=8"],
        &["delete", "pods", "--all", "--wait=false"],
        &["rollout", "restart", "deployment", "ten"],
    ]
    .into_iter()
    .enumerate()
    {
        cluster.ok(args);
        // So many Pods into what was asked.
        let before = sandboxes(&cluster);
        cluster.until("it has begun", || (i % 2 == 0 || sandboxes(&cluster) != before).then_some(()));
        cluster.crash_and_restart();
        settled(&cluster, if i == 0 { 3 } else { 8 });
    }
    cluster.ok(&["delete", "deployment", "ten", "--wait=false"]);
    cluster.crash_and_restart();
    cluster.until("nothing is left", || {
        (sandboxes(&cluster).is_empty() && cluster.ok(&["get", "pods", "-o", "name"]).is_empty())
            .then_some(())
    });
}
