//! The configuration of a node.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use yado_oci::spec::HostRoot;
use yado_types::sysctls::AllowedSysctls;

/// Configuration of a node.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the Node object.
    pub name: String,
    /// Directory of the Pods' volumes and logs, which must be kept across restarts.
    pub data_dir: PathBuf,
    /// Address of the cluster's DNS server as Pods reach it.
    pub cluster_dns: IpAddr,
    /// The cluster's DNS domain; `cluster.local` by default.
    pub cluster_domain: String,
    /// Additional labels of the Node object.
    pub labels: BTreeMap<String, String>,
    /// The machine's address as others reach it; detected if `None`.
    pub address: Option<IpAddr>,
    /// Amounts that replace what the machine has, by resource name (`cpu`, `memory`, `pods`).
    pub capacity: BTreeMap<String, String>,
    /// Pods may run on this machine's own root, with this hidden of it; `None` refuses them.
    pub host_image: Option<HostRoot>,
    /// Kernel parameters that Pods may set beyond the safe ones.
    pub allowed_sysctls: AllowedSysctls,
    /// Maximum number of Pods on the node; by default 110, as in Kubernetes.
    pub most_pods: u32,
}

impl Config {
    /// The default configuration with these values.
    pub fn new(name: impl Into<String>, data_dir: impl Into<PathBuf>, cluster_dns: IpAddr) -> Self {
        Self {
            name: name.into(),
            data_dir: data_dir.into(),
            cluster_dns,
            cluster_domain: "cluster.local".into(),
            labels: BTreeMap::new(),
            address: None,
            capacity: BTreeMap::new(),
            host_image: None,
            allowed_sysctls: AllowedSysctls::default(),
            most_pods: 110,
        }
    }
}
