//! Steps that run a language's own tools.
//!
//! A step's root has the image's layers so far, what earlier steps made for later ones, and the tools. The step runs
//! as the user `app`, and only what it names as its outputs is kept: neither the tools' caches nor the machine's
//! settings, which lie there for the tools, become part of a layer.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Component, Path};

use super::base::{self, APP_ID};
use super::chroot::{Root, mounted};
use super::layers::{Build, Key, MADE, set_time, settle};
use super::machine::Machine;
use super::plan::{Plan, Step};
use super::trouble;
use crate::image::{Event, IoContext as _, Result, Staging, tidy_reason};

/// Where the steps of a plan are carried out.
pub(super) struct Workshop<'w, 'a> {
    pub(super) build: &'w mut Build<'a>,
    plan: &'w Plan,
    /// So many layers are Debian packages; the tools come over these.
    packages: usize,
}

/// How a try at a step ended.
enum Outcome {
    Made(Staging),
    Failed(String),
}

impl<'w, 'a> Workshop<'w, 'a> {
    /// The layers of `build` so far are of Debian packages.
    pub(super) fn new(build: &'w mut Build<'a>, plan: &'w Plan) -> Self {
        let packages = build.layers().count();
        Self { build, plan, packages }
    }

    /// Makes the layer of a step, if nothing that goes into it was made before.
    pub(super) fn carry_out(&mut self, step: &Step) -> Result<()> {
        let key = self.key(step)?;
        if self.build.staged(step.staged, |build| build.cached(step.name, &key)) {
            return Ok(());
        }
        self.make(step, &key)
    }

    /// The packages of the second try are there by name only: it is rare, and what it makes does not depend on the
    /// compiler's version in a way that matters.
    fn key(&self, step: &Step) -> Result<String> {
        let below: Vec<&str> = self.build.layers().collect();
        let mut key = Key::new(step.name).with(below.join(" "));
        if !self.plan.tools.is_empty() {
            key = key.with(base::tools_key(&self.build.branch(self.packages), &self.plan.tools)?);
        }
        key = key.with(self.plan.compilers.join(" ")).with(step.dir).with(&step.script);
        for (name, value) in self.plan.env.iter().chain(&step.env) {
            key = key.with(name).with(value);
        }
        for (path, content) in &step.files {
            key = key.with(path).with(content);
        }
        for (path, target) in &step.links {
            key = key.with(path).with(target);
        }
        Ok(key.with(step.outputs.join(" ")).finish())
    }

    fn make(&mut self, step: &Step, key: &str) -> Result<()> {
        let compilers = &self.plan.compilers;
        let mut outcome = self.attempt(step, &self.plan.tools)?;
        if let Outcome::Failed(log) = &outcome
            && !compilers.is_empty()
            && trouble::may_be_a_compiler(log)
        {
            self.build.running(step.name, "trying again with compilers");
            outcome = self.attempt(step, &[&self.plan.tools[..], compilers].concat())?;
        }
        match outcome {
            Outcome::Made(layer) => {
                self.build.staged(step.staged, |build| build.add(step.name, layer, vec![key.to_owned()]))
            }
            Outcome::Failed(log) => {
                let text = format!("{} failed: {}", step.doing, tidy_reason(&trouble::explain(&log)));
                if !step.optional {
                    return Err(self.build.failed(text));
                }
                let text = format!("{}: {text}; the image is made without it", self.build.name);
                self.build.progress.report(|| Event::Warning { text });
                Ok(())
            }
        }
    }

    fn attempt(&self, step: &Step, tools: &[String]) -> Result<Outcome> {
        let tools = |build: &mut Build<'_>| match tools {
            [] => Ok(()),
            names => base::tools(build, names),
        };
        let whole = self.build.inserted(self.packages, tools)?;
        let env = self.environment(step);
        whole.running(step.name, step.doing);
        let mut result = (false, String::new());
        let (upper, _) = mounted(&whole, |root| {
            Machine::here().install(root)?;
            prepare(root, step)?;
            let script = format!("cd {}\n{}", step.dir, step.script);
            result = root.script(step.name, APP_ID, &script, &env)?;
            Ok(())
        })?;
        match result {
            (true, _) => Ok(Outcome::Made(keep(&whole, &upper, &step.outputs)?)),
            (false, log) => Ok(Outcome::Failed(log)),
        }
    }

    /// The later ones win.
    fn environment(&self, step: &Step) -> Vec<(String, String)> {
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let path: Vec<&str> = self.plan.path.iter().copied().chain([path]).collect();
        let mut env = Machine::here().env();
        let mut set = |name: &str, value: &str| env.push((name.to_owned(), value.to_owned()));
        set("PATH", &path.join(":"));
        for (name, value) in [
            ("HOME", super::machine::HOME),
            ("USER", "app"),
            ("LANG", "C.UTF-8"),
            ("LC_ALL", "C.UTF-8"),
            ("TZ", "UTC"),
            // On the disk, as it may become large, and thrown away with the rest.
            ("TMPDIR", "/var/tmp"),
            ("XDG_CACHE_HOME", "/var/tmp/cache"),
            ("CI", "true"),
            ("PYTHONHASHSEED", "0"),
        ] {
            set(name, value);
        }
        set("SOURCE_DATE_EPOCH", &MADE.to_string());
        for (name, value) in self.plan.env.iter().chain(&step.env) {
            set(name, value);
        }
        env
    }
}

/// Lays out what a step finds: its files, links, and directories for what it makes.
fn prepare(root: &Root<'_>, step: &Step) -> Result<()> {
    let dirs = step.outputs.iter().filter_map(|output| output.strip_suffix('/'));
    for dir in dirs.chain([step.dir.trim_start_matches('/')]) {
        let path = root.path.join(dir);
        if !path.is_dir() {
            fs::create_dir_all(&path).at("make the directory", &path)?;
            chown(&path, Some(APP_ID), Some(APP_ID)).at("change the owner of", &path)?;
        }
    }
    for (name, content) in &step.files {
        let path = root.path.join(name.trim_start_matches('/'));
        if let Some(parent) = path.parent().filter(|parent| !parent.is_dir()) {
            fs::create_dir_all(parent).at("make the directory", parent)?;
            chown(parent, Some(APP_ID), Some(APP_ID)).at("change the owner of", parent)?;
        }
        fs::write(&path, content).at("write", &path)?;
        chown(&path, Some(APP_ID), Some(APP_ID)).at("change the owner of", &path)?;
    }
    for (name, target) in &step.links {
        let path = root.path.join(name.trim_start_matches('/'));
        root.remove(name.trim_start_matches('/'))?;
        symlink(target, &path).at("make the link", &path)?;
    }
    Ok(())
}

/// Of all that a step left, what it is there for. What leads to it belongs to root.
fn keep(build: &Build<'_>, upper: &Staging, outputs: &[&str]) -> Result<Staging> {
    let kept = build.store.inner.stage_dir("kept")?;
    fs::set_permissions(kept.path(), fs::Permissions::from_mode(0o755)).at("change", kept.path())?;
    for output in outputs {
        let output = Path::new(output.trim_matches('/'));
        let from = upper.path().join(output);
        if fs::symlink_metadata(&from).is_err() {
            continue;
        }
        if let Some(parent) = output.parent() {
            let mut path = upper.path().to_owned();
            for part in parent.components().filter(|part| matches!(part, Component::Normal(_))) {
                path.push(part);
                let meta = fs::symlink_metadata(&path).at("look at", &path)?;
                if !meta.is_dir() {
                    return Err(build.failed(format!("{} is no longer a directory", output.display())));
                }
                let copy = kept.path().join(path.strip_prefix(upper.path()).unwrap_or(parent));
                if !copy.is_dir() {
                    fs::create_dir(&copy).at("make the directory", &copy)?;
                    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).at("change", &copy)?;
                }
            }
        }
        let to = kept.path().join(output);
        fs::rename(&from, &to).at("move the result to", &to)?;
    }
    settle(kept.path())?;
    set_time(kept.path(), MADE)?;
    Ok(kept)
}
