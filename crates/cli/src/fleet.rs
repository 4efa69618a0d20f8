//! `yado fleet`: fleetctl's verbs, over the Kubernetes API.
//!
//! A unit is a ConfigMap ([`registry`]); what it has become are the objects that `yado_compile::fleet` makes of it. What
//! runs is told from Pods and nodes ([`state`]). So it works against any cluster, and `kubectl` sees all of it.

mod change;
mod list;
mod registry;
mod remove;
mod show;
mod state;

use std::io::Write;

use anyhow::Context;
use change::Change;
use registry::{Registry, Unit};
use state::Cluster;
use yado_compile::fleet::UnitName;

use crate::{
    EXIT_FAILURE, EXIT_OK, Usage,
    args::{
        ExecArgs, Global,
        fleet::{self as args, FleetArgs, FleetCommand, Ssh},
    },
    connect::connect,
    exec,
};

/// `yado fleet`.
pub(crate) async fn run(global: &Global, args: &FleetArgs) -> anyhow::Result<u8> {
    if args.reach.asks() {
        say_error(
            "WARNING: the cluster is the kubeconfig's; --tunnel, --endpoint and the like have no effect",
        );
    }
    match &args.command {
        FleetCommand::Version => {
            say(&format!("fleetctl version {}", env!("CARGO_PKG_VERSION")))?;
            return Ok(EXIT_OK);
        }
        FleetCommand::Verify(units) => return verify(&units.units),
        _ => {}
    }
    let (client, namespace) = connect(global).await?;
    let registry = Registry::read(&client, &namespace).await?;
    let mut change = Change { client: client.clone(), namespace: namespace.clone(), registry };
    match &args.command {
        FleetCommand::Submit(units) => {
            if none(&units.units) {
                return Ok(EXIT_OK);
            }
            let (_, replaced) = change.submit(&units.units).await.map_err(creating)?;
            let blocking = args::Blocking {
                units: Vec::new(),
                no_block: false,
                block_attempts: 0,
                replace: false,
                sign: false,
            };
            change.launch(&replaced, &blocking).await?;
        }
        FleetCommand::Load(b) if !none(&b.units) => change.load(b).await?,
        FleetCommand::Start(b) if !none(&b.units) => change.start(b).await?,
        FleetCommand::Stop(b) if !none(&b.units) => {
            return Ok(if change.stop(b).await? { EXIT_OK } else { EXIT_FAILURE });
        }
        FleetCommand::Restart(b) if !none(&b.units) => change.restart(b).await?,
        FleetCommand::Unload(b) if !none(&b.units) => change.unload(b).await?,
        FleetCommand::Destroy(b) if !none(&b.units) => change.destroy(b).await?,
        FleetCommand::Cat { unit } => print(&known(&change.registry, unit)?.text)?,
        FleetCommand::ListUnits(l) => {
            let cluster = Cluster::read(&client, &namespace).await?;
            print(&list::units(l, &change.registry, &cluster)?)?;
        }
        FleetCommand::ListUnitFiles(l) => {
            let cluster = Cluster::read(&client, &namespace).await?;
            print(&list::unit_files(l, &change.registry, &cluster)?)?;
        }
        FleetCommand::ListMachines(l) => {
            let cluster = Cluster::read(&client, &namespace).await?;
            print(&list::machines(l, &cluster)?)?;
        }
        FleetCommand::Status { units } => {
            let cluster = Cluster::read(&client, &namespace).await?;
            return status(&change, units, &cluster).await;
        }
        FleetCommand::Journal(j) => {
            let cluster = Cluster::read(&client, &namespace).await?;
            return show::journal(&client, &namespace, &change.registry, &cluster, j).await;
        }
        FleetCommand::Ssh(s) => {
            let cluster = Cluster::read(&client, &namespace).await?;
            return ssh(global, &change.registry, &cluster, s).await;
        }
        _ => {}
    }
    Ok(EXIT_OK)
}

/// fleetctl takes no units for nothing to do.
fn none(units: &[String]) -> bool {
    if units.is_empty() {
        say_error("No units given");
    }
    units.is_empty()
}

/// Mistakes of a unit are told as they are; anything else as fleetctl did.
fn creating(error: anyhow::Error) -> anyhow::Error {
    if error.is::<yado_compile::Diagnostics>() { error } else { error.context("Error creating units") }
}

async fn status(change: &Change, units: &[String], cluster: &Cluster) -> anyhow::Result<u8> {
    let names = change.found(units)?;
    if names.is_empty() {
        return Ok(EXIT_FAILURE);
    }
    let mut code = EXIT_OK;
    for (i, name) in names.iter().enumerate() {
        let unit = known(&change.registry, name.full())?;
        if unit.desired == registry::Desired::Inactive && !change.registry.is_launched(unit) {
            say_error(&format!("Unit {name} does not appear to be loaded."));
            return Ok(EXIT_FAILURE);
        }
        if i > 0 {
            say("")?;
        }
        let one = show::status(&change.client, &change.namespace, unit, cluster).await?;
        code = if code == EXIT_OK { one } else { code };
    }
    Ok(code)
}

/// `verify`: mistakes and warnings of files, as `yado compile --check` tells them.
fn verify(units: &[String]) -> anyhow::Result<u8> {
    for unit in units {
        let compiled = yado_compile::compile(std::path::Path::new(unit), &yado_compile::Options::default())?;
        compiled.warnings.iter().for_each(|w| say_error(&format!("WARNING: {w}")));
    }
    Ok(EXIT_OK)
}

/// A shell or a command beside a unit's process. A machine's own shell is the system's to give.
async fn ssh(global: &Global, registry: &Registry, cluster: &Cluster, ssh: &Ssh) -> anyhow::Result<u8> {
    if ssh.unit.is_some() && ssh.machine.is_some() {
        return Err(Usage("Both machine and unit flags provided, please specify only one.".into()).into());
    }
    let mut words = ssh.words.clone();
    let wanted = match ssh.unit.clone().or(ssh.machine.clone()) {
        Some(wanted) => wanted,
        None if words.is_empty() => return Err(Usage("one machine or unit must be provided".into()).into()),
        None => words.remove(0),
    };
    if words.first().is_some_and(|w| w == "--") {
        words.remove(0);
    }
    let machine = |m: &&state::Machine| m.id.starts_with(&wanted) || m.node == wanted;
    let unit = UnitName::new(&wanted)
        .ok()
        .and_then(|n| registry.units.get(n.full()))
        .filter(|_| ssh.machine.is_none());
    let Some(unit) = unit else {
        let machine = cluster.machines.iter().find(machine).filter(|_| ssh.unit.is_none());
        let machine = machine.context("Unable to proceed: could not find matching unit or machine")?;
        anyhow::bail!(
            "log in to a machine with its own ssh: ssh {}; `yado fleet ssh UNIT` opens a shell in a unit's container",
            machine.ip
        );
    };
    let pod = cluster.of(unit.name.full()).iter().find(|p| state::of_pod(p, false).active == "active");
    let pod = pod.with_context(|| format!("Unable to proceed: unit {} does not run", unit.name))?;
    let name = kube::ResourceExt::name_any(pod);
    // As ssh does: several words are a line for a shell.
    let command = match words.len() {
        0 => Vec::new(),
        _ => vec!["/bin/sh".into(), "-c".into(), words.join(" ")],
    };
    let args = ExecArgs { name, container: Some("main".into()), stdin: false, tty: false, command };
    exec::run(global, &args).await
}

fn known<'a>(registry: &'a Registry, name: &str) -> anyhow::Result<&'a Unit> {
    let name = UnitName::new(name).map_err(anyhow::Error::msg)?;
    registry.units.get(name.full()).with_context(|| format!("Unit {name} not found"))
}

/// A line on standard output.
fn say(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}

fn print(text: &str) -> std::io::Result<()> {
    std::io::stdout().write_all(text.as_bytes())
}

/// A line on standard error. Where that is closed nobody reads it.
fn say_error(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
