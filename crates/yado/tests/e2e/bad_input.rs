//! What cannot work is told in one sentence, with an exit code, and nothing half-done stays.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use crate::cluster::{Cluster, YADO, missing};

fn yado(args: &[&str]) -> Output {
    Command::new(YADO).args(args).output().expect("yado")
}

/// Checks exit code and sentence: one line that names what and where.
fn check(output: &Output, code: i32, parts: &[&str]) {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(parts.iter().all(|part| error.contains(part)), "{error:?} lacks one of {parts:?}");
    assert!(!error.contains("panicked") && !error.contains("RUST_BACKTRACE"), "{error}");
}

#[test]
fn descriptions_that_are_wrong() {
    let dir = tempfile::tempdir().expect("a folder");
    let app = |text: &str| {
        std::fs::write(dir.path().join("Appfile"), text).expect("a file");
        yado(&["compile", &dir.path().to_string_lossy()])
    };
    check(&app("application {\n  name = \"a\"\n  nonsense = 1\n}\n"), 2, &["Appfile:3", "nonsense"]);
    check(&app("application {\n"), 2, &["Appfile:"]);
    let missing = "application {\n  name = \"a\"\n  dependency {\n    source = \"./nowhere\"\n  }\n}\n";
    check(&app(missing), 2, &["Appfile:4", "nowhere"]);
    check(&yado(&["compile", "/does/not/exist"]), 2, &["/does/not/exist"]);
    check(&yado(&["frobnicate"]), 2, &["frobnicate"]);
    assert!(!dir.path().join(".yado").exists());
}

#[test]
fn machines_that_are_not_fit() {
    if let Some(reason) = missing() {
        eprintln!("skipped: {reason}");
        return;
    }
    let data = tempfile::tempdir().expect("a folder");
    let dir = data.path().to_string_lossy().into_owned();

    // A port in use, before anything is touched.
    let taken = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = taken.local_addr().expect("its address").port().to_string();
    let output = yado(&["up", "--data-dir", &dir, "--http-port", &port, "--api-port", "0"]);
    check(&output, 1, &[&port, "--http-port"]);
    let output = yado(&["up", "--data-dir", &dir, "--http-port", "0", "--api-port", &port]);
    check(&output, 1, &[&port, "--api-port"]);

    // Not root.
    let copy = tempfile::Builder::new().prefix("yado-bin-").tempdir_in("/tmp").expect("a folder");
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--clear-groups", YADO, "up", "--data-dir", "/tmp/never-made"])
        .output()
        .expect("setpriv");
    drop(copy);
    if output.status.code() != Some(126) && output.status.code() != Some(127) {
        check(&output, 1, &["root"]);
    }

    // A data directory that cannot be one, and a damaged one.
    check(
        &yado(&["up", "--data-dir", "/proc/nope", "--http-port", "0", "--api-port", "0"]),
        1,
        &["/proc/nope"],
    );
    let store = data.path().join("store");
    std::fs::create_dir_all(&store).expect("a folder");
    std::fs::write(store.join("state.redb"), vec![7u8; 65_536]).expect("a file");
    let output = yado(&["up", "--data-dir", &dir, "--http-port", "0", "--api-port", "0"]);
    check(&output, 1, &["state.redb", "damaged"]);
    assert_eq!(std::fs::read(store.join("state.redb")).expect("the file").len(), 65_536);
    clean(data.path());
}

/// A start that fails leaves no device, no mount, no process; only the data directory that it was given.
fn clean(data: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    assert!(!mounts.contains(&*data.to_string_lossy()), "{mounts}");
}

#[test]
fn a_second_yado_and_an_image_that_cannot_be_had() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    let dir = cluster.data.path().to_string_lossy().into_owned();
    let second = cluster
        .command(YADO)
        .args(["up", "--data-dir", &dir, "--http-port", "0", "--api-port", "0"])
        .output();
    check(&second.expect("yado"), 1, &["in use by another yado", &dir, "--data-dir"]);

    cluster.ok(&["create", "deployment", "ghost", "--image=yado.local/ghost:1"]);
    let told = cluster.until("the Pod tells why", || {
        let text = cluster.ok(&[
            "get",
            "pods",
            "-l",
            "app=ghost",
            "-o",
            "jsonpath={.items[*].status.containerStatuses[*].state.waiting.reason}",
        ]);
        (text == "ErrImagePull" || text == "ImagePullBackOff").then_some(text)
    });
    assert!(!told.is_empty());
    let events = cluster.until("an event tells which", || {
        let text = cluster.ok(&["describe", "pods", "-l", "app=ghost"]);
        text.contains("Failed to pull image \"yado.local/ghost:1\"").then_some(text)
    });
    assert!(events.contains("Warning"), "{events}");
}
