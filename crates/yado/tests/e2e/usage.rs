//! What nodes and Pods use: the node's own API behind `nodes/proxy`, and `kubectl top`.

use serde_json::Value;

use super::cluster::Cluster;

/// `busy` takes all the processor time that it may, `idle` none.
const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: p}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: busy
    image: busybox
    command: [sh, -c, "while :; do :; done"]
    resources: {limits: {cpu: 100m, memory: 64Mi}}
  - {name: idle, image: busybox, command: [sleep, "100000"]}
---
apiVersion: v1
kind: Pod
metadata: {name: host}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: busybox, command: [sleep, "100000"]}]
"#;

/// A quantity of nanocores or KiB.
fn number(usage: &Value, unit: &str) -> u64 {
    let text = usage.as_str().and_then(|text| text.strip_suffix(unit));
    text.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{usage} is not in {unit}"))
}

#[test]
fn nodes_and_pods_tell_what_they_use() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    cluster.apply(PODS);
    cluster.ok(&["wait", "--for=condition=Ready", "pod/p", "pod/host", "--timeout=180s"]);
    let node = cluster.ok(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"]);
    let proxied = |path: &str| cluster.ok(&["get", "--raw", &format!("/api/v1/nodes/{node}{path}")]);
    let json = |text: &str| -> Value { serde_json::from_str(text).expect("JSON") };

    // The node's own API, with its usual port and without one.
    assert_eq!(proxied("/proxy/healthz"), "ok");
    assert_eq!(json(&proxied(":10250/proxy/pods"))["kind"], "PodList");
    let limit = "container_spec_memory_limit_bytes{container=\"busy\"";
    let figures = cluster.until("the Pod is measured", || {
        let text = proxied("/proxy/metrics/cadvisor");
        text.contains(limit).then_some(text)
    });
    let row = figures.lines().find(|l| l.starts_with(limit)).expect("a row");
    assert!(row.contains(" 67108864 ") && row.contains("pod=\"p\""), "{row}");
    assert!(figures.contains("container_network_receive_bytes_total{container=\"\""), "{figures}");
    assert!(
        proxied("/proxy/metrics/resource")
            .contains("pod_memory_working_set_bytes{namespace=\"default\",pod=\"p\"}")
    );
    let summary = json(&proxied("/proxy/stats/summary"));
    let pods = summary["pods"].as_array().expect("Pods");
    let pod = |name: &str| pods.iter().find(|pod| pod["podRef"]["name"] == name).expect("the Pod");
    assert!(pod("p")["network"]["interfaces"].is_array(), "{summary}");
    assert!(pod("host").get("network").is_none(), "{summary}");
    assert!(summary["node"]["fs"]["capacityBytes"].as_u64() > summary["node"]["fs"]["usedBytes"].as_u64());

    // The rate of the busy container comes near its limit of a tenth of a core, and never far beyond it.
    let metrics = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/p";
    let measured = cluster.until("the busy container is measured", || {
        let output = cluster.kubectl(&["get", "--raw", metrics]);
        let measured: Value = serde_json::from_slice(&output.stdout).ok()?;
        let busy = measured["containers"].as_array()?.iter().find(|c| c["name"] == "busy")?;
        (number(&busy["usage"]["cpu"], "n") > 20_000_000).then_some(measured)
    });
    for container in measured["containers"].as_array().expect("containers") {
        let cpu = number(&container["usage"]["cpu"], "n");
        let is_idle = container["name"] == "idle";
        assert!(cpu < if is_idle { 20_000_000 } else { 200_000_000 }, "{measured}");
        assert!(number(&container["usage"]["memory"], "Ki") < 64 << 10, "{measured}");
    }
    for (command, texts) in [
        ("top nodes", &["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", &node][..]),
        ("top pods", &["NAME", "host", "p"]),
        ("top pods --containers -l app=p", &["POD", "NAME", "p", "busy", "p", "idle"]),
        ("top pods -A", &["NAMESPACE", "default"]),
        ("get pods.metrics.k8s.io", &["NAME", "CPU", "MEMORY", "WINDOW", "host", "p", "10s"]),
        ("get nodes.metrics.k8s.io -o name", &["nodemetrics.metrics.k8s.io/"]),
        (
            "api-resources --api-group=metrics.k8s.io",
            &["metrics.k8s.io/v1beta1", "NodeMetrics", "true", "PodMetrics"],
        ),
        ("auth can-i get nodes/proxy --as=bob", &["no"]),
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        let output = cluster.kubectl(&words);
        let printed = String::from_utf8_lossy(&output.stdout);
        let mut rest = &*printed;
        for text in texts {
            let at = rest.find(text).unwrap_or_else(|| panic!("{command}: {text:?} is missing in {printed}"));
            rest = &rest[at + text.len()..];
        }
    }
    for (command, message) in [
        ("top pod nothing", "NotFound"),
        ("get --raw /api/v1/nodes/nothing/proxy/healthz", "nodes \"nothing\" not found"),
        ("get --raw /apis/metrics.k8s.io/v1beta1/pods --as=bob", "Forbidden"),
        ("get --raw /apis/metrics.k8s.io/v1beta1/services", "NotFound"),
        ("delete --raw /apis/metrics.k8s.io/v1beta1/nodes/n", "MethodNotAllowed"),
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        let output = cluster.kubectl(&words);
        let printed = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && printed.contains(message), "{command}: {printed}");
    }
}
