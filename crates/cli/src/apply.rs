//! Objects to the API, by server-side apply.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
    discovery::{self, ApiResource, Scope},
};
use serde_json::Value;
use yado_types::labels;

use crate::{
    args::{ApplyArgs, Global},
    connect::{connect, failed, reason},
    describe::elsewhere,
    progress::Progress,
    ready::{self, Wait},
    references::references,
    workloads,
};

mod foreign;

/// Under this name the API keeps which fields of an object are Yado's.
pub const FIELD_MANAGER: &str = "yado";

/// How often to look whether an object is gone. A watch would be one connection more for a thing that takes moments.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How often an object is applied anew because a controller wrote to it meanwhile. A rollout writes its status some ten
/// times within a second; more in a row means that somebody else owns the object.
const MAX_ATTEMPTS: u32 = 20;

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

/// What became of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// `Deployment web`.
    pub object: String,
    /// What was done with it.
    pub verb: Verb,
    /// Which fields are different now, and how.
    pub fields: Vec<String>,
}

/// What was done with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// It was not there before.
    Created,
    /// It was there and is different now.
    Configured,
    /// It was there and is the same.
    Unchanged,
    /// It is there no more.
    Deleted,
}

impl Verb {
    /// In `kubectl`'s word.
    pub fn word(self) -> &'static str {
        match self {
            Verb::Created => "created",
            Verb::Configured => "configured",
            Verb::Unchanged => "unchanged",
            Verb::Deleted => "deleted",
        }
    }
}

impl Outcome {
    /// Whether anything is different now.
    pub fn is_change(&self) -> bool {
        self.verb != Verb::Unchanged
    }

    /// A line of a resource diff: `+ Deployment web`, `~ Deployment web (spec.replicas: 1 -> 2)`; none where nothing
    /// is different.
    pub fn diff(&self) -> Option<String> {
        let mark = match self.verb {
            Verb::Created => '+',
            Verb::Configured => '~',
            Verb::Deleted => '-',
            Verb::Unchanged => return None,
        };
        let fields =
            if self.fields.is_empty() { String::new() } else { format!(" ({})", self.fields.join(", ")) };
        Some(format!("{mark} {}{fields}", self.object))
    }
}

impl std::fmt::Display for Outcome {
    /// `deployment "web" created`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kind, name) = self.object.split_once(' ').unwrap_or(("", &self.object));
        write!(f, "{} \"{name}\" {}", kind.to_lowercase(), self.verb.word())
    }
}

impl Summary {
    /// Counts outcomes.
    pub fn of<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Self {
        let mut summary = Summary::default();
        for outcome in outcomes {
            match outcome.verb {
                Verb::Created => summary.added += 1,
                Verb::Configured => summary.changed += 1,
                Verb::Deleted => summary.destroyed += 1,
                Verb::Unchanged => {}
            }
        }
        summary
    }
}

/// How objects are applied.
#[derive(Debug, Clone, Copy, Default)]
pub struct How {
    /// Only ask what would become of them.
    pub dry_run: bool,
    /// The description says all there is to say of the objects. Where a field may never change, the object is deleted and
    /// made anew (only workloads, which hold no data); a Job that has failed is run anew; what others added is removed;
    /// and Pods are replaced whose ConfigMaps or Secrets have changed.
    pub deploying: bool,
}

impl How {
    /// As for a deployment.
    pub fn deploying() -> Self {
        How { dry_run: false, deploying: true }
    }
}

/// Creates or changes `objects`, in order. Those without a namespace go to `namespace`. What is said of it begins with
/// `what`.
///
/// # Errors
///
/// The first object that is refused, with the API server's reason; those before it are in place.
pub async fn apply_objects(
    client: &Client,
    namespace: &str,
    objects: &[Value],
    how: How,
    what: &str,
    progress: &Progress,
) -> anyhow::Result<Vec<Outcome>> {
    let step = progress.step("apply", format!("{what}{} objects", objects.len()));
    let mut kinds = Kinds::new(client.clone(), namespace);
    let mut outcomes = Vec::with_capacity(objects.len());
    let mut versions = Versions::default();
    for object in objects {
        step.detail(format!("{what}{}", shown(object)));
        let api = kinds.api(object).await?;
        let stamped = versions.stamp(object).filter(|_| how.deploying);
        let (outcome, version) = apply_one(&api, stamped.as_ref().unwrap_or(object), how).await?;
        versions.note(object, version);
        outcomes.push(outcome);
    }
    step.done(format!("{what}{}", Summary::of(&outcomes)));
    Ok(outcomes)
}

/// Versions of the ConfigMaps and Secrets that were applied.
#[derive(Default)]
struct Versions(BTreeMap<(String, String), String>);

/// On a Pod template: the versions of the ConfigMaps and Secrets that its Pods read, so that a change of one replaces them.
const CONFIG_VERSIONS: &str = "yado.dev/config-versions";

impl Versions {
    fn note(&mut self, object: &Value, version: Option<String>) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if let Some(version) = version.filter(|_| object["kind"] == "ConfigMap" || object["kind"] == "Secret")
        {
            self.0.insert((text(&object["kind"]), text(&object["metadata"]["name"])), version);
        }
    }

    /// A compiled workload with the versions of what it reads; `None` where it reads nothing of this deployment. What is
    /// in a Secret cannot be guessed from its version, as it could from a digest.
    fn stamp(&self, object: &Value) -> Option<Value> {
        let compiled = object["metadata"]["labels"][labels::APP_MANAGED_BY] == labels::MANAGED_BY_YADO;
        if !compiled || object["spec"]["template"].is_null() {
            return None;
        }
        let read = references(object).into_iter().filter_map(|(kind, name)| {
            let version = self.0.get(&(kind.to_owned(), name.clone()))?;
            Some(format!("{name}={version}"))
        });
        let read: Vec<String> = read.collect();
        let mut stamped = object.clone();
        stamped["spec"]["template"]["metadata"]["annotations"][CONFIG_VERSIONS] = read.join(",").into();
        (!read.is_empty()).then_some(stamped)
    }
}

/// Applies an object; what became of it, and its version.
async fn apply_one(
    api: &Api<DynamicObject>,
    object: &Value,
    how: How,
) -> anyhow::Result<(Outcome, Option<String>)> {
    let shown = shown(object);
    let name =
        object["metadata"]["name"].as_str().with_context(|| format!("{shown} has no metadata.name"))?;
    let mut params = PatchParams::apply(FIELD_MANAGER).force().validation_strict();
    params.dry_run = how.dry_run;
    let refused = || failed(format!("{shown} cannot be applied"));
    let outcome = |verb, fields| Outcome { object: shown.clone(), verb, fields };
    let before = api.get_opt(name).await.map_err(refused())?;
    if how.deploying && before.as_ref().is_some_and(|before| has_failed(object, before)) {
        if !how.dry_run {
            replace(api, name, object, &params).await.map_err(refused())?;
        }
        return Ok((outcome(Verb::Configured, vec!["rerun, as it had failed".into()]), None));
    }
    let applied = api.patch(name, &params, &Patch::Apply(object)).await;
    let mut after = match (applied, &before) {
        (Err(error), Some(before)) if how.deploying && is_fixed(&error, object, before) => {
            if !how.dry_run {
                replace(api, name, object, &params).await.map_err(refused())?;
            }
            return Ok((outcome(Verb::Configured, vec!["recreated, as it is immutable".into()]), None));
        }
        // A dry run has made no namespace for it.
        (Err(kube::Error::Api(status)), None) if how.dry_run && status.code == 404 => {
            return Ok((outcome(Verb::Created, Vec::new()), None));
        }
        (applied, _) => applied.map_err(refused())?,
    };
    let Some(before) = before else {
        return Ok((outcome(Verb::Created, Vec::new()), after.resource_version()));
    };
    if how.deploying {
        after = without_foreign_fields(api, object, after, &params).await.map_err(refused())?;
    }
    // A new version alone may only say who set a field, or what its status is.
    let fields = crate::diff::changes(&typed(&before, object)?, &typed(&after, object)?);
    let verb = if fields.is_empty() { Verb::Unchanged } else { Verb::Configured };
    Ok((outcome(verb, fields), after.resource_version()))
}

/// Takes away what others have added to an object that was just applied, and gives the object without it. Controllers
/// write to it as well: where one comes between, the object is applied and looked at once more.
async fn without_foreign_fields(
    api: &Api<DynamicObject>,
    object: &Value,
    mut applied: DynamicObject,
    params: &PatchParams,
) -> kube::Result<DynamicObject> {
    let post = PostParams { dry_run: params.dry_run, field_manager: Some(FIELD_MANAGER.into()) };
    let mut attempts = 0;
    loop {
        let live = typed(&applied, object).map_err(kube::Error::SerdeError)?;
        let Some(cleaned) = foreign::without_foreign(&live) else { return Ok(applied) };
        let cleaned = serde_json::from_value(cleaned).map_err(kube::Error::SerdeError)?;
        attempts += 1;
        let name = applied.name_any();
        match api.replace(&name, &post, &cleaned).await {
            Err(kube::Error::Api(status)) if status.code == 409 && attempts < MAX_ATTEMPTS => {
                applied = api.patch(&name, params, &Patch::Apply(object)).await?;
            }
            replaced => return replaced,
        }
    }
}

/// An object of the API as JSON, with its kind, which lists leave out.
fn typed(found: &DynamicObject, object: &Value) -> serde_json::Result<Value> {
    let mut value = serde_json::to_value(found)?;
    value["apiVersion"] = object["apiVersion"].clone();
    value["kind"] = object["kind"].clone();
    Ok(value)
}

/// Whether a Job, or a Pod that is not started again, has ended badly.
fn has_failed(object: &Value, before: &DynamicObject) -> bool {
    match object["kind"].as_str() {
        Some("Job") => workloads::failed_condition(&before.data).is_some(),
        Some("Pod") => before.data["status"]["phase"] == "Failed",
        _ => false,
    }
}

/// Whether a change was refused for a field that never changes, of a thing that may be made anew.
fn is_fixed(error: &kube::Error, object: &Value, before: &DynamicObject) -> bool {
    let workload = ["Deployment", "DaemonSet", "StatefulSet", "Job", "Pod", "ReplicaSet"]
        .iter()
        .any(|k| object["kind"] == *k);
    // With a StatefulSet that takes its claims along, the data would go.
    let loses_data = before.data["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Delete";
    let kube::Error::Api(status) = error else { return false };
    let words = ["immutable", "may not", "may only", "updates to statefulset spec"];
    workload && !loses_data && status.code == 422 && words.iter().any(|word| status.message.contains(word))
}

/// Deletes an object with all it owns, waits until it is gone, and makes it anew.
async fn replace(
    api: &Api<DynamicObject>,
    name: &str,
    object: &Value,
    params: &PatchParams,
) -> kube::Result<()> {
    api.delete(name, &DeleteParams::foreground()).await?;
    while api.get_metadata_opt(name).await?.is_some() {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    api.patch(name, params, &Patch::Apply(object)).await.map(drop)
}

/// `Deployment web`.
pub fn shown(object: &Value) -> String {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_string();
    format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

/// The objects in manifests: files, directories of files, http(s) addresses, or `-` for standard input.
///
/// # Errors
///
/// Every mistake in the first file with one.
pub async fn read_manifests(files: &[PathBuf]) -> anyhow::Result<Vec<Value>> {
    let mut objects = Vec::new();
    for file in files {
        if file == Path::new("-") {
            let text = elsewhere::read_stdin()?;
            objects.extend(yado_compile::manifest::parse(Path::new("standard input"), &text)?);
            continue;
        }
        if let Some(url) = elsewhere::url(file) {
            let text = elsewhere::get(&url).await?;
            objects.extend(yado_compile::manifest::parse(file, &text)?);
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
    let objects = read_manifests(&args.files).await?;
    let (client, namespace) = connect(global).await?;
    let progress = Progress::stderr(global.color);
    let how = How { dry_run: args.dry_run, deploying: false };
    let outcomes = apply_objects(&client, &namespace, &objects, how, "", &progress).await?;
    if args.wait && !args.dry_run {
        let wait = Wait { settle: Duration::from_secs(args.settle), ..Wait::default() };
        ready::wait_ready(&client, &namespace, &objects, wait, &progress).await?;
    }
    let mut text = String::new();
    outcomes.iter().for_each(|outcome| text.push_str(&format!("{outcome}\n")));
    Ok(writeln!(std::io::stdout(), "{text}{}", Summary::of(&outcomes))?)
}
