//! Yado in the background: starting it so that it outlives who started it, and ending it.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use yado_cli::local::Running;
use yado_cli::progress::Step;

/// How often to look whether it is ready or gone.
const LOOK: Duration = Duration::from_millis(20);
/// Of a log of an earlier run no more than one is kept, and none that is longer.
const LONGEST_LOG: u64 = 8 << 20;
/// As much of its last words as an error shows.
const LAST_WORDS: u64 = 4096;
/// Timeout of stopping an engine: three times the default grace period of Pods, which end one beside the other.
const STOP_TIMEOUT: Duration = Duration::from_secs(90);

/// A Yado that is being started.
pub struct Started {
    child: Child,
    /// Where it writes.
    pub log: PathBuf,
}

/// Starts this program with `args`, in a session of its own.
pub fn start(data_dir: &Path, log: &str, args: &[std::ffi::OsString]) -> Result<Started> {
    let made = fs::create_dir_all(data_dir);
    made.with_context(|| format!("the data directory {} cannot be used", data_dir.display()))?;
    let log = data_dir.join(log);
    if fs::metadata(&log).is_ok_and(|meta| meta.len() > LONGEST_LOG) {
        fs::rename(&log, log.with_extension("log.1"))
            .with_context(|| format!("{} cannot be renamed", log.display()))?;
    }
    let open = File::options().create(true).append(true).mode(0o600).open(&log);
    let out = open.with_context(|| format!("{} cannot be written", log.display()))?;
    let program = std::env::current_exe().context("this program's own file is unknown")?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    // A group of its own, which the terminal's Ctrl-C does not reach.
    command.process_group(0);
    let child = command.spawn().context("the engine cannot be started")?;
    Ok(Started { child, log })
}

impl Started {
    /// Waits until it says that it is ready. Without `dev` that is the engine; with it, the app too.
    ///
    /// # Errors
    /// It ended, with its last words.
    pub async fn ready(&mut self, data_dir: &Path, dev: bool, step: &Step) -> Result<Running> {
        let from = fs::metadata(&self.log).map(|meta| meta.len()).unwrap_or(0);
        loop {
            if let Some(status) = self.child.try_wait().context("the engine cannot be waited for")? {
                let words = self.words(from);
                // The error that ended it, with all its lines.
                let words = match words.rfind("yado: ") {
                    Some(at) => &words[at + "yado: ".len()..],
                    None => &words,
                };
                bail!("{} (it {}; its log is {})", words.trim(), end(status), self.log.display());
            }
            let running = Running::find(data_dir).filter(|r| r.pid == self.child.id());
            if let Some(running) = running.filter(|r| !dev || r.dev.is_some()) {
                return Ok(running);
            }
            if let Some(last) = self.words(from).lines().last() {
                step.detail(last.trim_start_matches(['…', '✓', ' ']));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What it has written since it was started, the end of it.
    fn words(&self, from: u64) -> String {
        let read = || {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(from.max(length.saturating_sub(LAST_WORDS))))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            std::io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
    }
}

fn end(status: std::process::ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("ended with exit code {code}"),
        None => "was killed".into(),
    }
}

/// Ends an engine as a service manager would and waits until it is gone.
///
/// # Errors
/// It may not be ended, or does not end.
pub async fn end_and_wait(pid: u32) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid).context("the engine's process id is none")?);
    match kill(pid, Signal::SIGTERM) {
        Err(nix::errno::Errno::ESRCH) => return Ok(()),
        sent => sent.with_context(|| format!("process {pid} cannot be ended"))?,
    }
    let gone = async {
        while is_alive(pid) {
            tokio::time::sleep(LOOK).await;
        }
    };
    let waited = tokio::time::timeout(STOP_TIMEOUT, gone).await;
    waited.with_context(|| format!("process {pid} does not end; see its log in the data directory"))
}

/// A process that nobody has waited for is over all the same.
fn is_alive(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).is_some_and(|state| state != "Z")
}
