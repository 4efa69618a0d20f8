//! `/stats/summary`, as the kubelet's Summary API has it.

use serde_json::{Map, Value, json};

use super::{Interface, Measured, Sample};

/// The document; with `only_cpu_and_memory`, nothing else.
pub(crate) fn document(sample: &Sample, only_cpu_and_memory: bool) -> Value {
    let time = time(sample.at);
    let node = &sample.node;
    let mut shown = Map::new();
    shown.insert("nodeName".into(), node.name.clone().into());
    shown.insert("startTime".into(), self::time(node.measured.started));
    cpu_and_memory(&mut shown, &node.measured, &time);
    shown["memory"]["availableBytes"] = node.memory_available.into();
    if !only_cpu_and_memory {
        let files = &node.files;
        let file_system = json!({
            "time": time, "availableBytes": files.available, "capacityBytes": files.capacity,
            "usedBytes": files.capacity.saturating_sub(files.available), "inodes": files.inodes,
            "inodesFree": files.inodes_free, "inodesUsed": files.inodes.saturating_sub(files.inodes_free),
        });
        network(&mut shown, &node.interfaces, &time);
        shown.insert("fs".into(), file_system.clone());
        shown.insert("runtime".into(), json!({"imageFs": file_system}));
        let (most, now) = node.processes;
        shown.insert("rlimit".into(), json!({"time": time, "maxpid": most, "curproc": now}));
    }
    let pods = sample.pods.iter().map(|pod| {
        let containers = pod.containers.iter().map(|container| {
            let mut shown = Map::new();
            shown.insert("name".into(), container.name.clone().into());
            shown.insert("startTime".into(), self::time(container.measured.started));
            cpu_and_memory(&mut shown, &container.measured, &time);
            Value::Object(shown)
        });
        let mut shown = Map::new();
        let reference = json!({"name": pod.name, "namespace": pod.namespace, "uid": pod.uid});
        shown.insert("podRef".into(), reference);
        shown.insert("startTime".into(), self::time(pod.measured.started));
        shown.insert("containers".into(), containers.collect());
        cpu_and_memory(&mut shown, &pod.measured, &time);
        if !only_cpu_and_memory {
            network(&mut shown, &pod.interfaces, &time);
        }
        Value::Object(shown)
    });
    json!({"node": shown, "pods": pods.collect::<Vec<_>>()})
}

fn time(at: jiff::Timestamp) -> Value {
    format!("{at:.0}").into()
}

fn cpu_and_memory(shown: &mut Map<String, Value>, measured: &Measured, time: &Value) {
    let usage = &measured.usage;
    let cpu = json!({
        "time": time, "usageNanoCores": measured.cpu_rate, "usageCoreNanoSeconds": usage.cpu_ns,
    });
    let mut memory = json!({
        "time": time, "usageBytes": usage.memory, "workingSetBytes": usage.working_set,
        "rssBytes": usage.anonymous, "pageFaults": usage.page_faults, "majorPageFaults": usage.major_page_faults,
    });
    if let Some(limit) = measured.memory_limit {
        memory["availableBytes"] = limit.saturating_sub(usage.working_set).into();
    }
    shown.insert("cpu".into(), cpu);
    shown.insert("memory".into(), memory);
}

fn network(shown: &mut Map<String, Value>, interfaces: &[Interface], time: &Value) {
    let device = |device: &Interface| {
        json!({
            "name": device.name, "rxBytes": device.received.bytes, "rxErrors": device.received.errors,
            "txBytes": device.sent.bytes, "txErrors": device.sent.errors,
        })
    };
    // The first is the one that the fields of the whole stand for.
    let Some(first) = interfaces.first() else { return };
    let mut whole = device(first);
    whole["time"] = time.clone();
    whole["interfaces"] = interfaces.iter().map(device).collect();
    shown.insert("network".into(), whole);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::tests::sample;

    #[test]
    fn the_summary_is_the_kubelets() {
        let all = document(&sample(), false);
        let (node, pod) = (&all["node"], &all["pods"][0]);
        assert_eq!(node["nodeName"], "n");
        assert_eq!(node["startTime"], "2023-11-14T22:13:20Z");
        let cpu = json!({"time": "2023-11-14T22:15:00Z", "usageNanoCores": 250_000_000, "usageCoreNanoSeconds": 2_500_000_000u64});
        assert_eq!(node["cpu"], cpu);
        assert_eq!(
            (&node["memory"]["availableBytes"], &node["memory"]["workingSetBytes"]),
            (&json!(5000), &json!(3000))
        );
        assert_eq!((&node["fs"]["usedBytes"], &node["fs"]["inodesUsed"]), (&json!(600), &json!(30)));
        assert_eq!(node["rlimit"]["maxpid"], 32768);
        assert_eq!(pod["podRef"], json!({"name": "p", "namespace": "d", "uid": "u"}));
        assert_eq!(pod["memory"]["availableBytes"], 5000);
        assert_eq!(
            (&pod["network"]["rxBytes"], &pod["network"]["interfaces"][0]["txBytes"]),
            (&json!(100), &json!(200))
        );
        assert_eq!((&pod["containers"][0]["name"], &pod["containers"][0]["cpu"]), (&json!("c"), &cpu));
        let few = document(&sample(), true);
        assert!(few["node"].get("fs").is_none() && few["pods"][0].get("network").is_none());
        assert_eq!(few["pods"][0]["cpu"], cpu);
    }
}
