//! `docker run` commands, as `run_args` of an Appfile and `ExecStart=` of a fleet unit carry them, to parts of a Pod.
//!
//! A flag that has a meaning in a Pod gets it; one that only says how Docker's client behaves (`-d`, `--sig-proxy`) is
//! silent; one whose promise is kept differently, or not, draws a warning; any other is a mistake that names it.
//! Podman's flags are read too, where they say the same.
//!
//! What goes beyond one Pod is left to the front end, which knows the other containers: links, volumes of others,
//! containers whose network is shared.

use std::{collections::BTreeMap, path::Path};

use k8s_openapi::api::core::v1::EnvVar;

use crate::workload::{
    Claim, Port, PublishedPort,
    pod::{Part, verbatim},
};

pub use words::split;

mod flags;
mod ports;
mod resources;
#[cfg(test)]
mod tests;
mod volumes;
mod words;

/// What a command is read against.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// What relative paths (`-v ./data:/data`, `--env-file`) are relative to.
    pub directory: &'a Path,
    /// The environment of whoever runs the command, for `-e NAME`.
    pub env: &'a BTreeMap<String, String>,
}

/// The container that a command would have started.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// `--name`.
    pub name: Option<String>,
    /// The image.
    pub image: String,
    /// What follows the image.
    pub command: Vec<String>,
    /// The container and what it asks of its Pod. Its environment is in [`Run::env`].
    pub part: Part,
    /// What it listens on, as far as flags say: published and exposed ports.
    pub ports: Vec<Port>,
    /// Ports that are reached from outside.
    pub published: Vec<PublishedPort>,
    /// `-P`: every port that the image exposes is published at some port.
    pub publish_all: bool,
    /// `--link`: the container and the name it gets.
    pub links: Vec<(String, String)>,
    /// `--volumes-from`: the container, and whether only for reading.
    pub volumes_from: Vec<(String, bool)>,
    /// Containers whose network, processes or memory it shares, and so whose Pod.
    pub joins: Vec<String>,
    /// Named networks that it is in; none is the default one.
    pub networks: Vec<String>,
    /// Further names by which others on its networks find it.
    pub aliases: Vec<String>,
    /// Containers that have to run first (`--requires`).
    pub requires: Vec<String>,
    /// Environment, in the order in which later ones win.
    pub env: Vec<(String, String)>,
    /// Named volumes.
    pub claims: Vec<Claim>,
    /// `--restart`, where it is written.
    pub restart: Option<Restart>,
    /// `-d`.
    pub detached: bool,
    /// `--rm`.
    pub removed: bool,
    /// `--no-healthcheck`.
    pub no_health: bool,
    /// Things that are kept differently or not, each a sentence.
    pub warnings: Vec<String>,
}

/// When a container that has ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Never.
    No,
    /// When it failed, at most this often.
    OnFailure(Option<u32>),
    /// Always.
    Always,
    /// Always, unless somebody stopped it.
    UnlessStopped,
}

impl Run {
    /// The container of this run, with its image, command and environment.
    pub fn finish_container(&mut self) {
        let container = &mut self.part.container;
        container.image = Some(self.image.clone());
        match &container.command {
            // `--entrypoint ""` takes the image's entry point away, so the first word of the command is run.
            Some(entry) if entry.iter().all(String::is_empty) => {
                container.command = (!self.command.is_empty()).then(|| self.command.clone());
            }
            _ => container.args = (!self.command.is_empty()).then(|| self.command.clone()),
        }
        let known = |name: &str| self.env.iter().any(|(n, _)| n == name);
        for word in container.command.iter_mut().chain(container.args.iter_mut()).flatten() {
            *word = verbatim(word, &known);
        }
        let mut env: Vec<EnvVar> = Vec::new();
        for (name, value) in &self.env {
            env.retain(|e| e.name != *name);
            env.push(EnvVar { name: name.clone(), value: Some(verbatim(value, &known)), value_from: None });
        }
        container.env = (!env.is_empty()).then_some(env);
    }
}

/// Reads a whole command, what follows `docker run`.
///
/// # Errors
///
/// Every mistake, each a sentence that names the flag.
pub fn parse(words: &[String], context: Context) -> Result<Run, Vec<String>> {
    flags::Reader::new(context, Run::default()).command(words)
}

/// Reads flags alone, without an image or a command, over what `part` says.
///
/// # Errors
///
/// Every mistake, each a sentence that names the flag.
pub fn parse_flags(words: &[String], part: Part, context: Context) -> Result<Run, Vec<String>> {
    flags::Reader::new(context, Run { part, ..Run::default() }).flags_only(words)
}
