//! Apps of several containers as others wrote them, with a real database, and callers from another machine.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::corpus::corpus;
use crate::dev::Dev;
use crate::flow::check;

/// The bulletin board as it was started with docker's links, the database on a volume of its own, each tier on the
/// networks that it needs. What links told by variables under `docker run`, a compose file of today says itself.
const BOARD: &str = r#"
services:
  web:
    image: example/web:ver1.0
    ports: ["80:80"]
    links: ["app:rest"]
    networks: [dmz, app]
  app:
    image: example/app:ver1.0
    expose: ["5555"]
    links: ["dbs:db"]
    environment:
      DB_PORT_3306_TCP_ADDR: db
      DB_PORT_3306_TCP_PORT: "3306"
      DB_ENV_MYSQL_DATABASE: board
      DB_ENV_MYSQL_USER: board
      DB_ENV_MYSQL_PASSWORD: pass\word
    networks: [app, dbs]
  dbs:
    image: example/dbs:ver1.0
    environment:
      MYSQL_ROOT_PASSWORD: it's secret
      MYSQL_DATABASE: board
      MYSQL_USER: board
      MYSQL_PASSWORD: pass\word
    volumes: ["entries:/var/lib/mysql"]
    networks: [dbs]
networks: {dmz: , app: , dbs: }
volumes: {entries: }
"#;

/// The same as it stood in a machine's start-up script.
const UNITS: [(&str, &str); 3] = [
    (
        "dbs",
        "-v DIR/entries:/var/lib/mysql -e MYSQL_ALLOW_EMPTY_PASSWORD=yes -e MYSQL_DATABASE=board \
         -e MYSQL_USER=board -e MYSQL_PASSWORD=word example/dbs:ver1.0",
    ),
    ("app", "--expose 5555 --link dbs:db example/app:ver1.0"),
    ("web", "--link app:rest -p 80:80 example/web:ver1.0"),
];

/// Another machine: a network namespace that reaches the test's by a wire, and has a route to whatever lies behind.
struct Outside(Child);

/// The node's address on the wire.
const NODE: &str = "192.0.2.1";

impl Outside {
    fn new(dev: &Dev) -> Self {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo there; exec sleep infinity"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a network namespace");
        let mut line = String::new();
        BufReader::new(holder.stdout.as_mut().expect("its output")).read_line(&mut line).expect("a word");
        let outside = Self(holder);
        let peer = outside.0.id().to_string();
        let near = format!(
            "ip link add wire type veth peer name wire netns {peer} && ip addr add {NODE}/24 dev wire && ip link set \
             wire up"
        );
        let far = format!(
            "ip addr add 192.0.2.2/24 dev wire && ip link set wire up && ip route add default via {NODE}"
        );
        assert!(dev.inside("sh").args(["-c", &near]).status().expect("ip").success());
        assert!(outside.command("sh").args(["-c", &far]).status().expect("ip").success());
        outside
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.0.id())).arg("--").arg(program);
        command
    }

    /// What another machine gets from there; curl's word for it where it gets nothing.
    fn get(&self, address: &str) -> String {
        let output = self
            .command("curl")
            .args(["-sS", "--max-time", "5", "-w", "%{errormsg}", &format!("http://{address}/")])
            .output()
            .expect("curl");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn kubectl(dev: &Dev, args: &[&str]) -> String {
    let output = dev
        .inside("kubectl")
        .env("KUBECONFIG", dev.data.path().join("kubeconfig"))
        .args(args)
        .output()
        .expect("kubectl");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Addresses of the Pods or Services of a namespace.
fn addresses(dev: &Dev, kind: &str, namespace: &str) -> Vec<String> {
    let path = match kind {
        "pods" => "jsonpath={.items[*].status.podIP}",
        _ => "jsonpath={.items[*].spec.clusterIP}",
    };
    let found = kubectl(dev, &["get", kind, "-n", namespace, "-o", path]);
    found.split_whitespace().filter(|address| *address != "None").map(str::to_owned).collect()
}

/// What users do with a board: it keeps what they write, also when its containers are replaced.
fn use_board(dev: &Dev, namespace: &str, tiers: [&str; 3]) {
    let page = || dev.curl(&["http://localhost/"]);
    dev.until("the page", || page().contains("Bulletin board").then_some(()));
    let write = |entry: &str| {
        dev.curl(&["--data-urlencode", &format!("entry={entry}"), "http://localhost/"]);
    };
    write("Mio was here");
    assert!(page().contains("<p>Mio was here</p>"), "{}", page());
    for tier in tiers {
        kubectl(dev, &["delete", "pod", "-n", namespace, "-l", tier]);
        dev.until(tier, || page().contains("<p>Mio was here</p>").then_some(()));
    }
    write("So was Ken");
    assert!(page().contains("<p>Mio was here</p>\n<p>So was Ken</p>"), "{}", page());
}

/// From another machine, even one that knows the way: the published port and nothing else.
fn only_the_web_is_reached(dev: &Dev, namespace: &str) {
    let outside = Outside::new(dev);
    assert!(outside.get(NODE).contains("Mio was here"), "{}", outside.get(NODE));
    for port in [3306, 5555] {
        let said = outside.get(&format!("{NODE}:{port}"));
        assert!(said.contains("Failed to connect"), "{port}: {said}");
    }
    let (pods, services) = (addresses(dev, "pods", namespace), addresses(dev, "services", namespace));
    assert!(pods.len() >= 3 && services.len() >= 3, "{pods:?} {services:?}");
    for address in pods.iter().chain(&services) {
        for port in [80, 3306, 5555] {
            let said = outside.get(&format!("{address}:{port}"));
            assert!(said.contains("Failed to connect"), "{address}:{port}: {said}");
        }
    }
}

#[test]
fn p01_p03_p04_three_tiers_of_a_compose_file() {
    let Some(dev) = Dev::new() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("compose.yaml"), BOARD).expect("a file");
    let dir = folder.path().display().to_string();
    let run = |line: &str, code: i32, expect: &[&str]| check(&dev, &line.replace("DIR", &dir), code, expect);

    run("infra --http-port 8081", 0, &["the engine runs"]);
    run("deploy DIR -p board", 0, &["http://board.localhost:8081"]);
    let tier = |name: &str| format!("app.kubernetes.io/component={name}");
    use_board(&dev, "board", [&tier("dbs"), &tier("app"), &tier("web")]);
    only_the_web_is_reached(&dev, "board");
    // P11: the web tier is on no network with the database, the application is.
    let reach = |from: &str| {
        let test = "timeout 3 bash -c '</dev/tcp/dbs/3306'";
        let mut command = dev.inside("kubectl");
        command.env("KUBECONFIG", dev.data.path().join("kubeconfig"));
        command.args(["exec", "-n", "board", &format!("deployment/{from}"), "--", "sh", "-c", test]);
        command.output().expect("kubectl").status.success()
    };
    assert_eq!([reach("web"), reach("app")], [false, true]);
    run("down board --volumes", 0, &["- Namespace board"]);
}

/// Somebody's compose file, unmodified: WordPress is set up in its own pages, and is as it was after all its Pods have
/// been replaced. Its image is large, so it runs where `YADO_TEST_APPS=all`.
#[test]
fn wordpress_of_a_compose_file_runs_unmodified() {
    if std::env::var("YADO_TEST_APPS").as_deref() != Ok("all") {
        return yado_testkit::not_proved!("YADO_TEST_APPS=all runs it");
    }
    let Some(file) = corpus("compose/wordpress-mysql/compose.yaml") else { return };
    let Some(dev) = Dev::new() else { return };
    check(&dev, "infra --http-port 8081", 0, &["the engine runs"]);
    check(&dev, &format!("deploy {} -p blog", file.display()), 0, &["http://localhost:80"]);
    let page = |path: &str| dev.curl(&[&format!("http://localhost/{path}")]);
    dev.until("the installation", || page("").contains("WordPress &rsaquo; Installation").then_some(()));
    let form = "weblog_title=Mio&user_name=mio&admin_password=secret-word-1&admin_password2=secret-word-1&pw_weak=on\
                &admin_email=mio@example.com&Submit=Install";
    let said = dev.curl(&["-d", form, "http://localhost/wp-admin/install.php?step=2"]);
    assert!(said.contains("<h1>Success!</h1>"), "{said}");
    kubectl(&dev, &["delete", "pods", "-n", "blog", "--all"]);
    dev.until("the same again", || page("wp-login.php").contains("Log In &lsaquo; Mio").then_some(()));
    check(&dev, "down blog --volumes", 0, &["- Namespace blog"]);
}

#[test]
fn p02_p03_p04_three_tiers_of_docker_run_lines() {
    let Some(dev) = Dev::new() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().display().to_string();
    let run = |line: &str, code: i32, expect: &[&str]| check(&dev, &line.replace("DIR", &dir), code, expect);
    run("infra --http-port 8081", 0, &["the engine runs"]);
    for (name, words) in UNITS {
        let text = format!(
            "[Service]\nExecStartPre=-/usr/bin/docker rm -f {name}\nExecStart=/usr/bin/docker run -it --name {name} \
             {}\nExecStop=/usr/bin/docker stop {name}\n",
            words.replace("DIR", &dir)
        );
        std::fs::write(folder.path().join(format!("{name}.service")), text).expect("a file");
    }
    run("fleet start DIR/dbs.service DIR/app.service DIR/web.service", 0, &["Unit web.service launched"]);
    let tier = |name: &str| format!("app.kubernetes.io/name={name}");
    use_board(&dev, "default", [&tier("dbs"), &tier("app"), &tier("web")]);
    only_the_web_is_reached(&dev, "default");
    run("fleet destroy web.service app.service dbs.service", 0, &["Destroyed dbs.service"]);
}
