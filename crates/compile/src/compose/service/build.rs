//! How a service's image is made, what is watched while it is developed, and hooks.

use std::path::PathBuf;

use indexmap::IndexMap;

use super::{deploy, short, words};
use crate::{
    compose::{
        fields::{self, Fields},
        load::{Environment, Loader},
        model::{Build, Develop, Hook, Watch},
    },
    yaml::{Node, Value},
};

/// Reads `build`: a directory or a mapping.
pub(super) fn read(
    node: &Node,
    path: String,
    environment: &Environment,
    loader: &mut Loader,
) -> Option<Build> {
    if let Value::Scalar(_) = node.value {
        let text = fields::text(node, &path, loader)?;
        return Some(Build {
            at: node.at.clone(),
            context: context(node, &text, loader),
            ..Build::default()
        });
    }
    let mut f = Fields::open(node, path, loader)?;
    let written = f.node("context");
    let context = match written.and_then(|(node, path)| Some((node, fields::text(node, &path, loader)?))) {
        Some((node, text)) => context(node, &text, loader),
        None => context(node, ".", loader),
    };
    let with_value = |all: IndexMap<String, Option<String>>| {
        let valued =
            all.into_iter().filter_map(|(k, v)| Some((v.or_else(|| environment.get(&k).cloned())?, k)));
        valued.map(|(v, k)| (k, v)).collect()
    };
    let args =
        f.node("args").map(|(node, path)| with_value(fields::pairs(node, &path, loader))).unwrap_or_default();
    let extra_hosts = f.node("extra_hosts").map(|(node, path)| short::extra_hosts(node, &path, loader));
    let ulimits = f.node("ulimits").map(|(node, path)| deploy::ulimits(node, &path, loader));
    let build = Build {
        at: node.at.clone(),
        context,
        dockerfile: f.text("dockerfile", loader),
        dockerfile_inline: f.text("dockerfile_inline", loader),
        args,
        additional_contexts: contexts(&mut f, loader),
        cache_from: f.texts("cache_from", loader),
        cache_to: f.texts("cache_to", loader),
        entitlements: f.texts("entitlements", loader),
        extra_hosts: extra_hosts.unwrap_or_default(),
        isolation: f.text("isolation", loader),
        labels: f.labels("labels", loader),
        network: f.text("network", loader),
        no_cache: f.bool("no_cache", loader),
        no_cache_filter: f.text_or_list("no_cache_filter", loader),
        platforms: f.texts("platforms", loader),
        privileged: f.bool("privileged", loader),
        provenance: text_or_bool(&mut f, "provenance", loader),
        pull: f.bool("pull", loader),
        sbom: text_or_bool(&mut f, "sbom", loader),
        secrets: f.list("secrets", loader, short::file_reference),
        shm_size: f.bytes("shm_size", loader),
        ssh: f.labels("ssh", loader),
        tags: f.texts("tags", loader),
        target: f.text("target", loader),
        ulimits: ulimits.unwrap_or_default(),
    };
    f.close(loader);
    Some(build)
}

/// The absolute directory, or an address as it is.
fn context(node: &Node, text: &str, loader: &Loader) -> String {
    const REMOTE: [&str; 7] =
        ["http://", "https://", "git://", "ssh://", "git@", "github.com/", "docker-image://"];
    if REMOTE.iter().any(|scheme| text.starts_with(scheme))
        || text.starts_with("service:")
        || text.contains("://")
    {
        return text.into();
    }
    loader.resolve(&node.at, text).to_string_lossy().into_owned()
}

fn contexts(f: &mut Fields<'_>, loader: &mut Loader) -> IndexMap<String, String> {
    let Some((node, path)) = f.node("additional_contexts") else { return IndexMap::new() };
    let all = fields::pairs(node, &path, loader);
    all.into_iter().map(|(name, value)| (name, context(node, &value.unwrap_or_default(), loader))).collect()
}

fn text_or_bool(f: &mut Fields<'_>, key: &'static str, loader: &mut Loader) -> Option<String> {
    let (node, path) = f.node(key)?;
    fields::scalar_text(node, &path, loader).flatten()
}

/// Reads `develop`.
pub(super) fn develop(node: &Node, path: String, loader: &mut Loader) -> Option<Develop> {
    if node.is_null() {
        return None;
    }
    let mut f = Fields::open(node, path, loader)?;
    let develop = Develop { watch: f.list("watch", loader, watch) };
    f.close(loader);
    Some(develop)
}

fn watch(node: &Node, path: &str, loader: &mut Loader) -> Option<Watch> {
    const ACTIONS: [&str; 5] = ["rebuild", "sync", "restart", "sync+restart", "sync+exec"];
    let mut f = Fields::open(node, path.into(), loader)?;
    let watch = Watch {
        at: node.at.clone(),
        path: f.path("path", loader).unwrap_or_else(PathBuf::new),
        action: f.word("action", &ACTIONS, loader).unwrap_or_default(),
        target: f.text("target", loader),
        ignore: f.text_or_list("ignore", loader),
        include: f.text_or_list("include", loader),
        initial_sync: f.bool("initial_sync", loader),
        exec: f.node("exec").and_then(|(node, path)| hook(node, &path, loader)),
    };
    f.close(loader);
    for needed in ["path", "action"] {
        if node.get(needed).is_none() {
            loader.found.error(&node.at, format!("{path} needs {needed}"));
        }
    }
    let copies = !matches!(watch.action.as_str(), "" | "rebuild" | "restart");
    if copies && watch.target.is_none() {
        loader.found.error(&node.at, format!("{path} needs a target to {} to", watch.action));
    }
    Some(watch)
}

/// Reads one of `post_start`, `pre_start`, `pre_stop`.
pub(super) fn hook(node: &Node, path: &str, loader: &mut Loader) -> Option<Hook> {
    let mut f = Fields::open(node, path.into(), loader)?;
    let command = f.node("command").and_then(|(node, path)| words(node, &path, loader));
    if command.is_none() && !path.contains("pre_start") {
        loader.found.error(&node.at, format!("{path} needs a command"));
    }
    let environment = f.node("environment").map(|(node, path)| fields::pairs(node, &path, loader));
    let hook = Hook {
        at: node.at.clone(),
        command: command.unwrap_or_default(),
        image: f.text("image", loader),
        user: f.text("user", loader),
        privileged: f.bool("privileged", loader),
        working_dir: f.text("working_dir", loader),
        environment: environment.into_iter().flatten().filter_map(|(k, v)| Some((k, v?))).collect(),
        per_replica: f.bool("per_replica", loader),
    };
    f.close(loader);
    Some(hook)
}
