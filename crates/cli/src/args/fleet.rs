//! The command line of `yado fleet`: fleetctl's.

use std::ffi::OsString;

use clap::{Args, Subcommand};

/// What `yado fleet --help` ends with.
pub const HELP: &str = "\
Units are kept in the cluster as ConfigMaps and run as Deployments, DaemonSets
and Jobs: `yado ps`, `yado logs` and kubectl see them too. Machines are nodes.
Options may have one hyphen, as in -full, as older fleetctls took them.

  yado fleet start web@1 web@2       # of web@.service in this directory
  yado fleet list-units
  yado fleet journal -f web@1
  yado fleet submit web@.service     # changed: replaces it and its instances";

/// `yado fleet`.
#[derive(Debug, Clone, Args)]
pub struct FleetArgs {
    /// The verb
    #[command(subcommand)]
    pub command: FleetCommand,
    /// How fleetctl reached its cluster; without effect
    #[command(flatten)]
    pub reach: Reach,
}

/// Options that said how to reach fleet. Here the kubeconfig does.
#[derive(Debug, Clone, Args)]
pub struct Reach {
    /// Without effect
    #[arg(long, global = true, hide = true, value_name = "ADDRESS")]
    pub tunnel: Option<String>,
    /// Without effect
    #[arg(long, global = true, hide = true, value_name = "URL")]
    pub endpoint: Option<String>,
    /// Without effect
    #[arg(long, global = true, hide = true, value_name = "NAME")]
    pub driver: Option<String>,
    /// Without effect
    #[arg(long, global = true, hide = true, value_name = "PREFIX")]
    pub etcd_key_prefix: Option<String>,
    /// Without effect
    #[arg(long, global = true, hide = true, value_name = "SECONDS")]
    pub request_timeout: Option<String>,
    /// Without effect
    #[arg(long, global = true, hide = true, value_name = "SECONDS")]
    pub ssh_timeout: Option<String>,
    /// Without effect
    #[arg(long, global = true, hide = true, value_name = "USER")]
    pub ssh_username: Option<String>,
    /// Without effect
    #[arg(long, global = true, hide = true, value_name = "PORT")]
    pub ssh_port: Option<String>,
    /// Without effect
    #[arg(long, global = true, hide = true, num_args = 0..=1, require_equals = true, value_name = "BOOL")]
    pub strict_host_key_checking: Option<Option<String>>,
    /// Without effect
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    pub known_hosts_file: Option<String>,
    /// Without effect
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    pub ca_file: Option<String>,
    /// Without effect
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    pub cert_file: Option<String>,
    /// Without effect
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    pub key_file: Option<String>,
    /// Without effect
    #[arg(long, global = true, hide = true, num_args = 0..=1, require_equals = true, value_name = "BOOL")]
    pub experimental_api: Option<Option<String>>,
    /// Without effect
    #[arg(long, global = true, hide = true)]
    pub debug: bool,
}

impl Reach {
    /// Whether one is there that asks for another cluster than the kubeconfig's.
    pub fn asks(&self) -> bool {
        self.tunnel.is_some()
            || self.endpoint.is_some()
            || self.driver.is_some()
            || self.etcd_key_prefix.is_some()
    }
}

/// fleetctl's verbs.
#[derive(Debug, Clone, Subcommand)]
pub enum FleetCommand {
    /// Upload one or more units to the cluster without starting them
    Submit(Units),
    /// Schedule one or more units in the cluster, first submitting them if necessary
    Load(Blocking),
    /// Start one or more units in the cluster, first submitting and loading if necessary
    Start(Blocking),
    /// Stop one or more units in the cluster
    Stop(Blocking),
    /// Stop and start one or more units in the cluster
    Restart(Blocking),
    /// Unschedule one or more units in the cluster
    Unload(Blocking),
    /// Destroy one or more units in the cluster
    Destroy(Blocking),
    /// Output the contents of a submitted unit
    Cat {
        /// The unit
        unit: String,
    },
    /// Output the status of one or more units in the cluster
    Status {
        /// The units
        #[arg(required = true)]
        units: Vec<String>,
    },
    /// List the current state of units in the cluster
    ListUnits(List),
    /// List the units that exist in the cluster
    ListUnitFiles(List),
    /// Enumerate the current hosts in the cluster
    ListMachines(List),
    /// Print the journal of a unit in the cluster
    Journal(Journal),
    /// Open a shell beside a unit's process, or on a machine
    Ssh(Ssh),
    /// Tell of mistakes in unit files, without a cluster
    Verify(Units),
    /// Print the version
    Version,
}

/// Units to submit.
#[derive(Debug, Clone, Args)]
pub struct Units {
    /// Unit files
    pub units: Vec<String>,
    /// Without effect, as changed units are always replaced
    #[arg(long)]
    pub replace: bool,
    /// Without effect
    #[arg(long, hide = true)]
    pub sign: bool,
}

/// Units to change, and whether to wait.
#[derive(Debug, Clone, Args)]
pub struct Blocking {
    /// Units, or files of units
    pub units: Vec<String>,
    /// Do not wait until it is done
    #[arg(long)]
    pub no_block: bool,
    /// Wait for so many times two seconds; 0 is no limit
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub block_attempts: u32,
    /// Put the files of the units in the place of what was submitted
    #[arg(long)]
    pub replace: bool,
    /// Without effect
    #[arg(long, hide = true)]
    pub sign: bool,
}

/// What to list.
#[derive(Debug, Clone, Args)]
pub struct List {
    /// Do not ellipsize fields
    #[arg(long, short = 'l')]
    pub full: bool,
    /// Do not print column headers
    #[arg(long)]
    pub no_legend: bool,
    /// Columns, separated by commas
    #[arg(long)]
    pub fields: Option<String>,
}

/// `yado fleet journal`.
#[derive(Debug, Clone, Args)]
pub struct Journal {
    /// The unit
    pub unit: String,
    /// Number of recent log lines
    #[arg(long, default_value_t = 10)]
    pub lines: u32,
    /// Continuously print new entries
    #[arg(long, short)]
    pub follow: bool,
    /// Without effect
    #[arg(long, hide = true)]
    pub sudo: bool,
    /// `short`, or `cat` for the lines alone
    #[arg(long, short, default_value = "short")]
    pub output: String,
}

/// `yado fleet ssh`.
#[derive(Debug, Clone, Args)]
pub struct Ssh {
    /// A machine
    #[arg(long)]
    pub machine: Option<String>,
    /// A unit
    #[arg(long)]
    pub unit: Option<String>,
    /// Without effect
    #[arg(long, short = 'A', hide = true)]
    pub forward_agent: bool,
    /// A machine or unit, and the command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

/// Long options that may be written with one hyphen.
const LONG: [&str; 29] = [
    "full",
    "no-legend",
    "fields",
    "no-block",
    "block-attempts",
    "replace",
    "sign",
    "lines",
    "follow",
    "sudo",
    "output",
    "machine",
    "unit",
    "forward-agent",
    "tunnel",
    "endpoint",
    "driver",
    "etcd-key-prefix",
    "request-timeout",
    "ssh-timeout",
    "ssh-username",
    "ssh-port",
    "strict-host-key-checking",
    "known-hosts-file",
    "ca-file",
    "cert-file",
    "key-file",
    "experimental-api",
    "debug",
];

/// The command line with two hyphens before long options behind `fleet`, but for the command of `fleet ssh`.
pub fn with_two_hyphens(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let (mut fleet, mut open) = (false, true);
    let mut out: Vec<OsString> = Vec::new();
    for arg in args {
        let text = arg.to_str().unwrap_or_default();
        let name = text.strip_prefix('-').map(|t| t.split('=').next().unwrap_or(t));
        let changed = name.filter(|n| fleet && open && LONG.contains(n)).map(|_| format!("-{text}").into());
        // A program's own arguments stay as they are.
        open &= text != "--" && text != "ssh";
        fleet |= text == "fleet";
        out.push(changed.unwrap_or(arg));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_options_may_have_one_hyphen() {
        let check = |line: &str, expect: &str| {
            let words = with_two_hyphens(line.split(' ').map(OsString::from));
            let words: Vec<String> = words.into_iter().map(|w| w.into_string().unwrap()).collect();
            assert_eq!(words.join(" "), expect);
        };
        check("yado fleet list-units -full -fields=unit -l", "yado fleet list-units --full --fields=unit -l");
        check("yado fleet journal -lines 3 -f web", "yado fleet journal --lines 3 -f web");
        check("yado fleet ssh web ls -full", "yado fleet ssh web ls -full");
        check("yado logs -full", "yado logs -full");
    }
}
