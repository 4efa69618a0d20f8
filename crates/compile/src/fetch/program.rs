//! git and hg: the user's own programs, with their own keys, proxies and settings.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::Path,
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    time::Duration,
};

use super::source::{Remote, Tool, without_password};

/// As long as a large repository takes over a slow line. What does not even trickle ends sooner, by git's own limit.
const TIME_LIMIT: Duration = Duration::from_secs(600);
/// More than a program says before its last words.
const MAX_OUTPUT: u64 = 1 << 20;

/// Fetches a repository into `into`, which is not there yet, keeping logs in `logs`; the commit.
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
            // A commit is no branch, and a server of plain files has no shallow copies: then it takes the whole.
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

    /// What the program prints, or a sentence with the last that it said.
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
            None => Err(format!("{name} did not end within {} minutes", TIME_LIMIT.as_secs() / 60)),
            Some(status) if status.success() => Ok(text_of(&out)),
            Some(status) => Err(last_words(name, &text_of(&err), status)),
        }
    }
}

/// No questions, no configuration of a directory above, an end where nothing comes any more.
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
        // `yado` itself may run in a git hook, which points git at another repository.
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE");
    if std::env::var_os("GIT_SSH_COMMAND").is_none() && std::env::var_os("GIT_SSH").is_none() {
        command.env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15");
    }
}

/// The status, or nothing where the time was over and the program was ended.
fn wait(mut child: std::process::Child) -> std::io::Result<Option<ExitStatus>> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || drop(tell.send(child.wait())));
        match told.recv_timeout(TIME_LIMIT) {
            Ok(status) => status.map(Some),
            Err(_) => {
                if pid.as_raw() > 0 {
                    // It is ours and not waited for yet, so its number is still its own.
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

/// The line that says why: git and hg mark it.
fn last_words(name: &str, said: &str, status: ExitStatus) -> String {
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
