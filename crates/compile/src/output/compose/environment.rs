//! Writes the environment and command of a container, with Kubernetes' variable references expanded.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource};
use serde_json::{Map, Value};

use super::{Writer, controller::PodController, escaped};

impl Writer<'_> {
    /// The variables, in their order.
    pub(super) fn environment(
        &mut self,
        controller: &PodController,
        container: &Container,
    ) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = Vec::new();
        for from in container.env_from.iter().flatten() {
            let prefix = from.prefix.as_deref().unwrap_or_default();
            if let Some(map) = from.config_map_ref.as_ref().and_then(|r| self.maps.get(&r.name)) {
                self.in_use.insert(("ConfigMap", map.metadata.name.clone().unwrap_or_default()));
                all.extend(map.data.iter().flatten().map(|(k, v)| (format!("{prefix}{k}"), v.clone())));
            } else if let Some(secret) = from.secret_ref.as_ref().and_then(|r| self.keys.get(&r.name)) {
                let data = secret.data.iter().flatten();
                self.has_secret_variables = true;
                self.in_use.insert(("Secret", secret.metadata.name.clone().unwrap_or_default()));
                all.extend(
                    data.map(|(k, v)| (format!("{prefix}{k}"), String::from_utf8_lossy(&v.0).into_owned())),
                );
            } else {
                self.warn(controller, "an envFrom is left out, as what it names is not here");
            }
        }
        for EnvVar { name, value, value_from } in container.env.iter().flatten() {
            let value = match value_from {
                None => expanded(value.as_deref().unwrap_or_default(), &all),
                Some(source) => match self.referred(source) {
                    Some(value) => {
                        self.has_secret_variables |= source.secret_key_ref.is_some();
                        value
                    }
                    None => {
                        self.warn(
                            controller,
                            format!("variable {name} is left out, as its value is known only to Kubernetes"),
                        );
                        continue;
                    }
                },
            };
            all.retain(|(known, _)| known != name);
            all.push((name.clone(), value));
        }
        all
    }

    fn referred(&mut self, source: &EnvVarSource) -> Option<String> {
        if let Some(reference) = &source.config_map_key_ref {
            self.in_use.insert(("ConfigMap", reference.name.clone()));
            return self.maps.get(&reference.name)?.data.as_ref()?.get(&reference.key).cloned();
        }
        let reference = source.secret_key_ref.as_ref()?;
        self.in_use.insert(("Secret", reference.name.clone()));
        let secret = self.keys.get(&reference.name)?;
        let data = secret
            .data
            .as_ref()
            .and_then(|d| d.get(&reference.key))
            .map(|b| String::from_utf8_lossy(&b.0).into_owned());
        data.or_else(|| secret.string_data.as_ref()?.get(&reference.key).cloned())
    }
}

/// A command as a compose value.
pub(super) fn words(words: &[String], env: &[(String, String)]) -> Value {
    words.iter().map(|w| Value::from(escaped(&expanded(w, env)))).collect()
}

/// Variables as a compose value.
pub(super) fn variables(env: &[(String, String)]) -> Value {
    env.iter().map(|(k, v)| (k.clone(), Value::from(escaped(v)))).collect::<Map<String, Value>>().into()
}

/// Expands `$(NAME)` and `$$` as Kubernetes does.
fn expanded(text: &str, env: &[(String, String)]) -> String {
    let known: BTreeMap<&str, &str> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let mut all = String::new();
    let mut rest = text;
    while let Some(place) = rest.find('$') {
        all.push_str(&rest[..place]);
        rest = &rest[place + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            all.push('$');
            rest = after;
            continue;
        }
        let reference = rest.strip_prefix('(').and_then(|r| r.split_once(')'));
        match reference.and_then(|(name, after)| Some((known.get(name)?, after))) {
            Some((value, after)) => {
                all.push_str(value);
                rest = after;
            }
            None => all.push('$'),
        }
    }
    all.push_str(rest);
    all
}
