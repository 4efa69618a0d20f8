//! A root file system put together from layers, in which programs are run.
//!
//! The overlay is mounted in a mount namespace that only one thread of this process has, so it goes away with that
//! thread, however it ends. Programs run there in process, IPC and host-name namespaces of their own, and are killed
//! when that thread ends: nothing can leave a process. Package scripts have a network namespace of their own too and
//! reach nobody; a language's tool, which fetches dependencies, has the machine's network, and is no root.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, mknod};

use super::layers::{Build, normalise};
use super::trouble::relevant;
use crate::image::{ImageError, IoContext as _, Progress, Result, Staging, StepState, tidy_reason};

/// How often a wait for a program looks whether the caller has cancelled.
const LOOK_UP: Duration = Duration::from_millis(20);
/// What is read of a program's output: the end, which says why it failed. Room for a line about each of 500 packages.
const TAIL: u64 = 64 << 10;
/// What is read of it for a line of progress.
const LINE: u64 = 2 << 10;
/// Five lines of progress in a second are as many as one can read.
const LOOKS_PER_LINE: u32 = 10;
/// A program's output is emptied when it has this many bytes: only its end is ever read.
const LOG_LIMIT: u64 = 64 << 20;
/// A tool that fetches and compiles a large application's dependencies on a small machine takes less.
const SCRIPT_LIMIT: Duration = Duration::from_secs(3600);

/// A mounted root, valid in the closure that [`in_root`] calls.
pub(super) struct Root<'a> {
    /// Where it is mounted.
    pub(super) path: PathBuf,
    progress: &'a Progress,
    log: PathBuf,
    name: String,
}

/// Mounts the layers of `build` with a new one above them, calls `work`, and gives the new layer, made reproducible.
pub(super) fn in_root(
    build: &Build<'_>,
    work: impl FnOnce(&Root<'_>) -> Result<()> + Send,
) -> Result<Staging> {
    let (upper, started) = mounted(build, work)?;
    normalise(upper.path(), started)?;
    Ok(upper)
}

/// [`in_root`], with the new layer as it was left and the time when that began.
pub(super) fn mounted(
    build: &Build<'_>,
    work: impl FnOnce(&Root<'_>) -> Result<()> + Send,
) -> Result<(Staging, i64)> {
    let inner = &build.store.inner;
    let staging = inner.stage_dir("root")?;
    let upper = inner.stage_dir("upper")?;
    fs::set_permissions(upper.path(), fs::Permissions::from_mode(0o755)).at("change", upper.path())?;
    let lower: Vec<PathBuf> = build.layers().map(|id| inner.layer_dir(id)).collect();
    let started = started(upper.path())?;
    let root = Root {
        path: staging.path().join("root"),
        progress: build.progress,
        log: staging.path().join("log"),
        name: build.name.to_string(),
    };
    for dir in ["root", "work", "none"] {
        fs::create_dir(staging.path().join(dir)).at("make the directory", staging.path().join(dir))?;
    }
    let result = std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            // SAFETY: unshare with these flags changes only what this thread sees; the thread ends with this scope.
            if unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_FS) } != 0 {
                return Err(build.failed("making a mount namespace needs root; run it as root"));
            }
            mount_overlay(staging.path(), upper.path(), &lower)?;
            mount_system(&root.path)?;
            work(&root)
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    // Asked while what was half made is still there: once it is gone, there is room again.
    result.map_err(|error| super::or_full(build.store, error))?;
    Ok((upper, started))
}

/// Now, by the clock that stamps files.
fn started(path: &Path) -> Result<i64> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(fs::metadata(path).at("look at", path)?.mtime())
}

fn mount_overlay(staging: &Path, upper: &Path, lower: &[PathBuf]) -> Result<()> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .at("make private the mounts of", "/")?;
    let empty = staging.join("none");
    let lower: Vec<&Path> = lower.iter().rev().map(PathBuf::as_path).chain([empty.as_path()]).collect();
    let mut options = std::ffi::OsString::from("lowerdir=");
    options.push(lower.iter().map(|l| l.as_os_str()).collect::<Vec<&OsStr>>().join(OsStr::new(":")));
    for (name, path) in [("upperdir", upper), ("workdir", &staging.join("work"))] {
        options.push(format!(",{name}="));
        options.push(path);
    }
    // What is written is synced once, when it becomes a layer; a crash before that throws it away as a whole.
    options.push(",volatile,index=off,metacopy=off,redirect_dir=off");
    let root = staging.join("root");
    mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_os_str()))
        .at("mount an overlay (it needs a file system such as ext4 or xfs) at", &root)
}

/// What programs expect, on file systems of their own, so that nothing of it becomes part of the layer.
fn mount_system(root: &Path) -> Result<()> {
    for dir in ["proc", "run", "tmp", "dev"] {
        let path = root.join(dir);
        // Only where it is missing: making a directory that a lower layer has would copy it up.
        if !path.is_dir() {
            fs::create_dir(&path).at("make the directory", &path)?;
            // The package that owns it sees only what is mounted over it here, so it cannot set this right.
            let mode = if dir == "tmp" { 0o1777 } else { 0o755 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).at("change", &path)?;
        }
        if dir != "proc" {
            let options = if dir == "tmp" { "mode=1777" } else { "mode=755" };
            mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::MS_NOSUID, Some(options))
                .at("mount", &path)?;
        }
    }
    for (name, minor) in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)] {
        let path = root.join("dev").join(name);
        let mode = Mode::from_bits_truncate(0o666);
        mknod(&path, SFlag::S_IFCHR, mode, libc::makedev(1, minor)).at("make the device", &path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).at("change", &path)?;
    }
    let shared = root.join("dev/shm");
    fs::create_dir(&shared).at("make the directory", &shared)?;
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).at("change", &shared)?;
    for (name, to) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        std::os::unix::fs::symlink(to, root.join("dev").join(name)).at("make the link", name)?;
    }
    Ok(())
}

impl Root<'_> {
    /// Makes a directory of the host visible at `/run/NAME`.
    pub(super) fn bind(&self, source: &Path, name: &str) -> Result<()> {
        let none: Option<&str> = None;
        let path = self.path.join("run").join(name);
        fs::create_dir(&path).at("make the directory", &path)?;
        mount(Some(source), &path, none, MsFlags::MS_BIND, none).at("mount", &path)
    }

    /// Runs a program inside.
    pub(super) fn run(&self, words: &[impl AsRef<OsStr>]) -> Result<()> {
        let what = words.first().map(|w| w.as_ref().to_string_lossy().into_owned()).unwrap_or_default();
        match self.attempt(words)? {
            (true, _) => Ok(()),
            (false, log) => Err(self.failed(format!("`{what}` failed: {}", tidy_reason(&relevant(&log))))),
        }
    }

    fn inside(&self, namespaces: &[&str]) -> Command {
        let mut proc = std::ffi::OsString::from("--mount-proc=");
        proc.push(self.path.join("proc"));
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--ipc", "--uts"]).args(namespaces);
        command.arg(proc).arg("chroot").arg(&self.path).env_clear();
        command
    }

    /// Runs a script inside, as `user` and with the machine's network, for which the machine's settings are there
    /// too. What it prints is reported as what `step` does. Whether it succeeded, and what it printed last.
    pub(super) fn script(
        &self,
        step: &'static str,
        user: u32,
        script: &str,
        env: &[(String, String)],
    ) -> Result<(bool, String)> {
        let mut command = self.inside(&[]);
        command.arg("setpriv").args(["--reuid", &user.to_string(), "--regid", &user.to_string()]);
        command.args(["--clear-groups", "--no-new-privs", "--", "/bin/sh", "-e", "-c", script]);
        command.envs(env.iter().map(|(name, value)| (name, value)));
        let watch = Watch { step: Some(step), limit: Some(SCRIPT_LIMIT) };
        let (status, log) = run_watched(command, Stdio::null(), &self.log, self.progress, &watch)?;
        match status {
            Some(status) => Ok((status.success(), log)),
            None => Err(self.failed(format!(
                "the step `{step}` did not finish within {} minutes and was stopped: {}",
                SCRIPT_LIMIT.as_secs() / 60,
                end_of(&log)
            ))),
        }
    }

    /// Runs a program inside; whether it succeeded, and what it printed last.
    pub(super) fn attempt(&self, words: &[impl AsRef<OsStr>]) -> Result<(bool, String)> {
        let mut command = self.inside(&["--net"]);
        command.args(words);
        command.envs([
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", "/root"),
            ("LC_ALL", "C.UTF-8"),
            ("TZ", "UTC"),
            ("DEBIAN_FRONTEND", "noninteractive"),
            ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
            // Equal inputs give equal files: byte-compiled Python among them.
            ("PYTHONHASHSEED", "0"),
        ]);
        let (status, log) = run(command, Stdio::null(), &self.log, self.progress)?;
        Ok((status.success(), log))
    }

    /// Runs a program of the host that knows where the root is, with a pipe as its input.
    pub(super) fn host(&self, command: Command, input: ChildStdout) -> Result<()> {
        let what = command.get_program().to_string_lossy().into_owned();
        let (status, log) = run(command, input.into(), &self.log, self.progress)?;
        match status.success() {
            true => Ok(()),
            false => Err(self.failed(format!("`{what}` failed with {status}: {}", end_of(&log)))),
        }
    }

    pub(super) fn failed(&self, reason: String) -> ImageError {
        ImageError::Build { name: self.name.clone(), reason }
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&self, path: &str) -> Result<()> {
        let path = self.path.join(path);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(ImageError::io("remove", &path, e)),
            _ => Ok(()),
        }
    }
}

/// Runs a program of the host with its output in a file, and gives the end of that output. The program is killed when
/// this thread ends, or when the caller cancels.
pub(super) fn run(
    command: Command,
    input: Stdio,
    log: &Path,
    progress: &Progress,
) -> Result<(ExitStatus, String)> {
    let program = Path::new(command.get_program()).to_owned();
    match run_watched(command, input, log, progress, &Watch { step: None, limit: None })? {
        (Some(status), log) => Ok((status, log)),
        (None, log) => Err(missing_end(&program, &log)),
    }
}

/// What to do while a program runs.
struct Watch {
    /// Its last line is reported as what this step does.
    step: Option<&'static str>,
    /// After this long it is killed.
    limit: Option<Duration>,
}

/// [`run`] with a [`Watch`]; no status where the program's time was up.
fn run_watched(
    mut command: Command,
    input: Stdio,
    log: &Path,
    progress: &Progress,
    watch: &Watch,
) -> Result<(Option<ExitStatus>, String)> {
    let program = Path::new(command.get_program()).to_owned();
    let mut options = File::options();
    let output = options.create(true).write(true).truncate(true).open(log).at("create", log)?;
    drop(output);
    // Appended to, so that it can be emptied under the program's hands.
    let output = File::options().append(true).open(log).at("open", log)?;
    let errors = output.try_clone().at("open", log)?;
    command.stdin(input).stdout(output).stderr(errors);
    die_with_parent(&mut command);
    let mut child = command.spawn().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => missing(&program),
        _ => ImageError::io("start", &program, e),
    })?;
    let (mut looks, mut seen) = (0, 0);
    loop {
        if let Some(status) = child.try_wait().at("wait for", &program)? {
            return Ok((Some(status), tail(log, TAIL)?));
        }
        let late = watch.limit.is_some_and(|limit| LOOK_UP * looks > limit);
        let cancelled = progress.check();
        if late || cancelled.is_err() {
            child.kill().and_then(|()| child.wait()).at("stop", &program)?;
            cancelled?;
            return Ok((None, tail(log, TAIL)?));
        }
        looks += 1;
        if looks % LOOKS_PER_LINE == 0 {
            let length = fs::metadata(log).at("look at", log)?.len();
            if let Some(step) = watch.step.filter(|_| length != seen)
                && let Some(line) = last_line(&tail(log, LINE)?)
            {
                progress.step(step, StepState::Running(line));
            }
            seen = length;
            if length > LOG_LIMIT {
                File::options().write(true).open(log).and_then(|f| f.set_len(0)).at("empty", log)?;
            }
        }
        std::thread::sleep(LOOK_UP);
    }
}

/// The last line that says something, without a terminal's control sequences.
fn last_line(text: &str) -> Option<String> {
    let line = text.rsplit(['\n', '\r']).find(|line| line.chars().any(char::is_alphanumeric))?;
    let printable: String = line.chars().filter(|c| !c.is_control()).take(100).collect();
    Some(printable.trim().to_owned())
}

fn missing_end(program: &Path, log: &str) -> ImageError {
    let name = program.display().to_string();
    ImageError::Build { reason: format!("`{name}` gave no result: {}", end_of(log)), name }
}

pub(super) fn missing(program: &Path) -> ImageError {
    let program = program.display().to_string();
    let reason = format!(
        "the program `{program}` is not on this machine; building from packages needs a Debian system"
    );
    ImageError::Build { name: program, reason }
}

/// Has the kernel kill the program when the thread that started it ends, so that a killed build leaves none behind.
pub(super) fn die_with_parent(command: &mut Command) {
    // SAFETY: the closure runs between fork and exec and makes one system call, which is safe there.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

fn tail(log: &Path, most: u64) -> Result<String> {
    let mut file = File::open(log).at("open", log)?;
    let length = file.metadata().at("look at", log)?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most))).at("read", log)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).at("read", log)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last lines of an output, as one: errors come last, and a few lines tell the story.
pub(super) fn end_of(output: &str) -> String {
    let lines: Vec<&str> = output.lines().filter(|line| !line.trim().is_empty()).collect();
    tidy_reason(&lines[lines.len().saturating_sub(6)..].join("; "))
}
