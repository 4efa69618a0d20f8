//! Yado's own client commands against a running `yado up`, as rows of tables.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::cluster::{Cluster, YADO, demo_image, missing, patiently};

/// What is run, its exit code, and what its output and errors together must hold; `!` before an expectation means it
/// must not be there.
type Row = (&'static str, i32, &'static [&'static str]);

/// Runs a command of Yado's in the cluster, with words on its standard input.
fn yado(cluster: &Cluster, args: &[&str], input: &[u8]) -> Output {
    let mut command = cluster.command(YADO);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    with_input(command, input)
}

fn with_input(mut command: Command, input: &[u8]) -> Output {
    let mut child = command.spawn().expect("yado");
    // Who fails early does not read all of it.
    let _ = child.stdin.take().expect("its input").write_all(input);
    child.wait_with_output().expect("its end")
}

fn check(cluster: &Cluster, rows: &[Row]) {
    let dir = cluster.data.path().display().to_string();
    for (line, code, expect) in rows {
        // What comes after the arrow is typed.
        let (line, input) = line.split_once(" < ").unwrap_or((line, ""));
        let line = line.replace("DIR", &dir);
        let (line, command) = line.split_once(" -- sh -c ").map_or((&*line, None), |(l, c)| (l, Some(c)));
        let mut args: Vec<&str> = line.split(' ').collect();
        args.extend(command.into_iter().flat_map(|command| ["--", "sh", "-c", command]));
        let row = || {
            let output = yado(cluster, &args, input.as_bytes());
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text);
            let met =
                |e: &&&str| e.strip_prefix('!').map_or_else(|| text.contains(**e), |not| !text.contains(not));
            let unmet: Vec<_> = expect.iter().filter(|e| !met(e)).collect();
            // No colours for what is no terminal, and errors in one line.
            assert!(!text.contains('\u{1b}'), "yado {line}: {text:?}");
            assert!(text.lines().filter(|l| l.starts_with("yado: ")).count() <= 1, "yado {line}: {text}");
            if output.status.code() == Some(*code) && unmet.is_empty() {
                return Ok(());
            }
            Err(format!("yado {line}: {}, without {unmet:?}:\n{text}", output.status))
        };
        // A first word is logged, and a page served, a moment after its process runs.
        let shows = ["ps", "logs"].contains(&args[0]);
        let done = if shows { patiently(row) } else { row() };
        done.unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}

const SHOP: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop-web, labels: &labels {app.kubernetes.io/name: shop, app.kubernetes.io/component: web, app.kubernetes.io/part-of: shop, app.kubernetes.io/managed-by: yado}}
spec:
  replicas: 2
  selector: {matchLabels: {app.kubernetes.io/name: shop}}
  template:
    metadata: {labels: *labels}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: web, image: busybox, imagePullPolicy: Never, command: [sh, -c, 'echo open at $HOSTNAME; exec httpd -f -p 8000']}
---
apiVersion: v1
kind: Service
metadata: {name: shop, labels: *labels}
spec: {selector: {app.kubernetes.io/name: shop}, ports: [{port: 80, targetPort: 8000}]}
";

#[test]
fn commands_on_what_runs() {
    let Some(cluster) = Cluster::start(&["busybox.tar"]) else { return };
    let file = |name: &str, text: &str| std::fs::write(cluster.data.path().join(name), text).expect("a file");
    // An anchor reaches no further than its document.
    let labels =
        "{app.kubernetes.io/name: shop, app.kubernetes.io/part-of: shop, app.kubernetes.io/managed-by: yado}";
    let (deployment, service) = SHOP.split_once("---\n").expect("two documents");
    file("shop.yaml", &format!("{deployment}---\n{}", service.replace("*labels", labels)));
    file("field.yaml", &SHOP.split("---").next().expect("one").replace("replicas", "replica"));
    file("kind.yaml", "apiVersion: v1\nkind: Nonsense\nmetadata: {name: n}\n");
    file("broken.yaml", "a: [");
    file("secret.key", "TOP SECRET\n");
    check(
        &cluster,
        &[
            ("ps", 0, &["nothing runs in namespace default"]),
            ("down", 1, &["there is no app in namespace default"]),
            ("apply -f DIR/shop.yaml --wait", 0, &["2 added, 0 changed, 0 destroyed", "is ready"]),
            ("apply -f DIR/shop.yaml", 0, &["0 added, 0 changed, 0 destroyed"]),
            ("ps", 0, &["shop.web.1", "shop.web.2", "Running"]),
            ("ps shop.web.2 -o json", 0, &["\"process\": \"shop.web.2\"", "!shop.web.1", "\"ready\": true"]),
            ("ps shop -o yaml", 0, &["- process: shop.web.1"]),
            ("ps nothing", 1, &["there is no app, process or Pod nothing"]),
            ("logs", 0, &["shop.web.1 | open at shop-web-", "shop.web.2 | open at shop-web-"]),
            ("logs shop.web.1 --no-prefix --tail 1", 0, &["open at", "!|"]),
            ("logs nothing", 1, &["nothing", "yado ps"]),
            ("exec shop.web.1 -- sh -c echo out; echo err >&2; exit 7", 7, &["out", "err"]),
            ("exec -i shop.web -- sh -c cat < typed", 0, &["typed"]),
            ("exec shop.web -- absent", 1, &["executable file not found"]),
            ("exec nothing -- ls", 1, &["nothing", "yado ps"]),
            ("apply -f DIR/field.yaml", 1, &["unknown field \"spec.replica\""]),
            ("apply -f DIR/kind.yaml", 1, &["kind Nonsense of v1 is unknown", "!GroupVersionKind"]),
            ("apply -f DIR/broken.yaml", 2, &["broken.yaml:"]),
            ("apply -f DIR/absent.yaml", 2, &["absent.yaml: cannot be read"]),
            ("apply", 2, &["--filename"]),
            ("ps --kubeconfig DIR/absent", 1, &["there is no kubeconfig", "--kubeconfig"]),
            ("ps --kubeconfig DIR/secret.key", 1, &["is not a valid kubeconfig", "!TOP SECRET"]),
            ("down shop", 0, &["destroyed"]),
            ("ps", 0, &["!shop"]),
            ("apply -f DIR/shop.yaml", 0, &["2 added"]),
            ("down -f DIR/shop.yaml", 0, &["2 destroyed"]),
            ("down -f DIR/shop.yaml", 0, &["0 destroyed"]),
        ],
    );
    let manifest = std::fs::read(cluster.data.path().join("shop.yaml")).expect("the manifest");
    let applied = yado(&cluster, &["apply", "-f", "-"], &manifest);
    assert!(String::from_utf8_lossy(&applied.stdout).contains("2 added"), "{applied:?}");

    let mut other = cluster.command(YADO);
    let kubeconfig = std::fs::read_to_string(cluster.data.path().join("kubeconfig")).expect("a kubeconfig");
    file("other", &kubeconfig.replace(":6443", ":1"));
    other.args(["ps", "--kubeconfig", &cluster.data.path().join("other").to_string_lossy()]);
    let error = String::from_utf8_lossy(&other.output().expect("yado").stderr).into_owned();
    assert!(error.contains("the API server cannot be reached") && error.lines().count() == 1, "{error}");
}

#[test]
fn images_come_by_any_way() {
    let Some(mut cluster) = Cluster::start(&[]) else { return };
    let busybox = demo_image("busybox.tar").display().to_string();
    let archive = std::fs::read(&busybox).expect("the archive");
    let name = "docker.io/library/busybox:latest";
    let has = |cluster: &Cluster| {
        let listed = yado(cluster, &["image", "ls", "-o", "json"], b"");
        String::from_utf8_lossy(&listed.stdout).contains(name)
    };
    assert!(!has(&cluster));

    // What is no image is told in one sentence, without a word of what is in it.
    for (args, input, expect) in [
        (["image", "import", "-"], &b"root:x:0:0:root:/root:/bin/bash"[..], "standard input is not imported"),
        (["image", "import", "/etc/passwd"], b"", "/etc/passwd is not imported"),
        (["image", "import", "/absent.tar"], b"", "/absent.tar cannot be read"),
        (["image", "import", "-"], &archive[..archive.len() / 3], "standard input is not imported"),
    ] {
        let output = yado(&cluster, &args, input);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(expect) && error.lines().count() == 1 && !error.contains("root:"), "{error}");
    }
    assert!(!has(&cluster));

    // Into a running engine, which uses it at once.
    cluster.ok(&["run", "waits", "--image=busybox", "--image-pull-policy=Never", "--", "sleep", "1000"]);
    let waiting = "jsonpath={.status.containerStatuses[0].state.waiting.reason}";
    cluster.until("the image is missed", || {
        (cluster.ok(&["get", "pod", "waits", "-o", waiting]) == "ErrImageNeverPull").then_some(())
    });
    let imported = yado(&cluster, &["image", "import", "-"], &archive);
    assert_eq!(String::from_utf8_lossy(&imported.stdout).trim(), name, "{imported:?}");
    assert!(has(&cluster));
    cluster.ok(&["wait", "--for=condition=Ready", "pod/waits", "--timeout=180s"]);
    cluster.ok(&["delete", "pod", "waits", "--force", "--grace-period=0"]);

    // While none runs; and a file that is none keeps nothing from starting.
    cluster.stop();
    assert!(has(&cluster));
    let imported = yado(&cluster, &["image", "import", &busybox, &busybox], b"");
    assert!(imported.status.success(), "{imported:?}");
    std::fs::write(cluster.data.path().join("images/broken.tar"), "garbage").expect("to write");
    cluster.restart();
    let table = yado(&cluster, &["image", "ls"], b"");
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.starts_with("IMAGE") && table.contains(name), "{table}");
}

#[test]
fn help_and_completions() {
    for (args, code, expect) in [
        (&["--help"][..], 0, "Exit codes"),
        (&["help", "logs"], 0, "--follow"),
        (&["dev", "--help"], 0, "--http-port"),
        (&["version"], 0, env!("CARGO_PKG_VERSION")),
        (&["completions", "bash"], 0, "_yado()"),
        (&["completions", "zsh"], 0, "#compdef yado"),
        (&["completions", "fish"], 0, "complete -c yado"),
        (&[], 2, "Usage: yado"),
        (&["frobnicate"], 2, "unrecognized subcommand"),
        (&["ps", "--port"], 2, "unexpected argument"),
        (&["up", "--api-port", "70000"], 2, "70000"),
    ] {
        let output = Command::new(YADO).args(args).output().expect("yado");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.contains(expect) && !text.contains('\u{1b}'), "{args:?}: {text}");
    }
    // A reader that goes away is no failure.
    let mut child =
        Command::new(YADO).args(["completions", "bash"]).stdout(Stdio::piped()).spawn().expect("yado");
    drop(child.stdout.take());
    assert!(child.wait().expect("its end").success());
    if missing().is_none() {
        let output = Command::new(YADO).args(["shim", "--help"]).output().expect("yado");
        assert!(!output.status.success());
    }
}
