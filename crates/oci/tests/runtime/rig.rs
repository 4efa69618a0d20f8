//! A runtime of a test's own, with real containers from busybox, that must leave nothing behind.

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::fs;
use std::future::Future;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use futures::FutureExt;
use nix::poll::{PollFd, PollFlags, poll};
use yado_oci::runtime::{Config, Runtime, SHIM_ARGUMENT, Sandbox, shim_main};
use yado_oci::spec::*;

/// Runs before `main`, and so before the test harness has any thread: this very program is the shim where its first
/// argument says so. The C library passes the arguments.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn(c_int, *const *const c_char) = before_main;

extern "C" fn before_main(count: c_int, args: *const *const c_char) {
    // SAFETY: these are main's own arguments: `count` C strings that live as long as the process.
    let args: Vec<OsString> = (0..count as usize)
        .map(|index| unsafe { OsString::from_vec(CStr::from_ptr(*args.add(index)).to_bytes().to_vec()) })
        .collect();
    if args.get(1).is_some_and(|argument| argument == SHIM_ARGUMENT) {
        shim_main(&args[2..]);
    }
}

pub struct Rig {
    pub runtime: Runtime,
    pub config: Config,
    pub dir: PathBuf,
}

/// Why real containers cannot run here, if they cannot.
fn obstacle() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root");
    }
    (!Path::new("/bin/busybox").exists()).then_some("no /bin/busybox (Debian package busybox-static)")
}

/// Runs a test with a runtime of its own, then destroys what is left and looks for traces.
pub fn with_rig<F: Future<Output = ()>>(test: impl FnOnce(std::sync::Arc<Rig>) -> F) {
    if let Some(reason) = obstacle() {
        yado_testkit::skip!("{reason}");
        return;
    }
    let executor =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    executor.block_on(async {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().to_owned();
        let name = dir.file_name().unwrap().to_string_lossy().replace('.', "").to_lowercase();
        let config = Config {
            state_dir: dir.join("state"),
            shim_exe: "/proc/self/exe".into(),
            cgroup_root: format!("yado-test/{name}"),
        };
        make_layer(&dir.join("layer"));
        let runtime = Runtime::new(config.clone()).unwrap();
        let rig = std::sync::Arc::new(Rig { runtime, config, dir });
        let result = AssertUnwindSafe(test(rig.clone())).catch_unwind().await;
        // A fresh one, as after a restart.
        let runtime = Runtime::new(rig.config.clone()).unwrap();
        for found in runtime.sandboxes().await.unwrap() {
            runtime.destroy(&found.spec.id).await.unwrap();
        }
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
        rig.assert_no_traces();
    });
}

fn make_layer(layer: &Path) {
    for dir in ["bin", "etc", "tmp", "data", "home/app", "usr"] {
        fs::create_dir_all(layer.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", layer.join("bin/busybox")).unwrap();
    let list = std::process::Command::new("/bin/busybox").arg("--list").output().unwrap();
    for applet in String::from_utf8(list.stdout).unwrap().lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", layer.join("bin").join(applet)).unwrap();
    }
    fs::write(layer.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n")
        .unwrap();
    fs::write(layer.join("etc/group"), "root:x:0:\napp:x:1001:\nextra:x:50:app\n").unwrap();
    // Links that would lead out of the container if anything followed them outside.
    symlink("/etc/passwd", layer.join("data/link")).unwrap();
    symlink("..", layer.join("usr/up")).unwrap();
}

impl Rig {
    pub fn sandbox_spec(&self, id: &str) -> SandboxSpec {
        SandboxSpec {
            id: id.to_owned(),
            hostname: format!("host-{id}"),
            netns: None,
            host_pid: false,
            host_ipc: false,
            share_pid: false,
            resources: Resources::default(),
            sysctls: BTreeMap::new(),
            labels: BTreeMap::from([("pod".to_owned(), id.to_owned())]),
        }
    }

    pub async fn sandbox(&self, id: &str) -> Sandbox {
        self.runtime.create_sandbox(self.sandbox_spec(id)).await.unwrap()
    }

    /// A container that runs a shell script.
    pub fn shell(&self, id: &str, script: &str) -> ContainerSpec {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        const DEFAULT: [&str; 14] = [
            "CHOWN",
            "DAC_OVERRIDE",
            "FSETID",
            "FOWNER",
            "MKNOD",
            "NET_RAW",
            "SETGID",
            "SETUID",
            "SETFCAP",
            "SETPCAP",
            "NET_BIND_SERVICE",
            "SYS_CHROOT",
            "KILL",
            "AUDIT_WRITE",
        ];
        ContainerSpec {
            id: id.to_owned(),
            layers: vec![self.dir.join("layer")],
            host: None,
            read_only_root: false,
            args,
            env: vec![],
            cwd: "/".into(),
            user: String::new(),
            run_as_non_root: false,
            groups: vec![],
            mounts: vec![],
            capabilities: DEFAULT.map(|name| format!("CAP_{name}")).to_vec(),
            privileged: false,
            no_new_privileges: false,
            seccomp: Seccomp::Default,
            resources: Resources::default(),
            limits: BTreeMap::new(),
            oom_score_adj: 0,
            terminal: false,
            stdin: false,
            log: LogSpec { path: self.log_path(id), max_bytes: 1 << 20, max_files: 3 },
            labels: BTreeMap::new(),
        }
    }

    pub fn log_path(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.log"))
    }

    /// What a container said: its log without the times, standard output first. How the two streams interleave is
    /// nobody's promise.
    pub fn log(&self, id: &str) -> String {
        let text = fs::read_to_string(self.log_path(id)).unwrap();
        let mut lines: Vec<&str> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
        lines.sort_by_key(|line| line.starts_with("stderr"));
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// Runs a container to its end.
    pub async fn run(&self, sandbox: &Sandbox, spec: ContainerSpec) -> (i32, bool, String) {
        let id = spec.id.clone();
        sandbox.create(spec).await.unwrap();
        sandbox.start(&id).await.unwrap();
        exit(sandbox, &id).await
    }

    pub fn assert_no_traces(&self) {
        let left: Vec<_> =
            fs::read_dir(&self.config.state_dir).unwrap().flatten().map(|e| e.path()).collect();
        assert!(left.is_empty(), "directories: {left:?}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let dir = self.dir.to_string_lossy().into_owned();
        let left: Vec<_> = mounts.lines().filter(|line| line.contains(&dir)).collect();
        assert!(left.is_empty(), "mounts: {left:?}");
        for mount in mounts.lines().filter(|line| line.contains(" - cgroup")) {
            let path = Path::new(mount.split(' ').nth(4).unwrap()).join(&self.config.cgroup_root);
            assert!(!path.exists(), "cgroup: {}", path.display());
        }
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(command) = fs::read_to_string(process.path().join("cmdline")) else { continue };
            let shim = command.contains(&dir) && command.contains(&format!("\0{SHIM_ARGUMENT}\0"));
            // What started a shim may be a moment from its own end.
            assert!(
                !shim || ends_soon(&process.file_name()),
                "process {}: {command:?}",
                process.path().display()
            );
        }
    }
}

/// Waits for the end of a process, and not for ever.
fn ends_soon(pid: &OsStr) -> bool {
    let pid: i32 = pid.to_str().unwrap().parse().unwrap();
    // SAFETY: a system call without pointers; its new descriptor is nobody else's.
    let handle = unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        if fd < 0 {
            return true;
        }
        OwnedFd::from_raw_fd(fd as i32)
    };
    let mut handles = [PollFd::new(handle.as_fd(), PollFlags::POLLIN)];
    poll(&mut handles, 60_000u16).unwrap() > 0
}

pub async fn exit(sandbox: &Sandbox, id: &str) -> (i32, bool, String) {
    match sandbox.wait(id).await {
        Some(ContainerState::Exited { code, oom_killed, message, .. }) => (code, oom_killed, message),
        other => panic!("{id}: {other:?}"),
    }
}
