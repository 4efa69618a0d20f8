//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Where `up` and `dev` keep their data, and clients look for a kubeconfig, unless told otherwise.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/yado";

const EXAMPLES: &str = "\
Examples:
  yado dev examples/guestbook      build and run an app here; Ctrl-C removes it all
  yado compile                     see the Kubernetes objects of the app in this directory
  yado up                          run the engine alone, for kubectl and the commands below
  yado apply -f .yado/compiled     start what was compiled
  yado ps                          what runs
  yado logs -f web                 follow the logs of every web process
  yado exec web -- ls              run a command beside a process
  yado down                        remove the app
  yado reset                       remove what a stopped engine has left on this machine

Exit codes: 0 done, 1 failed, 2 wrong command line or description.";

const DESCRIPTIONS: &str = "\
Understood are, in a directory, the first of these that is there:

  Appfile    an application, what it depends on, and how it runs:
               application {
                 name = \"shop\"
                 dependency { source = \"./db\" }    # a directory like this
               }
               customization { port = 3000 }       # of its web process
               customization \"scale\" { web = 3 }
               customization \"env\" { LANG = \"C\" }
             or, with type = \"docker-external\", an image as it is:
               customization {
                 image    = \"redis:3\"
                 run_args = \"-p 6379:6379\"
               }
             A dependency needs its .ottoid, which `compile` makes.
  Procfile   process types, one a line, as web: COMMAND; the Debian
             packages that they need go into an Aptfile
  *.yaml     Kubernetes manifests (also .yml, .json), passed through

An application with a Procfile becomes an image yado.local/NAME and, for
each process type, a Deployment NAME-TYPE. Its web process listens on
$PORT (8080); others find it as NAME, port 80, and a browser as
NAME.localhost.";

/// Your own Heroku with Kubernetes inside, in one binary.
#[derive(Debug, Parser)]
#[command(name = "yado", version, about, long_about = None, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Kubernetes to talk to [default: KUBECONFIG, the one of `yado up` or `yado dev` here, ~/.kube/config];
    /// with `up` and `dev` one more file to write the engine's kubeconfig to
    // KUBECONFIG is not read here: `up` would write to the user's own file.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace to work in [default: the kubeconfig's]
    #[arg(long, short = 'n', global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Colours and redrawn progress
    #[arg(long, global = true, value_enum, default_value_t = When::Auto, value_name = "WHEN")]
    pub color: When,
}

/// When to use what only a terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Every command of the binary.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build and run an app on this machine and follow its logs; Ctrl-C removes it all
    #[command(display_order = 1)]
    Dev(DevArgs),
    /// Run the engine alone, in the foreground: a one-node Kubernetes
    #[command(display_order = 2)]
    Up(UpArgs),
    /// Remove everything that a yado which is not running has left here, but the images
    #[command(display_order = 10)]
    Reset(ResetArgs),
    /// Bring images to this machine and list them
    #[command(display_order = 9, subcommand)]
    Image(ImageCommand),
    /// The process that holds one Pod's containers; started by the engine, never by hand
    #[command(hide = true, disable_help_flag = true)]
    Shim {
        /// As the engine passes them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<std::ffi::OsString>,
    },
    /// A command of this crate.
    #[command(flatten)]
    Client(ClientCommand),
}

/// Commands that need the API and this machine's files, not the engine.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Turn a description (Appfile, Procfile, manifests) into Kubernetes objects, as readable files
    #[command(display_order = 3, after_help = DESCRIPTIONS)]
    Compile(CompileArgs),
    /// Create or change objects from manifests
    #[command(display_order = 4)]
    Apply(ApplyArgs),
    /// List processes
    #[command(display_order = 5)]
    Ps(PsArgs),
    /// Show the logs of processes
    #[command(display_order = 6)]
    Logs(LogsArgs),
    /// Run a command beside a running process
    #[command(display_order = 7)]
    Exec(ExecArgs),
    /// Remove an app, or what manifests describe
    #[command(display_order = 8)]
    Down(DownArgs),
    /// Print the version
    #[command(display_order = 10)]
    Version,
    /// Print a shell's completion script: `source <(yado completions bash)`
    #[command(display_order = 11)]
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// `yado dev`.
#[derive(Debug, Clone, Args)]
pub struct DevArgs {
    /// Directory of the app, or its Appfile, Procfile or manifest
    #[arg(default_value = ".")]
    pub path: PathBuf,
    /// Port on which apps answer, as in `http://NAME.localhost:PORT`
    #[arg(long, default_value_t = 8080, value_name = "PORT")]
    pub http_port: u16,
    /// Port of the Kubernetes API on 127.0.0.1; 0 takes any free one
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    pub api_port: u16,
    /// Where images and state are kept between runs
    #[arg(long, env = "YADO_DATA_DIR", default_value = DEFAULT_DATA_DIR, value_name = "DIR")]
    pub data_dir: PathBuf,
}

/// `yado up`.
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// Where state, images and the kubeconfig are kept
    #[arg(long, env = "YADO_DATA_DIR", default_value = DEFAULT_DATA_DIR, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Port of the Kubernetes API on 127.0.0.1; 0 takes any free one
    #[arg(long, default_value_t = 6443, value_name = "PORT")]
    pub api_port: u16,
    /// Port on which apps answer, as in `http://NAME.localhost:PORT`; 0 takes any free one
    #[arg(long, default_value_t = 8080, value_name = "PORT")]
    pub http_port: u16,
    /// Name of this node [default: the host name]
    #[arg(long, value_name = "NODE")]
    pub name: Option<String>,
}

/// `yado reset`.
#[derive(Debug, Clone, Args)]
pub struct ResetArgs {
    /// Where it kept its data
    #[arg(long, env = "YADO_DATA_DIR", default_value = DEFAULT_DATA_DIR, value_name = "DIR")]
    pub data_dir: PathBuf,
}

/// `yado image`.
#[derive(Debug, Clone, Subcommand)]
pub enum ImageCommand {
    /// Import images from archives (OCI layout or `docker save`; plain, gzip or zstd)
    Import {
        /// The archives; - is standard input
        #[arg(required = true, value_name = "ARCHIVE")]
        archives: Vec<PathBuf>,
        /// Where images are kept
        #[arg(long, env = "YADO_DATA_DIR", default_value = DEFAULT_DATA_DIR, value_name = "DIR")]
        data_dir: PathBuf,
    },
    /// List images
    #[command(alias = "list")]
    Ls {
        /// Where images are kept
        #[arg(long, env = "YADO_DATA_DIR", default_value = DEFAULT_DATA_DIR, value_name = "DIR")]
        data_dir: PathBuf,
        /// Format
        #[arg(long, short, value_enum)]
        output: Option<Format>,
    },
}

/// A format for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// JSON
    Json,
    /// YAML
    Yaml,
}

/// `yado compile`.
#[derive(Debug, Clone, Args)]
pub struct CompileArgs {
    /// Directory of the app, or its Appfile, Procfile or manifest
    #[arg(default_value = ".")]
    pub path: PathBuf,
    /// Where to write the objects [default: .yado/compiled below the app's directory]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Print the objects as well: as JSON (a List) or YAML
    #[arg(long, short, value_enum)]
    pub output: Option<Format>,
    /// Only check; write nothing
    #[arg(long)]
    pub check: bool,
}

/// `yado apply`.
#[derive(Debug, Clone, Args)]
pub struct ApplyArgs {
    /// Manifest or directory of manifests; - is standard input
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Wait until every Deployment is available
    #[arg(long)]
    pub wait: bool,
}

/// `yado ps`.
#[derive(Debug, Clone, Args)]
pub struct PsArgs {
    /// An app, a process (`web`, `guestbook.web`, `guestbook.web.1`) or a Pod [default: all]
    pub name: Option<String>,
    /// Format
    #[arg(long, short, value_enum)]
    pub output: Option<Format>,
}

/// `yado logs`.
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// An app, a process (`web`, `guestbook.web`, `guestbook.web.1`) or a Pod [default: all]
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
    /// The app to remove [default: the only one there is]
    pub app: Option<String>,
    /// Remove what this manifest or directory of manifests describes
    #[arg(short = 'f', long = "filename", value_name = "FILE", conflicts_with = "app")]
    pub files: Vec<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_option_says_what_it_is_for() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "{path} has no help");
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{path} {} has no help", arg.get_id());
            }
            command.get_subcommands().for_each(|c| check(c, &path));
        }
        check(&Cli::command(), "");
    }

    #[test]
    fn commands_are_read() {
        for (line, expect) in [
            ("dev", "Dev(DevArgs { path: \".\", http_port: 8080"),
            ("exec web -- ls -l", "command: [\"ls\", \"-l\"]"),
            (
                "up --data-dir /d --api-port 1 --http-port 2 --name n",
                "api_port: 1, http_port: 2, name: Some(\"n\")",
            ),
            ("logs -f web", "name: Some(\"web\"), follow: true"),
            ("shim --id x", "Shim { args: [\"--id\", \"x\"] }"),
            ("image import a.tar b.tar", "archives: [\"a.tar\", \"b.tar\"]"),
        ] {
            let cli = Cli::try_parse_from(std::iter::once("yado").chain(line.split(' '))).unwrap();
            let text = format!("{:?}", cli.command);
            assert!(text.contains(expect), "{line}: {text}");
        }
    }
}
