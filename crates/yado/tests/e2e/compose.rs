//! Compose projects, run and deployed.

use crate::cluster::demo_image;
use crate::dev::{Dev, example};
use crate::flow::check;

/// A web page behind a published port, a dependency under an alias, a job that comes first, and a volume of both.
const PROJECT: &str = r#"
services:
  web:
    image: busybox
    command: httpd -f -p 80 -h /www
    stop_signal: SIGKILL
    ports: ["8080:80"]
    links: ["back:store"]
    volumes: ["./www:/www", "data:/data"]
    depends_on:
      once: {condition: service_completed_successfully}
      back: {condition: service_started}
  back:
    image: busybox
    command: ["nc", "-ll", "-p", "7000", "-e", "echo", "from the back"]
    stop_signal: SIGKILL
    expose: ["7000"]
  once:
    image: busybox
    command: touch /data/made
    volumes: ["data:/data"]
volumes:
  data: {}
"#;

fn bring(dev: &Dev, archive: &str) {
    let images = dev.data.path().join("images");
    std::fs::create_dir_all(&images).expect("a folder");
    std::fs::copy(demo_image(archive), images.join(archive)).expect("the image");
}

fn project(dev: &Dev) -> tempfile::TempDir {
    bring(dev, "busybox.tar");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("www")).expect("a folder");
    std::fs::write(folder.path().join("www/index.html"), "hello from compose\n").expect("a file");
    std::fs::write(folder.path().join("compose.yaml"), PROJECT).expect("a file");
    folder
}

#[test]
fn a_project_runs_with_its_ports_links_volumes_and_order() {
    let Some(dev) = Dev::new() else { return };
    let folder = project(&dev);
    let dir = folder.path().display().to_string();
    let run = |line: &str, code: i32, expect: &[&str]| check(&dev, &line.replace("DIR", &dir), code, expect);

    // The router leaves the port that the project publishes to the project.
    run("dev -d DIR -p site", 0, &["http://site.localhost:8081", "http://localhost:8080"]);
    dev.page("http://localhost:8080/", "hello from compose\n");
    dev.page("http://site.localhost:8081/", "hello from compose\n");
    run("dev status", 0, &["site.web.1", "site.back.1"]);
    run("dev ssh web -- ls /data", 0, &["made"]);
    // A link is a name, and no variable; a container has the name that Docker gives it.
    run("dev ssh web -- env", 0, &["!STORE_PORT"]);
    run("dev ssh web -- nc store 7000", 0, &["from the back"]);
    run("dev ssh web -- nc site-back-1 7000", 0, &["from the back"]);
    run("dev destroy", 0, &["nothing is left"]);
}

#[test]
fn a_project_is_deployed_to_a_namespace_of_its_own() {
    let Some(dev) = Dev::new() else { return };
    let folder = project(&dev);
    let dir = folder.path().display().to_string();
    let run = |line: &str, code: i32, expect: &[&str]| check(&dev, &line.replace("DIR", &dir), code, expect);
    run("infra --http-port 8081", 0, &["the engine runs"]);
    run(
        "deploy DIR -p site",
        0,
        &["0 changed, 0 destroyed", "url = http://site.localhost:8081", "+ Namespace site"],
    );
    dev.page("http://localhost:8080/", "hello from compose\n");
    run("deploy DIR -p site", 0, &["0 added, 0 changed, 0 destroyed"]);
    run("ps", 0, &["site.web.1", "site.back.1"]);
    run("logs site.back", 0, &[]);
    run("exec site.web -- ls /data", 0, &["made"]);

    let text =
        PROJECT.replace("busybox\n    command: touch /data/made", "busybox\n    command: touch /data/again");
    std::fs::write(folder.path().join("compose.yaml"), text).expect("to write");
    run("deploy DIR -p site", 0, &["~ Job", "recreated", "0 added, 1 changed, 0 destroyed"]);
    run("exec site.web -- ls /data", 0, &["made", "again"]);

    run(
        "down site",
        0,
        &["- Deployment", "PersistentVolumeClaim", "stays: `yado down site --volumes` removes it"],
    );
    run("ps", 0, &["nothing runs"]);
    run("deploy DIR -p site", 0, &["0 destroyed"]);
    run("exec site.web -- ls /data", 0, &["made"]);
    run("down site --volumes", 0, &["- Namespace site", "!stays"]);
    run("status", 0, &["nothing is deployed"]);
}

/// What ends well is done, as its restart policy says; a file's owner is who is to read it; filters are Docker's.
const ONE: &str = r#"
services:
  once:
    image: busybox
    command: echo finished
  db:
    image: busybox
    command: ["nc", "-ll", "-p", "7000", "-e", "echo", "from the database"]
    expose: ["7000"]
    stop_signal: SIGKILL
  reader:
    image: busybox
    user: "1000:1000"
    command: httpd -f -p 8000 -h /run/secrets
    ports: ["8082:8000", "127.0.0.1:8083:8000"]
    secrets: [{source: key, target: own, mode: 0400, uid: "1000", gid: "1000"}]
    extra_hosts: ["gateway:host-gateway"]
    stop_signal: SIGKILL
  open:
    image: busybox
    command: sleep 1000
    security_opt: ["seccomp=unconfined"]
    stop_signal: SIGKILL
secrets:
  key: {file: ./key}
"#;

/// A project that has nothing to do with it, and one of whose services joins its network.
const OTHER: &str = r#"
services:
  stranger: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}
  guest: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, networks: [default, one]}
networks:
  one: {name: one_default, external: true}
"#;

#[test]
fn y09_projects_are_apart_unless_they_share_a_network() {
    let Some(dev) = Dev::new() else { return };
    bring(&dev, "busybox.tar");
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in [("one.yaml", ONE), ("other.yaml", OTHER)] {
        std::fs::write(folder.path().join(name), text).expect("a file");
    }
    std::fs::write(folder.path().join("key"), "s3cret").expect("a file");
    let dir = folder.path().display().to_string();
    let run = |line: &str, code: i32, expect: &[&str]| check(&dev, &line.replace("DIR", &dir), code, expect);
    run("infra --http-port 8081", 0, &["the engine runs"]);
    run("deploy -f DIR/one.yaml -p one", 0, &["url = http://localhost:8083"]);
    run("deploy -f DIR/other.yaml -p other", 0, &["+ Namespace other"]);

    run("ps", 0, &["one.once.1", "Completed"]);
    run("logs one.once", 0, &["finished"]);
    run("exec one.reader -- cat /run/secrets/own", 0, &["s3cret"]);
    run("exec one.reader -- stat -L -c %a:%u:%g /run/secrets/own", 0, &["400:1000:1000"]);
    run("exec one.reader -- grep gateway /etc/hosts", 0, &["gateway"]);
    run("exec one.reader -- grep Seccomp: /proc/1/status", 0, &["2"]);
    run("exec one.open -- grep Seccomp: /proc/1/status", 0, &["0"]);

    run("exec one.reader -- nc -w 5 db 7000", 0, &["from the database"]);
    run("exec other.guest -- nc -w 5 db.one 7000", 0, &["from the database"]);
    run("exec other.guest -- nc -w 5 db 7000", 0, &["from the database"]);
    run("exec other.stranger -- nc -w 5 db.one 7000", 1, &["!from the database"]);
    // What is published is there for everybody.
    run("exec other.stranger -- wget -qO- http://reader.one:8000/own", 0, &["s3cret"]);
    run("down one", 0, &["- NetworkPolicy network-default"]);
    run("down other", 0, &[]);
}

#[test]
fn the_example_counts_its_visits() {
    let Some(dev) = Dev::new() else { return };
    bring(&dev, "redis.tar");
    let app = example("compose");
    let dir = app.path().display().to_string();
    check(
        &dev,
        &format!("dev -d {dir} -p visits"),
        0,
        &["http://visits.localhost:8080", "http://localhost:8000"],
    );
    // Redis has no probe: it may start to answer a moment after it is running.
    dev.until("a visit is counted", || {
        dev.curl(&["http://localhost:8000/"]).starts_with("visit ").then_some(())
    });
    dev.until("the router leads there, too", || {
        dev.curl(&["http://visits.localhost:8080/"]).starts_with("visit ").then_some(())
    });
    check(&dev, "dev destroy", 0, &["nothing is left"]);
}
