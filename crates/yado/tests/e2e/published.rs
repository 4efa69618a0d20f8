//! What is published outside, and names that only Yado answers.

use std::process::Stdio;

use crate::cluster::Cluster;

const WEB: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: web
    image: busybox
    imagePullPolicy: Never
    command: [sh, -c, "mkdir /www; echo hello > /www/index.html; exec httpd -f -p 8000 -h /www"]
    readinessProbe: {tcpSocket: {port: 8000}, periodSeconds: 1, timeoutSeconds: 30}
---
apiVersion: v1
kind: Service
metadata: {name: web, annotations: {yado.dev/aliases: "my_web,Web.App"}}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8000}]}
---
apiVersion: v1
kind: Service
metadata: {name: all}
spec: {selector: {app: web}, clusterIP: None}
"#;

fn public(name: &str, port: u16, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{type: LoadBalancer, selector: {{app: \
         web}}, ports: [{{port: {port}, targetPort: 8000}}]{more}}}\n"
    )
}

/// The events about a Service, in the order in which they came.
fn events(cluster: &Cluster, service: &str) -> String {
    let selector = format!("involvedObject.name={service},involvedObject.kind=Service");
    cluster.ok(&["get", "events", "--field-selector", &selector, "-o", "jsonpath={.items[*].message}"])
}

/// P04: only what is published is reachable outside; it answers on the node's own port, and a port has one owner.
#[test]
fn p04_published_ports_answer_on_the_node() {
    let Some(mut cluster) = Cluster::start(&["busybox.tar"]) else { return };
    cluster.apply(WEB);
    cluster.apply(&public("first", 7080, ""));
    let curl = |cluster: &Cluster, port: u16| cluster.curl(&[&format!("http://127.0.0.1:{port}/")]);
    cluster.until("it answers", || (curl(&cluster, 7080) == "hello\n").then_some(()));
    let shown = |cluster: &Cluster, service: &str| {
        cluster.ok(&["get", "service", service, "-o", "jsonpath={.status.loadBalancer.ingress[*].ip}"])
    };
    cluster.until("the address is shown", || (shown(&cluster, "first") == "127.0.0.1").then_some(()));
    assert!(cluster.ok(&["get", "service", "first"]).contains("127.0.0.1"));

    // One of another name that wants the same port waits until the first is gone, and says for whom.
    cluster.apply(&public("second", 7080, ", loadBalancerSourceRanges: [127.0.0.0/8]"));
    cluster.until("it is told", || {
        events(&cluster, "second").contains("published by the older Service default/first").then_some(())
    });
    assert_eq!(shown(&cluster, "second"), "");
    cluster.ok(&["delete", "service", "first"]);
    cluster.until("it takes over", || (shown(&cluster, "second") == "127.0.0.1").then_some(()));
    cluster.until("it answers for it", || (curl(&cluster, 7080) == "hello\n").then_some(()));

    // The engine's own ports, and those of other programs.
    cluster.apply(&public("router", 8080, ""));
    cluster.until("it is told", || {
        events(&cluster, "router").contains("its HTTP router (--http-port)").then_some(())
    });
    let mut listener = cluster
        .command("busybox")
        .args(["httpd", "-f", "-p", "127.0.0.1:7081", "-h"])
        .arg(cluster.data.path().join("images"))
        .stdin(Stdio::null())
        .spawn()
        .expect("busybox");
    cluster.until("it listens", || curl(&cluster, 7081).contains("404").then_some(()));
    cluster.apply(&public("late", 7081, ""));
    cluster.until("it is told", || events(&cluster, "late").contains("by busybox (process").then_some(()));
    listener.kill().expect("to end");
    listener.wait().expect("its end");
    cluster.until("the port is taken", || (curl(&cluster, 7081) == "hello\n").then_some(()));

    // A restart keeps it; another type gives it up.
    cluster.crash_and_restart();
    cluster.until("it answers again", || (curl(&cluster, 7080) == "hello\n").then_some(()));
    cluster.ok(&[
        "patch",
        "service",
        "second",
        "-p",
        r#"{"spec":{"type":"ClusterIP","loadBalancerSourceRanges":null}}"#,
    ]);
    cluster.until("the status is cleared", || shown(&cluster, "second").is_empty().then_some(()));
    cluster.until("nobody answers", || curl(&cluster, 7080).is_empty().then_some(()));
}

/// A hostPort opens on the node unless the port is somebody else's, and a Pod that ends serves as long as its Service has
/// no other.
#[test]
fn host_ports_open_and_the_last_endpoint_serves() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    let pod = |name: &str, ports: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec: {{terminationGracePeriodSeconds: 60, \
             containers: [{{name: c, image: busybox, imagePullPolicy: Never, command: [sh, -c, \"trap '' TERM; httpd -p 80; \
             sleep 1000\"], ports: [{ports}]}}]}}\n---\n"
        )
    };
    let on_host =
        "{containerPort: 80, hostPort: 7090}, {containerPort: 80, hostPort: 7091, hostIP: 127.0.0.1}";
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: open}\nspec: {selector: {app: open}, ports: [{port: 80}]}\n";
    let taken = pod("taken", "{containerPort: 80, hostPort: 8080}");
    cluster.apply(&format!("{}{taken}{service}", pod("open", on_host)));
    for port in [7090, 7091] {
        let url = format!("http://127.0.0.1:{port}/");
        cluster.until("it answers", || cluster.curl(&[&url]).contains("404").then_some(()));
    }
    cluster.until("who has the port is told", || {
        let told = [
            "get",
            "events",
            "--field-selector",
            "involvedObject.name=taken",
            "-o",
            "jsonpath={.items[*].message}",
        ];
        cluster.ok(&told).contains("its HTTP router (--http-port)").then_some(())
    });
    let vip = cluster.ok(&["get", "service", "open", "-o", "jsonpath={.spec.clusterIP}"]);
    let url = format!("http://{vip}/");
    cluster.until("the Service answers", || cluster.curl(&[&url]).contains("404").then_some(()));
    cluster.ok(&["delete", "pod", "open", "taken", "--wait=false"]);
    let ready = [
        "get",
        "endpointslices",
        "-l",
        "kubernetes.io/service-name=open",
        "-o",
        "jsonpath={.items[*].endpoints[*].conditions.ready}",
    ];
    cluster.until("it is not ready any more", || (cluster.ok(&ready) == "false").then_some(()));
    assert!(cluster.curl(&[&url]).contains("404"), "there is no other");
    cluster.ok(&["delete", "pod", "open", "taken", "--force", "--grace-period=0"]);
    cluster.until("nobody answers", || cluster.curl(&["http://127.0.0.1:7090/"]).is_empty().then_some(()));
    cluster.until("the Service refuses", || cluster.curl(&[&url]).is_empty().then_some(()));
}

/// O22: names that are no DNS labels, names without ports, and the port of a name.
#[test]
fn o22_names_and_their_ports_are_found() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    cluster.apply(WEB);
    cluster.ok(&["wait", "--for=condition=Ready", "pod/web", "--timeout=180s"]);
    for url in [
        "http://my_web/",
        "http://My_Web.default/",
        "http://web.app/",
        "http://my_web.service.consul/",
        "http://all:8000/",
    ] {
        cluster.until(url, || {
            let output = cluster.kubectl(&["exec", "web", "--", "wget", "-qO-", url]);
            (output.stdout == b"hello\n").then_some(())
        });
    }
    let looked_up = cluster.ok(&["exec", "web", "--", "nslookup", "-type=srv", "my_web.service.consul"]);
    assert!(looked_up.contains(" 80 web.default.svc.cluster.local"), "{looked_up}");
    let host = cluster.ok(&["exec", "web", "--", "nslookup", "-type=a", "host.docker.internal"]);
    let gateway = cluster.ok(&[
        "exec",
        "web",
        "--",
        "sh",
        "-c",
        "ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p'",
    ]);
    assert!(host.contains(&format!("Address: {}", gateway.trim())), "{host}{gateway}");
}
