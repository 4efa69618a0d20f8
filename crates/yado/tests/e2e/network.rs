//! Requests find Pods: by Service, by name, by Host; and none is lost while Pods come and go.

use std::process::{Command, Stdio};

use crate::cluster::{Cluster, demo_image};

/// The manifest of the Kubernetes project's own example, where it is at hand.
fn guestbook() -> Option<String> {
    let path = std::env::var_os("YADO_CORPUS").map_or_else(
        || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus"),
        std::path::PathBuf::from,
    );
    let path = path.join("kubernetes/guestbook-2022.yaml");
    if !path.exists() {
        yado_testkit::not_proved!("{} is not here", path.display());
        return None;
    }
    if !demo_image("gb-frontend.tar").exists() {
        yado_testkit::skip!("the demonstration images are not here");
        return None;
    }
    Some(path.display().to_string())
}

/// K40: three Deployments and three Services find each other by Service name.
#[test]
fn k40_the_guestbook_example_runs_unmodified() {
    let Some(manifest) = guestbook() else { return };
    let images = ["busybox.tar", "redis.tar", "gb-redisslave.tar", "gb-frontend.tar"];
    let Some(mut cluster) = Cluster::start(&images) else { return };
    cluster.ok(&["apply", "-f", &manifest]);
    for deployment in ["redis-master", "redis-replica", "frontend"] {
        let what = format!("deployment/{deployment}");
        cluster.ok(&["wait", "--for=condition=Available", &what, "--timeout=180s"]);
    }
    let port = cluster.ok(&["get", "service", "frontend", "-o", "jsonpath={.spec.ports[0].nodePort}"]);
    let page = format!("http://127.0.0.1:{port}");
    let set = format!("{page}/guestbook.php?cmd=set&key=messages&value=Mio%20was%20here");
    cluster.until("the entry is taken", || cluster.curl(&[&set]).contains("Updated").then_some(()));
    cluster.until("replicas have the entry", || {
        cluster
            .curl(&[&format!("{page}/guestbook.php?cmd=get&key=messages")])
            .contains("Mio was here")
            .then_some(())
    });
    let hosts: std::collections::BTreeSet<String> = cluster.until("all front ends answer", || {
        let pages = (0..12).map(|_| cluster.curl(&[&page]));
        let hosts: std::collections::BTreeSet<String> = pages
            .filter_map(|p| p.split("answered by ").nth(1)?.split('<').next().map(str::to_owned))
            .collect();
        (hosts.len() == 3).then_some(hosts)
    });
    assert!(hosts.iter().all(|h| h.starts_with("frontend-")), "{hosts:?}");

    // A crash of the daemon costs neither containers nor entries.
    let before =
        cluster.ok(&["get", "pods", "-o", "jsonpath={.items[*].status.containerStatuses[*].containerID}"]);
    cluster.crash_and_restart();
    cluster
        .until("the entry is still there", || cluster.curl(&[&page]).contains("Mio was here").then_some(()));
    let after =
        cluster.ok(&["get", "pods", "-o", "jsonpath={.items[*].status.containerStatuses[*].containerID}"]);
    assert_eq!(before, after);

    // A database Pod that goes is replaced, and found under the same name.
    cluster.ok(&["delete", "pod", "-l", "role=replica", "--timeout=180s"]);
    cluster.until("new replicas have the entry", || {
        cluster.curl(&[&page]).contains("Mio was here").then_some(())
    });
}

const ECHO: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo}
spec:
  replicas: REPLICAS
  selector: {matchLabels: {app: echo}}
  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      terminationGracePeriodSeconds: 20
      containers:
      - name: echo
        image: busybox
        imagePullPolicy: Never
        env: [{name: VERSION, value: VERSION-VALUE}]
        command: [sh, -c, "mkdir /www; echo $VERSION $(hostname) > /www/index.html; exec httpd -f -p 8000 -h /www"]
        readinessProbe: {tcpSocket: {port: 8000}, periodSeconds: 1, timeoutSeconds: 30}
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {selector: {app: echo}, ports: [{port: 80, targetPort: 8000}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: echo}
spec:
  rules:
  - host: echo.test
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: echo, port: {number: 80}}}}]}
"#;

fn echo(replicas: usize, version: &str) -> String {
    ECHO.replace("REPLICAS", &replicas.to_string()).replace("VERSION-VALUE", version)
}

/// The same with a script whose answers take a moment, in a program that ends at once when it is told to.
fn slow_echo(replicas: usize, version: &str) -> String {
    let echo = echo(replicas, version);
    let command = echo.lines().find(|line| line.contains("command:")).expect("a command");
    echo.replace(command, SLOW_COMMAND)
}

const SLOW_COMMAND: &str = r#"        command:
        - sh
        - -c
        - |
          mkdir -p /www/cgi-bin; echo $VERSION $(hostname) > /www/index.html; cd /www/cgi-bin
          printf '#!/bin/sh\nsleep 0.2\nprintf "Content-Type: text/plain\\r\\n\\r\\n"\ncat /www/index.html\n' > slow
          chmod +x slow; trap 'exit 0' TERM
          httpd -f -p 8000 -h /www & wait"#;

/// K31: a rolling update replaces Pods one by one and no request fails, through the router or by the Service's address,
/// though the program knows nothing of draining and ends while others still wait for its answers.
#[test]
fn k31_no_request_fails_during_a_rolling_update() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    cluster.apply(&slow_echo(3, "one"));
    cluster.ok(&["rollout", "status", "deployment/echo", "--timeout=180s"]);
    cluster.until("the route works", || {
        cluster.curl(&["-H", "Host: echo.test", "http://127.0.0.1:8080/"]).starts_with("one").then_some(())
    });
    let loop_through = |name: &str, url: &str| {
        let script = format!(
            "while [ ! -e {0}/stop ]; do curl -sS --max-time 60 -f -H 'Host: echo.test' {url} >> {0}/{name} 2>> {0}/failures \
             || echo failed >> {0}/failures; done",
            cluster.data.path().display()
        );
        cluster.command("sh").args(["-c", &script]).stdout(Stdio::null()).spawn().expect("a loop")
    };
    let read = |name: &str| std::fs::read_to_string(cluster.data.path().join(name)).unwrap_or_default();
    let vip = cluster.ok(&["get", "service", "echo", "-o", "jsonpath={.spec.clusterIP}"]);
    let vip = format!("http://{vip}/cgi-bin/slow");
    let urls = [("router", "http://127.0.0.1:8080/"), ("service", &vip)];
    let mut callers = urls.map(|(name, url)| loop_through(name, url));
    let all_met = |version: &str| {
        cluster.until(&format!("both meet version {version}"), || {
            urls.iter().all(|(name, _)| read(name).contains(&format!("{version} "))).then_some(())
        });
    };
    all_met("one");
    for version in ["two", "three"] {
        cluster.apply(&slow_echo(3, version));
        cluster.ok(&["rollout", "status", "deployment/echo", "--timeout=180s"]);
        all_met(version);
    }
    std::fs::write(cluster.data.path().join("stop"), "").expect("a file");
    callers.iter_mut().for_each(|c| _ = c.wait().expect("the caller"));
    assert_eq!(read("failures"), "");
}

/// C22, K22: a killed container and a deleted Pod come back by themselves.
#[test]
fn c22_what_dies_comes_back() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    cluster.apply(&echo(2, "one"));
    cluster.ok(&["rollout", "status", "deployment/echo", "--timeout=180s"]);
    let pod = cluster.ok(&["get", "pods", "-l", "app=echo", "-o", "jsonpath={.items[0].metadata.name}"]);
    let restarts = |name: &str| {
        cluster.ok(&[
            "get",
            "pod",
            name,
            "-o",
            "jsonpath={.status.containerStatuses[0].restartCount}/{.status.containerStatuses[0].ready}",
        ])
    };
    // The container's first process ignores what it has no handler for, but not this.
    let killed = cluster.kubectl(&["exec", &pod, "--", "sh", "-c", "kill -9 $(pidof httpd) || true"]);
    drop(killed);
    let pid = container_pid(&cluster, &pod);
    assert!(Command::new("kill").args(["-9", &pid]).status().expect("kill").success());
    cluster.until("the container is back", || (restarts(&pod) == "1/true").then_some(()));
    cluster.ok(&["delete", "pod", &pod, "--wait=false", "--grace-period=1"]);
    cluster.until("another Pod is ready", || {
        let ready = cluster.ok(&["get", "deployment", "echo", "-o", "jsonpath={.status.readyReplicas}"]);
        let names = cluster.ok(&["get", "pods", "-l", "app=echo", "-o", "name"]);
        (ready == "2" && !names.contains(&pod)).then_some(())
    });
}

/// The first process of a Pod's container, in the host's numbering.
fn container_pid(cluster: &Cluster, pod: &str) -> String {
    let host = cluster.ok(&["get", "pod", pod, "-o", "jsonpath={.metadata.name}"]);
    let found = std::fs::read_dir("/proc").expect("/proc").flatten().find_map(|entry| {
        let pid = entry.file_name().into_string().ok().filter(|n| n.bytes().all(|b| b.is_ascii_digit()))?;
        let environment = std::fs::read(entry.path().join("environ")).ok()?;
        let line = std::fs::read_to_string(entry.path().join("status")).ok()?;
        let inner = line.lines().find(|l| l.starts_with("NSpid:"))?.split_whitespace().last()? == "1";
        let is_here = environment.split(|b| *b == 0).any(|v| v == format!("HOSTNAME={host}").as_bytes());
        (inner && is_here).then_some(pid)
    });
    found.expect("the container's process")
}

/// O20, O21, Y10: a Service is found by its name in every form that users know.
#[test]
fn o20_o21_services_are_found_by_name() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    cluster.apply(&echo(1, "one"));
    cluster.ok(&["rollout", "status", "deployment/echo", "--timeout=180s"]);
    for name in ["echo", "echo.default", "echo.default.svc.cluster.local", "echo.service.consul"] {
        let url = format!("http://{name}/");
        let answer = cluster.until(name, || {
            let output = cluster.kubectl(&["exec", "deployment/echo", "--", "wget", "-qO-", &url]);
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        });
        assert!(answer.starts_with("one echo-"), "{name}: {answer}");
    }
    let unknown =
        cluster.kubectl(&["exec", "deployment/echo", "--", "wget", "-qO-", "http://nobody.default/"]);
    assert!(!unknown.status.success());
    assert_eq!(cluster.curl(&["http://127.0.0.1:8080/"]), "default backend - 404\n");
}
