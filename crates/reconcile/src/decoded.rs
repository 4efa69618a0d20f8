//! Tolerant decoding of watched objects, some of which may not decode as their kind.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::{Deserialize, Deserializer, Error};
use serde_json::value::RawValue;

/// An object of the kind `K`, or the metadata of an object that does not decode as `K`, with the error.
///
/// A watch decodes whole lists and events: without this, one object that a newer version, another tool or a defect wrote
/// would break the watch of its kind for all readers.
#[derive(Clone, Debug)]
pub(crate) enum Decoded<K> {
    Object(K),
    Undecodable { metadata: Box<ObjectMeta>, error: String },
}

/// The part of an object that every kind has.
#[derive(serde::Deserialize)]
struct Metadata {
    metadata: ObjectMeta,
}

impl<'de, K: for<'k> Deserialize<'k>> Deserialize<'de> for Decoded<K> {
    /// # Errors
    /// If the object is not JSON or its metadata do not decode: then it is unknown which object to leave out.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        serde_json::from_str(text.get()).map(Self::Object).or_else(|error| {
            let Metadata { metadata } = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
            Ok(Self::Undecodable { metadata: Box::new(metadata), error: error.to_string() })
        })
    }
}

impl<K: Resource<DynamicType = ()>> Resource for Decoded<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Object(object) => object.meta(),
            Self::Undecodable { metadata, .. } => metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Object(object) => object.meta_mut(),
            Self::Undecodable { metadata, .. } => metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use kube::core::{ObjectList, WatchEvent};

    use super::*;

    #[test]
    fn one_undecodable_object_does_not_break_its_list_or_event() {
        let good = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"good","resourceVersion":"3"}}"#;
        let odd = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"odd","resourceVersion":"4"},
            "spec":{"containers":[{"name":"c","ports":[{"containerPort":99999999999}]}]}}"#;
        let list =
            format!(r#"{{"apiVersion":"v1","kind":"PodList","metadata":{{}},"items":[{good},{odd}]}}"#);
        let list: ObjectList<Decoded<Pod>> = serde_json::from_str(&list).expect("a list");
        let shown = |object: &Decoded<Pod>| {
            let name = object.meta().name.clone().unwrap_or_default();
            (name, matches!(object, Decoded::Object(_)))
        };
        assert_eq!(
            list.items.iter().map(shown).collect::<Vec<_>>(),
            [("good".into(), true), ("odd".into(), false)]
        );
        for (object, decodes) in [(good, true), (odd, false)] {
            for event in ["ADDED", "MODIFIED", "DELETED"] {
                let line = format!(r#"{{"type":"{event}","object":{object}}}"#);
                let event: WatchEvent<Decoded<Pod>> = serde_json::from_str(&line).expect("an event");
                let (WatchEvent::Added(found) | WatchEvent::Modified(found) | WatchEvent::Deleted(found)) =
                    event
                else {
                    panic!("{line}")
                };
                assert_eq!(matches!(found, Decoded::Object(_)), decodes, "{line}");
            }
        }
        assert!(serde_json::from_str::<Decoded<Pod>>(r#"{"kind":"Pod","metadata":3}"#).is_err());
    }
}
