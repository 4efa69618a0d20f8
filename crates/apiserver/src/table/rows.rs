//! The cells of each kind but Pods.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::format::{
    NONE, UNKNOWN, age, at_most_three, count, joined, labels, list, number, selector, since, text_or,
};
use super::{pod, rbac, volume, workload};
use crate::schema::Kind;

pub fn cells(kind: &Kind, object: &Value, now: Timestamp) -> Vec<Value> {
    let name = object["metadata"]["name"].clone();
    let age = || json!(age(object, now));
    let (spec, status) = (&object["spec"], &object["status"]);
    match kind.message {
        "core.v1.Pod" => pod::cells(object, now),
        "apps.v1.Deployment"
        | "apps.v1.ReplicaSet"
        | "core.v1.ReplicationController"
        | "apps.v1.DaemonSet"
        | "apps.v1.ControllerRevision"
        | "batch.v1.Job"
        | "core.v1.PodTemplate" => workload::cells(kind, object, now),
        "core.v1.PersistentVolume" => volume::persistent_volume(object, now),
        "core.v1.PersistentVolumeClaim" => volume::claim(object, now),
        "storage.v1.StorageClass" => volume::storage_class(object, now),
        "networking.v1.NetworkPolicy" => vec![name, json!(selector(&spec["podSelector"])), age()],
        "core.v1.Service" => {
            let address = text_or(&spec["clusterIPs"][0], text_or(&spec["clusterIP"], NONE));
            let kind = text_or(&spec["type"], "");
            let (external, ports) = (json!(external_address(spec, status)), json!(service_ports(spec)));
            vec![name, json!(kind), json!(address), external, ports, age(), json!(labels(&spec["selector"]))]
        }
        "core.v1.Node" => node(object, age()),
        "core.v1.Namespace" => vec![name, status["phase"].clone(), age()],
        "core.v1.ConfigMap" => {
            vec![name, json!(count(&object["data"]) + count(&object["binaryData"])), age()]
        }
        "core.v1.Secret" => vec![name, object["type"].clone(), json!(count(&object["data"])), age()],
        "core.v1.ServiceAccount" => vec![name, json!(count(&object["secrets"])), age()],
        "core.v1.Endpoints" => vec![name, json!(endpoints(object)), age()],
        "discovery.v1.EndpointSlice" => {
            let (ports, addresses) = endpoint_slice(object);
            vec![name, object["addressType"].clone(), json!(ports), json!(addresses), age()]
        }
        "core.v1.Event" | "events.v1.Event" => event(object, now),
        "networking.v1.Ingress" => {
            let ports = if count(&spec["tls"]) > 0 { "80, 443" } else { "80" };
            let class = text_or(&spec["ingressClassName"], NONE);
            let (hosts, address) = (json!(ingress_hosts(spec)), json!(balancer_addresses(status)));
            vec![name, json!(class), hosts, address, json!(ports), age()]
        }
        "networking.v1.IngressClass" => {
            let parameters = &spec["parameters"];
            let group = parameters["apiGroup"].as_str().map(|group| format!(".{group}")).unwrap_or_default();
            let text = match parameters["kind"].as_str() {
                Some(kind) => format!("{kind}{group}/{}", text_or(&parameters["name"], "")),
                None => NONE.into(),
            };
            vec![name, json!(text_or(&spec["controller"], "")), json!(text), age()]
        }
        "rbac.v1.RoleBinding" | "rbac.v1.ClusterRoleBinding" => rbac::binding(object, now),
        "coordination.v1.Lease" => vec![name, json!(text_or(&spec["holderIdentity"], "")), age()],
        _ => vec![name, object["metadata"]["creationTimestamp"].clone()],
    }
}

fn balancer_addresses(status: &Value) -> String {
    let ingress = list(&status["loadBalancer"]["ingress"]).iter();
    joined(ingress.map(|i| text_or(&i["ip"], text_or(&i["hostname"], "")).to_owned()), "")
}

fn external_address(spec: &Value, status: &Value) -> String {
    let given = joined(list(&spec["externalIPs"]).iter().map(|ip| text_or(ip, "").to_owned()), "");
    match text_or(&spec["type"], "") {
        "ExternalName" => text_or(&spec["externalName"], NONE).to_owned(),
        "LoadBalancer" => {
            let parts = [balancer_addresses(status), given];
            joined(parts.into_iter().filter(|part| !part.is_empty()), "<pending>")
        }
        _ if given.is_empty() => NONE.into(),
        _ => given,
    }
}

fn service_ports(spec: &Value) -> String {
    let port = |p: &Value| {
        let protocol = text_or(&p["protocol"], "TCP");
        match number(&p["nodePort"]) {
            0 => format!("{}/{protocol}", number(&p["port"])),
            node => format!("{}:{node}/{protocol}", number(&p["port"])),
        }
    };
    joined(list(&spec["ports"]).iter().map(port), NONE)
}

fn node(object: &Value, age: Value) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let ready = list(&status["conditions"]).iter().find(|c| c["type"] == "Ready");
    let mut state = match ready.map(|c| c["status"] == "True") {
        Some(true) => "Ready".to_owned(),
        Some(false) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if spec["unschedulable"] == true {
        state.push_str(",SchedulingDisabled");
    }
    let mut roles: Vec<String> = Vec::new();
    for (key, value) in object["metadata"]["labels"].as_object().into_iter().flatten() {
        match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => roles.push(role.to_owned()),
            _ if key == "kubernetes.io/role" => roles.push(text_or(value, "").to_owned()),
            _ => {}
        }
    }
    roles.sort();
    let address = |kind: &str| {
        let found = list(&status["addresses"]).iter().find(|a| a["type"] == kind);
        json!(found.map_or(NONE, |a| text_or(&a["address"], NONE)))
    };
    let info = |key: &str| json!(text_or(&status["nodeInfo"][key], UNKNOWN));
    vec![
        object["metadata"]["name"].clone(),
        json!(state),
        json!(joined(roles, NONE)),
        age,
        json!(text_or(&status["nodeInfo"]["kubeletVersion"], "")),
        address("InternalIP"),
        address("ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn endpoints(object: &Value) -> String {
    let mut all = Vec::new();
    for subset in list(&object["subsets"]) {
        let addresses = || list(&subset["addresses"]).iter().map(|a| text_or(&a["ip"], ""));
        let ports = list(&subset["ports"]);
        if ports.is_empty() {
            all.extend(addresses().map(str::to_owned));
        }
        for port in ports {
            all.extend(addresses().map(|ip| host_and_port(ip, number(&port["port"]))));
        }
    }
    at_most_three(&all, NONE)
}

fn host_and_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

fn endpoint_slice(object: &Value) -> (String, String) {
    let port = |p: &Value| p["port"].as_i64().map_or_else(|| "*".into(), |port| port.to_string());
    let ports: Vec<String> = list(&object["ports"]).iter().map(port).collect();
    let addresses = list(&object["endpoints"]).iter().flat_map(|e| list(&e["addresses"]));
    let addresses: Vec<String> = addresses.map(|a| text_or(a, "").to_owned()).collect();
    (at_most_three(&ports, "<unset>"), at_most_three(&addresses, "<unset>"))
}

fn ingress_hosts(spec: &Value) -> String {
    let hosts = list(&spec["rules"]).iter().filter_map(|rule| rule["host"].as_str());
    at_most_three(&hosts.filter(|host| !host.is_empty()).map(str::to_owned).collect::<Vec<_>>(), "*")
}

/// Events of both groups: `events.k8s.io` calls the core group's fields by other names.
fn event(object: &Value, now: Timestamp) -> Vec<Value> {
    let either = |a: &str, b: &str| if object[a].is_null() { &object[b] } else { &object[a] };
    let of_first = either("firstTimestamp", "deprecatedFirstTimestamp");
    let of_last = either("lastTimestamp", "deprecatedLastTimestamp");
    let first = since(if of_first.is_null() { &object["eventTime"] } else { of_first }, now);
    let series = &object["series"];
    let (last, times) = if !series.is_null() {
        (since(&series["lastObservedTime"], now), number(&series["count"]))
    } else {
        let last = if of_last.is_null() { first.clone() } else { since(of_last, now) };
        (last, number(either("count", "deprecatedCount")).max(1))
    };
    let target = either("involvedObject", "regarding");
    let kind = text_or(&target["kind"], "").to_lowercase();
    let about = match text_or(&target["name"], "") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let source = either("source", "deprecatedSource");
    let component =
        text_or(&source["component"], text_or(either("reportingComponent", "reportingController"), ""));
    let component = match text_or(&source["host"], "") {
        "" => component.to_owned(),
        host => format!("{component}, {host}"),
    };
    vec![
        json!(last),
        json!(text_or(&object["type"], "")),
        json!(text_or(&object["reason"], "")),
        json!(about),
        json!(text_or(&target["fieldPath"], "")),
        json!(component),
        json!(text_or(either("message", "note"), "").trim()),
        json!(first),
        json!(times),
        object["metadata"]["name"].clone(),
    ]
}
