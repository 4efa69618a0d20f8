//! Kinds in versions before v1, whose fields are those of v1: policies that change objects were tried out as `v1alpha1` and
//! `v1beta1`.

use serde_json::{Map, Value};

use super::removed::kind_in;
use super::{Deprecation, Form, Stored};
use crate::edit::{existing, fill};
use crate::schema::Kind;

/// A version of a kind.
#[derive(Debug)]
struct Preview {
    version: (&'static str, &'static str),
    kind: &'static str,
    lifecycle: Option<Deprecation>,
    /// Fills in the defaults that v1 has not.
    default: fn(&mut Map<String, Value>),
}

const GROUP: &str = "admissionregistration.k8s.io";
const STORED: (&str, &str) = (GROUP, "v1");
const BETA: (&str, &str) = (GROUP, "v1beta1");
const ALPHA: (&str, &str) = (GROUP, "v1alpha1");
/// Kubernetes' own dates of the alpha; those of the beta begin with 1.37.
const ALPHA_LIFE: Option<Deprecation> = Some(Deprecation { deprecated: "1.35", removed: "1.38" });
const POLICY: &str = "MutatingAdmissionPolicy";
const BINDING: &str = "MutatingAdmissionPolicyBinding";

static PREVIEWS: [Preview; 4] = [
    Preview { version: BETA, kind: POLICY, lifecycle: None, default: nothing },
    Preview { version: BETA, kind: BINDING, lifecycle: None, default: nothing },
    Preview { version: ALPHA, kind: POLICY, lifecycle: ALPHA_LIFE, default: nothing },
    Preview { version: ALPHA, kind: BINDING, lifecycle: ALPHA_LIFE, default: missing_parameters },
];

/// These versions of the kinds, in the order in which discovery shows them.
pub(crate) fn preview_kinds(today: &[Kind]) -> Vec<Kind> {
    PREVIEWS.iter().filter_map(|preview| kind_in(today, preview.version, preview.kind, preview)).collect()
}

fn nothing(_object: &mut Map<String, Value>) {}

/// The alpha refuses what lacks its parameters where a binding does not say.
fn missing_parameters(binding: &mut Map<String, Value>) {
    let reference = existing(binding, "spec").and_then(|spec| existing(spec, "paramRef"));
    if let Some(reference) = reference {
        fill(reference, "parameterNotFoundAction", "Deny");
    }
}

impl Form for Preview {
    fn stored_as(&self) -> (&'static str, &'static str) {
        STORED
    }

    fn to_stored(&self, object: Value) -> Stored {
        Stored { object, ..Stored::default() }
    }

    fn show(&self, object: Value) -> Value {
        object
    }

    fn default_stored(&self, object: &mut Value) {
        if let Some(object) = object.as_object_mut() {
            (self.default)(object);
        }
    }

    fn deprecation(&self) -> Option<Deprecation> {
        self.lifecycle
    }

    fn is_other_version(&self) -> bool {
        true
    }
}
