//! `yado exec`: a command beside a running process.

use std::{
    io::{IsTerminal, Read},
    pin::pin,
};

use anyhow::Context;
use futures::SinkExt;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Status};
use kube::{
    ResourceExt,
    api::{AttachParams, AttachedProcess, TerminalSize},
};
use nix::sys::termios::{self, SetArg, Termios};
use tokio::{
    io::{AsyncRead, AsyncWriteExt},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use crate::{
    EXIT_FAILURE,
    args::{ExecArgs, Global},
    connect::failed,
    process,
    scope::{self, Scope},
};

pub(crate) async fn run(global: &Global, args: &ExecArgs) -> anyhow::Result<u8> {
    let scope = Scope::of(global).await?;
    // A shell that every image with any shell has.
    let shell = ["/bin/sh".to_string()];
    let command = if args.command.is_empty() { shell.into() } else { args.command.clone() };
    let pod = find(&scope, &args.name).await?;
    let terminal = Terminal { stdin: args.stdin, tty: args.tty };
    attach(&scope, &pod, args.container.clone(), command, terminal).await
}

/// What the user asks of standard input and the terminal, beyond what follows from how the command is called.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terminal {
    /// Pass standard input on.
    pub stdin: bool,
    /// Use a terminal.
    pub tty: bool,
}

/// Runs a command in a Pod and passes streams on until it ends; its exit code.
///
/// # Errors
///
/// The command cannot be run.
pub async fn attach(
    scope: &Scope,
    pod: &Pod,
    container: Option<String>,
    command: Vec<String>,
    asked: Terminal,
) -> anyhow::Result<u8> {
    let (stdin, stdout) = (std::io::stdin().is_terminal(), std::io::stdout().is_terminal());
    let tty = asked.tty || (stdin && stdout && !asked.stdin);
    let mut params =
        AttachParams::default().stdin(asked.stdin || tty || stdin).stdout(true).stderr(!tty).tty(tty);
    params.container = container;
    let pod_name = pod.name_any();
    let process = scope.api_of(pod).exec(&pod_name, command, &params).await;
    let process = process.map_err(failed(format!("no command can be run in Pod {pod_name}")))?;
    let raw = if tty && stdin { Some(RawTerminal::enter()?) } else { None };
    let code = attend(process, tty).await;
    drop(raw);
    code
}

/// The Pod that a user's word means: of the working directory's app where that has one, and of several that run the same
/// the first that runs.
///
/// # Errors
///
/// There is none, it does not run, or the word means different ones.
pub async fn find(scope: &Scope, wanted: &str) -> anyhow::Result<Pod> {
    let chosen = scope.chosen(Some(wanted), false).await?;
    let candidates = chosen.found.iter().filter_map(|(process, pod)| {
        Some((process::precision(pod, process, wanted)?, process.as_str(), pod))
    });
    let mut meant = scope::unambiguous(wanted, candidates.collect())?;
    meant.sort_by_key(|(process, pod)| (process::state(pod) != "Running", *process));
    let sentence = || format!("there is no process or Pod {wanted} in {}: see `yado ps`", scope.shown());
    let (process, pod) = meant.first().with_context(sentence)?;
    let state = process::state(pod);
    anyhow::ensure!(state == "Running", "{process} does not run ({state}): see `yado logs {process}`");
    Ok((*pod).clone())
}

/// Passes streams on until the command ends; its exit code.
async fn attend(mut process: AttachedProcess, tty: bool) -> anyhow::Result<u8> {
    let status = process.take_status().context("the API server does not report how the command ends")?;
    let (stdin, stdout, stderr) = (process.stdin(), process.stdout(), process.stderr());
    let sizes = process.terminal_size().filter(|_| tty);
    let output = async {
        tokio::join!(copy(stdout, tokio::io::stdout()), copy(stderr, tokio::io::stderr()));
    };
    let input = async {
        if let Some(mut to) = stdin {
            let mut chunks = read_stdin();
            while let Some(chunk) = chunks.recv().await {
                // A command that reads no more ends the copying; the command itself goes on.
                if to.write_all(&chunk).await.is_err() || to.flush().await.is_err() {
                    break;
                }
            }
            let _ = to.shutdown().await;
        }
        std::future::pending::<()>().await;
    };
    let resize = async {
        if let Some(mut sizes) = sizes {
            let Ok(mut changed) = signal(SignalKind::window_change()) else {
                return std::future::pending().await;
            };
            while let Some((width, height)) = terminal_size::terminal_size() {
                if sizes.send(TerminalSize { width: width.0, height: height.0 }).await.is_err() {
                    break;
                }
                changed.recv().await;
            }
        }
        std::future::pending::<()>().await;
    };
    let (mut input, mut resize) = (pin!(input), pin!(resize));
    let finished = async { tokio::join!(output, status).1 };
    let status = tokio::select! {
        status = finished => status,
        () = &mut input => None,
        () = &mut resize => None,
    };
    // The exit code is the command's; how its connection ended says nothing more.
    process.abort();
    exit_code(status)
}

/// What is typed or piped in, until its end.
///
/// A thread of its own, which nobody joins: it is blocked in the kernel until somebody types, and the runtime, if it
/// were the runtime's, would wait for that at its end. It holds nothing and ends with the process.
fn read_stdin() -> mpsc::Receiver<Vec<u8>> {
    // A few chunks, so that a fast pipe does not wait for each one's way to the API server.
    let (sink, chunks) = mpsc::channel(8);
    std::thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        let mut stdin = std::io::stdin().lock();
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(n) if sink.blocking_send(buffer[..n].to_vec()).is_err() => return,
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    chunks
}

async fn copy(from: Option<impl AsyncRead + Unpin>, mut to: impl tokio::io::AsyncWrite + Unpin) {
    let Some(mut from) = from else { return };
    // Where our own output is closed, the command still runs to its end.
    let _ = tokio::io::copy(&mut from, &mut to).await;
    let _ = to.flush().await;
}

/// The exit code in what the API server reports: none for success, a cause `ExitCode` for a command that failed.
fn exit_code(status: Option<Status>) -> anyhow::Result<u8> {
    let status = status.context("the connection ended before the command did")?;
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let causes = status.details.iter().flat_map(|d| d.causes.iter().flatten());
    let mut codes = causes.filter(|c| c.reason.as_deref() == Some("ExitCode"));
    match codes.next().and_then(|c| c.message.as_ref()?.parse::<i32>().ok()) {
        Some(code) => Ok(u8::try_from(code).unwrap_or(EXIT_FAILURE)),
        None => anyhow::bail!("the command did not run: {}", status.message.unwrap_or_default()),
    }
}

/// The terminal as programs that draw on it want it, until this is dropped.
struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    fn enter() -> anyhow::Result<Self> {
        let before = termios::tcgetattr(std::io::stdin()).context("the terminal cannot be set up")?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(std::io::stdin(), SetArg::TCSANOW, &raw)
            .context("the terminal cannot be set up")?;
        Ok(RawTerminal { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Nothing can be done for a terminal that has gone.
        let _ = termios::tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn exit_codes_are_the_commands() {
        let check = |status: serde_json::Value, expect: Result<u8, &str>| {
            let code = exit_code(serde_json::from_value(status).unwrap());
            assert_eq!(code.map_err(|e| e.to_string()), expect.map_err(Into::into));
        };
        check(json!({"status": "Success"}), Ok(0));
        let failed = |message: &str| {
            json!({"status": "Failure", "reason": "NonZeroExitCode", "message": "m",
                   "details": {"causes": [{"reason": "ExitCode", "message": message}]}})
        };
        check(failed("3"), Ok(3));
        check(failed("137"), Ok(137));
        check(failed("-1"), Ok(1));
        check(
            json!({"status": "Failure", "message": "no such file"}),
            Err("the command did not run: no such file"),
        );
        check(json!(null), Err("the connection ended before the command did"));
    }
}
