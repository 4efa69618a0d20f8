//! Provisioned volumes: directories on a node.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, ObjectReference,
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use yado_types::labels::{HOSTNAME, LOCAL_PROVISIONER, PROVISIONED_BY};

/// Whether the volume was created by this provisioner.
pub fn is_ours(volume: &PersistentVolume) -> bool {
    let by = volume.metadata.annotations.as_ref().and_then(|a| a.get(PROVISIONED_BY));
    by.is_some_and(|by| by == LOCAL_PROVISIONER)
}

/// The path of the volume's directory.
pub fn directory(volume: &PersistentVolume) -> Option<&str> {
    Some(&volume.spec.as_ref()?.host_path.as_ref()?.path)
}

/// Name of a claim's directory: `NAMESPACE_NAME_UID`, readable and unique. Each part is cut to 100 characters; uids have
/// 36, so that the name stays within the 255 bytes of file systems.
pub fn directory_name(claim: &PersistentVolumeClaim) -> String {
    let part =
        |text: &Option<String>| text.as_deref().unwrap_or_default().chars().take(100).collect::<String>();
    let meta = &claim.metadata;
    format!("{}_{}_{}", part(&meta.namespace), part(&meta.name), part(&meta.uid))
}

/// The `claimRef` for a claim.
pub fn reference(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("PersistentVolumeClaim".into()),
        namespace: claim.metadata.namespace.clone(),
        name: claim.metadata.name.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        ..Default::default()
    }
}

/// The volume to create for a claim: a directory on a node, with the claim in its `claimRef`.
pub fn volume(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    node: &str,
    path: String,
) -> PersistentVolume {
    let spec = claim.spec.clone().unwrap_or_default();
    let requests = spec.resources.and_then(|r| r.requests).unwrap_or_default();
    let capacity: BTreeMap<_, _> = requests.into_iter().filter(|(name, _)| name == "storage").collect();
    let here = NodeSelectorRequirement {
        key: HOSTNAME.to_owned(),
        operator: "In".into(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_expressions: Some(vec![here]), ..Default::default() };
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or_default())),
            annotations: Some([(PROVISIONED_BY.to_owned(), LOCAL_PROVISIONER.to_owned())].into()),
            ..Default::default()
        },
        spec: Some(PersistentVolumeSpec {
            capacity: Some(capacity),
            access_modes: spec.access_modes,
            volume_mode: spec.volume_mode,
            storage_class_name: class.metadata.name.clone(),
            persistent_volume_reclaim_policy: class.reclaim_policy.clone(),
            mount_options: class.mount_options.clone(),
            host_path: Some(HostPathVolumeSource { path, type_: Some("DirectoryOrCreate".into()) }),
            claim_ref: Some(reference(claim)),
            node_affinity: Some(VolumeNodeAffinity {
                required: Some(NodeSelector { node_selector_terms: vec![term] }),
            }),
            ..Default::default()
        }),
        status: None,
    }
}
