//! Fetches repositories with the user's git and hg, which have their own keys, proxies and settings.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::Path,
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    time::Duration,
};

use super::source::{Remote, Tool, without_password};

/// Timeout of a program, long enough for a large repository over a slow connection. A stalled transfer ends sooner, by
/// git's low-speed limit.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(600);
/// Limit of the output that is read, in bytes.
const MAX_OUTPUT: u64 = 1 << 20;

/// Clones a repository into the new directory `into`, with logs in `logs`. Returns the commit.
pub(super) fn fetch(remote: &Remote, into: &Path, logs: &Path) -> Result<String, String> {
    let program = Program { logs };
    match remote.tool {
        Tool::Hg => program.hg(remote, into),
        Tool::Git | Tool::Http => program.git(remote, into),
    }
}

struct Program<'a> {
    logs: &'a Path,
}

impl Program<'_> {
    fn git(&self, remote: &Remote, into: &Path) -> Result<String, String> {
        let into_text = into.to_string_lossy();
        let shallow = ["--depth", "1", "--recurse-submodules", "--shallow-submodules"];
        let mut args = vec!["clone", "--quiet"];
        args.extend(shallow);
        if let Some(revision) = &remote.revision {
            args.extend(["--branch", revision]);
        }
        args.extend(["--", &remote.address, &into_text]);
        if let Err(failure) = self.run("git", &args, None) {
            // A commit cannot be cloned by name, and a dumb HTTP server has no shallow clones: clone everything then.
            let again =
                remote.revision.is_some() || failure.contains("shallow") || failure.contains("dumb http");
            if !again {
                return Err(failure);
            }
            drop(std::fs::remove_dir_all(into));
            self.run(
                "git",
                &["clone", "--quiet", "--recurse-submodules", "--", &remote.address, &into_text],
                None,
            )?;
            if let Some(revision) = &remote.revision {
                self.run("git", &["checkout", "--quiet", "--detach", revision], Some(into))
                    .or_else(|_| {
                        let branch = format!("origin/{revision}");
                        self.run("git", &["checkout", "--quiet", "--detach", &branch], Some(into))
                    })
                    .map_err(|_| format!("it has no branch, tag or commit {revision}"))?;
                self.run("git", &["submodule", "update", "--quiet", "--init", "--recursive"], Some(into))?;
            }
        }
        self.run("git", &["rev-parse", "HEAD"], Some(into)).map(|out| out.trim().into())
    }

    fn hg(&self, remote: &Remote, into: &Path) -> Result<String, String> {
        let into_text = into.to_string_lossy();
        let mut args = vec!["clone", "--noninteractive", "--quiet"];
        if let Some(revision) = &remote.revision {
            args.extend(["--updaterev", revision]);
        }
        args.extend(["--", &remote.address, &into_text]);
        self.run("hg", &args, None)?;
        self.run("hg", &["--noninteractive", "identify", "--id"], Some(into)).map(|out| out.trim().into())
    }

    /// Returns the output of the program, or its error message.
    fn run(&self, name: &str, args: &[&str], directory: Option<&Path>) -> Result<String, String> {
        let (out, err) = (self.logs.join("out"), self.logs.join("err"));
        let create =
            |path: &Path| File::create(path).map_err(|e| format!("cannot write {}: {e}", path.display()));
        let mut command = Command::new(name);
        command.args(args).stdin(Stdio::null()).stdout(create(&out)?).stderr(create(&err)?);
        if let Some(directory) = directory {
            command.current_dir(directory);
        }
        quiet(&mut command);
        let child = command.spawn().map_err(|e| match e.kind() {
            ErrorKind::NotFound => format!("{name} is not installed: install it with your system's packages"),
            _ => format!("{name} cannot be started: {e}"),
        })?;
        let status = wait(child).map_err(|e| format!("{name} cannot be waited for: {e}"))?;
        match status {
            None => Err(format!("{name} did not end within {} minutes", PROGRAM_TIMEOUT.as_secs() / 60)),
            Some(status) if status.success() => Ok(text_of(&out)),
            Some(status) => Err(error_line(name, &text_of(&err), status)),
        }
    }
}

/// Disables prompts and the configuration of parent directories, and sets the low-speed limit.
fn quiet(command: &mut Command) {
    command
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ASKPASS", "true")
        .env("SSH_ASKPASS", "true")
        .env("GIT_LFS_SKIP_SMUDGE", "0")
        .env("GIT_HTTP_LOW_SPEED_LIMIT", "1")
        .env("GIT_HTTP_LOW_SPEED_TIME", "60")
        .env("LC_ALL", "C")
        .env("HGPLAIN", "1")
        // In a git hook, the environment points git at another repository.
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE");
    if std::env::var_os("GIT_SSH_COMMAND").is_none() && std::env::var_os("GIT_SSH").is_none() {
        command.env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15");
    }
}

/// Waits for the exit status; `None` if the timeout expired and the program was killed.
fn wait(mut child: std::process::Child) -> std::io::Result<Option<ExitStatus>> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || drop(tell.send(child.wait())));
        match told.recv_timeout(PROGRAM_TIMEOUT) {
            Ok(status) => status.map(Some),
            Err(_) => {
                if pid.as_raw() > 0 {
                    // The child has not been waited for, so its PID cannot have been reused.
                    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
                }
                Ok(None)
            }
        }
    })
}

fn text_of(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        drop(file.take(MAX_OUTPUT).read_to_end(&mut bytes));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The line of the output that names the cause, which git and hg mark.
fn error_line(name: &str, said: &str, status: ExitStatus) -> String {
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let marked = lines.iter().find(|l| ["fatal:", "abort:", "error:"].iter().any(|mark| l.starts_with(mark)));
    let words: Vec<String> = marked.or(lines.last()).map(|l| redacted(l)).into_iter().collect();
    match words.first() {
        Some(line) => format!("{name} says: {}", line.trim_end_matches('.')),
        None => format!("{name} failed ({status}) and said nothing"),
    }
}

fn redacted(line: &str) -> String {
    line.split(' ')
        .map(|word| match word.strip_prefix('\'') {
            Some(quoted) => format!("'{}", without_password(quoted)),
            None => without_password(word),
        })
        .collect::<Vec<_>>()
        .join(" ")
}
