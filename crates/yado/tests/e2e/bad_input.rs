//! What cannot work is told in one sentence, with an exit code, and nothing half-done stays.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::cluster::{Cluster, YADO, demo_image, missing};

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
        yado_testkit::skip!("{reason}");
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
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(text.matches("in use").count(), 1, "{text}");

    // Before anything is built, too.
    let app = tempfile::tempdir().expect("a folder");
    std::fs::write(app.path().join("Procfile"), "web: true\n").expect("a file");
    std::fs::write(app.path().join("Aptfile"), "no-such-package\n").expect("a file");
    let output = yado(&["dev", &app.path().to_string_lossy(), "--data-dir", &dir, "--http-port", &port]);
    check(&output, 1, &[&port, "--http-port"]);

    // Nothing is made where there is nothing to remove.
    let absent = data.path().join("absent");
    check(&yado(&["reset", "--data-dir", &absent.to_string_lossy()]), 0, &[]);
    assert!(!absent.exists());

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
    for (file, content, parts) in [
        ("store/state.redb", vec![7u8; 65_536], &["state.redb is damaged", "backup"][..]),
        ("store/state.redb", vec![], &["state.redb is damaged", "backup"]),
        ("pki/ca.key", b"garbage".to_vec(), &["ca.key is damaged"]),
        ("oci/index.json", b"{".to_vec(), &["index.json", "damaged"]),
    ] {
        let file = data.path().join(file);
        std::fs::create_dir_all(file.parent().expect("its folder")).expect("a folder");
        std::fs::write(&file, &content).expect("a file");
        if file.ends_with("ca.key") {
            std::fs::write(file.with_extension("crt"), "garbage").expect("a file");
        }
        let output = yado(&["up", "--data-dir", &dir, "--http-port", "0", "--api-port", "0"]);
        check(&output, 1, parts);
        assert_eq!(std::fs::read(&file).expect("the file"), content, "{}", file.display());
        std::fs::remove_file(file).expect("to mend it");
    }
    clean(data.path());
}

/// The middle of a database that was written, overwritten: where its reader panics, that is damage too.
#[test]
fn a_database_with_a_hole() {
    let Some(mut cluster) = Cluster::start(&[]) else { return };
    cluster.stop();
    let file = cluster.data.path().join("store/state.redb");
    let whole = std::fs::read(&file).expect("the database");
    let mut seen = 0;
    for at in [8_192, 20_480, 40_960, 61_440] {
        let mut damaged = whole.clone();
        damaged[at..at + 4096].iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * 167 + 13) as u8);
        std::fs::write(&file, &damaged).expect("to damage");
        let dir = cluster.data.path().to_string_lossy().into_owned();
        let mut up = cluster.command(YADO);
        // What is damaged but not used does no harm; then it starts, and is ended.
        up.args(["up", "--data-dir", &dir, "--http-port", "0", "--api-port", "0"]);
        let mut child = up.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("yado");
        let mut said = String::new();
        let _ = BufReader::new(child.stdout.as_mut().expect("its output")).read_line(&mut said);
        if said.starts_with("ready") {
            child.kill().expect("to kill");
            child.wait().expect("to end");
        } else {
            seen += 1;
            check(&child.wait_with_output().expect("its end"), 1, &["state.redb is damaged", "backup"]);
        }
        std::fs::write(&file, &whole).expect("to mend");
    }
    assert!(seen > 0, "no hole was noticed");
    cluster.restart();
}

/// A disk that is full costs nothing that was told to be done, and all goes on once there is room.
#[test]
fn a_full_disk() {
    let Some(mut cluster) = Cluster::start_on_disk_of(32, &["busybox.tar"]) else { return };
    cluster.ok(&["create", "configmap", "before"]);
    cluster.ok(&["run", "runs", "--image=busybox", "--image-pull-policy=Never", "--", "sleep", "1000"]);
    cluster.ok(&["wait", "--for=condition=Ready", "pod/runs", "--timeout=180s"]);
    let filler = cluster.data.path().join("filler");
    let mut zeros = File::open("/dev/zero").expect("zeros");
    std::io::copy(&mut zeros, &mut File::create(&filler).expect("a file")).expect_err("the disk to be full");
    let mut refused = None;
    for i in 0..20 {
        let literal = format!("--from-literal=a={}", "x".repeat(20_000));
        let output = cluster.kubectl(&["create", "configmap", &format!("c{i}"), &literal]);
        if !output.status.success() {
            refused = Some(String::from_utf8_lossy(&output.stderr).into_owned());
            break;
        }
    }
    let refused = refused.expect("a refusal");
    assert!(refused.contains("no room left on the disk") && refused.contains("free some space"), "{refused}");
    assert_eq!(cluster.ok(&["exec", "runs", "--", "echo", "alive"]), "alive\n");
    let import =
        cluster.command(YADO).args(["image", "import"]).arg(demo_image("gb-redisslave.tar")).output();
    check(&import.expect("yado"), 1, &["the disk is full", "free some space"]);

    // A crash in this state, and then room.
    cluster.kill();
    std::fs::remove_file(&filler).expect("to make room");
    cluster.restart();
    cluster.ok(&["get", "configmap", "before"]);
    cluster.ok(&["create", "configmap", "after"]);
    cluster.ok(&["delete", "pod", "runs", "--force", "--grace-period=0"]);
    cluster.until("all is gone", || {
        std::fs::read_dir(cluster.data.path().join("pods/sandboxes"))
            .is_ok_and(|mut d| d.next().is_none())
            .then_some(())
    });
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
