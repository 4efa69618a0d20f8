//! Commands on what runs: `apply`, `ps`, `logs`, `exec`, `down`.

use std::path::PathBuf;

use clap::Args;

use super::Format;

/// `yado apply`.
#[derive(Debug, Clone, Args)]
pub struct ApplyArgs {
    /// Manifest, directory of manifests or http(s) address; - is standard input
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Wait until all that runs is ready
    #[arg(long)]
    pub wait: bool,
    /// With --wait: seconds for which a process must have run that nothing probes
    #[arg(long, value_name = "SECONDS", default_value_t = super::SETTLE_TIME.as_secs())]
    pub settle: u64,
    /// Show what would become of each object, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `yado ps`.
#[derive(Debug, Clone, Args)]
pub struct PsArgs {
    /// An app, a process (`web`, `guestbook.web`, `guestbook.web.1`) or a Pod [default: the app of the working directory,
    /// or all]
    pub name: Option<String>,
    /// Also those of other apps, where the working directory is an app's
    #[arg(long, short = 'A')]
    pub all: bool,
    /// Format
    #[arg(long, short, value_enum)]
    pub output: Option<Format>,
}

/// `yado logs`.
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// An app, a process (`web`, `guestbook.web`, `guestbook.web.1`) or a Pod [default: the app of the working directory,
    /// or all]
    pub name: Option<String>,
    /// Go on with what is written from now on, by new Pods too
    #[arg(long, short)]
    pub follow: bool,
    /// Lines of each container to begin with [default: all; with --follow the last 20]
    #[arg(long, value_name = "LINES")]
    pub tail: Option<u32>,
    /// Leave out the process in front of each line
    #[arg(long)]
    pub no_prefix: bool,
    /// Pass a process's control sequences on to the terminal, instead of showing them
    #[arg(long)]
    pub raw: bool,
    /// Also those of other apps, where the working directory is an app's
    #[arg(long, short = 'A')]
    pub all: bool,
}

/// `yado exec`.
#[derive(Debug, Clone, Args)]
pub struct ExecArgs {
    /// A process (`web`, `guestbook.web.1`) or a Pod
    pub name: String,
    /// The container, where the Pod has several
    #[arg(long, short, value_name = "NAME")]
    pub container: Option<String>,
    /// Pass standard input on [default: when it is a terminal]
    #[arg(long, short = 'i')]
    pub stdin: bool,
    /// Use a terminal [default: when standard input and output are one]
    #[arg(long, short = 't')]
    pub tty: bool,
    /// The command and its arguments [default: a shell]
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// `yado down`.
#[derive(Debug, Clone, Args)]
pub struct DownArgs {
    /// The app to remove [default: the one of the working directory, or the only one there is]
    pub app: Option<String>,
    /// Remove what this manifest, directory of manifests or http(s) address describes
    #[arg(short = 'f', long = "filename", value_name = "FILE", conflicts_with = "app")]
    pub files: Vec<PathBuf>,
    /// Remove all apps, naming each
    #[arg(long, conflicts_with_all = ["app", "files"])]
    pub all: bool,
    /// Remove its volumes too, with all that is in them
    #[arg(long, short = 'v')]
    pub volumes: bool,
}
