//! `yado dev`: the main job, on the examples.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::{TIMEOUT, YADO, demo_image, missing, patiently};

/// A place for `yado dev` and the like: a network namespace and a data directory with what was built before.
pub struct Dev {
    holder: Child,
    /// The data directory.
    pub data: tempfile::TempDir,
}

impl Dev {
    /// One of its own; `None`, with a word on standard error, where it cannot be had.
    pub fn new() -> Option<Self> {
        if let Some(reason) = missing() {
            yado_testkit::skip!("{reason}");
            return None;
        }
        let data = tempfile::Builder::new().prefix("yado-dev-").tempdir().expect("a folder");
        // The namespace has no way to Debian's packages: what was built before is at hand, as on a user's second run.
        bring_store(&demo_image("../image-store"), &data.path().join("oci"));
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up 2>/dev/null; echo there; exec sleep infinity"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a network namespace");
        let mut line = String::new();
        BufReader::new(holder.stdout.as_mut().expect("its output")).read_line(&mut line).expect("a word");
        Some(Self { holder, data })
    }

    /// A command in the namespace.
    pub fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holder.id())).arg("--").arg(program);
        command
    }

    /// Starts `yado dev` and gives it with its output once it has printed the address.
    fn start(&self, app: &Path) -> (Child, BufReader<ChildStdout>, String) {
        let mut child = self
            .inside(YADO)
            .args(["dev", "--http-port", "8080", "--data-dir"])
            .arg(self.data.path())
            .arg(app)
            .stdout(Stdio::piped())
            .spawn()
            .expect("yado dev");
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        assert!(line.starts_with("http://"), "yado dev said {line:?}");
        (child, output, line.trim().to_owned())
    }

    /// What `curl` prints; empty where nobody answers.
    pub fn curl(&self, args: &[&str]) -> String {
        let output =
            self.inside("curl").args(["-sSL", "--max-time", "60"]).args(args).output().expect("curl");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits for this page: a process without a probe runs a moment before it listens.
    pub fn page(&self, url: &str, text: &str) {
        let page = || Some(self.curl(&[url])).filter(|page| page != text).map_or(Ok(()), Err);
        assert_eq!(patiently(page), Ok(()), "{url} is {text:?}");
    }

    /// Waits until `probe` gives something.
    pub fn until<T>(&self, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
        patiently(|| probe().ok_or(())).unwrap_or_else(|()| panic!("{what}: not within {TIMEOUT:?}"))
    }
}

/// A store with what the demonstration images and the examples were made of. Layers are never written to once they are
/// there, so they need not be copied: tens of thousands of files take minutes where the disk is busy.
fn bring_store(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a folder");
    let copy = |how: &str, part: &Path| {
        let copied = Command::new("cp").arg(how).arg(part).arg(to).stderr(Stdio::null()).status();
        copied.expect("cp").success()
    };
    for part in std::fs::read_dir(from).expect("the store").flatten() {
        let lasting = ["layers", "blobs"].iter().any(|name| part.file_name() == *name);
        // Links do not lead to another file system.
        assert!(lasting && copy("-al", &part.path()) || copy("-a", &part.path()), "{:?}", part.path());
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // A test that failed, or one that is done with an engine in the background, leaves none either.
        for words in [&["dev", "destroy"][..], &["infra", "destroy", "--force"], &["reset"]] {
            let mut command = self.inside(YADO);
            drop(command.args(words).arg("--data-dir").arg(self.data.path()).output());
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A copy of an example, so that what `compile` writes stays out of the project.
pub fn example(name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    let copied = Command::new("cp").arg("-r").arg(format!("{}/.", from.display())).arg(copy.path()).status();
    assert!(copied.expect("cp").success());
    copy
}

/// What a run could leave behind on this machine.
fn traces(dev: &Dev) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let data = dev.data.path().to_string_lossy().into_owned();
    // Other tests run at the same time: only what is of this one's slot counts.
    let slot = std::fs::read_to_string(dev.data.path().join("net-slot")).expect("the slot");
    let run = format!("/run/yado/{}/", slot.trim());
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    found.extend(
        mounts.lines().filter(|l| l.contains(&data) || l.contains(&run)).map(|l| format!("mount {l}")),
    );
    for left in [run.clone(), format!("/run/yado/slot-{}.lock", slot.trim())] {
        found.extend(Path::new(&left).exists().then(|| format!("file {left}")));
    }
    let devices = dev.inside("cat").arg("/proc/net/dev").output().expect("devices").stdout;
    let devices = String::from_utf8_lossy(&devices).into_owned();
    found.extend(devices.lines().filter(|l| l.contains("yado")).map(|l| format!("device {l}")));
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&data) {
            found.insert(format!("process {line}"));
        }
    }
    for entry in std::fs::read_dir(dev.data.path()).expect("the data").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !["oci", "images", "lock", "net-slot"].contains(&name.as_str()) {
            found.insert(format!("file {name}"));
        }
    }
    found
}

/// The last processes of a Pod may need a moment to be gone from the kernel's table.
fn leaves_nothing(dev: &Dev) {
    let gone = || Some(traces(dev)).filter(|left| !left.is_empty()).map_or(Ok(()), Err);
    assert_eq!(patiently(gone), Ok(()));
}

#[test]
fn the_guestbook_runs_keeps_entries_and_leaves_nothing_behind() {
    let Some(dev) = Dev::new() else { return };
    let app = example("guestbook");
    let (mut child, mut output, url) = dev.start(app.path());
    assert_eq!(url, "http://guestbook.localhost:8080");
    // As a user's browser: a page first, whose leader and follower have found each other by then.
    dev.until("a page", || dev.curl(&[&url]).contains("<form").then_some(()));
    dev.curl(&["--data-urlencode", "text=Mio was here", &url]);
    dev.until("a page shows the entry", || dev.curl(&[&url]).contains("Mio was here").then_some(()));
    let mut line = String::new();
    output.read_line(&mut line).expect("a log line");
    assert!(line.contains(" | "), "{line}");

    // A crash costs neither containers nor entries; the next run adopts them.
    child.kill().expect("to kill");
    child.wait().expect("to end");
    let (mut child, _output, url) = dev.start(app.path());
    dev.until("a page shows the old entry", || dev.curl(&[&url]).contains("Mio was here").then_some(()));

    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("to signal");
    assert!(child.wait().expect("to end").success());
    leaves_nothing(&dev);
}

#[test]
fn the_smallest_app_runs() {
    let Some(dev) = Dev::new() else { return };
    let app = example("hello");
    let (mut child, _output, url) = dev.start(app.path());
    dev.until("the page", || dev.curl(&[&url]).contains("ello").then_some(()));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("to signal");
    assert!(child.wait().expect("to end").success());
    leaves_nothing(&dev);
}
