//! Appfiles: HCL as Otto 0.1 and 0.2 wrote it.
//!
//! ```hcl
//! application {
//!   name = "guestbook"
//!   type = "python"                              # may be left out where the directory shows it
//!   dependency { source = "./redis-leader" }     # another directory with an Appfile and an .ottoid
//! }
//! project {                                      # this and infrastructure may be left out together
//!   name           = "guestbook"
//!   infrastructure = "home"
//! }
//! infrastructure "home" {}
//! import "./shared" {}                           # merged over this file
//!
//! customization { port = 6379 }                  # unnamed is "app": the application itself
//! customization "scale" { web = 3 }              # number of processes of each type; 1 by default
//! customization "env" { GREETING = "hello" }     # environment of every process
//! customization "docker" {                       # for type "docker-external"
//!   image    = "redis:3"
//!   run_args = "-p 6379:6379"                    # flags of `docker run`
//! }
//! ```
//!
//! Everything is optional: the name defaults to that of the directory, and the type is detected from its files. Otto's
//! other settings are accepted: `python_entrypoint = "site:app"` and `run_command` define how a `web` process is started,
//! and settings without an equivalent (`vagrantfile`, `packer`, `terraform`, versions that are not in Debian) give a
//! warning. Names of customizations other than `env` and `scale` have no meaning, as in Otto 0.2.
//!
//! # Sources
//!
//! A dependency's or import's source is a directory (`./db`, `../db`, `/srv//db`), `github.com/OWNER/REPOSITORY/DIRECTORY`
//! (and `bitbucket.org`, `gitlab.com`), any git or Mercurial repository (`git::https://...//DIRECTORY?ref=v1`,
//! `hg::...?rev=tip`, `git@host:...`), an archive (`https://.../a.tar.gz?checksum=sha256:...`), or a page that names one
//! of these (`X-Otto-Get`, `<meta name="otto-get">`). A fetched source is stored in `.yado/deps/NAME`, where NAME is the
//! application's name, until its address changes or an update is requested. It may refer to other directories of its own
//! repository (`../other`) but to no other path on this machine. git and hg are the user's own programs.
//! `github.com/hashicorp/otto/examples/...` is built in, as Otto's repository no longer holds them.
//!
//! A dependency needs an `.ottoid`, except a fetched one, which is then identified by its name.
//!
//! # Consul
//!
//! The foundation `consul` needs no installation: the engine's name server answers `NAME.service.consul` for every
//! application.
//!
//! [`parse`] reads one file, [`load`] follows imports and dependencies, [`check`] validates a whole file, `settings` reads
//! the customizations, `lower` builds objects.

pub mod check;
mod implicit;
pub mod load;
mod lower;
mod merge;
pub mod parse;
mod resolve;
mod settings;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Compiled, Diagnostics, Options, diagnostic::Position};

/// One Appfile, imports merged in or not yet.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Appfile {
    /// The `application` block.
    pub application: Option<Application>,
    /// The `project` block.
    pub project: Option<Project>,
    /// The `infrastructure` blocks.
    pub infrastructures: Vec<Infrastructure>,
    /// The `customization` blocks in the order written.
    pub customizations: Vec<Customization>,
    /// The `import` blocks.
    pub imports: Vec<Import>,
    /// Warnings about settings without effect.
    pub warnings: Vec<crate::Diagnostic>,
}

/// `application { ... }`.
#[derive(Debug, Clone, PartialEq)]
pub struct Application {
    /// Where the block starts.
    pub at: Position,
    /// Its name, if given.
    pub name: Option<Text>,
    /// Its type; `None` if it is to be detected.
    pub app_type: Option<Text>,
    /// Whether the type may be detected from the directory's files.
    pub detect: bool,
    /// Sources of its dependencies.
    pub dependencies: Vec<Text>,
}

/// `project { ... }`.
#[derive(Debug, Clone, PartialEq)]
pub struct Project {
    /// Where the block starts.
    pub at: Position,
    /// The project's name.
    pub name: Option<Text>,
    /// Which `infrastructure` block the project uses.
    pub infrastructure: Option<Text>,
}

/// `infrastructure "NAME" { ... }`.
#[derive(Debug, Clone, PartialEq)]
pub struct Infrastructure {
    /// Its name.
    pub name: Text,
    /// Its type; defaults to the name.
    pub infra_type: String,
    /// Its flavor; empty if not given.
    pub flavor: String,
    /// Its `foundation "NAME" { ... }` blocks.
    pub foundations: Vec<Customization>,
}

/// `customization "NAME" { ... }` and, as it has the same shape, `foundation "NAME" { ... }`.
#[derive(Debug, Clone, PartialEq)]
pub struct Customization {
    /// Where the block starts.
    pub at: Position,
    /// The name in lower case; `app` if not given.
    pub name: String,
    /// The settings, in the order written.
    pub settings: Vec<Setting>,
}

/// `key = value`, or a nested block as an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Where the key is.
    pub at: Position,
    /// Where the value is.
    pub value_at: Position,
    /// The key.
    pub key: String,
    /// The value.
    pub value: Value,
}

/// `import "SOURCE" {}`.
#[derive(Debug, Clone, PartialEq)]
pub struct Import {
    /// What to import, a directory with an Appfile.
    pub source: Text,
}

/// A string and its position.
#[derive(Debug, Clone, PartialEq)]
pub struct Text {
    /// Where.
    pub at: Position,
    /// The string.
    pub value: String,
}

/// Compiles the Appfile at `file` and all its dependencies. `file` may also be a Procfile or a source directory, which is
/// an application named after the directory.
pub fn compile(file: &Path, options: &Options) -> Result<Compiled, Diagnostics> {
    lower::compile(load::load(file, options)?, options)
}

/// The application name in the Appfile in `directory`, imports not considered.
pub(crate) fn name_in(directory: &Path) -> Option<String> {
    let file = parse::parse_file(&directory.join("Appfile")).ok()?;
    Some(file.application?.name?.value)
}

/// Whether applications of this type run an existing image and have no sources.
fn is_docker(app_type: &str) -> bool {
    // The first is Otto's name; the second is a common mistake for it.
    ["docker-external", "docker"].contains(&app_type)
}

/// The directory that holds `file`: `.` for a bare file name.
fn directory_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.into(),
        _ => PathBuf::from("."),
    }
}
