//! What the user types and sees: the commands, and the client side of all that speak the Kubernetes API.
//!
//! [`args`] is the whole command line, including the commands that the binary carries out itself (`dev`, `up`,
//! `image`). [`run`] carries out the others. The parts that `dev` shares with them are public: [`apply`], [`ready`],
//! [`logs`], [`down`] and [`progress`].

pub mod apply;
pub mod args;
mod claims;
mod compile;
pub mod connect;
pub mod deploy;
pub mod describe;
pub mod diff;
pub mod down;
pub mod exec;
mod fleet;
pub mod local;
pub mod logs;
pub mod process;
pub mod progress;
pub mod ps;
pub mod ready;
mod references;
pub mod scope;
pub mod source;
pub mod status;
mod table;
mod text;
pub mod workloads;

use std::io::{self, Write};

pub use table::formatted;

use args::{ClientCommand, Command, Global};
use clap::CommandFactory;

/// The command did what it was asked.
pub const EXIT_OK: u8 = 0;
/// The command failed; the reason is on standard error.
pub const EXIT_FAILURE: u8 = 1;
/// The command line or a description is wrong; nothing was attempted.
pub const EXIT_USAGE: u8 = 2;

/// A mistake of the user's that nothing was attempted for: [`exit_code`] is [`EXIT_USAGE`].
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Carries out a client command. The exit code is not always 0: `exec` passes on its program's.
///
/// # Errors
///
/// One sentence (`{:#}`) that says what, where and what to do; [`exit_code`] tells the code to exit with.
pub async fn run(global: &Global, command: ClientCommand) -> anyhow::Result<u8> {
    match command {
        ClientCommand::Compile(args) => compile::run(global, &args).await?,
        ClientCommand::Apply(args) => apply::run(global, &args).await?,
        ClientCommand::Ps(args) => ps::run(global, &args).await?,
        ClientCommand::Logs(args) => logs::run(global, &args).await?,
        ClientCommand::Exec(args) => return exec::run(global, &args).await,
        ClientCommand::Fleet(args) => return fleet::run(global, &args).await,
        ClientCommand::Down(args) => down::run(global, &args).await?,
        ClientCommand::Status(args) => status::run(global, &args).await?,
        ClientCommand::Version => writeln!(io::stdout(), "yado {}", env!("CARGO_PKG_VERSION"))?,
        ClientCommand::Completions { shell } => {
            // Made whole first: a reader that goes away (`| head`) ends the writing, not the making.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut args::Cli::command(), "yado", &mut script);
            io::stdout().write_all(&script)?;
        }
    }
    Ok(EXIT_OK)
}

/// Whether a command needs no more than the client: everything but what the binary itself carries out.
pub fn is_client(command: &Command) -> bool {
    matches!(command, Command::Client(_))
}

/// The code to exit with after `error`: a reader that went away (`yado logs | head`) is no failure.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    let broken_pipe = |e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe;
    if error.chain().filter_map(|e| e.downcast_ref::<io::Error>()).any(broken_pipe) {
        return EXIT_OK;
    }
    let usage = error.is::<Usage>() || error.is::<yado_compile::Diagnostics>();
    if usage { EXIT_USAGE } else { EXIT_FAILURE }
}
