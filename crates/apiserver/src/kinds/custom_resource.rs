//! Objects of the kinds that CustomResourceDefinitions describe.

use serde_json::Value;

use crate::edit::map_at;
use crate::kinds::strategy::{Strategy, reset_all_but};
use crate::resource::Subresource;
use crate::schema::Custom;

impl Strategy for Custom {
    fn counts_generations(&self) -> bool {
        true
    }

    /// Of the metadata, a write of the status changes nothing but who manages which fields, as in Kubernetes.
    fn prepare_for_subresource(&self, subresource: Subresource, new: &mut Value, old: &Value) {
        if subresource == Subresource::Status {
            let managed = new["metadata"].get("managedFields").cloned();
            reset_all_but(&["status"], new, old);
            if let (Some(managed), Some(metadata)) = (managed, map_at(new, &["metadata"])) {
                metadata.insert("managedFields".into(), managed);
            }
        }
    }
}
