//! Volumes that outlive Pods.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use serde_json::Value;
use yado_types::labels;

/// Requested size of a volume whose description defines none. Local volumes are bounded by the disk alone; the smallest
/// volumes of cloud providers have about this size.
const DEFAULT_SIZE: &str = "1Gi";

/// A PersistentVolumeClaim, for a volume that outlives Pods as Docker's named volumes do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeClaim {
    /// The claim's name, a DNS label.
    pub name: String,
    /// Requested size, a quantity; `None` is 1Gi.
    pub size: Option<String>,
    /// Whether Pods on several nodes use it at the same time (`ReadWriteMany`).
    pub shared: bool,
    /// The StorageClass; `None` is the cluster's default.
    pub class: Option<String>,
    /// Additional annotations.
    pub annotations: BTreeMap<String, String>,
}

impl VolumeClaim {
    /// A claim with the default size and class that one node uses at a time.
    pub fn new(name: &str) -> Self {
        VolumeClaim { name: name.into(), ..VolumeClaim::default() }
    }

    /// Builds the PersistentVolumeClaim with the labels and namespace of `metadata`.
    pub fn object(&self, metadata: &ObjectMeta) -> Value {
        let size = self.size.clone().unwrap_or_else(|| DEFAULT_SIZE.into());
        let mut annotations = BTreeMap::from([(labels::COPY_UP.to_string(), "true".to_string())]);
        annotations.extend(self.annotations.clone());
        let mode = if self.shared { "ReadWriteMany" } else { "ReadWriteOnce" };
        super::value(PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                annotations: Some(annotations),
                ..metadata.clone()
            },
            spec: Some(PersistentVolumeClaimSpec {
                access_modes: Some(vec![mode.into()]),
                resources: Some(VolumeResourceRequirements {
                    requests: Some(BTreeMap::from([("storage".into(), Quantity(size))])),
                    ..VolumeResourceRequirements::default()
                }),
                storage_class_name: self.class.clone(),
                ..PersistentVolumeClaimSpec::default()
            }),
            ..PersistentVolumeClaim::default()
        })
    }
}
