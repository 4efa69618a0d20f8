//! The binary: configuration, wiring, signals.
//!
//! Start with [`engine`]: it puts the parts together. [`up`], [`dev`], [`build`], [`deploy`], [`infra`] and [`image`]
//! are the commands that need them; all others are in `yado-cli`.
#![allow(clippy::print_stdout)] // it speaks to a terminal

mod answers;
mod audit;
mod authority;
mod background;
mod build;
mod builder;
mod collect;
mod control;
mod data_dir;
mod deploy;
mod dev;
mod engine;
mod image;
mod infra;
mod kubeconfig;
mod leader;
mod memory;
mod node_name;
mod oidc;
mod renewal;
mod reset;
mod signals;
mod storage;
mod up;
mod volumes;
mod wiring;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use yado_cli::args::{Cli, Command, DeployCommand};
use yado_cli::progress::use_colour;

fn main() -> ExitCode {
    let_no_huge_pages();
    // Before anything else: a shim must be a small process with one thread.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == yado_oci::runtime::SHIM_ARGUMENT) {
        yado_oci::runtime::shim_main(&args.collect::<Vec<_>>());
    }
    let cli = Cli::of_program();
    log_to_stderr(use_colour(cli.global.color, std::io::stderr().is_terminal()));
    end_on_panic();
    // It fails only where another provider is there already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(run(cli)),
        Err(error) => Err(anyhow::anyhow!("the threads that do the work cannot be started: {error}")),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let code = yado_cli::exit_code(&error);
            if code != yado_cli::EXIT_OK {
                // Where nobody can be told, on a full disk for one, the exit code still tells.
                let _ = writeln!(std::io::stderr(), "yado: {}", sentence(&error));
            }
            ExitCode::from(code)
        }
    }
}

/// An error with its causes, each said once: some errors' own text ends with their cause.
fn sentence(error: &anyhow::Error) -> String {
    let causes = error.chain().skip(1).map(ToString::to_string);
    causes.fold(
        error.to_string(),
        |text, cause| {
            if text.contains(&cause) { text } else { format!("{text}: {cause}") }
        },
    )
}

async fn run(cli: Cli) -> anyhow::Result<u8> {
    match cli.command {
        Command::Up(args) => Box::pin(up::run(&cli.global, &args)).await?,
        Command::Dev(args) => match &args.command {
            None => Box::pin(dev::run(&cli.global, &args.start)).await?,
            Some(command) => return Box::pin(dev::run_command(&cli.global, command)).await,
        },
        Command::Build(args) => Box::pin(build::run(&cli.global, &args)).await?,
        Command::Deploy(args) => match &args.command {
            None => Box::pin(deploy::run(&cli.global, &args.start)).await?,
            Some(DeployCommand::Destroy(args)) => Box::pin(yado_cli::down::run(&cli.global, args)).await?,
            Some(DeployCommand::Status(args)) => Box::pin(yado_cli::status::run(&cli.global, args)).await?,
        },
        Command::Infra(args) => Box::pin(infra::run(&cli.global, &args)).await?,
        Command::Reset(args) => reset::run(&args).await?,
        Command::Image(command) => image::run(&command).await?,
        Command::Client(command) => return Box::pin(yado_cli::run(&cli.global, command)).await,
        // Taken before the command line is read.
        Command::Shim { .. } => anyhow::bail!("`yado shim` is started by the engine, never by hand"),
    }
    Ok(yado_cli::EXIT_OK)
}

/// What is kept here is small: in pages of 2 MiB, a shim would hold 5 MiB instead of 1.4, and the engine at rest half as
/// much again. A system that does not know the setting works all the same. Shims inherit it; containers do not.
fn let_no_huge_pages() {
    let _ = nix::sys::prctl::set_thp_disable(true);
}

/// A panic is a bug: ended as a whole and started again, all parts work again, and the shims keep the containers. But
/// where the database's reader panics over a file, that file is damaged.
fn end_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if let Some(damage) = yado_store::damage_behind_panic() {
            let _ = writeln!(std::io::stderr(), "yado: {damage}");
            std::process::exit(i32::from(yado_cli::EXIT_FAILURE));
        }
        tell(panic);
        std::process::abort();
    }));
}

/// `YADO_LOG=debug` shows more; by default only what an operator should act on.
fn log_to_stderr(colour: bool) {
    // The client library logs each request that fails; whoever made it tells of it, or makes it again.
    let filter = tracing_subscriber::EnvFilter::try_from_env("YADO_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,kube_client=off"));
    // At its most talkative the WebSocket library logs what it carries: what `kubectl exec` shows is nobody else's.
    let filter = match "tungstenite=info".parse() {
        Ok(quiet) => filter.add_directive(quiet),
        Err(_) => filter,
    };
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A line that cannot be written, as on a full disk, is lost: telling of that on the same standard error would panic.
    log.with_ansi(colour).with_target(false).log_internal_errors(false).init();
}
