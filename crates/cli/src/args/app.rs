//! Commands on a description: `compile`, `dev`, `build`, `deploy`, `status`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{DEFAULT_DATA_DIR, Format};

/// Which description, and how it is read.
#[derive(Debug, Clone, Args)]
pub struct SourceArgs {
    /// Directory of the app, or its Appfile, compose file, unit, Procfile or manifest; an http(s) URL; - is standard input
    #[arg(default_value = ".")]
    pub path: PathBuf,
    /// Compose: the file to read; given again, files that are laid over it
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Compose: a profile to turn on, beside those in COMPOSE_PROFILES
    #[arg(long = "profile", value_name = "NAME")]
    pub profiles: Vec<String>,
    /// Compose and units: the project's name [default: the directory's]
    #[arg(short = 'p', long, value_name = "NAME")]
    pub project: Option<String>,
    /// A file of NAME=VALUE lines to fill in with, in compose instead of .env; the environment wins
    #[arg(long = "env-file", value_name = "FILE")]
    pub env_files: Vec<PathBuf>,
    /// Fetch dependencies that are elsewhere once more
    #[arg(long)]
    pub update: bool,
}

/// What a description is written as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum BackEnd {
    /// YAML that kubectl takes
    #[default]
    Kubernetes,
    /// A compose.yaml
    Compose,
}

/// Where the user's own edits belong.
const OVERLAY: &str = "\
Files that are written here are written anew by the next run. Edits of your own belong in yado-overlay.yaml beside the
description: parts of objects (kind, metadata.name and what is to be otherwise), laid over the generated ones each time
as kubectl patch would. Yado never writes that file.";

/// `yado compile`.
#[derive(Debug, Clone, Args)]
#[command(after_help = OVERLAY)]
pub struct CompileArgs {
    /// Which description.
    #[command(flatten)]
    pub source: SourceArgs,
    /// What to write: Kubernetes objects, or a compose file of the same meaning
    #[arg(long, value_enum, default_value_t)]
    pub format: BackEnd,
    /// Where to write it [default: .yado/compiled or .yado/compose below the app's directory]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print the objects as well: as JSON (a List) or YAML
    #[arg(long, short, value_enum)]
    pub output: Option<Format>,
    /// Only check; write nothing
    #[arg(long)]
    pub check: bool,
}

/// `yado dev`.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DevArgs {
    /// A word to the `yado dev` that runs.
    #[command(subcommand)]
    pub command: Option<DevCommand>,
    /// What to run.
    #[command(flatten)]
    pub start: DevStart,
}

/// `yado dev [PATH]`.
#[derive(Debug, Clone, Args)]
pub struct DevStart {
    /// Which description.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Port on which apps answer, as in `http://NAME.localhost:PORT` [default: 8080, or the next that is free]
    #[arg(long, value_name = "PORT")]
    pub http_port: Option<u16>,
    /// Port of the Kubernetes API on 127.0.0.1; 0 takes any free one
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    pub api_port: u16,
    /// Run in the background; `yado dev destroy` ends it
    #[arg(long, short)]
    pub detach: bool,
    /// What a run with `--detach` starts itself with
    #[arg(long, hide = true)]
    pub attached: bool,
    /// Run what was built, with no source folder in the containers, and rebuild nothing when files change
    #[arg(long)]
    pub no_live: bool,
    /// Pass processes' control sequences on to the terminal, instead of showing them
    #[arg(long)]
    pub raw: bool,
    /// Where images and state are kept between runs
    #[arg(long, env = "YADO_DATA_DIR", default_value = DEFAULT_DATA_DIR, value_name = "DIR")]
    pub data_dir: PathBuf,
}

/// A word to the `yado dev` that runs.
#[derive(Debug, Clone, Subcommand)]
pub enum DevCommand {
    /// Open a shell in the working directory of a process, the app's first unless named, or run a command there
    Ssh {
        /// A process (`web`, `guestbook.web.1`) [default: the app's web process, or its first]
        process: Option<String>,
        /// Which run.
        #[command(flatten)]
        of: DevRun,
        /// A command and its arguments [default: a shell]
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Print the addresses at which the app answers
    Address(DevRun),
    /// Say whether it runs, what of it, and where
    Status {
        /// Which run.
        #[command(flatten)]
        of: DevRun,
        /// Format
        #[arg(long, short, value_enum)]
        output: Option<Format>,
    },
    /// Follow the logs of all its processes
    Logs(DevRun),
    /// Otto passed this on to Vagrant; Yado has none
    #[command(hide = true)]
    Vagrant {
        /// As Vagrant would have got them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// End it and remove all of it but the images
    #[command(visible_alias = "halt")]
    Destroy(DevRun),
}

/// The `yado dev` of a data directory.
#[derive(Debug, Clone, Args)]
pub struct DevRun {
    /// Where it keeps its data
    #[arg(long, env = "YADO_DATA_DIR", default_value = DEFAULT_DATA_DIR, value_name = "DIR")]
    pub data_dir: PathBuf,
}

/// Where images are built, and where built ones are kept for others.
#[derive(Debug, Clone, Args)]
pub struct BuildPlace {
    /// A directory in which built images are kept for others: what is there already is not built again
    #[arg(long, env = "YADO_ARTIFACTS", value_name = "DIR")]
    pub artifacts: Option<PathBuf>,
    /// Where images are kept
    #[arg(long, env = "YADO_DATA_DIR", default_value = DEFAULT_DATA_DIR, value_name = "DIR")]
    pub data_dir: PathBuf,
}

/// `yado build`.
#[derive(Debug, Clone, Args)]
pub struct BuildArgs {
    /// Which description.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Where.
    #[command(flatten)]
    pub place: BuildPlace,
    /// Format of what is printed of the images
    #[arg(long, short, value_enum)]
    pub output: Option<Format>,
}

/// `yado deploy`.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DeployArgs {
    /// Something other than deploying.
    #[command(subcommand)]
    pub command: Option<DeployCommand>,
    /// What to deploy.
    #[command(flatten)]
    pub start: DeployStart,
}

/// `yado deploy [PATH]`.
#[derive(Debug, Clone, Args)]
pub struct DeployStart {
    /// Which description.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Where images are built.
    #[command(flatten)]
    pub place: BuildPlace,
    /// Show what would become of each object, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not wait until all processes are ready
    #[arg(long)]
    pub no_wait: bool,
    /// Seconds to wait for it
    #[arg(long, value_name = "SECONDS", default_value_t = super::READY_TIMEOUT.as_secs())]
    pub timeout: u64,
    /// Seconds for which a process must have run that has neither a port nor a probe
    #[arg(long, value_name = "SECONDS", default_value_t = super::SETTLE_TIME.as_secs())]
    pub settle: u64,
    /// Replace an app of the same name that was deployed from another place
    #[arg(long)]
    pub take_over: bool,
    /// Format of what is printed of the result
    #[arg(long, short, value_enum)]
    pub output: Option<Format>,
}

/// Something other than deploying.
#[derive(Debug, Clone, Subcommand)]
pub enum DeployCommand {
    /// Remove an app, and the dependencies that no other app needs; the same as `yado down`
    Destroy(super::DownArgs),
    /// Say what is deployed; the same as `yado status`
    Status(StatusArgs),
}

/// `yado status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// The app [default: all]
    pub app: Option<String>,
    /// Format
    #[arg(long, short, value_enum)]
    pub output: Option<Format>,
}
