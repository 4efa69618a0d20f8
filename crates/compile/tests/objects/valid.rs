//! What the API server would refuse of compiled objects.

use std::collections::BTreeSet;

use serde_json::Value;
use yado_compile::Compiled;
use yado_types::{names, quantity::Quantity};

/// Everything wrong with the objects; nothing where a cluster would take them all.
pub fn problems(compiled: &Compiled) -> Vec<String> {
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    for object in &compiled.objects {
        let what = format!("{} {}", object.kind(), object.name());
        let mut say = |problem: String| all.push(format!("{what}: {problem}"));
        let rule = match object.kind() {
            "Service" => names::dns_1035_label,
            "Namespace" => names::dns_label,
            _ => names::dns_subdomain,
        };
        if let Err(e) = rule(object.name()) {
            say(e);
        }
        if let Some(Err(e)) = object.namespace().map(names::dns_label) {
            say(format!("namespace {e}"));
        }
        if !seen.insert((
            object.kind().to_string(),
            object.namespace().map(str::to_string),
            object.name().to_string(),
        )) {
            say("is there twice".into());
        }
        metadata(&object.value["metadata"], &mut say);
        let spec = &object.value["spec"];
        match object.kind() {
            "Deployment" | "DaemonSet" | "Job" => workload(object.kind(), spec, &mut say),
            "Service" => service(spec, &mut say),
            "Ingress" => {
                for rule in list(&spec["rules"]) {
                    check(names::dns_subdomain, &rule["host"], "host", &mut say);
                }
            }
            "PersistentVolumeClaim" => quantity(&spec["resources"]["requests"]["storage"], &mut say),
            "ConfigMap" | "Secret" => {
                for key in ["data", "binaryData"]
                    .iter()
                    .flat_map(|f| object.value[*f].as_object())
                    .flat_map(|m| m.keys())
                {
                    if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
                    {
                        say(format!("key {key}"));
                    }
                }
            }
            _ => {}
        }
    }
    references(compiled, &mut all);
    all
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn check(rule: fn(&str) -> Result<(), String>, value: &Value, what: &str, say: &mut impl FnMut(String)) {
    if let Some(Err(e)) = value.as_str().map(rule) {
        say(format!("{what} {value}: {e}"));
    }
}

fn metadata(metadata: &Value, say: &mut impl FnMut(String)) {
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        if let Err(e) = names::qualified_name(key) {
            say(format!("label {key}: {e}"));
        }
        check(names::label_value, value, "label value", say);
    }
    for (key, value) in metadata["annotations"].as_object().into_iter().flatten() {
        // Annotation keys are compared in lower case.
        if let Err(e) = names::qualified_name(&key.to_lowercase()) {
            say(format!("annotation {key}: {e}"));
        }
        if !value.is_string() {
            say(format!("annotation {key} is no text"));
        }
    }
}

fn quantity(value: &Value, say: &mut impl FnMut(String)) {
    if let Some(text) = value.as_str()
        && text.parse::<Quantity>().is_err()
    {
        say(format!("{text} is no quantity"));
    }
}

fn service(spec: &Value, say: &mut impl FnMut(String)) {
    let (mut names_seen, mut ports) = (BTreeSet::new(), BTreeSet::new());
    let count = list(&spec["ports"]).count();
    for port in list(&spec["ports"]) {
        port_name(&port["name"], say);
        if count > 1 && !names_seen.insert(port["name"].to_string()) {
            say(format!("port name {} is there twice", port["name"]));
        }
        if !ports.insert((port["port"].to_string(), port["protocol"].to_string())) {
            say(format!("port {} is there twice", port["port"]));
        }
        if !port["port"].as_u64().is_some_and(|p| (1..=65535).contains(&p)) {
            say(format!("port {}", port["port"]));
        }
    }
    if count == 0 && spec["clusterIP"] != "None" && spec["type"] != "ExternalName" {
        say("no port, and not headless".into());
    }
}

fn port_name(name: &Value, say: &mut impl FnMut(String)) {
    let name = name.as_str().unwrap_or_default();
    let fine = !name.is_empty()
        && name.len() <= 15
        && names::dns_label(name).is_ok()
        && name.contains(|c: char| c.is_ascii_lowercase());
    if !fine {
        say(format!("port name {name}"));
    }
}

fn workload(kind: &str, spec: &Value, say: &mut impl FnMut(String)) {
    let template = &spec["template"];
    metadata(&template["metadata"], say);
    for (key, value) in spec["selector"]["matchLabels"].as_object().into_iter().flatten() {
        if template["metadata"]["labels"][key] != *value {
            say(format!("its selector does not match its template in {key}"));
        }
    }
    let update = &spec["strategy"]["rollingUpdate"];
    if update["maxSurge"] == 0 && update["maxUnavailable"] == 0 {
        say("neither more nor fewer Pods in an update".into());
    }
    let update = &spec["updateStrategy"]["rollingUpdate"];
    if kind == "DaemonSet"
        && !update.is_null()
        && (update["maxSurge"] == 0) == (update["maxUnavailable"] == 0)
    {
        say("a DaemonSet has either surge or unavailable".into());
    }
    let pod = &template["spec"];
    let restart = pod["restartPolicy"].as_str().unwrap_or("Always");
    if (kind == "Job") == (restart == "Always") {
        say(format!("restart policy {restart}"));
    }
    check(names::dns_label, &pod["hostname"], "hostname", say);
    let mut volumes = BTreeSet::new();
    for volume in list(&pod["volumes"]) {
        check(names::dns_label, &volume["name"], "volume", say);
        if !volumes.insert(volume["name"].as_str().unwrap_or_default()) {
            say(format!("volume {} is there twice", volume["name"]));
        }
        if volume.as_object().is_none_or(|v| v.len() != 2) {
            say(format!("volume {volume} is of no one kind"));
        }
        quantity(&volume["emptyDir"]["sizeLimit"], say);
    }
    let mut containers = BTreeSet::new();
    for one in list(&pod["containers"]).chain(list(&pod["initContainers"])) {
        if !containers.insert(one["name"].to_string()) {
            say(format!("container {} is there twice", one["name"]));
        }
        container(one, &volumes, say);
    }
    let signal = list(&pod["containers"]).any(|c| !c["lifecycle"]["stopSignal"].is_null());
    if signal && pod["os"]["name"] != "linux" {
        say("a stop signal, but no system".into());
    }
    for alias in list(&pod["hostAliases"]).flat_map(|a| list(&a["hostnames"])) {
        check(names::dns_subdomain, alias, "host alias", say);
    }
}

fn container(one: &Value, volumes: &BTreeSet<&str>, say: &mut impl FnMut(String)) {
    check(names::dns_label, &one["name"], "container", say);
    let image = one["image"].as_str().unwrap_or_default();
    if image.is_empty() || image != image.trim() {
        say(format!("image \"{image}\""));
    }
    let mut paths = BTreeSet::new();
    for mount in list(&one["volumeMounts"]) {
        if !volumes.contains(mount["name"].as_str().unwrap_or_default()) {
            say(format!("mount of {}, which is not there", mount["name"]));
        }
        let path = mount["mountPath"].as_str().unwrap_or_default();
        if !paths.insert(path) || path.is_empty() || path.contains(':') {
            say(format!("mount at {path}"));
        }
        if mount["subPath"].as_str().is_some_and(|s| s.starts_with('/') || s.split('/').any(|p| p == "..")) {
            say(format!("sub path {}", mount["subPath"]));
        }
        if mount["mountPropagation"] == "Bidirectional" && one["securityContext"]["privileged"] != true {
            say("mounts go out of a container that is not privileged".into());
        }
    }
    let mut names_seen = BTreeSet::new();
    for port in list(&one["ports"]) {
        port_name(&port["name"], say);
        if !names_seen.insert(port["name"].to_string()) {
            say(format!("port name {} is there twice", port["name"]));
        }
    }
    let mut env = BTreeSet::new();
    for variable in list(&one["env"]) {
        let name = variable["name"].as_str().unwrap_or_default();
        if name.is_empty()
            || name.contains('=')
            || !name.chars().all(|c| (' '..='~').contains(&c))
            || !env.insert(name)
        {
            say(format!("variable {name}"));
        }
    }
    let resources = &one["resources"];
    for (key, limit) in resources["limits"].as_object().into_iter().flatten() {
        quantity(limit, say);
        let parsed = |v: &Value| v.as_str().and_then(|t| t.parse::<Quantity>().ok());
        if let (Some(limit), Some(request)) = (parsed(limit), parsed(&resources["requests"][key]))
            && request > limit
        {
            say(format!("more {key} requested than allowed"));
        }
    }
    resources["requests"].as_object().into_iter().flatten().for_each(|(_, q)| quantity(q, say));
    for probe in ["readinessProbe", "startupProbe", "livenessProbe"]
        .map(|p| &one[p])
        .into_iter()
        .filter(|p| !p.is_null())
    {
        for field in ["periodSeconds", "timeoutSeconds", "failureThreshold"] {
            if probe[field].as_i64().is_some_and(|n| n < 1) {
                say(format!("{field} {}", probe[field]));
            }
        }
        if probe["exec"]["command"].as_array().is_some_and(Vec::is_empty) {
            say("a probe without a command".into());
        }
    }
}

/// What objects name of each other is there.
fn references(compiled: &Compiled, all: &mut Vec<String>) {
    let components: BTreeSet<&str> = compiled
        .objects
        .iter()
        .filter_map(|o| {
            o.value["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"].as_str()
        })
        .collect();
    for object in &compiled.objects {
        let needs = &object.value["spec"]["template"]["metadata"]["annotations"]["yado.dev/depends-on"];
        let needs: serde_json::Map<String, Value> =
            needs.as_str().and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default();
        for target in needs.keys().filter(|t| !components.contains(t.as_str())) {
            all.push(format!("{} waits for {target}, which is not there", object.name()));
        }
    }
    for published in &compiled.published {
        let there = compiled.objects.iter().any(|o| o.kind() == "Service" && o.name() == published.service);
        if !there {
            all.push(format!(
                "{} is published by {}, which is not there",
                published.component, published.service
            ));
        }
    }
}
