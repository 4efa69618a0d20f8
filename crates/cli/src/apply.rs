//! Objects to the API, by server-side apply.

use std::{
    collections::HashMap,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
    discovery::{self, ApiResource, Scope},
};
use serde_json::Value;

use crate::{
    args::{ApplyArgs, Global},
    connect::{connect, failed, reason},
    progress::Progress,
    ready,
};

/// Under this name the API keeps which fields of an object are Yado's.
pub const FIELD_MANAGER: &str = "yado";

/// What became of objects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Objects that were not there before.
    pub added: usize,
    /// Objects that were there and are different now.
    pub changed: usize,
    /// Objects that are there no more.
    pub destroyed: usize,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} added, {} changed, {} destroyed", self.added, self.changed, self.destroyed)
    }
}

/// Finds the API of a kind, each kind once.
pub struct Kinds {
    client: Client,
    namespace: String,
    known: HashMap<GroupVersionKind, (ApiResource, Scope)>,
}

impl Kinds {
    /// For objects that, where they name no namespace, are in `namespace`.
    pub fn new(client: Client, namespace: &str) -> Self {
        Kinds { client, namespace: namespace.into(), known: HashMap::new() }
    }

    /// The API that `object` belongs to.
    ///
    /// # Errors
    ///
    /// The API server does not know the kind, or cannot be reached.
    pub async fn api(&mut self, object: &Value) -> anyhow::Result<Api<DynamicObject>> {
        let api_version = object["apiVersion"].as_str().unwrap_or_default();
        let kind = object["kind"].as_str().unwrap_or_default();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let gvk = GroupVersionKind::gvk(group, version, kind);
        if !self.known.contains_key(&gvk) {
            let found = discovery::pinned_kind(&self.client, &gvk).await;
            let (resource, capabilities) = found.map_err(|error| match &error {
                kube::Error::Discovery(_) => {
                    anyhow::anyhow!("kind {kind} of {api_version} is unknown to the API server")
                }
                _ => anyhow::anyhow!("kind {kind} of {api_version} cannot be looked up: {}", reason(&error)),
            })?;
            self.known.insert(gvk.clone(), (resource, capabilities.scope));
        }
        let (resource, scope) = &self.known[&gvk];
        if *scope == Scope::Cluster {
            return Ok(Api::all_with(self.client.clone(), resource));
        }
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or(&self.namespace);
        Ok(Api::namespaced_with(self.client.clone(), namespace, resource))
    }
}

/// Creates or changes `objects`, in order. Those without a namespace go to `namespace`.
///
/// # Errors
///
/// The first object that is refused, with the API server's reason; those before it are in place.
pub async fn apply_objects(
    client: &Client,
    namespace: &str,
    objects: &[Value],
    progress: &Progress,
) -> anyhow::Result<Summary> {
    let step = progress.step("apply", format!("{} objects", objects.len()));
    let mut kinds = Kinds::new(client.clone(), namespace);
    let mut summary = Summary::default();
    let params = PatchParams::apply(FIELD_MANAGER).force().validation_strict();
    for object in objects {
        let shown = shown(object);
        step.detail(&shown);
        let api = kinds.api(object).await?;
        let name =
            object["metadata"]["name"].as_str().with_context(|| format!("{shown} has no metadata.name"))?;
        let refused = || failed(format!("{shown} cannot be applied"));
        let before = api.get_opt(name).await.map_err(refused())?;
        let after = api.patch(name, &params, &Patch::Apply(object)).await.map_err(refused())?;
        match before {
            None => summary.added += 1,
            Some(before) if before.resource_version() != after.resource_version() => summary.changed += 1,
            Some(_) => {}
        }
    }
    step.done(summary.to_string());
    Ok(summary)
}

/// `Deployment web`.
pub fn shown(object: &Value) -> String {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_string();
    format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

/// The objects in manifests: files, directories of files, or `-` for standard input.
///
/// # Errors
///
/// Every mistake in the first file with one.
pub fn read_manifests(files: &[PathBuf]) -> anyhow::Result<Vec<Value>> {
    let mut objects = Vec::new();
    for file in files {
        if file == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("standard input cannot be read")?;
            objects.extend(yado_compile::manifest::parse(Path::new("standard input"), &text)?);
            continue;
        }
        let in_directory =
            if file.is_dir() { yado_compile::manifest::files_in(file)? } else { vec![file.clone()] };
        if in_directory.is_empty() {
            let sentence = format!("{} holds no .yaml, .yml or .json file", file.display());
            return Err(crate::Usage(sentence).into());
        }
        let compiled = yado_compile::manifest::compile(&in_directory, "manifests")?;
        objects.extend(compiled.objects.into_iter().map(|o| o.value));
    }
    Ok(objects)
}

/// `yado apply`.
pub(crate) async fn run(global: &Global, args: &ApplyArgs) -> anyhow::Result<()> {
    let objects = read_manifests(&args.files)?;
    let (client, namespace) = connect(global).await?;
    let progress = Progress::stderr(global.color);
    let summary = apply_objects(&client, &namespace, &objects, &progress).await?;
    if args.wait {
        ready::wait_ready(&client, &namespace, &objects, ready::PATIENCE, &progress).await?;
    }
    writeln!(std::io::stdout(), "{summary}")?;
    Ok(())
}
