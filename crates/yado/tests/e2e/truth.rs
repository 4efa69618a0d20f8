//! What commands say of a deployment is so: failures with their cause, and each project apart from every other.

use std::path::Path;
use std::process::{Child, Stdio};

use crate::cluster::{YADO, demo_image};
use crate::dev::Dev;
use crate::flow::check;

fn bring_busybox(dev: &Dev) {
    let images = dev.data.path().join("images");
    std::fs::create_dir_all(&images).expect("a folder");
    std::fs::copy(demo_image("busybox.tar"), images.join("busybox.tar")).expect("the image");
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    std::fs::write(path, text).expect("a file");
}

/// A service of busybox; each project is named after its only file.
fn service(name: &str, rest: &str) -> String {
    format!("services:\n  {name}:\n    image: busybox\n    stop_signal: SIGKILL\n{rest}")
}

/// Runs Yado with a working directory; its whole output.
fn inside(dev: &Dev, directory: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = dev.inside(YADO);
    command.args(args).current_dir(directory).env("YADO_DATA_DIR", dev.data.path()).env_remove("KUBECONFIG");
    let output = command.env("HOME", dev.data.path()).stdin(Stdio::null()).output().expect("yado");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

/// A program of the machine that has a port.
fn listener(dev: &Dev, port: &str) -> Child {
    let mut child = dev.inside("python3");
    let script = format!(
        "import socket,time; s=socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); \
         s.bind(('', {port})); s.listen(); print('there', flush=True); time.sleep(1000)"
    );
    let mut child = child.args(["-c", &script]).stdout(Stdio::piped()).spawn().expect("python3");
    let mut byte = [0];
    std::io::Read::read_exact(child.stdout.as_mut().expect("its output"), &mut byte).expect("a word");
    child
}

#[test]
fn a_deployment_that_cannot_become_ready_fails_with_its_cause() {
    let Some(dev) = Dev::new() else { return };
    bring_busybox(&dev);
    let folder = tempfile::tempdir().expect("a folder");
    let projects = [
        (
            "crash",
            service(
                "bad",
                "    restart: always\n    command: sh -c \"sleep 0.5; echo 'no configuration' >&2; exit 1\"\n",
            ),
        ),
        ("program", service("web", "    entrypoint: [/no/such/program]\n")),
        ("user", service("web", "    user: ghost\n    command: sleep 1000\n")),
        ("port", service("web", "    command: httpd -f -p 80\n    ports: [\"22160:80\"]\n")),
        (
            "probe",
            service(
                "db",
                "    command: sleep 1000\n    healthcheck: {test: [\"CMD-SHELL\", \"echo the schema is missing >&2; exit 1\"], \
                 interval: 1s}\n",
            ),
        ),
        (
            "external",
            service(
                "web",
                "    command: sleep 1000\n    volumes: [\"data:/d\"]\nvolumes: {data: {external: true}}\n",
            ),
        ),
        (
            "chain",
            service("migrate", "    restart: \"no\"\n    command: sh -c \"echo migrating; exit 3\"\n")
                + "  seed:\n    image: busybox\n    command: echo seeded\n    depends_on: {migrate: {condition: \
                   service_completed_successfully}}\n  web:\n    image: busybox\n    command: httpd -f -p 80\n    \
                   depends_on: {seed: {condition: service_completed_successfully}}\n",
        ),
    ];
    let config =
        service("web", "    command: sleep 1000\n    configs: [conf]\nconfigs: {conf: {file: ./conf}}\n");
    write(folder.path(), "config/compose.yaml", &config);
    write(folder.path(), "config/conf", "one");
    projects.iter().for_each(|(name, text)| write(folder.path(), &format!("{name}/compose.yaml"), text));
    let dir = folder.path().display().to_string();
    let run = |line: &str, code: i32, expect: &[&str]| check(&dev, &line.replace("DIR", &dir), code, expect);
    run("infra --http-port 8081", 0, &["the engine runs"]);
    let mut other = listener(&dev, "22160");

    let crash =
        ["Deployment bad is not ready after 4 s", "ended with exit code 1", "no configuration", "!success"];
    run("deploy DIR/crash --timeout 4", 1, &crash);
    // The rest would wait for the whole timeout of ten minutes if the cause were not seen.
    run("deploy DIR/program", 1, &["cannot be started", "/no/such/program"]);
    run("deploy DIR/user", 1, &["Deployment web has failed", "ghost"]);
    run("deploy DIR/port", 1, &["port 22160/TCP is in use", "python3", "!success"]);
    run(
        "deploy DIR/probe --timeout 4",
        1,
        &["the schema is missing", "echo the schema is missing >&2; exit 1"],
    );
    run(
        "deploy DIR/external",
        1,
        &["PersistentVolumeClaim data in namespace external", "nothing was applied"],
    );
    run(
        "deploy DIR/chain",
        1,
        &["Job migrate has failed", "exit code 3", "migrating", "seed and web wait for it"],
    );
    run("status chain", 0, &["v1 has failed"]);
    // Deployed again unchanged, it is run once more.
    run("deploy DIR/chain", 1, &["Job migrate has failed", "exit code 3"]);
    write(folder.path(), "chain/compose.yaml", &projects[6].1.replace("exit 3", "exit 0"));
    run("deploy DIR/chain", 0, &["Deploy success"]);

    // A process reads its files once: it is started anew when one has changed.
    run("deploy DIR/config --settle 0", 0, &["Deploy success"]);
    run("deploy DIR/config --settle 0", 0, &["0 added, 0 changed"]);
    write(folder.path(), "config/conf", "two");
    run("deploy DIR/config --settle 0", 0, &["~ ConfigMap conf", "~ Deployment web"]);

    other.kill().expect("to kill");
    other.wait().expect("to end");
    run("deploy DIR/port", 0, &["Deploy success"]);
    run("infra destroy --force", 0, &["nothing is left"]);
}

#[test]
fn projects_whose_names_come_out_as_one_are_kept_apart() {
    let Some(dev) = Dev::new() else { return };
    bring_busybox(&dev);
    let folder = tempfile::tempdir().expect("a folder");
    let say = |word: &str| {
        service(
            "web",
            &format!(
                "    command: sh -c \"echo {word} > /whoami; printf 'caf\\\\351\\\\n'; echo after; sleep 1000\"\n"
            ),
        )
    };
    for (project, word) in
        [("a/app", "a"), ("b/app", "b"), ("foo_bar", "c"), ("foo-bar", "d"), ("p1", "p1"), ("p2", "p2")]
    {
        write(folder.path(), &format!("{project}/compose.yaml"), &say(word));
    }
    let dir = folder.path().display().to_string();
    let run = |line: &str, code: i32, expect: &[&str]| check(&dev, &line.replace("DIR", &dir), code, expect);
    run("infra --http-port 8081", 0, &["the engine runs"]);
    run("deploy DIR/a/app --settle 0", 0, &["Deploy success"]);
    let both = [&format!("{dir}/a/app") as &str, &format!("{dir}/b/app"), "--take-over"];
    run("deploy DIR/b/app", 1, &both);
    run("deploy DIR/foo_bar --settle 0", 0, &["Deploy success"]);
    run("deploy DIR/foo-bar", 1, &["/foo_bar", "/foo-bar"]);
    run("exec app.web -- cat /whoami", 0, &["a"]);

    for project in ["p1", "p2"] {
        run(&format!("deploy DIR/{project} --settle 0"), 0, &["Deploy success"]);
    }
    // Somebody's own variable is taken back by the next deployment.
    let mut kubectl = dev.inside("kubectl");
    kubectl.env("KUBECONFIG", dev.data.path().join("kubeconfig"));
    let set =
        kubectl.args(["-n", "p1", "set", "env", "deployment/web", "ADDED=1"]).output().expect("kubectl");
    assert!(set.status.success(), "{set:?}");
    run("deploy DIR/p1 --settle 0", 0, &["~ Deployment web", "ADDED"]);

    let p2 = folder.path().join("p2");
    let of_p2 = |args: &[&str]| inside(&dev, &p2, args);
    assert_eq!(of_p2(&["exec", "web", "--", "cat", "/whoami"]), (Some(0), "p2\n".to_owned()));
    // Bytes that are no UTF-8 cost no line.
    assert_eq!(of_p2(&["logs", "--no-prefix"]), (Some(0), "caf\u{fffd}\nafter\n".to_owned()));
    let (code, question) = inside(&dev, folder.path(), &["exec", "web", "--", "true"]);
    assert!(code == Some(1) && question.contains("p1.web.1") && question.contains("p2.web.1"), "{question}");
    let (code, down) = of_p2(&["down"]);
    assert!(code == Some(0) && down.contains("- Namespace p2"), "{down}");
    run("ps", 0, &["p1.web.1", "!p2.web.1"]);
    run("infra destroy --force", 0, &["nothing is left"]);
}
