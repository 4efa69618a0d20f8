//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

mod app;
mod engine;
pub mod fleet;
mod objects;
mod oidc;

pub use app::*;
pub use engine::*;
pub use objects::*;
pub use oidc::OidcArgs;

/// Default time to wait for readiness, the progress deadline of a Deployment in Kubernetes.
pub const READY_TIMEOUT: Duration = Duration::from_secs(600);
/// Default time for which a process without a probe has to run before it counts as ready.
pub const SETTLE_TIME: Duration = Duration::from_secs(2);

/// Where `up` and `dev` keep their data, and clients look for a kubeconfig, unless told otherwise.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/yado";

const EXAMPLES: &str = "\
Examples:
  yado dev examples/guestbook      build and run an app here; Ctrl-C removes it all
  yado dev ssh                     a shell inside what `yado dev` runs
  yado compile                     see the Kubernetes objects of the app in this directory
  yado infra                       start the engine in the background, to deploy to
  yado deploy                      build and run the app in this directory, to stay
  yado status                      what is deployed, and where
  yado ps                          what runs
  yado logs -f web                 follow the logs of every web process
  yado exec web -- ls              run a command beside a process
  yado down                        remove the app; a dependency goes with the last app that needs it
  yado infra destroy               stop the engine and remove everything but the images

Exit codes: 0 done, 1 failed, 2 wrong command line or description.";

const DEV_WORDS: &str = "\
What is interpreted (Ruby, Node, Python, PHP, pages, and whatever a Procfile alone starts) runs from its own folder:
an edit is seen at once, as far as the program reads its files again. The folder is /app in the container, whose process
runs as the folder's owner. What is compiled is built and started anew by itself when a file changes, as is everything
when an Appfile, a Procfile or a list of dependencies does. Folders of dependencies are in the app's containers too, as
/otto-deps/NAME-ID.

It has an engine of its own, and ends with it. A port that a compose file publishes is open on this machine; where that
is 8080, the router takes the next one.";

const BUILD_WORDS: &str = "\
Each image is called yado.local/NAME, with a tag that is its content: the same sources give the same image, and a second
build finds it there. It needs no running engine, and goes through the one that runs.

With --artifacts DIR (or YADO_ARTIFACTS) every image is kept in that directory, as NAME-KEY.tar, KEY being a digest of the
sources: whoever shares the directory need not build what is in it. `yado deploy --artifacts DIR` reads it too.";

const DEPLOY_WORDS: &str = "\
It goes to the Kubernetes that `yado status` and `kubectl` talk to: the engine of `yado infra`, or the cluster of your
KUBECONFIG; for the latter, images must be where that cluster can pull them.

Dependencies are deployed too, each once: apps that name the same one share it, and it goes with the last of them. Each
is found by its name, and as NAME.service.consul. Deployed again, only what is different is changed, and what the
description no longer has is removed, but volumes, which only `yado down --volumes` removes.

Lines of the diff: + added, ~ changed, - destroyed.";

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
  compose.yaml, docker-compose.yml (of any version), *.dab
             a compose project, in a namespace of its name; -f FILE names
             another, and again files that are laid over it
  Procfile   process types, one a line, as web: COMMAND; the Debian
             packages that they need go into an Aptfile
  Chart.yaml, kustomization.yaml
             rendered by your own helm or kustomize
  *.service  fleet units (see `yado fleet` too)
  sources    in Ruby, Node, Python, PHP, Go, Java, Rust, or pages: an
             application with the name of its directory
  *.yaml     Kubernetes manifests of any age (also .yml, .json)

A path of - is standard input, and an http(s) URL is fetched. What is in a
file yado-overlay.yaml beside the description is laid over its objects.

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

impl Cli {
    /// Reads the program's own command line. What stands behind `fleet` may have long options with one hyphen, as
    /// fleetctl's scripts have them.
    pub fn of_program() -> Self {
        Self::parse_from(fleet::with_two_hyphens(std::env::args_os()))
    }
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Kubernetes to talk to [default: KUBECONFIG, the one of `yado up` or `yado dev` here, ~/.kube/config];
    /// with `up` and `dev` one more kubeconfig to add the engine to, as its current context
    // KUBECONFIG is not read here: `up` would write to the user's own file unasked.
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
    #[command(display_order = 1, after_help = DEV_WORDS)]
    Dev(DevArgs),
    /// Build the images of an app and of all that it depends on
    #[command(display_order = 3, after_help = BUILD_WORDS)]
    Build(BuildArgs),
    /// Run the engine of this machine in the background, with the services that all apps share
    #[command(display_order = 4)]
    Infra(InfraArgs),
    /// Build and run an app and all that it depends on, to stay
    #[command(display_order = 5, after_help = DEPLOY_WORDS)]
    Deploy(DeployArgs),
    /// Run the engine alone, in the foreground: a one-node Kubernetes
    #[command(display_order = 7)]
    Up(UpArgs),
    /// Remove everything that a yado which is not running has left here, but the images
    #[command(display_order = 15)]
    Reset(ResetArgs),
    /// Bring images to this machine and list them
    #[command(display_order = 14, subcommand)]
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
    /// Turn a description (Appfile, compose file, unit, Procfile, manifests) into Kubernetes objects, as readable files
    #[command(display_order = 2, after_help = DESCRIPTIONS)]
    Compile(CompileArgs),
    /// Say what is deployed, of which revision, how much of it is ready, and where
    #[command(display_order = 6)]
    Status(StatusArgs),
    /// Create or change objects from manifests
    #[command(display_order = 8)]
    Apply(ApplyArgs),
    /// List processes
    #[command(display_order = 9)]
    Ps(PsArgs),
    /// Show the logs of processes
    #[command(display_order = 10)]
    Logs(LogsArgs),
    /// Run a command beside a running process
    #[command(display_order = 11)]
    Exec(ExecArgs),
    /// Remove an app, or what manifests describe
    #[command(display_order = 12)]
    Down(DownArgs),
    /// Work with fleet units, by fleetctl's verbs
    #[command(display_order = 9, after_help = fleet::HELP)]
    Fleet(Box<fleet::FleetArgs>),
    /// Print the version
    #[command(display_order = 16)]
    Version,
    /// Print a shell's completion script: `source <(yado completions bash)`
    #[command(display_order = 17)]
    Completions {
        /// The shell
        shell: Shell,
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
            ("dev", "path: \".\", files: []"),
            ("dev ./ssh -d", "path: \"./ssh\""),
            ("dev ssh web -- ls -l", "Ssh { process: Some(\"web\")"),
            ("dev halt", "Destroy(DevRun"),
            ("dev vagrant status --x", "Vagrant { args: [\"status\", \"--x\"] }"),
            ("compile -f a.yaml -f b.yaml --profile p", "files: [\"a.yaml\", \"b.yaml\"], profiles: [\"p\"]"),
            ("deploy - -p shop --dry-run", "path: \"-\""),
            (
                "deploy destroy shop -v",
                "Destroy(DownArgs { app: Some(\"shop\"), files: [], all: false, volumes: true",
            ),
            ("infra --http-port 1", "command: None, up: InfraUp { engine: UpArgs"),
            ("infra destroy --force", "Destroy { of: InfraOf"),
            ("exec web -- ls -l", "command: [\"ls\", \"-l\"]"),
            (
                "up --data-dir /d --api-port 1 --http-port 2 --name n",
                "api_port: 1, http_port: 2, name: Some(\"n\")",
            ),
            (
                "up --trusted-proxies 10.1.2.3/8,192.0.2.1 --trusted-proxies fd00::/8",
                "trusted_proxies: [10.0.0.0/8, 192.0.2.1/32, fd00::/8]",
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
