//! Kernel settings of a Pod: resource limits, capabilities and sysctls.

use k8s_openapi::api::core::v1::{Capabilities, Sysctl};
use yado_types::sysctls;

use super::{PodFragment, Unsupported};

impl PodFragment {
    /// Sets a resource limit of the processes; -1 is unlimited.
    pub fn ulimit(&mut self, name: &str, soft: i64, hard: i64) {
        self.ulimits.insert(name.into(), (soft, hard));
    }

    /// Adds or drops a capability, with or without the prefix `CAP_`.
    pub fn capability(&mut self, add: bool, capability: &str) {
        let upper = capability.to_ascii_uppercase();
        let capability = upper.strip_prefix("CAP_").unwrap_or(&upper).to_string();
        let capabilities: &mut Capabilities = self.security().capabilities.get_or_insert_default();
        let list = if add { &mut capabilities.add } else { &mut capabilities.drop }.get_or_insert_default();
        if !list.contains(&capability) {
            list.push(capability);
        }
    }

    /// Sets a kernel parameter. Docker lets a container set all parameters of its namespaces; cluster nodes allow the
    /// safe ones only, unless their operator allows more.
    pub fn sysctl(&mut self, key: &str, value: &str) -> Option<Unsupported> {
        let all = self.pod_security().sysctls.get_or_insert_default();
        all.retain(|s| s.name != key);
        all.push(Sysctl { name: key.into(), value: value.into() });
        let name = sysctls::dotted(key);
        if sysctls::is_safe(&name) {
            return None;
        }
        Some(Unsupported::Warning(match sysctls::Namespace::of(&name) {
            Some(_) => format!(
                "{name} is set only by nodes that allow it, as its effects on other Pods are not bounded: start the \
                 engine with --allowed-unsafe-sysctls {name} (yado dev does)"
            ),
            None => format!(
                "{name} is the whole machine's, so that no node sets it for a Pod: set it on the machine"
            ),
        }))
    }
}
