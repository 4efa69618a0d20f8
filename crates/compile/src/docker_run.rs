//! Translates `docker run` commands to parts of a Pod. They occur in `run_args` of an Appfile and in `ExecStart=` of a
//! fleet unit.
//!
//! A flag with an equivalent in a Pod sets it. A flag that only configures Docker's client (`-d`, `--sig-proxy`) is
//! ignored. A flag that has another effect in a Pod, or none, gives a warning, and any other flag is an error. Podman's
//! flags are accepted where they mean the same.
//!
//! Settings that concern several Pods (links, `--volumes-from`, shared networks) are returned for the front end, which
//! knows the other containers.

use std::{collections::BTreeMap, path::Path};

use k8s_openapi::api::core::v1::EnvVar;

use crate::workload::{
    Port, PublishedPort, VolumeClaim,
    pod::{PodFragment, escape_references},
};

pub use words::split;

mod flags;
mod ports;
mod resources;
#[cfg(test)]
mod tests;
mod volumes;
mod words;

/// The environment in which a command is interpreted.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Base directory of relative paths (`-v ./data:/data`, `--env-file`).
    pub directory: &'a Path,
    /// Environment variables of the caller, for `-e NAME`.
    pub env: &'a BTreeMap<String, String>,
}

/// A parsed `docker run` command.
#[derive(Debug, Clone, Default)]
pub struct RunCommand {
    /// `--name`.
    pub name: Option<String>,
    /// The image.
    pub image: String,
    /// The arguments after the image.
    pub command: Vec<String>,
    /// The container and its Pod settings. The environment is in [`RunCommand::env`].
    pub part: PodFragment,
    /// Ports on which it listens according to its flags: published and exposed ports.
    pub ports: Vec<Port>,
    /// Ports that are reachable from outside the cluster.
    pub published: Vec<PublishedPort>,
    /// `-P`: publish every port that the image exposes under a free number.
    pub publish_all: bool,
    /// `--link`: a container and its alias.
    pub links: Vec<(String, String)>,
    /// `--volumes-from`: a container, and whether its volumes are mounted read-only.
    pub volumes_from: Vec<(String, bool)>,
    /// Containers whose network, PID or IPC namespace it shares, and therefore whose Pod.
    pub joins: Vec<String>,
    /// Named networks that it joins; empty for the default network.
    pub networks: Vec<String>,
    /// Aliases in its networks.
    pub aliases: Vec<String>,
    /// Containers that have to be started first (`--requires`).
    pub requires: Vec<String>,
    /// Environment variables in order; a later one replaces an earlier one of the same name.
    pub env: Vec<(String, String)>,
    /// Named volumes.
    pub claims: Vec<VolumeClaim>,
    /// `--restart`, if given.
    pub restart: Option<Restart>,
    /// `-d`.
    pub detached: bool,
    /// `--rm`.
    pub removed: bool,
    /// `--no-healthcheck`.
    pub no_health: bool,
    /// Warnings about flags that have another effect in a Pod, or none.
    pub warnings: Vec<String>,
}

/// Restart policy of a container, as in `--restart`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Never.
    No,
    /// After a failure, at most this many times.
    OnFailure(Option<u32>),
    /// Always.
    Always,
    /// Always, unless it was stopped by the user.
    UnlessStopped,
}

impl RunCommand {
    /// Sets the image, command and environment of the container in `part`.
    pub fn finish_container(&mut self) {
        let container = &mut self.part.container;
        container.image = Some(self.image.clone());
        match &container.command {
            // `--entrypoint ""` clears the entry point of the image, so the first word of the command is executed.
            Some(entry) if entry.iter().all(String::is_empty) => {
                container.command = (!self.command.is_empty()).then(|| self.command.clone());
            }
            _ => container.args = (!self.command.is_empty()).then(|| self.command.clone()),
        }
        let known = |name: &str| self.env.iter().any(|(n, _)| n == name);
        for word in container.command.iter_mut().chain(container.args.iter_mut()).flatten() {
            *word = escape_references(word, &known);
        }
        let mut env: Vec<EnvVar> = Vec::new();
        for (name, value) in &self.env {
            env.retain(|e| e.name != *name);
            env.push(EnvVar {
                name: name.clone(),
                value: Some(escape_references(value, &known)),
                value_from: None,
            });
        }
        container.env = (!env.is_empty()).then_some(env);
    }
}

/// Parses the arguments of `docker run`: flags, image and command.
///
/// # Errors
///
/// All mistakes, each a sentence that names the flag.
pub fn parse(words: &[String], context: Context) -> Result<RunCommand, Vec<String>> {
    flags::Reader::new(context, RunCommand::default()).command(words)
}

/// Parses flags without an image or a command, and applies them to `part`.
///
/// # Errors
///
/// All mistakes, each a sentence that names the flag.
pub fn parse_flags(words: &[String], part: PodFragment, context: Context) -> Result<RunCommand, Vec<String>> {
    flags::Reader::new(context, RunCommand { part, ..RunCommand::default() }).flags_only(words)
}
