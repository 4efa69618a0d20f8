//! A running `yado up` for one test, and what tests ask of it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The binary under test.
pub const YADO: &str = env!("CARGO_BIN_EXE_yado");
/// What a test waits for happens within moments or is broken; a busy machine gets plenty.
pub const TIMEOUT: Duration = Duration::from_secs(180);
/// What yado has to say beside its output, in the data directory.
const LOG: &str = "up.log";

/// What it says where the role of one of its components lacks a rule.
const NOT_ALLOWED: &str = "asked for what its role does not allow";

/// Where `cargo xtask demo-images` leaves its archives.
pub fn demo_image(archive: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/images").join(archive)
}

/// Why the tests cannot run here, if they cannot.
pub fn missing() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        Some("containers need root")
    } else if !demo_image("busybox.tar").exists() {
        Some("`cargo xtask demo-images` has not been run")
    } else {
        None
    }
}

/// One `yado up` in a network namespace of its own.
pub struct Cluster {
    child: Child,
    holder: Child,
    /// What `yado up` is told besides.
    options: Vec<String>,
    /// What it is to log; empty for what it logs by itself.
    level: &'static str,
    /// Its data directory.
    pub data: tempfile::TempDir,
}

impl Cluster {
    /// Starts one with these demonstration images; `None`, with a word on standard error, where it cannot run.
    pub fn start(images: &[&str]) -> Option<Self> {
        if let Some(reason) = missing() {
            yado_testkit::skip!("{reason}");
            return None;
        }
        let data = tempfile::Builder::new().prefix("yado-e2e-").tempdir().expect("a folder");
        Some(Self::start_in(data, images, &[]))
    }

    /// Starts one with further options of `yado up`.
    pub fn start_with(images: &[&str], options: &[&str]) -> Option<Self> {
        if let Some(reason) = missing() {
            yado_testkit::skip!("{reason}");
            return None;
        }
        let data = tempfile::Builder::new().prefix("yado-e2e-").tempdir().expect("a folder");
        Some(Self::start_in(data, images, options))
    }

    /// Starts one that logs everything.
    pub fn start_talkative(images: &[&str]) -> Option<Self> {
        if let Some(reason) = missing() {
            yado_testkit::skip!("{reason}");
            return None;
        }
        let data = tempfile::Builder::new().prefix("yado-e2e-").tempdir().expect("a folder");
        Some(Self::start_at_level(data, images, &[], "trace"))
    }

    /// Starts one whose data directory is a disk of its own of so many MiB.
    pub fn start_on_disk_of(mebibytes: u32, images: &[&str]) -> Option<Self> {
        if let Some(reason) = missing() {
            yado_testkit::skip!("{reason}");
            return None;
        }
        let data = tempfile::Builder::new().prefix("yado-e2e-").tempdir().expect("a folder");
        let size = format!("size={mebibytes}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(data.path()).status();
        assert!(mounted.expect("mount").success());
        Some(Self::start_in(data, images, &[]))
    }

    fn start_in(data: tempfile::TempDir, images: &[&str], options: &[&str]) -> Self {
        Self::start_at_level(data, images, options, "")
    }

    fn start_at_level(
        data: tempfile::TempDir,
        images: &[&str],
        options: &[&str],
        level: &'static str,
    ) -> Self {
        let archives = data.path().join("images");
        std::fs::create_dir(&archives).expect("a folder");
        for image in images {
            std::fs::hard_link(demo_image(image), archives.join(image))
                .or_else(|_| std::fs::copy(demo_image(image), archives.join(image)).map(drop))
                .expect("the image");
        }
        // A process that does nothing but keep the namespace, so that a restarted yado comes back into it.
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up 2>/dev/null; echo there; exec sleep infinity"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a network namespace");
        let mut line = String::new();
        let stdout = holder.stdout.as_mut().expect("its output");
        BufReader::new(stdout).read_line(&mut line).expect("a word");
        let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
        let child = up(holder.id(), data.path(), None, &options, level);
        Self { child, holder, options, level, data }
    }

    /// Ends yado as a crash would.
    pub fn kill(&mut self) {
        self.child.kill().expect("to kill");
        self.child.wait().expect("to end");
    }

    /// Ends yado as a crash would, and starts it again.
    pub fn crash_and_restart(&mut self) {
        self.kill();
        self.child = up(self.holder.id(), self.data.path(), None, &self.options, self.level);
    }

    /// Ends yado as a service manager would, and waits.
    pub fn stop(&mut self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).expect("to signal");
        assert!(self.child.wait().expect("to end").success());
        assert!(!self.log().contains("did not end within"), "a task is stubborn:\n{}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.data.path().join(LOG)).unwrap_or_default()
    }

    /// Starts yado again after [`Cluster::stop`] or [`Cluster::kill`].
    pub fn restart(&mut self) {
        self.child = up(self.holder.id(), self.data.path(), None, &self.options, self.level);
    }

    /// Starts yado again on a machine of another name, and does not tell it what its node is called.
    pub fn restart_on_host(&mut self, host: &str) {
        self.child = up(self.holder.id(), self.data.path(), Some(host), &self.options, self.level);
    }

    /// A command in the cluster's network namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holder.id())).arg("--").arg(program);
        command.env("KUBECONFIG", self.data.path().join("kubeconfig"));
        command.env("YADO_DATA_DIR", self.data.path());
        command.env("HOME", self.data.path());
        command
    }

    /// `kubectl` with these words.
    pub fn kubectl(&self, args: &[&str]) -> Output {
        self.command("kubectl").args(args).output().expect("kubectl")
    }

    /// `kubectl` with these words, which must succeed: its output.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.kubectl(args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {}: {text}{error}", args.join(" "));
        text
    }

    /// `kubectl` with a manifest on standard input, which must succeed.
    pub fn apply(&self, manifest: &str) -> String {
        let file = self.data.path().join("manifest.yaml");
        std::fs::write(&file, manifest).expect("a file");
        self.ok(&["apply", "-f", &file.to_string_lossy()])
    }

    /// What `curl` prints for an address within the cluster's network; empty where nobody answers.
    pub fn curl(&self, args: &[&str]) -> String {
        let output =
            self.command("curl").args(["-sS", "--max-time", "60"]).args(args).output().expect("curl");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until `probe` gives something.
    pub fn until<T>(&self, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
        patiently(|| probe().ok_or(())).unwrap_or_else(|()| {
            let state = self.kubectl(&["get", "pods,events", "-A", "-o", "wide"]);
            panic!("{what}: not within {TIMEOUT:?}\n{}", String::from_utf8_lossy(&state.stdout));
        })
    }
}

/// Asks until it is answered well, as long as is reasonable; the last bad answer otherwise.
pub fn patiently<T, E>(mut probe: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let started = Instant::now();
    loop {
        let answer = probe();
        if answer.is_ok() || started.elapsed() > TIMEOUT {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = self.log();
        let data = self.data.path().to_string_lossy().into_owned();
        let reset = self.command(YADO).args(["reset", "--data-dir", &data]).output();
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        // Of those that have a disk of their own.
        let _ =
            Command::new("umount").args(["-q", "-l"]).arg(self.data.path()).stderr(Stdio::null()).status();
        if std::thread::panicking() {
            eprintln!("what yado said:\n{log}");
        } else {
            let lacking: Vec<&str> = log.lines().filter(|line| line.contains(NOT_ALLOWED)).collect();
            assert!(lacking.is_empty(), "roles of components lack something:\n{}", lacking.join("\n"));
            let reset = reset.expect("yado reset");
            assert!(reset.status.success(), "{}", String::from_utf8_lossy(&reset.stderr));
        }
    }
}

/// Starts `yado up` and waits for its word, on the host of this name where one is given.
fn up(namespace: u32, data: &Path, host: Option<&str>, options: &[String], level: &str) -> Child {
    let log = File::options().append(true).create(true).open(data.join(LOG)).expect("a log");
    let mut command = Command::new("nsenter");
    if !level.is_empty() {
        command.env("YADO_LOG", level);
    }
    command.arg(format!("--net=/proc/{namespace}/ns/net")).arg("--");
    match host {
        None => command.args([YADO, "up", "--name", "node-1"]),
        Some(host) => {
            let script = "hostname \"$0\" && exec \"$@\"";
            command.args(["unshare", "--uts", "sh", "-c", script, host, YADO, "up"])
        }
    };
    let mut child = command
        .args(["--api-port", "6443", "--http-port", "8080", "--data-dir"])
        .arg(data)
        .args(options)
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("yado");
    let mut line = String::new();
    let stdout = child.stdout.as_mut().expect("its output");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    let log = || std::fs::read_to_string(data.join(LOG)).unwrap_or_default();
    assert!(line.starts_with("ready in "), "yado up said {line:?}\n{}", log());
    child
}
