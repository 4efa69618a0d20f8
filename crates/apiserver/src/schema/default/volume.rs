//! Defaults of volumes and claims.

use serde_json::{Map, Value};

use super::{existing, fill, within};

pub fn persistent_volume(object: &mut Map<String, Value>) {
    if let Some(spec) = within(object, "spec") {
        fill(spec, "persistentVolumeReclaimPolicy", "Retain");
        fill(spec, "volumeMode", "Filesystem");
        if let Some(host_path) = existing(spec, "hostPath") {
            fill(host_path, "type", "");
        }
    }
    is_pending(object);
}

pub fn claim(object: &mut Map<String, Value>) {
    if let Some(spec) = within(object, "spec") {
        fill(spec, "volumeMode", "Filesystem");
    }
    is_pending(object);
}

fn is_pending(object: &mut Map<String, Value>) {
    if let Some(status) = within(object, "status") {
        fill(status, "phase", "Pending");
    }
}
