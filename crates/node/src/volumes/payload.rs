//! The files of secret, configMap, downwardAPI and projected volumes; pure.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, PodSpec, Secret, Volume, VolumeProjection,
};

use yado_types::labels;

use crate::annotations;
use crate::environment::{ConfigError, Scope, fields};
use crate::tokens::Tokens;

/// Kubernetes' default mode of projected files.
const DEFAULT_MODE: u32 = 0o644;

/// Files by their path in the volume.
pub(crate) type Payload = BTreeMap<String, File>;

/// A file of a volume.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct File {
    pub mode: u32,
    /// `None` is root, with the volume's own group.
    pub owner: Option<Owner>,
    pub content: Vec<u8>,
}

/// The owner of a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Owner {
    pub user: u32,
    /// `None` is the volume's own group.
    pub group: Option<u32>,
}

/// The files of a volume; `None` for a kind that is not made of files.
pub(super) fn of(volume: &Volume, scope: &Scope, tokens: &Tokens) -> Result<Option<Payload>, ConfigError> {
    let mut payload = Payload::new();
    if let Some(v) = &volume.secret {
        let name = v.secret_name.as_deref().unwrap_or_default();
        let files = secret(scope, name, v.items.as_deref(), v.optional == Some(true))?;
        add(&mut payload, files, mode(v.default_mode))?;
    } else if let Some(v) = &volume.config_map {
        let files = config_map(scope, &v.name, v.items.as_deref(), v.optional == Some(true))?;
        add(&mut payload, files, mode(v.default_mode))?;
    } else if let Some(v) = &volume.downward_api {
        add(&mut payload, downward(scope, v.items.as_deref())?, mode(v.default_mode))?;
    } else if let Some(v) = &volume.projected {
        for source in v.sources.iter().flatten() {
            match &source.service_account_token {
                Some(wanted) => {
                    let token = tokens.get(&(volume.name.clone(), wanted.path.clone()));
                    let token = token.ok_or_else(|| ConfigError("its token was not requested".into()))?;
                    add_token(&mut payload, scope.pod, wanted.path.clone(), token, mode(v.default_mode))?;
                }
                None => add(&mut payload, projection(scope, source)?, mode(v.default_mode))?,
            }
        }
    } else {
        return Ok(None);
    }
    for (path, owner) in annotations::file_owners(scope.pod, &volume.name)? {
        match payload.get_mut(&path) {
            Some(file) => file.owner = Some(Owner { user: owner.0, group: Some(owner.1) }),
            None => {
                let name = labels::FILE_OWNERS;
                return Err(ConfigError(format!("annotation {name}: there is no file \"{path}\" in it")));
            }
        }
    }
    Ok(Some(payload))
}

/// Path, mode of its own, content.
type Files = Vec<(String, Option<u32>, Vec<u8>)>;

fn mode(mode: Option<i32>) -> u32 {
    mode.and_then(|m| u32::try_from(m).ok()).unwrap_or(DEFAULT_MODE) & 0o777
}

fn add(payload: &mut Payload, files: Files, default: u32) -> Result<(), ConfigError> {
    for (path, own, content) in files {
        let inside = Path::new(&path).components().all(|c| matches!(c, Component::Normal(_)));
        if path.is_empty() || path.starts_with("..") || !inside {
            return Err(ConfigError(format!(
                "\"{path}\" cannot be a path in a volume: it must be relative, without \"..\""
            )));
        }
        payload.insert(path, File { mode: own.unwrap_or(default), owner: None, content });
    }
    Ok(())
}

/// A token is readable by the user of all containers alone, and by the volume's group; where the Pod names neither, by
/// whom the volume's mode says. As in Kubernetes.
fn add_token(
    payload: &mut Payload,
    pod: &Pod,
    path: String,
    token: &str,
    default: u32,
) -> Result<(), ConfigError> {
    let user = pod.spec.as_ref().and_then(user_of_all);
    let group = pod.spec.as_ref().and_then(|s| s.security_context.as_ref()?.fs_group);
    let own = (user.is_some() || group.is_some()).then_some(0o600);
    add(payload, vec![(path.clone(), own, token.as_bytes().to_vec())], default)?;
    if let Some(file) = payload.get_mut(&path) {
        file.owner = user.map(|user| Owner { user, group: None });
    }
    Ok(())
}

/// The user that every container of the Pod runs as by its specification, if it is one.
fn user_of_all(spec: &PodSpec) -> Option<u32> {
    let of_pod = spec.security_context.as_ref().and_then(|s| s.run_as_user);
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let mut users = containers.map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user).or(of_pod));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok())?
}

fn projection(scope: &Scope, source: &VolumeProjection) -> Result<Files, ConfigError> {
    if let Some(s) = &source.secret {
        return secret(scope, &s.name, s.items.as_deref(), s.optional == Some(true));
    }
    if let Some(c) = &source.config_map {
        return config_map(scope, &c.name, c.items.as_deref(), c.optional == Some(true));
    }
    if let Some(d) = &source.downward_api {
        return downward(scope, d.items.as_deref());
    }
    Err(ConfigError(
        "a projected source must be a secret, configMap, downwardAPI or serviceAccountToken".into(),
    ))
}

fn secret(
    scope: &Scope,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: bool,
) -> Result<Files, ConfigError> {
    match scope.sources.secret(name) {
        Some(found) => choose(secret_data(&found), items, optional),
        None if optional => Ok(Vec::new()),
        None => Err(ConfigError(format!("secret \"{name}\" not found"))),
    }
}

fn config_map(
    scope: &Scope,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: bool,
) -> Result<Files, ConfigError> {
    match scope.sources.config_map(name) {
        Some(found) => choose(config_map_data(&found), items, optional),
        None if optional => Ok(Vec::new()),
        None => Err(ConfigError(format!("configmap \"{name}\" not found"))),
    }
}

fn secret_data(secret: &Secret) -> BTreeMap<String, Vec<u8>> {
    secret.data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())).collect()
}

fn config_map_data(map: &ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = map.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone().into_bytes()));
    text.chain(map.binary_data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone()))).collect()
}

fn choose(
    mut data: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    optional: bool,
) -> Result<Files, ConfigError> {
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        return Ok(data.into_iter().map(|(key, content)| (key, None, content)).collect());
    };
    let mut files = Vec::new();
    for item in items {
        match data.remove(&item.key) {
            Some(content) => files.push((item.path.clone(), item.mode.map(|m| mode(Some(m))), content)),
            None if optional => {}
            None => return Err(ConfigError(format!("references non-existent config key: {}", item.key))),
        }
    }
    Ok(files)
}

fn downward(scope: &Scope, items: Option<&[DownwardAPIVolumeFile]>) -> Result<Files, ConfigError> {
    let file = |item: &DownwardAPIVolumeFile| {
        let text = if let Some(r) = &item.field_ref {
            fields::pod_field(scope.pod, &r.field_path, scope.facts)?
        } else if let Some(r) = &item.resource_field_ref {
            let name = r.container_name.as_deref().unwrap_or_default();
            let container = scope.pod.spec.as_ref().and_then(|s| crate::spec::find_container(s, name));
            let container =
                container.ok_or_else(|| ConfigError(format!("container \"{name}\" not found")))?;
            fields::resource_field(container, &r.resource, r.divisor.as_ref(), scope.facts)?
        } else {
            return Err(ConfigError(format!(
                "downwardAPI file \"{}\" needs a fieldRef or a resourceFieldRef",
                item.path
            )));
        };
        Ok((item.path.clone(), item.mode.map(|m| mode(Some(m))), text.into_bytes()))
    };
    items.unwrap_or_default().iter().map(file).collect()
}
