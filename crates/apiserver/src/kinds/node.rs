//! Nodes.

use std::borrow::Cow;
use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use yado_types::names;

use crate::edit::{existing, fill, list, text};
use crate::kinds::strategy::Strategy;
use crate::object::{field_at, meta};
use crate::proxy::ProxyTarget;
use crate::schema::validate::{Errors, Path};
use crate::server::Inner;
use crate::status::{Failure, Result};
use crate::table::Column;
use crate::table::format::{NONE, UNKNOWN, age, joined, text_or};

/// The port that clients name when they mean a node's own API, wherever that listens.
const KUBELET_PORT: u16 = 10250;

#[derive(Debug)]
pub struct Node;

impl Strategy for Node {
    /// Nodes say how they are when they register.
    fn drops_status(&self) -> bool {
        false
    }

    fn default_object(&self, object: &mut Map<String, Value>) {
        if let Some(status) = existing(object, "status")
            && let Some(capacity) = status.get("capacity").cloned()
        {
            fill(status, "allocatable", capacity);
        }
    }

    /// The node's own API, unless another port is named.
    fn proxy_target(&self, _server: &Inner, node: &Value, port: &str) -> Result<ProxyTarget> {
        let own = &node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"];
        let Ok(number) = port.parse::<u16>() else {
            return match port {
                "" => Ok(ProxyTarget::Node(meta(node, "name").to_owned())),
                _ => Err(Failure::bad_request(format!("invalid port {port:?} of a node: it is a number"))),
            };
        };
        if number == KUBELET_PORT || *own == number {
            return Ok(ProxyTarget::Node(meta(node, "name").to_owned()));
        }
        let mut addresses = list(&node["status"]["addresses"]).iter().filter(|a| a["type"] == "InternalIP");
        let address = addresses.find_map(|a| text(&a["address"]).parse::<IpAddr>().ok());
        let why = || format!("node \"{}\" has no address to proxy to", meta(node, "name"));
        let address = address.ok_or_else(|| Failure::new(503, "ServiceUnavailable", why()))?;
        Ok(ProxyTarget::Address((address, number).into()))
    }

    fn validate(&self, object: &Value, _old: Option<&Value>, errors: &mut Errors) {
        let root = Path::root();
        let spec = root.field("spec");
        let at = spec.field("taints");
        for (i, taint) in list(&object["spec"]["taints"]).iter().enumerate() {
            let at = at.index(i);
            let key = text(&taint["key"]);
            errors.check_text(&at.field("key"), key, names::qualified_name(key));
            let value = text(&taint["value"]);
            errors.check_text(&at.field("value"), value, names::label_value(value));
            let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
            if taint["effect"].is_null() {
                errors.required(&at.field("effect"), "");
            }
            errors.one_of(&at.field("effect"), &taint["effect"], &effects);
        }
    }

    fn selectable_fields(&self) -> Vec<&str> {
        vec!["spec.unschedulable"]
    }

    fn field<'a>(&self, object: &'a Value, path: &str) -> Cow<'a, str> {
        match path {
            "spec.unschedulable" => (object["spec"]["unschedulable"] == true).to_string().into(),
            _ => field_at(object, path),
        }
    }

    fn columns(&self) -> &[Column] {
        const {
            &[
                Column::NAME,
                Column::text("Status"),
                Column::text("Roles"),
                Column::AGE,
                Column::text("Version"),
                Column::wide("Internal-IP"),
                Column::wide("External-IP"),
                Column::wide("OS-Image"),
                Column::wide("Kernel-Version"),
                Column::wide("Container-Runtime"),
            ]
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let status = &object["status"];
        let ready = list(&status["conditions"]).iter().find(|c| c["type"] == "Ready");
        let mut state = match ready.map(|c| c["status"] == "True") {
            Some(true) => "Ready".to_owned(),
            Some(false) => "NotReady".to_owned(),
            None => "Unknown".to_owned(),
        };
        if object["spec"]["unschedulable"] == true {
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
            json!(age(object, now)),
            json!(text_or(&status["nodeInfo"]["kubeletVersion"], "")),
            address("InternalIP"),
            address("ExternalIP"),
            info("osImage"),
            info("kernelVersion"),
            info("containerRuntimeVersion"),
        ]
    }
}
