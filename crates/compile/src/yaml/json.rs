//! Conversion of nodes to JSON by the rules of `kubectl` and `helm` (`sigs.k8s.io/yaml`, YAML 1.1): `yes`, `no`, `on`
//! and `off` are booleans, `0644` is a number with base 8, keys that are numbers or booleans become text.

use base64::Engine;
use serde_json::{Map, Number, Value as Json};

use super::{
    Node, Tag, Value,
    scalar::{ScalarMeaning, plain},
};
use crate::diagnostic::Diagnostic;

impl Node {
    /// Converts this node to JSON as Kubernetes' own parsers do.
    ///
    /// # Errors
    ///
    /// A number without a JSON form (`.inf`, `.nan`), or a `!!binary` scalar that is not base64.
    pub fn to_kubernetes_json(&self) -> Result<Json, Diagnostic> {
        match &self.value {
            Value::Sequence(items) => items.iter().map(Node::to_kubernetes_json).collect(),
            Value::Mapping(mapping) => {
                let mut object = Map::with_capacity(mapping.len());
                for (key, entry) in mapping {
                    let key = if entry.plain { key_text(key) } else { key.clone() };
                    object.insert(key, entry.value.to_kubernetes_json()?);
                }
                Ok(Json::Object(object))
            }
            Value::Scalar(scalar) => match &self.tag {
                Some(Tag::Text) => Ok(Json::String(scalar.text.clone())),
                Some(Tag::Binary) => self.binary(&scalar.text),
                Some(Tag::Core) => self.number_or_word(&scalar.text),
                _ if !scalar.plain => Ok(Json::String(scalar.text.clone())),
                _ => self.number_or_word(&scalar.text),
            },
        }
    }

    fn number_or_word(&self, text: &str) -> Result<Json, Diagnostic> {
        Ok(match meaning(text) {
            ScalarMeaning::Null => Json::Null,
            ScalarMeaning::Bool(b) => Json::Bool(b),
            ScalarMeaning::Int(i) => {
                let number =
                    i64::try_from(i).map(Number::from).or_else(|_| u64::try_from(i).map(Number::from));
                number.map_or_else(|_| Json::String(text.into()), Json::Number)
            }
            // Go prints a whole float without a point.
            ScalarMeaning::Float(f) if f.fract() == 0.0 && f.abs() < 9e15 => Json::from(f as i64),
            ScalarMeaning::Float(f) => match Number::from_f64(f) {
                Some(number) => Json::Number(number),
                None => {
                    return Err(Diagnostic::new(
                        &self.at,
                        "is a number that JSON does not have: quote it if it is text",
                    ));
                }
            },
            ScalarMeaning::Text => Json::String(text.into()),
        })
    }

    fn binary(&self, text: &str) -> Result<Json, Diagnostic> {
        let packed: String = text.split_whitespace().collect();
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(packed)
            .map_err(|_| Diagnostic::new(&self.at, "has the tag !!binary but is not base64"))?;
        Ok(Json::String(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// Resolves a plain scalar by the rules of YAML 1.1.
fn meaning(text: &str) -> ScalarMeaning {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => ScalarMeaning::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => ScalarMeaning::Bool(false),
        _ => plain(text),
    }
}

fn key_text(key: &str) -> String {
    match meaning(key) {
        ScalarMeaning::Bool(b) => b.to_string(),
        ScalarMeaning::Int(i) => i.to_string(),
        ScalarMeaning::Null if !key.is_empty() => "null".into(),
        _ => key.into(),
    }
}
