//! Sources that are live: what is interpreted runs from the user's own folder, and what is compiled is built anew when
//! its files change.
//!
//! A process that runs from the folder runs as the folder's owner: it may read what the owner may, and what it writes
//! is the owner's.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use yado_cli::describe::Described;
use yado_compile::{BuildMethod, BuildRequest, Compiled};
use yado_types::labels;

use crate::build::Built;

/// Where an image has its sources, and so where the folder is mounted.
const SOURCES: &str = "/app";
/// The volume with the user's folder.
const SOURCE: &str = "source";
/// How volumes are called that [`put_back`] makes; the rest is the path.
const ELSEWHERE: &str = "image-";
/// Where Otto had the folders of dependencies.
const DEPENDENCIES: &str = "/otto-deps";
/// The annotation with an application's identity.
const OTTO_ID: &str = "yado.dev/otto-id";

/// How often files are looked at: seldom enough to cost nothing, often enough to be waited for.
const LOOK: Duration = Duration::from_millis(500);
/// Files looked at. A tree with more has something in it that is not its sources.
const MOST_FILES: usize = 20_000;

/// Directories that tools fill and nobody edits.
const MADE_BY_TOOLS: [&str; 9] =
    [".git", ".hg", ".yado", "target", "node_modules", "vendor", "__pycache__", "build", "dist"];
/// Files that say what an image is made of: a change of theirs is no change of sources alone.
const RECIPES: [&str; 19] = [
    "Procfile",
    "Aptfile",
    "Appfile",
    ".ottoid",
    "app.json",
    "runtime.txt",
    "requirements.txt",
    "Pipfile",
    "Pipfile.lock",
    "pyproject.toml",
    "Gemfile",
    "Gemfile.lock",
    "package.json",
    "package-lock.json",
    "yarn.lock",
    "composer.json",
    "composer.lock",
    ".env",
    "Dockerfile",
];

/// Whether an image's processes read their sources as they run, so that an edit needs no build.
fn is_interpreted(request: &BuildRequest) -> bool {
    match &request.method {
        // Where the Procfile says all, nothing is compiled: the folder is the image.
        BuildMethod::Source { language, .. } => match language.as_deref() {
            None => true,
            // What a build script makes is in the image alone; Rails reads its files once, and has assets made of them.
            Some("node" | "static") => !has_build_script(&request.context),
            Some(language) => ["ruby", "python", "php"].contains(&language),
        },
        BuildMethod::Dockerfile { .. } => false,
    }
}

/// Whether the sources' `package.json` says how something is made of them, or has packages of its own among them.
fn has_build_script(folder: &Path) -> bool {
    let text = std::fs::read_to_string(folder.join("package.json")).unwrap_or_default();
    let json: Value = serde_json::from_str(&text).unwrap_or_default();
    let scripts = ["build", "heroku-postbuild", "postinstall"];
    json.get("workspaces").is_some() || scripts.iter().any(|name| json["scripts"][*name].is_string())
}

/// A sentence for the user on how edits of the sources take effect; empty without sources.
pub fn edit_notice(compiled: &Compiled) -> &'static str {
    let builds = &compiled.builds;
    match (builds.is_empty(), builds.iter().all(is_interpreted)) {
        (true, _) => "",
        (_, true) => "Edits are in the containers at once; what reads files only once needs a new start. ",
        _ => "An edit is built and started by itself. ",
    }
}

/// Mounts the folder of each interpreted application into its containers, and the folders of all dependencies into
/// those of the app itself.
pub fn mount_sources(compiled: &mut Compiled) -> Result<()> {
    for request in compiled.builds.clone().iter().filter(|r| is_interpreted(r)) {
        let folder = absolute(&request.context)?;
        let owner =
            std::fs::metadata(&folder).with_context(|| format!("{} cannot be read", folder.display()))?;
        for object in &mut compiled.objects {
            let Some(spec) = pod_spec(&mut object.value) else { continue };
            if mount(spec, Some(&request.image), SOURCE, &folder, SOURCES) {
                for container in asking_for(spec, &request.image) {
                    container["securityContext"]["runAsUser"] = owner.uid().into();
                    container["securityContext"]["runAsGroup"] = owner.gid().into();
                }
            }
        }
    }
    for name in compiled.dependencies.clone() {
        let Some((folder, id)) = dependency(compiled, &name) else { continue };
        let folder = absolute(&folder)?;
        let target = match id {
            Some(id) => format!("{DEPENDENCIES}/{name}-{id}"),
            None => format!("{DEPENDENCIES}/{name}"),
        };
        let app = compiled.app.clone();
        for object in
            compiled.objects.iter_mut().filter(|o| o.value["metadata"]["labels"][labels::APP_NAME] == *app)
        {
            let Some(spec) = pod_spec(&mut object.value) else { continue };
            mount(spec, None, &format!("dep-{name}"), &folder, &target);
        }
    }
    Ok(())
}

/// Puts back what the folder hides that was mounted over the sources: what an image keeps elsewhere (PHP's `vendor`) is
/// copied from there before the processes start, unless the folder has its own.
pub fn put_back(compiled: &mut Compiled, built: &[Built]) -> Result<()> {
    for (image, path, from) in built.iter().flat_map(|b| kept_elsewhere(b).map(|(p, f)| (&b.image, p, f))) {
        for object in &mut compiled.objects {
            let Some(spec) = pod_spec(&mut object.value) else { continue };
            let Some(folder) = mounted_folder(spec) else { continue };
            let Some(first) = asking_for(spec, image).next() else { continue };
            let place = folder.join(path);
            if std::fs::read_dir(&place).is_ok_and(|mut entries| entries.next().is_some()) {
                continue;
            }
            let context = first["securityContext"].clone();
            make_place(&place, &folder)?;
            let (volume, target) = (format!("{ELSEWHERE}{path}"), format!("{SOURCES}/{path}"));
            for container in asking_for(spec, image) {
                push(container, "volumeMounts", json!({"name": volume, "mountPath": target}));
            }
            push(spec, "volumes", json!({"name": volume, "emptyDir": {}}));
            let copy = json!({
                "name": volume,
                "image": image,
                "command": ["cp", "-R", format!("{from}/."), "/mnt"],
                "securityContext": context,
                "volumeMounts": [{"name": volume, "mountPath": "/mnt"}],
            });
            push(spec, "initContainers", copy);
        }
    }
    Ok(())
}

/// Removes the empty directories that [`put_back`] mounts on.
pub fn clear(compiled: &Compiled) {
    for object in &compiled.objects {
        let mut value = object.value.clone();
        let Some(spec) = pod_spec(&mut value) else { continue };
        let Some(folder) = mounted_folder(spec) else { continue };
        let names = spec["volumes"].as_array().into_iter().flatten().filter_map(|v| v["name"].as_str());
        for path in names.filter_map(|name| name.strip_prefix(ELSEWHERE)) {
            // One that somebody has put something into is theirs.
            let _ = std::fs::remove_dir(folder.join(path));
        }
    }
}

/// `vendor=/opt/vendor`: the path below the sources, and where it is. Only what can name a volume.
fn kept_elsewhere(built: &Built) -> impl Iterator<Item = (&str, &str)> {
    let pairs = built.elsewhere.split(',').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(path, _)| path.bytes().all(|b| b.is_ascii_lowercase()) && !path.is_empty())
}

fn make_place(place: &Path, folder: &Path) -> Result<()> {
    let unusable = || format!("{} cannot be made", place.display());
    if !place.is_dir() {
        let owner = std::fs::metadata(folder).with_context(unusable)?;
        std::fs::create_dir(place).with_context(unusable)?;
        std::os::unix::fs::chown(place, Some(owner.uid()), Some(owner.gid())).with_context(unusable)?;
    }
    Ok(())
}

/// The folder that is mounted over the sources.
fn mounted_folder(spec: &Value) -> Option<PathBuf> {
    let source = spec["volumes"].as_array()?.iter().find(|v| v["name"] == SOURCE)?;
    Some(source["hostPath"]["path"].as_str()?.into())
}

/// A dependency's folder and identity.
fn dependency(compiled: &Compiled, name: &str) -> Option<(PathBuf, Option<String>)> {
    let mut of_it =
        compiled.objects.iter().filter(|o| o.value["metadata"]["labels"][labels::APP_NAME] == *name);
    let first = of_it.clone().next()?;
    let id = of_it.find_map(|o| o.value["metadata"]["annotations"][OTTO_ID].as_str());
    Some((first.source.parent()?.to_path_buf(), id.map(str::to_owned)))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    path.canonicalize().with_context(|| format!("{} cannot be read", path.display()))
}

fn pod_spec(object: &mut Value) -> Option<&mut Value> {
    let path = if object["kind"] == "Pod" { "/spec" } else { "/spec/template/spec" };
    object.pointer_mut(path).filter(|spec| spec["containers"].is_array())
}

fn asking_for<'a>(spec: &'a mut Value, image: &'a str) -> impl Iterator<Item = &'a mut Value> {
    let containers = spec["containers"].as_array_mut().into_iter().flatten();
    containers.filter(move |container| container["image"] == image)
}

/// Mounts a folder of this machine into the containers that ask for `image`, or into all; whether there was one.
fn mount(spec: &mut Value, image: Option<&str>, volume: &str, folder: &Path, target: &str) -> bool {
    let mut mounted = false;
    for container in spec["containers"].as_array_mut().into_iter().flatten() {
        let taken =
            container["volumeMounts"].as_array().is_some_and(|m| m.iter().any(|m| m["mountPath"] == target));
        if image.is_some_and(|image| container["image"] != image) || taken {
            continue;
        }
        push(container, "volumeMounts", json!({"name": volume, "mountPath": target}));
        mounted = true;
    }
    if mounted {
        push(spec, "volumes", json!({"name": volume, "hostPath": {"path": folder, "type": "Directory"}}));
    }
    mounted
}

fn push(object: &mut Value, list: &str, item: Value) {
    match object[list].as_array_mut() {
        Some(items) => items.push(item),
        None => object[list] = json!([item]),
    }
}

/// The files that what runs was made of.
pub struct Files {
    /// Every file of these directories.
    trees: BTreeSet<PathBuf>,
    /// Of these directories, [`RECIPES`].
    recipes: BTreeSet<PathBuf>,
    /// These files.
    files: BTreeSet<PathBuf>,
    seen: u64,
}

impl Files {
    /// As they are now.
    pub fn of(described: &Described) -> Self {
        let compiled = &described.compiled;
        let contexts = |interpreted: bool| {
            let of = compiled.builds.iter().filter(move |r| is_interpreted(r) == interpreted);
            of.map(|request| request.context.clone()).collect()
        };
        let mut files = Self {
            trees: contexts(false),
            recipes: contexts(true),
            files: compiled.objects.iter().map(|o| o.source.clone()).collect(),
            seen: 0,
        };
        files.seen = files.state();
        files
    }

    /// Ready once they are different, and have been left alone for a moment.
    pub async fn changed(&mut self) {
        let mut last = self.seen;
        loop {
            tokio::time::sleep(LOOK).await;
            // Some thousand calls of the kernel's at most, which take less than a thread switch is worth.
            let now = self.state();
            if now != self.seen && now == last {
                self.seen = now;
                return;
            }
            last = now;
        }
    }

    fn state(&self) -> u64 {
        let mut hash = DefaultHasher::new();
        let mut left = MOST_FILES;
        self.files.iter().for_each(|file| look(file, &mut hash));
        for directory in &self.recipes {
            RECIPES.iter().for_each(|name| look(&directory.join(name), &mut hash));
        }
        self.trees.iter().for_each(|directory| walk(directory, &mut left, &mut hash));
        hash.finish()
    }
}

fn walk(directory: &Path, left: &mut usize, hash: &mut DefaultHasher) {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default();
        if *left == 0 || MADE_BY_TOOLS.iter().any(|made| name == *made) {
            continue;
        }
        *left -= 1;
        if path.is_dir() && !path.is_symlink() {
            walk(&path, left, hash);
        } else {
            look(&path, hash);
        }
    }
}

fn look(path: &Path, hash: &mut DefaultHasher) {
    if let Ok(meta) = std::fs::symlink_metadata(path) {
        (path, meta.len(), meta.ino(), meta.mtime(), meta.mtime_nsec()).hash(hash);
    }
}

#[cfg(test)]
mod tests {
    use yado_compile::Object;

    use super::*;

    fn source(language: Option<&str>, name: &str, context: &Path) -> BuildRequest {
        BuildRequest {
            name: name.into(),
            context: context.into(),
            image: format!("yado.local/{name}:latest"),
            method: BuildMethod::Source { language: language.map(Into::into), processes: Vec::new() },
            excluded: [].into(),
        }
    }

    fn deployment(name: &str, context: &Path) -> Object {
        let value = json!({
            "kind": "Deployment",
            "metadata": {"name": name, "labels": {labels::APP_NAME: name}, "annotations": {OTTO_ID: "id"}},
            "spec": {"template": {"spec": {"containers": [{"image": format!("yado.local/{name}:latest")}]}}},
        });
        Object { value, group: name.into(), source: context.join("Appfile") }
    }

    #[test]
    fn o16_folders_are_mounted_where_sources_are_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        let mounts = |language: Option<&str>| {
            let mut compiled = Compiled {
                app: "shop".into(),
                objects: vec![deployment("db", path), deployment("shop", path)],
                builds: vec![source(language, "shop", path)],
                dependencies: vec!["db".into()],
                ..Compiled::default()
            };
            mount_sources(&mut compiled).expect("to mount");
            let of = |i: usize| {
                let spec = &compiled.objects[i].value["spec"]["template"]["spec"];
                let mounts = spec["containers"][0]["volumeMounts"].as_array().cloned().unwrap_or_default();
                mounts
                    .iter()
                    .map(|m| m["mountPath"].as_str().unwrap_or_default().to_owned())
                    .collect::<Vec<_>>()
            };
            (of(0), of(1))
        };
        assert_eq!(mounts(None), (vec![], vec!["/app".into(), "/otto-deps/db-id".into()]));
        assert_eq!(mounts(Some("python")), (vec![], vec!["/app".into(), "/otto-deps/db-id".into()]));
        assert_eq!(mounts(Some("go")), (vec![], vec!["/otto-deps/db-id".into()]));
    }

    #[test]
    fn what_an_image_keeps_elsewhere_is_put_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut compiled = Compiled {
            app: "shop".into(),
            objects: vec![deployment("shop", folder.path())],
            builds: vec![source(Some("php"), "shop", folder.path())],
            ..Compiled::default()
        };
        mount_sources(&mut compiled).expect("to mount");
        let built = Built {
            name: "shop".into(),
            image: "yado.local/shop:latest".into(),
            id: String::new(),
            size: 0,
            new: true,
            elsewhere: "vendor=/opt/vendor".into(),
        };
        put_back(&mut compiled, std::slice::from_ref(&built)).expect("to put back");
        let spec = &compiled.objects[0].value["spec"]["template"]["spec"];
        assert_eq!(
            spec["containers"][0]["volumeMounts"][1],
            json!({"name": "image-vendor", "mountPath": "/app/vendor"})
        );
        assert_eq!(spec["initContainers"][0]["command"], json!(["cp", "-R", "/opt/vendor/.", "/mnt"]));
        assert!(folder.path().join("vendor").is_dir());
        clear(&compiled);
        assert!(!folder.path().join("vendor").exists());

        // Who has installed the packages in the folder goes by those.
        std::fs::create_dir(folder.path().join("vendor")).expect("a folder");
        std::fs::write(folder.path().join("vendor/autoload.php"), "").expect("a file");
        let mut own = Compiled { objects: vec![deployment("shop", folder.path())], ..compiled.clone() };
        mount_sources(&mut own).expect("to mount");
        put_back(&mut own, &[built]).expect("to put back");
        assert!(own.objects[0].value["spec"]["template"]["spec"]["initContainers"].is_null());
    }

    #[test]
    fn what_a_script_builds_is_built_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let node = |json: &str| {
            std::fs::write(folder.path().join("package.json"), json).expect("a file");
            is_interpreted(&source(Some("node"), "a", folder.path()))
        };
        assert!(node(r#"{"scripts": {"start": "node server.js"}}"#));
        assert!(!node(r#"{"scripts": {"start": "node dist/a.js", "build": "tsc"}}"#));
        assert!(!node(r#"{"workspaces": ["packages/*"]}"#));
        assert!(!is_interpreted(&source(Some("rails"), "a", folder.path())));
    }

    #[test]
    fn only_what_an_image_is_made_of_is_watched() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        };
        write("Procfile", "web: a");
        write("src/main.go", "1");
        let watched = |language: Option<&str>| {
            let compiled =
                Compiled { builds: vec![source(language, "a", folder.path())], ..Compiled::default() };
            Files::of(&Described {
                compiled,
                directory: folder.path().into(),
                shown: String::new(),
                source: None,
            })
        };
        let (interpreted, compiled) = (watched(None), watched(Some("go")));
        let differ = |files: &Files| files.state() != files.seen;
        write("target/out", "2");
        assert!(!differ(&interpreted) && !differ(&compiled));
        write("src/main.go", "22");
        assert!(!differ(&interpreted) && differ(&compiled));
        write("Procfile", "web: bb");
        assert!(differ(&interpreted));
    }
}
